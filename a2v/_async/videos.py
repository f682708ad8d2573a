"""``client.videos``."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from a2v._async.task import AsyncVideoTask, watch_tasks
from a2v._core.file_urls import path_from_url
from a2v._core.settings import HoldsSecret
from a2v._values import arguments
from a2v._values.jobs import Job
from a2v._values.models import DEFAULT_RENDER_TIMEOUT, Video

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from a2v._async.requests.session import Session


class AsyncVideos(HoldsSecret):
    """The videos of an account."""

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(self, session: Session) -> None:
        self._session = session

    @overload
    async def generate(self, *, model_id: str, audio_url: str) -> AsyncVideoTask: ...

    @overload
    async def generate(self, *, pose_id: str, audio_url: str, with_mask: bool = False) -> AsyncVideoTask: ...

    async def generate(
        self, *, model_id: str | None = None, pose_id: str | None = None, audio_url: str, with_mask: bool = False
    ) -> AsyncVideoTask:
        """Submit a render, of a character (``model_id``) or of an avatar in one of its poses (``pose_id``).

        It costs money, and is never submitted twice for one call.

        Args:
            model_id: Which character speaks, as ``characters.list`` names it; left out if a ``pose_id`` is given.
            pose_id: Which pose of which avatar speaks, as ``avatars.list`` names it. Servers of the first revision do not
                have poses.
            audio_url: What it says: the URL of a recording that the server can download.
            with_mask: Whether a mask is made too, which tells the speaker from the background; ``False`` by default.
                Goes with a ``pose_id`` only. ``task.download(path, mask=True)`` fetches it.

        Returns:
            The task, to be watched, waited for, or picked up later by its ``video_id``.

        Raises:
            InvalidArgumentError: An argument cannot be right. Nothing was sent.
            SubmissionUnknownError: The server may or may not have accepted it; it was not sent again.
            TransportError: The server could not be reached. Nothing was submitted.
            APIError: The server said no. Nothing was submitted.
        """
        # The overloads forbid what a job forbids; callers without a type checker hear of it from the job.
        job = Job(model_id, audio_url, pose_id=pose_id, with_mask=with_mask)  # type: ignore[call-overload]
        video_id = await self._session.generate(job)
        now, recording = self._session.now(), path_from_url(audio_url)
        return AsyncVideoTask(self._session, video_id, submitted_at=now, recording=recording)

    async def get(self, video_id: str) -> Video:
        """Look at one video, once.

        Args:
            video_id: Which.

        Returns:
            The video as it is now.

        Raises:
            NotFoundError: The server does not know it.
            A2VError: The server said no or could not be asked.
        """
        return await self._session.get_video(self._known(video_id))

    async def list(self) -> list[Video]:
        """Look at every video of the account in one request. Servers of the first revision do not have this call.

        Returns:
            The videos as they are now.

        Raises:
            NotFoundError: This server does not have the call.
            A2VError: The server said no or could not be asked.
        """
        return await self._session.call(self._session.known_videos.video_list())

    def task(self, video_id: str) -> AsyncVideoTask:
        """Pick up a task by its id, in another process too. Asks nothing of the server.

        Args:
            video_id: Which.

        Returns:
            The task.
        """
        return AsyncVideoTask(self._session, self._known(video_id))

    def watch(
        self, *tasks_or_ids: AsyncVideoTask | str, timeout: float | None = DEFAULT_RENDER_TIMEOUT
    ) -> AsyncGenerator[Video, None]:
        """Follow many videos at once: the status of each now, then each change, until all have ended.

        Failed renders are yielded like any other status. Brief failures of the server do not end the watch. A video that
        cannot be followed, because the server does not know it, does not end the watch of the others: the error is raised
        when they have ended, and names all such videos.

        Args:
            *tasks_or_ids: What to follow; one given twice is followed once.
            timeout: Seconds for the whole watch, 24 hours by default. ``None``: no limit.

        Returns:
            An iterator over the videos' states, as they are seen.

        Raises:
            InvalidArgumentError: Something given is no id of a video.
            NotFoundError: The server does not know some of them. The others have ended.
            WaitTimeoutError: Not all have ended in time. The server continues with them.
            A2VError: Some could not be followed for another reason; ``error.video_id`` is the first of them.
        """
        tasks = [task if isinstance(task, AsyncVideoTask) else self.task(task) for task in tasks_or_ids]
        return watch_tasks(self._session, tasks, arguments.timeout("timeout", timeout))

    def _known(self, video_id: str) -> str:
        """Check an id, and note that the caller knows the video: a batch must not take it for one of its own."""
        arguments.identifier("video_id", video_id, "a video")
        self._session.known_videos.add(video_id)
        return video_id
