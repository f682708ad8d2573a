"""Following videos: each one's first look, then each change, until all have ended."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

import anyio
from attrs import define

from a2v._core import wire
from a2v._core.models import Video, VideoStatus
from a2v._core.retry import Again
from a2v._core.schedule import gap
from a2v.errors import A2VError, NotFoundError, ProtocolError, RateLimitError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from a2v._async.session import Session

# An outage of the server must not lose a render that goes on behind it; five minutes of 502 pages have been seen.
OUTAGE = 600.0
# A video may take a moment from its submission until `video.get` knows it.
GRACE = 120.0
# `finished` may be said a moment before there is a URL.
URLLESS_LOOKS = 5


@define(eq=False)
class _Followed:
    """What is known of one video."""

    video_id: str
    since: float
    next_look: float
    video: Video | None = None
    failing_since: float | None = None
    urlless: int = 0


class Watch:
    """One watcher of one or many videos. It asks only while somebody waits for ``next``.

    Args:
        session: Where to ask.
        video_ids: What to follow.
        fresh: Those submitted just now, which the server may not know yet.
        timeout: Seconds for the whole watch; ``None``: as long as it takes.
    """

    def __init__(
        self, session: Session, video_ids: Iterable[str], *, fresh: Collection[str], timeout: float | None
    ) -> None:
        now = anyio.current_time()
        self._session = session
        self._started = now
        self._fresh = fresh
        self._deadline = inf if timeout is None else now + timeout
        self._followed = {video_id: _Followed(video_id, now, now) for video_id in video_ids}
        self._events: deque[Video] = deque()

    async def next(self) -> Video | None:
        """The next event, or ``None`` once all have ended.

        Raises:
            WaitTimeoutError: Our patience ended first.
            A2VError: The server cannot be asked; the error says which video and what was known of it.
        """
        while self._followed and not self._events:
            followed = min(self._followed.values(), key=lambda each: each.next_look)
            try:
                await self._look(followed)
            except A2VError as error:
                error.video_id, error.video = followed.video_id, followed.video
                error.waited = anyio.current_time() - self._started
                raise
        return self._events.popleft() if self._events else None

    async def _look(self, followed: _Followed) -> None:
        with anyio.CancelScope(deadline=self._deadline) as scope:
            await self._session.sleep(max(0.0, followed.next_look - anyio.current_time()))
            answer = await self._ask(followed.video_id)
            self._take(followed, answer)
        if scope.cancelled_caught:
            waited = anyio.current_time() - self._started
            raise WaitTimeoutError(
                f"video {followed.video_id} has not ended after {waited:.0f} s; it goes on at the server",
                video_id=followed.video_id,
                video=followed.video,
                waited=waited,
            )

    async def _ask(self, video_id: str) -> Video | Again:
        try:
            return await self._session.attempt(wire.video_get(video_id))
        except NotFoundError as error:
            if video_id in self._fresh and anyio.current_time() - self._started < GRACE:
                return Again(error)
            raise

    def _take(self, followed: _Followed, answer: Video | Again) -> None:
        now = anyio.current_time()
        if isinstance(answer, Again):
            self._missed(followed, answer, now)
        elif answer.status is VideoStatus.FINISHED and not answer.video_url:
            self._urlless(followed)
        elif followed.video is None or _changed(followed.video, answer):
            self._event(followed, answer, now)
        else:
            followed.failing_since = None
        followed.next_look = now + (
            answer.after if isinstance(answer, Again) and answer.after else gap(now - followed.since)
        )

    def _missed(self, followed: _Followed, answer: Again, now: float) -> None:
        if isinstance(answer.error, RateLimitError):
            return
        followed.failing_since = now if followed.failing_since is None else followed.failing_since
        if now - followed.failing_since >= OUTAGE:
            raise answer.error

    def _urlless(self, followed: _Followed) -> None:
        followed.failing_since = None
        followed.urlless += 1
        if followed.urlless >= URLLESS_LOOKS:
            raise ProtocolError(f"the server says that video {followed.video_id} is finished, but gives no URL")

    def _event(self, followed: _Followed, video: Video, now: float) -> None:
        if followed.video and followed.video.status is VideoStatus.PENDING:
            followed.since = now
        followed.video, followed.failing_since, followed.urlless = video, None, 0
        self._events.append(video)
        if video.is_terminal:
            del self._followed[followed.video_id]


def _changed(before: Video, after: Video) -> bool:
    # A pre-signed URL is another one each time; an unknown status is told apart by what was sent.
    return before.status is not after.status or before.raw.get("status") != after.raw.get("status")
