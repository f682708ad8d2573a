"""Blocking work in daemon threads that belong to a2v.

Files, the journal, TLS settings, uploads and host names are handled here, and not in the threads of anyio or of the event
loop, because those are shared with the application:

* 40 functions of the application that wait for us in anyio's 40 threads would wait for good if our work needed one too.
* Python joins the default executor of an event loop at its end, so a host name that cannot be resolved would hold up the end
  of the program; and it refuses new work once the main thread has ended, although other threads still run.

A thread takes the next job as soon as it has finished one, and ends after a short time without any. Callers limit how many
jobs they start at once. After a fork the child starts with no threads.
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

# Jobs at once for one event loop: enough to keep a disk busy.
_AT_ONCE = 8
# How long a thread waits for another job, in seconds.
_IDLE = 0.5


class WorkItem(Generic[T]):
    """A function for a thread of ours to call, and what comes of it."""

    _value: T

    def __init__(self, work: Callable[[], T], done: Callable[[], object]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self.done = done

    def run(self) -> None:
        """Call the function."""
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001  # `result` raises it
            self._error = error
        del self._work

    def result(self) -> T:
        """What the function returned; what it raised is raised, once."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame


class _Worker:
    """A daemon thread, and the job that was handed to it."""

    def __init__(self) -> None:
        self._job: WorkItem[Any] | None = None
        self._handed = threading.Lock()
        self._handed.acquire()
        threading.Thread(target=self._live, name="a2v worker", daemon=True).start()

    def take(self, job: WorkItem[Any]) -> None:
        self._job = job
        self._handed.release()

    def _live(self) -> None:
        while self._is_handed_a_job():
            job, self._job = self._job, None
            if job:  # pragma: no branch
                job.run()
                # Before anybody is told: so one call after another needs one thread.
                _idle.append(self)
                job.done()
            del job

    def _is_handed_a_job(self) -> bool:
        """Wait for the next job. False if none came for a while, and none can come any more."""
        if self._handed.acquire(timeout=_IDLE):
            return True
        while True:
            try:
                _idle.remove(self)
            except ValueError:
                # `start` has taken this thread out: its job is on the way, and must not be run before it is handed over.
                return self._handed.acquire()
            except IndexError:  # pragma: no cover  # others were taken out just now
                continue
            return False


# Threads without a job. A deque needs no lock, which a fork could leave locked.
_idle: deque[_Worker] = deque()

if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_idle.clear)


def start(work: Callable[[], T], done: Callable[[], object]) -> WorkItem[T]:
    """Have a function called in a thread.

    Args:
        work: The function.
        done: Called afterwards, in that thread.

    Raises:
        OSError: The system has no more threads.
    """
    job = WorkItem(work, done)
    try:
        try:
            worker = _idle.pop()
        except IndexError:
            worker = _Worker()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
    worker.take(job)
    return job


@define(eq=False)
class _LoopState:
    """What threads do for one event loop.

    Attributes:
        limiter: Bounds the jobs under way.
        running: How many there are, also those that nobody waits for any more.
    """

    limiter: anyio.CapacityLimiter = field(factory=lambda: anyio.CapacityLimiter(_AT_ONCE))
    running: int = 0


_loop_states: RunVar[_LoopState] = RunVar("a2v threads")


def current_loop_state() -> _LoopState:
    """What threads do for the current event loop, as a clock for tests needs to know."""
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
    """Call a function in a thread and wait for it.

    Args:
        function: The function.
        limiter: Bounds the jobs under way; ``None``: the limiter for files.
        grace: Seconds that a cancellation waits for the function to return before it abandons the thread.
        on_cancel: Called when the wait is cancelled, if ``grace`` is limited.

    Raises:
        OSError: The system has no more threads.
    """
    work = current_loop_state()
    async with limiter or work.limiter:
        ended = anyio.Event()
        soon = _caller()

        def in_loop() -> None:
            work.running -= 1
            ended.set()

        def done() -> None:
            with suppress(RuntimeError):  # the loop has ended
                soon(in_loop)

        job = start(function, done)
        work.running += 1
        try:
            with anyio.CancelScope(shield=grace == inf):
                await ended.wait()
        except anyio.get_cancelled_exc_class():
            on_cancel()
            with anyio.move_on_after(grace, shield=True):
                await ended.wait()
            raise
        return job.result()


def _caller() -> Callable[[Callable[[], object]], object]:
    """How a thread has something called in the current event loop, without waiting for it."""
    token: Any = anyio.lowlevel.current_token().native_token
    if isinstance(token, asyncio.AbstractEventLoop):
        return token.call_soon_threadsafe
    return token.run_sync_soon  # type: ignore[no-any-return]  # of trio, which is no dependency


class _EventLoop(asyncio.ProactorEventLoop if sys.platform == "win32" else asyncio.SelectorEventLoop):  # type: ignore[misc]  # either has it
    """Resolves host names in threads of ours. Python waits for those of the default executor at the end of a loop."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await run(partial(socket.getaddrinfo, host, port, **hints), limiter=_resolvers(), grace=0)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await run(partial(socket.getnameinfo, sockaddr, flags), limiter=_resolvers(), grace=0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop for a thread or a program of ours, whose end does not wait for name servers."""
    return _EventLoop()


_limiters: RunVar[anyio.CapacityLimiter] = RunVar("a2v resolvers")


def _resolvers() -> anyio.CapacityLimiter:
    """Not the limiter of the files: a name server that does not answer holds a thread for half a minute."""
    try:
        return _limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _limiters.set(limiter)
        return limiter
