"""Each extra: with it, what it is for can be had; without it, one is told what to install. `nox -s extras` runs both."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.sets import one_by_default

PROBES = {
    "cli": ("cyclopts", "import sys; sys.argv = ['a2v', '--version']; from a2v.cli import main; main()"),
    "engine": ("av", "from a2v.engine import LocalEngine, Settings, create_app, serve; LocalEngine()"),
    "voices": ("hibari", "from a2v.engine.voices import all_voices; assert all_voices()"),
    "mcp": ("mcp", "from a2v.cli.mcp_server import make_server"),
    "dask": ("distributed", "from a2v.engine import dask_renderer"),
    "staging": ("obstore", "from a2v.staging import AsyncStager, Stager, stage"),
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("extra", one_by_default(*PROBES))
def test_an_extra_works_or_says_what_to_install(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, probe = PROBES[extra]
    monkeypatch.chdir(tmp_path)
    done = python(probe)
    if find_spec(package):
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode
        assert f'pip install "a2v[{extra}]"' in done.stderr.splitlines()[-1]


def test_the_client_needs_no_extra() -> None:
    """With OpenTelemetry or without: calls go out, and their answers come back."""
    code = """
import a2v
from a2v.testing import Service
with a2v.A2V("token", transport=Service().transport()) as client:
    print(client.characters.list()[0].model_id)
    print(client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav").wait().status)
"""
    done = python(code)
    assert (done.stdout.split(), done.stderr) == (["eva_a0008", "finished"], "")
