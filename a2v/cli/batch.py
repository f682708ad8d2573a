"""``a2v batch`` and ``a2v journal``: what a manifest asks for, the run of it, and what is said at the end."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import anyio
from attrs import asdict, evolve, frozen
from cyclopts import Parameter, validators

from a2v import (
    A2VError,
    ConfigurationError,
    DownloadError,
    Job,
    JobState,
    JournalError,
    ManifestError,
    SubmissionUnknownError,
    read_journal,
)
from a2v._core.items import without_query
from a2v._core.manifest import file_names, repeated
from a2v.cli.output import say
from a2v.cli.report import check_report, write_report
from a2v.cli.server import Flag, Server, UsageError, keep, read_audio
from a2v.cli.staging import Staging
from a2v.cli.table import Standing, open_batch_output, print_journal
from a2v.manifest import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from a2v import AsyncBatch, JournalEntry, Outcome
    from a2v.cli.table import BatchOutput

JOURNAL = "a2v-batch.db"
ENGINE = "a2v-engine"
# What a local engine lets wait is bounded.
_MOST_LOCAL = 500
# Days for which a staged recording can be fetched: as long as stores allow, for the last row waits long.
_STAGED_FOR = 7
_SHOWN = 10
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
        resubmit_failed: Submit jobs again whose render failed, or which the server refused.
        repeat: Show outcomes again that an earlier run has shown.
        new_token: The account has another token than when the journal was last used.
        report: Write what became of each row to a file, which ends in .csv or .json.
    """

    journal: Path | None = None
    overwrite: Flag = False
    max_in_flight: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None
    limit: _Count = None
    quota: _Count = None
    dry_run: Flag = False
    resubmit_unknown: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    resubmit_failed: Flag = False
    repeat: Flag = False
    new_token: Flag = False
    report: Path | None = None

    @property
    def flags(self) -> str:
        """The options of the command that continues. What was chosen for one run is not chosen for the next."""
        given = {"--journal": self.journal, "--max-in-flight": self.max_in_flight, "--report": self.report}
        flags = "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value)
        return flags + (" --overwrite" if self.overwrite else "")


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
        state = "done" if outcome.ok else "unknown" if isinstance(error, SubmissionUnknownError) else "failed"
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


async def make_batch(manifest: Path, folder: Path, plan: Plan, staging: Staging, server: Server) -> None:
    """Work a manifest through.

    Raises:
        UsageError: The batch cannot begin. Nothing was submitted.
        ManifestError: The same, for what is wrong with the manifest.
        SubmissionUnknownError: Of some jobs nobody knows whether they were accepted.
        A2VError: Some jobs are not done.
    """
    server.check()
    if plan.report:
        check_report(plan.report)
    again = f"  a2v batch {shlex.quote(str(manifest))} -o {shlex.quote(str(folder))}{plan.flags}{staging.flags}{server.flags}"
    if server.local and not server.data_dir:
        # An engine that forgets would lose what an interrupted batch has made so far.
        server = evolve(server, data_dir=folder / ENGINE)
    work = Work.read(manifest, server, staged=bool(staging.place(server)))
    _warn_of_repeated(work)
    journal = plan.journal or folder / JOURNAL
    if plan.dry_run:
        known = _read(journal) if journal.exists() else []
        open_batch_output(as_json=server.as_json).remark(*_foretell(work, plan, known))
        return
    await _Run(work, plan, staging, server, folder, journal, again).go()


def show_journal(path: Path, *, as_json: bool) -> None:
    """Print what a journal knows, also while a batch works with it.

    Raises:
        UsageError: It cannot be read.
    """
    entries = _read(path)
    ones = [
        Standing(
            row=None,
            name=entry.job.name or (Path(entry.path).stem if entry.path else entry.job.audio_url),
            state=entry.state.value,
            video_id=entry.video_id,
            path=entry.path,
            error=entry.error,
            job=entry.job,
            source=entry.job.audio_url,
        )
        for entry in entries
    ]
    print_journal(ones, as_json=as_json)
    if not as_json:
        say(f"{len(ones)} jobs: {_in_words(Counter(_stage(one.state) for one in ones))}")


def _read(journal: Path) -> list[JournalEntry]:
    try:
        return read_journal(journal)
    except JournalError as error:
        raise UsageError(str(error)) from None


@frozen
class _Run:
    work: Work
    plan: Plan
    staging: Staging
    server: Server
    folder: Path
    journal: Path
    again: str

    async def go(self) -> None:
        errors: dict[int, str] = {}
        out = open_batch_output(as_json=self.server.as_json)
        begun = False
        urls = [job.audio_url for job in self.work.jobs]
        try:
            async with self.staging.open(self.server, *urls, days=_STAGED_FOR) as reach:
                with out:
                    async with AsyncExitStack() as stack:
                        batch = await self._begin(stack, await self._reachable(reach, out))
                        begun = True
                        await stack.enter_async_context(out.following(batch))
                        _tell_what_is_gone(batch)
                        async for outcome in batch:
                            one = self.work.outcome(outcome)
                            if one.error:
                                errors[outcome.index] = one.error
                            out.show(one)
                ones = self._standings(errors)
                out.remark(_in_words(Counter(_stage(one.state) for one in ones)))
                # Here, as what is staged may be removed only when all is done.
                self._judge(ones)
        except anyio.get_cancelled_exc_class():
            if begun:
                self._interrupted(self._standings(errors))
            else:
                say("a2v: interrupted before the batch began")
            raise

    async def _begin(self, stack: AsyncExitStack, jobs: list[Job]) -> AsyncBatch:
        client = await stack.enter_async_context(self.server.connect([]))
        plan = self.plan
        batch = client.batch(
            jobs,
            save_to=self.folder,
            journal=self.journal,
            overwrite=plan.overwrite,
            max_in_flight=plan.max_in_flight or (_MOST_LOCAL if self.server.local else None),
            limit=plan.limit,
            quota=plan.quota,
            resubmit_unknown=_chosen(plan.resubmit_unknown, self.work.rows),
            resubmit_failed=plan.resubmit_failed,
            repeat=plan.repeat,
            new_token=plan.new_token,
        )
        try:
            return await stack.enter_async_context(batch)
        except (JournalError, DownloadError, ConfigurationError) as error:
            raise UsageError(_as_options(str(error))) from None

    async def _reachable(self, reach: Callable[[str, BatchOutput], Awaitable[str]], out: BatchOutput) -> list[Job]:
        """The jobs, with recordings where the server can get at them, under a name that is the same in every run."""
        reached: dict[str, str] = {}
        errors: list[A2VError] = []

        async def see_to(url: str) -> None:
            try:
                reached[url] = await reach(url, out)
            except A2VError as error:
                errors.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for url in dict.fromkeys(job.audio_url for job in self.work.jobs):
                if url.startswith("file:") and self.server.recordings:
                    reached[url] = keep(Path(url2pathname(urlsplit(url).path)), self.server.recordings).as_uri()
                elif url.startswith("file:"):
                    group.start_soon(see_to, url)
        if errors:
            raise errors[0]
        return [_with_audio(job, reached.get(job.audio_url, job.audio_url)) for job in self.work.jobs]

    def _standings(self, errors: dict[int, str]) -> list[Standing]:
        return self.work.standings(read_journal(self.journal)[: len(self.work.jobs)], errors)

    def _interrupted(self, ones: Sequence[Standing]) -> None:
        counts = Counter(_stage(one.state) for one in ones)
        lines = [f"a2v: interrupted: {_in_words(counts)}"]
        if counts["under way"]:
            engine = f"The local engine stopped with this command, but keeps its tasks in {self.server.data_dir}."
            lines.append(engine if self.server.local else "What was submitted goes on at the server.")
        if counts["unknown"]:
            lines.append("What is unknown was being submitted: it may or may not have been accepted.")
        say(*lines, f"Nothing is lost: {self.journal} knows how far each job is. Continue with:", self.again)
        self._report(ones)

    def _judge(self, ones: Sequence[Standing]) -> None:
        """Tell what is not done and why.

        Raises:
            A2VError: Something is not.
        """
        problem = _problem(ones, self.again)
        if reason := self._report(ones):
            problem = problem or A2VError(reason)
        if problem:
            raise problem

    def _report(self, ones: Sequence[Standing]) -> str | None:
        if self.plan.report is None:
            return None
        try:
            write_report(self.plan.report, ones)
        except OSError as error:
            reason = f"the report {self.plan.report} cannot be written: {error.strerror}"
            say(f"a2v: {reason}")
            return reason
        return None


def _with_audio(job: Job, audio_url: str) -> Job:
    facts: dict[str, Any] = asdict(job, recurse=False)
    facts["audio_url"] = audio_url
    return Job(**facts)


def _problem(ones: Sequence[Standing], again: str) -> A2VError | None:
    missing = [one for one in ones if one.state != "done" and (one.error or one.state != "pending")]
    if not missing:
        return None
    states = {one.state for one in missing}
    doubts = [one for one in missing if one.state == "unknown"]
    problem: A2VError
    if doubts:
        about = f"{len(doubts)} of {len(ones)} jobs may or may not have been accepted"
        about += f", {len(missing) - len(doubts)} more are not done" if len(missing) > len(doubts) else ""
        problem = SubmissionUnknownError(f"{about}:", job=doubts[0].job)
    else:
        problem = A2VError(f"{len(missing)} of {len(ones)} jobs are not done:")
    for one in missing:
        problem.add_note(f"  {one}")
    advice = {
        "unknown": ("To submit one again, and perhaps pay for it twice, name its row:", " --resubmit-unknown ROW"),
        "failed": ("To submit those again whose render failed or that the server refused:", " --resubmit-failed"),
        "": ("To go on with those that are neither:", ""),
    }
    kinds = {"failed" if state == "rejected" else state if state in advice else "" for state in states}
    for kind, (words, option) in advice.items():
        if kind in kinds:
            problem.add_note(words)
            problem.add_note(again + option)
    return problem


_STAGES = {"done": "done", "failed": "failed", "rejected": "failed", "unknown": "unknown", "pending": "not submitted"}


def _stage(state: str) -> str:
    return _STAGES.get(state, "under way")


def _in_words(counts: Counter[str]) -> str:
    stages = ("done", "failed", "unknown", "under way", "not submitted")
    return ", ".join(f"{counts[stage]} {stage}" for stage in stages if counts[stage] or stage == "done")


def _words(error: A2VError) -> str:
    return str(error).strip() or type(error).__name__


def _as_options(text: str) -> str:
    """What an error advises, as it is said on the command line."""
    text = re.sub(r"\b(overwrite|new_token|resubmit_failed)=True", lambda m: "--" + m[1].replace("_", "-"), text)
    return re.sub(r"\blimit=(\d+)", r"--limit \1", text)


def _chosen(wanted: Iterable[str], rows: Sequence[int]) -> bool | list[int]:
    """The jobs in the rows that the user names.

    Raises:
        UsageError: One is not a row of the manifest.
    """
    words = [word for one in wanted for word in re.split(r"[\s,]+", one) if word]
    if "all" in words:
        return True
    places = {str(row): place for place, row in enumerate(rows)}
    strange = [word for word in words if word not in places]
    if strange:
        raise UsageError(f"--resubmit-unknown: {', '.join(strange)} is not the number of a row with a job, nor all")
    return [places[word] for word in words]


def _warn_of_repeated(work: Work) -> None:
    same = repeated(work.jobs)
    for places in same[:_SHOWN]:
        rows = [str(work.rows[place]) for place in places]
        shown = f"{', '.join(rows[:-1])} and {rows[-1]}"
        say(f"a2v: rows {shown} are the same: {len(rows)} videos, each paid for")
    if len(same) > _SHOWN:
        say(f"a2v: and so are {len(same) - _SHOWN} more groups of rows")


def _tell_what_is_gone(batch: AsyncBatch) -> None:
    gone = batch.gone
    if gone:
        named = ", ".join(entry.video_id or entry.job.audio_url for entry in gone[:_SHOWN])
        more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
        say(f"a2v: in the journal, and no longer in the manifest: {len(gone)} jobs, left as they are: {named}{more}")


def _foretell(work: Work, plan: Plan, known: Sequence[JournalEntry]) -> list[str]:
    """What a run would do.

    Raises:
        UsageError: It would refuse to begin.
    """
    states: dict[object, list[JobState]] = {}
    for entry in reversed(known):
        states.setdefault(_key(entry.job), []).append(entry.state)
    # What was being submitted when a run ended is in doubt.
    doubt = {JobState.SUBMITTING: JobState.UNKNOWN}
    now = [doubt.get(state, state) for job in work.jobs if (state := _first(states.get(_key(job))))]
    again = {JobState.PENDING, *([JobState.FAILED, JobState.REJECTED] if plan.resubmit_failed else [])}
    chosen = _chosen(plan.resubmit_unknown, work.rows)
    doubts = range(len(now)) if chosen is True else chosen or ()
    wanted = sum(state in again or (state is JobState.UNKNOWN and place in doubts) for place, state in enumerate(now))
    submits = wanted if plan.limit is None else min(wanted, plan.limit)
    if plan.quota is not None and submits > plan.quota:
        raise UsageError(f"this batch would submit {submits} videos, and the quota is {plan.quota}")
    return [f"{len(now)} jobs: {_in_words(Counter(map(_stage, now)))}", f"A run would submit {submits} videos."]


def _first(states: list[JobState] | None) -> JobState:
    return states.pop() if states else JobState.PENDING


def _key(job: Job) -> object:
    # As a journal keeps it: what stands in the query of a URL may be a secret.
    return job.model_id, job.pose_id, job.with_mask, without_query(job.audio_url)
