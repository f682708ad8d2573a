"""The poll scheduler of a client: which request is sent next, and which snapshots its subscribers get.

It is a pure state machine, without a clock or I/O. ``now`` is the time in seconds by the monotonic clock that the rate limiter uses
too. A driver keeps its waiting submissions and calls in two FIFO queues, and does this::

    scheduled = scheduler.next(now, limiter, submits=len(submits), calls=len(calls))
    # None: nothing to send until something changes (a waiter comes or goes, a response arrives).
    # scheduled.at > now: sleep until then, or until something changes, and call next() again.
    # Otherwise, without an await in between:
    scheduler.start(scheduled, now)
    reservation = limiter.acquire(now)
    # SUBMIT, CALL: the head of that queue sends its request. GET: poll scheduled.video_id. LIST: poll all videos.
    # A GET or a LIST is completed by exactly one of these; the first two return the events to deliver:
    events = scheduler.observe(videos, now, scheduled)
    events = scheduler.failed(scheduled, error, now, final=...)
    scheduler.abandoned(scheduled)  # cancelled, or never sent

``add`` a video for its first subscriber, and ``discard`` it after the last one leaves. Videos that have ended are discarded
automatically. ``observe`` also accepts snapshots from other requests, such as ``videos.get``.

**Priority.** The interval between polls of a video grows with its age (``poll_interval``). The most overdue
video is polled first: the one with the highest ratio of the time since its last snapshot to its interval. These ratios
grow at different rates, so a heap cannot keep videos in this order, and computing all ratios for each
request would be slow with thousands of videos. But among videos with about equal intervals, the order by ratio is the
order by last snapshot. So videos are kept in *age buckets*, one for each 10 % of growth of the interval, and each bucket is a heap
by last snapshot. Only the first video of each bucket, a few dozen in all, is compared.

**Queue head and followers.** Servers start videos roughly in the order of submission. So while the *queue head*, the
earliest submission known to be pending, is still pending, later submissions (its *followers*) are assumed to be pending too
and are not polled. When the head starts, or is discarded, the next follower becomes the head. A video that was
overtaken, because a later submission has started, is never a follower. The assumption may be wrong if a
server uses another order. So every third poll, but at most one every 6 s (``_VERIFY_INTERVAL``), verifies the least recently
polled video. Thus, once its own interval has passed, each of n followed videos is polled within
3n polls or 6n seconds, whichever is longer.

**video.list** returns all videos in one request, so it replaces GETs when at least two videos are awaited. Videos that are missing
in the list are polled one by one. If it fails, GETs replace it for a while.

**Pausing.** A busy consumer costs no requests: a video that becomes due while no consumer awaits it is paused, and keeps its
state until ``resume``. If it were discarded and added again, it would lose its age, and polling would restart
at the shortest interval each time.

Invariants: a video is in ``_by_last_poll`` and in exactly one of the followers and the age buckets, unless a GET for it is
in flight or it is paused: then it is in none of them. At most one LIST, and one GET per video, is in flight. ``observe`` is
the only place that decides whether a snapshot is a change.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import define

from a2v._core.rate_limiter import RequestKind
from a2v._values.models import Video, VideoStatus
from a2v.errors import A2VError, AuthenticationError, NotFoundError, ProtocolError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from a2v._core.rate_limiter import RateLimiter

PollEvent = tuple[str, Video | A2VError]
"""The id of a video, and a changed snapshot or the error that ends its polling."""

MAX_OUTAGE = 600.0
"""Seconds without a usable response after which a video is no longer polled."""

_MAX_PROPAGATION = 120.0  # seconds after a submission during which a 404 is not an error
_MAX_POLLS_WITHOUT_URL = 5  # polls of a finished video that has no URL yet
_POLL_EVERY = 10  # requests; while submissions wait, one of these may be a poll
_VERIFY_EVERY = 3  # polls; one of these verifies the least recently polled video
_VERIFY_INTERVAL = 6.0  # minimum seconds between two verifications
_MIN_FAILURES = 5  # consecutive failed polls before the polling of a single video ends
_OUTAGE_MEMORY = 300.0  # seconds without a failed poll after which a failure starts a new outage
_LIST_RETRY = 60.0
"""Seconds until the next ``video.list`` after a 404 or another rejection, if a list has succeeded before; doubled each time."""
_LIST_RETRY_UNKNOWN = 900.0
"""The same if no list has succeeded, so the server probably lacks ``video.list``."""
_MAX_LIST_RETRY = 4 * 3600.0
"""Maximum of both, in seconds."""
_EPSILON = 1e-6  # seconds; a delay below the resolution of a clock would never pass
_BEFORE_ALL = (-math.inf, 0)
# The attributes of an entry that another scheduler can take over.
_TRANSFERABLE = (
    "added_at", "age_counts_from", "observed_at", "polled_at", "pending", "pending_at", "failures", "failing_since",
    "polls_without_url",
)  # fmt: skip


def poll_interval(age: float) -> float:
    """Return the seconds between polls of a video that is ``age`` seconds old: 0.5 to 60."""
    return max(0.5, min(age / 3, math.sqrt(max(age, 0.0) / 2), 60.0))


class ScheduledRequest(NamedTuple):
    """A request and when to send it.

    Attributes:
        kind: The purpose of the request.
        at: The earliest time to send it, in seconds.
        video_id: The video to poll, for a ``GET``; ``None`` for other kinds.
    """

    kind: RequestKind
    at: float
    video_id: str | None = None


@define(eq=False, repr=False)
class _Entry:
    """A followed video."""

    video_id: str
    added_at: float
    number: int  # a serial number, in the order of adding
    # Start of the video's age: its submission, later the last time at which it was known to be pending.
    age_counts_from: float
    # The time of the last snapshot, or the time for which the status was inferred.
    observed_at: float
    # The time of the last poll.
    polled_at: float
    # Seconds between polls, as of the last time it was put into a bucket.
    poll_interval: float
    # Position in the order of submission: the time, and a number that distinguishes equal times.
    order: tuple[float, int]
    snapshot: Video | None = None
    pending: bool = True
    # The last time at which it was known to be pending.
    pending_at: float = -math.inf
    queue: _Queue | None = None
    paused: bool = False
    # When the GET in flight was sent; `None` if none is.
    requested_at: float | None = None
    # The number of consecutive failed polls, and the time of the first of them.
    failures: int = 0
    failing_since: float = 0.0
    polls_without_url: int = 0

    @property
    def submitted_at(self) -> float:
        """When this client submitted it; ``-inf`` if it was picked up by id: then it precedes all submissions."""
        return self.order[0]


class _Queue:
    """A priority queue with removal (lazy deletion). It contains an entry at most once; putting the entry again moves it."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, ...], int, _Entry]] = []
        # Removing an item from the middle of a heap is slow, so stale items stay until they reach the top.
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
        """Drop stale items. Each poll moves a video, so a video that is pending for days would leave many of them."""
        self._heap = [item for item in self._heap if self._valid.get(item[2].video_id) == item[1]]
        heapify(self._heap)

    def first(self) -> _Entry | None:
        while self._heap:
            _, count, entry = self._heap[0]
            if self._valid.get(entry.video_id) == count:
                return entry
            heappop(self._heap)
        return None


class PollScheduler:
    """Schedules the polls of one client in one event loop, interleaved with its submissions and calls."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._added = 0
        self._paused: dict[str, _Entry] = {}
        # Keyed by the logarithm of the interval, rounded to 10 %.
        self._age_buckets: dict[int, _Queue] = {}
        # The entries of the buckets and the followers, ordered by the last poll.
        self._by_last_poll = _Queue()
        self._head: _Entry | None = None
        # When the head was last known to be pending. Kept after the head leaves, because it applies to the followers.
        self._head_pending_at = -math.inf
        # Ordered by submission.
        self._followers = _Queue()
        # The order of the latest submission that is known to have started.
        self._last_started = _BEFORE_ALL
        # The earliest time of the next LIST.
        self._list_allowed_at = -math.inf
        # The number of consecutive rejections of LIST.
        self._list_refusals = 0
        self._has_listed = False
        # When the LIST in flight was sent; `None` if none is.
        self._list_requested_at: float | None = None
        # The value of `_added` when the LIST in flight was sent.
        self._added_before_list = 0
        # Followed videos that were missing from the last LIST.
        self._unlisted: set[str] = set()
        # The number of consecutive transient failures of LIST.
        self._list_failures = 0
        # GETs to send before the next LIST.
        self._gets_before_list = 0
        self._outage_since = math.inf
        self._last_failure_at = -math.inf
        # For fairness between the kinds of requests.
        self._requests_since_poll = 0
        self._polls_since_verification = 0
        self._verified_at = -math.inf
        self._last_was_call = False

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._entries

    def snapshot(self, video_id: str) -> Video | None:
        """Return the last snapshot of a video, if it is followed and was polled."""
        entry = self._entries.get(video_id)
        return entry.snapshot if entry else None

    def add(self, video_id: str, now: float, *, since: float | None = None) -> None:
        """Follow a video. Does nothing if it is followed already.

        Args:
            video_id: The video.
            now: The time.
            since: When this client submitted it, by the same clock; ``None`` if it was picked up by id.
        """
        if video_id in self._entries:
            return
        self._added += 1
        submitted_at = now if since is None else min(since, now)
        order = _BEFORE_ALL if since is None else (submitted_at, self._added)
        # A video that was just submitted cannot have ended; one that was picked up may have, hours ago, so it is due now.
        observed_at = now - poll_interval(0.0) if since is None else submitted_at
        entry = _Entry(
            video_id,
            now,
            self._added,
            age_counts_from=submitted_at,
            observed_at=observed_at,
            polled_at=observed_at,
            poll_interval=0.0,
            order=order,
        )
        self._entries[video_id] = entry
        self._enqueue(entry)

    def export_state(self, video_id: str) -> dict[str, Any]:
        """Return the state of a followed video as JSON, for ``import_state`` of another scheduler with the same clock."""
        entry = self._entries[video_id]
        state = {name: getattr(entry, name) for name in _TRANSFERABLE}
        snapshot = entry.snapshot.to_dict() if entry.snapshot else None
        return state | {"submitted_at": entry.submitted_at, "snapshot": snapshot}

    def import_state(self, video_id: str, state: Mapping[str, Any]) -> None:
        """Follow a video with the state that another scheduler exported, unless this one has polled the video more recently.

        Args:
            video_id: The video.
            state: The result of ``export_state``.
        """
        if (entry := self._entries.get(video_id)) and entry.polled_at >= state["polled_at"]:
            return
        self.discard(video_id)
        self._added += 1
        submitted_at = state["submitted_at"]
        entry = _Entry(
            video_id,
            number=self._added,
            poll_interval=0.0,
            order=_BEFORE_ALL if math.isinf(submitted_at) else (submitted_at, self._added),
            snapshot=Video.from_dict(state["snapshot"]) if state["snapshot"] else None,
            paused=True,
            **{name: state[name] for name in _TRANSFERABLE},
        )
        self._entries[video_id] = self._paused[video_id] = entry
        self.resume({video_id: None})

    def discard(self, video_id: str) -> None:
        """Stop following a video, if it is followed."""
        if entry := self._entries.pop(video_id, None):
            self._unlisted.discard(video_id)
            self._paused.pop(video_id, None)
            self._dequeue(entry)
            self._advance_head(entry)

    def resume(self, video_ids: Mapping[str, object]) -> None:
        """Poll paused videos again."""
        resumed = [self._paused.pop(video_id) for video_id in self._paused.keys() & video_ids.keys()]
        resumed.sort(key=lambda entry: entry.number)  # sets have no order, and runs must be reproducible
        for entry in resumed:
            entry.paused = False
            entry.failures = 0
        # The earliest one known to be pending becomes the queue head again, so that the others need no polls.
        pending = [
            entry
            for entry in resumed
            if entry.pending and entry.pending_at > -math.inf and entry.order > self._last_started
        ]
        first = min(pending, key=lambda entry: entry.order, default=None)
        if first and (self._head is None or first.order < self._head.order):
            former, self._head, self._head_pending_at = self._head, first, first.pending_at
            resumed += [former] if former else []
        for entry in resumed:
            self._enqueue(entry)

    # -- the next request ---------------------------------------------------------------------------------------------

    def next(
        self,
        now: float,
        limiter: RateLimiter,
        *,
        submits: int = 0,
        calls: int = 0,
        is_awaited: Callable[[str], bool] = lambda _: True,
    ) -> ScheduledRequest | None:
        """Return the next request to send.

        Calls have priority, but not twice in a row while other requests wait. Submissions are next, but every tenth request
        may be a poll.

        Args:
            now: The time.
            limiter: Decides when each kind of request may be sent.
            submits: The number of waiting submissions.
            calls: The number of waiting calls.
            is_awaited: Returns whether a subscriber waits for events of a video. A video that is due but not awaited is paused.

        Returns:
            The request, which may be due in the future; ``None`` if there is none until something changes.
        """
        requests = [self._next_poll(now, is_awaited)]
        if submits:
            position = int(self._requests_since_poll >= _POLL_EVERY - 1)
            requests.insert(position, ScheduledRequest(RequestKind.SUBMIT, now))
        if calls:
            position = len(requests) if self._last_was_call else 0
            requests.insert(position, ScheduledRequest(RequestKind.CALL, now))
        allowed_at = [max(each.at, now + limiter.delay(now, each.kind)) for each in requests]
        at = min(allowed_at)
        if math.isinf(at):
            return None
        scheduled = requests[allowed_at.index(at)]  # the first of those at the same time
        return ScheduledRequest(scheduled.kind, at, scheduled.video_id)

    def start(self, scheduled: ScheduledRequest, now: float) -> None:
        """Record that a request is sent now."""
        self._last_was_call = scheduled.kind is RequestKind.CALL
        is_poll = scheduled.kind in (RequestKind.GET, RequestKind.LIST)
        self._requests_since_poll = 0 if is_poll else self._requests_since_poll + 1
        if scheduled.kind is RequestKind.LIST:
            self._list_requested_at, self._added_before_list = now, self._added
        elif scheduled.kind is RequestKind.GET and (entry := self._entries.get(scheduled.video_id or "")):
            self._gets_before_list = max(0, self._gets_before_list - 1)
            self._polls_since_verification += 1
            if entry is self._by_last_poll.first():
                self._polls_since_verification, self._verified_at = 0, now
            self._dequeue(entry)
            entry.requested_at = now

    def _next_poll(self, now: float, is_awaited: Callable[[str], bool]) -> ScheduledRequest:
        while True:
            best, due = self._most_overdue(now)
            least_recent, verify_at = self._least_recently_polled(now)
            is_due, is_verifiable = due <= now + _EPSILON, verify_at <= now + _EPSILON
            candidates = ([best] if best and is_due else []) + (
                [least_recent] if least_recent and is_verifiable else []
            )
            unawaited = next((entry for entry in candidates if not is_awaited(entry.video_id)), None)
            if unawaited is None:
                break
            self._pause(unawaited)
        if best and is_due and self._can_list(best, now) and self._pause_unawaited_and_count(is_awaited) >= 2:
            return ScheduledRequest(RequestKind.LIST, now)
        if least_recent and is_verifiable and (not is_due or self._polls_since_verification >= _VERIFY_EVERY - 1):
            return ScheduledRequest(RequestKind.GET, now, least_recent.video_id)
        if best and is_due:
            return ScheduledRequest(RequestKind.GET, now, best.video_id)
        return ScheduledRequest(RequestKind.GET, min(due, verify_at))

    def _pause_unawaited_and_count(self, is_awaited: Callable[[str], bool]) -> int:
        """Pause unawaited videos until two awaited ones are found, and return the number found.

        Followers, and videos in the last LIST, may never become due themselves, so they are paused here.
        """
        awaited_count = 0
        for entry in self._entries.values():
            if entry.paused or entry.video_id in self._unlisted:
                continue
            if not is_awaited(entry.video_id):
                self._pause(entry)
                continue
            awaited_count += 1
            if awaited_count == 2:
                break
        return awaited_count

    def _pause(self, entry: _Entry) -> None:
        self._dequeue(entry)
        entry.paused, self._paused[entry.video_id] = True, entry
        self._advance_head(entry)

    def _most_overdue(self, now: float) -> tuple[_Entry | None, float]:
        """Return the most overdue video, if any is due, and the time when the next video is due."""
        due, highest, best = math.inf, 0.0, None
        for bucket in self._age_buckets.values():
            entry = bucket.first()
            # Skip it: the LIST in flight will return it.
            if entry is None or (self._list_requested_at is not None and entry.video_id not in self._unlisted):
                continue
            due = min(due, entry.observed_at + entry.poll_interval)
            if (ratio := (now - entry.observed_at) / entry.poll_interval) >= highest:
                highest, best = ratio, entry
        return best, due

    def _least_recently_polled(self, now: float) -> tuple[_Entry | None, float]:
        """Return the least recently polled video, and when to verify its status; ``None`` if a LIST can verify it."""
        least_recent = self._by_last_poll.first()
        if least_recent is None or self._can_list(least_recent, now):
            return None, math.inf
        due = least_recent.polled_at + poll_interval(least_recent.polled_at - least_recent.age_counts_from)
        return least_recent, max(due, self._verified_at + _VERIFY_INTERVAL)

    def _can_list(self, entry: _Entry, now: float) -> bool:
        if now < self._list_allowed_at or self._gets_before_list or entry.video_id in self._unlisted:
            return False
        return len(self._entries) - len(self._paused) - len(self._unlisted - self._paused.keys()) >= 2

    # -- responses ----------------------------------------------------------------------------------------------------

    def observe(
        self, videos: Iterable[Video], now: float, scheduled: ScheduledRequest | None = None
    ) -> list[PollEvent]:
        """Process snapshots.

        Args:
            videos: The snapshots. Videos that are not followed are ignored.
            now: The time.
            scheduled: The poll that returned them; ``None`` if another request did.

        Returns:
            The events: snapshots that differ from the previous one. Videos that have ended are discarded.
        """
        self._outage_since = math.inf
        observed = {video.video_id: video for video in videos}
        requested_at = self._remove_in_flight(scheduled, now) if scheduled else now
        if scheduled and scheduled.kind is RequestKind.LIST:
            self._list_failures = self._list_refusals = 0
            self._has_listed = True
            missing = self._entries.keys() - observed.keys()
            # Videos added since it was sent may be in the next one. Serial numbers, because a virtual clock may stand still.
            self._unlisted = {
                video_id for video_id in missing if self._entries[video_id].number <= self._added_before_list
            }
        return [
            event
            for video in observed.values()
            if (entry := self._entries.get(video.video_id))
            for event in self._observe_one(entry, video, requested_at)
        ]

    def failed(self, scheduled: ScheduledRequest, error: A2VError, now: float, *, final: bool) -> list[PollEvent]:
        """Process a failed poll.

        Args:
            scheduled: The request.
            error: The error. After a ``RateLimitError`` the video stays due; other errors count as polls, so its interval
                passes first.
            now: The time.
            final: Whether repeating the request is pointless.

        Returns:
            The events: the error, for each video whose polling it ends.
        """
        self._remove_in_flight(scheduled, now)
        if isinstance(error, AuthenticationError):
            return self._end(list(self._entries), error)
        if isinstance(error, RateLimitError):
            return []
        # A server that rejects a request is reachable. And after a long time without failures, the old outage may have ended.
        if final or now - self._last_failure_at > _OUTAGE_MEMORY:
            self._outage_since = math.inf
        if not final:
            self._outage_since, self._last_failure_at = min(self._outage_since, now), now
        if scheduled.kind is RequestKind.LIST:
            self._process_failed_list(now, final=final)
        elif (entry := self._entries.get(scheduled.video_id or "")) and self._process_failed_get(
            entry, error, now, final=final
        ):
            # An outage concerns all videos, so it ends the polling of each one that has been followed for that long.
            others = [other.video_id for other in self._entries.values() if self._outage(other, now) > MAX_OUTAGE]
            return self._end(dict.fromkeys([entry.video_id, *others]), error)
        return []

    def abandoned(self, scheduled: ScheduledRequest) -> None:
        """Process the end of a poll that was cancelled, or never sent."""
        self._remove_in_flight(scheduled, 0.0)

    def _remove_in_flight(self, scheduled: ScheduledRequest, now: float) -> float:
        """Remove a request in flight, and return when it was sent, which is the time that its snapshots are valid for."""
        if scheduled.kind is RequestKind.LIST:
            now, self._list_requested_at = now if self._list_requested_at is None else self._list_requested_at, None
        elif (entry := self._entries.get(scheduled.video_id or "")) and entry.requested_at is not None:
            now, entry.requested_at = entry.requested_at, None
            self._enqueue(entry)
        return now

    def _end(self, video_ids: Iterable[str], error: A2VError) -> list[PollEvent]:
        ended: list[PollEvent] = [(video_id, error) for video_id in video_ids]
        for video_id, _ in ended:
            self.discard(video_id)
        return ended

    def _outage(self, entry: _Entry, now: float) -> float:
        """Return the seconds for which the server has been unreachable while the video was followed."""
        return now - max(self._outage_since, entry.added_at)

    def _process_failed_list(self, now: float, *, final: bool) -> None:
        if final:
            # Try again later: a gateway also responds with 404 while the server behind it is replaced.
            first = _LIST_RETRY if self._has_listed else _LIST_RETRY_UNKNOWN
            self._list_allowed_at = now + min(first * 2.0 ** min(self._list_refusals, 10), _MAX_LIST_RETRY)
            self._list_refusals += 1
            self._unlisted.clear()
            return
        # On some servers, LIST always fails, so the number of GETs before the next attempt doubles.
        self._list_failures += 1
        self._gets_before_list = min(2**self._list_failures, 64)
        for entry in self._entries.values():
            entry.observed_at = now
            self._enqueue(entry)

    def _process_failed_get(self, entry: _Entry, error: A2VError, now: float, *, final: bool) -> bool:
        """Process a failed GET, and return whether it ends the polling of the video."""
        if entry.failures == 0:
            entry.failing_since = now
        entry.failures += 1
        if isinstance(error, NotFoundError):
            ends = now - entry.submitted_at > _MAX_PROPAGATION
        elif not final:
            failing = now - entry.failing_since if entry.failures >= _MIN_FAILURES else 0.0
            ends = max(self._outage(entry, now), failing) > MAX_OUTAGE
        else:
            ends = True
        entry.observed_at = entry.polled_at = now
        self._advance_head(entry)
        self._enqueue(entry)
        return ends

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def _observe_one(self, entry: _Entry, video: Video, requested_at: float) -> list[PollEvent]:
        if requested_at < entry.polled_at and not video.is_terminal:
            return []  # the response to a later request arrived first
        self._dequeue(entry)
        entry.observed_at = entry.polled_at = requested_at
        entry.failures = 0
        if video.is_terminal:
            self.discard(entry.video_id)
        if video.status is VideoStatus.PENDING:
            self._observe_pending(entry, requested_at)
        else:
            self._observe_started(entry, video)
        if video.status is VideoStatus.FINISHED and not video.is_terminal:
            return self._observe_without_url(entry, video)
        entry.polls_without_url = 0
        changed = entry.snapshot is None or is_change(entry.snapshot, video)
        entry.snapshot = video
        if entry.video_id in self._entries:
            self._enqueue(entry)
        return [(entry.video_id, video)] if changed else []

    def _observe_pending(self, entry: _Entry, requested_at: float) -> None:
        entry.pending, entry.pending_at = True, requested_at
        if entry.order <= self._last_started or entry.paused:
            return
        if self._head is None:
            self._head = entry
            for other in self._entries.values():
                if self._is_follower(other):
                    self._enqueue(other)
        elif entry.order < self._head.order:
            former, self._head = self._head, entry
            self._enqueue(former)
        if self._head is entry:
            self._head_pending_at = requested_at

    def _observe_started(self, entry: _Entry, video: Video) -> None:
        if entry.pending:
            entry.age_counts_from = max(entry.age_counts_from, entry.pending_at)
        entry.pending = False
        # A server may reject a bad input out of order, which says nothing about other videos.
        if video.status is not VideoStatus.FAILED:
            self._last_started = max(self._last_started, entry.order)
        self._advance_head(entry)

    def _observe_without_url(self, entry: _Entry, video: Video) -> list[PollEvent]:
        entry.polls_without_url += 1
        if entry.polls_without_url <= _MAX_POLLS_WITHOUT_URL:
            self._enqueue(entry)
            return []
        self.discard(entry.video_id)
        error = ProtocolError(f"video {entry.video_id!r} is finished, but the server gives no URL for it")
        error.video_id, error.video = entry.video_id, video
        return [(entry.video_id, error)]

    # -- queues -------------------------------------------------------------------------------------------------------

    def _enqueue(self, entry: _Entry) -> None:
        """Put an entry into the queue for its current state: the followers, or the age bucket of its interval."""
        self._dequeue(entry)
        if entry.requested_at is not None or entry.paused:
            return
        self._by_last_poll.put(entry, entry.polled_at)
        if self._is_follower(entry):
            entry.queue = self._followers
            self._followers.put(entry, *entry.order)
            return
        entry.poll_interval = (
            2.0 ** (entry.polls_without_url - 1)
            if entry.polls_without_url
            else poll_interval(entry.observed_at - entry.age_counts_from)
        )
        entry.queue = self._age_buckets.setdefault(round(10 * math.log(entry.poll_interval)), _Queue())
        entry.queue.put(entry, entry.observed_at)

    def _dequeue(self, entry: _Entry) -> None:
        self._by_last_poll.remove(entry)
        if entry.queue:
            entry.queue.remove(entry)
            entry.queue = None

    def _is_follower(self, entry: _Entry) -> bool:
        return self._head is not None and entry.pending and entry.order > max(self._head.order, self._last_started)

    def _advance_head(self, entry: _Entry) -> None:
        """Replace the queue head if this entry was the head or has overtaken it, and release overtaken followers."""
        if entry is self._head or (self._head and self._head.order < self._last_started):
            self._head = None
        while first := self._followers.first():
            overtaken = first.order < self._last_started
            if self._head and not overtaken:
                return
            self._dequeue(first)
            # While the head was pending, so were its followers.
            first.observed_at = max(first.observed_at, self._head_pending_at)
            first.pending_at = max(first.pending_at, self._head_pending_at)
            if not overtaken:
                self._head = first
            self._enqueue(first)


def is_change(before: Video, after: Video) -> bool:
    """Whether the status differs between two snapshots. Unknown statuses are compared by the server's words."""
    return _status(before) != _status(after)


def _status(video: Video) -> tuple[VideoStatus, object]:
    return video.status, video.raw.get("status") if video.status is VideoStatus.UNKNOWN else None
