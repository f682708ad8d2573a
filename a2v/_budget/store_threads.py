"""Exchanges with a store that run in threads, without a task that waits for them.

The driver awaits its exchanges. A client without a driver, or one that tries to reach its store again, does not wait for a store
that blocks: a thread runs a ``Write`` or a ``Reconnection``, and the client checks later whether that has ended. Threads use only
the attributes of these objects, so they share no other state of the client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field

from a2v import _threads
from a2v._budget.store import Exchanged, Position, Store, StoreUnavailableError
from a2v._core.account_log import Fact

_DELAY = 0.002
"""Seconds before a write begins: what follows a request, such as the result of a poll or the next request, is written with it."""


@define(eq=False)
class Write:
    """Facts to write in a thread.

    Attributes:
        store: The store.
        position: The client's position.
        facts: The facts. Those that the earlier write could not write come first.
        seal: Returns the entry for facts.
        earlier: The previous write.
        entry: The sealed facts.
        done: Set when the write has ended.
        result: Its result; ``None``: the store cannot be used.
        unwritten: The facts that are still not written: the store has failed, or the log was started again.
    """

    store: Store
    position: Position
    facts: list[Fact]
    seal: Callable[[list[Fact]], bytes]
    earlier: Write | None
    entry: bytes = b""
    done: threading.Event = field(factory=threading.Event)
    result: Exchanged | None = None
    unwritten: list[Fact] = field(factory=list[Fact])

    def run(self) -> None:
        """Write. The earlier write has ended."""
        earlier, self.earlier = self.earlier, None
        self.unwritten = [*(earlier.unwritten if earlier else []), *self.facts]
        try:
            self.entry = self.seal(self.unwritten)
            with suppress(StoreUnavailableError):  # the next exchange will notice
                self.result = self.store.exchange(self.position, [self.entry])
            if self.result and self.entry in self.result.entries:
                self.unwritten = []
        finally:
            self.done.set()

    def end(self, position: Position) -> Position:
        """Return how far a client knows the log once it has applied this write, when that has ended.

        Args:
            position: The client's position. It is returned if the write followed entries of others, or preceded an outage.
        """
        self.done.wait()
        if self.position == position and self.result and self.result.entries == [self.entry]:
            return self.result.position
        return position


class Writer:
    """Runs the writes of a client in a thread, one at a time, each after a moment. Until then it may be withdrawn.

    A thread for each write would take longer than the write. So one thread wakes up at intervals, while there is something to do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: Write | None = None
        self._is_running = False

    def start(self, write: Write) -> None:
        """Start a write, when no other one waits to begin.

        Raises:
            OSError: The system has no more threads.
        """
        with self._lock:
            self._next = write
            is_running, self._is_running = self._is_running, True
        if not is_running:
            try:
                _threads.start(self._run, lambda: None)
            except OSError:
                self._next, self._is_running = None, False
                raise

    def withdraw(self) -> Write | None:
        """Cancel the write that has not begun, and return it."""
        with self._lock:
            write, self._next = self._next, None
            return write

    def _run(self) -> None:
        while True:
            time.sleep(_DELAY)
            with self._lock:
                write, self._next = self._next, None
                self._is_running = write is not None
            if write is None:
                return
            with suppress(Exception):  # the facts are unwritten, and the exchange that writes them will raise it
                write.run()


@define(eq=False)
class Reconnection:
    """An attempt to read and write a store. Reading it is not enough: a full store can still be read.

    Attributes:
        store: The store.
        entry: The entry to write.
        done: Set when the attempt has ended.
        succeeded: Whether the store can be read and written.
    """

    store: Store
    entry: bytes
    done: threading.Event = field(factory=threading.Event)
    succeeded: bool = False

    def run(self) -> None:
        """Try to read and write the store."""
        try:
            with suppress(StoreUnavailableError):
                self.store.exchange(self.store.exchange(Position(), []).position, [self.entry])
                self.succeeded = True
        finally:
            self.done.set()
