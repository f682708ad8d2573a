"""Decides what a batch does with each job: a pure function of the jobs, the journal and the options.

The run, ``--dry-run``, quotas and reports all use this one plan, in two steps:

1. ``match`` finds the journal's row for each job. A job is identified by all that is submitted for it: character or pose,
   mask, and the full ``audio_url`` without a complete signature (``signatures.py``). Jobs with equal identities are
   matched by ``name`` first, then by order, so that a second take above the first one does not get its video. A new job
   that differs from a missing row only in the query of its URL may be the same recording under a new signature, or another
   recording. Only the user knows, so the batch stops until ``recordings`` says which.
2. ``decide`` turns each match into a ``Step``: its state at the beginning, and the action that follows from it. What the
   folder holds comes in as ``Files``, so the caller does the I/O.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import evolve, frozen

from a2v._core.items import JournalRow, without_query
from a2v._core.manifest_jobs import file_names, mask_name, same_file
from a2v._core.url_signatures import unsigned
from a2v._values.jobs import Job, JobState
from a2v._values.models import RowError
from a2v.errors import AmbiguousJobsError, ConfigurationError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from a2v._core.batch_options import BatchOptions, Recordings
    from a2v._values.jobs import JournalEntry

# What still fits a screen; `pairs` has them all.
_SHOWN_PAIRS = 100

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")


class Action(Enum):
    """What a run does with a job."""

    SUBMIT = auto()
    """Submit it."""
    DEFER = auto()
    """Leave it to a later run: ``limit`` is reached."""
    FOLLOW = auto()
    """Wait for its video, which the server has, and save it."""
    FIND = auto()
    """Look at the server for its uncertain submission."""
    REPORT = auto()
    """Report the outcome of an earlier run."""
    SKIP = auto()
    """Nothing: an earlier run has reported its outcome."""
    REFUSE = auto()
    """End it with an error: there is a file in its place. Nothing is submitted for it."""


# The option with which each state is submitted again.
_RESUBMITTED_BY = {
    JobState.UNKNOWN: "resubmit_unknown",
    JobState.FAILED: "resubmit_failed",
    JobState.REJECTED: "resubmit_failed",
    JobState.LOST: "resubmit_failed",
}
# SUBMITTING is missing: what an earlier run left in that state is UNKNOWN when the next one begins.
_ACTIONS = {
    JobState.PENDING: Action.SUBMIT,
    JobState.UNKNOWN: Action.FIND,
    JobState.SUBMITTED: Action.FOLLOW,
    JobState.FINISHED: Action.FOLLOW,
    JobState.LOST: Action.FOLLOW,
}


@frozen(kw_only=True)
class Match:
    """A job and what the journal knows of it.

    Attributes:
        index: The job's place in the batch.
        job: The job.
        identity: The key of its row from now on.
        row: Its row; ``None`` if the job is new.
        path: Where its video goes; ``None`` if it is not saved.
    """

    index: int
    job: Job
    identity: str
    row: JournalRow | None
    path: Path | None = None

    @property
    def mask_path(self) -> Path | None:
        """Where its mask goes."""
        return mask_of(self.path) if self.path and self.job.with_mask else None


@frozen(kw_only=True)
class Matching:
    """The jobs of a batch beside a journal.

    Attributes:
        matches: One for each job, in their order.
        gone: The rows that no job has.
    """

    matches: Sequence[Match]
    gone: Sequence[JournalRow]

    @property
    def contested(self) -> Mapping[str, JournalRow]:
        """The names of saved files that are not the one of their own job now, each with the row that it was saved for.

        Names and not paths, as a folder may have been moved, and has more than one spelling.
        """
        rows = [(match.row, match.path) for match in self.matches if match.row]
        left = [row for row, path in rows if not path or file_of(row) != same_file(path.name)]
        return {file: row for row in (*left, *self.gone) if (file := file_of(row))}


@frozen(kw_only=True)
class Files:
    """What is in the folder of a batch.

    Attributes:
        existing: The paths of videos and masks where there is something already.
        saved: The places of the jobs whose own video is whole under its name.
    """

    existing: AbstractSet[Path] = frozenset()
    saved: AbstractSet[int] = frozenset()


@frozen(kw_only=True)
class Step:
    """What a run does with one job.

    Attributes:
        match: The job and its row.
        found: The state in which the run finds it: the journal's, unless its file is missing.
        state: The state in which the run begins with it, by the user's choice.
        action: What the run does.
        stores: The files that will be stored for it.
        problem: Why it is refused.
    """

    match: Match
    found: JobState
    state: JobState
    action: Action
    stores: tuple[Path, ...] = ()
    problem: str | None = None


@frozen(kw_only=True)
class BatchPlan:
    """What a run does.

    Attributes:
        steps: One for each job, in their order.
        gone: What the journal has besides.
    """

    steps: Sequence[Step]
    gone: Sequence[JournalRow]

    @property
    def submissions(self) -> int:
        """How many videos are submitted, and paid for."""
        return sum(step.action is Action.SUBMIT for step in self.steps)


# -- which job is which -----------------------------------------------------------------------------------------------


def recording(job: Job) -> str:
    """What makes two jobs ask for the same video: a digest of all that is submitted, without the URL's signature."""
    from a2v._core import wire  # noqa: PLC0415  # with a converter that `import a2v` has no use for

    request = wire.job_data(job) | {"audio_url": unsigned(job.audio_url)}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def repeated(jobs: Iterable[Job]) -> list[tuple[int, ...]]:
    """Find the jobs that ask for the same video, whatever its name. Each one is made, and paid for.

    Returns:
        For each such video, the places of its jobs, from 0.
    """
    places = _grouped((recording(job), place) for place, job in enumerate(jobs))
    return [tuple(same) for same in places.values() if len(same) > 1]


def match(
    jobs: Sequence[Job], rows: Iterable[JournalRow], places: Sequence[Path | None], recordings: Recordings | None = None
) -> Matching:
    """Find the row of each job.

    Args:
        jobs: The jobs of the batch.
        rows: What the journal knows.
        places: Where each job's video goes if the journal knows nothing of it.
        recordings: What new jobs are that differ from a missing row only in the query: the ``same`` recordings, or ``new``.

    Raises:
        AmbiguousJobsError: There are such jobs, and ``recordings`` does not say.
    """
    in_order = sorted(rows, key=lambda row: (row.place is None, row.place, row.number))
    digests = [recording(job) for job in jobs]
    found = _paired(enumerate(digests), ((row.recording, row) for row in in_order), jobs)
    gone = _without(in_order, found.values())
    if recordings != "new":
        # A row that was never submitted is no reason to ask: submitting its job cannot pay for anything twice.
        submitted = [row for row in gone if row.state is not JobState.PENDING]
        new = [(index, _but_for_query(job)) for index, job in enumerate(jobs) if index not in found]
        alike = _paired(new, ((_but_for_query(row.job), row) for row in submitted), jobs)
        if alike and recordings is None:
            raise _ambiguous(jobs, alike)
        found |= alike
        gone = _without(gone, alike.values())
    identities = _identities(digests, found, in_order)
    paths = _paths(jobs, places, found, in_order)
    facts = zip(jobs, identities, paths, strict=True)
    matches = [
        Match(index=index, job=job, identity=identity, row=found.get(index), path=path)
        for index, (job, identity, path) in enumerate(facts)
    ]
    return Matching(matches=matches, gone=gone)


def _paired(
    jobs: Iterable[tuple[int, K]], rows: Iterable[tuple[K, JournalRow]], all_jobs: Sequence[Job]
) -> dict[int, JournalRow]:
    """Pair jobs and rows with equal keys: first those with equal names, then the others in their order."""
    found: dict[int, JournalRow] = {}
    rows_of = _grouped(rows)
    for key, indices in _grouped((key, index) for index, key in jobs).items():
        free = rows_of.get(key, [])
        named = _grouped((row.job.name, row) for row in free)
        by_name = {index: same.pop(0) for index in indices if (same := named.get(all_jobs[index].name))}
        others = [index for index in indices if index not in by_name]
        found |= by_name | dict(zip(others, _without(free, by_name.values()), strict=False))
    return found


def _grouped(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _without(rows: Iterable[JournalRow], taken: Iterable[JournalRow]) -> list[JournalRow]:
    identities = {row.identity for row in taken}
    return [row for row in rows if row.identity not in identities]


def _but_for_query(job: Job) -> tuple[object, ...]:
    return job.model_id, job.pose_id, job.with_mask, without_query(job.audio_url)


def _identities(digests: Sequence[str], found: Mapping[int, JournalRow], rows: Iterable[JournalRow]) -> Iterator[str]:
    """The key of each job's row: the one it has, or else the digest and the first number that is free."""
    taken = {row.identity for row in rows}
    numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
    for index, digest in enumerate(digests):
        row = found.get(index)
        if row and row.recording == digest:
            yield row.identity
        else:
            yield next(key for number in numbers[digest] if (key := f"{digest}-{number}") not in taken)


def _ambiguous(jobs: Sequence[Job], alike: Mapping[int, JournalRow]) -> AmbiguousJobsError:
    pairs = tuple((index, alike[index].entry) for index in sorted(alike))
    labels = [f"job {index + 1}" + (f" ({jobs[index].name})" if jobs[index].name else "") for index, _ in pairs]
    return AmbiguousJobsError("\n".join(ambiguity(labels, [entry for _, entry in pairs])), pairs=pairs)


def ambiguity(labels: Sequence[str], entries: Sequence[JournalEntry]) -> list[str]:
    """What an ``AmbiguousJobsError`` says.

    Args:
        labels: What the jobs are called.
        entries: For each job, the entry that may be the same.
    """
    shown = [
        f"  {label} may be {_described(entry)}: {entry.job.audio_url}"
        for label, entry in zip(labels, entries, strict=True)
    ][:_SHOWN_PAIRS]
    more = [f"  … and {len(entries) - _SHOWN_PAIRS} more"] if len(entries) > _SHOWN_PAIRS else []
    many = len(entries) > 1
    return [
        (
            f"{len(entries)} new job{'s differ' if many else ' differs'} only in the query of the audio_url from "
            f"{'jobs' if many else 'a job'} of the journal that {'are' if many else 'is'} no longer in the batch: the same "
            "recording with a new signature, or another recording? Nothing was submitted."
        ),
        *shown,
        *more,
        (
            'Pass recordings="same" if they are the same recordings: nothing is paid for again. '
            'Pass recordings="new" if they are new recordings: each is submitted, and paid for.'
        ),
    ]


def _described(entry: JournalEntry) -> str:
    name = entry.job.name or (Path(entry.path).stem if entry.path else None)
    place = f"job {entry.place + 1} of the last run" if entry.place is not None else None
    facts = [place if name else None, entry.state.value, f"video {entry.video_id}" if entry.video_id else None]
    return f"{name or place or 'an earlier job'} ({', '.join(fact for fact in facts if fact)})"


# -- where videos go --------------------------------------------------------------------------------------------------


def places_of(jobs: Sequence[Job], folder: Path | None) -> list[Path | None]:
    """Where each job's video goes if the journal knows nothing of it.

    Raises:
        ManifestError: Two files would have one name.
    """
    if folder is None:
        return [None] * len(jobs)
    paths = [folder / f"{name}.mp4" for name in file_names(jobs)]
    masks = [mask_of(path) for path, job in zip(paths, jobs, strict=True) if job.with_mask]
    uses = _grouped((same_file(path.name), path.stem) for path in (*paths, *masks))
    if twice := sorted(stems[0] for stems in uses.values() if len(stems) > 1):
        problem = "each job needs a name of its own, and the mask of NAME is NAME.mask; used more than once: "
        raise ManifestError("the batch", faults=tuple(RowError(None, "name", problem + name) for name in twice))
    return [*paths]


def file_of(row: JournalRow) -> str | None:
    """The name of a row's saved file, as file systems compare names."""
    return same_file(Path(row.path).name) if row.path else None


def mask_of(path: Path) -> Path:
    """Where the mask of a video goes."""
    return path.with_name(f"{mask_name(path.stem)}.mp4")


def _paths(
    jobs: Sequence[Job], places: Sequence[Path | None], found: Mapping[int, JournalRow], rows: Iterable[JournalRow]
) -> Iterator[Path | None]:
    """Where each job's video goes. A job without a name keeps the file it has, wherever it stands in the batch now."""
    named = [path for path, job in zip(places, jobs, strict=True) if path and job.name]
    reserved = {same_file(path.name) for path in (*named, *map(mask_of, named))}
    saved = {file_of(row) for row in rows}
    numbers = count(len(jobs) + 1)
    for index, (path, job) in enumerate(zip(places, jobs, strict=True)):
        if path and not job.name:
            row = found.get(index)
            if row and row.path and file_of(row) not in reserved:
                path = path.with_name(Path(row.path).name)  # noqa: PLW2901  # the same path, more exactly
            else:
                while (name := same_file(path.name)) in saved or name in reserved:
                    path = path.with_name(f"{next(numbers):04d}.mp4")  # noqa: PLW2901  # as above
            reserved.add(same_file(path.name))
        yield path


# -- what a run does --------------------------------------------------------------------------------------------------


def decide(matching: Matching, files: Files, options: BatchOptions) -> BatchPlan:
    """Decide what a run does with each job.

    Args:
        matching: The jobs and their rows.
        files: What is in the folder.
        options: The options of the batch.

    Raises:
        ConfigurationError: The quota does not suffice.
    """
    contested = matching.contested
    steps = [_step(match, contested, files, options) for match in matching.matches]
    pending = [index for index, step in enumerate(steps) if step.action is Action.SUBMIT]
    for index in [] if options.limit is None else pending[options.limit :]:
        steps[index] = evolve(steps[index], action=Action.DEFER)
    plan = BatchPlan(steps=steps, gone=matching.gone)
    if options.quota is not None and plan.submissions > options.quota:
        videos = "1 video" if plan.submissions == 1 else f"{plan.submissions} videos"
        raise ConfigurationError(
            f"this batch would submit {videos}, and the quota is {options.quota}. Nothing was submitted. "
            f"Pass limit={options.quota} to submit no more than that now, or a larger quota"
        )
    return plan


def _step(match: Match, contested: Mapping[str, JournalRow], files: Files, options: BatchOptions) -> Step:
    row = match.row
    found = row.state if row else JobState.PENDING
    if found is JobState.DONE and match.path and match.index not in files.saved:
        found = JobState.FINISHED  # its file was removed, or never wanted before
    state = JobState.PENDING if _is_submitted_again(match, found, options) else found
    if problem := None if options.overwrite else _problem(match, state, contested, files):
        return Step(match=match, found=found, state=found, action=Action.REFUSE, problem=problem)
    action = _ACTIONS.get(state, Action.SKIP if row and row.reported and not options.repeat else Action.REPORT)
    return Step(match=match, found=found, state=state, action=action, stores=_stores(match, state, files))


def _stores(match: Match, state: JobState, files: Files) -> tuple[Path, ...]:
    if match.path is None or state.is_terminal or match.index in files.saved:
        return ()
    mask = match.mask_path if state is JobState.PENDING else None
    return (match.path, mask) if mask else (match.path,)


def _is_submitted_again(match: Match, found: JobState, options: BatchOptions) -> bool:
    chosen: bool | Collection[int] = found in _RESUBMITTED_BY and getattr(options, _RESUBMITTED_BY[found])
    return chosen if isinstance(chosen, bool) else match.index in chosen


def _problem(match: Match, state: JobState, contested: Mapping[str, JournalRow], files: Files) -> str | None:
    """Why a job's file cannot be stored, if that is the affair of this job alone.

    A file that a2v knows nothing of is another matter: the batch does not begin.
    """
    there = [path for path in _stores(match, state, files) if path in files.existing]
    if match.path is None or not there:
        return None
    path = there[0]
    if state is JobState.PENDING:
        owner = contested.get(same_file(match.path.name))
        return _changed(match.job, owner.job, match.path.stem, path) if owner else None
    advice = f" with video {match.row.video_id}; nothing is paid for again" if match.row and match.row.video_id else ""
    return (
        f"{path} exists already, and it is not the video of this job, so it is left as it is. "
        f"Remove it, or pass overwrite=True to replace it{advice}"
    )


def _changed(job: Job, before: Job, name: str, path: Path) -> str:
    speaker = (job.model_id, job.pose_id, job.with_mask) == (before.model_id, before.pose_id, before.with_mask)
    what = "recording" if speaker or before.audio_url != without_query(job.audio_url) else "character, pose or mask"
    return (
        f"the {what} of {name!r} has changed since {path} was made, so nothing was submitted for this job. "
        "Pass overwrite=True to render it again, which is paid for as one more video, and to replace the file; "
        "the videos of the other jobs are kept. Or give the job another name to keep both videos"
    )
