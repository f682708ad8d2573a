"""The files of a batch: where they go, and how saving one goes on where an earlier run broke off."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import define

from a2v._async.download import Destination, digest_of, on_disk
from a2v._async.journal import Journal
from a2v._async.task import AsyncVideoTask, save

if TYPE_CHECKING:
    from pathlib import Path

    from a2v._core.items import Row

_AT_ONCE = 4
"""How many files are fetched at once: more would not be faster, and would all be in the middle when something breaks."""


class Saver:
    """Saves a batch's videos, a few at a time.

    Args:
        journal: Where to look up and to note how far each file is.
        overwrite: Whether files that are there already may be replaced.
    """

    def __init__(self, journal: Journal, *, overwrite: bool) -> None:
        self._journal = journal
        self._overwrite = overwrite
        self._room = anyio.CapacityLimiter(_AT_ONCE)

    async def save(self, task: AsyncVideoTask, identity: str, path: Path, mask: Path | None) -> Path:
        """Fetch an item's video, or as much of it as is missing, and its mask before that.

        Args:
            task: Whose video.
            identity: The item.
            path: Where the video goes.
            mask: Where the mask goes, if there is one.

        Returns:
            Where the video is.

        Raises:
            DownloadError: It cannot be fetched or stored.
            A2VError: As the task or the journal raises.
        """
        row = await self._journal.do(partial(self._journal.row, identity))
        destination = Destination(path, self._overwrite)
        if mask and (self._overwrite or not await on_disk(mask.exists)):
            async with self._room:
                await save(task, Destination(mask, self._overwrite), mask=True)
        if await on_disk(partial(_settle, destination, row)):
            return path
        keeper = _Keeper(self._journal, identity, row.etag, row.size) if self._journal.path else None
        async with self._room:
            return await save(task, destination, keeper)


@define(eq=False)
class _Keeper:
    """Remembers a download in the journal."""

    journal: Journal
    identity: str
    etag: str | None
    size: int | None

    async def began(self, etag: str | None, size: int | None) -> None:
        """A file is about to be stored, from its first byte."""
        self.etag, self.size = etag, size
        await self.journal.do(partial(self.journal.keep, self.identity, etag=etag, size=size, sha256=None))

    async def whole(self, size: int, sha256: str) -> None:
        """All of it is on disk, and only its name is missing."""
        await self.journal.do(partial(self.journal.keep, self.identity, size=size, sha256=sha256))


def _settle(destination: Destination, row: Row) -> bool:
    """Whether all of a video is on disk; if only its name is missing it gets that."""
    if row.sha256 is None:
        return False
    for path in (destination.path, destination.part):
        if is_saved(path, row) and digest_of(path) == row.sha256:
            if path == destination.part:
                destination.complete(path)
            return True
    return False


def is_saved(path: Path, row: Row) -> bool:
    """Whether a file is there that looks like the one that was saved."""
    return path.is_file() and path.stat().st_size == row.size
