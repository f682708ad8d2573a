"""Tasks: follow and download a video that is being rendered."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import anyio

from a2v._async.requests import telemetry
from a2v._async.requests.subscription import Subscription
from a2v._core.settings import HoldsSecret, Secret
from a2v._values import arguments
from a2v._values.models import DEFAULT_RENDER_TIMEOUT, Video, VideoStatus
from a2v._values.text import escape
from a2v.errors import DownloadError, InvalidArgumentError, ProtocolError, VideoFailedError, WaitTimeoutError

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from a2v._async.destination import Destination
    from a2v._async.download import OnProgress, ResumeStore
    from a2v._async.requests.session import Session
    from a2v._core.file_names import FileKind


_MAX_LISTED = 10  # ids in the note on a cancellation


class AsyncVideoTask(HoldsSecret):
    """A video that is being rendered, from ``videos.generate``, or from ``videos.task`` by its id.

    Cancelling a wait does not cancel the render, because the API has no method for that. The render continues, and can be
    picked up again.
    """

    _instead = "pass its video_id, and pick the video up there with client.videos.task(video_id)"

    def __init__(
        self, session: Session, video_id: str, *, submitted_at: float | None = None, recording: Path | None = None
    ) -> None:
        self._session = session
        self._video_id = video_id
        self._video: Video | None = None
        # By the session's clock.
        self._submitted_at = submitted_at
        self._recording = recording

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {escape(self._video_id)} {self._video.status.value if self._video else 'no status yet'}>"

    @property
    def video_id(self) -> str:
        """The server's id of the video."""
        return self._video_id

    @property
    def video(self) -> Video | None:
        """The last known state of the video; ``None`` before the first response about it."""
        return self._video

    def watch(self, timeout: float | None = DEFAULT_RENDER_TIMEOUT) -> AsyncGenerator[Video, None]:
        """Watch the video: yield its current state, then each change of status, until it is finished or has failed.

        A failed render is yielded like any other status. Short outages of the server do not end the iteration.

        Args:
            timeout: Seconds for the whole iteration, 24 hours by default. ``None``: no limit.

        Returns:
            An iterator over the video's states.

        Raises:
            WaitTimeoutError: The video has not ended in time, or its status is unknown to a2v. The render continues.
            InvalidArgumentError: ``timeout`` is not a number of seconds.
            A2VError: The server rejected the requests, or gave no usable response for ten minutes.
        """
        return watch_tasks(self._session, [self], arguments.timeout("timeout", timeout))

    async def wait(
        self,
        timeout: float | None = DEFAULT_RENDER_TIMEOUT,
        *,
        on_change: Callable[[Video], object] | None = None,
    ) -> Video:
        """Wait until the video is finished.

        Args:
            timeout: Seconds to wait, 24 hours by default. ``None``: no limit.
            on_change: Called with the video's current state, and again after each change of status; no callback by default. It
                must return quickly and must not use the client. An exception in it ends the wait.

        Returns:
            The finished video.

        Raises:
            VideoFailedError: The render failed.
            WaitTimeoutError: The video has not ended in time, or its status is unknown to a2v. The render continues.
            A2VError: As for ``watch``.
        """
        timeout, on_change = arguments.timeout("timeout", timeout), arguments.callback("on_change", on_change)
        if self._video is None or not self._video.is_terminal:
            with Subscription(self._session, {self._video_id: self._submitted_at}, timeout) as subscription:
                while video := await _next(subscription, [self]):
                    self._video = video
                    if on_change:
                        on_change(video)
        elif on_change:
            on_change(self._video)
        video = self._video
        if video is None:  # pragma: no cover  # a subscription returns a snapshot or raises
            raise AssertionError
        if video.status is VideoStatus.FAILED:
            raise VideoFailedError(_failure(video), video=video)
        return video

    async def refresh(self) -> Video:
        """Request the current state of the video.

        Returns:
            The video, also available as ``video``.

        Raises:
            NotFoundError: The server does not know the video.
            A2VError: The server rejected the request or could not be reached.
        """
        self._video = await self._session.get_video(self._video_id)
        return self._video

    async def download(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        mask: bool = False,
        captions: bool = False,
        timeout: float | None = DEFAULT_RENDER_TIMEOUT,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> Path:
        """Wait for the video if it is not finished, then download it.

        The file appears under its name only when it is complete; a failed download leaves nothing behind. Missing
        folders are created.

        Args:
            path: The file to write. A relative path is resolved, and a leading ``~`` expanded, when the call begins. If it is
                a symbolic link, its target is written. It must not be a device, a pipe or a socket.
            overwrite: Whether to replace an existing file; ``False`` by default. The recording of the video is never replaced.
            mask: Whether to download the mask instead of the video; ``False`` by default. A video has one if it was submitted
                with ``with_mask=True``.
            captions: Whether to download the captions instead of the video; ``False`` by default. The file is SubRip if the path
                ends in ``.srt``, and WebVTT if it ends in ``.vtt``. A video of an a2v engine has captions if it was submitted
                with ``options={"captions": "files"}``.
            timeout: Seconds for waiting and downloading together, 24 hours by default. ``None``: no limit.
            on_progress: Called during the download with the number of bytes stored and the size of the file in bytes
                (``None`` if unknown); no callback by default. It must return quickly and must not use the client. An exception
                in it ends the download.

        Returns:
            The absolute path of the file.

        Raises:
            InvalidArgumentError: An argument has a wrong type or value. Nothing was sent.
            DownloadError: The file cannot be downloaded or stored, it exists already, it is larger than the client's
                ``max_download_bytes``, or the video has no mask or captions.
            VideoFailedError: The render failed.
            WaitTimeoutError: The timeout passed, or the video's status is unknown to a2v. The render continues, and the
                video can be downloaded later.
            A2VError: As for ``watch``.
        """
        from a2v._async.download import in_thread  # noqa: PLC0415  # only for those who save videos

        target, recording = arguments.path("path", path), self._recording
        overwrite = arguments.boolean("overwrite", overwrite)
        kind = _kind(target, mask=arguments.boolean("mask", mask), captions=arguments.boolean("captions", captions))
        timeout, on_progress = arguments.timeout("timeout", timeout), arguments.callback("on_progress", on_progress)
        prepared = partial(_prepare, target, overwrite=overwrite, recording=recording)
        destination = await in_thread(prepared)
        return await save(self, destination, kind=kind, timeout=timeout, on_progress=on_progress)


def _kind(path: Path, *, mask: bool, captions: bool) -> FileKind:
    if not captions:
        return "mask" if mask else "video"
    from a2v._core.file_names import CAPTIONS  # noqa: PLC0415  # only for those who save captions

    if mask:
        raise InvalidArgumentError("mask and captions exclude each other: a call downloads one file")
    if path.suffix.lower() not in CAPTIONS:
        raise InvalidArgumentError(
            f"path must end in .srt or .vtt, the formats of captions, got {arguments.short_repr(str(path))}"
        )
    return "captions"


def _prepare(path: Path, *, overwrite: bool, recording: Path | None) -> Destination:
    from a2v._async.destination import Destination, file_ids  # noqa: PLC0415  # as above

    destination = Destination(path, overwrite, file_ids([recording]))
    destination.prepare()
    return destination


async def watch_tasks(
    session: Session, tasks: Sequence[AsyncVideoTask], timeout: float | None
) -> AsyncGenerator[Video, None]:
    """Yield the changed snapshots of the tasks' videos, and store the latest one in each task."""
    by_id: dict[str, list[AsyncVideoTask]] = {}
    for task in tasks:
        by_id.setdefault(task.video_id, []).append(task)
    submitted_at = {video_id: same[0]._submitted_at for video_id, same in by_id.items()}  # noqa: SLF001  # its module
    with Subscription(session, submitted_at, timeout) as subscription:
        while video := await _next(subscription, tasks):
            for task in by_id[video.video_id]:
                task._video = video  # noqa: SLF001  # its module
            yield video


async def _next(subscription: Subscription, tasks: Sequence[AsyncVideoTask]) -> Video | None:
    """Return the next snapshot. On cancellation, add a note with the ids, which the sync client shows on Ctrl-C."""
    try:
        return await subscription.next()
    except anyio.get_cancelled_exc_class() as error:
        unfinished = dict.fromkeys(task.video_id for task in tasks if not (task.video and task.video.is_terminal))
        listed = ", ".join(map(repr, islice(unfinished, _MAX_LISTED)))
        more = f" and {len(unfinished) - _MAX_LISTED} more" if len(unfinished) > _MAX_LISTED else ""
        error.add_note(f"the server continues to render; client.videos.task(video_id) picks up {listed}{more}")
        raise


async def save(
    task: AsyncVideoTask,
    destination: Destination,
    resume_store: ResumeStore | None = None,
    *,
    kind: FileKind = "video",
    timeout: float | None = DEFAULT_RENDER_TIMEOUT,
    on_progress: OnProgress | None = None,
) -> Path:
    """Wait for a task's video if it is not finished, then download it.

    Args:
        task: The task.
        destination: Where to save the file.
        resume_store: Stores the progress of the download, so that a later one can resume it.
        kind: The kind of file to download; the video by default.
        timeout: Seconds for waiting and downloading together; ``None``: no limit.
        on_progress: Called with the number of bytes stored and the size of the file, if known.

    Returns:
        The path of the file.

    Raises:
        WaitTimeoutError: The timeout passed.
        A2VError: As ``AsyncVideoTask.download``.
    """
    started = anyio.current_time()
    with anyio.move_on_after(timeout):
        return await _save(task, destination, resume_store, on_progress, kind)
    waited = anyio.current_time() - started
    problem = "was not downloaded" if task.video and task.video.is_terminal else "has not ended"
    raise WaitTimeoutError(
        f"video {escape(task.video_id)} {problem} after {waited:.0f} s; it is still on the server",
        video_id=task.video_id,
        video=task.video,
        waited=waited,
    )


async def _save(
    task: AsyncVideoTask,
    destination: Destination,
    resume_store: ResumeStore | None,
    on_progress: OnProgress | None,
    kind: FileKind,
) -> Path:
    from a2v._async.download import download  # noqa: PLC0415  # as above

    url = _url(await task.wait(timeout=None), kind)

    async def fresh_url() -> Secret:
        return _url(await task.refresh(), kind)

    with telemetry.span("a2v.download", {"a2v.video_id": task.video_id}):
        session = task._session  # noqa: SLF001  # its module
        saved = await download(session, url, destination, fresh_url, resume_store, kind=kind, on_progress=on_progress)
    telemetry.logger.info("video %s: saved", task.video_id)
    return saved


def _url(video: Video, kind: FileKind) -> Secret:
    if kind == "captions":
        if not video.captions_url:
            raise DownloadError(
                f"video {escape(video.video_id)} has no captions to download: a2v engines make them for videos that are submitted "
                'with options={"captions": "files"} (--captions files); other servers may not'
            )
        return Secret(video.captions_url)
    if kind == "mask":
        if not video.mask_video_url:
            raise DownloadError(
                f"video {escape(video.video_id)} has no mask; videos get one if they are submitted with with_mask=True "
                "(--with-mask)"
            )
        return Secret(video.mask_video_url)
    if not video.video_url:
        raise ProtocolError(f"video {escape(video.video_id)} was finished and now has no URL")
    return Secret(video.video_url)


def _failure(video: Video) -> str:
    return f"video {escape(video.video_id)} failed" + (f": {escape(video.message)}" if video.message else "")
