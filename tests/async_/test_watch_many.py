"""Watching several videos at once: a missing one does not end the watch of the others, and a busy consumer costs nothing."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import httpx
import pytest

import a2v
from a2v import testing

pytestmark = [pytest.mark.both_backends, pytest.mark.anyio, pytest.mark.virtual_time]

FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4"}
UNKNOWN = httpx.Response(404, json={"code": 10001, "message": "no such video", "data": None})


def lacking(service, *missing: str):
    """Make the service not know some videos."""

    def answer(request: httpx.Request) -> httpx.Response:
        return UNKNOWN if request.url.params["video_id"] in missing else service.well(request)

    service.replies["video.get"] = [answer]


async def watched(client: a2v.AsyncA2V, *video_ids: str, **settings) -> tuple[list[str], a2v.A2VError]:
    finished = []

    async def watch() -> None:
        async for video in client.videos.watch(*video_ids, **settings):
            finished.extend([video.video_id] if video.is_terminal else [])

    with pytest.raises(a2v.A2VError) as caught:
        await watch()
    return sorted(finished), caught.value


@pytest.mark.parametrize("lists_videos", [False, True])
async def test_missing_videos_are_reported_after_the_others_have_ended(
    service, make_client, check, lists_videos
) -> None:
    service.lists_videos = lists_videos
    service.plans = {video_id: [(0, {"status": "pending"}), (600, FINISHED)] for video_id in "abc"}
    lacking(service, "gone", "lost\n")
    async with make_client() as client:
        finished, error = await watched(client, "gone", "a", "b", "lost\n", "c")
    assert finished == ["a", "b", "c"]
    assert isinstance(error, a2v.NotFoundError)
    assert error.video_id in ("gone", "lost\n")
    assert "2 of 5 videos" in str(error)
    assert all(named in str(error) for named in ("gone: no such video", "lost\\x0a: no such video"))
    check(error)


async def test_a_single_missing_video_is_reported_in_the_servers_words(service, make_client) -> None:
    lacking(service, "gone")
    async with make_client() as client:
        _, error = await watched(client, "gone")
        assert str(error) == "no such video (HTTP 404, code 10001)"
        with pytest.raises(a2v.NotFoundError):
            await client.videos.task("gone").wait()


async def test_the_error_names_some_of_many_missing_videos(service, make_client) -> None:
    missing = [f"gone{n}" for n in range(30)]
    lacking(service, *missing)
    async with make_client() as client:
        _, error = await watched(client, "a", *missing)
    assert "30 of 31 videos" in str(error)
    assert str(error).endswith("and 20 more")


async def test_other_errors_about_one_video_do_not_end_the_watch_either(service, make_client) -> None:
    service.plan = [(0, {"status": "pending"}), (600, FINISHED)]
    service.plans = {
        "without a URL": [(0, {"status": "finished"})],
        "forbidden": [(0, {"status": "pending"})],
        "broken": [(0, {"status": "pending"})],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        status = {"forbidden": 403, "broken": 500}.get(request.url.params["video_id"])
        return httpx.Response(status) if status else service.well(request)

    service.replies["video.get"] = [answer]
    async with make_client() as client:
        finished, error = await watched(client, *service.plans, "a", "b")
    assert finished == ["a", "b"]
    assert all(named in str(error) for named in service.plans)


@pytest.mark.parametrize(("status", "kind"), [(401, a2v.AuthenticationError), (502, a2v.ServerError)])
async def test_an_error_about_the_server_ends_the_watch_of_all(service, make_client, status, kind) -> None:
    service.replies["video.get"] = [httpx.Response(status)]
    async with make_client() as client:
        began = anyio.current_time()
        _, error = await watched(client, *"abcdefgh")
        assert anyio.current_time() - began < 700
    assert type(error) is kind
    assert "videos" not in str(error)


async def test_a_timeout_names_missing_videos_too(service, make_client) -> None:
    lacking(service, "gone")
    service.plan = [(0, {"status": "pending"})]
    async with make_client() as client:
        _, error = await watched(client, "gone", "a", timeout=60)
    assert isinstance(error, a2v.WaitTimeoutError)
    assert error.video_id == "a"
    assert "gone" in error.__notes__[0]


# -- busy consumers ---------------------------------------------------------------------------------------------------


async def seen_by(*, busy: float, others: bool) -> tuple[float, int]:
    """Return when the last of twenty quick videos among twenty slow ones was reported, and the number of polls."""
    service = testing.Service(
        limit=testing.FixedWindow(30),
        lists_videos=False,
        render_seconds=lambda submit: 60 if int(submit.video_id[1:]) > 21 else 6 * 3600,
    )
    async with a2v.AsyncA2V("token", transport=service.transport()) as client:
        tasks = [
            await client.videos.generate(model_id="eva_a0008", audio_url="https://e.example/a.wav") for _ in range(41)
        ]
        before, began, left = len(service.polls), anyio.current_time(), 20
        async with anyio.create_task_group() as group:
            if others:
                group.start_soon(tasks[0].wait, None)
            async with aclosing(client.videos.watch(*[task.video_id for task in tasks[1:]])) as videos:
                async for video in videos:
                    await anyio.sleep(busy)
                    left -= video.status is a2v.VideoStatus.FINISHED
                    if not left:
                        break
            group.cancel_scope.cancel()
        return anyio.current_time() - began, len(service.polls) - before


@pytest.mark.simulation
async def test_a_slow_consumer_sees_as_much_as_a_fast_one_for_as_many_polls() -> None:
    took, polls = await seen_by(busy=0, others=True)
    for others in (False, True):
        slow_took, slow_polls = await seen_by(busy=1, others=others)
        assert slow_took <= 1.5 * took
        assert slow_polls <= 1.2 * polls


# -- the default timeout ----------------------------------------------------------------------------------------------


@pytest.mark.extended
@pytest.mark.parametrize("status", ["pending", "in_progressing", "archived"])
async def test_the_wait_for_a_video_that_never_ends_times_out_after_a_day(service, make_client, status) -> None:
    """Even if its last status is unknown to this version."""
    service.plan = [(0, {"status": status})]

    async def follow(videos) -> None:
        async with aclosing(videos):
            async for _ in videos:
                pass

    async with make_client() as client:
        for work in (
            client.videos.task("v").wait,
            lambda: follow(client.videos.task("v").watch()),
            lambda: follow(client.videos.watch("v", "w")),
        ):
            with pytest.raises(a2v.WaitTimeoutError) as caught:
                await work()
            assert caught.value.video_id == "v"
            assert caught.value.waited == pytest.approx(86_400)


@pytest.mark.parametrize("timeout", [True, False, float("nan"), "60"])
async def test_invalid_timeouts(make_client, timeout) -> None:
    async with make_client() as client:
        task = client.videos.task("v")
        for work in (lambda: task.watch(timeout), lambda: client.videos.watch("v", timeout=timeout)):
            with pytest.raises(a2v.A2VError) as caught:
                work()
            assert isinstance(caught.value, ValueError)
        with pytest.raises(ValueError, match="timeout"):
            await task.wait(timeout)
