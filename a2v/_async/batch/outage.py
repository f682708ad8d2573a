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
TRANSIENT_ERRORS: tuple[type[A2VError], ...] = (TransportError, ServerError, RateLimitError)
"""Errors after which the same request may succeed later."""


class Outage:
    """Retries requests while the server is unreachable or failing, for up to ``MAX_OUTAGE`` seconds.

    All requests of one object share the outage: once it has lasted that long, each request fails at its first attempt, until
    one succeeds.

    Args:
        throttled_for: Returns the seconds for which the server has rejected all requests with 429. They count as part of the
            outage.
    """

    def __init__(self, throttled_for: Callable[[], float]) -> None:
        self._throttled_for = throttled_for
        self._since: float | None = None

    async def retry(self, attempt: Callable[[], Awaitable[T]], *also: type[A2VError]) -> T:
        """Call ``attempt`` every ten seconds until the outage ends.

        Args:
            attempt: Sends the request.
            *also: Errors that count as an outage too, besides ``TRANSIENT_ERRORS``.

        Returns:
            The result of ``attempt``.

        Raises:
            A2VError: The error of ``attempt``, if it is another one or the outage has lasted too long.
        """
        while True:
            try:
                result = await attempt()
            except (*TRANSIENT_ERRORS, *also):
                now = anyio.current_time()
                self._since = now - self._throttled_for() if self._since is None else self._since
                if now + RETRY_INTERVAL - self._since > MAX_OUTAGE:
                    raise
                await anyio.sleep(RETRY_INTERVAL)
            else:
                self._since = None
                return result
