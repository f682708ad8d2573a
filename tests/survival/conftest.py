"""Batches in processes that are killed, and the service that they talk to, which counts what it would charge for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

import a2v
from a2v.testing import Service

FORK_SERVER = Path(__file__).with_name("fork_server.py")
AT_ONCE = 4
CONTENT = hashlib.shake_128(b"a video").digest(300_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=100, help="how many batches to kill at random instants")


class ForkServer:
    """Starts the processes: one that has imported a2v and forks for each batch."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", FORK_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, **order: object) -> dict[str, str]:
        """Run a batch, to its end or for ``kill_after`` seconds; return how it ended."""
        self.begin(order)
        return self.end()

    def begin(self, order: object) -> None:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict:
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self._process.stdout.close()


class ForkServers:
    """Several fork servers, for batches that run at the same time and mostly wait."""

    def __init__(self, count: int) -> None:
        self._all = [ForkServer() for _ in range(count)]
        self._free: SimpleQueue[ForkServer] = SimpleQueue()
        for fork_server in self._all:
            self._free.put(fork_server)

    def run(self, **order: object) -> dict[str, str]:
        """Run a batch in the first one that is free."""
        fork_server = self._free.get()
        try:
            return fork_server.run(**order)
        finally:
            self._free.put(fork_server)

    def close(self) -> None:
        for fork_server in self._all:
            fork_server.close()


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer()
    yield fork_server
    fork_server.close()


@pytest.fixture(scope="module")
def fork_servers() -> Iterator[ForkServers]:
    fork_servers = ForkServers(AT_ONCE)
    yield fork_servers
    fork_servers.close()


@pytest.fixture
def at_once() -> Iterator[Callable[..., list]]:
    """Does something with each of many, several of them at the same time, and returns the results."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield lambda check, many: list(pool.map(check, many))


class Batch:
    """One batch, run as often as it takes, and what must hold for it at the end."""

    def __init__(self, fork_servers: ForkServers, service: Service, folder: Path, jobs: list[str]) -> None:
        folder.mkdir()
        self.fork_servers, self.service, self.folder, self.jobs = fork_servers, service, folder, jobs

    def run(self, **more: object) -> str:
        order = {"folder": str(self.folder), "base_url": self.service.files_url, "jobs": self.jobs}
        return self.fork_servers.run(**order, **more)["ended"]

    @property
    def states(self) -> dict[str, str]:
        return {entry.job.name: entry.state.value for entry in a2v.read_journal(self.folder / "batch.db")}

    @property
    def submissions(self) -> Counter[str]:
        """How often each job was paid for."""
        names = {f"https://example.com/{name}.wav": name for name in self.jobs}
        names |= {synthesis.url: synthesis.text for synthesis in self.service.syntheses}
        return Counter(names[submit.audio_url] for submit in self.service.submissions)

    @property
    def reported(self) -> Counter[str]:
        """How often the outcome of each job was reported; unknown submissions do not count."""
        lines = (self.folder / "reported").read_text().splitlines()
        return Counter(name for name, error in map(str.split, lines) if error == "NoneType")

    def assert_sound(self, *, unknown: int = 0, reported_again: int = 0) -> None:
        """Nothing was paid twice or lost, every file is complete, and no partial file is left."""
        assert max(self.submissions.values(), default=0) <= 1, "paid twice"
        assert len({synthesis.text for synthesis in self.service.syntheses}) == len(self.service.syntheses), (
            "paid twice"
        )
        states = Counter(self.states.values())
        assert states["done"] + states["unknown"] == len(self.jobs), states
        assert states["unknown"] <= unknown
        done = {name for name, state in self.states.items() if state == "done"}
        assert {path.name for path in (self.folder / "videos").iterdir()} == {f"{name}.mp4" for name in done}
        assert all((self.folder / "videos" / f"{name}.mp4").read_bytes() == CONTENT for name in done)
        assert set(self.reported) == done
        assert sum(self.reported.values()) - len(done) <= reported_again
        assert done <= set(self.submissions)


@pytest.fixture
def make_batch(fork_servers, tmp_path) -> Iterator[Callable[..., Batch]]:
    """Make batches, each with an account of its own: unknown submissions are found only where no other program submits."""
    with ExitStack() as servers:

        def make(jobs: list[str], *, render_seconds: float = 0.02, lists_videos: bool = True) -> Batch:
            voices = [a2v.Voice(voice_name="heart")]
            service = Service(render_seconds=render_seconds, lists_videos=lists_videos, content=CONTENT, voices=voices)
            servers.enter_context(service.server())
            return Batch(fork_servers, service, tmp_path / jobs[0], jobs)

        yield make
