"""The client's record of where the videos of its account come from.

A batch must not match a video to an unknown submission if the video may have another origin. So the client records, for
all its event loops: the videos that it submitted or was given the ids of; when each other video was first listed; and the
submissions without a known result.

Times are *submission numbers*, a logical clock: the number of submissions that this client had started. A real clock would not
help, because what matters is the order of requests: a list that was requested before a submission started cannot contain its video.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from attrs import define, evolve

from a2v._core import wire

if TYPE_CHECKING:
    from a2v._core.wire import ApiRequest
    from a2v._values.models import Video

KNOWN = -1
"""Replaces the number at which a video was first listed if its origin is known. Unlike ``reconciliation.ORIGIN_KNOWN``, it is not 0,
because submission numbers start at 0, and a journal's moments do not."""
_MAX_RECENT = 10_000
"""Number of own videos to remember between recordings: a server may list a video long after its submission."""
_MAX_ENDED = 10_000
"""Number of ended videos to remember. Few of them are requested again, and if so, soon."""


@define(eq=False, repr=False)
class SubmissionAttempt:
    """One attempt to send a submission.

    Attributes:
        before_send: Awaited when the rate limit allows the request, before any of it is sent. If it raises, nothing is sent.
        owner: Identifies the submitter.
        makes_video: Whether the result is a video, the default. A speech gets no number, because servers do not list speeches.
        number: The submission number; ``None`` before the start.
        started: Whether ``before_send`` has returned.
        sent: Whether any of the request may have reached the server. Set when the attempt ends, even by a cancellation.
        request_id: The server's id of the request, if the response has one.
    """

    before_send: Callable[[], Awaitable[None]] | None = None
    owner: Hashable = None
    makes_video: bool = True
    number: int | None = None
    started: bool = False
    sent: bool = False
    request_id: str | None = None


@define(eq=False, repr=False)
class _Unresolved:
    owner: Hashable
    in_flight: bool = True


class KnownVideos:
    """The record of one client. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submission_count = 0
        self._unresolved: dict[int, _Unresolved] = {}
        self._recent: deque[str] = deque(maxlen=_MAX_RECENT)
        # While there are recorders: the number at which each video was first listed; and the same as a log, in the order of
        # recording.
        self._recorders = 0
        self._first: dict[str, int] = {}
        self._log: list[tuple[str, int]] = []
        self._list_count = 0
        self._ended: dict[str, None] = {}  # an ordered set

    # -- written by the session and the dispatcher --------------------------------------------------------------------

    def start(self, attempt: SubmissionAttempt) -> None:
        """Record that a submission is about to be sent, and number it."""
        with self._lock:
            attempt.number = self._submission_count
            self._unresolved[self._submission_count] = _Unresolved(attempt.owner)
            self._submission_count += 1

    def finish(self, attempt: SubmissionAttempt, video_id: str | None = None) -> None:
        """Record the result of a submission: its video, or ``None`` if it made none."""
        if attempt.number is not None:
            self.resolve(attempt.number)
        if video_id is not None:
            self.add(video_id)

    def mark_unknown(self, attempt: SubmissionAttempt) -> None:
        """Record that a submission has ended with an unknown outcome."""
        with self._lock:
            if attempt.number in self._unresolved:  # pragma: no branch  # its video may have been found already
                self._unresolved[attempt.number].in_flight = False

    def add(self, video_id: str) -> None:
        """Record that a video does not come from an unknown submission."""
        with self._lock:
            self._recent.append(video_id)
            self._record(video_id, KNOWN)

    def add_ended(self, video_id: str) -> bool:
        """Record that a video has ended, and return whether that is new."""
        with self._lock:
            if video_id in self._ended:
                return False
            self._ended[video_id] = None
            if len(self._ended) > _MAX_ENDED:
                del self._ended[next(iter(self._ended))]
            return True

    def video_list(self) -> ApiRequest[list[Video]]:
        """Return a ``video.list`` request whose response is recorded with the current submission number."""
        request, number = wire.video_list(), self._submission_count

        def read(data: object) -> list[Video]:
            videos = request.read(data)
            with self._lock:
                self._list_count += 1
                for video in videos:
                    self._record(video.video_id, number)
            return videos

        return evolve(request, read=read)

    def record_listed(self, video_ids: Iterable[str], number: int) -> None:
        """Record videos that another client of the account has listed.

        Args:
            video_ids: The videos.
            number: A submission number from before the list was requested.
        """
        with self._lock:
            for video_id in video_ids:
                self._record(video_id, number)

    def _record(self, video_id: str, number: int) -> None:
        if self._recorders and number < self._first.get(video_id, number + 1):
            self._first[video_id] = number
            self._log.append((video_id, number))

    # -- read by batches ----------------------------------------------------------------------------------------------

    def start_recording(self) -> int:
        """Record listed videos until ``stop_recording``.

        Returns:
            The current submission number.
        """
        with self._lock:
            self._recorders += 1
            for video_id in self._recent:
                self._record(video_id, KNOWN)
            return self._submission_count

    def stop_recording(self) -> None:
        """Undo one ``start_recording``; the last one deletes the records."""
        with self._lock:
            self._recorders -= 1
            if not self._recorders:
                self._first.clear()
                self._log.clear()

    def log_from(self, position: int) -> list[tuple[str, int]]:
        """Return the log from a position on: video ids, each with the number at which it was first listed, or ``KNOWN``."""
        with self._lock:
            return self._log[position:]

    @property
    def list_count(self) -> int:
        """How many lists were recorded."""
        return self._list_count

    @property
    def submission_count(self) -> int:
        """The current submission number: how many submissions have started."""
        return self._submission_count

    def resolve(self, number: int) -> None:
        """Record that the result of a submission is known."""
        with self._lock:
            self._unresolved.pop(number, None)

    def has_in_flight(self, before: int) -> bool:
        """Whether a submission with a lower number is in flight."""
        with self._lock:
            return any(entry.in_flight for number, entry in self._unresolved.items() if number < before)

    def unresolved_elsewhere(self, owner: Hashable) -> list[int]:
        """Return the numbers of the unresolved submissions of other owners."""
        with self._lock:
            return [number for number, entry in self._unresolved.items() if entry.owner != owner]
