"""One member of a shared budget: the corners of writing, leaving, and joining again."""

from __future__ import annotations

import threading

import anyio
import pytest

from a2v import Video, VideoStatus
from a2v._async.requests import shared_account
from a2v._async.requests.known_videos import KnownVideos
from a2v._async.requests.shared_account import BudgetOptions, SharedAccount
from a2v._budget.memory_store import MemoryStore
from a2v._budget.store import Append, StoreUnavailableError
from a2v._core.poll_scheduler import ScheduledRequest
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._core.sealing import Sealer
from a2v._core.settings import Secret

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

PENDING = Video(video_id="v", status=VideoStatus.PENDING)
STARTED = Video(video_id="v", status=VideoStatus.IN_PROGRESS)
CALL = ScheduledRequest(RequestKind.CALL, 0.0, None)


class Store(MemoryStore):
    """A store that can fail, before or after it has written."""

    def __init__(self, *, blocks: bool = False) -> None:
        super().__init__()
        self.blocks = blocks
        self.fails_before = self.fails_after = False

    def exchange(self, position, entries, append=Append.ALWAYS):
        if self.fails_before:
            raise StoreUnavailableError("broken")
        result = super().exchange(position, entries, append)
        if self.fails_after:
            raise StoreUnavailableError("broken")
        return result

    def _notify(self) -> None:
        pass


class Member(SharedAccount):
    """A member, with the events that it has published."""

    def __init__(self, store: Store) -> None:
        self.events = []
        options = BudgetOptions(
            lambda _: store,
            Sealer(Secret("token"), "https://a2v.example"),
            lambda jitter: RateLimiter(jitter=jitter),
            None,
        )
        super().__init__(options, KnownVideos(), self.events.extend, lambda: None, lambda: False)


async def two_members(store: Store) -> tuple[Member, Member]:
    """Return members that have read the log."""
    members = Member(store), Member(store)
    for member in members:
        await member.sync()
    return members


async def reconnected(member: Member) -> None:
    """Let a member return to its store, with as many seconds of virtual time on a slow machine as on a fast one."""
    await anyio.sleep(2)
    await member.sync()
    if attempt := member._reconnection:  # otherwise it has ended already
        attempt.done.wait()
    await member.sync()
    assert not member._is_offline


async def test_following_twice_or_discarding_an_unknown_video_writes_nothing() -> None:
    member = Member(Store())
    member.add("v", 0)
    member.add("v", 0)
    member.discard("w")
    await member.sync()
    assert "v" in member
    assert "w" not in member


async def test_a_video_that_nobody_awaits_is_paused_until_it_is_awaited_again() -> None:
    member = Member(Store())
    member.add("v", 0)
    await member.sync()
    member.next(member.now(), RateLimiter(), is_awaited=lambda _: False)
    await member.sync()
    assert member.log.has_paused("v")
    member.resume({"v": None, "w": None})
    await member.sync()
    assert not member.log.has_paused("v")
    member.resume({"v": None})


async def test_the_first_fact_is_written_after_the_log_was_read() -> None:
    store = Store()
    first, second = Member(store), Member(store)
    await first.sync()
    second.add("v", 0)
    second.abandoned(CALL)
    await first.sync()
    assert "v" in first


async def test_without_a_thread_a_fact_is_written_later(monkeypatch) -> None:
    def start(*_: object) -> None:
        raise OSError("can't start new thread")

    member = Member(Store(blocks=True))
    member.abandoned(CALL)  # it has never read the log, so it has nothing to take back
    member.add("v", 0)
    await member.sync()
    with monkeypatch.context() as patch:
        patch.setattr(shared_account._threads, "start", start)
        member.observe([PENDING], 0)
    assert member.snapshot("v") is None
    await member.sync()
    assert member.snapshot("v") == PENDING


async def test_a_write_that_failed_is_not_read() -> None:
    store = Store(blocks=True)
    member = Member(store)
    member.add("v", 0)
    await member.sync()
    store.fails_before = True
    member.observe([PENDING], 0)
    member._last_write.done.wait()
    member.collect()
    assert member.snapshot("v") is None


async def test_after_an_outage_the_whole_log_is_read_although_a_write_preceded_it() -> None:
    store = Store(blocks=True)
    member, other = Member(store), Member(store)
    other.add("v", 0)
    await other.sync()
    await member.sync()
    member.add("w", 0)
    member.stop_waiting()
    member._last_write.done.wait()
    store.fails_before = True
    await member.sync()
    assert member._is_offline
    store.fails_before = False
    # Without `collect`, as in a client that only asks for the pace.
    await reconnected(member)
    await member.sync()
    assert "v" in member
    assert "w" in member


@pytest.mark.parametrize("trouble", ["restarted without its data", "unreachable", "unreachable for a moment"])
async def test_facts_that_a_write_has_not_written_are_written_before_later_ones(trouble) -> None:
    store = Store(blocks=True)
    member, other = await two_members(store)
    member.add("v", 0)
    await member.sync()
    if trouble == "restarted without its data":
        store._log = type(store._log)()
    else:
        store.fails_before = True
    member.discard("v")
    member._last_write.done.wait()
    if trouble == "unreachable for a moment":
        store.fails_before = False
    member.add("v", 0)
    for _ in range(3):
        await member.sync()
        member.collect()
    assert member.log.follows("v")
    if trouble != "unreachable":
        await other.sync()
        assert "v" in other


async def test_writes_that_follow_a_failed_one_keep_the_order() -> None:
    store = Store(blocks=True)
    member, other = await two_members(store)
    member.add("v", 0)
    await member.sync()
    store.fails_before = True
    member.discard("v")
    member._last_write.done.wait()
    store.fails_before = False
    member.add("v", 0)
    member.stop_waiting()
    member._last_write.done.wait()
    await other.sync()
    assert "v" in other


@pytest.mark.parametrize("has_failed", [False, True])
async def test_a_member_that_leaves_says_so(has_failed) -> None:
    store = Store(blocks=True)
    member, other = Member(store), Member(store)
    member.add("v", 0)
    await member.sync()
    await other.sync()
    assert "v" in other
    store.fails_before = has_failed
    member.stop_waiting()
    member.observe([PENDING], 0)
    member._last_write.done.wait()
    store.fails_before = False
    await member.aclose()
    await other.sync()
    assert "v" not in other
    assert other.log.member_count(other.now()) == 1


async def test_a_request_is_not_sent_if_others_have_written_what_it_has_not_considered() -> None:
    """What the last write in a thread has read counts too."""
    store = Store(blocks=True)
    member, other = await two_members(store)
    assert await other.send(CALL, set())
    member.observe([PENDING], 0)
    member._last_write.done.wait()
    assert not await member.send(CALL, set())
    assert await member.send(CALL, set())


async def test_a_request_is_not_sent_if_another_task_reads_what_it_has_not_considered() -> None:
    """A display may ask for the pace at any time."""
    store = Store(blocks=True)
    member, other = await two_members(store)
    assert await other.send(CALL, set())
    numbers = []

    async def send() -> None:
        numbers.append(await member.send(CALL, set()))

    async with anyio.create_task_group() as group:
        group.start_soon(member.sync)
        group.start_soon(send)
    assert numbers == [0]
    assert await member.send(CALL, set())


async def test_a_member_that_was_passed_over_waits_again() -> None:
    store = Store()
    late, other = Member(store), Member(store)
    await late.sync()
    await late.set_waits({RequestKind.CALL})
    await other.sync()
    number = await other.send(CALL, set())
    other.release(number, {"x-ratelimit-left": "29"}, 200)
    await late.sync()
    await late.set_waits({RequestKind.CALL})
    await other.sync()
    assert other.next(anyio.current_time(), other.log.limiter, calls=1).at > anyio.current_time()


async def test_an_interrupted_exchange_writes_its_facts_later(monkeypatch) -> None:
    async def run(*_: object, **__: object) -> None:
        raise RuntimeError("interrupted")

    member = Member(Store(blocks=True))
    await member.sync()
    member.add("v", 0)
    with monkeypatch.context() as patch:
        patch.setattr(shared_account._threads, "run", run)
        with pytest.raises(RuntimeError):
            await member.sync()
    await member.sync()
    assert "v" in member


async def test_a_log_that_was_started_again_shows_what_changed_meanwhile() -> None:
    store = Store()
    first, second = Member(store), Member(store)
    for member in (first, second):
        member.add("v", 0)
        await member.sync()
    second.observe([PENDING], 0)
    await first.sync()
    await anyio.sleep(1)
    second.observe([STARTED], 0)
    await second._exchange([], Append.RESTART)
    first.events.clear()
    await first.sync()
    assert first.events == [("v", STARTED)]


async def test_a_reservation_that_a_failing_store_has_written_is_returned() -> None:
    store = Store()
    member, other = Member(store), Member(store)
    await member.sync()
    store.fails_after = True
    assert await member.send(CALL, set()) == 0
    store.fails_after = False
    await anyio.sleep(60)
    await member.sync()
    await member.sync()
    await other.sync()
    assert other.log.in_flight() == []
    assert member.log.in_flight() == []


async def test_a_request_that_ended_while_the_store_failed_is_settled() -> None:
    store = Store()
    member = Member(store)
    await member.sync()
    number = await member.send(CALL, set())
    assert number
    store.fails_before = True
    member.release(number, {}, 200)
    store.fails_before = False
    await anyio.sleep(60)
    await member.sync()
    await member.sync()
    assert member.log.has_sent(number)
    assert member.log.in_flight() == []


async def test_a_request_in_flight_survives_a_failure_of_the_store() -> None:
    store = Store()
    member = Member(store)
    await member.sync()
    number = await member.send(CALL, set())
    store.fails_before = True
    member.add("v", 0)
    await member.sync()
    store.fails_before = False
    await anyio.sleep(60)
    await member.sync()
    await member.sync()
    assert member.log.in_flight() == [number]


async def test_without_a_thread_the_store_is_tried_again_later(monkeypatch) -> None:
    def start(*_: object) -> None:
        raise OSError("can't start new thread")

    store = Store(blocks=True)
    member = Member(store)
    await member.sync()
    store.fails_before = True
    member.add("v", 0)
    await member.sync()
    store.fails_before = False
    await anyio.sleep(60)
    with monkeypatch.context() as patch:
        patch.setattr(shared_account._threads, "start", start)
        await member.sync()
    assert member.check_interval <= 1  # it still uses its own store
    await reconnected(member)
    other = Member(store)
    await other.sync()
    assert "v" in other


async def test_a_log_from_the_future_is_started_again() -> None:
    """For example after the clock of the store's machine was set back."""
    store = Store()
    ahead = Member(store)
    await ahead.sync()
    offset = 100_000.0
    ahead.now = lambda: anyio.current_time() + offset
    ahead.add("v", 0)
    await ahead.sync()
    member = Member(store)
    member.add("w", 0)
    await member.sync()
    await member.sync()
    assert "w" in member
    assert member._recent[-1][0] < anyio.current_time() + 60


async def test_facts_are_written_after_an_unexpected_error_too() -> None:
    """Of a thread's write, which nothing waits for."""
    store = Store(blocks=True)
    member, other = await two_members(store)
    fails = iter([True])

    def seal(now, facts) -> bytes:
        if next(fails, False):
            raise ValueError("a bug")
        return Member._sealed(member, now, facts)

    member._sealed = seal
    member.add("v", member.now(), since=None)
    member.stop_waiting()
    write = member._last_write
    write.done.wait()
    assert write.unwritten == [["follow", "v", None]]
    member.collect()
    member.stop_waiting()
    member._last_write.done.wait()
    await other.sync()
    assert "v" in other


async def test_a_write_that_starts_during_another_one_follows_it() -> None:
    store = Store(blocks=True)
    member, other = await two_members(store)
    has_begun, may_end, exchange = threading.Event(), threading.Event(), store.exchange

    def exchange_slowly(*args):
        store.exchange = exchange
        has_begun.set()
        may_end.wait()
        return exchange(*args)

    store.exchange = exchange_slowly
    member.add("v", member.now())
    member.stop_waiting()
    has_begun.wait()
    member.add("w", member.now())
    member.stop_waiting()
    may_end.set()
    member._last_write.done.wait()
    await other.sync()
    assert "v" in other
    assert "w" in other
