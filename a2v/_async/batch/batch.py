"""Many videos: submitted one after another, their outcomes as they complete, and all of it remembered.

Each item goes through the states of ``a2v._values.jobs``, and every step is in the journal before the next one is taken.
Without a path the journal is kept in memory, and the way is the same.
"""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Self

import anyio

from a2v._async.batch.background import is_asyncio, spawn, wait_for_end
from a2v._async.batch.files import BatchFiles
from a2v._async.batch.item import Item
from a2v._async.batch.journal import Journal
from a2v._async.batch.prepare import prepare, refuse_a_lost_journal
from a2v._async.batch.reconciler import Reconciler
from a2v._async.batch.submitter import Submitter
from a2v._async.download import in_thread
from a2v._async.requests import telemetry
from a2v._async.task import AsyncVideoTask
from a2v._core import wire
from a2v._core.file_names import default_paths
from a2v._core.job_errors import as_a2v_error, error_record, is_lost, submission_unknown
from a2v._core.outcomes import Outcome, Progress
from a2v._core.settings import HoldsSecret
from a2v._values import arguments, html
from a2v._values.jobs import Job, JobState, JournalEntry
from a2v.errors import (
    A2VError,
    InvalidArgumentError,
    InvalidStateError,
    JournalError,
    SubmissionUnknownError,
    VideoFailedError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from a2v._async.requests.session import Session
    from a2v._core.batch_options import BatchOptions
    from a2v._core.rate_limiter import Pace


class AsyncBatch(HoldsSecret):
    """Many videos, made by ``client.batch``: a context in which to iterate over the outcomes."""

    _instead = "pass its jobs, and make another batch of them there; a journal= tells it what is done already"

    def __init__(self, session: Session, jobs: Iterable[Job], options: BatchOptions) -> None:
        self._session = session
        self._jobs = list(arguments.iterable("jobs", jobs, "an iterable of a2v.Job values"))
        for job in self._jobs:
            if not isinstance(job, Job):
                raise InvalidArgumentError(f"a batch is made of a2v.Job values, got {arguments.short_repr(job)}")
        self._options = options
        self._paths = default_paths(self._jobs, options.save_to)
        self._items: list[Item] = []
        self._gone: tuple[JournalEntry, ...] = ()
        self._under_way: dict[int, str] = {}
        self._doubts: dict[str, tuple[Item, SubmissionUnknownError]] = {}
        self._sought: set[str] = set()
        self._missing = len(self._jobs)
        self._delivered: Item | None = None
        self._entered = self._asking = False
        self._crash: BaseException | None = None

    # -- the context --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise InvalidStateError("a batch runs once: entered again, it might pay for things again; make another one")
        if self._options.journal and not self._options.overwrite:
            await in_thread(partial(refuse_a_lost_journal, self._options.journal, self._paths))
        session = self._session
        self._journal = await Journal.open(
            self._options.journal, base_url=session.base_url, token=session.token, new_token=self._options.new_token
        )
        try:
            await self._prepare()
        except BaseException:
            await self._journal.aclose()
            raise
        self._entered = True
        self._span = telemetry.start_span("a2v.batch", {"a2v.jobs": len(self._jobs)})
        with self._span.activate():
            spawn(self._live)
        return self

    async def _prepare(self) -> None:
        intake = await prepare(self._journal, self._jobs, self._paths, self._options)
        self._items, self._gone = intake.items, intake.gone
        self._missing = sum(not item.ended for item in self._items)
        self._send, self._outcomes = anyio.create_memory_object_stream[tuple[Item, Outcome]](inf)
        self._freed, self._doubted, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._scope = anyio.CancelScope()
        self._saver = BatchFiles(self._journal, overwrite=self._options.overwrite, spared=intake.spared)
        self._finder = Reconciler(self._session, self._journal)
        self._submitter = Submitter(self._session, self._journal, intake.video_ids, self._finder)
        for item, facts in intake.endings:
            self._end(item, **facts)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._missing = 0
        self._scope.cancel()
        try:
            await wait_for_end(self._ended)
            if kind is None and self._crash:
                raise self._crash
        finally:
            self._outcomes.close()
            with anyio.CancelScope(shield=True):
                try:
                    if kind is None:
                        await self._acknowledge()
                finally:
                    await self._journal.aclose()

    async def _live(self) -> None:
        """All that the batch does, in a task of its own."""
        try:
            with self._scope:
                async with anyio.create_task_group() as self._group:
                    self._group.start_soon(self._submitter.guard)
                    await self._run()
        except anyio.get_cancelled_exc_class():
            # The event loop ends, and the batch was not left: nobody else will do this.
            self._outcomes.close()
            with anyio.CancelScope(shield=True):
                await self._journal.aclose()
            raise
        except BaseException as error:  # noqa: BLE001  # raised to those who use the batch, in their task
            self._crash = _first(error)
            if isinstance(self._crash, KeyboardInterrupt) and not is_asyncio():
                signal.raise_signal(signal.SIGINT)  # trio raised it here by chance, and it is the main task's
        finally:
            self._send.close()
            self._finder.close()
            self._span.end()
            self._ended.set()

    def _repr_html_(self) -> str:
        """How far it has come, for notebooks."""
        p = self.progress
        counts = {"finished": p.done, "failed": p.failed, "in doubt": p.unknown, "under way": p.under_way}
        return html.progress({**counts, **({"lost": p.lost} if p.lost else {}), "waiting": p.waiting})

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome, in the order in which they complete. To ask for it says that the one before was dealt with."""
        if not self._entered:
            raise InvalidStateError("a batch starts with its context: async with client.batch(…) as batch: …")
        if not self._missing:
            raise StopAsyncIteration
        if self._asking:
            raise InvalidStateError(
                "another task is waiting for the next outcome of this batch; only one can at a time"
            )
        self._asking = True
        try:
            await self._acknowledge()
            item, outcome = await self._outcomes.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            if not self._missing:  # another task has left the batch meanwhile
                raise StopAsyncIteration from None
            raise self._crash or InvalidStateError("the batch has ended with its event loop") from None
        finally:
            self._asking = False
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
            lost=count["lost"],
        )

    async def pace(self) -> Pace:
        """How the client's requests go: how many the server allows, how many are left, and when the next one is sent.

        Returns:
            The facts of this moment. They are about all that the client does, not this batch alone.

        Raises:
            ClientClosedError: The client is closed.
        """
        with self._session.in_use() as state:
            return state.dispatcher.pace()

    @property
    def gone(self) -> tuple[JournalEntry, ...]:
        """What the journal has from earlier runs and this batch has not. It is left as it is, also at the server."""
        return self._gone

    # -- the way of an item -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pending = [item for item in self._items if item.state is JobState.PENDING and not item.ended]
        for item in self._items:
            if item.state in (JobState.SUBMITTED, JobState.FINISHED, JobState.LOST) and not item.ended:
                self._follow(item)
        if any(not item.ended for item in self._items):
            await self._begin_finding()
        for item in pending:
            # What is in doubt may be under way as well, until it was looked for.
            while (
                self._options.max_in_flight and len(self._under_way) + len(self._sought) >= self._options.max_in_flight
            ):
                await self._freed.wait()
            await self._submit(item)

    async def _submit(self, item: Item) -> None:
        try:
            await self._submitter.submit(item)
        except SubmissionUnknownError as error:
            self._doubt(item, error)
            await self._submitter.recover(
                self._session.known_videos.video_list() if self._finder.works else wire.character_list()
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, it is about this item and not about the others
            told = as_a2v_error(error, item.job)
            if item.state is not JobState.UNKNOWN:
                self._end(item, error=told)
                return
            doubt = submission_unknown(item.job, str(told))
            doubt.__cause__ = error
            self._end(item, error=doubt)
            if not isinstance(error, A2VError):
                await self._submitter.recover(wire.character_list())
        else:
            self._follow(item)

    def _follow(self, item: Item) -> None:
        assert item.video_id is not None  # noqa: S101  # for the type checker: it was submitted
        self._under_way[item.index] = item.video_id
        self._group.start_soon(self._finish, item, item.video_id)

    async def _finish(self, item: Item, video_id: str) -> None:
        # A server may not know a video everywhere right after it was submitted, perhaps at the end of the run before.
        since = self._session.now() if item.state is JobState.SUBMITTED else None
        task = AsyncVideoTask(self._session, video_id, submitted_at=since)
        try:
            path = await self._complete(item, task)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is about this item and not about the others
            told = await self._note_failure(item, error)
            told.video_id = told.video_id or video_id
            self._end(item, video=task.video, error=told)
        else:
            self._end(item, video=task.video, path=path, mask_path=item.mask_path)

    async def _complete(self, item: Item, task: AsyncVideoTask) -> Path | None:
        await task.wait(timeout=self._options.render_timeout)
        if item.state is not JobState.FINISHED:
            await item.move(self._journal, JobState.FINISHED)
        path = await self._saver.save(task, item.identity, item.path, item.mask_path) if item.path else None
        await item.move(self._journal, JobState.DONE, path=path and str(path.absolute()))
        return path

    async def _note_failure(self, item: Item, error: Exception) -> A2VError:
        """Write down an end for good; return the error for the outcome."""
        told = as_a2v_error(error, item.job)
        try:
            if isinstance(error, VideoFailedError):
                await item.move(self._journal, JobState.FAILED, error=error_record(error, item.job))
            elif is_lost(error) and item.state is not JobState.LOST:
                await item.move(self._journal, JobState.LOST, error=error_record(error, item.job))
        except JournalError as problem:
            told = problem
        return told

    def _end(self, item: Item, *, error: A2VError | None = None, **facts: Any) -> None:
        # A video that took too long for this run is still being rendered: it has not failed.
        item.ended, item.failed = True, error is not None and not isinstance(error, WaitTimeoutError)
        self._under_way.pop(item.index, None)
        self._send.send_nowait((item, Outcome(index=item.index, job=item.job, error=error, **facts)))
        self._freed.set()
        self._freed = anyio.Event()

    # -- what is in doubt ---------------------------------------------------------------------------------------------

    async def _begin_finding(self) -> None:
        if self._options.journal:
            await self._finder.begin()
        if self._finder.works:
            self._group.start_soon(self._find)
        for item in self._items:
            if item.state is JobState.UNKNOWN and not item.ended:
                self._doubt(item, submission_unknown(item.job, "an earlier run was ended while it was submitted"))

    def _doubt(self, item: Item, error: SubmissionUnknownError) -> None:
        """Tell that nobody knows whether an item was accepted, but not before it was looked for at the server."""
        if self._finder.works:
            self._doubts[item.identity] = (item, error)
            self._sought.add(item.identity)
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
                self._sought.remove(identity)
                if identity in found:
                    self._submitter.accepted(item, found[identity])
                    self._follow(item)
                else:
                    self._end(item, error=error)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
