"""How many requests may be sent, and when: the one budget of a client.

A server may count in fixed windows, in a sliding one or with a token bucket. At most ``limit`` sends in any window of a
minute satisfies all three, so the budget keeps a log of its own sends. What the replies say (``X-Ratelimit-*``) matters
when somebody else uses the same token: then ``Left`` is less than the own log explains, and the rest of the server's
window is shared out by it.

No clock and no I/O: ``now`` is any steady clock in seconds, the same for every call. A driver does this for *every*
request, retries and other people's errors included::

    delay = budget.delay(now, Kind.SUBMIT)  # 0.0: now; inf: ask again when something is answered
    reservation = budget.acquire(now)  # right before sending, with no await since wait() said 0.0
    # ... and then exactly one of these, whatever happened:
    budget.release(reservation, now, headers)  # a reply; good=False for 4xx and 5xx
    budget.release(reservation, now)  # no reply: an error, a timeout, a cancellation
    seconds = budget.throttled(reservation, now, headers)  # HTTP 429 or code 1009: nothing is sent for so long
    budget.unavailable(reservation, now, headers)  # HTTP 503: nothing is sent for as long as Retry-After asks
"""

from __future__ import annotations

import math
import random
import re
from calendar import timegm
from collections import deque
from email.utils import parsedate
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

from a2v._values.serialization import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_LIMIT = 30
"""What the hosted service allows in a minute."""

_WINDOW = 60.0
# Clocks run at slightly different speeds, and a cancelled request may arrive after we gave it up.
_MARGIN = 0.5
# For so long others are expected to go on using the token.
_MEMORY = 2 * _WINDOW
# Both Date and Reset are whole seconds: their difference may be one short.
_ROUNDING = 1.0
# A pool of connections needs no limit then; for what is not counted here, such as downloads, it must not have one.
_MOST_IN_FLIGHT = 50
# Below a clock's resolution a delay would never pass.
_INSTANT = 1e-6

LONGEST_PAUSE = 120.0
"""Seconds that a client waits at most before it sends again, however long a response asks it to."""

_FIRST_PAUSE = 2.0  # after a 429 that does not say how long to wait; doubled after each one that follows
_LONGEST_RETRY_AFTER = 365 * 86_400.0  # what `retry_after` reports at most: some servers send thousands of digits
_SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)


class RequestKind(StrEnum):
    """What a request is for."""

    CALL = "call"
    """Somebody waits for the answer itself: ``characters.list``, ``videos.get``."""
    SUBMIT = "submit"
    GET = "get"
    """A look at one video."""
    LIST = "list"
    """A look at all videos."""


@frozen(kw_only=True)
class Pace(Value):
    """How fast a client may send requests at this moment.

    Attributes:
        limit: Requests per minute that the server allows, as far as is known; ``None``: no limit.
        left: Requests that may still be sent in the current minute; ``None``: no limit.
        next_in: Seconds until the next request is sent; ``None``: no request is waiting.
    """

    limit: int | None
    left: int | None
    next_in: float | None


# Up to this share of a window goes out at once; what is beyond is spread over the rest of it. So polls leave room for
# submits, and both for calls, which then wait seconds for a free place and not for the window's end.
_BURST = {RequestKind.CALL: 1.0, RequestKind.SUBMIT: 0.8, RequestKind.GET: 1 / 3, RequestKind.LIST: 1 / 3}


class RateLimiter:
    """The requests that one token may send.

    Args:
        limit: Requests per minute until a response tells the server's limit; ``None`` for no limit.
        ceiling: Upper bound of the limit, whatever responses say; ``None`` for no bound.
        abandon_after: Seconds after which a request is given up: an event loop that was closed amid one never tells.
        jitter: Gives numbers in [0, 1), so that clients that were refused together do not come back together.
    """

    def __init__(
        self,
        limit: int | None = DEFAULT_LIMIT,
        *,
        ceiling: int | None = None,
        abandon_after: float = math.inf,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ceiling = math.inf if ceiling is None else ceiling
        self.limit: int | None = ceiling if limit is None else self._capped(limit)
        self._believed = self._capped(limit or DEFAULT_LIMIT)
        self._abandon_after = abandon_after
        self._jitter = jitter
        self._reservations = 0
        self._in_flight: dict[int, float] = {}
        # When each send of the last window was answered, for the server counted it no later than that.
        self._log: deque[float] = deque()
        self._last_sent = -math.inf
        self._held_until = -math.inf
        self._throttled_count = 0
        self._throttled_at = -math.inf
        # What the newest reply said about the server's window.
        self._newest_reservation = 0
        self._left: int | None = None
        self._resets_at = -math.inf
        # Whether a reply has taught anything yet, and when the last one told of others who use the token.
        self._taught = False
        self._others_seen = -math.inf

    @property
    def in_flight(self) -> int:
        """How many requests were sent and not answered yet."""
        return len(self._in_flight)

    def left(self, now: float) -> int | None:
        """How many requests the next minute has room for, as far as is known; ``None``: there is no limit."""
        self._expire(now)
        if self.limit is None:
            return None
        own = self.limit - len(self._in_flight) - len(self._log)
        return max(0, own if self._left is None else min(own, self._left))

    def delay(self, now: float, kind: RequestKind = RequestKind.CALL) -> float:
        """How long a request of this kind must wait still.

        Returns:
            Seconds; 0.0 means now, infinity means until a request in flight is answered.
        """
        self._expire(now)
        held, room = self._held_until - now, self._room(now)
        # What a pause leaves to spread is known only after it: the server's window may be another one then.
        return max(held, room) if held > 0 else max(0.0, room, self._spread(now, kind))

    def acquire(self, now: float) -> int:
        """Note that a request is sent now.

        Returns:
            The reservation that ``answered`` or ``refused`` wants.
        """
        self._reservations += 1
        self._in_flight[self._reservations] = self._last_sent = now
        if self._left is not None:
            self._left -= 1
        return self._reservations

    def release(
        self, reservation: int, now: float, headers: Mapping[str, str] | None = None, *, good: bool = True
    ) -> None:
        """Note that a request was answered, failed or was given up.

        Args:
            reservation: What ``sent`` returned.
            now: The time.
            headers: The reply's, names in lower case; ``None`` if there was no reply.
            good: Whether the server did what was asked.
        """
        if self._in_flight.pop(reservation, None) is not None:
            self._log.append(now)
        self._expire(now)
        if headers is None:
            return
        if good:
            self._throttled_count = 0
        if reservation > self._newest_reservation:
            self._newest_reservation = reservation
            self._learn(headers, now, good=good)

    def throttled(self, reservation: int, now: float, headers: Mapping[str, str]) -> float:
        """Note that a request was one too many (HTTP 429, or code 1009).

        Returns:
            For how many seconds nothing will be sent.
        """
        if self._in_flight.get(reservation, now) >= self._throttled_at:  # not one of several that were refused together
            self._throttled_count += 1
            self._throttled_at = now
        self.release(reservation, now, headers, good=False)
        self.limit = self.limit or self._believed
        asked, doublings = retry_after(headers), 2.0 ** min(self._throttled_count - 1, 9)
        if asked is None:
            pause = min(_FIRST_PAUSE * doublings, _WINDOW)
        else:
            # A server that always asks for no wait at all is not asked every second for ever.
            pause = max(min(asked, LONGEST_PAUSE), min(doublings, _WINDOW))
        self._hold(pause, now)
        self._taught, self._others_seen = True, now
        self._left, self._resets_at = 0, self._held_until
        return self._held_until - now

    def unavailable(self, reservation: int, now: float, headers: Mapping[str, str]) -> None:
        """Note that the server is unavailable (HTTP 503). Nothing is sent for as long as ``Retry-After`` asks."""
        self.release(reservation, now, headers, good=False)
        asked = asked_to_wait(headers)
        if asked is not None:
            self._hold(min(asked, LONGEST_PAUSE), now)

    def _hold(self, pause: float, now: float) -> None:
        """Send nothing for ``pause`` seconds, and a little longer, so that siblings do not come back together."""
        self._held_until = max(self._held_until, now + pause + self._jitter() * (1 + pause / 10))

    def _capped(self, limit: int) -> int:
        return int(min(limit, self._ceiling))

    def _expire(self, now: float) -> None:
        for reservation in [
            reservation for reservation, sent in self._in_flight.items() if sent < now - self._abandon_after
        ]:
            del self._in_flight[reservation]
            self._log.append(now)
        while self._log and self._log[0] <= now - _WINDOW - _MARGIN + _INSTANT:
            self._log.popleft()
        if now >= self._resets_at - _INSTANT:
            self._left = None

    def _room(self, now: float) -> float:
        """How long until the windows, ours and the server's, have a place."""
        in_flight = len(self._in_flight)
        if in_flight >= _MOST_IN_FLIGHT:
            return math.inf
        if self.limit is None:
            return 0.0
        if in_flight and self._is_risky(now, in_flight, self.limit):
            return math.inf
        own = self._own_room(now, self.limit)
        if self._left is not None and self._left <= 0:
            return max(self._resets_at - now, own)
        return own

    def _is_risky(self, now: float, in_flight: int, limit: int) -> bool:
        """Whether to see first what becomes of those in flight, because others may have taken the last places."""
        if not self._taught or 3 * in_flight >= limit:
            return True
        return self._is_shared(now) and (self._left is None or self._left <= 2 * in_flight)

    def _is_shared(self, now: float) -> bool:
        return now - self._others_seen < _MEMORY

    def _own_room(self, now: float, limit: int) -> float:
        over = len(self._in_flight) + len(self._log) - limit
        if over < 0:
            return 0.0
        return self._log[over] + _WINDOW + _MARGIN - now if over < len(self._log) else math.inf

    def _spread(self, now: float, kind: RequestKind) -> float:
        """How long until a send would no longer be part of a burst."""
        if self.limit is None:
            return 0.0
        left = self.limit - len(self._in_flight) - len(self._log)
        oldest = self._log[0] + _WINDOW + _MARGIN if self._log else now
        gap = (_WINDOW + _MARGIN) / self.limit
        if left > 0:
            gap = max(gap, (oldest - now) / (left + 1))
        if self._left is not None and self._is_shared(now):
            left = min(left, self._left)
            # A sliding window resets every moment, so Reset alone would not keep others from the last places.
            gap = max(gap, max(self._resets_at - now, _WINDOW / 5) / max(self._left, 1))
        if self.limit - left < _BURST[kind] * self.limit:
            return 0.0
        return self._last_sent + gap - now

    def _learn(self, headers: Mapping[str, str], now: float, *, good: bool) -> None:
        total, left = _smallest(headers, "x-ratelimit-total"), _smallest(headers, "x-ratelimit-left")
        if total is None and left is None:
            if good and not self._taught:
                self.limit = None if math.isinf(self._ceiling) else self._capped(self._believed)
                self._taught = True
            return
        self._taught = True
        self.limit = self._capped(int(total)) if total and total >= 1 else self.limit or self._believed
        if left is None:
            return
        if left < self.limit - len(self._in_flight) - len(self._log):
            self._others_seen = now
        self._left = int(left) - len(self._in_flight)
        reset = reset_in(headers)
        # Where the reset is in the past or unreadable, the own log is all there is to go by.
        self._resets_at = now if reset is None else now + min(reset, _WINDOW) + _ROUNDING


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait after a refusal, by ``Retry-After`` and ``X-Ratelimit-Reset``: the later one if both are there.

    Args:
        headers: A response's headers, names in lower case.

    Returns:
        Seconds; a reset counts as 1 to 120. ``None`` if the response does not say.
    """
    reset, asked = reset_in(headers), asked_to_wait(headers)
    times = [] if asked is None else [asked]
    if reset is not None:
        times.append(min(max(reset, 1.0), LONGEST_PAUSE))
    return max(times, default=None)


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` asks for: a number, or a date measured against the ``Date`` of the same response.

    Args:
        headers: A response's headers, names in lower case.

    Returns:
        Seconds, from 0.0 to a year; ``None`` if the header is missing, unreadable, negative or a date in the past.
    """
    value = headers.get("retry-after", "")
    seconds = [float(part) for part in map(str.strip, value.split(",")) if _SECONDS.fullmatch(part)]
    if seconds:
        return min(max(seconds), _LONGEST_RETRY_AFTER)
    until, date = _read_date(value), _read_date(headers.get("date", ""))
    if until is None or date is None or until < date:
        return None
    return min(until - date, _LONGEST_RETRY_AFTER)


def file_pause(status: int, headers: Mapping[str, str], attempt: int) -> float:
    """Seconds to wait before a file is asked for again: storage limits requests, too, and has no window to learn from.

    Args:
        status: The response's HTTP status.
        headers: Its headers, names in lower case.
        attempt: How many tries there were, from 0.

    Returns:
        Seconds, at most 120; 0.0 if the response asks for no wait.
    """
    if status == 429:
        asked = retry_after(headers)
        return min(_FIRST_PAUSE * 2.0 ** min(attempt, 9), _WINDOW) if asked is None else min(asked, LONGEST_PAUSE)
    return min(asked_to_wait(headers) or 0.0, LONGEST_PAUSE) if status == 503 else 0.0


def reset_in(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server's window ends, by the server's own clock.

    ``X-Ratelimit-Reset`` is read as seconds from now, or as a Unix time in seconds or milliseconds, which is measured
    against the ``Date`` of the same reply: the local clock may be minutes off.

    Args:
        headers: A reply's headers, names in lower case.

    Returns:
        Seconds, 0.0 or more; ``None`` if the reply does not say, or names a time in the past.
    """
    date = _read_date(headers.get("date", ""))
    seconds = (_delta(number, date) for number in _numbers(headers, "x-ratelimit-reset"))
    return min((delta for delta in seconds if delta is not None and delta >= 0), default=None)


def _delta(reset: float, date: float | None) -> float | None:
    if reset < 1e6:
        return reset
    if date is None:
        return None
    return (reset / 1000 if reset > 1e11 else reset) - date


def _read_date(date: str) -> float | None:
    try:
        parsed = parsedate(date)
        return float(timegm(parsed)) if parsed else None
    except (ValueError, OverflowError):
        return None


def _smallest(headers: Mapping[str, str], name: str) -> float | None:
    return min(_numbers(headers, name), default=None)


def _numbers(headers: Mapping[str, str], name: str) -> list[float]:
    """The numbers of a header: one that was sent twice arrives joined by a comma."""
    numbers: list[float] = []
    for part in headers.get(name, "").split(","):
        try:
            number = float(part)
        except ValueError:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers
