"""Watching videos until they end, for hours and through outages."""

from __future__ import annotations

import itertools
from contextlib import aclosing

import anyio
import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
URL = "https://files.example/v.mp4?signature="
UNKNOWN_VIDEO = httpx.Response(404, json={"code": 10001, "message": "file not found", "data": None})


def finished(n: int = 0) -> dict[str, object]:
    return {"status": "finished", "video_url": f"{URL}{n}"}


async def collect(videos) -> list[a2v.Video]:
    return [video async for video in videos]


async def statuses(videos) -> list[str]:
    return [video.status.value for video in await collect(videos)]


def during(start: float, end: float, reply, service):
    """Reply with ``reply`` between two times, counted from now, and as usual otherwise."""
    begin = anyio.current_time()

    async def answer(request):
        if not start <= anyio.current_time() - begin < end:
            return service.well(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return answer


# -- snapshots --------------------------------------------------------------------------------------------------------


async def test_the_first_snapshot_then_each_change(service, make_client) -> None:
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        seen = []
        async for video in task.watch():
            assert task.video is video
            seen.append((video.video_id, video.status.value))
        assert seen == [("v1", "pending"), ("v1", "in_progressing"), ("v1", "finished")]
        assert repr(task) == "<AsyncVideoTask v1 finished>"
    # Polled often enough to see each status, and much less than once per second.
    assert 3 <= len(service.seen("video.get")) < 150


async def test_no_change_is_yielded_twice(service, make_client) -> None:
    """A new signature of the URL in each response is not a change, nor are additional fields."""
    fresh = itertools.count()
    service.replies["video.get"] = [
        lambda _: httpx.Response(
            200,
            json={"code": 0, "data": {"video_id": "v", "status": "pending", "x": next(fresh), "mask_video_url": URL}},
        )
    ] * 20 + [httpx.Response(200, json={"code": 0, "data": {"video_id": "v"} | finished()})]
    async with make_client() as client:
        assert await statuses(client.videos.task("v").watch()) == ["pending", "finished"]


async def test_a_video_that_has_ended_is_polled_once(service, make_client) -> None:
    service.plan = [(0, finished())]
    async with make_client() as client:
        assert await statuses(client.videos.task("v").watch()) == ["finished"]
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("plan", "seen"),
    [
        # the seed's form
        ([(0, {}), (700, {"video_url": URL})], ["in_progressing", "finished"]),
        ([(0, {"video_url": ""}), (700, {"video_url": URL})], ["in_progressing", "finished"]),
        # unknown statuses
        (
            [(0, {"status": "queued"}), (60, {"status": "polishing"}), (200, finished())],
            ["unknown", "unknown", "finished"],
        ),
        # backwards
        (
            [(0, {"status": "in_progressing"}), (100, {"status": "pending"}), (300, finished())],
            ["in_progressing", "pending", "finished"],
        ),
        # finished a moment before there is a URL
        ([(0, {"status": "pending"}), (99, {"status": "finished"}), (100, finished())], ["pending", "finished"]),
        # failed
        ([(0, {"status": "pending"}), (99, {"status": "error"})], ["pending", "error"]),
        # an error with a URL is an error
        ([(0, {"status": "error", "video_url": URL})], ["error"]),
        # for a day
        pytest.param(
            [(0, {"status": "pending"}), (86400, finished())], ["pending", "finished"], marks=pytest.mark.extended
        ),
    ],
)
async def test_sequences_of_statuses(service, make_client, plan, seen) -> None:
    service.plan = plan
    async with make_client() as client:
        assert await statuses(client.videos.task("v").watch(timeout=None)) == seen


async def test_an_unknown_status_is_kept_as_sent(service, make_client) -> None:
    service.plan = [(0, {"status": "polishing"}), (60, finished())]
    async with make_client() as client:
        first, _ = await collect(client.videos.task("v").watch())
    assert (first.status, first.raw["status"], first.is_terminal) == (a2v.VideoStatus.UNKNOWN, "polishing", False)


async def test_a_finished_video_that_never_gets_a_url(service, make_client, check) -> None:
    service.plan = [(0, {"status": "finished"})]
    async with make_client() as client:
        with pytest.raises(a2v.ProtocolError, match="no URL") as caught:
            await client.videos.task("v").wait()
    assert caught.value.video_id == "v"
    check(caught.value)


async def test_a_response_about_another_video_is_rejected(service, make_client) -> None:
    other = httpx.Response(200, json={"code": 0, "data": {"video_id": "w"} | finished()})
    service.replies["video.get"] = [other, other, service.well]
    async with make_client() as client:
        videos = await collect(client.videos.task("v").watch())
    assert [video.status.value for video in videos] == ["pending", "in_progressing", "finished"]
    assert {video.video_id for video in videos} == {"v"}


# -- waiting ----------------------------------------------------------------------------------------------------------


async def test_wait_returns_the_finished_video(service, make_client) -> None:
    async with make_client() as client:
        task = client.videos.task("v")
        video = await task.wait()
        assert video is task.video
        assert (video.status, video.video_url) == (a2v.VideoStatus.FINISHED, service.plan[-1][1]["video_url"])
        asked = len(service.requests)
        assert await task.wait() is video  # known already
        assert len(service.requests) == asked


@pytest.mark.parametrize("message", ["the audio is silent", "", None, 5])
async def test_wait_raises_for_a_failed_video(service, make_client, check, message) -> None:
    service.plan = [(0, {"status": "pending"}), (99, {"status": "error", "message": message})]
    async with make_client() as client:
        task = client.videos.task("v")
        for _ in range(2):
            with pytest.raises(a2v.VideoFailedError) as caught:
                await task.wait()
            assert caught.value.video is task.video
            assert caught.value.video_id == "v"
            assert str(caught.value) == "video v failed" + (
                ": the audio is silent" if message == "the audio is silent" else ""
            )
            check(caught.value)


async def test_refresh_sends_one_request(service, make_client) -> None:
    async with make_client() as client:
        task = client.videos.task("v")
        assert task.video is None
        video = await task.refresh()
        assert task.video is video
        assert video.status is a2v.VideoStatus.PENDING
        assert len(service.requests) == 1
        # A watch that begins later gets the snapshots of earlier requests.
        await anyio.sleep(100)
        assert await statuses(task.watch()) == ["in_progressing", "finished"]


@pytest.mark.parametrize("timeout", [0, 100, 7199.5])
async def test_a_timeout_ends_the_wait(service, make_client, check, timeout) -> None:
    service.plan = [(0, {"status": "pending"})]
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        before = anyio.current_time()
        with pytest.raises(TimeoutError) as caught:
            await task.wait(timeout)
        error = caught.value
        assert type(error) is a2v.WaitTimeoutError
        assert anyio.current_time() - before == pytest.approx(timeout)
        assert error.waited == pytest.approx(timeout)
        assert (error.video_id, error.video) == (task.video_id, task.video)
        assert (error.video is None) == (timeout == 0)
        assert "continues to render" in str(error)
        check(error)
        # The wait can be repeated.
        service.plan = [(0, finished())]
        assert (await client.videos.task(error.video_id).wait()).is_terminal


async def test_the_default_timeout_is_a_day(service, make_client) -> None:
    async def slowly(request):
        await anyio.sleep(40_000)
        return service.well(request)

    # Each response takes half a day, so a day takes few of them.
    service.replies["video.get"] = [slowly]
    service.plan = [(0, {"status": "pending"}), (86_500, finished())]
    async with make_client(timeout=50_000) as client:
        with pytest.raises(a2v.WaitTimeoutError) as caught:
            await client.videos.task("v").wait()
        assert caught.value.waited == pytest.approx(86_400)
        service.plans["w"] = service.plan
        assert (await client.videos.task("w").wait(timeout=None)).is_terminal


async def test_a_timeout_in_the_middle_of_a_request(service, make_client) -> None:
    service.replies["video.get"] = [service.well, lambda _: anyio.sleep_forever()]
    async with make_client(timeout=1000) as client:
        with pytest.raises(a2v.WaitTimeoutError) as caught:
            await client.videos.task("v").wait(60)
    assert caught.value.waited == pytest.approx(60)
    assert caught.value.video.status is a2v.VideoStatus.PENDING


async def test_a_cancelled_wait(service, make_client) -> None:
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        with anyio.move_on_after(100) as scope:
            await task.wait()
        assert scope.cancelled_caught
        assert task.video.status is a2v.VideoStatus.IN_PROGRESS
        assert (await task.wait()).is_terminal
    assert service.posts == 1


async def test_a_watch_that_is_left_early(service, make_client) -> None:
    async with make_client() as client:
        task = client.videos.task("v")
        async with aclosing(task.watch()) as videos:
            async for video in videos:
                assert video.status is a2v.VideoStatus.PENDING
                break
        asked = len(service.requests)
        await anyio.sleep(1000)
        assert len(service.requests) == asked  # no background task
        async with aclosing(client.videos.watch(task, "w")) as videos:
            async for _ in videos:
                break


async def test_a_busy_consumer_costs_no_requests(service, make_client) -> None:
    async with make_client() as client, aclosing(client.videos.task("v").watch()) as videos:
        await anext(videos)
        asked = len(service.requests)
        await anyio.sleep(1000)
        assert len(service.requests) == asked
        assert (await anext(videos)).status is a2v.VideoStatus.FINISHED


async def test_a_busy_consumer_costs_no_requests_while_another_waits(service, make_client) -> None:
    service.plans = {"w": [(0, {"status": "pending"}), (2000, finished())]}
    service.plans["v"] = [(0, {"status": "pending"}), (3000, finished())]
    async with (
        make_client() as client,
        anyio.create_task_group() as group,
        aclosing(client.videos.task("v").watch()) as videos,
    ):
        assert (await anext(videos)).status is a2v.VideoStatus.PENDING
        group.start_soon(client.videos.task("w").wait)
        await anyio.sleep(1000)
        asked = [request.url.params["video_id"] for request in service.seen("video.get")]
        assert asked.count("v") <= 2
        assert asked.count("w") > 10
        # When it is resumed, polling continues, and known statuses are not yielded again.
        assert await statuses(videos) == ["finished"]


# -- outages and refusals ---------------------------------------------------------------------------------------------


OUTAGES = [
    httpx.Response(502, text="<html>Bad Gateway</html>"),
    httpx.Response(500, json={"code": 500, "message": "oops", "data": None}),
    httpx.Response(408),
    httpx.Response(200, text="<html>maintenance</html>"),
    httpx.Response(200, json={"code": 0, "data": {"video_id": "another"}}),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout(""),
    httpx.Response(429, headers={"x-ratelimit-reset": "20"}),
    httpx.Response(200, json={"code": 1009, "message": "too many requests"}),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=str)
async def test_five_minutes_without_a_usable_response(service, make_client, outage) -> None:
    service.plan = [(0, {"status": "pending"}), (30, {"status": "in_progressing"}), (900, finished())]
    service.replies["video.get"] = [during(100, 400, outage, service)]
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        assert await statuses(task.watch()) == ["pending", "in_progressing", "finished"]
    assert service.posts == 1
    assert len(service.requests) < 150  # a server that is down gets few requests


async def test_many_short_outages_do_not_add_up(service, make_client) -> None:
    service.plan = [(0, {"status": "pending"}), (9000, finished())]
    begin = anyio.current_time()

    def answer(request):
        well = (anyio.current_time() - begin) % 400 > 300
        return service.well(request) if well else httpx.Response(503)

    service.replies["video.get"] = [answer]
    async with make_client() as client:
        assert (await client.videos.task("v").wait(timeout=None)).is_terminal


@pytest.mark.parametrize(
    ("outage", "kind"),
    [
        (OUTAGES[0], a2v.ServerError),
        (OUTAGES[3], a2v.ProtocolError),
        (OUTAGES[5], a2v.TransportError),
    ],
    ids=str,
)
async def test_a_permanent_outage_ends_the_wait(service, make_client, check, outage, kind) -> None:
    service.plan = [(0, {"status": "pending"})]
    service.replies["video.get"] = [during(100, 1e9, outage, service)]
    async with make_client() as client:
        task = client.videos.task("v")
        with pytest.raises(a2v.A2VError) as caught:
            await task.wait(timeout=None)
    error = caught.value
    assert type(error) is kind
    assert (error.video_id, error.video) == ("v", task.video)
    assert error.video.status is a2v.VideoStatus.PENDING
    assert 400 < error.waited < 2000
    check(error)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, a2v.AuthenticationError), (403, a2v.PermissionDeniedError), (400, a2v.APIError)]
)
async def test_a_refusal_ends_the_wait_at_once(service, make_client, check, status, kind) -> None:
    service.replies["video.get"] = [service.well, httpx.Response(status, json={"code": 5, "message": "no"})]
    async with make_client() as client:
        with pytest.raises(a2v.A2VError) as caught:
            await client.videos.task("v").wait()
    error = caught.value
    assert type(error) is kind
    assert (error.video_id, error.video.status.value) == ("v", "pending")
    assert 0 < error.waited < 60
    check(error)
    assert len(service.seen("video.get")) == 2


async def test_a_video_may_be_unknown_just_after_its_submission(service, make_client) -> None:
    service.replies["video.get"] = [during(0, 110, UNKNOWN_VIDEO, service)]
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        assert (await statuses(task.watch()))[-1] == "finished"


async def test_a_video_unknown_after_two_minutes_is_not_found(service, make_client, check) -> None:
    service.replies["video.get"] = [UNKNOWN_VIDEO]
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        with pytest.raises(a2v.NotFoundError) as caught:
            await task.wait()
    assert 120 <= caught.value.waited < 200
    assert (caught.value.video_id, caught.value.video) == (task.video_id, None)
    check(caught.value)


async def test_a_picked_up_video_must_exist(service, make_client) -> None:
    service.replies["video.get"] = [UNKNOWN_VIDEO]
    async with make_client() as client:
        with pytest.raises(a2v.NotFoundError) as caught:
            await client.videos.task("v").wait()
        assert caught.value.waited == 0
        with pytest.raises(a2v.NotFoundError):
            await collect(client.videos.watch("v", "w"))
    assert len(service.seen("video.get")) <= 3


async def test_closing_the_client_ends_a_watch(service, make_client, check) -> None:
    async with make_client() as client:
        videos = client.videos.task("v").watch()
        await anext(videos)
        await client.aclose()
        with pytest.raises(a2v.ClientClosedError) as caught:
            await anext(videos)
    assert (caught.value.video_id, caught.value.video.status.value) == ("v", "pending")
    check(caught.value)


# -- several videos ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists_videos", [False, True])
async def test_many_in_one_iterator(service, make_client, lists_videos) -> None:
    service.lists_videos = lists_videos
    service.plans = {
        "a": [(0, {"status": "pending"}), (200, finished(1))],
        "b": [(0, {"status": "error"})],
        "c": [(0, {"status": "pending"}), (50, {"status": "in_progressing"}), (100, finished(3))],
    }
    async with make_client() as client:
        a = client.videos.task("a")
        seen = [(video.video_id, video.status.value) async for video in client.videos.watch(a, "b", "c")]
    assert sorted(seen[:3]) == [("a", "pending"), ("b", "error"), ("c", "pending")]
    assert seen[3:] == [("c", "in_progressing"), ("c", "finished"), ("a", "finished")]
    assert a.video.video_url == f"{URL}1"


async def test_duplicates_are_watched_once(service, make_client) -> None:
    async with make_client() as client:
        one, two = client.videos.task("v"), client.videos.task("v")
        assert await statuses(client.videos.watch(one, "v", two)) == ["pending", "in_progressing", "finished"]
        assert one.video is two.video is not None


async def test_an_empty_watch_ends_at_once(service, make_client) -> None:
    async with make_client() as client:
        assert await collect(client.videos.watch()) == []
    assert not service.requests


async def test_the_timeout_of_a_watch_of_several_videos(service, make_client, check) -> None:
    service.plans = {"a": [(0, finished())], "b": [(0, {"status": "pending"})]}
    async with make_client() as client:
        videos = client.videos.watch("a", "b", timeout=300)
        assert {(await anext(videos)).video_id for _ in range(2)} == {"a", "b"}
        with pytest.raises(a2v.WaitTimeoutError) as caught:
            await anext(videos)
    error = caught.value
    assert (error.video_id, error.video.status.value) == ("b", "pending")
    assert error.waited == pytest.approx(300)
    check(error)


async def test_the_error_of_a_watch_names_the_video(service, make_client) -> None:
    def answer(request):
        return UNKNOWN_VIDEO if request.url.params["video_id"] == "b" else service.well(request)

    service.replies["video.get"] = [answer]
    async with make_client() as client:
        with pytest.raises(a2v.NotFoundError) as caught:
            await collect(client.videos.watch("a", "b"))
    assert caught.value.video_id == "b"


async def test_several_watchers_at_once(service, make_client) -> None:
    seen: dict[int, list[str]] = {}

    async def watch(n: int, client: a2v.AsyncA2V) -> None:
        seen[n] = await statuses(client.videos.task("v").watch())

    async with make_client() as client, anyio.create_task_group() as group:
        for n in range(5):
            group.start_soon(watch, n, client)
        with anyio.move_on_after(10):  # leaving one does not affect the others
            await client.videos.task("v").wait()
    assert seen == {n: ["pending", "in_progressing", "finished"] for n in range(5)}


@pytest.mark.simulation
async def test_a_hundred_videos_for_hours(service, make_client) -> None:
    async with make_client() as client:
        tasks = [await client.videos.generate(**JOB) for _ in range(100)]
        for n, task in enumerate(tasks):
            service.plans[task.video_id] = [(0, {"status": "pending"}), (60 * n, finished(n))]
        ended = [video.video_id async for video in client.videos.watch(*tasks) if video.is_terminal]
    assert sorted(ended) == sorted(task.video_id for task in tasks)
    assert service.posts == 100


async def test_a_cancelled_wait_says_which_videos_continue(service, make_client) -> None:
    async with make_client() as client:
        tasks = [client.videos.task(f"v{number}") for number in range(12)]
        service.plans = {task.video_id: [(0, {"status": "pending"})] for task in tasks}
        service.plans["v1"] = [(0, {"status": "error"})]

        async def watch() -> None:
            async for _ in client.videos.watch(*tasks):
                pass

        async def notes_of(wait) -> list[str]:
            notes: list[str] = []
            with anyio.move_on_after(60):
                try:
                    await wait()
                except anyio.get_cancelled_exc_class() as error:
                    notes += error.__notes__
                    raise
            return notes

        note = "the server continues to render; client.videos.task(video_id) picks up "
        assert await notes_of(tasks[0].wait) == [f"{note}'v0'"]
        listed = ", ".join(repr(f"v{number}") for number in (0, *range(2, 11)))
        assert await notes_of(watch) == [f"{note}{listed} and 1 more"]
