"""What requests carry besides the token, and what errors and log lines show of the responses."""

from __future__ import annotations

import copy
import logging
import pickle
import platform
import re
import sys
import traceback

import httpx
import pytest

import a2v
from a2v._core.wire import REQUEST_ID_HEADERS

from .conftest import CANARY

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

JOB = {"model_id": "eva_a0008", "audio_url": "https://audio.example/hello.wav?sig=AUDIO-SIGNATURE"}


def refused(status: int = 400, message: str = "no", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"code": status, "message": message, "data": None}, headers=named)


@pytest.fixture
def fail(service, make_client, check):
    """Make a call that gets a response, and return its error."""

    async def fail(response: httpx.Response, call: str = "character.list") -> a2v.A2VError:
        service.replies[call] = [response]
        async with make_client(max_retries=0) as client:
            with pytest.raises(a2v.A2VError) as caught:
                await (client.videos.generate(**JOB) if call == "video.generate" else client.characters.list())
        check(caught.value)
        return caught.value

    return fail


# -- what errors show of the response ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUEST_ID_HEADERS)
async def test_an_error_has_the_id_of_the_request(fail, name) -> None:
    error = await fail(refused(**{name.title(): "req-81"}))
    assert (error.request_id, error.headers[name]) == ("req-81", "req-81")


async def test_the_servers_own_id_comes_before_a_gateways(fail) -> None:
    error = await fail(refused(cf_ray="ray-1", x_correlation_id="", x_request_id="req-81"))
    assert error.request_id == "req-81"
    assert error.headers["cf-ray"] == "ray-1"


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (refused(401, x_request_id="req-81"), a2v.AuthenticationError),
        (refused(404, x_request_id="req-81"), a2v.NotFoundError),
        (refused(429, x_request_id="req-81"), a2v.RateLimitError),
        (refused(503, x_request_id="req-81"), a2v.ServerError),
        (httpx.Response(200, text="<html>", headers={"x-request-id": "req-81"}), a2v.ProtocolError),
        (httpx.Response(302, headers={"x-request-id": "req-81"}), a2v.ProtocolError),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_every_error_about_a_response_has_the_id(fail, response, kind) -> None:
    error = await fail(response)
    assert (type(error), error.request_id) == (kind, "req-81")


@pytest.mark.parametrize("status", [400, 500])
async def test_the_error_of_a_submission_has_the_id(fail, status) -> None:
    error = await fail(refused(status, x_request_id="req-81"), "video.generate")
    assert isinstance(error, a2v.SubmissionUnknownError) is (status == 500)
    assert error.request_id == "req-81"
    assert error.to_dict()["request_id"] == "req-81"


async def test_an_error_without_a_response_has_neither_id_nor_headers(service, make_client) -> None:
    service.replies["character.list"] = [httpx.ConnectError("no route")]
    async with make_client(max_retries=0) as client:
        with pytest.raises(a2v.TransportError) as caught:
            await client.characters.list()
    assert (caught.value.request_id, caught.value.headers, caught.value.body) == (None, {}, None)


async def test_an_error_shows_harmless_headers_only(fail) -> None:
    shown = {
        "date": "Mon, 30 Nov 2026 04:00:00 GMT",
        "retry-after": "7",
        "x-ratelimit-left": "0",
        "x-ratelimit-total": "30",
        "x-request-id": "req-81",
    }
    hidden = {
        "set-cookie": "id=s3cret",
        "location": "https://h.example/?s3cret",
        "x-api-key": "s3cret",
        "server": "nginx",
    }
    error = await fail(httpx.Response(400, json={"code": 7, "message": "no"}, headers=shown | hidden))
    assert dict(error.headers) == shown


async def test_an_echoed_token_is_redacted(fail) -> None:
    error = await fail(refused(message=f"who is {CANARY}?", x_request_id=f"req-{CANARY}", x_ratelimit_of=CANARY))
    assert error.request_id == "req-[token]"
    assert error.headers["x-ratelimit-of"] == "[token]"
    assert error.body is not None
    assert "who is [token]?" in error.body


async def test_control_characters_are_escaped_and_long_values_cut(fail) -> None:
    error = await fail(refused(x_request_id="a\x1b[31m", x_ratelimit_of="x" * 1000))
    assert (error.request_id, error.headers["x-request-id"]) == ("a\\x1b[31m", "a\\x1b[31m")
    assert error.headers["x-ratelimit-of"] == "x" * 200


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<html><style>b {}</style><b>Bad &amp; Gateway</b></html>", "Bad & Gateway"),
        ('{"code": 7, "message": "bad https://u:s3cret@h.example/a.wav?s3cret"}', '"message": "bad https://…@h.example/a.wav?…"'),
        ('{"code": 7, "message": "no", "access_token": "s3cret"}', '"access_token": "…"'),
        ("line one\nline\x00two", "line one line\\x00two"),
        ("", ""),
    ],
)  # fmt: skip
async def test_an_error_has_the_beginning_of_the_body(fail, body, shown) -> None:
    error = await fail(httpx.Response(400, text=body))
    assert error.body is not None
    assert shown in error.body
    assert "s3cret" not in error.body
    assert "<" not in error.body


async def test_the_body_is_cut_after_500_characters(fail) -> None:
    error = await fail(httpx.Response(400, text="x" * 10_000))
    assert error.body == "x" * 499 + "…"


# -- log lines --------------------------------------------------------------------------------------------------------


async def test_log_lines_have_the_id_of_the_request(service, make_client, caplog) -> None:
    caplog.set_level(logging.INFO, "a2v")
    service.replies["character.list"] = [refused(503, x_request_id="req-1\x1b[31m"), service.well]
    accepted = {"code": 0, "data": {"video_id": "v1"}}
    service.replies["video.generate"] = [httpx.Response(200, json=accepted, headers={"x-request-id": "req-2"})]
    async with make_client() as client:
        await client.characters.list()
        await client.videos.generate(**JOB)
    assert caplog.messages == [
        "character.list: ServerError (request req-1\\x1b[31m), trying again",
        "video v1: submitted for eva_a0008, request req-2",
    ]


# -- what requests carry ----------------------------------------------------------------------------------------------


async def test_the_user_agent_has_versions_and_system(service, make_client, tmp_path) -> None:
    async with make_client() as client:
        await (await client.videos.generate(**JOB)).download(tmp_path / "v.mp4")
    (agent,) = {request.headers["user-agent"] for request in service.requests}
    python = f"{sys.implementation.name}/{platform.python_version().rstrip('+')}"
    assert agent == f"a2v-python/{a2v.__version__} {python} {platform.system()}"
    assert re.fullmatch(r"a2v-python/[0-9.]+\S* cpython/3\.[0-9]+\.[0-9]+\S* \w+", agent)


async def test_headers_are_sent_to_the_api_and_not_to_hosts_of_files(service, make_client, tmp_path) -> None:
    async with make_client(default_headers={"X-Gateway-Key": "s3cret", "User-Agent": "mine"}) as client:
        await (await client.videos.generate(**JOB)).download(tmp_path / "v.mp4")
    (file,) = service.seen("v.mp4")
    assert "x-gateway-key" not in file.headers
    assert file.headers["user-agent"].startswith("a2v-python/")
    api = [request for request in service.requests if request is not file]
    assert {(request.headers["x-gateway-key"], request.headers["user-agent"]) for request in api} == {
        ("s3cret", "mine")
    }
    assert {request.headers["authorization"] for request in api} == {f"Bearer {CANARY}"}


async def test_headers_of_options_are_added_to_those_of_the_client(service, make_client) -> None:
    async with make_client(default_headers={"x-a": "1", "x-b": "1"}) as client:
        derived = client.with_options(headers={"X-B": "2"}).with_options(headers={"x-c": "3"})
        await derived.characters.list()
        await client.characters.list()
    sent = [{name: request.headers.get(name) for name in ("x-a", "x-b", "x-c")} for request in service.requests]
    assert sent == [{"x-a": "1", "x-b": "2", "x-c": "3"}, {"x-a": "1", "x-b": "1", "x-c": None}]


@pytest.mark.parametrize("kind", [a2v.AsyncA2V, a2v.A2V])
@pytest.mark.parametrize(
    "headers",
    [{"x-key": "s3cret\n"}, {"x-key: s3cret": "1"}, {"authorization": "s3cret"}, "s3cret", {"x-key": b"s3cret"}],
    ids=str,
)
def test_invalid_headers_are_refused_without_showing_them(kind, headers) -> None:
    for make in (
        lambda: kind("t", default_headers=headers),
        lambda: kind("t").with_options(headers=headers),
    ):
        with pytest.raises(a2v.ConfigurationError) as caught:
            make()
        report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        shown = [str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename]
        assert shown
        assert "s3cret" not in "".join([*shown, str(caught.value)])


@pytest.mark.parametrize("kind", [a2v.AsyncA2V, a2v.A2V])
def test_headers_are_neither_shown_nor_pickled(kind) -> None:
    client = kind("t", default_headers={"x-key": "s3cret"})
    derived = client.with_options(headers={"x-other": "s3cret"})
    for each in (client, derived):
        assert "s3cret" not in repr(each) + repr(vars(each)) + repr(vars(getattr(each, "_session", each)))
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="can be neither pickled nor copied"):
                duplicate(each)


async def test_the_traceback_of_a_failed_call_does_not_show_headers(service, make_client) -> None:
    service.replies["character.list"] = [httpx.ConnectError("no route")]
    async with make_client(max_retries=0, default_headers={"x-key": "s3cret"}) as client:
        with pytest.raises(a2v.TransportError) as caught:
            await client.with_options(headers={"x-other": "s3cret"}).characters.list()
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename]
    assert shown
    assert "s3cret" not in "".join(shown)
