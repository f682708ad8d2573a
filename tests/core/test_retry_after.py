"""How long servers ask clients to wait, and the upper bound that callers set."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest

from a2v._core.rate_limiter import RateLimiter, asked_to_wait, retry_after

NOW = 1_700_000_000
DATE = {"date": formatdate(NOW, usegmt=True)}
YEAR = 365 * 86_400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        ("0", 0),
        ("1.5", 1.5),
        ("3600", 3600),
        ("3, 110", 110),
        (formatdate(NOW + 90, usegmt=True), 90),
        ("Tuesday, 14-Nov-23 22:14:50 GMT", 90),
        ("Tue Nov 14 22:14:50 2023", 90),
        (formatdate(NOW, usegmt=True), 0),
        (formatdate(NOW - 90, usegmt=True), None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", YEAR),
        ("9" * 5000, YEAR),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("soon", None),
        ("\u0663", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value, seconds):
    assert asked_to_wait(DATE | {"retry-after": value}) == seconds


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 06 Nov 99999999999 08:49:37 GMT"])
def test_a_date_needs_the_servers_clock(date):
    assert asked_to_wait({"date": date, "retry-after": formatdate(NOW + 90, usegmt=True)}) is None


@pytest.mark.parametrize(
    ("asked", "reset", "seconds"), [("3", "50", 50), ("50", "3", 50), ("3600", "50", 3600), ("soon", "7", 7)]
)
def test_of_both_headers_the_later_one_counts(asked, reset, seconds):
    assert retry_after({"retry-after": asked, "x-ratelimit-reset": reset}) == seconds


def throttle(limiter, now, **headers):
    return limiter.throttled(
        limiter.acquire(now), now, {name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(("asked", "pause"), [("3", 3), ("110", 110), ("3600", 120), ("9" * 5000, 120), ("0", 1)])
def test_a_throttled_client_pauses_as_asked_up_to_two_minutes(asked, pause):
    limiter = RateLimiter(jitter=lambda: 0.0)
    assert throttle(limiter, 0.0, retry_after=asked) == pause
    assert limiter.delay(0.0) == pause


def test_without_retry_after_the_pause_is_two_seconds_and_doubles():
    limiter, now, pauses = RateLimiter(jitter=lambda: 0.0), 0.0, []
    for _ in range(8):
        pauses.append(throttle(limiter, now))
        now += limiter.delay(now)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry-after": "5"}, 5),
        ({"retry-after": "3600"}, 120),
        ({"retry-after": "-5"}, 0),
        ({}, 0),
        ({"x-ratelimit-total": "30", "x-ratelimit-left": "20", "x-ratelimit-reset": "50"}, 0),
    ],
)
def test_an_unavailable_server_gets_no_requests_for_as_long_as_it_asks(headers, pause):
    limiter = RateLimiter(jitter=lambda: 0.0)
    limiter.unavailable(limiter.acquire(0.0), 0.0, headers)
    assert limiter.delay(0.0) == pause


# -- rate_limit as an upper bound -------------------------------------------------------------------------------------


def bounded(ceiling, **headers):
    limiter = RateLimiter(ceiling, ceiling=ceiling, jitter=lambda: 0.0)
    limiter.release(limiter.acquire(0.0), 0.0, {f"x-ratelimit-{name}": value for name, value in headers.items()})
    return limiter


@pytest.mark.parametrize(("total", "limit"), [("60", 10), ("10", 10), ("4", 4), ("0", 10), ("soon", 10)])
def test_responses_lower_the_bound_and_never_raise_it(total, limit):
    assert bounded(10, total=total).limit == limit


def test_the_bound_holds_if_the_server_has_no_limit():
    limiter = bounded(10)
    assert limiter.limit == 10
    sent = 1
    while limiter.delay(1.0) == 0.0:
        limiter.release(limiter.acquire(1.0), 1.0, {})
        sent += 1
    assert sent == 10
    assert 59 < limiter.delay(1.0) < math.inf


def test_the_bound_holds_after_throttling():
    limiter = bounded(10, total="4")
    throttle(limiter, 1.0)
    limiter.release(limiter.acquire(300.0), 300.0, {"x-ratelimit-total": "60", "x-ratelimit-left": "59"})
    assert limiter.limit == 10


def test_the_bound_may_be_above_the_default_limit():
    assert bounded(100).limit == 100


def test_without_a_known_limit_the_bound_is_the_limit():
    assert RateLimiter(None, ceiling=10).limit == 10
