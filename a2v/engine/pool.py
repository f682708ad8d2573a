"""Makes the videos: fetches the recordings, runs the renders, a child process for each, and survives whatever they do."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio

from a2v._core.models import Job, VideoStatus
from a2v.engine.errors import RenderError
from a2v.engine.fetch import fetch

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import ByteReceiveStream

    from a2v.engine.settings import Settings
    from a2v.engine.store import Store, Task

logger: logging.Logger = logging.getLogger("a2v.engine")

WORKER = (sys.executable, "-m", "a2v.engine.worker")
"""Is given AUDIO_FILE WHO DESTINATION --size PIXELS …, and prints ``{"ok": true}`` or what is wrong with the recording."""
MAX_SECONDS = 3600.0
"""No render lasts longer."""
FETCHED_AHEAD = 4
_MAX_OUTPUT = 64 * 1024
_MAX_MESSAGE = 300


class QueueFullError(Exception):
    """So many videos wait already that no more are taken."""


class Pool:
    """Works on tasks while it is open; what is unfinished then is taken up by the next one.

    Args:
        store: The tasks.
        folder: Where to put the videos and what is needed on the way.
        settings: The limits.
    """

    def __init__(self, store: Store, folder: Path, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._videos = folder / "videos"
        self._work = folder / "work"
        self._renders = anyio.CapacityLimiter(settings.workers)
        # A slow server of recordings holds up the fetching of a few, not the rendering of what has been fetched.
        self._underway = anyio.CapacityLimiter(settings.workers + FETCHED_AHEAD)

    async def __aenter__(self) -> Self:
        self._videos.mkdir(exist_ok=True)
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        async with AsyncExitStack() as stack:
            # A name of its own for each start: a render orphaned by a kill -9 may still write to its old place.
            self._scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._work)))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            for task in self._store.take_up():
                self._tasks.start_soon(self._make, task)
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

    async def _make(self, task: Task) -> None:
        try:
            async with self._underway:
                await self._fetch_and_render(task)
        except RenderError as error:
            self._fail(task, str(error))
        except Exception:
            # A full disk, say: this task's misfortune, not the server's.
            logger.exception("video %s: the engine failed", task.video_id)
            self._fail(task, "the engine failed; its log says why")

    def _fail(self, task: Task, message: str) -> None:
        logger.info("video %s: %s", task.video_id, message)
        try:
            self._store.mark(task.video_id, VideoStatus.FAILED, message[:_MAX_MESSAGE])
        except sqlite3.Error:
            # Not even that can be written; the next start takes the task up again.
            logger.exception("video %s: its failure could not be stored", task.video_id)

    async def _fetch_and_render(self, task: Task) -> None:
        audio, video = (self._scratch / f"{task.video_id}.{kind}" for kind in ("audio", "mp4"))
        try:
            await fetch(task.audio_url, audio, self._settings)
            async with self._renders:
                self._store.mark(task.video_id, VideoStatus.IN_PROGRESS)
                await render(audio, task.model_id, video, self._settings)
            video.replace(self.path(task.video_id))
            self._store.mark(task.video_id, VideoStatus.FINISHED)
            logger.info("video %s: finished", task.video_id)
        finally:
            audio.unlink(missing_ok=True)
            video.unlink(missing_ok=True)


async def render(audio: Path, who: str, destination: Path, settings: Settings, *, mask: Path | None = None) -> None:
    """Render one video in a child process, which dies with the call.

    Args:
        audio: The recording.
        who: A ``pose_id``, or a ``model_id`` for a character's usual pose.
        destination: Where the video goes.
        settings: Size, format and frame rate of the video.
        mask: Where its mask goes, if there should be one.

    Raises:
        RenderError: The recording cannot be used, the renderer crashed or took too long.
    """
    command = [*WORKER, str(audio), who, str(destination), "--size", str(settings.size)]
    command += ["--format", settings.format, "--fps", str(settings.fps), "--end-with-stdin"]
    command += ["--mask", str(mask)] if mask else []
    try:
        with anyio.fail_after(MAX_SECONDS):
            status, output = await _run(command)
    except TimeoutError:
        raise RenderError(f"the render took longer than {MAX_SECONDS / 60:.0f} minutes") from None
    _check(status, output)


async def _run(command: list[str]) -> tuple[int, bytes]:
    # A session of its own: a Ctrl-C at the terminal is for the server, which then stops its children in order.
    # A pipe to it: however this process ends, the pipe does too, and the child notices.
    child = await anyio.open_process(command, stdin=subprocess.PIPE, start_new_session=True, env=_environment())
    output: dict[str, bytes] = {}

    async def read(name: str, stream: ByteReceiveStream | None) -> None:
        if stream is not None:
            output[name] = await _tail(stream)

    # Leaving the block early kills the child and waits for its end.
    async with child:
        async with anyio.create_task_group() as readers:
            readers.start_soon(read, "out", child.stdout)
            readers.start_soon(read, "err", child.stderr)
        status = await child.wait()
    if status:
        logger.error("the renderer ended with status %d: %s", status, output["err"].decode(errors="replace"))
    return status, output["out"]


def _environment() -> dict[str, str]:
    """The client's settings, its token above all, are no business of the process that touches foreign media."""
    return {name: value for name, value in os.environ.items() if not name.startswith("A2V_")}


async def _tail(stream: ByteReceiveStream) -> bytes:
    tail = b""
    async for block in stream:
        tail = (tail + block)[-_MAX_OUTPUT:]
    return tail


def _check(status: int, output: bytes) -> None:
    if status != 0:
        raise RenderError("the renderer crashed")
    try:
        verdict = json.loads(output.splitlines()[-1])
        ok, message = verdict["ok"], verdict.get("message")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise RenderError("the renderer crashed") from None
    if ok is not True:
        raise RenderError(str(message or "the recording cannot be used"))
