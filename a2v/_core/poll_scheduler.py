"""Which request is next: the one schedule of a client, for all the videos that somebody waits for.

No clock and no I/O: ``now`` is the event loop's clock in seconds, the one that the budget gets. A driver keeps its
waiting submits and calls in two first-in-first-out queues, and whoever's turn it is sends::

    turn = scheduler.next(now, budget, submits=len(submits), calls=len(calls))
    # None: nothing to send until something changes (a waiter comes or goes, a request is answered).
    # turn.at > now: sleep until then, or until something changes, and ask again. Otherwise, without an await:
    scheduler.start(turn, now)
    reservation = budget.acquire(now)
    # SUBMIT, CALL: the first of that queue sends its own request. GET: look at turn.video_id. LIST: look at all.
    # At the end of a GET or LIST exactly one of these; each of the first two returns what is to be delivered:
    news = scheduler.observe(videos, now, turn)
    news = scheduler.failed(turn, error, now, final=...)
    scheduler.abandoned(turn)  # cancelled, or never sent

``add`` a video when its first watcher comes and ``discard`` it when the last one goes; a watcher that comes later begins
with ``last``. What has ended is forgotten by itself. Looks from elsewhere (a ``videos.get``) are welcome in ``observe``.

A watcher whose consumer is busy costs no requests: a video that becomes due while ``next`` is told that nobody awaits it
is paused, with all that is known of it, until ``resume``. A response to ``video.list`` updates it all the same.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from attrs import define, evolve, frozen

from a2v._core.rate_limiter import RequestKind
from a2v._values.models import Video, VideoStatus
from a2v.errors import A2VError, AuthenticationError, NotFoundError, ProtocolError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from a2v._core.rate_limiter import RateLimiter

PollEvent = tuple[str, Video | A2VError]
"""A video's id and what its watchers get: a look that differs from the one before, or the error that ends the watch."""

MAX_OUTAGE = 600.0
"""How long a video may fail to be seen, in seconds, before its watch ends."""

_UNKNOWN_YET = 120.0  # a video that was just submitted may not be known everywhere
_NO_URL_YET = 5  # how often a finished video is polled for its URL again
_POLL_EVERY = 10  # of so many requests one may be a poll while submits wait
_OLDEST_EVERY = 3  # of so many polls one goes to the video polled least recently,
_OLDEST_GAP = 6.0  # but no more often than this, in seconds
_FEWEST_FAILURES = 5
_UNSEEN = 300.0  # seconds without a failed poll after which the next one is the first of another outage
# Seconds until a server that answered `video.list` with 404 or the like is polled for it again, doubled each time.
_LIST_AGAIN = 60.0  # it has had the call before
_LIST_AGAIN_UNKNOWN = 900.0  # it has never answered it, and most likely does not have it
_LIST_AGAIN_MOST = 4 * 3600.0
_INSTANT = 1e-6
_NOWHERE = (-math.inf, 0)


def poll_interval(age: float) -> float:
    """After how many seconds a video is polled again that has been under way for so long."""
    return max(0.5, min(age / 3, math.sqrt(max(age, 0.0) / 2), 60.0))


@frozen
class ScheduledRequest:
    """What to send, and when.

    Attributes:
        kind: What it is.
        at: Not before this time.
        video_id: Which video, for a ``GET``.
    """

    kind: RequestKind
    at: float
    video_id: str | None = None


@define(eq=False)
class _Entry:
    video_id: str
    # When it was added, and as which one.
    added: float
    number: int
    # Its age counts from here: when it was submitted, later when it was last known to wait in line.
    since: float
    # As of when it was last seen, be it by inference, and when it was last polled.
    observed: float
    polled: float
    poll_interval: float
    # Its place among what this client submitted; that of one that was picked up is before everything.
    place: tuple[float, int]
    video: Video | None = None
    waiting: bool = True
    waited: float = -math.inf
    bucket: _Queue | None = None
    # Became due while nobody awaited it, and is not polled until somebody does.
    paused: bool = False
    # Since when a request about it is under way.
    in_flight_since: float | None = None
    failures: int = 0
    failing_since: float = 0.0
    without_url: int = 0


class _Queue:
    """Entries by a key. An entry is in it once; putting it again moves it."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, ...], int, _Entry]] = []
        # What has been removed or moved stays in the heap until it comes up.
        self._valid: dict[str, int] = {}
        self._count = 0

    def put(self, entry: _Entry, *key: float) -> None:
        if len(self._heap) > 2 * len(self._valid) + 16:
            self._compact()
        self._count += 1
        self._valid[entry.video_id] = self._count
        heappush(self._heap, (key, self._count, entry))

    def remove(self, entry: _Entry) -> None:
        self._valid.pop(entry.video_id, None)

    def _compact(self) -> None:
        """What waits for days is moved with each look, and its former places would pile up."""
        self._heap = [each for each in self._heap if self._valid.get(each[2].video_id) == each[1]]
        heapify(self._heap)

    def first(self) -> _Entry | None:
        while self._heap:
            _, count, entry = self._heap[0]
            if self._valid.get(entry.video_id) == count:
                return entry
            heappop(self._heap)
        return None


class PollScheduler:
    """Who is polled next."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._added = 0
        # Those that may be polled. Whose turn it is would need all of them searched, for it depends on the time:
        # (now - observed) / gap. So there is a bucket for each tenth that the gap grows, kept by `observed`: only the first
        # of each bucket counts. And all of them, by when they were polled.
        self._age_buckets: dict[int, _Queue] = {}
        self._oldest = _Queue()
        # Servers begin videos roughly in the order of their submission: while the scout is seen waiting, those in the
        # line behind it wait too and need not be polled. Whoever was overtaken (another one behind it was seen to have
        # begun) is not in the line.
        self._followers = _Queue()
        self._head: _Entry | None = None
        self._head_polled_at = -math.inf
        self._begun = _NOWHERE
        # video.list: when it may be polled, how often it was refused in a row, whether it ever worked; which ids it leaves
        # out, and how many gets to make before the next.
        self._lists_from = -math.inf
        self._list_refusals = 0
        self._has_listed = False
        self._unlisted: set[str] = set()
        self._paused: dict[str, _Entry] = {}
        self._listing: float | None = None
        self._listed = 0
        self._list_failures = 0
        self._gets_first = 0
        self._outage_since = math.inf
        self._outage_seen = -math.inf
        # Whose turn it was.
        self._since_poll = 0
        self._since_oldest = 0
        self._oldest_turn = -math.inf
        self._after_call = False

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._entries

    def snapshot(self, video_id: str) -> Video | None:
        """The last look that was delivered, if the video is followed and was seen."""
        entry = self._entries.get(video_id)
        return entry.video if entry else None

    def add(self, video_id: str, now: float, *, since: float | None = None) -> None:
        """Follow a video; nothing changes if it is followed already.

        Args:
            video_id: Which.
            now: The time.
            since: When this client submitted it, on the same clock; ``None`` if it was picked up by id.
        """
        if video_id in self._entries:
            return
        self._added += 1
        began = now if since is None else min(since, now)
        place = _NOWHERE if since is None else (began, self._added)
        # One that was just submitted cannot have ended; one that was picked up may have, hours ago.
        observed = now - poll_interval(0.0) if since is None else began
        entry = _Entry(
            video_id, now, self._added, since=began, observed=observed, polled=observed, poll_interval=0.0, place=place
        )
        self._entries[video_id] = entry
        self._put(entry)

    def discard(self, video_id: str) -> None:
        """Follow a video no longer. It need not have been."""
        if entry := self._entries.pop(video_id, None):
            self._unlisted.discard(video_id)
            self._paused.pop(video_id, None)
            self._remove(entry)
            self._step_down(entry)

    def resume(self, video_ids: Mapping[str, object]) -> None:
        """Ask again about those that were paused, as somebody awaits them now."""
        back = [self._paused.pop(video_id) for video_id in self._paused.keys() & video_ids.keys()]
        back.sort(key=lambda entry: entry.number)  # the same requests in each run, whatever the order of a set
        for entry in back:
            entry.paused = False
            entry.failures = 0
        # The first that was known to wait in line leads it again, so that the others need not be polled one by one.
        line = [entry for entry in back if entry.waiting and entry.waited > -math.inf and entry.place > self._begun]
        first = min(line, key=lambda entry: entry.place, default=None)
        if first and (self._head is None or first.place < self._head.place):
            former, self._head, self._head_polled_at = self._head, first, first.waited
            back += [former] if former else []
        for entry in back:
            self._put(entry)

    # -- whose turn it is ---------------------------------------------------------------------------------------------

    def next(
        self,
        now: float,
        budget: RateLimiter,
        *,
        submits: int = 0,
        calls: int = 0,
        awaited: Callable[[str], bool] = lambda _: True,
    ) -> ScheduledRequest | None:
        """What to send next.

        Calls go first, but no two in a row while others could go; then submits, but every tenth request may be a poll.

        Args:
            now: The time.
            budget: Says when each kind may be sent.
            submits: How many submits wait.
            calls: How many calls wait.
            awaited: Whether somebody waits for news of a video just now. One that becomes due and is not awaited is set
                paused.

        Returns:
            The turn, which may be in the future; ``None`` if there is none until something changes.
        """
        turns = [self._poll(now, awaited)]
        if submits:
            turns.insert(self._since_poll >= _POLL_EVERY - 1, ScheduledRequest(RequestKind.SUBMIT, now))
        if calls:
            turns.insert(len(turns) if self._after_call else 0, ScheduledRequest(RequestKind.CALL, now))
        turns = [evolve(turn, at=max(turn.at, now + budget.delay(now, turn.kind))) for turn in turns]
        turn = min(turns, key=lambda turn: turn.at)
        return turn if math.isfinite(turn.at) else None

    def start(self, turn: ScheduledRequest, now: float) -> None:
        """Note that a turn is taken now."""
        self._after_call = turn.kind is RequestKind.CALL
        self._since_poll = 0 if turn.kind in (RequestKind.GET, RequestKind.LIST) else self._since_poll + 1
        if turn.kind is RequestKind.LIST:
            self._listing, self._listed = now, self._added
        elif turn.kind is RequestKind.GET and (entry := self._entries.get(turn.video_id or "")):
            self._gets_first = max(0, self._gets_first - 1)
            self._since_oldest += 1
            if entry is self._oldest.first():
                self._since_oldest, self._oldest_turn = 0, now
            self._remove(entry)
            entry.in_flight_since = now

    def _poll(self, now: float, awaited: Callable[[str], bool]) -> ScheduledRequest:
        while True:
            best, due = self._most_overdue(now)
            oldest, at = self._asked_least_recently(now)
            is_due, is_old = due <= now + _INSTANT, at <= now + _INSTANT
            candidates = ([best] if best and is_due else []) + ([oldest] if oldest and is_old else [])
            idle = next((entry for entry in candidates if not awaited(entry.video_id)), None)
            if idle is None:
                break
            self._pause(idle)
        if best and is_due and self._can_list(best, now) and self._are_several_awaited(awaited):
            return ScheduledRequest(RequestKind.LIST, now)
        if oldest and is_old and (not is_due or self._since_oldest >= _OLDEST_EVERY - 1):
            return ScheduledRequest(RequestKind.GET, now, oldest.video_id)
        return (
            ScheduledRequest(RequestKind.GET, now, best.video_id)
            if best and is_due
            else ScheduledRequest(RequestKind.GET, min(due, at))
        )

    def _are_several_awaited(self, awaited: Callable[[str], bool]) -> bool:
        """Whether a list is worth it: what is in line, or was seen with the last list, may not have become due itself."""
        several = 0
        for entry in self._entries.values():
            if entry.paused or entry.video_id in self._unlisted:
                continue
            if not awaited(entry.video_id):
                self._pause(entry)
                continue
            several += 1
            if several == 2:
                return True
        return False

    def _pause(self, entry: _Entry) -> None:
        self._remove(entry)
        entry.paused, self._paused[entry.video_id] = True, entry
        self._step_down(entry)

    def _most_overdue(self, now: float) -> tuple[_Entry | None, float]:
        """Who waits the longest by the measure of its gap, and when the first of all is due."""
        due, overdue, best = math.inf, 0.0, None
        for bucket in self._age_buckets.values():
            entry = bucket.first()
            if entry is None or (self._listing is not None and entry.video_id not in self._unlisted):
                continue
            due = min(due, entry.observed + entry.poll_interval)
            if (ratio := (now - entry.observed) / entry.poll_interval) >= overdue:
                overdue, best = ratio, entry
        return best, due

    def _asked_least_recently(self, now: float) -> tuple[_Entry | None, float]:
        """Who has been inferred about for the longest time, and when it may be polled, lest the inference was wrong."""
        oldest = self._oldest.first()
        if oldest is None or self._can_list(oldest, now):
            return None, math.inf
        return oldest, max(oldest.polled + poll_interval(oldest.polled - oldest.since), self._oldest_turn + _OLDEST_GAP)

    def _can_list(self, entry: _Entry, now: float) -> bool:
        if now < self._lists_from or self._gets_first or entry.video_id in self._unlisted:
            return False
        return len(self._entries) - len(self._paused) - len(self._unlisted - self._paused.keys()) >= 2

    # -- what came of it ----------------------------------------------------------------------------------------------

    def observe(self, videos: Iterable[Video], now: float, turn: ScheduledRequest | None = None) -> list[PollEvent]:
        """Learn from a good reply.

        Args:
            videos: What the server showed; videos that nobody follows are ignored.
            now: The time.
            turn: Whose answer it is; ``None`` if it was no turn of this scheduler.

        Returns:
            What is new. A video that has ended is forgotten.
        """
        self._outage_since = math.inf
        shown = {video.video_id: video for video in videos}
        polled = self._complete(turn, now) if turn else now
        if turn and turn.kind is RequestKind.LIST:
            self._list_failures = self._list_refusals = 0
            self._has_listed = True
            missing = self._entries.keys() - shown.keys()
            # Those added since it was sent may be in the next one. Their times cannot tell: a clock may stand still.
            self._unlisted = {video_id for video_id in missing if self._entries[video_id].number <= self._listed}
        return [
            news
            for video in shown.values()
            if (entry := self._entries.get(video.video_id))
            for news in self._see(entry, video, polled)
        ]

    def failed(self, turn: ScheduledRequest, error: A2VError, now: float, *, final: bool) -> list[PollEvent]:
        """Learn from a bad reply, or from none.

        Args:
            turn: Whose it was.
            error: What happened. Too many requests are no look at all; other faults that may pass are one, so that the
                next is later.
            now: The time.
            final: Whether asking again would bring the same.

        Returns:
            Which watches end with this error.
        """
        self._complete(turn, now)
        if isinstance(error, AuthenticationError):
            return self._end(list(self._entries), error)
        if isinstance(error, RateLimitError):
            return []
        # A server that says no is there. And while nobody waits, nobody sees whether an outage goes on.
        if final or now - self._outage_seen > _UNSEEN:
            self._outage_since = math.inf
        if not final:
            self._outage_since, self._outage_seen = min(self._outage_since, now), now
        if turn.kind is RequestKind.LIST:
            self._list_failed(now, final=final)
        elif (entry := self._entries.get(turn.video_id or "")) and self._get_failed(entry, error, now, final=final):
            # An outage ends all watches together: it is not about one video.
            others = [each.video_id for each in self._entries.values() if self._outage(each, now) > MAX_OUTAGE]
            return self._end(dict.fromkeys([entry.video_id, *others]), error)
        return []

    def _end(self, video_ids: Iterable[str], error: A2VError) -> list[PollEvent]:
        ended = [(video_id, error) for video_id in video_ids]
        for video_id, _ in ended:
            self.discard(video_id)
        return list(ended)

    def _outage(self, entry: _Entry, now: float) -> float:
        """For how long the server has been out of reach while a video was followed."""
        return now - max(self._outage_since, entry.added)

    def abandoned(self, turn: ScheduledRequest) -> None:
        """A turn ended without an answer that says anything: it was cancelled, or never sent."""
        self._complete(turn, 0.0)

    def _complete(self, turn: ScheduledRequest, now: float) -> float:
        """End a turn.

        Returns:
            When it began, for what the server showed is no newer than that.
        """
        if turn.kind is RequestKind.LIST:
            now, self._listing = now if self._listing is None else self._listing, None
        elif (entry := self._entries.get(turn.video_id or "")) and entry.in_flight_since is not None:
            now, entry.in_flight_since = entry.in_flight_since, None
            self._put(entry)
        return now

    def _list_failed(self, now: float, *, final: bool) -> None:
        if final:
            # Not for good: a gateway answers with 404, too, while the server behind it is replaced.
            first = _LIST_AGAIN if self._has_listed else _LIST_AGAIN_UNKNOWN
            self._lists_from = now + min(first * 2.0 ** min(self._list_refusals, 10), _LIST_AGAIN_MOST)
            self._list_refusals += 1
            self._unlisted.clear()
            return
        # A server may have a list that always fails: gets take over, for longer each time.
        self._list_failures += 1
        self._gets_first = min(2**self._list_failures, 64)
        for entry in self._entries.values():
            entry.observed = now
            self._put(entry)

    def _get_failed(self, entry: _Entry, error: A2VError, now: float, *, final: bool) -> bool:
        """Whether this ends the watch."""
        if entry.failures == 0:
            entry.failing_since = now
        entry.failures += 1
        if isinstance(error, NotFoundError):
            ends = now - entry.place[0] > _UNKNOWN_YET
        elif not final:
            failing = now - entry.failing_since if entry.failures >= _FEWEST_FAILURES else 0.0
            ends = max(self._outage(entry, now), failing) > MAX_OUTAGE
        else:
            ends = True
        entry.observed = entry.polled = now
        self._step_down(entry)
        self._put(entry)
        return ends

    # -- what a look teaches ------------------------------------------------------------------------------------------

    def _see(self, entry: _Entry, video: Video, polled: float) -> list[PollEvent]:
        if polled < entry.polled and not video.is_terminal:
            return []  # a newer look came in first
        self._remove(entry)
        entry.observed = entry.polled = polled
        entry.failures = 0
        if video.is_terminal:
            self.discard(entry.video_id)
        if video.status is VideoStatus.PENDING:
            self._waits(entry, polled)
        else:
            self._has_begun(entry, video)
        if video.status is VideoStatus.FINISHED and not video.is_terminal:
            return self._without_url(entry, video)
        entry.without_url = 0
        changed = entry.video is None or is_change(entry.video, video)
        entry.video = video
        if entry.video_id in self._entries:
            self._put(entry)
        return [(entry.video_id, video)] if changed else []

    def _waits(self, entry: _Entry, polled: float) -> None:
        entry.waiting, entry.waited = True, polled
        if entry.place <= self._begun or entry.paused:
            return
        if self._head is None:
            self._head = entry
            for other in self._entries.values():
                if self._is_behind(other):
                    self._put(other)
        elif entry.place < self._head.place:
            # Somebody further ahead stands for the line from now on.
            former, self._head = self._head, entry
            self._put(former)
        if self._head is entry:
            self._head_polled_at = polled

    def _has_begun(self, entry: _Entry, video: Video) -> None:
        if entry.waiting:
            entry.since = max(entry.since, entry.waited)
        entry.waiting = False
        # A bad input may be refused while it is in line: that says nothing about the others.
        if video.status is not VideoStatus.FAILED:
            self._begun = max(self._begun, entry.place)
        self._step_down(entry)

    def _without_url(self, entry: _Entry, video: Video) -> list[PollEvent]:
        entry.without_url += 1
        if entry.without_url <= _NO_URL_YET:
            self._put(entry)
            return []
        self.discard(entry.video_id)
        error = ProtocolError(f"video {entry.video_id!r} is finished, but the server gives no URL for it")
        error.video_id, error.video = entry.video_id, video
        return [(entry.video_id, error)]

    # -- the queues ---------------------------------------------------------------------------------------------------

    def _put(self, entry: _Entry) -> None:
        self._remove(entry)
        if entry.in_flight_since is not None or entry.paused:
            return
        self._oldest.put(entry, entry.polled)
        if self._is_behind(entry):
            entry.bucket = self._followers
            self._followers.put(entry, *entry.place)
            return
        entry.poll_interval = (
            2.0 ** (entry.without_url - 1) if entry.without_url else poll_interval(entry.observed - entry.since)
        )
        entry.bucket = self._age_buckets.setdefault(round(10 * math.log(entry.poll_interval)), _Queue())
        entry.bucket.put(entry, entry.observed)

    def _remove(self, entry: _Entry) -> None:
        self._oldest.remove(entry)
        if entry.bucket:
            entry.bucket.remove(entry)
            entry.bucket = None

    def _is_behind(self, entry: _Entry) -> bool:
        return self._head is not None and entry.waiting and entry.place > max(self._head.place, self._begun)

    def _step_down(self, entry: _Entry) -> None:
        """Let others go on from the line if this one led it, or if it overtook them."""
        if entry is self._head or (self._head and self._head.place < self._begun):
            self._head = None
        while first := self._followers.first():
            overtaken = first.place < self._begun
            if self._head and not overtaken:
                return
            self._remove(first)
            first.observed = max(first.observed, self._head_polled_at)
            first.waited = max(first.waited, self._head_polled_at)
            if not overtaken:
                self._head = first
            self._put(first)


def is_change(before: Video, after: Video) -> bool:
    """Whether a look differs from the one before. Two words that nobody has heard of are two statuses."""
    return _word(before) != _word(after)


def _word(video: Video) -> tuple[VideoStatus, object]:
    return video.status, video.raw.get("status") if video.status is VideoStatus.UNKNOWN else None
