"""The state of an account whose clients share a budget: one rate limiter and one poll schedule, derived from a log.

This is a replicated state machine. The clients (*members*) append *facts* to one log: a request was sent, a response has arrived, a
video is followed. Each member applies all facts, in the order of the log, to its own `RateLimiter` and `PollScheduler`. So all
members derive the same state, and each can decide which request of the account is next. There is no leader: a member that may send
the next request appends ``send``, on the condition that it has read the whole log. If another member was faster, the condition
fails, and the member decides again with the new facts.

Members share facts rather than states, because facts stay true even if members differ: in their options, in what they had seen when
they joined, or in the order in which they consider equal candidates. The log alone decides what was sent.

**Turns.** A call or a submission is sent by the member that waits for it. Each member records in the log whether it waits, and
waiting members take turns: the one that was served least recently is first. A new member queues behind all that wait, so no member
starves however many processes start. A poll of a video is sent by a member that awaits the video, and a list by any waiting member.
A member may be unable to take its turn, because it has crashed or its event loop is blocked. So after a grace period, the next
member sends. Its request shows all members who has missed a turn: the members ahead of it count as not waiting until they write
again. So one crashed process delays the others by one grace period, and many crashed processes by little more.

**Crashes.** A waiting member writes at least every ``HEARTBEAT`` seconds. One that has not written for ``LOST_AFTER``
seconds is *lost*: its requests in flight count as ended when it last wrote, so they block others for at most one window;
its polls are due again, and its videos are forgotten. A poll in flight is due again after ``_POLL_EXPIRES`` seconds in
any case, because its member may be blocked. A lost member that comes back introduces itself again.

Invariant: everything that a member has written is part of the state of all members, unless the member was lost in between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from a2v._core.poll_scheduler import PollEvent, PollScheduler, ScheduledRequest, is_change
from a2v._core.rate_limiter import MAX_IN_FLIGHT, RateLimiter, RequestKind
from a2v._values.base_errors import A2VError
from a2v._values.models import Video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Fact = list[Any]
"""The name of a fact and its values, all of them JSON."""

HEARTBEAT = 8.0
"""Maximum seconds between two entries of a waiting member."""
LOST_AFTER = 25.0
"""Seconds without an entry after which a member counts as lost."""
_POLL_EXPIRES = 15.0  # seconds after which a poll in flight is due again
_GRACE = 0.5  # seconds that a member has to take its turn
_NEXT_GRACE = 0.05  # seconds; the same if another member has just missed its turn: several have probably crashed
_POLL_GRACE = 0.25  # seconds; the same for a poll, which no caller waits for
# The headers of responses that the rate limiter reads.
_HEADERS = ("x-ratelimit-total", "x-ratelimit-left", "x-ratelimit-reset", "retry-after", "date")
_MAX_HEADER_LENGTH = 100  # characters
_QUEUED = (RequestKind.CALL, RequestKind.SUBMIT)
_RESULTS = ("end", "seen", "failed")  # the facts that are applied at most once per request

GOOD, BAD, THROTTLED, UNAVAILABLE, LOST, UNUSED = "good", "bad", "throttled", "unavailable", "lost", "unused"
"""How a request ended: successful response, other response, rejected by the rate limit, HTTP 503, no response, never sent."""


@define(eq=False)
class _Member:
    """A client of the account.

    Attributes:
        number: A serial number, in the order of joining.
        joined: The account's number of requests when it joined.
        written_at: The time of its last entry, in seconds by the store's clock, as are all times here.
        ceiling: Its upper bound of the limit, in requests per minute; ``None``: no bound.
        waits: The kinds of requests that wait in it; empty after it has missed a turn.
        served: For each kind, the account's number of requests when it last sent one.
        in_flight: The limiter's reservations for its requests in flight, by request number.
        sends: The numbers of all its requests.
        results: The results that were applied: the name of the fact and the request number.
        polls: Its polls in flight, by request number, each with the time when it expires.
        videos: The videos that it follows, and whether it currently awaits each of them.
    """

    number: int
    joined: int
    written_at: float
    ceiling: int | None = None
    waits: set[RequestKind] = Factory(set)
    served: dict[RequestKind, int] = Factory(dict)
    in_flight: dict[int, int] = Factory(dict)
    sends: set[int] = Factory(set)
    results: set[tuple[str, int]] = Factory(set)
    polls: dict[int, tuple[ScheduledRequest, float]] = Factory(dict)
    videos: dict[str, bool] = Factory(dict)

    def has_written(self, name: str, values: Sequence[Any]) -> bool:
        """Record a result, and return whether it was recorded before: a member repeats a fact if the store did not confirm it."""
        if name not in _RESULTS or not values[0]:
            return False
        before = len(self.results)
        self.results.add((name, values[0]))
        return len(self.results) == before

    def queue_position(self, kind: RequestKind) -> tuple[int, int]:
        """Its position among the members that wait for requests of a kind; the lowest is first."""
        return self.served.get(kind, self.joined), self.number


class AccountLog:
    """The state of an account, as far as one of its members has read the log.

    Args:
        own_id: The id of the member.
        limiter: A new rate limiter.

    Attributes:
        limiter: The account's rate limiter.
        scheduler: The account's poll scheduler.
        now: The latest time in the log.
        paused: Videos that this member follows but was found not to await; the caller writes ``pause`` for them and empties the
            list.
        listed: Listed videos that no member follows. Another program submitted them, or a submission with an unknown outcome.
        first_listed: The videos added to ``listed`` since the caller last emptied this list.
        followed_elsewhere: The videos that other members have followed since the caller last emptied this list.
    """

    def __init__(self, own_id: str, limiter: RateLimiter) -> None:
        self.limiter = limiter
        # Connections are limited for each member.
        limiter.max_in_flight = math.inf
        self.scheduler = PollScheduler()
        self.now = -math.inf
        self.paused: list[str] = []
        self.listed: set[str] = set()
        self.first_listed: list[str] = []
        self.followed_elsewhere: list[str] = []
        self._own_id = own_id
        self._members: dict[str, _Member] = {}
        self._members_seen = 0
        self._followers: dict[str, set[str]] = {}
        self._sends = 0
        # When the next member is lost or the next poll expires.
        self._expires_at = math.inf
        # Members that this member has seen miss a turn and that have not written since.
        self._skipped: set[str] = set()
        # The turn of another member, and when its grace period ends.
        self._turn: object = None
        self._turn_ends = math.inf
        # The errors of this member's own requests, by request number: the log has only their texts.
        self.own_errors: dict[int, A2VError] = {}
        self._is_awaited_here: Callable[[str], bool] = lambda _: False
        self._apply: Mapping[str, Callable[..., Iterable[PollEvent] | None]] = {
            "hello": self._hello,
            "limit": self._limit,
            "bye": self._bye,
            "wait": self._wait,
            "send": self._send,
            "sent": self._sent,
            "end": self._end,
            "follow": self._follow,
            "unfollow": self._unfollow,
            "pause": self._pause,
            "resume": self._resume,
            "seen": self._seen,
            "failed": self._failed,
            "abandoned": self._abandoned,
        }

    # -- questions ----------------------------------------------------------------------------------------------------

    def member_count(self, now: float) -> int:
        """Return how many members are not lost."""
        self.expire(now)
        return len(self._members)

    def has_sent(self, number: int) -> bool:
        """Whether the log has the ``send`` of a request of this member."""
        own = self._members.get(self._own_id)
        return own is not None and number in own.sends

    def in_flight(self) -> list[int]:
        """Return the numbers of this member's requests that are in flight according to the log."""
        own = self._members.get(self._own_id)
        return list(own.in_flight) if own else []

    @property
    def is_full(self) -> bool:
        """Whether this member has as many requests in flight as a client may."""
        return len(self.in_flight()) >= MAX_IN_FLIGHT

    def waits(self) -> set[RequestKind]:
        """Return the kinds of requests that wait in this member, according to the log."""
        own = self._members.get(self._own_id)
        return own.waits if own else set()

    def follows(self, video_id: str) -> bool:
        """Whether this member follows a video, according to the log."""
        return self._own_id in self._followers.get(video_id, ())

    def has_paused(self, video_id: str) -> bool:
        """Whether this member follows a video without awaiting it, according to the log."""
        own = self._members.get(self._own_id)
        return own is not None and not own.videos.get(video_id, True)

    def next(
        self, now: float, waits: set[RequestKind], is_awaited: Callable[[str], bool], *, awaits_any: bool
    ) -> ScheduledRequest | None:
        """Return the next request that this member may send.

        Args:
            now: The time.
            waits: The kinds of requests that wait in this member.
            is_awaited: Returns whether this member awaits a video.
            awaits_any: Whether this member awaits any video.

        Returns:
            The request, perhaps one that is due in the future; ``None`` if there is none until something changes.
        """
        self.expire(now)
        if self.is_full:
            return None
        self._is_awaited_here = is_awaited
        while True:
            waiting = {kind: self._next_member(kind, waits) for kind in _QUEUED}
            scheduled = self.scheduler.next(
                now,
                self.limiter,
                submits=int(waiting[RequestKind.SUBMIT] is not None),
                calls=int(waiting[RequestKind.CALL] is not None),
                is_awaited=self._is_awaited,
            )
            if scheduled is None:
                return None
            owner = waiting.get(scheduled.kind)
            if owner == self._own_id or (owner is None and self._is_own_poll(scheduled, awaits_any=awaits_any)):
                return scheduled
            member = self._members[owner] if owner else None
            turn = (scheduled.kind, scheduled.video_id, owner, member and member.written_at)
            if turn != self._turn or scheduled.at > now:
                grace = _POLL_GRACE if owner is None else _NEXT_GRACE if self._skipped else _GRACE
                self._turn, self._turn_ends = turn, scheduled.at + grace
            if now < self._turn_ends:
                return scheduled._replace(at=self._turn_ends)
            if member is None or owner is None:
                return scheduled
            self._skipped.add(owner)

    def _next_member(self, kind: RequestKind, own_waits: set[RequestKind]) -> str | None:
        """Return the member whose request of a kind is next; ``None`` if none waits."""
        waiting = [
            (member.queue_position(kind), member_id)
            for member_id, member in self._members.items()
            if member_id != self._own_id and kind in member.waits and member_id not in self._skipped
        ]
        if kind in own_waits:
            own = self._members.get(self._own_id)
            waiting.append((own.queue_position(kind) if own else (self._sends, self._members_seen + 1), self._own_id))
        return min(waiting)[1] if waiting else None

    def _is_own_poll(self, scheduled: ScheduledRequest, *, awaits_any: bool) -> bool:
        if scheduled.video_id is None:
            return awaits_any
        return self.follows(scheduled.video_id) and self._is_awaited_here(scheduled.video_id)

    def _is_awaited(self, video_id: str) -> bool:
        is_awaited = False
        for member_id in self._followers.get(video_id, ()):
            videos = self._members[member_id].videos
            if member_id == self._own_id and videos[video_id] and not self._is_awaited_here(video_id):
                videos[video_id] = False
                self.paused.append(video_id)
            is_awaited = is_awaited or videos[video_id]
        return is_awaited

    # -- facts --------------------------------------------------------------------------------------------------------

    def apply(self, member_id: str, at: float, facts: Sequence[Fact]) -> list[PollEvent]:
        """Apply an entry of the log.

        Args:
            member_id: The member that wrote it.
            at: The time at which it was written.
            facts: The facts. Unknown ones are ignored.

        Returns:
            The events of all videos that any member follows.
        """
        self.now = max(self.now, at)
        self.expire(self.now)
        member = self._member(member_id, at)
        member.written_at = max(member.written_at, at)
        self._skipped.discard(member_id)
        self._expires_at = min(self._expires_at, member.written_at + LOST_AFTER)
        events: list[PollEvent] = []
        for name, *values in facts:
            member = self._member(member_id, at)  # a new object after a "bye"
            if (apply := self._apply.get(name)) and not member.has_written(name, values):
                events += apply(member_id, member, at, *values) or ()
        return events

    def _member(self, member_id: str, at: float) -> _Member:
        member = self._members.get(member_id)
        if member is None:
            self._members_seen += 1
            self._members[member_id] = member = _Member(self._members_seen, self._sends, at)
        return member

    def _hello(self, _: str, member: _Member, __: float, ceiling: int | None) -> None:
        member.ceiling = ceiling
        self._apply_ceilings()

    def _limit(self, _: str, __: _Member, ___: float, limit: int | None) -> None:
        self.limiter.expect(limit)

    def _bye(self, member_id: str, *_: object) -> None:
        self._remove(member_id)

    def _wait(self, _: str, member: _Member, __: float, kinds: list[str]) -> None:
        member.waits = {RequestKind(kind) for kind in kinds}

    def _send(self, _: str, member: _Member, at: float, number: int, kind: str, video_id: str | None) -> None:
        if number in member.sends:
            return
        scheduled = ScheduledRequest(RequestKind(kind), at, video_id)
        if scheduled.kind in _QUEUED:
            self._note_missed_turns(member, scheduled.kind)
        self._sends += 1
        self._turn = None
        member.sends.add(number)
        member.in_flight[number] = self.limiter.acquire(at)
        member.served[scheduled.kind] = self._sends
        self.scheduler.start(scheduled, at)
        if scheduled.kind not in _QUEUED:
            member.polls[number] = (scheduled, at + _POLL_EXPIRES)
            self._expires_at = min(self._expires_at, at + _POLL_EXPIRES)

    def _note_missed_turns(self, sender: _Member, kind: RequestKind) -> None:
        """Mark the members that have missed a turn as not waiting. One that was only late will write again that it waits."""
        for member_id, member in self._members.items():
            if kind in member.waits and member.queue_position(kind) < sender.queue_position(kind):
                member.waits = set()
                self._skipped.discard(member_id)

    def _sent(self, _: str, member: _Member, __: float, number: int, sent_at: float, ended_at: float | None) -> None:
        """Count a request that was sent while the store was unavailable."""
        if number in member.sends:
            return
        member.sends.add(number)
        reservation = self.limiter.acquire(sent_at)
        if ended_at is None:
            member.in_flight[number] = reservation
        else:
            self.limiter.abandon(reservation, ended_at)

    def _end(  # noqa: PLR0917  # the values of the fact
        self, member_id: str, member: _Member, at: float, number: int, how: str, headers: dict[str, str] | None
    ) -> None:
        reservation = member.in_flight.pop(number, 0)
        if how == UNUSED:
            self.limiter.cancel(reservation)
            self._abandoned(member_id, member, at, number)
        elif headers is None:
            self.limiter.release(reservation, at)
        elif how == THROTTLED:
            self.limiter.throttled(reservation, at, headers)
        elif how == UNAVAILABLE:
            self.limiter.unavailable(reservation, at, headers)
        else:
            self.limiter.release(reservation, at, headers, good=how == GOOD)

    def _follow(  # noqa: PLR0917  # the values of the fact
        self,
        member_id: str,
        member: _Member,
        at: float,
        video_id: str,
        since: float | None,
        state: dict[str, Any] | None = None,
    ) -> None:
        member.videos[video_id] = True
        if member_id != self._own_id:
            self.followed_elsewhere.append(video_id)
        self._followers.setdefault(video_id, set()).add(member_id)
        if state:
            self.scheduler.import_state(video_id, state)
        self.scheduler.add(video_id, at, since=since)
        self.scheduler.resume({video_id: None})

    def _unfollow(self, member_id: str, member: _Member, _: float, video_ids: list[str]) -> None:
        for video_id in video_ids:
            member.videos.pop(video_id, None)
            self._forget(member_id, video_id)

    def _pause(self, _: str, member: _Member, __: float, video_ids: list[str]) -> None:
        member.videos.update(dict.fromkeys(member.videos.keys() & set(video_ids), False))

    def _resume(self, _: str, member: _Member, __: float, video_ids: list[str]) -> None:
        resumed = [video_id for video_id in video_ids if video_id in member.videos]
        member.videos.update(dict.fromkeys(resumed, True))
        self.scheduler.resume(dict.fromkeys(resumed))

    def _seen(  # noqa: PLR0917  # the values of the fact
        self,
        _: str,
        member: _Member,
        at: float,
        number: int | None,
        kind: str,
        videos: list[dict[str, Any]],
        listed: Sequence[str] = (),
    ) -> list[PollEvent]:
        self.first_listed += [video_id for video_id in listed if video_id not in self.listed]
        self.listed.update(listed)
        scheduled = None if number is None else self._end_poll(member, number, kind, None)
        snapshots = [self._snapshot(video) for video in videos]
        return self._forget_ended(self.scheduler.observe(snapshots, at, scheduled))

    def _snapshot(self, data: dict[str, Any]) -> Video:
        """Return the snapshot in a fact. Without ``raw``, the fact only says that the status is unchanged."""
        known = self.scheduler.snapshot(data["video_id"])
        return known if known and "raw" not in data and known.status == data["status"] else Video.from_dict(data)

    def _failed(  # noqa: PLR0917  # the values of the fact
        self,
        member_id: str,
        member: _Member,
        at: float,
        number: int,
        kind: str,
        video_id: str | None,
        error: dict[str, Any],
        final: bool,  # noqa: FBT001  # as in the log
    ) -> list[PollEvent]:
        own = self.own_errors.pop(number, None) if member_id == self._own_id else None
        scheduled = self._end_poll(member, number, kind, video_id)
        return self._forget_ended(self.scheduler.failed(scheduled, own or A2VError.from_dict(error), at, final=final))

    def _abandoned(self, _: str, member: _Member, __: float, number: int) -> None:
        if poll := member.polls.pop(number, None):
            self.scheduler.abandoned(poll[0])

    def _end_poll(self, member: _Member, number: int, kind: str, video_id: str | None) -> ScheduledRequest:
        poll = member.polls.pop(number, None)
        return poll[0] if poll else ScheduledRequest(RequestKind(kind), self.now, video_id)

    def _forget_ended(self, events: list[PollEvent]) -> list[PollEvent]:
        """Forget the followers of videos that have ended; return the events."""
        for video_id, _ in events:
            if video_id not in self.scheduler:
                for member_id in self._followers.pop(video_id, ()):
                    self._members[member_id].videos.pop(video_id, None)
        return events

    # -- members ------------------------------------------------------------------------------------------------------

    def _apply_ceilings(self) -> None:
        ceilings = [member.ceiling for member in self._members.values() if member.ceiling is not None]
        self.limiter.restrict(min(ceilings, default=None))

    def expire(self, now: float) -> None:
        """Remove lost members, and make polls due again that have been in flight for too long."""
        if now < self._expires_at:
            return
        self._expires_at = math.inf
        for member_id, member in list(self._members.items()):
            lost_at = member.written_at + LOST_AFTER
            if lost_at <= now and member_id != self._own_id:
                self._remove(member_id)
                continue
            for number, (scheduled, expires_at) in list(member.polls.items()):
                if expires_at <= now:
                    del member.polls[number]
                    self.scheduler.abandoned(scheduled)
                else:
                    self._expires_at = min(self._expires_at, expires_at)
            if member_id != self._own_id:
                self._expires_at = min(self._expires_at, lost_at)

    def _remove(self, member_id: str) -> None:
        member = self._members.pop(member_id)
        self._skipped.discard(member_id)
        for reservation in member.in_flight.values():
            self.limiter.abandon(reservation, member.written_at)
        for scheduled, _ in member.polls.values():
            self.scheduler.abandoned(scheduled)
        for video_id in member.videos:
            self._forget(member_id, video_id)
        if member.ceiling is not None:
            self._apply_ceilings()

    def _forget(self, member_id: str, video_id: str) -> None:
        followers = self._followers.get(video_id, set())
        followers.discard(member_id)
        if not followers:
            self._followers.pop(video_id, None)
            self.scheduler.discard(video_id)


# -- facts to write ---------------------------------------------------------------------------------------------------


def end_fact(number: int, how: str, headers: Mapping[str, str] | None = None) -> Fact:
    """Return the fact that a request has ended, with the response's headers about the rate limit.

    Args:
        number: The number of the request.
        how: How it ended, such as ``GOOD``.
        headers: The response's headers; ``None`` if there was no response.
    """
    rate_headers = (
        None if headers is None else {name: headers[name][:_MAX_HEADER_LENGTH] for name in _HEADERS if name in headers}
    )
    return ["end", number, how, rate_headers]


def seen_fact(log: AccountLog, videos: Iterable[Video], scheduled: ScheduledRequest | None, number: int) -> Fact:
    """Return the fact that a response contained snapshots.

    Changed snapshots are written in full, unchanged ones as their status. Of videos that no member follows, only the ids are
    written, and each only once.

    Args:
        log: The state of the account.
        videos: The snapshots.
        scheduled: The poll that the response answers; ``None``: it was another request.
        number: The number of that poll.
    """
    followed, listed = [], []
    for video in videos:
        video_id = video.video_id
        if video_id not in log.scheduler:
            listed += [] if video_id in log.listed else [video_id]
        elif _is_needed_in_full(log.scheduler, video):
            followed.append(video.to_dict())
        else:
            followed.append({"video_id": video_id, "status": video.status.value})
    return ["seen", number, scheduled.kind.value, followed, listed] if scheduled else ["seen", None, "", followed]


def _is_needed_in_full(scheduler: PollScheduler, video: Video) -> bool:
    known = scheduler.snapshot(video.video_id)
    return known is None or video.is_terminal or is_change(known, video)
