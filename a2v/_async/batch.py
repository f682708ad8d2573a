"""Many videos: submitted one after another, their outcomes as they complete, and all of it remembered.

Each item goes through the states of ``a2v._core.items``, and every step is in the journal before the next one is taken.
Without a path the journal is kept in memory, and the way is the same.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from copy import copy
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from attrs import define

from a2v._async import telemetry
from a2v._async.download import Destination, on_disk
from a2v._async.finder import Finder
from a2v._async.journal import Journal
from a2v._async.saver import Saver, is_saved, kept_paths, mask_of, paths_of
from a2v._async.task import AsyncVideoTask
from a2v._core import html, wire
from a2v._core.items import (
    JobState,
    JournalEntry,
    Pace,
    Progress,
    facts_of,
    identities,
    in_doubt,
    refuses_all,
    restored,
    state_after,
)
from a2v._core.models import Job, Outcome, Video, VideoStatus
from a2v._core.retry import Again
from a2v._core.schedule import PATIENCE
from a2v.errors import (
    A2VError,
    ClientClosedError,
    ConfigurationError,
    JournalError,
    RateLimitError,
    ServerError,
    SubmissionUnknownError,
    TransportError,
    VideoFailedError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from types import TracebackType

    from a2v._async.journal import Row
    from a2v._async.session import Session

_AGAIN = 10.0
"""Seconds between attempts to reach a server that is out of reach."""
_LONGEST_PAUSE = 300.0
"""Seconds between submissions at most while one after the other ends in doubt."""
_GRACE = 3.0
"""Seconds for which a batch that is told to end waits for the answer to a submission: that is better than a doubt."""


@define(eq=False)
class _Item:
    """A job on its way.

    Attributes:
        path: Where its video shall be.
        ended: Whether this run is through with it.
        failed: Whether it ended with an error.
    """

    index: int
    job: Job
    identity: str
    path: Path | None
    state: JobState
    video_id: str | None
    ended: bool = False
    failed: bool = False

    @property
    def mask_path(self) -> Path | None:
        """Where its mask shall be."""
        return mask_of(self.path) if self.path and self.job.with_mask else None

    @property
    def stage(self) -> str:
        """What it counts as in a ``Progress``."""
        if self.state is JobState.UNKNOWN:
            return "unknown"
        if self.state in (JobState.FAILED, JobState.REJECTED) or self.failed:
            return "failed"
        return {JobState.PENDING: "waiting", JobState.DONE: "done"}.get(self.state, "under_way")


class AsyncBatch:
    """Many videos, made by ``client.batch``: a context in which to iterate over the outcomes."""

    def __init__(
        self,
        session: Session,
        jobs: Iterable[Job],
        *,
        save_to: str | os.PathLike[str] | None,
        journal: str | os.PathLike[str] | None,
        overwrite: bool,
        max_in_flight: int | None,
        limit: int | None,
        quota: int | None,
        resubmit_unknown: bool | Collection[int],
        resubmit_failed: bool,
        repeat: bool,
        new_token: bool,
    ) -> None:
        self._session = session
        self._jobs = list(jobs)
        for job in self._jobs:
            if not isinstance(job, Job):
                raise TypeError(f"a batch is made of a2v.Job values, got {job!r}")
        self._paths = paths_of(self._jobs, None if save_to is None else Path(save_to))
        self._journal_path = None if journal is None else Path(journal)
        self._overwrite = overwrite
        self._max_in_flight = _at_least(1, "max_in_flight", max_in_flight)
        self._limit, self._quota = _at_least(0, "limit", limit), _at_least(0, "quota", quota)
        self._resubmit_unknown, self._resubmit_failed = resubmit_unknown, resubmit_failed
        self._repeat = repeat
        self._new_token = new_token
        self._items: list[_Item] = []
        self._video_ids: set[str] = set()
        self._gone: tuple[JournalEntry, ...] = ()
        self._under_way: dict[int, str] = {}
        self._doubts: dict[str, tuple[_Item, SubmissionUnknownError]] = {}
        self._missing = len(self._jobs)
        self._delivered: _Item | None = None
        self._refused: A2VError | None = None
        self._outage_since: float | None = None
        self._doubts_in_a_row = 0
        self._entered = False

    # -- the context --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a batch runs once: entered again, it might pay for things again; make another one")
        if self._journal_path and not self._overwrite:
            await on_disk(partial(self._refuse_a_lost_journal, self._journal_path))
        session = self._session
        self._journal = await Journal.open(
            self._journal_path, base_url=session.base_url, token=session.token, new_token=self._new_token
        )
        try:
            await self._prepare()
        except BaseException:
            await self._journal.aclose()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._entered = True
        self._span = telemetry.start("a2v.batch", {"a2v.jobs": len(self._jobs)})
        self._on_its_way = anyio.CancelScope()
        self._group.start_soon(self._guard)
        with self._span.active():
            self._group.start_soon(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        self._missing = 0
        try:
            # The group is not told of the body's error, which would come out of it wrapped in a group of errors.
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raise _first(group) from None  # Ctrl-C on trio, which may come out of any task
        finally:
            self._send.close()
            self._outcomes.close()
            self._span.end()
            with anyio.CancelScope(shield=True):
                try:
                    if kind is None:
                        await self._acknowledge()
                finally:
                    await self._journal.aclose()

    def _repr_html_(self) -> str:
        """How far it has come, for notebooks."""
        p = self.progress
        counts = {"finished": p.done, "failed": p.failed, "in doubt": p.unknown, "under way": p.under_way}
        return html.progress({**counts, "waiting": p.waiting})

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome, in the order in which they complete. To ask for it says that the one before was dealt with."""
        if not self._entered:
            raise RuntimeError("a batch starts with its context: async with client.batch(…) as batch: …")
        if not self._missing:
            raise StopAsyncIteration
        await self._acknowledge()
        item, outcome = await self._outcomes.receive()
        self._missing -= 1
        self._delivered = item
        return outcome

    async def _acknowledge(self) -> None:
        item, self._delivered = self._delivered, None
        if item and item.state.is_terminal:
            await self._journal.do(partial(self._journal.keep, item.identity, reported=1))

    # -- what it tells about itself -----------------------------------------------------------------------------------

    @property
    def under_way(self) -> dict[int, str]:
        """The ``video_id`` of each video that was submitted and has no outcome yet, by its job's place in the batch."""
        return dict(self._under_way)

    @property
    def progress(self) -> Progress:
        """How many jobs are how far."""
        count = Counter(item.stage for item in self._items)
        return Progress(
            total=len(self._jobs),
            waiting=count["waiting"] + len(self._jobs) - len(self._items),
            under_way=count["under_way"],
            done=count["done"],
            failed=count["failed"],
            unknown=count["unknown"],
        )

    async def pace(self) -> Pace:
        """How the client's requests go: how many the server allows, how many are left, and when the next one is sent.

        Returns:
            The facts of this moment. They are about all that the client does, not this batch alone.

        Raises:
            ClientClosedError: The client is closed.
        """
        with self._session.in_use() as run:
            return run.pacer.pace()

    @property
    def gone(self) -> tuple[JournalEntry, ...]:
        """What the journal has from earlier runs and this batch has not. It is left as it is, also at the server."""
        return self._gone

    # -- the beginning ------------------------------------------------------------------------------------------------

    def _refuse_a_lost_journal(self, journal: Path) -> None:
        """Without it, what was paid for already would be paid for again."""
        saved = [] if journal.exists() else [path for path in self._paths if path and path.exists()]
        if saved:
            raise JournalError(
                f"there is no journal {journal}, but {len(saved)} of this batch's videos are there already, such as "
                f"{saved[0]}: name the right journal, or pass overwrite=True to make them anew"
            )

    async def _prepare(self) -> None:
        jobs = dict(zip(identities(self._jobs), self._jobs, strict=True))
        rows = await self._journal.do(partial(self._journal.take, jobs))
        self._gone = tuple(await self._journal.do(self._journal.gone))
        taken = {one.path for one in rows if one.path} | {one.path for one in self._gone if one.path}
        paths = kept_paths(self._jobs, self._paths, [row.path for row in rows], taken)
        self._items = [
            _Item(index, job, row.identity, path, row.state, row.video_id)
            for index, (job, path, row) in enumerate(zip(self._jobs, paths, rows, strict=True))
        ]
        self._video_ids = {one.video_id for one in rows if one.video_id}
        self._video_ids |= {one.video_id for one in self._gone if one.video_id}
        self._missing = len(self._jobs)
        if any(self._paths):
            await self._check_files(rows)
        await self._choose_again()
        self._limit_submissions()
        self._send, self._outcomes = anyio.create_memory_object_stream[tuple[_Item, Outcome]](inf)
        self._freed, self._doubted = anyio.Event(), anyio.Event()
        self._submitting = anyio.Lock()
        self._saver = Saver(self._journal, overwrite=self._overwrite)
        self._finder = Finder(self._session, self._journal, self._submitting)
        for item, row in zip(self._items, rows, strict=True):
            if item.state.is_terminal:
                self._remember(item, row)

    def _remember(self, item: _Item, row: Row) -> None:
        """An earlier run is through with it: tell that if no run has, or if it is asked for."""
        if row.reported and not self._repeat:
            self._skip(item)
        else:
            self._end(item, **_how_it_ended(item, row))

    def _skip(self, item: _Item) -> None:
        item.ended = True
        self._missing -= 1

    async def _check_files(self, rows: list[Row]) -> None:
        """Find out before anything is sent which videos are not there any more, and whether the others can be saved."""
        pairs = list(zip(self._items, rows, strict=True))
        done = [(item, row) for item, row in pairs if item.state is JobState.DONE]
        missing = await on_disk(lambda: [item for item, row in done if item.path and not is_saved(item.path, row)])
        for item in missing:
            await self._move(item, JobState.FINISHED, path=None, etag=None, size=None, sha256=None)
        await on_disk(partial(self._check_places, pairs))

    def _check_places(self, pairs: list[tuple[_Item, Row]]) -> None:
        for item, row in pairs:
            if item.path and not item.state.is_terminal and not (row.sha256 and is_saved(item.path, row)):
                Destination(item.path, self._overwrite).prepare()
            if item.mask_path and item.state is JobState.PENDING:
                Destination(item.mask_path, self._overwrite).prepare()

    async def _choose_again(self) -> None:
        """What the caller chose to submit once more."""
        chosen = self._resubmit_unknown
        for item in self._items:
            unknown = chosen is True or (not isinstance(chosen, bool) and item.index in chosen)
            if (item.state is JobState.UNKNOWN and unknown) or (
                item.state in (JobState.FAILED, JobState.REJECTED) and self._resubmit_failed
            ):
                await self._move(item, JobState.PENDING, video_id=None, etag=None, size=None, sha256=None)

    def _limit_submissions(self) -> None:
        pending = [item for item in self._items if item.state is JobState.PENDING]
        wanted = pending if self._limit is None else pending[: self._limit]
        if self._quota is not None and len(wanted) > self._quota:
            raise ConfigurationError(
                f"this batch would submit {len(wanted)} videos, and the quota is {self._quota}. Nothing was submitted. "
                f"Pass limit={self._quota} to submit so many of them now, or a larger quota"
            )
        for item in pending[len(wanted) :]:
            self._skip(item)

    # -- the way of an item -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pending = [item for item in self._items if item.state is JobState.PENDING and not item.ended]
        for item in self._items:
            if item.state in (JobState.SUBMITTED, JobState.FINISHED):
                self._follow(item)
        if any(not item.ended for item in self._items):
            await self._begin_finding()
        # One at a time: at thirty requests a minute that costs nothing, and at most one submission can be in doubt.
        for item in pending:
            while self._max_in_flight and len(self._under_way) >= self._max_in_flight:
                await self._freed.wait()
            await self._submit(item)

    async def _submit(self, item: _Item) -> None:
        try:
            call = wire.video_generate(item.job)
            with telemetry.call_span(call) as span:
                await self._outlive(partial(self._session.persist, call.name, partial(self._attempt, item)))
                span.note({"a2v.video_id": str(item.video_id)})
        except SubmissionUnknownError as error:
            self._doubt(item, error)
            await self._until_well()
            # It may work for everything but submissions, and each of those may cost money.
            await anyio.sleep(min(_AGAIN * 2**self._doubts_in_a_row, _LONGEST_PAUSE))
            self._doubts_in_a_row += 1
        except A2VError as error:
            if isinstance(error, JournalError | ClientClosedError) or refuses_all(error):
                self._refused = error  # so will be the next ones
            self._end(item, error=in_doubt(item.job, str(error)) if item.state is JobState.UNKNOWN else error)
        else:
            self._doubts_in_a_row = 0
            self._follow(item)

    async def _outlive(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Do something that a server out of reach shall not end, unless it stays so for longer than a watch would wait."""
        while True:
            try:
                await work()
            except (TransportError, ServerError, RateLimitError):
                now = anyio.current_time()
                self._outage_since = now if self._outage_since is None else self._outage_since
                if now + _AGAIN - self._outage_since > PATIENCE:
                    raise
                await anyio.sleep(_AGAIN)
            else:
                self._outage_since = None
                return

    async def _until_well(self) -> None:
        """One doubt for each outage is enough: nothing more is submitted until the server answers what costs nothing."""
        call: wire.Call[Any] = wire.video_list() if self._finder.works else wire.character_list()
        try:
            await self._outlive(lambda: self._session.call(call))
        except A2VError:
            return  # the next submission will tell

    async def _attempt(self, item: _Item) -> Again | None:
        if self._refused:
            raise copy(self._refused)  # each job's own, or one traceback would grow with every job
        again = None
        with anyio.CancelScope() as self._on_its_way:
            again = await self._exchange(item, self._on_its_way)
        if self._on_its_way.cancelled_caught:
            await anyio.sleep_forever()  # the batch was told to end, and the answer did not come in time
        return again

    async def _guard(self) -> None:
        """A submission that has begun may come to its end when everything else is cancelled, but not for ever."""
        try:
            await anyio.sleep_forever()
        finally:
            self._on_its_way.deadline = anyio.current_time() + _GRACE

    async def _exchange(self, item: _Item, scope: anyio.CancelScope) -> Again | None:
        async def intend() -> None:
            try:
                await self._move(item, JobState.SUBMITTING)
            except BaseException:
                # It may be on disk all the same. Nothing was sent, so it need not end in doubt.
                with suppress(JournalError):
                    await self._move(item, JobState.PENDING)
                raise
            scope.shield = True

        sending = wire.Sending(intend)
        async with self._submitting:
            try:
                outcome = await self._session.attempt(wire.video_generate(item.job, sending))
                self._refuse_twin(item.job, outcome)
            except BaseException as error:
                if sending.begun:
                    await self._move(item, state_after(error, sent=sending.sent), error=facts_of(error, item.job))
                raise
            if isinstance(outcome, Again):
                await self._move(item, JobState.PENDING)
                return outcome
            await self._journal.do(partial(self._journal.submitted, item.identity, outcome))
        self._is_submitted(item, outcome)
        return None

    def _refuse_twin(self, job: Job, outcome: str | Again) -> None:
        if not isinstance(outcome, Again) and outcome in self._video_ids:
            raise in_doubt(job, f"the server says that it is video {outcome}, and that is another job's")

    def _is_submitted(self, item: _Item, video_id: str) -> None:
        item.state, item.video_id = JobState.SUBMITTED, video_id
        self._video_ids.add(video_id)

    def _follow(self, item: _Item) -> None:
        assert item.video_id is not None  # noqa: S101  # for the type checker: it was submitted
        self._under_way[item.index] = item.video_id
        self._group.start_soon(self._finish, item, item.video_id)

    async def _finish(self, item: _Item, video_id: str) -> None:
        task = AsyncVideoTask(self._session, video_id, submitted_at=anyio.current_time())
        try:
            await task.wait(timeout=None)
            if item.state is JobState.SUBMITTED:
                await self._move(item, JobState.FINISHED)
            path = await self._saver.save(task, item.identity, item.path, item.mask_path) if item.path else None
            await self._move(item, JobState.DONE, path=path and str(path.absolute()))
            self._end(item, video=task.video, path=path, mask_path=item.mask_path)
        except VideoFailedError as error:
            await self._fail(item, error)
        except A2VError as error:
            self._end(item, video=task.video, error=error)

    async def _fail(self, item: _Item, error: VideoFailedError) -> None:
        told: A2VError = error
        try:
            await self._move(item, JobState.FAILED, error=facts_of(error, item.job))
        except JournalError as problem:
            told = problem
        self._end(item, video=error.video, error=told)

    async def _move(self, item: _Item, state: JobState, **facts: Any) -> None:
        await self._journal.do(partial(self._journal.move, item.identity, state, **facts))
        item.state = state
        if state is JobState.PENDING:
            item.video_id = None

    def _end(self, item: _Item, *, error: A2VError | None = None, **facts: Any) -> None:
        item.ended, item.failed = True, error is not None
        self._under_way.pop(item.index, None)
        self._send.send_nowait((item, Outcome(index=item.index, job=item.job, error=error, **facts)))
        self._freed.set()
        self._freed = anyio.Event()

    # -- what is in doubt ---------------------------------------------------------------------------------------------

    async def _begin_finding(self) -> None:
        if self._journal_path:
            await self._finder.begin()
        if self._finder.works:
            self._group.start_soon(self._find)
        for item in self._items:
            if item.state is JobState.UNKNOWN:
                self._doubt(item, in_doubt(item.job, "an earlier run was ended while it was submitted"))

    def _doubt(self, item: _Item, error: SubmissionUnknownError) -> None:
        """Tell that nobody knows whether an item was accepted, but not before it was looked for at the server."""
        if self._finder.works:
            self._doubts[item.identity] = (item, error)
            self._doubted.set()
        else:
            self._end(item, error=error)

    async def _find(self) -> None:
        while True:
            await self._doubted.wait()
            self._doubted = anyio.Event()
            doubts, self._doubts = self._doubts, {}
            found = await self._finder.find(doubts)
            for identity, (item, error) in doubts.items():
                if identity in found:
                    self._is_submitted(item, found[identity])
                    self._follow(item)
                else:
                    self._end(item, error=error)


def _how_it_ended(item: _Item, row: Row) -> dict[str, Any]:
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


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _at_least(least: int, name: str, value: int | None) -> int | None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value
