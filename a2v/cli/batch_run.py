"""``a2v batch`` and ``a2v journal``: run a manifest, summarize it, and say how to continue."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from attrs import asdict, define, evolve, field, frozen

from a2v import (
    A2VError,
    AmbiguousJobsError,
    AsyncA2V,
    ConfigurationError,
    DownloadError,
    Job,
    JobState,
    JournalError,
    ManifestError,
    SubmissionUnknownError,
    read_journal,
)
from a2v._async.batch.journal import check_account
from a2v._async.batch.lock_file import is_in_use
from a2v._async.batch.planning import plan_dry_run
from a2v._core.batch_options import BatchOptions
from a2v._core.job_matching import job_digest, repeated_jobs
from a2v._core.speakers import Speakers
from a2v._unicode_paths import find_existing
from a2v.cli.batch_manifest import BatchManifest, BatchSource
from a2v.cli.captions import captions_flag, read_ways, with_captions
from a2v.cli.connection import account, check_budget, connect, read_token
from a2v.cli.engine_folder import remove_copies
from a2v.cli.events import (
    BatchProgress,
    BatchSummary,
    DryRunPlan,
    EventStream,
    JobEnded,
    JournalListed,
    Warned,
)
from a2v.cli.job_status import IN_PROGRESS, JobStatus, count_stages, format_counts
from a2v.cli.logs import log_command
from a2v.cli.options import BatchFlags, ServerOptions, StagingOptions, UsageError, VideoFlags, in_cli_terms
from a2v.cli.recordings import (
    copied_path,
    copy_recording,
    open_staging,
    out_of_reach,
    read_background,
    staged_url,
    upload_recordings,
)
from a2v.cli.renderers import Renderer, open_renderer
from a2v.cli.report import check_report, write_report
from a2v.cli.speaking import list_speakers, local_speakers
from a2v.cli.targets import check_folder, check_videos, output_folder
from a2v.cli.terminal import eprint, plural, quote_path
from a2v.cli.tracking import continues, emit_repeatedly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from a2v import AsyncBatch, JournalEntry

JOURNAL = "a2v-batch.db"
ENGINE_FOLDER = "a2v-engine"
# The queue of a local engine is bounded.
_MAX_LOCAL = 500
# Stores sign URLs for a week at most, and the last row waits for all others.
_STAGED_DAYS = 7
_MAX_LISTED = 10
_DRY_RUN_TIMEOUT = 15.0  # seconds
_NOT_BEGUN = "a2v: interrupted before the batch began"
_SQLITE = b"SQLite format 3\0"


async def run_batch(  # noqa: PLR0917  # the groups of options
    source: BatchSource,
    folder: Path,
    flags: BatchFlags,
    staging: StagingOptions,
    server: ServerOptions,
    video: tuple[VideoFlags, str | None, Sequence[str]] = (VideoFlags(), None, ()),
) -> None:
    """Run a batch, or print the plan of the run for a dry run.

    Args:
        source: The jobs.
        folder: The folder of the videos.
        flags: The options of the batch.
        staging: How the server gets at recordings on this machine.
        server: The server.
        video: How the videos look, their container if it is chosen, and their captions. The options of a row come first.

    Raises:
        UsageError: The batch cannot begin. Nothing was submitted.
        ManifestError: The manifest has errors. Nothing was submitted.
        SubmissionUnknownError: The outcome of some submissions is unknown.
        A2VError: Some jobs are not done.
    """
    server.check()
    log_command(server.verbose)
    looks, container, captions = video
    ways = read_ways(captions)
    again = f"  {continuation(source, folder, flags, staging, server, video)}"
    own_engine = folder / ENGINE_FOLDER if server.local and not server.data_dir else None
    if own_engine:
        # With a data folder, so that the renders of an interrupted batch are not lost.
        server = evolve(server, data_dir=own_engine)
        # The folder is removed when all jobs are done, and with it the token that the journal knows.
        flags = evolve(flags, new_token=flags.new_token or not own_engine.exists())
    journal = find_existing(flags.journal) if flags.journal else folder / JOURNAL
    _check_paths(source, folder, journal, flags, server)
    async with AsyncExitStack() as stack:
        connection = _Connection(server, stack)
        try:
            manifest = await _read(source, journal, staging, connection, dry_run=flags.dry_run)
        except anyio.get_cancelled_exc_class():
            eprint(_NOT_BEGUN)
            raise
        # Its copy for a local engine is made by the run.
        background, _ = read_background(looks.background, server, dry_run=True)
        manifest = with_captions(manifest, source, ways)
        manifest = _with_options(manifest, looks.options(container=container, background=background))
        if flags.report:
            check_report(flags.report, manifest.needed, folder)
        if flags.overwrite:
            check_videos(manifest, folder, source.needed)
        options = flags.to_options(folder, journal, manifest.keys)
        if server.local and options.max_in_flight is None:
            options = evolve(options, max_in_flight=_MAX_LOCAL)
        renderer = open_renderer(as_json=server.as_json)
        events = EventStream(renderer.render, "reading the journal and the folder")
        for notice in manifest.notices:
            events.emit(Warned(notice))
        run = _BatchRun(manifest, options, journal, flags.report, staging, connection, events, again)
        if flags.dry_run:
            await run.dry_run()
            return
        await run.check_quota()
        with output_folder(folder):
            try:
                read_background(looks.background, server)
                await run.run(renderer)
            finally:
                if own_engine:
                    run.remove_copies(own_engine)


def continuation(  # noqa: PLR0917  # the groups of options
    source: BatchSource,
    folder: Path,
    flags: BatchFlags,
    staging: StagingOptions,
    server: ServerOptions,
    video: tuple[VideoFlags, str | None, Sequence[str]],
) -> str:
    """Return the command that continues a batch, with all options except those that concern one run only."""
    looks, container, captions = video
    format_flags = (f" --container {container}" if container else "") + captions_flag(read_ways(captions))
    return (
        f"{source.command} -o {quote_path(folder)}{looks.flags}{format_flags}{flags.flags}{staging.flags}{server.flags}"
    )


@define(eq=False)
class _Connection:
    """The connection of a batch to its server.

    It is made when it is first needed, so that a manifest with errors needs no token, and once, so that there is one rate limit.

    Attributes:
        server: The server.
        stack: Closes the client.
    """

    server: ServerOptions
    stack: AsyncExitStack
    _client: AsyncA2V | None = field(default=None, init=False)

    async def for_jobs(self, stack: AsyncExitStack) -> AsyncA2V:
        """Return the client of the jobs. A local engine stops at the end of the stack."""
        if self.server.local:
            return await stack.enter_async_context(connect(self.server, []))
        return await self.for_questions()

    async def for_questions(self) -> AsyncA2V:
        """Return a client of a server elsewhere, also for what is asked before the batch begins."""
        if self._client is None:
            self._client = await self.stack.enter_async_context(connect(self.server, []))
        return self._client


def _check_paths(source: BatchSource, folder: Path, journal: Path, flags: BatchFlags, server: ServerOptions) -> None:
    """Check what can be checked before the server is asked for its characters."""
    source.check_folder(folder)
    check_folder(folder)
    if server.data_dir:
        check_folder(server.data_dir, "--data-dir")
    if server.characters and not server.characters.is_dir():
        raise UsageError(f"--characters: there is no folder {server.characters}")
    if not server.local:
        read_token(server.token_file)
        check_budget(server)
    check_folder(journal.parent, "--journal")
    if journal.is_dir():
        raise UsageError(f"--journal: {journal} is a folder; give the name of a file in it")
    _check_journal(journal)
    if flags.report:
        token = [Path(server.token_file)] if server.token_file else []
        check_report(flags.report, [*source.needed, journal, *token], folder)
    if not flags.dry_run:
        _check_not_running(journal)


def _check_journal(journal: Path) -> None:
    """Refuse another file before a lock file is made beside it. The batch itself reports damaged journals."""
    with suppress(OSError), journal.open("rb") as file:
        start = file.read(len(_SQLITE))
        if start and start != _SQLITE:
            raise UsageError(f"--journal: {journal} is not a journal: choose another name for it")


def _entries(journal: Path) -> list[JournalEntry]:
    """Return the entries of a journal; none if it cannot be read, which the batch reports."""
    with suppress(JournalError):
        return read_journal(journal) if journal.exists() else []
    return []


def _check_not_running(journal: Path) -> None:
    if is_in_use(journal):
        raise UsageError(f"this batch is already running: another process is using {journal}")


async def _read(
    source: BatchSource, journal: Path, staging: StagingOptions, connection: _Connection, *, dry_run: bool
) -> BatchManifest:
    """Read the jobs, and ask the server for its characters if the jobs have ids that it has not accepted before."""
    entries = _entries(journal)
    numbered = bool(entries) and not any(entry.job.name for entry in entries)
    reader = source.reader(connection.server, staged=bool(staging.bucket(connection.server)), numbered=numbered)
    accepted = _accepted_speakers(entries)
    found: BatchManifest | ManifestError | UsageError
    try:
        found = reader.read()
    except (ManifestError, UsageError) as error:
        found = error
    named = reader.named
    if unknown := {column for column, ids in named.items() if not ids <= accepted[column]}:
        try:
            speakers = await _ask_for_speakers(connection, unknown, accepted, dry_run=dry_run)
        except (A2VError, UsageError) as error:
            if isinstance(found, Exception):
                raise found from None
            # A run would not begin, either, unless the server cannot be reached or there is no token yet.
            if not dry_run or connection.server.local or isinstance(error, ConfigurationError):
                raise
            return evolve(found, notices=[*found.notices, f"the characters were not checked: {error}"])
        is_known = all(speakers.has(column, text) for column, texts in named.items() for text in texts)
        if isinstance(found, Exception) or not is_known:
            return reader.read(speakers)
    if isinstance(found, Exception):
        raise found
    return found


def _accepted_speakers(entries: Sequence[JournalEntry]) -> dict[str, set[str]]:
    """Return the characters and poses of submitted jobs, by column. The server may no longer have them."""
    jobs = [entry.job for entry in entries if entry.video_id]
    return {
        "model_id": {job.model_id for job in jobs if job.model_id},
        "pose_id": {job.pose_id for job in jobs if job.pose_id},
    }


async def _ask_for_speakers(
    connection: _Connection, columns: Collection[str], accepted: Mapping[str, set[str]], *, dry_run: bool
) -> Speakers:
    """Return the characters and poses of the server, and those that it has accepted before."""
    if connection.server.local:
        # Without an engine: if there are errors, the batch leaves no folder behind.
        offered = Speakers.of(await local_speakers(connection.server))
    else:
        connected = await connection.for_questions()
        client = connected.with_options(timeout=_DRY_RUN_TIMEOUT, max_retries=0) if dry_run else connected
        offered = Speakers.of(await list_speakers(client, columns))
    ids = {column: [*ids, *sorted(accepted[column])] for column, ids in offered.ids.items()}
    return Speakers(ids, offered.names)


def show_journal(path: Path, *, as_json: bool) -> None:
    """Print the entries of a journal, also of a running batch.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        entries = read_journal(path)
    except JournalError as error:
        raise UsageError(str(error)) from None
    jobs = [
        JobStatus(
            row=None,
            name=_label(entry),
            state=entry.state.value,
            video_id=entry.video_id,
            path=entry.path,
            error=entry.error,
            job=entry.job,
            source=entry.job.audio_url or "",
        )
        for entry in entries
    ]
    open_renderer(as_json=as_json).render(JournalListed(jobs))


@frozen
class _BatchRun:
    """One run.

    Attributes:
        manifest: The jobs.
        options: The options of the batch.
        journal: The journal.
        report: The file of the report, if one is written.
        staging: How the server gets at recordings on this machine.
        connection: The connection to the server.
        events: Gets each event.
        again: The command that continues the batch.
        errors: The errors of jobs so far.
    """

    manifest: BatchManifest
    options: BatchOptions
    journal: Path
    report: Path | None
    staging: StagingOptions
    connection: _Connection
    events: EventStream
    again: str
    errors: dict[int, str] = field(factory=dict)

    @property
    def server(self) -> ServerOptions:
        """The server."""
        return self.connection.server

    async def check_quota(self) -> None:
        """Check the quota before recordings are uploaded or copied.

        Raises:
            UsageError: The run would need more.
        """
        if self.options.quota is not None:
            jobs = await self._with_expected_audio()
            with self._usage_errors():
                plan_dry_run(jobs, self.options)

    async def run(self, renderer: Renderer) -> None:
        """Run the batch. Its display is removed before the summary."""
        begun, earlier, since = False, 0, time.monotonic()
        urls = [job.audio_url for job in self.manifest.jobs if job.audio_url]
        try:
            async with open_staging(self.staging, self.server, urls, self.events, days=_STAGED_DAYS) as stage:
                with renderer:
                    async with AsyncExitStack() as stack:
                        batch = await self._begin(stack, await self._with_reachable_audio(stage))
                        begun, earlier = True, batch.progress.done
                        await stack.enter_async_context(progress_events(batch, self.events))
                        self._warn_of_missing_rows(batch)
                        async for outcome in batch:
                            job = self.manifest.outcome_status(outcome)
                            if job.error:
                                self.errors[outcome.index] = job.error
                            # First the counts, which are redrawn below the line of the job.
                            self.events.emit(BatchProgress(batch.progress, await batch.pace(), batch.downloads))
                            self.events.emit(JobEnded(job))
                            if outcome.ok and outcome.video and outcome.video.message:
                                label = self.manifest.label(outcome.index)
                                self.events.emit(Warned(f"{label}: {outcome.video.message}"))
                jobs = self._statuses()
                self.events.emit(self._summary(jobs, earlier, time.monotonic() - since))
                # Within the block, which deletes staged recordings unless an error leaves it.
                self._raise_if_not_done(jobs)
        except anyio.get_cancelled_exc_class():
            if begun:
                self._print_hints("interrupted")
            else:
                eprint(_NOT_BEGUN)
            raise
        except BrokenPipeError:
            if begun:
                self._print_hints("stdout was closed")
            raise

    def _summary(self, jobs: Sequence[JobStatus], earlier: int, seconds: float) -> BatchSummary:
        folder = self.options.save_to or self.journal.parent
        return BatchSummary(count_stages(job.state for job in jobs), earlier, seconds, folder, self.report)

    async def dry_run(self) -> None:
        """Print the plan of the run.

        Raises:
            UsageError: The run would not begin.
        """
        await self._check_uploads()
        jobs = await self._with_expected_audio()
        self._warn_of_repeated(jobs)
        with self._usage_errors():
            try:
                self._check_account()
                plan = plan_dry_run(jobs, self.options)
            except A2VError:
                self.events.emit(DryRunPlan(counts=None, submissions=0))
                raise
        self.events.emit(self.manifest.dry_run_plan(plan))

    def remove_copies(self, folder: Path) -> None:
        """Remove what the local engine keeps of jobs that are done."""
        if not is_in_use(self.journal):
            remove_copies(folder, _entries(self.journal))

    async def _check_uploads(self) -> None:
        """Check that the server accepts uploads, if there are any and it can be asked.

        Raises:
            UsageError: It does not.
        """
        if not self.manifest.uploads:
            return
        try:
            connected = await self.connection.for_questions()
            accepted = await connected.with_options(timeout=_DRY_RUN_TIMEOUT, max_retries=0).accepts_uploads()
        except (A2VError, UsageError) as error:
            self.events.emit(Warned(f"whether the server accepts uploads was not checked: {error}"))
            return
        if not accepted:
            raise out_of_reach(str(next(iter(self.manifest.uploads.values()))))

    def _check_account(self) -> None:
        found = account(self.server)
        if found and self.journal.exists():
            base_url, token = found
            check_account(self.journal, base_url=base_url, token=token, new_token=self.options.new_token)

    @contextmanager
    def _usage_errors(self) -> Iterator[None]:
        """Turn the reasons why a batch does not begin into usage errors."""
        try:
            yield
        except AmbiguousJobsError as error:
            raise self.manifest.explain_ambiguity(error) from None
        except (JournalError, DownloadError, ConfigurationError) as error:
            raise UsageError(in_cli_terms(str(error))) from None

    async def _begin(self, stack: AsyncExitStack, jobs: list[Job]) -> AsyncBatch:
        # Before a local engine starts: it would refuse a data folder in use, and its message does not mention the batch.
        _check_not_running(self.journal)
        self._warn_of_repeated(jobs)
        client = await self.connection.for_jobs(stack)
        await upload_recordings(client, self.manifest.uploads.values(), self.events, later=True)
        batch = client.batch(jobs, **asdict(self.options, recurse=False))
        with self._usage_errors():
            return await stack.enter_async_context(batch)

    async def _with_reachable_audio(self, stage: Callable[[str], Awaitable[str]]) -> list[Job]:
        """Return the jobs with audio URLs that the server can fetch, the same in every run."""
        files = self.manifest.files
        if folder := self.server.recordings:
            return self._with_copies(files, folder)
        return self._with_audio(await _stage_all(stage, files))

    def _with_copies(self, files: Mapping[str, Path], folder: Path) -> list[Job]:
        """Return the jobs with the URLs of copies for the local engine, which needs none for saved videos."""
        entries = [entry for entry in _entries(self.journal) if entry.state is JobState.DONE]
        saved = Counter(job_digest(entry.job) for entry in entries if entry.path and Path(entry.path).exists())
        jobs = self._with_audio({url: copied_path(path, folder).as_uri() for url, path in files.items()})
        for given, job in zip(self.manifest.jobs, jobs, strict=True):
            digest = job_digest(job)
            if given.audio_url and given.audio_url in files and saved[digest] <= 0:
                copy_recording(files[given.audio_url], folder)
            saved[digest] -= 1
        return jobs

    async def _with_expected_audio(self) -> list[Job]:
        """Return the jobs of ``_with_reachable_audio``, without copies and uploads."""
        files = self.manifest.files
        if folder := self.server.recordings:
            return self._with_audio({url: copied_path(path, folder).as_uri() for url, path in files.items()})
        return self._with_audio({url: await staged_url(self.staging, self.server, url) for url in files})

    def _with_audio(self, urls: Mapping[str, str]) -> list[Job]:
        return [
            _with_audio(job, urls[url]) if (url := job.audio_url) and url in urls else job for job in self.manifest.jobs
        ]

    def _warn_of_repeated(self, jobs: Sequence[Job]) -> None:
        groups = repeated_jobs(jobs)
        for places in groups[:_MAX_LISTED]:
            self.events.emit(Warned(self.manifest.identical(places)))
        if len(groups) > _MAX_LISTED:
            self.events.emit(Warned(f"and {plural(len(groups) - _MAX_LISTED, 'more group')} of such jobs"))

    def _warn_of_missing_rows(self, batch: AsyncBatch) -> None:
        # The others were replaced: their recording has changed.
        gone = [entry for entry in batch.gone if entry.job.name not in self.manifest.names]
        if gone:
            named = ", ".join(_label(entry) for entry in gone[:_MAX_LISTED])
            more = f" and {len(gone) - _MAX_LISTED} more" if len(gone) > _MAX_LISTED else ""
            count = plural(len(gone), "job")
            where = "in the manifest" if self.manifest.rows else "among the recordings"
            text = f"in the journal but no longer {where}: {count}, left unchanged: {named}{more}"
            self.events.emit(Warned(text))

    def _statuses(self) -> list[JobStatus]:
        return self.manifest.journal_statuses(read_journal(self.journal)[: len(self.manifest.jobs)], self.errors)

    def _print_hints(self, reason: str) -> None:
        jobs = self._statuses()
        counts = count_stages(job.state for job in jobs)
        lines = [f"a2v: {reason}: {format_counts(counts)}"]
        if counts[IN_PROGRESS]:
            lines.append(continues(self.server))
        if counts["unknown"]:
            lines.append("The unknown submission was in flight: it may or may not have been accepted.")
        eprint(*lines, f"The state of each job is saved in {self.journal}. Continue with:", self.again)
        self._write_report(jobs)

    def _raise_if_not_done(self, jobs: Sequence[JobStatus]) -> None:
        """Write the report, and raise an error if a job is not done.

        Raises:
            A2VError: A job is not done, or the report cannot be written.
        """
        problem = _problem(jobs, self.again)
        if reason := self._write_report(jobs):
            problem = problem or A2VError(reason)
        if problem:
            raise problem

    def _write_report(self, jobs: Sequence[JobStatus]) -> str | None:
        """Write the report if there is to be one, and return the reason if that fails."""
        if self.report is None:
            return None
        try:
            write_report(self.report, jobs)
        except OSError as error:
            reason = f"the report {self.report} cannot be written: {error.strerror}"
            eprint(f"a2v: {reason}", colour="red")
            return reason
        return None


def progress_events(batch: AsyncBatch, events: EventStream) -> AbstractAsyncContextManager[None]:
    """Emit the progress of a batch twice a second for the length of a block."""

    async def progress() -> BatchProgress:
        return BatchProgress(batch.progress, await batch.pace(), batch.downloads)

    return emit_repeatedly(progress, events)


def _with_options(manifest: BatchManifest, options: dict[str, Any]) -> BatchManifest:
    if not options:
        return manifest

    def with_options(job: Job) -> Job:
        values: dict[str, Any] = asdict(job, recurse=False)
        values["options"] = options | dict(job.options)
        return Job(**values)

    return evolve(manifest, jobs=list(map(with_options, manifest.jobs)))


def _with_audio(job: Job, audio_url: str) -> Job:
    values: dict[str, Any] = asdict(job, recurse=False)
    values["audio_url"] = audio_url
    return Job(**values)


async def _stage_all(stage: Callable[[str], Awaitable[str]], files: Iterable[str]) -> dict[str, str]:
    """Stage files concurrently; raise the first error alone, not in a group."""
    urls: dict[str, str] = {}
    errors: list[A2VError] = []

    async def stage_one(url: str) -> None:
        try:
            urls[url] = await stage(url)
        except A2VError as error:
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for url in files:
            group.start_soon(stage_one, url)
    if errors:
        raise errors[0]
    return urls


_ADVICE = {
    "unknown": ("To submit one again, although it may be paid for twice, name its row:", " --resubmit-unknown ROW"),
    "unknown recording": (
        "To submit one again, although it may be paid for twice, give its name:",
        " --resubmit-unknown NAME",
    ),
    "failed": (
        "Correct what the reasons above name, then submit the failed and rejected jobs again:",
        " --resubmit-failed",
    ),
    "lost": ("To submit the jobs again whose video the server no longer has:", " --resubmit-failed"),
    "file exists": ("To replace the files named above (changed jobs are rendered again and paid for):", " --overwrite"),
    "": ("To continue:", ""),
}


def _problem(jobs: Sequence[JobStatus], again: str) -> A2VError | None:
    """Return the error that lists the jobs that are not done and the commands that help; ``None`` if all are done."""
    missing = [job for job in jobs if job.state != "done" and (job.error or job.state != "pending")]
    if not missing:
        return None
    unknown = [job for job in missing if job.state == "unknown"]
    total, others = plural(len(jobs), "job"), len(missing) - len(unknown)
    problem: A2VError
    if unknown:
        text = f"{len(unknown)} of {total} may or may not have been accepted"
        text += f", {others} more {_are(others)} not done" if others else ""
        problem = SubmissionUnknownError(f"{text}:", job=unknown[0].job)
    else:
        problem = A2VError(f"{others} of {total} {_are(others)} not done:")
    for job in missing:
        problem.add_note(f"  {job}")
    remedies = {_remedy(job) for job in missing}
    for remedy, (text, option) in _ADVICE.items():
        if remedy in remedies:
            problem.add_note("To continue with the others:" if not remedy and len(remedies) > 1 else text)
            problem.add_note(again + option)
    return problem


def _remedy(job: JobStatus) -> str:
    """Return the key of the advice for a job that is not done."""
    if job.state == "unknown" and job.row is None:
        return "unknown recording"
    if job.state in ("unknown", "failed", "lost"):
        return job.state
    if job.state == "rejected":
        return "failed"
    return "file exists" if job.error and "--overwrite" in job.error else ""


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _label(entry: JournalEntry) -> str:
    return entry.job.name or (Path(entry.path).stem if entry.path else entry.job.audio_url or str(entry.job.text))
