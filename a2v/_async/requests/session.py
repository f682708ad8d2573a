"""What all calls of a client share: who we are, where the server is, how patiently we ask."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

import anyio
from anyio.lowlevel import RunVar, current_token
from attrs import define, field

from a2v._async.requests import telemetry
from a2v._async.requests.dispatcher import RequestDispatcher
from a2v._async.requests.known_videos import KnownVideos
from a2v._async.requests.shared_limiter import LoopRateLimiter, SharedRateLimiter
from a2v._async.requests.transport import Transport
from a2v._core import wire
from a2v._core.job_errors import state_after
from a2v._core.rate_limiter import RateLimiter
from a2v._core.responses import Retry, backoff, classify
from a2v._core.settings import HoldsSecret, Secret, resolve_base_url, resolve_token
from a2v._values import arguments
from a2v._values.jobs import JobState
from a2v.errors import ClientClosedError, ConfigurationError, RateLimitError, SubmissionUnknownError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import httpx

    from a2v._core.responses import NoResponse
    from a2v._core.wire import ApiRequest, Response, SubmissionAttempt
    from a2v._values.jobs import Job
    from a2v._values.models import Video

T = TypeVar("T")

OUTCOME_UNKNOWN = (
    "the request was sent, so the server may have accepted the render, and it may cost money: look at your account's videos "
    "before you submit it again"
)
"""The note of an error, or of a cancellation, that ended a submission after it was sent."""
_LOST = 60.0  # seconds beyond its timeout after which a request was lost with its event loop


@define(eq=False)
class LoopState:
    """What a session has in one event loop; it ends with the loop."""

    transport: Transport
    dispatcher: RequestDispatcher
    scopes: set[anyio.CancelScope] = field(factory=set)
    # How many ``async with`` are open, and whether the last one was left.
    contexts: int = 0
    closed: bool = False
    _loop: ReferenceType[Any] = field(factory=lambda: ref(current_token().native_token), init=False)

    def end(self) -> None:
        """End what waits. Called within the event loop."""
        self.closed = True
        for scope in list(self.scopes):
            scope.cancel()

    def end_soon(self) -> None:
        """End what waits, from another event loop, which may be one of another thread."""
        loop = self._loop()
        if loop is not None:
            soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon  # asyncio's, trio's
            with suppress(RuntimeError):  # it has ended
                soon(self.end)


# Connections and clocks belong to one event loop each, a client may live through several.
_loop_states: RunVar[WeakKeyDictionary[Session, LoopState]] = RunVar("a2v_loop_states")


class Session(HoldsSecret):
    """The client without its face: tasks and batches hold this, never the client."""

    def __init__(
        self,
        *,
        token: Secret,
        base_url: str | None,
        timeout: float,
        max_retries: int,
        rate_limit: int | Literal["auto"] | None,
        max_download_bytes: int | None,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        # Not the environment itself, which an error report would show.
        self.token: Secret = resolve_token(token, Secret(os.environ.get("A2V_TOKEN")))
        self.base_url: str = resolve_base_url(base_url, os.environ.get("A2V_BASE_URL"))
        self.timeout: float = arguments.seconds("timeout", timeout, error=ConfigurationError)
        self.max_retries: int = arguments.integer("max_retries", max_retries, minimum=0, error=ConfigurationError)
        self._limiter = partial(_limiter, rate_limit, self.timeout)
        self._shared = SharedRateLimiter(self._limiter())
        self.max_download_bytes: int | None = (
            None
            if max_download_bytes is None
            else arguments.integer("max_download_bytes", max_download_bytes, minimum=1, error=ConfigurationError)
        )
        if transport is not None and not hasattr(transport, "handle_async_request"):
            raise ConfigurationError(f"transport must be an asynchronous httpx transport, got {transport!r}")
        self.known_videos: KnownVideos = KnownVideos()
        self._custom_transport = transport
        self._pid = os.getpid()
        self._closed = False
        # Those of all event loops; a list, because appending and removing need no lock.
        self._all_states: list[ReferenceType[LoopState]] = []

    def open(self) -> None:
        """Enter the client's context in this event loop, and keep connections there."""
        state = self._loop_state
        self._closed = state.closed = False
        state.contexts += 1
        state.transport.open()

    async def leave(self) -> None:
        """Leave the client's context in this event loop. The last one to leave ends what waits there; others go on."""
        state = self._loop_state
        state.contexts -= 1
        if state.contexts <= 0:
            await self._end(state)

    async def aclose(self) -> None:
        """Close the client: end what waits in any event loop, and the connections of this one."""
        self._closed = True
        own = self._loop_state
        for state in [found for each in self._all_states if (found := each())]:
            if state is not own:
                state.end_soon()
        await self._end(own)

    async def _end(self, state: LoopState) -> None:
        state.contexts = 0
        state.end()
        others = any((other := each()) and other is not state and other.contexts for each in list(self._all_states))
        with anyio.CancelScope(shield=True):
            await state.transport.aclose(shared=others)

    def now(self) -> float:
        """The client's time in seconds, the same in all its event loops."""
        return self._loop_state.dispatcher.now()

    @contextmanager
    def in_use(self) -> Iterator[LoopState]:
        """Everything that waits does so in here, so that closing the client ends it.

        Raises:
            ClientClosedError: The client is closed, or was meanwhile.
            ConfigurationError: The transport given to it belongs to another process.
        """
        state = self._loop_state
        if self._closed or state.closed:
            raise ClientClosedError("the client is closed")
        if self._is_foreign:
            raise ConfigurationError(
                "transport= was made before a fork and may hold connections of the parent process; "
                "make a client with a transport of its own in the child"
            )
        with anyio.CancelScope() as scope:
            state.scopes.add(scope)
            try:
                yield state
            finally:
                state.scopes.discard(scope)
        if scope.cancelled_caught:
            closed = ClientClosedError("the client was closed during the call")
            try:
                raise closed
            finally:
                # Drop the event loop's cancellation: trio's can be an exception group, which tblib cannot unpickle.
                closed.__context__ = None
                del closed  # the traceback refers to this frame

    async def call(self, call: ApiRequest[T]) -> T:
        """Ask the server when it is our turn, again if need be and allowed.

        Raises:
            A2VError: As the outcome means; see ``a2v._core.responses``.
        """
        with telemetry.call_span(call) as span:
            outcome = await self.retry(call.name, lambda: self.attempt(call))
            if call.job:
                span.set_attributes({"a2v.video_id": str(outcome)})
            return outcome

    async def retry(self, name: str, attempt: Callable[[], Awaitable[T | Retry]]) -> T:
        """Do something again if need be and allowed.

        Args:
            name: What it is, for those who read the log.
            attempt: Does it once.

        Raises:
            A2VError: Patience has ended, or as ``attempt`` raises.
        """
        tries = 0
        while isinstance(outcome := await attempt(), Retry):
            if tries == self.max_retries:
                raise outcome.error
            # Not the error's text, which may quote the server, which may quote what is secret.
            telemetry.logger.info("%s: %s, trying again", name, type(outcome.error).__name__)
            if not isinstance(outcome.error, RateLimitError):  # after one, our turn comes when the limit allows
                await self.pause(tries)
            tries += 1
        return outcome

    async def attempt(self, call: ApiRequest[T]) -> T | Retry:
        """Ask the server once, when it is our turn.

        Raises:
            A2VError: What came of it is final.
        """
        if call.job and call.sending:
            return await self._submit(call, call.job, call.sending)
        return await self._ask(call)

    async def _ask(self, call: ApiRequest[T]) -> T | Retry:
        with self.in_use() as state:
            answer = await state.dispatcher.request(call)
        return classify(call, answer)

    async def _submit(self, call: ApiRequest[T], job: Job, sending: SubmissionAttempt) -> T | Retry:
        sending.started = sending.sent = False
        try:
            outcome = await self._ask(call)
        except BaseException as error:
            if state_after(error, sent=sending.sent) is JobState.UNKNOWN:
                self.known_videos.mark_unknown(sending)
                _warn_of_doubt(error)
            else:
                self.known_videos.finish(sending)
            raise
        if isinstance(outcome, Retry):
            self.known_videos.finish(sending)
        else:
            self.known_videos.finish(sending, str(outcome))
            telemetry.logger.info("video %s: submitted for %s", outcome, job.model_id or job.pose_id)
        return outcome

    async def get_video(self, video_id: str) -> Video:
        """Look at a video for somebody, and let those who watch it know."""
        video = await self.call(wire.video_get(video_id))
        self._loop_state.dispatcher.looked(video)
        return video

    async def pause(self, attempt: int, asked: float = 0.0) -> None:
        """Wait before trying again.

        Args:
            attempt: How many tries there were, from 0.
            asked: Seconds that the server asks to wait at least.
        """
        jitter = random.random()  # noqa: S311  # spreads siblings, guards nothing
        with self.in_use():
            await anyio.sleep(max(backoff(attempt, jitter), asked and asked + jitter))

    @property
    def _is_foreign(self) -> bool:
        return self._custom_transport is not None and self._pid != os.getpid()

    @property
    def _loop_state(self) -> LoopState:
        states = _loop_states.get(None)
        if states is None:
            states = WeakKeyDictionary[Session, LoopState]()
            _loop_states.set(states)
        if self not in states:
            states[self] = self._new_loop_state()
        return states[self]

    def _new_loop_state(self) -> LoopState:
        # What a child process inherited is its parent's to use and to close.
        transport = Transport(None if self._is_foreign else self._custom_transport)

        async def exchange(call: ApiRequest[Any]) -> Response | NoResponse:
            if call.sending:
                known_videos.start(call.sending)
                if call.sending.before_send:
                    await call.sending.before_send()
                call.sending.started = True
            with telemetry.request_span(base_url, call) as span:
                answer = await transport.exchange(base_url, token, call, timeout)
                telemetry.record_response(span, answer)
                return answer

        # The state must not keep the session alive, which is the key that it is found by.
        base_url, token, timeout, known_videos = self.base_url, self.token, self.timeout, self.known_videos
        # In a forked process, the lock may be held by a thread that exists in the parent only.
        if self._shared.pid != os.getpid():
            self._shared = SharedRateLimiter(self._limiter())
        state = LoopState(
            transport, RequestDispatcher(exchange, LoopRateLimiter(self._shared), known_videos.video_list)
        )
        self._all_states.append(ref(state, self._all_states.remove))
        return state


def _warn_of_doubt(error: BaseException) -> None:
    """Tell those who see a submission end in the middle that it may cost money; ``SubmissionUnknownError`` says so itself."""
    if not isinstance(error, SubmissionUnknownError):
        error.add_note(OUTCOME_UNKNOWN)
        telemetry.logger.warning("video.generate: %s: %s", type(error).__name__, OUTCOME_UNKNOWN)


def _limiter(rate_limit: int | str | None, timeout: float) -> RateLimiter:
    abandon_after = timeout + _LOST
    if rate_limit is None:
        return RateLimiter(None, abandon_after=abandon_after)
    if rate_limit == "auto":
        return RateLimiter(abandon_after=abandon_after)
    limit = arguments.integer("rate_limit", rate_limit, minimum=1, error=ConfigurationError)
    return RateLimiter(limit, ceiling=limit, abandon_after=abandon_after)
