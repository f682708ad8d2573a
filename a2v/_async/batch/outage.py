"""Waits for a server that is unreachable or failing."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from a2v._core.poll_scheduler import MAX_OUTAGE
from a2v.errors import RateLimitError, ServerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from a2v.errors import A2VError

T = TypeVar("T")

RETRY_INTERVAL = 10.0
"""Seconds between attempts during an outage."""
_TRANSIENT: tuple[type[A2VError], ...] = (TransportError, ServerError, RateLimitError)


class Outage:
    """Retries requests during an outage of the server, which may last as long as the one that a watch survives.

    The requests of one object share the outage: once it has lasted too long, each of them fails at its first attempt, until
    one succeeds.

    Args:
        throttled_for: Returns the seconds for which the server has rejected all requests with 429. They count too.
    """

    def __init__(self, throttled_for: Callable[[], float]) -> None:
        self._throttled_for = throttled_for
        self._since: float | None = None

    async def outlast(self, work: Callable[[], Awaitable[T]], *also: type[A2VError]) -> T:
        """Do something, again and again until the outage ends.

        Args:
            work: Does it once.
            *also: Errors that count as an outage, besides those of an unreachable or failing server.

        Raises:
            A2VError: As ``work`` raises, if its error is another one or the outage lasts too long.
        """
        while True:
            try:
                result = await work()
            except (*_TRANSIENT, *also):
                now = anyio.current_time()
                self._since = now - self._throttled_for() if self._since is None else self._since
                if now + RETRY_INTERVAL - self._since > MAX_OUTAGE:
                    raise
                await anyio.sleep(RETRY_INTERVAL)
            else:
                self._since = None
                return result
