"""Renders on a Dask cluster of real processes, some of which are killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import av
import pytest

pytest.importorskip("distributed", reason="needs the dependency group `extended`")
psutil = pytest.importorskip("psutil", reason="needs the dependency group `extended`")

import a2v
import a2v.engine
from a2v import Job, VideoStatus
from a2v.engine import LocalEngine, Settings, create_app
from a2v.engine.dask_renderer import DaskRenderer
from a2v.engine.errors import RenderError
from a2v.engine.render_queue import RenderQueue
from a2v.engine.renderer import RenderRequest, render_in_child
from a2v.engine.task_store import TaskStore
from a2v.errors import ConfigurationError
from tests.sockets import claim

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(sys.platform == "win32", reason="kills processes the POSIX way"),
]

CLIP = min((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"), key=lambda path: path.stat().st_size)
# On the workers, FLAC is really rendered, and everything else by the fake renderer, which exits with its worker too.
PRELOAD = """
import sys
import time
from a2v.engine import renderer
choice = '''
import os, runpy, sys, threading
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
real = open(sys.argv[1], "rb").read(4) == b"fLaC"
runpy.run_module("a2v.engine.worker", run_name="__main__") if real else runpy.run_path({script!r})
'''
renderer.WORKER = (sys.executable, "-c", choice)
"""


class Cluster:
    """A scheduler and its workers, each with one thread, in processes of their own."""

    def __init__(self, folder: Path, stand_in: str) -> None:
        self._folder = folder
        self._preload = folder / "preload.py"
        self._preload.write_text(PRELOAD.replace("{script!r}", repr(stand_in)))
        # Keep the port: the scheduler is restarted on it.
        self._claimed = claim()
        self.port = self._claimed.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int, *, scheduler: bool = False) -> None:
        if scheduler:
            self._run("scheduler", "--host", "127.0.0.1", "--port", self.port)
        for _ in range(workers):
            self._run("worker", self.address, "--nthreads", 1, "--no-nanny", "--preload", self._preload)

    def wait_for_scheduler(self) -> None:
        """On a busy machine, it can take longer to start than an engine waits for it."""
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def _run(self, *words: object) -> None:
        command = [sys.executable, "-m", "dask", *map(str, words), "--no-dashboard"]
        if words[0] == "worker":
            command += ["--local-directory", str(self._folder / "scratch")]
        # A token in the environment of a worker must not reach a render either.
        env = os.environ | {"A2V_TOKEN": "canary"}
        with (self._folder / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=self._folder))

    @property
    def leftovers(self) -> list[Path]:
        """Return the files that renders have left on the workers."""
        return [path for path in (self._folder / "scratch").rglob("*") if path.name.startswith(("video", "recording"))]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def close(self) -> None:
        self.stop()
        self._claimed.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, stand_in):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), stand_in[-1])
    try:
        cluster.start(2, scheduler=True)
        cluster.wait_for_scheduler()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def render_of(tmp_path):
    """``render_of("hello")``: a request to render that recording, into a folder of its own."""
    (tmp_path / "out").mkdir()

    def render_of(said: str | bytes, **more) -> RenderRequest:
        content = said.encode() if isinstance(said, str) else said
        audio = tmp_path / hashlib.sha256(content).hexdigest()
        audio.write_bytes(content)
        return RenderRequest(audio=audio, subject_id="eva_a0008", destination=tmp_path / "out" / "video.mp4", **more)

    return render_of


@pytest.fixture
def open_queue(cluster, data_dir, recordings):
    """A render queue that renders on the cluster, and its store."""
    data_dir.mkdir()

    @asynccontextmanager
    async def open_queue():
        with TaskStore(data_dir / "tasks.sqlite3") as store:
            settings = Settings(allow_files=recordings, workers=2)
            async with RenderQueue(store, data_dir, settings, DaskRenderer(cluster.address)) as queue:
                yield queue, store

    return open_queue


@pytest.fixture
def anyio_backend() -> str:
    """Dask only supports asyncio."""
    return "asyncio"


async def written(note) -> int:
    """Return the number in a file, once the file exists."""
    with anyio.fail_after(30):
        while not (note.exists() and note.read_text()):  # noqa: ASYNC110  # another process is writing it
            await anyio.sleep(0.02)
    return int(note.read_text())


async def has_ended(pid: int) -> bool:
    """Wait until the process has ended."""

    def runs() -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    with anyio.fail_after(20):
        while runs():  # noqa: ASYNC110  # no event for it
            await anyio.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("source", "pose"),
    [
        (Path(a2v.engine.characters.__file__).with_name("eva_a0008.toml"), "front"),
        (Path(__file__).with_name("portraits") / "collins.jpg", "closeup"),
    ],
    ids=["drawn", "portrait"],
)
def test_a_video_and_its_mask_come_from_the_cluster(cluster, tmp_path, source, pose):
    """From a client's request to playable files. The workers do not have the character."""
    (tmp_path / "characters").mkdir()
    shutil.copy(source, tmp_path / "characters" / f"ada{source.suffix}")

    async def main() -> None:
        async with (
            LocalEngine(dask=cluster.address, allow_files=CLIP, characters=tmp_path / "characters") as engine,
            a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client,
        ):
            options = {"captions": "files", "captions_file": "1\n00:00:00,000 --> 00:00:01,000\nHello\n"}
            pose_id = f"ada_{pose}"
            task = await client.videos.generate(
                pose_id=pose_id, audio_url=CLIP.as_uri(), with_mask=True, options=options
            )
            await task.download(tmp_path / "video.mp4")
            await task.download(tmp_path / "video.srt", captions=True)
            await task.download(tmp_path / "mask.mp4", mask=True)

    anyio.run(main)
    lengths = []
    for name, kinds in (("video.mp4", ["video", "audio"]), ("mask.mp4", ["video"])):
        with av.open(str(tmp_path / name)) as video:
            assert [stream.type for stream in video.streams] == kinds
            lengths.append(sum(1 for _ in video.decode(video=0)))
    assert lengths[0] == lengths[1] > 25
    assert "Hello" in (tmp_path / "video.srt").read_text()
    assert cluster.leftovers == []


@pytest.mark.anyio
async def test_renders_run_side_by_side_and_end_with_the_server(cluster, open_queue, say, tmp_path, data_dir):
    notes = [tmp_path / "one", tmp_path / "other"]
    async with open_queue() as (queue, store):
        tasks = [queue.submit(Job("eva_a0008", say(f"note {note}"))).video_id for note in notes]
        children = [await written(note) for note in notes]
        workers = {psutil.Process(child).ppid() for child in children}
        assert len(workers) == 2
        assert workers <= {process.pid for process in cluster.processes}
    for child in children:
        assert await has_ended(child)
    assert [path for folder in ("videos", "work") for path in (data_dir / folder).iterdir()] == []
    with TaskStore(data_dir / "tasks.sqlite3") as store:
        assert [store.get(task).status for task in tasks] == [VideoStatus.PENDING] * 2


@pytest.mark.anyio
async def test_no_environment_variables_are_sent_to_the_cluster(cluster, render_of, monkeypatch):
    """Nor does the render get that of the worker. And workers are free again after a cancelled render."""
    monkeypatch.setenv("A2V_TOKEN", "canary")
    hello = render_of("hello")
    await DaskRenderer(cluster.address)(hello)
    assert hello.destination.read_text() == "eva_a0008 --size 512: hello"
    assert cluster.leftovers == []


@pytest.mark.anyio
async def test_a_render_ends_with_a_server_that_is_killed(cluster, tmp_path):
    (tmp_path / "recording").write_text(f"note {tmp_path / 'note'}")
    program = (
        "import anyio, sys; from pathlib import Path; from a2v.engine.dask_renderer import DaskRenderer; "
        "from a2v.engine.renderer import RenderRequest; address, audio = sys.argv[1:]; "
        "anyio.run(DaskRenderer(address), RenderRequest(audio=Path(audio), subject_id='eva_a0008', destination=Path('nowhere')))"
    )
    command = [sys.executable, "-c", program, cluster.address, str(tmp_path / "recording")]
    with subprocess.Popen(command) as server:  # noqa: ASYNC220  # its effects are waited for
        try:
            child = await written(tmp_path / "note")
        finally:
            server.kill()
    assert await has_ended(child)


@pytest.mark.anyio
async def test_bad_recordings_and_long_renders_have_the_same_messages_as_without_dask(cluster, render_of, tmp_path):
    for wrong in (render_of(b"fLaC, and then nonsense"), render_of(CLIP.read_bytes(), max_audio_seconds=0.5)):
        with pytest.raises(RenderError) as here:
            await render_in_child(wrong)
        with pytest.raises(RenderError) as there:
            await DaskRenderer(cluster.address)(wrong)
        assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    with pytest.raises(RenderError, match="took longer than 2 s"):
        await DaskRenderer(cluster.address)(render_of(f"note {tmp_path / 'note'}", max_render_seconds=2))
    assert await has_ended(await written(tmp_path / "note"))
    assert list((tmp_path / "out").iterdir()) == []
    assert cluster.leftovers == []


@pytest.mark.anyio
async def test_a_render_whose_worker_is_killed_is_run_by_another(cluster, render_of, tmp_path):
    async with asyncio.TaskGroup() as tasks:
        wanted = render_of(f"sleep once {tmp_path / 'note'}")
        tasks.create_task(DaskRenderer(cluster.address)(wanted))
        child = await written(tmp_path / "note")
        os.kill(psutil.Process(child).ppid(), signal.SIGKILL)
        assert await has_ended(child)
    assert wanted.destination.read_text().startswith("eva_a0008 --size 512: sleep once")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["video.mp4"]
    cluster.start(1)


@pytest.mark.anyio
async def test_a_lost_scheduler_costs_an_attempt_and_no_video(cluster, open_queue, say, tmp_path, monkeypatch):
    monkeypatch.setattr("a2v.engine.dask_renderer.CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("a2v.engine.dask_renderer.RETRY_SECONDS", 0.1)
    async with open_queue() as (queue, store):
        task = queue.submit(Job("eva_a0008", say(f"sleep once {tmp_path / 'note'}")))
        child = await written(tmp_path / "note")
        cluster.stop()
        assert await has_ended(child)
        cluster.start(1, scheduler=True)
        with anyio.fail_after(60):
            while not (seen := store.get(task.video_id)).status.is_terminal:  # noqa: ASYNC110  # polls, as a client does
                await anyio.sleep(0.05)
        assert (seen.status, seen.message) == (VideoStatus.FINISHED, None)
        assert queue.path(task.video_id).read_text().startswith("eva_a0008 --size 512: sleep once")


@pytest.mark.anyio
async def test_an_address_without_a_scheduler_is_reported(monkeypatch, closed_port):
    monkeypatch.setattr("a2v.engine.dask_renderer.CONNECT_SECONDS", 0.5)
    address = f"tcp://127.0.0.1:{closed_port}"
    with pytest.raises(ConfigurationError, match=f"no Dask scheduler responds at '{address}'"):
        async with LocalEngine(dask=address):
            pass
    with pytest.raises(ConfigurationError, match=r"responds at 'scheduler'.*port"):
        await DaskRenderer("scheduler").check(1)


def test_the_command_reports_a_missing_scheduler_in_one_line():
    command = [sys.executable, "-m", "a2v.cli", "serve", "--port", "0", "--dask", "scheduler"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "a2v: no Dask scheduler responds at 'scheduler': missing port number in address 'scheduler'\n"


@pytest.mark.anyio
async def test_a_port_of_another_program_is_reported(monkeypatch):
    """For example Dask's dashboard."""
    monkeypatch.setattr("a2v.engine.dask_renderer.CONNECT_SECONDS", 0.5)
    async with LocalEngine() as web:
        with pytest.raises(ConfigurationError, match="no Dask scheduler responds"):
            await DaskRenderer(web.base_url.replace("http", "tcp")).check(1)


def test_log_records_of_dask_have_the_format_of_the_engines_log():
    program = """
import logging
from a2v.engine import dask_renderer
from a2v.cli.logs import log_to_stderr
log_to_stderr(as_json=True)
for name in ("distributed", "distributed.client"):
    logging.getLogger(name).info("all is well")
    logging.getLogger(name).error("the scheduler is gone")
"""
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [("ERROR", "the scheduler is gone")] * 2


def test_invalid_dask_settings_are_refused():
    with pytest.raises(ConfigurationError, match="dask must be the address of a scheduler"):
        Settings(dask=" ")
    with pytest.raises(ConfigurationError, match="leave one out"):
        create_app(Settings(dask="tcp://127.0.0.1:8786"), renderer=render_in_child)
    with pytest.raises(ConfigurationError, match="asyncio"):
        anyio.run(DaskRenderer("tcp://127.0.0.1:8786").check, 1, backend="trio")
