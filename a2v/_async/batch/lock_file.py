"""The lock file of a journal, which also stores a recovery record.

The lock is an advisory lock of the operating system, which ends with the process that holds it. So a killed process
leaves no stale lock, unlike a file with a process id. A forked child inherits the open file, and with it the lock, so it
closes its copy at once; otherwise the lock would last until all children have ended.

The recovery record covers one case: a video was submitted, or a speech was made, and the disk is too full to write the journal.
The blocks of the lock file are allocated when it is created, so one record can be written even then. Opening the journal copies the
record into it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from attrs import field, frozen

from a2v._async.destination import sync
from a2v.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

_RECORD_SIZE = 4096  # bytes
_CLOSED = -1
# Protection from planted files: do not follow a symbolic link, or block on a named pipe. Windows has neither flag.
_SAFE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@frozen
class RecoveryRecord:
    """The result of a submission that could not be recorded in the journal.

    Attributes:
        identity: The job's key in the journal.
        result: The ``video_id``, or the URL of the speech that was made from the job's text.
        is_speech: Whether ``result`` is the URL of a speech.
    """

    identity: str
    # The URL of a speech may be signed.
    result: str = field(repr=False)
    is_speech: bool = False


class LockFile:
    """The lock file of a journal: a context manager that holds the lock.

    Args:
        journal: The path of the journal.

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
            if os.fstat(self._file).st_size < _RECORD_SIZE:
                self.clear_record()
        except BaseException:
            self.close()
            raise
        _open_files.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. This releases the lock unless a parent or a forked child of this process has the file open too."""
        _open_files.discard(self)
        file, self._file = self._file, _CLOSED
        if file != _CLOSED:
            os.close(file)

    def write_record(self, record: RecoveryRecord) -> bool:
        """Store the recovery record, and return whether that succeeded."""
        key = "speech" if record.is_speech else "video_id"
        text = json.dumps({"identity": record.identity, key: record.result})
        if len(text) > _RECORD_SIZE:
            return False
        try:
            self._write(text)
        except OSError:
            return False
        return True

    def read_record(self) -> RecoveryRecord | None:
        """Return the recovery record, if there is one.

        Raises:
            JournalError: The file has other content.
        """
        os.lseek(self._file, 0, os.SEEK_SET)
        return _parse(self.path, os.read(self._file, _RECORD_SIZE))

    def clear_record(self) -> None:
        """Remove the recovery record, and allocate the blocks for the next one."""
        self._write("")

    def _open(self) -> int:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | _SAFE_FLAGS, 0o600)
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
            # Both processes would submit, and pay for, the same jobs.
            raise JournalError(f"this batch is already running: another process is using {self._journal}") from None
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be locked ({error.strerror}): this file system does not support locks. "
                "Put the journal on another one with journal=PATH"
            ) from None

    def _write(self, text: str) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, text.encode().ljust(_RECORD_SIZE))
        sync(self._file)


_open_files: WeakSet[LockFile] = WeakSet()


def _after_fork() -> None:  # pragma: no cover  # runs in forked children only
    for lock_file in list(_open_files):
        lock_file.close()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork)


def is_in_use(journal: Path) -> bool:
    """Return whether a batch is running with a journal, in this process or in another one."""
    try:
        file = os.open(_path_of(journal.resolve()), os.O_RDWR | _SAFE_FLAGS)
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


def read_recovery_record(journal: Path) -> RecoveryRecord | None:
    """Return the recovery record of a journal, without taking the lock.

    Raises:
        JournalError: The lock file has other content, or cannot be read.
    """
    path = _path_of(journal)
    try:
        file = os.open(path, os.O_RDONLY | _SAFE_FLAGS)
        try:
            content = os.read(file, _RECORD_SIZE)
        finally:
            os.close(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from None
    return _parse(path, content)


def _parse(path: Path, content: bytes) -> RecoveryRecord | None:
    if not content.strip():
        return None
    try:
        facts = json.loads(content)
        is_speech = "speech" in facts
        values = [facts["identity"], facts["speech" if is_speech else "video_id"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        is_speech, values = False, []
    if not values or not all(isinstance(value, str) and value and value.isprintable() for value in values):
        raise JournalError(f"{path} is damaged: it should name a video that was submitted, or be empty")
    identity, result = values
    return RecoveryRecord(identity, result, is_speech)


def _path_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.lock")


def _lock(file: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt  # noqa: PLC0415  # only on Windows

        os.lseek(file, _RECORD_SIZE, os.SEEK_SET)  # after the record: locked bytes cannot be read
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
    else:
        import fcntl  # noqa: PLC0415  # only on POSIX

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
