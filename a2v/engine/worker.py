"""One render in a process of its own: ``python -m a2v.engine.worker AUDIO_FILE WHO DESTINATION [--mask MASK_FILE] …``.

``WHO`` is a ``pose_id``, or a ``model_id`` for a character's usual pose. Prints one line of JSON and ends with 0: ``{"ok": true}``,
``{"ok": false, "message": "…"}``, or ``{"ok": false, "exhausted": "…"}`` if the machine is to blame. Any other end
is a crash, and says nothing about the request. Decoding what strangers send is the riskiest thing that the engine does: this
process first bounds its own memory, time and disk and confines itself (``sandbox``), and can be killed without harm to the server.
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
from a2v.engine.settings import FRAME_RATES, Format

if TYPE_CHECKING:
    from a2v.engine.audio import DecodeTimeLimit

_WATCH_SECONDS = 0.25
_FILE_SIZE = 2 << 30
_NEARLY = 0.9


def main(arguments: list[str] | None = None) -> int:
    """Renders what the command line asks for."""
    options = _parser().parse_args(arguments)
    _limit_resources(options.max_render_mib << 20, math.ceil(options.max_render_seconds))
    # numpy's mathematics reserves memory for each thread it might use, and this uses one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # After the limits, for this is code that reads untrusted data; before the sandbox, for its libraries may be anywhere.

    # Before there is another thread: those that run already would not be confined.
    places = [path.absolute().parent for path in (options.destination, options.mask) if path]
    sandbox.confine([options.audio_file], places)
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    _answer(_outcome(options))
    return 0


def _answer(outcome: dict[str, object]) -> None:
    print(json.dumps(outcome), flush=True)  # noqa: T201 - the answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m a2v.engine.worker", description="Renders one video.")
    parser.add_argument("audio_file", type=Path)
    parser.add_argument("subject_id", help="a pose_id, or a model_id for a character's usual pose")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--mask", type=Path, help="where a second video goes: the person white on black")
    parser.add_argument("--size", type=int, default=512, help="shorter side of the video in pixels")
    parser.add_argument("--format", choices=get_args(Format), default="square", help="shape of the video")
    parser.add_argument("--fps", type=int, choices=FRAME_RATES, default=25, help="frames a second")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when the standard input does")
    parser.add_argument("--max-seconds", type=float, help="the longest recording to accept; half an hour")
    parser.add_argument("--max-render-seconds", type=float, default=3600.0, help="the most CPU time to take")
    parser.add_argument("--max-render-mib", type=int, default=2048, help="the most memory to take")
    return parser


def _limit_resources(memory: int, cpu_seconds: int) -> None:
    """Bounds what this process may use, where the platform can."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    limits = [("RLIMIT_AS", memory), ("RLIMIT_CPU", cpu_seconds), ("RLIMIT_FSIZE", _FILE_SIZE), ("RLIMIT_CORE", 0)]
    if sys.platform != "linux":
        # There it would count threads, too; the sandbox refuses new processes.
        limits.append(("RLIMIT_NPROC", 0))
    for name, most in limits:
        _, hard = resource.getrlimit(getattr(resource, name))
        # The hard limit of CPU time kills without a word. The soft one says which limit it was (SIGXCPU), so it comes first.
        soft, end = (one if hard == resource.RLIM_INFINITY else min(one, hard) for one in (most, most + 1))
        try:
            resource.setrlimit(getattr(resource, name), (soft, end))
        except (OSError, ValueError):
            # macOS has the name of the memory limit but does not take it.
            continue


def _end_with_stdin() -> None:
    """Ends this process when nobody holds the other end of its standard input any more.

    So does the kernel for whoever asks for it (``PR_SET_PDEATHSIG``), but on Linux alone, and already when the thread
    that started this process ends.
    """
    while os.read(0, 1024):
        continue
    os._exit(1)


def _watch(limit: DecodeTimeLimit) -> None:
    """Ends this process when a recording takes too long to be read. FFmpeg cannot be interrupted meanwhile."""
    while not limit.exceeded:
        time.sleep(_WATCH_SECONDS)
    _answer({"ok": False, "message": str(limit.error)})
    os._exit(0)


def _outcome(options: argparse.Namespace) -> dict[str, object]:
    # Not before the limits.
    from av import logging as ffmpeg  # noqa: PLC0415

    from a2v.engine.audio import MAX_SECONDS, Recording  # noqa: PLC0415
    from a2v.engine.errors import RenderError  # noqa: PLC0415
    from a2v.engine.render import render  # noqa: PLC0415

    ffmpeg.set_level(None)
    recording = Recording(options.audio_file, max_seconds=options.max_seconds or MAX_SECONDS)
    threading.Thread(target=_watch, args=(recording.time_limit,), daemon=True).start()
    try:
        render(
            recording,
            options.subject_id,
            options.destination,
            mask=options.mask,
            size=options.size,
            format=options.format,
            fps=options.fps,
        )
    except RenderError as error:
        return {"ok": False, "message": str(error)}
    except Exception as error:
        if reason := _lacking(error):
            return {"ok": False, "exhausted": reason}
        if not _lacks_memory(error, options.max_render_mib):
            raise
        return {"ok": False, "message": f"the render needs more than {options.max_render_mib} MiB of memory"}
    return {"ok": True}


def _lacking(error: Exception) -> str | None:
    """What the machine lacks, if an error says so: disk space, say. Memory and file size have limits of this process's own."""
    if not isinstance(error, OSError) or error.errno in (errno.ENOMEM, errno.EFBIG):
        return None
    from a2v.engine.exhaustion import exhaustion_reason  # noqa: PLC0415  # seldom needed

    return exhaustion_reason(error)


def _lacks_memory(error: Exception, mib: int) -> bool:
    """Whether an error comes from the limit; FFmpeg's libraries do not always say so."""
    if isinstance(error, MemoryError):
        return True
    try:
        found = re.search(r"^VmPeak:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return False
    return found is not None and int(found[1]) > _NEARLY * mib * 1024


if __name__ == "__main__":
    sys.exit(main())
