"""The poll scheduler: which request is next, and which snapshots are events."""

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

THROTTLED = RateLimitError("slow down", status_code=429)
BROKEN = ServerError("bad gateway", status_code=502)
MISSING = NotFoundError("no such video", status_code=404)


def snapshot(video_id, word, url="https://cdn.example/v.mp4"):
    status = VideoStatus(word) if word in set(VideoStatus) else VideoStatus.UNKNOWN
    return Video(
        video_id=video_id,
        status=status,
        video_url=url if status is VideoStatus.FINISHED else None,
        raw={"video_id": video_id, "status": word},
    )


class Driver:
    """Drives a scheduler without a rate limit and without latency; the test supplies the responses."""

    def __init__(self, *, lists=False):
        self.scheduler, self.limiter, self.now = PollScheduler(), RateLimiter(None), 0.0
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
        scheduled = self.next()
        self.scheduler.start(scheduled, self.now)
        assert self.scheduler.failed(scheduled, MISSING, self.now, final=True) == []

    def submit(self, *video_ids):
        for video_id in video_ids:
            self.scheduler.add(video_id, self.now, since=self.now)

    def next(self, **waiting):
        return self.scheduler.next(self.now, self.limiter, **waiting)

    def take(self, **waiting):
        """Wait for the next request, and start it."""
        scheduled = self.next(**waiting)
        while scheduled.at > self.now or (scheduled.kind is RequestKind.LIST and not self.lists):
            if scheduled.at <= self.now:
                self.refuse_list()
            self.now = max(self.now, scheduled.at)
            scheduled = self.next(**waiting)
        self.scheduler.start(scheduled, self.now)
        return scheduled

    def respond(self, **words):
        """Take the next request, and answer it with these statuses."""
        scheduled = self.take()
        assert scheduled.video_id is None or scheduled.video_id in words
        shown = [scheduled.video_id] if scheduled.video_id else list(words)
        return self.scheduler.observe([snapshot(each, words[each]) for each in shown], self.now, scheduled)

    def fail(self, error, *, final=False):
        return self.scheduler.failed(self.take(), error, self.now, final=final)

    def polled(self, times, **words):
        """Return the videos polled by the next requests while no status changes."""
        polled = []
        for _ in range(times):
            scheduled = self.take()
            polled.append(scheduled.video_id)
            self.scheduler.observe([snapshot(scheduled.video_id, words[scheduled.video_id])], self.now, scheduled)
        return polled


# -- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "seconds"), [(-1, 0.5), (0, 0.5), (2, 2 / 3), (50, 5), (900, 21.2), (10_000, 60)])
def test_the_poll_interval_grows_with_age(age, seconds):
    assert poll_interval(age) == pytest.approx(seconds, abs=0.1)


def test_a_submitted_video_is_polled_after_half_a_second_and_a_picked_up_one_at_once():
    driver = Driver()
    driver.submit("submitted")
    assert driver.next().at == 0.5
    driver.scheduler.add("picked up", driver.now)
    assert driver.next().at == driver.now
    assert driver.take().video_id == "picked up"


def test_polls_are_an_interval_apart():
    driver = Driver()
    driver.submit("v")
    times = []
    for _ in range(30):
        driver.respond(v=IN_PROGRESS)
        times.append(driver.now)
    for before, after in pairwise(times):
        assert after - before == pytest.approx(poll_interval(before), abs=1e-3)


def test_a_snapshot_is_as_old_as_its_request():
    driver = Driver()
    driver.submit("v")
    scheduled = driver.take()
    driver.now += 10
    driver.scheduler.observe([snapshot("v", IN_PROGRESS)], driver.now, scheduled)
    assert driver.next().at <= driver.now


def test_without_videos_nothing_is_sent():
    driver = Driver()
    assert driver.next() is None
    assert len(driver.scheduler) == 0


def test_a_video_with_a_poll_in_flight_is_not_polled_again():
    driver = Driver()
    driver.submit("v")
    driver.take()
    driver.now += 100
    assert driver.next() is None


# -- the next request -------------------------------------------------------------------------------------------------


def order(driver, times, **waiting):
    """Return the kinds of the next requests, while others wait and all videos are always due."""
    kinds = []
    for _ in range(times):
        driver.now += 100
        scheduled = driver.take(**waiting)
        kinds.append(scheduled.kind)
        driver.scheduler.abandoned(scheduled)
    return kinds


def test_submissions_come_first_but_every_tenth_request_is_a_poll():
    driver = Driver()
    driver.submit("v")
    kinds = order(driver, 30, submits=5)
    assert kinds.count(RequestKind.GET) == 3
    assert kinds[9] is kinds[19] is kinds[29] is RequestKind.GET


def test_calls_come_first_but_not_twice_in_a_row():
    driver = Driver()
    assert order(driver, 4, submits=1, calls=1) == [RequestKind.CALL, RequestKind.SUBMIT] * 2
    driver.submit("v")
    assert order(driver, 4, calls=1) == [RequestKind.CALL, RequestKind.GET] * 2


def test_calls_follow_calls_if_nothing_else_waits():
    driver = Driver()
    assert order(driver, 3, calls=1) == [RequestKind.CALL] * 3


def test_no_kind_of_request_starves():
    driver = Driver()
    driver.submit("v")
    kinds = order(driver, 100, submits=9, calls=9)
    assert [kinds.count(kind) for kind in (RequestKind.CALL, RequestKind.SUBMIT, RequestKind.GET)] == [50, 40, 10]


def test_requests_wait_for_the_rate_limiter():
    driver = Driver()
    driver.limiter = RateLimiter(1)
    driver.limiter.release(driver.limiter.acquire(0.0), 0.0, {"x-ratelimit-total": "1"})
    assert driver.next(submits=1).at == pytest.approx(60.5)
    driver.limiter.acquire(60.5)
    driver.now = 60.5
    assert driver.next(submits=1) is None, "until the request in flight ends"


def test_the_most_overdue_video_is_polled_first():
    driver = Driver()
    driver.submit("old")
    driver.now = 900.0
    driver.respond(old=IN_PROGRESS)
    driver.submit("young")
    driver.now += 20.0  # not due yet, and forty intervals overdue
    assert driver.take().video_id == "young"


def test_every_third_poll_goes_to_the_video_polled_least_recently():
    driver = Driver()
    driver.submit("old")
    driver.now = 5000.0
    driver.respond(old=IN_PROGRESS)
    for number in range(50):
        driver.submit(f"young{number}")
    driver.now += 100.0  # the old one is 1.7 intervals overdue, the young ones 200
    polled = [driver.take().video_id for _ in range(3)]
    assert "old" in polled


# -- events -----------------------------------------------------------------------------------------------------------


def test_the_first_snapshot_and_each_change_are_events():
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
    events = [video.raw["status"] for word in words for _, video in driver.respond(v=word)]
    assert events == [PENDING, IN_PROGRESS, PENDING, "warming", "cooling", IN_PROGRESS, FINISHED]


@pytest.mark.parametrize("word", [FINISHED, FAILED])
def test_a_video_that_has_ended_is_reported_and_discarded(word):
    driver = Driver()
    driver.submit("v")
    [(video_id, video)] = driver.respond(v=word)
    assert (video_id, video.status) == ("v", word)
    assert "v" not in driver.scheduler
    assert driver.next() is None


def test_later_subscribers_get_the_last_snapshot():
    driver = Driver()
    driver.submit("v")
    assert driver.scheduler.snapshot("v") is None
    driver.respond(v=PENDING)
    driver.scheduler.add("v", driver.now)
    assert driver.scheduler.snapshot("v") == snapshot("v", PENDING)
    assert driver.scheduler.snapshot("w") is None


def test_a_finished_video_without_a_url_is_polled_a_few_more_times():
    driver = Driver()
    driver.submit("v")
    driver.respond(v=IN_PROGRESS)
    times, events = [], []
    while not events:
        scheduled = driver.take()
        times.append(driver.now)
        events = driver.scheduler.observe([snapshot("v", FINISHED, url=None)], driver.now, scheduled)
    [(video_id, error)] = events
    assert isinstance(error, ProtocolError)
    assert "'v'" in str(error)
    assert (video_id, error.video_id, error.video.status) == ("v", "v", FINISHED)
    assert len(times) == 6
    assert times[-1] - times[0] >= 10
    assert driver.next() is None


def test_the_url_may_appear_a_moment_after_the_status():
    driver = Driver()
    driver.submit("v")
    scheduled = driver.take()
    assert driver.scheduler.observe([snapshot("v", FINISHED, url=None)], driver.now, scheduled) == []
    assert driver.next().at == pytest.approx(driver.now + 1)
    [(_, video)] = driver.respond(v=FINISHED)
    assert video.video_url


def test_polls_without_a_url_do_not_add_up():
    driver = Driver()
    driver.submit("v")
    for word in [FINISHED, FINISHED, FINISHED, IN_PROGRESS, FINISHED, FINISHED, FINISHED]:
        scheduled = driver.take()
        for _, events in driver.scheduler.observe([snapshot("v", word, url=None)], driver.now, scheduled):
            assert events.status == IN_PROGRESS
    assert "v" in driver.scheduler


def test_snapshots_from_other_requests_count_as_polls():
    driver = Driver()
    driver.submit("v")
    assert driver.scheduler.observe([snapshot("v", PENDING), snapshot("stranger", FINISHED)], 0.3) == [
        ("v", snapshot("v", PENDING))
    ]
    assert driver.next().at == pytest.approx(0.8)


def test_a_snapshot_from_another_request_does_not_start_a_second_poll():
    driver = Driver()
    driver.submit("v")
    driver.take()
    driver.scheduler.observe([snapshot("v", IN_PROGRESS)], driver.now)
    driver.now += 100
    assert driver.next() is None


def test_a_response_overtaken_by_a_newer_one_is_ignored():
    driver = Driver()
    driver.submit("v")
    scheduled = driver.take()
    driver.now += 5
    driver.scheduler.observe([snapshot("v", IN_PROGRESS)], driver.now)
    assert driver.scheduler.observe([snapshot("v", PENDING)], driver.now + 1, scheduled) == []


def test_a_new_signature_of_the_url_is_not_a_change():
    assert not is_change(snapshot("v", FINISHED, "https://a"), snapshot("v", FINISHED, "https://b"))


# -- video.list -------------------------------------------------------------------------------------------------------


def test_one_list_polls_all_videos():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    scheduled = driver.take()
    assert scheduled.kind is RequestKind.LIST
    driver.now += 1
    assert driver.next() is None, "one list is enough"
    events = driver.scheduler.observe([snapshot(each, PENDING) for each in "abc"], driver.now, scheduled)
    assert [video_id for video_id, _ in events] == ["a", "b", "c"]
    assert driver.take().kind is RequestKind.LIST


def test_a_single_video_is_polled_without_a_list():
    driver = Driver(lists=True)
    driver.submit("a")
    assert driver.take().kind is RequestKind.GET


def test_after_a_404_for_the_list_videos_are_polled_one_by_one():
    driver = Driver()
    driver.submit("a", "b")
    assert {driver.take().kind, driver.take().kind} == {RequestKind.GET}


def test_a_video_missing_from_the_list_is_polled_separately():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    driver.respond(a=PENDING, b=PENDING)
    kinds = {}
    for _ in range(8):
        scheduled = driver.take()
        kinds.setdefault(scheduled.kind, set()).add(scheduled.video_id)
        shown = [scheduled.video_id] if scheduled.video_id else ["a", "b"]
        driver.scheduler.observe([snapshot(each, PENDING) for each in shown], driver.now, scheduled)
    assert kinds == {RequestKind.LIST: {None}, RequestKind.GET: {"c"}}


def test_a_video_that_appears_in_the_list_later_is_polled_with_the_others():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    driver.respond(a=PENDING, b=PENDING)
    for _ in range(20):
        driver.respond(a=PENDING, b=PENDING, c=PENDING)
    kinds = [driver.take().kind]
    assert kinds == [RequestKind.LIST]


def test_an_empty_list_is_not_requested_again_at_once():
    driver = Driver(lists=True)
    for video_id in "ab":
        driver.scheduler.add(video_id, driver.now)
    assert driver.respond() == []
    requests = [driver.take(), driver.take()]
    assert driver.now == 0.0
    assert [scheduled.video_id for scheduled in requests] == ["a", "b"]


@pytest.mark.parametrize("later", [0.1, 0.0], ids=["later", "in the same instant"])
def test_a_video_submitted_during_a_list_is_not_missing_from_it(later):
    driver = Driver(lists=True)
    driver.submit("a", "b")
    driver.now = 100.0
    scheduled = driver.take()
    driver.now += later
    driver.submit("c")
    driver.scheduler.observe([snapshot("a", IN_PROGRESS), snapshot("b", IN_PROGRESS)], driver.now, scheduled)
    assert driver.take().kind is RequestKind.LIST


def test_after_a_failed_list_gets_come_first_before_it_is_tried_again():
    driver = Driver(lists=True)
    driver.submit("a", "b")
    kinds = []
    for _ in range(20):
        scheduled = driver.take()
        kinds.append(scheduled.kind)
        if scheduled.kind is RequestKind.LIST:
            assert driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False) == []
        else:
            driver.scheduler.observe([snapshot(scheduled.video_id, IN_PROGRESS)], driver.now, scheduled)
    lists = [index for index, kind in enumerate(kinds) if kind is RequestKind.LIST]
    assert lists == [0, 3, 8, 17], "2, 4 and 8 gets between"


def test_failures_of_the_list_do_not_add_up():
    driver = Driver(lists=True)
    driver.submit("a", "b")

    def gets_until_the_next_list():
        gets = 0
        while (scheduled := driver.take()).kind is RequestKind.GET:
            driver.scheduler.observe([snapshot(scheduled.video_id, PENDING)], driver.now, scheduled)
            gets += 1
        return scheduled, gets

    scheduled, _ = gets_until_the_next_list()
    for _ in range(3):
        driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False)
        scheduled, gets = gets_until_the_next_list()
        assert gets == 2
        driver.scheduler.observe([snapshot(each, PENDING) for each in "ab"], driver.now, scheduled)
        scheduled, gets = gets_until_the_next_list()
        assert gets == 0


def test_a_cancelled_list_is_sent_again():
    driver = Driver(lists=True)
    driver.submit("a", "b")
    driver.scheduler.abandoned(driver.take())
    assert driver.take().kind is RequestKind.LIST


# -- the queue head and its followers ---------------------------------------------------------------------------------


def test_followers_of_a_pending_head_are_rarely_polled():
    driver = Driver()
    driver.submit("a", "b", "c", "d")
    driver.respond(a=PENDING)
    started = driver.now
    polled = driver.polled(10, a=PENDING, b=PENDING, c=PENDING, d=PENDING)
    assert driver.now > started + 5
    assert polled.count("a") >= 6, "the others are only verified now and then"


def test_when_the_head_starts_the_next_video_is_polled():
    driver = Driver()
    driver.submit("a", "b", "c")
    for _ in range(10):
        driver.respond(a=PENDING, b=PENDING, c=PENDING)
    driver.now += 10
    driver.scheduler.observe([snapshot("a", IN_PROGRESS)], driver.now)
    assert driver.take().video_id == "b"


def test_later_submissions_become_followers():
    driver = Driver()
    driver.submit("a")
    driver.respond(a=PENDING)
    driver.submit(*"bcdefgh")
    assert driver.polled(4, **dict.fromkeys("abcdefgh", PENDING)).count("a") >= 2


def test_an_earlier_pending_submission_becomes_the_head():
    driver = Driver()
    driver.submit("a", "b", "c")
    driver.scheduler.observe([snapshot("b", PENDING)], driver.now)
    driver.scheduler.observe([snapshot("a", PENDING)], driver.now)
    assert driver.polled(6, a=PENDING, b=PENDING, c=PENDING).count("a") >= 3


def test_an_overtaken_video_is_not_a_follower():
    driver = Driver()
    driver.submit("a", "b", "c", "d")
    driver.scheduler.observe([snapshot("a", PENDING)], driver.now)
    driver.scheduler.observe([snapshot("c", IN_PROGRESS)], driver.now)
    polled = driver.polled(24, a=PENDING, b=PENDING, c=IN_PROGRESS, d=PENDING)
    assert min(polled.count(each) for each in "abcd") >= 4


def test_a_failed_video_overtakes_no_other():
    driver = Driver()
    driver.submit("a", "b", "c", "d")
    driver.scheduler.observe([snapshot("a", PENDING)], driver.now)
    driver.scheduler.observe([snapshot("c", FAILED)], driver.now)
    assert driver.polled(10, a=PENDING, b=PENDING, d=PENDING).count("a") >= 6


def test_when_the_head_is_discarded_the_next_follower_replaces_it():
    driver = Driver()
    driver.submit("a", "b", "c")
    driver.scheduler.observe([snapshot("a", PENDING)], driver.now)
    driver.scheduler.discard("a")
    assert driver.polled(6, b=PENDING, c=PENDING).count("b") >= 3


def test_a_new_head_was_pending_when_the_old_one_was():
    driver = Driver()
    driver.submit(*"abcdefgh")
    driver.scheduler.observe([snapshot("a", PENDING)], driver.now)
    driver.scheduler.observe([snapshot("b", PENDING)], 50.0)
    driver.now = 100.0
    driver.scheduler.observe([snapshot("a", PENDING)], driver.now)
    driver.scheduler.observe([snapshot("a", FINISHED)], driver.now)
    while (scheduled := driver.take()).video_id != "b":
        driver.scheduler.observe([snapshot(scheduled.video_id, PENDING)], driver.now, scheduled)
    assert driver.now == pytest.approx(100 + poll_interval(100))


def test_when_polls_of_the_head_fail_the_next_follower_replaces_it():
    driver = Driver()
    driver.submit("a", "b", "c", "d", "e")
    driver.respond(a=PENDING)
    polled = []
    while len(polled) < 30:
        scheduled = driver.take()
        polled.append(scheduled.video_id)
        if scheduled.video_id == "a":
            driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False)
        else:
            driver.scheduler.observe([snapshot(scheduled.video_id, PENDING)], driver.now, scheduled)
    assert polled.count("b") >= 2 * polled.count("c")


def test_age_is_counted_from_the_last_pending_snapshot():
    driver = Driver()
    driver.submit("v")
    while driver.now < 1000:
        driver.respond(v=PENDING)
    waited = driver.now
    driver.respond(v=IN_PROGRESS)
    began = driver.now
    assert began - waited > 20
    driver.respond(v=IN_PROGRESS)
    assert driver.now - began == pytest.approx(poll_interval(began - waited), abs=1e-3)


def test_a_video_missing_from_the_list_is_not_a_follower():
    driver = Driver(lists=True)
    driver.submit("a", "b", "c")
    polled = []
    for _ in range(5):
        scheduled = driver.take()
        polled.append(scheduled.video_id)
        shown = [scheduled.video_id] if scheduled.video_id else ["a", "b"]
        driver.scheduler.observe([snapshot(each, PENDING) for each in shown], driver.now, scheduled)
    assert "c" in polled


@pytest.mark.parametrize("following", [lambda n: 0, lambda n: n - 1, lambda n: Random(n).randrange(n), None])
def test_no_video_starves_whatever_the_servers_order(following):
    """60 videos, 3 at a time, 30 s each, one request every two seconds; None: the first never starts."""
    driver = Driver()
    names = [f"v{number:02}" for number in range(60)]
    driver.submit(*names)
    queue, ends = list(names), {}
    stuck = following is None
    noticed = {}
    for tick in range(2000):
        driver.now = 1.0 + 2.0 * tick
        working = sum(end > driver.now for end in ends.values())
        while working < 3 and len(queue) > stuck:
            ends[queue.pop(1 if stuck else following(len(queue)))] = driver.now + 30
            working += 1
        scheduled = driver.next()
        if scheduled and scheduled.at <= driver.now:
            driver.scheduler.start(scheduled, driver.now)
            end = ends.get(scheduled.video_id, math.inf)
            word = PENDING if end == math.inf else IN_PROGRESS if end > driver.now else FINISHED
            for video_id, video in driver.scheduler.observe(
                [snapshot(scheduled.video_id, word)], driver.now, scheduled
            ):
                if video.is_terminal:
                    noticed[video_id] = driver.now - ends[video_id]
    assert noticed.keys() == ends.keys()
    assert max(noticed.values()) < 3 * 60 * 2 + 60


# -- errors -----------------------------------------------------------------------------------------------------------


def test_a_throttled_poll_does_not_count():
    driver = Driver()
    driver.submit("v")
    first = driver.take()
    assert driver.scheduler.failed(first, THROTTLED, driver.now, final=False) == []
    again = driver.take()
    assert (again.video_id, again.at) == (first.video_id, first.at)


def test_a_cancelled_poll_is_sent_again():
    driver = Driver()
    driver.submit("v")
    scheduled = driver.take()
    assert driver.next() is None
    driver.scheduler.abandoned(scheduled)
    assert driver.take().video_id == "v"


@pytest.mark.parametrize("error", [BROKEN, TransportError("reset"), ProtocolError("garbage")])
def test_transient_errors_count_as_polls_so_the_interval_grows(error):
    driver = Driver()
    driver.submit("v")
    times = []
    for _ in range(20):
        assert driver.fail(error) == []
        times.append(driver.now)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 3


def test_repeated_outages_of_five_minutes_are_survived():
    driver = Driver()
    driver.submit("v")
    for _ in range(3):
        started = driver.now
        while driver.now < started + 300:
            assert driver.fail(BROKEN) == []
        driver.respond(v=IN_PROGRESS)


def test_a_permanent_outage_ends_the_polling_of_all_videos():
    driver = Driver()
    driver.submit("v", "w")
    ended = []
    while not ended:
        ended = driver.fail(BROKEN)
    assert ended[0][1] is BROKEN
    assert MAX_OUTAGE < driver.now < MAX_OUTAGE + 60
    assert ended == [("v", BROKEN), ("w", BROKEN)]
    assert len(driver.scheduler) == 0


def test_a_video_added_during_an_outage_has_the_whole_time():
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


def test_a_video_that_cannot_be_polled_ends_alone():
    driver = Driver()
    driver.submit("good", "bad")
    failures = 0
    while "bad" in driver.scheduler:
        scheduled = driver.take()
        if scheduled.video_id == "bad":
            failures += 1
            driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False)
        else:
            driver.scheduler.observe([snapshot("good", IN_PROGRESS)], driver.now, scheduled)
    assert driver.now > MAX_OUTAGE
    assert failures >= 5
    assert "good" in driver.scheduler


def test_two_failures_far_apart_are_not_an_outage():
    driver = Driver()
    driver.submit("v", "w")
    scheduled = driver.take()
    driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False)
    other = {"v": "w", "w": "v"}[scheduled.video_id]
    driver.now += 2000  # other videos were polled meanwhile, with success
    driver.scheduler.observe([snapshot(other, IN_PROGRESS)], driver.now)
    assert driver.take().video_id == scheduled.video_id
    assert driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False) == []


def test_a_video_may_be_unknown_to_the_server_shortly_after_its_submission():
    driver = Driver()
    driver.submit("v")
    ended = []
    while not ended:
        ended = driver.fail(MISSING, final=True)
    assert ended == [("v", MISSING)]
    assert 120 < driver.now < 140


def test_a_picked_up_video_must_be_known_to_the_server():
    driver = Driver()
    driver.scheduler.add("v", driver.now)
    assert driver.fail(MISSING, final=True) == [("v", MISSING)]
    assert driver.next() is None


@pytest.mark.parametrize("lists", [False, True])
def test_a_refused_token_ends_the_polling_of_all_videos(lists):
    driver = Driver(lists=lists)
    driver.submit("v", "w")
    error = AuthenticationError("who are you?", status_code=401)
    assert dict(driver.fail(error, final=True)) == {"v": error, "w": error}
    driver.submit("x", "y")
    assert driver.next() is not None


def test_a_forbidden_video_ends_alone():
    driver = Driver()
    driver.submit("v", "w")
    error = PermissionDeniedError("not yours", status_code=403)
    [(video_id, _)] = driver.fail(error, final=True)
    assert len(driver.scheduler) == 1
    assert video_id not in driver.scheduler


@pytest.mark.parametrize("how", ["observed", "failed", "abandoned"])
def test_a_response_about_a_discarded_video_is_ignored(how):
    driver = Driver()
    driver.submit("v")
    scheduled = driver.take()
    driver.scheduler.discard("v")
    driver.scheduler.discard("v")
    events = {
        "observed": lambda: driver.scheduler.observe([snapshot("v", FINISHED)], driver.now, scheduled),
        "failed": lambda: driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False),
        "abandoned": lambda: driver.scheduler.abandoned(scheduled),
    }[how]()
    assert not events
    assert driver.next() is None
    driver.submit("v")
    assert driver.take().video_id == "v"


# -- random sequences -------------------------------------------------------------------------------------------------


def come_and_go(driver, random, seen):
    """Follow new videos and discard others."""
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


def answer(driver, random, seen, scheduled):
    """Complete a request in a random way; a list may not show all videos."""
    names = [scheduled.video_id] if scheduled.video_id else [name for name in seen if random.random() < 0.8]
    seen |= dict.fromkeys(seen.keys() & set(names), driver.now)
    how = random.choices(["observed", "failed", "abandoned"], [8, 1, 1])[0]
    if how == "observed":
        word = random.choice([PENDING, PENDING, PENDING, IN_PROGRESS, "odd"])
        events = driver.scheduler.observe([snapshot(name, word) for name in names], driver.now, scheduled)
        assert {video_id for video_id, _ in events} <= seen.keys()
    elif how == "failed":
        assert driver.scheduler.failed(scheduled, random.choice([BROKEN, THROTTLED]), driver.now, final=False) == []
    else:
        driver.scheduler.abandoned(scheduled)


@pytest.mark.simulation
@given(seed=st.integers(0, 2**32), lists=st.booleans())
def test_every_video_is_polled_again_and_again_whatever_happens(seed, lists):
    """With arbitrary statuses, failures, cancellations, videos added and discarded, and responses in any order."""
    driver, random = Driver(lists=lists), Random(seed)
    seen, in_flight = {}, []
    for _ in range(400):
        driver.now += 2.0
        come_and_go(driver, random, seen)
        scheduled = driver.next()
        if scheduled and scheduled.at <= driver.now:
            assert scheduled.video_id is None or scheduled.video_id in seen
            driver.scheduler.start(scheduled, driver.now)
            in_flight.append(scheduled)
        if in_flight and random.random() < 0.9:
            answer(driver, random, seen, in_flight.pop(random.randrange(len(in_flight))))
        assert len(driver.scheduler) == len(seen)
        for name in seen.keys() - {scheduled.video_id for scheduled in in_flight}:
            assert driver.now - seen[name] < 250, name
