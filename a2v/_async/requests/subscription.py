"""Subscriptions to the events of videos.

A `Subscription` listens to one or many videos, and holds the state of the listener: the videos that are still open, the last
snapshot of each, the events that the dispatcher has queued, and whether it is paused because its consumer is busy.
It does not control polling. ``PollScheduler`` decides which videos are polled and which snapshots are changes,
and ``RequestDispatcher`` queues an event only for a change. So a thousand subscriptions to one video need no more
requests than one.

An error about one video does not end the subscription to the others: it is raised once they have ended. An error about the
server, such as a rejected token or an outage, applies to all videos at the same time and therefore ends the subscription
immediately.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Self

import anyio

from a2v._async.requests import telemetry
from a2v._values.text import escape
from a2v.errors import A2VError, ClientClosedError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2v._async.requests.dispatcher import RequestDispatcher
    from a2v._async.requests.session import Session
    from a2v._core.poll_scheduler import PollEvent
    from a2v._values.models import Video

_MAX_LISTED = 10  # failures in an error message


class Subscription:
    """A subscription to one or many videos; a context manager that unsubscribes at the end of the block.

    Args:
        session: The client's shared state.
        submitted_at: The videos: the time of submission by the session's clock, or ``None`` if unknown, by video id.
        timeout: Seconds from now until ``next`` raises ``WaitTimeoutError``; ``None``: never.

    Attributes:
        open_videos: The entries of ``submitted_at`` whose videos have not ended.
        events: Events that ``next`` has not returned yet.
        paused: Whether the consumer is busy. A video is not polled while all of its subscriptions are paused.
        seen: The last snapshot of each video.
        span: The parent of the spans of polls.
    """

    def __init__(self, session: Session, submitted_at: Mapping[str, float | None], timeout: float | None) -> None:
        self.open_videos = dict(submitted_at)
        self.events: deque[PollEvent] = deque()
        self.paused = True
        self.seen: dict[str, Video] = {}
        single_id = {"a2v.video_id": next(iter(submitted_at))} if len(submitted_at) == 1 else {}
        self.span = telemetry.start_span("a2v.watch", {"a2v.videos": len(submitted_at), **single_id})
        self._session = session
        self._dispatcher: RequestDispatcher | None = None
        self._count = len(submitted_at)
        self._failures: dict[str, A2VError] = {}
        self._started = anyio.current_time()
        self._deadline = inf if timeout is None else self._started + timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._dispatcher:
            self._dispatcher.unsubscribe(self)
        self.span.end()

    @property
    def is_ready(self) -> bool:
        """Whether there is an event to return."""
        return bool(self.events)

    async def next(self) -> Video | None:
        """Wait for the next changed snapshot.

        Returns:
            The snapshot, or ``None`` once all videos have ended.

        Raises:
            WaitTimeoutError: The timeout passed before all videos had ended.
            A2VError: All videos have ended, some of them with errors, or the server cannot be used. The message names the
                videos; the error has the id and the last snapshot of the first one.
        """
        while self.events or self.open_videos:
            if not self.events:
                await self._wait()
                continue
            video_id, event = self.events.popleft()
            if isinstance(event, A2VError):
                self.open_videos.pop(video_id, None)
                self._failures[video_id] = event
                continue
            if event.is_terminal:
                self.open_videos.pop(video_id, None)
            self.seen[video_id] = event
            self.span.add_event("a2v.video", {"a2v.video_id": video_id, "a2v.status": event.status.value})
            return event
        if self._failures:
            raise self._failure()
        return None

    async def _wait(self) -> None:
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                with self._session.in_use() as state:
                    if self._dispatcher is None:
                        self._dispatcher = state.dispatcher
                        self._dispatcher.subscribe(self)
                    await self._dispatcher.wait_for_events(self)
            except ClientClosedError as error:
                raise self._with_context(error, next(iter(self.open_videos))) from None
        if scope.cancelled_caught:
            raise self._timed_out()

    def _failure(self) -> A2VError:
        video_id, first = next(iter(self._failures.items()))
        # Subscribers share the error; each needs its own attributes and traceback.
        error = self._with_context(copy(first), video_id)
        # If all videos have the same error object, it is about the server.
        is_about_server = len(self._failures) > 1 and all(error is first for error in self._failures.values())
        if self._count > 1 and not is_about_server:
            error.args = (self._list_failures(),)
        return error

    def _list_failures(self) -> str:
        named = [f"{escape(video_id)}: {error}" for video_id, error in islice(self._failures.items(), _MAX_LISTED)]
        more = [f"and {len(self._failures) - _MAX_LISTED} more"] if len(self._failures) > _MAX_LISTED else []
        return f"{len(self._failures)} of {self._count} videos could not be followed: " + "; ".join([*named, *more])

    def _with_context(self, error: A2VError, video_id: str) -> A2VError:
        error.video_id, error.video = video_id, self.seen.get(video_id) or error.video
        error.waited = anyio.current_time() - self._started
        self.span.set_error(type(error).__name__)
        return error

    def _timed_out(self) -> WaitTimeoutError:
        video_id, waited = next(iter(self.open_videos)), anyio.current_time() - self._started
        self.span.set_error(WaitTimeoutError.__name__)
        others = f" (one of {len(self.open_videos)} that have not)" if len(self.open_videos) > 1 else ""
        error = WaitTimeoutError(
            f"video {escape(video_id)} has not ended after {waited:.0f} s{others}; the server continues to render",
            video_id=video_id,
            video=self.seen.get(video_id),
            waited=waited,
        )
        if self._failures:
            error.add_note(self._list_failures())
        return error
