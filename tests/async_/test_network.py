"""A network that misbehaves, on real sockets: every call ends in an error of ours or the right answer, no POST is repeated."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

import a2v

pytestmark = pytest.mark.anyio

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
TOKEN = "canary-0123456789-abcdefghij"
GOOD = b'{"code": 0, "message": "success", "data": {"video_id": "v", "status": "pending"}}'
OK = b"HTTP/1.1 200 OK\r\n"
GIGANTIC = b'{"code": 0, "message": "' + b"x" * 3_000_000 + b'"}'

TOXICS: dict[str, Callable[..., Awaitable[None]]] = {}


def toxic(function):
    TOXICS[function.__name__] = function
    return function


def says(name: str, reply: bytes) -> None:
    """A server that reads the request, says this and closes."""

    async def behave(conn) -> None:
        await conn.request()
        await conn.send(reply)

    TOXICS[name] = behave


@toxic
async def closes_before_the_request(conn) -> None:
    pass


@toxic
async def resets_before_the_request(conn) -> None:
    conn.reset()


@toxic
async def closes_after_the_head(conn) -> None:
    await conn.head()


@toxic
async def closes_after_the_request(conn) -> None:
    await conn.request()


@toxic
async def resets_after_the_request(conn) -> None:
    await conn.request()
    conn.reset()


@toxic
async def stalls_before_the_request(conn) -> None:
    await anyio.sleep(60)


@toxic
async def stalls_after_the_request(conn) -> None:
    await conn.request()
    await conn.stall()


@toxic
async def stalls_in_the_body(conn) -> None:
    await conn.request()
    await conn.send(OK + b"Content-Length: 1000\r\n\r\n" + GOOD)
    await conn.stall()


@toxic
async def drips(conn) -> None:
    await conn.request()
    for byte in OK + b"X: " + b"x" * 1000:
        await conn.send(bytes([byte]))
        await anyio.sleep(0.02)


@toxic
async def says_100_for_ever(conn) -> None:
    await conn.request()
    while True:
        await conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await anyio.sleep(0.01)


@toxic
async def resets_in_the_body(conn) -> None:
    await conn.request()
    await conn.send(OK + b"Content-Length: 1000\r\n\r\n" + GOOD)
    await anyio.sleep(0.02)
    conn.reset()


@toxic
async def sends_a_body_without_end(conn) -> None:
    await conn.request()
    await conn.send(OK + b"\r\n")
    while True:
        await conn.send(b" " * 65536)


@toxic
async def echoes(conn) -> None:
    await conn.send(await conn.reader.readuntil(b"\r\n\r\n"))


@toxic
async def echoes_in_headers(conn) -> None:
    await conn.send(OK + await conn.reader.readuntil(b"\r\n\r\n"))


@toxic
async def echoes_in_a_header_that_is_none(conn) -> None:
    head = await conn.head()
    await conn.send(OK + head.headers["authorization"].encode() + b"\r\n\r\n")


@toxic
async def echoes_in_the_message(conn) -> None:
    head = await conn.request()
    message = f"we do not know {head.headers['authorization']!r}"
    await conn.reply(json.dumps({"code": 5, "message": message, "data": None}).encode(), "400 Bad Request")


says("short content-length", OK + b"Content-Length: 20\r\n\r\n" + GOOD)
says("long content-length", OK + b"Content-Length: 2000\r\n\r\n" + GOOD)
says("two content-lengths", OK + b"Content-Length: 20\r\nContent-Length: 82\r\n\r\n" + GOOD)
says("bad content-length", OK + b"Content-Length: -5\r\n\r\n" + GOOD)
says("bad chunk", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + GOOD)
says("last chunk missing", OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(GOOD), GOOD))
says("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40)
says("bare line feed", b"\n\n\n")
says("HTTP/9", b"HTTP/9.9 200 OK\r\n\r\n")
says("status out of range", b"HTTP/1.1 999999 WHAT\r\n\r\n")
says("SSH", b"SSH-2.0-OpenSSH_9.6\r\n")
says("200 kB of header", OK + b"X: " + b"x" * 200_000 + b"\r\n\r\n")
says("20,000 headers", OK + b"X: y\r\n" * 20_000 + b"\r\n")
says("header with NUL", OK + b"X: a\x00b\r\n\r\n")
says("upgrade", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
says("empty", OK + b"Content-Length: 0\r\n\r\n")
says("no content", b"HTTP/1.1 204 No Content\r\n\r\n")
says("HTML", OK + b"Content-Type: text/html\r\n\r\n<html>Please log in</html>")
says("too long", OK + b"\r\n" + GIGANTIC)
says("gzip", OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD))
says("gzip bomb", OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 50_000_000))
says("truncated gzip", OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD)[:-9])
says("redirect elsewhere", b"HTTP/1.1 307 X\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n")
says("redirect to itself", b"HTTP/1.1 308 X\r\nLocation: /v1/a2v/video.generate\r\nContent-Length: 0\r\n\r\n")
says("bad location", b"HTTP/1.1 302 X\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n")
says("502", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>")
says("503 with Retry-After", b"HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
says("204 bytes of NaN", OK + b"Content-Length: 3\r\n\r\nNaN")
says("set-cookie", OK + b"Set-Cookie: session=evil\r\nContent-Length: 2\r\n\r\n[]")

REFUSALS = {"redirect elsewhere", "redirect to itself", "bad location"}


@pytest.fixture
def quiet(caplog):
    """What was logged shows no token."""
    for name in (None, "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield
    for record in caplog.records:
        # What a server chooses to quote of us in its headers is logged by httpcore below DEBUG's promise.
        if "receive_response_headers" not in record.getMessage():
            assert TOKEN not in f"{record.getMessage()} {record.args}"


@pytest.mark.parametrize("behave", TOXICS.values(), ids=TOXICS)
class TestToxics:
    async def test_a_submission_is_never_repeated(self, dial, loopback, check, *, quiet, request, behave) -> None:
        loopback.script(behave)
        async with dial(timeout=0.3) as client:
            with pytest.raises(a2v.A2VError) as caught, anyio.fail_after(20):
                await client.videos.generate(**JOB)
        name = request.node.callspec.id.removeprefix("asyncio-").removeprefix("trio-")
        if name in REFUSALS:
            assert type(caught.value) is a2v.ProtocolError
        elif name == "echoes_in_the_message":
            assert type(caught.value) is a2v.APIError
        elif name == "resets_before_the_request" and type(caught.value) is a2v.TransportError:
            pass  # it came before the connection stood
        else:
            assert type(caught.value) is a2v.SubmissionUnknownError
            assert caught.value.job == a2v.Job(**JOB)
        check(caught.value)
        assert loopback.connections == 1 or name == "resets_before_the_request"
        assert loopback.posts <= 1

    async def test_a_look_ends_in_an_error_of_ours(self, dial, loopback, check, quiet, behave) -> None:
        loopback.script(behave)
        async with dial(timeout=0.3, max_retries=0) as client:
            with pytest.raises(a2v.A2VError) as caught, anyio.fail_after(20):
                await client.videos.get("v")
        assert isinstance(caught.value, (a2v.TransportError, a2v.ProtocolError, a2v.APIError))
        check(caught.value)
        assert loopback.connections == 1
        assert len(loopback.requests) <= 1

    async def test_the_client_is_none_the_worse(self, dial, loopback, quiet, behave) -> None:
        async def well(conn) -> None:
            await conn.serve()

        loopback.script(behave, well)
        async with dial(timeout=0.3, max_retries=0) as client:
            with pytest.raises(a2v.A2VError), anyio.fail_after(20):
                await client.characters.list()
            assert (await client.videos.generate(**JOB)).video_id == "v1"


async def test_redirects_get_no_second_request(dial, loopback) -> None:
    other = type(loopback)()
    other.start()
    try:
        loopback.script(_redirect(f"{other.url}/v1/a2v/character.list"))
        async with dial() as client:
            for call in (client.characters.list, lambda: client.videos.generate(**JOB)):
                with pytest.raises(a2v.ProtocolError, match="307"):
                    await call()
    finally:
        other.stop()
    assert other.connections == 0
    assert len(loopback.requests) == 2


def _redirect(location: str):
    async def behave(conn) -> None:
        await conn.request()
        await conn.reply(b"", "307 Temporary Redirect", f"Location: {location}", "Set-Cookie: a=b")

    return behave


async def test_cookies_are_not_kept(dial, loopback) -> None:
    async def bake(conn) -> None:
        while True:
            await conn.request()
            await conn.reply(b'{"code": 0, "data": []}', "200 OK", "Set-Cookie: session=1")

    loopback.script(bake)
    async with dial() as client:
        await client.characters.list()
        await client.characters.list()
    assert ["cookie" in request.headers for request in loopback.requests] == [False, False]


# -- never sent -------------------------------------------------------------------------------------------------------


async def submit_in_vain(client: a2v.AsyncA2V, check) -> str:
    async with client:
        with pytest.raises(a2v.A2VError) as caught, anyio.fail_after(20):
            await client.videos.generate(**JOB)
    assert type(caught.value) is a2v.TransportError
    check(caught.value)
    return str(caught.value)


async def test_nobody_listens(closed_port, check, quiet) -> None:
    await submit_in_vain(a2v.AsyncA2V(TOKEN, base_url=f"http://127.0.0.1:{closed_port}", max_retries=1), check)


async def test_no_such_host(check, quiet) -> None:
    await submit_in_vain(a2v.AsyncA2V(TOKEN, base_url="https://does-not-exist.invalid", max_retries=0), check)


async def test_a_host_name_that_cannot_be_looked_up(check, quiet) -> None:
    await submit_in_vain(a2v.AsyncA2V(TOKEN, base_url="https://a..b", max_retries=0), check)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_no_tls(loopback, check, quiet, reply) -> None:
    async def behave(conn) -> None:
        await conn.send(reply)

    loopback.script(behave)
    client = a2v.AsyncA2V(TOKEN, base_url=loopback.url.replace("http", "https"), max_retries=0)
    await submit_in_vain(client, check)
    assert loopback.connections == 1


# httpcore leaves the socket of a TLS handshake that is cancelled to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_that_stalls(run, loopback, check, quiet) -> None:
    loopback.script(TOXICS["stalls_before_the_request"])
    client = a2v.AsyncA2V(TOKEN, base_url=loopback.url.replace("http", "https"), max_retries=0, timeout=0.3)
    run(submit_in_vain, client, check)
    gc.collect()
    assert loopback.connections == 1


async def test_a_refused_connection_is_tried_again(loopback, closed_port, check) -> None:
    """The server comes up a moment later: nothing had been sent, so nothing is in doubt."""

    async with a2v.AsyncA2V(TOKEN, base_url=f"http://127.0.0.1:{closed_port}", rate_limit=None) as client:
        server = type(loopback)(port=closed_port)
        timer = threading.Timer(0.1, server.start)
        timer.start()
        try:
            task = await client.videos.generate(**JOB)
        finally:
            timer.join()
            server.stop()
    assert task.video_id == "v1"
    assert server.posts == 1


# -- certificates -----------------------------------------------------------------------------------------------------


async def test_certificates_that_cannot_be_loaded(monkeypatch, check, tmp_path) -> None:
    from a2v._async import transport

    transport._new_ssl_context.cache_clear()
    bad = tmp_path / "bad.pem"
    bad.write_text("this is no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(bad))
    client = a2v.AsyncA2V(TOKEN, max_retries=0)  # makes no context, so it does not mind
    with pytest.raises(a2v.ConfigurationError, match="SSL_CERT_FILE") as caught:
        await client.videos.generate(**JOB)
    check(caught.value)


# -- proxies ----------------------------------------------------------------------------------------------------------


async def refuse(conn) -> None:
    await conn.head()
    await conn.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


async def hang_up(conn) -> None:
    await conn.head()
    await conn.send(b"HTTP/1.1 200 Connection established\r\n\r\n")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", "http://user:pass@", ""])
@pytest.mark.parametrize("behave", [refuse, hang_up], ids=["refuses", "hangs up"])
async def test_a_proxy_of_the_environment(loopback, monkeypatch, check, *, quiet, variable, scheme, behave) -> None:
    """It is asked for a tunnel; its refusal, or TLS that fails behind it, means that nothing was submitted."""
    monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{loopback.port}")
    loopback.script(behave)
    said = await submit_in_vain(a2v.AsyncA2V(TOKEN, base_url="https://api.example", max_retries=0), check)
    assert "pass" not in said
    assert loopback.connections == 1
    assert {(request.method, request.target) for request in loopback.requests} == {("CONNECT", "api.example:443")}
    assert not any("authorization" in request.headers for request in loopback.requests)
    assert loopback.posts == 0


async def test_loopback_goes_through_no_proxy(dial, loopback, closed_port, monkeypatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port}")
        monkeypatch.setenv(variable.lower(), f"http://127.0.0.1:{closed_port}")
    async with dial() as client:
        assert await client.characters.list() == []
    async with dial(base_url=loopback.url.replace("127.0.0.1", "localhost")) as client:
        assert await client.characters.list() == []


async def test_exceptions_from_the_proxy(loopback, monkeypatch, check) -> None:
    monkeypatch.setenv("HTTPS_PROXY", loopback.url)
    monkeypatch.setenv("NO_PROXY", ".invalid")
    await submit_in_vain(a2v.AsyncA2V(TOKEN, base_url="https://api.invalid", max_retries=0), check)
    assert loopback.connections == 0


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "127.0.0.1:port"])
async def test_a_proxy_that_cannot_be_used(monkeypatch, check, proxy) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.replace("127", "user:s3cret@127"))
    async with a2v.AsyncA2V(TOKEN, max_retries=0) as client:
        with pytest.raises(a2v.ConfigurationError, match="proxy") as caught:
            await client.videos.generate(**JOB)
    assert "s3cret" not in str(caught.value)
    check(caught.value)


# -- in the middle of a wait ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resets_after_the_request", "bad chunk", "stalls_in_the_body"])
async def test_a_wait_outlives_it(dial, loopback, name) -> None:
    looks = iter([GOOD, None, None, GOOD.replace(b'"pending"', b'"finished", "video_url": "https://x/v"')])

    async def serve(conn) -> None:
        reply = next(looks)
        if reply is None:
            await TOXICS[name](conn)
        else:
            await conn.request()
            await conn.reply(reply, "200 OK", "Connection: close")

    loopback.script(serve)
    async with dial(timeout=0.3) as client:
        with anyio.fail_after(30):
            assert (await client.videos.task("v").wait()).video_url == "https://x/v"
    assert loopback.connections == 4
