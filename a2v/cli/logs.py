"""The log on stderr: readable lines, or for ``a2v serve`` also one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from a2v.cli.terminal import clean

_MAX_KINDS = 100
_DEBUG = 2


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the present ``sys.stderr``: a live display replaces it for as long as it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Line by line, so that a traceback keeps its lines.
        return "\n".join(clean(line) for line in super().format(record).splitlines())


class _JsonFormatter(logging.Formatter):
    """One JSON object per record, with the extra attributes that the engine sets."""

    _EXTRA = ("video_id", "method", "path", "status", "seconds")

    def format(self, record: logging.LogRecord) -> str:
        time = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        line = {"time": time, "level": record.levelname, "message": record.getMessage()}
        line |= {name: getattr(record, name) for name in self._EXTRA if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _OncePerMinute(logging.Filter):
    """Pass each kind of message at most once a minute.

    asyncio logs a failing ``accept()`` each time the system reports the socket as readable, thousands of times a second.
    """

    _SECONDS = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg).partition("\n")[0][:100]
        is_due = record.created >= self._next.get(kind, 0.0)
        if is_due:
            if len(self._next) > _MAX_KINDS:  # bounds the memory
                self._next.clear()
            self._next[kind] = record.created + self._SECONDS
        return is_due


def log_command(verbose: int) -> None:
    """Log what a command does to stderr.

    Args:
        verbose: 1: level INFO; 2 or more: level DEBUG, each request to a local engine, and the events of the HTTP library.
            0: the level of ``A2V_LOG``; if that is not set, only outages of the server.
    """
    level = _level(verbose) or logging.getLogger("a2v").level
    if level:
        formatter = _CleanFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        _set_up({"a2v": level}, formatter, verbose)
        if level > logging.DEBUG:
            logging.getLogger("a2v.engine.access").setLevel(logging.WARNING)
    else:
        _set_up({"a2v.client.outage": logging.INFO}, _CleanFormatter("a2v: %(message)s"), verbose)


def log_to_stderr(*, as_json: bool = False, verbose: int = 0) -> None:
    """Log the engine's messages to stderr: one line per status change and failure.

    Args:
        as_json: Log JSON, and also each request.
        verbose: 1 or more: log each request; 2 or more: also level DEBUG, and the events of the HTTP library.
    """
    # Dask adds handlers to its loggers when it is imported.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "distributed"
    logging.getLogger("asyncio").addFilter(_OncePerMinute())
    levels = dict.fromkeys(("asyncio", "distributed", "uvicorn"), logging.WARNING)
    formatter = _JsonFormatter() if as_json else _CleanFormatter("%(asctime)s %(levelname)s %(message)s")
    _set_up({"a2v": _level(max(verbose, 1))} | levels, formatter, verbose)
    if not as_json and not verbose:
        logging.getLogger("a2v.engine.access").setLevel(logging.WARNING)


def _level(verbose: int) -> int:
    return logging.DEBUG if verbose >= _DEBUG else logging.INFO if verbose else logging.NOTSET


def _set_up(levels: dict[str, int], formatter: logging.Formatter, verbose: int) -> None:
    handler = _StderrHandler()
    handler.setFormatter(formatter)
    if verbose >= _DEBUG:
        levels = levels | {"httpcore": logging.DEBUG}
        logging.getLogger("httpcore.http11").addFilter(_cut_response)
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        # Replaces the handler of A2V_LOG, which would print each line a second time.
        logger.handlers = [handler]


def _cut_response(record: logging.LogRecord) -> bool:
    """Keep the event's name only of records about a response, which may hold signed URLs.

    The client's own filter does so for the client's requests; a local engine fetches recordings, too.
    """
    if str(record.msg).startswith("receive_response"):
        record.msg = str(record.msg).partition(" ")[0]
    return True
