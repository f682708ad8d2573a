"""The way from the blocking client to the async one.

What a caller asks is done in the client's loop thread by a *worker*, one task that also cleans up: a call has a worker for
its length, an iterator or a context has one for life. All that changes of a worker is changed in the loop thread.
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
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, SupportsIndex, TypeVar

import anyio

from a2v._sync.loop import PATIENCE, LoopThread, acquire
from a2v.errors import ClientClosedError, InvalidStateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C")
M = TypeVar("M", bound="AbstractAsyncContextManager[Any, bool | None]")
P = ParamSpec("P")


class _Request(Generic[T]):
    """Something to be done in the loop thread, and the wait for it in the thread that asks."""

    value: T

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.function = function
        self.context = copy_context()
        self.done = False
        self.error: BaseException | None = None
        # Of the cancellation that ended it, which the caller does not see.
        self.notes: list[str] = []
        # A bare lock and not an Event: Ctrl-C in the middle of an Event's methods can leave its inner lock locked.
        self._gate = threading.Lock()
        self._gate.acquire()

    def succeed(self, value: T) -> None:
        self.value = value
        self._finish()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._finish()

    def _finish(self) -> None:
        self.done = True
        self._gate.release()

    def wait(self, seconds: float = inf) -> None:
        if not self.done:
            acquire(self._gate, monotonic() + seconds)


class _Farewell(_Request[None]):
    """The wish that a worker clean up and end; answered when it has."""

    def __init__(self, *parting: Any) -> None:
        super().__init__(anyio.sleep_forever)  # it is never asked to do more
        self.parting = parting


class _Worker:
    """One task in the loop thread. It does what it is asked, one thing at a time, and cleans up.

    With nothing to clean up it has nothing to stay for, and ends with its first request.
    """

    def __init__(self, clean_up: Callable[..., Awaitable[bool | None]] | None = None) -> None:
        self._clean_up = clean_up or nullcontext().__aexit__
        self._stays = clean_up is not None
        self.loop: LoopThread | None = None
        # The rest is changed in the loop thread only.
        self._request: _Request[Any] | None = None
        self._farewells: list[_Farewell] = []
        self._parting: tuple[Any, ...] = ()
        self._scope: anyio.CancelScope | None = None
        self._wake: anyio.Event | None = None
        self._cut_off = False
        self._refusal: Callable[[], BaseException] | None = None

    # In the caller's thread

    def ask(self, loop: LoopThread, request: _Request[T]) -> T:
        """Have something done and wait for it. What interrupts the wait ends the worker before it is passed on."""
        loop.check()
        self.loop = loop
        try:
            loop.post(partial(self._take, loop, request))
            request.wait()
        except BaseException as error:
            farewell = _Farewell()
            loop.post(partial(self._interrupt, farewell))
            farewell.wait(PATIENCE)
            for note in request.notes:
                error.add_note(note)
            raise
        if request.error is None:
            return request.value
        if loop.at_exit and threading.current_thread().daemon:  # pragma: no cover  # when the interpreter ends
            # The interpreter is about to stop this thread; anything else that it raises would be printed.
            raise SystemExit
        try:
            raise request.error
        finally:
            # The error's traceback holds this frame, so the frame must not hold the error.
            del request

    def leave(self, *parting: Any) -> None:
        """Have the worker clean up and end, and wait. What another thread waits for is cancelled."""
        if self.loop and self.loop.is_here():  # what a process inherited is its parent's to clean up
            self.ask(self.loop, _Farewell(*parting))

    def abandon(self) -> None:
        """Have the worker clean up and end, without waiting: there is nobody left to wait."""
        if self.loop:
            self.loop.post(self.end)

    # In the loop thread

    def end(self, *parting: Any) -> None:
        """Cancel what is going on; if nothing is, clean up and end."""
        if self._request:
            self._cut()
        elif self._wake and not self._parting:
            self._parting = parting or (GeneratorExit, GeneratorExit(), None)
            self._wake.set()

    def _cut(self) -> None:
        self._cut_off = True
        if self._scope:
            self._scope.cancel()

    def _interrupt(self, farewell: _Farewell) -> None:
        if self._parting:
            self._cut()
        self._take_farewell(farewell)

    def _take(self, loop: LoopThread, request: _Request[Any]) -> None:
        if isinstance(request, _Farewell):
            self._take_farewell(request)
        elif self._refusal:
            request.fail(self._refusal())
        elif self._parting or loop.stopping:
            request.fail(loop.refusal() if loop.stopping else StopAsyncIteration())
        elif self._request:
            request.fail(InvalidStateError("another thread is waiting for the next value already"))
        else:
            self._request = request
            if self._wake:
                self._wake.set()
            else:
                loop.spawn(partial(self._run, loop), request.context)

    def _take_farewell(self, farewell: _Farewell) -> None:
        if self._refusal or not (self._request or self._wake):
            farewell.succeed(None)
        else:
            self._farewells.append(farewell)
            self.end(*farewell.parting)

    async def _run(self, loop: LoopThread) -> None:
        loop.endings.add(self.end)
        error: BaseException | None = None
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self._cut_off:
                    scope.cancel()
                await self._live()
        except BaseException as caught:  # noqa: BLE001  # whatever it is, it is the caller's
            error = _inner(caught, 2)
        loop.endings.discard(self.end)
        self._refusal = loop.refusal if loop.stopping else StopAsyncIteration
        # An answered request holds its error, whose traceback holds this worker: it must not be held here.
        request, farewells = self._request, self._farewells
        self._request, self._farewells = None, []
        if request:
            answer = self._refusal() if loop.stopping or error is None else error
            if answer is not error:
                for note in request.notes:
                    answer.add_note(note)
            request.fail(answer)
        for farewell in farewells:
            farewell.succeed(None) if error is None else farewell.fail(error)

    async def _live(self) -> None:
        try:
            while self._request:
                await self._do(self._request)
                if not self._stays:
                    return
                self._wake = anyio.Event()
                await self._wake.wait()
        except BaseException as error:
            await self._clean_up(type(error), error, error.__traceback__)
            raise
        await self._clean_up(*self._parting)

    async def _do(self, request: _Request[Any]) -> None:
        try:
            value = await request.function()
        except anyio.get_cancelled_exc_class() as error:
            request.notes = list(getattr(error, "__notes__", ()))
            raise  # answered when the clean-up is done
        except BaseException as error:  # noqa: BLE001  # even SystemExit is the caller's, not the loop's
            self._request = None
            request.fail(_inner(error, 1))
        else:
            self._request = None
            request.succeed(value)
        finally:
            # Since 3.12 the error's traceback holds this frame too; see `ask`.
            del request

    async def open(self, manager: AbstractAsyncContextManager[Any, bool | None]) -> None:
        """Enter a context; to leave it is the clean-up then."""
        await manager.__aenter__()
        self._clean_up = manager.__aexit__
        self._stays = True


class Bridge:
    """What a client and all that came from it share. When the last of them is let go, the thread ends."""

    def __init__(self, core: AbstractAsyncContextManager[Any, bool | None]) -> None:
        self._core = core
        self._closed = False
        # One for each process: a thread does not survive a fork, and what was inherited is the parent's, never to be ended.
        self._threads: dict[int, LoopThread] = {}
        weakref.finalize(self, _stop, self._threads).atexit = False

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async function of the core in the loop thread.

        Returns:
            What it returns.

        Raises:
            ClientClosedError: The client is closed, or was meanwhile.
            InvalidStateError: This is the loop thread itself.
        """
        return _Worker().ask(self.running(), _Request(partial(function, *args, **kwargs)))

    def running(self) -> LoopThread:
        """The loop thread of this process, started if need be."""
        if self._closed:
            raise ClientClosedError("the client is closed")
        thread = self._here()
        thread.start()
        return thread

    def open(self) -> None:
        """Make it usable again after ``close``."""
        if self._closed:
            self._threads.pop(os.getpid(), None)
            self._closed = False

    def close(self) -> None:
        """End the thread and all that goes on in it, and wait for that."""
        thread = self._here()
        thread.check()
        self._closed = True
        thread.stop()
        thread.join()
        if thread.error:
            raise thread.error

    def _here(self) -> LoopThread:
        pid = os.getpid()
        # Several threads may come here at once: `setdefault` lets one of them win.
        return self._threads.get(pid) or self._threads.setdefault(pid, LoopThread(self._core))


def _stop(threads: dict[int, LoopThread]) -> None:
    if thread := threads.get(os.getpid()):
        thread.stop()


def _inner(error: BaseException, frames: int) -> BaseException:
    """The error without the outermost frames of its traceback, which are ours and explain nothing."""
    traceback = error.__traceback__
    for _ in range(frames):
        traceback = traceback and traceback.tb_next
    return error.with_traceback(traceback)


class SyncWrapper(Generic[C]):
    """The base of the generated classes: an object of the async client, and the way to it."""

    def __init__(self, core: C, bridge: Bridge) -> None:
        self._core = core
        self._bridge = bridge

    def __reduce_ex__(self, _: SupportsIndex, /) -> NoReturn:
        instead = getattr(self._core, "_instead", "make another one there")
        raise TypeError(f"{type(self).__name__} can be neither pickled nor copied: {instead}")

    def __repr__(self) -> str:
        # An error report may show a client that could not be made.
        core = getattr(self, "_core", None)
        return repr(core).replace(type(core).__name__, type(self).__name__, 1) if core else object.__repr__(self)


def unwrap(value: Any) -> Any:
    """What the core is to be given for an argument: its own object for a twin, anything else as it is."""
    return value._core if isinstance(value, SyncWrapper) else value  # noqa: SLF001  # the twin of this module


def to_list(value: Any) -> Any:
    """The values of an iterable, produced now, in the caller's thread. Anything else as it is: the core refuses it."""
    return list(value) if isinstance(value, Iterable) else value


class SyncContext(SyncWrapper[M]):
    """The base of the generated context managers: the core's is entered and left in one task."""

    def __init__(self, core: M, bridge: Bridge) -> None:
        super().__init__(core, bridge)
        self._worker = _Worker()

    def __enter__(self) -> Self:
        worker = _Worker()
        weakref.finalize(self, worker.abandon).atexit = False
        worker.ask(self._bridge.running(), _Request(partial(worker.open, self._core)))
        self._worker = worker
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._worker.leave(kind, error, traceback)

    def _step(self, function: Callable[[], Awaitable[T]]) -> T:
        """The next value, from the task in which the context was entered."""
        if not self._worker.loop:
            raise InvalidStateError(f"{type(self).__name__} works within its context: open it with a `with` statement")
        try:
            return self._worker.ask(self._worker.loop, _Request(function))
        except StopAsyncIteration:
            raise StopIteration from None


class SyncIterator(Iterator[T_co]):
    """Values as they come: each ``next`` waits for one, and nothing happens between two of them.

    Use it in a ``for`` loop. To leave one early tidily, ``close`` it or use it as a context manager; letting go of it does
    the same a little later. It takes one thread at a time.
    """

    def __init__(self, source: AsyncGenerator[T_co, None], bridge: Bridge) -> None:
        self._source = source
        self._bridge = bridge
        self._ended = False
        self._worker = _Worker(aclosing(source).__aexit__)
        weakref.finalize(self, self._worker.abandon).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        if self._ended:
            raise StopIteration
        try:
            return self._worker.ask(self._worker.loop or self._bridge.running(), _Request(self._source.__anext__))
        except StopAsyncIteration:
            self._ended = True
            self._worker.abandon()
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and wait until it has tidied up. What another thread waits for ends as if there were no more values."""
        self._ended = True
        self._worker.leave()
