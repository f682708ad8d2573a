"""One client's membership in a shared budget.

`AccountLog` derives the account's state from the log and decides, but stores nothing. A *store* stores entries, but does not
interpret them. This module connects the two. Each operation of a client on the schedule and the rate limiter becomes a fact, which
is written to the store. The entries that the store returns, both its own and those of other members, are applied to the
`AccountLog`.

* **Callers that cannot wait never wait for the store.** Facts go to an outbox, which the next exchange writes.
  A non-blocking store is written immediately; a blocking one by the driver, or by a thread if there is no driver.
* **Sending is conditional** (optimistic concurrency control): ``send`` succeeds only if the client has seen the whole log.
* **There is only one way to join**, which covers four cases: a client starts; other members considered it lost (its event loop was
  blocked); the log was restarted (it was too long, or the store lost it); or a store is available again.
  The client reads the whole log, and then introduces itself: it writes the videos that it follows, with their states,
  and the requests that it has sent within the last window.
* **An unavailable store is replaced by a private one in memory**, which the client joins in the same way. So the client continues
  with its current state, limited to its share of the account's limit. When the store is available again, the client rejoins it.
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
"""The id of a member, the time in seconds by the store's clock, and the facts."""

_RETENTION = 150.0  # seconds; older entries are dropped when a log is restarted, and older requests are forgotten
_MAX_LOG_SIZE = 256 * 1024  # bytes; a longer log is restarted ...
_MIN_LOG_AGE = 300.0  # ... but not earlier than this, in seconds
_RECONNECT_INTERVAL = 1.0  # seconds between attempts to reach a store
_LAPSED_AFTER = 2 * HEARTBEAT  # seconds without an entry after which a client introduces itself again
_MAX_CLOCK_DIFFERENCE = 5.0  # seconds; entries further in the future mean that the store's clock was set back
_JITTER = 0.5  # replaces the rate limiter's random numbers, because all members must derive the same state


@frozen
class BudgetOptions:
    """The configuration of a client with a shared budget.

    Attributes:
        new_store: Returns the store for the fingerprint of an account.
        sealer: Encrypts entries.
        new_limiter: Returns a new rate limiter; takes a function that returns random numbers.
        ceiling: The client's upper bound of the limit, in requests per minute; ``None``: no bound.
    """

    new_store: Callable[[str], Store]
    sealer: Sealer
    new_limiter: Callable[[Callable[[], float]], RateLimiter]
    ceiling: int | None


@define(eq=False)
class _Send:
    """A request of this client.

    Attributes:
        at: The time when it was sent, in seconds by the store's clock.
        ended_at: The time when it ended; ``None``: it is in flight.
    """

    at: float
    ended_at: float | None = None

    def has_ended(self, before: float) -> bool:
        """Whether it ended before a time."""
        return self.ended_at is not None and self.ended_at < before


class SharedAccount:
    """Gives one client, in one event loop, the poll schedule and the rate limiter of its account.

    Args:
        options: The shared budget.
        known_videos: The client's record of submissions and listed videos.
        on_events: Called with the events of videos that this client may follow.
        on_change: Called after a change that may allow a request, or that must be written.
        has_driver: Returns whether a driver will write the outbox.

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
        # The number of submissions that had started when the log was last read.
        self._submissions_before = 0
        self._on_events = on_events
        self._on_change = on_change
        self._has_driver = has_driver
        self._id = secrets.token_hex(6)
        self._home = self._store = options.new_store(options.sealer.fingerprint)
        self._home.listen(self.notice_change)
        self._position = Position()
        self.log = self._new_log()
        # The facts to write, and whether an exchange is in progress.
        self._outbox: deque[Fact] = deque()
        self._is_busy = False
        self._written_at = -math.inf
        self._followed: dict[str, float | None] = {}
        # Followed videos whose ``follow`` fact is in the outbox, or is being written.
        self._unread_follows: set[str] = set()
        self._last_send = 0
        self._polls: dict[ScheduledRequest, int] = {}
        self._sends: dict[int, _Send] = {}
        # The entries to keep if the log is restarted; and the time of the log's first entry, and its size in bytes.
        self._recent: deque[tuple[float, bytes]] = deque()
        self._began_at = -math.inf
        self._size = 0
        # The last written entry, sealed and plain, so that it need not be unsealed when it is read.
        self._last_entry: tuple[bytes, _Entry] | None = None
        # The last background write; the next exchange starts after it.
        self._writer = Writer()
        self._last_write: Write | None = None
        # Exchanges in threads, one at a time.
        self._exchange_lock = anyio.Lock()
        self._thread_limiter = anyio.CapacityLimiter(1)
        # The upper bound of the limit while the store is unavailable.
        self._share: int | None = None
        self._reconnection: Reconnection | None = None
        self._reconnect_at = math.inf

    # -- the clock and the store --------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time by the clock that all members share."""
        return self._home.now()

    @contextmanager
    def locked(self) -> Iterator[tuple[RateLimiter, float]]:
        """Yield the account's rate limiter and its time. No lock is needed, because only one event loop uses this object."""
        yield self.log.limiter, self.now()

    @property
    def check_interval(self) -> float:
        """Seconds between a driver's checks for new entries."""
        return min(self._store.check_interval, _RECONNECT_INTERVAL if self._is_offline else HEARTBEAT)

    @property
    def _is_offline(self) -> bool:
        return self._store is not self._home

    def notice_change(self) -> None:
        """Notice that the store has new entries. Stores call this."""
        self._on_change()

    def _new_log(self) -> AccountLog:
        return AccountLog(self._id, self._options.new_limiter(lambda: _JITTER))

    # -- the interface of a poll scheduler, for the dispatcher --------------------------------------------------------

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.log.scheduler

    def snapshot(self, video_id: str) -> Video | None:
        """Return the last snapshot of a video; ``None`` if no member follows it, or it was not polled."""
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
        """Do nothing: ``send`` has already written the fact."""

    def observe(
        self, videos: Iterable[Video], now: float, scheduled: ScheduledRequest | None = None
    ) -> list[PollEvent]:
        """Process snapshots. Returns no events: they arrive when the fact is read back from the log."""
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
            waits: The kinds of requests that still wait here after this one is sent.

        Returns:
            The number of the request; 0: the log had new entries, so call ``next`` again.
        """
        if not self._position.generation or self._is_too_long():
            await self.sync()
            return 0
        self._last_send += 1
        number, at, facts = self._last_send, self.now(), self._take_outbox()
        once: list[Fact] = [["send", number, scheduled.kind.value, scheduled.video_id]]
        if waits != self.log.waits():
            once.append(_wait_fact(waits))
        try:
            await self._exchange(facts, Append.AT_END, once=once)
        except BaseException:
            # The fact may have been written despite the error.
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
        while (oldest := next(iter(self._sends))) != number and self._sends[oldest].has_ended(now - _RETENTION):
            del self._sends[oldest]

    def cancel(self, number: int) -> None:
        """Return a reservation that was not used."""
        del self._sends[number]
        self._write(end_fact(number, account_log.UNUSED))

    # -- writing and reading ------------------------------------------------------------------------------------------

    async def set_waits(self, waits: set[RequestKind]) -> None:
        """Write the kinds of requests that wait here, if they have changed."""
        if waits != self.log.waits():
            self._outbox.append(_wait_fact(waits))
        if self._outbox:
            await self.sync()

    async def sync(self) -> None:
        """Write the outbox, and apply new entries."""
        self._reconnect()
        if not self._position.generation:
            await self._exchange([])
        if self._is_too_long():
            await self._exchange([], Append.RESTART)
        facts = self._take_outbox()
        if not facts and self.now() - self._written_at >= HEARTBEAT:
            facts = [_wait_fact(self.log.waits())]
        while facts or self._store.has_changed(self._position):
            await self._exchange(facts)
            facts = self._take_outbox()
            if self._store.blocks and not facts:
                break

    async def aclose(self) -> None:
        """Write the rest of the outbox, and leave the budget. Takes a second at most."""
        if self._position.generation and not self._is_offline:
            self._followed.clear()
            self._outbox.append(["bye"])
            with anyio.move_on_after(1, shield=True):
                await self.sync()

    def _take_outbox(self) -> list[Fact]:
        """Empty the outbox, and return the facts. If the client has not written for long, its introduction comes first."""
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
        """Write that no requests wait here, and the outbox: there is no driver any more."""
        if self.log.waits():
            self._outbox.append(_wait_fact(set()))
        if self._outbox:
            self.flush()

    def flush(self) -> None:
        """Write the outbox immediately, unless the driver will write it."""
        if self._is_busy or (self._store.blocks and self._has_driver()):
            self._on_change()
        elif self._store.blocks:
            self._write_in_thread()
        else:
            self._write_now()

    def _write_now(self) -> None:
        if not self._position.generation:
            self._exchange_now([])
        while facts := self._take_outbox():
            self._exchange_now(facts)

    def _write_in_thread(self) -> None:
        if not (facts := self._take_outbox()):
            return  # the log was never read, so there is nothing to retract
        write = Write(self._store, self._position, facts, partial(self._sealed, self.now()), self._last_write)
        try:
            self._writer.start(write)
        except OSError:
            self._restore(facts)
        else:
            self._last_write = write

    def collect(self) -> None:
        """Apply the result of the last background write, if it has ended."""
        if (write := self._last_write) and write.done.is_set() and not self._is_busy:
            self._absorb_write(write, is_next=write.position == self._position)

    async def _exchange(self, facts: list[Fact], append: Append = Append.ALWAYS, *, once: Sequence[Fact] = ()) -> None:
        """Exchange entries with the store, which may block.

        Args:
            facts: The facts to write. If they cannot be written, they return to the outbox.
            append: The condition for writing.
            once: Facts to write after them. If they cannot be written, they are dropped.
        """
        if not self._store.blocks:
            self._exchange_now(facts, append, once)
            return
        seen, results = self._position, list[Exchanged]()
        try:
            async with self._exchange_lock:
                # Another task, such as a call of `pace`, may have read entries that the caller has not considered.
                if append is Append.ALWAYS or self._position == seen:
                    await self._exchange_in_thread(facts, append, once, results)
                else:
                    self._restore(facts)
        except (StoreUnavailableError, OSError) as error:
            self._restore(facts)
            self.collect()  # the previous write, whose facts come first
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
            # Facts that the earlier write could not write must come first, so only read.
            results.append(exchange(start, [] if earlier and earlier.unwritten else entries, append))

        self._is_busy = True
        try:
            try:
                await _threads.run(run, limiter=self._thread_limiter)
            finally:
                # Even if the caller was cancelled: the thread has ended, and the same facts must not be written again.
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
            is_next: Whether its result starts at the client's position. Otherwise, another exchange reads the entries.
        """
        self._last_write = None
        self._restore(write.unwritten)
        if write.result and is_next:
            self._absorb(write.result)

    def _restore_unwritten(self, facts: list[Fact], entries: list[bytes], result: Exchanged) -> None:
        """Put facts back into the outbox, unless an exchange has written their entry.

        Call this before applying the result: applying it may put an introduction before these facts.
        """
        if facts and entries[-1] not in result.entries:
            self._restore(facts)

    def _restore(self, facts: list[Fact]) -> None:
        """Put unwritten facts back to the front of the outbox."""
        self._outbox.extendleft(reversed(facts))

    def _entries(self, facts: list[Fact], append: Append) -> list[bytes]:
        """Return the entries to write: the facts, or the beginning of a restarted log."""
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
        """Record the videos that other members follow or have listed, as if this client had listed them.

        A list that is new in the log was requested after the log was last read.
        """
        log, number = self.log, self._submissions_before
        self._submissions_before = self._known_videos.submission_count
        for video_id in log.followed_elsewhere:
            self._known_videos.add(video_id)
        self._known_videos.record_listed(log.first_listed, number)
        log.followed_elsewhere, log.first_listed = [], []

    def _apply(self, sealed: bytes) -> tuple[float, list[PollEvent]]:
        """Apply a sealed entry, and return its time and its events."""
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
        """Derive the state from the whole log, and introduce this client to the other members."""
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
        """Return the changes that other members have seen since this client last read the log."""
        missed: list[PollEvent] = []
        for video_id in self._followed:
            before, after = old.scheduler.snapshot(video_id), self.log.scheduler.snapshot(video_id)
            if after and (before is None or (is_change(before, after) and self._is_newer(video_id, old))):
                missed.append((video_id, after))
        return missed

    def _is_newer(self, video_id: str, old: AccountLog) -> bool:
        before, after = old.scheduler.export_state(video_id), self.log.scheduler.export_state(video_id)
        return bool(before["polled_at"] < after["polled_at"])

    @property
    def _ceiling(self) -> int | None:
        return self._share if self._is_offline else self._options.ceiling

    def _introduction(self, old: AccountLog) -> list[Fact]:
        """Return the facts that other members need about this one.

        Args:
            old: The state before the log was read again.
        """
        facts: list[Fact] = [["hello", self._ceiling], ["limit", old.limiter.reported or old.limiter.limit]]
        now = self.now()
        is_set_back = old.now > now + _MAX_CLOCK_DIFFERENCE  # then the old times are useless; limit all times to now
        for video_id, since in self._followed.items():
            state = old.scheduler.export_state(video_id) if video_id in old.scheduler and not is_set_back else None
            facts.append(["follow", video_id, since and min(since, now), state])
        paused = [video_id for video_id in self._followed if old.has_paused(video_id)]
        facts += [["pause", paused]] if paused else []
        for number, send in self._sends.items():
            if not self.log.has_sent(number):
                facts.append(["sent", number, min(send.at, now), send.ended_at and min(send.ended_at, now)])
        for number in self.log.in_flight():
            # The store failed after it wrote the ``send``, or before it wrote the ``end``.
            if number not in self._sends:
                facts.append(end_fact(number, account_log.UNUSED))
            elif self._sends[number].ended_at is not None:
                facts.append(end_fact(number, account_log.LOST))
        return [*facts, _wait_fact(old.waits())]

    # -- restarting a long log ----------------------------------------------------------------------------------------

    def _is_too_long(self) -> bool:
        now = self.now()
        if self.log.now > now + _MAX_CLOCK_DIFFERENCE:
            self._recent.clear()
            return True
        return self._size > _MAX_LOG_SIZE and now - self._began_at > _MIN_LOG_AGE

    def _forget_old_entries(self) -> None:
        oldest = self.now() - _RETENTION
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()

    # -- an unavailable store -----------------------------------------------------------------------------------------

    def _go_offline(self, reason: str) -> None:
        """Continue without the store, with this client's share of the limit."""
        # Prefer the reported limit: the current one may be the share during an earlier outage.
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
    """Whether an event in a whole log ends a watch. An old error does not: the video may have been followed again since."""
    return is_new if isinstance(event[1], Exception) else event[1].is_terminal
