"""The files of examples/deployment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from a2v.cli.commands import app

FOLDER = Path(__file__).parents[2] / "examples/deployment"


def _serve_commands() -> list[str]:
    unit = re.findall(r"^ExecStart=(.*)$", (FOLDER / "a2v-engine.service").read_text(), re.MULTILINE)
    image = re.findall(r"^ENTRYPOINT \[(.*)\]$", (FOLDER / "Containerfile").read_text(), re.MULTILINE)
    return [*unit, *(line.replace('"', "").replace(",", "") for line in image)]


def test_the_commands_have_options_that_exist():
    commands = _serve_commands()
    assert len(commands) == 2
    for command in commands:
        program, *arguments = command.split()
        assert program.endswith("a2v")
        called, bound, _ = app.parse_args(arguments)
        assert called.__name__ == "serve"
        assert bound.arguments["settings"].data_dir is not None


@pytest.mark.extended
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    text = (FOLDER / "a2v-engine.service").read_text().replace("/opt/a2v/bin/a2v", sys.executable)
    (tmp_path / "a2v-engine.service").write_text(text)
    command = ["systemd-analyze", "verify", str(tmp_path / "a2v-engine.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
