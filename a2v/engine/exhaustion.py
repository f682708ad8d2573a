"""Resource exhaustion: which errors mean that the machine has run out of a resource, and what the engine does about it.

File descriptors, memory, disk space and processes run out for every task at once and become available again, so no task
should fail because of them. Retrying each failed step on its own would not work: hundreds of tasks would retry against
the same full disk, and new tasks would still be accepted.

So there is one ``ResourceMonitor`` per engine, with two states. Normally ``exhausted`` is ``None``. Any code that meets an
error for which ``exhaustion_reason`` returns a reason calls ``report``. From then on tasks are requeued, ``video.generate``
rejects new ones, and every step that needs a resource waits in ``wait_until_available``. Only ``run`` ends this state. It probes the machine (open files, write to disk and database, start a process) until the probe succeeds,
with a backoff that doubles from 1 s to 60 s. A probe needs less than a render, so it may succeed too early; hence the
backoff restarts at 1 s only after a task has finished, not after a successful probe.
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

INITIAL_BACKOFF = 1.0  # seconds
MAX_BACKOFF = 60.0  # seconds
LOG_INTERVAL = 60.0
"""The minimum time in seconds between two log records of a ``LogThrottle``."""

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
_NO_THREAD_MESSAGE = "can't start new thread"


def exhaustion_reason(error: BaseException) -> str | None:
    """Return the resource whose exhaustion caused an error, or ``None`` if none did. The text never quotes a path or a URL."""
    return next(filter(None, map(_reason, _with_causes(error))), None)


def _reason(error: BaseException) -> str | None:
    if isinstance(error, ResourceExhaustedError):
        return str(error)
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD_MESSAGE:
        return _PROCESSES
    if isinstance(error, sqlite3.DatabaseError):
        # These classes are bugs in the caller; the others come from the disk, the database file or memory.
        is_misuse = isinstance(error, (sqlite3.DataError, sqlite3.NotSupportedError, sqlite3.ProgrammingError))
        return None if is_misuse else f"the database cannot be used ({error})"
    # `gaierror.errno` is an EAI_ number, which means something else in `errno`.
    number = getattr(error, "errno", None) if type(error).__name__ not in ("gaierror", "herror") else None
    return f"{_REASONS[number]} ({os.strerror(number)})" if number in _REASONS else None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes and contexts, and the members of groups, each once."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        # Suppressed contexts too: httpcore raises its errors `from None` and so hides the OSError.
        pending += [current.__cause__, current.__context__]
        pending += current.exceptions if isinstance(current, BaseExceptionGroup) else ()


class ResourceMonitor:
    """Tracks whether the machine has run out of a resource, and probes it until the resource is available again.

    Args:
        probe: Raises an error if a resource is exhausted.

    Attributes:
        exhausted: The exhausted resource; ``None`` while there is none.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self.exhausted: str | None = None
        self._probe = probe
        self._backoff = INITIAL_BACKOFF
        self._reported, self._available = anyio.Event(), anyio.Event()
        self._log = LogThrottle()
        self._is_logged = False

    def report(self, reason: str) -> None:
        """Record that a resource is exhausted."""
        if self.exhausted is None:
            self._reported.set()
        self.exhausted = reason
        if self._log.is_due():
            self._is_logged = True
            logger.error("%s; no video is started or accepted until this is over", reason)

    def reset_backoff(self) -> None:
        """Restart the backoff: a task finished, so the next exhaustion is unrelated to the last one."""
        self._backoff = INITIAL_BACKOFF

    async def check(self) -> str | None:
        """Return the exhausted resource, if any; probe the machine unless one is known already."""
        return self.exhausted or await self._run_probe()

    async def _run_probe(self) -> str | None:
        try:
            await self._probe()
        except Exception as error:  # noqa: BLE001  # tasks would run into it too, whatever it is
            reason = exhaustion_reason(error) or f"the data folder cannot be used ({type(error).__name__})"
            self.report(reason)
            return reason
        return None

    async def wait_until_available(self) -> None:
        """Wait until no resource is exhausted."""
        while self.exhausted is not None:
            await self._available.wait()

    async def run(self) -> None:
        """Probe the machine whenever a resource is exhausted, until it is available again; never returns."""
        while True:
            await self._reported.wait()
            while True:
                await anyio.sleep(self._backoff)
                self._backoff = min(2 * self._backoff, MAX_BACKOFF)
                if await self._run_probe() is None:
                    break
            self._set_available()

    def _set_available(self) -> None:
        available, self.exhausted = self._available, None
        self._reported, self._available = anyio.Event(), anyio.Event()
        available.set()
        if self._is_logged:
            self._is_logged = False
            logger.info("all resources are available again")


class LogThrottle:
    """Limits log records that clients could cause at any rate to one per ``LOG_INTERVAL``."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next = float("-inf")

    def is_due(self) -> bool:
        """Return whether to log now; if so, the next interval begins."""
        now = self._now()
        if now < self._next:
            return False
        self._next = now + LOG_INTERVAL
        return True
