"""``a2v generate --portrait``: a picture becomes the only file in a temporary folder of characters for a local engine."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import evolve

from a2v._unicode_paths import find_existing
from a2v.cli.connection import needs_extra
from a2v.cli.options import ServerOptions, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONSENT = (
    "The person in the portrait must have consented to this video. The metadata of the video says that it is synthetic."
)
_MODEL_ID = "portrait"
POSE_ID = f"{_MODEL_ID}_full"
"""The pose that speaks."""


def check_portrait_options(server: ServerOptions, model_id: str | None, pose_id: str | None) -> None:
    """Check that ``--portrait`` goes together with the other options.

    Raises:
        UsageError: It contradicts one of them.
    """
    given = {
        "--model-id": model_id,
        "--pose-id": pose_id,
        "--base-url": server.base_url,
        "--token-file": server.token_file,
        "--insecure": server.insecure,
    }
    if conflicts := [name for name, value in given.items() if value]:
        raise UsageError(
            f"--portrait renders the picture on this machine: remove {', '.join(conflicts)}, or remove --portrait"
        )
    folders = {"--characters": server.characters, "--data-dir": server.data_dir}
    if kept := [name for name, value in folders.items() if value]:
        raise UsageError(
            f"--portrait is for a single video: instead of combining it with {', '.join(kept)}, copy the picture into a "
            "folder NAME, and pass --local --characters NAME"
        )


@asynccontextmanager
async def serve_portrait(path: Path, server: ServerOptions) -> AsyncIterator[ServerOptions]:
    """Provide the options of a local engine that has the portrait.

    Raises:
        UsageError: The picture does not exist or cannot be used, or the extra ``engine`` is not installed.
    """
    with needs_extra():
        from a2v.engine.characters.catalogue import Catalogue  # noqa: PLC0415  # an extra
        from a2v.engine.characters.portraits import MAX_PICTURE, PICTURE_SUFFIXES  # noqa: PLC0415
    path = find_existing(path)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"--portrait: {path.name} must be a picture: {', '.join(PICTURE_SUFFIXES)}")
    folder = await anyio.to_thread.run_sync(partial(tempfile.TemporaryDirectory, prefix="a2v-portrait-"))
    try:
        copy = Path(folder.name) / f"{_MODEL_ID}{path.suffix.lower()}"
        try:
            await anyio.to_thread.run_sync(_copy, path, copy, MAX_PICTURE)
        except OSError as error:
            raise UsageError(f"--portrait: {path} cannot be read: {error.strerror or error}") from None
        found = await Catalogue(Path(folder.name)).current()
        if problems := [reason for problem in found.problems for reason in problem.problems]:
            raise UsageError(f"--portrait: {path}: {'; '.join(problems)}")
        yield evolve(server, local=True, characters=Path(folder.name))
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(folder.cleanup)


def _copy(path: Path, copy: Path, limit: int) -> None:
    """Copy a picture, up to the size with which it is refused."""
    if path.exists() and not path.is_file():
        # A pipe would block, and a device may be endless.
        raise UsageError(f"--portrait: {path} is not a file")
    with path.open("rb") as picture:
        copy.write_bytes(picture.read(limit + 1))
