"""Runs calls of the sync client in the event loop of the async one.

The sync client's methods hand a coroutine function to the client's loop thread (``loop.py``) and block until its result is
there. In that thread a *worker* runs the coroutine. A worker is one task that also cleans up, because anyio requires that a
cancel scope or task group is left in the task that entered it:

* a call has a worker of its own, which ends with it;
* an iterator or a context manager keeps one worker for life. The worker waits between two calls, so an iterator's body runs
  only inside ``next()``, and runs the ``__aexit__`` when it is closed.

A ``_Call`` carries the function to the loop thread and its result back. A caller whose wait is interrupted, usually by Ctrl-C,
sends a ``_Close``, waits a few seconds until the worker has cleaned up, and lets the interruption pass. ``_Close`` is also how
iterators, contexts and the client itself are closed. The worker's state changes in the loop thread only, so it needs no locks.

Objects that are garbage-collected cannot wait: a finalizer sends the cancellation and returns.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import aclosing, nullcontext
from contextvars import copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, SupportsIndex, TypeVar

import anyio

from a2v import _threads
from a2v._sync.loop import CLEANUP_TIMEOUT, LoopThread
from a2v.errors import ClientClosedError, InvalidStateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
W = TypeVar("W")
M = TypeVar("M", bound="AbstractAsyncContextManager[Any, bool | None]")
P = ParamSpec("P")


class _Call(Generic[T]):
    """A function for the loop thread to run, and its result for the thread that waits."""

    value: T

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.function = function
        self.context = copy_context()
        self.done = False
        self.error: BaseException | None = None
        # Of the cancellation that ended the call, which the caller does not see.
        self.notes: list[str] = []
        # A bare lock instead of an Event: Ctrl-C inside one of an Event's methods can leave its inner lock locked.
        self._lock = threading.Lock()
        self._lock.acquire()

    def succeed(self, value: T) -> None:
        self.value = value
        self._finish()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._finish()

    def _finish(self) -> None:
        self.done = True
        self._lock.release()

    def wait(self, seconds: float = inf) -> None:
        if not self.done:
            _threads.acquire(self._lock, seconds)


class _Close(_Call[None]):
    """Asks a worker to clean up and end; completes when it has."""

    def __init__(self, *exc_info: Any) -> None:
        super().__init__(anyio.sleep_forever)  # never run
        self.exc_info = exc_info


class _Worker:
    """A task in the loop thread that runs one call after another, and cleans up.

    Args:
        clean_up: An ``__aexit__`` to run at the end. A worker without one ends after its first call.
    """

    def __init__(self, clean_up: Callable[..., Awaitable[bool | None]] | None = None) -> None:
        self._clean_up = clean_up or nullcontext().__aexit__
        self._is_kept = clean_up is not None
        self.loop: LoopThread | None = None
        # Changed in the loop thread only.
        self._call: _Call[Any] | None = None
        self._closes: list[_Close] = []
        # The arguments for `__aexit__`, once the worker has been told to end.
        self._exc_info: tuple[Any, ...] = ()
        self._scope: anyio.CancelScope | None = None
        self._wake: anyio.Event | None = None
        self._cancelled = False
        # Set when the worker has ended: makes the error for later calls.
        self._ended: Callable[[], BaseException] | None = None

    # In the caller's thread

    def run(self, loop: LoopThread, call: _Call[T]) -> T:
        """Run a call and wait for its result. If ``KeyboardInterrupt`` ends the wait, end the worker before raising it."""
        loop.check_caller()
        self.loop = loop
        try:
            loop.call_soon(partial(self._accept, loop, call))
            call.wait()
        except BaseException as error:
            close = _Close()
            loop.call_soon(partial(self._interrupt, close))
            close.wait(CLEANUP_TIMEOUT)
            for note in call.notes:
                error.add_note(note)
            raise
        if call.error is None:
            return call.value
        if loop.at_exit and threading.current_thread().daemon:  # pragma: no cover  # when the interpreter ends
            # The interpreter is about to freeze this thread, and would print any other exception.
            raise SystemExit
        try:
            raise call.error
        finally:
            # The traceback refers to this frame, so the frame must not refer to the error.
            del call

    def close(self, *exc_info: Any) -> None:
        """Clean up, end, and wait for that. A call of another thread is cancelled."""
        if self.loop and self.loop.is_of_this_process():  # a forked child leaves the clean-up to its parent
            self.run(self.loop, _Close(*exc_info))

    def cancel(self) -> None:
        """Tell the worker to clean up and end, without waiting."""
        if self.loop:
            self.loop.call_soon(self.end)

    # In the loop thread

    def end(self, *exc_info: Any) -> None:
        """Cancel the running call; if there is none, clean up and end."""
        if self._call:
            self._cancel_call()
        elif self._wake and not self._exc_info:
            self._exc_info = exc_info or (GeneratorExit, GeneratorExit(), None)
            self._wake.set()

    def _cancel_call(self) -> None:
        self._cancelled = True
        if self._scope:
            self._scope.cancel()

    def _interrupt(self, close: _Close) -> None:
        if self._exc_info:
            self._cancel_call()
        self._accept_close(close)

    def _accept(self, loop: LoopThread, call: _Call[Any]) -> None:
        if isinstance(call, _Close):
            self._accept_close(call)
        elif self._ended:
            call.fail(self._ended())
        elif self._exc_info or loop.stopping:
            call.fail(loop.closed_error() if loop.stopping else StopAsyncIteration())
        elif self._call:
            call.fail(InvalidStateError("another thread is waiting for the next value already"))
        else:
            self._call = call
            if self._wake:
                self._wake.set()
            else:
                loop.spawn(partial(self._run, loop), call.context)

    def _accept_close(self, close: _Close) -> None:
        if self._ended or not (self._call or self._wake):
            close.succeed(None)
        else:
            self._closes.append(close)
            self.end(*close.exc_info)

    async def _run(self, loop: LoopThread) -> None:
        loop.shutdown_callbacks.add(self.end)
        error: BaseException | None = None
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self._cancelled:
                    scope.cancel()
                await self._run_calls()
        except BaseException as caught:  # noqa: BLE001  # raised to the caller
            error = _without_frames(caught, 2)
        loop.shutdown_callbacks.discard(self.end)
        self._ended = loop.closed_error if loop.stopping else StopAsyncIteration
        # A finished call refers to its error, whose traceback refers to this worker: drop them, or they form a cycle.
        call, closes = self._call, self._closes
        self._call, self._closes = None, []
        if call:
            answer = self._ended() if loop.stopping or error is None else error
            if answer is not error:
                for note in call.notes:
                    answer.add_note(note)
            call.fail(answer)
        for close in closes:
            close.succeed(None) if error is None else close.fail(error)

    async def _run_calls(self) -> None:
        try:
            while self._call:
                await self._run_call(self._call)
                if not self._is_kept:
                    return
                self._wake = anyio.Event()
                await self._wake.wait()
        except BaseException as error:
            await self._clean_up(type(error), error, error.__traceback__)
            raise
        await self._clean_up(*self._exc_info)

    async def _run_call(self, call: _Call[Any]) -> None:
        try:
            value = await call.function()
        except anyio.get_cancelled_exc_class() as error:
            call.notes = list(getattr(error, "__notes__", ()))
            raise  # the call fails when the clean-up is done
        except BaseException as error:  # noqa: BLE001  # even SystemExit is the caller's, not the loop's
            self._call = None
            call.fail(_without_frames(error, 1))
        else:
            self._call = None
            call.succeed(value)
        finally:
            # Since Python 3.12 the error's traceback refers to this frame too; see `run`.
            del call

    async def enter(self, manager: AbstractAsyncContextManager[Any, bool | None]) -> None:
        """Enter a context manager, and leave it at the end."""
        await manager.__aenter__()
        self._clean_up = manager.__aexit__
        self._is_kept = True


class Bridge:
    """Gives a sync client, and all objects made by it, their loop thread. The thread ends when the last of them is collected.

    Args:
        client: The async client.
    """

    def __init__(self, client: AbstractAsyncContextManager[Any, bool | None]) -> None:
        self._client = client
        self._closed = False
        # One for each process: a thread does not survive a fork, and the parent's is not the child's to stop.
        self._loop_threads: dict[int, LoopThread] = {}
        weakref.finalize(self, _stop, self._loop_threads).atexit = False

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async function in the loop thread.

        Returns:
            Its result.

        Raises:
            ClientClosedError: The client is closed, or was closed meanwhile.
            InvalidStateError: The caller is the loop thread itself.
        """
        return _Worker().run(self.loop_thread(), _Call(partial(function, *args, **kwargs)))

    def loop_thread(self) -> LoopThread:
        """Return the loop thread of this process, and start it if need be.

        Raises:
            ClientClosedError: The client is closed.
        """
        if self._closed:
            raise ClientClosedError("the client is closed")
        thread = self._loop_thread()
        thread.start()
        return thread

    def reopen(self) -> None:
        """Make the bridge usable again after ``close``."""
        if self._closed:
            self._loop_threads.pop(os.getpid(), None)
            self._closed = False

    def close(self) -> None:
        """Cancel all calls, end the thread, and wait for that."""
        thread = self._loop_thread()
        thread.check_caller()
        self._closed = True
        thread.stop()
        thread.join()
        if thread.error:
            raise thread.error

    def _loop_thread(self) -> LoopThread:
        pid = os.getpid()
        # Atomic: if several threads get here at once, one of their objects wins.
        return self._loop_threads.get(pid) or self._loop_threads.setdefault(pid, LoopThread(self._client))


def _stop(threads: dict[int, LoopThread]) -> None:
    if thread := threads.get(os.getpid()):
        thread.stop()


def _without_frames(error: BaseException, count: int) -> BaseException:
    """Remove the outermost frames of a traceback, which belong to this module and explain nothing."""
    traceback = error.__traceback__
    for _ in range(count):
        traceback = traceback and traceback.tb_next
    return error.with_traceback(traceback)


class SyncWrapper(Generic[W]):
    """Base of the generated classes: wraps an object of the async client."""

    def __init__(self, wrapped: W, bridge: Bridge) -> None:
        self._wrapped = wrapped
        self._bridge = bridge

    def __reduce_ex__(self, _: SupportsIndex, /) -> NoReturn:
        instead = getattr(self._wrapped, "_instead", "make another one there")
        raise TypeError(f"{type(self).__name__} can be neither pickled nor copied: {instead}")

    def __repr__(self) -> str:
        # An error report may show an object whose construction failed.
        wrapped = getattr(self, "_wrapped", None)
        return repr(wrapped).replace("<Async", "<", 1) if wrapped else object.__repr__(self)


def unwrap(value: Any) -> Any:
    """Return the wrapped object of a ``SyncWrapper``, and any other value as it is."""
    return value._wrapped if isinstance(value, SyncWrapper) else value  # noqa: SLF001  # of this module


def to_list(value: Any) -> Any:
    """Consume an iterable in the caller's thread. Other values are returned as they are, for the async client to refuse."""
    return list(value) if isinstance(value, Iterable) else value


class SyncClient(SyncWrapper[W]):
    """Base of the generated client, which owns the bridge."""

    def _with_wrapped(self, wrapped: W) -> Self:
        """Return a client for another async client that shares its connections with this one's."""
        client = object.__new__(type(self))
        SyncWrapper.__init__(client, wrapped, self._bridge)
        return client

    def __enter__(self) -> Self:
        self._bridge.reopen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client."""
        self._bridge.close()


class SyncContext(SyncWrapper[M]):
    """Base of the generated context managers: enters, steps and leaves the wrapped one in one task."""

    def __init__(self, wrapped: M, bridge: Bridge) -> None:
        super().__init__(wrapped, bridge)
        self._worker = _Worker()

    def __enter__(self) -> Self:
        worker = _Worker()
        weakref.finalize(self, worker.cancel).atexit = False
        worker.run(self._bridge.loop_thread(), _Call(partial(worker.enter, self._wrapped)))
        self._worker = worker
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._worker.close(kind, error, traceback)

    def _step(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return the next value, computed in the task that entered the context."""
        if not self._worker.loop:
            raise InvalidStateError(f"{type(self).__name__} works within its context: open it with a `with` statement")
        try:
            return self._worker.run(self._worker.loop, _Call(function))
        except StopAsyncIteration:
            raise StopIteration from None


class SyncIterator(Iterator[T_co]):
    """Iterates over values as they arrive: each ``next`` waits for one, and nothing happens between two of them.

    Use it in a ``for`` loop. If you leave the loop early, ``close`` the iterator or use it as a context manager; otherwise it is
    closed when it is garbage-collected. Only one thread may use it at a time.
    """

    def __init__(self, source: AsyncGenerator[T_co, None], bridge: Bridge) -> None:
        self._source = source
        self._bridge = bridge
        self._ended = False
        self._worker = _Worker(aclosing(source).__aexit__)
        weakref.finalize(self, self._worker.cancel).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        if self._ended:
            raise StopIteration
        try:
            return self._worker.run(self._worker.loop or self._bridge.loop_thread(), _Call(self._source.__anext__))
        except StopAsyncIteration:
            self._ended = True
            self._worker.cancel()
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the iterator and wait until it has cleaned up. A ``next`` in another thread ends as at the end of the values."""
        self._ended = True
        self._worker.close()
