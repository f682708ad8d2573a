"""Virtual time on trio, which has a clock for it."""

from __future__ import annotations

from typing import Any

from a2v.testing._busy_threads import BusyThreads

try:
    import trio
    import trio.testing
except ImportError as error:
    raise ImportError("virtual time on trio needs trio: pip install trio") from error


class _WaitForThreads(trio.abc.Instrument):
    """Makes a ``MockClock`` wait for threads; on its own it jumps while they work."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._threads: BusyThreads | None = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # trio's signature
        if self._threads is None:
            self._threads = BusyThreads()
        threshold = self._threads.max_wait()
        if self._clock.autojump_threshold != threshold:
            self._clock.autojump_threshold = threshold


def options() -> dict[str, Any]:
    """Return the options of ``trio.run`` for one run in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return {"clock": clock, "instruments": [_WaitForThreads(clock)]}
