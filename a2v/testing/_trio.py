"""Virtual time for trio, which has a clock for it."""

from __future__ import annotations

from typing import Any

from a2v.testing import _time

try:
    import trio
    import trio.testing
except ImportError as error:
    raise ImportError("virtual time on trio needs trio: pip install trio") from error


class _PatienceWithThreads(trio.abc.Instrument):
    """Makes a clock wait for threads, which by itself it jumps over."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # trio's signature
        threads: trio.CapacityLimiter = trio.to_thread.current_default_thread_limiter()
        wanted = _time.PATIENCE if threads.borrowed_tokens else 0.0
        if self._clock.autojump_threshold != wanted:
            self._clock.autojump_threshold = wanted


def options() -> dict[str, Any]:
    """What ``trio.run`` wants for one run in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return {"clock": clock, "instruments": [_PatienceWithThreads(clock)]}
