"""Clients of a shared budget whose store fails and loses its log at random, before and after exchanges."""

from __future__ import annotations

import random
import threading
import time

import anyio
import anyio.to_thread
import pytest

import a2v
from a2v._budget.memory_store import MemoryStore
from a2v._budget.store import Append, Exchanged, Position, StoreUnavailableError
from a2v.testing import FixedWindow, Service, SharedBudget
from tests.async_.test_shared_budget import account_of

pytestmark = [pytest.mark.extended, pytest.mark.anyio, pytest.mark.virtual_time]

FAULTY_EXCHANGES = 300  # after which a store is reliable
LIMIT = 600


class UnreliableStore(MemoryStore):
    """Loses its log or fails in some exchanges. One that blocks is used in threads, and asked at intervals, as Redis is.

    Args:
        draw: Decides in which exchanges.
        blocks: Whether it blocks.
        faults: The share of exchanges with a fault.
    """

    def __init__(self, draw: random.Random, *, blocks: bool, faults: float) -> None:
        super().__init__()
        self.blocks = blocks
        if blocks:
            self.check_interval = 0.2
        self.faulty_exchanges = FAULTY_EXCHANGES
        self._draw, self._faults, self._mutex = draw, faults, threading.Lock()

    def exchange(self, position: Position, entries, append: Append = Append.ALWAYS) -> Exchanged:
        with self._mutex:
            self.faulty_exchanges -= 1
            is_faulty = self.faulty_exchanges >= 0 and self._draw.random() < self._faults
            fault = self._draw.choice(["loses", "fails", "loses and fails"]) if is_faulty else ""
            is_before = self._draw.random() < 0.5
            if is_before:
                self._suffer(fault)
            exchanged = super().exchange(position, entries, append)
            if not is_before:
                self._suffer(fault)
            return exchanged

    def _suffer(self, fault: str) -> None:
        if "loses" in fault:
            self._log = type(self._log)()
        if "fails" in fault:
            raise StoreUnavailableError("the test has broken it")

    def has_changed(self, position: Position) -> bool:
        return self.blocks or super().has_changed(position)

    def _notify(self) -> None:
        if not self.blocks:
            super()._notify()


class UnreliableBudget(SharedBudget):
    def __init__(self, store: UnreliableStore) -> None:
        super().__init__()
        self.store = store

    def store_for(self, account: str) -> MemoryStore:
        return self.store


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_each_video_is_submitted_once_and_awaited_to_its_end(seed, blocks) -> None:
    """Whatever the store does, no call is lost or repeated, and no wait lasts for ever. Then all share one limit again."""
    draw = random.Random(f"{seed} {blocks}")
    service = Service(limit=FixedWindow(LIMIT, 60), render_seconds=1, latency=0.01)
    service.lists_videos = draw.random() < 0.5
    budget = UnreliableBudget(UnreliableStore(draw, blocks=blocks, faults=draw.choice([0.02, 0.05, 0.1, 0.3])))
    clients = [
        a2v.AsyncA2V("token-0123456789", base_url="https://a2v.example", transport=service.transport(), budget=budget)
        for _ in range(draw.randint(1, 4))
    ]
    urls = [f"https://example.com/{number}.wav" for number in range(len(clients) * draw.randint(1, 6))]
    videos: list[a2v.Video] = []

    async def make(client: a2v.AsyncA2V, own: list[str]) -> None:
        for url in own:
            task = await client.videos.generate(model_id="eva_a0008", audio_url=url)
            videos.append(await task.wait())

    with anyio.fail_after(300):
        async with anyio.create_task_group() as group:
            for number, client in enumerate(clients):
                own = urls[number :: len(clients)]
                group.start_soon(make, client, own[::2])
                group.start_soon(make, client, own[1::2])
    assert sorted(submission.audio_url for submission in service.submissions) == sorted(urls)
    assert [video.status for video in videos] == [a2v.VideoStatus.FINISHED] * len(urls)
    assert not [call for call in service.calls if call.status == 429]

    budget.store.faulty_exchanges = 0
    with anyio.fail_after(300):
        while any(account_of(client)._is_offline for client in clients):
            # A store that blocks has the real clock. Virtual time waits for a thread.
            await anyio.to_thread.run_sync(time.sleep, 0.05 if blocks else 0)
            await anyio.sleep(1)
            for client in clients:
                await client.pace()
    await clients[0].characters.list()
    for _ in range(2):  # the first time each writes what the others do not know yet
        paces = [await client.pace() for client in clients]
    assert [(pace.limit, pace.left) for pace in paces] == [(LIMIT, paces[0].left)] * len(clients)
    for client in clients:
        await client.aclose()
