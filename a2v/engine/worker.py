"""The worker process: renders one video, and exits.

Usage: ``python -m a2v.engine.worker AUDIO_FILE SUBJECT_ID DESTINATION [--mask MASK_FILE] …``. ``SUBJECT_ID`` is a ``pose_id``, or
a ``model_id`` for the default pose of a character; ``--character`` is the file of a character that is not built in. The process exits with
0 after it has printed one line of JSON:

* ``{"ok": true}``, with a ``"warning"`` if there is one;
* ``{"ok": false, "message": "…"}`` if the request can never be rendered;
* ``{"ok": false, "exhausted": "…"}`` if the machine has run out of a resource.

Any other exit is a crash, and says nothing about the request.

Decoding untrusted media is the riskiest thing that the engine does. So before it reads the recording, this process limits its
own memory, CPU time and file sizes, and confines itself (``sandbox``). Neither can be undone.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from a2v.engine import sandbox
from a2v.engine.face_pose import Mood
from a2v.engine.settings import FRAME_RATES, Format
from a2v.engine.video_options import OWN, Container

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2v.engine.decoding import DecodeTimeLimit

_CHECK_SECONDS = 0.25  # between checks of the limit of CPU time for decoding
_MAX_FILE_BYTES = 2 << 30
_NEAR_LIMIT = 0.9  # the share of the memory limit from which on a failure is blamed on it


def main(arguments: list[str] | None = None) -> int:
    """Render the video that the command line describes; return the exit status."""
    options = _parser().parse_args(arguments)
    confine_process(
        [path for path in (options.audio_file, options.character, options.picture, options.captions) if path],
        [path.absolute().parent for path in (options.destination, options.mask, options.vtt) if path],
        mib=options.max_render_mib,
        seconds=options.max_render_seconds,
        end_with_stdin=options.end_with_stdin,
    )
    print_result(_render(options))
    return 0


def confine_process(
    readable: list[Path], writable: list[Path], *, mib: int, seconds: float, end_with_stdin: bool
) -> None:
    """Limit and confine this process. Call it before any other thread exists: running threads would stay unconfined.

    Args:
        readable: Files that may be read.
        writable: Folders in which files may be written.
        mib: The limit of memory (address space) in MiB.
        seconds: The limit of CPU time.
        end_with_stdin: Whether to exit when standard input is closed.
    """
    _limit_resources(mib << 20, math.ceil(seconds))
    # OpenBLAS reserves memory for each thread it might start; this process uses one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sandbox.confine(readable, writable)
    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()


def print_result(result: dict[str, object]) -> None:
    """Print the result of this process."""
    print(json.dumps(result), flush=True)  # noqa: T201  # the output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m a2v.engine.worker", description="Renders one video.")
    parser.add_argument("audio_file", type=Path)
    parser.add_argument("subject_id", help="a pose_id, or a model_id for the default pose of a character")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--character", type=Path, help="file with the character, if it is not built in")
    parser.add_argument("--mask", type=Path, help="path of a second video, with the person in white on black")
    parser.add_argument("--size", type=int, default=512, help="shorter side of the video in pixels")
    parser.add_argument("--format", choices=get_args(Format), default="square", help="shape of the video")
    parser.add_argument("--fps", type=int, choices=FRAME_RATES, default=25, help="frames per second")
    parser.add_argument("--container", choices=get_args(Container), default="mp4", help="format of the file")
    parser.add_argument("--background", default=OWN, help="character, transparent, or a colour")
    parser.add_argument("--picture", type=Path, help="file with a picture to use as the background instead")
    parser.add_argument("--mood", choices=get_args(Mood), help="expression; the voice determines it by default")
    parser.add_argument("--captions", type=Path, help="file with the captions")
    parser.add_argument("--vtt", type=Path, help="path of the captions in the format WebVTT")
    parser.add_argument("--end-with-stdin", action="store_true", help="exit when standard input is closed")
    parser.add_argument("--max-seconds", type=float, help="the longest recording to accept; 30 minutes by default")
    parser.add_argument("--max-render-seconds", type=float, default=3600.0, help="limit on CPU time")
    parser.add_argument("--max-render-mib", type=int, default=2048, help="limit on memory (address space)")
    return parser


def _limit_resources(memory: int, cpu_seconds: int) -> None:
    """Limit memory, CPU time, file size and processes, as far as the platform supports it."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return
    limits = [("RLIMIT_AS", memory), ("RLIMIT_CPU", cpu_seconds), ("RLIMIT_FSIZE", _MAX_FILE_BYTES), ("RLIMIT_CORE", 0)]
    if sys.platform != "linux":
        # On Linux, this limit also counts threads, and the sandbox rejects new processes.
        limits.append(("RLIMIT_NPROC", 0))
    for name, limit in limits:
        _, current = resource.getrlimit(getattr(resource, name))
        # At the hard limit of CPU time, the process gets SIGKILL. At the soft limit, a second earlier, it gets SIGXCPU, which tells
        # the parent process why it ended.
        soft, hard = (
            value if current == resource.RLIM_INFINITY else min(value, current) for value in (limit, limit + 1)
        )
        try:
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (OSError, ValueError):
            # macOS defines the memory limit but does not support it.
            continue


def _end_with_stdin() -> None:
    """Exit when the other end of standard input is closed, because the parent process has ended.

    ``PR_SET_PDEATHSIG`` exists on Linux only, and sends its signal as soon as the thread ends that started this process.
    """
    while os.read(0, 1024):
        continue
    os._exit(1)


def _exit_when_exceeded(limit: DecodeTimeLimit) -> None:
    """Exit when reading the recording takes too long. A call of FFmpeg cannot be interrupted otherwise."""
    while not limit.exceeded:
        time.sleep(_CHECK_SECONDS)
    print_result({"ok": False, "message": str(limit.error)})
    os._exit(0)


def _render(options: argparse.Namespace) -> dict[str, object]:
    # After the limits and the sandbox are in force.
    from av import logging as ffmpeg  # noqa: PLC0415

    from a2v.engine.audio import MAX_SECONDS, Recording  # noqa: PLC0415
    from a2v.engine.captions import Captions  # noqa: PLC0415
    from a2v.engine.characters import load_character  # noqa: PLC0415
    from a2v.engine.render import render  # noqa: PLC0415

    ffmpeg.set_level(None)
    recording = Recording(options.audio_file, max_seconds=options.max_seconds or MAX_SECONDS)
    threading.Thread(target=_exit_when_exceeded, args=(recording.time_limit,), daemon=True).start()

    def run() -> str | None:
        return render(
            recording,
            options.subject_id,
            options.destination,
            character=load_character(options.character.read_bytes()) if options.character else None,
            mask=options.mask,
            size=options.size,
            format=options.format,
            fps=options.fps,
            container=options.container,
            background=options.picture or options.background,
            mood=options.mood,
            captions=Captions.load(options.captions.read_bytes()) if options.captions else None,
            vtt=options.vtt,
        )

    return result_of(run, options.max_render_mib, "the render")


def result_of(run: Callable[[], str | None], mib: int, what: str) -> dict[str, object]:
    """Run the work of this process; return the result to print.

    Args:
        run: The work. It may return a warning.
        mib: The limit of memory in MiB.
        what: The name of the work in messages, such as ``"the render"``.
    """
    from a2v.engine.errors import RenderError  # noqa: PLC0415  # after the sandbox is in force

    try:
        warning = run()
    except RenderError as error:
        return {"ok": False, "message": str(error)}
    except Exception as error:
        if getattr(error, "errno", None) == errno.EFBIG:
            return {"ok": False, "message": f"the video is larger than {_MAX_FILE_BYTES >> 30} GiB"}
        if reason := _exhausted(error):
            return {"ok": False, "exhausted": reason}
        if not _exceeded_memory(error, mib):
            raise
        return {"ok": False, "message": f"{what} needs more than {mib} MiB of memory"}
    return {"ok": True, **({"warning": warning} if warning else {})}


def _exhausted(error: Exception) -> str | None:
    """Return the exhausted resource if that caused the error. Memory and file size do not count: they are limits of this process."""
    if not isinstance(error, OSError) or error.errno in (errno.ENOMEM, errno.EFBIG):
        return None
    from a2v.engine.exhaustion import exhaustion_reason  # noqa: PLC0415  # rarely needed

    return exhaustion_reason(error)


def _exceeded_memory(error: Exception, mib: int) -> bool:
    """Whether the memory limit caused an error. FFmpeg's libraries report it as various errors, so the peak decides."""
    if isinstance(error, MemoryError):
        return True
    try:
        found = re.search(r"^VmPeak:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return False
    return found is not None and int(found[1]) > _NEAR_LIMIT * mib * 1024


if __name__ == "__main__":
    sys.exit(main())
