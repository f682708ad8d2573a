"""The seam between the engine and whatever renders: by default a child process of this machine for each video.

A renderer is an async function. Calling it submits a render request; that it returns, raises, or does neither yet is its
status; cancelling the call cancels the render. ``dask_renderer.DaskRenderer`` is another one, for a Dask cluster; whoever has machines of
another kind gives ``create_app`` a renderer of their own.
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
from a2v.engine.settings import Format

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream, Process

logger: logging.Logger = logging.getLogger("a2v.engine")

WORKER = (sys.executable, "-P", "-m", "a2v.engine.worker")
"""Imports nothing from the current folder (``-P``), which may belong to others. Is given AUDIO_FILE WHO DESTINATION --size PIXELS …, and prints ``{"ok": true}`` or what is wrong with the recording."""
_MAX_OUTPUT = 64 * 1024


@frozen(kw_only=True)
class RenderRequest:
    """One render.

    Attributes:
        audio: The file with the recording.
        subject_id: A ``pose_id``, or a ``model_id`` for a character's usual pose.
        destination: Where the video goes.
        mask: Where its mask goes, if there should be one.
        size: The shorter side in pixels.
        format: The shape of the picture.
        fps: Frames a second.
        max_audio_seconds: The longest recording to accept.
        max_render_seconds: When to give up.
        max_render_mib: How much memory it may take, in MiB.
    """

    audio: Path
    subject_id: str
    destination: Path
    mask: Path | None = None
    size: int = 512
    format: Format = "square"
    fps: int = 25
    max_audio_seconds: float = 1800.0
    max_render_seconds: float = 3600.0
    max_render_mib: int = 2048


Renderer = Callable[[RenderRequest], Awaitable[None]]
"""Returns when the requested files are complete. Raises ``RenderError`` for what is wrong with the request and stays wrong,
``RenderCrashedError`` for what may succeed if it is tried again, ``ResourceExhaustedError`` for what the machine lacks just now."""


async def render_in_child(request: RenderRequest) -> None:
    """Render in a child process, which dies with the call.

    Raises:
        RenderError: The recording cannot be used, or the render took too long or too much memory.
        RenderCrashedError: The child ended without a verdict.
        ResourceExhaustedError: The child was killed, or says that the machine lacks something.
    """
    try:
        with anyio.fail_after(request.max_render_seconds):
            status, output, errors = await _run(_command(request))
    except TimeoutError:
        raise RenderError(_took_too_long(request)) from None
    if status == -getattr(signal, "SIGXCPU", 0) != 0:
        raise RenderError(_took_too_long(request))
    if status == -getattr(signal, "SIGKILL", 0) != 0:
        # Not by us: by the system, which does so when it has no memory left.
        raise ResourceExhaustedError(f"{OUT_OF_MEMORY} (a render was killed)")
    _check(status, output, errors)


def _took_too_long(request: RenderRequest) -> str:
    return f"the render took longer than {request.max_render_seconds:g} s"


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
    return command + (["--mask", str(request.mask)] if request.mask else [])


async def open_process(command: list[str], **options: Any) -> Process:
    """Start a process, as ``anyio.open_process`` does; a cancellation waits until it is started.

    asyncio would leave a process behind, running and without an owner, if it is cancelled while it connects the pipes.
    """
    await checkpoint_if_cancelled()
    with anyio.CancelScope(shield=True):
        return await anyio.open_process(command, **options)
    raise AssertionError("nobody cancels this scope")  # type checkers do not know that


async def _run(command: list[str]) -> tuple[int, bytes, str]:
    # A session of its own: a Ctrl-C at the terminal is for the server, which then stops its children in request.
    # A pipe to it: however this process ends, the pipe does too, and the child notices.
    child = await open_process(
        command,
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=_environment(),
        # What it makes is for us alone.
        umask=0o077 if os.name == "posix" else -1,
    )
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
    return status, output["out"], output["err"].decode(errors="replace")


_PASSED_ON = (
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"}
    | {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"}
    | {"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "APPDATA", "LOCALAPPDATA", "USERPROFILE"}
    | {"PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8", "PYTHONIOENCODING"}
    | {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
)
"""What Python, numpy and FFmpeg need to start. All else, tokens and keys of clouds above all, is no business of the process
that touches untrusted media."""


def _environment() -> dict[str, str]:
    passed_on = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    # An empty or relative entry would be the current folder after all.
    folders = [folder for folder in passed_on.pop("PYTHONPATH", "").split(os.pathsep) if Path(folder).is_absolute()]
    return passed_on | ({"PYTHONPATH": os.pathsep.join(folders)} if folders else {}) | {"PYTHONSAFEPATH": "1"}


async def _tail(stream: ByteReceiveStream) -> bytes:
    tail = b""
    async for block in stream:
        tail = (tail + block)[-_MAX_OUTPUT:]
    return tail


def _check(status: int, output: bytes, errors: str) -> None:
    try:
        verdict = json.loads(output.splitlines()[-1])
        ok, message, lacking = verdict["ok"], verdict.get("message"), verdict.get("exhausted")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _crashed(status, errors) from None
    if status != 0:
        raise _crashed(status, errors)
    if lacking:
        raise ResourceExhaustedError(str(lacking))
    if ok is not True:
        raise RenderError(str(message or "the recording cannot be used"))


def _crashed(status: int, errors: str) -> RenderCrashedError:
    error = RenderCrashedError("the renderer crashed")
    # For the log, unless the machine turns out to be short of something.
    error.add_note(f"status {status}: {errors}")
    return error


def log_crash(error: RenderCrashedError) -> None:
    """Say why a render crashed, as far as it is known."""
    logger.error("%s: %s", error, "; ".join(getattr(error, "__notes__", ["unknown"])))
