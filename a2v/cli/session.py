"""One command's talk with a server, and what is said if it ends too early."""

from __future__ import annotations

import shlex
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from a2v import A2VError, DownloadError, NotFoundError, Video, VideoStatus
from a2v._async.requests.session import OUTCOME_UNKNOWN
from a2v._values.models import DEFAULT_RENDER_TIMEOUT
from a2v.cli.output import Output, Row, open_output
from a2v.cli.printing import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from a2v import AsyncA2V, AsyncVideoTask, Job
    from a2v.cli.server import Server


class TimeIsUpError(Exception):
    """``--timeout`` expired before the command was done."""


@define(eq=False)
class TimeLimit:
    """The time that a command may take, with everything that it does: ``--timeout``.

    Attributes:
        seconds: How long; ``None`` if the option was left out.
        scope: What ends the command.
        waiting: What the command was waiting for when the time was up, as a sentence without a full stop.
        notes: How to go on.
    """

    seconds: float | None
    scope: anyio.CancelScope
    waiting: str = ""
    notes: list[str] = field(factory=list)

    @property
    def for_videos(self) -> float | None:
        """Seconds to wait for videos: with ``--timeout`` no limit of their own, and 24 hours without."""
        return DEFAULT_RENDER_TIMEOUT if self.seconds is None else None

    @property
    def is_up(self) -> bool:
        """Whether the time is up, so that a cancellation is no interruption by the user."""
        return self.scope.cancel_called


@contextmanager
def time_limit(seconds: float | None) -> Iterator[TimeLimit]:
    """Around all that a command does.

    Raises:
        TimeIsUpError: It was not done in time.
    """
    scope = anyio.move_on_after(seconds)
    limit = TimeLimit(seconds, scope)
    with scope:
        yield limit
    if scope.cancelled_caught:
        error = TimeIsUpError(f"{limit.waiting or 'the command is not done'} after {seconds:g} s (--timeout)")
        for note in limit.notes:
            error.add_note(note)
        raise error


@asynccontextmanager
async def session(
    server: Server, limit: TimeLimit, files: list[Path] | None = None
) -> AsyncIterator[tuple[AsyncA2V, Output]]:
    """A client and an output for the length of a command.

    If the command ends early, the user is told what goes on at the server and how to pick it up: here when it is
    interrupted, otherwise as notes of the error.

    Args:
        server: Which server to talk to.
        limit: The time that the command may take.
        files: What an engine of ``--local`` may read.
    """
    note = "starting the engine" if server.local else "asking the server"
    output = open_output(as_json=server.as_json, note=note)
    try:
        with output:
            async with server.connect(files or []) as client:
                try:
                    yield client, output
                except anyio.get_cancelled_exc_class():
                    limit.waiting = await _waiting(client, output)
                    raise
    except anyio.get_cancelled_exc_class():
        if limit.is_up:
            limit.waiting = limit.waiting or f"{output.note}: not done"
            limit.notes += _pick_up(server, output, [row for row in output.rows.values() if row.video])
            raise
        say("a2v: interrupted", *_pick_up(server, output, list(output.rows.values())))
        raise
    except (A2VError, OSError) as error:
        for line in _pick_up(server, output, [row for row in output.rows.values() if row.video]):
            error.add_note(line)
        if isinstance(error, NotFoundError) and not server.is_kept:
            error.add_note("The engine of --local starts empty; with --data-dir DIR it keeps its videos.")
        raise


async def _waiting(client: AsyncA2V, output: Output) -> str:
    """What the command is waiting for. Awaits nothing, because it is asked when the command is being cancelled."""
    row = next((row for row in output.rows.values() if not row.ended), None)
    if row is None:
        waiting = "the video has not been accepted" if output.submitting else f"{output.note}: not done"
    else:
        waiting = f"video {row.video_id} has not {'been saved' if row.video and row.video.is_terminal else 'ended'}"
    with suppress(A2VError):
        if (await client.batch([]).pace()).left == 0:
            waiting = f"waiting for the rate limit: {waiting}"
    return waiting


async def submit(
    client: AsyncA2V,
    output: Output,
    job: Job,
    *,
    label: str = "",
    target: Path | None = None,
    mask_target: Path | None = None,
) -> AsyncVideoTask:
    """Submit a video and show that it is in line.

    Args:
        client: Where to submit.
        output: Where to show.
        job: What to make.
        label: What to call the video on a terminal; its id if empty.
        target: Where it shall be saved, if it shall.
        mask_target: Where its mask shall be saved, if it shall.

    Raises:
        A2VError: It was not accepted, or nobody knows whether it was.
    """
    output.submitting += 1
    try:
        task: AsyncVideoTask = await client.videos.generate(  # type: ignore[call-overload]  # a job has what goes together
            model_id=job.model_id, pose_id=job.pose_id, audio_url=job.audio_url, with_mask=job.with_mask
        )
    except A2VError:
        output.submitting -= 1
        raise
    except anyio.get_cancelled_exc_class() as error:
        # It may have waited for the rate limit only.
        output.in_doubt += OUTCOME_UNKNOWN in getattr(error, "__notes__", ())
        raise
    output.submitting -= 1
    output.expect(task.video_id, label=label, target=target, mask_target=mask_target)
    output.show(Video(video_id=task.video_id, status=VideoStatus.PENDING))
    return task


async def follow(
    task: AsyncVideoTask, output: Output, *, overwrite: bool = False, timeout: float | None = DEFAULT_RENDER_TIMEOUT
) -> None:
    """Show how a video comes along, and save it where its row says.

    Raises:
        VideoFailedError: The render ended in error.
        A2VError: It could not be followed, or not be saved.
    """
    async with aclosing(task.watch(timeout)) as looks:
        async for video in looks:
            output.show(video)
    await task.wait()
    row = output.rows[task.video_id]
    problem: DownloadError | None = None
    if row.mask_target:
        # First, because the video's own file means that nothing more is wanted; but it is saved without a mask, too.
        try:
            row.mask_path = await task.download(row.mask_target, overwrite=overwrite, mask=True)
        except DownloadError as error:
            problem = error
    if row.target:
        output.saved(task.video_id, await task.download(row.target, overwrite=overwrite))
        if problem:
            problem.add_note(f"The video itself is saved: {row.target}")
    if problem:
        raise problem


def _pick_up(server: Server, output: Output, rows: list[Row]) -> list[str]:
    """What goes on although the command has ended, and the commands that pick it up."""
    open_rows = [row for row in rows if not row.ended]
    if not server.is_kept:
        return (
            ["The local engine stopped with this command, and its renders with it."]
            if open_rows or output.submitting
            else []
        )
    lines = []
    if output.in_doubt:
        lines += ["A video was being submitted: it may or may not have been accepted. Look before you submit it again."]
    if open_rows:
        engine = f"The local engine stopped with this command, but keeps its tasks in {server.data_dir}."
        lines += [engine if server.local else "What was submitted goes on at the server.", "Pick it up with:"]
        lines += _commands(open_rows, server.flags)
    without_mask = [row for row in rows if row.path and row.mask_target and not row.mask_path]
    if masks := [row for row in without_mask if row.video and row.video.mask_video_url]:
        lines += ["Download the mask with:", *_commands(masks, f" --overwrite{server.flags}")]
    return lines


def _commands(rows: list[Row], flags: str) -> list[str]:
    moving = [shlex.quote(row.video_id) for row in rows if not (row.video and row.video.is_terminal)]
    watch = [f"  a2v watch {' '.join(moving)}{flags}"] if moving else []
    return watch + [f"  a2v download {shlex.quote(row.video_id)}{_targets(row)}{flags}" for row in rows if row.target]


def _targets(row: Row) -> str:
    mask = f" --mask-output {shlex.quote(str(row.mask_target))}" if row.mask_target and not row.mask_path else ""
    return f" -o {shlex.quote(str(row.target))}{mask}"
