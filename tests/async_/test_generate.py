"""Outcomes of submissions, which cost money: each arrives at most once, and the error says what is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import anyio
import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}


def envelope(code: object, data: object = None, message: str = "as scripted", status: int = 200, **headers: str):
    return httpx.Response(status, json={"code": code, "message": message, "data": data}, headers=headers)


GOOD = envelope(0, {"video_id": "the-id"})


async def submit(service, make_client, *replies, **settings):
    service.replies["video.generate"] = list(replies)
    async with make_client(**settings) as client:
        return await client.videos.generate(**JOB)


async def refused(error, service, make_client, check, *replies, **settings):
    with pytest.raises(a2v.A2VError) as caught:
        await submit(service, make_client, *replies, **settings)
    assert type(caught.value) is error
    check(caught.value)
    return caught.value


async def test_a_submission_returns_a_task(service, make_client) -> None:
    task = await submit(service, make_client, GOOD)
    assert (task.video_id, task.video) == ("the-id", None)
    assert repr(task) == "<AsyncVideoTask the-id no status yet>"
    (request,) = service.requests
    assert (request.method, request.url.path) == ("POST", "/v1/a2v/video.generate")
    assert request.content == httpx.Request("POST", "http://x", json=JOB).content
    assert request.headers["authorization"].startswith("Bearer canary")


@pytest.mark.parametrize(
    "arguments",
    [
        {"model_id": ""},
        {"model_id": None},
        {"model_id": "eva a0008"},
        {"model_id": "\ud800"},
        {"audio_url": ""},
        {"audio_url": 5},
        {"audio_url": "hello.wav"},
        {"audio_url": "C:\\hello.wav"},
        {"audio_url": "https:///hello.wav"},
        {"audio_url": "https://[::1/hello.wav"},
        {"audio_url": "https://example.com/a b.wav"},
        {"audio_url": "https://example.com/\ud800.wav"},
    ],
)
async def test_invalid_arguments_are_not_sent(service, make_client, arguments) -> None:
    async with make_client() as client:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            await client.videos.generate(**(JOB | arguments))
    assert not service.requests


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
        httpx.ProxyError("403 Forbidden"),
        httpx.UnsupportedProtocol("no such scheme"),
    ],
    ids=lambda failure: type(failure).__name__,
)
class TestNotSent:
    async def test_it_is_sent_until_it_arrives(self, service, make_client, failure) -> None:
        assert (await submit(service, make_client, failure, failure, failure, GOOD)).video_id == "the-id"
        assert service.posts == 4

    async def test_it_is_given_up_after_three_more(self, service, make_client, check, failure) -> None:
        error = await refused(a2v.TransportError, service, make_client, check, failure)
        assert type(failure).__name__ in str(error)
        assert service.posts == 4

    async def test_it_is_repeated_as_often_as_set(self, service, make_client, check, failure) -> None:
        await refused(a2v.TransportError, service, make_client, check, failure, max_retries=0)
        assert service.posts == 1


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.ReadError("gone"),
        httpx.ReadTimeout(""),
        httpx.WriteError(""),
        httpx.WriteTimeout(""),
        httpx.CloseError(""),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.LocalProtocolError("bad"),
        OSError("what is this"),
        envelope(408, status=408),
        envelope(409, status=409),
        httpx.Response(409, text="conflict"),
        envelope(500, status=500),
        httpx.Response(502, text="<html>Bad Gateway</html>"),
        envelope(503, status=503),
        httpx.Response(503, headers={"retry-after": "1"}),
        httpx.Response(504),
        httpx.Response(599),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b'{"code": 0, "data": {"video_id": "the-'),
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, content=b"\xff\xfe{"),
        httpx.Response(200, content=b"[" * 200_000),
        httpx.Response(200, content=b" " * (1024 * 1024 + 1) + GOOD.content),
        httpx.Response(200, content=b"\xef\xbb\xbf" + GOOD.content),
        httpx.Response(204),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": {"video_id": "the-id"}}),
        envelope(True, {"video_id": "the-id"}),
        envelope(0.0, {"video_id": "the-id"}),
        envelope(None, {"video_id": "the-id"}),
        envelope("zero", {"video_id": "the-id"}),
        envelope(0),
        envelope(0, {}),
        envelope(0, {"video_id": None}),
        envelope(0, {"video_id": ""}),
        envelope(0, {"video_id": " "}),
        envelope(0, {"video_id": 17}),
        envelope(0, "the-id"),
        envelope(0, [{"video_id": "the-id"}]),
    ],
    ids=lambda outcome: type(outcome).__name__ if isinstance(outcome, Exception) else repr(outcome.content[:40]),
)
async def test_a_submission_that_may_have_arrived_is_never_sent_again(service, make_client, check, outcome) -> None:
    error = await refused(a2v.SubmissionUnknownError, service, make_client, check, outcome, GOOD)
    assert error.job == a2v.Job(**JOB)
    assert "may or may not have accepted" in str(error)
    assert service.posts == 1


async def test_a_deadline_after_sending_leaves_the_outcome_unknown(service, make_client, check) -> None:
    error = await refused(a2v.SubmissionUnknownError, service, make_client, check, lambda _: anyio.sleep(31), GOOD)
    assert "within 30 s" in str(error)
    assert service.posts == 1


async def test_a_cancellation_is_never_replaced_by_an_error(service, make_client) -> None:
    service.replies["video.generate"] = [lambda _: anyio.sleep_forever(), GOOD]
    async with make_client() as client:
        with anyio.move_on_after(5) as scope:
            await client.videos.generate(**JOB)
        assert scope.cancelled_caught
        assert service.posts == 1
        # The client can still be used.
        assert (await client.videos.generate(**JOB)).video_id == "the-id"


def test_cancellation_by_asyncio(service, make_client) -> None:
    async def cancelled(_: httpx.Request) -> None:
        task.cancel()
        await asyncio.sleep(1000)

    async def too_late(_: httpx.Request) -> None:
        timeout.reschedule(0)
        await asyncio.sleep(1000)

    async def main() -> None:
        nonlocal task, timeout
        service.replies["video.generate"] = [cancelled, too_late]
        async with make_client() as client:
            task = asyncio.create_task(client.videos.generate(**JOB))
            with pytest.raises(asyncio.CancelledError):
                await task
            timeout = asyncio.timeout(None)
            with pytest.raises(TimeoutError):
                await _within(timeout, client.videos.generate(**JOB))

    task = timeout = None
    asyncio.run(main())
    assert service.posts == 2


async def _within(timeout: asyncio.Timeout, work: Awaitable[object]) -> None:
    async with timeout:
        await work


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.Response(429),
        httpx.Response(429, text="{code: 1009}"),  # the hosted service's own response is not JSON either
        envelope(1009, status=429),
        envelope("1009", status=429),
        envelope(1009, status=200),
        envelope(1009, status=403),
        envelope(1009, status=500),
    ],
    ids=lambda outcome: f"{outcome.status_code} {outcome.content[:14]!r}",
)
class TestRateLimit:
    async def test_it_was_not_accepted_so_it_is_sent_again(self, service, make_client, outcome) -> None:
        assert (await submit(service, make_client, outcome, outcome, GOOD)).video_id == "the-id"
        assert service.posts == 3

    async def test_it_is_sent_again_for_ten_minutes(self, service, make_client, check, outcome) -> None:
        before = anyio.current_time()
        error = await refused(a2v.RateLimitError, service, make_client, check, outcome, max_retries=1)
        assert 600 <= anyio.current_time() - before <= 700
        assert service.posts > 10
        assert error.retry_after is None
        assert error.status_code == outcome.status_code


@pytest.mark.parametrize(
    ("reset", "date", "seconds"),
    [
        ("7", "", 7),
        ("7.5", "", 7.5),
        ("1700000030", "Tue, 14 Nov 2023 22:13:20 GMT", 30),
        ("1700000030000", "Tue, 14 Nov 2023 22:13:20 GMT", 30),
        ("1700000030, 1700000031", "Tue, 14 Nov 2023 22:13:20 GMT", 30),
        ("1700000000", "Tue, 14 Nov 2023 22:14:20 GMT", None),
        ("1800000000", "Tue, 14 Nov 2023 22:14:20 GMT", 120),
        ("99999", "", 120),
        ("0", "", 1),
        ("1700000030", "", None),
        ("1700000030", "yesterday", None),
        ("1700000030", "Mon, 01 Jan 100000000000000000000 00:00:00 GMT", None),
        ("soon", "", None),
        ("-5", "", None),
        ("9" * 5000, "Tue, 14 Nov 2023 22:13:20 GMT", None),
        ("", "", None),
    ],
)
async def test_a_rate_limit_is_waited_out(service, make_client, reset, date, seconds) -> None:
    limited = httpx.Response(429, headers={"x-ratelimit-reset": reset, "date": date})
    before = anyio.current_time()
    await submit(service, make_client, limited, GOOD)
    least = seconds or 2
    # A little longer than the server asks, so that several clients do not return together.
    assert least <= anyio.current_time() - before <= least * 1.2 + 30
    with pytest.raises(a2v.RateLimitError) as caught:
        await submit(service, make_client, limited, max_retries=0)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("outcome", "kind", "facts"),
    [
        (envelope(401, status=401), a2v.AuthenticationError, (401, 401, "as scripted")),
        (httpx.Response(401), a2v.AuthenticationError, (401, None, "the server rejected the request")),
        (envelope("10002", status=403), a2v.PermissionDeniedError, (403, 10002, "as scripted")),
        (envelope(404, status=404), a2v.NotFoundError, (404, 404, "as scripted")),
        (envelope(10001), a2v.NotFoundError, (200, 10001, "as scripted")),
        (envelope("10001", status=400), a2v.NotFoundError, (400, 10001, "as scripted")),
        (envelope(7), a2v.APIError, (200, 7, "as scripted")),
        (envelope("7", {"video_id": "the-id"}, status=201), a2v.APIError, (201, 7, "as scripted")),
        (envelope(-1), a2v.APIError, (200, -1, "as scripted")),
        (envelope(7, message=""), a2v.APIError, (200, 7, "the server rejected the request")),
        (httpx.Response(200, json={"code": 7}), a2v.APIError, (200, 7, "the server rejected the request")),
        (
            httpx.Response(200, json={"code": 7, "message": ["no"]}),
            a2v.APIError,
            (200, 7, "the server rejected the request"),
        ),
        (envelope(0, {"video_id": "the-id"}, status=400), a2v.APIError, (400, 0, "as scripted")),
        (
            httpx.Response(422, text="<html>"),
            a2v.APIError,
            (422, None, "the server rejected the request; a web page answered, not the API"),
        ),
    ],
)
async def test_a_refusal_is_final(service, make_client, check, *, outcome, kind, facts) -> None:
    error = await refused(kind, service, make_client, check, outcome, GOOD)
    assert (error.status_code, error.code, error.message) == facts
    assert facts[2] in str(error)
    assert f"HTTP {facts[0]}" in str(error)
    assert service.posts == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_redirects_are_not_followed(service, make_client, check, status) -> None:
    elsewhere = httpx.Response(status, headers={"location": "https://evil.example/v1/a2v/video.generate"})
    error = await refused(a2v.ProtocolError, service, make_client, check, elsewhere, GOOD)
    assert str(status) in str(error)
    assert len(service.requests) == 1


@pytest.mark.parametrize("code", [0, "0", "00"])
@pytest.mark.parametrize("status", [200, 201, 202])
async def test_codes_that_mean_success(service, make_client, code, status) -> None:
    reply = envelope(code, {"video_id": "the-id", "status": "pending"}, status=status)
    assert (await submit(service, make_client, reply)).video_id == "the-id"
    assert service.posts == 1


async def test_a_transport_that_is_not_asynchronous(make_client, check) -> None:
    class Sync(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return httpx.Response(200, stream=httpx.SyncByteStream())

    async with make_client(transport=Sync(), max_retries=0) as client:
        with pytest.raises(a2v.ConfigurationError, match="must be an asynchronous httpx transport") as caught:
            await client.characters.list()
    check(caught.value)
