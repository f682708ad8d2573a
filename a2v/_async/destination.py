"""The destination of a download, and the partial file that is written first.

The final name appears only when the file is complete. Until then, the bytes are in ``.a2v-KEY.part`` in the same folder, a
name that is short enough for every file system. If the key is stored, as in the journal of a batch, a later
process can resume the partial file. The partial file is locked, so two processes never write to it at the same time.

The folder may be shared with other users. If the name of the partial file is taken by something other than a regular file, such as
a symbolic link or a pipe, it is removed and never opened.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import Factory, field, frozen

from a2v._async.requests import telemetry
from a2v.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterable

FileId = tuple[int, int]
"""Identifies a file on this machine regardless of its name: device and inode."""

# The errors of file systems that cannot sync, such as some network mounts.
_SYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_APPEARED = "appeared meanwhile; pass overwrite=True to replace it"
_SPECIAL = "it is a device, a pipe or a socket, not a file"


@frozen
class Destination:
    """The target of a download.

    Attributes:
        path: The absolute path, as spelled by the caller. If it is a symbolic link, its target is written.
        overwrite: Whether an existing file may be replaced.
        protected: Files that are never replaced, such as the recording of the video; none by default.
        key: The variable part of the partial file's name; random by default.
    """

    path: Path
    overwrite: bool
    protected: frozenset[FileId] = frozenset()
    key: str = field(factory=lambda: secrets.token_hex(8))
    _target: Path = field(init=False, default=Factory(lambda self: Path(os.path.realpath(self.path)), takes_self=True))

    @property
    def part(self) -> Path:
        """The path of the partial file."""
        return self._target.with_name(f".a2v-{self.key}.part")

    def prepare(self) -> None:
        """Create the parent folders and check that the file can be stored, before anything is paid for.

        Raises:
            DownloadError: The path is taken or protected.
            OSError: The file system reports an error.
        """
        self._check_replaceable("exists already; pass overwrite=True to replace it")
        folder = self._target.parent
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise DownloadError(f"the folder {folder} is not writable")
        _status(self.part)  # raises an error if the file system does not support the name

    def complete(self) -> None:
        """Rename the partial file to the final name.

        Raises:
            DownloadError: A file that must not be replaced has appeared at the path.
            OSError: The file system reports an error.
        """
        self._check_replaceable(_APPEARED)
        if self.overwrite or not self._link():
            self.part.replace(self._target)
        _sync_folder(self._target.parent)

    def _link(self) -> bool:
        """Rename with a hard link, which never replaces a file; return False if the file system has no hard links."""
        try:
            self._target.hardlink_to(self.part)
        except FileExistsError:
            raise DownloadError(f"{self.path} {_APPEARED}") from None
        except OSError:
            return False
        with suppress(OSError):
            self.part.unlink()
        return True

    def _check_replaceable(self, problem: str) -> None:
        status = _status(self._target) or _status_of_target(self.path)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            raise DownloadError(f"{self.path} is a folder; give the name of a file in it")
        if stat.S_ISLNK(status.st_mode):
            raise DownloadError(f"{self.path} is a symbolic link that leads in a circle")
        if not stat.S_ISREG(status.st_mode):
            raise DownloadError(f"{self.path} cannot be replaced by a video: {_SPECIAL}")
        if (status.st_dev, status.st_ino) in self.protected:
            raise DownloadError(
                f"{self.path} is a file that this video or batch needs, such as its recording; save the video elsewhere"
            )
        if not self.overwrite:
            raise DownloadError(f"{self.path} {problem}")


def _status_of_target(path: Path) -> os.stat_result | None:
    """Return the status of the file that a path points to. It may have no path: ``/dev/stdout`` may be a pipe."""
    with suppress(OSError):
        return path.stat()
    return None


def file_ids(paths: Iterable[Path | None]) -> frozenset[FileId]:
    """Return the ids of the existing files."""
    found: set[FileId] = set()
    for path in paths:
        with suppress(OSError, ValueError):  # a recording's URL may contain an encoded NUL character
            if path:
                status = path.stat()
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


class PartialFile:
    """A partial file that is open for writing.

    It is opened in a thread. asyncio's own cancellation (``Task.cancel``) may abandon that thread, so ``close`` also works before
    ``open`` has finished.

    Args:
        path: The path.
        keep: Whether to open an existing file; otherwise, the file must not exist.

    Attributes:
        path: The path.
        owned: Whether this object has opened and locked the file, and so may remove it.
    """

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self._keep = keep
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._closed = False
        self.owned = False

    @property
    def file(self) -> BinaryIO:
        """The open file."""
        assert self._file is not None  # noqa: S101  # for type checkers: `open` comes first
        return self._file

    def open(self) -> None:
        """Open and lock the file.

        Raises:
            DownloadError: Another process is writing to it.
            OSError: The file cannot be opened.
        """
        with self._lock:
            if self._closed:  # pragma: no cover  # only if a cancellation has abandoned the thread
                raise InterruptedError
            if self._keep:
                _remove_unless_regular(self.path)
            self._file = open(self.path, "r+b" if self._keep else "x+b", opener=_opener)  # noqa: SIM115  # closed by `close`
            if not _lock(self._file):
                raise DownloadError(f"another process is writing to {self.path}; try again when it has ended")
            self.owned = True

    def sync(self, size: int) -> None:
        """Flush the file to disk, and check that no other program has replaced or truncated it.

        Args:
            size: The expected size in bytes.

        Raises:
            DownloadError: Another program has changed the file.
            OSError: The disk is full or has failed.
        """
        self.file.flush()
        sync(self.file.fileno())
        opened, found = os.fstat(self.file.fileno()), _status(self.path)
        if found is None or (opened.st_size, opened.st_dev, opened.st_ino) != (size, found.st_dev, found.st_ino):
            raise DownloadError(f"the video could not be stored: another program has changed {self.path}")

    def close(self) -> None:
        """Close the file; it stays on disk."""
        with self._lock:
            self._closed = True
            # On a full disk, closing fails too, because it flushes the buffer. A complete file was already flushed.
            with suppress(OSError):
                if self._file:
                    self._file.close()


def sync(descriptor: int) -> None:
    """Flush a file to disk, if the file system supports that."""
    try:
        if sys.platform == "darwin":  # pragma: no cover
            import fcntl  # noqa: PLC0415  # POSIX only

            # On macOS, fsync leaves the data in the disk's own cache.
            with suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _SYNC_UNSUPPORTED:
            raise


def _sync_folder(folder: Path) -> None:
    """Flush the new name of a file to disk. A failure is only logged, because the file itself is complete."""
    if os.name != "posix":  # folders cannot be opened
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        telemetry.logger.warning(
            "folder %s: cannot be synced (%s); a saved file may be lost in a power cut", folder, error
        )


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a path without following symbolic links, or ``None`` if nothing is there."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _remove_unless_regular(path: Path) -> None:
    status = _status(path)
    if status and (not stat.S_ISREG(status.st_mode) or status.st_nlink > 1):
        path.unlink()


def _opener(path: str, flags: int) -> int:
    """Open or create a regular file. Do not follow a link or block on a pipe that has just appeared at the path."""
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _SPECIAL, path)
    return descriptor


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; return False if another process has locked it. Does nothing if there is no support for locks."""
    if sys.platform != "win32":  # pragma: no branch
        import fcntl  # noqa: PLC0415  # POSIX only

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True
