"""What can be watched from outside: a logger, and spans where the process uses OpenTelemetry.

Both may tell ids, calls, statuses and servers. Neither ever gets a token, or a URL that whoever has it can fetch.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from a2v._core.responses import NoResponse
from a2v._values.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry import trace

    from a2v._core.wire import ApiRequest, Response

Facts: TypeAlias = "Mapping[str, str | int]"

logger: logging.Logger = logging.getLogger("a2v.client")
"""Submissions, changes, downloads, waits for the budget, repeated requests: one line each, at the level INFO."""


class _OneLine(logging.Filter):
    """A server could forge lines of the log with line breaks in a ``video_id``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape what is put into the message."""
        if isinstance(record.args, tuple):
            record.args = tuple(escape(value) if isinstance(value, str) else value for value in record.args)
        return True


logger.addFilter(_OneLine())

_SCHEMA = "https://opentelemetry.io/schemas/1.27.0"


class Span:
    """A stretch of work that OpenTelemetry may be told of; where nobody uses that, it does nothing."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span | None = None) -> None:
        self._span = span

    def set_attributes(self, facts: Facts) -> None:
        """Tell more of it."""
        if self._span:
            self._span.set_attributes(facts)

    def add_event(self, name: str, facts: Facts) -> None:
        """Tell what has happened just now."""
        if self._span:
            self._span.add_event(name, facts)

    def set_error(self, kind: str) -> None:
        """Tell that it failed, and in which way. Not more: the text of an error may quote what is secret."""
        if self._span:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415  # it is there, and only then

            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", kind)

    def end(self) -> None:
        """It is over."""
        if self._span:
            self._span.end()

    def activate(self) -> AbstractContextManager[object]:
        """Within this, what begins is a part of it: also what is begun by tasks that are started within."""
        if not self._span:
            return nullcontext()
        from opentelemetry.trace import use_span  # noqa: PLC0415  # as above

        return use_span(self._span, record_exception=False, set_status_on_exception=False)


NO_SPAN = Span()
_NOWHERE = nullcontext(NO_SPAN)


def start_span(name: str, facts: Facts) -> Span:
    """Begin something that ends elsewhere: whoever starts it calls ``end``.

    Args:
        name: What it is; the same for all of its kind.
        facts: What is known of it.
    """
    return Span(_tracer().start_span(name, attributes=facts)) if _is_used() else NO_SPAN


def span(name: str, facts: Facts) -> AbstractContextManager[Span]:
    """Around something that is done in one go; what begins within is a part of it.

    Args:
        name: What it is; the same for all of its kind.
        facts: What is known of it.
    """
    return _within(start_span(name, facts)) if _is_used() else _NOWHERE


def call_span(call: ApiRequest[Any]) -> AbstractContextManager[Span]:
    """Around a call of the API, with its wait for the budget and all its tries."""
    return span(f"a2v.{call.name}", _ids(call)) if _is_used() else _NOWHERE


def request_span(url: str, call: ApiRequest[Any] | None = None) -> AbstractContextManager[Span]:
    """Around one HTTP request, by the semantic conventions for clients.

    Args:
        url: Where to: the server of a call, or a file. A file's URL is told by its server alone, as the rest may be all
            that it takes to open it.
        call: Which call it is, if it is one of the API.
    """
    if not _is_used():
        return _NOWHERE
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  # it is there, and only then

    name, facts = _request_facts(url, call)
    return _within(Span(_tracer().start_span(name, kind=SpanKind.CLIENT, attributes=facts)))


def record_response(request: Span, answer: Response | NoResponse) -> None:
    """What came of a request."""
    if isinstance(answer, NoResponse):
        request.set_error("TransportError")
        return
    request.set_attributes({"http.response.status_code": answer.status_code})
    if answer.status_code >= 400:
        request.set_error(str(answer.status_code))


def _request_facts(url: str, call: ApiRequest[Any] | None) -> tuple[str, dict[str, str | int]]:
    method = call.method if call else "GET"
    facts: dict[str, str | int] = {"http.request.method": method}
    # What a server gives as a file's URL may be none. To say so is not the business of those who watch.
    with suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        facts |= {"server.address": parts.hostname or "", "server.port": port, "url.scheme": parts.scheme}
    if call is None:
        return method, facts
    where = {"url.full": url + call.path, "url.path": urlsplit(url).path + call.path, "url.template": call.path}
    return f"{method} {call.path}", facts | where | _ids(call)


def _ids(call: ApiRequest[Any]) -> dict[str, str | int]:
    """What a call is about. The recording's URL is not among it: it may be signed."""
    ids = {"model_id": call.job.model_id, "pose_id": call.job.pose_id} if call.job else call.params or {}
    return {f"a2v.{name}": value for name, value in ids.items() if value}


@contextmanager
def _within(started: Span) -> Iterator[Span]:
    try:
        with started.activate():
            yield started
    except Exception as error:
        # A cancellation is none: somebody has lost interest.
        started.set_error(type(error).__qualname__)
        raise
    finally:
        started.end()


def _is_used() -> bool:
    """Who collects spans has imported this. So nothing is imported for those who do not, and nothing looked for."""
    return "opentelemetry.trace" in sys.modules


@cache
def _tracer() -> trace.Tracer:
    from opentelemetry import trace  # noqa: PLC0415  # as above

    return trace.get_tracer("a2v", version("a2v"), schema_url=_SCHEMA)
