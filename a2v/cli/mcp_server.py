"""``a2v mcp``: the tools of a Model Context Protocol server, with which an assistant makes videos.

Assistants repeat calls that seem to have failed, and their programs cancel calls that take long. So a submission is shielded from
cancellation, and the same request again returns the video that was submitted for it; only ``again=true`` submits it once more. A
request whose outcome is unknown is refused again, with the same explanation. Files are only written into one folder, under plain
names, and none is replaced.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.to_thread
from attrs import define, field

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context  # noqa: TC002  # the server reads the types of the tools
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError as _missing:
    reason = 'the MCP server needs another package (mcp): pip install "a2v[mcp]"'
    raise ImportError(reason, name=_missing.name) from None

from a2v import (
    A2VError,
    AsyncA2V,
    Job,
    JobState,
    SubmissionUnknownError,
    Video,
    VideoFailedError,
    WaitTimeoutError,
    __version__,
)
from a2v._core import wire
from a2v._core.file_names import caption_paths
from a2v._core.job_errors import state_after
from a2v.cli.captions import read_ways
from a2v.cli.speaking import Speaker, choose_voice, resolve_speaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v import AsyncVideoTask

_SHORT_WAIT = 10.0
"""Seconds that ``make_video`` waits, so that a video of a local engine is often finished already."""
_LONGEST_WAIT = 3600.0
_PROGRESS_INTERVAL = 2.0
_SPEECH_SECONDS = 600.0
"""Seconds for which the speech of a video that could not be submitted is used again. Later, its URL may have expired."""
_INSTRUCTIONS = """Makes videos of characters who speak a text or a recording. Renders cost money and take from seconds to hours.
Choose a character (list_characters) and a voice (list_voices), make the video once (make_video), wait for it (wait_for_video), and save
it (save_video). Never repeat make_video because a video is not finished yet: check_video and wait_for_video continue with its video_id."""


@define(eq=False)
class VideoTools:
    """The tools.

    Attributes:
        client: The client of the server that renders.
        folder: The only folder in which files are written.
        short_wait: Seconds that ``make_video`` waits.
    """

    client: AsyncA2V
    folder: Path
    short_wait: float = _SHORT_WAIT
    _submitted: dict[tuple[object, ...], str] = field(factory=dict)
    _unknown: dict[tuple[object, ...], str] = field(factory=dict)
    _speeches: dict[tuple[object, ...], tuple[str, float]] = field(factory=dict)
    _lock: anyio.Lock = field(factory=anyio.Lock)

    async def list_characters(self) -> list[dict[str, str]]:
        """List the characters: model_id, name, gender and the URL of a picture."""
        with _tool_errors():
            return [wire.character_data(one) for one in await self.client.characters.list()]

    async def list_voices(self) -> list[dict[str, Any]]:
        """List the voices that can speak a text: voice_name, gender, language and the URL of a sample."""
        with _tool_errors():
            return [wire.voice_data(one) for one in await self.client.voices.list()]

    async def make_video(  # noqa: PLR0917  # the arguments of a tool
        self,
        model_id: str,
        text: str | None = None,
        voice_name: str | None = None,
        audio_url: str | None = None,
        captions: list[Literal["files", "track", "burned"]] | None = None,
        again: bool = False,  # noqa: FBT001, FBT002  # an argument of a tool
    ) -> dict[str, Any]:
        """Submit a video of a character that speaks a text, or the recording at an https:// URL. This costs money.

        model_id is the id of a character, or its name if no other character has it. Without a voice_name, the first voice speaks that has
        the character's gender. captions need a text and an engine of a2v: "files" are saved by save_video, "track" is a track of the
        video, and "burned" is text in the picture. Waits a few seconds and returns the video_id with the status; if the video is not
        finished, continue with wait_for_video. The same request again returns the same video: pass again=true only if the user wants
        one more.
        """
        with _tool_errors():
            if audio_url is not None and not audio_url.lower().startswith(("https://", "http://")):
                raise ToolError("audio_url must be an https:// URL that the server can download")
            options = read_ways(captions or [])
            # Before the server is asked for the characters; a name may contain spaces.
            stand_in = Speaker.stand_in(model_id, None).model_id
            Job(stand_in, audio_url, text=text, voice_name=voice_name or (text and "any"), options=options)  # type: ignore[call-overload]  # as below
            try:
                model_id, gender = await resolve_speaker(self.client, "model_id", model_id)
            except ValueError as error:
                raise ToolError(f"model_id: {error}") from None
            if text is not None and voice_name is None:
                voice_name = await choose_voice(self.client, gender)
            job: Job = Job(model_id, audio_url, text=text, voice_name=voice_name, options=options)  # type: ignore[call-overload]  # checked by it
            video_id = await self._submit(job, again=again)
            return await self._wait(video_id, self.short_wait, None)

    async def check_video(self, video_id: str) -> dict[str, Any]:
        """Return the status of a video: pending, in_progressing, finished (with its URL) or error (with the reason)."""
        with _tool_errors():
            return _facts(await self.client.videos.get(video_id))

    async def wait_for_video(self, video_id: str, ctx: Context, timeout_seconds: float = 600) -> dict[str, Any]:
        """Wait until a video is finished or has failed, at most timeout_seconds (3600 at most), and report the progress."""
        with _tool_errors():
            return await self._wait(video_id, max(0.0, min(timeout_seconds, _LONGEST_WAIT)), ctx)

    async def save_video(self, video_id: str, name: str) -> dict[str, Any]:
        """Save a finished video in the server's folder, under a plain file name such as "hello"; return its path.

        If it was made with captions=["files"], they are saved beside it, as .srt and .vtt. Waits for the video if it is not finished. No
        file is replaced.
        """
        with _tool_errors():
            stem = name.removesuffix(".mp4")
            Job("m", "https://example.com/a", stem)  # refuses what is not a plain file name
            await anyio.Path(self.folder).mkdir(parents=True, exist_ok=True)
            target = self.folder / f"{stem}.mp4"
            await anyio.to_thread.run_sync(_check_free, [target])
            task = self.client.videos.task(video_id)
            others = caption_paths(target) if (await task.wait()).captions_url else []
            await anyio.to_thread.run_sync(_check_free, others)
            path = await task.download(target)
            facts: dict[str, Any] = {"video_id": video_id, "path": str(path.absolute())}
            if others:
                try:
                    facts["captions"] = [str((await task.download(one, captions=True)).absolute()) for one in others]
                except A2VError as error:
                    raise ToolError(f"{error}; the video itself was saved: {path}") from None
            return facts

    async def _submit(self, job: Job, *, again: bool) -> str:
        key = (job.model_id, job.text, job.voice_name, job.audio_url, *job.options.get("captions", ()))
        # One at a time, so that the same request finds the video of the first.
        async with self._lock:
            if not again and key in self._submitted:
                return self._submitted[key]
            if not again and key in self._unknown:
                raise ToolError(f"{self._unknown[key]} (again=true submits it again, which may be paid for twice)")
            # An answer that arrives after a cancellation must not be lost: it has the id of a video that is paid for.
            with anyio.CancelScope(shield=True):
                try:
                    task = await self._generate(job, key)
                except A2VError as error:
                    if isinstance(error, SubmissionUnknownError):
                        self._unknown[key] = str(error)
                    # A speech is paid for, so the same request uses it, unless it may be the reason of a refusal.
                    if error.speech:
                        self._speeches[key] = error.speech.url, anyio.current_time() + _SPEECH_SECONDS
                    elif state_after(error, sent=True) is JobState.REJECTED:
                        self._speeches.pop(key, None)
                    raise
                self._unknown.pop(key, None)
                self._speeches.pop(key, None)
                self._submitted[key] = task.video_id
            return self._submitted[key]

    async def _generate(self, job: Job, key: tuple[object, ...]) -> AsyncVideoTask:
        speech_url, until = self._speeches.get(key, (None, 0.0))
        audio_url = speech_url if anyio.current_time() < until else job.audio_url
        model_id, options = job.model_id or "", job.options
        if audio_url:
            return await self.client.videos.generate(model_id=model_id, audio_url=audio_url, options=options)
        text, voice_name = job.text or "", job.voice_name or ""
        return await self.client.videos.generate(model_id=model_id, text=text, voice_name=voice_name, options=options)

    async def _wait(self, video_id: str, seconds: float, ctx: Context | None) -> dict[str, Any]:
        task = self.client.videos.task(video_id)
        problem: A2VError | None = None
        async with anyio.create_task_group() as tasks:
            if ctx:
                tasks.start_soon(_report, ctx, task, seconds)
            try:
                await task.wait(timeout=seconds)
            except A2VError as error:
                problem = error
            tasks.cancel_scope.cancel()
        # A video that has failed, or is not finished in time, is a result like any other.
        if problem and not isinstance(problem, VideoFailedError | WaitTimeoutError):
            raise problem
        return _facts(task.video) if task.video else {"video_id": video_id, "status": "pending"}


async def _report(ctx: Context, task: AsyncVideoTask, seconds: float) -> None:
    """Report how long a wait has lasted, and the status."""
    began = anyio.current_time()
    while True:
        status = task.video.status.value if task.video else "pending"
        await ctx.report_progress(round(anyio.current_time() - began, 1), seconds, f"video {task.video_id}: {status}")
        await anyio.sleep(_PROGRESS_INTERVAL)


def _check_free(paths: list[Path]) -> None:
    for path in paths:
        if path.is_symlink() or path.exists():
            what = "is a link" if path.is_symlink() else "exists already"
            raise ToolError(f"{path.name} {what}: choose another name")


@contextmanager
def _tool_errors() -> Iterator[None]:
    """Turn the errors of the client into those that the assistant reads."""
    try:
        yield
    except A2VError as error:
        raise ToolError(str(error)) from None


def _facts(video: Video) -> dict[str, Any]:
    facts = wire.video_data(video, video.message)
    return {key: value for key, value in facts.items() if value is not None}


def make_server(client: AsyncA2V, folder: Path, *, short_wait: float = _SHORT_WAIT) -> MCPServer:
    """Return the server.

    Args:
        client: The client of the server that renders.
        folder: The folder in which videos are saved.
        short_wait: Seconds that ``make_video`` waits for a video.
    """
    server = MCPServer("a2v", title="Talking videos", instructions=_INSTRUCTIONS, version=__version__)
    tools = VideoTools(client, folder, short_wait)
    for tool in (
        tools.list_characters,
        tools.list_voices,
        tools.make_video,
        tools.check_video,
        tools.wait_for_video,
        tools.save_video,
    ):
        server.add_tool(tool)
    return server
