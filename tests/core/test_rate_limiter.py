"""The budget: never too many, never needlessly few, whatever the server says."""

from __future__ import annotations

import math
from collections import deque
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2v._core.rate_limiter import RateLimiter, RequestKind, reset_in, retry_after

NOW = 1_700_000_000


def headers(*, total=30, left=29, reset=60.0, date=NOW):
    """What a server says that allows `total` a minute."""
    return {
        "date": formatdate(date, usegmt=True),
        "x-ratelimit-total": str(total),
        "x-ratelimit-left": str(left),
        "x-ratelimit-reset": str(int(date + reset)),
    }


def taught(limit=30, at=0.0, **said):
    """A budget after its first reply."""
    budget = RateLimiter(limit, jitter=lambda: 0.0)
    budget.release(budget.acquire(at), at, headers(**said))
    return budget


def send_all(budget, now, kind=RequestKind.CALL):
    """How many may go at this instant, each answered at once."""
    count = 0
    while budget.delay(now, kind) == 0.0:
        budget.release(budget.acquire(now), now)
        count += 1
    return count


# -- never too many ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("limiter", [FixedWindow, SlidingWindow, TokenBucket])
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
def test_no_server_ever_refuses_a_lone_client(limiter, phase, start, skew, steps):
    """Whatever is sent, however long it takes, whenever in that time it arrives."""
    server, budget, now = limiter(phase), RateLimiter(), start
    arrivals, answers = [], []

    def pass_until(then):
        nonlocal now
        for at, reservation, reply in sorted(answers, key=lambda each: each[0]):
            if at <= then:
                answers.remove((at, reservation, reply))
                budget.release(reservation, at, reply)
        now = max(now, then)

    for kind, idle, latency, share in steps:
        pass_until(now + idle)
        while (delay := budget.delay(now, kind)) > 0:
            pass_until(min(at for at, *_ in answers) if delay == math.inf else now + delay)
        reservation, arrives = budget.acquire(now), now + latency * share
        arrivals.append(arrives)
        # The servers here do not mind the order in which they are asked, as long as each is asked once.
        passes, left, reset = server.arrive(max(arrivals))
        assert passes
        reply = headers(left=left, reset=math.ceil(reset), date=NOW + skew)
        answers.append((now + latency, reservation, reply))
    arrivals.sort()
    assert all(later - earlier >= 60 for earlier, later in zip(arrivals, arrivals[30:], strict=False))


def test_a_steady_stream_uses_nearly_all_there_is():
    for kind in RequestKind:
        server, budget, now, sent = FixedWindow(17.0), RateLimiter(), 0.0, 0
        while now < 3600:
            now += budget.delay(now, kind)
            reservation = budget.acquire(now)
            now += 0.2
            _, left, reset = server.arrive(now)
            budget.release(reservation, now, headers(left=left, reset=reset, date=NOW))
            sent += 1
        assert sent >= 0.97 * 1800, kind


def test_a_send_counts_until_a_minute_after_its_answer():
    budget = taught(limit=1, total=1, left=0)
    reservation = budget.acquire(100.0)
    assert budget.delay(105.0) == math.inf
    budget.release(reservation, 110.0)
    assert budget.delay(110.0) == pytest.approx(60.5)
    assert budget.delay(170.4) > 0
    assert budget.delay(170.5) == 0.0


@pytest.mark.parametrize("kind", RequestKind)
@given(now=st.integers(10**15, 10**18).map(lambda number: number / 10**9 / 3))
def test_after_the_wait_there_is_no_wait(kind, now):
    """However coarse the clock's numbers are: a driver that sleeps for it must not sleep again and again."""
    budget = taught(at=now)
    for _ in range(40):
        now += budget.delay(now, kind)
        assert budget.delay(now, kind) == 0.0
        budget.release(budget.acquire(now), now)


# -- bursts, and what is spread ---------------------------------------------------------------------------------------


def test_polls_leave_room_for_submits_and_both_for_calls():
    budget = taught()
    assert send_all(budget, 0.0, RequestKind.GET) == 9
    assert send_all(budget, 0.0, RequestKind.LIST) == 0
    assert send_all(budget, 0.0, RequestKind.SUBMIT) == 14
    assert send_all(budget, 0.0, RequestKind.CALL) == 6


def test_what_is_beyond_a_burst_is_spread_over_the_rest_of_the_minute():
    budget = taught()
    send_all(budget, 0.0, RequestKind.SUBMIT)
    assert budget.delay(0.0, RequestKind.SUBMIT) == pytest.approx(60.5 / 7)
    assert budget.delay(0.0, RequestKind.GET) == pytest.approx(60.5 / 7)
    assert budget.delay(0.0, RequestKind.CALL) == 0.0


def test_no_more_than_a_third_is_in_flight():
    budget = taught()
    reservations = []
    while budget.delay(0.0) == 0.0:
        reservations.append(budget.acquire(0.0))
    assert len(reservations) == budget.in_flight == 10
    assert budget.delay(0.0) == math.inf
    budget.release(reservations[0], 1.0)
    assert budget.delay(1.0) == 0.0


# -- what replies teach -----------------------------------------------------------------------------------------------


def test_the_first_request_goes_alone():
    budget = RateLimiter()
    reservation = budget.acquire(0.0)
    assert budget.delay(0.1) == math.inf
    budget.release(reservation, 0.2, headers())
    budget.acquire(0.2)
    assert budget.delay(0.2) == 0.0


def test_a_first_good_reply_without_headers_means_no_limit():
    budget = RateLimiter()
    budget.release(budget.acquire(0.0), 0.1, {"content-type": "application/json"})
    assert budget.limit is None
    for _ in range(50):
        assert budget.delay(0.1, RequestKind.GET) == 0.0
        budget.acquire(0.1)
    assert budget.delay(0.1) == math.inf, "the connections of a pool are not endless"


@pytest.mark.parametrize("reply", [None, {}])
def test_an_error_or_a_bad_reply_teaches_nothing_of_limits(reply):
    budget = RateLimiter()
    budget.release(budget.acquire(0.0), 0.1, reply, good=False)
    assert budget.limit == 30
    budget.acquire(0.1)
    assert budget.delay(0.1) == math.inf


def test_a_later_reply_without_headers_changes_nothing():
    budget = taught()
    budget.release(budget.acquire(0.0), 0.1, {})
    assert budget.limit == 30


def test_without_a_limit_several_go_at_once_until_a_reply_brings_one():
    budget = RateLimiter(None)
    reservations = [budget.acquire(0.0) for _ in range(40) if budget.delay(0.0) == 0.0]
    assert len(reservations) == 40
    for reservation in reservations:
        budget.release(reservation, 0.1, {})
    assert budget.limit is None
    budget.release(budget.acquire(0.2), 0.3, headers(total=60, left=19))
    assert budget.limit == 60
    assert send_all(budget, 0.3) == 19


@pytest.mark.parametrize(
    ("total", "limit"), [("90", 90), ("0", 30), ("-5", 30), ("many", 30), ("", 30), ("90, 60", 60)]
)
def test_the_limit_is_what_the_server_says(total, limit):
    budget = taught(total=total)
    assert budget.limit == limit


def test_left_alone_keeps_the_limit():
    budget = RateLimiter()
    budget.release(budget.acquire(0.0), 0.1, {"x-ratelimit-left": "5", "x-ratelimit-reset": "40"})
    assert budget.limit == 30
    assert send_all(budget, 0.1) == 5


def test_total_alone_is_enough_to_send_several_at_once():
    budget = RateLimiter()
    budget.release(budget.acquire(0.0), 0.1, {"x-ratelimit-total": "20"})
    budget.acquire(0.1)
    assert budget.delay(0.1) == 0.0


@given(
    texts=st.fixed_dictionaries(
        {
            name: st.one_of(st.text(max_size=30), st.floats().map(str), st.integers().map(str))
            for name in ("date", "retry-after", "x-ratelimit-total", "x-ratelimit-left", "x-ratelimit-reset")
        }
    ),
    refused=st.booleans(),
)
def test_garbage_in_headers_does_no_harm(texts, refused):
    budget = RateLimiter()
    reservation = budget.acquire(0.0)
    if refused:
        assert 1 <= budget.throttled(reservation, 0.1, texts) <= 134
    else:
        budget.release(reservation, 0.1, texts)
    for kind in RequestKind:
        assert 0.0 <= budget.delay(0.1, kind) <= 135.0


# -- others with the same token ---------------------------------------------------------------------------------------


def test_others_leave_what_they_leave():
    budget = taught(left=4, reset=40)
    assert send_all(budget, 0.0) == 4
    assert budget.delay(0.0) == pytest.approx(41)  # the seconds of Date and Reset are whole ones
    assert budget.delay(41.0) == 0.0


def test_the_last_places_of_a_shared_window_are_taken_one_at_a_time():
    budget = taught(left=5, reset=40)
    budget.acquire(0.0)
    budget.acquire(0.0)
    assert budget.delay(0.0) == math.inf


def test_after_a_shared_window_one_goes_ahead():
    budget = taught(left=0, reset=10)
    reservation = budget.acquire(11.0)
    assert budget.delay(11.1) == math.inf
    budget.release(reservation, 11.2, headers(left=29))
    assert budget.delay(11.2) == 0.0


def test_polls_share_out_what_is_left_of_a_shared_window():
    budget = taught(left=10, reset=50)
    budget.release(budget.acquire(0.0), 0.0, headers(left=9, reset=50))
    assert budget.delay(0.0, RequestKind.GET) == pytest.approx(51 / 9)


def test_replies_in_flight_at_the_time_count_as_used():
    budget = taught(left=9, reset=50)
    first, _ = budget.acquire(0.0), budget.acquire(0.0)
    budget.release(first, 0.1, headers(left=6, reset=50))
    assert budget.delay(0.1) == 0.0
    budget.acquire(0.1)
    assert budget.delay(0.1) == math.inf


def test_an_older_reply_does_not_overrule_a_newer_one():
    budget = taught(left=20, reset=50)
    first, second = budget.acquire(0.0), budget.acquire(0.0)
    budget.release(second, 0.1, headers(left=3, reset=50))
    budget.release(first, 0.2, headers(left=19, reset=50))
    assert send_all(budget, 0.2) <= 3


def test_a_reset_in_the_past_leaves_it_to_the_own_log():
    budget = taught(left=0, reset=-30)
    assert budget.delay(0.0) == 0.0


def test_the_servers_clock_may_be_wrong():
    budget = taught(left=0, reset=20, date=NOW - 5000)
    assert budget.delay(0.0) == pytest.approx(21)


def test_an_absurd_reset_is_a_minute_at_most():
    budget = taught(left=0, reset=10**7)
    assert budget.delay(0.0) == pytest.approx(61)


# -- refusals ---------------------------------------------------------------------------------------------------------


def refuse(budget, now, reset):
    return budget.throttled(budget.acquire(now), now, headers(left=0, reset=reset))


def test_a_refusal_holds_everything_until_the_reset():
    budget = taught()
    assert refuse(budget, 10.0, reset=25) == 25
    for kind in RequestKind:
        assert budget.delay(10.0, kind) == 25
    assert budget.delay(35.0) == 0.0
    budget.acquire(35.0)
    assert budget.delay(35.0) == math.inf, "one goes ahead"


def test_siblings_do_not_come_back_together():
    pauses = set()
    for number in (0.0, 0.5, 0.99):
        budget = RateLimiter(jitter=lambda number=number: number)
        pauses.add(refuse(budget, 0.0, reset=30))
    assert len(pauses) == 3
    assert all(30 <= pause <= 34 for pause in pauses)


def test_refused_again_and_again_it_asks_ever_more_rarely():
    budget, now, pauses = taught(), 0.0, []
    for _ in range(9):
        now += budget.delay(now)
        pauses.append(refuse(budget, now, reset=0))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now += budget.delay(now)
    budget.release(budget.acquire(now), now, headers())
    assert refuse(budget, now, reset=0) == 1


def test_several_refused_together_are_one_refusal():
    budget = taught()
    reservations = [budget.acquire(0.0) for _ in range(5)]
    assert {budget.throttled(reservation, 0.2, headers(left=0, reset=0)) for reservation in reservations} == {1}


def test_a_refusal_where_no_limit_was_known_brings_one():
    budget = RateLimiter(None, jitter=lambda: 0.0)
    assert budget.throttled(budget.acquire(0.0), 0.1, {}) == 2
    assert budget.limit == 30


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
def test_a_point_in_time_needs_the_servers_clock(date):
    assert reset_in({"date": date, "x-ratelimit-reset": str(NOW + 25)}) is None
    assert reset_in({"date": date, "x-ratelimit-reset": "25"}) == 25


@pytest.mark.parametrize(("reset", "seconds"), [("25", 25), ("0", 1), ("4000", 120), ("soon", None)])
def test_how_long_to_wait_after_a_refusal(reset, seconds):
    assert retry_after({"x-ratelimit-reset": reset}) == seconds


def test_what_is_left() -> None:
    budget = RateLimiter(30)
    assert budget.left(0.0) == 30
    reservations = [budget.acquire(0.0) for _ in range(3)]
    assert budget.left(0.0) == 27
    budget.release(
        reservations[0], 0.1, {"x-ratelimit-total": "30", "x-ratelimit-left": "12", "x-ratelimit-reset": "40"}
    )
    assert budget.left(0.2) == 10  # somebody else uses the token; two are on their way
    assert budget.left(100.0) == 28
    assert RateLimiter(None).left(0.0) is None


def test_refusals_for_days_do_not_add_up():
    """A server that refuses each request, whatever it says: the pause has a limit, and nothing overflows."""
    budget, now = RateLimiter(30, jitter=lambda: 0.0), 0.0
    for _ in range(1500):
        now += budget.throttled(budget.acquire(now), now, {}) + 1
    assert budget.throttled(budget.acquire(now), now, {}) == 60
