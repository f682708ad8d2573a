"""Run uploads in threads that Ctrl-C and cancellation can abandon.

The stores' library blocks (its async interface needs asyncio, and a2v also supports trio), and an upload over a dead connection
takes minutes to fail. So uploads run in daemon threads. If the wait is interrupted, a ``CancelToken`` tells the thread to stop;
after a second it is abandoned.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.lowlevel import RunVar

from a2v import _threads

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Uploads at a time for one event loop; a few use all of the bandwidth.
_MAX_RUNNING = 4
# Seconds that a cancelled upload may take to clean up before its thread is abandoned.
_GRACE = 1.0


class Cancelled(Exception):  # noqa: N818  # not an error
    """Ends work whose result is no longer needed."""


class CancelToken(threading.Event):
    """Set when the result of the work is no longer needed."""

    def check(self) -> None:
        """Raise ``Cancelled`` if it is set."""
        if self.is_set():
            raise Cancelled


def run_blocking(work: Callable[[CancelToken], T]) -> T:
    """Run work in a thread and wait for its result; Ctrl-C interrupts the wait."""
    cancel, done = CancelToken(), threading.Lock()
    done.acquire()
    item = _threads.start(partial(work, cancel), done.release)
    try:
        _threads.acquire(done)
    except BaseException:
        cancel.set()
        done.acquire(timeout=_GRACE)
        raise
    return item.result()


# Not the limiter for files: an upload may take minutes.
_limiters: RunVar[anyio.CapacityLimiter] = RunVar("a2v staging")


async def run_async(work: Callable[[CancelToken], T]) -> T:
    """Run work in a thread and wait for its result; cancellation ends the wait."""
    try:
        limiter = _limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MAX_RUNNING)
        _limiters.set(limiter)
    cancel = CancelToken()
    return await _threads.run(partial(work, cancel), limiter=limiter, grace=_GRACE, on_cancel=cancel.set)
