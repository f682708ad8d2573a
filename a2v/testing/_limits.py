"""How a service counts requests, and what its replies tell of that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Literal

from attrs import define, field, frozen

from a2v._values import arguments
from a2v.errors import InvalidArgumentError

EPOCH = 1_700_000_000.0
"""The Unix time of a service's first request, unless it is a server: the same in each run."""


@frozen
class Standing:
    """What became of a request, as the service counts.

    Attributes:
        passes: Whether it is not one too many.
        left: How many more may come.
        resets: When, in the service's seconds, the count begins anew.
    """

    passes: bool
    left: int
    resets: float


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
    """So many requests in so many seconds; one object counts for all services that it is given to.

    Args:
        requests: How many requests may come, 30 by default.
        per: In how many seconds, 60 by default.
        reset: What ``X-Ratelimit-Reset`` says: a Unix time in ``"seconds"`` (the default) or ``"milliseconds"``, or the
            seconds from now (``"delta"``). ``None``: replies do not speak of the limit at all.
    """

    requests: int = field(default=30, validator=_check_requests)
    per: float = field(default=60.0, validator=_check_per)
    reset: Reset | None = field(default="seconds", validator=_check_reset)

    @abstractmethod
    def arrive(self, now: float) -> Standing:
        """Count a request that arrives now."""

    def headers(self, standing: Standing, now: float, epoch: float) -> dict[str, str]:
        """What the reply says of it; ``epoch`` is the service's second 0 as a Unix time, by its own clock."""
        if self.reset is None:
            return {}
        at = epoch + standing.resets
        shown = {"seconds": at, "milliseconds": at * 1000, "delta": standing.resets - now}[self.reset]
        return {
            "x-ratelimit-total": str(self.requests),
            "x-ratelimit-left": str(standing.left),
            "x-ratelimit-reset": str(math.ceil(shown)),
        }


@define
class FixedWindow(RateLimit):
    """So many requests in each window, as the hosted service counts; a full count begins anew with the next window.

    Args:
        offset: How many seconds of the first window are over when the first request comes.
    """

    offset: float = field(default=0.0, validator=_check_offset)
    _window: int = field(default=-1, init=False)
    _count: int = field(default=0, init=False)

    def arrive(self, now: float) -> Standing:
        """Count a request that arrives now."""
        window = math.floor((now + self.offset) / self.per)
        if window != self._window:
            self._window, self._count = window, 0
        self._count += 1
        left = max(0, self.requests - self._count)
        return Standing(self._count <= self.requests, left, (window + 1) * self.per - self.offset)


@define
class SlidingWindow(RateLimit):
    """So many requests in the seconds before each arrival."""

    _log: deque[float] = field(factory=deque, init=False)

    def arrive(self, now: float) -> Standing:
        """Count a request that arrives now."""
        while self._log and self._log[0] <= now - self.per:
            self._log.popleft()
        if passes := len(self._log) < self.requests:
            self._log.append(now)
        return Standing(passes, self.requests - len(self._log), self._log[0] + self.per)


@define
class TokenBucket(RateLimit):
    """A bucket of tokens that fills at an even rate; each request takes one."""

    _tokens: float = field(init=False)
    _seen: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = float(self.requests)

    def arrive(self, now: float) -> Standing:
        """Count a request that arrives now."""
        self._tokens = min(self.requests, self._tokens + (now - self._seen) * self.requests / self.per)
        self._seen = now
        if passes := self._tokens >= 1:
            self._tokens -= 1
        return Standing(passes, int(self._tokens), now + (self.requests - self._tokens) * self.per / self.requests)
