"""Work that Ctrl-C and cancellation can leave.

The stores' library blocks (its other face knows asyncio only), and an upload over a dead connection takes minutes to notice.
So it runs in daemon threads, and is told when nobody waits for it any more.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.lowlevel import RunVar

from a2v import _threads

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Files under way at once for one event loop; a line is full with a few.
_AT_ONCE = 4
# How many seconds an upload that is called off may take to clean up after itself before it is left to itself.
_PATIENCE = 1.0
# On Windows a wait for a lock cannot be interrupted, so Ctrl-C is noticed between two waits.
_SLICE = -1 if os.name == "posix" else 0.2


class Stopped(Exception):  # noqa: N818
    """Ends work that nobody waits for any more."""


class Stop(threading.Event):
    """Tells work that nobody waits for it any more."""

    def check(self) -> None:
        """Leave off, if that is so."""
        if self.is_set():
            raise Stopped


def wait_for(work: Callable[[Stop], T]) -> T:
    """Do something in a thread and wait for it, in a way that Ctrl-C can end."""
    stop, gate = Stop(), threading.Lock()
    gate.acquire()
    job = _threads.start(partial(work, stop), gate.release)
    try:
        while not gate.acquire(timeout=_SLICE):
            pass
    except BaseException:
        stop.set()
        gate.acquire(timeout=_PATIENCE)
        raise
    return job.result()


# Not that of the files: an upload may take minutes.
_limiters: RunVar[anyio.CapacityLimiter] = RunVar("a2v staging")


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Do something in a thread and wait for it, in a way that can be cancelled."""
    try:
        limiter = _limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _limiters.set(limiter)
    stop = Stop()
    return await _threads.run(partial(work, stop), limiter=limiter, grace=_PATIENCE, on_cancel=stop.set)
