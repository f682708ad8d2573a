"""What a store of shared budgets is: a log that several clients append to.

A store keeps one log for each account, and knows nothing about its contents. The log is a sequence of sealed entries. Its
*generation* is a random name that changes when the log is started again: because the store has lost it, or because it has
grown long. A client knows the log up to a *position*, and asks for three things at once: append these entries, perhaps only
if nothing was appended since, and return the entries that it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = "a2v budget 1"
"""The first words of each log. The number changes when older versions could not read the entries."""


@frozen
class Position:
    """A place in a log.

    Attributes:
        generation: The generation of the log; empty before the log was first read.
        offset: The store's own measure of the place.
    """

    generation: str = ""
    offset: int = 0


class Append(Enum):
    """Whether ``Store.exchange`` appends entries. It never does if the generation has changed."""

    ALWAYS = "always"
    """Also after entries that the client has not seen."""
    AT_END = "at end"
    """Only if the client has seen all entries."""
    RESTART = "restart"
    """As ``AT_END``, and the entries become the beginning of a new generation."""


@frozen
class Exchanged:
    """The result of ``Store.exchange``.

    Attributes:
        position: The end of the log.
        entries: The entries after the client's position. All entries if the generation has changed.
    """

    position: Position
    entries: Sequence[bytes]


class StoreUnavailableError(Exception):
    """A store cannot be used at present. The text says why, without secrets."""


class Store(Protocol):
    """A store of shared budgets, for one account.

    Attributes:
        name: The store's name in messages, without a password.
        blocks: Whether ``exchange`` may take long, so that it must not run in an event loop.
        check_interval: Seconds between checks for new entries; infinity: ``listen`` reports them.
    """

    name: str
    blocks: bool
    check_interval: float

    def now(self) -> float:
        """Return the time in seconds, by a clock that all users of the store share."""
        ...

    def has_changed(self, position: Position) -> bool:
        """Return whether there may be entries after a position. Does not block."""
        ...

    def exchange(self, position: Position, entries: Sequence[bytes], append: Append = Append.ALWAYS) -> Exchanged:
        """Append entries, and return the new ones, with the appended ones in their place.

        Args:
            position: The client's position.
            entries: The entries to append.
            append: The condition for appending them.

        Raises:
            StoreUnavailableError: The store cannot be used.
        """
        ...

    def listen(self, listener: Callable[[], object]) -> None:
        """Call a function after each change, in the current event loop, as long as something else refers to it."""
        ...
