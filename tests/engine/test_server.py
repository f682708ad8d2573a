"""Running an engine: in an ``async with`` block, and as a program."""

from __future__ import annotations

import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import wave
from contextlib import closing

import anyio
import httpx
import pytest

import a2v
import a2v.engine
from a2v.engine import LocalEngine, Settings, serve, server
from a2v.engine.task_store import TaskStore
from a2v.errors import ConfigurationError
from tests.sets import one_by_default

pytestmark = pytest.mark.both_backends

GENERATE = "/v1/a2v/video.generate"


def client_of(engine) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token})


async def submit(client: httpx.AsyncClient, audio_url: str) -> str:
    reply = await client.post(GENERATE, json={"model_id": "eva_a0008", "audio_url": audio_url})
    return reply.json()["data"]["video_id"]


def answers(engine) -> bool:
    host, port = engine.base_url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0


# -- LocalEngine ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_engine_runs_for_the_length_of_a_block(quick_renders, recordings, say, poll_until):
    async with LocalEngine(allow_files=recordings) as engine, client_of(engine) as client:
        video = await poll_until(client, await submit(client, say("hello")), "finished")
        assert video["video_url"].startswith(engine.base_url)
        assert (await client.get(video["video_url"])).text == "eva_a0008 --size 512: hello"
    assert not answers(engine)


@pytest.mark.anyio
async def test_the_sdk_talks_to_it(quick_renders, recordings, say, tmp_path):
    async with (
        LocalEngine(allow_files=recordings) as engine,
        a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client,
    ):
        assert "eva_a0008" in {character.model_id for character in await client.characters.list()}
        task = await client.videos.generate(model_id="eva_a0008", audio_url=say("hello"))
        assert (await task.wait()).status is a2v.VideoStatus.FINISHED
        path = await task.download(tmp_path / "hello.mp4")
        assert path.read_text() == "eva_a0008 --size 512: hello"
        with pytest.raises(a2v.APIError, match="nobody"):
            await client.videos.generate(model_id="nobody", audio_url=say("hello"))
        failing = await client.videos.generate(model_id="eva_a0008", audio_url=say("bad"))
        with pytest.raises(a2v.VideoFailedError) as failed:
            await failing.wait()
        assert failed.value.video.raw["message"] == "this is no recording"


def test_it_really_renders(tmp_path):
    """A one-second tone becomes a video with picture and sound."""
    pytest.importorskip("a2v.engine.worker")
    import av

    with wave.open(str(tmp_path / "tone.wav"), "wb") as tone:
        tone.setparams((1, 2, 16000, 0, "NONE", ""))
        tone.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 8))) for n in range(16000)))

    async def main() -> None:
        async with (
            LocalEngine(allow_files=tmp_path) as engine,
            a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client,
        ):
            audio_url = (tmp_path / "tone.wav").as_uri()
            task = await client.videos.generate(model_id="eva_a0008", audio_url=audio_url)
            await task.download(tmp_path / "tone.mp4")

    anyio.run(main)
    with av.open(str(tmp_path / "tone.mp4")) as video:
        assert [stream.type for stream in video.streams] == ["video", "audio"]
        assert (video.streams.video[0].width, video.streams.video[0].height) == (512, 512)
        assert video.duration / av.time_base == pytest.approx(1, abs=0.2)


@pytest.mark.anyio
async def test_every_engine_has_its_own_token_and_port():
    async with LocalEngine() as one, LocalEngine() as other:
        assert one.token != other.token
        assert one.base_url != other.base_url
        async with client_of(one) as client:
            assert (await client.get("/v1/a2v/video.list")).json()["data"] == []
            headers = {"Authorization": other.token}
            assert (await client.get("/v1/a2v/video.list", headers=headers)).status_code == 401


@pytest.mark.anyio
async def test_an_engine_can_be_entered_again():
    engine = LocalEngine(token="mine")
    for _ in range(2):
        async with engine, client_of(engine) as client:
            assert engine.token == "mine"
            assert (await client.get("/v1/a2v/character.list")).status_code == 200


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_renders")
async def test_leaving_the_block_kills_renders_and_leaves_nothing(recordings, say, tmp_path, monkeypatch, child):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = set(threading.enumerate())
    async with LocalEngine(allow_files=recordings) as engine, client_of(engine) as client:
        await submit(client, say(child.says))
        pid = await child.pid()
        assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert not child.is_alive(pid)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert "a2v engine" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_a_synchronous_block(quick_renders, recordings, say, tmp_path, data_dir):
    with (
        LocalEngine(data_dir=data_dir, allow_files=recordings) as engine,
        a2v.A2V(engine.token, base_url=engine.base_url) as client,
    ):
        task = client.videos.generate(model_id="eva_a0008", audio_url=say("hello"))
        assert task.wait().status is a2v.VideoStatus.FINISHED
        with pytest.raises(ConfigurationError, match="another engine"), LocalEngine(data_dir=data_dir):
            raise AssertionError("it should not get here")
    assert not answers(engine)
    with pytest.raises(RuntimeError, match="of the block"), LocalEngine() as engine:
        raise RuntimeError("of the block")
    assert not answers(engine)


@pytest.mark.anyio
async def test_leaving_the_block_does_not_wait_for_a_client_that_does_not_read(
    quick_renders, recordings, say, poll_until, data_dir
):
    with socket.socket() as lazy:
        async with LocalEngine(data_dir=data_dir, allow_files=recordings) as engine, client_of(engine) as client:
            video = await poll_until(client, await submit(client, say("hello")), "finished")
            path = data_dir / "videos" / f"{video['video_id']}.mp4"
            with path.open("wb") as file:
                file.truncate(64 * 1024 * 1024)
            lazy.connect((client.base_url.host, client.base_url.port))
            lazy.sendall(f"GET /files/{path.name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert await anyio.to_thread.run_sync(lazy.recv, 12) == b"HTTP/1.1 200"


@pytest.mark.anyio
async def test_cancelling_the_block_ends_the_engine():
    with anyio.CancelScope() as scope:
        async with LocalEngine() as engine:
            scope.cancel()
            await anyio.sleep_forever()
    assert not answers(engine)


@pytest.mark.anyio
async def test_cancelling_the_start_ends_the_engine():
    before = set(threading.enumerate())
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with LocalEngine():
            raise AssertionError("it should not get here")
    assert "a2v engine" not in {thread.name for thread in set(threading.enumerate()) - before}


@pytest.mark.anyio
async def test_a_data_folder_keeps_everything(quick_renders, recordings, say, poll_until, data_dir):
    async with LocalEngine(data_dir=data_dir, token="t", allow_files=recordings) as engine, client_of(engine) as client:
        video_id = (await poll_until(client, await submit(client, say("hello")), "finished"))["video_id"]
    async with LocalEngine(data_dir=data_dir, token="t") as engine, client_of(engine) as client:
        video = (await client.get("/v1/a2v/video.get", params={"video_id": video_id})).json()["data"]
        assert (await client.get(video["video_url"])).text == "eva_a0008 --size 512: hello"


@pytest.mark.anyio
async def test_a_data_folder_in_use_is_refused(data_dir):
    async with LocalEngine(data_dir=data_dir):
        with pytest.raises(ConfigurationError, match="another engine"):
            async with LocalEngine(data_dir=data_dir):
                pass


@pytest.mark.anyio
async def test_a_data_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"data_dir: .* is not a folder"):
        async with LocalEngine(data_dir=tmp_path / "file" / "data"):
            pass


@pytest.mark.anyio
async def test_a_port_in_use_is_refused():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with LocalEngine(port=port):
                pass


def test_small_responses_are_sent_without_delay():
    """The second packet of a response is not held back until the first is acknowledged (Nagle's algorithm)."""
    with (
        server._listen(Settings()) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 500}, "size must be one of 512, 720, 1080"),
        ({"workers": 0}, "workers"),
        ({"queue_limit": 0}, "queue_limit"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"quota": 0}, "quota"),
        ({"max_audio_seconds": 0}, "max_audio_seconds"),
        ({"max_audio_seconds": float("nan")}, "max_audio_seconds"),
        ({"keep_days": -1}, "keep_days"),
        ({"keep_days": True}, "keep_days"),
        ({"queue_limit": None}, "queue_limit must be a whole number of at least 1"),
        ({"max_render_seconds": None}, "max_render_seconds must be a number above 0"),
        ({"max_render_mib": 399}, "max_render_mib must be a whole number of at least 400"),
        ({"revision": "third"}, "revision must be one of seed, later"),
        ({"port": 70000}, "port"),
        ({"token": "two words"}, "token"),
        ({"token": ""}, "token"),
        ({"allow_files": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_invalid_settings_are_refused_at_once(wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        LocalEngine(**wrong)


def test_a_local_engine_listens_on_loopback_only():
    with pytest.raises(ConfigurationError, match=r"on loopback only, not on host='0\.0\.0\.0'"):
        LocalEngine(settings=Settings(host="0.0.0.0"))


def test_a_local_engine_takes_settings_or_keywords():
    with pytest.raises(TypeError, match="pass data_dir, size, fps as part of settings"):
        LocalEngine("data", settings=Settings(), size=720, fps=30)
    with pytest.raises(ConfigurationError, match=r"settings must be a2v\.engine\.Settings, got 'data'"):
        LocalEngine(settings="data")


def test_a_local_engine_takes_the_folder_and_the_token_by_position(tmp_path):
    assert LocalEngine(tmp_path, "t")._settings == Settings(data_dir=tmp_path, token="t")


def test_the_token_is_not_shown():
    assert "canary" not in repr(Settings(token="canary"))
    with pytest.raises(ConfigurationError) as caught:
        Settings(token="canary canary")
    assert "canary" not in str(caught.value)


# -- serve ------------------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from a2v.engine import Settings, renderer, serve
command, settings = map(json.loads, sys.argv[1:])
renderer.WORKER = tuple(command)
serve(Settings(**settings), ready=lambda url: print(url, flush=True))
print("stopped", flush=True)
"""


@pytest.fixture
def program(stand_in, recordings, data_dir):
    """Start ``serve`` in a process of its own; terminate it at the end."""
    import json

    started = []

    def start(**settings):
        everything = {"token": "t", "data_dir": str(data_dir), "allow_files": str(recordings)} | settings
        command = [sys.executable, "-c", PROGRAM, json.dumps(stand_in), json.dumps(everything)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)
        started.append(process)
        url = process.stdout.readline().strip()
        return process, httpx.AsyncClient(base_url=url, headers={"Authorization": "t"})

    yield start
    for process in started:
        process.terminate()  # not kill(), so that it stops its children
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals the POSIX way")
@pytest.mark.parametrize("number", one_by_default(signal.SIGTERM, signal.SIGINT))
@pytest.mark.anyio
async def test_a_signal_stops_it_gracefully(program, say, data_dir, number, child):
    process, client = program()
    async with client:
        video_id = await submit(client, say(child.says))
        pid = await child.pid()
        os.killpg(process.pid, number)  # to the whole process group, as a terminal does
        out, err = await anyio.to_thread.run_sync(process.communicate)
    assert (process.returncode, out, err) == (0, "stopped\n", "")
    assert not child.is_alive(pid)
    with TaskStore(data_dir / "tasks.sqlite3") as store:
        assert store.get(video_id).status is a2v.VideoStatus.PENDING


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals the POSIX way")
@pytest.mark.anyio
async def test_a_killed_engine_loses_nothing(program, say, poll_until, child):
    process, client = program(workers=1)
    async with client:
        done = await submit(client, say("hello"))
        await poll_until(client, done, "finished")
        under_way = await submit(client, say(child.says))
        orphan = await child.pid()
        waiting = await submit(client, say("hello again"))
    process.kill()
    process.wait()
    child.note.unlink()
    try:
        _, client = program(workers=2)
        async with client:
            again = await poll_until(client, waiting, "finished")
            assert (await client.get(again["video_url"])).text == "eva_a0008 --size 512: hello again"
            assert (await poll_until(client, done, "finished"))["video_id"] == done
            assert await child.pid() != orphan
            assert await poll_until(client, under_way, "in_progressing")
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_a_host_open_to_others_needs_allow_remote():
    with pytest.raises(ConfigurationError, match="allow_remote=True"):
        serve(Settings(host="0.0.0.0"))


def test_a_port_in_use_is_refused_by_serve():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="cannot listen"):
            serve(Settings(port=port))


def test_an_invalid_host_is_reported():
    with pytest.raises(ConfigurationError, match=r"cannot listen on a\.\.b:8000"):
        serve(Settings(host="a..b", port=8000), allow_remote=True)


# -- the package ------------------------------------------------------------------------------------------------------


def test_the_public_names_are_there():
    for name in a2v.engine.__all__:
        assert hasattr(a2v.engine, name)
        if name != "SAMPLE_RECORDING":
            assert getattr(a2v.engine, name).__module__.startswith("a2v.engine")
    assert a2v.engine.SAMPLE_RECORDING.is_file()
    with pytest.raises(AttributeError, match="nothing"):
        _ = a2v.engine.nothing


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr("a2v.engine.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ImportError, match=r'uvicorn\): pip install "a2v\[engine\]"'):
        from a2v.engine import LocalEngine  # noqa: F401


def test_importing_the_package_imports_no_server():
    code = "import sys, a2v.engine; print({'uvicorn', 'starlette', 'numpy', 'av'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
