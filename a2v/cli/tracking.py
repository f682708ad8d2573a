"""Videos that a command submits, watches and downloads, and the hints printed if it ends before they are done.

A command that is interrupted, times out or fails leaves renders on the server. ``track_videos`` then says what continues
there, and prints the commands that resume it: at once if the user interrupts the command, as notes of the error otherwise.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from attrs import define, evolve, field

from a2v import A2VError, DownloadError, NotFoundError, Video, VideoStatus
from a2v._values.models import DEFAULT_RENDER_TIMEOUT
from a2v.cli.connection import connect
from a2v.cli.events import (
    EventStream,
    RequestsPaced,
    TrackedVideo,
    VideoChanged,
    VideoDownloading,
    VideoExpected,
    VideoSaved,
    VideoSubmitted,
    Warned,
)
from a2v.cli.logs import log_command
from a2v.cli.options import DEFAULT_SIZE
from a2v.cli.renderers import open_renderer
from a2v.cli.terminal import eprint, program, quote_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from a2v import AsyncA2V, AsyncVideoTask, Job  # noqa: TC004  # attrs does not evaluate annotations
    from a2v._core.file_names import FileKind
    from a2v.cli.events import Event
    from a2v.cli.options import ServerOptions

_INTERVAL = 0.5  # seconds between two events that only update a display


class CommandTimeoutError(Exception):
    """``--timeout`` expired before the command was done."""


@define(eq=False)
class TimeLimit:
    """The ``--timeout`` of a command.

    Attributes:
        seconds: The limit; ``None`` for none.
        scope: Cancels the command.
        waiting_for: What the command was doing when the limit expired; empty if that is unknown.
        notes: The hints for resuming.
    """

    seconds: float | None
    scope: anyio.CancelScope
    waiting_for: str = ""
    notes: list[str] = field(factory=list)

    @property
    def for_videos(self) -> float | None:
        """Seconds to wait for each video: 24 hours without ``--timeout``; with it, no limit besides."""
        return DEFAULT_RENDER_TIMEOUT if self.seconds is None else None

    @property
    def expired(self) -> bool:
        """Whether the limit expired. A cancellation is an interruption by the user otherwise."""
        return self.scope.cancel_called


@contextmanager
def time_limit(seconds: float | None) -> Iterator[TimeLimit]:
    """Limit the duration of a block.

    Raises:
        CommandTimeoutError: The block took too long.
    """
    scope = anyio.move_on_after(seconds)
    limit = TimeLimit(seconds, scope)
    with scope:
        yield limit
    if scope.cancelled_caught:
        activity = f" while {limit.waiting_for}" if limit.waiting_for else ""
        error = CommandTimeoutError(f"--timeout expired after {seconds:g} s{activity}")
        for note in limit.notes:
            error.add_note(note)
        raise error


@define(eq=False)
class VideoTracker:
    """A client, and the state of the videos that a command works on.

    Attributes:
        client: The client.
        events: Gets each change.
        videos: The videos by id.
        submitting: The number of submissions in flight.
        unknown_submissions: The number of submissions that were cancelled after they were sent.
    """

    client: AsyncA2V
    events: EventStream
    videos: dict[str, TrackedVideo] = field(factory=dict)
    submitting: int = 0
    unknown_submissions: int = 0

    def expect(
        self,
        video_id: str,
        *,
        label: str = "",
        target: Path | None = None,
        side_targets: Mapping[Path, FileKind] | None = None,
    ) -> None:
        """Track a video.

        Args:
            video_id: Its id.
            label: Its name on a terminal; its id if empty.
            target: The path to save it to; ``None`` if it is not saved.
            side_targets: The paths to save the files beside it to, with their kinds.
        """
        if video_id not in self.videos:
            video = TrackedVideo(video_id, label or video_id, target, side_targets or {})
            self.videos[video_id] = video
            self.events.emit(VideoExpected(video))

    def record(self, snapshot: Video) -> None:
        """Record a snapshot of a tracked video, and emit an event if its status changed, and the server's warning."""
        before = self.videos[snapshot.video_id]
        video = self._update(snapshot.video_id, snapshot=snapshot)
        if video.status != before.status:
            self.events.emit(VideoChanged(video))
        if video.warning and not before.rendered:
            self.events.emit(Warned(video.warning))

    async def submit(
        self,
        job: Job,
        *,
        label: str = "",
        target: Path | None = None,
        side_targets: Mapping[Path, FileKind] | None = None,
    ) -> AsyncVideoTask:
        """Submit a video and track it; see ``expect`` for the arguments.

        Raises:
            A2VError: It was not accepted, or the outcome is unknown.
        """
        from a2v._async.requests.session import OUTCOME_UNKNOWN  # noqa: PLC0415  # loads the HTTP library, as the client does

        self.submitting += 1
        try:
            task: AsyncVideoTask = await self.client.videos.generate(  # type: ignore[call-overload, misc]  # checked by `Job`
                model_id=job.model_id,
                pose_id=job.pose_id,
                audio_url=job.audio_url,
                text=job.text,
                voice_name=job.voice_name,
                with_mask=job.with_mask,
                options=job.options,
            )
        except A2VError:
            self.submitting -= 1
            raise
        except anyio.get_cancelled_exc_class() as error:
            # Without the note it was cancelled before it was sent, for example while it waited for the rate limit.
            self.unknown_submissions += OUTCOME_UNKNOWN in getattr(error, "__notes__", ())
            raise
        self.submitting -= 1
        self.expect(task.video_id, label=label, target=target, side_targets=side_targets)
        pending = Video(video_id=task.video_id, status=VideoStatus.PENDING)
        self.events.emit(VideoSubmitted(self._update(task.video_id, snapshot=pending)))
        return task

    async def follow(
        self, task: AsyncVideoTask, *, overwrite: bool = False, timeout: float | None = DEFAULT_RENDER_TIMEOUT
    ) -> None:
        """Watch a tracked video until its render ends, and save it to its target.

        Args:
            task: The video.
            overwrite: Whether to replace files.
            timeout: Seconds to wait for the render.

        Raises:
            VideoFailedError: The render failed.
            A2VError: The video could not be watched or saved.
        """
        async with aclosing(task.watch(timeout)) as snapshots:
            async for snapshot in snapshots:
                self.record(snapshot)
        await task.wait()
        video = self.videos[task.video_id]
        on_progress = partial(self._record_progress, task.video_id)
        problem: DownloadError | None = None
        # Before the video, whose file marks the end of the work. Without the others the video is saved nevertheless.
        for target, kind in video.side_targets.items():
            is_mask = kind == "mask"
            try:
                path = await task.download(
                    target, overwrite=overwrite, mask=is_mask, captions=not is_mask, on_progress=on_progress
                )
                saved = self.videos[task.video_id].saved_beside
                self._update(task.video_id, saved_beside={**saved, target: path.absolute()})
            except DownloadError as error:
                problem = problem or error
        if video.target:
            path = await task.download(video.target, overwrite=overwrite, on_progress=on_progress)
            self.events.emit(VideoSaved(self._update(task.video_id, path=path.absolute())))
            if problem:
                problem.add_note(f"The video itself was saved: {video.target}")
        if problem:
            raise problem

    def _record_progress(self, video_id: str, received: int, size: int | None) -> None:
        self.events.emit(VideoDownloading(self._update(video_id, received=received, size=size)))

    def _update(self, video_id: str, **changes: Any) -> TrackedVideo:
        self.videos[video_id] = video = evolve(self.videos[video_id], **changes)
        return video

    async def activity(self) -> str:
        """Return what the command is doing, for the message of an expired time limit.

        Waits for nothing, so that a command that is being cancelled can call it.
        """
        video = next((video for video in self.videos.values() if not video.done), None)
        if video:
            activity = f"{'downloading' if video.rendered else 'waiting for'} video {video.video_id}"
        else:
            activity = "submitting the video" if self.submitting else self.events.current_activity
        with suppress(A2VError):
            if (await self.client.pace()).left == 0:
                activity += " (rate limit reached)"
        return activity


@asynccontextmanager
async def emit_repeatedly(event: Callable[[], Awaitable[Event]], events: EventStream) -> AsyncIterator[None]:
    """Emit an event twice a second for the length of the block.

    Args:
        event: Makes the event.
        events: Gets it.
    """

    async def emit() -> None:
        while True:
            events.emit(await event())
            await asyncio.sleep(_INTERVAL)

    task = asyncio.create_task(emit())
    try:
        yield
    finally:
        task.cancel()
        # `await task` would raise the task's cancellation, which looks the same as one of this command.
        await asyncio.wait([task])


async def _paced(client: AsyncA2V) -> RequestsPaced:
    return RequestsPaced(await client.pace())


@asynccontextmanager
async def track_videos(
    server: ServerOptions, limit: TimeLimit, recordings: list[Path] | None = None, size: int = DEFAULT_SIZE
) -> AsyncIterator[VideoTracker]:
    """Connect to the server and render the events of a command.

    Args:
        server: The server.
        limit: The time limit of the command.
        recordings: The files that a local engine may read.
        size: The size of the videos of a local engine, unless their jobs have another one.
    """
    log_command(server.verbose)
    renderer = open_renderer(as_json=server.as_json)
    events = EventStream(renderer.render, "starting the engine" if server.local else "waiting for the server")
    tracker: VideoTracker | None = None
    try:
        with renderer:
            async with connect(server, recordings or [], size) as client:
                tracker = VideoTracker(client, events)
                try:
                    async with emit_repeatedly(partial(_paced, client), events):
                        yield tracker
                except anyio.get_cancelled_exc_class():
                    limit.waiting_for = await tracker.activity()
                    raise
    except anyio.get_cancelled_exc_class():
        if limit.expired:
            limit.waiting_for = limit.waiting_for or events.current_activity
            limit.notes += _hints(server, tracker)
        else:
            eprint("a2v: interrupted", *_hints(server, tracker, interrupted=True))
        raise
    except (A2VError, OSError) as error:
        for line in _hints(server, tracker):
            error.add_note(line)
        if isinstance(error, NotFoundError) and error.video_id and not server.keeps_videos:
            error.add_note("The engine of --local starts empty; with --data-dir DIR it keeps its videos.")
        raise


def _hints(server: ServerOptions, tracker: VideoTracker | None, *, interrupted: bool = False) -> list[str]:
    """Say what continues on the server, and which commands resume it."""
    if tracker is None:
        return []
    # After an error, a video without a snapshot may not exist.
    videos = [video for video in tracker.videos.values() if video.snapshot or interrupted]
    unfinished = [video for video in videos if not video.done]
    if not server.keeps_videos:
        stopped = "The local engine stopped with this command, and its renders with it."
        return [stopped] if unfinished or tracker.submitting else []
    lines = []
    if tracker.unknown_submissions:
        lines += [
            "A submission was in flight: it may or may not have been accepted. Check before you submit the video again."
        ]
    if unfinished:
        lines += [f"{continues(server)} Resume with:", *_resume_commands(unfinished, server.flags)]
    for kind in ("mask", "captions"):
        missing = [video for video in videos if video.path and kind in video.missing_beside and _offers(video, kind)]
        if missing:
            lines += [f"Download the {kind} with:", *_resume_commands(missing, f" --overwrite{server.flags}")]
    return lines


def _offers(video: TrackedVideo, kind: FileKind) -> bool:
    """Whether the server has a mask or captions of a video."""
    snapshot = video.snapshot
    return bool(snapshot and (snapshot.mask_video_url if kind == "mask" else snapshot.captions_url))


def continues(server: ServerOptions) -> str:
    """Say what happens to unfinished renders after the command."""
    if server.local:
        return f"The local engine stopped with this command; {server.data_dir} keeps its unfinished renders."
    return "Unfinished renders continue on the server."


def _resume_commands(videos: Iterable[TrackedVideo], flags: str) -> list[str]:
    rendering = [shlex.quote(video.video_id) for video in videos if not video.rendered]
    watch = [f"  {program()} watch {' '.join(rendering)}{flags}"] if rendering else []
    return watch + [
        f"  {program()} download {shlex.quote(video.video_id)} -o {quote_path(video.target)}{_side_flags(video)}{flags}"
        for video in videos
        if video.target
    ]


def _side_flags(video: TrackedVideo) -> str:
    masks = [path for path, kind in video.side_targets.items() if kind == "mask" and path not in video.saved_beside]
    mask_flags = "".join(f" --mask-output {quote_path(path)}" for path in masks)
    if "captions" not in video.missing_beside:
        return mask_flags
    # Both files are written again, even if only one is missing.
    return f"{mask_flags} --captions files{' --overwrite' if video.captions_paths and not video.path else ''}"
