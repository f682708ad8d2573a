"""A shared budget in the memory of one process."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING
from weakref import WeakMethod

import anyio
from attrs import define, field

from a2v import _threads
from a2v._budget.store import Append, Exchanged, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import MethodType


@define(eq=False)
class _Log:
    generation: str = field(factory=lambda: secrets.token_hex(16))
    entries: list[bytes] = field(factory=list[bytes])


class SharedBudget:
    """A shared budget in memory, for tests: pass it as ``budget=`` to several clients in one process.

    Works under virtual time, if all clients are in the same event loop.
    """

    def __init__(self) -> None:
        self._stores: dict[str, MemoryStore] = {}

    def store_for(self, account: str) -> MemoryStore:
        """Return the store of an account. Clients call this."""
        return self._stores.setdefault(account, MemoryStore())


class MemoryStore:
    """A store in memory, for one account.

    Args:
        now: Returns the time.

    Attributes:
        name: The store's name in messages.
        blocks: Whether it may block.
        check_interval: Infinite, because it calls its listeners.
    """

    name: str = "in memory"
    blocks: bool = False
    check_interval: float = float("inf")

    def __init__(self, now: Callable[[], float] = anyio.current_time) -> None:
        self.now: Callable[[], float] = now
        self._lock = threading.Lock()
        self._log = _Log()
        # Each with its thread, and the way to call it from another one.
        self._listeners: list[tuple[WeakMethod[Callable[[], object]], int, Callable[..., object]]] = []

    def has_changed(self, position: Position) -> bool:
        """See ``Store``."""
        return position != Position(self._log.generation, len(self._log.entries))

    def exchange(self, position: Position, entries: Sequence[bytes], append: Append = Append.ALWAYS) -> Exchanged:
        """See ``Store``."""
        with self._lock:
            is_known = position.generation == self._log.generation
            is_at_end = is_known and position.offset == len(self._log.entries)
            appends = bool(entries) and (is_at_end if append is not Append.ALWAYS else is_known)
            if appends and append is Append.RESTART:
                self._log, is_known = _Log(), False
            if appends:
                self._log.entries += entries
            new = self._log.entries[position.offset if is_known else 0 :]
            reached = Position(self._log.generation, len(self._log.entries))
        if appends:
            self._notify()
        return Exchanged(reached, new)

    def listen(self, listener: Callable[[], object]) -> None:
        """See ``Store``. The listener must be a method."""
        method: MethodType = listener  # type: ignore[assignment]  # as documented
        self._listeners.append((WeakMethod(method), threading.get_ident(), _threads.thread_safe_call_soon()))

    def _notify(self) -> None:
        for reference, thread, call_soon in list(self._listeners):
            listener = reference()
            if listener is None:
                self._listeners = [each for each in self._listeners if each[0] is not reference]
            elif thread == threading.get_ident():
                listener()
            else:
                try:
                    call_soon(listener)
                except RuntimeError:  # its event loop has ended
                    self._listeners = [each for each in self._listeners if each[0] is not reference]
