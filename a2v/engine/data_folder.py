"""The data folder and its files: private to the engine's user, never links, and durable once they have their final name."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "tasks.sqlite3"
_FOLDERS = ("audio", "recordings", "speeches", "uploads", "videos", "work")
_OWN_FILES = (DATABASE, "token")  # and files whose names begin like these


def check_data_folder(path: Path) -> None:
    """Check, without changing anything, that a data folder has no folders of others that the engine would take for its own.

    The engine deletes leftovers in its folders, whose names are as common as ``videos`` and ``work``. It makes its database before
    them, so without a database they are not its own.

    Raises:
        ConfigurationError: There is such a folder.
    """
    if not os.path.lexists(path / DATABASE) and (taken := [name for name in _FOLDERS if os.path.lexists(path / name)]):
        raise ConfigurationError(
            f"data_dir: {str(path)!r} has {' and '.join(map(repr, taken))}, not made by an engine, which would delete files there: "
            f"choose another folder, such as {str(path / 'a2v-data')!r}"
        )


def remove_data_folder(path: Path) -> None:
    """Delete the engine's files in a data folder, and the folder if there are no others.

    Raises:
        OSError: A file cannot be deleted.
    """
    for entry in list(path.iterdir()):
        if entry.name in _FOLDERS:
            shutil.rmtree(entry)
        elif entry.name.startswith(_OWN_FILES):
            entry.unlink()
    if not any(path.iterdir()):
        path.rmdir()


def open_data_folder(path: Path) -> Path:
    """Create the data folder, and make it private.

    An existing folder with other contents, such as a home folder, keeps its mode; the engine's files in it are private anyway.

    Returns:
        The absolute path, with links resolved.

    Raises:
        ConfigurationError: The folder cannot be created or read, or has folders of others that the engine would take for its own.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()
        check_data_folder(path)
        ensure_private_file(path / DATABASE, create=True)
        if all(entry.name in _FOLDERS or entry.name.startswith(_OWN_FILES) for entry in path.iterdir()):
            _chmod(path, 0o700)
        if (path / "recordings").exists():  # from the command line's --local
            ensure_private_folder(path / "recordings")
    except (FileExistsError, NotADirectoryError):
        raise ConfigurationError(f"data_dir: {str(path)!r} is not a folder") from None
    except OSError as error:
        raise ConfigurationError(f"data_dir: {str(path)!r} cannot be used: {error.strerror}") from None
    return path


def ensure_private_folder(path: Path) -> None:
    """Create a folder that only this user can read, or make an existing one and its files private.

    Raises:
        ConfigurationError: The path is a link or a file.
        OSError: The folder cannot be created.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise ConfigurationError(f"{str(path)!r} must be a folder, not a link to one: remove it")
    _chmod(path, 0o700)
    for file in path.iterdir():
        mode = file.lstat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            _chmod(file, 0o600)


def ensure_private_file(path: Path, *, create: bool) -> None:
    """Make a file private before other code opens it by its name.

    An existing file is not opened: closing it would release the POSIX locks that this process holds on it.

    Args:
        path: The file.
        create: Whether to create it if it does not exist.

    Raises:
        ConfigurationError: The path is a link, pipe or folder.
        OSError: The file cannot be created.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if create:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{str(path)!r} must be a file, not a link, pipe or folder: remove it")
    _chmod(path, 0o600)


def _chmod(path: Path, mode: int) -> None:
    if os.name == "posix":
        with _ignore_unsupported(errno.EPERM, errno.EROFS):
            path.chmod(mode)


def move_durably(source: Path, target: Path) -> None:
    """Move a complete file to its final name, so that it survives a power cut; private to this user.

    After an error, the call can be repeated: if the file has already been moved, only the folder is synced.

    Raises:
        OSError: The file does not exist, or cannot be synced or moved.
    """
    if source.exists() or not target.exists():
        with source.open("rb+") as file:
            _sync(file.fileno())
        _chmod(source, 0o600)
        source.replace(target)
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            with _ignore_unsupported(errno.EINVAL):
                _sync(folder)
        finally:
            os.close(folder)


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # not on Windows

        # On macOS, fsync leaves the data in the disk's cache, which a power cut clears.
        with _ignore_unsupported():
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


@contextmanager
def _ignore_unsupported(*numbers: int) -> Iterator[None]:
    """Ignore errors of file systems that have no modes, cannot sync folders, or have no F_FULLFSYNC."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*numbers, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY):
            raise
