"""How anything is printed: harmlessly, and on a terminal above something that moves.

Results go to stdout, what went wrong goes to stderr. Nothing from a server reaches either as it came: see ``clean``.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from a2v._values.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

_LONGEST = 2000


def clean(text: object) -> str:
    r"""Make text from elsewhere harmless for a terminal: what is invisible or steers it is shown as ``\x1b`` and the like.

    Args:
        text: Anything; its ``str``.

    Returns:
        One line of visible text, of at most some 2,000 characters.
    """
    shown = str(text)
    if len(shown) > _LONGEST:
        shown = shown[:_LONGEST] + "…"
    return escape(shown)


def say(*lines: object) -> None:
    """Print to stderr, if anybody can still read it: a terminal that was closed is no reason to leave work undone."""
    for line in lines:
        try:
            print(clean(line), file=sys.stderr, flush=True)
        except BrokenPipeError:
            raise
        except OSError:
            return


def number(how_many: int, noun: str) -> str:
    """So many of something, for people: ``1 job``, ``2 jobs``."""
    return f"{how_many} {noun}" if how_many == 1 else f"{how_many} {noun}s"


def print_fields(*fields: str) -> None:
    """A line of tab-separated fields."""
    print("\t".join(map(clean, fields)).rstrip("\t"), flush=True)


def print_json(value: object) -> None:
    """A line of JSON."""
    # ASCII only, so that it is harmless on a terminal, too.
    print(json.dumps(value), flush=True)


class Printer:
    """Lines for pipes and logs.

    Args:
        note: What a terminal shows until there is something to show.
    """

    def __init__(self, note: str = "") -> None:
        self._notes = [note]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to put back."""

    @property
    def note(self) -> str:
        """What is being done while there is nothing else to show."""
        return self._notes[-1]

    @contextmanager
    def noting(self, note: str) -> Iterator[None]:
        """While there is nothing else to show, a terminal shows this."""
        self._notes.append(note)
        try:
            yield
        finally:
            self._notes.remove(note)

    def remark(self, *lines: str) -> None:
        """Print something for people."""
        print(*map(clean, lines), sep="\n", flush=True)


class JsonPrinter(Printer):
    """JSON Lines, for machines."""

    def remark(self, *lines: str) -> None:
        """Nothing: machines do not care."""


class TerminalPrinter(Printer):
    """What is under way moves at the bottom; what has ended stands above it.

    Whoever is one of these is set up before this is: what moves is asked for at once.

    Args:
        console: The terminal.
        note: What it shows until there is something to show.
        per_second: How often what moves is drawn.
    """

    def __init__(self, console: Console, note: str, per_second: int) -> None:
        super().__init__(note)
        self._console = console
        self._live = Live(console=console, get_renderable=self.moving, transient=True, refresh_per_second=per_second)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def moving(self) -> RenderableType:
        """What is to be seen at the bottom just now."""
        return Text(clean(self.note), "dim")

    def remark(self, *lines: str) -> None:
        """Print something for people."""
        for line in lines:
            self.write(Text(clean(line)))

    def write(self, text: Text) -> None:
        """Print a line above what moves."""
        # Wrapped by the terminal, not by us: a path or a URL must be whole when it is copied.
        self._console.print(text, soft_wrap=True)


def open_terminal() -> Console | None:
    """Where stdout goes, if that is a terminal on which things can move."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def print_table(console: Console, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table for people, with everything in it in full."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for fields in rows:
        table.add_row(*(Text(clean(text), overflow="fold") for text in fields))
    console.print(table)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A traceback keeps its lines.
        return "\n".join(clean(line) for line in super().format(record).splitlines())


class _JsonFormatter(logging.Formatter):
    """A line of JSON for each record, with the facts that the engine tells beside its words."""

    _FACTS = ("video_id", "method", "path", "status", "seconds")

    def format(self, record: logging.LogRecord) -> str:
        when = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        line = {"time": when, "level": record.levelname, "message": record.getMessage()}
        line |= {name: getattr(record, name) for name in self._FACTS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _OncePerMinute(logging.Filter):
    """Passes a message of the event loop once a minute: it may repeat one as often as the system calls it."""

    _SECONDS = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg).partition("\n")[0][:100]
        is_due = record.created >= self._next.get(kind, 0.0)
        if is_due:
            if len(self._next) > 100:  # so many kinds there are not
                self._next.clear()
            self._next[kind] = record.created + self._SECONDS
        return is_due


def log_to_stderr(*, as_json: bool = False) -> None:
    """Show what the engine has to tell: a line for each change of a video and each failure.

    Args:
        as_json: As JSON for machines, and then also a line for each request.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if as_json else _CleanFormatter("%(asctime)s %(levelname)s %(message)s"))
    # Dask gives its loggers handlers of their own when it is imported.
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
