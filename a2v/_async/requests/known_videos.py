"""What a client knows about where the videos of its account come from.

A batch must not take a video for the result of an uncertain submission if it may be something else. So the client notes,
for all its event loops: which videos it submitted or was given the id of; since when each other video is listed; and which
of its submissions have no known result. Time is counted in submissions: what a request lists that was sent before a
submission began cannot be the result of it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING

from attrs import define, evolve

from a2v._core import wire

if TYPE_CHECKING:
    from a2v._core.models import Video
    from a2v._core.wire import ApiRequest, SubmissionAttempt

ACCOUNTED = -1
"""Instead of a time: nobody needs to ask where this video comes from."""
_RECENT = 10_000
"""Own videos to remember while no batch runs. A server may list a video only some time after it was submitted."""


@define
class _Submission:
    owner: Hashable
    in_flight: bool = True


class KnownVideos:
    """The notes of one client; see above. They may be used in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self._open: dict[int, _Submission] = {}
        self._recent: deque[str] = deque(maxlen=_RECENT)
        # Only while somebody follows: when each video was first seen, and all of that in the order in which it was noted.
        self._followers = 0
        self._first: dict[str, int] = {}
        self._log: list[tuple[str, int]] = []
        self._lists = 0

    # -- what the client tells ----------------------------------------------------------------------------------------

    def begin(self, sending: SubmissionAttempt) -> None:
        """A submission is about to be sent."""
        with self._lock:
            sending.moment = self._now
            self._open[self._now] = _Submission(sending.owner)
            self._now += 1

    def end(self, sending: SubmissionAttempt, video_id: str | None = None) -> None:
        """The result of a submission is known: a video, or that there is none."""
        if sending.moment is not None:
            self.settle(sending.moment)
        if video_id is not None:
            self.account(video_id)

    def doubt(self, sending: SubmissionAttempt) -> None:
        """A submission has ended, and its result is unknown."""
        with self._lock:
            if sending.moment in self._open:  # pragma: no branch  # its video may have been found already
                self._open[sending.moment].in_flight = False

    def account(self, video_id: str) -> None:
        """A video is known to be the result of something else than an uncertain submission."""
        with self._lock:
            self._recent.append(video_id)
            self._note(video_id, ACCOUNTED)

    def video_list(self) -> ApiRequest[list[Video]]:
        """The call ``video.list``, whose reply is noted as of now."""
        call, sent = wire.video_list(), self._now

        def read(data: object) -> list[Video]:
            videos = call.read(data)
            with self._lock:
                self._lists += 1
                for video in videos:
                    self._note(video.video_id, sent)
            return videos

        return evolve(call, read=read)

    def _note(self, video_id: str, when: int) -> None:
        if self._followers and when < self._first.get(video_id, when + 1):
            self._first[video_id] = when
            self._log.append((video_id, when))

    # -- what a batch asks --------------------------------------------------------------------------------------------

    def follow(self) -> int:
        """Begin to note everything; ``leave`` when it is no longer needed.

        Returns:
            The time.
        """
        with self._lock:
            self._followers += 1
            for video_id in self._recent:
                self._note(video_id, ACCOUNTED)
            return self._now

    def leave(self) -> None:
        """Note everything no longer, unless others follow."""
        with self._lock:
            self._followers -= 1
            if not self._followers:
                self._first.clear()
                self._log.clear()

    def since(self, position: int) -> list[tuple[str, int]]:
        """What was noted after the first entries: videos, and when each was first seen, or ``ACCOUNTED``."""
        with self._lock:
            return self._log[position:]

    @property
    def lists(self) -> int:
        """How many times the account's videos were listed."""
        return self._lists

    @property
    def now(self) -> int:
        """The time: how many submissions have begun."""
        return self._now

    def settle(self, moment: int) -> None:
        """The result of the submission that began at a time is known."""
        with self._lock:
            self._open.pop(moment, None)

    def in_flight(self, before: int) -> bool:
        """Whether a submission that began before a time is still being sent."""
        with self._lock:
            return any(one.in_flight for moment, one in self._open.items() if moment < before)

    def elsewhere(self, owner: Hashable) -> list[int]:
        """When the submissions of others began that have no known result."""
        with self._lock:
            return [moment for moment, one in self._open.items() if one.owner != owner]
