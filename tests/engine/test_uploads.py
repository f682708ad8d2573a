"""Uploads: what the engine accepts, keeps and deletes."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sqlite3

import anyio
import httpx
import pytest

from a2v.engine import LocalEngine, http_connections, uploads

GENERATE, UPLOADS = "/v1/a2v/video.generate", "/v1/a2v/uploads"
HELLO = b"hello"
SHA = hashlib.sha256(HELLO).hexdigest()
PATH = f"{UPLOADS}/{SHA}"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def options():
    return {}


@pytest.fixture
async def engine(quick_renders, data_dir, options):
    async with LocalEngine(data_dir=data_dir, token="t", **options) as running:
        yield running


@pytest.fixture
async def http(engine):
    async with httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as client:
        yield client


def stored(data_dir) -> list[str]:
    return sorted(path.name for path in (data_dir / "uploads").iterdir())


async def until(condition) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # another thread makes it true
            await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_an_upload_is_stored_privately_and_rendered(http, data_dir, poll_until):
    assert (await http.get(UPLOADS)).json()["data"] == {
        "max_bytes": 100 * 2**20,
        "max_seconds": 120.0,
        "keep_seconds": 86400.0,
    }
    missing = await http.get(PATH)
    assert (missing.status_code, missing.json()["code"]) == (404, 10001)
    sent = await http.put(PATH, content=HELLO, params={"name": "My speech.wav"})
    assert sent.json()["data"] == {"audio_url": f"upload://{SHA}", "size": 5} | {
        "expires": sent.json()["data"]["expires"]
    }
    assert (await http.get(PATH)).json()["data"]["audio_url"] == f"upload://{SHA}"
    assert stored(data_dir) == [SHA]
    if os.name == "posix":
        assert (data_dir / "uploads" / SHA).stat().st_mode & 0o777 == 0o600
        assert (data_dir / "uploads").stat().st_mode & 0o777 == 0o700
    job = {"model_id": "eva_a0008", "audio_url": f"upload://{SHA}"}
    video_id = (await http.post(GENERATE, json=job)).json()["data"]["video_id"]
    video = await poll_until(http, video_id, "finished")
    assert (await http.get(video["video_url"])).text == "eva_a0008 --size 512: hello"


@pytest.mark.anyio
async def test_no_route_sends_the_content(http):
    await http.put(PATH, content=HELLO)
    for path in (PATH, f"/files/{SHA}.mp4", f"/uploads/{SHA}", f"{PATH}/content"):
        reply = await http.get(path)
        assert reply.content != HELLO
        assert reply.headers["content-type"] == "application/json"


@pytest.mark.anyio
async def test_it_needs_the_token_and_nothing_is_stored_without(engine, http, data_dir):
    async with httpx.AsyncClient(base_url=engine.base_url) as stranger:
        for headers in ({}, {"Authorization": "x"}, {"Authorization": "Basic eDp0"}):
            for method, path in (("GET", UPLOADS), ("GET", PATH), ("PUT", PATH)):
                assert (await stranger.request(method, path, headers=headers, content=HELLO)).status_code == 401
    evil = await http.put(PATH, content=HELLO, headers={"Origin": "https://evil.example"})
    assert evil.status_code == 403
    assert stored(data_dir) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        (f"{UPLOADS}/{SHA.upper()}", HELLO, 400, "64 hexadecimal digits in lower case"),
        (f"{UPLOADS}/{SHA[:-1]}", HELLO, 400, "64 hexadecimal digits"),
        (f"{UPLOADS}/..%2F..%2Ftoken", HELLO, 404, "there is no"),
        (PATH, b"other", 409, "the content does not have this SHA-256"),
        (PATH, b"", 400, "empty"),
    ],
)
async def test_what_is_refused(http, path, content, status, said):
    reply = await http.put(path, content=content)
    assert (reply.status_code, reply.json()["data"]) == (status, None)
    assert said in reply.json()["message"]
    assert (await http.get(PATH)).status_code == 404


@pytest.mark.anyio
async def test_a_body_of_unknown_length_is_refused(http, data_dir):
    async def body():
        yield HELLO

    reply = await http.put(PATH, content=body())
    assert (reply.status_code, stored(data_dir)) == (411, [])


@pytest.mark.anyio
async def test_the_size_is_limited_before_anything_is_read(http, data_dir, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 4)
    reply = await http.put(PATH, content=HELLO)
    assert (reply.status_code, stored(data_dir)) == (413, [])
    assert "compressed format" in reply.json()["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("options", [{"max_uploads_mib": 1}])
async def test_the_space_is_limited(http, data_dir):
    big = bytes(700 * 1024)
    sha256 = hashlib.sha256(big).hexdigest()
    assert (await http.put(f"{UPLOADS}/{sha256}", content=big)).status_code == 200
    other = b"x" + big
    refused = await http.put(f"{UPLOADS}/{hashlib.sha256(other).hexdigest()}", content=other)
    assert refused.status_code == 507
    assert "--max-uploads-mib" in refused.json()["message"]
    # It is there already, so it needs no space.
    assert (await http.put(f"{UPLOADS}/{sha256}", content=big)).status_code == 200
    assert (await http.put(PATH, content=HELLO)).status_code == 200
    assert stored(data_dir) == sorted([SHA, sha256])


@pytest.mark.anyio
async def test_a_full_disk_is_reported_and_leaves_nothing(http, data_dir, monkeypatch):
    move = uploads.move_durably

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(uploads, "move_durably", full)
    reply = await http.put(PATH, content=HELLO)
    assert (reply.status_code, stored(data_dir)) == (503, [])
    assert "the disk cannot be used" in reply.json()["message"]
    assert reply.headers["retry-after"]
    monkeypatch.setattr(uploads, "move_durably", move)
    with anyio.fail_after(20):
        while (await http.put(PATH, content=HELLO)).status_code != 200:  # noqa: ASYNC110  # until the engine has tested the disk
            await anyio.sleep(0.05)


def _begin(engine, sent: bytes) -> socket.socket:
    host, port = engine.base_url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=20)
    head = f"PUT {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: t\r\nContent-Length: {len(HELLO)}\r\n\r\n"
    sock.sendall(head.encode() + sent)
    return sock


@pytest.mark.anyio
async def test_an_aborted_upload_leaves_nothing(engine, http, data_dir):
    with _begin(engine, HELLO[:3]):
        await until(lambda: stored(data_dir))
        assert stored(data_dir) != [SHA]
    await until(lambda: not stored(data_dir))
    assert (await http.get(PATH)).status_code == 404
    assert "a2v_uploads_bytes 0" in (await http.get("/metrics")).text.splitlines()


@pytest.mark.anyio
async def test_an_upload_may_take_longer_than_other_bodies(engine, http, data_dir, monkeypatch):
    monkeypatch.setattr(http_connections, "BODY_SECONDS", 0.1)
    monkeypatch.setattr("a2v.engine.app.MAX_SECONDS", 20.0)
    with _begin(engine, HELLO[:3]) as slow, _begin(engine, b"") as refused:
        # Another request without the token is closed in time; the upload is still open then.
        refused.close()
        with socket.create_connection(slow.getpeername(), timeout=20) as stranger:
            stranger.sendall(f"PUT {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx".encode())
            received = b""
            while block := await anyio.to_thread.run_sync(stranger.recv, 4096):
                received += block
            assert b"401" in received.partition(b"\r\n")[0]
        slow.sendall(HELLO[3:])
        assert b"200" in (await anyio.to_thread.run_sync(slow.recv, 4096)).partition(b"\r\n")[0]


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "said"), [("MAX_SECONDS", "took longer"), ("PROGRESS_SECONDS", "less than 4 KiB")])
async def test_a_client_that_sends_too_slowly_is_given_up(engine, data_dir, monkeypatch, name, said):
    monkeypatch.setattr(uploads, name, 0.2)
    with _begin(engine, HELLO[:3]) as slow:
        received = ""
        while "}" not in received:
            received += (await anyio.to_thread.run_sync(slow.recv, 4096)).decode()
    assert "408" in received.partition("\r\n")[0]
    assert said in received
    await until(lambda: not stored(data_dir))


@pytest.mark.anyio
async def test_uploads_that_were_not_used_for_a_day_are_deleted(
    quick_renders, data_dir, child, monkeypatch, poll_until
):
    monkeypatch.setattr("a2v.engine.render_queue.SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(uploads, "KEEP_SECONDS", -1.0)
    needed = child.says.encode()
    sha256 = hashlib.sha256(needed).hexdigest()
    async with (
        LocalEngine(data_dir=data_dir, token="t", workers=1) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as http,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, "KEEP_SECONDS", 60.0)
            await http.put(f"{UPLOADS}/{sha256}", content=needed)
            job = {"model_id": "eva_a0008", "audio_url": f"upload://{sha256}"}
            await http.post(GENERATE, json=job)
        await http.get(f"{UPLOADS}/{sha256}")  # lets it expire, but a task needs it
        await http.put(PATH, content=HELLO)
        await until(lambda: stored(data_dir) == [sha256])
        gone = await http.post(GENERATE, json=job | {"audio_url": f"upload://{SHA}"})
        assert (gone.status_code, gone.json()["code"]) == (404, 10001)
        assert "upload the recording again" in gone.json()["message"]


@pytest.mark.anyio
async def test_an_upload_survives_a_restart_and_leftovers_do_not(quick_renders, data_dir, monkeypatch):
    for again in (False, True):
        async with (
            LocalEngine(data_dir=data_dir, token="t") as engine,
            httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as http,
        ):
            if again:
                assert stored(data_dir) == [SHA]
                assert (await http.get(PATH)).status_code == 200
                assert (await http.get(f"{UPLOADS}/{'0' * 64}")).status_code == 404
            else:
                await http.put(PATH, content=HELLO)
        if not again:
            (data_dir / "uploads/leftover.part").write_bytes(b"half")
            with sqlite3.connect(data_dir / "tasks.sqlite3") as db:
                db.execute("INSERT INTO uploads VALUES (?, '', 1, 1e11)", ("0" * 64,))
            db.close()


@pytest.mark.anyio
async def test_bad_urls_of_uploads(http):
    for url in ("upload://abc", f"upload://{SHA.upper()}", f"upload://{SHA}/x", f"UPLOAD://{SHA}"):
        reply = await http.post(GENERATE, json={"model_id": "eva_a0008", "audio_url": url})
        assert (reply.status_code, reply.json()["data"]) == (400, None), url


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("speech.wav", "speech.wav"),
        ("C:\\talks\\Lektion 11.wav", "Lektion 11.wav"),
        ("../../etc/passwd", "passwd"),
        ("a\x1b[31m\nb\u202e", "a [31m b"),
        ("", "recording"),
        ("x" * 500, "x" * 200),
    ],
)
def test_names_are_fit_to_be_shown(name, shown):
    assert uploads.clean_name(name) == shown


@pytest.mark.anyio
async def test_a_file_system_without_hard_links(http, data_dir, monkeypatch, poll_until):
    def refused(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    await http.put(PATH, content=HELLO)
    job = {"model_id": "eva_a0008", "audio_url": f"upload://{SHA}"}
    video_id = (await http.post(GENERATE, json=job)).json()["data"]["video_id"]
    video = await poll_until(http, video_id, "finished")
    assert (await http.get(video["video_url"])).text == "eva_a0008 --size 512: hello"
