"""Network errors of a transport are translated and retried; all other exceptions are bugs, and pass through."""

from __future__ import annotations

import socket
import ssl
import traceback

import anyio
import httpx
import pytest

import a2v
from a2v import testing

TOKEN = "canary-0123456789-abcdefghij"
JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Transport(httpx.AsyncBaseTransport):
    """Raises an error for the first request, and passes the others to a service."""

    def __init__(self, error: BaseException, *, path: str = "") -> None:
        self.service = testing.Service(poll_statuses=["finished"])
        self._next = self.service.transport()
        self._error: BaseException | None = error
        self._path = path
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self._error and self._path in request.url.path:
            error, self._error = self._error, None
            raise error
        return await self._next.handle_async_request(request)


BUGS = [
    KeyError("a bug"),
    AssertionError("a failed assertion of a mock"),
    TypeError("a bug"),
    AttributeError("a bug"),
    ValueError("a bug"),
    NotImplementedError("a bug"),
    RuntimeError("a bug"),
    httpx.StreamConsumed(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a bug"),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
async def test_a_bug_of_the_transport_passes_through_at_once(bug) -> None:
    for call in (
        lambda client: client.characters.list(),
        lambda client: client.videos.generate(**JOB),
        lambda client: client.videos.task("v1").wait(),
    ):
        transport = Transport(bug.with_traceback(None))
        async with a2v.AsyncA2V(TOKEN, transport=transport) as client:
            with pytest.raises(type(bug)) as caught:
                await call(client)
        assert caught.value is bug
        assert transport.requests == 1
        report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert "handle_async_request" in "".join(report.format())
        frames = [str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename]
        assert TOKEN not in "".join(frames)


@pytest.mark.parametrize("bug", BUGS[:2], ids=lambda bug: type(bug).__name__)
async def test_a_bug_while_a_file_is_fetched_passes_through(bug, tmp_path) -> None:
    transport = Transport(bug.with_traceback(None), path="/files/")
    async with a2v.AsyncA2V(TOKEN, transport=transport) as client:
        task = await client.videos.generate(**JOB)
        with pytest.raises(type(bug)) as caught:
            await task.download(tmp_path / "video.mp4")
    assert caught.value is bug
    assert not list(tmp_path.iterdir())


def test_a_bug_passes_through_the_blocking_client(anyio_backend) -> None:
    transport = Transport(AssertionError("a failed assertion of a mock"))
    with (
        a2v.A2V(TOKEN, transport=transport) as client,
        pytest.raises(AssertionError, match="of a mock") as caught,
    ):
        client.characters.list()
    assert "handle_async_request" in "".join(traceback.format_exception(caught.value))


async def test_a_bug_in_a_mock_of_the_http_library_passes_through(respx_mock) -> None:
    """Mocks are put into the HTTP library's own transports too."""
    respx_mock.route().side_effect = AssertionError("a failed assertion of a mock")
    with pytest.raises(AssertionError, match="of a mock"):
        await a2v.AsyncA2V(TOKEN, base_url="http://127.0.0.1:9").characters.list()
    assert respx_mock.calls.call_count == 1


NOT_SENT = [
    httpx.ConnectError("no route"),
    httpx.ConnectTimeout("too slow"),
    httpx.PoolTimeout("no connection is free"),
    httpx.ProxyError("403 Forbidden"),
    ConnectionRefusedError(111, "Connection refused"),
    socket.gaierror(-2, "Name or service not known"),
    ssl.SSLCertVerificationError(1, "certificate verify failed"),
    anyio.ConnectionFailed("no route"),
]


@pytest.mark.parametrize("error", NOT_SENT, ids=lambda error: type(error).__name__)
async def test_errors_after_which_a_submission_is_repeated(error) -> None:
    transport = Transport(error)
    async with a2v.AsyncA2V(TOKEN, transport=transport) as client:
        assert (await client.videos.generate(**JOB)).video_id == "v1"
    assert transport.requests == 2


PERHAPS_SENT = [
    httpx.ReadTimeout("too slow"),
    httpx.WriteTimeout("too slow"),
    httpx.ReadError("broken"),
    httpx.WriteError("broken"),
    httpx.RemoteProtocolError("broken"),
    httpx.LocalProtocolError("broken"),
    httpx.DecodingError("broken"),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
    ssl.SSLError(1, "bad record"),
    anyio.BrokenResourceError(),
    anyio.ClosedResourceError(),
    anyio.EndOfStream(),
    anyio.IncompleteRead(),
]


@pytest.mark.parametrize("error", PERHAPS_SENT, ids=lambda error: type(error).__name__)
async def test_errors_after_which_it_is_in_doubt(error) -> None:
    transport = Transport(error)
    async with a2v.AsyncA2V(TOKEN, transport=transport) as client:
        assert await client.characters.list()  # may be repeated, and is
        assert transport.requests == 2
    transport = Transport(error)
    async with a2v.AsyncA2V(TOKEN, transport=transport) as client:
        with pytest.raises(a2v.SubmissionUnknownError):
            await client.videos.generate(**JOB)
    assert transport.requests == 1


@pytest.mark.parametrize("url", ["https://a..b/v.mp4", "https://xn--a/", "https://[::1", "http://h:99999/", "http://h:0/", "https://" + "x" * 64 + "/"])  # fmt: skip
async def test_a_video_url_that_no_library_takes_is_a_download_error(url, tmp_path) -> None:
    service = testing.Service()
    service.reply("video.get", testing.Reply.success({"video_id": "v1", "video_url": url}), times=None)
    async with a2v.AsyncA2V(TOKEN, base_url="http://127.0.0.1:9", transport=service.transport()) as client:
        with pytest.raises(a2v.A2VError):
            await client.videos.task("v1").download(tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())


async def test_a_transport_for_blocking_clients_is_refused() -> None:
    class Blocking(httpx.AsyncBaseTransport):
        async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=httpx.ByteStream(b"{}").__class__ and iter_stream())

    def iter_stream() -> httpx.SyncByteStream:
        class Stream(httpx.SyncByteStream):
            def __iter__(self):
                yield b"{}"

        return Stream()

    with pytest.raises(a2v.ConfigurationError, match="transport="):
        await a2v.AsyncA2V(TOKEN, transport=Blocking()).characters.list()
