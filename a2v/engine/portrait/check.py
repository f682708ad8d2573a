"""Examines a picture before it is accepted as a portrait, in a child process with the limits of a render.

The child decodes the picture, finds the face, and writes the preview pictures; the server reads nothing else from it.
Usage: ``python -m a2v.engine.portrait.check PORTRAIT_FILE FOLDER``. It reports its result as ``worker`` does.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from a2v.engine.characters.portraits import dump_portrait, load_portrait
from a2v.engine.errors import PortraitError, RenderError
from a2v.engine.renderer import run_child
from a2v.engine.worker import confine_process, print_result, result_of

if TYPE_CHECKING:
    from a2v.engine.characters.portraits import PortraitSpec

Previews = tuple[tuple[str, bytes], ...]

_COMMAND = (sys.executable, "-P", "-m", "a2v.engine.portrait.check")
_MAX_SECONDS = 60.0
_MAX_MIB = 2048
_PREVIEW_SIZE = 512
_PREVIEWS = (("full", False), ("closeup", True))
_MAX_PREVIEW_BYTES = 4 << 20
_CACHE: dict[bytes, Previews | str] = {}
"""The previews of the latest portraits, or the reason why a portrait cannot be used, by the digest of the portrait.

The catalogue reads a file several times if it has just changed."""
_MAX_CACHED = 32


async def examine(portrait: PortraitSpec) -> PortraitSpec:
    """Return the portrait with its previews.

    Raises:
        PortraitError: It cannot be used; the message says why and what to do.
        RenderCrashedError: The child ended without a result.
        ResourceExhaustedError: The machine has run out of a resource.
        OSError: The files for the child cannot be written.
    """
    content = dump_portrait(portrait)
    digest = hashlib.sha256(content).digest()
    found = _CACHE.get(digest)
    if found is None:
        found = _CACHE[digest] = await _examine_in_child(content)
        if len(_CACHE) > _MAX_CACHED:
            del _CACHE[next(iter(_CACHE))]
    if isinstance(found, str):
        raise PortraitError(found)
    return attrs.evolve(portrait, previews=found)


async def _examine_in_child(content: bytes) -> Previews | str:
    folder = await anyio.to_thread.run_sync(partial(tempfile.TemporaryDirectory, prefix="a2v-portrait-"))
    try:
        file, previews = Path(folder.name) / "portrait", Path(folder.name) / "previews"
        await anyio.to_thread.run_sync(_prepare_files, file, previews, content)
        await run_child([*_COMMAND, str(file), str(previews)], _MAX_SECONDS, "examining the portrait")
        return await anyio.to_thread.run_sync(_read_previews, previews)
    except RenderError as error:
        return str(error)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(folder.cleanup)


def _prepare_files(file: Path, previews: Path, content: bytes) -> None:
    file.write_bytes(content)
    previews.mkdir()


def _read_previews(previews: Path) -> Previews:
    pictures = []
    for suffix, _ in _PREVIEWS:
        with (previews / f"{suffix}.png").open("rb") as file:
            pictures.append((suffix, file.read(_MAX_PREVIEW_BYTES)))
    return tuple(pictures)


# -- the child --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Examine the portrait that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m a2v.engine.portrait.check", description="Examines a portrait.")
    parser.add_argument("portrait", type=Path)
    parser.add_argument("folder", type=Path, help="folder for the preview pictures")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    confine_process([options.portrait], [folder], mib=_MAX_MIB, seconds=_MAX_SECONDS, end_with_stdin=True)
    print_result(result_of(partial(_examine, options.portrait, folder), _MAX_MIB, "examining the portrait"))
    return 0


def _examine(file: Path, folder: Path) -> None:
    # After the limits and the sandbox are in force.
    from av import logging as ffmpeg  # noqa: PLC0415

    from a2v.engine.portrait.studio import open_studio  # noqa: PLC0415
    from a2v.engine.preview import to_png  # noqa: PLC0415

    ffmpeg.set_level(None)
    portrait = load_portrait(file.read_bytes())
    if portrait is None:
        raise ValueError("the file is not a portrait")
    studio = open_studio(portrait)
    for suffix, close_up in _PREVIEWS:
        (folder / f"{suffix}.png").write_bytes(to_png(studio.still(close_up=close_up, size=_PREVIEW_SIZE)))


if __name__ == "__main__":
    sys.exit(main())
