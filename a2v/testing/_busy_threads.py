"""Whether threads are working for the current event loop, in which case a virtual clock must wait."""

from __future__ import annotations

import anyio.to_thread

from a2v import _threads

_SECONDS_FOR_A2V = 60.0
"""Real seconds to wait for a2v's own threads, which use files: a disk may be slow, and they never wait for the clock."""
_SECONDS_FOR_OTHERS = 1.0
"""Real seconds to wait for other threads of anyio, which may wait for the clock."""


class BusyThreads:
    """The threads of anyio and of a2v that work for the current event loop."""

    def __init__(self) -> None:
        self._limiter = anyio.to_thread.current_default_thread_limiter()
        self._state = _threads.current_loop_state()

    def max_wait(self) -> float:
        """Return the real seconds to wait for them before the clock advances without them; 0 if none is working."""
        if self._state.running:
            return _SECONDS_FOR_A2V
        return _SECONDS_FOR_OTHERS if self._limiter.borrowed_tokens else 0.0
