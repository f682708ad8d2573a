"""What a batch shows while it runs: a table that moves on a terminal, a line for each outcome elsewhere, JSON for machines."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from a2v import Job
from a2v.cli.printing import (
    JsonPrinter,
    Printer,
    TerminalPrinter,
    clean,
    open_terminal,
    print_fields,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from a2v import AsyncBatch, Progress


_LOOK_EVERY = 0.5
"""Seconds."""


@frozen(kw_only=True)
class Standing:
    """How far a job is.

    Attributes:
        row: Where it stands in the manifest; ``None``: only a journal knows it.
        name: What its file is called, without extension.
        state: The journal's word for it.
        video_id: Its video, if it was submitted.
        path: Where the video is, if it was saved.
        error: Why it is not done, if something went wrong.
        job: The job itself.
        source: Its recording, as the manifest says it, without what may give access.
    """

    row: int | None
    name: str
    state: str
    video_id: str | None = None
    path: str | None = None
    error: str | None = None
    job: Job
    source: str

    @property
    def detail(self) -> str:
        """Where the video is, or why it is not."""
        return self.error or self.path or ""

    def __str__(self) -> str:
        parts = [f"row {self.row} ({self.name})", self.state, self.video_id and f"video {self.video_id}", self.error]
        return "  ".join(part for part in parts if part)

    def facts(self) -> dict[str, Any]:
        """A job as machines read it."""
        return {
            "row": self.row,
            "name": self.name,
            "state": self.state,
            "video_id": self.video_id,
            "path": self.path,
            "error": self.error,
            "model_id": self.job.model_id,
            "pose_id": self.job.pose_id,
            "audio_url": self.source,
            "with_mask": self.job.with_mask,
            "extra": dict(self.job.extra),
        }


_STAGES = {
    "done": "done",
    "failed": "failed",
    "rejected": "failed",
    "lost": "lost",
    "unknown": "unknown",
    "pending": "not submitted",
}


def count_stages(states: Iterable[str]) -> Counter[str]:
    """How many jobs are how far, by the journal's words for it."""
    return Counter(_STAGES.get(state, "under way") for state in states)


def in_words(counts: Counter[str]) -> str:
    """Counted stages, for people."""
    stages = ("done", "failed", "lost", "unknown", "under way", "not submitted")
    return ", ".join(f"{counts[stage]} {stage}" for stage in stages if counts[stage] or stage == "done")


class BatchOutput(Printer):
    """Plain lines of tab-separated fields, for pipes and logs: row, name, state, video_id, and the path or what went wrong."""

    @asynccontextmanager
    async def following(self, batch: AsyncBatch) -> AsyncIterator[None]:  # noqa: ARG002  # a terminal shows it
        """Around the life of a batch that has begun."""
        yield

    def show(self, one: Standing) -> None:
        """A job that has ended."""
        print_fields(str(one.row), one.name, one.state, one.video_id or "", one.detail)


class JsonBatchOutput(JsonPrinter, BatchOutput):
    """JSON Lines: a line is a job that has ended."""

    def show(self, one: Standing) -> None:
        """Print a job as an object."""
        print_json(one.facts())


class TerminalBatchOutput(TerminalPrinter, BatchOutput):
    """What has ended stands above a table of counts that moves."""

    def __init__(self, console: Console) -> None:
        self._batch: AsyncBatch | None = None
        self._since = time.monotonic()
        self._ended_before = 0
        self._pace: list[str] = []
        super().__init__(console, "looking at the journal and the folder", per_second=2)

    @asynccontextmanager
    async def following(self, batch: AsyncBatch) -> AsyncIterator[None]:
        """Show the counts of a batch, and how its requests go."""
        self._since, self._ended_before = time.monotonic(), _ended(batch.progress)
        self._batch = batch
        looking = asyncio.create_task(self._look(batch))
        try:
            yield
        finally:
            looking.cancel()
            # Not by awaiting it: its cancellation could not be told from one of our own, which must not be lost.
            await asyncio.wait([looking])

    async def _look(self, batch: AsyncBatch) -> None:
        while True:
            pace = await batch.pace()
            budget = [] if pace.left is None else [f"{pace.left} of {pace.limit} requests a minute left"]
            coming = [] if pace.next_in is None else [f"next request in {duration(pace.next_in)}"]
            self._pace = [*budget, *coming]
            await asyncio.sleep(_LOOK_EVERY)

    def show(self, one: Standing) -> None:
        """Print a job that has ended."""
        sign = ("✓ ", "green") if one.state == "done" else ("✗ ", "red")
        self.write(Text.assemble(sign, (clean(one.name), "bold"), f"  {one.state}  {clean(one.detail)}".rstrip()))

    def moving(self) -> RenderableType:
        """The counts, once there are any."""
        if self._batch is None:
            return super().moving()
        progress = self._batch.progress
        counts = Table.grid(padding=(0, 3, 0, 0))
        counts.add_row(
            Text(f"done {progress.done}", "green"),
            Text(f"failed {progress.failed}", "red" if progress.failed else "dim"),
            *([Text(f"lost {progress.lost}", "red")] if progress.lost else []),
            Text(f"unknown {progress.unknown}", "yellow" if progress.unknown else "dim"),
            Text(f"under way {progress.under_way}"),
            Text(f"waiting {progress.waiting}"),
        )
        ended = _ended(progress)
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            ProgressBar(total=max(1, progress.total), completed=ended, width=40), f"{ended} of {progress.total}"
        )
        return Group(bar, counts, Text(self._times(ended, progress.total), "dim"))

    def _times(self, ended: int, total: int) -> str:
        passed = time.monotonic() - self._since
        here = ended - self._ended_before
        times = [f"for {duration(passed)}"]
        if here and total > ended:
            times.append(f"about {duration(passed / here * (total - ended))} to go")
        return " · ".join([*times, *self._pace])


def _ended(progress: Progress) -> int:
    return progress.done + progress.failed + progress.lost + progress.unknown


def duration(seconds: float) -> str:
    """A span of time for people, in its two largest units."""
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def open_batch_output(*, as_json: bool) -> BatchOutput:
    """The output that fits where stdout goes."""
    if as_json:
        return JsonBatchOutput()
    console = open_terminal()
    return TerminalBatchOutput(console) if console else BatchOutput()


def print_journal(ones: Iterable[Standing], *, as_json: bool) -> None:
    """Print what a journal knows: a table on a terminal, tab-separated lines elsewhere, an array of objects for machines."""
    if as_json:
        print_json([{key: value for key, value in one.facts().items() if key not in ("row", "extra")} for one in ones])
        return
    rows = [(one.name, one.state, one.video_id or "", one.detail) for one in ones]
    if console := open_terminal():
        print_table(console, ("job", "state", "video_id", "path, or what went wrong"), rows)
    else:
        for fields in rows:
            print_fields(*fields)
