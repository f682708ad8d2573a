"""Makes the videos: fetches the recordings, has them rendered, so many at once, and survives whatever they do."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import AsyncExitStack, ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import frozen

from a2v._values.models import VideoStatus
from a2v.engine.data_folder import ensure_private_folder, move_durably
from a2v.engine.errors import RenderCrashedError, RenderError
from a2v.engine.exhaustion import MAX_BACKOFF, OUT_OF_MEMORY, LogThrottle, ResourceMonitor, exhaustion_reason
from a2v.engine.recording_fetcher import fetch_recording
from a2v.engine.renderer import Renderer, RenderRequest, log_crash, open_process, render_in_child
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from a2v._values.jobs import Job
    from a2v.engine.settings import Settings
    from a2v.engine.task_store import Task, TaskStore

logger: logging.Logger = logging.getLogger("a2v.engine")

MAX_PREFETCHED = 16
"""How many recordings are fetched, or wait for a render, beside those that are rendered."""
MAX_ATTEMPTS = 2
"""A render that crashes is tried again, in case it was the machine's fault: it may have been out of memory."""
SWEEP_SECONDS = 60.0
"""How often videos that were kept long enough are looked for."""
MAX_REQUEUES = 10
"""A task that lacks something so often in a row while a probe finds nothing lacking is failed: it asks for too much."""
_DAY = 86_400.0
_MAX_MESSAGE = 300
_PROBE_BYTES = 1024 * 1024
_PROBE_DESCRIPTORS = 16


class BusyError(Exception):
    """Nothing is accepted at the moment; its text says why. Nothing was submitted."""


class QueueFullError(BusyError):
    """So many videos wait already that no more are accepted."""


class RenderQueue:
    """Works on tasks while it is open; the next one takes up what is unfinished then.

    A task fetches its recording, which is kept in the data folder until the task ends, and then waits for one of
    ``settings.workers`` renders. If the machine lacks something meanwhile, see ``shortage.py``, the task waits in line again.

    Args:
        store: The tasks.
        folder: Where to put the videos and what is needed on the way.
        settings: The limits.
        renderer: What renders.

    Attributes:
        shortage: Whether the machine lacks something just now.
    """

    def __init__(
        self, store: TaskStore, folder: Path, settings: Settings, renderer: Renderer = render_in_child
    ) -> None:
        self.resources: ResourceMonitor = ResourceMonitor(self._probe)
        self._store = store
        self._settings = settings
        self._renderer = renderer
        self._videos = folder / "videos"
        self._recordings = folder / "audio"
        self._work = folder / "work"
        self._active: set[str] = set()
        self._renders = anyio.CapacityLimiter(settings.workers)
        # A slow server of recordings holds up the fetching of a few, not the rendering of what has been fetched.
        self._underway = anyio.CapacityLimiter(settings.workers + MAX_PREFETCHED)

    async def __aenter__(self) -> Self:
        unfinished = self._take_up()
        async with AsyncExitStack() as stack:
            # A name of its own for each start: a render orphaned by a kill -9 may still write to its old place.
            scratch = tempfile.TemporaryDirectory(dir=self._work, ignore_cleanup_errors=True)
            self._scratch = Path(stack.enter_context(scratch))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self.resources.run)
            for task in unfinished:
                self._tasks.start_soon(self._make, task)
            self._tasks.start_soon(self._sweep)
            self._stack = stack.pop_all()
        return self

    def _take_up(self) -> list[Task]:
        try:
            unfinished = self._store.recover()
            for folder in (self._videos, self._recordings, self._work):
                ensure_private_folder(folder)
            shutil.rmtree(self._work, ignore_errors=True)
            # What an orphan writes to meanwhile may still be there.
            self._work.mkdir(mode=0o700, exist_ok=True)
            wanted = {task.video_id for task in unfinished}
            for path in self._recordings.iterdir():
                if path.name not in wanted:
                    path.unlink()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"the data folder {str(self._work.parent)!r} cannot be used: {error}") from None
        return unfinished

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._stack.__aexit__(kind, error, traceback)

    def submit(self, job: Job) -> Task:
        """Put a job in line.

        Raises:
            BusyError: The line is too long, or the machine lacks something just now. Nothing was submitted.
        """
        if self.resources.exhausted is not None:
            raise BusyError(self.resources.exhausted)
        try:
            if self._store.pending_count() >= self._settings.queue_limit:
                raise QueueFullError("the queue is full")
            task = self._store.add(job)
        except (sqlite3.Error, MemoryError) as error:
            reason = exhaustion_reason(error)
            if reason is None:
                raise
            self.resources.report(reason)
            raise BusyError(reason) from None
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
        failure: str | None = None
        for tries in count(1):
            try:
                failure = await self._attempt(task)
                break
            except _Requeue as put_back:
                if not put_back.is_seen and tries == MAX_REQUEUES:
                    failure = f"the engine could not render this {tries} times in a row: {put_back.reason}"
                    break
                await self._insist(self._store.requeue, task.video_id)
                await anyio.sleep(0 if put_back.is_seen else min(2.0 ** (tries - 1), MAX_BACKOFF))
        await self._end(task, failure)

    async def _attempt(self, task: Task) -> str | None:
        """Make the video, or tell why that is impossible."""
        try:
            async with self._underway:
                await self.resources.wait_until_available()
                await self._fetch_and_render(task)
        except (RenderError, RenderCrashedError) as error:
            return str(error)
        except _Requeue:
            raise
        except Exception:  # noqa: BLE001  # this task's misfortune, not the server's
            # As text: error reporters show the variables of a traceback, and the audio_url may be signed.
            reason, facts = traceback.format_exc(), {"video_id": task.video_id}
            logger.error("video %s: the engine failed\n%s", task.video_id, reason, extra=facts)  # noqa: TRY400
            return "the engine failed; its log says why"
        return None

    async def _end(self, task: Task, failure: str | None) -> None:
        status = VideoStatus.FAILED if failure else VideoStatus.FINISHED
        await self._insist(self._store.set_status, task.video_id, status, failure and failure[:_MAX_MESSAGE])
        _log_task(task, failure or "finished")
        with suppress(OSError):
            # The next start looks for it, too.
            self._recording(task).unlink(missing_ok=True)
        if not failure:
            self.resources.reset_backoff()

    async def _fetch_and_render(self, task: Task) -> None:
        # A folder of its own, because a render that is killed leaves files there of which nobody here knows.
        files = _Files.of(task, self._scratch / task.video_id)
        self._active.add(task.video_id)
        try:
            files.folder.mkdir(mode=0o700, exist_ok=True)
            await self._fetch(task, files.part)
            async with self._renders:
                await self.resources.wait_until_available()
                self._store.set_status(task.video_id, VideoStatus.IN_PROGRESS)
                _log_task(task, "is being rendered")
                await self._try(task, self._request(task, files))
            await self._keep(task, files)
        except anyio.get_cancelled_exc_class():
            with suppress(sqlite3.Error):
                self._store.requeue(task.video_id)
            raise
        except RenderError:
            raise
        except Exception as error:
            # Before the files are removed, which may be what fills the disk.
            await self._blame_the_machine(error)
            raise
        finally:
            self._active.discard(task.video_id)
            shutil.rmtree(files.folder, ignore_errors=True)

    async def _blame_the_machine(self, error: Exception) -> None:
        reason = exhaustion_reason(error)
        if reason is None and not isinstance(error, RenderCrashedError):
            return
        # A child that crashed may have lacked something without being able to say so.
        seen = await self.resources.check()
        if reason and reason.startswith(OUT_OF_MEMORY):
            # That cannot be probed without making it worse.
            self.resources.report(reason)
        if reason or seen:
            raise _Requeue(seen or reason or "", is_seen=seen is not None) from None

    async def _fetch(self, task: Task, part: Path) -> None:
        """Get the recording, unless an earlier try or an earlier start did: its URL may have expired meanwhile."""
        recording = self._recording(task)
        if not recording.is_file():
            await fetch_recording(task.audio_url, part, self._settings)
            await anyio.to_thread.run_sync(move_durably, part, recording)

    def _recording(self, task: Task) -> Path:
        return self._recordings / task.video_id

    def _request(self, task: Task, files: _Files) -> RenderRequest:
        settings = self._settings
        return RenderRequest(
            audio=self._recording(task),
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

    async def _try(self, task: Task, request: RenderRequest) -> None:
        for tries_left in reversed(range(MAX_ATTEMPTS)):
            try:
                await self._renderer(request)
            except RenderCrashedError as error:
                if await self.resources.check():
                    raise
                log_crash(error)
                if not tries_left:
                    raise
                _log_task(task, "the renderer crashed; it is tried again")
            else:
                return

    async def _keep(self, task: Task, files: _Files) -> None:
        """Put the videos where they stay. The mask comes first: a video that is there is whole."""
        if files.mask:
            await self._insist_in_thread(move_durably, files.mask, self.mask_path(task.video_id))
        await self._insist_in_thread(move_durably, files.video, self.path(task.video_id))

    async def _insist(self, step: Callable[..., None], *arguments: object) -> None:
        """Do the last step of something, however long the machine lacks what it takes: the work before it is not lost."""

        async def do() -> None:
            step(*arguments)

        await self._insist_on(do)

    async def _insist_in_thread(self, step: Callable[[Path, Path], None], made: Path, place: Path) -> None:
        async def do() -> None:
            await anyio.to_thread.run_sync(step, made, place)

        await self._insist_on(do)

    async def _insist_on(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await step()
            except Exception as error:
                reason = exhaustion_reason(error)
                if reason is None:
                    raise
                self.resources.report(reason)
            await self.resources.wait_until_available()

    # -- what the machine lacks ---------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Use a little of everything that a task needs.

        Raises:
            Exception: Something is lacking.
        """
        await anyio.to_thread.run_sync(self._probe_disk)
        self._store.check()
        if sys.executable:
            null = subprocess.DEVNULL
            command = [sys.executable, "-I", "-S", "-c", ""]
            async with await open_process(command, stdin=null, stdout=null, stderr=null) as child:
                await child.wait()
        for leftover in self._scratch.iterdir():
            if leftover.name not in self._active:
                shutil.rmtree(leftover, ignore_errors=True)

    def _probe_disk(self) -> None:
        with tempfile.TemporaryFile(dir=self._work) as file, ExitStack() as opened:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            for _ in range(_PROBE_DESCRIPTORS):
                opened.callback(os.close, os.dup(file.fileno()))

    # -- retention ----------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Remove what ended too long ago."""
        if self._settings.keep_days is None:
            return
        keep_seconds, log = self._settings.keep_days * _DAY, LogThrottle()
        while True:
            kept = 0
            try:
                for video_id in self._store.ended_before(time.time() - keep_seconds):
                    kept += not self._remove(video_id)
                    await anyio.lowlevel.checkpoint()
            except sqlite3.Error:
                kept += 1
            if kept and log.is_due():
                logger.error("%d old videos could not be removed; the next sweep tries again", kept)
            await anyio.sleep(min(SWEEP_SECONDS, keep_seconds))

    def _remove(self, video_id: str) -> bool:
        """First the files, then the row: a crash between the two leaves nothing behind that is not found again."""
        try:
            self.path(video_id).unlink(missing_ok=True)
            self.mask_path(video_id).unlink(missing_ok=True)
            self._store.delete(video_id)
        except (OSError, sqlite3.Error):
            return False
        logger.info("video %s: removed, its time was over", video_id, extra={"video_id": video_id})
        return True


class _Requeue(Exception):  # noqa: N818  # no error: the task waits in line again
    """The machine could not do its part of a task. ``is_seen``: something is lacking for the other tasks, too."""

    def __init__(self, reason: str, *, is_seen: bool) -> None:
        self.reason = reason
        self.is_seen = is_seen


@frozen
class _Files:
    """What a task needs on the way."""

    folder: Path
    part: Path
    video: Path
    mask: Path | None

    @classmethod
    def of(cls, task: Task, folder: Path) -> Self:
        return cls(folder, folder / "recording", folder / "video.mp4", folder / "mask.mp4" if task.with_mask else None)


def _log_task(task: Task, what: str) -> None:
    logger.info("video %s: %s", task.video_id, what, extra={"video_id": task.video_id})
