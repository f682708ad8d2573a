"""One rate limiter for all event loops of a client.

A token has one rate limit, no matter how many event loops use it: one after another (``asyncio.run``) or several at once in
threads. So the limiter belongs to the client. A lock protects it, and is held only while something is computed, never
across an ``await``.

Each event loop has its own clock, and these clocks may differ: trio's starts at a random time, and virtual clocks jump. The limiter
has one monotonic clock. When an event loop joins, it computes its offset to that clock from the limiter's time at the last
reading plus the real time since then. From then on, only the event loop's own clock counts, so virtual time works. An event
loop that falls far behind, because the clock of another one has jumped, is moved forward. ``time.monotonic`` would be
simpler, but then every test in virtual time would wait for the rate limit in real time.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Lock
from time import monotonic  # noqa: TID251  # between event loops whose clocks differ, as above
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v._core.rate_limiter import RateLimiter

# Seconds. Two event loops with the same clock differ by less, although some read the clock only once per iteration.
_MAX_LAG = 1.0


class SharedRateLimiter:
    """The rate limiter of a client with its lock and its clock. Only ``LoopRateLimiter`` uses it.

    Args:
        limiter: The rate limiter.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter: RateLimiter = limiter
        self.pid: int = os.getpid()
        self.lock: Lock = Lock()
        # The limiter's time at the last reading, and the time of that reading by `time.monotonic`.
        self.now: float | None = None
        self.read_at: float = 0.0


class LoopRateLimiter:
    """A client's rate limiter for one event loop. Create and use it in that event loop."""

    def __init__(self, shared: SharedRateLimiter) -> None:
        self._shared = shared
        with shared.lock:
            now = anyio.current_time()
            self._offset = 0.0 if shared.now is None else shared.now + monotonic() - shared.read_at - now

    @contextmanager
    def locked(self) -> Iterator[tuple[RateLimiter, float]]:
        """Lock the limiter, and yield it with its time. Do not await in the block: other event loops are blocked."""
        shared = self._shared
        with shared.lock:
            now = anyio.current_time() + self._offset
            if shared.now is not None and now < shared.now:
                if now < shared.now - _MAX_LAG:
                    self._offset += shared.now - now
                now = shared.now
            shared.now, shared.read_at = now, monotonic()
            yield shared.limiter, now

    def now(self) -> float:
        """Return the limiter's time in seconds."""
        with self.locked() as (_, now):
            return now
