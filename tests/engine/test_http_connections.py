"""Deadlines of connections, and the limit on their number."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import partial

import anyio
import httpx
import pytest

from a2v.engine import LocalEngine, http_connections
from a2v.engine.http_connections import max_connections

GENERATE = "/v1/a2v/video.generate"
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = HEAD + b"\r\n"
POST = (
    b"POST /v1/a2v/video.generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Authorization: t\r\nContent-Length: 600\r\n\r\n"
)
OK = b"HTTP/1.1 200"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def short(monkeypatch):
    """Short deadlines."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "STALLED_SECONDS"):
        monkeypatch.setattr(http_connections, name, 0.2)


@pytest.fixture
async def engine(quick_renders, recordings, data_dir):
    async with LocalEngine(data_dir=data_dir, token="t", allow_files=recordings) as running:
        yield running


@pytest.fixture
def connect(engine):
    """Open connections, which are closed at the end."""
    with ExitStack() as opened:
        host, port = engine.base_url.removeprefix("http://").split(":")
        yield lambda: opened.enter_context(socket.create_connection((host, int(port)), timeout=20))


def receive(sock: socket.socket) -> bytes:
    """Return everything received until the connection is closed."""
    received = bytearray()
    try:
        while block := sock.recv(65536):
            received += block
    except ConnectionResetError:
        pass
    return bytes(received)


in_thread = anyio.to_thread.run_sync

INCOMPLETE = {
    "nothing": (b"", 0),
    "a byte": (b"G", 0),
    "half a head": (HEAD, 0),
    "half of a second head": (WHOLE + HEAD, 1),
    "a byte of a third head": (WHOLE + WHOLE + b"G", 2),
    "no body": (POST, 0),
    "half a body": (POST + b'{"model_id"', 0),
    "half a body, and the wrong token": (POST.replace(b": t", b": x") + b"{", 0),
    "half a body of a GET": (HEAD + b"Content-Length: 9\r\n\r\nabc", 1),
    "half a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc", 1),
}


@pytest.mark.anyio
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("what", INCOMPLETE)
async def test_a_connection_without_a_complete_request_is_closed(connect, what):
    sent, answers = INCOMPLETE[what]
    sock = connect()
    sock.sendall(sent)
    assert (await in_thread(receive, sock)).count(OK) == answers


@pytest.mark.anyio
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("before", "drops"), [(b"", HEAD), (WHOLE, HEAD), (POST, b"x" * 500)], ids=range(3))
async def test_sending_slowly_does_not_extend_the_deadline(connect, before, drops):
    def drip(sock: socket.socket) -> int:
        sock.settimeout(0.02)
        sock.sendall(before)
        for number, drop in enumerate(drops * 100):
            try:
                sock.sendall(bytes([drop]))
                while sock.recv(1024):
                    pass
            except TimeoutError:
                continue
            except OSError:
                pass
            return number
        raise AssertionError("it was never closed")

    assert 0 < await in_thread(drip, connect()) < 400


@pytest.mark.anyio
@pytest.mark.usefixtures("short")
async def test_a_connection_between_two_requests_stays_open(connect):
    sock = connect()
    for _ in range(2):
        sock.sendall(WHOLE)
        assert sock.recv(12) == OK
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            await in_thread(receive, sock)


@pytest.fixture
async def large(engine, say, poll_until, data_dir):
    """A request for a video that is larger than all buffers."""
    async with httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as client:
        job = {"model_id": "eva_a0008", "audio_url": say("hello")}
        video_id = (await client.post(GENERATE, json=job)).json()["data"]["video_id"]
        await poll_until(client, video_id, "finished")
    with (data_dir / "videos" / f"{video_id}.mp4").open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    return f"GET /files/{video_id}.mp4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.anyio
async def test_a_slow_download_is_not_closed(connect, large, monkeypatch):
    monkeypatch.setattr(http_connections, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(http_connections, "BODY_SECONDS", 0.1)
    sock = connect()
    sock.sendall(large)
    assert sock.recv(12) == OK
    await anyio.sleep(0.3)
    assert len(await in_thread(receive, sock)) > 32 * 1024 * 1024


@pytest.mark.anyio
@pytest.mark.usefixtures("short")
async def test_a_client_that_receives_nothing_of_a_response_is_disconnected(connect, large):
    sock = connect()
    sock.sendall(large)
    await anyio.sleep(1)
    assert len(await in_thread(receive, sock)) < 32 * 1024 * 1024


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(http_connections, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr("a2v.engine.server.max_connections", lambda _: 3)


@pytest.mark.anyio
async def test_a_new_connection_replaces_an_idle_one(few, connect):
    idle = [connect() for _ in range(9)]
    asking = connect()
    asking.sendall(WHOLE)
    assert await in_thread(asking.recv, 12) == OK
    idle[0].settimeout(20)
    for sock in idle[:7]:
        assert await in_thread(receive, sock) == b""


@pytest.mark.anyio
async def test_a_busy_connection_is_not_closed_to_make_room(few, connect, large, monkeypatch):
    monkeypatch.setattr(http_connections, "GRACE_SECONDS", 10)
    busy = [connect() for _ in range(3)]
    for sock in busy:
        sock.sendall(large)
        assert await in_thread(sock.recv, 12) == OK
    waiting = connect()
    waiting.sendall(WHOLE)
    waiting.settimeout(0.3)
    with pytest.raises(TimeoutError):
        await in_thread(waiting.recv, 12)
    assert len(await in_thread(receive, busy[0])) > 32 * 1024 * 1024
    waiting.settimeout(20)
    assert await in_thread(waiting.recv, 12) == OK


def test_the_number_of_connections_stays_below_the_limit_of_open_files():
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = {}
    try:
        for files in (64, 256, 1024):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
            found[files] = max_connections(workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    assert found == {64: 8, 256: 81, 1024: 465}


@pytest.mark.anyio
async def test_a_connection_that_cannot_be_accepted_is_accepted_later(engine, connect, monkeypatch):
    """Even if the process has used up its file descriptors."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(http_connections, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr("a2v.engine.exhaustion.INITIAL_BACKOFF", 0.05)
    known = connect()
    known.sendall(WHOLE)
    assert await in_thread(known.recv, 12) == OK
    late = socket.socket()
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        late.settimeout(0.3)
        # Not before the limit is set: the server accepts connections immediately.
        late.connect(known.getpeername())
        late.sendall(WHOLE)
        with pytest.raises(TimeoutError):
            await in_thread(late.recv, 12)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    late.settimeout(20)
    with late:
        assert await in_thread(partial(late.recv, 9)) == OK[:9]


# -- the log of a real server -----------------------------------------------------------------------------------------

SERVER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (190, 190))
from a2v.cli.commands import run
sys.exit(run(["serve", "--port", "0", "--json", "--log-json", "--workers", "1"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits files the POSIX way")
def test_clients_can_neither_block_a_server_nor_flood_its_log():
    """With more idle connections than the process may open files, with invalid HTTP, and with WebSocket requests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("A2V_")} | {
        "A2V_TOKEN": "a-token-of-24-characters"
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=env, text=True, **pipes) as server:
        try:
            url = json.loads(server.stdout.readline())["base_url"]
            host, port = url.removeprefix("http://").split(":")
            with ExitStack() as opened:
                for number in range(200):
                    sock = opened.enter_context(socket.create_connection((host, int(port)), timeout=20))
                    sock.sendall(HEAD if number % 2 else b"")
                assert httpx.get(f"{url}/health", timeout=20).status_code == 200
                upgrade = WHOLE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                for sent in [b"\x16\x03\x01 no HTTP\r\n\r\n", upgrade] * 20:
                    with socket.create_connection((host, int(port)), timeout=20) as sock:
                        sock.sendall(sent)
                        assert sock.recv(8) == b"HTTP/1.1"
        finally:
            server.terminate()
            _, log = server.communicate(timeout=20)
    lines = [json.loads(line) for line in log.splitlines()]
    invalid, stopped = [line["message"] for line in lines if "status" not in line]
    assert invalid == "Invalid HTTP request received."
    assert stopped.startswith("the engine has stopped")
    assert len(lines) <= 23
