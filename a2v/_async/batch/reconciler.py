"""Looks in ``video.list`` for submissions of which nobody knows whether they arrived.

A video is taken for the result of such a submission if nothing else can be meant:

* it was not listed before the submission began, and the run had listed the account's videos before that;
* the client did not get it in another way: by ``videos.generate``, as an id from its caller, or for another batch;
* it is the only such video, and this the only submission without a result, of this journal and of the client;
* no other video of unknown origin has appeared since the run began: then somebody else submits with this account, too, and
  the video may be theirs.

The journal keeps when each video was first seen and when each submission began, so this also holds for the next run. Both
are numbers on one scale: the run's, times 2^32, plus the submissions of the client since the run began. 0 is for videos that
are accounted for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from a2v._async.requests.known_videos import KNOWN
from a2v._core.poll_scheduler import MAX_OUTAGE
from a2v._core.reconciliation import MOMENTS_PER_RUN, match_unknown
from a2v.errors import A2VError, ProtocolError, RateLimitError, ServerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Container, Hashable

    from a2v._async.batch.journal import Journal
    from a2v._async.requests.session import Session

_SETTLED = 120.0
"""Seconds after which a submission that arrived is expected to show in `video.list`."""
_TWICE = 10.0
"""Seconds between the two looks that must agree before a video is taken for one in doubt."""
_AGAIN = 10.0
"""Seconds between tries to list the videos during an outage."""
_PASSING = (TransportError, ServerError, RateLimitError, ProtocolError)
"""Errors after which the list may work later. A list that is too long is a ``ProtocolError``."""


class Reconciler:
    """Finds what is in doubt, where the server has ``video.list`` and nothing else can be meant.

    Args:
        session: Where to look.
        journal: Where to keep what was seen. Without a file, nothing is looked for.

    Attributes:
        works: Whether anything can be found.
        owner: Whose submissions those of this batch are, in the client's notes: the journal's, in whichever run.
    """

    def __init__(self, session: Session, journal: Journal) -> None:
        self.works = False
        self.owner: Hashable = str(journal.path.resolve()) if journal.path else self
        self._session = session
        self._sightings = session.known_videos
        self._journal = journal
        self._began = self._sightings.start_recording()
        self._lists = self._sightings.list_count
        self._read = 0

    def close(self) -> None:
        """Note nothing any more."""
        self._sightings.stop_recording()

    async def begin(self) -> None:
        """List the videos before anything is submitted, for only a new one can be one in doubt."""
        try:
            await self._list()
        except A2VError as error:
            # A server without that call, or one that does not answer it just now.
            self.works = isinstance(error, _PASSING)
            return
        self.works = True
        await self.write_down()

    async def write_down(self) -> None:
        """Keep what was seen. What is seen later is later than what is submitted next."""
        seen = self._sightings.log_from(self._read)
        if seen and self._journal.path:
            end = self._read + len(seen)
            numbers = [(video_id, 0 if when == KNOWN else self.number(when)) for video_id, when in seen]
            await self._journal.do(partial(self._journal.learn, numbers))
            self._read = max(self._read, end)

    def number(self, moment: int) -> int:
        """A time of this run, as the journal keeps it."""
        return self._journal.run_number * MOMENTS_PER_RUN + max(0, moment - self._began)

    def submitted_at(self, moment: int) -> int | None:
        """When a submission begins, as the journal keeps it; ``None`` if it is not known which videos are older."""
        return self.number(moment) if self._sightings.list_count > self._lists else None

    async def find(self, identities: Container[str]) -> dict[str, str]:
        """Look for items in doubt, and note those that are found as submitted.

        Returns:
            For each that was found its ``video_id``.
        """
        await anyio.sleep(_SETTLED)
        try:
            sent = self._sightings.submission_count
            first = await self._outlive_list()
            await anyio.sleep(_TWICE)
            listed = first & await self._outlive_list()
            # What is being submitted may be one of them.
            while self._sightings.has_in_flight(before=sent):  # noqa: ASYNC110  # each ends with its own time-out
                await anyio.sleep(1)
            return await self._adopt(identities, listed)
        except A2VError:
            return {}

    async def _adopt(self, identities: Container[str], listed: set[str]) -> dict[str, str]:
        await self.write_down()
        unknown, known = await self._journal.do(self._journal.doubts)
        # Any video may be the result of one of before this run began: the journal has no number for that time.
        moments = self._sightings.unresolved_elsewhere(self.owner)
        elsewhere = [self.number(moment) if moment >= self._began else 0 for moment in moments]
        found = {
            item: new for item, new in match_unknown(unknown, known, listed, elsewhere).items() if item in identities
        }
        for item, video_id in found.items():
            await self._journal.do(partial(self._journal.submitted, item, video_id))
            self._sightings.add(video_id)
            run, moment = divmod(unknown[item] or 0, MOMENTS_PER_RUN)
            if run == self._journal.run_number:
                self._sightings.resolve(self._began + moment)
        return found

    async def _outlive_list(self) -> set[str]:
        """List the videos; an outage is waited for as long as a watch would."""
        since = anyio.current_time()
        while True:
            try:
                return await self._list()
            except _PASSING:
                if anyio.current_time() + _AGAIN - since > MAX_OUTAGE:
                    raise
                await anyio.sleep(_AGAIN)

    async def _list(self) -> set[str]:
        return {video.video_id for video in await self._session.call(self._sightings.video_list())}
