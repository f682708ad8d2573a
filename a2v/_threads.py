"""A thread pool for blocking work: files, the journal, TLS settings, uploads and host names.

Not the threads of anyio or of the event loop's default executor, because those are shared with the application:

* If 40 functions of the application waited for a2v in anyio's 40 threads, a2v's own work would never get one: a deadlock.
* Python joins the default executor when the event loop closes, so a slow name server would delay the end of the program. The
  executor also refuses work once the main thread has ended, although other threads still run.

These are daemon threads. There is no queue: ``start`` hands an item to an idle thread, or to a new one. A thread adds itself to
``_idle`` when it has finished an item, and ends after half a second without another. Callers limit how many items run at a
time. Idle threads are kept in a deque, whose methods are atomic; a lock could be left locked by a fork. A forked child starts
with no threads.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.lowlevel import RunVar
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Items at a time for one event loop: enough to keep a disk busy.
_MAX_RUNNING = 8
# Seconds that a thread waits for another item.
_IDLE = 0.5


class WorkItem(Generic[T]):
    """A function to run in a thread, and its result."""

    _value: T

    def __init__(self, function: Callable[[], T], on_done: Callable[[], object]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self.on_done = on_done

    def run(self) -> None:
        """Call the function."""
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001  # `result` raises it
            self._error = error
        del self._function

    def result(self) -> T:
        """Return the function's result, or raise its exception; only once."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame


class _Worker:
    """A daemon thread, and the item handed to it."""

    def __init__(self) -> None:
        self._item: WorkItem[Any] | None = None
        self._handed = threading.Lock()
        self._handed.acquire()
        threading.Thread(target=self._run, name="a2v worker", daemon=True).start()

    def take(self, item: WorkItem[Any]) -> None:
        self._item = item
        self._handed.release()

    def _run(self) -> None:
        while self._wait_for_item():
            item, self._item = self._item, None
            if item:  # pragma: no branch
                item.run()
                # Before the caller is notified, so that consecutive calls use one thread.
                _idle.append(self)
                item.on_done()
            del item

    def _wait_for_item(self) -> bool:
        """Wait for the next item. Return False if none arrived in time, and none can arrive any more."""
        if self._handed.acquire(timeout=_IDLE):
            return True
        while True:
            try:
                _idle.remove(self)
            except ValueError:
                # `start` has removed this thread from the deque, and is about to hand it an item.
                return self._handed.acquire()
            except IndexError:  # pragma: no cover  # the deque was changed meanwhile
                continue
            return False


_idle: deque[_Worker] = deque()

if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_idle.clear)


def start(function: Callable[[], T], on_done: Callable[[], object]) -> WorkItem[T]:
    """Run a function in a thread, without waiting for it.

    Args:
        function: The function.
        on_done: Called afterwards, in that thread.

    Returns:
        The item, whose ``result`` may be used after ``on_done`` was called.

    Raises:
        OSError: The system has no more threads.
    """
    item = WorkItem(function, on_done)
    try:
        try:
            worker = _idle.pop()
        except IndexError:
            worker = _Worker()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
    worker.take(item)
    return item


@define(eq=False)
class _LoopState:
    """The work of one event loop.

    Attributes:
        limiter: Limits the number of items at a time.
        running: The number of items that are running, including abandoned ones.
    """

    limiter: anyio.CapacityLimiter = field(factory=lambda: anyio.CapacityLimiter(_MAX_RUNNING))
    running: int = 0


_loop_states: RunVar[_LoopState] = RunVar("a2v threads")


def current_loop_state() -> _LoopState:
    """Return the state of the current event loop; virtual time waits until nothing is running."""
    try:
        return _loop_states.get()
    except LookupError:
        work = _LoopState()
        _loop_states.set(work)
        return work


async def run(
    function: Callable[[], T],
    *,
    limiter: anyio.CapacityLimiter | None = None,
    grace: float = inf,
    on_cancel: Callable[[], object] = lambda: None,
) -> T:
    """Run a function in a thread and wait for its result.

    Args:
        function: The function.
        limiter: Limits the number of items at a time; ``None``: the one for files.
        grace: Seconds that a cancellation waits for the function to return before it abandons the thread.
        on_cancel: Called when the wait is cancelled, if ``grace`` is limited.

    Raises:
        OSError: The system has no more threads.
    """
    work = current_loop_state()
    async with limiter or work.limiter:
        ended = anyio.Event()
        call_soon = thread_safe_call_soon()

        def finish() -> None:
            work.running -= 1
            ended.set()

        def on_done() -> None:
            with suppress(RuntimeError):  # the loop is closed
                call_soon(finish)

        item = start(function, on_done)
        work.running += 1
        try:
            with anyio.CancelScope(shield=grace == inf):
                await ended.wait()
        except anyio.get_cancelled_exc_class():
            on_cancel()
            with anyio.move_on_after(grace, shield=True):
                await ended.wait()
            raise
        return item.result()


def thread_safe_call_soon() -> Callable[[Callable[[], object]], object]:
    """Return a function with which a thread schedules a callback in the current event loop."""
    token: Any = anyio.lowlevel.current_token().native_token
    if isinstance(token, asyncio.AbstractEventLoop):
        return token.call_soon_threadsafe
    return token.run_sync_soon  # type: ignore[no-any-return]  # trio is not a dependency


class _EventLoop(asyncio.ProactorEventLoop if sys.platform == "win32" else asyncio.SelectorEventLoop):  # type: ignore[misc]  # chosen by platform
    """Resolves host names in these threads, because Python waits for those of the default executor when a loop closes."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await run(partial(socket.getaddrinfo, host, port, **hints), limiter=_resolver_limiter(), grace=0)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await run(partial(socket.getnameinfo, sockaddr, flags), limiter=_resolver_limiter(), grace=0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose end does not wait for name servers."""
    return _EventLoop()


_resolver_limiters: RunVar[anyio.CapacityLimiter] = RunVar("a2v resolvers")


def _resolver_limiter() -> anyio.CapacityLimiter:
    """Return the limiter for host names, apart from that for files: a dead name server blocks a thread for half a minute."""
    try:
        return _resolver_limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MAX_RUNNING)
        _resolver_limiters.set(limiter)
        return limiter
