"""Whose turn it is: all requests of a client in one event loop, paced by the client's budget and the loop's scheduler.

There is no task in the background. Everybody who waits here is ready to *conduct*: to sleep until the next request is due
and to give the turn to whom it belongs. A submission or a call is sent by its own waiter; a look at a video by whoever
conducts, for all who watch it. Whoever leaves, also by cancellation, hands the conducting on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
from attrs import define, field

from a2v._async.requests.telemetry import NO_SPAN, Span, logger
from a2v._core import wire
from a2v._core.poll_scheduler import PollEvent, PollScheduler, ScheduledRequest
from a2v._core.rate_limiter import Pace, RequestKind
from a2v._core.responses import NoResponse, Retry, classify, is_rate_limited
from a2v._core.wire import ApiRequest, Response
from a2v.errors import A2VError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2v._async.requests.shared_limiter import LoopRateLimiter
    from a2v._core.rate_limiter import RateLimiter
    from a2v._values.models import Video

_ELSEWHERE = 0.1  # seconds until the budget is looked at again while another event loop waits for an answer
_INSTANT = 1e-6

Exchange = Callable[[ApiRequest[Any]], Awaitable[Response | NoResponse]]


@define(eq=False)
class Waiter:
    """Somebody who waits here.

    Attributes:
        event: Set to wake it.
        ready: Whether what it waits for has come.
    """

    event: anyio.Event = field(factory=anyio.Event, init=False)
    ready: bool = field(default=False, init=False)

    def satisfy(self) -> None:
        """What it waits for has come."""
        self.ready = True
        self.event.set()


@define(eq=False)
class _Sender(Waiter):
    """Waits to send a request of its own."""

    reservation: int = field(default=0, init=False)


@define(eq=False)
class Watcher(Waiter):
    """Waits for news of videos.

    Attributes:
        span: What its looks are a part of.
        waiting: Whether it does so now; a watcher whose caller is busy elsewhere costs no requests.
        news: What has come: looks, and errors that end the watching of a video.
    """

    span: Span = NO_SPAN
    waiting: bool = field(default=False, init=False)
    news: list[PollEvent] = field(factory=list, init=False)


class RequestDispatcher:
    """The turns of one client in one event loop."""

    def __init__(
        self,
        exchange: Exchange,
        budget: LoopRateLimiter,
        video_list: Callable[[], ApiRequest[list[Video]]] = wire.video_list,
    ) -> None:
        self._exchange = exchange
        self._video_list = video_list
        self._limiter = budget
        self._in_flight = 0
        self._scheduler = PollScheduler()
        self._senders: dict[RequestKind, dict[_Sender, None]] = {RequestKind.SUBMIT: {}, RequestKind.CALL: {}}
        self._watchers: dict[str, dict[Watcher, None]] = {}
        self._conducting = False
        self._told = -inf
        self._idle: dict[Waiter, None] = {}
        self._changed = anyio.Event()

    # -- what waiters do ----------------------------------------------------------------------------------------------

    async def request(self, call: ApiRequest[Any]) -> Response | NoResponse:
        """Send a request when its turn comes."""
        kind = RequestKind.SUBMIT if call.job else RequestKind.CALL
        sender = _Sender()
        self._senders[kind][sender] = None
        self._changed.set()
        try:
            await self._until_ready(sender)
        except BaseException:
            self._senders[kind].pop(sender, None)
            if sender.ready:
                self._answered(call, sender.reservation, None)
            raise
        return await self._send(call, sender.reservation)

    def follow(self, watcher: Watcher, since: Mapping[str, float | None]) -> None:
        """Begin to watch videos.

        Args:
            watcher: Who wants the news; what is known already comes at once.
            since: For each video's id when it was submitted, by ``now``, or ``None`` if it was picked up.
        """
        now = self.now()
        for video_id, submitted in since.items():
            self._watchers.setdefault(video_id, {})[watcher] = None
            if video := self._scheduler.snapshot(video_id):
                watcher.news.append((video_id, video))
            self._scheduler.add(video_id, now, since=submitted)

    def leave(self, watcher: Watcher, video_ids: list[str]) -> None:
        """Watch videos no longer."""
        for video_id in video_ids:
            watchers = self._watchers.get(video_id, {})
            watchers.pop(watcher, None)
            if not watchers:
                self._forget(video_id)

    async def news(self, watcher: Watcher, video_ids: Mapping[str, float | None]) -> list[PollEvent]:
        """Wait for news of the videos that a watcher follows."""
        self._scheduler.resume(video_ids)
        watcher.waiting, watcher.ready = True, bool(watcher.news)
        self._changed.set()
        try:
            await self._until_ready(watcher)
        finally:
            watcher.waiting = False
        news, watcher.news = watcher.news, []
        return news

    def looked(self, video: Video) -> None:
        """Tell the watchers of a look that somebody took for himself."""
        self._deliver(self._scheduler.observe([video], self.now()))

    def pace(self) -> Pace:
        """How it goes just now."""
        with self._limiter.locked() as (budget, now):
            turn = self._next(budget, now)
            next_in = max(0.0, turn.at - now) if turn else None
            return Pace(limit=budget.limit, left=budget.left(now), next_in=next_in)

    def now(self) -> float:
        """The client's time: that of its budget, in seconds, the same in all its event loops."""
        return self._limiter.now()

    # -- conducting ---------------------------------------------------------------------------------------------------

    async def _until_ready(self, waiter: Waiter) -> None:
        try:
            while not waiter.ready:
                await (self._rest(waiter) if self._conducting else self._conduct())
        finally:
            self._hand_on()

    async def _rest(self, waiter: Waiter) -> None:
        waiter.event = anyio.Event()
        self._idle[waiter] = None
        try:
            await waiter.event.wait()
        finally:
            del self._idle[waiter]

    def _hand_on(self) -> None:
        if self._idle and not self._conducting:
            next(iter(self._idle)).event.set()

    async def _conduct(self) -> None:
        """Take the next turn if it is due, otherwise sleep until it is or until something changes."""
        reservation = None
        with self._limiter.locked() as (budget, now):
            turn = self._next(budget, now)
            # Being a little early does no harm, and two clocks do not add up exactly.
            if turn and turn.at <= now + _INSTANT:
                self._scheduler.start(turn, now)
                reservation = budget.acquire(now)
                self._in_flight += 1
            # What an answer in another event loop changes is not told here.
            elsewhere = budget.in_flight > self._in_flight
        if turn and reservation is not None:
            await self._take(turn, reservation)
            return
        if turn and turn.kind in self._senders:
            self._tell_wait(turn.at, now)
        pause = turn.at - now if turn else _ELSEWHERE if elsewhere else inf
        self._changed = anyio.Event()
        self._conducting = True
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + pause):
                await self._changed.wait()
        finally:
            self._conducting = False
            # The one that was waited for knows its event loop, and would keep it alive.
            self._changed = anyio.Event()

    def _tell_wait(self, until: float, now: float) -> None:
        if until - now >= 1 and until != self._told:
            self._told = until
            logger.info("the budget is used up: the next request is sent in %.0f s", until - now)

    def _next(self, budget: RateLimiter, now: float) -> ScheduledRequest | None:
        waiting = {kind: len(senders) for kind, senders in self._senders.items()}
        return self._scheduler.next(
            now, budget, submits=waiting[RequestKind.SUBMIT], calls=waiting[RequestKind.CALL], awaited=self._is_awaited
        )

    def _is_awaited(self, video_id: str) -> bool:
        return any(watcher.waiting for watcher in self._watchers.get(video_id, ()))

    async def _take(self, turn: ScheduledRequest, reservation: int) -> None:
        if turn.kind in self._senders:
            sender = next(iter(self._senders[turn.kind]))
            del self._senders[turn.kind][sender]
            sender.reservation = reservation
            sender.satisfy()
        else:
            # Others conduct while this request is under way.
            self._hand_on()
            await self._look(turn, reservation)

    async def _look(self, turn: ScheduledRequest, reservation: int) -> None:
        call: ApiRequest[Any] = wire.video_get(turn.video_id) if turn.video_id else self._video_list()
        try:
            with self._whose(turn).activate():
                answer = await self._send(call, reservation)
        except BaseException:
            self._scheduler.abandoned(turn)
            raise
        self._deliver(self._learn(turn, call, answer))

    def _whose(self, turn: ScheduledRequest) -> Span:
        """A look is sent by anybody and for many; to those who trace, it is a part of the first one's watch."""
        followed = (
            self._watchers.get(turn.video_id, {}) if turn.video_id else chain.from_iterable(self._watchers.values())
        )
        return next((watcher.span for watcher in followed), NO_SPAN)

    async def _send(self, call: ApiRequest[Any], reservation: int) -> Response | NoResponse:
        answer: Response | NoResponse | None = None
        try:
            answer = await self._exchange(call)
            return answer
        finally:
            self._answered(call, reservation, answer)

    def _learn(self, turn: ScheduledRequest, call: ApiRequest[Any], answer: Response | NoResponse) -> list[PollEvent]:
        now = self.now()
        try:
            outcome = classify(call, answer)
        except A2VError as error:
            return self._scheduler.failed(turn, error, now, final=True)
        if isinstance(outcome, Retry):
            return self._scheduler.failed(turn, outcome.error, now, final=False)
        return self._scheduler.observe(outcome if turn.kind is RequestKind.LIST else [outcome], now, turn)

    def _answered(self, call: ApiRequest[Any], reservation: int, answer: Response | NoResponse | None) -> None:
        self._in_flight -= 1
        with self._limiter.locked() as (budget, now):
            if not isinstance(answer, Response):
                budget.release(reservation, now)
            elif is_rate_limited(call, answer):
                budget.throttled(reservation, now, answer.headers)
            elif answer.status_code == 503:
                budget.unavailable(reservation, now, answer.headers)
            else:
                budget.release(reservation, now, answer.headers, good=answer.status_code < 400)
        self._changed.set()

    def _deliver(self, all_news: list[PollEvent]) -> None:
        for video_id, news in all_news:
            word = type(news).__name__ if isinstance(news, A2VError) else news.status.value
            logger.info("video %s: %s", video_id, word)
            for watcher in self._watchers.get(video_id, ()):
                watcher.news.append((video_id, news))
                watcher.satisfy()
            if video_id not in self._scheduler:
                self._forget(video_id)
        self._changed.set()

    def _forget(self, video_id: str) -> None:
        self._watchers.pop(video_id, None)
        self._scheduler.discard(video_id)
