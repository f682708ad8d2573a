"""The outcomes of a batch's jobs, and its progress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from attrs import frozen

from a2v._values.jobs import Job
from a2v._values.models import Video
from a2v._values.serialization import Value
from a2v.errors import A2VError, SubmissionUnknownError


@frozen(eq=False, repr=False, kw_only=True)
class Outcome(Value):
    """The outcome of a job in a batch.

    Attributes:
        index: The position of the job in the input, from 0.
        job: The job.
        video: The last snapshot of its video, if it was submitted.
        path: The path of the saved video, if it was saved.
        mask_path: The path of the saved mask, if it was saved.
        captions_paths: The paths of the saved captions, SubRip and WebVTT, if they were saved.
        error: The error that ended the job, if it failed.
    """

    index: int
    job: Job
    video: Video | None = None
    path: Path | None = None
    mask_path: Path | None = None
    captions_paths: tuple[Path, ...] = ()
    error: A2VError | None = None

    @property
    def ok(self) -> bool:
        """Whether the video is finished and, if the batch saves videos, saved."""
        return self.error is None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make an outcome from the result of ``to_dict``; see ``Value.from_dict``."""
        outcome = super().from_dict(data)
        if outcome.error:
            outcome.error.video = outcome.video
            if isinstance(outcome.error, SubmissionUnknownError):
                outcome.error.job = outcome.job
        return outcome


@frozen(eq=False, repr=False, kw_only=True)
class Progress(Value):
    """The number of jobs of a batch at each stage. Those from ``waiting`` to ``lost`` add up to ``total``.

    Attributes:
        total: All jobs.
        waiting: Not submitted yet.
        under_way: Being submitted, rendered or saved.
        done: Rendered, and saved if the batch saves videos.
        failed: Ended with an error.
        unknown: The server may or may not have accepted them.
        lost: Submitted, and the server no longer knows the video.
        rendering: Those of ``under_way`` that the server renders, by its last status; the others wait in its queue.
        saving: Those of ``under_way`` that are rendered, and not saved yet.
    """

    total: int
    waiting: int
    under_way: int
    done: int
    failed: int
    unknown: int
    lost: int = 0
    rendering: int = 0
    saving: int = 0
