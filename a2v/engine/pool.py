"""Makes the videos: fetches the recordings, has them rendered, so many at once, and survives whatever they do."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import frozen

from a2v._core.models import Job, VideoStatus
from a2v.engine.errors import RenderCrashedError, RenderError
from a2v.engine.fetch import fetch
from a2v.engine.renderer import Order, Renderer, render_in_child

if TYPE_CHECKING:
    from types import TracebackType

    from a2v.engine.settings import Settings
    from a2v.engine.store import Store, Task

logger: logging.Logger = logging.getLogger("a2v.engine")

FETCHED_AHEAD = 4
MAX_TRIES = 2
"""A render that crashes is tried again, in case it was the machine's fault: it may have been out of memory."""
SWEEP_SECONDS = 60.0
"""How often videos that were kept long enough are looked for."""
_DAY = 86_400.0
_MAX_MESSAGE = 300


class QueueFullError(Exception):
    """So many videos wait already that no more are taken."""


class Pool:
    """Works on tasks while it is open; what is unfinished then is taken up by the next one.

    Args:
        store: The tasks.
        folder: Where to put the videos and what is needed on the way.
        settings: The limits.
        renderer: What renders.
    """

    def __init__(self, store: Store, folder: Path, settings: Settings, renderer: Renderer = render_in_child) -> None:
        self._store = store
        self._settings = settings
        self._renderer = renderer
        self._videos = folder / "videos"
        self._work = folder / "work"
        self._renders = anyio.CapacityLimiter(settings.workers)
        # A slow server of recordings holds up the fetching of a few, not the rendering of what has been fetched.
        self._underway = anyio.CapacityLimiter(settings.workers + FETCHED_AHEAD)

    async def __aenter__(self) -> Self:
        self._videos.mkdir(exist_ok=True)
        shutil.rmtree(self._work, ignore_errors=True)
        # What an orphan writes to meanwhile may still be there.
        self._work.mkdir(exist_ok=True)
        async with AsyncExitStack() as stack:
            # A name of its own for each start: a render orphaned by a kill -9 may still write to its old place.
            scratch = tempfile.TemporaryDirectory(dir=self._work, ignore_cleanup_errors=True)
            self._scratch = Path(stack.enter_context(scratch))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            for task in self._store.take_up():
                self._tasks.start_soon(self._make, task)
            if self._settings.keep_days is not None:
                self._tasks.start_soon(self._sweep, self._settings.keep_days * _DAY)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._stack.__aexit__(kind, error, traceback)

    def submit(self, job: Job) -> Task:
        """Put a job in line.

        Raises:
            QueueFullError: The line is too long already.
        """
        if self._store.waiting() >= self._settings.queue_limit:
            raise QueueFullError
        task = self._store.add(job)
        self._tasks.start_soon(self._make, task)
        return task

    def path(self, video_id: str) -> Path:
        """Where a finished video is."""
        return self._videos / f"{video_id}.mp4"

    def mask_path(self, video_id: str) -> Path:
        """Where its mask is, if one was asked for."""
        return self._videos / f"{video_id}.mask.mp4"

    # -- one task -----------------------------------------------------------------------------------------------------

    async def _make(self, task: Task) -> None:
        try:
            async with self._underway:
                await self._fetch_and_render(task)
        except (RenderError, RenderCrashedError) as error:
            self._fail(task, str(error))
        except Exception:
            # A full disk, say: this task's misfortune, not the server's.
            logger.exception("video %s: the engine failed", task.video_id, extra={"video_id": task.video_id})
            self._fail(task, "the engine failed; its log says why")

    def _fail(self, task: Task, message: str) -> None:
        _tell(task, message)
        try:
            self._store.mark(task.video_id, VideoStatus.FAILED, message[:_MAX_MESSAGE])
        except sqlite3.Error:
            # Not even that can be written; the next start takes the task up again.
            logger.exception("video %s: its failure could not be stored", task.video_id)

    async def _fetch_and_render(self, task: Task) -> None:
        # A folder of its own, because a render that is killed leaves files there of which nobody here knows.
        with tempfile.TemporaryDirectory(dir=self._scratch, ignore_cleanup_errors=True) as folder:
            files = _Files.of(task, Path(folder))
            try:
                await fetch(task.audio_url, files.audio, self._settings)
                async with self._renders:
                    self._store.mark(task.video_id, VideoStatus.IN_PROGRESS)
                    _tell(task, "is being rendered")
                    await self._try(task, self._order(task, files))
                await self._keep(task, files)
            except anyio.get_cancelled_exc_class():
                self._store.put_back(task.video_id)
                raise
            self._store.mark(task.video_id, VideoStatus.FINISHED)
            _tell(task, "finished")

    def _order(self, task: Task, files: _Files) -> Order:
        settings = self._settings
        return Order(
            audio=files.audio,
            who=task.who,
            destination=files.video,
            mask=files.mask,
            size=settings.size,
            format=settings.format,
            fps=settings.fps,
            max_audio_seconds=settings.audio_limit,
            max_render_seconds=settings.max_render_seconds,
            max_render_mib=settings.max_render_mib,
        )

    async def _try(self, task: Task, order: Order) -> None:
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                await self._renderer(order)
            except RenderCrashedError:
                if not tries_left:
                    raise
                _tell(task, "the renderer crashed; it is tried again")
            else:
                return

    async def _keep(self, task: Task, files: _Files) -> None:
        """Put the videos where they stay. The mask comes first: a video that is there is whole."""
        if files.mask:
            await anyio.to_thread.run_sync(_move, files.mask, self.mask_path(task.video_id))
        await anyio.to_thread.run_sync(_move, files.video, self.path(task.video_id))

    # -- retention ----------------------------------------------------------------------------------------------------

    async def _sweep(self, keep_seconds: float) -> None:
        """Remove what ended too long ago."""
        while True:
            try:
                for video_id in self._store.ended_before(time.time() - keep_seconds):
                    self._remove(video_id)
                    await anyio.lowlevel.checkpoint()
            except (OSError, sqlite3.Error):
                logger.exception("old videos could not be removed; the next sweep tries again")
            await anyio.sleep(min(SWEEP_SECONDS, keep_seconds))

    def _remove(self, video_id: str) -> None:
        """First the files, then the row: a crash between the two leaves nothing behind that is not found again."""
        self.path(video_id).unlink(missing_ok=True)
        self.mask_path(video_id).unlink(missing_ok=True)
        self._store.forget(video_id)
        logger.info("video %s: removed, its time was over", video_id, extra={"video_id": video_id})


@frozen
class _Files:
    """What a task needs on the way."""

    audio: Path
    video: Path
    mask: Path | None

    @classmethod
    def of(cls, task: Task, folder: Path) -> Self:
        return cls(folder / "recording", folder / "video.mp4", folder / "mask.mp4" if task.with_mask else None)


def _move(made: Path, place: Path) -> None:
    """What is told to be finished is on the disk, also after a power cut."""
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    made.replace(place)


def _tell(task: Task, what: str) -> None:
    logger.info("video %s: %s", task.video_id, what, extra={"video_id": task.video_id})
