"""One render in a process of its own: ``python -m a2v.engine.worker AUDIO_FILE MODEL_ID DESTINATION [--size 512]``.

Prints one line of JSON, ``{"ok": true}`` or ``{"ok": false, "message": "…"}``, and ends with 0 in both cases. Any other end
is a crash, and says nothing about the request. Decoding what strangers send is the riskiest thing that the engine does: this
process bounds its own memory, time and disk first, and can be killed without harm to the server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

_MEMORY = 2 << 30
_CPU_SECONDS = 3600
_FILE_SIZE = 2 << 30


def main(arguments: list[str] | None = None) -> int:
    """Renders what the command line asks for."""
    options = _parser().parse_args(arguments)
    _limit_resources()
    print(json.dumps(_outcome(options)), flush=True)  # noqa: T201 - the answer
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m a2v.engine.worker", description="Renders one video.")
    parser.add_argument("audio_file", type=Path)
    parser.add_argument("model_id")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--size", type=int, default=512, help="side of the square video in pixels")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="the longest recording to accept")
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


def _outcome(options: argparse.Namespace) -> dict[str, object]:
    # numpy's mathematics reserves memory for each thread it might use, and this uses one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # After the limits: these load code that reads what strangers sent.
    from av import logging as ffmpeg  # noqa: PLC0415

    from a2v.engine.errors import RenderError  # noqa: PLC0415
    from a2v.engine.render import render  # noqa: PLC0415

    ffmpeg.set_level(None)
    try:
        recording = options.audio_file.read_bytes()
        render(recording, options.model_id, options.destination, size=options.size, max_seconds=options.max_seconds)
    except RenderError as error:
        return {"ok": False, "message": str(error)}
    return {"ok": True}


if __name__ == "__main__":
    sys.exit(main())
