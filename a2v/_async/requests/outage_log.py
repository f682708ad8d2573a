"""Logs outages: a warning once the server has failed for a while, and a line when it works again.

Single failures are retried and are not worth a warning. What an operator wants to know is that nothing has worked for half a
minute, because then all waits are late; and that it is over.
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
    """The outages of the server, as one event loop of a client sees them."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._warned = False

    def failing_for(self, now: float) -> float | None:
        """Return the seconds since the first of the failures after the last success; ``None`` if the last request succeeded."""
        return None if self._since is None else now - self._since

    def failed(self, error: A2VError, now: float) -> None:
        """Record that a request failed in a way that may pass: no response, a server error, or too many requests."""
        if self._since is None:
            self._since = now
        if not self._warned and now - self._since >= _WARN_AFTER:
            self._warned = True
            logger.warning(
                "no request has succeeded for %.0f s (%s); still retrying", now - self._since, type(error).__name__
            )

    def succeeded(self, clock: Callable[[], float]) -> None:
        """Record that the server has done or refused what was asked.

        Args:
            clock: Returns the time. It is read at the end of an outage only, because this is called after every request.
        """
        if self._since is not None and self._warned:
            logger.info("requests succeed again, after %.0f s", clock() - self._since)
        self._since, self._warned = None, False
