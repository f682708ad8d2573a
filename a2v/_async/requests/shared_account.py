"""One client's part in a shared budget: a member of the account's log.

`AccountLog` knows the account's state and decides, but stores nothing. A *store* stores entries, but does not know what they
mean. This module connects the two. Whatever a client does with a schedule and a rate limiter becomes a fact that is written
to the store; what comes back, its own facts among those of others, is applied to the `AccountLog`.

* **Writing never waits for the store where a caller cannot wait**: facts are put in an outbox, which the next exchange writes.
  A store that does not block is written at once, another one by the driver, or by a thread if there is no driver.
* **Sending is a condition**: ``send`` succeeds only if the log has nothing that this client has not seen.
* **Joining is the only way in, and serves four cases**: a client that starts, one that others gave up (its event loop was
  blocked), a log that was started again (it was too long, or the store has lost it), and a store that is reachable again.
  The client reads the whole log, and then introduces itself: it writes which videos it follows, with all it knows about them,
  and which requests it has sent within the last window.
* **An unreachable store is replaced by a private one in memory**, which the client joins, too. So the client continues with
  what it knows, limited to its share of the account's limit. Once the store can be reached, the client joins it again.
"""

from __future__ import annotations

import json
import math
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import define, frozen

from a2v import _threads
from a2v._async.requests import telemetry
from a2v._budget.memory_store import MemoryStore
from a2v._budget.store import Append, Exchanged, Position, Store, StoreUnavailableError
from a2v._budget.store_threads import Reconnection, Write, Writer
from a2v._core import account_log
from a2v._core.account_log import HEARTBEAT, AccountLog, Fact, end_fact, seen_fact
from a2v._core.poll_scheduler import is_change
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._core.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from a2v._async.requests.known_videos import KnownVideos
    from a2v._core.poll_scheduler import PollEvent, ScheduledRequest
    from a2v._values.models import Video
    from a2v.errors import A2VError

_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_Entry = tuple[str, float, list[Fact]]
"""A member, the time, and its facts."""

_KEPT = 150.0  # seconds for which entries stay when a log is started again, and sends are remembered
_MAX_LOG = 256 * 1024  # bytes of a log, after which it is started again
_MIN_AGE = 300.0  # seconds that a log lasts at least
_RECONNECT_INTERVAL = 1.0  # seconds between attempts to reach a store
_LAPSED_AFTER = 2 * HEARTBEAT  # seconds without an entry after which a client introduces itself again
_FUTURE = 5.0  # seconds that the clocks of members may differ; with more, the store's clock has been set back
_JITTER = 0.5  # of the pause after a 429; one budget needs no randomness


@frozen
class BudgetOptions:
    """What a client needs to take part in a shared budget.

    Attributes:
        new_store: Returns the store for an account's fingerprint.
        sealer: Encrypts entries.
        new_limiter: Returns a rate limiter in its initial state, for a function that returns random numbers.
        ceiling: The client's upper bound of the limit, if it has one.
    """

    new_store: Callable[[str], Store]
    sealer: Sealer
    new_limiter: Callable[[Callable[[], float]], RateLimiter]
    ceiling: int | None


@define(eq=False)
class _Send:
    """A request of this client.

    Attributes:
        at: When it was sent.
        ended_at: When it ended.
    """

    at: float
    ended_at: float | None = None

    def is_over(self, before: float) -> bool:
        """Whether it had ended before a time."""
        return self.ended_at is not None and self.ended_at < before


class SharedAccount:
    """The schedule and the rate limiter of an account, as one client uses them in one event loop.

    Args:
        options: The shared budget.
        known_videos: The client's record of submissions and listed videos.
        on_events: Called with the events of videos that this client may follow.
        on_change: Called after a change that may allow a request, or must be written.
        has_driver: Returns whether a driver will write what is in the outbox.

    Attributes:
        log: The account's state.
    """

    def __init__(
        self,
        options: BudgetOptions,
        known_videos: KnownVideos,
        on_events: Callable[[list[PollEvent]], None],
        on_change: Callable[[], object],
        has_driver: Callable[[], bool],
    ) -> None:
        self._options = options
        self._known_videos = known_videos
        # How many submissions had started when the log was last read.
        self._submissions_before = 0
        self._on_events = on_events
        self._on_change = on_change
        self._has_driver = has_driver
        self._id = secrets.token_hex(6)
        self._home = self._store = options.new_store(options.sealer.fingerprint)
        self._home.listen(self.notice_change)
        self._position = Position()
        self.log = self._new_log()
        # What is to be written, and whether an exchange is under way.
        self._outbox: deque[Fact] = deque()
        self._is_busy = False
        self._written_at = -math.inf
        self._followed: dict[str, float | None] = {}
        # Those of them whose ``follow`` is in the outbox, or is being written.
        self._unread_follows: set[str] = set()
        self._last_send = 0
        self._polls: dict[ScheduledRequest, int] = {}
        self._sends: dict[int, _Send] = {}
        # Entries to keep when the log is started again, and the size of all.
        self._recent: deque[tuple[float, bytes]] = deque()
        self._began_at = -math.inf
        self._size = 0
        # Of the entry that was written last, which need not be unsealed.
        self._last_entry: tuple[bytes, _Entry] | None = None
        # The last write in a thread that nothing waits for; the next exchange begins after it.
        self._writer = Writer()
        self._last_write: Write | None = None
        # Exchanges in threads, one at a time.
        self._exchange_lock = anyio.Lock()
        self._thread_limiter = anyio.CapacityLimiter(1)
        # The bound of the limit while the store cannot be reached.
        self._share: int | None = None
        self._reconnection: Reconnection | None = None
        self._reconnect_at = math.inf

    # -- the clock and the store --------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time by the clock that all members share."""
        return self._home.now()

    @contextmanager
    def locked(self) -> Iterator[tuple[RateLimiter, float]]:
        """Yield the account's rate limiter with its time. Only one event loop uses it, so there is nothing to lock."""
        yield self.log.limiter, self.now()

    @property
    def check_interval(self) -> float:
        """Seconds after which a driver has to look for new entries."""
        return min(self._store.check_interval, _RECONNECT_INTERVAL if self._is_offline else HEARTBEAT)

    @property
    def _is_offline(self) -> bool:
        return self._store is not self._home

    def notice_change(self) -> None:
        """Notice that the store has new entries. Stores call this."""
        self._on_change()

    def _new_log(self) -> AccountLog:
        return AccountLog(self._id, self._options.new_limiter(lambda: _JITTER))

    # -- a schedule, for the dispatcher -------------------------------------------------------------------------------

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.log.scheduler

    def snapshot(self, video_id: str) -> Video | None:
        """Return the last snapshot of a video, if a member follows it and it was polled."""
        self.log.expire(self.now())
        return self.log.scheduler.snapshot(video_id)

    def add(self, video_id: str, now: float, *, since: float | None = None) -> None:
        """Follow a video; see ``PollScheduler.add``."""
        del now
        if video_id not in self._followed:
            self._followed[video_id] = since
            self._unread_follows.add(video_id)
            self._outbox.append(["follow", video_id, since])

    def discard(self, video_id: str) -> None:
        """Stop following a video."""
        if video_id in self._followed:
            del self._followed[video_id]
            if self.log.follows(video_id) or video_id in self._unread_follows:
                self._unread_follows.discard(video_id)
                self._write(["unfollow", [video_id]])

    def resume(self, video_ids: Mapping[str, object]) -> None:
        """Await paused videos again."""
        if resumed := [video_id for video_id in video_ids if self.log.has_paused(video_id)]:
            self._outbox.append(["resume", resumed])

    def next(
        self,
        now: float,
        limiter: RateLimiter,
        *,
        submits: int = 0,
        calls: int = 0,
        is_awaited: Callable[[str], bool] = lambda _: True,
    ) -> ScheduledRequest | None:
        """Return the next request that this client may send; see ``PollScheduler.next``."""
        del limiter
        waits = _kinds(calls=calls, submits=submits)
        awaits_any = any(map(is_awaited, self._followed))
        scheduled = self.log.next(now, waits, is_awaited, awaits_any=awaits_any)
        if self.log.paused:
            self._outbox.append(["pause", self.log.paused])
            self.log.paused = []
        return scheduled

    def start(self, scheduled: ScheduledRequest, now: float) -> None:
        """Do nothing: ``send`` has written it."""

    def observe(
        self, videos: Iterable[Video], now: float, scheduled: ScheduledRequest | None = None
    ) -> list[PollEvent]:
        """Process snapshots. Their events come as those of other members do."""
        del now
        self._write(seen_fact(self.log, videos, scheduled, self._number_of(scheduled)))
        return []

    def failed(self, scheduled: ScheduledRequest, error: A2VError, now: float, *, final: bool) -> list[PollEvent]:
        """Process an error."""
        del now
        number = self._number_of(scheduled)
        self.log.own_errors[number] = error
        self._write(["failed", number, scheduled.kind.value, scheduled.video_id, error.to_dict(), final])
        return []

    def abandoned(self, scheduled: ScheduledRequest) -> None:
        """Process the end of a poll that was cancelled, or never sent."""
        self._write(["abandoned", self._number_of(scheduled)])

    def _number_of(self, scheduled: ScheduledRequest | None) -> int:
        return self._polls.pop(scheduled, 0) if scheduled else 0

    # -- sending ------------------------------------------------------------------------------------------------------

    async def send(self, scheduled: ScheduledRequest, waits: set[RequestKind]) -> int:
        """Reserve a request, unless the log has entries that this client has not seen.

        Args:
            scheduled: The request.
            waits: The kinds of requests that wait here when this one has been sent.

        Returns:
            The number of the request; 0: ask ``next`` again.
        """
        if not self._position.generation or self._is_too_long():
            await self.sync()
            return 0
        self._last_send += 1
        number, at, written = self._last_send, self.now(), self._take()
        once: list[Fact] = [["send", number, scheduled.kind.value, scheduled.video_id]]
        if waits != self.log.waits():
            once.append(_wait_fact(waits))
        try:
            await self._exchange(written, Append.AT_END, once=once)
        except BaseException:
            # It may have been written all the same.
            self._write(end_fact(number, account_log.UNUSED))
            raise
        if not self.log.has_sent(number):
            return 0
        self._sends[number] = _Send(at)
        if scheduled.kind in (RequestKind.GET, RequestKind.LIST):
            self._polls[scheduled] = number
        return number

    def release(
        self, number: int, headers: Mapping[str, str] | None, status_code: int = 0, *, throttled: bool = False
    ) -> None:
        """Record that a request has ended.

        Args:
            number: The request.
            headers: The response's headers; ``None`` if there was no response.
            status_code: The response's HTTP status.
            throttled: Whether the request exceeded the limit.
        """
        how = account_log.GOOD if status_code < 400 else account_log.BAD
        if throttled:
            how = account_log.THROTTLED
        elif headers is None:
            how = account_log.LOST
        elif status_code == 503:
            how = account_log.UNAVAILABLE
        self._sends[number].ended_at = now = self.now()
        self._write(end_fact(number, how, headers))
        while (oldest := next(iter(self._sends))) != number and self._sends[oldest].is_over(now - _KEPT):
            del self._sends[oldest]

    def cancel(self, number: int) -> None:
        """Return a reservation that was not used."""
        del self._sends[number]
        self._write(end_fact(number, account_log.UNUSED))

    # -- writing and reading ------------------------------------------------------------------------------------------

    async def set_waits(self, waits: set[RequestKind]) -> None:
        """Write which kinds of requests wait here, if that has changed."""
        if waits != self.log.waits():
            self._outbox.append(_wait_fact(waits))
        if self._outbox:
            await self.sync()

    async def sync(self) -> None:
        """Write what is to be written, and apply the new entries."""
        self._reconnect()
        if not self._position.generation:
            await self._exchange([])
        if self._is_too_long():
            await self._exchange([], Append.RESTART)
        facts = self._take()
        if not facts and self.now() - self._written_at >= HEARTBEAT:
            facts = [_wait_fact(self.log.waits())]
        while facts or self._store.has_changed(self._position):
            await self._exchange(facts)
            facts = self._take()
            if self._store.blocks and not facts:
                break

    async def aclose(self) -> None:
        """Write what is left, and that this client leaves."""
        if self._position.generation and not self._is_offline:
            self._followed.clear()
            self._outbox.append(["bye"])
            with anyio.move_on_after(1, shield=True):
                await self.sync()

    def _take(self) -> list[Fact]:
        """Return what is to be written. A client that has not written for long introduces itself first."""
        if not self._position.generation:
            return []
        if write := self._writer.withdraw():
            self._last_write = write.earlier
            self._restore(write.facts)
        facts = list(self._outbox)
        self._outbox.clear()
        if self.now() - self._written_at > _LAPSED_AFTER:
            facts = [*self._introduction(self.log), *facts]
        return facts

    def _write(self, fact: Fact) -> None:
        self._outbox.append(fact)
        self.flush()

    def stop_waiting(self) -> None:
        """Write that no requests wait here, and what else is to be written: nothing here will drive any more."""
        if self.log.waits():
            self._outbox.append(_wait_fact(set()))
        if self._outbox:
            self.flush()

    def flush(self) -> None:
        """Write what is to be written at once, unless the driver will do that."""
        if self._is_busy or (self._store.blocks and self._has_driver()):
            self._on_change()
        elif self._store.blocks:
            self._write_in_thread()
        else:
            self._write_now()

    def _write_now(self) -> None:
        if not self._position.generation:
            self._exchange_now([])
        while facts := self._take():
            self._exchange_now(facts)

    def _write_in_thread(self) -> None:
        if not (facts := self._take()):
            return  # it has never read the log, so it has nothing to take back
        write = Write(self._store, self._position, facts, partial(self._sealed, self.now()), self._last_write)
        try:
            self._writer.start(write)
        except OSError:
            self._restore(facts)
        else:
            self._last_write = write

    def collect(self) -> None:
        """Apply what the last write in a thread has read, if that has ended."""
        if (write := self._last_write) and write.done.is_set() and not self._is_busy:
            self._absorb_write(write, is_next=write.position == self._position)

    async def _exchange(self, facts: list[Fact], append: Append = Append.ALWAYS, *, once: Sequence[Fact] = ()) -> None:
        """Exchange entries with the store, which may block.

        Args:
            facts: What to write, now or later.
            append: Under which condition.
            once: What to write after that, now or never.
        """
        if not self._store.blocks:
            self._exchange_now(facts, append, once)
            return
        seen, results = self._position, list[Exchanged]()
        try:
            async with self._exchange_lock:
                # Another task, such as one that asks for the pace, may have read entries that the caller has not considered.
                if append is Append.ALWAYS or self._position == seen:
                    await self._exchange_in_thread(facts, append, once, results)
                else:
                    self._restore(facts)
        except (StoreUnavailableError, OSError) as error:
            self._restore(facts)
            self.collect()  # the write before it, whose facts come first
            self._go_offline(str(error))
        except BaseException:
            if not results:
                self._restore(facts)
                self.flush()
            raise

    async def _exchange_in_thread(
        self, facts: list[Fact], append: Append, once: Sequence[Fact], results: list[Exchanged]
    ) -> None:
        earlier, position, exchange = self._last_write, self._position, self._store.exchange
        entries = self._entries([*facts, *once], append)

        def run() -> None:
            start = earlier.end(position) if earlier else position
            # What that has not written must be written first, so this only reads.
            results.append(exchange(start, [] if earlier and earlier.unwritten else entries, append))

        self._is_busy = True
        try:
            try:
                await _threads.run(run, limiter=self._thread_limiter)
            finally:
                # Also if the caller was cancelled: the thread has ended, and others must not write the same again.
                if results:
                    self._restore_unwritten(facts, entries, results[0])
                    if earlier:
                        self._absorb_write(earlier, is_next=earlier.end(position) != position)
                    self._absorb(results[0])
        finally:
            self._is_busy = False

    def _exchange_now(self, facts: list[Fact], append: Append = Append.ALWAYS, once: Sequence[Fact] = ()) -> None:
        self._is_busy = True
        try:
            entries = self._entries([*facts, *once], append)
            result = self._store.exchange(self._position, entries, append)
        except StoreUnavailableError as error:
            self._restore(facts)
            self._go_offline(str(error))
        else:
            self._restore_unwritten(facts, entries, result)
            self._absorb(result)
        finally:
            self._is_busy = False

    def _absorb_write(self, write: Write, *, is_next: bool) -> None:
        """Apply a write that has ended.

        Args:
            write: The write.
            is_next: Whether its result follows what this client knows; otherwise another exchange reads it.
        """
        self._last_write = None
        self._restore(write.unwritten)
        if write.result and is_next:
            self._absorb(write.result)

    def _restore_unwritten(self, facts: list[Fact], entries: list[bytes], result: Exchanged) -> None:
        """Put facts back into the outbox, unless an exchange has written their entry.

        Before its result is applied: what that puts into the outbox, such as an introduction, comes first, because it is older.
        """
        if facts and entries[-1] not in result.entries:
            self._restore(facts)

    def _restore(self, facts: list[Fact]) -> None:
        """Put facts that were not written back into the outbox."""
        self._outbox.extendleft(reversed(facts))

    def _entries(self, facts: list[Fact], append: Append) -> list[bytes]:
        """Return the entries with which to write facts."""
        if append is Append.RESTART:
            self._forget_old_entries()
            return [self._seal([["hello", self._ceiling]]), *(entry for _, entry in self._recent)]
        return [self._seal(facts)] if facts else []

    def _seal(self, facts: list[Fact]) -> bytes:
        now = self.now()
        sealed = self._sealed(now, facts)
        self._last_entry = sealed, (self._id, now, facts)
        return sealed

    def _sealed(self, now: float, facts: list[Fact]) -> bytes:
        return self._options.sealer.seal(_to_json([self._id, now, facts]).encode())

    # -- applying -----------------------------------------------------------------------------------------------------

    def _absorb(self, result: Exchanged) -> None:
        """Apply the entries that an exchange has read."""
        is_new = result.position.generation != self._position.generation
        self._position = result.position
        if result.entries:
            self._on_change()
        if is_new:
            self._rebuild(result)
        else:
            self._on_events([event for entry in result.entries for event in self._apply(entry)[1]])
        self._unread_follows = {each for each in self._unread_follows if not self.log.follows(each)}
        self._record_origins()

    def _record_origins(self) -> None:
        """Record the videos of other members, and those that their lists have shown, as if this client had listed them.

        A list that has come to the log since it was last read was requested after that.
        """
        log, number = self.log, self._submissions_before
        self._submissions_before = self._known_videos.submission_count
        for video_id in log.followed_elsewhere:
            self._known_videos.add(video_id)
        self._known_videos.record_listed(log.first_listed, number)
        log.followed_elsewhere, log.first_listed = [], []

    def _apply(self, sealed: bytes) -> tuple[float, list[PollEvent]]:
        """Apply an entry, and return its time and its events."""
        if self._last_entry and self._last_entry[0] == sealed:
            member_id, at, facts = self._last_entry[1]
        else:
            text = self._options.sealer.unseal(sealed)
            if text is None:
                return -math.inf, []
            member_id, at, facts = json.loads(text)
        if member_id == self._id:
            self._written_at = at
        self._size += len(sealed)
        self._recent.append((at, sealed))
        if math.isinf(self._began_at):
            self._began_at = at
        return at, self.log.apply(member_id, at, facts)

    def _rebuild(self, result: Exchanged) -> None:
        """Derive the state from a whole log, and introduce this client to the other members."""
        old, self.log = self.log, self._new_log()
        self._recent.clear()
        self._size, self._began_at = 0, -math.inf
        events: list[PollEvent] = []
        for entry in result.entries:
            at, found = self._apply(entry)
            events += [event for event in found if _is_final(event, is_new=at > old.now > -math.inf)]
        self._on_events([*events, *self._missed_changes(old)])
        self._restore(self._introduction(old))
        self._written_at = self.now()

    def _missed_changes(self, old: AccountLog) -> list[PollEvent]:
        """Return the snapshots that other members have got since this one last read the log."""
        missed: list[PollEvent] = []
        for video_id in self._followed:
            before, after = old.scheduler.snapshot(video_id), self.log.scheduler.snapshot(video_id)
            if after and (before is None or (is_change(before, after) and self._is_newer(video_id, old))):
                missed.append((video_id, after))
        return missed

    def _is_newer(self, video_id: str, old: AccountLog) -> bool:
        mine, theirs = old.scheduler.export_state(video_id), self.log.scheduler.export_state(video_id)
        return bool(mine["polled_at"] < theirs["polled_at"])

    @property
    def _ceiling(self) -> int | None:
        return self._share if self._is_offline else self._options.ceiling

    def _introduction(self, old: AccountLog) -> list[Fact]:
        """Return the facts that other members need to know about this one.

        Args:
            old: What this client knows.
        """
        facts: list[Fact] = [["hello", self._ceiling], ["limit", old.limiter.reported or old.limiter.limit]]
        now = self.now()
        is_set_back = old.now > now + _FUTURE  # so times are wrong, and nothing is in the future
        for video_id, since in self._followed.items():
            known = old.scheduler.export_state(video_id) if video_id in old.scheduler and not is_set_back else None
            facts.append(["follow", video_id, since and min(since, now), known])
        paused = [video_id for video_id in self._followed if old.has_paused(video_id)]
        facts += [["pause", paused]] if paused else []
        for number, send in self._sends.items():
            if not self.log.has_sent(number):
                facts.append(["sent", number, min(send.at, now), send.ended_at and min(send.ended_at, now)])
        for number in self.log.in_flight():
            # The store failed after it had written a ``send``, or before it could write the end.
            if number not in self._sends:
                facts.append(end_fact(number, account_log.UNUSED))
            elif self._sends[number].ended_at is not None:
                facts.append(end_fact(number, account_log.LOST))
        return [*facts, _wait_fact(old.waits())]

    # -- a long log ---------------------------------------------------------------------------------------------------

    def _is_too_long(self) -> bool:
        now = self.now()
        if self.log.now > now + _FUTURE:
            self._recent.clear()
            return True
        return self._size > _MAX_LOG and now - self._began_at > _MIN_AGE

    def _forget_old_entries(self) -> None:
        oldest = self.now() - _KEPT
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()

    # -- an unreachable store -----------------------------------------------------------------------------------------

    def _go_offline(self, reason: str) -> None:
        """Continue without the store, with this client's share of the limit."""
        # The reported limit: that of an earlier outage was a share already.
        now, limit = self.now(), self.log.limiter.reported or self.log.limiter.limit
        count = max(1, self.log.member_count(now))
        self._share = None if limit is None else max(1, limit // count)
        if self._options.ceiling is not None:
            self._share = min(self._options.ceiling, self._share or self._options.ceiling)
        telemetry.logger.warning(
            "the shared budget %s is not available: %s. Until it is, this client sends %s",
            self._home.name,
            reason,
            "requests without a limit" if self._share is None else f"at most {self._share} requests per minute",
        )
        self._store = MemoryStore(self._home.now)
        self._position = Position()
        self._reconnect_at = now + _RECONNECT_INTERVAL

    def _reconnect(self) -> None:
        """Return to the store if it can be reached."""
        if not self._is_offline:
            return
        if self._reconnection is None and self.now() >= self._reconnect_at:
            self._reconnection = attempt = Reconnection(self._home, self._seal([]))
            if self._home.blocks:
                try:
                    _threads.start(attempt.run, lambda: None)
                except OSError:
                    attempt.done.set()
            else:
                attempt.run()
        if self._reconnection and self._reconnection.done.is_set():
            if self._reconnection.succeeded:
                telemetry.logger.info("the shared budget %s is available again", self._home.name)
                self._store, self._position = self._home, Position()
            self._reconnection = None
            self._reconnect_at = self.now() + _RECONNECT_INTERVAL


def _kinds(*, calls: int, submits: int) -> set[RequestKind]:
    return ({RequestKind.CALL} if calls else set()) | ({RequestKind.SUBMIT} if submits else set())


def _wait_fact(kinds: set[RequestKind]) -> Fact:
    return ["wait", sorted(kind.value for kind in kinds)]


def _is_final(event: PollEvent, *, is_new: bool) -> bool:
    """Whether an event from a whole log ends a watch. Old errors do not: the video may have been followed again since."""
    return is_new if isinstance(event[1], Exception) else event[1].is_terminal
