"""Looks at the server for submissions of which nobody knows whether they arrived."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from a2v._core import wire
from a2v._core.items import adoptable
from a2v.errors import A2VError

if TYPE_CHECKING:
    from collections.abc import Container

    from a2v._async.journal import Journal
    from a2v._async.session import Session

_SETTLED = 120.0
"""Seconds after which a submission that arrived is expected to show in `video.list`."""
_TWICE = 10.0
"""Seconds between the two looks that must agree before a video is taken for one in doubt."""


class Finder:
    """Finds what is in doubt, where the server has ``video.list`` and nothing else can be meant.

    Args:
        session: Where to look.
        journal: What is known already.
        submitting: Held while something is submitted.

    Attributes:
        works: Whether anything can be found.
    """

    def __init__(self, session: Session, journal: Journal, submitting: anyio.Lock) -> None:
        self._session = session
        self._journal = journal
        self._submitting = submitting
        self.works = False

    async def begin(self) -> None:
        """See which videos are there before anything is submitted, for only a new one can be one in doubt."""
        try:
            there = await self._list()
        except A2VError:
            return  # a server without that call, or one that does not answer it now: what is in doubt stays so
        await self._journal.do(partial(self._journal.learn, there, self._journal.run_number))
        self.works = True

    async def find(self, identities: Container[str]) -> dict[str, str]:
        """Look for items in doubt, and note those that are found as submitted.

        Returns:
            For each that was found its ``video_id``.
        """
        await anyio.sleep(_SETTLED)
        try:
            first = await self._list()
            await anyio.sleep(_TWICE)
            # A submission on its way meanwhile would look like one in doubt.
            async with self._submitting:
                listed = first & await self._list()
                unknown, known = await self._journal.do(self._journal.doubts)
                found = {item: new for item, new in adoptable(unknown, known, listed).items() if item in identities}
                for item, video_id in found.items():
                    await self._journal.do(partial(self._journal.submitted, item, video_id))
        except A2VError:
            return {}
        return found

    async def _list(self) -> set[str]:
        return {video.video_id for video in await self._session.call(wire.video_list())}
