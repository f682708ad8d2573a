"""Following videos: each one's first look, then each change, until all have ended.

An error about one video does not end the watch of the others: it is raised once they have ended. An error about the
server (a refused token, an outage) reaches all videos at the same time, and so ends the watch at once.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

import anyio

from a2v._async.requests import telemetry
from a2v._async.requests.dispatcher import Watcher
from a2v._values.text import escape
from a2v.errors import A2VError, ClientClosedError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from a2v._async.requests.dispatcher import RequestDispatcher
    from a2v._async.requests.session import Session
    from a2v._core.poll_scheduler import PollEvent
    from a2v._values.models import Video

_SHOWN = 10


class Watch:
    """One watcher of one or many videos.

    Args:
        session: Where to ask.
        since: For each video's id when it was submitted, by the session's clock, or ``None`` if it was picked up.
        timeout: Seconds for the whole watch; ``None``: as long as it takes.
    """

    def __init__(self, session: Session, since: Mapping[str, float | None], timeout: float | None) -> None:
        self._session = session
        self._open = dict(since)
        self._number = len(since)
        self._started = anyio.current_time()
        self._deadline = inf if timeout is None else self._started + timeout
        self._seen: dict[str, Video] = {}
        self._news: deque[PollEvent] = deque()
        self._failed: dict[str, A2VError] = {}
        one = {"a2v.video_id": next(iter(since))} if len(since) == 1 else {}
        self._span = telemetry.start_span("a2v.watch", {"a2v.videos": len(since), **one})
        self._watcher = Watcher(self._span)
        self._dispatcher: RequestDispatcher | None = None

    async def next(self) -> Video | None:
        """The next event, or ``None`` once all have ended.

        Raises:
            WaitTimeoutError: The timeout passed before all had ended.
            A2VError: Some could not be followed to their end; the error says which, and what was known of the first.
        """
        while self._news or self._open:
            if not self._news:
                await self._wait()
                continue
            video_id, news = self._news.popleft()
            if isinstance(news, A2VError):
                self._open.pop(video_id, None)
                self._failed[video_id] = news
            else:
                self._see(news)
                return news
        if self._failed:
            raise self._failure()
        return None

    def close(self) -> None:
        """Watch no longer."""
        if self._dispatcher:
            self._dispatcher.leave(self._watcher, list(self._open))
        self._span.end()

    async def _wait(self) -> None:
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                with self._session.in_use() as state:
                    if self._dispatcher is None:
                        self._dispatcher = state.dispatcher
                        state.dispatcher.follow(self._watcher, self._open)
                    self._news.extend(await state.dispatcher.news(self._watcher, self._open))
            except ClientClosedError as error:
                raise self._with_facts(error, next(iter(self._open))) from None
        if scope.cancelled_caught:
            raise self._timed_out()

    def _see(self, video: Video) -> None:
        if video.is_terminal:
            self._open.pop(video.video_id, None)
        self._seen[video.video_id] = video
        self._span.add_event("a2v.video", {"a2v.video_id": video.video_id, "a2v.status": video.status.value})

    def _failure(self) -> A2VError:
        video_id, first = next(iter(self._failed.items()))
        error = self._with_facts(copy(first), video_id)
        if self._number > 1 and not self._is_about_the_server(first):
            error.args = (self._failures(),)
        return error

    def _is_about_the_server(self, error: A2VError) -> bool:
        return len(self._failed) > 1 and all(each is error for each in self._failed.values())

    def _failures(self) -> str:
        shown = [f"{escape(video_id)}: {error}" for video_id, error in islice(self._failed.items(), _SHOWN)]
        more = [f"and {len(self._failed) - _SHOWN} more"] if len(self._failed) > _SHOWN else []
        return f"{len(self._failed)} of {self._number} videos could not be followed: " + "; ".join([*shown, *more])

    def _with_facts(self, error: A2VError, video_id: str) -> A2VError:
        error.video_id, error.video = video_id, self._seen.get(video_id) or error.video
        error.waited = anyio.current_time() - self._started
        self._span.set_error(type(error).__name__)
        return error

    def _timed_out(self) -> WaitTimeoutError:
        video_id, waited = next(iter(self._open)), anyio.current_time() - self._started
        self._span.set_error(WaitTimeoutError.__name__)
        others = f" (one of {len(self._open)} that have not)" if len(self._open) > 1 else ""
        error = WaitTimeoutError(
            f"video {escape(video_id)} has not ended after {waited:.0f} s{others}; it goes on at the server",
            video_id=video_id,
            video=self._seen.get(video_id),
            waited=waited,
        )
        if self._failed:
            error.add_note(self._failures())
        return error
