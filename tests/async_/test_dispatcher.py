"""All requests of a client share one rate limiter and one poll scheduler, and no waiter is forgotten."""

from __future__ import annotations

import random
from email.utils import formatdate

import anyio
import httpx
import pytest

import a2v
from tests.sets import one_by_default

pytestmark = [pytest.mark.both_backends, pytest.mark.anyio, pytest.mark.virtual_time]

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}
FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4"}
EPOCH = 1_790_000_000


class Limit:
    """A server's limit of thirty requests per minute of its clock, reported in headers."""

    def __init__(self, service, *, skew: float = 0.0) -> None:
        self.service, self.skew = service, skew
        self.refused = 0
        self.most = 0
        self._window, self._count = -1, 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(0.1)
        now = anyio.current_time() + 17
        if int(now // 60) != self._window:
            self._window, self._count = int(now // 60), 0
        self._count += 1
        self.most = max(self.most, self._count)
        if self._count > 30:
            self.refused += 1
            response = httpx.Response(429, text="too many")
        else:
            response = await self.service(request)
        clock = EPOCH + now + self.skew
        response.headers["date"] = formatdate(clock, usegmt=True)
        response.headers["x-ratelimit-total"] = "30"
        response.headers["x-ratelimit-left"] = str(max(0, 30 - self._count))
        response.headers["x-ratelimit-reset"] = str(int(clock + 60 - now % 60))
        await anyio.sleep(0.1)
        return response


@pytest.fixture
def limited(service, make_client):
    """Return a limit, and a function that makes clients of the service behind it."""

    def make(**settings):
        limit = Limit(service, **settings)
        return limit, lambda: make_client(rate_limit=30, transport=httpx.MockTransport(limit))

    return make


def dispatcher_of(client):
    return client._session._loop_state.dispatcher


def assert_nothing_is_left(client) -> None:
    dispatcher = dispatcher_of(client)
    left = [dispatcher._subscribers, dispatcher._sleeping, *dispatcher._queues.values()]
    assert [len(each) for each in left] == [0, 0, 0, 0]
    assert len(dispatcher._scheduler) == 0
    assert dispatcher._in_flight == 0


async def polls_for(count: int, service, make_client) -> int:
    service.plan = [(0, {"status": "pending"}), (300, {"status": "in_progressing"}), (900, FINISHED)]
    before = len(service.requests)
    async with make_client() as client, anyio.create_task_group() as group:
        task = await client.videos.generate(**JOB)
        for _ in range(count):
            group.start_soon(client.videos.task(task.video_id).wait)
    return len(service.requests) - before


@pytest.mark.simulation
async def test_a_thousand_waiters_cost_as_many_requests_as_one(service, make_client) -> None:
    one = await polls_for(1, service, make_client)
    assert await polls_for(1000, service, make_client) == one


async def test_any_driver_may_be_cancelled(service, make_client) -> None:
    service.plan = [(0, {"status": "pending"}), (100, FINISHED)]
    async with make_client() as client, anyio.create_task_group() as group:
        task = await client.videos.generate(**JOB)
        began = anyio.current_time()
        for timeout in range(1, 60):  # each of them drives for a second
            group.start_soon(_wait_at_most, client, task.video_id, timeout)
        await client.videos.task(task.video_id).wait()
        assert anyio.current_time() - began < 110


async def _wait_at_most(client: a2v.AsyncA2V, video_id: str, timeout: float) -> None:
    with anyio.move_on_after(timeout):
        await client.videos.task(video_id).wait()


@pytest.mark.parametrize("seed", one_by_default(*range(5)))
async def test_random_cancellations_lose_no_waiter_and_leave_nothing_behind(limited, service, seed) -> None:
    chance = random.Random(seed)
    limit, client = limited()
    service.plan = [(0, {"status": "pending"}), (200, {"status": "in_progressing"}), (700, FINISHED)]
    patient = []
    async with client() as client:
        tasks = [await client.videos.generate(**JOB) for _ in range(20)]

        async def wait(task: a2v.AsyncVideoTask) -> None:
            patient.append(await client.videos.task(task.video_id).wait())

        async def call() -> None:
            with anyio.move_on_after(chance.uniform(0, 5)):
                await client.characters.list()

        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(wait, task)
            for _ in range(200):
                await anyio.sleep(chance.uniform(0, 3))
                group.start_soon(_wait_at_most, client, chance.choice(tasks).video_id, chance.uniform(0, 20))
                if chance.random() < 0.1:
                    group.start_soon(call)
        assert sorted(video.video_id for video in patient) == sorted(task.video_id for task in tasks)
        assert_nothing_is_left(client)
    assert limit.refused == 0


@pytest.mark.simulation
@pytest.mark.parametrize("skew", [0, -90, 3600, -86400 * 365])
async def test_the_limit_holds_whatever_the_servers_clock_says(limited, service, skew) -> None:
    limit, client = limited(skew=skew)
    service.plan = [(0, {"status": "pending"}), (600, FINISHED)]
    async with client() as client, client.batch([a2v.Job(**JOB)] * 60) as batch:
        assert [outcome.ok async for outcome in batch] == [True] * 60
    assert limit.refused == 0
    assert limit.most > 20  # the limit is used


@pytest.mark.simulation
async def test_a_call_is_quick_during_a_large_batch(limited, service) -> None:
    _, client = limited()
    service.plan = [(0, {"status": "pending"}), (1800, FINISHED)]
    waits = []
    async with client() as client, client.batch([a2v.Job(**JOB)] * 300):
        for _ in range(10):
            await anyio.sleep(47)
            began = anyio.current_time()
            await client.characters.list()
            waits.append(anyio.current_time() - began)
    assert max(waits) < 15


@pytest.mark.simulation
async def test_two_clients_with_one_token_stay_within_the_limit(limited, service) -> None:
    limit, client = limited()
    service.plan = [(0, {"status": "pending"}), (900, FINISHED)]
    done = []

    async def work() -> None:
        async with client() as mine, mine.batch([a2v.Job(**JOB)] * 40) as batch:
            done.extend([outcome.ok async for outcome in batch])

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(work)
    assert done == [True] * 80
    assert limit.refused <= 0.02 * len(service.requests) + 2


@pytest.mark.simulation
async def test_video_list_replaces_polls_of_single_videos(service, make_client) -> None:
    service.lists_videos = True
    service.plan = [(0, {"status": "pending"}), (600, FINISHED)]
    async with make_client() as client, client.batch([a2v.Job(**JOB)] * 100) as batch:
        assert [outcome.ok async for outcome in batch] == [True] * 100
    assert len(service.seen("video.list")) > 10
    assert len(service.seen("video.get")) < 20


async def test_a_missing_video_list_is_requested_once(service, make_client) -> None:
    service.plan = [(0, {"status": "pending"}), (600, FINISHED)]
    async with make_client() as client, client.batch([a2v.Job(**JOB)] * 10) as batch:
        assert [outcome.ok async for outcome in batch] == [True] * 10
    assert len(service.seen("video.list")) == 1


async def test_a_snapshot_requested_by_another_caller_is_an_event(service, make_client) -> None:
    service.plan = [(0, {"status": "pending"}), (1000, {"status": "in_progressing"}), (5000, FINISHED)]
    noticed = []
    async with make_client() as client:
        task = await client.videos.generate(**JOB)

        async def watch() -> None:
            async for video in task.watch():
                noticed.append((video.status, anyio.current_time() - began))  # noqa: PERF401  # read while it runs

        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await anyio.sleep(1000.001)
            await client.videos.get(task.video_id)
            await anyio.sleep(0.001)
            assert noticed[-1] == (a2v.VideoStatus.IN_PROGRESS, pytest.approx(1000.001, abs=0.01))
            group.cancel_scope.cancel()


async def test_a_submission_cancelled_before_it_is_sent_costs_nothing(limited, service) -> None:
    _, client = limited()
    async with client() as client:
        for _ in range(30):
            await client.characters.list()
        with anyio.move_on_after(1):  # the limit of the minute is reached, so this waits
            await client.videos.generate(**JOB)
        await client.characters.list()
        assert_nothing_is_left(client)
    assert service.posts == 0


async def test_a_poll_whose_sender_is_cancelled_is_sent_again(service, make_client) -> None:
    async def stall(_: httpx.Request) -> httpx.Response:
        await anyio.sleep(10)
        raise AssertionError("cancelled before this")

    service.plan = [(0, FINISHED)]
    service.replies["video.get"] = [stall, service.well]
    async with make_client() as client, anyio.create_task_group() as group:
        group.start_soon(_wait_at_most, client, "v", 1)  # sends the poll
        await anyio.sleep(0.5)
        began = anyio.current_time()
        assert (await client.videos.task("v").wait()).is_terminal
        assert anyio.current_time() - began < 2


async def test_slow_polls_do_not_delay_others(service, make_client) -> None:
    quick, slow = [f"quick{n}" for n in range(4)], [f"slow{n}" for n in range(4)]
    last_asked = {}

    async def slow_the_second_time(request: httpx.Request) -> httpx.Response:
        video_id = request.url.params["video_id"]
        again, last_asked[video_id] = video_id in last_asked, anyio.current_time()
        if again and video_id in slow:
            await anyio.sleep(25)
        return service.well(request)

    service.plan = [(0, {"status": "pending"}), (3, FINISHED)]
    service.replies["video.get"] = [slow_the_second_time]
    async with make_client() as client, anyio.create_task_group() as group:
        began = anyio.current_time()
        for video_id in quick + slow:
            group.start_soon(client.videos.task(video_id).wait)
    assert all(3 <= last_asked[video_id] - began < 6 for video_id in quick)


async def test_nothing_is_left_when_all_waiters_have_left(service, make_client) -> None:
    async with make_client() as client:
        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(_wait_at_most, client, f"v{n % 3}", n + 1)
        assert_nothing_is_left(client)


@pytest.mark.parametrize("calls", [2, 100])
async def test_until_the_limit_is_known_requests_are_sent_one_at_a_time(limited, service, calls) -> None:
    limit, client = limited()
    async with client() as client, anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(client.characters.list)
    assert (limit.refused, len(service.requests)) == (0, calls)
