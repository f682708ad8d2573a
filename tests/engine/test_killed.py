"""``a2v serve``, killed with SIGKILL: accepted tasks are rendered, and finished videos are kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import a2v.engine
from a2v import Job
from a2v._core import wire

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")

CLIP = next((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"))


@pytest.fixture
def serve(tmp_path):
    """``a2v serve`` with the same folder each time; killed at the end of the block if it still runs."""

    @contextmanager
    def serve():
        options = ["--port", "0", "--json", "--log-json", "--workers", "1", "--allow-files", CLIP.parent]
        command = [sys.executable, "-m", "a2v.cli", "serve", "--data-dir", tmp_path / "data", *options]
        env = {name: value for name, value in os.environ.items() if not name.startswith("A2V_")} | {
            "A2V_TOKEN": "t0k3n"
        }
        log = (tmp_path / "log").open("ab")
        with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env) as process:
            try:
                yield process, json.loads(process.stdout.readline())["base_url"]
            finally:
                process.kill()

    return serve


@contextmanager
def client_of(base_url: str):
    with httpx.Client(base_url=base_url, headers={"Authorization": "t0k3n"}) as client:
        yield client


def until(client: httpx.Client, **wanted: str) -> dict[str, dict[str, str]]:
    """Poll until the videos have the statuses; return all videos by their ID."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        shown = {one["video_id"]: one for one in client.get(wire.VIDEO_LIST).json()["data"]}
        if all(shown[video_id]["status"] == status for video_id, status in wanted.items()):
            return shown
        time.sleep(0.05)
    raise AssertionError(f"the videos do not get that far: {shown}")


def submit(client: httpx.Client, job: Job) -> str:
    return client.post(wire.VIDEO_GENERATE, json=wire.job_data(job)).json()["data"]["video_id"]


def test_a_killed_server_loses_no_task_and_no_video(serve, tmp_path):
    plain = Job("eva_a0008", CLIP.as_uri())
    masked = Job(pose_id="leo_a0047_closeup", audio_url=CLIP.as_uri(), with_mask=True)
    with serve() as (process, base_url), client_of(base_url) as client:
        done = submit(client, plain)
        videos = until(client, **{done: "finished"})
        video = client.get(videos[done]["video_url"]).content
        under_way, waiting = submit(client, plain), submit(client, masked)
        until(client, **{under_way: "in_progressing"})
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with serve() as (process, base_url), client_of(base_url) as client:
        videos = until(client, **dict.fromkeys((done, under_way, waiting), "finished"))
        assert len(videos) == 3
        assert client.get(videos[done]["video_url"]).content == video
        # A repeated render gives the same video.
        assert client.get(videos[under_way]["video_url"]).content == video
        for url in (videos[waiting]["video_url"], videos[waiting]["mask_video_url"]):
            assert client.get(url).content[4:8] == b"ftyp"
        with socket.create_connection((client.base_url.host, client.base_url.port)) as rude:
            rude.sendall(b"this is not HTTP\r\n\r\n")
            rude.recv(100)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    finished = [line["video_id"] for line in lines if line["message"].endswith(": finished")]
    assert sorted(finished) == sorted([done, under_way, waiting])
    assert [line["level"] for line in lines if "Invalid HTTP" in line["message"]] == ["WARNING"]
    assert {"GET", "POST"} == {line["method"] for line in lines if line.get("status") == 200}
    assert {"time", "level", "message"} <= lines[0].keys()
    assert "t0k3n" not in (tmp_path / "log").read_text()
