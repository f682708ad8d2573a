"""The manifest of ``a2v batch``: its jobs, their rows and files, and how messages name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from a2v import A2VError, Job, JobState, ManifestError, SubmissionUnknownError, WaitTimeoutError
from a2v._core.file_names import file_names
from a2v._core.file_urls import path_from_url
from a2v._core.job_errors import is_lost
from a2v._core.job_matching import ambiguity_lines
from a2v._core.manifest_jobs import listed_rows
from a2v._core.url_signatures import without_query
from a2v.cli.events import DryRunPlan
from a2v.cli.job_status import JobStatus, count_stages
from a2v.cli.options import ServerOptions, UsageError, in_cli_terms
from a2v.cli.recordings import read_audio
from a2v.manifest import load

if TYPE_CHECKING:
    from pathlib import Path

    from a2v import AmbiguousJobsError, JournalEntry, Outcome
    from a2v._core.batch_plan import BatchPlan

_UNKNOWN = "it is not known whether the server accepted it"


@frozen
class BatchManifest:
    """A manifest without errors.

    Attributes:
        jobs: Its jobs.
        rows: The row number of each job.
        names: The name of each job's file, without extension.
        sources: The recording of each job as the manifest has it, without credentials.
        notices: Warnings about how it was read.
    """

    jobs: Sequence[Job]
    rows: Sequence[int]
    names: Sequence[str]
    sources: Sequence[str]
    notices: Sequence[str] = ()

    @property
    def files(self) -> dict[str, Path]:
        """The paths of the recordings that are files on this machine, by their URLs."""
        return {job.audio_url: path for job in self.jobs if (path := path_from_url(job.audio_url))}

    def label(self, index: int) -> str:
        """Return the name of a job in messages."""
        return f"row {self.rows[index]} ({self.names[index]})"

    def status(self, index: int, state: str, **facts: str | None) -> JobStatus:
        """Return the status of a job."""
        return JobStatus(
            row=self.rows[index],
            name=self.names[index],
            state=state,
            job=self.jobs[index],
            source=self.sources[index],
            **facts,
        )

    def outcome_status(self, outcome: Outcome) -> JobStatus:
        """Return the status of a job that ended."""
        error = outcome.error
        state = JobState.DONE if error is None else _state_after(error)
        video_id = outcome.video.video_id if outcome.video else error.video_id if error else None
        path = str(outcome.path.absolute()) if outcome.path else None
        return self.status(
            outcome.index, state.value, video_id=video_id, path=path, error=_message(error) if error else None
        )

    def journal_statuses(self, entries: Sequence[JournalEntry], errors: dict[int, str]) -> list[JobStatus]:
        """Return the status of all jobs.

        Args:
            entries: The journal's entry of each job.
            errors: The errors of this run by job; the journal does not have those that another run may not repeat.
        """
        return [
            self.status(
                index,
                entry.state.value,
                video_id=entry.video_id,
                path=entry.path,
                error=errors.get(index) or entry.error or (_UNKNOWN if entry.state is JobState.UNKNOWN else None),
            )
            for index, entry in enumerate(entries)
        ]

    def dry_run_plan(self, plan: BatchPlan) -> DryRunPlan:
        """Summarize the plan of a run."""
        refusals = [
            f"A run would refuse {self.label(index)}: {in_cli_terms(step.problem)}"
            for index, step in enumerate(plan.steps)
            if step.problem
        ]
        counts = count_stages(step.state_found.value for step in plan.steps)
        return DryRunPlan(counts, plan.submissions, refusals)

    def explain_ambiguity(self, error: AmbiguousJobsError) -> UsageError:
        """Return the error of an ambiguous batch in terms of its rows and of options."""
        labels = [self.label(index) for index, _ in error.pairs]
        first, *others = ambiguity_lines(labels, [entry for _, entry in error.pairs])
        problem = UsageError(first)
        for line in others:
            problem.add_note(in_cli_terms(line))
        return problem


def read_batch_manifest(path: Path, server: ServerOptions, *, staged: bool) -> BatchManifest:
    """Read a manifest. Paths in it are relative to its folder.

    Args:
        path: The file.
        server: The server that fetches the recordings.
        staged: Whether files are uploaded for the server.

    Raises:
        ManifestError: It has errors.
        UsageError: It cannot be read.
    """
    sources: dict[str, str] = {}

    def resolve(cell: str) -> str:
        try:
            audio = cell if "://" in cell else str(path.parent / cell)
            # Without a data folder, so that nothing is copied to it yet.
            url, _ = read_audio(audio, evolve(server, data_dir=None), staged=staged)
        except UsageError as error:
            raise ValueError(str(error)) from None
        sources[url] = without_query(cell) if "://" in cell else cell
        return url

    try:
        found = load(path, resolve)
    except (OSError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"the manifest {path} cannot be read: {reason}") from None
    if found.errors:
        raise ManifestError(f"the manifest {path}", faults=found.errors)
    job_sources = [sources[job.audio_url] for job in found.jobs]
    notices = []
    if found.encoding:
        notices.append(
            f"{path} is not UTF-8; it was read as {found.encoding}. If letters are wrong, save it as UTF-8"
            ' (in Excel "CSV UTF-8 (Comma delimited)") or as .xlsx'
        )
    if found.hidden:
        notices.append(f"{path}: hidden rows were skipped: {listed_rows(found.hidden)}")
    return BatchManifest(found.jobs, found.rows, file_names(found.jobs), job_sources, notices)


def _state_after(error: A2VError) -> JobState:
    """Return the state in which an error leaves its job."""
    if isinstance(error, SubmissionUnknownError):
        return JobState.UNKNOWN
    if isinstance(error, WaitTimeoutError):
        return JobState.SUBMITTED
    return JobState.LOST if is_lost(error) else JobState.FAILED


def _message(error: A2VError) -> str:
    return in_cli_terms(str(error)).strip() or type(error).__name__
