"""The local engine: a server with the same API that really renders.

``async with LocalEngine() as engine`` serves one on loopback for the length of a block, ``serve(Settings(…))`` until the
process is told to stop, and ``create_app(Settings(…))`` is the ASGI application itself.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2v.engine.app import create_app
    from a2v.engine.server import LocalEngine, serve
    from a2v.engine.settings import Settings

__all__ = ["LocalEngine", "Settings", "create_app", "serve"]

_HOMES = {"LocalEngine": "server", "Settings": "settings", "create_app": "app", "serve": "server"}
_EXTRA = ("av", "numpy", "starlette", "thorvg_cython", "uvicorn")


def __getattr__(name: str) -> object:
    # On demand: the processes that render import this package too, and have no use for a web server.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _EXTRA if find_spec(package) is None]
    if missing:
        reason = f'the local engine needs more packages ({", ".join(missing)}): pip install "a2v[engine]"'
        raise ImportError(reason, name=missing[0])
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
