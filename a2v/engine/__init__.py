"""The local engine: a server with the A2V API that renders on your own machine.

``async with LocalEngine() as engine`` runs one on loopback for the duration of a block, ``serve(Settings(…))`` runs one until the
process is stopped, and ``create_app(Settings(…))`` returns the ASGI application.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2v.engine.app import create_app
    from a2v.engine.server import LocalEngine, serve
    from a2v.engine.settings import Settings

__all__ = ["SAMPLE_RECORDING", "LocalEngine", "Settings", "create_app", "serve"]

SAMPLE_RECORDING = Path(__file__).with_name("recordings") / "slt.flac"
"""Three seconds of English speech to try things on; ``LICENSE.md`` beside it has its origin and licence."""

_MODULES = {"LocalEngine": "server", "Settings": "settings", "create_app": "app", "serve": "server"}
_REQUIRED = ("av", "numpy", "starlette", "thorvg_cython", "uvicorn")


def __getattr__(name: str) -> object:
    # Imported on demand: the worker processes import this package too, and need no web server.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _REQUIRED if find_spec(package) is None]
    if missing:
        reason = f'the local engine needs other packages ({", ".join(missing)}): pip install "a2v[engine]"'
        raise ImportError(reason, name=missing[0])
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
