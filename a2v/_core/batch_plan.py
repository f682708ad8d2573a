"""The planner of a batch: a pure function of the jobs, the journal, the files in the folder, and the options.

The run, the dry run, the quota and the CLI's reports all use this plan, so they cannot disagree. ``job_matching.py`` matches jobs
with the journal's rows; ``plan_batch`` then turns each match into one ``Step``:

1. ``state_found`` is the state of the row, or *pending* if there is no row. If the file of a *done* job is missing, the state
   becomes *finished*, so that the video is downloaded again rather than rendered again. If the file exists under the job's earlier
   name, the job stays *done* and the file is copied, because the server may no longer have the video.
2. ``state`` is the state in which the run starts: *pending* if the caller chose to resubmit the job, otherwise ``state_found``.
3. The action follows from that state alone, with two exceptions: a job is refused if an existing file blocks the path of its video,
   and deferred beyond ``limit``.

The caller reads the folder (``FolderState``) and the journal, and carries out the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from a2v._core.file_names import name_key
from a2v._core.job_matching import Match
from a2v._core.journal_rows import JournalRow
from a2v._core.url_signatures import without_query
from a2v._values.jobs import JobState
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from a2v._core.batch_options import BatchOptions
    from a2v._core.job_matching import Matching
    from a2v._values.jobs import Job


class Action(Enum):
    """What a run does with a job."""

    SUBMIT = auto()
    """Submit it."""
    DEFER = auto()
    """Leave it to a later run: ``limit`` is reached."""
    FOLLOW = auto()
    """Wait for its submitted video, and save it."""
    RECONCILE = auto()
    """Search the account for the video of its unknown submission."""
    REPORT = auto()
    """Report the outcome of an earlier run."""
    SKIP = auto()
    """Do nothing: an earlier run has already reported its outcome."""
    REFUSE = auto()
    """Report an error: an existing file blocks its path. Nothing is submitted."""


# SUBMITTING is missing: opening the journal turns it into SUBMITTED or UNKNOWN. Terminal states are reported or skipped.
_ACTIONS = {
    JobState.PENDING: Action.SUBMIT,
    JobState.UNKNOWN: Action.RECONCILE,
    JobState.SUBMITTED: Action.FOLLOW,
    JobState.FINISHED: Action.FOLLOW,
    JobState.LOST: Action.FOLLOW,
}


@frozen(kw_only=True)
class FolderState:
    """The files in the folder of a batch.

    Attributes:
        existing: The existing paths of videos, masks and captions.
        saved: The positions of the jobs whose own video exists, complete, at its path.
        renamed: For jobs whose name or folder has changed: the file that an earlier run saved, by the job's position.
    """

    existing: AbstractSet[Path] = frozenset()
    saved: AbstractSet[int] = frozenset()
    renamed: Mapping[int, Path] = field(factory=dict)


@frozen(kw_only=True)
class Step:
    """What a run does with one job.

    Attributes:
        match: The job and its row.
        state_found: The state of the job according to the journal and the folder.
        state: The state in which the run starts.
        action: What the run does.
        outputs: The files that the run writes for the job.
        source: The file to copy to the job's path, because the job had another name or folder in an earlier run.
        problem: Why the job is refused. Its row stays unchanged.
    """

    match: Match
    state_found: JobState
    state: JobState
    action: Action
    outputs: tuple[Path, ...] = ()
    source: Path | None = None
    problem: str | None = None

    @property
    def submissions(self) -> int:
        """How many requests that cost money a submission takes: one for the video, and one for the speech unless it exists."""
        row = self.match.row
        return 2 if self.match.job.text and not (row and row.speech_url) else 1


@frozen(kw_only=True)
class BatchPlan:
    """What a run does.

    Attributes:
        steps: One for each job, in the order of the jobs.
        gone: The journal's rows whose jobs are not in the batch.
    """

    steps: Sequence[Step]
    gone: Sequence[JournalRow]

    @property
    def submissions(self) -> int:
        """The number of videos to submit, which are paid for."""
        return sum(step.action is Action.SUBMIT for step in self.steps)

    @property
    def speeches(self) -> int:
        """The number of texts to synthesize for them, which may be paid for too."""
        return sum(step.submissions - 1 for step in self.steps if step.action is Action.SUBMIT)


def plan_batch(matching: Matching, folder: FolderState, options: BatchOptions) -> BatchPlan:
    """Decide what a run does with each job.

    Args:
        matching: The jobs and their rows.
        folder: The files in the folder.
        options: The options of the batch.

    Raises:
        ConfigurationError: The run would submit more videos than ``quota`` allows.
    """
    other_files = matching.other_files
    steps = [_step(match, other_files, folder, options) for match in matching.matches]
    if options.limit is not None:
        pending = [index for index, step in enumerate(steps) if step.action is Action.SUBMIT]
        for index in pending[options.limit :]:
            steps[index] = evolve(steps[index], action=Action.DEFER)
    plan = BatchPlan(steps=steps, gone=matching.gone)
    if options.quota is not None and plan.submissions + plan.speeches > options.quota:
        raise _over_quota(plan, options.quota)
    return plan


def _over_quota(plan: BatchPlan, quota: int) -> ConfigurationError:
    costs = accumulate(step.submissions for step in plan.steps if step.action is Action.SUBMIT)
    within = sum(cost <= quota for cost in costs)
    videos = "1 video" if plan.submissions == 1 else f"{plan.submissions} videos"
    texts = "1 text" if plan.speeches == 1 else f"{plan.speeches} texts"
    speeches = f" and have {texts} synthesized" if plan.speeches else ""
    return ConfigurationError(
        f"this batch would submit {videos}{speeches}, and the quota is {quota}. Nothing was submitted. "
        f"Pass limit={within} to submit no more than that now, or a larger quota"
    )


def _step(match: Match, other_files: Mapping[str, JournalRow], folder: FolderState, options: BatchOptions) -> Step:
    row = match.row
    found = row.state if row else JobState.PENDING
    source = folder.renamed.get(match.index) if found is JobState.DONE else None
    if found is JobState.DONE and match.path and match.index not in folder.saved and not source:
        found = JobState.FINISHED
    state = JobState.PENDING if _is_resubmitted(match, found, options) else found
    outputs = _outputs(match, state, folder)
    problem = None if options.overwrite else _problem(match, state, outputs, other_files, folder)
    if problem:
        found = JobState.FINISHED if found is JobState.DONE else found  # its file does not have its name
        return Step(match=match, state_found=found, state=found, action=Action.REFUSE, problem=problem)
    is_skipped = row and row.reported and not options.repeat and not source
    action = _ACTIONS.get(state, Action.SKIP if is_skipped else Action.REPORT)
    return Step(match=match, state_found=found, state=state, action=action, outputs=outputs, source=source)


def _is_resubmitted(match: Match, found: JobState, options: BatchOptions) -> bool:
    if found is JobState.UNKNOWN:
        chosen = options.resubmit_unknown
        return chosen if isinstance(chosen, bool) else match.index in chosen
    return options.resubmit_failed and found in (JobState.FAILED, JobState.REJECTED, JobState.LOST)


def _outputs(match: Match, state: JobState, folder: FolderState) -> tuple[Path, ...]:
    if match.path is None or match.index in folder.saved or (state.is_terminal and match.index not in folder.renamed):
        return ()
    # After the submission, existing masks and captions may be the job's own. They are kept, and so do not block the job.
    side_files = match.side_files if state is JobState.PENDING else ()
    return (match.path, *side_files)


def _problem(
    match: Match,
    state: JobState,
    outputs: Sequence[Path],
    other_files: Mapping[str, JournalRow],
    folder: FolderState,
) -> str | None:
    """Return why a job is refused: a file at its path belongs to another job or is not its video; ``None`` if it is not refused.

    If a file blocks a pending job and belongs to no job of the journal, the whole batch does not start: ``files.check_outputs``
    raises that error.
    """
    existing = [path for path in outputs if path in folder.existing]
    if match.path is None or not existing:
        return None
    if state is JobState.PENDING:
        owner = other_files.get(name_key(match.path.name))
        return _describe_change(match.job, owner.job, match.path.stem, existing[0]) if owner else None
    advice = f" with video {match.row.video_id}; nothing is paid for again" if match.row and match.row.video_id else ""
    # Do not advise removing another job's video: it may be the source of that job's copy.
    remove = "Pass" if name_key(match.path.name) in other_files else "Remove it, or pass"
    return (
        f"{existing[0]} exists already, and it is not the video of this job, so it was not changed. "
        f"{remove} overwrite=True to replace it{advice}"
    )


def _describe_change(job: Job, before: Job, name: str, path: Path) -> str:
    same_character = all(
        getattr(job, name) == getattr(before, name) for name in ("model_id", "pose_id", "with_mask", "options")
    )
    if job.text or before.text:
        same_speech = (job.text, job.voice_name) == (before.text, before.voice_name)
        changed = "text or voice"
    else:
        same_speech, changed = before.audio_url == without_query(job.audio_url or ""), "recording"
    what = changed if same_character or not same_speech else "character, pose, mask or options"
    return (
        f"the {what} of {name!r} has changed since {path} was made, so this job was not submitted. "
        "Pass overwrite=True to render it again, for which you pay, and replace the file; the videos of the other jobs are kept. "
        "To keep both videos, give the job another name"
    )
