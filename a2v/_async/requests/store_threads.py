"""Exchanges with a store that no task waits for.

The driver awaits its exchanges. A client without a driver, or one that tries to reach its store again, does not wait for a store
that blocks: it starts a thread that runs a ``Write`` or a ``Reconnection``, and checks later whether that has ended. They use
only what they were given, so no other state of the client is used in several threads.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from attrs import define, field

from a2v._budget.store import Exchanged, Position, Store, StoreUnavailableError
from a2v._core.account_log import Fact


@define(eq=False)
class Write:
    """A write.

    Attributes:
        store: The store.
        position: The client's position.
        facts: What to write.
        entry: The same, sealed.
        earlier: The write before it.
        done: Set when it has ended.
        result: Its result; ``None``: the store cannot be used.
        unwritten: The facts that this write and earlier ones have not written. The store has failed, or the log was started again.
    """

    store: Store
    position: Position
    facts: list[Fact]
    entry: bytes
    earlier: Write | None
    done: threading.Event = field(factory=threading.Event)
    result: Exchanged | None = None
    unwritten: list[Fact] = field(factory=list[Fact])

    def run(self) -> None:
        """Write, after the earlier write has ended."""
        try:
            if self.earlier:
                self.earlier.done.wait()
                self.unwritten, self.earlier = self.earlier.unwritten, None
            with suppress(StoreUnavailableError):  # the next exchange will notice
                self.result = self.store.exchange(self.position, [self.entry])
            if not self.result or self.entry not in self.result.entries:
                self.unwritten = [*self.unwritten, *self.facts]
        finally:
            self.done.set()

    def end(self) -> Position:
        """Return the end of the log if it consists of this write, once that has ended; otherwise the client's position."""
        self.done.wait()
        if self.result and self.result.entries == [self.entry]:
            return self.result.position
        return self.position


@define(eq=False)
class Reconnection:
    """An attempt to read and write a store: a full one can only be read.

    Attributes:
        store: The store.
        entry: What to write.
        done: Whether it has ended.
        succeeded: Whether the store can be read and written.
    """

    store: Store
    entry: bytes
    done: bool = False
    succeeded: bool = False

    def run(self) -> None:
        """Try it."""
        try:
            with suppress(StoreUnavailableError):
                self.store.exchange(self.store.exchange(Position(), []).position, [self.entry])
                self.succeeded = True
        finally:
            self.done = True
