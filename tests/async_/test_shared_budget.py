"""Clients that share a budget: one rate limit, one poll schedule, and what happens when the store cannot be reached."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

import a2v
from a2v import testing
from a2v._async.requests import shared_account
from a2v._async.requests.known_videos import SubmissionAttempt
from a2v._budget.memory_store import MemoryStore
from a2v._budget.store import Append, Exchanged, Position, StoreUnavailableError
from a2v._threads import thread_safe_call_soon
from a2v.testing import FixedWindow, Service, SharedBudget

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

TOKEN = "token-0123456789"
HELLO = "https://example.com/hello.wav"


class Breakable(SharedBudget):
    """A budget whose store can be unreachable, lose its log, or block as Redis does."""

    def __init__(self, *, blocks: bool = False) -> None:
        super().__init__()
        self.broken = self.full = False
        self.store = BreakableStore(self, blocks=blocks)

    def store_for(self, account: str) -> MemoryStore:
        return self.store


class BreakableStore(MemoryStore):
    def __init__(self, budget: Breakable, *, blocks: bool) -> None:
        # A thread cannot read the clock of an event loop, and need not.
        super().__init__()
        self.budget, self.blocks = budget, blocks
        # Called once, in the thread of the next exchange of a kind.
        self.on: dict[Append, Callable[[], object]] = {}
        if blocks:
            self.check_interval = 0.2

    def exchange(self, position: Position, entries, append: Append = Append.ALWAYS) -> Exchanged:
        if self.budget.broken or (self.budget.full and entries):
            raise StoreUnavailableError("the test has broken it")
        self.on.pop(append, lambda: None)()
        return super().exchange(position, entries, append)

    def has_changed(self, position: Position) -> bool:
        return self.blocks or super().has_changed(position)

    def _notify(self) -> None:
        if not self.blocks:
            super()._notify()

    def lose(self) -> None:
        """Lose everything, as a Redis without a disk does when it is restarted."""
        self._log = type(self._log)()


@pytest.fixture
def service() -> Service:
    return Service(render_seconds=300, limit=FixedWindow(30, 60), latency=0.2)


@pytest.fixture
def budget() -> Breakable:
    return Breakable()


@pytest.fixture
def make(service, budget):
    """Makes clients of one account."""
    return lambda **settings: a2v.AsyncA2V(
        TOKEN, **{"base_url": "https://a2v.example", "transport": service.transport(), "budget": budget, **settings}
    )


def throttled(service: Service) -> int:
    return sum(call.status == 429 for call in service.calls)


async def wait_for_videos(client: a2v.AsyncA2V, *video_ids: str) -> None:
    async with anyio.create_task_group() as group:
        for video_id in video_ids:
            group.start_soon(client.videos.task(video_id).wait)


async def call(client: a2v.AsyncA2V, waits: list[float] | None = None) -> None:
    began = anyio.current_time()
    await client.characters.list()
    if waits is not None:
        waits.append(anyio.current_time() - began)


# -- one rate limit ---------------------------------------------------------------------------------------------------


@pytest.mark.simulation
@pytest.mark.parametrize("blocks", [False, True])
async def test_clients_never_exceed_the_limit_together(service, blocks) -> None:
    make = partial(a2v.AsyncA2V, TOKEN, base_url="https://a2v.example", budget=Breakable(blocks=blocks))
    async with anyio.create_task_group() as group:
        for _ in range(4):
            client = make(transport=service.transport())
            for _ in range(20):
                group.start_soon(call, client)
    assert len(service.calls) == 80
    assert throttled(service) == 0


async def test_a_client_knows_what_the_others_have_sent(make) -> None:
    async with make() as one, make() as other:
        for _ in range(3):
            await one.characters.list()
        assert (await other.pace()).left == 27


async def test_a_429_pauses_all_clients(service, make) -> None:
    async with make() as one, make() as other:
        await other.characters.list()
        service.reply("character.list", testing.Reply(429, b"", {"retry-after": "20"}))
        async with anyio.create_task_group() as group:
            group.start_soon(call, one)
            await anyio.sleep(1)
            waits: list[float] = []
            group.start_soon(call, other, waits)
    assert throttled(service) == 1
    assert 19 <= waits[0] <= 70


@pytest.mark.simulation
@pytest.mark.parametrize("blocks", [False, True])
async def test_a_request_is_throttled_for_ten_minutes_at_most(service, blocks) -> None:
    service.reply("character.list", testing.Reply(429, b""), times=None)
    make = partial(a2v.AsyncA2V, TOKEN, base_url="https://a2v.example", budget=Breakable(blocks=blocks))
    async with make(transport=service.transport()) as client, make(transport=service.transport()):
        began = anyio.current_time()
        with pytest.raises(a2v.RateLimitError):
            await client.characters.list()
        assert 600 <= anyio.current_time() - began < 750


async def test_calls_take_turns_across_clients(make) -> None:
    """A client with many calls does not delay those of another one by more than one."""
    waits: list[float] = []
    async with make() as busy, make() as other, anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(call, busy)
        await anyio.sleep(5)
        group.start_soon(call, other, waits)
    assert waits[0] < 60


async def test_submissions_of_one_client_come_before_polls_of_another(service, make) -> None:
    async with make() as polling, make() as submitting, anyio.create_task_group() as group:
        for number in range(20):
            service.add_video(f"old{number}", *["in_progressing"] * 30, "finished")
        group.start_soon(wait_for_videos, polling, *[f"old{number}" for number in range(20)])
        await anyio.sleep(30)
        for _ in range(15):
            await submitting.videos.generate(model_id="eva_a0008", audio_url=HELLO)
        assert anyio.current_time() < 1100
        polls = [each for each in service.polls if each.at > 30]
        assert len(polls) < 12
        group.cancel_scope.cancel()


async def test_an_unused_reservation_is_returned(service, make) -> None:
    """The journal of a batch could not be written: nothing is sent, and nothing is counted."""

    async def before_send() -> None:
        raise OSError("the disk is full")

    async with make() as one, make() as other:
        await one.characters.list()
        with pytest.raises(OSError, match="the disk is full"):
            await one._session.submit(a2v.Job("eva_a0008", HELLO), SubmissionAttempt(before_send))
        assert len(service.calls) == 1
        assert (await other.pace()).left == 29


@pytest.mark.parametrize("driver", ["a wait", "the call"])
@pytest.mark.parametrize("how", ["scope", "asyncio task"])
async def test_a_call_that_is_cancelled_while_its_request_is_reserved_returns_it(
    service, driver, how, anyio_backend_name
) -> None:
    budget, in_loop = Breakable(blocks=True), thread_safe_call_soon()
    service.latency = 0  # a poll that is cancelled on its way would count, although it does not arrive
    service.add_video("v", *["pending"] * 1000)
    client = a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport())

    def cancel_from_thread(cancel: Callable[[], object]) -> None:
        """Cancel the call from the store's thread, and give it time to end, unless it waits for this thread."""
        in_loop(cancel)
        for _ in range(20):
            turn = threading.Event()
            in_loop(turn.set)
            turn.wait()

    async with client, anyio.create_task_group() as group:
        if driver == "a wait":
            await client.videos.get("v")
            group.start_soon(wait_for_videos, client, "v")  # its next poll is not due yet, so it drives
            await anyio.sleep(0.5)
        if how == "scope" or anyio_backend_name == "trio":
            with anyio.CancelScope() as scope:
                budget.store.on[Append.AT_END] = partial(cancel_from_thread, scope.cancel)
                await client.characters.list()
            assert scope.cancelled_caught
        else:
            task = asyncio.ensure_future(client.characters.list())
            budget.store.on[Append.AT_END] = partial(cancel_from_thread, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
        await anyio.sleep(20)
        assert not budget.store.on
        assert "character.list" not in [call.name for call in service.calls]
        group.cancel_scope.cancel()
    async with a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget) as other:
        assert (await other.pace()).left == 30 - len(service.calls)


async def test_a_call_that_is_cancelled_while_another_task_uses_the_store_reserves_nothing(service) -> None:
    budget, may_end = Breakable(blocks=True), threading.Event()
    client, other = (
        a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport())
        for _ in range(2)
    )
    async with client, other:
        await client.pace()
        await other.pace()
        budget.store.on[Append.ALWAYS] = may_end.wait
        async with anyio.create_task_group() as group, anyio.create_task_group() as cancelled:
            group.start_soon(client.pace)  # reads what the other client has written
            cancelled.start_soon(client.characters.list)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()  # until both wait; virtual time would wait for the thread
            cancelled.cancel_scope.cancel()
            may_end.set()
        assert (await client.pace()).left == (await other.pace()).left == 30
    assert service.calls == ()


def account_of(client: a2v.AsyncA2V) -> shared_account.SharedAccount:
    return client._session._loop_state.dispatcher._account


class Counting(httpx.AsyncBaseTransport):
    """Counts the requests that may have been sent, also those that were cancelled on their way."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.count, self._transport = 0, transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        return await self._transport.handle_async_request(request)


ACTIONS = {
    "call": lambda client: client.characters.list(),
    "submit": lambda client: client.videos.generate(model_id="eva_a0008", audio_url=HELLO),
    "wait": lambda client: client.videos.task("v").wait(),
    "pace": lambda client: client.pace(),
    "aclose": lambda client: client.aclose(),
}


@pytest.mark.parametrize(
    ("blocks", "how"),
    [
        (False, "scope"),
        (True, "scope"),
        (True, "asyncio task"),
        pytest.param(False, "asyncio task", marks=pytest.mark.extended),
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
async def test_whatever_is_cancelled_leaves_no_reservation(action, blocks, how, anyio_backend_name) -> None:
    """After any number of checkpoints."""
    if how == "asyncio task" and anyio_backend_name == "trio":
        pytest.skip("trio has no such tasks")
    has_returned = False

    async def act(client: a2v.AsyncA2V) -> None:
        nonlocal has_returned
        await ACTIONS[action](client)
        has_returned = True

    for checkpoints in range(40):
        if has_returned:
            break
        service = Service(limit=FixedWindow(30, 60), latency=0)
        service.add_video("v", *["pending"] * 1000)
        budget, transport = Breakable(blocks=blocks), Counting(service.transport())
        client, other = (
            a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=transport) for _ in range(2)
        )
        await other.characters.list()
        await client.characters.list()
        if how == "scope":
            async with anyio.create_task_group() as group:
                group.start_soon(act, client)
                for _ in range(checkpoints):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(act(client))
            for _ in range(checkpoints):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await anyio.sleep(1)
        if write := account_of(client)._last_write:
            write.done.wait()
        assert (await other.pace()).left == 30 - transport.count
        members = account_of(other).log._members.values()
        assert [(member.in_flight, member.polls, member.waits) for member in members] == [({}, {}, set())] * len(
            members
        )
        waits: list[float] = []
        await call(other, waits)
        assert waits[0] < 0.1
        await client.aclose()
        await other.aclose()


async def test_a_write_that_failed_once_is_repeated(service) -> None:
    """Nothing waits here while it is written, so no other exchange notices."""
    budget = Breakable(blocks=True)

    def fail() -> None:
        raise StoreUnavailableError("the test")

    client, other = (
        a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport())
        for _ in range(2)
    )
    async with client, other:
        await client.characters.list()
        await client.pace()
        budget.store.on[Append.ALWAYS] = fail  # the end of the next request
        for _ in range(4):
            await client.characters.list()
            if write := account_of(client)._last_write:
                write.done.wait()
            await anyio.sleep(20.2)
        assert not budget.store.on
        # The first two requests were sent more than a minute ago.
        assert (await other.pace()).left == 28


async def test_each_client_has_connections_of_its_own(make) -> None:
    """A client has at most 50 requests in flight, however many others there are, and delays none of them meanwhile."""
    service = Service(latency=10)
    clients = [make(transport=service.transport()) for _ in range(3)]
    for client in clients:
        await client.characters.list()
    async with anyio.create_task_group() as group:
        for client in clients[:2]:
            for _ in range(60):
                group.start_soon(call, client)
        await anyio.sleep(6)
        assert len(service.calls) == 3 + 100
        waits: list[float] = []
        await call(clients[2], waits)
        assert 10 <= waits[0] < 10.1


async def test_the_lowest_rate_limit_counts_for_all(service, make) -> None:
    waits: list[float] = []
    async with make(rate_limit=3), make(rate_limit=3) as careful, make() as other, anyio.create_task_group() as group:
        await careful.characters.list()
        for _ in range(4):
            group.start_soon(call, other, waits)
    assert max(waits) > 55
    assert throttled(service) == 0


# -- one schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.simulation
@pytest.mark.parametrize("lists_videos", [False, True])
async def test_a_poll_serves_all_clients(service, make, lists_videos) -> None:
    """Five clients that wait for the same videos cost as many requests as one."""
    service.lists_videos = lists_videos

    async def run(clients: int) -> int:
        before = len(service.polls)
        first = make()
        tasks = [await first.videos.generate(model_id="eva_a0008", audio_url=HELLO) for _ in range(2)]
        async with anyio.create_task_group() as group:
            for client in [first, *(make() for _ in range(clients - 1))]:
                group.start_soon(wait_for_videos, client, *[task.video_id for task in tasks])
        await first.aclose()
        return len(service.polls) - before

    alone = await run(1)
    assert await run(5) <= alone + 3


async def test_one_listing_serves_the_account(service, make) -> None:
    """Videos of different clients are listed together, although none of them has two."""
    async with anyio.create_task_group() as group:
        for _ in range(6):
            client = make()
            task = await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)
            group.start_soon(wait_for_videos, client, task.video_id)
    assert len(service.seen("video.get")) <= 3
    assert len(service.polls) < 60


async def test_a_late_subscriber_gets_what_others_know(service, make) -> None:
    service.add_video("v", *["in_progressing"] * 4, "finished")
    async with make() as one, make() as other, anyio.create_task_group() as group:
        group.start_soon(wait_for_videos, one, "v")
        await anyio.sleep(0.3)
        polls = len(service.polls)
        async with aclosing(other.videos.task("v").watch()) as snapshots:
            video = await anext(snapshots)
            assert (video.status, len(service.polls)) == (a2v.VideoStatus.IN_PROGRESS, polls)


async def test_an_error_about_a_video_reaches_all_clients(service, make) -> None:
    service.refuse("video.get", 403, "not yours", times=None)
    errors = []

    async def watch(client: a2v.AsyncA2V) -> None:
        with pytest.raises(a2v.PermissionDeniedError) as caught:
            await client.videos.task("v").wait()
        errors.append(caught.value)

    async with make() as one, make() as other, anyio.create_task_group() as group:
        group.start_soon(watch, one)
        group.start_soon(watch, other)
    assert [(error.status_code, error.video_id) for error in errors] == [(403, "v")] * 2
    assert len(service.polls) == 1


async def test_snapshots_of_calls_serve_all_clients(service, make) -> None:
    service.add_video("v", *["in_progressing"] * 2, "finished")
    async with make() as one, make() as other:
        statuses = []
        async for video in one.videos.task("v").watch():
            statuses.append(video.status.value)
            if not video.is_terminal:
                await other.videos.get("v")
                await other.videos.get("v")
        assert statuses == ["in_progressing", "finished"]
        assert len(service.polls) == 3


async def test_snapshots_that_are_read_together_all_arrive(service) -> None:
    """Also the one that ends a watch, if it is not the first of them."""
    service.latency, service.lists_videos = 0, False
    service.add_video("v", "pending", "in_progressing", "finished")
    budget = Breakable(blocks=True)
    one, other = (
        a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport())
        for _ in range(2)
    )
    statuses: list[str] = []

    async def watch() -> None:
        statuses.extend([video.status.value async for video in other.videos.task("v").watch()])

    async with one, other:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(watch)
                await anyio.sleep(0.1)
                for _ in range(2):
                    await one.videos.get("v")
                account_of(one)._last_write.done.wait()
    assert statuses == ["pending", "in_progressing", "finished"]
    assert len(service.polls) == 3


async def test_a_busy_consumer_costs_no_requests(service, make) -> None:
    service.add_video("v", *["in_progressing"] * 100, "finished")
    service.add_video("w", *["in_progressing"] * 5, "finished")
    async with make() as one, make() as other, anyio.create_task_group() as group:
        group.start_soon(wait_for_videos, other, "w")
        async with aclosing(one.videos.task("v").watch()) as snapshots:
            await anext(snapshots)
            await anyio.sleep(600)
        assert len([each for each in service.seen("video.get") if each.video_id == "v"]) <= 5
        group.cancel_scope.cancel()


async def test_a_cancelled_poll_is_sent_by_another_client(service, make) -> None:
    service.add_video("v", "finished")
    async with make() as one, make() as other, anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await anyio.sleep(0.15)
                assert len(service.polls) == 1
                scope.cancel()
                await other.videos.task("v").wait()

            group.start_soon(cancel)
            await one.videos.task("v").wait()
    assert len(service.polls) == 2


async def test_an_outage_of_the_server_passes(service, make) -> None:
    service.refuse("video.get", 503, times=3)
    service.add_video("v", "finished")
    async with make() as one, make() as other, anyio.create_task_group() as group:
        group.start_soon(wait_for_videos, one, "v")
        group.start_soon(wait_for_videos, other, "v")
    assert [each.status for each in service.polls] == [503, 503, 503, 200]


# -- members that come and go -----------------------------------------------------------------------------------------


async def test_a_client_that_was_idle_for_long_joins_again(service, make) -> None:
    async with make() as one, make() as other:
        await one.characters.list()
        await anyio.sleep(3600)
        await other.characters.list()
        await one.characters.list()
        assert (await other.pace()).left == 28


async def test_a_closed_client_leaves_nothing_behind(service, make) -> None:
    service.add_video("v", *["in_progressing"] * 100)
    async with make() as other:
        async with make() as one:
            with anyio.move_on_after(30):
                await one.videos.task("v").wait()
        before = len(service.polls)
        service.add_video("w", *["in_progressing"] * 100)
        with anyio.move_on_after(300):
            await other.videos.task("w").wait()
        assert not [each for each in service.polls[before:] if each.video_id == "v"]


async def test_a_long_log_is_started_again(service, make, budget, monkeypatch) -> None:
    monkeypatch.setattr(shared_account, "_MAX_LOG_SIZE", 4000)
    generations = set()
    async with make() as one, make() as other, anyio.create_task_group() as group:
        for client in (one, other):
            task = await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)
            group.start_soon(wait_for_videos, client, task.video_id)
        service.render_seconds = 1200
        task = await one.videos.generate(model_id="eva_a0008", audio_url=HELLO)
        group.start_soon(wait_for_videos, other, task.video_id)
        for _ in range(60):
            await anyio.sleep(20)
            generations.add(budget.store._log.generation)
    assert len(generations) >= 2
    assert sum(map(len, budget.store._log.entries)) < 40_000
    assert throttled(service) == 0


def size(value: object, seen: set[int]) -> int:
    """Count what the collections in an object and in all that it refers to hold."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | type | None):
        return 0
    seen.add(id(value))
    if isinstance(value, dict):
        return len(value) + sum(size(each, seen) for pair in value.items() for each in pair)
    if isinstance(value, list | set | tuple | deque):
        return len(value) + sum(size(each, seen) for each in value)
    if not type(value).__module__.startswith("a2v"):
        return 0
    slots = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
    return size({**getattr(value, "__dict__", {}), **{name: getattr(value, name, None) for name in slots}}, seen)


@pytest.mark.extended
async def test_a_day_of_videos_needs_no_more_memory_than_a_few_hours(make, budget, monkeypatch) -> None:
    monkeypatch.setattr(shared_account, "_MAX_LOG_SIZE", 32 * 1024)
    service = Service(render_seconds=900, limit=FixedWindow(2, 60), latency=0.2)
    clients = [make(transport=service.transport()) for _ in range(2)]

    async def make_videos(client: a2v.AsyncA2V) -> None:
        while True:
            await (await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)).wait()

    sizes: list[int] = []
    async with anyio.create_task_group() as group:
        for client in clients:
            for _ in range(2):
                group.start_soon(make_videos, client)
        for _ in range(24 * 3):
            await anyio.sleep(1200)
            assert sum(map(len, budget.store._log.entries)) < 2 * shared_account._MAX_LOG_SIZE
            # Not the videos that the server lists: their number is its own.
            sizes.append(max(size(log, {id(log.listed)}) for log in (account_of(client).log for client in clients)))
        group.cancel_scope.cancel()
    assert len(service.submissions) > 200
    assert max(sizes[-18:]) < 1.5 * max(sizes[3:21])


@pytest.mark.simulation
@pytest.mark.parametrize("blocks", [False, True])
async def test_a_lost_log_loses_nothing(service, blocks) -> None:
    """Redis may be restarted without its data: clients write again what they know."""
    budget = Breakable(blocks=blocks)
    make = partial(a2v.AsyncA2V, TOKEN, base_url="https://a2v.example", budget=budget)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            client = make(transport=service.transport())
            for _ in range(8):
                await client.characters.list()
            task = await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)
            group.start_soon(wait_for_videos, client, task.video_id)
        await anyio.sleep(10)
        budget.store.lose()
        await anyio.sleep(10)
        pace = await client.pace()
    assert pace.left is not None
    assert pace.left <= 12
    assert throttled(service) == 0


async def test_a_log_that_is_lost_when_a_watch_continues_does_not_end_it(service) -> None:
    """The client introduces itself with what it knew before, and then writes what has changed since."""
    service.lists_videos = False
    service.add_video("v", *["in_progressing"] * 3, "finished")
    service.add_video("w", *["in_progressing"] * 1000)
    budget = Breakable(blocks=True)
    client = a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport())
    async with client, anyio.create_task_group() as group, aclosing(client.videos.task("v").watch()) as snapshots:
        await anext(snapshots)
        group.start_soon(wait_for_videos, client, "w")
        await anyio.sleep(60)  # "v" is paused meanwhile, because nothing waits for its next snapshot
        assert account_of(client).log.has_paused("v")
        budget.store.on[Append.AT_END] = budget.store.lose
        group.start_soon(client.characters.list)  # its request is written with the fact that "v" is awaited again
        with anyio.fail_after(60):
            assert (await anext(snapshots)).status is a2v.VideoStatus.FINISHED
        group.cancel_scope.cancel()


@pytest.mark.parametrize("jump", [-3600, 3600, *(pytest.param(each, marks=pytest.mark.extended) for each in (-30, 30))])
async def test_a_clock_that_is_set_delays_requests_by_a_window_at_most(service, make, budget, jump) -> None:
    """The clock of a Redis server, by which all clients measure."""
    service.add_video("v", *["in_progressing"] * 1000)
    ahead = 0.0
    budget.store.now = lambda: anyio.current_time() + ahead
    async with make() as one, make() as other, anyio.create_task_group() as group:
        group.start_soon(wait_for_videos, one, "v")
        for _ in range(10):
            await one.characters.list()
            await other.characters.list()
        ahead = jump
        began, polls = anyio.current_time(), len(service.polls)
        for _ in range(15):
            await one.characters.list()
            await other.characters.list()
        assert anyio.current_time() - began < 125  # two windows
        await anyio.sleep(100)
        assert len(service.polls) > polls
        group.cancel_scope.cancel()
    assert throttled(service) == 0


# -- an unreachable store ---------------------------------------------------------------------------------------------


@pytest.mark.simulation
@pytest.mark.parametrize("blocks", [False, True])
async def test_without_the_store_clients_use_their_share(service, blocks, caplog) -> None:
    caplog.set_level(logging.INFO, "a2v")
    budget = Breakable(blocks=blocks)
    clients = [
        a2v.AsyncA2V(TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport())
        for _ in range(3)
    ]
    async with anyio.create_task_group() as group:
        for client in clients:
            task = await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)
            group.start_soon(wait_for_videos, client, task.video_id)
        await anyio.sleep(5)
        budget.broken = True
        await anyio.sleep(30)
        assert [(await client.pace()).limit for client in clients] == [10, 10, 10]
        budget.broken = False
        with anyio.fail_after(600):
            while [(await client.pace()).limit for client in clients] != [30, 30, 30]:
                # A store that blocks has the real clock. Virtual time waits for a thread.
                await anyio.to_thread.run_sync(time.sleep, 0.05 if blocks else 0)
                await anyio.sleep(1)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert all("in memory is not available: the test has broken it" in text for text in warnings)
    assert all("at most 10 requests" in text for text in warnings)
    assert throttled(service) == 0


async def test_the_share_does_not_shrink_with_each_outage(make, budget) -> None:
    """Although no response reports the limit in between."""
    service = Service(limit=FixedWindow(600, 60))
    async with make(transport=service.transport()) as client, make(transport=service.transport()) as other:
        await client.characters.list()
        for _ in range(3):
            for each in (other, client):
                await anyio.sleep(10)
                await each.pace()
            await anyio.sleep(10)
            budget.broken = True
            assert (await client.pace()).limit == 300
            budget.store.lose()
            budget.broken = False
            await anyio.sleep(2)
            assert (await client.pace()).limit == 600


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_store_that_never_works_does_not_prevent_anything(service, blocks) -> None:
    budget = Breakable(blocks=blocks)
    budget.broken = True
    client = a2v.AsyncA2V(
        TOKEN, base_url="https://a2v.example", budget=budget, rate_limit=20, transport=service.transport()
    )
    async with client:
        task = await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)
        assert (await task.wait()).is_terminal
        assert (await client.pace()).limit == 20


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_full_store_is_reported_once(service, blocks, caplog) -> None:
    """It can be read, so it seems to work."""
    budget = Breakable(blocks=blocks)
    async with a2v.AsyncA2V(
        TOKEN, base_url="https://a2v.example", budget=budget, transport=service.transport()
    ) as client:
        await client.characters.list()
        budget.full = True
        with anyio.move_on_after(600):
            while True:
                await client.characters.list()
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.simulation
async def test_a_store_that_comes_and_goes_pays_for_nothing_twice(service, make, budget) -> None:
    async def toggle() -> None:
        while True:
            await anyio.sleep(7)
            budget.broken = not budget.broken

    async with anyio.create_task_group() as group:
        group.start_soon(toggle)
        async with anyio.create_task_group() as batches:
            for number in range(3):
                batches.start_soon(run_batch, make(), number)
        group.cancel_scope.cancel()
    assert len(service.submissions) == len({each.audio_url for each in service.submissions}) == 15


async def run_batch(client: a2v.AsyncA2V, number: int) -> None:
    jobs = [a2v.Job("eva_a0008", f"https://example.com/{number}-{each}.wav") for each in range(5)]
    async with client, client.batch(jobs) as batch:
        outcomes = [outcome async for outcome in batch]
    assert [outcome.error for outcome in outcomes] == [None] * 5


# -- what is stored ---------------------------------------------------------------------------------------------------


async def test_the_store_holds_no_secrets_or_urls(service, make, budget) -> None:
    async with make() as client:
        task = await client.videos.generate(model_id="eva_a0008", audio_url=HELLO)
        video = await task.wait()
    stored = b"".join(budget.store._log.entries)
    assert video.video_url
    for secret in (TOKEN, video.video_url, "https", "finished", video.video_id + '"'):
        assert secret.encode() not in stored


async def test_accounts_do_not_mix(service) -> None:
    shared = SharedBudget()
    one, other = (
        a2v.AsyncA2V(token, base_url="https://a2v.example", budget=shared, transport=service.transport())
        for token in ("token-of-one-account", "token-of-another-account")
    )
    await one.characters.list()
    assert (await other.pace()).left == 30
    assert len(shared._stores) == 2
    assert not any("token" in account for account in shared._stores)


async def test_entries_of_others_are_ignored(service, make, budget) -> None:
    """Whoever can write to the store, but does not have the token, can make a client believe nothing."""
    async with make() as client:
        await client.characters.list()
        end = budget.store.exchange(Position(), []).position
        budget.store.exchange(end, [b"", b"x" * 100])
        await client.characters.list()
        assert (await client.pace()).left == 28


async def test_a_videos_origin_is_known_to_the_batches_of_others(service, make, tmp_path) -> None:
    """A video that another client has submitted is never taken for the result of an unknown submission."""
    service.lists_videos = True
    async with make() as one, make() as other:
        job = a2v.Job("eva_a0008", HELLO)
        service.reply("video.generate", httpx.ReadTimeout(""))
        async with one.batch([job], journal=tmp_path / "j.db") as batch, anyio.create_task_group() as group:
            task = None

            async def submit() -> None:
                nonlocal task
                await anyio.sleep(30)
                task = await other.videos.generate(model_id="eva_a0008", audio_url=HELLO)
                await task.wait()

            group.start_soon(submit)
            outcomes = [outcome async for outcome in batch]
    assert isinstance(outcomes[0].error, a2v.SubmissionUnknownError)
