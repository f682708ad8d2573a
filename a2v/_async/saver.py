"""The files of a batch: where they go, and how saving one goes on where an earlier run broke off."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from attrs import define

from a2v._async.download import Destination, digest_of, on_disk
from a2v._async.journal import Journal
from a2v._async.task import AsyncVideoTask, save
from a2v._core.manifest import file_names, same_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v._async.journal import Row
    from a2v._core.models import Job

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


def paths_of(jobs: list[Job], folder: Path | None) -> list[Path | None]:
    """Where each job's video goes.

    Raises:
        ValueError: Two would go to one place.
    """
    if folder is None:
        return [None] * len(jobs)
    paths = [folder / f"{name}.mp4" for name in file_names(jobs)]
    masks = [mask_of(path) for path, job in zip(paths, jobs, strict=True) if job.with_mask]
    uses = Counter(same_file(path.name) for path in (*paths, *masks))
    twice = sorted(name.removesuffix(".mp4") for name in uses if uses[name] > 1)
    if twice:
        raise ValueError(f"each job needs a name of its own to be saved under; used more than once: {', '.join(twice)}")
    return [*paths]


def mask_of(path: Path) -> Path:
    """Where the mask of a video goes."""
    return path.with_name(f"{path.stem}.mask.mp4")


def kept_paths(
    jobs: list[Job], paths: list[Path | None], saved: list[str | None], taken: set[str]
) -> list[Path | None]:
    """Where each job's video goes if some have been saved by an earlier run, in which their places may have been others.

    Args:
        jobs: The jobs.
        paths: Where they would go if this was the first run.
        saved: Where each was saved before, if it was.
        taken: Where anything was saved before.
    """
    numbers = count(len(jobs) + 1)
    return [
        path if path is None or job.name else _kept_path(path, before, taken, numbers)
        for job, path, before in zip(jobs, paths, saved, strict=True)
    ]


def _kept_path(path: Path, before: str | None, taken: set[str], numbers: Iterator[int]) -> Path:
    if before and Path(before).parent == path.parent.absolute():
        return path.with_name(Path(before).name)
    while str(path.absolute()) in taken:
        path = path.with_name(f"{next(numbers):04d}.mp4")
    return path
