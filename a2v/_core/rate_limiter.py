"""The rate limiter of a client: when it may send each request.

It is a pure state machine, without a clock or I/O. ``now`` is the time in seconds by any monotonic clock, always the same one. A
driver does this for *every* request, including retries::

    delay = limiter.delay(now, RequestKind.SUBMIT)  # 0.0: now; inf: ask again after the next response
    reservation = limiter.acquire(now)  # right before sending, without an await since delay() returned 0.0
    # ... and then exactly one of these, whatever happens:
    limiter.release(reservation, now, headers)  # a response; good=False for HTTP 4xx and 5xx
    limiter.release(reservation, now)  # no response: an error, a timeout, a cancellation
    seconds = limiter.throttled(reservation, now, headers)  # HTTP 429 or code 1009: nothing is sent for this long
    limiter.unavailable(reservation, now, headers)  # HTTP 503: nothing is sent until Retry-After

**Own log.** The server may use fixed windows, a sliding window or a token bucket, and does not say which. Sending at
most ``limit`` requests within any minute satisfies all three. So the limiter logs when each request of the last minute
ended: the server counted it no later than that. Requests in flight count too.

**The server's count.** The log would suffice if no other client used the token. If others do, ``X-Ratelimit-Left`` is lower than
the log explains. Only the headers of the newest request count, because responses may arrive in any order.

**Other clients.** The headers show how much all clients use, but not how many there are. So each client estimates
their number (``_clients``), and spaces its polls for an equal share of the limit, with some jitter. The estimate rises
while the clients use up the limit too fast, most of all after a 429, and falls while some of the limit is left over. All
clients see the same count, so their estimates rise and fall together. They also drift slowly towards one common value, so
different estimates converge, and with them the shares. Intervals are longer while few requests are left in the window, and shorter
while many are. No client sends a burst when the window is reset. Estimating the share from a client's own requests instead
would preserve any share, however unfair; halving the rate after a 429 would make shares random.

**Spreading.** If everything were sent at once, the next request might have to wait for a minute. So each kind of request may
use part of the limit as a burst (``_BURST``), and requests beyond that are spread over the rest of the minute. Polls have the
smallest burst and calls the largest, so polls leave room for submissions, and both leave room for calls.

Invariants: a reservation is in flight until it is released or older than ``abandon_after``, and then in the log for a minute.
While both together reach the limit, no request is allowed. Until the first response, one request is sent at a time.
"""

from __future__ import annotations

import math
import random
import re
from bisect import insort
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
"""The hosted service's limit: requests per minute."""

_WINDOW = 60.0  # seconds
_MARGIN = 0.5  # seconds; clocks run at slightly different speeds, and a cancelled request may arrive after its release
# After the last sign of other clients, they are assumed to be active for this many seconds or own intervals, whichever is longer.
_SHARED_MEMORY = 2 * _WINDOW
_SHARED_INTERVALS = 3
_THROTTLED_MEMORY = 300.0  # seconds after a 429; a later 429 starts a new series, because the client was idle
_ROUNDING = 1.0  # seconds; Date and X-Ratelimit-Reset are whole seconds, so their difference may be one second short
# The estimate of the number of clients. The values were chosen with benchmarks/polling.py. Use is in multiples of the limit.
_TARGET_USE = 0.97  # of all clients together
_GAIN = 1.5  # exponent of the correction per minute of observation
_MIN_AGE = 8.0  # seconds; a younger window does not show how fast the clients send
_PRIOR = 15.0  # seconds of use at the target that are added to each observation, so that short observations count less
_MAX_USE = 8.0  # a higher use is capped
_THROTTLED_USE = 1.5  # minimum use after a 429
_MAX_CLIENTS = 200.0
_MAX_INTERVAL = 240.0  # seconds
_COMMON_CLIENTS = 6.0  # the value that estimates drift to ...
_DRIFT_DOWN, _DRIFT_UP = 5.0, 10.0  # ... and the time constants for higher and lower estimates, in minutes
_SMOOTHING = 20.0  # seconds of the window at the target that are added to the rest of the window
_JITTER = 0.2  # total width of the random part of an interval, relative to the interval
# To recognise a token bucket: consecutive matching responses, seconds between two checks, and missing tokens that prove other
# clients. Latency and rounding explain up to two.
_BUCKET_RESPONSES, _BUCKET_PERIOD, _BUCKET_MISSING = 3, 45.0, 3
MAX_IN_FLIGHT = 50
"""Maximum number of a client's requests in flight. It limits the open connections instead of the pool, which also serves downloads
and must not delay them."""
_EPSILON = 1e-6  # seconds; a delay below the resolution of a clock would never pass

_MAX_PAUSE = 120.0  # seconds, even if a response asks for longer
_FIRST_PAUSE = 2.0  # seconds after a 429 without a delay; doubled for each further one
_MAX_RETRY_AFTER = 365 * 86_400.0  # seconds; some servers send thousands of digits
_SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)


class RequestKind(StrEnum):
    """The purpose of a request."""

    CALL = "call"
    """A caller waits for the response itself: ``characters.list``, ``videos.get``."""
    SUBMIT = "submit"
    """``video.generate``."""
    GET = "get"
    """A poll of one video."""
    LIST = "list"
    """A poll of all videos."""


@frozen(eq=False, repr=False, kw_only=True)
class Pace(Value):
    """How fast a client can send requests at the moment.

    Attributes:
        limit: Requests per minute that the server allows, as far as known; ``None``: no limit.
        left: Requests that can still be sent in the current minute; ``None``: no limit.
        next_in: Seconds until the next request is sent; ``None``: no request is waiting.
        failing_for: Seconds since the first failure after the last successful request; ``None``: the last request succeeded.
    """

    limit: int | None
    left: int | None
    next_in: float | None
    failing_for: float | None = None


# The interval between requests if other clients use the token, in multiples of the interval at an equal share. Calls do not wait.
_SHARED_INTERVAL = {RequestKind.CALL: 0.0, RequestKind.SUBMIT: 1 / 3, RequestKind.GET: 1.0, RequestKind.LIST: 1.1}
# The fraction of a window's requests that may be sent at once. Requests beyond it are spread over the rest of the window.
_BURST = {RequestKind.CALL: 1.0, RequestKind.SUBMIT: 0.8, RequestKind.GET: 1 / 3, RequestKind.LIST: 1 / 3}


class RateLimiter:
    """Limits the requests that are sent with one token.

    Args:
        limit: Requests per minute until a response reports the server's limit; ``None``: no limit.
        ceiling: Upper bound of the limit, whatever responses report; ``None``: no bound.
        abandon_after: Seconds after which a reservation counts as released: an event loop that is closed during a request
            cannot release it. Infinite by default.
        jitter: Returns random numbers in [0, 1), so that throttled clients do not resume at the same time.

    Attributes:
        limit: Requests per minute; ``None``: no limit.
        reported: The limit that a response reported to this client or another one, regardless of ``ceiling``; ``None`` if there was
            none.
        max_in_flight: Maximum number of requests in flight.
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
        self.reported: int | None = None
        # Used if the server turns out to have a limit but does not report it.
        self._assumed_limit = self._capped(limit or DEFAULT_LIMIT)
        self.max_in_flight: float = MAX_IN_FLIGHT
        self._abandon_after = abandon_after
        self._jitter = jitter
        # Reservations are increasing numbers. Those in flight, with the times at which they were acquired.
        self._last_reservation = 0
        self._in_flight: dict[int, float] = {}
        # When each request of the last window ended.
        self._log: deque[float] = deque()
        self._last_sent = -math.inf
        # Nothing is sent before this time, after a 429 or 503. And the length of the current series of 429s.
        self._paused_until = -math.inf
        self._throttled_count = 0
        self._throttled_at = -math.inf
        # The first 429 after the last success.
        self._throttled_since: float | None = None
        # The reservation of the newest response, and the server's window according to that response.
        self._newest_response = 0
        self._left: int | None = None
        self._resets_at = -math.inf
        # Whether a response has shown the limit, or that there is none; and when a response last showed that other clients use the
        # token.
        self._is_limit_known = False
        self._others_seen_at = -math.inf
        # The estimated number of clients with equal shares, and when it was last updated.
        self._clients: float = 1.0
        self._estimated_at: float | None = None
        # The rest of the server's window divided by its remaining requests; 0.0: no other clients. And the random factor of the
        # next interval.
        self._seconds_per_request: float = 0.0
        self._interval_factor: float = 1.0
        # The number of consecutive responses that are consistent with a token bucket; and the time, tokens and reservation at the
        # last check.
        self._bucket_responses: int = 0
        self._bucket_checked: tuple[float, float, int] | None = None

    @property
    def in_flight(self) -> int:
        """The number of reservations that have not been released."""
        return len(self._in_flight)

    def left(self, now: float) -> int | None:
        """Return how many requests can still be sent in the current minute, as far as known; ``None``: no limit."""
        self._expire(now)
        if self.limit is None:
            return None
        own = self.limit - len(self._in_flight) - len(self._log)
        return max(0, own if self._left is None else min(own, self._left))

    def delay(self, now: float, kind: RequestKind = RequestKind.CALL) -> float:
        """Return how long a request of this kind has to wait.

        Returns:
            Seconds; 0.0: send it now; infinity: wait until a request in flight has ended.
        """
        self._expire(now)
        pause, delay = self._paused_until - now, self._window_delay(now)
        # Spreading starts after a pause: the server's window may be another one then.
        return max(pause, delay) if pause > 0 else max(0.0, delay, self._spread_delay(now, kind))

    def acquire(self, now: float) -> int:
        """Reserve a request that is sent now.

        Returns:
            The reservation. Pass it to ``release``, ``throttled`` or ``unavailable``.
        """
        self._last_reservation += 1
        self._in_flight[self._last_reservation] = self._last_sent = now
        self._interval_factor = 1 + _JITTER * (self._jitter() - 0.5)
        if self._left is not None:
            self._left -= 1
        return self._last_reservation

    def release(
        self, reservation: int, now: float, headers: Mapping[str, str] | None = None, *, good: bool = True
    ) -> None:
        """Record that a request has ended.

        Args:
            reservation: The reservation.
            now: The time.
            headers: The response's headers, names in lower case; ``None`` if there was no response.
            good: Whether the response was a success.
        """
        if self._in_flight.pop(reservation, None) is not None:
            self._log.append(now)
        self._expire(now)
        if headers is None:
            return
        if good:
            self._throttled_count, self._throttled_since = 0, None
        self._read_if_newest(reservation, now, headers, good=good)

    def restrict(self, ceiling: int | None) -> None:
        """Replace the upper bound of the limit; ``None``: no bound. A higher bound counts from the next response on."""
        self._ceiling = math.inf if ceiling is None else ceiling
        if self.limit is not None or ceiling is not None:
            self.limit = self._capped(self._assumed_limit if self.limit is None else self.limit)

    def expect(self, limit: int | None) -> None:
        """Use the limit that another client has learned, if it is higher, until a response to this client reports one."""
        if not self._is_limit_known and limit is not None and self.limit is not None:
            self.limit = self._capped(max(limit, self.limit))
            self.reported = max(limit, self.reported or 0)

    def cancel(self, reservation: int) -> None:
        """Return a reservation without counting it: nothing was sent."""
        if self._in_flight.pop(reservation, None) is not None and self._left is not None:
            self._left += 1

    def abandon(self, reservation: int, at: float) -> None:
        """Record that the holder of a reservation has crashed.

        Args:
            reservation: The reservation.
            at: When the holder was last known to run, which may be before requests that ended later.
        """
        if self._in_flight.pop(reservation, None) is not None:
            insort(self._log, at)

    def throttled(self, reservation: int, now: float, headers: Mapping[str, str]) -> float:
        """Record that a request exceeded the limit (HTTP 429, or code 1009).

        Returns:
            For how many seconds nothing will be sent.
        """
        # Several requests in flight that are throttled together count once.
        if self._in_flight.get(reservation, now) >= self._throttled_at:
            self._throttled_count += 1
            if self._throttled_since is None or now - self._throttled_at > _THROTTLED_MEMORY:
                self._throttled_since = now
            self._throttled_at = now
        self._others_seen_at = now
        self.release(reservation, now)
        self._read_if_newest(reservation, now, headers, good=False, throttled=True)
        self.limit = self.limit or self._assumed_limit
        asked, doublings = retry_after(headers), 2.0 ** min(self._throttled_count - 1, 9)
        if asked is None:
            pause = min(_FIRST_PAUSE * doublings, _WINDOW)
        else:
            # The minimum is for servers that always ask for 0 s: they would otherwise get a request per second forever.
            pause = max(min(asked, _MAX_PAUSE), min(doublings, _WINDOW))
        # Each client resumes at a random time of its own interval.
        self._pause(pause, now, spread=min(self._interval, _WINDOW) / 2 if self._seconds_per_request else 0.0)
        self._is_limit_known = True
        self._left, self._resets_at = 0, self._paused_until
        return self._paused_until - now

    def throttled_for(self, now: float) -> float:
        """Return the seconds since the first 429 after the last success; 0.0 if there was none."""
        return 0.0 if self._throttled_since is None else now - self._throttled_since

    def unavailable(self, reservation: int, now: float, headers: Mapping[str, str]) -> None:
        """Record that the server is unavailable (HTTP 503). Nothing is sent for as long as ``Retry-After`` asks."""
        self.release(reservation, now, headers, good=False)
        asked = asked_to_wait(headers)
        if asked is not None:
            self._pause(min(asked, _MAX_PAUSE), now)

    def _pause(self, pause: float, now: float, spread: float = 0.0) -> None:
        """Send nothing for ``pause`` seconds, plus jitter of up to 1 s, 10 % and ``spread`` s, so that clients do not resume together."""
        self._paused_until = max(self._paused_until, now + pause + self._jitter() * (1 + pause / 10 + spread))

    def _capped(self, limit: int) -> int:
        return int(min(limit, self._ceiling))

    def _expire(self, now: float) -> None:
        abandoned = [each for each, sent in self._in_flight.items() if sent < now - self._abandon_after]
        for reservation in abandoned:
            del self._in_flight[reservation]
            self._log.append(now)
        while self._log and self._log[0] <= now - _WINDOW - _MARGIN + _EPSILON:
            self._log.popleft()
        if now >= self._resets_at - _EPSILON:
            self._left = None

    def _window_delay(self, now: float) -> float:
        """Return the seconds until both the own log and the server's window have room."""
        in_flight = len(self._in_flight)
        if in_flight >= self.max_in_flight:
            return math.inf
        if self.limit is None:
            return 0.0
        if in_flight and self._must_wait_for_responses(now, in_flight, self.limit):
            return math.inf
        delay = self._log_delay(now, self.limit)
        if self._left is not None and self._left <= 0:
            return max(self._resets_at - now, delay)
        return delay

    def _must_wait_for_responses(self, now: float, in_flight: int, limit: int) -> bool:
        """Whether to wait for a response first, because it may show that other clients have used the rest of the window."""
        if not self._is_limit_known or 3 * in_flight >= limit:
            return True
        return self._is_shared(now) and (self._left is None or self._left <= 2 * in_flight)

    def _is_shared(self, now: float) -> bool:
        return now - self._others_seen_at < max(_SHARED_MEMORY, _SHARED_INTERVALS * self._interval)

    @property
    def _interval(self) -> float:
        """The seconds between requests at an equal share of the limit."""
        return self._clients * _WINDOW / (self.limit or self._assumed_limit)

    def _log_delay(self, now: float, limit: int) -> float:
        excess = len(self._in_flight) + len(self._log) - limit
        if excess < 0:
            return 0.0
        return self._log[excess] + _WINDOW + _MARGIN - now if excess < len(self._log) else math.inf

    def _spread_delay(self, now: float, kind: RequestKind) -> float:
        """Return the seconds by which a request beyond the burst of its kind is delayed; 0 or less: no delay."""
        if self.limit is None:
            return 0.0
        if self._seconds_per_request and self._is_shared(now):
            per_request = _WINDOW / self.limit if self._left is None else self._seconds_per_request
            interval = _SHARED_INTERVAL[kind] * self._clients * per_request * self._interval_factor
            return self._last_sent + min(interval, _MAX_INTERVAL) - now
        left = self.limit - len(self._in_flight) - len(self._log)
        frees_at = self._log[0] + _WINDOW + _MARGIN if self._log else now
        interval = (_WINDOW + _MARGIN) / self.limit
        if left > 0:
            interval = max(interval, (frees_at - now) / (left + 1))
        if self._left is not None and self._is_shared(now):
            left = min(left, self._left)
            # A sliding window resets continuously, so without a minimum the last requests would be used up at once.
            interval = max(interval, max(self._resets_at - now, _WINDOW / 5) / max(self._left, 1))
        if self.limit - left < _BURST[kind] * self.limit:
            return 0.0
        return self._last_sent + interval - now

    def _read_if_newest(
        self, reservation: int, now: float, headers: Mapping[str, str], *, good: bool, throttled: bool = False
    ) -> None:
        if reservation > self._newest_response:
            self._newest_response = reservation
            self._read_headers(headers, now, good=good, throttled=throttled)

    def _read_headers(self, headers: Mapping[str, str], now: float, *, good: bool, throttled: bool) -> None:
        total, left = _smallest(headers, "x-ratelimit-total"), _smallest(headers, "x-ratelimit-left")
        if total is None and left is None:
            if good and not self._is_limit_known:
                self.limit = None if math.isinf(self._ceiling) else self._capped(self._assumed_limit)
                self._is_limit_known = True
            return
        self._is_limit_known = True
        if total and total >= 1:
            self.reported = int(total)
            self.limit = self._capped(self.reported)
        else:
            self.limit = self.limit or self._assumed_limit
        if left is None:
            return
        reset = reset_in(headers)
        if self._shows_others(now, self.limit, left, reset):
            self._others_seen_at = now
        self._estimate_clients(now, self.limit, left, reset, throttled=throttled)
        self._left = int(left) - len(self._in_flight)
        # If the response has no reset time in the future, only the own log counts.
        self._resets_at = now if reset is None else now + min(reset, _WINDOW) + _ROUNDING

    def _shows_others(self, now: float, limit: int, left: float, reset: float | None) -> bool:
        """Whether a response shows requests of other clients: fewer are left than this client's requests explain."""
        if left < limit - len(self._in_flight) - len(self._log):
            return True
        # The refill of a token bucket may hide the requests of others, if they are few. But the reset time, when the bucket will be
        # full, also shows how many tokens are missing.
        per_token = _WINDOW / limit
        is_bucket = reset is not None and abs(reset - (limit - left) * per_token) <= per_token + _ROUNDING + _MARGIN
        self._bucket_responses = self._bucket_responses + 1 if is_bucket else 0
        checked = self._bucket_checked
        if checked and now < checked[0] + _BUCKET_PERIOD and left < limit - 1:
            return False
        self._bucket_checked = now, left, self._newest_response
        if checked is None or self._bucket_responses < _BUCKET_RESPONSES or left >= limit - 1:
            return False  # a full bucket may have missed a refill
        own = self._newest_response - checked[2]
        return checked[1] + (now - checked[0]) / per_token - own - left >= _BUCKET_MISSING

    def _estimate_clients(self, now: float, limit: int, left: float, reset: float | None, *, throttled: bool) -> None:
        """Update the estimated number of clients from how fast all of them together have used the server's window so far."""
        if not self._is_shared(now):
            self._clients, self._estimated_at, self._seconds_per_request = 1.0, None, 0.0
            return
        until_reset = 0.0 if reset is None else reset
        if until_reset > _WINDOW + _ROUNDING:  # a window of another length
            self._clients, self._estimated_at, self._seconds_per_request = 1.0, None, 0.0
            return
        used = 1 - min(max(left / limit, 0.0), 1.0)
        self._seconds_per_request = (until_reset + _SMOOTHING) / (limit * (1 - used + _SMOOTHING / _WINDOW))
        # For a sliding window, this is the age of its first request, so both kinds of windows are handled in the same way.
        age = max(0.0, _WINDOW - until_reset)
        if age < _MIN_AGE and used < 1 / 2:
            return
        use = (used * _WINDOW + _TARGET_USE * _PRIOR) / (age + _PRIOR)
        if throttled:
            use = max(use, _THROTTLED_USE)
        minutes = 1.0 if self._estimated_at is None else min(1.0, (now - self._estimated_at) / _WINDOW)
        self._estimated_at = now
        estimate = math.log(self._clients) + _GAIN * minutes * math.log(min(use, _MAX_USE) / _TARGET_USE)
        drift = _DRIFT_DOWN if self._clients > _COMMON_CLIENTS else _DRIFT_UP
        estimate += (math.log(_COMMON_CLIENTS) - estimate) * (1 - math.exp(-minutes / drift))
        self._clients = min(max(math.exp(estimate), 1.0), _MAX_CLIENTS)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait after a 429: the later one of ``Retry-After`` and ``X-Ratelimit-Reset``.

    Args:
        headers: A response's headers, names in lower case.

    Returns:
        Seconds; the time until a reset is clamped to 1 to 120. ``None`` if the response has neither header.
    """
    reset, asked = reset_in(headers), asked_to_wait(headers)
    times = [] if asked is None else [asked]
    if reset is not None:
        times.append(min(max(reset, 1.0), _MAX_PAUSE))
    return max(times, default=None)


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in ``Retry-After``: a number, or a date measured against the ``Date`` of the same response.

    Args:
        headers: A response's headers, names in lower case.

    Returns:
        Seconds, from 0.0 to a year; ``None`` if the header is missing, unreadable, negative or a date in the past.
    """
    value = headers.get("retry-after", "")
    seconds = [float(part) for part in map(str.strip, value.split(",")) if _SECONDS.fullmatch(part)]
    if seconds:
        return min(max(seconds), _MAX_RETRY_AFTER)
    until, date = _read_date(value), _read_date(headers.get("date", ""))
    if until is None or date is None or until < date:
        return None
    return min(until - date, _MAX_RETRY_AFTER)


def file_pause(status: int, headers: Mapping[str, str], tries: int) -> float:
    """Return the seconds to wait before requesting a file again. Storage hosts have rate limits too, but no headers about them.

    Args:
        status: The response's HTTP status.
        headers: Its headers, names in lower case.
        tries: The number of retries so far.

    Returns:
        Seconds, at most 120; 0.0 if the response does not ask to wait.
    """
    if status == 429:
        asked = retry_after(headers)
        return min(_FIRST_PAUSE * 2.0 ** min(tries, 9), _WINDOW) if asked is None else min(asked, _MAX_PAUSE)
    return min(asked_to_wait(headers) or 0.0, _MAX_PAUSE) if status == 503 else 0.0


def reset_in(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the server's window ends, by the server's own clock.

    ``X-Ratelimit-Reset`` is read as seconds from now, or as a Unix time in seconds or milliseconds. The latter is measured
    against the ``Date`` of the same response: the local clock may be minutes off.

    Args:
        headers: A response's headers, names in lower case.

    Returns:
        Seconds, 0.0 or more; ``None`` if the response does not say, or gives a time in the past.
    """
    date = _read_date(headers.get("date", ""))
    seconds = (_seconds_until(number, date) for number in _numbers(headers, "x-ratelimit-reset"))
    return min((each for each in seconds if each is not None and each >= 0), default=None)


def _seconds_until(reset: float, date: float | None) -> float | None:
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
    """Return the numbers in a header. One that was sent twice arrives joined by a comma."""
    numbers: list[float] = []
    for part in headers.get(name, "").split(","):
        try:
            number = float(part)
        except ValueError:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers
