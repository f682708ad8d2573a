"""The runner of a batch: carries out a plan, and is the only writer of its items' states.

The journal is a write-ahead log: each change of state goes through ``BatchRunner._transition``, which writes the journal first. So
the state in memory is never ahead of the one on disk, and after a crash at any point the next run can continue.

One task submits the pending items, one at a time. This is fast enough, because the rate limit is the bottleneck, and a crash
leaves at most one submission with an unknown outcome. Each submitted item has a task that follows it and saves its files. One more
task reconciles submissions with unknown outcomes. An item is *in flight* while it is followed or reconciled; ``max_in_flight``
limits the number of such items.

A job with a text is submitted in two steps, each with its own intent in the journal. The first requests the speech; then
the item is pending again, and the journal has the URL of the speech. The second submits the video. If the speech is from an
earlier run, the runner first checks that it still exists: a render with an expired URL would be paid for, and fail.

A failure of one item does not affect other items. Failures that affect all items, and cancellation, work like this:

* While the server is unreachable, submitting waits. If the server rejects the account, or the journal cannot be written, no further
  item is submitted.
* After a submission with an unknown outcome, the next one waits until a request that costs nothing succeeds, and then for a
  growing interval. Otherwise, a server that fails in the middle of submissions would leave an unknown outcome for each item.
* After a cancellation, a submission in flight has a few more seconds to complete, because a cancelled one has an unknown outcome.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from attrs import define, field

from a2v._async.batch.files import BatchFiles
from a2v._async.batch.outage import Outage
from a2v._async.batch.reconciler import Reconciler
from a2v._async.requests import telemetry
from a2v._async.requests.known_videos import SubmissionAttempt
from a2v._async.task import AsyncVideoTask
from a2v._core import wire
from a2v._core.batch_plan import Action
from a2v._core.job_errors import as_a2v_error, error_record, is_lost, rejection_from, rejects_account, state_after
from a2v._core.job_matching import Match
from a2v._core.outcomes import Outcome, Progress
from a2v._core.responses import Retry, speech_unknown, submission_unknown
from a2v._core.settings import Secret
from a2v._values.jobs import JobState
from a2v._values.models import Video, VideoStatus
from a2v._values.text import escape
from a2v.errors import (
    A2VError,
    ClientClosedError,
    DownloadError,
    JournalError,
    SubmissionUnknownError,
    TransportError,
    VideoFailedError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from a2v._async.batch.journal import Journal
    from a2v._async.batch.reconciler import ReconciledVideo
    from a2v._async.destination import FileId
    from a2v._async.requests.session import Session
    from a2v._core.batch_options import BatchOptions
    from a2v._core.batch_plan import BatchPlan, Step
    from a2v._core.journal_rows import JournalRow
    from a2v._values.jobs import Job

    _Send = Callable[["Item", anyio.CancelScope], Awaitable[Retry | None]]

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_PAUSE = 10.0
"""Seconds between a submission with an unknown outcome and the next submission; doubled each time."""
_MAX_PAUSE = 300.0
"""Maximum of this pause, in seconds."""
_GRACE = 3.0
"""Seconds that a submission in flight has to complete after the batch is cancelled."""
_STAGES = {
    JobState.PENDING: "waiting",
    JobState.UNKNOWN: "unknown",
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.REJECTED: "failed",
    JobState.LOST: "lost",
}
"""The field of ``Progress`` that counts each state; ``under_way`` counts all other states."""


@define(eq=False)
class Item:
    """A job in a running batch. Only the runner changes it.

    Attributes:
        match: The job, its key in the journal, and its paths.
        state: The state in the journal.
        video_id: The id of the video; ``None`` before the submission.
        speech_url: The URL of the speech made from the job's text, from the synthesis until the submission of the video.
        is_speech_checked: Whether the speech is from this run, or was checked to exist still.
        failed: Whether the item ended with an error in this run.
        status: The last status of the video in this run; ``None`` before the first poll.
    """

    match: Match
    state: JobState
    video_id: str | None
    speech_url: str | None = field(default=None, repr=False)
    is_speech_checked: bool = False
    failed: bool = False
    status: VideoStatus | None = None

    @property
    def is_speech_unknown(self) -> bool:
        """Whether the request with an unknown outcome was the one for the speech, so that no video was submitted."""
        return self.state is JobState.UNKNOWN and self.job.text is not None and self.speech_url is None

    @property
    def job(self) -> Job:
        """The job."""
        return self.match.job

    def unknown_error(self, reason: str) -> SubmissionUnknownError:
        """Return the error for an unknown outcome of the request in flight."""
        return (speech_unknown if self.is_speech_unknown else submission_unknown)(self.job, reason)

    @property
    def stage(self) -> str:
        """The field of ``Progress`` that counts the item."""
        stage = _STAGES.get(self.state, "under_way")
        return "failed" if self.failed and stage not in ("unknown", "lost") else stage


class BatchRunner:
    """Runs a batch: call ``start``, then ``run`` in a task of its own, and take the outcomes with ``next_outcome``.

    Args:
        session: The client's shared state.
        journal: The journal of the batch.
        plan: What to do.
        options: The options of the batch.
        protected: Files that are never replaced.
    """

    def __init__(
        self, session: Session, journal: Journal, plan: BatchPlan, options: BatchOptions, protected: frozenset[FileId]
    ) -> None:
        self._session = session
        self._journal = journal
        self._plan = plan
        self._options = options
        self._files = BatchFiles(journal, overwrite=options.overwrite, protected=protected)
        self._items: list[Item] = []
        self._in_flight: dict[int, Item] = {}
        # Submissions with unknown outcomes that wait for the reconciler.
        self._unreconciled: list[tuple[Item, SubmissionUnknownError]] = []
        self._outcomes: deque[tuple[Item, Outcome]] = deque()
        self._ended = False
        # Set, and replaced, when an outcome is added, an unknown submission is queued, or the run ends.
        self._changed = anyio.Event()
        self._scope = anyio.CancelScope()
        # The scope of the submission in flight, which is shielded until the scope's deadline.
        self._sending_scope = anyio.CancelScope()
        self._outage = Outage(session.throttled_for)
        self._pause = _FIRST_PAUSE
        # If set, nothing more is submitted: each further item ends with a copy of this error.
        self._fatal_error: A2VError | None = None
        # Ids of videos already assigned to jobs. An id from a server that has lost its data may repeat, so those of
        # resubmitted items are not included.
        self._video_ids = {row.video_id for row in plan.gone if row.video_id}

    # -- for the batch ------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> dict[int, str]:
        """The ``video_id`` of each item in flight that has one, by the position of its job."""
        return {index: item.video_id for index, item in self._in_flight.items() if item.video_id}

    @property
    def downloads(self) -> dict[Path, tuple[int, int | None]]:
        """The progress of the current downloads; see ``AsyncBatch.downloads``."""
        return dict(self._files.downloads)

    @property
    def progress(self) -> Progress:
        """The number of items at each stage."""
        count = Counter(item.stage for item in self._items)
        stages = ("waiting", "under_way", "done", "failed", "unknown", "lost")
        active = [item for item in self._in_flight.values() if item.stage == "under_way"]
        return Progress(
            total=len(self._items),
            **{stage: count[stage] for stage in stages},
            rendering=sum(item.status is VideoStatus.IN_PROGRESS for item in active),
            saving=sum(item.status is VideoStatus.FINISHED for item in active),
        )

    @property
    def expected_outcomes(self) -> int:
        """The number of outcomes of a complete run."""
        return sum(step.action not in (Action.DEFER, Action.SKIP) for step in self._plan.steps)

    async def start(self) -> None:
        """Write the plan to the journal, and report the outcomes that are already known.

        Raises:
            JournalError: The journal cannot be written.
        """
        await self._journal.run(partial(self._journal.sync_jobs, [step.match for step in self._plan.steps]))
        for step in self._plan.steps:
            self._items.append(await self._start_item(step))
        self._video_ids.update(item.video_id for item in self._items if item.video_id)
        self._reconciler = Reconciler(self._session, self._journal)
        errors = await self._files.copy_renamed(self._plan.steps)
        for item, step in zip(self._items, self._plan.steps, strict=True):
            if step.action is Action.REFUSE:
                blocked = DownloadError(step.problem)
                blocked.video_id = item.video_id
                self._end(item, error=blocked)
            elif error := errors.get(item.match.index):
                failure = as_a2v_error(error, item.job)
                failure.video_id = item.video_id
                self._end(item, error=failure)
            else:
                await self._record_new_name(item, step)
                if step.action is Action.REPORT and step.match.row:
                    self._end(item, **_outcome_of(step.match.row, item.match))

    async def run(self) -> None:
        """Carry out the plan. Runs until cancelled."""
        try:
            with self._scope:
                async with anyio.create_task_group() as self._group:
                    self._group.start_soon(self._end_submission_after_grace)
                    await self._run_items()
        finally:
            self._reconciler.close()
            self._ended = True
            self._notify()

    def cancel(self) -> None:
        """End the run."""
        self._scope.cancel()

    def discard_outcomes(self) -> None:
        """Discard the outcomes that the batch has not retrieved. The next run reports them again."""
        self._outcomes.clear()

    async def next_outcome(self) -> tuple[Item, Outcome] | None:
        """Wait for the next outcome; return ``None`` if the run has ended and none is left."""
        await checkpoint()
        while not self._outcomes:
            if self._ended:
                return None
            await self._changed.wait()
        return self._outcomes.popleft()

    async def acknowledge(self, item: Item) -> None:
        """Record that the caller has processed the outcome of an item, so that later runs do not report it again."""
        if item.state.is_terminal:
            await self._journal.run(partial(self._journal.reported, item.match.identity))

    # -- states -------------------------------------------------------------------------------------------------------

    async def _transition(
        self, item: Item, record: Callable[Concatenate[str, P], JobState], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Change the state of an item, first in the journal.

        Args:
            item: The item.
            record: The journal's method for the transition.
            *args: Positional arguments of the method, after the item's identity.
            **kwargs: Keyword arguments of the method.

        Raises:
            JournalError: The journal cannot be written. The item keeps its state.
        """
        item.state = await self._journal.run(partial(record, item.match.identity, *args, **kwargs))
        if item.state is JobState.PENDING:
            item.video_id = None

    async def _start_item(self, step: Step) -> Item:
        row = step.match.row
        item = Item(step.match, row.state if row else JobState.PENDING, row.video_id if row else None)
        item.speech_url = row.speech_url if row else None
        if step.action is Action.REFUSE:
            return item
        if step.state_found is not item.state:
            await self._transition(item, self._journal.file_missing)
        if step.state is not item.state:
            await self._transition(item, self._journal.resubmit)
        return item

    async def _record_new_name(self, item: Item, step: Step) -> None:
        """Record the new path of a video that an earlier run saved under another name or in another folder."""
        path, row = item.match.path, step.match.row
        if item.state is not JobState.DONE or not path or not row or not row.path:
            return
        if step.source or Path(row.path).name != path.name:
            await self._journal.run(partial(self._journal.copied, item.match.identity, str(path.absolute())))

    async def _set_submitted(self, item: Item, video_id: str) -> None:
        await self._transition(item, self._journal.submitted, video_id)
        item.video_id = video_id
        self._video_ids.add(video_id)

    def _end(self, item: Item, *, error: A2VError | None = None, **facts: Any) -> None:
        """Report the outcome of an item."""
        # A render that takes longer than `render_timeout` has not failed: the next run waits for it again.
        item.failed = error is not None and not isinstance(error, WaitTimeoutError)
        self._in_flight.pop(item.match.index, None)
        self._outcomes.append((item, Outcome(index=item.match.index, job=item.job, error=error, **facts)))
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # -- items --------------------------------------------------------------------------------------------------------

    async def _run_items(self) -> None:
        items: dict[Action, list[Item]] = {action: [] for action in Action}
        for item, step in zip(self._items, self._plan.steps, strict=True):
            items[step.action].append(item)
        for item in items[Action.FOLLOW]:
            self._follow(item)
        if items[Action.FOLLOW] or items[Action.SUBMIT] or items[Action.RECONCILE]:
            await self._start_reconciling()
        for item in items[Action.RECONCILE]:
            self._reconcile_or_end(item, item.unknown_error("an earlier run ended while the request was in flight"))
        for item in items[Action.SUBMIT]:
            while self._options.max_in_flight and len(self._in_flight) >= self._options.max_in_flight:
                await self._changed.wait()
            await self._submit(item)

    def _follow(self, item: Item) -> None:
        self._in_flight[item.match.index] = item
        self._group.start_soon(self._run_to_outcome, item)

    async def _run_to_outcome(self, item: Item) -> None:
        assert item.video_id is not None  # noqa: S101  # for the type checkers: it was submitted
        # Parts of the server may not know a new video yet, even one that the last run submitted just before it ended.
        since = self._session.now() if item.state is JobState.SUBMITTED else None
        task = AsyncVideoTask(self._session, item.video_id, submitted_at=since)
        try:
            await self._wait_and_save(item, task)
        except Exception as error:  # noqa: BLE001  # whatever it is, it concerns this item alone
            failure = await self._record_failure(item, error)
            failure.video_id = failure.video_id or item.video_id
            self._end(item, video=task.video, error=failure)
        else:
            self._end(item, video=task.video, **item.match.saved)

    async def _wait_and_save(self, item: Item, task: AsyncVideoTask) -> None:
        await task.wait(timeout=self._options.render_timeout, on_change=partial(_set_status, item))
        if item.state is not JobState.FINISHED:
            await self._transition(item, self._journal.finished)
        path = item.match.path
        if path:
            await self._files.save(task, item.match.identity, path, item.match.side_files)
        await self._transition(item, self._journal.done, str(path.absolute()) if path else None)

    async def _record_failure(self, item: Item, error: Exception) -> A2VError:
        """Record a failure if it is final, and return the error for the outcome."""
        record = error_record(error, item.job)
        try:
            if isinstance(error, VideoFailedError):
                await self._transition(item, self._journal.failed, record)
            elif is_lost(error) and item.state is not JobState.LOST:
                await self._transition(item, self._journal.lost, record)
        except JournalError as problem:
            return problem
        return as_a2v_error(error, item.job)

    # -- submissions --------------------------------------------------------------------------------------------------

    async def _submit(self, item: Item) -> None:
        try:
            await self._submit_with_retries(item)
        except SubmissionUnknownError as error:
            self._reconcile_or_end(item, error)
            video_list = self._session.known_videos.video_list()
            await self._wait_after_unknown(video_list if self._reconciler.works else wire.character_list())
        except Exception as error:  # noqa: BLE001  # whatever it is, it concerns this item alone
            failure = as_a2v_error(error, item.job)
            if item.state is not JobState.UNKNOWN:
                self._end(item, error=failure)
                return
            unknown = item.unknown_error(str(failure))
            unknown.__cause__ = error
            self._end(item, error=unknown)
            if not isinstance(error, A2VError):
                await self._wait_after_unknown(wire.character_list())
        else:
            self._follow(item)

    async def _submit_with_retries(self, item: Item) -> None:
        """Submit an item; retry while the server is unreachable.

        Raises:
            SubmissionUnknownError: The server may or may not have accepted it.
            A2VError: It was rejected, not sent, or could not be recorded. Its state is *unknown* if it may have been accepted.
        """
        try:
            if item.job.text and not item.is_speech_checked:
                await self._prepare_speech(item)
            await self._request(item, wire.video_generate(item.job, item.speech_url), self._send)
        except A2VError as error:
            if isinstance(error, JournalError | ClientClosedError) or rejects_account(error):
                self._fatal_error = error
            raise
        self._pause = _FIRST_PAUSE

    async def _request(self, item: Item, request: wire.ApiRequest[Any], send: _Send) -> None:
        with telemetry.call_span(request) as span:
            await self._outage.retry(
                partial(self._session.retry, request.name, partial(self._attempt, partial(send, item)))
            )
            if item.video_id:
                span.set_attributes({"a2v.video_id": item.video_id})

    async def _prepare_speech(self, item: Item) -> None:
        """Synthesize the text of an item, unless an earlier run did and the speech still exists."""
        if item.speech_url:
            url = Secret(item.speech_url)
            if not await self._outage.retry(
                partial(self._session.retry, "the speech of an earlier run", partial(self._session.is_available, url))
            ):
                await self._journal.run(partial(self._journal.speech_gone, item.match.identity))
                item.speech_url = None
        if not item.speech_url:
            await self._request(item, wire.job_speech(item.job), self._send_for_speech)
        item.is_speech_checked = True

    async def _wait_after_unknown(self, request: wire.ApiRequest[Any]) -> None:
        """Wait until a request that costs nothing succeeds, so that an outage leaves only one unknown outcome."""
        with suppress(A2VError):  # the next submission will fail in the same way
            await self._outage.retry(partial(self._session.call, request))
        # Other requests may succeed while submissions still fail, and each of those may cost money.
        await anyio.sleep(self._pause)
        self._pause = min(2 * self._pause, _MAX_PAUSE)

    async def _end_submission_after_grace(self) -> None:
        """Wait until the run is cancelled, then limit the submission in flight to the grace period."""
        try:
            await anyio.sleep_forever()
        finally:
            self._sending_scope.deadline = anyio.current_time() + _GRACE

    async def _attempt(self, send: Callable[[anyio.CancelScope], Awaitable[Retry | None]]) -> Retry | None:
        """Make one attempt to send a request that costs money."""
        if self._fatal_error:
            raise copy(self._fatal_error)  # a copy, or one traceback would grow with each item
        # The last chance to be cancelled before the shielded part. The code above must not yield.
        await checkpoint_if_cancelled()
        retry = None
        with anyio.CancelScope() as self._sending_scope:
            retry = await send(self._sending_scope)
        if self._sending_scope.cancelled_caught:
            await anyio.sleep_forever()  # until the cancellation arrives: the grace period has passed
        return retry

    async def _send(self, item: Item, scope: anyio.CancelScope) -> Retry | None:
        async def before_sending() -> None:
            await self._reconciler.record_known_videos()
            assert attempt.number is not None  # noqa: S101  # for the type checkers: it has started
            await self._record_intent(item, scope, self._journal.submitting, self._reconciler.moment(attempt.number))

        async def submit() -> str | Retry:
            result = await self._session.submit(item.job, attempt, item.speech_url)
            if not isinstance(result, Retry) and result in self._video_ids:
                reason = f"the server returned the id {escape(result)}, which belongs to another job's video"
                raise submission_unknown(item.job, reason)
            return result

        attempt = SubmissionAttempt(before_sending, owner=self._reconciler.owner)
        result = await self._record_failures(item, attempt, submit)
        if isinstance(result, Retry):
            return result
        await self._set_submitted(item, result)
        return None

    async def _send_for_speech(self, item: Item, scope: anyio.CancelScope) -> Retry | None:
        intent = partial(self._record_intent, item, scope, self._journal.synthesizing)
        attempt = SubmissionAttempt(intent, makes_video=False)
        request = partial(self._session.request_speech, wire.job_speech(item.job), attempt)
        result = await self._record_failures(item, attempt, request)
        if isinstance(result, Retry):
            return result
        item.speech_url = result.url
        await self._transition(item, self._journal.synthesized, result.url)
        return None

    async def _record_intent(
        self,
        item: Item,
        scope: anyio.CancelScope,
        record: Callable[Concatenate[str, P], JobState],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Record with ``_transition`` that a request is about to be sent, and shield the request from cancellation."""
        try:
            await self._transition(item, record, *args, **kwargs)
        except BaseException:
            # The intent may have been written despite the error. Nothing was sent, so withdraw it.
            with suppress(JournalError):
                await self._transition(item, self._journal.withdrawn)
            raise
        scope.shield = True

    async def _record_failures(
        self, item: Item, attempt: SubmissionAttempt, request: Callable[[], Awaitable[T | Retry]]
    ) -> T | Retry:
        """Send a request after recording its intent; record the result if it failed or may be retried."""
        try:
            result = await request()
        except BaseException as error:
            if attempt.started:
                await self._record_submission_error(item, error, sent=attempt.sent)
            raise
        if isinstance(result, Retry) and attempt.started:  # not started if the upload of its recording failed
            await self._transition(item, self._journal.withdrawn)
        return result

    async def _record_submission_error(self, item: Item, error: BaseException, *, sent: bool) -> None:
        journal, record = self._journal, error_record(error, item.job)
        state = state_after(error, sent=sent)
        if state is JobState.REJECTED:
            await self._transition(item, journal.rejected, record)
        elif state is JobState.PENDING:
            await self._transition(item, journal.withdrawn, record)
        else:
            await self._transition(item, journal.unknown, record)
            if isinstance(error, TransportError):  # raised by a custom transport
                raise item.unknown_error(str(error)) from error

    # -- reconciliation -----------------------------------------------------------------------------------------------

    async def _start_reconciling(self) -> None:
        if self._options.journal:
            await self._reconciler.start()
        if self._reconciler.works:
            self._group.start_soon(self._reconcile)

    def _reconcile_or_end(self, item: Item, error: SubmissionUnknownError) -> None:
        """Report an unknown submission, after searching for its video if possible."""
        if self._reconciler.works and not item.is_speech_unknown:
            self._in_flight[item.match.index] = item
            self._unreconciled.append((item, error))
            self._notify()
        else:
            self._end(item, error=error)

    async def _reconcile(self) -> None:
        while True:
            while not self._unreconciled:
                await self._changed.wait()
            unknown, self._unreconciled = self._unreconciled, []
            found = await self._reconciler.find({item.match.identity for item, _ in unknown})
            for item, error in unknown:
                video = found.get(item.match.identity)
                if video and await self._adopt(item, video):
                    self._follow(item)
                else:
                    self._end(item, error=error)

    async def _adopt(self, item: Item, video: ReconciledVideo) -> bool:
        """Record that a video is the result of an unknown submission; return whether that succeeded."""
        try:
            await self._set_submitted(item, video.video_id)
        except JournalError:
            return False  # the next run finds it again
        self._reconciler.settle(video)
        return True


def _outcome_of(row: JournalRow, match: Match) -> dict[str, Any]:
    """Return the attributes of the outcome that a journal row records."""
    if row.state is JobState.REJECTED and row.error:
        return {"error": rejection_from(row.error)}
    assert row.video_id is not None  # noqa: S101  # for the type checkers: it was rendered
    if row.state is JobState.FAILED:
        video = Video(video_id=row.video_id, status=VideoStatus.FAILED)
        message = row.error.message if row.error else ""
        return {"video": video, "error": VideoFailedError(message, video=video)}
    video = Video(video_id=row.video_id, status=VideoStatus.FINISHED)
    return {"video": video, **match.saved}


def _set_status(item: Item, video: Video) -> None:
    item.status = video.status
