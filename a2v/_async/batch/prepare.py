"""What a batch begins with: the plan for its jobs, made of the journal and of what is in the folder.

``prepare`` is for a run, ``preview`` for a dry run. Both make the same plan (``a2v._core.batch_plan``) from the same facts; a
run then notes it in the journal, after everything that could keep the batch from beginning.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from a2v._async.batch.files import is_saved, protected_files
from a2v._async.batch.item import Item
from a2v._async.batch.journal import read_rows
from a2v._async.batch.lock_file import read_note
from a2v._async.destination import Destination, FileId
from a2v._async.download import in_thread, sha256_of
from a2v._core.batch_plan import Action, BatchPlan, FolderState, Step, plan_batch
from a2v._core.file_names import default_paths, name_key
from a2v._core.job_errors import restored
from a2v._core.job_matching import Match, Matching, match_jobs
from a2v._values.jobs import Job, JobState, JournalEntry
from a2v._values.models import Video, VideoStatus
from a2v.errors import DownloadError, JournalError, VideoFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from a2v._async.batch.journal import Journal
    from a2v._core.batch_options import BatchOptions
    from a2v._core.journal_rows import JournalRow


@frozen
class PreparedBatch:
    """What a run begins with.

    Attributes:
        items: Its jobs; with those that are ``ended`` this run has nothing to do.
        endings: The items that have an outcome at once, with the facts of their ``Outcome``.
        gone: What the journal has besides.
        video_ids: All videos that the journal knows.
        spared: The files that no video may replace.
    """

    items: list[Item]
    endings: list[tuple[Item, dict[str, Any]]]
    gone: tuple[JournalEntry, ...]
    video_ids: set[str]
    spared: frozenset[FileId]


async def prepare(journal: Journal, jobs: list[Job], places: list[Path | None], options: BatchOptions) -> PreparedBatch:
    """Plan a run and note in the journal what it begins with. Nothing is sent.

    Args:
        journal: The batch's journal.
        jobs: What the batch asks for.
        places: Where each video would go if this was the first run.
        options: The options of the batch.

    Raises:
        AmbiguousJobsError: New jobs may be jobs of the journal.
        JournalError: The journal cannot be used.
        DownloadError: A video could not be saved.
        ConfigurationError: The quota does not suffice.
    """
    rows = await journal.do(journal.rows)
    matching = match_jobs(jobs, rows, places, options.recordings)
    plan = plan_batch(matching, await in_thread(partial(_look, matching)), options)
    spared = await in_thread(partial(protected_files, jobs, journal.path))
    await in_thread(partial(_check_places, plan, spared, overwrite=options.overwrite))
    await journal.do(partial(journal.take, [step.match for step in plan.steps]))
    items = [await _begun(journal, step) for step in plan.steps]
    return PreparedBatch(
        items,
        [(item, ending) for item, step in zip(items, plan.steps, strict=True) if (ending := _ending(item, step))],
        tuple(row.entry for row in plan.gone),
        # Without those of jobs that are submitted again: a server that lost its data may begin again with the same ids.
        {video_id for video_id in (*(i.video_id for i in items), *(row.video_id for row in plan.gone)) if video_id},
        spared,
    )


def preview(jobs: list[Job], options: BatchOptions) -> BatchPlan:
    """Make the plan of a run without changing or sending anything.

    Args:
        jobs: The jobs of the batch.
        options: The options of the batch. The journal's file need not exist.

    Raises:
        A2VError: A run would not begin, for the same reason.
    """
    journal, places = options.journal, default_paths(jobs, options.save_to)
    if journal and not options.overwrite:
        refuse_a_lost_journal(journal, places)
    rows = _rows_after_a_crash(journal) if journal and journal.exists() else []
    matching = match_jobs(jobs, rows, places, options.recordings)
    plan = plan_batch(matching, _look(matching), options)
    _check_places(plan, protected_files(jobs, journal), overwrite=options.overwrite, only_existing=True)
    return plan


def refuse_a_lost_journal(journal: Path, places: list[Path | None]) -> None:
    """Without it, what was paid for already would be paid for again.

    Raises:
        JournalError: It is not there, and videos that it must have known are.
    """
    saved = [] if journal.exists() else [path for path in places if path and path.is_file()]
    if saved:
        raise JournalError(
            f"there is no journal {journal}, but {len(saved)} of this batch's videos are there already, such as "
            f"{saved[0]}: name the right journal, or pass overwrite=True to make them anew"
        )


def _rows_after_a_crash(journal: Path) -> list[JournalRow]:
    """The rows as a run finds them when it has opened the journal: see ``Journal`` for submissions that were under way."""
    note = read_note(journal) or {}
    found = []
    for row in read_rows(journal):
        if row.state is not JobState.SUBMITTING:
            found.append(row)
        elif row.identity == note.get("identity"):
            found.append(evolve(row, state=JobState.SUBMITTED, video_id=note["video_id"]))
        else:
            found.append(evolve(row, state=JobState.UNKNOWN))
    return found


def _look(matching: Matching) -> FolderState:
    """What of a batch is in the folder already."""
    matches, other_files = matching.matches, matching.other_files
    paths = (path for match_jobs in matches for path in (match_jobs.path, match_jobs.mask_path) if path)
    return FolderState(
        existing={path for path in paths if path.exists()},
        saved={match_jobs.index for match_jobs in matches if _has_video(match_jobs, other_files)},
    )


def _has_video(match: Match, other_files: Iterable[str]) -> bool:
    path, row = match.path, match.row
    if path is None or row is None or not (row.sha256 or row.state is JobState.DONE) or not is_saved(path, row):
        return False
    # What was saved there for another job may have the same size.
    return name_key(path.name) not in other_files or sha256_of(path) == row.sha256


def _check_places(plan: BatchPlan, spared: frozenset[FileId], *, overwrite: bool, only_existing: bool = False) -> None:
    """Find out before anything is sent whether each video can be saved.

    Args:
        plan: What is to be saved.
        spared: Files that no video may replace.
        overwrite: Whether files may be replaced.
        only_existing: Make no folder: what is not there yet is not looked at.
    """
    for step in plan.steps:
        for path in step.outputs:
            if path.parent.is_dir() or not only_existing:
                Destination(path, overwrite, spared).prepare()


async def _begun(journal: Journal, step: Step) -> Item:
    """The item of a step, in the state in which the run begins with it."""
    match_jobs, row = step.match, step.match.row
    item = Item(match_jobs.index, match_jobs.job, match_jobs.identity, match_jobs.path, JobState.PENDING, None)
    if row:
        item.state, item.video_id = row.state, row.video_id
    if step.found is not item.state:
        await item.move(journal, step.found, path=None, etag=None, size=None, sha256=None)
    if step.state is not item.state:
        await item.move(journal, step.state, video_id=None, etag=None, size=None, sha256=None)
    item.ended = step.action in (Action.DEFER, Action.SKIP)
    return item


def _ending(item: Item, step: Step) -> dict[str, Any] | None:
    """An outcome's facts, if a job has one before the run has done anything for it."""
    if step.action is Action.REFUSE:
        refusal = DownloadError(step.problem)
        refusal.video_id = item.video_id
        return {"error": refusal}
    return _reported(item, step.match.row) if step.action is Action.REPORT and step.match.row else None


def _reported(item: Item, row: JournalRow) -> dict[str, Any]:
    """An outcome's facts, as the journal remembers them."""
    message = row.error["message"] if row.error else ""
    if row.state is JobState.REJECTED:
        return {"error": restored(row.error or {})}
    assert row.video_id is not None  # noqa: S101  # for the type checker: it was rendered
    if row.state is JobState.FAILED:
        video = Video(video_id=row.video_id, status=VideoStatus.FAILED)
        return {"video": video, "error": VideoFailedError(message, video=video)}
    video = Video(video_id=row.video_id, status=VideoStatus.FINISHED)
    return {"video": video, "path": item.path, "mask_path": item.mask_path}
