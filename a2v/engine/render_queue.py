"""The queue of renders: takes tasks from submission to finished video.

One coroutine per unfinished render runs ``_process``, from submission, or from the start of the engine, to the end:

1. wait for one of ``workers + MAX_PREFETCHED`` places, then fetch the recording into the data folder;
2. wait for one of ``workers`` places, then render into the task's scratch folder;
3. move the video to its final path, then set the status to finished.

With one limit, a slow recording server would block renders whose recordings have arrived. With no limit on fetching, the
whole queue would be fetched at once. The limiters are fair, so tasks keep the order of their submission. The state of a task
is in the ``TaskStore`` alone; this module keeps only what does not outlive the process.

Invariants that make a kill at any point safe:

* A status is written after the files that it announces, and files appear complete, by a rename. So a "finished" video exists.
  A mask or a file of captions appears before its video.
* A fetched recording is kept until its task ends, so a restart needs no ``audio_url`` that may have expired.
* Scratch files are in a folder with a new name at each start, because a render orphaned by a kill may still be writing.

An error fails its task unless ``exhaustion_reason`` or a probe says that the machine has run out of a resource. Then the
task is requeued and waits for the ``ResourceMonitor``. Steps after a successful render are retried instead of repeating the
render (``_retry_while_exhausted``).
"""

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
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import frozen

from a2v._values.models import VideoStatus
from a2v.engine.captions import Captions
from a2v.engine.data_folder import ensure_private_folder, move_durably
from a2v.engine.errors import FetchError, RenderCrashedError, RenderError
from a2v.engine.exhaustion import MAX_BACKOFF, OUT_OF_MEMORY, LogThrottle, ResourceMonitor, exhaustion_reason
from a2v.engine.metrics import Metrics
from a2v.engine.recording_fetcher import fetch_recording
from a2v.engine.renderer import Renderer, RenderRequest, log_crash, open_process, render_in_child
from a2v.engine.speeches import NO_WORDS, Speeches
from a2v.engine.uploads import UPLOAD, Uploads
from a2v.engine.video_options import (
    CAPTIONS,
    OWN,
    VIDEO_EXTENSIONS,
    VideoOptions,
    container_of,
    has_captions_file,
    read_options,
)
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from a2v._values.jobs import Job
    from a2v._values.models import Word
    from a2v.engine.settings import Settings
    from a2v.engine.task_store import Task, TaskStore
    from a2v.engine.video_options import Container

logger: logging.Logger = logging.getLogger("a2v.engine")

MAX_PREFETCHED = 16
"""How many recordings may be fetched, or wait for a render, in addition to those being rendered."""
MAX_ATTEMPTS = 2
"""How often a render that crashes is attempted. The crash may have been the machine's fault."""
SWEEP_SECONDS = 60.0
"""The interval at which expired videos are deleted."""
MAX_REQUEUES = 10
"""How many attempts of a task may run out of a resource while a probe finds all available. Then the task fails: it needs too much."""
_DAY_SECONDS = 86_400.0
_MAX_MESSAGE = 300  # characters
_PROBE_BYTES = 1024 * 1024
_PROBE_DESCRIPTORS = 16


class BusyError(Exception):
    """The queue accepts no videos at the moment; the message says why. Nothing was submitted."""


class QueueFullError(BusyError):
    """The queue has reached its limit."""


class RenderQueue:
    """Processes tasks within its ``async with`` block.

    After a restart, a new queue on the same data folder continues unfinished tasks.

    Args:
        store: The tasks.
        folder: The data folder.
        settings: The limits.
        renderer: The renderer.

    Attributes:
        resources: Whether the machine has run out of a resource.
        uploads: The recordings that clients have uploaded.
        metrics: The numbers and durations of renders.
        folder: The data folder.
        speeches: The speeches of the engine's voices, which tasks may use as recordings. Available while the queue runs.
    """

    speeches: Speeches

    def __init__(
        self, store: TaskStore, folder: Path, settings: Settings, renderer: Renderer = render_in_child
    ) -> None:
        self.metrics: Metrics = Metrics()
        self.folder: Path = folder
        self.uploads: Uploads = Uploads(store, folder, settings.max_uploads_mib)
        self.resources: ResourceMonitor = ResourceMonitor(self._probe)
        self._store = store
        self._settings = settings
        self._renderer = renderer
        self._speeches = folder / "speeches"
        self._videos = folder / "videos"
        self._recordings = folder / "audio"
        self._work_folder = folder / "work"
        self._active: set[str] = set()
        self._fetch_slots = anyio.CapacityLimiter(settings.workers + MAX_PREFETCHED)
        self._render_slots = anyio.CapacityLimiter(settings.workers)

    async def __aenter__(self) -> Self:
        unfinished = self._recover()
        async with AsyncExitStack() as stack:
            scratch = tempfile.TemporaryDirectory(dir=self._work_folder, ignore_cleanup_errors=True)
            self._scratch = Path(stack.enter_context(scratch))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self.resources.run)
            for task in unfinished:
                self._tasks.start_soon(self._process, task)
            self._tasks.start_soon(self._sweep)
            self._stack = stack.pop_all()
        return self

    def _recover(self) -> list[Task]:
        try:
            unfinished = self._store.recover()
            for folder in (self._videos, self._recordings, self._work_folder):
                ensure_private_folder(folder)
            shutil.rmtree(self._work_folder, ignore_errors=True)
            # It may still exist: files to which an orphaned render is writing cannot always be deleted.
            self._work_folder.mkdir(mode=0o700, exist_ok=True)
            self.uploads.recover()
            self.speeches = Speeches(self._speeches)
            video_ids = {task.video_id for task in unfinished}
            for path in self._recordings.iterdir():
                if path.stem not in video_ids:
                    path.unlink()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the data folder {str(self._work_folder.parent)!r} cannot be used: {error}"
            ) from None
        return unfinished

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._stack.__aexit__(kind, error, traceback)

    def submit(self, job: Job, character: bytes | None = None, recording: str = "") -> Task:
        """Add a task for a job to the queue.

        Args:
            job: The job.
            character: The character, as ``portable`` returns it.
            recording: The name of its recording, to display.

        Raises:
            BusyError: The queue is full, or the machine has run out of a resource. Nothing was submitted.
        """
        if self.resources.exhausted is not None:
            raise BusyError(self.resources.exhausted)
        try:
            if self._store.pending_count() >= self._settings.queue_limit:
                raise QueueFullError("the queue is full")
            task = self._store.add(job, character, recording)
        except (sqlite3.Error, MemoryError) as error:
            reason = exhaustion_reason(error)
            if reason is None:
                raise
            self.resources.report(reason)
            raise BusyError(reason) from None
        self._tasks.start_soon(self._process, task)
        return task

    def path(self, video_id: str, container: Container = "mp4") -> Path:
        """Return the path of a finished video."""
        return self._videos / f"{video_id}.{container}"

    def captions_path(self, video_id: str) -> Path:
        """Return the path of a video's file of captions, which exists if it was requested."""
        return self._videos / f"{video_id}.{CAPTIONS}"

    def mask_path(self, video_id: str) -> Path:
        """Return the path of a video's mask, which exists if it was requested."""
        return self._videos / f"{video_id}.mask.mp4"

    # -- one task -----------------------------------------------------------------------------------------------------

    async def _process(self, task: Task) -> None:
        unconfirmed = 0
        while True:
            try:
                status, message = await self._attempt(task)
                break
            except _Requeue as requeue:
                unconfirmed += not requeue.is_confirmed
                if unconfirmed >= MAX_REQUEUES:
                    status = VideoStatus.FAILED
                    message = f"the engine could not render this {unconfirmed} times in a row: {requeue.reason}"
                    break
                await self._retry_while_exhausted(partial(self._store.requeue, task.video_id))
                # The next attempt waits until a confirmed exhaustion is over.
                await anyio.sleep(0 if requeue.is_confirmed else min(2.0 ** (unconfirmed - 1), MAX_BACKOFF))
        await self._finish(task, status, message)

    async def _attempt(self, task: Task) -> tuple[VideoStatus, str | None]:
        """Make the video; return its final status, and the reason for a failure or a warning about the video.

        Raises:
            _Requeue: The machine ran out of a resource.
        """
        try:
            async with self._fetch_slots:
                await self.resources.wait_until_available()
                return VideoStatus.FINISHED, await self._fetch_and_render(task)
        except (RenderError, RenderCrashedError) as error:
            return VideoStatus.FAILED, str(error)
        except _Requeue:
            raise
        except Exception:  # noqa: BLE001  # fails this task, not the engine
            # Formatted here: error reporters show the local variables of a traceback, and the audio_url may be signed.
            details, facts = traceback.format_exc(), {"video_id": task.video_id}
            logger.error("video %s: internal error\n%s", task.video_id, details, extra=facts)  # noqa: TRY400
            return VideoStatus.FAILED, "internal error; see the engine's log"

    async def _finish(self, task: Task, status: VideoStatus, message: str | None) -> None:
        message = message and message[:_MAX_MESSAGE]
        await self._retry_while_exhausted(partial(self._store.set_status, task.video_id, status, message))
        self.metrics.videos[status] += 1
        failed = status is VideoStatus.FAILED
        if not failed:
            self.metrics.video_seconds.observe(max(0.0, time.time() - task.created))
        texts = [message] if failed else ["finished", message]
        _log_task(task, ": ".join(text for text in texts if text), logging.WARNING if message else logging.INFO)
        with suppress(OSError):  # the next start of the engine deletes it otherwise
            self._recording_path(task).unlink(missing_ok=True)
            self._picture_path(task).unlink(missing_ok=True)
        if not failed:
            self.resources.reset_backoff()

    async def _fetch_and_render(self, task: Task) -> str | None:
        # A folder per task: a render that is killed leaves temporary files with unknown names.
        files = _ScratchFiles.of(task, self._scratch / task.video_id)
        self._active.add(task.video_id)
        try:
            files.folder.mkdir(mode=0o700, exist_ok=True)
            await self._fetch(task, files.recording)
            picture = await self._fetch_picture(task, files.recording)
            async with self._render_slots:
                await self.resources.wait_until_available()
                self._store.set_status(task.video_id, VideoStatus.IN_PROGRESS)
                _log_task(task, "rendering")
                warning = await self._render(task, await self._make_request(task, files, picture))
            await self._publish(task, files)
        except anyio.get_cancelled_exc_class():
            with suppress(sqlite3.Error):
                self._store.requeue(task.video_id)
            raise
        except RenderError:
            raise
        except Exception as error:
            # Before the scratch files are deleted: they may be what fills the disk.
            await self._requeue_if_exhausted(error)
            raise
        finally:
            self._active.discard(task.video_id)
            shutil.rmtree(files.folder, ignore_errors=True)
        return warning

    async def _requeue_if_exhausted(self, error: Exception) -> None:
        """Raise ``_Requeue`` if the machine, not the task, caused the error."""
        reason = exhaustion_reason(error)
        if reason is None and not isinstance(error, RenderCrashedError):
            return
        # A child process that crashed may have run out of a resource without being able to report it.
        probed_reason = await self.resources.check()
        if reason and reason.startswith(OUT_OF_MEMORY):
            # The probe does not allocate memory, which would make things worse, so trust the error.
            self.resources.report(reason)
        if reason or probed_reason:
            raise _Requeue(probed_reason or reason or "", is_confirmed=probed_reason is not None) from None

    async def _fetch(self, task: Task, part: Path) -> None:
        """Fetch the recording, unless an earlier attempt or an earlier run of the engine did."""
        recording = self._recording_path(task)
        if not recording.is_file():
            if task.audio_url.startswith(UPLOAD):
                await anyio.to_thread.run_sync(self.uploads.fetch, task.audio_url, part)
            elif not await anyio.to_thread.run_sync(self.speeches.copy, task.audio_url, part):
                await fetch_recording(task.audio_url, part, self._settings)
            await anyio.to_thread.run_sync(move_durably, part, recording)

    async def _fetch_picture(self, task: Task, part: Path) -> Path | None:
        """Fetch the picture of the background likewise, if the task has one; return its path."""
        url = self._options(task).background_url
        if url is None:
            return None
        picture = self._picture_path(task)
        if not picture.is_file():
            try:
                await fetch_recording(url, part, self._settings)
            except FetchError as error:
                raise RenderError(f"background{error.problem}") from None
            await anyio.to_thread.run_sync(move_durably, part, picture)
        return picture

    def _options(self, task: Task) -> VideoOptions:
        try:
            return read_options(task.options, self._settings, with_mask=task.with_mask)
        except ValueError as error:
            # The settings may have changed, or the task is of another version.
            raise RenderError(str(error)) from None

    def _picture_path(self, task: Task) -> Path:
        return self._recordings / f"{task.video_id}.picture"

    def _recording_path(self, task: Task) -> Path:
        return self._recordings / task.video_id

    async def _make_request(self, task: Task, files: _ScratchFiles, picture: Path | None) -> RenderRequest:
        settings, options = self._settings, self._options(task)
        if files.character:
            await anyio.to_thread.run_sync(files.character.write_bytes, self._stored_character(task))
        captions = files.folder / "captions" if options.captions else None
        if captions:
            content = Captions(
                ways=options.captions,
                cues=options.cues,
                words=self._speech_words(task, options),
                transcript=options.transcript,
            ).dump()
            await anyio.to_thread.run_sync(captions.write_bytes, content)
        return RenderRequest(
            audio=self._recording_path(task),
            subject_id=task.subject_id,
            destination=files.video,
            character=files.character,
            mask=files.mask,
            size=options.size,
            format=options.format,
            fps=options.fps,
            mood=options.mood,
            container=options.container,
            background=OWN if picture else options.background,
            picture=picture,
            captions=captions,
            vtt=files.vtt,
            max_audio_seconds=settings.audio_limit,
            max_render_seconds=settings.max_render_seconds,
            max_render_mib=settings.max_render_mib,
        )

    def _speech_words(self, task: Task, options: VideoOptions) -> list[Word]:
        if options.cues or options.transcript:
            return []
        words = self.speeches.words(task.audio_url)
        if words is None:
            raise RenderError(NO_WORDS)
        return words

    def _stored_character(self, task: Task) -> bytes:
        content = self._store.character(task.character or "")
        if content is None:
            raise RenderError("the engine's copy of this character is damaged")
        return content

    async def _render(self, task: Task, request: RenderRequest) -> str | None:
        began = anyio.current_time()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                warning = await self._renderer(request)
            except RenderCrashedError as error:
                if await self.resources.check():
                    raise
                log_crash(error)
                if attempt == MAX_ATTEMPTS:
                    raise
                _log_task(task, "the renderer crashed; retrying")
            else:
                self.metrics.render_seconds.observe(anyio.current_time() - began)
                return warning
        raise AssertionError("unreachable")  # the last attempt returns or raises

    async def _publish(self, task: Task, files: _ScratchFiles) -> None:
        """Move the video, its mask and its captions to their final paths, the video last."""
        moves = [
            (files.vtt, self.captions_path(task.video_id)),
            (files.mask, self.mask_path(task.video_id)),
            (files.video, self.path(task.video_id, container_of(task))),
        ]
        for source, target in moves:
            if source:
                move = partial(move_durably, source, target)
                await self._retry_while_exhausted(partial(anyio.to_thread.run_sync, move))

    async def _retry_while_exhausted(self, step: Callable[[], Awaitable[None] | None]) -> None:
        """Repeat a step until no resource is exhausted; failing would waste the work that is already finished."""
        while True:
            try:
                result = step()
                if result is not None:
                    await result
            except Exception as error:
                reason = exhaustion_reason(error)
                if reason is None:
                    raise
                self.resources.report(reason)
            else:
                return
            await self.resources.wait_until_available()

    # -- the probe of the resource monitor ----------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Use a little of each resource that a task needs, and delete scratch folders that could not be deleted before.

        Raises:
            Exception: A resource is exhausted.
        """
        await anyio.to_thread.run_sync(self._probe_disk)
        self._store.check()
        if sys.executable:
            null = subprocess.DEVNULL
            command = [sys.executable, "-I", "-S", "-c", ""]
            async with await open_process(command, stdin=null, stdout=null, stderr=null) as child:
                await child.wait()
        for path in self._scratch.iterdir():
            if path.name not in self._active:
                shutil.rmtree(path, ignore_errors=True)

    def _probe_disk(self) -> None:
        with tempfile.TemporaryFile(dir=self._work_folder) as file, ExitStack() as opened:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            for _ in range(_PROBE_DESCRIPTORS):
                opened.callback(os.close, os.dup(file.fileno()))

    # -- retention ----------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Delete expired uploads and speeches, and videos that are older than ``keep_days``; never returns."""
        keep_seconds = inf if self._settings.keep_days is None else self._settings.keep_days * _DAY_SECONDS
        log = LogThrottle()
        while True:
            failures = 0
            try:
                failures += self.uploads.sweep()
                failures += await anyio.to_thread.run_sync(self.speeches.sweep, self._store.unfinished_audio_urls())
                for video_id in self._store.ended_before(time.time() - keep_seconds):
                    failures += not self._delete(video_id)
                    await anyio.lowlevel.checkpoint()
            except (OSError, sqlite3.Error):
                failures += 1
            if failures and log.is_due():
                logger.error("%d expired files could not be deleted; the next sweep retries", failures)
            await anyio.sleep(min(SWEEP_SECONDS, keep_seconds))

    def _delete(self, video_id: str) -> bool:
        """Delete the files, then the row: after a crash in between, the row lets the next sweep find the rest."""
        try:
            for extension in VIDEO_EXTENSIONS:
                (self._videos / f"{video_id}{extension}").unlink(missing_ok=True)
            self._store.delete(video_id)
        except (OSError, sqlite3.Error):
            return False
        logger.info("video %s: deleted: older than keep_days", video_id, extra={"video_id": video_id})
        return True


class _Requeue(Exception):  # noqa: N818  # not an error of the task
    """The machine ran out of a resource during an attempt. ``is_confirmed``: a probe found it too, so all tasks are affected."""

    def __init__(self, reason: str, *, is_confirmed: bool) -> None:
        self.reason = reason
        self.is_confirmed = is_confirmed


@frozen
class _ScratchFiles:
    """The temporary files of a task; a file that the task does not have is ``None``."""

    folder: Path
    recording: Path
    character: Path | None
    video: Path
    mask: Path | None
    vtt: Path | None

    @classmethod
    def of(cls, task: Task, folder: Path) -> Self:
        character = folder / "character" if task.character else None
        mask = folder / "mask.mp4" if task.with_mask else None
        vtt = folder / f"captions.{CAPTIONS}" if has_captions_file(task) else None
        return cls(folder, folder / "recording", character, folder / f"video.{container_of(task)}", mask, vtt)


def _log_task(task: Task, message: str, level: int = logging.INFO) -> None:
    logger.log(level, "video %s: %s", task.video_id, message, extra={"video_id": task.video_id})
