"""A running engine with a fake renderer, which does what the recording says."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from a2v.engine.middleware import RequestLimiter

# The text of the recording is the instruction.
STAND_IN = """
import errno, json, os, pathlib, sys, time
audio, model_id, destination, option, size, *others = sys.argv[1:]

def explain(kind, error, traceback):
    # Started while the disk was full, it may end when the disk has space again; then only this process knows the reason.
    if getattr(error, "errno", None) == errno.EFBIG:
        print(json.dumps({"ok": False, "exhausted": "the disk cannot be used"}), flush=True)
        os._exit(0)
    sys.__excepthook__(kind, error, traceback)

sys.excepthook = explain
said = pathlib.Path(audio).read_text()
pathlib.Path(destination + ".part").write_text("half a video")
if said != "liar": pathlib.Path(destination).write_text("half a video")
if said.startswith("note "):
    pathlib.Path(said[5:]).write_text(str(os.getpid()))
    said = "sleep"
if said.startswith("crash once "):
    note = pathlib.Path(said[11:])
    if not note.exists():
        note.write_text("")
        os.abort()
if said.startswith("sleep once "):
    note = pathlib.Path(said[11:])
    if not note.exists():
        note.write_text(str(os.getpid()))
        said = "sleep"
if said.startswith(("exhaust once ", "killed once ")):
    kind, _, name = said.partition(" once ")
    note = pathlib.Path(name)
    if not note.exists():
        note.write_text("")
        if kind == "killed": os.kill(os.getpid(), 9)
        print(json.dumps({"ok": False, "exhausted": "the disk is full"}))
        sys.exit()
if said == "sleep": time.sleep(600)
if said == "crash": os.abort()
if said == "exit": sys.exit("there is a bug")
if said == "babble": print("no verdict")
elif said == "liar": print(json.dumps({"ok": True}))
elif said == "bad": print(json.dumps({"ok": False, "message": "this is no recording"}))
else:
    if "--character" in others:
        character = json.loads(pathlib.Path(others[others.index("--character") + 1]).read_text())
        said += f" by {character['drawn']['display_name']}"
    pathlib.Path(destination).write_text(f"{model_id} {option} {size}: {said}" + os.environ.get("A2V_TOKEN", ""))
    if "--mask" in others: pathlib.Path(others[others.index("--mask") + 1]).write_text(f"mask of {said}")
    if "--vtt" in others: pathlib.Path(others[others.index("--vtt") + 1]).write_text("captions")
    print(json.dumps({"ok": True} | ({"warning": "no speech"} if said.startswith("silence") else {})))
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """The command of the fake renderer."""
    script = tmp_path_factory.mktemp("renderer") / "renderer.py"
    script.write_text(STAND_IN)
    return (sys.executable, "-S", "-E", str(script))


@pytest.fixture
def quick_renders(stand_in, monkeypatch):
    """Every engine of the test uses the fake renderer."""
    monkeypatch.setattr("a2v.engine.renderer.WORKER", stand_in)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """A folder that engines may read: ``say("hello")`` writes a recording to it and returns its URL."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="session")
def say(recordings):
    def say(what: str) -> str:
        path = recordings / f"{abs(hash(what))}.wav"
        if not path.exists():  # an engine may be reading it
            path.write_text(what)
        return path.as_uri()

    return say


# Per module, not per session: tests elsewhere use the real renderer.
@pytest.fixture(scope="module")
def engine(stand_in, recordings):
    """One engine for all tests of a module that only talk to it."""
    from a2v.engine import LocalEngine

    with pytest.MonkeyPatch.context() as patch, start_blocking_portal() as portal:
        patch.setattr("a2v.engine.renderer.WORKER", stand_in)
        with portal.wrap_async_context_manager(LocalEngine(workers=4, allow_files=recordings)) as running:
            yield running


@pytest.fixture
def http(engine):
    """A client of the shared engine that sends its token."""
    with httpx.Client(base_url=engine.base_url, headers={"Authorization": f"Bearer {engine.token}"}) as client:
        yield client


@pytest.fixture(scope="session")
def poll_until():
    """``await poll_until(client, video_id, "finished")``: poll a video until it has the status; return its data."""

    async def poll_until(client: httpx.AsyncClient, video_id: str, *statuses: str) -> dict[str, str]:
        with anyio.fail_after(20):
            while True:
                reply = await client.get("/v1/a2v/video.get", params={"video_id": video_id})
                if reply.json()["data"]["status"] in statuses:
                    return reply.json()["data"]
                await anyio.sleep(0.02)

    return poll_until


@pytest.fixture(scope="session")
def model_id() -> str:
    return "eva_a0008"


@pytest.fixture(scope="module")
def finished(engine, say, model_id):
    """A finished video of the shared engine, as returned by `video.get`."""
    headers = {"Authorization": engine.token}
    with httpx.Client(base_url=engine.base_url, headers=headers) as client:
        job = {"model_id": model_id, "audio_url": say("hello")}
        video_id = client.post("/v1/a2v/video.generate", json=job).json()["data"]["video_id"]
        return _wait(client, video_id)


def _wait(client: httpx.Client, video_id: str) -> dict[str, str]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        data = client.get("/v1/a2v/video.get", params={"video_id": video_id}).json()["data"]
        if data["status"] in ("finished", "error"):
            return data
        time.sleep(0.02)
    raise AssertionError("the video does not end")


@pytest.fixture(scope="session")
def wait_for():
    """Like ``poll_until``, without an event loop, for a final status."""
    return _wait


class Child:
    """The process of a renderer that sleeps, and writes its process ID to a file."""

    def __init__(self, note: Path) -> None:
        self.note = note
        self.says = f"note {note}"
        """The text of the recording."""

    async def pid(self) -> int:
        """Wait until it runs; return its process ID."""
        with anyio.fail_after(20):
            while not (self.note.exists() and self.note.read_text()):  # noqa: ASYNC110  # another process is writing it
                await anyio.sleep(0.01)
        return int(self.note.read_text())

    @staticmethod
    def is_alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def child(tmp_path) -> Child:
    return Child(tmp_path / "pid")


@pytest.fixture
def same_minute(monkeypatch) -> None:
    """Stop the clock of the limit on requests: its window, a minute of the real clock, could end during a test."""
    monkeypatch.setattr(
        "a2v.engine.middleware.RequestLimiter", lambda total, _: RequestLimiter(total, now=lambda: 1_000_000_030.0)
    )


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "data"
