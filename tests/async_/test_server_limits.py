"""Limits that servers set for clients, and limits of what they may send."""

from __future__ import annotations

import json
import logging
from email.utils import formatdate

import anyio
import httpx
import pytest

import a2v
from a2v._core import wire

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}
FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4"}
FORGED = "v\r\n2026 CRITICAL forged\x1b[2J\u202e"


def envelope(data: object, *, code: int = 0, status: int = 200, message: str = "") -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "data": data})


# -- Retry-After ------------------------------------------------------------------------------------------------------


def call_of(client: a2v.AsyncA2V, name: str):
    calls = {"character.list": client.characters.list, "video.get": client.videos.task("v").wait}
    return calls.get(name, lambda: client.videos.generate(**JOB))


@pytest.mark.parametrize("name", ["character.list", "video.get", "video.generate"])
@pytest.mark.parametrize(("asked", "least"), [("7", 7), ("3600", 120), ("soon", 2), (None, 2)])
async def test_a_throttled_request_is_repeated_when_the_server_asks(service, make_client, name, asked, least) -> None:
    headers = {"retry-after": asked} if asked else {}
    service.plan = [(0, FINISHED)]
    service.replies[name] = [httpx.Response(429, headers=headers), service.well]
    async with make_client() as client:
        began = anyio.current_time()
        await call_of(client, name)()
        assert least <= anyio.current_time() - began <= 1.2 * least + 2


@pytest.mark.parametrize("name", ["character.list", "video.get"])
@pytest.mark.parametrize(("asked", "least"), [("7", 7), ("3600", 120)])
async def test_a_request_to_an_unavailable_server_is_repeated_when_it_asks(
    service, make_client, name, asked, least
) -> None:
    service.plan = [(0, FINISHED)]
    service.replies[name] = [httpx.Response(503, headers={"retry-after": asked}), service.well]
    async with make_client() as client:
        began = anyio.current_time()
        await call_of(client, name)()
        assert least <= anyio.current_time() - began <= 1.2 * least + 2


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("3600", 3600), ("-1", None), ("", None)])
@pytest.mark.parametrize(("status", "kind"), [(429, a2v.RateLimitError), (503, a2v.ServerError)])
async def test_the_error_has_the_servers_retry_after(
    service, make_client, check, *, asked, expected, status, kind
) -> None:
    service.replies["character.list"] = [httpx.Response(status, headers={"retry-after": asked})]
    async with make_client(max_retries=0) as client:
        with pytest.raises(kind) as caught:
            await client.characters.list()
    assert caught.value.retry_after == expected
    check(caught.value)


async def test_a_date_without_the_servers_clock_is_measured_by_the_local_one(service, make_client) -> None:
    later = formatdate(usegmt=True, timeval=4_000_000_000)
    service.replies["character.list"] = [httpx.Response(429, headers={"retry-after": later})]
    async with make_client(max_retries=0) as client:
        with pytest.raises(a2v.RateLimitError) as caught:
            await client.characters.list()
    assert caught.value.retry_after == 365 * 86_400


# -- how long 429 is retried ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"retry-after": "3600"}], ids=["", "an hour"])
@pytest.mark.parametrize("name", ["character.list", "video.generate"])
async def test_a_request_is_throttled_for_ten_minutes_at_most(service, make_client, name, asked) -> None:
    service.replies[name] = [httpx.Response(429, headers=asked)]
    async with make_client() as client:
        began = anyio.current_time()
        with pytest.raises(a2v.RateLimitError):
            await call_of(client, name)()
        assert 600 <= anyio.current_time() - began < 750
        # Later ones do not wait as long again, until one has succeeded or the client was idle.
        with pytest.raises(a2v.RateLimitError):
            await call_of(client, name)()
        assert anyio.current_time() - began < 900
        await anyio.sleep(1000)
        began = anyio.current_time()
        with pytest.raises(a2v.RateLimitError):
            await call_of(client, name)()
        assert 600 <= anyio.current_time() - began < 750


async def test_each_success_of_the_client_starts_the_ten_minutes_again(service, make_client) -> None:
    service.replies["video.generate"] = [httpx.Response(429, headers={"retry-after": "60"})] * 30 + [service.well]
    async with make_client() as client, anyio.create_task_group() as group:

        async def generate() -> None:
            began = anyio.current_time()
            await client.videos.generate(**JOB)
            assert anyio.current_time() - began > 1700
            group.cancel_scope.cancel()

        group.start_soon(generate)
        while True:
            await anyio.sleep(300)
            await client.characters.list()
    assert service.posts == 31


@pytest.mark.simulation
async def test_a_request_that_alone_is_throttled_ends_after_a_day(service, make_client) -> None:
    """Such as submissions to an account that has used up its quota, while polls succeed."""
    service.replies["video.generate"] = [httpx.Response(429, headers={"retry-after": "120"})]
    async with make_client() as client, anyio.create_task_group() as group:

        async def generate() -> None:
            began = anyio.current_time()
            with pytest.raises(a2v.RateLimitError):
                await client.videos.generate(**JOB)
            assert 86_400 <= anyio.current_time() - began < 87_000
            group.cancel_scope.cancel()

        group.start_soon(generate)
        while True:
            await anyio.sleep(300)
            await client.characters.list()


async def test_without_retries_the_first_429_is_final(service, make_client) -> None:
    service.replies["video.generate"] = [httpx.Response(429)]
    async with make_client() as client:
        with pytest.raises(a2v.RateLimitError):
            await client.with_options(max_retries=0).videos.generate(**JOB)
    assert service.posts == 1


# -- rate_limit= ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [None, "60", "1000000"])
async def test_rate_limit_is_an_upper_bound(service, make_client, total) -> None:
    headers = {"x-ratelimit-total": total, "x-ratelimit-left": total} if total else {}
    service.replies["character.list"] = [
        httpx.Response(200, headers=headers, json={"code": 0, "message": "", "data": []})
    ]
    async with make_client(rate_limit=10) as client:
        began = anyio.current_time()
        for _ in range(50):
            await client.characters.list()
    assert anyio.current_time() - began >= 240


@pytest.mark.parametrize("settings", [{"rate_limit": "auto"}, {"rate_limit": None}])
async def test_by_default_responses_set_the_limit(service, make_client, settings) -> None:
    async with make_client(**settings) as client:
        began = anyio.current_time()
        for _ in range(50):
            await client.characters.list()
    assert anyio.current_time() - began < 1


@pytest.mark.parametrize("setting", [{"rate_limit": True}, {"rate_limit": "fast"}, {"timeout": True}])
async def test_invalid_limits(make_client, setting) -> None:
    with pytest.raises(a2v.ConfigurationError, match=next(iter(setting))):
        make_client(**setting)


# -- long responses ---------------------------------------------------------------------------------------------------


async def test_a_list_of_thousands_of_videos_is_read(service, make_client) -> None:
    url = "https://files.example/v.mp4?signature=" + "x" * 760
    listed = [{"video_id": f"1009{n:028x}", "status": "finished", "video_url": url} for n in range(4000)]
    service.replies["video.list"] = [envelope(listed)]
    async with make_client() as client:
        assert len(await client.videos.list()) == 4000
    assert len(service.requests) == 1


async def test_a_list_above_the_bound_is_refused_at_once(service, make_client, check) -> None:
    whole = json.dumps({"code": 0, "message": "", "data": []}).encode()
    service.replies["character.list"] = [
        httpx.Response(200, content=whole.ljust(wire.MAX_LIST)),
        httpx.Response(200, content=whole.ljust(wire.MAX_LIST + 1)),
    ]
    async with make_client() as client:
        assert await client.characters.list() == []
        with pytest.raises(a2v.ProtocolError, match="longer than 33554432 bytes") as caught:
            await client.characters.list()
    check(caught.value)
    assert len(service.requests) == 2


# -- forged lines -----------------------------------------------------------------------------------------------------


def is_harmless(text: str) -> bool:
    return text.isprintable() and "forged" in text


async def test_a_server_cannot_forge_lines_in_errors(service, make_client) -> None:
    service.replies["character.list"] = [envelope(None, code=7, message=FORGED)]
    service.plans[FORGED] = [(0, {"status": "error", "message": FORGED})]
    service.plans[FORGED + "2"] = [(0, {"status": "pending"})]
    service.plans[FORGED + "3"] = [(0, FINISHED)]
    errors = []
    async with make_client() as client:
        for work in (
            client.characters.list(),
            client.videos.task(FORGED).wait(),
            client.videos.task(FORGED + "2").wait(5),
            client.videos.task(FORGED + "3").download("v.mp4", mask=True),
        ):
            with pytest.raises(a2v.A2VError) as caught:
                await work
            errors.append(caught.value)
        assert is_harmless(repr(client.videos.task(FORGED)))
    assert all(is_harmless(str(error)) for error in errors)


async def test_a_server_cannot_forge_lines_in_the_log(service, make_client, caplog) -> None:
    caplog.set_level(logging.INFO, "a2v.client")
    service.replies["video.generate"] = [envelope({"video_id": FORGED})]
    service.plans[FORGED] = [(0, FINISHED)]
    async with make_client() as client:
        task = await client.videos.generate(**JOB)
        await task.wait()
        assert task.video_id == FORGED
    assert len(caplog.messages) >= 2
    assert all(is_harmless(message) for message in caplog.messages if "video" in message)
