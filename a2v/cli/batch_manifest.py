"""The jobs of ``a2v batch``: from a table or from recordings, with their rows, files and names in messages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from attrs import asdict, evolve, field, frozen

from a2v import A2VError, Job, JobState, ManifestError, RowError, SubmissionUnknownError, WaitTimeoutError
from a2v._core import wire
from a2v._core.file_names import default_name, file_names, mask_name, name_key
from a2v._core.file_urls import path_from_url
from a2v._core.job_errors import is_lost, state_after
from a2v._core.job_matching import ambiguity_lines
from a2v._core.manifest_jobs import listed_rows
from a2v._core.url_signatures import without_query
from a2v._values.text import find_invisible, redacted_repr
from a2v.cli.events import DryRunPlan
from a2v.cli.job_status import JobStatus, count_stages
from a2v.cli.options import ServerOptions, SpeakerOptions, UsageError, in_cli_terms
from a2v.cli.recording_files import RecordingFiles, find_recordings, table_among
from a2v.cli.recordings import read_audio
from a2v.cli.terminal import plural, program, quote_path, shown_path
from a2v.cli.text_files import interruptible
from a2v.manifest import load

if TYPE_CHECKING:
    from a2v import AmbiguousJobsError, JournalEntry, Outcome
    from a2v._core.batch_plan import BatchPlan
    from a2v._core.speakers import Speakers

_RETYPE = ": delete it, or retype the text"
"""Advice for a cell, which the name of a file is not."""
_UNKNOWN = "it is not known whether the server accepted it"


@frozen
class BatchManifest:
    """A manifest without errors.

    Attributes:
        jobs: Its jobs.
        rows: The row number of each job; ``None`` if the jobs are recordings, not the rows of a table.
        names: The name of each job's file, without extension.
        sources: The recording of each job as the manifest has it, without credentials; empty if it has a text.
        notices: Warnings about how it was read.
        uploads: The recordings that the client uploads to the server, by their URLs.
        texts: The files that have the captions or the transcripts of recordings.
    """

    jobs: Sequence[Job]
    rows: Sequence[int] | None
    names: Sequence[str]
    sources: Sequence[str]
    notices: Sequence[str] = ()
    uploads: Mapping[str, Path] = field(factory=dict)
    texts: Sequence[Path] = ()

    @property
    def files(self) -> dict[str, Path]:
        """The paths of the recordings that are files on this machine, by their URLs."""
        urls = [job.audio_url for job in self.jobs if job.audio_url]
        return {url: path for url in urls if (path := path_from_url(url))}

    @property
    def needed(self) -> list[Path]:
        """The files on this machine of which the videos are made: recordings and their texts."""
        return [*self.files.values(), *self.uploads.values(), *self.texts]

    def label(self, index: int) -> str:
        """Return the name of a job in messages."""
        return f"row {self.rows[index]} ({self.names[index]})" if self.rows else self.names[index]

    def identical(self, places: Sequence[int]) -> str:
        """Say which jobs are identical."""
        shown = [str(self.rows[place]) if self.rows else self.names[place] for place in places]
        listed = f"{', '.join(shown[:-1])} and {shown[-1]}"
        return (
            f"{'rows' if self.rows else 'the recordings'} {listed} are identical: {len(places)} videos, each paid for"
        )

    @property
    def keys(self) -> dict[str, int]:
        """The jobs by what the user may call them: the numbers of rows, and names."""
        names = {name: index for index, name in enumerate(self.names)}
        return names | {str(row): index for index, row in enumerate(self.rows or ())}

    def status(self, index: int, state: str, **facts: str | None) -> JobStatus:
        """Return the status of a job."""
        return JobStatus(
            row=self.rows[index] if self.rows else None,
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
                # A file is in the way of a video that was saved under another name.
                "finished" if entry.state is JobState.DONE and index in errors else entry.state.value,
                video_id=entry.video_id,
                path=entry.path,
                error=errors.get(index) or entry.error or (_UNKNOWN if entry.state is JobState.UNKNOWN else None),
            )
            for index, entry in enumerate(entries)
        ]

    def dry_run_plan(self, plan: BatchPlan) -> DryRunPlan:
        """Summarize the plan of a run."""
        refusals = [
            f"A run would reject {self.label(index)}: {in_cli_terms(step.problem)}"
            for index, step in enumerate(plan.steps)
            if step.problem
        ]
        counts = count_stages(step.state_found.value for step in plan.steps)
        return DryRunPlan(counts, plan.submissions, refusals, plan.speeches)

    def explain_ambiguity(self, error: AmbiguousJobsError) -> UsageError:
        """Return the error of an ambiguous batch in terms of its rows and of options."""
        labels = [self.label(index) for index, _ in error.pairs]
        first, *others = ambiguity_lines(labels, [entry for _, entry in error.pairs])
        problem = UsageError(first)
        for line in others:
            problem.add_note(in_cli_terms(line))
        return problem


@frozen
class BatchSource:
    """Where the jobs of a batch come from: a table, or recordings of one speaker.

    Attributes:
        arguments: The arguments, as they were typed.
        speaker: Who speaks the recordings.
        table: The table, if it is one.
        recordings: The recordings, if there is no table.
    """

    arguments: Sequence[str]
    speaker: SpeakerOptions
    table: Path | None
    recordings: RecordingFiles

    @classmethod
    def of(cls, arguments: Sequence[str], speaker: SpeakerOptions, *, with_captions: bool = False) -> BatchSource:
        """Find out what the arguments name.

        Args:
            arguments: The arguments, as they were typed.
            speaker: Who speaks the recordings.
            with_captions: Whether the videos have captions.

        Raises:
            UsageError: They name nothing, or the options do not go with them.
        """
        if not arguments:
            raise UsageError("batch needs a table (.csv, .jsonl, .json or .xlsx), or a folder or files of recordings")
        table = table_among(arguments)
        if table and speaker.flags:
            raise UsageError(f"the rows of a table say who speaks: remove{speaker.flags}")
        if table:
            return cls(arguments, speaker, table, RecordingFiles())
        recordings = find_recordings(arguments, with_captions=with_captions)
        if not speaker.flags:
            count = plural(len(recordings.paths), "recording")
            raise UsageError(f"choose who speaks {count}: add --model-id (see `a2v characters`) or --pose-id")
        return cls(arguments, speaker, None, recordings)

    @property
    def needed(self) -> list[Path]:
        """The files that the batch must not replace, besides recordings."""
        return [self.table] if self.table else []

    @property
    def command(self) -> str:
        """The arguments as text, for the command that continues the batch."""
        return f"{program()} batch {' '.join(map(quote_path, self.arguments))}{self.speaker.flags}"

    def check_folder(self, folder: Path) -> None:
        """Check that the next run would not take the videos for recordings.

        Raises:
            UsageError: It would.
        """
        if any(os.path.realpath(folder) == os.path.realpath(one) for one in self.recordings.folders):
            raise UsageError(
                f"--output: {shown_path(folder)} is the folder of the recordings, and the next run would take the videos for"
                " recordings: choose another folder"
            )

    def reader(self, server: ServerOptions, *, staged: bool, numbered: bool) -> BatchReader:
        """Return the reader of the jobs.

        Args:
            server: The server that fetches the recordings.
            staged: Whether files are uploaded for the server.
            numbered: Whether earlier runs have numbered the videos.
        """
        # Without a data folder, so that nothing is copied to it yet.
        return BatchReader(self, evolve(server, data_dir=None), staged, numbered)


@frozen
class BatchReader:
    """Reads the jobs of a batch, for example once more when the characters are known: each recording is looked up once.

    Attributes:
        source: Where the jobs come from.
        server: The server that fetches the recordings.
        staged: Whether files are uploaded for the server.
        numbered: Whether earlier runs have numbered the videos of a table without names.
        named: The characters and poses that the jobs name, by column, once they are read.
    """

    source: BatchSource
    server: ServerOptions
    staged: bool
    numbered: bool
    named: dict[str, AbstractSet[str]] = field(factory=dict, init=False)
    _resolved: dict[str, str | ValueError] = field(factory=dict, init=False)
    _sources: dict[str, str] = field(factory=dict, init=False)
    _uploads: dict[str, Path] = field(factory=dict, init=False)
    _advice: dict[str, None] = field(factory=dict, init=False)

    def read(self, speakers: Speakers | None = None) -> BatchManifest:
        """Read the jobs. Paths in a table are relative to its folder.

        Args:
            speakers: The characters and poses that there are. ``None``: any id is accepted.

        Raises:
            ManifestError: There are errors.
            UsageError: It cannot be read.
        """
        if self.source.table:
            return self._read_table(self.source.table, speakers)
        return self._read_recordings(self.source.recordings, self.source.speaker, speakers)

    def _read_table(self, path: Path, speakers: Speakers | None) -> BatchManifest:
        def resolve(cell: str) -> str:
            if "://" in cell:
                return self._resolve(cell, without_query(cell))
            file = path.parent / cell
            # Written on Windows. Unlike the methods of a path, `exists` accepts a text that is too long for one.
            translated = path.parent / cell.replace("\\", os.sep)
            if not os.path.exists(file) and os.path.exists(translated):  # noqa: PTH110
                file = translated
            if not os.path.exists(file) and not file.is_absolute():  # noqa: PTH110  # as above
                self._advice[f"Paths in the table are relative to its folder, {path.parent.absolute()}"] = None
            return self._resolve(str(file), cell)

        try:
            with interruptible():
                found = load(path, resolve, speakers)
        except (OSError, ImportError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"the manifest {path} cannot be read: {reason}") from None
        self.named.update(found.speakers)
        notices = []
        if found.encoding:
            notices.append(
                f"{path} is not UTF-8; it was read as {found.encoding}. If letters are wrong, save it as UTF-8"
                ' (in Excel "CSV UTF-8 (Comma delimited)") or as .xlsx'
            )
        if found.hidden:
            notices.append(f"{path}: hidden rows were skipped: {listed_rows(found.hidden)}")
        notices += [
            f"{path}: a2v does not use the column {header!r}; did you mean {column!r}?"
            for header, column in found.misspelled.items()
        ]
        self._advice.update(dict.fromkeys(notices))
        self._raise(f"the manifest {path}", found.errors)
        jobs = found.jobs
        if not self.numbered and "name" not in found.columns:
            jobs = _named(jobs, [self._sources[job.audio_url] if job.audio_url else "" for job in jobs])
        return self._manifest(jobs, found.rows, notices)

    def _read_recordings(
        self, recordings: RecordingFiles, speaker: SpeakerOptions, speakers: Speakers | None
    ) -> BatchManifest:
        taken: dict[str, Path] = {}
        rows, errors = [], []
        for path in recordings.paths:
            first = taken.setdefault(name_key(path.stem), path)
            if first is not path:
                problem = f"it has the same name as {shown_path(first)}, and so would their videos: rename one"
                errors.append(RowError(None, shown_path(path), problem))
            rows.append(speaker.columns | {"audio_url": str(path), "name": path.stem if first is path else None})
        found = load(rows, lambda cell: self._resolve(cell, cell), speakers)
        self.named.update(found.speakers)
        for error in found.errors:
            if error.column in speaker.columns or error.row is None:
                # The same for all recordings.
                raise UsageError(f"--{str(error.column).replace('_', '-')}: {error.problem}")
            path = recordings.paths[error.row - 1]
            if error.column == "name" and find_invisible(path.name, is_name=True):
                continue  # the same as for the path
            problem = error.problem.replace(redacted_repr(str(path)), "it", 1).replace(_RETYPE, ": rename it")
            errors.append(RowError(None, shown_path(path), problem))
        self._raise("the batch", tuple(errors))
        return self._manifest(found.jobs, None, recordings.notices)

    def _resolve(self, audio: str, source: str) -> str:
        if audio not in self._resolved:
            self._resolved[audio] = self._read_audio(audio)
        url = self._resolved[audio]
        if isinstance(url, ValueError):
            raise url
        self._sources[url] = source
        return url

    def _read_audio(self, audio: str) -> str | ValueError:
        try:
            url, paths = read_audio(audio, self.server, staged=self.staged)
        except UsageError as error:
            self._advice.update(dict.fromkeys(getattr(error, "__notes__", ())))
            return ValueError(str(error))
        self._uploads.update((url, path) for path in paths if url.startswith(wire.UPLOAD))
        return url

    def _raise(self, what: str, errors: Sequence[RowError]) -> None:
        if errors:
            problem = ManifestError(what, faults=tuple(errors))
            for line in self._advice:
                problem.add_note(line)
            raise problem

    def _manifest(self, jobs: Sequence[Job], rows: Sequence[int] | None, notices: Sequence[str]) -> BatchManifest:
        sources = [self._sources[job.audio_url] if job.audio_url else "" for job in jobs]
        return BatchManifest(jobs, rows, file_names(jobs), sources, notices, self._uploads)


def _named(jobs: Sequence[Job], sources: Sequence[str]) -> list[Job]:
    """Name jobs after their recordings. A job whose recording has no usable name of its own keeps its number."""
    stems = [_stem(source) for source in sources]
    uses = Counter(name_key(stem) for stem in stems)
    uses.update(name_key(mask_name(stem)) for stem, job in zip(stems, jobs, strict=True) if job.with_mask)
    named = {place for place, stem in enumerate(stems) if uses[name_key(stem)] == 1 and _is_name(stem)}
    clashing = named
    while clashing:
        numbers = [default_name(place) for place in range(len(jobs)) if place not in named]
        reserved = {name_key(name) for number in numbers for name in (number, mask_name(number))}
        clashing = {place for place in named if reserved & {name_key(stems[place]), name_key(mask_name(stems[place]))}}
        named = named - clashing
    return [_with_name(job, stems[place]) if place in named else job for place, job in enumerate(jobs)]


def _stem(source: str) -> str:
    path = unquote(urlsplit(source).path) if "://" in source else source.replace("\\", "/")
    return PurePosixPath(path).stem


def _is_name(stem: str) -> bool:
    try:
        Job("m", "https://example.com/a", stem)
    except ValueError:
        return False
    return bool(stem)


def _with_name(job: Job, name: str) -> Job:
    values: dict[str, Any] = asdict(job, recurse=False)
    values["name"] = name
    return Job(**values)


def _state_after(error: A2VError) -> JobState:
    """Return the state in which an error leaves its job."""
    if isinstance(error, SubmissionUnknownError):
        return JobState.UNKNOWN
    if isinstance(error, WaitTimeoutError):
        return JobState.SUBMITTED
    if is_lost(error):
        return JobState.LOST
    # Without a video, the server refused the submission, or the run did.
    return JobState.FAILED if error.video_id else state_after(error, sent=False)


def _message(error: A2VError) -> str:
    return in_cli_terms(str(error)).strip() or type(error).__name__
