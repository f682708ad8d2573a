"""The status of a batch's job, as the commands print and report it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import frozen

from a2v import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

_STAGES = {
    "done": "done",
    "failed": "failed",
    "rejected": "failed",
    "lost": "lost",
    "unknown": "unknown",
    "pending": "not submitted",
}
IN_PROGRESS = "in progress"


@frozen(kw_only=True)
class JobStatus:
    """The status of one job.

    Attributes:
        row: The number of its row in the manifest; ``None`` if it has none.
        name: The name of its file, without extension.
        state: Its state in the journal.
        video_id: Its video, once submitted.
        path: The saved video.
        error: The error that keeps it from being done.
        job: The job itself.
        source: Its recording as the manifest has it, without credentials; empty if it has a text.
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
        """The error, or else the path of the video."""
        return self.error or self.path or ""

    def __str__(self) -> str:
        label = self.name if self.row is None else f"row {self.row} ({self.name})"
        parts = [
            label,
            self.state,
            self.video_id and self.video_id not in (self.error or "") and f"video {self.video_id}",
            self.error,
        ]
        return "  ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON output and reports have it."""
        return {
            "row": self.row,
            "name": self.name,
            "state": self.state,
            "video_id": self.video_id,
            "path": self.path,
            "error": self.error,
            "model_id": self.job.model_id,
            "pose_id": self.job.pose_id,
            "audio_url": None if self.job.text else self.source,
            **({"text": self.job.text, "voice_name": self.job.voice_name} if self.job.text else {}),
            "with_mask": self.job.with_mask,
            **({"options": dict(self.job.options)} if self.job.options else {}),
            "extra": dict(self.job.extra),
        }


def count_stages(states: Iterable[str]) -> Counter[str]:
    """Count jobs by stage, which is coarser than the journal's states."""
    return Counter(_STAGES.get(state, IN_PROGRESS) for state in states)


def format_counts(counts: Counter[str]) -> str:
    """Format counted stages: ``3 done, 1 failed``."""
    stages = ("done", "failed", "lost", "unknown", IN_PROGRESS, "not submitted")
    return ", ".join(f"{counts[stage]} {stage}" for stage in stages if counts[stage] or stage == "done")
