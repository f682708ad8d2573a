"""Logs outages: a warning after 30 seconds without a successful request, and a line when requests succeed again.

Single failures are retried, so they are not worth a warning. But if no request succeeds for half a minute, all waits are delayed,
and an operator should know; and also when the outage is over.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2v.errors import A2VError

_WARN_AFTER = 30.0  # seconds

logger: logging.Logger = logging.getLogger("a2v.client.outage")
"""A logger of its own: the command line shows these lines even if it logs nothing else."""


class OutageLog:
    """Tracks the outages of the server, as seen by one event loop of a client."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._warned = False

    def failing_for(self, now: float) -> float | None:
        """Return the seconds since the first failure after the last success; ``None`` if the last request succeeded."""
        return None if self._since is None else now - self._since

    def failed(self, error: A2VError, now: float) -> None:
        """Record a transient failure of a request: no response, a server error, or too many requests."""
        if self._since is None:
            self._since = now
        if not self._warned and now - self._since >= _WARN_AFTER:
            self._warned = True
            logger.warning(
                "no request has succeeded for %.0f s (%s); still retrying", now - self._since, type(error).__name__
            )

    def succeeded(self, clock: Callable[[], float]) -> None:
        """Record that the server has processed or rejected a request.

        Args:
            clock: Returns the time. It is only read at the end of an outage, because this method is called after every request.
        """
        if self._since is not None and self._warned:
            logger.info("requests succeed again, after %.0f s", clock() - self._since)
        self._since, self._warned = None, False
