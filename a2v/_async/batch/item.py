"""A job of a batch on its way."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define

from a2v._core.file_names import mask_path
from a2v._values.jobs import Job, JobState

if TYPE_CHECKING:
    from a2v._async.batch.journal import Journal


@define(eq=False)
class Item:
    """A job on its way.

    Attributes:
        index: Its place in the batch.
        job: What is asked for.
        identity: What the journal calls it.
        path: Where its video shall be.
        state: How far it is, as the journal has it.
        video_id: What the server calls it, once it was submitted.
        ended: Whether this run is through with it.
        failed: Whether it ended with an error.
    """

    index: int
    job: Job
    identity: str
    path: Path | None
    state: JobState
    video_id: str | None
    ended: bool = False
    failed: bool = False

    @property
    def mask_path(self) -> Path | None:
        """Where its mask shall be."""
        return mask_path(self.path) if self.path and self.job.with_mask else None

    @property
    def stage(self) -> str:
        """What it counts as in a ``Progress``."""
        if self.state in (JobState.UNKNOWN, JobState.LOST):
            return self.state.value
        if self.state in (JobState.FAILED, JobState.REJECTED) or self.failed:
            return "failed"
        return {JobState.PENDING: "waiting", JobState.DONE: "done"}.get(self.state, "under_way")

    async def move(self, journal: Journal, state: JobState, **facts: Any) -> None:
        """Get further, first in the journal.

        Raises:
            JournalError: It cannot be written down, so it is where it was.
        """
        await journal.do(partial(journal.move, self.identity, state, **facts))
        self.state = state
        if state is JobState.PENDING:
            self.video_id = None
