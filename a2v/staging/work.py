"""Work in threads that Ctrl-C and cancellation can leave.

The stores' library blocks (its other face knows asyncio only). It works in threads of our own and not in anyio's: those
hold up the end of the program, and an upload over a line that is dead takes minutes to notice.
"""

from __future__ import annotations

import os
import threading
from concurrent import futures
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Files under way at once for one event loop; a line is full with a few.
_AT_ONCE = 4
# How many seconds an upload that is called off may take to clean up after itself before it is left to itself.
_PATIENCE = 1.0
# On Windows a wait for a lock cannot be interrupted, so Ctrl-C is noticed between two waits.
_SLICE = None if os.name == "posix" else 0.2


class Stopped(Exception):  # noqa: N818
    """Ends work that nobody waits for any more."""


class Stop(threading.Event):
    """Tells work that nobody waits for it any more."""

    def check(self) -> None:
        """Leave off, if that is so."""
        if self.is_set():
            raise Stopped


def _start(work: Callable[[Stop], T], stop: Stop, tell: Callable[[], None]) -> futures.Future[T]:
    future: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            future.set_result(work(stop))
        except BaseException as error:  # noqa: BLE001  # it goes to whoever waits
            future.set_exception(error)
        tell()

    threading.Thread(target=run, name="a2v staging", daemon=True).start()
    return future


def wait_for(work: Callable[[Stop], T]) -> T:
    """Do something in a thread and wait for it, in a way that Ctrl-C can end."""
    stop = Stop()
    future = _start(work, stop, lambda: None)
    try:
        while not futures.wait([future], _SLICE).done:
            pass
    except BaseException:
        stop.set()
        futures.wait([future], _PATIENCE)
        raise
    return future.result()


_limiters = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("a2v staging")


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Do something in a thread and wait for it, in a way that can be cancelled."""
    try:
        limiter = _limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _limiters.set(limiter)
    async with limiter:
        stop, ended, token = Stop(), anyio.Event(), anyio.lowlevel.current_token()

        def tell() -> None:
            with suppress(anyio.RunFinishedError):
                anyio.from_thread.run_sync(ended.set, token=token)

        future = _start(work, stop, tell)
        try:
            await ended.wait()
        except anyio.get_cancelled_exc_class():
            stop.set()
            with anyio.move_on_after(_PATIENCE, shield=True):
                await ended.wait()
            raise
        return future.result()
