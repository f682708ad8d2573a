"""``transport=`` takes the transports of httpx2 as well as those of httpx. httpx2 is not imported for users who do not."""

from __future__ import annotations

import gc
import io
import logging
import subprocess
import sys
import textwrap
import traceback

import anyio
import httpx
import httpx2
import pytest

import a2v
from a2v import testing

from .conftest import CANARY

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}

pytestmark = pytest.mark.anyio


@pytest.fixture
def dial2(dial):
    """Makes clients of the server on a real socket that send through httpx2."""
    return lambda **settings: dial(transport=httpx2.AsyncHTTPTransport(), **settings)


class Transport(httpx2.AsyncBaseTransport):
    """Raises an error for the first request to a path, and passes the others to a service."""

    def __init__(self, error: BaseException | None = None, *, path: str = "") -> None:
        self.service = testing.Service(render_seconds=600)
        self._next = self.service.transport()
        self._error = error
        self._path = path
        self.requests = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        error, self._error = (None, self._error) if self._path not in request.url.path else (self._error, None)
        if error:
            raise error
        passed = httpx.Request(request.method, str(request.url), headers=request.headers, content=await request.aread())
        response = await self._next.handle_async_request(passed)
        return httpx2.Response(response.status_code, headers=response.headers, content=await response.aread())


# -- a real server ----------------------------------------------------------------------------------------------------


async def test_a_video_from_submission_to_file(dial2, loopback, tmp_path) -> None:
    async with dial2() as client:
        assert await client.characters.list() == []
        task = await client.videos.generate(**JOB)
        video = await task.wait()
        assert video.video_id == "v1"
        path = await task.download(tmp_path / "video.mp4")
    assert path.read_bytes() == b"a video"
    assert loopback.posts == 1
    assert loopback.requests[-1].target.startswith("/files/")
    gc.collect()  # a connection left open would fail the test with a warning


async def test_a_batch(dial2, loopback, tmp_path) -> None:
    jobs = [a2v.Job(**JOB, name=f"video{number}") for number in range(3)]
    async with dial2() as client, client.batch(jobs, save_to=tmp_path, journal=tmp_path / "journal") as batch:
        outcomes = [outcome async for outcome in batch]
    assert all(outcome.error is None for outcome in outcomes)
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["video0.mp4", "video1.mp4", "video2.mp4"]
    assert loopback.posts == 3


def test_the_blocking_client(loopback, anyio_backend) -> None:
    with a2v.A2V(CANARY, base_url=loopback.url, transport=httpx2.AsyncHTTPTransport()) as client:
        assert client.videos.generate(**JOB).wait().is_terminal
    assert loopback.posts == 1


async def test_a_refused_connection_is_a_submission_that_was_not_sent(dial2, closed_port) -> None:
    async with dial2(base_url=f"http://127.0.0.1:{closed_port}", max_retries=0) as client:
        with pytest.raises(a2v.TransportError, match="ConnectError") as caught:
            await client.videos.generate(**JOB)
    assert not isinstance(caught.value, a2v.SubmissionUnknownError)


async def test_a_submission_without_a_response_is_unknown(dial2, loopback, check) -> None:
    async def hang_up(conn) -> None:
        await conn.request()

    loopback.script(hang_up)
    async with dial2() as client:
        with pytest.raises(a2v.SubmissionUnknownError) as caught:
            await client.videos.generate(**JOB)
    assert loopback.posts == 1
    check(caught.value)


async def test_a_connection_that_closed_while_idle_is_replaced_at_once(dial2, loopback) -> None:
    async def once(conn) -> None:
        request = await conn.request()
        await conn.answer({"video_id": request.video_id, "status": "finished", "video_url": "https://e.com/v.mp4"})
        await conn.reader.readuntil(b"\r\n\r\n")

    loopback.script(once)
    async with dial2(max_retries=0) as client:
        for number in range(5):
            assert (await client.videos.get(f"v{number}")).is_terminal
    assert len(loopback.requests) == 5


async def test_a_timeout(dial2, loopback) -> None:
    async def silent(conn) -> None:
        await conn.request()
        await conn.reader.read()

    loopback.script(silent)
    async with dial2(timeout=0.05, max_retries=0) as client:
        with pytest.raises(a2v.TransportError, match=r"within 0\.05 s"):
            await client.characters.list()
        with pytest.raises(a2v.SubmissionUnknownError):
            await client.videos.generate(**JOB)


async def test_a_cancelled_submission_says_whether_it_was_sent(dial2, loopback) -> None:
    async def silent(conn) -> None:
        await conn.request()
        await conn.reader.read()

    loopback.script(silent)
    notes: list[str] = []

    async def submit(client) -> None:
        try:
            await client.videos.generate(**JOB)
        except BaseException as cancelled:
            notes.extend(getattr(cancelled, "__notes__", []))
            raise

    async with dial2() as client, anyio.create_task_group() as group:
        group.start_soon(submit, client)
        await loopback.arrived(1)
        group.cancel_scope.cancel()
    assert "may have accepted" in "".join(notes)
    gc.collect()


async def test_a_long_response_is_abandoned_without_a_trace(dial2, loopback, tmp_path) -> None:
    """httpx2 leaves generators unfinished, of which trio complains."""

    async def endless(conn) -> None:
        await conn.request()
        conn.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n")
        await conn.writer.drain()
        for _ in range(1000):
            conn.writer.write(b"\0" * 65536)
            await conn.writer.drain()

    loopback.script(endless)
    async with dial2(max_retries=0, max_download_bytes=1000) as client:
        with pytest.raises(a2v.A2VError):
            await client.characters.list()
    gc.collect()


async def test_the_token_is_neither_logged_nor_in_tracebacks(dial2, loopback, check) -> None:
    async def echo(conn) -> None:
        request = await conn.request()
        await conn.reply(b"{}", "400 Bad Request", f"X-Echo: {request.headers['authorization']}")

    loopback.script(echo)
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    logger = logging.getLogger("httpcore2")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with dial2() as client:
            with pytest.raises(a2v.A2VError) as caught:
                await client.characters.list()
            check(caught.value)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert "receive_response_headers.complete" in logged.getvalue()
    assert CANARY not in logged.getvalue()


# -- mocks ------------------------------------------------------------------------------------------------------------


async def test_a_mock_transport() -> None:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json={"code": 0, "message": "success", "data": {"video_id": "v7"}})

    async with a2v.AsyncA2V("token", transport=httpx2.MockTransport(answer)) as client:
        assert (await client.videos.generate(**JOB)).video_id == "v7"
    assert requests[0].headers["authorization"] == "Bearer token"
    assert b"example.com" in requests[0].content


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", ["ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"])
async def test_errors_after_which_a_submission_is_repeated(name) -> None:
    transport = Transport(getattr(httpx2, name)("a reason"))
    async with a2v.AsyncA2V("token", transport=transport) as client:
        assert (await client.videos.generate(**JOB)).video_id == "v1"
    assert transport.requests == 2


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", ["ReadTimeout", "WriteError", "ReadError", "RemoteProtocolError", "DecodingError"])
async def test_errors_after_which_a_submission_is_unknown(name, check) -> None:
    transport = Transport(getattr(httpx2, name)("a reason"))
    async with a2v.AsyncA2V("token", transport=transport) as client:
        assert await client.characters.list()
        assert transport.requests == 2
    transport = Transport(getattr(httpx2, name)("a reason"))
    async with a2v.AsyncA2V("token", transport=transport) as client:
        with pytest.raises(a2v.SubmissionUnknownError) as caught:
            await client.videos.generate(**JOB)
    assert transport.requests == 1
    check(caught.value)


@pytest.mark.virtual_time
@pytest.mark.parametrize("bug", [KeyError("a bug"), httpx2.StreamConsumed()], ids=lambda bug: type(bug).__name__)
async def test_a_bug_passes_through_at_once(bug) -> None:
    transport = Transport(bug)
    async with a2v.AsyncA2V(CANARY, transport=transport) as client:
        with pytest.raises(type(bug)) as caught:
            await client.characters.list()
    assert transport.requests == 1
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename]
    assert CANARY not in "".join(frames)


@pytest.mark.virtual_time
async def test_a_download_is_repeated_after_an_error(tmp_path) -> None:
    transport = Transport(httpx2.ReadError("a reason"), path="/files/")
    async with a2v.AsyncA2V("token", transport=transport) as client:
        task = await client.videos.generate(**JOB)
        path = await task.download(tmp_path / "video.mp4")
    assert path.read_bytes() == b"video of v1"


@pytest.mark.virtual_time
async def test_a_transport_of_httpx_may_wrap_one_of_httpx2() -> None:
    """Errors of both are recognized, whichever library the transport belongs to."""
    service = testing.Service()
    service.reply("character.list", httpx2.ReadError("a reason"))
    async with a2v.AsyncA2V("token", transport=service.transport()) as client:
        assert await client.characters.list()


@pytest.mark.virtual_time
async def test_a_host_name_that_httpx2_refuses() -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200))
    async with a2v.AsyncA2V("token", base_url="https://\N{PILE OF POO}.example", transport=transport) as client:
        with pytest.raises(a2v.ConfigurationError):
            await client.characters.list()


# -- what is refused, and what is not imported ------------------------------------------------------------------------


class Duck:
    async def handle_async_request(self, request): ...


@pytest.mark.parametrize(
    ("transport", "got"),
    [
        (httpx.HTTPTransport(), "httpx.HTTPTransport"),
        (httpx2.HTTPTransport(), "httpx2.HTTPTransport"),
        (httpx2.AsyncHTTPTransport, "the class httpx2.AsyncHTTPTransport"),
        (httpx2.BaseTransport(), "httpx2.BaseTransport"),
        (Duck(), "Duck"),
        ("http://user:s3cret@proxy", "str"),
        (False, "bool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("make", [a2v.AsyncA2V, a2v.A2V])
def test_a_wrong_transport_is_refused_by_the_constructor(make, transport, got) -> None:
    with pytest.raises(a2v.ConfigurationError, match=r"httpx2.*such as httpx\.AsyncHTTPTransport") as caught:
        make("token", transport=transport)
    assert str(caught.value).endswith(got)
    assert "s3cret" not in str(caught.value)


def test_a_synchronous_response_is_refused(anyio_backend, run) -> None:
    async def main() -> None:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=httpx2.SyncByteStream()))
        with pytest.raises(a2v.ConfigurationError, match="SyncByteStream"):
            await a2v.AsyncA2V("token", transport=transport).characters.list()

    run(main)


def python(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_httpx2_is_imported_by_nobody_else() -> None:
    code = """
        import asyncio, sys, a2v, a2v.testing
        async def main():
            transport = a2v.testing.Service().transport()
            async with a2v.AsyncA2V("token", transport=transport) as client:
                assert await client.characters.list()
        asyncio.run(main())
        print([name for name in sys.modules if name.startswith(("httpx2", "httpcore2"))])
    """
    assert python(code) == "[]"


@pytest.mark.extended
def test_a_process_in_which_httpx_is_an_alias_for_httpx2(loopback) -> None:
    code = f"""
        import asyncio, sys, httpx2
        httpx2.alias_httpx()
        import a2v
        async def main():
            for transport in (None, httpx2.AsyncHTTPTransport()):
                async with a2v.AsyncA2V("token", base_url={loopback.url!r}, transport=transport) as client:
                    task = await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
                    assert (await task.wait()).is_terminal
        asyncio.run(main())
    """
    assert python(code) == ""
    assert loopback.posts == 2
