"""The parts of the help texts that cyclopts does not make: examples, exit codes, and option texts as one paragraph each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attrs import evolve
from cyclopts.help import DefaultFormatter, InlineText
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

# Short enough for a terminal of 60 columns.
_CODES = {
    0: "success",
    1: "a request, render, download or check failed",
    2: "invalid arguments; nothing was done",
    3: "a submission may have been accepted",
    4: "--timeout expired; renders on a server continue",
    130: "interrupted; renders on a server continue",
}
OFFLINE = (0, 2)
CHECKING = (0, 1, 2)
DEMO = (0, 1, 2, 130)
ASKING = (0, 1, 2, 4, 130)
SUBMITTING = (0, 1, 2, 3, 4, 130)

ENVIRONMENT = """Environment:
  A2V_TOKEN     the token
  A2V_BASE_URL  the server; default: the hosted service
  A2V_STAGE_TO  the bucket to upload recordings to
  A2V_BUDGET    the rate limit to share with others
  A2V_LOG       level of the log without -v: debug, info,
                warning or error
The first four are not used with --local."""


def epilogue(codes: Sequence[int], *examples: str) -> str:
    """Return the end of the help of a command.

    Args:
        codes: The exit codes that the command can end with.
        examples: Command lines.
    """
    shown = ["Examples:", *(f"  {example}" for example in examples), ""] if examples else []
    return "\n".join([*shown, "Exit codes:", *(f"  {code:<3}  {_CODES[code]}" for code in codes)])


class Formatter(DefaultFormatter):
    """Wraps texts at the width of the terminal only: docstrings have line breaks of their own."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Render a panel of commands or options."""
        entries = [evolve(entry, description=_reflowed(entry.description)) for entry in panel.entries]
        super().__call__(console, options, evolve(panel, entries=entries))

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Render the description of a command."""
        super().render_description(console, options, _reflowed(description))


def _reflowed(description: Any) -> Any:
    """Replace the line breaks within the paragraphs of a text by spaces."""
    if isinstance(description, InlineText) and isinstance(description.primary_renderable, Text):
        paragraphs = re.split(r"\n{2,}", description.primary_renderable.plain)
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        reflowed = InlineText(Text(text), force_empty_end=description.force_empty_end)
        reflowed.texts = description.texts
        return reflowed
    return description
