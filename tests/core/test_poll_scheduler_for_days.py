"""The poll scheduler over days: paused consumers, constant memory, and a `video.list` that fails now and then."""

from __future__ import annotations

import pytest

from a2v._core.poll_scheduler import PollScheduler
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._values.models import Video, VideoStatus
from a2v.errors import APIError, NotFoundError, ServerError

MISSING = NotFoundError("no such thing", status_code=404)
BROKEN = ServerError("bad gateway", status_code=502)
DAY = 86_400.0


class Driver:
    """Drives a scheduler without a rate limit. ``awaited`` are the videos that a consumer waits for."""

    def __init__(self, count, *, lists=True):
        self.scheduler, self.limiter, self.now = PollScheduler(), RateLimiter(None), 0.0
        self.ids = [f"v{n}" for n in range(count)]
        self.awaited = set(self.ids)
        self.status = dict.fromkeys(self.ids, VideoStatus.PENDING)
        self.list_error = None if lists else MISSING
        self.polled = []
        for n, video_id in enumerate(self.ids):
            self.scheduler.add(video_id, n * 0.001, since=n * 0.001)

    def next(self):
        return self.scheduler.next(self.now, self.limiter, is_awaited=self.awaited.__contains__)

    def run(self, seconds):
        """Complete all requests within ``seconds``, and return what was polled."""
        end, self.polled = self.now + seconds, []
        while (scheduled := self.next()) and scheduled.at < end:
            if scheduled.at <= self.now:
                self._take(scheduled)
            self.now = max(self.now, scheduled.at)
        self.now = end
        return self.polled

    def _take(self, scheduled):
        self.scheduler.start(scheduled, self.now)
        self.polled.append(scheduled.video_id or "list")
        if scheduled.kind is RequestKind.LIST and self.list_error:
            self.scheduler.failed(
                scheduled, self.list_error, self.now, final=isinstance(self.list_error, NotFoundError)
            )
            return
        shown = [scheduled.video_id] if scheduled.video_id else self.ids
        self.scheduler.observe([Video(video_id=each, status=self.status[each]) for each in shown], self.now, scheduled)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.simulation
@pytest.mark.parametrize("lists", [True, False])
def test_memory_stays_flat_while_videos_are_pending(lists):
    driver = Driver(100, lists=lists)
    for _ in range(10):
        driver.run(DAY / 50)
        queues = [driver.scheduler._followers, driver.scheduler._by_last_poll, *driver.scheduler._age_buckets.values()]
        assert sum(len(queue._heap) for queue in queues) < 10 * 100


# -- paused consumers -------------------------------------------------------------------------------------------------


def test_videos_that_are_not_awaited_are_not_polled_and_keep_their_age():
    driver = Driver(3, lists=False)
    for video_id in driver.ids:
        driver.status[video_id] = VideoStatus.IN_PROGRESS
    driver.run(3600)
    driver.awaited = {"v0"}
    assert set(driver.run(1800)) - {"list"} == {"v0"}
    driver.awaited = set(driver.ids)
    driver.scheduler.resume(dict.fromkeys(driver.ids))
    polled = driver.run(1800)
    # As rarely as is right for videos that are an hour and a half old.
    assert all(30 <= polled.count(video_id) <= 65 for video_id in driver.ids)


def test_a_paused_head_is_replaced_by_the_next_follower():
    driver = Driver(50, lists=False)
    driver.run(600)
    driver.awaited = set(driver.ids[10:])
    driver.run(600)
    driver.status["v10"] = VideoStatus.IN_PROGRESS
    polled = driver.run(300)
    assert not {"v0", "v9"} & set(polled)
    assert "v10" in polled


def test_resumed_videos_become_followers_again():
    driver = Driver(200, lists=False)
    driver.run(600)
    driver.awaited = set()
    driver.run(600)
    assert driver.next() is None
    driver.awaited = set(driver.ids)
    driver.scheduler.resume(dict.fromkeys(driver.ids))
    assert len(driver.run(60)) < 20  # the head, and every few seconds the video polled least recently


def test_a_resumed_head_becomes_the_head_again():
    driver = Driver(5, lists=False)
    driver.run(600)
    driver.awaited = set(driver.ids[1:])
    driver.run(600)
    driver.awaited = set(driver.ids)
    driver.scheduler.resume({"v0": None})
    polled = driver.run(600)
    assert polled.count("v0") > max(polled.count(video_id) for video_id in driver.ids[1:])


def test_a_list_updates_paused_videos_but_is_not_sent_for_them():
    driver = Driver(3)
    for video_id in driver.ids:
        driver.status[video_id] = VideoStatus.IN_PROGRESS
    driver.run(600)
    driver.awaited = {"v0", "v1"}
    assert set(driver.run(600)) == {"list"}
    driver.status["v2"] = VideoStatus.PENDING  # of a server that starts over
    driver.run(600)
    assert driver.scheduler.snapshot("v2").status is VideoStatus.PENDING
    driver.awaited = {"v0"}
    assert set(driver.run(600)) == {"v0"}
    driver.scheduler.discard("v2")
    driver.scheduler.resume(dict.fromkeys(driver.ids))
    assert len(driver.scheduler) == 2


# -- outages ----------------------------------------------------------------------------------------------------------


def test_an_outage_is_counted_only_while_it_is_observed():
    driver = Driver(2, lists=False)
    driver.run(10)
    scheduled = driver.next()
    driver.scheduler.failed(scheduled, BROKEN, driver.now, final=False)
    driver.now += 3000  # the only consumer was busy
    assert driver.scheduler.failed(driver.next(), BROKEN, driver.now, final=False) == []


# -- video.list -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MISSING, APIError("no", status_code=400), BROKEN])
def test_a_failed_list_is_tried_again(error):
    driver = Driver(2)
    driver.run(60)
    driver.list_error = error
    assert driver.run(1).count("list") <= 1
    driver.run(30)
    driver.list_error = None
    driver.run(300)
    assert set(driver.run(300)) == {"list"}


def test_a_first_404_does_not_disable_the_list_for_good():
    driver = Driver(2, lists=False)
    assert driver.run(800).count("list") == 1
    driver.list_error = None
    driver.run(600)
    assert set(driver.run(600)) == {"list"}


@pytest.mark.simulation
def test_a_missing_list_is_tried_ever_more_rarely():
    driver = Driver(2, lists=False)
    assert driver.run(DAY).count("list") <= 10
    assert 5 <= driver.run(DAY).count("list") <= 7
