"""The schedule over days: consumers that pause, memory that stays flat, a `video.list` that fails now and then."""

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
    """Takes the turns of a schedule without a limit; ``awaited`` are those that somebody waits for."""

    def __init__(self, count, *, lists=True):
        self.scheduler, self.budget, self.now = PollScheduler(), RateLimiter(None), 0.0
        self.ids = [f"v{n}" for n in range(count)]
        self.awaited = set(self.ids)
        self.status = dict.fromkeys(self.ids, VideoStatus.PENDING)
        self.list_error = None if lists else MISSING
        self.asked = []
        for n, video_id in enumerate(self.ids):
            self.scheduler.add(video_id, n * 0.001, since=n * 0.001)

    def next(self):
        return self.scheduler.next(self.now, self.budget, is_awaited=self.awaited.__contains__)

    def run(self, seconds):
        """Take all turns of a while; tell what was asked for."""
        end, self.asked = self.now + seconds, []
        while (turn := self.next()) and turn.at < end:
            if turn.at <= self.now:
                self._take(turn)
            self.now = max(self.now, turn.at)
        self.now = end
        return self.asked

    def _take(self, turn):
        self.scheduler.start(turn, self.now)
        self.asked.append(turn.video_id or "list")
        if turn.kind is RequestKind.LIST and self.list_error:
            self.scheduler.failed(turn, self.list_error, self.now, final=isinstance(self.list_error, NotFoundError))
            return
        shown = [turn.video_id] if turn.video_id else self.ids
        self.scheduler.observe([Video(video_id=each, status=self.status[each]) for each in shown], self.now, turn)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", [True, False])
def test_memory_stays_flat_while_videos_are_pending(lists):
    driver = Driver(100, lists=lists)
    for _ in range(10):
        driver.run(DAY / 50)
        queues = [driver.scheduler._followers, driver.scheduler._by_last_poll, *driver.scheduler._age_buckets.values()]
        assert sum(len(queue._heap) for queue in queues) < 10 * 100


# -- consumers that pause ---------------------------------------------------------------------------------------------


def test_what_nobody_awaits_is_not_asked_and_what_is_known_of_it_is_kept():
    driver = Driver(3, lists=False)
    for video_id in driver.ids:
        driver.status[video_id] = VideoStatus.IN_PROGRESS
    driver.run(3600)
    driver.awaited = {"v0"}
    assert set(driver.run(1800)) - {"list"} == {"v0"}
    driver.awaited = set(driver.ids)
    driver.scheduler.resume(dict.fromkeys(driver.ids))
    asked = driver.run(1800)
    # As rarely as is right for videos of an hour and a half, and not as if they had just been added.
    assert all(30 <= asked.count(video_id) <= 65 for video_id in driver.ids)


def test_a_line_goes_on_without_the_first_in_it():
    driver = Driver(50, lists=False)
    driver.run(600)
    driver.awaited = set(driver.ids[10:])
    driver.run(600)
    driver.status["v10"] = VideoStatus.IN_PROGRESS
    asked = driver.run(300)
    assert not {"v0", "v9"} & set(asked)
    assert "v10" in asked


def test_a_line_that_was_set_aside_is_one_again():
    driver = Driver(200, lists=False)
    driver.run(600)
    driver.awaited = set()
    driver.run(600)
    assert driver.next() is None
    driver.awaited = set(driver.ids)
    driver.scheduler.resume(dict.fromkeys(driver.ids))
    assert len(driver.run(60)) < 20  # the first in line, and each few seconds the one asked least recently


def test_the_first_in_line_leads_it_again_when_it_comes_back():
    driver = Driver(5, lists=False)
    driver.run(600)
    driver.awaited = set(driver.ids[1:])
    driver.run(600)
    driver.awaited = set(driver.ids)
    driver.scheduler.resume({"v0": None})
    asked = driver.run(600)
    assert asked.count("v0") > max(asked.count(video_id) for video_id in driver.ids[1:])


def test_a_list_updates_what_is_set_aside_and_is_not_asked_for_it():
    driver = Driver(3)
    for video_id in driver.ids:
        driver.status[video_id] = VideoStatus.IN_PROGRESS
    driver.run(600)
    driver.awaited = {"v0", "v1"}
    assert set(driver.run(600)) == {"list"}
    driver.status["v2"] = VideoStatus.PENDING  # of a server that begins anew
    driver.run(600)
    assert driver.scheduler.snapshot("v2").status is VideoStatus.PENDING
    driver.awaited = {"v0"}
    assert set(driver.run(600)) == {"v0"}
    driver.scheduler.discard("v2")
    driver.scheduler.resume(dict.fromkeys(driver.ids))
    assert len(driver.scheduler) == 2


# -- outages ----------------------------------------------------------------------------------------------------------


def test_an_outage_is_counted_only_while_it_is_seen():
    driver = Driver(2, lists=False)
    driver.run(10)
    turn = driver.next()
    driver.scheduler.failed(turn, BROKEN, driver.now, final=False)
    driver.now += 3000  # the only consumer was busy
    assert driver.scheduler.failed(driver.next(), BROKEN, driver.now, final=False) == []


# -- video.list -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MISSING, APIError("no", status_code=400), BROKEN])
def test_a_list_that_failed_is_asked_for_again(error):
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


def test_a_server_without_the_list_is_asked_for_it_ever_more_rarely():
    driver = Driver(2, lists=False)
    assert driver.run(DAY).count("list") <= 10
    assert 5 <= driver.run(DAY).count("list") <= 7
