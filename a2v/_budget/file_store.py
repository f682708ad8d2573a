"""A shared budget in a file, for the processes of one machine.

The file starts with a line that names the format, the generation and the boot of the machine. The entries follow, each after
its length. An exclusive lock of the operating system is held for each exchange, a fraction of a millisecond, and ends with
the process that holds it. An entry that a killed process has written in part is overwritten by the next one.

The file is opened for each exchange. An open file would be inherited by forked processes, together with its lock, and would
no longer be the one at the path after that was deleted. Opening it costs a few microseconds.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

from a2v._budget.store import FORMAT, Append, Exchanged, Position, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_LENGTH = struct.Struct(">I")
_MAX_ENTRY = 2**28
_HEADER_SIZE = 128
# Against planted files: a symbolic link would lead to another file, a named pipe would block.
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
# Seconds to wait for the lock. Its holders need less than a millisecond, unless one of them was stopped.
_MAX_WAIT = 0.25
# Held during exchanges: a process that was forked in the middle of one would inherit the lock of the file, and keep it.
_no_fork = threading.RLock()
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"  # Linux


class FileStore:
    """A store in a file.

    Args:
        path: The file. It is created if it is missing.

    Attributes:
        path: The file.
        name: Its name in messages.
        blocks: Whether it may block.
        check_interval: Seconds between checks for new entries.
    """

    blocks: bool = False
    check_interval: float = 0.1

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.name: str = str(path)
        self._boot = _boot_id()
        # The header that was read last, with what it says.
        self._header = b""
        self._start_of_log = "", 0
        self._seen: tuple[Position, tuple[int, int]] | None = None

    def now(self) -> float:
        """See ``Store``."""
        return time.monotonic()  # the same in all processes of a machine

    def has_changed(self, position: Position) -> bool:
        """See ``Store``."""
        if self._seen is None or self._seen[0] != position:
            return True
        try:
            status = os.lstat(self.path)
        except OSError:
            return True
        return self._seen[1] != (status.st_ino, status.st_size)

    def exchange(self, position: Position, entries: Sequence[bytes], append: Append = Append.ALWAYS) -> Exchanged:
        """See ``Store``."""
        try:
            with _no_fork:
                file = open_private(self.path, create=True)
                try:
                    _lock(file)
                    return self._exchange(file, position, entries, append)
                finally:
                    os.close(file)  # which releases the lock
        except OSError as error:
            raise StoreUnavailableError(error.strerror or str(error)) from None

    def listen(self, listener: Callable[[], object]) -> None:
        """See ``Store``. A file has no listeners."""

    def _exchange(self, file: int, position: Position, entries: Sequence[bytes], append: Append) -> Exchanged:
        generation, start = self._read_header(file)
        status = os.fstat(file)
        if generation == position.generation and position.offset > status.st_size:
            # Another program has truncated it. Its clients would never agree again about the entries.
            generation, start = self._start(file)
            status = os.fstat(file)
        is_known = generation == position.generation
        offset = position.offset if is_known else start
        found, end = _read_entries(file, offset, status.st_size)
        is_at_end = is_known and end == offset
        if entries and (is_at_end if append is not Append.ALWAYS else is_known):
            if append is Append.RESTART:
                generation, end = self._start(file)
                found = []
            elif end < status.st_size:
                os.ftruncate(file, end)  # what a killed process has written in part
            content = b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)
            _write(file, content, end)
            end += len(content)
            found = [*found, *entries]
        reached = Position(generation, end)
        self._seen = reached, (status.st_ino, end)
        return Exchanged(reached, found)

    def _read_header(self, file: int) -> tuple[str, int]:
        """Return the generation, and where the entries start. Start the log if there is none, or if it is from before a reboot."""
        content = os.pread(file, _HEADER_SIZE, 0)
        if self._header and content.startswith(self._header):
            return self._start_of_log
        line = content.partition(b"\n")[0]
        words = line.decode("ascii", "replace").split(" ")
        known = FORMAT.split(" ")
        if content and words[:2] != known[:2] and not FORMAT.encode().startswith(line):
            raise StoreUnavailableError("the file is not a budget of a2v; choose another path")
        if len(words) >= 3 and words[2] != known[2] and b"\n" in content:
            raise StoreUnavailableError("it is in use by another version of a2v; use the same version everywhere")
        if len(words) != 5 or words[4] != self._boot or b"\n" not in content:
            return self._start(file)
        self._header, self._start_of_log = line + b"\n", (words[3], len(line) + 1)
        return self._start_of_log

    def _start(self, file: int) -> tuple[str, int]:
        generation = secrets.token_hex(16)
        header = f"{FORMAT} {generation} {self._boot}\n".encode()
        os.ftruncate(file, 0)
        _write(file, header, 0)
        return generation, len(header)


def open_private(path: Path, *, create: bool) -> int:
    """Open a file that no other user can write.

    Raises:
        OSError: It cannot be opened.
        StoreUnavailableError: It is not a file, or other users can write it.
    """
    try:
        file = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreUnavailableError("it is a symbolic link; remove it") from None
        raise
    if problem := _access_problem(os.fstat(file)):
        os.close(file)
        raise StoreUnavailableError(problem)
    return file


def _access_problem(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file; remove it"
    if status.st_uid != os.geteuid():
        return "it belongs to another user; choose another path"
    return "other users can write it; run chmod 600 on it" if status.st_mode & 0o022 else None


def _lock(file: int) -> None:
    import fcntl  # noqa: PLC0415  # only on POSIX

    deadline = time.monotonic() + _MAX_WAIT
    pause = 0.0
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnavailableError("another process has locked it and does not release it") from None
        else:
            return
        time.sleep(pause)
        pause = min(0.002, pause + 0.0001)


def _read_entries(file: int, offset: int, size: int) -> tuple[list[bytes], int]:
    """Return the complete entries from an offset on, and where the next one is to be written."""
    content = os.pread(file, size - offset, offset) if size > offset else b""
    entries: list[bytes] = []
    start = 0
    while len(content) >= start + _LENGTH.size:
        (length,) = _LENGTH.unpack_from(content, start)
        end = start + _LENGTH.size + length
        if not 0 < length < _MAX_ENTRY or end > len(content):
            break
        entries.append(content[start + _LENGTH.size : end])
        start = end
    return entries, offset + start


def _write(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _boot_id() -> str:
    """Return a name of the machine's current boot, which begins a new clock."""
    if sys.platform != "linux":  # pragma: no cover
        return "-"
    try:
        with open(_BOOT_ID, encoding="ascii") as file:  # noqa: PTH123  # os.open needs no pathlib either
            return file.read().strip() or "-"
    except OSError:
        return "-"
