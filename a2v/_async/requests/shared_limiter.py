"""The one budget of a client, shared by all its event loops.

A token has one rate limit, however many event loops use it, one after another (``asyncio.run``) or at once in several
threads. So the budget belongs to the client, behind a lock that is held only while something is computed.

Each event loop has a clock of its own, and they need not agree: trio's begins anywhere, and virtual ones jump. The budget
has one clock, which never goes back. A loop that joins gets an offset to it: the budget's time when it was last read, and
the real time since then. From then on only the loop's own clock counts, so that virtual time works. A loop that is found to
be far behind, because the clock of another one has jumped, is moved up.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v._core.rate_limiter import RateLimiter

# Clocks of loops that tick alike differ by less, in seconds: some are read once for each round of their loop.
_JITTER = 1.0


class SharedRateLimiter:
    """What the event loops of a client share.

    Args:
        budget: The budget; to be used within ``LoopRateLimiter.locked`` alone.
    """

    def __init__(self, budget: RateLimiter) -> None:
        self.budget = budget
        self.pid = os.getpid()
        self.lock = Lock()
        self.now: float | None = None
        # When that was, on a real clock that all threads share.
        self.read_at = 0.0


class LoopRateLimiter:
    """The budget of a client, as one event loop sees it. Made and used within that loop."""

    def __init__(self, shared: SharedRateLimiter) -> None:
        self._shared = shared
        with shared.lock:
            now = anyio.current_time()
            self._offset = 0.0 if shared.now is None else shared.now + monotonic() - shared.read_at - now

    @contextmanager
    def locked(self) -> Iterator[tuple[RateLimiter, float]]:
        """The budget and its time. While this lasts, other event loops wait: do not await."""
        shared = self._shared
        with shared.lock:
            now = anyio.current_time() + self._offset
            if shared.now is not None and now < shared.now:
                if now < shared.now - _JITTER:
                    self._offset += shared.now - now
                now = shared.now
            shared.now, shared.read_at = now, monotonic()
            yield shared.budget, now

    def now(self) -> float:
        """The budget's time."""
        with self.locked() as (_, now):
            return now
