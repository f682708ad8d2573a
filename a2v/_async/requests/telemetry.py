"""Logging, and OpenTelemetry spans and metrics.

Spans and metrics are recorded only if the process has imported that part of OpenTelemetry; otherwise nothing of it is
imported or looked up. Only its API is used: the application chooses and configures the SDK.

Logs and spans contain ids, names of API methods, statuses and host names. They never contain tokens or the full URLs of files
and recordings, which may be pre-signed. Spans contain no error texts, which may quote either. Metrics contain no ids either,
because each combination of attribute values is a time series.

What is cancelled is not an error: its span ends without one, and no metric counts it, because it has no outcome. The one
exception is a submission that was sent, whose outcome is unknown.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import anyio

from a2v._core.responses import NoResponse, Retry
from a2v._core.settings import Secret, check_headers
from a2v._values.text import escape
from a2v._version import __version__
from a2v.errors import (
    A2VError,
    APIError,
    ProtocolError,
    RateLimitError,
    ServerError,
    SubmissionUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry import metrics, trace

    from a2v._core.rate_limiter import RequestKind
    from a2v._core.wire import ApiRequest, Response

Attributes: TypeAlias = "Mapping[str, str | int]"

logger: logging.Logger = logging.getLogger("a2v.client")
"""Logs submissions, status changes, downloads, rate-limit waits and retries: one line each, at level INFO."""


class _EscapeFilter(logging.Filter):
    """Escapes arguments of log messages: a server could forge log lines with line breaks in a ``video_id``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape string arguments."""
        if isinstance(record.args, tuple):
            record.args = tuple(escape(value) if isinstance(value, str) else value for value in record.args)
        return True


logger.addFilter(_EscapeFilter())

_SCHEMA = "https://opentelemetry.io/schemas/1.27.0"


class Span:
    """An OpenTelemetry span; without OpenTelemetry all methods do nothing."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span | None = None) -> None:
        self._span = span

    def set_attributes(self, attributes: Attributes) -> None:
        """Add attributes."""
        if self._span:
            self._span.set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        """Add an event that has happened now."""
        if self._span:
            self._span.add_event(name, attributes)

    def set_error(self, kind: str) -> None:
        """Mark the span as failed.

        Args:
            kind: The type of the error. Its text is not recorded, because it may quote a secret.
        """
        if self._span:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415  # optional, and imported already

            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", kind)

    def end(self) -> None:
        """End the span."""
        if self._span:
            self._span.end()

    def activate(self) -> AbstractContextManager[object]:
        """Make this the parent of spans started within the context, also by tasks started there."""
        if not self._span:
            return nullcontext()
        from opentelemetry.trace import use_span  # noqa: PLC0415  # optional, and imported already

        return use_span(self._span, record_exception=False, set_status_on_exception=False)


NO_SPAN = Span()
_NO_CONTEXT = nullcontext(NO_SPAN)


# -- spans ------------------------------------------------------------------------------------------------------------


def start_span(name: str, attributes: Attributes) -> Span:
    """Start a span that the caller ends.

    Args:
        name: The operation; the same for all spans of a kind.
        attributes: Its attributes.
    """
    return Span(_tracer().start_span(name, attributes=attributes)) if _has_traces() else NO_SPAN


def span(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """Return a context manager that starts a span, makes it the current one, and ends it.

    Args:
        name: The operation; the same for all spans of a kind.
        attributes: Its attributes.
    """
    return _active(start_span(name, attributes)) if _has_traces() else _NO_CONTEXT


def call_span(call: ApiRequest[Any]) -> AbstractContextManager[Span]:
    """Return a span for an API method, including its rate-limit waits and all its attempts."""
    return span(f"a2v.{call.name}", _ids(call)) if _has_traces() else _NO_CONTEXT


def trace_headers() -> Secret:
    """Return the headers that make the current span the parent of the server's, such as ``traceparent``: a secret dictionary.

    Raises:
        ConfigurationError: A propagator of the application sets an invalid header, or one that the client sets.
    """
    if not _has_traces():
        return Secret({})
    from opentelemetry import propagate  # noqa: PLC0415  # optional, and its package is imported already

    headers = Secret({})
    propagate.inject(headers.value)
    return check_headers("propagate_trace: the trace context", headers)


# -- requests ---------------------------------------------------------------------------------------------------------


class ObservedRequest:
    """The span of one HTTP request, and the attributes that its duration is recorded with."""

    __slots__ = ("_span", "result")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.result: dict[str, str | int] = {}

    def record(self, outcome: Response | NoResponse) -> None:
        """Add the outcome of the request."""
        if isinstance(outcome, NoResponse):
            self.set_error("TransportError")
            return
        status = {"http.response.status_code": outcome.status_code}
        self.result |= status
        self._span.set_attributes(status)
        if outcome.request_id:
            self._span.set_attributes({"a2v.request_id": outcome.request_id})
        if outcome.status_code >= 400:
            self.set_error(str(outcome.status_code))

    def set_error(self, kind: str) -> None:
        """Record that the request has failed."""
        self.result["error.type"] = kind
        self._span.set_error(kind)


def observe_request(url: str, call: ApiRequest[Any] | None = None) -> AbstractContextManager[ObservedRequest]:
    """Return a context manager around one HTTP request: records it by the semantic conventions for HTTP clients.

    Args:
        url: The server's base URL, or the URL of a file. Of the latter only scheme, host and port are recorded, because it may
            be pre-signed.
        call: The API request; ``None`` for a file.
    """
    return _observe(url, call) if _has_traces() or has_metrics() else nullcontext(ObservedRequest(NO_SPAN))


@contextmanager
def _observe(url: str, call: ApiRequest[Any] | None) -> Iterator[ObservedRequest]:
    started = anyio.current_time()
    attributes = _server_attributes(url, call)
    with _active(_start_request_span(url, call, attributes)) as span:
        request = ObservedRequest(span)
        try:
            yield request
        except Exception as error:
            request.set_error(type(error).__qualname__)
            raise
        finally:
            if request.result and has_metrics():
                attributes.pop("url.scheme", None)
                # Within the span, so that the SDK can link the two.
                _instruments().request_duration.record(anyio.current_time() - started, attributes | request.result)


def _start_request_span(url: str, call: ApiRequest[Any] | None, attributes: Attributes) -> Span:
    if not _has_traces():
        return NO_SPAN
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  # optional, and imported already

    name = str(attributes["http.request.method"])
    if call:
        name = f"{name} {call.path}"
        attributes = {
            **attributes,
            "url.full": url + call.path,
            "url.path": urlsplit(url).path + call.path,
            **_ids(call),
        }
    return Span(_tracer().start_span(name, kind=SpanKind.CLIENT, attributes=attributes))


def _server_attributes(url: str, call: ApiRequest[Any] | None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"http.request.method": call.method if call else "GET"}
    if call:
        attributes["url.template"] = call.path
    # A server may name an invalid URL for a file; the download reports that.
    with suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        attributes |= {"server.address": parts.hostname or "", "server.port": port, "url.scheme": parts.scheme}
    return attributes


def _ids(call: ApiRequest[Any]) -> dict[str, str | int]:
    """Return the ids in a request. The recording's URL is left out, because it may be signed."""
    ids = {"model_id": call.job.model_id, "pose_id": call.job.pose_id} if call.job else call.params or {}
    return {f"a2v.{name}": value for name, value in ids.items() if value}


@contextmanager
def _active(started: Span) -> Iterator[Span]:
    try:
        with started.activate():
            yield started
    except Exception as error:
        # Cancellation is not an error.
        started.set_error(type(error).__qualname__)
        raise
    finally:
        started.end()


def _has_traces() -> bool:
    """Whether the process uses OpenTelemetry for traces. Whatever exports spans has imported this module."""
    return "opentelemetry.trace" in sys.modules


@cache
def _tracer() -> trace.Tracer:
    from opentelemetry import trace  # noqa: PLC0415  # optional, and imported already

    return trace.get_tracer("a2v", __version__, schema_url=_SCHEMA)


# -- metrics ----------------------------------------------------------------------------------------------------------

# The boundaries that the semantic conventions advise for durations of requests.
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# A wait lasts no time at all, until the next slot of a minute, or for several minutes in a long queue.
_WAIT_SECONDS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_FILE_BYTES = tuple(2**16 * 4**exponent for exponent in range(9))  # 64 KiB to 4 GiB

# The first that fits counts. Other errors, such as one of the journal, mean that the request was not sent.
_OUTCOMES: tuple[tuple[type[A2VError], str], ...] = (
    (SubmissionUnknownError, "unknown"),
    (RateLimitError, "rate_limited"),
    (ServerError, "server_error"),
    (ProtocolError, "server_error"),
    (TransportError, "no_response"),
    (APIError, "refused"),
)


class _Instruments:
    """The instruments, created once: OpenTelemetry warns of duplicates."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.request_duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_SECONDS,
        )
        self.requests = meter.create_counter("a2v.requests", "{request}", "API requests by their outcome.")
        self.rate_limit_wait = meter.create_histogram(
            "a2v.rate_limit.wait",
            "s",
            "Time that requests waited for the rate limit.",
            explicit_bucket_boundaries_advisory=_WAIT_SECONDS,
        )
        self.submissions = meter.create_counter("a2v.submissions", "{submission}", "Submitted jobs by their outcome.")
        self.videos = meter.create_counter("a2v.videos", "{video}", "Videos that have ended, by their outcome.")
        self.downloads = meter.create_counter("a2v.downloads", "{download}", "Downloads by their outcome.")
        self.download_size = meter.create_histogram(
            "a2v.download.size", "By", "Size of downloaded files.", explicit_bucket_boundaries_advisory=_FILE_BYTES
        )


def has_metrics() -> bool:
    """Whether the process uses OpenTelemetry for metrics. Whatever exports metrics has imported this module."""
    return "opentelemetry.metrics" in sys.modules


def count_request(call: ApiRequest[Any], outcome: object) -> None:
    """Count an API request.

    Args:
        call: The request.
        outcome: The value of the response, ``Retry``, or an error.
    """
    if has_metrics():
        error = outcome.error if isinstance(outcome, Retry) else outcome
        kind = (
            next((name for each, name in _OUTCOMES if isinstance(error, each)), None)
            if isinstance(error, A2VError)
            else "ok"
        )
        if kind:
            _instruments().requests.add(1, {"a2v.call": call.name, "a2v.outcome": kind})


def rate_limit_wait(kind: RequestKind) -> AbstractContextManager[object]:
    """Return a context manager around a request's wait for the rate limit that records how long it takes."""
    return _timed_wait(kind) if has_metrics() else _NO_CONTEXT


@contextmanager
def _timed_wait(kind: RequestKind) -> Iterator[None]:
    started = anyio.current_time()
    yield
    _instruments().rate_limit_wait.record(anyio.current_time() - started, {"a2v.kind": kind.value})


def count_submission(outcome: Literal["accepted", "refused", "unknown"]) -> None:
    """Count a job that the server has accepted or refused for good, or may have accepted."""
    if has_metrics():
        _instruments().submissions.add(1, {"a2v.outcome": outcome})


def count_video(outcome: Literal["finished", "failed"]) -> None:
    """Count a video that has ended. Call it once for each video, and only if ``has_metrics``."""
    _instruments().videos.add(1, {"a2v.outcome": outcome})


def count_download(size: int | None) -> None:
    """Count a download.

    Args:
        size: The size of the file in bytes; ``None`` if the download has failed.
    """
    if has_metrics():
        _instruments().downloads.add(1, {"a2v.outcome": "failed" if size is None else "finished"})
        if size is not None:
            _instruments().download_size.record(size)


@cache
def _instruments() -> _Instruments:
    from opentelemetry import metrics  # noqa: PLC0415  # optional, and imported already

    return _Instruments(metrics.get_meter("a2v", __version__, schema_url=_SCHEMA))
