"""What a batch on the command line is to do: the options, what the manifest asks for, and what would come of the two."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from attrs import evolve, frozen
from cyclopts import Parameter, validators

from a2v import Job, JobState, ManifestError, SubmissionUnknownError, WaitTimeoutError
from a2v._core.batch_options import BatchOptions
from a2v._core.file_names import file_names
from a2v._core.job_errors import is_lost
from a2v._core.job_matching import ambiguity_lines
from a2v._core.manifest_jobs import listed_rows
from a2v._core.url_signatures import without_query
from a2v._values.models import DEFAULT_RENDER_TIMEOUT
from a2v.cli.printing import number, say
from a2v.cli.server import Flag, OptionalPath, Server, UsageError, read_audio
from a2v.cli.table import Standing, count_stages, in_words
from a2v.manifest import load

if TYPE_CHECKING:
    from pathlib import Path

    from a2v import A2VError, AmbiguousJobsError, JournalEntry, Outcome
    from a2v._core.batch_plan import BatchPlan

_IN_DOUBT = "nobody knows whether the server accepted it"

_Count = Annotated[int | None, Parameter(validator=validators.Number(gte=0))]


@Parameter(name="*")
@frozen(kw_only=True)
class Plan:
    """How a manifest is worked through.

    Attributes:
        journal: The file that remembers how far each job is; a2v-batch.db in the folder of --output if left out. The same
            command with the same journal goes on where the last one ended.
        overwrite: Replace files that are there already.
        max_in_flight: How many videos may be under way at once.
        limit: Submit so many jobs at most; the others wait for a later run.
        quota: How many submissions the account has left: if there are more to make, none is made.
        dry_run: Read the manifest and the journal, tell what would be submitted, and send nothing.
        resubmit_unknown: Submit jobs again of which nobody knows whether the server accepted them, and perhaps pay for them
            twice: the numbers of their rows, or "all".
        resubmit_failed: Submit jobs again whose render failed, which the server refused, or whose video it no longer knows.
        repeat: Show outcomes again that an earlier run has shown.
        new_token: The account has another token than when the journal was last used.
        same_recordings: Rows that differ only in the query of their audio_url from rows of an earlier run are the same
            recordings with new signatures: they are not submitted again.
        new_recordings: Such rows are new recordings: they are submitted.
        render_timeout: Seconds to wait for each submitted video to finish, 24 hours if left out; "none" for no limit.
        report: Write what became of each row to a file, which ends in .csv or .json.
    """

    journal: OptionalPath = None
    overwrite: Flag = False
    max_in_flight: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None
    limit: _Count = None
    quota: _Count = None
    dry_run: Flag = False
    resubmit_unknown: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    resubmit_failed: Flag = False
    repeat: Flag = False
    new_token: Flag = False
    same_recordings: Flag = False
    new_recordings: Flag = False
    render_timeout: Annotated[float | None, Parameter(validator=validators.Number(gt=0), show_default=False)] = (
        DEFAULT_RENDER_TIMEOUT
    )
    report: OptionalPath = None

    @property
    def flags(self) -> str:
        """The options of the command that continues. What was chosen for one run is not chosen for the next."""
        given = {"--journal": self.journal, "--max-in-flight": self.max_in_flight, "--report": self.report}
        flags = "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value)
        if self.render_timeout != DEFAULT_RENDER_TIMEOUT:
            flags += f" --render-timeout {self.render_timeout or 'none'}"
        return flags + (" --overwrite" if self.overwrite else "")

    def choices(self, rows: Sequence[int]) -> BatchOptions:
        """The options that decide what a run does with each job.

        Args:
            rows: The number of each job's row.

        Raises:
            UsageError: They cannot be right.
        """
        if self.same_recordings and self.new_recordings:
            raise UsageError("--same-recordings and --new-recordings exclude each other")
        return BatchOptions(
            overwrite=self.overwrite,
            limit=self.limit,
            quota=self.quota,
            resubmit_unknown=self.chosen(rows),
            resubmit_failed=self.resubmit_failed,
            repeat=self.repeat,
            recordings="same" if self.same_recordings else "new" if self.new_recordings else None,
        )

    def chosen(self, rows: Sequence[int]) -> bool | list[int]:
        """The jobs in the rows that ``resubmit_unknown`` names, by their places.

        Args:
            rows: The number of each job's row.

        Raises:
            UsageError: One is not a row of the manifest.
        """
        words = [word for one in self.resubmit_unknown for word in re.split(r"[\s,]+", one) if word]
        if "all" in words:
            return True
        places = {str(row): place for place, row in enumerate(rows)}
        strange = [word for word in words if word not in places]
        if strange:
            raise UsageError(f"--resubmit-unknown: {', '.join(strange)} is not the number of a row with a job, nor all")
        return [places[word] for word in words]


@frozen
class Work:
    """A manifest that is sound.

    Attributes:
        jobs: What it asks for.
        rows: The number of each job's row.
        names: What each job's file is called, without extension.
        sources: Each job's recording, as it is written there.
    """

    jobs: Sequence[Job]
    rows: Sequence[int]
    names: Sequence[str]
    sources: Sequence[str]

    @property
    def files(self) -> list[str]:
        """The URLs of the recordings that are files of this machine, each once."""
        return list(dict.fromkeys(job.audio_url for job in self.jobs if job.audio_url.lower().startswith("file:")))

    @classmethod
    def read(cls, path: Path, server: Server, *, staged: bool) -> Work:
        """Read it.

        Args:
            path: The file.
            server: Who is to fetch the recordings.
            staged: Whether files are uploaded for the server.

        Raises:
            ManifestError: It is not sound.
            UsageError: It cannot be read.
        """
        written: dict[str, str] = {}

        def resolve(cell: str) -> str:
            try:
                # Beside the manifest, wherever the command was started.
                audio = cell if "://" in cell else str(path.parent / cell)
                url, _ = read_audio(audio, evolve(server, data_dir=None), staged=staged)
            except UsageError as error:
                raise ValueError(str(error)) from None
            written[url] = without_query(cell) if "://" in cell else cell
            return url

        try:
            found = load(path, resolve)
        except (OSError, ImportError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"the manifest {path} cannot be read: {reason}") from None
        if found.faults:
            raise ManifestError(f"the manifest {path}", faults=found.faults)
        if found.hidden:
            say(f"a2v: {path}: hidden rows are left out: {listed_rows(found.hidden)}")
        sources = [written[job.audio_url] for job in found.jobs]
        return cls(found.jobs, found.rows, file_names(found.jobs), sources)

    def standing(self, index: int, state: str, **facts: str | None) -> Standing:
        """A job of it."""
        return Standing(
            row=self.rows[index],
            name=self.names[index],
            state=state,
            job=self.jobs[index],
            source=self.sources[index],
            **facts,
        )

    def outcome(self, outcome: Outcome) -> Standing:
        """A job that has ended."""
        error = outcome.error
        state = "done" if error is None else state_told(error)
        video_id = outcome.video.video_id if outcome.video else error.video_id if error else None
        path = str(outcome.path.absolute()) if outcome.path else None
        return self.standing(outcome.index, state, video_id=video_id, path=path, error=_words(error) if error else None)

    def standings(self, entries: Sequence[JournalEntry], errors: dict[int, str]) -> list[Standing]:
        """All jobs, as the journal has them and with the errors of this run."""
        return [
            self.standing(
                index,
                entry.state.value,
                video_id=entry.video_id,
                path=entry.path,
                error=errors.get(index) or entry.error or (_IN_DOUBT if entry.state is JobState.UNKNOWN else None),
            )
            for index, entry in enumerate(entries)
        ]


def foretell(work: Work, found: BatchPlan) -> list[str]:
    """What a run would do.

    Args:
        work: The manifest.
        found: The plan of the run.
    """
    counts = in_words(count_stages(step.found.value for step in found.steps))
    refused = [
        f"It would not begin with row {work.rows[place]} ({work.names[place]}): {as_options(step.problem)}"
        for place, step in enumerate(found.steps)
        if step.problem
    ]
    return [
        f"{number(len(found.steps), 'job')}: {counts}",
        f"A run would submit {number(found.submissions, 'video')}.",
        *refused,
    ]


def ambiguity(work: Work, error: AmbiguousJobsError) -> UsageError:
    """What an ambiguous batch is told about, by the rows of its manifest."""
    labels = [f"row {work.rows[place]} ({work.names[place]})" for place, _ in error.pairs]
    first, *others = ambiguity_lines(labels, [entry for _, entry in error.pairs])
    problem = UsageError(first)
    for line in others:
        problem.add_note(as_options(line))
    return problem


def as_options(text: str) -> str:
    """What an error says, as on the command line: with options, and with paths as short as the user writes them."""
    text = text.replace(f"{os.getcwd()}{os.sep}", "")  # noqa: PTH109  # a string, to be found in others
    text = re.sub(r"\b(overwrite|new_token|resubmit_failed)=True", lambda m: "--" + m[1].replace("_", "-"), text)
    text = re.sub(r'\brecordings="(same|new)"', r"--\1-recordings", text)
    return re.sub(r"\blimit=(\d+)", r"--limit \1", text)


def state_told(error: A2VError) -> str:
    """The state in which an error of a batch leaves its job, for those who see the job end."""
    if isinstance(error, SubmissionUnknownError):
        return JobState.UNKNOWN.value
    if isinstance(error, WaitTimeoutError):
        return JobState.SUBMITTED.value
    return JobState.LOST.value if is_lost(error) else JobState.FAILED.value


def _words(error: A2VError) -> str:
    return as_options(str(error)).strip() or type(error).__name__
