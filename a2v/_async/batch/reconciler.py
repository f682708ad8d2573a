"""Looks for the videos of submissions with unknown outcomes, in ``video.list``.

``a2v._core.reconciliation`` has the rule. It needs to know when each video was first listed and when each submission began,
on one scale. Within the client, ``KnownVideos`` counts submissions; the journal keeps these numbers as moments, which also
hold for the next run. Three precautions keep the rule sound:

* The account's videos are listed before the first submission of the run, and everything that was seen is written to the
  journal before each submission. A video that is first seen later is therefore later than the submission.
* A video must be in two listings: a server may list one for a moment and withdraw it.
* Submissions in progress are awaited first, because one of the listed videos may be theirs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import frozen

from a2v._async.batch.outage import Outage
from a2v._async.requests.known_videos import KNOWN
from a2v._core.reconciliation import MOMENTS_PER_RUN, ORIGIN_KNOWN, match_unknown
from a2v.errors import A2VError, ProtocolError, RateLimitError, ServerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Container, Hashable

    from a2v._async.batch.journal import Journal
    from a2v._async.requests.session import Session

_LISTED_AFTER = 120.0
"""Seconds after which ``video.list`` is expected to have every accepted submission."""
_LISTING_INTERVAL = 10.0
"""Seconds between the two listings that must both contain a video."""
_TRANSIENT = (TransportError, ServerError, RateLimitError, ProtocolError)
"""Errors after which ``video.list`` may work later. A list that is too long is a ``ProtocolError``."""


@frozen
class ReconciledVideo:
    """The video of a submission with an unknown outcome.

    Attributes:
        video_id: The video.
        moment: The moment of the submission.
    """

    video_id: str
    moment: int


class Reconciler:
    """Finds the videos of unknown submissions of one run.

    Args:
        session: The client's shared state.
        journal: The journal of the batch. Nothing can be found without a file.

    Attributes:
        works: Whether videos can be found: the server has ``video.list``, and the journal is a file.
        owner: The owner of this batch's submissions in ``KnownVideos``: the journal, in whichever run.
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
            # Either the server does not have this call, or it does not answer it at present.
            self.works = isinstance(error, _TRANSIENT)
            return
        self.works = True
        await self.record_known_videos()

    async def record_known_videos(self) -> None:
        """Write the videos seen so far to the journal, so that those seen later are later than the next submission."""
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
        """Look for the videos of unknown submissions.

        Args:
            identities: The keys of their jobs in the journal.

        Returns:
            The video of each one that is found. Record it in the journal, then call ``settle``.
        """
        await anyio.sleep(_LISTED_AFTER)
        try:
            submissions = self._known_videos.submission_count
            first = await self._list_after_outage()
            await anyio.sleep(_LISTING_INTERVAL)
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
        """Tell the client that the origin of a video, and the outcome of a submission, are known now."""
        self._known_videos.add(found.video_id)
        run, submissions = divmod(found.moment, MOMENTS_PER_RUN)
        if run == self._journal.run_number:
            self._known_videos.resolve(self._first_number + submissions)

    async def _list_after_outage(self) -> set[str]:
        return await Outage(self._session.throttled_for).outlast(self._list, ProtocolError)

    async def _list(self) -> set[str]:
        return {video.video_id for video in await self._session.call(self._known_videos.video_list())}
