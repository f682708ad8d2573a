"""One render in a process of its own: ``python -m a2v.engine.worker AUDIO_FILE WHO DESTINATION [--mask MASK_FILE] …``.

``WHO`` is a ``pose_id``, or a ``model_id`` for a character's usual pose. Prints one line of JSON, ``{"ok": true}`` or ``{"ok": false, "message": "…"}``, and ends with 0 in both cases. Any other end
is a crash, and says nothing about the request. Decoding what strangers send is the riskiest thing that the engine does: this
process bounds its own memory, time and disk first, and can be killed without harm to the server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from typing import get_args

from a2v.engine.settings import FRAME_RATES, Format

_MEMORY = 2 << 30
_CPU_SECONDS = 3600
_FILE_SIZE = 2 << 30


def main(arguments: list[str] | None = None) -> int:
    """Renders what the command line asks for."""
    options = _parser().parse_args(arguments)
    _limit_resources()
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(json.dumps(_outcome(options)), flush=True)  # noqa: T201 - the answer
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m a2v.engine.worker", description="Renders one video.")
    parser.add_argument("audio_file", type=Path)
    parser.add_argument("who", help="a pose_id, or a model_id for a character's usual pose")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--mask", type=Path, help="where a second video goes: the person white on black")
    parser.add_argument("--size", type=int, default=512, help="shorter side of the video in pixels")
    parser.add_argument("--format", choices=get_args(Format), default="square", help="shape of the video")
    parser.add_argument("--fps", type=int, choices=FRAME_RATES, default=25, help="frames a second")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when the standard input does")
    parser.add_argument("--max-seconds", type=float, help="the longest recording to accept; half an hour")
    return parser


def _limit_resources() -> None:
    """Bounds what this process may use, where the platform can."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    limits = (("RLIMIT_AS", _MEMORY), ("RLIMIT_CPU", _CPU_SECONDS), ("RLIMIT_FSIZE", _FILE_SIZE), ("RLIMIT_CORE", 0))
    for name, most in limits:
        _, hard = resource.getrlimit(getattr(resource, name))
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(getattr(resource, name), (allowed, allowed))
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


def _outcome(options: argparse.Namespace) -> dict[str, object]:
    # numpy's mathematics reserves memory for each thread it might use, and this uses one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # After the limits: these load code that reads what strangers sent.
    from av import logging as ffmpeg  # noqa: PLC0415

    from a2v.engine.audio import MAX_SECONDS  # noqa: PLC0415
    from a2v.engine.errors import RenderError  # noqa: PLC0415
    from a2v.engine.render import render  # noqa: PLC0415

    ffmpeg.set_level(None)
    try:
        render(
            options.audio_file,
            options.who,
            options.destination,
            mask=options.mask,
            size=options.size,
            format=options.format,
            fps=options.fps,
            max_seconds=options.max_seconds or MAX_SECONDS,
        )
    except RenderError as error:
        return {"ok": False, "message": str(error)}
    return {"ok": True}


if __name__ == "__main__":
    sys.exit(main())
