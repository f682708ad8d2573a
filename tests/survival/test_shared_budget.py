"""Batches that share a budget and are killed at random: nothing is paid twice or lost, and nobody waits for longer than a window."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import a2v
from a2v.testing import FixedWindow, Service
from tests.survival.conftest import AT_ONCE, CONTENT, Batch

pytestmark = [pytest.mark.extended, pytest.mark.skipif(sys.platform == "win32", reason="fork and SIGKILL")]

KILLS = 200
WINDOW = 60  # seconds


class SharedBatch(Batch):
    """A batch whose account others use, too."""

    @property
    def submissions(self) -> Counter[str]:
        names = {f"https://example.com/{name}.wav": name for name in self.jobs}
        return Counter(names[submit.audio_url] for submit in self.service.submissions if submit.audio_url in names)


def test_killed_at_random(fork_servers, tmp_path) -> None:
    """Four processes at a time, on one account, whose limit is far above what they need. Another client calls all the time."""
    # Without a list: unknown submissions cannot be told apart where several programs are killed while they submit.
    service = Service(render_seconds=0.02, limit=FixedWindow(30_000, WINDOW), content=CONTENT, lists_videos=False)
    budget = str(tmp_path / "a2v.budget")
    waits: list[float] = []
    ended = threading.Event()

    def call_all_the_time() -> None:
        with a2v.A2V("token", base_url=service.files_url, budget=budget) as client:
            while not ended.is_set():
                began = time.monotonic()
                client.characters.list()
                waits.append(time.monotonic() - began)
                ended.wait(0.05)

    def kill_batches(series: int) -> int:
        draw, killed_in_all, batches = random.Random(f"budget {series}"), 0, 0
        while killed_in_all < KILLS / AT_ONCE:
            name = f"{series}-{batches}"
            batch = SharedBatch(fork_servers, service, tmp_path / name, [f"{name}-{number}" for number in range(8)])
            killed = 0
            while batch.run(kill_after=draw.uniform(0, 0.4 + killed / 50), budget=budget) == "killed":
                killed += 1
            batch.assert_sound(unknown=killed, reported_again=killed)
            killed_in_all += killed
            batches += 1
        return killed_in_all

    with service.server(), ThreadPoolExecutor(AT_ONCE + 1) as pool:
        caller = pool.submit(call_all_the_time)
        try:
            kills = sum(pool.map(kill_batches, range(AT_ONCE)))
        finally:
            ended.set()
        caller.result()
    assert kills >= KILLS
    assert max(waits) < WINDOW
    assert not [call for call in service.calls if call.status == 429]
    assert max(Counter(submit.audio_url for submit in service.submissions).values()) == 1
