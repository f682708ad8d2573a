"""Options of single calls, callbacks, and what the log says of outages."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import anyio
import httpx
import pytest

import a2v
from a2v import testing
from tests.async_.conftest import FINISHED, RENDERING

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
BROKEN = httpx.ConnectError("refused")

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


# -- with_options -----------------------------------------------------------------------------------------------------


async def test_retries_and_timeout_of_single_calls(service, make_client) -> None:
    async def slow(request):
        await anyio.sleep(5)
        return service.well(request)

    service.replies = {"character.list": [slow]}
    client = make_client(timeout=10, max_retries=1)
    hurried = client.with_options(timeout=1, max_retries=2)
    with pytest.raises(a2v.TransportError, match="within 1 s"):
        await hurried.characters.list()
    assert len(service.requests) == 3
    assert await client.characters.list()
    assert await hurried.with_options(timeout=6).characters.list()


async def test_a_client_with_options_shares_the_rate_limit(service, make_client) -> None:
    client = make_client(rate_limit=2)
    other = client.with_options(max_retries=0)
    began = anyio.current_time()
    for each in (client, other, client):
        await each.characters.list()
    assert anyio.current_time() - began > 59
    assert (await client.pace()).limit == (await other.pace()).limit == 2


async def test_polls_serve_both(service, make_client) -> None:
    async def polls(video_id: str, *options: dict[str, object]) -> int:
        client, before = make_client(), len(service.requests)
        async with anyio.create_task_group() as group:
            for each in options:
                group.start_soon(client.with_options(**each).videos.task(video_id).wait)
        return len(service.requests) - before

    assert await polls("v1", {}) == await polls("v2", {}, {"timeout": 5})


async def test_closing_either_closes_both(make_client) -> None:
    client = make_client()
    other = client.with_options(timeout=5)
    await other.aclose()
    for each in (client, other):
        with pytest.raises(a2v.ClientClosedError):
            await each.characters.list()
        with pytest.raises(a2v.ClientClosedError):
            await each.pace()
    async with client:
        assert await other.characters.list()


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "5"}, {"max_retries": -1}, {"max_retries": True}])
async def test_invalid_options(make_client, options) -> None:
    client = make_client()
    with pytest.raises(a2v.ConfigurationError, match=f"^{next(iter(options))} must be"):
        client.with_options(**options)
    assert await client.characters.list()


async def test_pace(service, make_client) -> None:
    client = make_client(rate_limit="auto")
    assert await client.pace() == a2v.Pace(limit=30, left=30, next_in=None)
    await client.characters.list()
    service.replies = {"character.list": [BROKEN]}
    with pytest.raises(a2v.TransportError):
        await client.with_options(max_retries=1).characters.list()
    await anyio.sleep(2)
    assert 2 < (await client.pace()).failing_for < 4


# -- callbacks --------------------------------------------------------------------------------------------------------


async def test_on_change_gets_the_state_and_each_change(make_client) -> None:
    states = []
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        video = await task.wait(on_change=states.append)
        assert [state.status.value for state in states] == ["pending", "in_progressing", "finished"]
        assert states[-1] is video
        await task.wait(on_change=states.append)  # it has ended
    assert len(states) == 4


async def test_an_error_in_on_change_ends_the_wait(service, make_client) -> None:
    def fail(video):
        raise OSError("disk full")

    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        with pytest.raises(OSError, match="disk full"):
            await task.wait(on_change=fail)
        assert (await task.wait()).status is a2v.VideoStatus.FINISHED


async def test_on_progress_gets_bytes_and_size(service, make_client, tmp_path) -> None:
    content = bytes(8) + b"ftypisom" + bytes(20_000)
    service.replies["v.mp4"] = [httpx.Response(200, content=content, headers={"etag": '"1"'})]
    progress = []
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        await task.download(tmp_path / "v.mp4", on_progress=lambda *args: progress.append(args))
    assert progress[-1] == (len(content), len(content))
    assert progress == sorted(progress)


@pytest.mark.parametrize("error", [OSError("no"), ValueError("no"), httpx.ReadError("no")])
async def test_an_error_in_on_progress_ends_the_download(service, make_client, tmp_path, error) -> None:
    def fail(received, size):
        raise error

    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        with pytest.raises(type(error), match="no") as caught:
            await task.download(tmp_path / "v.mp4", on_progress=fail)
        assert caught.value is error
    assert len(service.seen("v.mp4")) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("callback", [5, "print", anyio.sleep])
async def test_invalid_callbacks(service, make_client, tmp_path, callback) -> None:
    task = make_client().videos.task("v1")
    with pytest.raises(a2v.InvalidArgumentError, match=r"^on_change must be a function"):
        await task.wait(on_change=callback)
    with pytest.raises(a2v.InvalidArgumentError, match=r"^on_progress must be a function"):
        await task.download(tmp_path / "v.mp4", on_progress=callback)
    assert service.requests == []


# -- outages in the log -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "kind"),
    [(BROKEN, "TransportError"), (httpx.Response(502), "ServerError"), (httpx.Response(429), "RateLimitError")],
)
async def test_an_outage_is_a_warning_and_its_end_a_line(service, make_client, caplog, broken, kind) -> None:
    caplog.set_level(logging.INFO, "a2v.client")
    async with make_client() as client, anyio.create_task_group() as group:
        task = await client.videos.generate(**JOB)
        service.replies["video.get"] = [broken]
        group.start_soon(task.wait)
        await anyio.sleep(200)
        assert (await client.pace()).failing_for > 150
        del service.replies["video.get"]
        service.plan = [(0, RENDERING), (300, FINISHED)]
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("no request has succeeded for 3")
    assert kind in warnings[0]
    assert sum("requests succeed again, after 2" in each.getMessage() for each in caplog.records) == 1


async def test_short_failures_are_no_outage(service, make_client, caplog) -> None:
    caplog.set_level(logging.INFO, "a2v.client")
    refused = httpx.Response(404, content=json.dumps({"code": 10001, "message": "no such video", "data": None}))
    service.replies["video.get"] = [BROKEN, refused, BROKEN, refused]
    client = make_client()
    for _ in range(2):
        with pytest.raises(a2v.NotFoundError):
            await client.videos.get("v1")
        await anyio.sleep(60)  # a refusal shows that the server works
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert not [each for each in caplog.records if "succeed again" in each.getMessage()]
    assert (await client.pace()).failing_for is None


# -- A2V_LOG, names ---------------------------------------------------------------------------------------------------


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | variables
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("level", "lines"), [("info", ["INFO a2v.client: hello"]), ("WARNING", []), ("debug", ["INFO a2v.client: hello"])]
)
def test_a2v_log_sends_the_log_to_standard_error(level, lines) -> None:
    ended = run("import a2v, logging; logging.getLogger('a2v.client').info('hello')", A2V_LOG=level)
    assert [line.split(" ", 2)[2] for line in ended.stderr.splitlines()] == lines


def test_an_unknown_level_is_a_warning() -> None:
    ended = run("import a2v", A2V_LOG="loud")
    assert "A2V_LOG must be debug, info, warning or error, got 'loud'" in ended.stderr
    assert ended.returncode == 0
    assert run("import a2v", A2V_LOG="").stderr == ""


def test_completion_shows_public_names_only() -> None:
    assert sorted(dir(a2v)) == sorted(a2v.__all__)


def test_reprs_show_public_names(make_client) -> None:
    client = make_client()
    assert [repr(each) for each in (client.videos, client.characters, client.avatars)] == [
        f"<AsyncA2V.{name} https://openapi.surreal-ai.com>" for name in ("videos", "characters", "avatars")
    ]
    with a2v.A2V("token") as sync:
        assert repr(sync.videos) == "<A2V.videos https://openapi.surreal-ai.com>"
        assert repr(sync.with_options(timeout=5)) == "<A2V https://openapi.surreal-ai.com>"


def test_the_sync_client_has_them_too(tmp_path) -> None:
    states, progress = [], []
    with testing.Server(testing.Service()) as server:
        client = a2v.A2V("token", base_url=server.base_url)
        with client:
            other = client.with_options(timeout=20, max_retries=0)
            task = other.videos.generate(**JOB)
            task.wait(on_change=states.append)
            task.download(tmp_path / "v.mp4", on_progress=lambda *args: progress.append(args))
            assert other.pace().limit == client.pace().limit
        with pytest.raises(a2v.ClientClosedError):
            other.characters.list()
    assert states[-1].status is a2v.VideoStatus.FINISHED
    assert progress
