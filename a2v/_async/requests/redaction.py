"""Keeps secrets out of logs and tracebacks while a request is in progress.

A request contains the token, and URLs and responses may contain signatures. Two things would show them:

* httpcore and httpcore2 log the head of each response at DEBUG level, and error texts that quote it. ``RedactingFilter`` cuts these
  records down to the name of the event, but only for a2v's own requests: the application may use these libraries too.
* Error reports such as those of Sentry or ``rich`` show the local variables of every frame in a traceback. Those of the HTTP
  libraries and of a2v's own request code hold the request. ``RedactErrors`` removes these frames.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

# Whether the current context sends a request of a2v.
_is_own_request: ContextVar[bool] = ContextVar("a2v_request", default=False)

# The packages whose frames may hold a request in a local variable.
_REDACTED_PACKAGES = {
    "a2v",
    "httpx",
    "httpcore",
    "httpx2",
    "httpcore2",
    "h11",
    "h2",
    "socksio",
    "anyio",
    "asyncio",
    "trio",
    "ssl",
    "_ssl",
}
_LOGGERS = ("httpcore.http11", "httpcore.http2", "httpcore2.http11", "httpcore2.http2")


class RedactingFilter(logging.Filter):
    """Removes the contents of responses from log records of httpcore and httpcore2."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, but reduce records about responses to the name of the event."""
        if _is_own_request.get() and isinstance(record.msg, str) and record.msg.startswith("receive_response"):
            record.msg = record.msg.partition(" ")[0]
        return True


@cache
def install_redacting_filter() -> None:
    """Add the filter to the loggers of httpcore and httpcore2, once."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(RedactingFilter())


class RedactErrors:
    """Context manager around a request: redacts log records, and the traceback of an exception that leaves the block.

    It is a class because ``@contextmanager`` would restore the original traceback.
    """

    def __enter__(self) -> None:
        self._token = _is_own_request.set(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _is_own_request.reset(self._token)
        if isinstance(error, Exception):
            _redact(error)
        elif error:
            error.__traceback__ = None


def _redact(error: BaseException) -> None:
    """Remove frames that may hold a request from an error and from all errors in its chain."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        linked = pending.pop()
        if linked is None or id(linked) in seen:
            continue
        seen.add(id(linked))
        linked.__traceback__ = _without_redacted_frames(linked.__traceback__)
        pending += [linked.__cause__, linked.__context__, *getattr(linked, "exceptions", ())]


def _without_redacted_frames(traceback: TracebackType | None) -> TracebackType | None:
    frames: list[TracebackType] = []
    while traceback:
        frames.append(traceback)
        traceback = traceback.tb_next
    kept: TracebackType | None = None
    for entry in reversed(frames):
        if entry.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _REDACTED_PACKAGES:
            kept = type(entry)(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept
