"""The log of ``a2v serve`` on stderr: readable lines, or one JSON object per line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from a2v.cli.terminal import clean

_MAX_KINDS = 100


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


def log_to_stderr(*, as_json: bool = False) -> None:
    """Log the engine's messages to stderr: one line per status change and failure.

    Args:
        as_json: Log JSON, and also each request.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if as_json else _CleanFormatter("%(asctime)s %(levelname)s %(message)s"))
    # Dask adds handlers to its loggers when it is imported.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "distributed"
    logging.getLogger("asyncio").addFilter(_OncePerMinute())
    levels = {"a2v": logging.INFO} | dict.fromkeys(("asyncio", "distributed", "uvicorn"), logging.WARNING)
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
    if not as_json:
        logging.getLogger("a2v.engine.access").setLevel(logging.WARNING)
