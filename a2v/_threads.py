"""A thread pool for blocking work: files, the journal, TLS settings, uploads and host names.

a2v does not use the threads of anyio or of the event loop's default executor, because the application uses them too:

* If 40 functions of the application waited for a2v in anyio's 40 threads, a2v itself would never get a thread: a deadlock.
* Python joins the default executor when the event loop closes, so a slow name server would delay the end of the program. The
  executor also rejects work after the main thread has ended, although other threads still run.

The threads are daemon threads. There is no queue: ``start`` hands a work item to an idle thread or starts a new one. After an item,
a thread adds itself to ``_idle``, and it ends after half a second without another item. Callers limit the number of concurrent
items. ``_idle`` is a deque, whose methods are atomic, because a fork could leave a lock locked. A forked child starts without
threads.
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
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.lowlevel import RunVar
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Maximum number of concurrent items per event loop: enough to keep a disk busy.
_MAX_RUNNING = 8
# Seconds that an idle thread waits for another item before it ends.
_IDLE_TIMEOUT = 0.5
# Seconds. A signal that arrives just before a thread waits for a lock does not end that wait; nor does Ctrl-C on Windows, or
# `_thread.interrupt_main`. So long waits are divided into intervals, between which Python calls the handlers of signals.
WAIT_INTERVAL = 0.2


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
        if self._handed.acquire(timeout=_IDLE_TIMEOUT):
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


def acquire(lock: threading.Lock, seconds: float = inf) -> bool:
    """Acquire a lock so that Ctrl-C always interrupts the wait.

    Args:
        lock: The lock.
        seconds: When to give up; never by default.

    Returns:
        Whether the lock was acquired.
    """
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0:
        if lock.acquire(timeout=min(left, WAIT_INTERVAL)):
            return True
    return False


@define(eq=False)
class _LoopState:
    """The work of one event loop.

    Attributes:
        limiter: Limits the number of concurrent items.
        running: The number of items that are running, including abandoned ones.
    """

    limiter: anyio.CapacityLimiter = field(factory=lambda: anyio.CapacityLimiter(_MAX_RUNNING))
    running: int = 0


_loop_states: RunVar[_LoopState] = RunVar("a2v threads")


def current_loop_state() -> _LoopState:
    """Return the state of the current event loop. Virtual time waits while items are running."""
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
        limiter: Limits the number of concurrent items; ``None``: the event loop's limiter for files.
        grace: Seconds that a cancellation waits for the function before it abandons the thread; infinite by default.
        on_cancel: Called when the wait is cancelled, if ``grace`` is finite.

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
    """Resolves host names in this pool, because closing an event loop waits for the threads of the default executor."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await run(partial(socket.getaddrinfo, host, port, **hints), limiter=_resolver_limiter(), grace=0)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await run(partial(socket.getnameinfo, sockaddr, flags), limiter=_resolver_limiter(), grace=0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that does not wait for name servers when it closes."""
    return _EventLoop()


_resolver_limiters: RunVar[anyio.CapacityLimiter] = RunVar("a2v resolvers")


def _resolver_limiter() -> anyio.CapacityLimiter:
    """Return the limiter for host names. Files have another one, because a dead name server blocks threads for half a minute."""
    try:
        return _resolver_limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MAX_RUNNING)
        _resolver_limiters.set(limiter)
        return limiter
