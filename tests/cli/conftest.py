"""The program as its users run it, and a server that says what a test wants."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

PROGRAM = [sys.executable, "-W", "error", "-m", "a2v.cli"]
TOKEN = "canary-token-1234"


class Service:
    """A server with the API. Each look at a video shows the next of its states, and the last one for ever."""

    def __init__(self) -> None:
        self.characters: list[dict[str, str]] = []
        self.avatars: list[dict[str, Any]] | None = None
        self.headers: dict[str, str] = {}
        self.refusal: tuple[int, int, str] | None = None
        self.videos: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[str, bytes] = {}
        self.submits: list[dict[str, str]] = []
        self.generate: Callable[[Handler], None] = lambda handler: handler.success({"video_id": "v1"})
        self.tokens: set[str | None] = set()
        self.released = threading.Event()
        self.url = ""

    def video(self, video_id: str, *states: str, **more: Any) -> None:
        """Let there be a video; ``finished`` comes with a URL and a file behind it."""
        self.files[f"/files/{video_id}.mp4"] = b"video of " + video_id.encode()
        url = f"{self.url}/files/{video_id}.mp4"
        self.videos[video_id] = [
            {"video_id": video_id, "status": state, "video_url": url if state == "finished" else None} | more
            for state in states
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers from the service's script."""

    protocol_version = "HTTP/1.1"
    service: Service

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path in self.service.files:
            self.send(200, self.service.files[parts.path])
            return
        self.service.tokens.add(self.headers["Authorization"])
        if self.service.refusal:
            self.refuse(*self.service.refusal)
            return
        if parts.path == "/v1/a2v/character.list":
            self.success(self.service.characters)
            return
        if parts.path == "/v1/a2v/avatar.list" and self.service.avatars is not None:
            self.success(self.service.avatars)
            return
        states = self.service.videos.get(parse_qs(parts.query).get("video_id", [""])[0])
        if states:
            self.success(states.pop(0) if len(states) > 1 else states[0])
        else:
            self.refuse(404, 10001, "no such video")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.service.submits.append(json.loads(body))
        self.service.generate(self)

    def success(self, data: object) -> None:
        self.send(200, json.dumps({"code": 0, "message": "success", "data": data}).encode())

    def refuse(self, status: int, code: int, message: str) -> None:
        self.send(status, json.dumps({"code": code, "message": message, "data": None}).encode())

    def send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        for name, value in ({"Date": self.date_time_string()} | self.service.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"service": service}))
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield service
    service.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def environment(service: Service) -> dict[str, str]:
    """How the program finds the server."""
    # Unbuffered output would hide what happens to what is left in a buffer at the end.
    others = ("A2V_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return kept | {"A2V_BASE_URL": service.url, "A2V_TOKEN": TOKEN, "COLUMNS": "100"}


@pytest.fixture
def a2v(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, in an empty folder."""

    def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {"cwd": tmp_path, "env": environment, "timeout": 60, "encoding": "utf-8"}
        command = [*PROGRAM, *map(str, arguments)]
        # Never the terminal the tests were started from.
        standard = {"stdin": subprocess.DEVNULL} if "input" not in more else {}
        return subprocess.run(command, capture_output=True, check=False, **(settings | standard | more))

    return run


@pytest.fixture
def here(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a command in this process: its code, output and errors. For the many cases that a process each is too slow for."""
    from a2v.cli.app import run

    monkeypatch.chdir(tmp_path)
    for name in ("A2V_BASE_URL", "A2V_TOKEN"):
        monkeypatch.setenv(name, environment[name])
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: (run(list(arguments)), *capsys.readouterr())
    signal.signal(signal.SIGTERM, handler)


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
def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def speech() -> Path:
    """A recording of three seconds."""
    from a2v.cli.demo import CLIPS

    return CLIPS[0].path
