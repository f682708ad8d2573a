"""``client.videos``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from a2v._async.task import AsyncVideoTask, watch_tasks
from a2v._core.file_urls import path_from_url
from a2v._core.settings import HoldsSecret
from a2v._values import arguments
from a2v._values.jobs import Job
from a2v._values.models import DEFAULT_RENDER_TIMEOUT, Video

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from a2v._async.requests.session import Session


class AsyncVideos(HoldsSecret):
    """The videos of the account."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<AsyncA2V.videos {self._session.base_url}>"

    @overload
    async def generate(
        self, *, model_id: str, audio_url: str, options: Mapping[str, Any] | None = None
    ) -> AsyncVideoTask: ...

    @overload
    async def generate(
        self, *, pose_id: str, audio_url: str, with_mask: bool = False, options: Mapping[str, Any] | None = None
    ) -> AsyncVideoTask: ...

    @overload
    async def generate(
        self, *, model_id: str, text: str, voice_name: str, options: Mapping[str, Any] | None = None
    ) -> AsyncVideoTask: ...

    @overload
    async def generate(
        self,
        *,
        pose_id: str,
        text: str,
        voice_name: str,
        with_mask: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncVideoTask: ...

    async def generate(
        self,
        *,
        model_id: str | None = None,
        pose_id: str | None = None,
        audio_url: str | None = None,
        text: str | None = None,
        voice_name: str | None = None,
        with_mask: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncVideoTask:
        """Submit a render of a character (``model_id``), or of an avatar in one of its poses (``pose_id``).

        It speaks a recording (``audio_url``) or a ``text``, which is synthesized first. Renders cost money, and syntheses may too.
        One call submits at most one of each.

        Args:
            model_id: The character, from ``characters.list``. Omit it with a ``pose_id``.
            pose_id: The pose of an avatar, from ``avatars.list``. Servers of the first revision do not have poses.
            audio_url: The URL of the recording. The server downloads it. Omit it with a ``text``.
            text: The text to speak. The hosted service accepts 500 characters. Servers of the first revision do not speak texts.
            voice_name: The voice that speaks the text, from ``voices.list``. Required with a ``text``.
            with_mask: Whether to render a mask as well, which separates the speaker from the background; ``False`` by
                default. Requires a ``pose_id``. ``task.download(path, mask=True)`` downloads it.
            options: Fields of the request that the protocol does not have, such as ``{"fps": 30}`` for an engine of a2v. They
                are sent as they are; a server may ignore or reject them. None by default.

        Returns:
            The task. Watch it, wait for it, or pick it up later by its ``video_id``.

        Raises:
            InvalidArgumentError: An argument is invalid. Nothing was sent.
            SubmissionUnknownError: The server may or may not have accepted the render, or synthesized the text; it was not
                submitted again.
            NotFoundError: With a ``text``: the server has no voices, or does not know this one. No video was submitted.
            TransportError: The server could not be reached. No video was submitted.
            APIError: The server rejected the text or the render. No video was submitted. If the text was synthesized,
                ``error.speech`` is the speech.
        """
        # The overloads rule out what a job rejects; without a type checker, the job raises the error.
        job: Job = Job(  # type: ignore[call-overload, misc]
            model_id,
            audio_url,
            pose_id=pose_id,
            with_mask=with_mask,
            text=text,
            voice_name=voice_name,
            options={} if options is None else options,
        )
        video_id = await self._session.generate(job)
        now, recording = self._session.now(), path_from_url(audio_url)
        return AsyncVideoTask(self._session, video_id, submitted_at=now, recording=recording)

    async def get(self, video_id: str) -> Video:
        """Request a video's current state.

        Args:
            video_id: The video.

        Returns:
            The video.

        Raises:
            InvalidArgumentError: ``video_id`` is invalid. Nothing was sent.
            NotFoundError: The server does not know the video.
            A2VError: The server rejected the request or could not be reached.
        """
        return await self._session.get_video(self._checked(video_id))

    async def list(self) -> list[Video]:
        """Request the current states of all videos of the account. Servers of the first revision do not have this method.

        Returns:
            The videos.

        Raises:
            NotFoundError: The server does not have this method.
            A2VError: The server rejected the request or could not be reached.
        """
        return await self._session.call(self._session.known_videos.video_list())

    def task(self, video_id: str) -> AsyncVideoTask:
        """Return the task of a video that was submitted earlier, even by another process. Sends no request.

        Args:
            video_id: The video.

        Returns:
            The task.

        Raises:
            InvalidArgumentError: ``video_id`` is invalid.
        """
        return AsyncVideoTask(self._session, self._checked(video_id))

    def watch(
        self, *tasks_or_ids: AsyncVideoTask | str, timeout: float | None = DEFAULT_RENDER_TIMEOUT
    ) -> AsyncGenerator[Video, None]:
        """Watch several videos: yield the current state of each, then each change of status, until all have ended.

        Failed renders are yielded like any other status. Short outages of the server do not end the iteration. If the server does
        not know some videos, the error is raised after the others have ended, and names all of them.

        Args:
            *tasks_or_ids: The videos. Duplicates are watched once.
            timeout: Seconds for the whole iteration, 24 hours by default. ``None``: no limit.

        Returns:
            An iterator over the states of the videos.

        Raises:
            InvalidArgumentError: An argument is invalid.
            NotFoundError: The server does not know some of the videos. The others have ended.
            WaitTimeoutError: Not all videos have ended in time. The server continues to render them.
            A2VError: Some videos could not be watched for another reason; ``error.video_id`` is the first of them.
        """
        tasks = [task if isinstance(task, AsyncVideoTask) else self.task(task) for task in tasks_or_ids]
        return watch_tasks(self._session, tasks, arguments.timeout("timeout", timeout))

    def _checked(self, video_id: str) -> str:
        """Check an id, and record that the caller knows the video, so that no batch matches it to one of its jobs."""
        arguments.identifier("video_id", video_id, "a video")
        self._session.known_videos.add(video_id)
        return video_id
