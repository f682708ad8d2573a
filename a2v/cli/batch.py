"""``a2v batch`` and ``a2v journal``: the run of a manifest, and what is said at the end."""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import anyio
from attrs import asdict, evolve, frozen

from a2v import (
    A2VError,
    AmbiguousJobsError,
    ConfigurationError,
    DownloadError,
    Job,
    JournalError,
    SubmissionUnknownError,
    read_journal,
)
from a2v._async.batch.journal import check_account
from a2v._async.batch.lock_file import is_in_use
from a2v._async.batch.planning import preview
from a2v._core.batch_options import BatchOptions
from a2v._core.job_matching import repeated_jobs
from a2v._unicode_paths import find_existing
from a2v.cli.plan import Plan, Work, ambiguity, as_options, foretell
from a2v.cli.printing import number, say
from a2v.cli.report import check_report, write_report
from a2v.cli.server import Server, UsageError, keep, kept
from a2v.cli.staging import Staging
from a2v.cli.table import Standing, count_stages, in_words, open_batch_output, print_journal
from a2v.cli.targets import check_videos, make_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from a2v import AsyncBatch, JournalEntry
    from a2v.cli.table import BatchOutput

JOURNAL = "a2v-batch.db"
ENGINE = "a2v-engine"
# What a local engine lets wait is bounded.
_MOST_LOCAL = 500
# Days for which a staged recording can be fetched: as long as stores allow, for the last row waits long.
_STAGED_FOR = 7
_SHOWN = 10


async def make_batch(manifest: Path, folder: Path, plan: Plan, staging: Staging, server: Server) -> None:
    """Work a manifest through.

    Raises:
        UsageError: The batch cannot begin. Nothing was submitted.
        ManifestError: The same, for what is wrong with the manifest.
        SubmissionUnknownError: Of some jobs nobody knows whether they were accepted.
        A2VError: Some jobs are not done.
    """
    server.check()
    again = f"  a2v batch {shlex.quote(str(manifest))} -o {shlex.quote(str(folder))}{plan.flags}{staging.flags}{server.flags}"
    if server.local and not server.data_dir:
        # An engine that forgets would lose what an interrupted batch has made so far.
        server = evolve(server, data_dir=folder / ENGINE)
    work = Work.read(manifest, server, staged=bool(staging.place(server)))
    if not plan.dry_run:
        make_folder(folder)
    journal = find_existing(plan.journal) if plan.journal else folder / JOURNAL
    if journal.is_dir():
        raise UsageError(f"--journal: {journal} is a folder; give the name of a file in it")
    if plan.report:
        token = [Path(server.token_file)] if server.token_file else []
        check_report(plan.report, [manifest, journal, *token, *map(_path, work.files)])
    if plan.overwrite:
        check_videos(work, folder, [manifest])
    run = _Run(work, plan, plan.choices(work.rows), staging, server, folder, journal, again)
    await (run.rehearse() if plan.dry_run else run.go())


def show_journal(path: Path, *, as_json: bool) -> None:
    """Print what a journal knows, also while a batch works with it.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        entries = read_journal(path)
    except JournalError as error:
        raise UsageError(str(error)) from None
    ones = [
        Standing(
            row=None,
            name=_called(entry),
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
        say(f"{number(len(ones), 'job')}: {in_words(count_stages(one.state for one in ones))}")


@frozen
class _Run:
    work: Work
    plan: Plan
    choices: BatchOptions
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
                out.remark(in_words(count_stages(one.state for one in ones)))
                # Here, as what is staged may be removed only when all is done.
                self._judge(ones)
        except anyio.get_cancelled_exc_class():
            if begun:
                self._interrupted(self._standings(errors))
            else:
                say("a2v: interrupted before the batch began")
            raise
        except BrokenPipeError:
            if begun:
                self._interrupted(self._standings(errors), "its output is no longer read")
            raise

    async def rehearse(self) -> None:
        """Tell what a run would do.

        Raises:
            UsageError: It would not begin.
        """
        out = open_batch_output(as_json=self.server.as_json)
        jobs = await self._foreseen()
        _warn_of_repeated(self.work, jobs)
        with self._beginning():
            try:
                self._check_account()
                found = preview(jobs, evolve(self.choices, save_to=self.folder, journal=self.journal))
            except A2VError:
                out.remark("A run would submit 0 videos.")
                raise
        out.remark(*foretell(self.work, found))

    def _check_account(self) -> None:
        account = self.server.account()
        if account and self.journal.exists():
            check_account(self.journal, base_url=account[0], token=account[1], new_token=self.plan.new_token)

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        """Explain in words of the command line why a batch does not begin."""
        try:
            yield
        except AmbiguousJobsError as error:
            raise ambiguity(self.work, error) from None
        except (JournalError, DownloadError, ConfigurationError) as error:
            raise UsageError(as_options(str(error))) from None

    async def _begin(self, stack: AsyncExitStack, jobs: list[Job]) -> AsyncBatch:
        # Before the engine of --local is started, which would refuse its data folder in other words.
        if is_in_use(self.journal):
            raise UsageError(f"this batch is already running: another process works on {self.journal}")
        _warn_of_repeated(self.work, jobs)
        client = await stack.enter_async_context(self.server.connect([]))
        plan, choices = self.plan, self.choices
        batch = client.batch(
            jobs,
            save_to=self.folder,
            journal=self.journal,
            overwrite=plan.overwrite,
            max_in_flight=plan.max_in_flight or (_MOST_LOCAL if self.server.local else None),
            limit=plan.limit,
            quota=plan.quota,
            resubmit_unknown=choices.resubmit_unknown,
            resubmit_failed=plan.resubmit_failed,
            repeat=plan.repeat,
            new_token=plan.new_token,
            render_timeout=plan.render_timeout,
            recordings=choices.recordings,
        )
        with self._beginning():
            return await stack.enter_async_context(batch)

    async def _reachable(self, reach: Callable[[str, BatchOutput], Awaitable[str]], out: BatchOutput) -> list[Job]:
        """The jobs, with recordings where the server can get at them, under a name that is the same in every run."""
        if folder := self.server.recordings:
            return self._with_audio({url: keep(_path(url), folder).as_uri() for url in self.work.files})
        return self._with_audio(await self._staged(self.work.files, reach, out))

    async def _foreseen(self) -> list[Job]:
        """The jobs as ``_reachable`` gives them, without a copy or an upload."""
        if folder := self.server.recordings:
            return self._with_audio({url: kept(_path(url), folder).as_uri() for url in self.work.files})
        return self._with_audio({url: await self.staging.foresee(self.server, url) for url in self.work.files})

    def _with_audio(self, reached: Mapping[str, str]) -> list[Job]:
        return [_with_audio(job, reached.get(job.audio_url, job.audio_url)) for job in self.work.jobs]

    async def _staged(
        self, files: Iterable[str], reach: Callable[[str, BatchOutput], Awaitable[str]], out: BatchOutput
    ) -> dict[str, str]:
        reached: dict[str, str] = {}
        errors: list[A2VError] = []

        async def see_to(url: str) -> None:
            try:
                reached[url] = await reach(url, out)
            except A2VError as error:
                errors.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for url in files:
                group.start_soon(see_to, url)
        if errors:
            raise errors[0]
        return reached

    def _standings(self, errors: dict[int, str]) -> list[Standing]:
        return self.work.standings(read_journal(self.journal)[: len(self.work.jobs)], errors)

    def _interrupted(self, ones: Sequence[Standing], reason: str = "interrupted") -> None:
        counts = count_stages(one.state for one in ones)
        lines = [f"a2v: {reason}: {in_words(counts)}"]
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
    doubts = [one for one in missing if one.state == "unknown"]
    all_jobs, others = number(len(ones), "job"), len(missing) - len(doubts)
    problem: A2VError
    if doubts:
        about = f"{len(doubts)} of {all_jobs} may or may not have been accepted"
        about += f", {others} more {_are(others)} not done" if others else ""
        problem = SubmissionUnknownError(f"{about}:", job=doubts[0].job)
    else:
        problem = A2VError(f"{others} of {all_jobs} {_are(others)} not done:")
    for one in missing:
        problem.add_note(f"  {one}")
    kinds = {_kind(one) for one in missing}
    advice = {
        "unknown": ("To submit one again, and perhaps pay for it twice, name its row:", " --resubmit-unknown ROW"),
        "failed": ("To submit those again whose render failed or that the server refused:", " --resubmit-failed"),
        "lost": ("To submit those again whose video the server no longer knows:", " --resubmit-failed"),
        "in the way": (
            "To replace the files named above; what has changed is rendered again and paid for:",
            " --overwrite",
        ),
        "": ("To go on with the others:" if len(kinds) > 1 else "To go on:", ""),
    }
    for kind, (words, option) in advice.items():
        if kind in kinds:
            problem.add_note(words)
            problem.add_note(again + option)
    return problem


def _kind(one: Standing) -> str:
    """What can be done about a job that is not done; empty: the same command again."""
    if one.state in ("unknown", "failed", "lost"):
        return one.state
    if one.state == "rejected":
        return "failed"
    return "in the way" if one.error and "--overwrite" in one.error else ""


def _are(how_many: int) -> str:
    return "is" if how_many == 1 else "are"


def _path(file_url: str) -> Path:
    return Path(url2pathname(urlsplit(file_url).path))


def _warn_of_repeated(work: Work, jobs: Sequence[Job]) -> None:
    same = repeated_jobs(jobs)
    for places in same[:_SHOWN]:
        rows = [str(work.rows[place]) for place in places]
        shown = f"{', '.join(rows[:-1])} and {rows[-1]}"
        say(f"a2v: rows {shown} are the same: {len(rows)} videos, each paid for")
    if len(same) > _SHOWN:
        say(f"a2v: and {number(len(same) - _SHOWN, 'more group')} of such rows")


def _tell_what_is_gone(batch: AsyncBatch) -> None:
    gone = batch.gone
    if gone:
        named = ", ".join(_called(entry) for entry in gone[:_SHOWN])
        more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
        say(
            f"a2v: in the journal, and no longer in the manifest: {number(len(gone), 'job')}, left alone: {named}{more}"
        )


def _called(entry: JournalEntry) -> str:
    return entry.job.name or (Path(entry.path).stem if entry.path else entry.job.audio_url)
