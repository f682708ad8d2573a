"""The rate limiter: never too many requests, and never needlessly few, whatever the server reports."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from email.utils import formatdate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2v._core.rate_limiter import RateLimiter, RequestKind, reset_in, retry_after

NOW = 1_700_000_000


def headers(*, total=30, left=29, reset=60.0, date=NOW):
    """The headers of a server that allows `total` requests per minute."""
    return {
        "date": formatdate(date, usegmt=True),
        "x-ratelimit-total": str(total),
        "x-ratelimit-left": str(left),
        "x-ratelimit-reset": str(int(date + reset)),
    }


def after_response(limit=30, at=0.0, **said):
    """Return a limiter after its first response."""
    limiter = RateLimiter(limit, jitter=lambda: 0.0)
    limiter.release(limiter.acquire(at), at, headers(**said))
    return limiter


def send_all(limiter, now, kind=RequestKind.CALL):
    """Return how many requests are allowed at this instant if each ends at once."""
    count = 0
    while limiter.delay(now, kind) == 0.0:
        limiter.release(limiter.acquire(now), now)
        count += 1
    return count


# -- never too many requests ------------------------------------------------------------------------------------------


class FixedWindow:
    def __init__(self, phase):
        self.phase, self.window, self.count = phase, None, 0

    def arrive(self, now):
        window = math.floor((now + self.phase) / 60)
        if window != self.window:
            self.window, self.count = window, 0
        self.count += 1
        return self.count <= 30, max(0, 30 - self.count), (window + 1) * 60 - self.phase - now


class SlidingWindow:
    def __init__(self, _):
        self.log = deque()

    def arrive(self, now):
        while self.log and self.log[0] <= now - 60:
            self.log.popleft()
        self.log.append(now)
        return len(self.log) <= 30, max(0, 30 - len(self.log)), self.log[0] + 60 - now


class TokenBucket:
    def __init__(self, _):
        self.tokens, self.seen = 30.0, 0.0

    def arrive(self, now):
        self.tokens = min(30.0, self.tokens + (now - self.seen) / 2)
        self.seen = now
        self.tokens -= 1
        return self.tokens >= 0, max(0, int(self.tokens)), (30 - self.tokens) * 2


@pytest.mark.simulation
@pytest.mark.parametrize("window", [FixedWindow, SlidingWindow, TokenBucket])
@given(
    phase=st.floats(0, 60),
    start=st.floats(0, 1e6),
    skew=st.integers(-200, 200),
    steps=st.lists(
        st.tuples(
            st.sampled_from(RequestKind),
            st.sampled_from([0.0, 0.0, 0.0, 0.3, 5.0, 100.0]),
            st.floats(0, 3),
            st.floats(0, 1),
        ),
        min_size=80,
        max_size=150,
    ),
)
def test_no_server_ever_throttles_a_single_client(window, phase, start, skew, steps):
    """Whatever is sent, however long it takes, and whenever it arrives in that time."""
    server, limiter, now = window(phase), RateLimiter(), start
    arrivals, responses = [], []

    def pass_until(then):
        nonlocal now
        for at, reservation, response in sorted(responses, key=lambda each: each[0]):
            if at <= then:
                responses.remove((at, reservation, response))
                limiter.release(reservation, at, response)
        now = max(now, then)

    for kind, idle, latency, share in steps:
        pass_until(now + idle)
        while (delay := limiter.delay(now, kind)) > 0:
            pass_until(min(at for at, *_ in responses) if delay == math.inf else now + delay)
        reservation, arrives = limiter.acquire(now), now + latency * share
        arrivals.append(arrives)
        # Requests may overtake each other; these servers only count them.
        accepted, left, reset = server.arrive(max(arrivals))
        assert accepted
        response = headers(left=left, reset=math.ceil(reset), date=NOW + skew)
        responses.append((now + latency, reservation, response))
    arrivals.sort()
    assert all(later - earlier >= 60 for earlier, later in zip(arrivals, arrivals[30:], strict=False))


@pytest.mark.simulation
def test_a_steady_stream_uses_nearly_the_whole_limit():
    for kind in RequestKind:
        server, limiter, now, sent = FixedWindow(17.0), RateLimiter(), 0.0, 0
        while now < 3600:
            now += limiter.delay(now, kind)
            reservation = limiter.acquire(now)
            now += 0.2
            _, left, reset = server.arrive(now)
            limiter.release(reservation, now, headers(left=left, reset=reset, date=NOW))
            sent += 1
        assert sent >= 0.97 * 1800, kind


def test_a_request_counts_until_a_minute_after_its_response():
    limiter = after_response(limit=1, total=1, left=0)
    reservation = limiter.acquire(100.0)
    assert limiter.delay(105.0) == math.inf
    limiter.release(reservation, 110.0)
    assert limiter.delay(110.0) == pytest.approx(60.5)
    assert limiter.delay(170.4) > 0
    assert limiter.delay(170.5) == 0.0


@pytest.mark.parametrize("kind", RequestKind)
@given(now=st.integers(10**15, 10**18).map(lambda number: number / 10**9 / 3))
def test_after_the_delay_there_is_no_further_delay(kind, now):
    """However coarse the clock is: a driver that has slept for the delay must not have to sleep again."""
    limiter = after_response(at=now)
    for _ in range(40):
        now += limiter.delay(now, kind)
        assert limiter.delay(now, kind) == 0.0
        limiter.release(limiter.acquire(now), now)


# -- bursts and spreading ---------------------------------------------------------------------------------------------


def test_polls_leave_room_for_submissions_and_both_for_calls():
    limiter = after_response()
    assert send_all(limiter, 0.0, RequestKind.GET) == 9
    assert send_all(limiter, 0.0, RequestKind.LIST) == 0
    assert send_all(limiter, 0.0, RequestKind.SUBMIT) == 14
    assert send_all(limiter, 0.0, RequestKind.CALL) == 6


def test_requests_beyond_a_burst_are_spread_over_the_rest_of_the_minute():
    limiter = after_response()
    send_all(limiter, 0.0, RequestKind.SUBMIT)
    assert limiter.delay(0.0, RequestKind.SUBMIT) == pytest.approx(60.5 / 7)
    assert limiter.delay(0.0, RequestKind.GET) == pytest.approx(60.5 / 7)
    assert limiter.delay(0.0, RequestKind.CALL) == 0.0


def test_at_most_a_third_of_the_limit_is_in_flight():
    limiter = after_response()
    reservations = []
    while limiter.delay(0.0) == 0.0:
        reservations.append(limiter.acquire(0.0))
    assert len(reservations) == limiter.in_flight == 10
    assert limiter.delay(0.0) == math.inf
    limiter.release(reservations[0], 1.0)
    assert limiter.delay(1.0) == 0.0


# -- the headers of responses -----------------------------------------------------------------------------------------


def test_the_first_request_goes_alone():
    limiter = RateLimiter()
    reservation = limiter.acquire(0.0)
    assert limiter.delay(0.1) == math.inf
    limiter.release(reservation, 0.2, headers())
    limiter.acquire(0.2)
    assert limiter.delay(0.2) == 0.0


def test_a_first_success_without_headers_means_no_limit():
    limiter = RateLimiter()
    limiter.release(limiter.acquire(0.0), 0.1, {"content-type": "application/json"})
    assert limiter.limit is None
    for _ in range(50):
        assert limiter.delay(0.1, RequestKind.GET) == 0.0
        limiter.acquire(0.1)
    assert limiter.delay(0.1) == math.inf, "open connections are limited"


@pytest.mark.parametrize("response", [None, {}])
def test_failed_requests_say_nothing_about_the_limit(response):
    limiter = RateLimiter()
    limiter.release(limiter.acquire(0.0), 0.1, response, good=False)
    assert limiter.limit == 30
    limiter.acquire(0.1)
    assert limiter.delay(0.1) == math.inf


def test_later_responses_without_headers_change_nothing():
    limiter = after_response()
    limiter.release(limiter.acquire(0.0), 0.1, {})
    assert limiter.limit == 30


def test_without_a_limit_several_are_sent_at_once_until_a_response_reports_one():
    limiter = RateLimiter(None)
    reservations = [limiter.acquire(0.0) for _ in range(40) if limiter.delay(0.0) == 0.0]
    assert len(reservations) == 40
    for reservation in reservations:
        limiter.release(reservation, 0.1, {})
    assert limiter.limit is None
    limiter.release(limiter.acquire(0.2), 0.3, headers(total=60, left=19))
    assert limiter.limit == 60
    assert send_all(limiter, 0.3) == 19


@pytest.mark.parametrize(
    ("total", "limit"), [("90", 90), ("0", 30), ("-5", 30), ("many", 30), ("", 30), ("90, 60", 60)]
)
def test_the_limit_is_the_servers(total, limit):
    limiter = after_response(total=total)
    assert limiter.limit == limit


def test_left_alone_keeps_the_limit():
    limiter = RateLimiter()
    limiter.release(limiter.acquire(0.0), 0.1, {"x-ratelimit-left": "5", "x-ratelimit-reset": "40"})
    assert limiter.limit == 30
    assert send_all(limiter, 0.1) == 5


def test_total_alone_is_enough_to_send_several_at_once():
    limiter = RateLimiter()
    limiter.release(limiter.acquire(0.0), 0.1, {"x-ratelimit-total": "20"})
    limiter.acquire(0.1)
    assert limiter.delay(0.1) == 0.0


@given(
    texts=st.fixed_dictionaries(
        {
            name: st.one_of(st.text(max_size=30), st.floats().map(str), st.integers().map(str))
            for name in ("date", "retry-after", "x-ratelimit-total", "x-ratelimit-left", "x-ratelimit-reset")
        }
    ),
    throttled=st.booleans(),
)
def test_garbage_in_headers_does_no_harm(texts, throttled):
    limiter = RateLimiter()
    reservation = limiter.acquire(0.0)
    if throttled:
        assert 1 <= limiter.throttled(reservation, 0.1, texts) <= 134
    else:
        limiter.release(reservation, 0.1, texts)
    for kind in RequestKind:
        assert 0.0 <= limiter.delay(0.1, kind) <= 135.0


# -- other users of the token -----------------------------------------------------------------------------------------


def test_other_users_of_the_token_reduce_what_is_left():
    limiter = after_response(left=4, reset=40)
    assert send_all(limiter, 0.0) == 4
    assert limiter.delay(0.0) == pytest.approx(41)  # Date and Reset are whole seconds
    assert limiter.delay(41.0) == 0.0


def test_the_last_places_of_a_shared_window_are_taken_one_at_a_time():
    limiter = after_response(left=5, reset=40)
    limiter.acquire(0.0)
    limiter.acquire(0.0)
    assert limiter.delay(0.0) == math.inf


def test_after_a_shared_window_one_request_is_sent_first():
    limiter = after_response(left=0, reset=10)
    reservation = limiter.acquire(11.0)
    assert limiter.delay(11.1) == math.inf
    limiter.release(reservation, 11.2, headers(left=29))
    assert limiter.delay(11.2) == 0.0


def test_polls_are_spread_over_the_rest_of_a_shared_window():
    limiter = after_response(left=10, reset=50)
    limiter.release(limiter.acquire(0.0), 0.0, headers(left=9, reset=50))
    assert 51 / 9 < limiter.delay(0.0, RequestKind.GET) < 30
    assert 1 < limiter.delay(0.0, RequestKind.SUBMIT) < limiter.delay(0.0, RequestKind.GET) / 2
    assert limiter.delay(0.0, RequestKind.CALL) == 0.0


def test_requests_in_flight_count_as_used():
    limiter = after_response(left=9, reset=50)
    first, _ = limiter.acquire(0.0), limiter.acquire(0.0)
    limiter.release(first, 0.1, headers(left=6, reset=50))
    assert limiter.delay(0.1) == 0.0
    limiter.acquire(0.1)
    assert limiter.delay(0.1) == math.inf


def test_an_older_response_does_not_overrule_a_newer_one():
    limiter = after_response(left=20, reset=50)
    first, second = limiter.acquire(0.0), limiter.acquire(0.0)
    limiter.release(second, 0.1, headers(left=3, reset=50))
    limiter.release(first, 0.2, headers(left=19, reset=50))
    assert send_all(limiter, 0.2) <= 3


def test_a_reset_in_the_past_is_ignored():
    limiter = after_response(left=0, reset=-30)
    assert limiter.delay(0.0) == 0.0


def test_the_servers_clock_may_be_wrong():
    limiter = after_response(left=0, reset=20, date=NOW - 5000)
    assert limiter.delay(0.0) == pytest.approx(21)


def test_an_absurd_reset_counts_as_a_minute():
    limiter = after_response(left=0, reset=10**7)
    assert limiter.delay(0.0) == pytest.approx(61)


def run_siblings(window, clients, until, leave_at=math.inf):
    """Let clients poll all the time through limiters of their own; all but the first stop at some time.

    Returns:
        For each request: when it arrived, the number of its client, and whether it was accepted.
    """
    server, log = window(17.0), []
    limiters = [RateLimiter(jitter=Random(number).random) for number in range(clients)]
    due = [(number / clients, number) for number in range(clients)]
    while due[0][0] < until:
        now, number = heapq.heappop(due)
        if number and now > leave_at:
            continue
        limiter = limiters[number]
        delay = limiter.delay(now, RequestKind.GET)
        if delay > 0:
            heapq.heappush(due, (now + delay, number))
            continue
        reservation = limiter.acquire(now)
        accepted, left, reset = server.arrive(now)
        log.append((now, number, accepted))
        response = headers(left=left, reset=math.ceil(reset))
        if accepted:
            limiter.release(reservation, now, response)
        else:
            limiter.throttled(reservation, now, response)
        heapq.heappush(due, (now, number))
    return log


@pytest.mark.simulation
@pytest.mark.parametrize("window", [FixedWindow, SlidingWindow, TokenBucket])
@pytest.mark.parametrize(("clients", "most"), [(2, 0.02), (8, 0.12), (16, 0.33)])
def test_siblings_share_the_limit_with_few_429s(window, clients, most):
    """Here the sliding window counts rejected requests too, so it rejects more than those of most servers."""
    log = [each for each in run_siblings(window, clients, 3600) if each[0] > 600]
    accepted = Counter(number for _, number, ok in log if ok)
    assert sum(accepted.values()) >= 0.6 * 1500, "little is left unused"
    assert sum(not ok for *_, ok in log) <= most * len(log)
    assert max(accepted.values()) <= 4 * min(accepted.values()), "the shares are similar"


@pytest.mark.parametrize("window", [FixedWindow, SlidingWindow, TokenBucket])
def test_the_last_of_many_siblings_soon_has_the_limit_for_itself(window):
    log = run_siblings(window, 16, 2400, leave_at=1200)
    assert sum(1500 < now < 2400 for now, *_ in log) >= 0.9 * 450


def test_no_sibling_bursts_when_the_window_is_reset():
    log = run_siblings(FixedWindow, 8, 3600)
    firsts = [sum(start <= now < start + 5 for now, *_ in log) for start in range(643, 3600, 60)]
    assert max(firsts) <= 10


def test_a_window_of_another_length_says_nothing_about_siblings():
    limiter = after_response(total=5000, left=100, reset=1800)
    limiter.release(limiter.acquire(0.0), 0.0, headers(total=5000, left=99, reset=1800))
    assert limiter.delay(0.0, RequestKind.GET) <= 1


# -- throttling -------------------------------------------------------------------------------------------------------


def throttle(limiter, now, reset):
    return limiter.throttled(limiter.acquire(now), now, headers(left=0, reset=reset))


def test_a_throttled_client_pauses_until_the_reset():
    limiter = after_response()
    assert throttle(limiter, 10.0, reset=25) == 25
    for kind in RequestKind:
        assert limiter.delay(10.0, kind) == 25
    assert limiter.delay(35.0) == 0.0
    limiter.acquire(35.0)
    assert limiter.delay(35.0) == math.inf, "one request is sent first"


def test_siblings_do_not_come_back_together():
    pauses = set()
    for number in (0.0, 0.5, 0.99):
        limiter = RateLimiter(jitter=lambda number=number: number)
        pauses.add(throttle(limiter, 0.0, reset=30))
    assert len(pauses) == 3
    assert all(30 <= pause <= 40 for pause in pauses)


def test_repeated_throttling_doubles_the_pause():
    limiter, now, pauses = after_response(), 0.0, []
    for _ in range(9):
        now += limiter.delay(now)
        pauses.append(throttle(limiter, now, reset=0))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now += limiter.delay(now)
    limiter.release(limiter.acquire(now), now, headers())
    assert throttle(limiter, now, reset=0) == 1


def test_how_long_nothing_has_succeeded_because_of_429() -> None:
    limiter = after_response()
    assert limiter.throttled_for(10.0) == 0.0
    for now in (10.0, 70.0, 130.0):
        throttle(limiter, now, reset=30)
    assert limiter.throttled_for(200.0) == 190.0
    limiter.release(limiter.acquire(200.0), 200.0)  # no response
    assert limiter.throttled_for(210.0) == 200.0
    throttle(limiter, 900.0, reset=30)
    assert limiter.throttled_for(910.0) == 10.0, "an idle client does not know whether requests would have succeeded"
    limiter.release(limiter.acquire(940.0), 940.0, headers())
    assert limiter.throttled_for(950.0) == 0.0


def test_several_requests_throttled_together_count_once():
    limiter = after_response()
    reservations = [limiter.acquire(0.0) for _ in range(5)]
    assert {limiter.throttled(reservation, 0.2, headers(left=0, reset=0)) for reservation in reservations} == {1}


def test_throttling_without_a_known_limit_sets_one():
    limiter = RateLimiter(None, jitter=lambda: 0.0)
    assert limiter.throttled(limiter.acquire(0.0), 0.1, {}) == 2
    assert limiter.limit == 30


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("25", 25),
        ("2.5", 2.5),
        (str(NOW + 25), 25),
        (str((NOW + 25) * 1000), 25),
        (f"25, {NOW + 90}", 25),
        (f"soon, {NOW + 25}", 25),
        (str(NOW), 0),
        (str(NOW - 25), None),
        ("-3", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_reset_is_read_in_all_its_forms(reset, seconds):
    assert reset_in({"date": formatdate(NOW, usegmt=True), "x-ratelimit-reset": reset}) == seconds


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 06 Nov 99999999999 08:49:37 GMT"])
def test_an_absolute_reset_needs_the_servers_clock(date):
    assert reset_in({"date": date, "x-ratelimit-reset": str(NOW + 25)}) is None
    assert reset_in({"date": date, "x-ratelimit-reset": "25"}) == 25


@pytest.mark.parametrize(("reset", "seconds"), [("25", 25), ("0", 1), ("4000", 120), ("soon", None)])
def test_how_long_to_wait_after_throttling(reset, seconds):
    assert retry_after({"x-ratelimit-reset": reset}) == seconds


def test_the_number_of_requests_left() -> None:
    limiter = RateLimiter(30)
    assert limiter.left(0.0) == 30
    reservations = [limiter.acquire(0.0) for _ in range(3)]
    assert limiter.left(0.0) == 27
    limiter.release(
        reservations[0], 0.1, {"x-ratelimit-total": "30", "x-ratelimit-left": "12", "x-ratelimit-reset": "40"}
    )
    assert limiter.left(0.2) == 10  # others use the token too; two are in flight
    assert limiter.left(100.0) == 28
    assert RateLimiter(None).left(0.0) is None


def test_the_pause_stays_bounded_for_days():
    """Even if a server throttles every request: the pause has a maximum, and nothing overflows."""
    limiter, now = RateLimiter(30, jitter=lambda: 0.0), 0.0
    for _ in range(1500):
        now += limiter.throttled(limiter.acquire(now), now, {}) + 1
    assert limiter.throttled(limiter.acquire(now), now, {}) == 60


def test_a_reservation_is_returned_or_given_up_once() -> None:
    limiter = RateLimiter(30)
    reservation = limiter.acquire(0)
    limiter.cancel(reservation)
    limiter.cancel(reservation)
    limiter.abandon(reservation, 0)
    assert limiter.left(0) == 30


def test_without_a_limit_and_a_ceiling_there_is_no_limit() -> None:
    limiter = RateLimiter(None)
    limiter.restrict(None)
    assert limiter.limit is None
