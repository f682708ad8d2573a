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
        self._threads: _time.Threads | None = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # trio's signature
        if self._threads is None:
            self._threads = _time.Threads()
        wanted = _time.PATIENCE if self._threads.at_work() else 0.0
        if self._clock.autojump_threshold != wanted:
            self._clock.autojump_threshold = wanted


def options() -> dict[str, Any]:
    """What ``trio.run`` wants for one run in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return {"clock": clock, "instruments": [_PatienceWithThreads(clock)]}
