"""Logging and OpenTelemetry spans.

Spans are created only if the process has imported OpenTelemetry; otherwise nothing of it is imported or looked up.

Logs and spans contain ids, names of API methods, statuses and host names. They never contain tokens or the full URLs of files
and recordings, which may be pre-signed. Spans contain no error texts, which may quote either.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from a2v._core.responses import NoResponse
from a2v._values.text import escape
from a2v._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry import trace

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


def start_span(name: str, attributes: Attributes) -> Span:
    """Start a span that the caller ends.

    Args:
        name: The operation; the same for all spans of a kind.
        attributes: Its attributes.
    """
    return Span(_tracer().start_span(name, attributes=attributes)) if _is_used() else NO_SPAN


def span(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """Return a context manager that starts a span, makes it the current one, and ends it.

    Args:
        name: The operation; the same for all spans of a kind.
        attributes: Its attributes.
    """
    return _active(start_span(name, attributes)) if _is_used() else _NO_CONTEXT


def call_span(call: ApiRequest[Any]) -> AbstractContextManager[Span]:
    """Return a span for an API method, including its rate-limit waits and all its attempts."""
    return span(f"a2v.{call.name}", _ids(call)) if _is_used() else _NO_CONTEXT


def request_span(url: str, call: ApiRequest[Any] | None = None) -> AbstractContextManager[Span]:
    """Return a span for one HTTP request, by the semantic conventions for HTTP clients.

    Args:
        url: The server's base URL, or the URL of a file. Of the latter only scheme, host and port are recorded, because it may
            be pre-signed.
        call: The API request; ``None`` for a file.
    """
    if not _is_used():
        return _NO_CONTEXT
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  # optional, and imported already

    name, attributes = _request_attributes(url, call)
    return _active(Span(_tracer().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)))


def record_response(span: Span, outcome: Response | NoResponse) -> None:
    """Add the outcome of a request to its span."""
    if isinstance(outcome, NoResponse):
        span.set_error("TransportError")
        return
    span.set_attributes({"http.response.status_code": outcome.status_code})
    if outcome.request_id:
        span.set_attributes({"a2v.request_id": outcome.request_id})
    if outcome.status_code >= 400:
        span.set_error(str(outcome.status_code))


def _request_attributes(url: str, call: ApiRequest[Any] | None) -> tuple[str, dict[str, str | int]]:
    method = call.method if call else "GET"
    attributes: dict[str, str | int] = {"http.request.method": method}
    # A server may name an invalid URL for a file; the download reports that.
    with suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        attributes |= {"server.address": parts.hostname or "", "server.port": port, "url.scheme": parts.scheme}
    if call is None:
        return method, attributes
    where = {"url.full": url + call.path, "url.path": urlsplit(url).path + call.path, "url.template": call.path}
    return f"{method} {call.path}", attributes | where | _ids(call)


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


def _is_used() -> bool:
    """Whether the process uses OpenTelemetry. Whatever exports spans has imported this module."""
    return "opentelemetry.trace" in sys.modules


@cache
def _tracer() -> trace.Tracer:
    from opentelemetry import trace  # noqa: PLC0415  # optional, and imported already

    return trace.get_tracer("a2v", __version__, schema_url=_SCHEMA)
