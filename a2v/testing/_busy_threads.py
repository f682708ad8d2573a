"""Whether threads are working for the current event loop, in which case a virtual clock must wait."""

from __future__ import annotations

import anyio.to_thread

from a2v import _threads

MAX_WAIT = 1.0
"""Real seconds to wait for threads, for example until a file is written, before the clock advances without them."""


class BusyThreads:
    """The threads of anyio and of a2v that work for the current event loop."""

    def __init__(self) -> None:
        self._limiter = anyio.to_thread.current_default_thread_limiter()
        self._state = _threads.current_loop_state()

    def any(self) -> bool:
        """Whether a thread is working."""
        return bool(self._limiter.borrowed_tokens or self._state.running)
