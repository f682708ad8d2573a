"""The data folder and its files: nobody else may read them, none is a link, and what is written is on the disk."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OURS = {"audio", "recordings", "token", "videos", "work"}
_OURS_BEGIN = ("tasks.sqlite3", "token.")


def open_data_folder(path: Path) -> Path:
    """Make the data folder, and close it to other users.

    An existing folder that holds other things too, a home folder for instance, keeps its mode. The engine's files in it are
    private all the same.

    Returns:
        The folder, as an absolute path without links.

    Raises:
        ConfigurationError: It cannot be made or read.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()
        if all(entry.name in _OURS or entry.name.startswith(_OURS_BEGIN) for entry in path.iterdir()):
            _chmod(path, 0o700)
        if (path / "recordings").exists():  # from the command line's --local
            ensure_private_folder(path / "recordings")
    except OSError as error:
        raise ConfigurationError(f"the data folder {str(path)!r} cannot be made: {error.strerror}") from None
    return path


def ensure_private_folder(path: Path) -> None:
    """Make a folder that only this user can read, with its files; an existing one is closed to others.

    Raises:
        ConfigurationError: A link or a file is in its place.
        OSError: It cannot be made.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise ConfigurationError(f"{str(path)!r} must be a folder and not a link to one: remove it")
    _chmod(path, 0o700)
    for file in path.iterdir():
        mode = file.lstat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            _chmod(file, 0o600)


def ensure_private_file(path: Path, *, make: bool) -> None:
    """Check a file before other code opens it by its name, and close it to other users.

    An existing file is not opened for that: closing it would take away the locks that this process holds on it.

    Args:
        path: The file.
        make: Whether to make it if it does not exist.

    Raises:
        ConfigurationError: A link, pipe or folder is in its place.
        OSError: It cannot be made.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if make:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{str(path)!r} must be a file and not a link, pipe or folder: remove it")
    _chmod(path, 0o600)


def _chmod(path: Path, mode: int) -> None:
    if os.name == "posix":
        with _not_everywhere(errno.EPERM, errno.EROFS):
            path.chmod(mode)


def move_durably(made: Path, place: Path) -> None:
    """Give a complete file its name, durably and readable for this user only; also if an earlier try failed half-way.

    Raises:
        OSError: That is not possible just now, or there is no such file.
    """
    if made.exists() or not place.exists():
        with made.open("rb+") as file:
            _sync(file.fileno())
        _chmod(made, 0o600)
        made.replace(place)
    if os.name == "posix":
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            with _not_everywhere(errno.EINVAL):
                _sync(folder)
        finally:
            os.close(folder)


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # not on Windows

        # There fsync leaves the data in the disk's own cache, which a power cut empties.
        with _not_everywhere():
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


@contextmanager
def _not_everywhere(*numbers: int) -> Iterator[None]:
    """Some file systems have no rights, cannot sync folders, or know no full sync."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*numbers, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY):
            raise
