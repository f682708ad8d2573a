"""The client itself: settings, event loops, closing, and many calls at once."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import sys

import anyio
import httpx
import pytest

import a2v
from a2v._async.requests import network
from a2v._core.settings import Secret
from tests.labels import label
from tests.sets import one_by_default

pytestmark = pytest.mark.both_backends

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
TOKEN = "canary-0123456789-abcdefghij"


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["t", "!~", "x" * 512])
@pytest.mark.anyio
async def test_tokens(token, service) -> None:
    await a2v.AsyncA2V(token, transport=httpx.MockTransport(service)).characters.list()
    assert service.requests[0].headers["authorization"] == f"Bearer {token}"


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "a\n", "\ttoken", "tökens", "x" * 513, "Bearer x", "a\x7f", "\x00", b"token", 12345678]
)
def test_invalid_tokens(token) -> None:
    with pytest.raises(a2v.ConfigurationError, match="token") as caught:
        a2v.AsyncA2V(token)
    assert isinstance(caught.value, ValueError)
    if token and len(str(token)) > 2:
        assert str(token) not in str(caught.value)


def test_no_token() -> None:
    with pytest.raises(a2v.ConfigurationError, match="A2V_TOKEN"):
        a2v.AsyncA2V()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com:8443/api/", "https://example.com:8443/api"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("HTTP://LOCALHOST:8000", "HTTP://LOCALHOST:8000"),
        ("http://engine.localhost", "http://engine.localhost"),
        (None, "https://openapi.surreal-ai.com"),
    ],
)
def test_servers(given, used) -> None:
    assert repr(a2v.AsyncA2V("token", base_url=given)) == f"<AsyncA2V {used}>"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://example.com",
        "http://192.168.0.1:8000",
        "http://0.0.0.0:8000",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://[fe80::1]",
        "https://user:secret@example.com",
        "https://user@example.com",
        "https://@example.com",
        "https://example.com?x=1",
        "https://example.com?",
        "https://example.com#x",
        "https://example.com/#",
        "example.com",
        "//example.com",
        "/v1",
        "ftp://example.com",
        "file:///etc/passwd",
        "",
        " ",
        "https://",
        "https:///v1",
        "https://example.com:99999",
        "https://example.com:http",
        "https://[::1",
        "https://exam ple.com",
        "https://example.com\r\nx: y",
        "https://example.com/\x7f",
        b"https://example.com",
        8000,
    ],
)
def test_invalid_base_urls(base_url) -> None:
    with pytest.raises(a2v.ConfigurationError, match="base_url") as caught:
        a2v.AsyncA2V("token", base_url=base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "30"},
        {"timeout": None},
        {"max_retries": 2.5},
        {"max_retries": None},
        {"rate_limit": 0.5},
        {"transport": httpx.BaseTransport()},
        {"max_retries": -1},
        {"rate_limit": 0},
        {"rate_limit": -30},
    ],
    ids=label,
)
def test_invalid_settings(setting) -> None:
    with pytest.raises(a2v.ConfigurationError, match=next(iter(setting))):
        a2v.AsyncA2V("token", **setting)


def test_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("A2V_TOKEN", "bad token")
    with pytest.raises(a2v.ConfigurationError):
        a2v.AsyncA2V()
    assert repr(a2v.AsyncA2V("token")) == "<AsyncA2V https://openapi.surreal-ai.com>"
    monkeypatch.setenv("A2V_TOKEN", "token")
    monkeypatch.setenv("A2V_BASE_URL", "http://127.0.0.1:1")
    assert repr(a2v.AsyncA2V()) == "<AsyncA2V http://127.0.0.1:1>"
    assert repr(a2v.AsyncA2V(base_url="https://example.com")) == "<AsyncA2V https://example.com>"
    monkeypatch.setenv("A2V_BASE_URL", "http://example.com")
    with pytest.raises(a2v.ConfigurationError, match="http://"):
        a2v.AsyncA2V()
    monkeypatch.setenv("A2V_TOKEN", "")
    with pytest.raises(a2v.ConfigurationError, match="A2V_TOKEN"):
        a2v.AsyncA2V()


@pytest.mark.anyio
async def test_the_token_of_the_environment_is_sent(service, monkeypatch) -> None:
    monkeypatch.setenv("A2V_TOKEN", "from-outside")
    async with a2v.AsyncA2V(transport=httpx.MockTransport(service)) as client:
        await client.characters.list()
    assert service.requests[0].headers["authorization"] == "Bearer from-outside"


@pytest.mark.anyio
async def test_an_invalid_host_name(check) -> None:
    async with a2v.AsyncA2V("token", base_url="https://\N{PILE OF POO}.example") as client:
        with pytest.raises(a2v.ConfigurationError) as caught:
            await client.videos.generate(**JOB)
    check(caught.value)


def test_the_repr_of_a_batch_has_its_public_name() -> None:
    jobs = [a2v.Job("eva_a0008", "https://example.com/hello.wav")]
    assert repr(a2v.AsyncA2V("token").batch(jobs)) == "<AsyncBatch 0 of 1 done https://openapi.surreal-ai.com>"
    with a2v.A2V("token") as client:
        assert repr(client.batch(jobs)) == "<Batch 0 of 1 done https://openapi.surreal-ai.com>"


def test_the_token_is_in_no_repr(service, make_client) -> None:
    client = make_client()
    shown = [client, client.characters, client.videos, client.videos.task("v"), client.batch([])]
    assert TOKEN not in repr(shown)


# -- event loops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_context", one_by_default(True, False))
def test_one_client_in_several_event_loops(run, dial, loopback, with_context) -> None:
    """No connection of one loop is used in the next, and none is left open: a warning would fail the test."""
    client = dial()

    async def main() -> None:
        if with_context:
            async with client:
                await use()
        else:
            await use()

    async def use() -> None:
        await client.characters.list()
        await client.characters.list()
        task = await client.videos.generate(**JOB)
        assert (await task.refresh()).is_terminal

    for _ in range(3):
        run(main)
        gc.collect()
    assert loopback.posts == 3
    assert len(loopback.requests) == 12


def test_a_task_from_one_event_loop_can_be_awaited_in_the_next(run, dial, loopback) -> None:
    client = dial()

    async def submit() -> a2v.AsyncVideoTask:
        return await client.videos.generate(**JOB)

    for _ in range(3):  # each run of trio has its own clock
        assert run(run(submit).wait, 20).is_terminal


def test_one_client_in_asyncio_and_trio(dial, loopback) -> None:
    client = dial()
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(client.characters.list, backend=backend)
    gc.collect()
    assert len(loopback.requests) == 3


def test_plain_asyncio_run(dial, loopback) -> None:
    client = dial()
    assert asyncio.run(client.characters.list()) == asyncio.run(client.characters.list()) == []


@pytest.mark.anyio
async def test_connections_are_kept_within_the_context(dial, loopback) -> None:
    async with dial() as client:
        for _ in range(4):
            await client.characters.list()
    assert loopback.connections == 1


@pytest.mark.anyio
async def test_a_submission_uses_a_new_connection(dial, loopback) -> None:
    async with dial() as client:
        await client.characters.list()
        for _ in range(3):
            await client.videos.generate(**JOB)
    assert loopback.connections == 4
    assert loopback.posts == 3


# -- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_closed_client_refuses_calls(service, make_client, check) -> None:
    client = make_client()
    async with client:
        task = await client.videos.generate(**JOB)
    for call in (
        client.characters.list,
        client.videos.list,
        lambda: client.videos.get("v"),
        lambda: client.videos.generate(**JOB),
        task.refresh,
        task.wait,
    ):
        with pytest.raises(a2v.ClientClosedError) as caught:
            await call()
        check(caught.value)
    await client.aclose()  # closing twice is allowed
    assert len(service.requests) == 1
    async with client:  # entering it reopens it
        assert await client.characters.list()


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_closing_ends_pending_calls(service, make_client, check) -> None:
    service.replies["character.list"] = [lambda _: anyio.sleep(25)]
    service.replies["video.list"] = [httpx.Response(503)]
    service.replies["video.get"] = [service.well]
    service.replies["video.generate"] = [httpx.Response(429)]
    client = make_client(max_retries=50)
    errors = []

    async def run(call) -> None:
        with pytest.raises(a2v.ClientClosedError) as caught:
            await call()
        errors.append(caught.value)

    before = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(run, client.characters.list)  # in the middle of a request
        group.start_soon(run, client.videos.list)  # before a retry
        group.start_soon(run, client.videos.task("v").wait)  # between two polls
        group.start_soon(run, lambda: client.videos.generate(**JOB))  # waiting for the rate limit
        await anyio.sleep(20)
        await client.aclose()
    assert anyio.current_time() - before < 21
    assert len(errors) == 4
    for error in errors:
        check(error)


@pytest.mark.anyio
async def test_closing_ends_a_request_in_flight(dial, loopback, check) -> None:
    async def stall(conn) -> None:
        await conn.request()
        await conn.stall()

    loopback.script(stall)
    client = dial(timeout=1000)
    errors = []

    async def call(what) -> None:
        with pytest.raises(a2v.ClientClosedError) as caught:
            await what()
        errors.append(caught.value)

    async with client, anyio.create_task_group() as group:
        group.start_soon(call, client.characters.list)
        group.start_soon(call, lambda: client.videos.generate(**JOB))
        await loopback.arrived(2)
        await client.aclose()
    assert len(errors) == 2
    check(errors[0])
    async with client:  # the same object can be reused
        loopback.script(_well)
        await client.characters.list()


async def _well(conn) -> None:
    await conn.serve()


# -- many calls at once -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_waiting_for_the_rate_limit_does_not_count_toward_the_timeout(service, make_client) -> None:
    """With a slow server and more calls than may be in flight, the waiting ones do not time out."""

    async def slowly(request):
        await anyio.sleep(25)
        return service.well(request)

    service.replies["video.get"] = [slowly]
    found = []

    async def call(client: a2v.AsyncA2V, n: int) -> None:
        found.append(await client.videos.get(f"v{n}"))

    async with make_client(timeout=30, max_retries=0) as client, anyio.create_task_group() as group:
        for n in range(300):
            group.start_soon(call, client, n)
    assert len(found) == 300
    assert len(service.requests) == 300


@pytest.mark.parametrize("spins", range(40))
def test_a_reservation_is_released_whenever_its_holder_is_cancelled(service, make_client, spins) -> None:
    """asyncio also cancels a task that has just been granted a reservation and has not run since."""

    async def first(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(0.01)
        answered.set()
        return service.well(request)

    async def main() -> None:
        service.replies["character.list"] = [first, service.well]
        async with make_client(rate_limit=30) as client:
            # The first request is sent alone; the others wait for it, first the submission.
            calls = [asyncio.create_task(client.characters.list()) for _ in range(2)]
            await asyncio.sleep(0)
            submission = asyncio.create_task(client.videos.generate(**JOB))
            await answered.wait()
            for _ in range(spins):
                await asyncio.sleep(0)
            submission.cancel()
            await asyncio.gather(submission, return_exceptions=True)
            async with asyncio.timeout(10):
                await asyncio.gather(*calls)
                await client.characters.list()
                await client.videos.generate(**JOB)
            dispatcher = client._session._loop_state.dispatcher
            assert not dispatcher._in_flight

    answered = anyio.Event()
    asyncio.run(main())


# -- forked processes -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_custom_transport_is_not_used_in_a_forked_child(service, make_client, monkeypatch, check) -> None:
    client = make_client()
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    async with client:
        with pytest.raises(a2v.ConfigurationError, match="fork") as caught:
            await client.characters.list()
    check(caught.value)
    assert service.requests == []


def test_an_empty_environment_variable_counts_as_unset(monkeypatch) -> None:
    monkeypatch.setenv("A2V_BASE_URL", "")
    assert repr(a2v.AsyncA2V("token")) == "<AsyncA2V https://openapi.surreal-ai.com>"


@pytest.mark.parametrize(
    ("proxy", "reason"), [("socks5://127.0.0.1:1", r"httpx\[socks\]"), ("gopher://u:s3cret@127.0.0.1", "not valid")]
)
def test_the_error_about_an_invalid_proxy_hides_its_password(monkeypatch, proxy, reason) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(a2v.ConfigurationError, match=reason) as caught:
        network.make_pool(ssl.create_default_context(), Secret(proxy), idle=None)
    assert "s3cret" not in str(caught.value)
