"""How a connection comes about: refused, without TLS, through a proxy of the environment; and where none may lead."""

from __future__ import annotations

import threading

import anyio
import pytest

import a2v

from .conftest import CANARY, SECRET, check, shown
from .server import Connection, Port

pytestmark = pytest.mark.anyio

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}


@pytest.fixture
def closed_port(faults) -> Port:
    """A port without a listener."""
    return faults.port(listening=False)


# -- how many --------------------------------------------------------------------------------------------------------


async def test_first_calls_at_once_make_one_pool(dial, port) -> None:
    """One too many would be lost, with its connections left open."""
    async with dial() as client, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(client.videos.get, f"v{number}")
    assert len(port.requests) == 20
    await port.emptied()


async def test_a_connection_that_closes_when_it_is_used_again(dial, port) -> None:
    """As if the server had closed it a moment before: a look goes out on a fresh one at once, and is no retry."""

    async def once(conn: Connection) -> None:
        await conn.answer(await conn.request())
        await conn.reader.readuntil(b"\r\n\r\n")

    port.behave = once
    async with dial(max_retries=0) as client:
        for number in range(20):
            assert (await client.videos.get(f"v{number}")).is_terminal
            await client.videos.generate(**JOB)
    assert len(port.requests) == 40


# -- where none may lead ---------------------------------------------------------------------------------------------


async def test_redirects_get_no_second_request(dial, port, faults) -> None:
    other = faults.port()

    async def moved(conn: Connection) -> None:
        await conn.request()
        location = f"Location: {other.url}/v1/a2v/character.list"
        await conn.reply(b"", "307 Temporary Redirect", location, "Set-Cookie: a=b")

    port.behave = moved
    async with dial() as client:
        for call in (client.characters.list, lambda: client.videos.generate(**JOB)):
            with pytest.raises(a2v.ProtocolError, match="307"):
                await call()
    assert other.connections == 0
    assert len(port.requests) == 2


async def test_cookies_are_not_kept(dial, port) -> None:
    async def bake(conn: Connection) -> None:
        while True:
            await conn.request()
            await conn.reply(b'{"code": 0, "data": []}', "200 OK", "Set-Cookie: session=1")

    port.behave = bake
    async with dial() as client:
        await client.characters.list()
        await client.characters.list()
    assert ["cookie" in request.headers for request in port.requests] == [False, False]


@pytest.mark.parametrize(
    "video_id", ["../../../admin?x=1#y", "//evil.example/v", "v&video_id=w", "a b\r\nX: y", "é/%2e%2e"]
)
async def test_ids_are_no_paths(dial, port, video_id) -> None:
    async with dial(max_retries=0) as client:
        assert (await client.videos.get(video_id)).video_id == video_id
    assert {request.target.partition("?")[0] for request in port.requests} == {"/v1/a2v/video.get"}
    assert all(request.target.count("=") == 1 and "#" not in request.target for request in port.requests)


# -- never sent ------------------------------------------------------------------------------------------------------


async def submit_in_vain(client: a2v.AsyncA2V) -> str:
    async with client:
        with pytest.raises(a2v.A2VError) as caught, anyio.fail_after(20):
            await client.videos.generate(**JOB)
    assert type(caught.value) is a2v.TransportError
    check(caught.value)
    return str(caught.value)


async def test_a_port_without_a_listener(closed_port) -> None:
    told = await submit_in_vain(a2v.AsyncA2V(CANARY, base_url=closed_port.url, max_retries=1))
    assert told.startswith(f"{closed_port.url}: ConnectError")


async def test_no_such_host() -> None:
    told = await submit_in_vain(a2v.AsyncA2V(CANARY, base_url="https://does-not-exist.invalid", max_retries=0))
    assert told.startswith("https://does-not-exist.invalid: ConnectError")


async def test_a_host_name_that_cannot_be_looked_up() -> None:
    with pytest.raises(a2v.ConfigurationError, match="host") as caught:
        await a2v.AsyncA2V(CANARY, base_url="https://a..b").videos.generate(**JOB)
    check(caught.value)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_no_tls(port, reply) -> None:
    async def behave(conn: Connection) -> None:
        await conn.send(reply)

    port.behave = behave
    await submit_in_vain(a2v.AsyncA2V(CANARY, base_url=port.url.replace("http", "https"), max_retries=0))
    assert port.connections == 1
    await port.emptied()


@pytest.mark.parametrize("through", ["directly", "a proxy"])
@pytest.mark.parametrize("ended", ["by the time-out", "by cancellation"])
async def test_tls_that_stalls(port, monkeypatch, *, through, ended) -> None:
    """The socket is closed at once, not when the garbage collector comes by (whose warning would fail this)."""

    async def behave(conn: Connection) -> None:
        if through == "a proxy":
            await conn.head()
            await conn.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        hellos.append(await conn.reader.read(1))
        await conn.stall()

    hellos: list[bytes] = []
    port.behave = behave
    base_url = port.url.replace("http", "https")
    if through == "a proxy":
        base_url = "https://api.example"
        monkeypatch.setenv("HTTPS_PROXY", port.url)
    client = a2v.AsyncA2V(CANARY, base_url=base_url, max_retries=0, timeout=0.5 if ended == "by the time-out" else 60)
    async with client:
        if ended == "by the time-out":
            await submit_in_vain(client)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: client.videos.generate(**JOB))
                await port.until(lambda: hellos)
                group.cancel_scope.cancel()
        await port.emptied()
    assert port.connections == 1


async def test_a_refused_connection_is_tried_again(closed_port) -> None:
    """The server comes up a moment later: nothing had been sent, so nothing is in doubt."""
    async with a2v.AsyncA2V(CANARY, base_url=closed_port.url, rate_limit=None) as client:
        timer = threading.Timer(0.1, closed_port.listen)
        timer.start()
        try:
            task = await client.videos.generate(**JOB)
        finally:
            timer.join()
    assert task.video_id == "v1"
    assert len(closed_port.submitted) == 1


# -- certificates ----------------------------------------------------------------------------------------------------


async def test_certificates_that_cannot_be_loaded(monkeypatch, tmp_path) -> None:
    from a2v._async.requests import network

    network._new_ssl_context.cache_clear()
    bad = tmp_path / "bad.pem"
    bad.write_text("this is no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(bad))
    client = a2v.AsyncA2V(CANARY, max_retries=0)  # makes no context, so it does not mind
    with pytest.raises(a2v.ConfigurationError, match="SSL_CERT_FILE") as caught:
        await client.videos.generate(**JOB)
    check(caught.value)


# -- proxies ---------------------------------------------------------------------------------------------------------


async def refuse(conn: Connection) -> None:
    await conn.head()
    await conn.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


async def hang_up(conn: Connection) -> None:
    await conn.head()
    await conn.send(b"HTTP/1.1 200 Connection established\r\n\r\n")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", "http://user:s3cret@", ""])
@pytest.mark.parametrize("behave", [refuse, hang_up], ids=["refuses", "hangs up"])
async def test_a_proxy_of_the_environment(port, monkeypatch, *, variable, scheme, behave) -> None:
    """It is asked for a tunnel; its refusal, or TLS that fails behind it, means that nothing was submitted."""
    monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{port.number}")
    port.behave = behave
    said = await submit_in_vain(a2v.AsyncA2V(CANARY, base_url="https://api.example", max_retries=0))
    assert "s3cret" not in said
    assert port.connections == 1
    assert {(request.method, request.target) for request in port.requests} == {("CONNECT", "api.example:443")}
    assert not any("authorization" in request.headers for request in port.requests)


async def test_loopback_goes_through_no_proxy(port, dial, closed_port, monkeypatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, closed_port.url)
        monkeypatch.setenv(variable.lower(), closed_port.url)
    for base_url in (port.url, port.url.replace("127.0.0.1", "localhost")):
        async with dial(base_url=base_url) as client:
            assert await client.characters.list()


async def test_exceptions_from_the_proxy(port, monkeypatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", port.url)
    monkeypatch.setenv("NO_PROXY", ".invalid")
    await submit_in_vain(a2v.AsyncA2V(CANARY, base_url="https://api.invalid", max_retries=0))
    assert port.connections == 0


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "127.0.0.1:port"])
async def test_a_proxy_that_cannot_be_used(monkeypatch, proxy) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.replace("127", "user:s3cret@127"))
    async with a2v.AsyncA2V(CANARY, max_retries=0) as client:
        with pytest.raises(a2v.ConfigurationError, match="proxy") as caught:
            await client.videos.generate(**JOB)
    check(caught.value)
    assert SECRET not in shown(caught.value)
