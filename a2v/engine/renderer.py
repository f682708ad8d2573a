"""The interface between the engine and its renderers, and the default renderer: one child process per render.

A renderer is an async function that takes a ``RenderRequest`` and returns once the files are complete, possibly with a warning. Cancelling
the call cancels the render, so a renderer needs no identifiers, no status calls and no cleanup. ``dask_renderer.DaskRenderer`` is another
renderer; you can pass your own to ``create_app``.

Renders run in child processes, because the decoder of untrusted media must be confined and killed on demand, and a crash of FFmpeg must
not crash the engine. The child gets its request on the command line, and reports the result as one line of JSON; see ``worker``. The
line only counts if the exit status is 0.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import frozen

from a2v.engine.errors import RenderCrashedError, RenderError, ResourceExhaustedError
from a2v.engine.exhaustion import OUT_OF_MEMORY
from a2v.engine.face_pose import Mood
from a2v.engine.settings import Format
from a2v.engine.video_options import OWN, Container

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream, Process

logger: logging.Logger = logging.getLogger("a2v.engine")

WORKER = (sys.executable, "-P", "-m", "a2v.engine.worker")
"""The command of the child process. ``-P``: import nothing from the current folder, which may belong to another user."""
_MAX_OUTPUT_BYTES = 64 * 1024
"""How much of the end of a child's output is kept."""


@frozen(kw_only=True)
class RenderRequest:
    """The inputs, outputs and limits of one render.

    Attributes:
        audio: The file with the recording.
        subject_id: A ``pose_id``, or a ``model_id`` for the default pose of a character.
        destination: The path of the video.
        character: A file with the character, as ``dump_character`` writes it; ``None``: a built-in character.
        mask: The path of its mask; ``None``: no mask.
        size: The shorter side of the video in pixels.
        format: The shape of the video.
        fps: Frames per second.
        container: The format of the file.
        background: ``"character"``, ``"transparent"`` or a colour.
        picture: A file with a picture to use as the background instead; ``None``: there is none.
        mood: The expression of the character; ``None``: the voice determines it.
        captions: A file with the captions, as ``Captions.dump`` writes it; ``None``: there are none.
        vtt: The path of the captions in the format WebVTT, if they include a file.
        max_audio_seconds: The longest recording to accept.
        max_render_seconds: The time limit.
        max_render_mib: The memory limit in MiB.
    """

    audio: Path
    subject_id: str
    destination: Path
    character: Path | None = None
    mask: Path | None = None
    size: int = 512
    format: Format = "square"
    fps: int = 25
    container: Container = "mp4"
    background: str = OWN
    picture: Path | None = None
    mood: Mood | None = None
    captions: Path | None = None
    vtt: Path | None = None
    max_audio_seconds: float = 1800.0
    max_render_seconds: float = 3600.0
    max_render_mib: int = 2048


Renderer = Callable[[RenderRequest], Awaitable[str | None]]
"""Returns once the requested files are complete: a warning about the video, or ``None``.

Raises ``RenderError`` if the request can never be rendered, ``RenderCrashedError`` if a retry may help, and ``ResourceExhaustedError`` if
the machine has run out of a resource."""


async def render_in_child(request: RenderRequest) -> str | None:
    """Render in a child process, which is killed if the call is cancelled.

    Returns:
        A warning about the video; ``None`` if there is none.

    Raises:
        RenderError: The recording cannot be used, or the render exceeded its time or memory.
        RenderCrashedError: The child ended without a result.
        ResourceExhaustedError: The system killed the child, or the child reports that the machine has run out of a resource.
    """
    return await run_child(_command(request), request.max_render_seconds, "the render")


async def run_child(command: list[str], max_seconds: float, what: str) -> str | None:
    """Run a child process that reports its result as ``worker`` does; it is killed if the call is cancelled.

    Args:
        command: The command.
        max_seconds: The time limit.
        what: The name of the work in messages, such as ``"the render"``.

    Returns:
        The child's warning; ``None`` if there is none.

    Raises:
        RenderError: The child reports that its input cannot be used, or it took too long.
        RenderCrashedError: The child ended without a result.
        ResourceExhaustedError: The system killed the child, or the child reports that the machine has run out of a resource.
    """
    too_long = f"{what} took longer than {max_seconds:g} s"
    try:
        with anyio.fail_after(max_seconds):
            status, output, errors = await _run_process(command)
    except TimeoutError:
        raise RenderError(too_long) from None
    if status == -getattr(signal, "SIGXCPU", 0) != 0:
        raise RenderError(too_long)
    if status == -getattr(signal, "SIGKILL", 0) != 0:
        # This process kills its children only after a cancellation, so it was the system's out-of-memory killer.
        raise ResourceExhaustedError(f"{OUT_OF_MEMORY} (a render was killed)")
    return _read_result(status, output, errors)


def _command(request: RenderRequest) -> list[str]:
    command = [*WORKER, str(request.audio), request.subject_id, str(request.destination), "--size", str(request.size)]
    command += ["--format", request.format, "--fps", str(request.fps), "--end-with-stdin"]
    command += ["--max-seconds", str(request.max_audio_seconds)]
    command += [
        "--max-render-seconds",
        str(request.max_render_seconds),
        "--max-render-mib",
        str(request.max_render_mib),
    ]
    if request.mood:
        command += ["--mood", request.mood]
    if request.container != "mp4" or request.background != OWN:
        command += ["--container", request.container, "--background", request.background]
    files = {"--character": request.character, "--picture": request.picture, "--mask": request.mask}
    files |= {"--captions": request.captions, "--vtt": request.vtt}
    return command + [word for option, path in files.items() if path for word in (option, str(path))]


async def open_process(command: list[str], **options: Any) -> Process:
    """Start a process like ``anyio.open_process``, but delay a cancellation until it has started.

    Cancelled while connecting the pipes, asyncio would leave the process running without an owner.
    """
    await checkpoint_if_cancelled()
    with anyio.CancelScope(shield=True):
        return await anyio.open_process(command, **options)
    raise AssertionError("unreachable")  # type checkers assume that the scope may swallow an exception


async def _run_process(command: list[str]) -> tuple[int, bytes, str]:
    # A new session: Ctrl-C at the terminal reaches the server only, which then stops its children.
    # A pipe as stdin: it closes when this process ends, however that happens, and the child exits.
    child = await open_process(
        command,
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=_environment(),
        # Its files are private to this user.
        umask=0o077 if os.name == "posix" else -1,
    )
    output: dict[str, bytes] = {}

    async def read(name: str, stream: ByteReceiveStream | None) -> None:
        if stream is not None:
            output[name] = await _read_tail(stream)

    # Leaving the block early kills the child and waits for it.
    async with child:
        async with anyio.create_task_group() as readers:
            readers.start_soon(read, "out", child.stdout)
            readers.start_soon(read, "err", child.stderr)
        status = await child.wait()
    return status, output["out"], output["err"].decode(errors="replace")


_INHERITED = (
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"}
    | {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"}
    | {"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "APPDATA", "LOCALAPPDATA", "USERPROFILE"}
    | {"PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8", "PYTHONIOENCODING"}
    | {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
)
"""The environment variables that Python, numpy and FFmpeg need to start. The process that decodes untrusted media gets no
others, in particular no tokens and no cloud credentials."""


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("LC_")}
    # Empty and relative entries would mean the current folder.
    folders = [folder for folder in inherited.pop("PYTHONPATH", "").split(os.pathsep) if Path(folder).is_absolute()]
    return inherited | ({"PYTHONPATH": os.pathsep.join(folders)} if folders else {}) | {"PYTHONSAFEPATH": "1"}


async def _read_tail(stream: ByteReceiveStream) -> bytes:
    tail = b""
    async for block in stream:
        tail = (tail + block)[-_MAX_OUTPUT_BYTES:]
    return tail


def _read_result(status: int, output: bytes, errors: str) -> str | None:
    try:
        result = json.loads(output.splitlines()[-1])
        ok, message, exhausted = result["ok"], result.get("message"), result.get("exhausted")
        warning = result.get("warning")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _crash_error(status, errors) from None
    if status != 0:
        raise _crash_error(status, errors)
    if exhausted:
        raise ResourceExhaustedError(str(exhausted))
    if ok is not True:
        raise RenderError(str(message or "the recording cannot be used"))
    return str(warning) if warning else None


def _crash_error(status: int, errors: str) -> RenderCrashedError:
    error = RenderCrashedError("the renderer crashed")
    # For ``log_crash``, which is not called if the machine turns out to have run out of a resource.
    error.add_note(f"status {status}: {errors}")
    return error


def log_crash(error: RenderCrashedError) -> None:
    """Log a crash, with the exit status and standard error of the child."""
    logger.error("%s: %s", error, "; ".join(getattr(error, "__notes__", ["unknown"])))
