"""Text for terminals: escaping, counts and durations, and messages on stderr.

Results go to stdout, errors and warnings to stderr. Text from a server or a file goes through ``clean`` first.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Literal

from a2v._values.text import escape

_MAX_LENGTH = 2000
_MIN_WIDTH = 20
_PREFIX = "a2v:"
_COLOURS = {"red": "\x1b[31m", "yellow": "\x1b[33m"}


def clean(text: object) -> str:
    r"""Escape text for a terminal: invisible and control characters become ``\x1b`` and the like.

    Args:
        text: Any value; its ``str`` is used.

    Returns:
        One line of visible text, of about 2,000 characters at most.
    """
    shown = str(text)
    if len(shown) > _MAX_LENGTH:
        shown = shown[:_MAX_LENGTH] + "…"
    return escape(shown)


def eprint(*lines: object, colour: Literal["red", "yellow"] | None = None) -> None:
    """Print lines to stderr. A closed terminal is ignored, so that the command can still finish its work.

    Args:
        lines: The lines.
        colour: The colour of the ``a2v:`` before the first one, on terminals that have colours.

    Raises:
        BrokenPipeError: The reader of stderr has gone.
    """
    for number, line in enumerate(lines):
        text = _wrapped(clean(line))
        if colour and not number and text.startswith(_PREFIX) and _has_colours():
            text = f"{_COLOURS[colour]}{_PREFIX}\x1b[0m{text.removeprefix(_PREFIX)}"
        try:
            print(text, file=sys.stderr, flush=True)
        except BrokenPipeError:
            raise
        except OSError:
            return


def _has_colours() -> bool:
    # Older consoles of Windows show escape sequences as text.
    understands = sys.platform != "win32" or "WT_SESSION" in os.environ
    return sys.stderr.isatty() and understands and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _wrapped(line: str) -> str:
    """Wrap a line between its words if stderr is a terminal. Commands, which people copy, stay in one line."""
    is_command = line.startswith((f"  {program()} ", "  export "))
    width = shutil.get_terminal_size().columns
    if is_command or not sys.stderr.isatty() or width < _MIN_WIDTH:
        return line
    indent = "    " if line.startswith("  ") else ""
    # Paths and options remain in one piece, too.
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as people read it: relative, if it is below the current folder."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the current folder was deleted, or is on another drive
        return os.fspath(path)
    return os.fspath(path) if relative.startswith(os.pardir) else relative


def quote_path(path: str | os.PathLike[str]) -> str:
    """Return a path as an argument of a command: quoted for the shell, and no option if it begins with a dash."""
    text = os.fspath(path)
    return shlex.quote(os.path.join(os.curdir, text) if text.startswith("-") else text)  # noqa: PTH118  # a path drops the dot


def program() -> str:
    """Return the command that starts this program, for hints that people copy.

    In a virtual environment that is not activated, ``a2v`` is not on the path, or is that of another environment.
    """
    started = Path(sys.argv[0])
    if started.stem.lower() == "a2v":
        return "a2v" if _is_found("a2v", started) else shlex.quote(shown_path(started))
    if started.stem == "__main__" and not _is_found("a2v", Path(sys.executable).with_name("a2v")):
        python = "python" if _is_found("python", Path(sys.executable)) else shlex.quote(shown_path(sys.executable))
        return f"{python} -m a2v"
    return "a2v"


def _is_found(name: str, path: Path) -> bool:
    """Whether the shell finds this program under a name."""
    found = shutil.which(name)
    # On Windows, the path may lack the extension.
    return found is not None and os.path.realpath(Path(found).with_suffix("")) == os.path.realpath(path.with_suffix(""))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 job``, ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: ``1 h 30 min``."""
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"
