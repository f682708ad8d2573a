"""Sends all requests of a client in one event loop, when the rate limiter and the scheduler allow them.

`RateLimiter` and `PollScheduler` decide which request is next and when, but have no clock and do no I/O. The
dispatcher adds both, without a background task: an unused client costs nothing, and nothing outlives the
waiting caller. This is the leader/followers pattern:

* **One driver.** A *waiter* is a queued request or a subscription whose caller waits here. At most one waiter is the driver at a
  time. It sleeps until the next request is due or something changes (``_changed``). Then it either grants the first
  queued request its reservation, or sends the due poll itself. All other waiters sleep (``_sleeping``) until they are ready or have
  to drive.
* **The driver may leave at any time**: it is ready, it was cancelled, or it is sending a poll. When it leaves,
  it wakes another waiter, which becomes the driver. So while there are waiters, one of them is the driver or about to be.
* **Each caller sends its request in its own task**, so cancelling a caller cancels its request and nothing else. The driver sends a
  due poll after it has handed over its role; the poll serves all subscriptions to that video. If the sender is cancelled, the poll
  is abandoned and due again.
* **Each reservation is released exactly once**, after a response, an error or a cancellation: in ``_exchange``,
  or in ``send`` if the caller is cancelled between reservation and sending.
* **Each response is classified once**, in ``_exchange``, for the limiter as well as the caller or the scheduler.

A background task that polls would be simpler to write. But something would have to stop it, the end of the event loop would
cancel it, and if the first caller started it, it would run in the cancel scope of that caller.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, evolve, field

from a2v._async.requests import telemetry
from a2v._async.requests.outage_log import OutageLog
from a2v._core import wire
from a2v._core.poll_scheduler import PollEvent, PollScheduler, ScheduledRequest
from a2v._core.rate_limiter import Pace, RequestKind
from a2v._core.responses import NoResponse, Retry, classify
from a2v._core.settings import RequestOptions, Secret
from a2v._core.wire import ApiRequest, Response
from a2v._values.models import VideoStatus
from a2v.errors import A2VError, APIError, ProtocolError, RateLimitError

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from a2v._async.requests.known_videos import KnownVideos, SubmissionAttempt
    from a2v._async.requests.telemetry import Span
    from a2v._async.requests.transport import Transport
    from a2v._core.rate_limiter import RateLimiter
    from a2v._values.models import Video

T = TypeVar("T")

_OTHER_LOOPS_INTERVAL = 0.1  # seconds between checks of the limiter while another event loop has requests in flight
EPSILON = 1e-6  # seconds; a request may be sent this much too early, because converting between clocks rounds
_MIN_LOGGED_DELAY = 1.0  # seconds; shorter waits for the rate limit are not logged


class Connection(NamedTuple):
    """What the dispatcher needs to send requests in one event loop.

    Attributes:
        transport: The connections of that event loop.
        base_url: The server.
        token: The account's token.
        options: The options of polls.
        known_videos: The client's record of submissions and listed videos.
        propagate_trace: Whether requests carry the trace context.
    """

    transport: Transport
    base_url: str
    token: Secret
    options: RequestOptions
    known_videos: KnownVideos
    propagate_trace: bool


class Waiter(Protocol):
    """A caller that waits in the dispatcher."""

    @property
    def is_ready(self) -> bool:
        """Whether the wait is over."""
        ...


class Subscriber(Waiter, Protocol):
    """The interface of ``Subscription`` that the dispatcher uses."""

    open_videos: dict[str, float | None]
    events: deque[PollEvent]
    paused: bool
    span: Span


class Limiter(Protocol):
    """The interface of ``LoopRateLimiter`` that the dispatcher uses."""

    def locked(self) -> AbstractContextManager[tuple[RateLimiter, float]]: ...

    def now(self) -> float: ...


class Scheduler(Protocol):
    """The interface of ``PollScheduler`` that the dispatcher uses."""

    def __contains__(self, video_id: object) -> bool: ...

    def snapshot(self, video_id: str) -> Video | None: ...

    def add(self, video_id: str, now: float, *, since: float | None = None) -> None: ...

    def discard(self, video_id: str) -> None: ...

    def resume(self, video_ids: Mapping[str, object]) -> None: ...

    def next(
        self, now: float, limiter: RateLimiter, *, submits: int, calls: int, is_awaited: Callable[[str], bool]
    ) -> ScheduledRequest | None: ...

    def start(self, scheduled: ScheduledRequest, now: float) -> None: ...

    def observe(
        self, videos: Iterable[Video], now: float, scheduled: ScheduledRequest | None = None
    ) -> list[PollEvent]: ...

    def failed(self, scheduled: ScheduledRequest, error: A2VError, now: float, *, final: bool) -> list[PollEvent]: ...

    def abandoned(self, scheduled: ScheduledRequest) -> None: ...


@define(eq=False, repr=False)
class _QueuedRequest:
    """A request whose caller waits for a reservation."""

    # 0 until the driver grants it.
    reservation: int = field(default=0, init=False)

    @property
    def is_ready(self) -> bool:
        return self.reservation > 0


class RequestDispatcher:
    """Sends the requests of one client in one event loop.

    Args:
        connection: Where and how to send requests.
        limiter: The rate limiter.
        scheduler: The poll scheduler; ``None``: a new one.
    """

    def __init__(self, connection: Connection, limiter: Limiter, scheduler: Scheduler | None = None) -> None:
        self._connection = connection
        self._limiter = limiter
        self._scheduler: Scheduler = PollScheduler() if scheduler is None else scheduler
        # Requests in flight in this event loop; the limiter counts those of all loops.
        self._in_flight = 0
        # FIFO queues. Dictionaries serve as ordered sets, which allow removal from the middle.
        self._queues: dict[RequestKind, dict[_QueuedRequest, None]] = {RequestKind.SUBMIT: {}, RequestKind.CALL: {}}
        self._subscribers: dict[str, dict[Subscriber, None]] = {}
        self._has_driver = False
        self._sleeping: dict[Waiter, anyio.Event] = {}
        # Set when the driver has to consult the limiter and the scheduler again.
        self._changed = anyio.Event()
        # The end of the last wait for the rate limit that was logged.
        self._logged_until = -inf
        self._outages = OutageLog()

    async def send(
        self, request: ApiRequest[T], options: RequestOptions, attempt: SubmissionAttempt | None = None
    ) -> T | Retry:
        """Send a request as soon as the rate limit allows it.

        Args:
            request: The request.
            options: The timeout and additional headers.
            attempt: The record of the submission, if it is one.

        Returns:
            The value of the response, or ``Retry`` if the request may be sent again.

        Raises:
            A2VError: The outcome is final; see ``a2v._core.responses``.
        """
        kind = RequestKind.SUBMIT if request.costs else RequestKind.CALL
        queue, queued = self._queues[kind], _QueuedRequest()
        queue[queued] = None
        self._changed.set()
        try:
            with telemetry.rate_limit_wait(kind):
                await self._wait(queued)
                await checkpoint_if_cancelled()
        except BaseException:
            queue.pop(queued, None)
            if queued.is_ready:
                self._release(queued.reservation, None, unused=True)
            raise
        return await self._exchange(request, options, queued.reservation, attempt)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Start polling the open videos of a subscription. Existing snapshots are queued immediately."""
        now = self.now()
        for video_id, submitted_at in subscriber.open_videos.items():
            self._subscribers.setdefault(video_id, {})[subscriber] = None
            if snapshot := self._scheduler.snapshot(video_id):
                subscriber.events.append((video_id, snapshot))
            self._scheduler.add(video_id, now, since=submitted_at)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Stop polling the videos that have no other subscription."""
        for video_id in subscriber.open_videos:
            subscribers = self._subscribers.get(video_id, {})
            subscribers.pop(subscriber, None)
            if not subscribers:
                self._forget(video_id)

    async def wait_for_events(self, subscriber: Subscriber) -> None:
        """Wait until the subscription has events, and poll its videos in the meantime."""
        self._scheduler.resume(subscriber.open_videos)
        subscriber.paused = False
        self._changed.set()
        try:
            await self._wait(subscriber)
        finally:
            subscriber.paused = True

    def observe(self, video: Video) -> None:
        """Process a snapshot that a caller requested as if it came from a poll."""
        self._count_if_ended(video)
        self._publish(self._scheduler.observe([video], self.now()))

    async def pace(self) -> Pace:
        """Return the rate limit and when the next request is sent."""
        with self._limiter.locked() as (limiter, now):
            scheduled = self._next_request(limiter, now)
            next_in = max(0.0, scheduled.at - now) if scheduled else None
            failing_for = self._outages.failing_for(now)
            return Pace(limit=limiter.limit, left=limiter.left(now), next_in=next_in, failing_for=failing_for)

    def throttled_for(self) -> float:
        """Return the seconds since the first 429 after the client's last success; 0.0 if there was none."""
        with self._limiter.locked() as (limiter, now):
            return limiter.throttled_for(now)

    def now(self) -> float:
        """Return the client's time in seconds, by the rate limiter's clock, which is the same in all event loops."""
        return self._limiter.now()

    async def aclose(self) -> None:
        """Release resources when the client is closed in this event loop. Does nothing, except in subclasses."""

    # -- driving ------------------------------------------------------------------------------------------------------

    async def _wait(self, waiter: Waiter) -> None:
        try:
            while not waiter.is_ready:
                await (self._sleep(waiter) if self._has_driver else self._drive())
        finally:
            self._wake_next_driver()

    async def _sleep(self, waiter: Waiter) -> None:
        self._sleeping[waiter] = wakeup = anyio.Event()
        try:
            await wakeup.wait()
        finally:
            del self._sleeping[waiter]

    def _wake(self, waiter: Waiter) -> None:
        if wakeup := self._sleeping.get(waiter):
            wakeup.set()

    def _wake_next_driver(self) -> None:
        if self._sleeping and not self._has_driver:
            next(iter(self._sleeping.values())).set()

    async def _drive(self) -> None:
        """Start the next request if it is due; otherwise sleep until it is, or until something changes."""
        reservation = 0
        with self._limiter.locked() as (limiter, now):
            scheduled = self._next_request(limiter, now)
            if scheduled and scheduled.at <= now + EPSILON:
                self._scheduler.start(scheduled, now)
                reservation = limiter.acquire(now)
                self._in_flight += 1
            # A response in another event loop may allow a request here, but cannot wake this driver.
            others_in_flight = limiter.in_flight > self._in_flight
        if not scheduled or not reservation:
            delay = scheduled.at - now if scheduled else _OTHER_LOOPS_INTERVAL if others_in_flight else inf
            if scheduled and scheduled.kind in self._queues:
                self._log_wait(scheduled.at, delay)
            await self._sleep_as_driver(delay)
        elif scheduled.kind in self._queues:
            queued = next(iter(self._queues[scheduled.kind]))
            del self._queues[scheduled.kind][queued]
            queued.reservation = reservation
            self._wake(queued)
        else:
            self._wake_next_driver()
            await self._poll(scheduled, reservation)

    async def _sleep_as_driver(self, delay: float) -> None:
        self._changed = anyio.Event()
        self._has_driver = True
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + delay):
                await self._changed.wait()
        finally:
            self._has_driver = False
            # Replace the event: once awaited, it refers to its event loop and would keep it alive.
            self._changed = anyio.Event()

    def _log_wait(self, until: float, delay: float) -> None:
        if delay >= _MIN_LOGGED_DELAY and until != self._logged_until:
            self._logged_until = until
            telemetry.logger.info("rate limit reached: the next request is sent in %.0f s", delay)

    def _next_request(self, limiter: RateLimiter, now: float) -> ScheduledRequest | None:
        return self._scheduler.next(
            now,
            limiter,
            submits=len(self._queues[RequestKind.SUBMIT]),
            calls=len(self._queues[RequestKind.CALL]),
            is_awaited=self._is_awaited,
        )

    def _is_awaited(self, video_id: str) -> bool:
        return any(not subscriber.paused for subscriber in self._subscribers.get(video_id, ()))

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _poll(self, scheduled: ScheduledRequest, reservation: int) -> None:
        video_id = scheduled.video_id
        request: ApiRequest[Any] = wire.video_get(video_id) if video_id else self._connection.known_videos.video_list()
        # A poll serves many subscriptions; in traces it belongs to the first.
        served = self._subscribers.get(video_id, {}) if video_id else chain.from_iterable(self._subscribers.values())
        span = next((subscriber.span for subscriber in served), telemetry.NO_SPAN)
        try:
            with span.activate():
                outcome = await self._exchange(request, self._connection.options, reservation)
        except (APIError, ProtocolError) as error:
            events = self._scheduler.failed(scheduled, error, self.now(), final=True)
        except BaseException:
            # A cancellation, or an error in the client such as its configuration, says nothing about the video.
            self._scheduler.abandoned(scheduled)
            raise
        else:
            if isinstance(outcome, Retry):
                events = self._scheduler.failed(scheduled, outcome.error, self.now(), final=False)
            else:
                videos = [outcome] if video_id else outcome
                events = self._scheduler.observe(videos, self.now(), scheduled)
        self._publish(events)

    async def _exchange(
        self,
        request: ApiRequest[T],
        options: RequestOptions,
        reservation: int,
        attempt: SubmissionAttempt | None = None,
    ) -> T | Retry:
        """Send a request that has a reservation, classify the response, and release the reservation."""
        connection = self._connection
        response: Response | NoResponse | None = None
        throttled = False
        try:
            if attempt:
                if attempt.makes_video:
                    connection.known_videos.start(attempt)
                if attempt.before_send:
                    await attempt.before_send()
                attempt.started = True
            with telemetry.observe_request(connection.base_url, request) as observed:
                if connection.propagate_trace:
                    headers = Secret(telemetry.trace_headers().value | options.headers.value)
                    options = evolve(options, headers=headers)
                response = await connection.transport.exchange(
                    connection.base_url, connection.token, request, options, attempt
                )
                observed.record(response)
            if attempt and isinstance(response, Response):
                attempt.request_id = response.request_id
            outcome = classify(request, response)
            throttled = isinstance(outcome, Retry) and isinstance(outcome.error, RateLimitError)
        except A2VError as error:
            telemetry.count_request(request, error)
            if isinstance(error, APIError):
                self._outages.succeeded(self.now)
            raise
        else:
            telemetry.count_request(request, outcome)
            if isinstance(outcome, Retry):
                self._outages.failed(outcome.error, self.now())
            else:
                self._outages.succeeded(self.now)
            return outcome
        finally:
            unused = attempt is not None and not attempt.started
            self._release(reservation, response, throttled=throttled, unused=unused)

    def _release(
        self,
        reservation: int,
        response: Response | NoResponse | None,
        *,
        throttled: bool = False,
        unused: bool = False,
    ) -> None:
        self._in_flight -= 1
        with self._limiter.locked() as (limiter, now):
            if unused:
                limiter.cancel(reservation)
            elif not isinstance(response, Response):
                limiter.release(reservation, now)
            elif throttled:
                limiter.throttled(reservation, now, response.headers)
            elif response.status_code == 503:
                limiter.unavailable(reservation, now, response.headers)
            else:
                limiter.release(reservation, now, response.headers, good=response.status_code < 400)
        self._changed.set()

    def _publish(self, events: list[PollEvent]) -> None:
        for video_id, event in events:
            if isinstance(event, A2VError):
                description, has_ended = type(event).__name__, True
            else:
                description, has_ended = event.status.value, event.is_terminal
                self._count_if_ended(event)
            telemetry.logger.info("video %s: %s", video_id, description)
            for subscriber in self._subscribers.get(video_id, ()):
                subscriber.events.append((video_id, event))
                self._wake(subscriber)
            # Do not ask the scheduler whether it has ended: it may already have processed later snapshots.
            if has_ended:
                self._forget(video_id)
        self._changed.set()

    def _count_if_ended(self, video: Video) -> None:
        if video.is_terminal and telemetry.has_metrics() and self._connection.known_videos.add_ended(video.video_id):
            telemetry.count_video("failed" if video.status is VideoStatus.FAILED else "finished")

    def _forget(self, video_id: str) -> None:
        self._subscribers.pop(video_id, None)
        self._scheduler.discard(video_id)
