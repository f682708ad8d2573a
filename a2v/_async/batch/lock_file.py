"""The lock file of a journal, which also has room for one note.

The lock lasts as long as the process that holds it, however that ends. The note is for the case that a video was submitted
and the journal cannot be written: its blocks are allocated in advance, so it can be stored on a full disk.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from a2v.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NOTE_SIZE = 4096
_CLOSED = -1
# What a planted link or named pipe would do: overwrite another file, or block for ever. Windows has neither flag.
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class LockFile:
    """The file beside a journal: it is locked while a batch runs, and stores one note when the disk is full.

    Args:
        journal: The journal's path, which is in the messages of errors.

    Raises:
        JournalError: Another process holds the lock, or the file cannot be locked.
        OSError: The file cannot be opened or written.
    """

    def __init__(self, journal: Path) -> None:
        self.path = _path_of(journal)
        self._journal = journal
        self._file = _CLOSED

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        try:
            self._lock()
            if os.fstat(self._file).st_size < _NOTE_SIZE:
                self.clear()
        except BaseException:
            self.close()
            raise
        _open_files.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. A forked child, which inherits the file, calls this too; it does not release the parent's lock."""
        _open_files.discard(self)
        file, self._file = self._file, _CLOSED
        if file != _CLOSED:
            os.close(file)

    def note(self, facts: Mapping[str, str]) -> bool:
        """Store a note; return whether that worked."""
        try:
            self._write(json.dumps(facts))
        except OSError:
            return False
        return True

    def read(self) -> dict[str, str] | None:
        """The note that was stored and not cleared since.

        Raises:
            JournalError: The file holds something else.
        """
        os.lseek(self._file, 0, os.SEEK_SET)
        return _parsed(self.path, os.read(self._file, _NOTE_SIZE))

    def clear(self) -> None:
        """Remove the note, and allocate the blocks for the next one."""
        self._write("")

    def _open(self) -> int:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise JournalError(f"{self.path} is a symbolic link; remove it") from None
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise JournalError(f"{self.path} is not a regular file; remove it")
        return file

    def _lock(self) -> None:
        try:
            _lock(self._file)
        except BlockingIOError:
            # Two processes would submit the same jobs.
            raise JournalError(f"this batch is already running: another process works on {self._journal}") from None
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be locked ({error.strerror}): this file system does not support locks. "
                "Put the journal on another one with journal=PATH"
            ) from None

    def _write(self, text: str) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, text.encode().ljust(_NOTE_SIZE))
        sync(self._file)


_open_files: WeakSet[LockFile] = WeakSet()


def _after_fork() -> None:  # pragma: no cover  # runs in forked children only
    # The lock belongs to the open file, which parent and child share: it would last until all children have ended.
    for side in list(_open_files):
        side.close()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork)


def is_in_use(journal: Path) -> bool:
    """Whether a batch is running with a journal, in this process or in another one."""
    try:
        file = os.open(_path_of(journal.resolve()), os.O_RDWR | _CAREFULLY)
    except OSError:
        return False
    try:
        _lock(file)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    else:
        return False
    finally:
        os.close(file)


def read_note(journal: Path) -> dict[str, str] | None:
    """The note beside a journal, without the lock: for readers that change nothing.

    Raises:
        JournalError: The file holds something else, or cannot be read.
    """
    path = _path_of(journal)
    try:
        file = os.open(path, os.O_RDONLY | _CAREFULLY)
        try:
            noted = os.read(file, _NOTE_SIZE)
        finally:
            os.close(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from None
    return _parsed(path, noted)


def _parsed(path: Path, noted: bytes) -> dict[str, str] | None:
    if not noted.strip():
        return None
    try:
        facts = json.loads(noted)
        note = {name: facts[name] for name in ("identity", "video_id")}
    except (ValueError, TypeError, KeyError, RecursionError):
        note = {}
    if not note or not all(isinstance(value, str) and _is_text(value) for value in note.values()):
        raise JournalError(f"{path} is damaged: it should name a video that was submitted, or be empty")
    return note


def _path_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.lock")


def _is_text(value: str) -> bool:
    return bool(value) and value.isprintable()


def sync(file: int) -> None:
    """Have a file's content survive a power cut."""
    if sys.platform == "darwin":  # pragma: no cover
        import fcntl  # noqa: PLC0415  # of POSIX only

        # There fsync leaves the content in the drive's cache.
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fsync(file)


def _lock(file: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt  # noqa: PLC0415  # of this system only

        os.lseek(file, _NOTE_SIZE, os.SEEK_SET)  # behind the note, for what is locked cannot be read
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
    else:
        import fcntl  # noqa: PLC0415  # of the others only

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
