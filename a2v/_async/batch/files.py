"""The files of a batch: where they go, and how saving one goes on where an earlier run broke off."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import define

from a2v._async.batch.journal import Journal
from a2v._async.destination import Destination, FileId, file_ids
from a2v._async.download import in_thread, sha256_of
from a2v._async.task import AsyncVideoTask, save
from a2v._core.file_urls import path_from_url
from a2v.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from a2v._core.journal_rows import JournalRow
    from a2v._values.jobs import Job

_AT_ONCE = 4
"""How many files are fetched at once: more would not be faster, and would all be in the middle when something breaks."""


class BatchFiles:
    """Saves a batch's videos, a few at a time.

    Args:
        journal: Where to look up and to note how far each file is.
        overwrite: Whether files that are there already may be replaced.
        spared: Files that are never replaced.
    """

    def __init__(self, journal: Journal, *, overwrite: bool, spared: frozenset[FileId]) -> None:
        self._journal = journal
        self._overwrite = overwrite
        self._spared = spared
        self._room = anyio.CapacityLimiter(_AT_ONCE)

    async def save(self, task: AsyncVideoTask, identity: str, path: Path, mask: Path | None) -> Path:
        """Save an item's mask, if it has one, and its video, or as much of them as is missing.

        The video comes last, so that its file means that nothing is missing; but it is saved even if the mask cannot be.

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
        problem: DownloadError | None = None
        if mask:
            try:
                await self._save_mask(task, mask)
            except DownloadError as error:
                problem = error
        saved = await self._save_video(task, identity, path)
        if problem:
            raise problem
        return saved

    async def _save_mask(self, task: AsyncVideoTask, path: Path) -> None:
        if self._overwrite or not await in_thread(path.exists):
            destination = await in_thread(partial(Destination, path, self._overwrite, self._spared))
            async with self._room:
                await save(task, destination, mask=True)

    async def _save_video(self, task: AsyncVideoTask, identity: str, path: Path) -> Path:
        row = await self._journal.do(partial(self._journal.row, identity))
        if self._journal.path is None:
            destination, resume_store = await in_thread(partial(Destination, path, self._overwrite, self._spared)), None
        else:
            key = part_key(self._journal.salt, task.video_id)
            destination = await in_thread(partial(Destination, path, self._overwrite, self._spared, key))
            resume_store = _JournalResumeStore(self._journal, identity, row.etag, row.size)
            if await in_thread(partial(_settle, destination, row)):
                return path
        async with self._room:
            return await save(task, destination, resume_store)


def part_key(salt: str, video_id: str) -> str:
    """Names the partial file of a video: another one for each journal, because folders may be shared."""
    return hashlib.sha256(f"{salt} {video_id}".encode(errors="surrogatepass")).hexdigest()[:16]


@define(eq=False)
class _JournalResumeStore:
    """Remembers a download in the journal."""

    journal: Journal
    identity: str
    etag: str | None
    size: int | None

    async def start(self, etag: str | None, size: int | None) -> None:
        """A file is about to be stored, from its first byte."""
        self.etag, self.size = etag, size
        await self.journal.do(partial(self.journal.keep, self.identity, etag=etag, size=size, sha256=None))

    async def complete(self, size: int, sha256: str) -> None:
        """All of it is on disk, and only its name is missing."""
        await self.journal.do(partial(self.journal.keep, self.identity, size=size, sha256=sha256))


def _settle(destination: Destination, row: JournalRow) -> bool:
    """Whether all of a video is on disk; if only its name is missing it gets that."""
    if row.sha256 is None:
        return False
    path, part = destination.path, destination.part
    if is_saved(path, row) and sha256_of(path) == row.sha256:
        part.unlink(missing_ok=True)
        return True
    if is_saved(part, row) and not part.is_symlink() and sha256_of(part) == row.sha256:
        destination.complete()
        return True
    return False


def is_saved(path: Path, row: JournalRow) -> bool:
    """Whether a file is there that looks like the one that was saved."""
    return path.is_file() and path.stat().st_size == row.size


def protected_files(jobs: Iterable[Job], journal: Path | None) -> frozenset[FileId]:
    """The files that a batch needs and must never replace: recordings that are files, and its journal."""
    recordings = {path_from_url(job.audio_url) for job in jobs}
    ours = [journal.with_name(journal.name + suffix) for suffix in ("", ".lock", "-wal", "-shm")] if journal else []
    return file_ids([*recordings, *ours])
