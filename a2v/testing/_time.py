"""Virtual time: when every task waits, the clock jumps to the next timer, so hours pass in no time.

asyncio's loop asks its selector to wait until the next timer. ``_JumpingSelector`` advances the clock by that time instead, unless
a file descriptor is ready or a thread is working for the loop.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

import anyio

from a2v.errors import InvalidArgumentError
from a2v.testing._busy_threads import BusyThreads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context
    from typing import Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which sleeping takes no time, for example ``asyncio.Runner(loop_factory=VirtualTimeLoop)``."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the loop's time in seconds; it starts at 1000."""
        return self._clock.now

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a callback."""
        # anyio's limiter can only be found within a task. Without a timer it is not needed.
        if self._clock.threads is None and self.is_running() and asyncio.current_task(self):
            self._clock.threads = BusyThreads()
        return super().call_at(when, callback, *args, context=context)


class _JumpingSelector(selectors.DefaultSelector):
    """Advances the clock instead of waiting."""

    now = 1000.0
    threads: BusyThreads | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait = timeout
        if timeout:
            wait = self.threads.max_wait() if self.threads else 0.0
        ready = super().select(wait)
        if timeout and not ready:
            self.now += timeout
        return ready


def virtual_time(backend: Literal["asyncio", "trio"] = "asyncio") -> tuple[str, dict[str, Any]]:
    """Return a backend with virtual time, for the fixture ``anyio_backend`` of anyio's pytest plugin.

    In a ``conftest.py``:

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return virtual_time(request.param)

    Args:
        backend: ``"asyncio"``, the default, or ``"trio"``.

    Returns:
        The backend's name, and its options for one run.

    Raises:
        ImportError: The backend is ``"trio"`` and trio is not installed.
        InvalidArgumentError: There is no such backend.
    """
    if backend == "asyncio":
        return backend, {"loop_factory": VirtualTimeLoop}
    if backend == "trio":
        from a2v.testing._trio import options  # noqa: PLC0415  # trio is not a dependency

        return backend, options()
    raise InvalidArgumentError(f"backend must be 'asyncio' or 'trio', got {backend!r}")


def run_in_virtual_time(
    main: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, backend: Literal["asyncio", "trio"] = "asyncio"
) -> T:
    """Like ``anyio.run``, in virtual time: sleeping takes no time.

    Time stands still while a task or thread works, and jumps to the next timer when all of them wait. Waiting for a server or a
    subprocess looks like idling, so use `Service.transport` rather than `Service.server`.

    Args:
        main: The async function to run.
        args: Its arguments.
        backend: ``"asyncio"``, the default, or ``"trio"``.

    Returns:
        Its result.
    """
    name, options = virtual_time(backend)
    return anyio.run(main, *args, backend=name, backend_options=options)
