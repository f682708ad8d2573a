"""The public API of a batch: a context manager and iterator. ``runner.py`` does the work in its own task (``background.py``)."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio

from a2v._async.batch.background import is_asyncio, spawn, wait_for_end
from a2v._async.batch.files import protected_files
from a2v._async.batch.journal import Journal
from a2v._async.batch.planning import check_new_batch, make_plan
from a2v._async.batch.runner import BatchRunner, Item
from a2v._async.download import in_thread
from a2v._async.requests import telemetry
from a2v._core.file_names import default_paths
from a2v._core.outcomes import Outcome, Progress
from a2v._core.settings import HoldsSecret
from a2v._values import arguments, html
from a2v._values.jobs import Job, JournalEntry
from a2v.errors import InvalidArgumentError, InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from a2v._async.requests.session import Session
    from a2v._core.batch_options import BatchOptions
    from a2v._core.rate_limiter import Pace


class AsyncBatch(HoldsSecret):
    """Renders many videos; made by ``client.batch``. Enter its context, then iterate over the outcomes."""

    _instead = "pass its jobs, and make another batch of them there; a journal= tells it what is done already"

    def __init__(self, session: Session, jobs: Iterable[Job], options: BatchOptions) -> None:
        self._session = session
        self._jobs = list(arguments.iterable("jobs", jobs, "an iterable of a2v.Job values"))
        for job in self._jobs:
            if not isinstance(job, Job):
                raise InvalidArgumentError(f"a batch is made of a2v.Job values, got {arguments.short_repr(job)}")
        self._options = options
        default_paths(self._jobs, options.save_to)  # raises an error if two files would have the same name
        self._runner: BatchRunner | None = None
        self._gone: tuple[JournalEntry, ...] = ()
        # The state of the iterator: the number of outcomes left, the item of the last outcome, and whether a task waits for the
        # next.
        self._remaining = len(self._jobs)
        self._returned: Item | None = None
        self._waiting = False
        # Set when the runner's task has ended; and its exception, if any.
        self._ended: anyio.Event
        self._crash: BaseException | None = None

    def __repr__(self) -> str:
        # An error report may show a batch whose constructor failed.
        if not hasattr(self, "_waiting"):
            return f"<{type(self).__name__} not initialized>"
        progress = self.progress
        return f"<{type(self).__name__} {progress.done} of {progress.total} done {self._session.base_url}>"

    # -- the context --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._runner:
            raise InvalidStateError(
                "a batch can only be entered once, so that it never pays twice; call client.batch again"
            )
        session, options = self._session, self._options
        if options.journal:
            # Checked before the journal is opened, because a batch that cannot start must not create one.
            await in_thread(partial(check_new_batch, self._jobs, options, options.journal))
        self._journal = await Journal.open(
            options.journal, base_url=session.base_url, token=session.token, new_token=options.new_token
        )
        try:
            self._runner = await self._start()
        except BaseException:
            await self._journal.aclose()
            raise
        self._ended = anyio.Event()
        self._span = telemetry.start_span("a2v.batch", {"a2v.jobs": len(self._jobs)})
        with self._span.activate():
            spawn(partial(self._run, self._runner))
        return self

    async def _start(self) -> BatchRunner:
        rows = await self._journal.run(self._journal.rows)
        protected = await in_thread(partial(protected_files, self._jobs, self._journal.path))
        plan = await in_thread(partial(make_plan, self._jobs, rows, self._options, protected))
        runner = BatchRunner(self._session, self._journal, plan, self._options, protected)
        await runner.start()
        self._gone = tuple(row.entry for row in plan.gone)
        self._remaining = runner.expected_outcomes
        return runner

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner  # noqa: S101  # for the type checkers: it was entered
        self._remaining = 0
        self._runner.cancel()
        try:
            await wait_for_end(self._ended)
            if kind is None and self._crash:
                raise self._crash
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    if kind is None:
                        await self._acknowledge(self._runner)
                finally:
                    await self._journal.aclose()

    async def _run(self, runner: BatchRunner) -> None:
        """Run the batch; the body of its task."""
        try:
            await runner.run()
        except anyio.get_cancelled_exc_class():
            # The event loop ends before the context was left, so this is the last chance to close the journal.
            runner.discard_outcomes()
            with anyio.CancelScope(shield=True):
                await self._journal.aclose()
            raise
        except BaseException as error:  # noqa: BLE001  # raised to the users of the batch, in their task
            self._crash = _first(error)
            if isinstance(self._crash, KeyboardInterrupt) and not is_asyncio():
                signal.raise_signal(signal.SIGINT)  # trio may raise it in any task; the main task has to get it
        finally:
            self._span.end()
            self._ended.set()

    def _repr_html_(self) -> str:
        """The progress, for notebooks."""
        p = self.progress
        counts = {"finished": p.done, "failed": p.failed, "unknown": p.unknown, "under way": p.under_way}
        return html.progress({**counts, **({"lost": p.lost} if p.lost else {}), "waiting": p.waiting})

    # -- the outcomes -------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome, in the order of completion. Asking for it means that the one before has been processed."""
        if not self._runner:
            raise InvalidStateError("a batch starts with its context: async with client.batch(…) as batch: …")
        if not self._remaining:
            raise StopAsyncIteration
        if self._waiting:
            raise InvalidStateError(
                "another task is waiting for the next outcome of this batch; only one can at a time"
            )
        self._waiting = True
        try:
            await self._acknowledge(self._runner)
            received = await self._runner.next_outcome()
        finally:
            self._waiting = False
        if not self._remaining:  # another task has left the context meanwhile
            raise StopAsyncIteration
        if not received:
            raise self._crash or InvalidStateError("the batch has ended with its event loop")
        self._returned, outcome = received
        self._remaining -= 1
        return outcome

    async def _acknowledge(self, runner: BatchRunner) -> None:
        item, self._returned = self._returned, None
        if item:
            await runner.acknowledge(item)

    # -- the progress -------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> dict[int, str]:
        """The ``video_id`` of each submitted video that has no outcome yet, by the position of its job in the batch, from 0."""
        return self._runner.under_way if self._runner else {}

    @property
    def downloads(self) -> dict[Path, tuple[int, int | None]]:
        """The files being downloaded, by path: the bytes stored so far, and the size in bytes (``None`` if unknown)."""
        return self._runner.downloads if self._runner else {}

    @property
    def progress(self) -> Progress:
        """The number of jobs at each stage."""
        if self._runner:
            return self._runner.progress
        jobs = len(self._jobs)
        return Progress(total=jobs, waiting=jobs, under_way=0, done=0, failed=0, unknown=0)

    async def pace(self) -> Pace:
        """Return the rate limit, how much of it is left, and when the next request is sent.

        Returns:
            The current values, for all requests of the client, not only those of this batch.

        Raises:
            ClientClosedError: The client is closed.
        """
        with self._session.in_use() as state:
            return await state.dispatcher.pace()

    @property
    def gone(self) -> tuple[JournalEntry, ...]:
        """The journal entries of jobs that are not in this batch. These entries, and their videos, are kept."""
        return self._gone


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
