"""The thread with the event loop behind a blocking client.

Why not ``anyio.from_thread.start_blocking_portal``: left open, it hangs the exit of the interpreter. Nothing here takes a
lock that a Ctrl-C, a fork or a finalizer could leave locked: callers append to a deque, everything else happens in the
loop thread.
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
    from threading import Lock

# How many seconds work that has to end may take to clean up after itself.
PATIENCE = 5.0
# On Windows a wait for a lock cannot be interrupted, so Ctrl-C is noticed between two waits.
SLICE = inf if os.name == "posix" else 0.2

# Before there is a thread: a process that is forked while another thread imports inherits Python's import locks.
network.preload()


class LoopThread:
    """A thread with an event loop in which the core is entered and left. It knows nothing of those who ask."""

    def __init__(self, core: AbstractAsyncContextManager[Any, bool | None]) -> None:
        self.stopping: bool = False
        self.error: BaseException | None = None
        self.endings: set[Callable[[], object]] = set()
        self._core = core
        self._pid = os.getpid()
        self._inbox = deque[Callable[[], object]]()
        self._only_one = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._begun = False
        self._ended = threading.Lock()
        self._ended.acquire()
        self.at_exit: bool = False

    # In any thread

    def start(self) -> None:
        """Start the thread, if there is none."""
        # A Ctrl-C in here may start a thread too many, which then ends at once; a lock could stay locked. Not started from
        # here, because `Thread.start` holds such a lock while it waits, and Ctrl-C comes to the main thread only.
        if self._thread is None:
            try:
                self._begun = True
                _thread.start_new_thread(self._launch, ())
            except BaseException:
                self._begun = False
                raise

    def is_here(self) -> bool:
        """Whether the thread is of this process: after a fork the child has none of the parent's threads."""
        return self._pid == os.getpid()

    def check(self) -> None:
        """Refuse what could never end."""
        if threading.current_thread() is self._thread:
            raise InvalidStateError("the blocking client was called in its own event loop; use AsyncA2V there")
        if not self.is_here():
            raise InvalidStateError("this was opened before a fork and belongs to the parent process; open it again")

    def post(self, letter: Callable[[], object]) -> None:
        """Have something called in the loop thread, soon and in order."""
        if not self.is_here():
            return  # the thread stayed in the parent
        self._inbox.append(letter)
        if self._loop:
            with suppress(RuntimeError):  # closed just now
                self._loop.call_soon_threadsafe(self._read, context=self._home)
        if self._over:
            self._read()

    def stop(self) -> None:
        """Let the thread end. Waits get ``ClientClosedError``, what is open is cleaned up."""
        self.post(self._stop)

    def join(self, seconds: float = inf) -> None:
        """Wait for the end of the thread, also if it has only been asked to start."""
        end = monotonic() + seconds
        if self._begun and acquire(self._ended, end):
            self._ended.release()
            while self._thread and self._thread.is_alive() and (left := end - monotonic()) > 0:  # pragma: no branch
                # It is about to end, and mostly has.
                self._thread.join(None if min(left, SLICE) == inf else min(left, SLICE))  # pragma: no cover

    def refusal(self) -> BaseException:
        """What to answer when it is too late to ask."""
        refusal = ClientClosedError("the client is closed")
        refusal.__cause__ = self.error
        return refusal

    def _read(self) -> None:
        while True:
            try:
                letter = self._inbox.popleft()
            except IndexError:
                return
            letter()

    # In the loop thread

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]], context: Context) -> None:
        """Start a task, which sees the context variables of the caller."""
        context.run(self._spawn, run)

    def _spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        # The caller may be in a loop of its own, of another kind; what our loop has set is what counts in our loop.
        for variable, value in self._home.items():
            variable.set(value)
        self._group.start_soon(run)

    def _stop(self) -> None:
        self.stopping = True
        if not self._over:
            self._stopped.set()

    def _launch(self) -> None:
        try:
            threading.Thread(target=self._run, name="a2v", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.error = error
        self.stopping = self._over = True
        self._read()
        self._ended.release()

    def _run(self) -> None:
        if not self._only_one.acquire(blocking=False):
            return
        self._thread = threading.current_thread()
        atexit.register(self._exit)
        error: BaseException | None = None
        try:
            # In an empty context, because since 3.14 a thread may begin with a copy of its starter's.
            options = {"loop_factory": _threads.new_event_loop}
            Context().run(partial(anyio.run, self._main, backend="asyncio", backend_options=options))
        except BaseException as caught:  # noqa: BLE001  # told to those who ask, there is nobody else
            error = caught
        atexit.unregister(self._exit)
        self._end(error)

    async def _main(self) -> None:
        self._home = copy_context()
        self._stopped = anyio.Event()
        async with self._core, anyio.create_task_group() as self._group:
            self._loop = asyncio.get_running_loop()
            self._read()
            await self._stopped.wait()
            self._group.cancel_scope.deadline = anyio.current_time() + PATIENCE
            for end in list(self.endings):
                end()

    def _exit(self) -> None:
        # Without this the interpreter would freeze the thread wherever it is: no clean-up, and warnings about sockets.
        if self.is_here():
            self.at_exit = True
            self.stop()
            self.join(PATIENCE)


def acquire(lock: Lock, end: float) -> bool:
    """Acquire a lock until a time of the monotonic clock, so that Ctrl-C can interrupt it; tell whether that worked."""
    while (left := end - monotonic()) > 0:
        pause = min(left, SLICE)
        if lock.acquire(timeout=-1 if pause == inf else min(pause, threading.TIMEOUT_MAX)):
            return True
    return False
