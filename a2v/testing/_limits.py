"""Rate limits, as services count requests and report the result in headers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Literal

from attrs import define, field, frozen

from a2v._values import arguments
from a2v.errors import InvalidArgumentError

EPOCH = 1_700_000_000.0
"""The Unix time of a service's first request, the same in each run; servers use the real time."""


@frozen
class LimitState:
    """The state of a limit after a request.

    Attributes:
        admitted: Whether the request was within the limit.
        remaining: The number of requests left.
        resets_at: When the count is reset, in the service's seconds.
    """

    admitted: bool
    remaining: int
    resets_at: float


def _check_requests(_: object, __: object, value: Any) -> None:
    arguments.integer("requests", value, minimum=1)


def _check_per(_: object, __: object, value: Any) -> None:
    arguments.seconds("per", value)


def _check_offset(_: object, __: object, value: Any) -> None:
    arguments.number("offset", value)


Reset = Literal["seconds", "milliseconds", "delta"]


def _check_reset(_: object, __: object, value: Reset | None) -> None:
    if value not in ("seconds", "milliseconds", "delta", None):
        raise InvalidArgumentError(
            f'reset must be "seconds", "milliseconds", "delta" or None, got {arguments.short_repr(value)}'
        )


@define
class RateLimit(ABC):
    """Base of the rate limits. Services that are given the same object share the limit.

    Args:
        requests: The number of requests allowed, 30 by default.
        per: The period in seconds, 60 by default.
        reset: The format of ``X-Ratelimit-Reset``: a Unix time in ``"seconds"`` (the default) or ``"milliseconds"``, or the
            seconds from now (``"delta"``). ``None``: replies have no rate-limit headers.
    """

    requests: int = field(default=30, validator=_check_requests)
    per: float = field(default=60.0, validator=_check_per)
    reset: Reset | None = field(default="seconds", validator=_check_reset)

    @abstractmethod
    def arrive(self, now: float) -> LimitState:
        """Count a request."""

    def headers(self, state: LimitState, now: float, epoch: float) -> dict[str, str]:
        """Return the headers of the reply; ``epoch`` is the service's time 0 as a Unix time."""
        if self.reset is None:
            return {}
        at = epoch + state.resets_at
        shown = {"seconds": at, "milliseconds": at * 1000, "delta": state.resets_at - now}[self.reset]
        return {
            "x-ratelimit-total": str(self.requests),
            "x-ratelimit-left": str(state.remaining),
            "x-ratelimit-reset": str(math.ceil(shown)),
        }


@define
class FixedWindow(RateLimit):
    """Counts requests in fixed windows, as the hosted service does; the count is reset at the start of each window.

    Args:
        offset: Seconds of the first window that have passed when the first request arrives; 0 by default.
    """

    offset: float = field(default=0.0, validator=_check_offset)
    _window: int = field(default=-1, init=False)
    _count: int = field(default=0, init=False)

    def arrive(self, now: float) -> LimitState:
        """Count a request."""
        window = math.floor((now + self.offset) / self.per)
        if window != self._window:
            self._window, self._count = window, 0
        self._count += 1
        left = max(0, self.requests - self._count)
        return LimitState(self._count <= self.requests, left, (window + 1) * self.per - self.offset)


@define
class SlidingWindow(RateLimit):
    """Counts the requests in the period before each arrival."""

    _log: deque[float] = field(factory=deque, init=False)

    def arrive(self, now: float) -> LimitState:
        """Count a request."""
        while self._log and self._log[0] <= now - self.per:
            self._log.popleft()
        if admitted := len(self._log) < self.requests:
            self._log.append(now)
        return LimitState(admitted, self.requests - len(self._log), self._log[0] + self.per)


@define
class TokenBucket(RateLimit):
    """A bucket that is refilled with tokens at a constant rate; each request takes one."""

    _tokens: float = field(init=False)
    _seen: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = float(self.requests)

    def arrive(self, now: float) -> LimitState:
        """Count a request."""
        self._tokens = min(self.requests, self._tokens + (now - self._seen) * self.requests / self.per)
        self._seen = now
        if admitted := self._tokens >= 1:
            self._tokens -= 1
        return LimitState(admitted, int(self._tokens), now + (self.requests - self._tokens) * self.per / self.requests)
