"""The schedule: who is looked at next, and what a look teaches."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2v._core.poll_scheduler import MAX_OUTAGE, PollScheduler, is_change, poll_interval
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._values.models import Video, VideoStatus
from a2v.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TransportError,
)

PENDING, IN_PROGRESS, FINISHED, FAILED = "pending", "in_progressing", "finished", "error"

REFUSED = RateLimitError("slow down", status_code=429)
BROKEN = ServerError("bad gateway", status_code=502)
MISSING = NotFoundError("no such video", status_code=404)


def look(video_id, word, url="https://cdn.example/v.mp4"):
    status = VideoStatus(word) if word in set(VideoStatus) else VideoStatus.UNKNOWN
    return Video(
        video_id=video_id,
        status=status,
        video_url=url if status is VideoStatus.FINISHED else None,
        raw={"video_id": video_id, "status": word},
    )


class Driver:
    """Takes turns with a schedule: no budget to speak of, no latency, no service but what a test says."""

    def __init__(self, *, lists=False):
        self.scheduler, self.budget, self.now = PollScheduler(), RateLimiter(None), 0.0
        self.lists = lists
        if not lists:
            self.forget_lists()

    def forget_lists(self):
        for video_id in "ab":
            self.scheduler.add(video_id, self.now)
        assert self.next().kind is RequestKind.LIST
        self.refuse_list()
        for video_id in "ab":
            self.scheduler.discard(video_id)

    def refuse_list(self):
        turn = self.next()
        self.scheduler.start(turn, self.now)
        assert self.scheduler.failed(turn, MISSING, self.now, final=True) == []

    def submit(self, *video_ids):
        for video_id in video_ids:
            self.scheduler.add(video_id, self.now, since=self.now)

    def next(self, **waiting):
        return self.scheduler.next(self.now, self.budget, **waiting)

    def take(self, **waiting):
        """Sleep until the next turn, and begin it."""
        turn = self.next(**waiting)
        while turn.at > self.now or (turn.kind is RequestKind.LIST and not self.lists):
            if turn.at <= self.now:
                self.refuse_list()
            self.now = max(self.now, turn.at)
            turn = self.next(**waiting)
        self.scheduler.start(turn, self.now)
        return turn

    def see(self, **words):
        """Take the next turn, and be shown these."""
        turn = self.take()
        assert turn.video_id is None or turn.video_id in words
        shown = [turn.video_id] if turn.video_id else list(words)
        return self.scheduler.observe([look(each, words[each]) for each in shown], self.now, turn)

    def fail(self, error, *, final=False):
        return self.scheduler.failed(self.take(), error, self.now, final=final)

    def asked(self, times, **words):
        """The videos that are asked in so many turns, while nothing changes."""
        asked = []
        for _ in range(times):
            turn = self.take()
            asked.append(turn.video_id)
            self.scheduler.observe([look(turn.video_id, words[turn.video_id])], self.now, turn)
        return asked


# -- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "seconds"), [(-1, 0.5), (0, 0.5), (2, 2 / 3), (50, 5), (900, 21.2), (10_000, 60)])
def test_the_older_a_video_the_longer_until_the_next_look(age, seconds):
    assert poll_interval(age) == pytest.approx(seconds, abs=0.1)


def test_a_submitted_video_is_looked_at_after_half_a_second_and_a_picked_up_one_at_once():
    driver = Driver()
    driver.submit("submitted")
    assert driver.next().at == 0.5
    driver.scheduler.add("picked up", driver.now)
    assert driver.next().at == driver.now
    assert driver.take().video_id == "picked up"


def test_looks_are_a_gap_apart():
    driver = Driver()
    driver.submit("v")
    times = []
    for _ in range(30):
        driver.see(v=IN_PROGRESS)
        times.append(driver.now)
    for before, after in pairwise(times):
        assert after - before == pytest.approx(poll_interval(before), abs=1e-3)


def test_a_look_shows_what_was_so_when_it_was_asked_for():
    driver = Driver()
    driver.submit("v")
    turn = driver.take()
    driver.now += 10
    driver.scheduler.observe([look("v", IN_PROGRESS)], driver.now, turn)
    assert driver.next().at <= driver.now


def test_nothing_to_follow_nothing_to_send():
    driver = Driver()
    assert driver.next() is None
    assert len(driver.scheduler) == 0


def test_who_is_being_asked_is_not_asked_again():
    driver = Driver()
    driver.submit("v")
    driver.take()
    driver.now += 100
    assert driver.next() is None


# -- whose turn -------------------------------------------------------------------------------------------------------


def order(driver, times, **waiting):
    """The kinds of so many turns, while this many wait and everything followed is always due."""
    kinds = []
    for _ in range(times):
        driver.now += 100
        turn = driver.take(**waiting)
        kinds.append(turn.kind)
        driver.scheduler.abandoned(turn)
    return kinds


def test_submits_go_first_but_every_tenth_request_is_a_poll():
    driver = Driver()
    driver.submit("v")
    kinds = order(driver, 30, submits=5)
    assert kinds.count(RequestKind.GET) == 3
    assert kinds[9] is kinds[19] is kinds[29] is RequestKind.GET


def test_calls_go_first_but_not_twice_in_a_row():
    driver = Driver()
    assert order(driver, 4, submits=1, calls=1) == [RequestKind.CALL, RequestKind.SUBMIT] * 2
    driver.submit("v")
    assert order(driver, 4, calls=1) == [RequestKind.CALL, RequestKind.GET] * 2


def test_a_call_follows_a_call_where_nobody_else_waits():
    driver = Driver()
    assert order(driver, 3, calls=1) == [RequestKind.CALL] * 3


def test_nobody_starves_when_everybody_waits():
    driver = Driver()
    driver.submit("v")
    kinds = order(driver, 100, submits=9, calls=9)
    assert [kinds.count(kind) for kind in (RequestKind.CALL, RequestKind.SUBMIT, RequestKind.GET)] == [50, 40, 10]


def test_the_turn_waits_for_the_budget():
    driver = Driver()
    driver.budget = RateLimiter(1)
    driver.budget.release(driver.budget.acquire(0.0), 0.0, {"x-ratelimit-total": "1"})
    assert driver.next(submits=1).at == pytest.approx(60.5)
    driver.budget.acquire(60.5)
    driver.now = 60.5
    assert driver.next(submits=1) is None, "until what is in flight is answered"


def test_the_most_overdue_is_asked_first():
    driver = Driver()
    driver.submit("old")
    driver.now = 900.0
    driver.see(old=IN_PROGRESS)
    driver.submit("young")
    driver.now += 20.0  # not yet due, and forty gaps overdue
    assert driver.take().video_id == "young"


def test_every_third_poll_goes_to_the_one_asked_least_recently():
    driver = Driver()
    driver.submit("old")
    driver.now = 5000.0
    driver.see(old=IN_PROGRESS)
    for number in range(50):
        driver.submit(f"young{number}")
    driver.now += 100.0  # the old one is 1.7 gaps overdue, the young ones 200
    asked = [driver.take().video_id for _ in range(3)]
    assert "old" in asked


# -- what is news -----------------------------------------------------------------------------------------------------


def test_the_first_look_and_each_change_are_news_and_nothing_twice():
    driver = Driver()
    driver.submit("v")
    words = [
        PENDING,
        PENDING,
        IN_PROGRESS,
        IN_PROGRESS,
        PENDING,
        "warming",
        "warming",
        "cooling",
        IN_PROGRESS,
        FINISHED,
    ]
    news = [video.raw["status"] for word in words for _, video in driver.see(v=word)]
    assert news == [PENDING, IN_PROGRESS, PENDING, "warming", "cooling", IN_PROGRESS, FINISHED]


@pytest.mark.parametrize("word", [FINISHED, FAILED])
def test_what_has_ended_is_delivered_and_forgotten(word):
    driver = Driver()
    driver.submit("v")
    [(video_id, video)] = driver.see(v=word)
    assert (video_id, video.status) == ("v", word)
    assert "v" not in driver.scheduler
    assert driver.next() is None


def test_the_last_look_is_there_for_who_comes_later():
    driver = Driver()
    driver.submit("v")
    assert driver.scheduler.snapshot("v") is None
    driver.see(v=PENDING)
    driver.scheduler.add("v", driver.now)
    assert driver.scheduler.snapshot("v") == look("v", PENDING)
    assert driver.scheduler.snapshot("w") is None


def test_finished_without_a_url_is_asked_for_it_a_few_times():
    driver = Driver()
    driver.submit("v")
    driver.see(v=IN_PROGRESS)
    times, news = [], []
    while not news:
        turn = driver.take()
        times.append(driver.now)
        news = driver.scheduler.observe([look("v", FINISHED, url=None)], driver.now, turn)
    [(video_id, error)] = news
    assert isinstance(error, ProtocolError)
    assert "'v'" in str(error)
    assert (video_id, error.video_id, error.video.status) == ("v", "v", FINISHED)
    assert len(times) == 6
    assert times[-1] - times[0] >= 10
    assert driver.next() is None


def test_a_url_that_comes_a_moment_later_is_in_time():
    driver = Driver()
    driver.submit("v")
    turn = driver.take()
    assert driver.scheduler.observe([look("v", FINISHED, url=None)], driver.now, turn) == []
    assert driver.next().at == pytest.approx(driver.now + 1)
    [(_, video)] = driver.see(v=FINISHED)
    assert video.video_url


def test_a_url_may_be_missing_again_later():
    driver = Driver()
    driver.submit("v")
    for word in [FINISHED, FINISHED, FINISHED, IN_PROGRESS, FINISHED, FINISHED, FINISHED]:
        turn = driver.take()
        for _, news in driver.scheduler.observe([look("v", word, url=None)], driver.now, turn):
            assert news.status == IN_PROGRESS
    assert "v" in driver.scheduler


def test_a_look_from_elsewhere_is_as_good():
    driver = Driver()
    driver.submit("v")
    assert driver.scheduler.observe([look("v", PENDING), look("stranger", FINISHED)], 0.3) == [
        ("v", look("v", PENDING))
    ]
    assert driver.next().at == pytest.approx(0.8)


def test_a_look_from_elsewhere_does_not_double_the_one_under_way():
    driver = Driver()
    driver.submit("v")
    driver.take()
    driver.scheduler.observe([look("v", IN_PROGRESS)], driver.now)
    driver.now += 100
    assert driver.next() is None


def test_a_reply_that_was_overtaken_by_a_newer_one_is_no_news():
    driver = Driver()
    driver.submit("v")
    turn = driver.take()
    driver.now += 5
    driver.scheduler.observe([look("v", IN_PROGRESS)], driver.now)
    assert driver.scheduler.observe([look("v", PENDING)], driver.now + 1, turn) == []


def test_urls_that_are_signed_anew_are_no_change():
    assert not is_change(look("v", FINISHED, "https://a"), look("v", FINISHED, "https://b"))


# -- video.list -------------------------------------------------------------------------------------------------------


def test_one_list_looks_at_all():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    turn = driver.take()
    assert turn.kind is RequestKind.LIST
    driver.now += 1
    assert driver.next() is None, "one list is enough"
    news = driver.scheduler.observe([look(each, PENDING) for each in "abc"], driver.now, turn)
    assert [video_id for video_id, _ in news] == ["a", "b", "c"]
    assert driver.take().kind is RequestKind.LIST


def test_one_video_needs_no_list():
    driver = Driver(lists=True)
    driver.submit("a")
    assert driver.take().kind is RequestKind.GET


def test_a_server_without_a_list_is_asked_for_it_once():
    driver = Driver()
    driver.submit("a", "b")
    assert {driver.take().kind, driver.take().kind} == {RequestKind.GET}


def test_a_video_that_the_list_leaves_out_is_asked_for_by_itself():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    driver.see(a=PENDING, b=PENDING)
    kinds = {}
    for _ in range(8):
        turn = driver.take()
        kinds.setdefault(turn.kind, set()).add(turn.video_id)
        shown = [turn.video_id] if turn.video_id else ["a", "b"]
        driver.scheduler.observe([look(each, PENDING) for each in shown], driver.now, turn)
    assert kinds == {RequestKind.LIST: {None}, RequestKind.GET: {"c"}}


def test_a_video_that_appears_in_the_list_later_is_asked_for_with_the_others():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    driver.see(a=PENDING, b=PENDING)
    for _ in range(20):
        driver.see(a=PENDING, b=PENDING, c=PENDING)
    kinds = [driver.take().kind]
    assert kinds == [RequestKind.LIST]


def test_a_list_that_leaves_out_all_is_not_asked_for_again_in_the_same_instant():
    driver = Driver(lists=True)
    for video_id in "ab":
        driver.scheduler.add(video_id, driver.now)
    assert driver.see() == []
    turns = [driver.take(), driver.take()]
    assert driver.now == 0.0
    assert [turn.video_id for turn in turns] == ["a", "b"]


@pytest.mark.parametrize("later", [0.1, 0.0], ids=["later", "in the same instant"])
def test_a_video_submitted_while_the_list_is_under_way_is_not_missing_from_it(later):
    driver = Driver(lists=True)
    driver.submit("a", "b")
    driver.now = 100.0
    turn = driver.take()
    driver.now += later
    driver.submit("c")
    driver.scheduler.observe([look("a", IN_PROGRESS), look("b", IN_PROGRESS)], driver.now, turn)
    assert driver.take().kind is RequestKind.LIST


def test_a_list_that_fails_gives_way_to_gets_and_is_tried_again():
    driver = Driver(lists=True)
    driver.submit("a", "b")
    kinds = []
    for _ in range(20):
        turn = driver.take()
        kinds.append(turn.kind)
        if turn.kind is RequestKind.LIST:
            assert driver.scheduler.failed(turn, BROKEN, driver.now, final=False) == []
        else:
            driver.scheduler.observe([look(turn.video_id, IN_PROGRESS)], driver.now, turn)
    lists = [index for index, kind in enumerate(kinds) if kind is RequestKind.LIST]
    assert lists == [0, 3, 8, 17], "2, 4 and 8 gets between"


def test_a_list_that_works_again_is_forgiven():
    driver = Driver(lists=True)
    driver.submit("a", "b")

    def gets_until_the_next_list():
        gets = 0
        while (turn := driver.take()).kind is RequestKind.GET:
            driver.scheduler.observe([look(turn.video_id, PENDING)], driver.now, turn)
            gets += 1
        return turn, gets

    turn, _ = gets_until_the_next_list()
    for _ in range(3):
        driver.scheduler.failed(turn, BROKEN, driver.now, final=False)
        turn, gets = gets_until_the_next_list()
        assert gets == 2
        driver.scheduler.observe([look(each, PENDING) for each in "ab"], driver.now, turn)
        turn, gets = gets_until_the_next_list()
        assert gets == 0


def test_a_list_that_was_cancelled_is_taken_by_another():
    driver = Driver(lists=True)
    driver.submit("a", "b")
    driver.scheduler.abandoned(driver.take())
    assert driver.take().kind is RequestKind.LIST


# -- the line ---------------------------------------------------------------------------------------------------------


def test_those_behind_one_that_waits_wait_too():
    driver = Driver()
    driver.submit("a", "b", "c", "d")
    driver.see(a=PENDING)
    started = driver.now
    asked = driver.asked(10, a=PENDING, b=PENDING, c=PENDING, d=PENDING)
    assert driver.now > started + 5
    assert asked.count("a") >= 6, "the others only now and then, lest it is not so"


def test_when_the_first_begins_the_next_is_looked_at():
    driver = Driver()
    driver.submit("a", "b", "c")
    for _ in range(10):
        driver.see(a=PENDING, b=PENDING, c=PENDING)
    driver.now += 10
    driver.scheduler.observe([look("a", IN_PROGRESS)], driver.now)
    assert driver.take().video_id == "b"


def test_those_submitted_meanwhile_are_behind_too():
    driver = Driver()
    driver.submit("a")
    driver.see(a=PENDING)
    driver.submit(*"bcdefgh")
    assert driver.asked(4, **dict.fromkeys("abcdefgh", PENDING)).count("a") >= 2


def test_one_further_ahead_stands_for_the_line():
    driver = Driver()
    driver.submit("a", "b", "c")
    driver.scheduler.observe([look("b", PENDING)], driver.now)
    driver.scheduler.observe([look("a", PENDING)], driver.now)
    assert driver.asked(6, a=PENDING, b=PENDING, c=PENDING).count("a") >= 3


def test_who_was_overtaken_is_looked_at_by_itself():
    driver = Driver()
    driver.submit("a", "b", "c", "d")
    driver.scheduler.observe([look("a", PENDING)], driver.now)
    driver.scheduler.observe([look("c", IN_PROGRESS)], driver.now)
    asked = driver.asked(24, a=PENDING, b=PENDING, c=IN_PROGRESS, d=PENDING)
    assert min(asked.count(each) for each in "abcd") >= 4


def test_a_bad_input_refused_out_of_turn_overtakes_nobody():
    driver = Driver()
    driver.submit("a", "b", "c", "d")
    driver.scheduler.observe([look("a", PENDING)], driver.now)
    driver.scheduler.observe([look("c", FAILED)], driver.now)
    assert driver.asked(10, a=PENDING, b=PENDING, d=PENDING).count("a") >= 6


def test_where_the_first_is_forgotten_the_next_leads():
    driver = Driver()
    driver.submit("a", "b", "c")
    driver.scheduler.observe([look("a", PENDING)], driver.now)
    driver.scheduler.discard("a")
    assert driver.asked(6, b=PENDING, c=PENDING).count("b") >= 3


def test_the_next_one_was_waiting_as_of_when_the_first_was():
    driver = Driver()
    driver.submit(*"abcdefgh")
    driver.scheduler.observe([look("a", PENDING)], driver.now)
    driver.scheduler.observe([look("b", PENDING)], 50.0)
    driver.now = 100.0
    driver.scheduler.observe([look("a", PENDING)], driver.now)
    driver.scheduler.observe([look("a", FINISHED)], driver.now)
    while (turn := driver.take()).video_id != "b":
        driver.scheduler.observe([look(turn.video_id, PENDING)], driver.now, turn)
    assert driver.now == pytest.approx(100 + poll_interval(100))


def test_where_the_first_cannot_be_seen_the_next_leads():
    driver = Driver()
    driver.submit("a", "b", "c", "d", "e")
    driver.see(a=PENDING)
    asked = []
    while len(asked) < 30:
        turn = driver.take()
        asked.append(turn.video_id)
        if turn.video_id == "a":
            driver.scheduler.failed(turn, BROKEN, driver.now, final=False)
        else:
            driver.scheduler.observe([look(turn.video_id, PENDING)], driver.now, turn)
    assert asked.count("b") >= 2 * asked.count("c")


def test_its_age_counts_from_when_it_was_last_known_to_wait():
    driver = Driver()
    driver.submit("v")
    while driver.now < 1000:
        driver.see(v=PENDING)
    waited = driver.now
    driver.see(v=IN_PROGRESS)
    began = driver.now
    assert began - waited > 20
    driver.see(v=IN_PROGRESS)
    assert driver.now - began == pytest.approx(poll_interval(began - waited), abs=1e-3)


def test_those_left_out_of_the_list_do_not_wait_in_the_line():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    asked_for = []
    for _ in range(5):
        turn = driver.take()
        asked_for.append(turn.video_id)
        shown = [turn.video_id] if turn.video_id else ["a", "b"]
        driver.scheduler.observe([look(each, PENDING) for each in shown], driver.now, turn)
    assert "c" in asked_for


@pytest.mark.parametrize("following", [lambda n: 0, lambda n: n - 1, lambda n: Random(n).randrange(n), None])
def test_nobody_starves_whatever_the_servers_order(following):
    """60 videos, 3 at a time, 30 s each, one request in two seconds; None: the first never begins."""
    driver = Driver()
    names = [f"v{number:02}" for number in range(60)]
    driver.submit(*names)
    line, ends = list(names), {}
    stuck = following is None
    noticed = {}
    for tick in range(2000):
        driver.now = 1.0 + 2.0 * tick
        working = sum(end > driver.now for end in ends.values())
        while working < 3 and len(line) > stuck:
            ends[line.pop(1 if stuck else following(len(line)))] = driver.now + 30
            working += 1
        turn = driver.next()
        if turn and turn.at <= driver.now:
            driver.scheduler.start(turn, driver.now)
            end = ends.get(turn.video_id, math.inf)
            word = PENDING if end == math.inf else IN_PROGRESS if end > driver.now else FINISHED
            for video_id, video in driver.scheduler.observe([look(turn.video_id, word)], driver.now, turn):
                if video.is_terminal:
                    noticed[video_id] = driver.now - ends[video_id]
    assert noticed.keys() == ends.keys()
    assert max(noticed.values()) < 3 * 60 * 2 + 60


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_refusal_is_no_look():
    driver = Driver()
    driver.submit("v")
    first = driver.take()
    assert driver.scheduler.failed(first, REFUSED, driver.now, final=False) == []
    again = driver.take()
    assert (again.video_id, again.at) == (first.video_id, first.at)


def test_a_cancelled_look_is_taken_by_another():
    driver = Driver()
    driver.submit("v")
    turn = driver.take()
    assert driver.next() is None
    driver.scheduler.abandoned(turn)
    assert driver.take().video_id == "v"


@pytest.mark.parametrize("error", [BROKEN, TransportError("reset"), ProtocolError("garbage")])
def test_a_fault_that_may_pass_is_a_look_and_so_backs_off(error):
    driver = Driver()
    driver.submit("v")
    times = []
    for _ in range(20):
        assert driver.fail(error) == []
        times.append(driver.now)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 3


def test_an_outage_of_five_minutes_is_survived_again_and_again():
    driver = Driver()
    driver.submit("v")
    for _ in range(3):
        started = driver.now
        while driver.now < started + 300:
            assert driver.fail(BROKEN) == []
        driver.see(v=IN_PROGRESS)


def test_an_outage_without_end_ends_the_watches():
    driver = Driver()
    driver.submit("v", "w")
    ended = []
    while not ended:
        ended = driver.fail(BROKEN)
    assert ended[0][1] is BROKEN
    assert MAX_OUTAGE < driver.now < MAX_OUTAGE + 60
    assert ended == [("v", BROKEN), ("w", BROKEN)]
    assert len(driver.scheduler) == 0


def test_a_watch_that_begins_in_an_outage_has_all_of_its_patience():
    driver = Driver()
    driver.submit("v")
    while driver.now < 500:
        driver.fail(BROKEN)
    driver.submit("w")
    began = driver.now
    while "w" in driver.scheduler:
        assert driver.now < began + 2 * MAX_OUTAGE
        driver.fail(BROKEN)
    assert driver.now > began + MAX_OUTAGE


def test_one_video_that_cannot_be_seen_ends_alone():
    driver = Driver()
    driver.submit("good", "bad")
    failures = 0
    while "bad" in driver.scheduler:
        turn = driver.take()
        if turn.video_id == "bad":
            failures += 1
            driver.scheduler.failed(turn, BROKEN, driver.now, final=False)
        else:
            driver.scheduler.observe([look("good", IN_PROGRESS)], driver.now, turn)
    assert driver.now > MAX_OUTAGE
    assert failures >= 5
    assert "good" in driver.scheduler


def test_two_failures_far_apart_are_no_outage():
    driver = Driver()
    driver.submit("v", "w")
    turn = driver.take()
    driver.scheduler.failed(turn, BROKEN, driver.now, final=False)
    other = {"v": "w", "w": "v"}[turn.video_id]
    driver.now += 2000  # many others were asked meanwhile, and answered
    driver.scheduler.observe([look(other, IN_PROGRESS)], driver.now)
    assert driver.take().video_id == turn.video_id
    assert driver.scheduler.failed(turn, BROKEN, driver.now, final=False) == []


def test_a_video_may_be_unknown_for_a_while_after_its_submission():
    driver = Driver()
    driver.submit("v")
    ended = []
    while not ended:
        ended = driver.fail(MISSING, final=True)
    assert ended == [("v", MISSING)]
    assert 120 < driver.now < 140


def test_a_video_that_was_picked_up_must_be_known():
    driver = Driver()
    driver.scheduler.add("v", driver.now)
    assert driver.fail(MISSING, final=True) == [("v", MISSING)]
    assert driver.next() is None


@pytest.mark.parametrize("lists", [False, True])
def test_a_refused_token_ends_all_watches(lists):
    driver = Driver(lists=lists)
    driver.submit("v", "w")
    error = AuthenticationError("who are you?", status_code=401)
    assert dict(driver.fail(error, final=True)) == {"v": error, "w": error}
    driver.submit("x", "y")
    assert driver.next() is not None


def test_one_that_is_forbidden_ends_alone():
    driver = Driver()
    driver.submit("v", "w")
    error = PermissionDeniedError("not yours", status_code=403)
    [(video_id, _)] = driver.fail(error, final=True)
    assert len(driver.scheduler) == 1
    assert video_id not in driver.scheduler


@pytest.mark.parametrize("how", ["looked", "failed", "missed"])
def test_an_answer_about_one_that_is_followed_no_longer_is_nothing(how):
    driver = Driver()
    driver.submit("v")
    turn = driver.take()
    driver.scheduler.discard("v")
    driver.scheduler.discard("v")
    news = {
        "looked": lambda: driver.scheduler.observe([look("v", FINISHED)], driver.now, turn),
        "failed": lambda: driver.scheduler.failed(turn, BROKEN, driver.now, final=False),
        "missed": lambda: driver.scheduler.abandoned(turn),
    }[how]()
    assert not news
    assert driver.next() is None
    driver.submit("v")
    assert driver.take().video_id == "v"


# -- whatever happens -------------------------------------------------------------------------------------------------


def come_and_go(driver, random, seen):
    """Watchers of new videos come, others leave."""
    if random.random() < 0.05 and len(seen) < 10:
        name = f"v{driver.now}"
        driver.scheduler.add(
            name, driver.now, since=random.choice([None, driver.now, driver.now - 50 * random.random()])
        )
        seen[name] = driver.now
    if random.random() < 0.02 and seen:
        name = random.choice(list(seen))
        driver.scheduler.discard(name)
        del seen[name]


def answer(driver, random, seen, turn):
    """Something comes of a turn; a list may leave out some."""
    names = [turn.video_id] if turn.video_id else [name for name in seen if random.random() < 0.8]
    seen |= dict.fromkeys(seen.keys() & set(names), driver.now)
    how = random.choices(["looked", "failed", "missed"], [8, 1, 1])[0]
    if how == "looked":
        word = random.choice([PENDING, PENDING, PENDING, IN_PROGRESS, "odd"])
        news = driver.scheduler.observe([look(name, word) for name in names], driver.now, turn)
        assert {video_id for video_id, _ in news} <= seen.keys()
    elif how == "failed":
        assert driver.scheduler.failed(turn, random.choice([BROKEN, REFUSED]), driver.now, final=False) == []
    else:
        driver.scheduler.abandoned(turn)


@given(seed=st.integers(0, 2**32), lists=st.booleans())
def test_everybody_is_asked_again_and_again_whatever_happens(seed, lists):
    """Servers that say anything, failures, cancellations, watchers that come and go, answers in any order."""
    driver, random = Driver(lists=lists), Random(seed)
    seen, flying = {}, []
    for _ in range(400):
        driver.now += 2.0
        come_and_go(driver, random, seen)
        turn = driver.next()
        if turn and turn.at <= driver.now:
            assert turn.video_id is None or turn.video_id in seen
            driver.scheduler.start(turn, driver.now)
            flying.append(turn)
        if flying and random.random() < 0.9:
            answer(driver, random, seen, flying.pop(random.randrange(len(flying))))
        assert len(driver.scheduler) == len(seen)
        for name in seen.keys() - {turn.video_id for turn in flying}:
            assert driver.now - seen[name] < 250, name
