"""Searches ``video.list`` for the videos of submissions with unknown outcomes.

``a2v._core.reconciliation`` has the rule. It needs to know when each video was first listed and when each submission began,
on one logical clock. Within the client, ``KnownVideos`` numbers submissions; the journal stores these numbers as moments, which
remain valid in the next run. Three precautions keep the rule sound:

* The account's videos are listed before the first submission of the run, and the journal stores all listed videos before each
  submission. So a video that is first listed later did not exist before the submission.
* A video must be in two lists: a server may list a video for a moment and withdraw it.
* Submissions in flight are awaited first, because a listed video may be their result.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import frozen

from a2v._async.batch.outage import TRANSIENT_ERRORS, Outage
from a2v._async.requests.known_videos import KNOWN
from a2v._core.reconciliation import MOMENTS_PER_RUN, ORIGIN_KNOWN, match_unknown
from a2v.errors import A2VError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Container, Hashable

    from a2v._async.batch.journal import Journal
    from a2v._async.requests.session import Session

_LIST_DELAY = 120.0
"""Seconds after a submission until ``video.list`` is expected to include its video."""
_LIST_INTERVAL = 10.0
"""Seconds between the two lists that must both include a video."""


@frozen
class ReconciledVideo:
    """The video of a submission with an unknown outcome.

    Attributes:
        video_id: The video.
        moment: The moment of the submission, as in ``a2v._core.reconciliation``.
    """

    video_id: str
    moment: int


class Reconciler:
    """Finds the videos of unknown submissions of one run.

    Args:
        session: The client's shared state.
        journal: The journal of the batch. Without a file, no video can be found.

    Attributes:
        works: Whether videos can be found: the server has ``video.list``, and the journal is a file.
        owner: Identifies this batch's submissions in ``KnownVideos``. All runs with the same journal have the same owner.
    """

    def __init__(self, session: Session, journal: Journal) -> None:
        self.works = False
        self.owner: Hashable = str(journal.path.resolve()) if journal.path else self
        self._session = session
        self._known_videos = session.known_videos
        self._journal = journal
        self._first_number = self._known_videos.start_recording()
        self._lists_before = self._known_videos.list_count
        self._log_position = 0

    def close(self) -> None:
        """Stop recording which videos are seen."""
        self._known_videos.stop_recording()

    async def start(self) -> None:
        """List the account's videos before anything is submitted: only newer ones can be results of submissions."""
        try:
            await self._list()
        except A2VError as error:
            # Either the server lacks video.list, or it fails at the moment. A list that is too long is a ProtocolError.
            self.works = isinstance(error, (*TRANSIENT_ERRORS, ProtocolError))
            return
        self.works = True
        await self.record_known_videos()

    async def record_known_videos(self) -> None:
        """Store the videos seen so far in the journal, so that videos seen later are known to be newer than the next submission."""
        seen = self._known_videos.log_from(self._log_position)
        if seen and self._journal.path:
            end = self._log_position + len(seen)
            moments = [
                (video_id, ORIGIN_KNOWN if number == KNOWN else self._moment(number)) for video_id, number in seen
            ]
            await self._journal.run(partial(self._journal.add_known_videos, moments))
            self._log_position = max(self._log_position, end)

    def moment(self, number: int) -> int | None:
        """Return the moment of a submission; ``None`` if the videos have not been listed before.

        Args:
            number: The number of the submission within the client.
        """
        return self._moment(number) if self._known_videos.list_count > self._lists_before else None

    def _moment(self, number: int) -> int:
        return self._journal.run_number * MOMENTS_PER_RUN + max(0, number - self._first_number)

    async def find(self, identities: Container[str]) -> dict[str, ReconciledVideo]:
        """Search for the videos of unknown submissions.

        Args:
            identities: The keys of the jobs in the journal.

        Returns:
            The videos that were found, by the keys of their jobs. Record each one in the journal, then call ``settle``.
        """
        await anyio.sleep(_LIST_DELAY)
        try:
            submissions = self._known_videos.submission_count
            first = await self._list_after_outage()
            await anyio.sleep(_LIST_INTERVAL)
            listed = first & await self._list_after_outage()
            while self._known_videos.has_in_flight(before=submissions):  # noqa: ASYNC110  # each ends with its time-out
                await anyio.sleep(1)
            await self.record_known_videos()
            unknown, known = await self._journal.run(self._journal.read_unknown_and_known)
        except A2VError:
            return {}
        numbers = self._known_videos.unresolved_elsewhere(self.owner)
        # Any video may be the result of a submission from before this run: the journal has no moment for it.
        elsewhere = [self._moment(number) if number >= self._first_number else 0 for number in numbers]
        found = match_unknown(unknown, known, listed, elsewhere)
        return {
            identity: ReconciledVideo(video_id, unknown[identity] or 0)
            for identity, video_id in found.items()
            if identity in identities
        }

    def settle(self, found: ReconciledVideo) -> None:
        """Tell the client that the video's origin and the submission's outcome are now known."""
        self._known_videos.add(found.video_id)
        run, submissions = divmod(found.moment, MOMENTS_PER_RUN)
        if run == self._journal.run_number:
            self._known_videos.resolve(self._first_number + submissions)

    async def _list_after_outage(self) -> set[str]:
        return await Outage(self._session.throttled_for).retry(self._list, ProtocolError)

    async def _list(self) -> set[str]:
        return {video.video_id for video in await self._session.call(self._known_videos.video_list())}
