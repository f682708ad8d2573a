"""Commands that hints print work where they are printed; nothing is left of commands that came to nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from a2v.cli.batch_manifest import BatchSource
from a2v.cli.batch_run import continuation
from a2v.cli.captions import read_ways
from a2v.cli.commands import app
from a2v.cli.terminal import program, shown_path

BIN = Path(sys.executable).parent
posix = pytest.mark.skipif(sys.platform == "win32", reason="paths and signals of POSIX")


@posix
class TestTheProgram:
    @pytest.fixture
    def started_as(self, monkeypatch, tmp_path):
        """Pretend that the program was started as this, with this on the path."""

        def started_as(name, *folders):
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(sys, "argv", [str(name)])
            monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
            return program()

        return started_as

    def test_it_is_on_the_path(self, started_as) -> None:
        assert started_as(BIN / "a2v", BIN) == "a2v"
        assert started_as("/x/a2v/__main__.py", BIN) == "a2v"

    def test_it_is_not(self, started_as, monkeypatch, tmp_path) -> None:
        assert started_as(BIN / "a2v", "/nowhere") == str(BIN / "a2v")
        assert started_as(tmp_path / "my venv" / "bin" / "a2v") == "'my venv/bin/a2v'"
        assert started_as("/x/a2v/cli/__main__.py", "/nowhere") == f"{sys.executable} -m a2v"
        monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
        assert started_as("/x/a2v/__main__.py", "/nowhere") == ".venv/bin/python -m a2v"

    def test_another_one_is(self, started_as, monkeypatch, tmp_path) -> None:
        for name in ("a2v", "python"):
            (tmp_path / name).write_text("")
            (tmp_path / name).chmod(0o755)
        assert started_as(BIN / "a2v", tmp_path) == str(BIN / "a2v")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        (tmp_path / "a2v").unlink()
        assert started_as("/x/a2v/__main__.py", tmp_path) == "python -m a2v"

    def test_within_another_program(self, started_as) -> None:
        assert started_as("/usr/bin/pytest", "/nowhere") == "a2v"

    def test_the_hint_after_a_failure_works(self, service, environment, tmp_path) -> None:
        service.poll_statuses = ["finished"]
        service.fail("no speech", nth=1)
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,eva\n")
        env = environment | {"PATH": os.path.dirname(shutil.which("env"))}  # noqa: PTH120
        command = [sys.executable, "-m", "a2v", "batch", "jobs.csv", "-o", "v"]
        failed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        hint = failed.stderr.splitlines()[-1]
        assert (failed.returncode, hint) == (1, f"  {sys.executable} -m a2v batch jobs.csv -o v --resubmit-failed")
        done = subprocess.run(hint, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


ONE_RUN = {
    "--dry-run",
    "--limit",
    "--new-recordings",
    "--new-token",
    "--quota",
    "--repeat",
    "--resubmit-failed",
    "--resubmit-unknown",
    "--same-recordings",
    "--timeout",
    "--verbose",
}
"""The options of ``a2v batch`` that concern one run only."""
VALUES = {
    "--captions": "track,files",
    "--container": "webm",
    "--format": "portrait",
    "--fps": "30",
    "--limit": "3",
    "--max-in-flight": "3",
    "--mood": "warm",
    "--quota": "3",
    "--render-timeout": "90m",
    "--size": "720",
    "--timeout": "90m",
}
OPTIONS = [one for one in app["batch"].assemble_argument_collection() if one.name.startswith("--")]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_command_that_continues_a_batch_has_its_options(monkeypatch, tmp_path, option) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["a2v"])
    (tmp_path / "-my take.wav").write_bytes(b"")

    def read(words):
        _, bound, _ = app.parse_args(words)
        bound.apply_defaults()
        given = bound.arguments
        return {**given, "sources": [Path(one) for one in given["sources"]], "captions": read_ways(given["captions"])}

    def continued(words):
        given = app.parse_args(words)[1]
        given.apply_defaults()
        source = BatchSource.of(given.args, given.arguments["speaker"])
        groups = (given.arguments[name] for name in ("output", "flags", "staging", "server"))
        looks = tuple(given.arguments[name] for name in ("video", "container", "captions"))
        program, *others = shlex.split(continuation(source, *groups, looks))
        assert program == "a2v"
        return others

    values = {"--output": "-my videos", "--model-id": "eva"}
    first = ["batch", *(f"{name}={value}" for name, value in values.items()), "--", "-my take.wav"]
    if option.hint is bool or option.parameter.count:
        words = [*first[:1], option.name, *first[1:]]
    else:
        values[option.name] = VALUES.get(option.name, "-it's mine")
        words = ["batch", *(f"{name}={value}" for name, value in values.items()), *first[-2:]]
    if option.name in ONE_RUN:
        assert continued(words) == continued(first)
        assert read(words) != read(first)
    else:
        assert read(continued(words)) == read(words)


def test_paths_are_relative_below_the_current_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a" / "b.mp4") == str(Path("a") / "b.mp4")
    assert shown_path("a/../b.mp4") == "b.mp4"
    assert shown_path(tmp_path.parent / "b.mp4") == str(tmp_path.parent / "b.mp4")


class TestNothingIsLeft:
    @posix
    def test_of_an_interrupted_demo(self, started, tmp_path) -> None:
        with started("demo", "--json") as process:
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        assert process.returncode == 130
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("options", [["--journal", "jobs.csv"], ["--report", "report.txt"]])
    def test_of_a_refused_batch(self, here, service, tmp_path, options) -> None:
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,eva\n")
        code, _, err = here("batch", "jobs.csv", "-o", "v", *options)
        assert (code, options[0] in err) == (2, True)
        assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]

    def test_the_report_may_be_in_the_new_folder(self, here, service, tmp_path) -> None:
        service.poll_statuses = ["finished"]
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,eva\n")
        code, out, _ = here("batch", "jobs.csv", "-o", "v", "--report", "v/report.csv")
        assert (code, (tmp_path / "v" / "report.csv").exists()) == (0, True)
        assert out.splitlines()[-1].endswith(f" · report in {Path('v/report.csv')}")
