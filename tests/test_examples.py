"""Every script in ``examples/`` runs as a user would run it, against a server that renders in no time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
AUDIO = "https://example.com/hello.wav"
ARGUMENTS = {
    "generate.py": [AUDIO, "eva_a0008"],
    "many.py": ["videos", AUDIO, f"{AUDIO}?2"],
    "without_async.py": [AUDIO, "eva_a0008"],
}
VIDEOS = {"generate.py": 1, "many.py": 2, "without_async.py": 1}

pytestmark = pytest.mark.usefixtures("user")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_each_example_is_run() -> None:
    assert set(ARGUMENTS) == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_leaves_its_videos(name: str, tmp_path: Path) -> None:
    done = run(name, *ARGUMENTS[name])
    assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in tmp_path.rglob("*.mp4")] == [b"a video"] * VIDEOS[name]


@pytest.mark.parametrize("name", ["generate.py", "without_async.py"])
def test_an_example_says_what_was_wrong(name: str) -> None:
    done = run(name, AUDIO, "nobody")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_without_arguments_tells_its_usage(name: str) -> None:
    done = run(name)
    assert done.returncode == 1
    assert f"python examples/{name}" in done.stderr
