"""What the engine does while the machine lacks something: file descriptors, memory, disk space, processes.

None of that is the fault of a task, and none of it lasts for ever. ``exhaustion_reason`` tells such an error from others. While a
``ResourceMonitor`` lasts, nothing new is started and nothing is accepted. A probe, which opens files, writes to the disk and the
database, and starts a process, is repeated after a pause until it succeeds. The pause doubles from 1 s to 60 s, and is 1 s
again only after a task was finished, because a probe needs less than a render does.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from typing import TYPE_CHECKING

import anyio

from a2v.engine.errors import ResourceExhaustedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

logger: logging.Logger = logging.getLogger("a2v.engine")

INITIAL_BACKOFF = 1.0
MAX_BACKOFF = 60.0
LOG_INTERVAL = 60.0
"""A shortage is logged at most once in that time."""

OUT_OF_MEMORY = "the machine is out of memory"
_DESCRIPTORS = "too many files are open"
_DISK, _PROCESSES = "the disk cannot be used", "no process can be started"
_REASONS = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOMEM: OUT_OF_MEMORY,
    errno.ENOBUFS: OUT_OF_MEMORY,
    errno.EAGAIN: _PROCESSES,
    errno.ENOSPC: _DISK,
    errno.EIO: _DISK,
    errno.EROFS: _DISK,
    errno.EFBIG: _DISK,
} | ({errno.EDQUOT: _DISK} if hasattr(errno, "EDQUOT") else {})
_NO_THREAD = "can't start new thread"


def exhaustion_reason(error: BaseException) -> str | None:
    """What the machine lacks, if that is what an error, or one that caused it, says; never a path or a URL."""
    return next(filter(None, map(_reason, _with_causes(error))), None)


def _reason(error: BaseException) -> str | None:
    if isinstance(error, ResourceExhaustedError):
        return str(error)
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return _PROCESSES
    if isinstance(error, sqlite3.DatabaseError):
        # Misuse has other classes. What is left is the disk, the file on it, or memory.
        is_misuse = isinstance(error, (sqlite3.DataError, sqlite3.NotSupportedError, sqlite3.ProgrammingError))
        return None if is_misuse else f"the database cannot be used ({error})"
    # The numbers of `gaierror` are not those of `errno`.
    number = getattr(error, "errno", None) if type(error).__name__ not in ("gaierror", "herror") else None
    return f"{_REASONS[number]} ({os.strerror(number)})" if number in _REASONS else None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # Also a context that is suppressed: httpcore does that to the errors of the system.
        waiting += [one.__cause__, one.__context__]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


class ResourceMonitor:
    """Whether the machine lacks something just now.

    Args:
        probe: Finds out; raises an error that ``exhaustion_reason`` knows if something is still lacking.

    Attributes:
        reason: What is lacking; ``None`` if nothing is.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self.exhausted: str | None = None
        self._probe = probe
        self._pause = INITIAL_BACKOFF
        self._begun, self._over = anyio.Event(), anyio.Event()
        self._log = LogThrottle()
        self._is_logged = False

    def report(self, reason: str) -> None:
        """From now on something is lacking."""
        if self.exhausted is None:
            self._begun.set()
        self.exhausted = reason
        if self._log.is_due():
            self._is_logged = True
            logger.error("%s; nothing is started or accepted until that is over", reason)

    def reset_backoff(self) -> None:
        """A task was finished, so the next shortage is a new one."""
        self._pause = INITIAL_BACKOFF

    async def check(self) -> str | None:
        """The reason, if something is lacking; probes if that is not known yet."""
        return self.exhausted or await self._run_probe()

    async def _run_probe(self) -> str | None:
        try:
            await self._probe()
        except Exception as error:  # noqa: BLE001  # whatever it is, tasks would meet it too
            reason = exhaustion_reason(error) or f"the data folder cannot be used ({type(error).__name__})"
            self.report(reason)
            return reason
        return None

    async def wait_until_available(self) -> None:
        """Wait until nothing is lacking."""
        while self.exhausted is not None:
            await self._over.wait()

    async def run(self) -> None:
        """Find out when each shortage is over; never returns."""
        while True:
            await self._begun.wait()
            while True:
                await anyio.sleep(self._pause)
                self._pause = min(2 * self._pause, MAX_BACKOFF)
                if await self._run_probe() is None:
                    break
            self._end()

    def _end(self) -> None:
        over, self.exhausted = self._over, None
        self._begun, self._over = anyio.Event(), anyio.Event()
        over.set()
        if self._is_logged:
            self._is_logged = False
            logger.info("nothing is lacking any more")


class LogThrottle:
    """Says when something that happens often may be logged again."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next = float("-inf")

    def is_due(self) -> bool:
        """Whether it may be; counts as logged from then on."""
        now = self._now()
        if now < self._next:
            return False
        self._next = now + LOG_INTERVAL
        return True
