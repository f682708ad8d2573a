"""The file that a download ends up in, and the partial file that it grows in.

Nothing appears under the final name before it is whole. Until then the bytes are in a partial file in the same folder,
``.a2v-KEY.part``, whose short name fits wherever the final one does. A key that is remembered (by a batch's journal)
names a partial file that a later process completes; it is locked, so that two processes never write to it at once.
Folders may be shared with others: whatever stands under the partial file's name and is no plain file, such as a symbolic
link or a pipe, is removed and never opened.
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
"""What tells a file from all others on this machine, whatever its names are: its device and inode."""

# File systems without it answer so, such as some network mounts.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_APPEARED = "appeared meanwhile; pass overwrite=True to replace it"
_SPECIAL = "it is a device, a pipe or a socket, not a file"


@frozen
class Destination:
    """Where a file is to be saved.

    Attributes:
        path: Its absolute path, as the caller knows it. If that is a symbolic link, the file it leads to is written.
        overwrite: Whether a file that exists may be replaced.
        protected: Files that are never replaced, such as the recording that the video is made from.
        key: Names the partial file.
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
        """Make the folders on the way and check, before anything is paid for, that the file can be stored.

        Raises:
            DownloadError: It cannot, because of what is there.
            OSError: It cannot, because of the file system.
        """
        self._check("exists already; pass overwrite=True to replace it")
        folder = self._target.parent
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise DownloadError(f"the folder {folder} is not writable")
        _status(self.part)  # raises if this name is one that the file system does not take

    def complete(self) -> None:
        """Give the whole file its name.

        Raises:
            DownloadError: Something that may not be replaced has appeared there.
            OSError: The file system refuses.
        """
        self._check(_APPEARED)
        if self.overwrite or not self._link():
            self.part.replace(self._target)
        _sync_folder(self._target.parent)

    def _link(self) -> bool:
        """Rename without replacing what appears at the last moment; tell whether the file system can do that."""
        try:
            self._target.hardlink_to(self.part)
        except FileExistsError:
            raise DownloadError(f"{self.path} {_APPEARED}") from None
        except OSError:
            return False
        with suppress(OSError):
            self.part.unlink()
        return True

    def _check(self, problem: str) -> None:
        status = _status(self._target) or _followed(self.path)
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


def _followed(path: Path) -> os.stat_result | None:
    """What a path leads to. ``/dev/stdout`` may lead to a pipe, which has no path of its own."""
    with suppress(OSError):
        return path.stat()
    return None


def file_ids(paths: Iterable[Path | None]) -> frozenset[FileId]:
    """What tells these files from others; those that do not exist are left out."""
    found: set[FileId] = set()
    for path in paths:
        with suppress(OSError, ValueError):  # the URL of a recording may come to a NUL character
            if path:
                status = path.stat()
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


class PartialFile:
    """A partial file that is open for writing.

    It is opened in a thread, and closed even if that thread is left at work, as asyncio's own cancellation does.

    Args:
        path: Where it is.
        keep: Whether to go on with a file that is there. Otherwise there must be none.

    Attributes:
        path: Where it is.
        owned: Whether the file on disk is this object's, which may remove it.
    """

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self._keep = keep
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._over = False
        self.owned = False

    @property
    def file(self) -> BinaryIO:
        """The open file."""
        assert self._file is not None  # noqa: S101  # for the type checkers: `open` comes first
        return self._file

    def open(self) -> None:
        """Open it.

        Raises:
            DownloadError: Another process writes to it.
            OSError: It cannot be opened.
        """
        with self._lock:
            if self._over:  # pragma: no cover  # only if a cancellation leaves the thread at work
                raise InterruptedError
            if self._keep:
                _remove_unless_plain(self.path)
            self._file = open(self.path, "r+b" if self._keep else "x+b", opener=_opener)  # noqa: SIM115  # closed by `close`
            if not _locked(self._file):
                raise DownloadError(f"another process writes to {self.path}; try again when it has ended")
            self.owned = True

    def settle(self, size: int) -> None:
        """Put what was written on the disk.

        Args:
            size: How many bytes were written.

        Raises:
            DownloadError: It holds something else than what was written.
            OSError: The disk is full, or fails.
        """
        self.file.flush()
        sync(self.file.fileno())
        mine, there = os.fstat(self.file.fileno()), _status(self.path)
        if there is None or (mine.st_size, mine.st_dev, mine.st_ino) != (size, there.st_dev, there.st_ino):
            raise DownloadError(f"the video could not be stored: another program has changed {self.path}")

    def close(self) -> None:
        """Close it; what it holds stays."""
        with self._lock:
            self._over = True
            # On a full disk closing fails too, for the buffer cannot be written; what is wanted was flushed by then.
            with suppress(OSError):
                if self._file:
                    self._file.close()


def sync(descriptor: int) -> None:
    """Have the disk write a file, if the file system can do that."""
    try:
        if sys.platform == "darwin":  # pragma: no cover
            import fcntl  # noqa: PLC0415  # of POSIX only

            # fsync alone leaves the data in the disk's own cache there.
            with suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Have the disk remember a file's new name. The file is whole: that this fails is worth a word and no more."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
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
    """What stands under a name, itself and not what it leads to."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _remove_unless_plain(path: Path) -> None:
    status = _status(path)
    if status and (not stat.S_ISREG(status.st_mode) or status.st_nlink > 1):
        path.unlink()


def _opener(path: str, flags: int) -> int:
    """Create the file if need be, and follow no link and wait for no pipe that somebody has put there meanwhile."""
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _SPECIAL, path)
    return descriptor


def _locked(file: BinaryIO) -> bool:
    """Lock a file until it is closed; tell whether it is this process's now. Where there are no locks it always is."""
    if sys.platform != "win32":  # pragma: no branch
        import fcntl  # noqa: PLC0415  # of POSIX only

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True
