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
    from a2v._core.wire import ApiRequest, SubmissionAttempt
    from a2v._values.models import Video

KNOWN = -1
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
        self._submission_count = 0
        self._open: dict[int, _Submission] = {}
        self._recent: deque[str] = deque(maxlen=_RECENT)
        # Only while somebody follows: when each video was first seen, and all of that in the order in which it was noted.
        self._recorders = 0
        self._first: dict[str, int] = {}
        self._log: list[tuple[str, int]] = []
        self._list_count = 0

    # -- what the client tells ----------------------------------------------------------------------------------------

    def start(self, sending: SubmissionAttempt) -> None:
        """A submission is about to be sent."""
        with self._lock:
            sending.number = self._submission_count
            self._open[self._submission_count] = _Submission(sending.owner)
            self._submission_count += 1

    def finish(self, sending: SubmissionAttempt, video_id: str | None = None) -> None:
        """The result of a submission is known: a video, or that there is none."""
        if sending.number is not None:
            self.resolve(sending.number)
        if video_id is not None:
            self.add(video_id)

    def mark_unknown(self, sending: SubmissionAttempt) -> None:
        """A submission has ended, and its result is unknown."""
        with self._lock:
            if sending.number in self._open:  # pragma: no branch  # its video may have been found already
                self._open[sending.number].in_flight = False

    def add(self, video_id: str) -> None:
        """A video is known to be the result of something else than an uncertain submission."""
        with self._lock:
            self._recent.append(video_id)
            self._note(video_id, KNOWN)

    def video_list(self) -> ApiRequest[list[Video]]:
        """The call ``video.list``, whose reply is noted as of now."""
        call, sent = wire.video_list(), self._submission_count

        def read(data: object) -> list[Video]:
            videos = call.read(data)
            with self._lock:
                self._list_count += 1
                for video in videos:
                    self._note(video.video_id, sent)
            return videos

        return evolve(call, read=read)

    def _note(self, video_id: str, when: int) -> None:
        if self._recorders and when < self._first.get(video_id, when + 1):
            self._first[video_id] = when
            self._log.append((video_id, when))

    # -- what a batch asks --------------------------------------------------------------------------------------------

    def start_recording(self) -> int:
        """Begin to note everything; ``leave`` when it is no longer needed.

        Returns:
            The time.
        """
        with self._lock:
            self._recorders += 1
            for video_id in self._recent:
                self._note(video_id, KNOWN)
            return self._submission_count

    def stop_recording(self) -> None:
        """Note everything no longer, unless others follow."""
        with self._lock:
            self._recorders -= 1
            if not self._recorders:
                self._first.clear()
                self._log.clear()

    def log_from(self, position: int) -> list[tuple[str, int]]:
        """What was noted after the first entries: videos, and when each was first seen, or ``KNOWN``."""
        with self._lock:
            return self._log[position:]

    @property
    def list_count(self) -> int:
        """How many times the account's videos were listed."""
        return self._list_count

    @property
    def submission_count(self) -> int:
        """The time: how many submissions have begun."""
        return self._submission_count

    def resolve(self, moment: int) -> None:
        """The result of the submission that began at a time is known."""
        with self._lock:
            self._open.pop(moment, None)

    def has_in_flight(self, before: int) -> bool:
        """Whether a submission that began before a time is still being sent."""
        with self._lock:
            return any(one.in_flight for moment, one in self._open.items() if moment < before)

    def unresolved_elsewhere(self, owner: Hashable) -> list[int]:
        """When the submissions of others began that have no known result."""
        with self._lock:
            return [moment for moment, one in self._open.items() if one.owner != owner]
