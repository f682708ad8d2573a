"""The state that all parts of a client share: token, base URL, retry policy, rate limiter, and connections per event loop."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit
from weakref import ReferenceType, WeakKeyDictionary, ref

import anyio
from anyio.lowlevel import RunVar, current_token
from attrs import define, field

from a2v._async.requests import telemetry
from a2v._async.requests.dispatcher import Connection, RequestDispatcher
from a2v._async.requests.http_libraries import library_of
from a2v._async.requests.known_videos import KnownVideos, SubmissionAttempt
from a2v._async.requests.shared_limiter import LoopRateLimiter, SharedRateLimiter
from a2v._async.requests.transport import Transport
from a2v._async.requests.uploads import Uploads
from a2v._core import wire
from a2v._core.job_errors import state_after
from a2v._core.poll_scheduler import MAX_OUTAGE
from a2v._core.rate_limiter import RateLimiter
from a2v._core.responses import NoResponse, Retry, backoff
from a2v._core.settings import (
    HoldsSecret,
    RequestOptions,
    Secret,
    check_headers,
    is_loopback,
    resolve_base_url,
    resolve_token,
)
from a2v._values import arguments
from a2v._values.jobs import JobState
from a2v.errors import (
    A2VError,
    APIError,
    ClientClosedError,
    ConfigurationError,
    NotFoundError,
    ProtocolError,
    RateLimitError,
    ServerError,
    SubmissionUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from a2v._async.requests.http_libraries import AsyncTransport
    from a2v._async.requests.shared_account import BudgetOptions
    from a2v._core.wire import ApiRequest, Response
    from a2v._values.jobs import Job
    from a2v._values.models import Speech, Video

T = TypeVar("T")

OUTCOME_UNKNOWN = (
    "the request was sent, so the server may have accepted the render, and it may cost money: check your account's videos "
    "before you submit it again"
)
"""The note on an error or a cancellation that ended a submission after it was sent."""
SPEECH_UNKNOWN = "the request was sent, so the server may have synthesized the text, and it may cost money"
"""The note on an error or a cancellation that ended a synthesis after it was sent."""
_MAX_THROTTLED = 86_400.0
"""Seconds for which a request is retried that alone is rejected with 429 while others succeed; as long as the default of waits."""
_ABANDON_MARGIN = (
    60.0  # seconds after its timeout until a request counts as abandoned, because its event loop was closed
)


@define(eq=False, repr=False)
class LoopState:
    """The part of a session that belongs to one event loop and ends with it.

    Attributes:
        transport: The connections.
        dispatcher: Sends the requests.
        scopes: The cancel scopes of everything that waits.
        uploading: Locks for uploads, by ``audio_url``, and one for asking the server whether it accepts uploads.
        contexts: The number of open ``async with`` blocks.
        closed: Whether the client was closed in this event loop.
    """

    transport: Transport
    dispatcher: RequestDispatcher
    scopes: set[anyio.CancelScope] = field(factory=set)
    uploading: dict[str, anyio.Lock] = field(factory=dict)
    contexts: int = 0
    closed: bool = False
    _loop: ReferenceType[Any] = field(factory=lambda: ref(current_token().native_token), init=False)

    def close(self) -> None:
        """Cancel all waiting calls. Call this in the event loop."""
        self.closed = True
        for scope in list(self.scopes):
            scope.cancel()

    def close_soon(self) -> None:
        """Cancel all waiting calls. Call this outside the event loop, which may run in another thread."""
        loop = self._loop()
        if loop is not None:
            call_soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon  # asyncio's, trio's
            with suppress(RuntimeError):  # the loop has ended
                call_soon(self.close)


@define(eq=False, repr=False)
class ClientState:
    """The part of a session that a client shares with the clients that ``with_options`` derives from it.

    Attributes:
        limiter: The rate limiter.
        options: The options of polls, which serve all these clients.
        closed: Whether the client is closed in all event loops.
        loop_states: The state in each event loop. A list, because appending and removing need no lock.
    """

    limiter: SharedRateLimiter
    options: RequestOptions
    closed: bool = False
    loop_states: list[ReferenceType[LoopState]] = field(factory=list, init=False)


# Connections and clocks belong to one event loop each, and a client may be used in several.
_loop_states: RunVar[WeakKeyDictionary[ClientState, LoopState]] = RunVar("a2v_loop_states")


class Session(HoldsSecret):
    """The shared state of a client. Tasks and batches hold this instead of the client."""

    def __init__(
        self,
        *,
        token: Secret,
        base_url: str | None,
        timeout: float,
        max_retries: int,
        rate_limit: int | Literal["auto"] | None,
        max_download_bytes: int | None,
        default_headers: Secret,
        propagate_trace: bool,
        insecure: bool,
        transport: AsyncTransport | None,
        budget: Secret,
    ) -> None:
        # Read single variables: an error report would show a local variable with the whole environment.
        self.token: Secret = resolve_token(token, Secret(os.environ.get("A2V_TOKEN")))
        arguments.boolean("insecure", insecure, error=ConfigurationError)
        self.base_url: str = resolve_base_url(base_url, os.environ.get("A2V_BASE_URL"), insecure=insecure)
        headers = check_headers("default_headers", default_headers)
        self.options: RequestOptions = _checked(RequestOptions(timeout, max_retries, headers))
        self._new_limiter: Callable[..., RateLimiter] = partial(_new_limiter, rate_limit, self.options.timeout)
        self._state = ClientState(SharedRateLimiter(self._new_limiter()), self.options)
        self.max_download_bytes: int | None = (
            None
            if max_download_bytes is None
            else arguments.integer("max_download_bytes", max_download_bytes, minimum=1, error=ConfigurationError)
        )
        if transport is not None:
            library_of(transport)
        self.known_videos: KnownVideos = KnownVideos()
        self.uploads: Uploads = Uploads()
        self._budget = _budget_options(budget, self.token, self.base_url, self._new_limiter, rate_limit)
        self._propagate_trace = arguments.boolean("propagate_trace", propagate_trace, error=ConfigurationError)
        self._custom_transport = transport
        self._pid = os.getpid()

    def with_options(self, *, timeout: float | None, max_retries: int | None, headers: Secret) -> Session:
        """Return a session with other options that shares everything else with this one.

        Args:
            timeout: As ``RequestOptions``; ``None``: as this session.
            max_retries: As ``RequestOptions``; ``None``: as this session.
            headers: A mapping of headers, or ``None``. They are added to those of this session.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        mine = self.options
        options = RequestOptions(
            mine.timeout if timeout is None else timeout,
            mine.max_retries if max_retries is None else max_retries,
            Secret(mine.headers.value | check_headers("headers", headers).value),
        )
        derived = object.__new__(Session)
        vars(derived).update(vars(self), options=_checked(options))
        return derived

    # -- opening and closing ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Enter the client's context in this event loop. From now on, idle connections are kept for reuse."""
        state = self._loop_state
        self._state.closed = state.closed = False
        state.contexts += 1
        state.transport.open()

    async def leave(self) -> None:
        """Leave the client's context in this event loop. Leaving the last one cancels all waiting calls there."""
        state = self._loop_state
        state.contexts -= 1
        if state.contexts <= 0:
            await self._close(state)

    async def aclose(self) -> None:
        """Close the client: cancel the waiting calls in all event loops, and close the connections of this one."""
        self._state.closed = True
        own = self._loop_state
        for state in [alive for reference in self._state.loop_states if (alive := reference())]:
            if state is not own:
                state.close_soon()
        await self._close(own)

    async def _close(self, state: LoopState) -> None:
        state.contexts = 0
        state.close()
        others = any(
            (other := reference()) and other is not state and other.contexts
            for reference in list(self._state.loop_states)
        )
        with anyio.CancelScope(shield=True):
            await state.dispatcher.aclose()
            await state.transport.aclose(shared=others)

    @contextmanager
    def in_use(self) -> Iterator[LoopState]:
        """Return a context manager whose block is cancelled when the client is closed.

        Raises:
            ClientClosedError: The client is closed, or was closed during the block.
            ConfigurationError: ``transport=`` belongs to another process.
        """
        state = self._loop_state
        if self._state.closed or state.closed:
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

    def now(self) -> float:
        """Return the client's time in seconds, the same in all its event loops."""
        return self._loop_state.dispatcher.now()

    def throttled_for(self) -> float:
        """Return the seconds since the first 429 after the client's last success; 0.0 if there was none."""
        return self._loop_state.dispatcher.throttled_for()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def call(self, request: ApiRequest[T]) -> T:
        """Send a request, with retries.

        Raises:
            A2VError: As ``send``, or the error of the last retry.
        """
        with telemetry.call_span(request):
            return await self.retry(request.name, partial(self.send, request))

    async def get_video(self, video_id: str) -> Video:
        """Request a snapshot of a video. Subscriptions to the video receive it too.

        Raises:
            A2VError: As ``call``.
        """
        try:
            video = await self.call(wire.video_get(video_id))
        except A2VError as error:
            error.video_id = video_id
            raise
        self._loop_state.dispatcher.observe(video)
        return video

    async def generate(self, job: Job) -> str:
        """Submit a job. It is retried only while it provably was not accepted.

        If the job has a text, it is synthesized first.

        Returns:
            The id of its video.

        Raises:
            A2VError: As ``submit`` or ``synthesize``, or the error of the last retry.
        """
        speech = await self.synthesize(wire.job_speech(job)) if job.text else None
        try:
            return await self._generate(job, speech.url if speech else None)
        except A2VError as error:
            error.speech = speech
            raise

    async def _generate(self, job: Job, speech_url: str | None) -> str:
        request = wire.video_generate(job, speech_url)
        with telemetry.call_span(request) as span:
            video_id = await self.retry(request.name, lambda: self.submit(job, SubmissionAttempt(), speech_url))
            span.set_attributes({"a2v.video_id": video_id})
            return video_id

    async def synthesize(self, request: ApiRequest[Speech]) -> Speech:
        """Synthesize a text. It is retried only while the text provably was not synthesized.

        Args:
            request: The ``voice.generate`` request.

        Raises:
            A2VError: As ``request_speech``, or the error of the last retry.
        """
        with telemetry.call_span(request):
            return await self.retry(
                request.name, lambda: self.request_speech(request, SubmissionAttempt(makes_video=False))
            )

    async def request_speech(self, request: ApiRequest[Speech], attempt: SubmissionAttempt) -> Speech | Retry:
        """Make one attempt to synthesize a text.

        Args:
            request: The ``voice.generate`` request.
            attempt: The record of this attempt.

        Returns:
            The speech, or ``Retry`` if the server provably has not synthesized the text.

        Raises:
            SubmissionUnknownError: The server may or may not have synthesized the text.
            A2VError: The server rejected the text, or the request could not be sent.
        """
        try:
            return await self.send(request, attempt)
        except BaseException as error:
            if state_after(error, sent=attempt.sent) is JobState.UNKNOWN:
                _add_warning(error, request.name, SPEECH_UNKNOWN)
            raise

    async def is_available(self, url: Secret) -> bool | Retry:
        """Check whether a URL can still be downloaded, such as a signed URL that may have expired.

        Requests one byte, without the token, and does not read the body.

        Returns:
            Whether the URL works, or ``Retry`` if that is unknown.
        """
        with self.in_use() as state:
            sink = _HeadOnly()
            answer = await state.transport.fetch(url, {"range": "bytes=0-0"}, self.options.timeout, sink)
        if isinstance(answer, NoResponse):
            # A local engine may have another port in each run, so the speech is gone.
            is_local = is_loopback(urlsplit(url.value).hostname or "")
            return (
                False
                if is_local
                else Retry(TransportError(f"the speech cannot be requested from its storage host: {answer.reason}"))
            )
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            return Retry(ServerError("the storage host of the speech failed", status_code=answer.status_code))
        return 200 <= answer.status_code < 300

    async def submit(self, job: Job, attempt: SubmissionAttempt, speech_url: str | None = None) -> str | Retry:
        """Make one attempt to submit a job.

        Args:
            job: The job.
            attempt: The record of this attempt.
            speech_url: The URL of the speech made from the job's text, if the job has a text.

        Returns:
            The id of its video, or ``Retry`` if the server provably has not accepted the job.

        Raises:
            SubmissionUnknownError: The server may or may not have accepted the job.
            A2VError: The server rejected the job, or the request could not be sent.
        """
        if failed := await self.upload(job.audio_url or ""):
            return failed
        try:
            outcome = await self.send(wire.video_generate(job, speech_url), attempt)
        except BaseException as error:
            if state_after(error, sent=attempt.sent) is JobState.UNKNOWN:
                telemetry.count_submission("unknown")
                self.known_videos.mark_unknown(attempt)
                _add_warning(error, "video.generate", OUTCOME_UNKNOWN)
            else:
                if isinstance(error, APIError | ProtocolError):
                    telemetry.count_submission("refused")
                self.known_videos.finish(attempt)
            if isinstance(error, NotFoundError) and self.uploads.forget(job.audio_url or ""):
                return Retry(error)
            raise
        if isinstance(outcome, Retry):
            self.known_videos.finish(attempt)
        else:
            telemetry.count_submission("accepted")
            self.known_videos.finish(attempt, outcome)
            request_id = f", request {attempt.request_id}" if attempt.request_id else ""
            telemetry.logger.info("video %s: submitted for %s%s", outcome, job.model_id or job.pose_id, request_id)
        return outcome

    async def upload(self, audio_url: str) -> Retry | None:
        """Upload the recording of a job, if it is a local file that the server does not have.

        Returns:
            ``Retry`` if the upload failed and may be retried.

        Raises:
            A2VError: The recording cannot be uploaded.
        """
        with self.in_use() as state:
            return await self.uploads.send(self, state, audio_url)

    async def send(self, request: ApiRequest[T], attempt: SubmissionAttempt | None = None) -> T | Retry:
        """Make one attempt to send a request, as soon as the rate limit allows it.

        Args:
            request: The request.
            attempt: The record of the submission, if it is one.

        Returns:
            The value of the response, or ``Retry`` if the request may be sent again.

        Raises:
            A2VError: The outcome is final.
        """
        with self.in_use() as state:
            return await state.dispatcher.send(request, self.options, attempt)

    async def retry(self, name: str, attempt: Callable[[], Awaitable[T | Retry]]) -> T:
        """Call ``attempt`` until it returns something other than ``Retry``, with at most ``max_retries`` retries.

        Attempts rejected with 429 do not count, because other processes can cause any number of them. They end when no request of
        the client has succeeded for ten minutes, or after a day. With ``max_retries=0``, the first one is final.

        Args:
            name: The request's name, for the log.
            attempt: Sends the request once.

        Raises:
            A2VError: The error of the last retry, or as ``attempt``.
        """
        tries, throttled_at = 0, None
        while isinstance(outcome := await attempt(), Retry):
            throttled = isinstance(outcome.error, RateLimitError)
            if throttled and self.options.max_retries:
                throttled_at = self.now() if throttled_at is None else throttled_at
                is_last = self.throttled_for() >= MAX_OUTAGE or self.now() - throttled_at >= _MAX_THROTTLED
            else:
                is_last = tries == self.options.max_retries
            if is_last:
                raise outcome.error
            # Do not log the error's text: it may quote the server, which may quote secrets.
            request_id = f" (request {outcome.error.request_id})" if outcome.error.request_id else ""
            telemetry.logger.info("%s: %s%s, trying again", name, type(outcome.error).__name__, request_id)
            if not throttled:  # the rate limiter waits long enough after a 429
                await self.pause(tries)
                tries += 1
        return outcome

    async def pause(self, tries: int, at_least: float = 0.0) -> None:
        """Wait before a retry.

        Args:
            tries: The number of retries so far.
            at_least: The minimum in seconds that the server requested; 0.0 by default.
        """
        jitter = random.random()  # noqa: S311  # not for cryptography
        with self.in_use():
            await anyio.sleep(max(backoff(tries, jitter), at_least and at_least + jitter))

    # -- per event loop -----------------------------------------------------------------------------------------------

    @property
    def _is_foreign(self) -> bool:
        return self._custom_transport is not None and self._pid != os.getpid()

    @property
    def _loop_state(self) -> LoopState:
        states = _loop_states.get(None)
        if states is None:
            states = WeakKeyDictionary[ClientState, LoopState]()
            _loop_states.set(states)
        if self._state not in states:
            states[self._state] = self._new_loop_state()
        return states[self._state]

    def _new_loop_state(self) -> LoopState:
        # After a fork, the lock may be held by a thread that exists only in the parent process.
        if self._state.limiter.pid != os.getpid():
            self._state.limiter = SharedRateLimiter(self._new_limiter())
        # A custom transport that was made before a fork belongs to the parent process.
        transport = Transport(None if self._is_foreign else self._custom_transport)
        # The new state must not refer to `self._state`, its key in a WeakKeyDictionary, or neither would ever be freed.
        connection = Connection(
            transport, self.base_url, self.token, self._state.options, self.known_videos, self._propagate_trace
        )
        if self._budget:
            from a2v._async.requests.shared_dispatcher import SharedDispatcher  # noqa: PLC0415  # few clients need it

            dispatcher: RequestDispatcher = SharedDispatcher(connection, self._budget)
        else:
            dispatcher = RequestDispatcher(connection, LoopRateLimiter(self._state.limiter))
        state = LoopState(transport, dispatcher)
        self._state.loop_states.append(ref(state, self._state.loop_states.remove))
        return state


class _HeadOnly:
    """A ``ResponseSink`` that does not read the body."""

    async def start(self, response: Response) -> bool:
        del response
        return False

    async def write(self, chunk: bytes) -> None:
        raise AssertionError(chunk)  # pragma: no cover  # `start` asks for no body


def _checked(options: RequestOptions) -> RequestOptions:
    """Check the numbers in a caller's options."""
    arguments.seconds("timeout", options.timeout, error=ConfigurationError)
    arguments.integer("max_retries", options.max_retries, minimum=0, error=ConfigurationError)
    return options


def _add_warning(error: BaseException, name: str, note: str) -> None:
    """Add a note to an error, and log it: the request may cost money. ``SubmissionUnknownError`` already says so."""
    if not isinstance(error, SubmissionUnknownError):
        error.add_note(note)
        telemetry.logger.warning("%s: %s: %s", name, type(error).__name__, note)


def _new_limiter(
    rate_limit: int | str | None, timeout: float, jitter: Callable[[], float] = random.random
) -> RateLimiter:
    abandon_after = timeout + _ABANDON_MARGIN
    if rate_limit is None:
        return RateLimiter(None, abandon_after=abandon_after, jitter=jitter)
    if rate_limit == "auto":
        return RateLimiter(abandon_after=abandon_after, jitter=jitter)
    limit = arguments.integer("rate_limit", rate_limit, minimum=1, error=ConfigurationError)
    return RateLimiter(limit, ceiling=limit, abandon_after=abandon_after, jitter=jitter)


def _budget_options(
    budget: Secret,
    token: Secret,
    base_url: str,
    new_limiter: Callable[..., RateLimiter],
    rate_limit: int | str | None,
) -> BudgetOptions | None:
    default = Secret(os.environ.get("A2V_BUDGET"))
    if budget.value is None and not default.value:
        return None
    from a2v._async.requests.shared_account import BudgetOptions  # noqa: PLC0415  # few clients need it
    from a2v._budget.location import resolve_budget  # noqa: PLC0415
    from a2v._core.sealing import Sealer  # noqa: PLC0415

    sealer = Sealer(token, base_url)
    new_store = resolve_budget(budget, default)
    new_store(sealer.fingerprint)  # raises an error if the budget cannot be used
    return BudgetOptions(new_store, sealer, new_limiter, rate_limit if isinstance(rate_limit, int) else None)
