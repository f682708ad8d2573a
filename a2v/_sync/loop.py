"""The thread that runs a sync client's event loop.

``LoopThread`` starts one daemon thread, enters the async client there, and leaves it when the thread is told to stop. It runs
callbacks from other threads and starts tasks; what these do for a caller is up to ``bridge.py``.

Callers take no locks. Ctrl-C raises between any two bytecodes of the main thread, a fork copies locks in whatever state they
are, and a finalizer may run while its own thread holds one: each could leave a lock locked for ever. So callers only append to
a deque, and all other state changes happen in the loop thread. Two bare locks are left, each of which is released at most once:
one that lets a single thread run the loop, and one that is released when it has ended.

``anyio.from_thread.start_blocking_portal`` offers much of this, but a portal that is left open keeps the interpreter from
exiting.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio

from a2v import _threads
from a2v._async.requests import network
from a2v.errors import ClientClosedError, InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractAsyncContextManager

# Seconds that cancelled work may take to clean up.
CLEANUP_TIMEOUT = 5.0

# Imported before there is a thread: a fork during an import in another thread would leave Python's import lock locked.
network.preload()


class LoopThread:
    """A thread with an event loop in which the async client is entered and left.

    Args:
        client: The async client.

    Attributes:
        stopping: Whether the thread has ended or is about to.
        error: What ended the event loop, or the error of the client's ``__aexit__``.
        shutdown_callbacks: Called in the loop thread when it is told to stop.
        at_exit: Whether the interpreter is exiting.
    """

    def __init__(self, client: AbstractAsyncContextManager[Any, bool | None]) -> None:
        self.stopping: bool = False
        self.error: BaseException | None = None
        self.shutdown_callbacks: set[Callable[[], object]] = set()
        self.at_exit: bool = False
        self._client = client
        self._pid = os.getpid()
        self._callbacks = deque[Callable[[], object]]()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = False
        self._ended = False
        self._run_once = threading.Lock()
        self._end_lock = threading.Lock()
        self._end_lock.acquire()

    # In any thread

    def start(self) -> None:
        """Start the thread, unless it has been started."""
        # A Ctrl-C in here may start a second thread, which then ends at once. `Thread.start` is not called here: it holds a
        # lock while it waits for the new thread, and Ctrl-C, which only the main thread receives, could leave that locked.
        if self._thread is None:
            try:
                self._started = True
                _thread.start_new_thread(self._launch, ())
            except BaseException:
                self._started = False
                raise

    def is_of_this_process(self) -> bool:
        """Whether the thread belongs to this process: a forked child has none of its parent's threads."""
        return self._pid == os.getpid()

    def check_caller(self) -> None:
        """Refuse calls that would never return.

        Raises:
            InvalidStateError: The caller is the loop thread itself, or a forked child.
        """
        if threading.current_thread() is self._thread:
            raise InvalidStateError("the sync client was called in its own event loop; use AsyncA2V there")
        if not self.is_of_this_process():
            raise InvalidStateError("this was opened before a fork and belongs to the parent process; open it again")

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have a callback called in the loop thread, in order. Nothing happens in a forked child."""
        if not self.is_of_this_process():
            return
        self._callbacks.append(callback)
        if self._loop:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                self._loop.call_soon_threadsafe(self._run_callbacks, context=self._loop_context)
        if self._ended:
            self._run_callbacks()

    def stop(self) -> None:
        """Tell the thread to end: waiting calls raise ``ClientClosedError``, and everything open is cleaned up."""
        self.call_soon(self._shut_down)

    def join(self, seconds: float = inf) -> None:
        """Wait until the thread has ended, even if it is only just starting."""
        deadline = monotonic() + seconds
        if self._started and _threads.acquire(self._end_lock, seconds):
            self._end_lock.release()
            while (
                self._thread and self._thread.is_alive() and (left := deadline - monotonic()) > 0
            ):  # pragma: no branch
                # Usually the thread has ended by now.
                self._thread.join(min(left, _threads.WAIT_INTERVAL))  # pragma: no cover

    def closed_error(self) -> BaseException:
        """Return the error for a call that comes too late."""
        closed = ClientClosedError("the client is closed")
        closed.__cause__ = self.error
        return closed

    def _run_callbacks(self) -> None:
        while True:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            callback()

    # In the loop thread

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]], context: Context) -> None:
        """Start a task that sees the caller's context variables."""
        context.run(self._spawn, run)

    def _spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        # The caller may run in another event loop, even of another kind: variables that this loop has set win.
        for variable, value in self._loop_context.items():
            variable.set(value)
        self._group.start_soon(run)

    def _shut_down(self) -> None:
        self.stopping = True
        if not self._ended:
            self._stop_event.set()

    def _launch(self) -> None:
        try:
            threading.Thread(target=self._run, name="a2v", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            # Two calls at once may have started two of these threads, and only one of them may finish.
            if self._run_once.acquire(blocking=False):
                self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self.error = error
        self.stopping = self._ended = True
        self._run_callbacks()
        self._end_lock.release()

    def _run(self) -> None:
        if not self._run_once.acquire(blocking=False):
            return
        self._thread = threading.current_thread()
        atexit.register(self._exit)
        error: BaseException | None = None
        try:
            # In an empty context: since Python 3.14 a thread may inherit a copy of its creator's.
            options = {"loop_factory": _threads.new_event_loop}
            Context().run(partial(anyio.run, self._main, backend="asyncio", backend_options=options))
        except BaseException as caught:  # noqa: BLE001  # raised to the callers; this thread has none
            error = caught
        atexit.unregister(self._exit)
        self._finish(error)

    async def _main(self) -> None:
        self._loop_context = copy_context()
        self._stop_event = anyio.Event()
        async with self._client, anyio.create_task_group() as self._group:
            self._loop = asyncio.get_running_loop()
            self._run_callbacks()
            await self._stop_event.wait()
            self._group.cancel_scope.deadline = anyio.current_time() + CLEANUP_TIMEOUT
            for callback in list(self.shutdown_callbacks):
                callback()

    def _exit(self) -> None:
        # Otherwise the interpreter would freeze the thread at any point: without clean-up, and with warnings about sockets.
        if self.is_of_this_process():
            self.at_exit = True
            self.stop()
            self.join(CLEANUP_TIMEOUT)
