"""``examples/http/``: the same program in five languages, run as a user would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from a2v.engine import LocalEngine

FOLDER = Path(__file__).parents[2] / "examples" / "http"
COMMANDS = {
    "make_video.sh": ["sh"],
    "make_video.py": [sys.executable, "-W", "error"],
    "make_video.go": ["go", "run"],
    "make_video.mjs": ["node"],
    "MakeVideo.java": ["java", "-XX:TieredStopAtLevel=1"],
}
NEEDED = {"make_video.sh": "curl", "make_video.go": "go", "make_video.mjs": "node", "MakeVideo.java": "javac"}
# The other languages have toolchains that start slowly.
DEFAULT = {"make_video.py", "make_video.sh"}


def _program(name: str):
    found = shutil.which(NEEDED.get(name, sys.executable))
    marks = [pytest.mark.skipif(not found, reason=f"needs {NEEDED.get(name)}")]
    return pytest.param(name, marks=marks if name in DEFAULT else [*marks, pytest.mark.extended])


PROGRAMS = [_program(name) for name in COMMANDS]


def test_each_program_is_run():
    assert {path.name for path in FOLDER.iterdir()} - {"README.md"} == set(COMMANDS)


@pytest.fixture(scope="module")
def engines(engine, stand_in, recordings):
    """An engine of each revision; the first has no statuses."""
    with pytest.MonkeyPatch.context() as patch, start_blocking_portal() as portal:
        patch.setattr("a2v.engine.renderer.WORKER", stand_in)
        running = LocalEngine(revision="seed", allow_files=recordings)
        with portal.wrap_async_context_manager(running) as first:
            yield {"later": engine, "seed": first}


class Run:
    """Run a program in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, engine: LocalEngine, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMANDS[name], str(FOLDER / name), *arguments]
        env = os.environ | {"A2V_BASE_URL": engine.base_url, "A2V_TOKEN": engine.token}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("revision", ["later", pytest.param("seed", marks=pytest.mark.extended)])
def test_it_writes_a_video(run, name, engines, revision, say):
    done = run(name, engines[revision], say("hello"), "eva_a0008")
    assert (done.returncode, done.stderr) == (0, "")
    videos = list(run.folder.glob("*.mp4"))
    assert [path.read_text() for path in videos] == ["eva_a0008 --size 512: hello"]
    lines = done.stdout.splitlines()
    assert any(line.startswith("leo_a0047") for line in lines)
    assert lines[-2:] == [f"submitted {videos[0].stem}", f"saved {videos[0].name}"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_reports_the_error(run, name, engine, say):
    failed = run(name, engine, say("bad"), "eva_a0008")
    assert failed.returncode == 1
    assert "this is no recording" in failed.stderr
    refused = run(name, engine, say("hello"), "nobody")
    assert refused.returncode == 1
    assert "there is no character 'nobody'" in refused.stderr
    assert list(run.folder.glob("*.mp4")) == []
