"""Requests that can be repeated freely, and how their responses are read."""

from __future__ import annotations

import itertools
import json

import anyio
import anyio.lowlevel
import httpx
import pytest

import a2v
from tests.labels import label

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def envelope(code: object, data: object = None, message: str = "as scripted", status: int = 200):
    return httpx.Response(status, json={"code": code, "message": message, "data": data})


def video(**facts: object):
    return envelope(0, {"video_id": "v"} | facts)


async def get(service, make_client, *replies, **settings):
    service.replies["video.get"] = list(replies)
    async with make_client(**settings) as client:
        return await client.videos.get("v")


# -- values -----------------------------------------------------------------------------------------------------------


async def test_characters(service, make_client) -> None:
    sent = {
        "model_id": "eva_a0008",
        "display_name": "Eva",
        "gender": None,
        "preview_url": "https://x/p.png",
        "new": [1],
    }
    service.replies["character.list"] = [envelope("0", [sent])]
    async with make_client() as client:
        (eva,) = await client.characters.list()
    assert eva == a2v.Character(model_id="eva_a0008", display_name="Eva", preview_url="https://x/p.png")
    assert eva.raw == sent
    with pytest.raises(TypeError):
        eva.raw["model_id"] = "other"


async def test_the_request(service, make_client) -> None:
    async with make_client(base_url="https://example.com/api/") as client:
        await client.videos.get("a/b?c&d=ä")
    (request,) = service.requests
    assert str(request.url) == "https://example.com/api/v1/a2v/video.get?video_id=a%2Fb%3Fc%26d%3D%C3%A4"
    assert request.headers["authorization"].startswith("Bearer ")
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


@pytest.mark.parametrize(
    ("facts", "status", "url"),
    [
        ({"status": "pending"}, "PENDING", None),
        ({"status": "in_progressing", "video_url": ""}, "IN_PROGRESS", None),
        ({"status": "finished", "video_url": "https://x/v"}, "FINISHED", "https://x/v"),
        ({"status": "finished"}, "FINISHED", None),
        ({"status": "error", "video_url": None}, "FAILED", None),
        ({"status": "in_progressing", "video_url": "https://x/v"}, "IN_PROGRESS", "https://x/v"),
        ({"status": "polishing"}, "UNKNOWN", None),
        # the seed's form
        ({}, "IN_PROGRESS", None),
        ({"video_url": None}, "IN_PROGRESS", None),
        ({"video_url": ""}, "IN_PROGRESS", None),
        ({"video_url": "https://x/v"}, "FINISHED", "https://x/v"),
        ({"status": None, "video_url": "https://x/v"}, "FINISHED", "https://x/v"),
    ],
)
async def test_statuses(service, make_client, facts, status, url) -> None:
    seen = await get(service, make_client, video(**facts))
    assert (seen.video_id, seen.status, seen.video_url) == ("v", a2v.VideoStatus[status], url)
    assert seen.raw == {"video_id": "v"} | facts
    assert seen.is_terminal == (status == "FAILED" or (status == "FINISHED" and url is not None))


async def test_a_mask(service, make_client) -> None:
    seen = await get(service, make_client, video(video_url="https://x/v", mask_video_url="https://x/m"))
    assert seen.mask_video_url == "https://x/m"


async def test_all_videos_of_the_account(service, make_client) -> None:
    service.lists_videos = True
    service.plans = {"a": service.plan, "b": [(0, {"status": "error"})]}
    async with make_client() as client:
        videos = await client.videos.list()
    assert [(each.video_id, each.status.value) for each in videos] == [("a", "pending"), ("b", "error")]


async def test_a_server_of_the_first_revision_has_no_list(service, make_client) -> None:
    async with make_client() as client:
        with pytest.raises(a2v.NotFoundError):
            await client.videos.list()
    assert len(service.requests) == 1


@pytest.mark.parametrize("video_id", ["", " ", None, 7])
async def test_invalid_ids(service, make_client, video_id) -> None:
    async with make_client() as client:
        for use in (client.videos.get, client.videos.task):
            with pytest.raises(ValueError, match="video_id must be"):
                await use(video_id)


@pytest.mark.parametrize("video_id", ["\ud800", "v" * 70_000])
async def test_ids_that_cannot_be_encoded_in_a_url(service, make_client, video_id, check) -> None:
    async with make_client() as client:
        with pytest.raises(a2v.ConfigurationError) as caught:
            await client.videos.get(video_id)
    check(caught.value)
    assert not service.requests


# -- invalid responses ------------------------------------------------------------------------------------------------

GARBAGE = {
    "empty": b"",
    "html": b"<html><h1>502 Bad Gateway</h1></html>",
    "truncated": b'{"code": 0, "data": {"video_id": "v", "sta',
    "two": b'{"code": 0}{"code": 0}',
    "a list": b"[]",
    "a number": b"0",
    "null": b"null",
    "not UTF-8": b'{"code": 0, "message": "\xff"}',
    "UTF-16": json.dumps({"code": 0, "data": {"video_id": "v"}}).encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"code": 0, "data": {"video_id": "v"}}',
    "NaN": b'{"code": 0, "data": {"video_id": "v", "progress": NaN}}',
    "Infinity": b'{"code": 0, "data": {"video_id": "v", "progress": -Infinity}}',
    "nested": b'{"code": 0, "data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "key twice": b'{"code": 0, "code": 0, "data": {"video_id": "v"}}',
    "inner key twice": b'{"code": 0, "data": {"video_id": "v", "status": "error", "status": "pending"}}',
    "5000 digits": b'{"code": ' + b"1" * 5000 + b"}",
    "5000 digits in data": b'{"code": 0, "data": {"video_id": "v", "size": ' + b"1" * 5000 + b"}}",
    "too long": json.dumps({"code": 0, "data": {"video_id": "v", "more": "x" * 1024 * 1024}}).encode(),
    "no code": b'{"data": {"video_id": "v"}}',
    "another's": b'{"code": 0, "data": {"video_id": "w", "status": "finished", "video_url": "https://x/w"}}',
    "no id": b'{"code": 0, "data": {"status": "pending"}}',
    "no data": b'{"code": 0}',
    "data null": b'{"code": 0, "data": null}',
    "data a list": b'{"code": 0, "data": [{"video_id": "v"}]}',
    "data a string": b'{"code": 0, "data": "v"}',
    "id a number": b'{"code": 0, "data": {"video_id": 5}}',
    "status a number": b'{"code": 0, "data": {"video_id": "v", "status": 3}}',
    "status an object": b'{"code": 0, "data": {"video_id": "v", "status": {}}}',
    "url a number": b'{"code": 0, "data": {"video_id": "v", "video_url": 5}}',
    "url a list": b'{"code": 0, "data": {"video_id": "v", "video_url": ["https://x/v"]}}',
}
for code in (True, False, 0.0, 1.5, None, "", "zero", "-1", "0.0", " 0", "٣", "1" * 5000, [], {}):
    GARBAGE[f"code {str(code)[:9]} {type(code).__name__}"] = json.dumps(
        {"code": code, "data": {"video_id": "v", "status": "pending"}}
    ).encode()


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
class TestGarbage:
    async def test_it_is_asked_again(self, service, make_client, body) -> None:
        seen = await get(service, make_client, httpx.Response(200, content=body), video(status="pending"))
        assert seen.status is a2v.VideoStatus.PENDING
        assert len(service.requests) == 2

    async def test_patience_ends(self, service, make_client, check, body) -> None:
        with pytest.raises(a2v.ProtocolError) as caught:
            await get(service, make_client, httpx.Response(200, content=body))
        check(caught.value)
        assert len(service.requests) == 4


async def test_a_response_that_is_too_long_is_not_read_to_its_end(service, make_client) -> None:
    class Long(httpx.AsyncByteStream):
        read = 0

        async def __aiter__(self):
            while self.read < 8 * 1024 * 1024:
                await anyio.lowlevel.checkpoint()
                self.read += 65536
                yield b" " * 65536

    body = Long()
    with pytest.raises(a2v.ProtocolError, match="longer than"):
        await get(service, make_client, lambda _: httpx.Response(200, stream=body), max_retries=0)
    assert body.read < 2 * 1024 * 1024


@pytest.mark.parametrize("data", [None, {}, "", [None], [[]], [{}], [{"model_id": 3}], [{"model_id": "x", "name": 3}]])
async def test_characters_of_a_wrong_shape(service, make_client, check, data) -> None:
    service.replies["character.list"] = [envelope(0, data)]
    async with make_client(max_retries=0) as client:
        with pytest.raises(a2v.ProtocolError) as caught:
            await client.characters.list()
    check(caught.value)


# -- failures ---------------------------------------------------------------------------------------------------------

PASSING = [
    httpx.ConnectError("refused"),
    httpx.ReadError(""),
    httpx.ReadTimeout(""),
    httpx.RemoteProtocolError("Server disconnected"),
    OSError("?"),
    envelope(408, status=408),
    envelope(500, status=500),
    httpx.Response(502, text="<html>"),
    httpx.Response(503),
    httpx.Response(429),
    envelope(1009),
    lambda _: anyio.sleep(31),
]


@pytest.mark.parametrize("failure", PASSING, ids=label)
async def test_transient_failures_are_retried(service, make_client, failure) -> None:
    seen = await get(service, make_client, failure, failure, failure, video(status="pending"))
    assert seen.status is a2v.VideoStatus.PENDING
    assert len(service.requests) == 4


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        *((failure, a2v.TransportError) for failure in PASSING[:5]),
        *((failure, a2v.ServerError) for failure in PASSING[5:9]),
        (PASSING[11], a2v.TransportError),
    ],
    ids=label,
)
async def test_permanent_failures_are_raised_after_the_retries(service, make_client, check, failure, kind) -> None:
    with pytest.raises(a2v.A2VError) as caught:
        await get(service, make_client, failure, max_retries=2)
    assert type(caught.value) is kind
    check(caught.value)
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (envelope(401, status=401), a2v.AuthenticationError),
        (envelope(1, status=403), a2v.PermissionDeniedError),
        (envelope(404, status=404), a2v.NotFoundError),
        (envelope(10001), a2v.NotFoundError),
        (envelope("10001", status=400), a2v.NotFoundError),
        (envelope(409, status=409), a2v.APIError),
        (envelope(3), a2v.APIError),
        (httpx.Response(302, headers={"location": "https://evil.example/"}), a2v.ProtocolError),
    ],
    ids=label,
)
async def test_final_errors_are_not_retried(service, make_client, check, refusal, kind) -> None:
    with pytest.raises(a2v.A2VError) as caught:
        await get(service, make_client, refusal, video())
    assert type(caught.value) is kind
    check(caught.value)
    assert caught.value.video_id == "v"
    assert len(service.requests) == 1


async def test_after_429_the_number_of_retries_does_not_count(service, make_client) -> None:
    rejected = [httpx.Response(429)] * 5
    assert await get(service, make_client, *rejected, httpx.Response(502), *rejected, video(), max_retries=1)
    assert len(service.requests) == 12


async def test_pauses_between_retries_are_short_and_grow(service, make_client) -> None:
    times = []

    def fail(request: httpx.Request) -> httpx.Response:
        times.append(anyio.current_time())
        return httpx.Response(503)

    with pytest.raises(a2v.ServerError):
        await get(service, make_client, fail, max_retries=8)
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert 0.2 < waits[0] < 1
    assert max(waits) > 4 * waits[0]
    assert max(waits) < 15
