"""Submits the items of a batch: never twice, each step written down before the next, and past a server out of reach."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from a2v._async.requests import telemetry
from a2v._async.requests.known_videos import SubmissionAttempt
from a2v._core import wire
from a2v._core.job_errors import error_record, refuses_all, state_after, submission_unknown
from a2v._core.poll_scheduler import MAX_OUTAGE
from a2v._core.responses import Retry
from a2v._values.jobs import JobState
from a2v._values.text import escape
from a2v.errors import A2VError, ClientClosedError, JournalError, RateLimitError, ServerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from a2v._async.batch.item import Item
    from a2v._async.batch.journal import Journal
    from a2v._async.batch.reconciler import Reconciler
    from a2v._async.requests.session import Session
    from a2v._values.jobs import Job

_AGAIN = 10.0
"""Seconds between attempts to reach a server that is out of reach, and after the first doubt."""
_LONGEST_PAUSE = 300.0
"""Seconds between submissions at most while one after the other ends in doubt."""
_GRACE = 3.0
"""Seconds for which a batch that is told to end waits for the answer to a submission: that is better than a doubt."""


class Submitter:
    """Submits items, one at a time: at thirty requests a minute that costs nothing, and at most one can be in doubt.

    Args:
        session: Whose requests and patience to use.
        journal: Where each step is written down.
        video_ids: The videos of the batch so far: no other item can be one of them.
        finder: Looks for what is in doubt, and numbers submissions.
    """

    def __init__(self, session: Session, journal: Journal, video_ids: set[str], finder: Reconciler) -> None:
        self._finder = finder
        self._session = session
        self._journal = journal
        self._video_ids = video_ids
        self._on_its_way = anyio.CancelScope()
        self._refused: A2VError | None = None
        self._outage_since: float | None = None
        self._pause = _AGAIN

    async def submit(self, item: Item) -> None:
        """Submit an item; a server out of reach is waited for.

        Raises:
            SubmissionUnknownError: Nobody knows whether it was accepted; ``recover`` before the next one.
            A2VError: It was refused, or could not be sent or written down; the item's state tells whether it is in doubt.
        """
        try:
            call = wire.video_generate(item.job)
            with telemetry.call_span(call) as span:
                await self._outlive(partial(self._session.retry, call.name, partial(self._attempt, item)))
                span.set_attributes({"a2v.video_id": str(item.video_id)})
        except A2VError as error:
            if isinstance(error, JournalError | ClientClosedError) or refuses_all(error):
                self._refused = error  # so will be the next ones
            raise
        self._pause = _AGAIN

    async def recover(self, free: wire.ApiRequest[Any]) -> None:
        """After a doubt: one for each outage is enough, so wait until the server answers what costs nothing.

        Args:
            free: What to ask it.
        """
        with suppress(A2VError):  # the next submission will tell
            await self._outlive(partial(self._session.call, free))
        # It may work for everything but submissions, and each of those may cost money.
        await anyio.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def guard(self) -> None:
        """Beside ``submit``: let a submission that has begun end when all else is cancelled, but do not wait for ever."""
        try:
            await anyio.sleep_forever()
        finally:
            self._on_its_way.deadline = anyio.current_time() + _GRACE

    def accepted(self, item: Item, video_id: str) -> None:
        """The server has an item, as the journal knows already."""
        item.state, item.video_id = JobState.SUBMITTED, video_id
        self._video_ids.add(video_id)

    async def _outlive(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Do something that a server out of reach shall not end, unless it stays so for longer than a watch would wait."""
        while True:
            try:
                await work()
            except (TransportError, ServerError, RateLimitError):
                now = anyio.current_time()
                self._outage_since = now if self._outage_since is None else self._outage_since
                if now + _AGAIN - self._outage_since > MAX_OUTAGE:
                    raise
                await anyio.sleep(_AGAIN)
            else:
                self._outage_since = None
                return

    async def _attempt(self, item: Item) -> Retry | None:
        if self._refused:
            raise copy(self._refused)  # each job's own, or one traceback would grow with every job
        # Whatever follows may come without a pause to the point from which on it is shielded.
        await checkpoint_if_cancelled()
        again = None
        with anyio.CancelScope() as self._on_its_way:
            again = await self._exchange(item, self._on_its_way)
        if self._on_its_way.cancelled_caught:
            await anyio.sleep_forever()  # the batch was told to end, and the answer did not come in time
        return again

    async def _exchange(self, item: Item, scope: anyio.CancelScope) -> Retry | None:
        async def intend() -> None:
            try:
                await self._finder.write_down()
                assert sending.number is not None  # noqa: S101  # for the type checker: it begins
                number = self._finder.submitted_at(sending.number)
                await item.move(self._journal, JobState.SUBMITTING, run=number)
            except BaseException:
                # It may be on disk all the same. Nothing was sent, so it need not end in doubt.
                with suppress(JournalError):
                    await item.move(self._journal, JobState.PENDING)
                raise
            scope.shield = True

        sending = SubmissionAttempt(intend, owner=self._finder.owner)
        try:
            outcome = await self._session.submit(item.job, sending)
            self._refuse_twin(item.job, outcome)
        except BaseException as error:
            if sending.started:
                state = state_after(error, sent=sending.sent)
                await item.move(self._journal, state, error=error_record(error, item.job))
                if state is JobState.UNKNOWN and isinstance(error, TransportError):  # of a caller's transport
                    raise submission_unknown(item.job, str(error)) from error
            raise
        if isinstance(outcome, Retry):
            await item.move(self._journal, JobState.PENDING)
            return outcome
        await self._journal.do(partial(self._journal.submitted, item.identity, outcome))
        self.accepted(item, outcome)
        return None

    def _refuse_twin(self, job: Job, outcome: str | Retry) -> None:
        if not isinstance(outcome, Retry) and outcome in self._video_ids:
            raise submission_unknown(
                job, f"the server says that it is video {escape(outcome)}, and that is another job's"
            )
