"""The program as its users run it, and a server for it to talk to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from a2v import Character
from a2v.testing import Service

PROGRAM = [sys.executable, "-W", "error", "-m", "a2v.cli"]
TOKEN = "canary-token-1234"


@pytest.fixture
def service() -> Iterator[Service]:
    """Real processes in real time ask it: videos change from look to look."""
    ids = ("eva_a0008", "eva", "leo", "m")
    characters = [Character(model_id=one, gender="female") for one in ids]
    service = Service(poll_statuses=["pending", "in_progressing", "finished"], characters=characters)
    with service.server():
        yield service


@pytest.fixture
def environment(service: Service) -> dict[str, str]:
    """How the program finds the server."""
    # Unbuffered output would hide what happens to what is left in a buffer at the end.
    others = ("A2V_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    # Where ``a2v`` is found, hints name it so.
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"A2V_BASE_URL": service.files_url, "A2V_TOKEN": TOKEN, "COLUMNS": "100"}


@pytest.fixture
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command changes in its process is put back: the current folder and the signal handlers."""
    monkeypatch.chdir(tmp_path)
    numbers = [number for name in ("SIGTERM", "SIGHUP", "SIGINT") if (number := getattr(signal, name, None))]
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def a2v(
    environment: dict[str, str],
    tmp_path: Path,
    restored: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, in an empty folder.

    It runs in this process, which saves the second that a start of Python takes; with ``process=True``, or an argument of
    ``subprocess.run`` such as ``input``, it runs in one of its own.
    """
    from a2v.cli.commands import run

    def in_process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name in os.environ.keys() - environment.keys():
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            capfd.readouterr()
            code = run(arguments)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    def start(*arguments: object, process: bool = False, **more: Any) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        if not process and not more:
            return in_process(words)
        settings: dict[str, Any] = {"cwd": tmp_path, "env": environment, "timeout": 60, "encoding": "utf-8"}
        # Never the terminal the tests were started from.
        standard = {"stdin": subprocess.DEVNULL} if "input" not in more else {}
        command = [*PROGRAM, *words]
        return subprocess.run(command, capture_output=True, check=False, **(settings | standard | more))

    return start


@pytest.fixture
def here(
    environment: dict[str, str], restored: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: its code, output and errors."""
    from a2v.cli.commands import run

    for name in ("A2V_BASE_URL", "A2V_TOKEN"):
        monkeypatch.setenv(name, environment[name])
    return lambda *arguments: (run(list(arguments)), *capsys.readouterr())


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Start a command, to be interrupted on its way; it is in a process group of its own, as in a shell."""

    @contextmanager
    def start(*arguments: object) -> Iterator[subprocess.Popen[str]]:
        command = [*PROGRAM, *map(str, arguments)]
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


@pytest.fixture
def speech() -> Path:
    """A recording of three seconds."""
    from a2v.cli.demo import CLIPS

    return CLIPS[0].path
