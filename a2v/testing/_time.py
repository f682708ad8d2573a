"""Virtual time: when all wait, the clock is put forward to what comes next, so hours take no time."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from a2v import _threads
from a2v.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context
    from typing import Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 1.0
"""Real seconds that work in threads (files are written there) is waited for before the clock goes on without it."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio in which sleep of any length takes no time.

    For what makes loops itself: ``asyncio.Runner(loop_factory=VirtualTimeLoop)``.
    """

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """The loop's clock, in seconds; it begins at 1000."""
        return self._clock.now

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a time of the loop's clock."""
        # Only within a task does anyio tell which threads work for this loop; without a timer nobody needs to know.
        if self._clock.threads is None and self.is_running() and asyncio.current_task(self):
            self._clock.threads = Threads()
        return super().call_at(when, callback, *args, context=context)


class Threads:
    """The threads that work for the current event loop: those of anyio and those of a2v."""

    def __init__(self) -> None:
        self._limiter = anyio.to_thread.current_default_thread_limiter()
        self._work = _threads.current_loop_state()

    def at_work(self) -> bool:
        """Whether there is one."""
        return bool(self._limiter.borrowed_tokens or self._work.running)


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, it puts the clock forward to it."""

    now = 1000.0
    threads: Threads | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait = timeout
        if timeout:
            wait = PATIENCE if self.threads and self.threads.at_work() else 0
        ready = super().select(wait)
        if timeout and not ready:
            self.now += timeout
        return ready


def virtual_time(backend: Literal["asyncio", "trio"] = "asyncio") -> tuple[str, dict[str, Any]]:
    """A backend with virtual time, as the pytest plugin of anyio wants it from the fixture ``anyio_backend``.

    In a ``conftest.py``:

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return virtual_time(request.param)

    Args:
        backend: ``"asyncio"``, the default, or ``"trio"``.

    Returns:
        The backend's name, and options for one run of it.

    Raises:
        ImportError: trio was asked for and is not installed.
        InvalidArgumentError: There is no such backend.
    """
    if backend == "asyncio":
        return backend, {"loop_factory": VirtualTimeLoop}
    if backend == "trio":
        from a2v.testing._trio import options  # noqa: PLC0415  # trio is no dependency

        return backend, options()
    raise InvalidArgumentError(f"backend must be 'asyncio' or 'trio', got {backend!r}")


def run_in_virtual_time(
    main: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, backend: Literal["asyncio", "trio"] = "asyncio"
) -> T:
    """Like ``anyio.run``, in virtual time: sleep of any length takes no time.

    Time stands still while tasks or threads work, and jumps when all wait. What waits for the outside (a server, a
    subprocess) is not seen to wait, so use it with `Service.transport`, not with `Service.server`.

    Args:
        main: The asynchronous function to run.
        args: Its arguments.
        backend: ``"asyncio"``, the default, or ``"trio"``.

    Returns:
        What it returns.
    """
    name, options = virtual_time(backend)
    return anyio.run(main, *args, backend=name, backend_options=options)
