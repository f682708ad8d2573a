"""Recordings that are files on this machine: how each server gets at them.

A local engine reads them; one that keeps its tasks reads copies in its data folder, because it may resume a task after the
original is gone. For a server elsewhere they are uploaded to a bucket (``--stage-to``), or to the server itself if it is an
engine. In all cases the URL depends on the content, so that the same recording is the same job in every run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from a2v import StagingError
from a2v._core.file_urls import path_from_url
from a2v._core.settings import HOSTED
from a2v._unicode_paths import find_existing
from a2v._values.text import redacted_repr
from a2v.cli.connection import needs_extra
from a2v.cli.options import ServerOptions, StagingOptions, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from a2v import AsyncA2V
    from a2v.cli.events import EventStream

_BACKGROUNDS = ("transparent", "character")
_SECONDS_PER_DAY = 86400.0


def read_audio(audio: str, server: ServerOptions, *, staged: bool = False) -> tuple[str, list[Path]]:
    """Return the audio URL that an argument or a cell means: itself, or the URL of a file.

    Args:
        audio: A URL or a path.
        server: The server that fetches the recording.
        staged: Whether files are uploaded for the server.

    Returns:
        The ``audio_url``, and the file that it stands for: a local engine must be allowed to read it, or it is to be uploaded
        to the server if the URL is that of an upload.

    Raises:
        UsageError: It is a file that does not exist, cannot be read, or is out of the server's reach.
    """
    is_file_url = audio.lower().startswith("file://")
    if "://" in audio and not (is_file_url and (server.local or staged)):
        return audio, []
    path = find_existing(((path_from_url(audio) if is_file_url else None) or Path(audio)).absolute())
    # Unlike the methods of a path, these accept a text that is too long for a path.
    if not os.path.isfile(path):  # noqa: PTH113
        what = "is a folder" if os.path.isdir(path) else "is neither a URL (https://…) nor a file that exists"  # noqa: PTH112
        hint = "; folders are separated by / on this machine" if "\\" in audio and os.sep == "/" else ""
        raise UsageError(f"{redacted_repr(audio)} {what}{hint}")
    if not server.local and not staged:
        if server.url == HOSTED:
            raise out_of_reach(audio)
        from a2v._async.requests.uploads import upload_url  # noqa: PLC0415  # loads the HTTP library, which help texts do not need

        try:
            return upload_url(path), [path]
        except StagingError as error:
            raise UsageError(str(error)) from None
    if server.recordings:
        path = copy_recording(path, server.recordings)
    return path.as_uri(), [path]


def out_of_reach(audio: str) -> UsageError:
    """Return the error for a file that the server cannot get."""
    problem = UsageError(f"{redacted_repr(audio)} is a file on this machine, and the server can only fetch URLs")
    problem.add_note(
        "Add --local to render on this machine, or --stage-to s3://BUCKET/PREFIX to upload files to your bucket."
    )
    return problem


async def upload_recordings(
    client: AsyncA2V, paths: Collection[Path], events: EventStream, *, later: bool = False
) -> None:
    """Upload files to the server, or let the client do so when it submits a video of them.

    Raises:
        UsageError: The server accepts no uploads.
        A2VError: A file cannot be uploaded.
    """
    for path in paths:
        if not await client.accepts_uploads():
            raise out_of_reach(str(path))
        with events.activity(f"{'reading' if later else 'uploading'} {path.name}"):
            await client.upload(path, later=later)


def read_background(
    background: str | None, server: ServerOptions, *, dry_run: bool = False
) -> tuple[str | None, list[Path]]:
    """Return the background of a job, with a URL instead of a file, and the file that a local engine must be allowed to read.

    Args:
        background: The value of ``--background``.
        server: The server.
        dry_run: Whether no file may be copied.

    Raises:
        UsageError: It is neither a file nor another background.
    """
    is_file_url = background is not None and background.lower().startswith("file://")
    if background is None or background in _BACKGROUNDS or background.startswith("#"):
        return background, []
    if "://" in background and not (is_file_url and server.local):
        return background, []
    path = find_existing(((path_from_url(background) if is_file_url else None) or Path(background)).absolute())
    if not os.path.isfile(path):  # noqa: PTH113  # as above
        raise UsageError(
            f"--background: {redacted_repr(background)} is neither a colour such as '#203040', transparent, character, the URL of "
            "a picture, nor a file that exists"
        )
    if not server.local:
        raise UsageError(
            f"--background: {redacted_repr(background)} is a file on this machine, which the server cannot read: pass the URL of the "
            "picture, or add --local"
        )
    if server.recordings:
        path = copied_path(path, server.recordings) if dry_run else copy_recording(path, server.recordings)
    return path.as_uri(), [path]


def copy_recording(path: Path, folder: Path) -> Path:
    """Copy a recording to the data folder of a local engine, unless it is there already.

    Raises:
        UsageError: It cannot be copied.
    """
    from a2v.engine.data_folder import open_data_folder  # noqa: PLC0415  # an extra

    copy = copied_path(path, folder)
    try:
        if not folder.exists():
            open_data_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
        if not copy.exists():
            part = copy.with_name(f"{copy.name}.part")
            shutil.copyfile(path, part)
            part.chmod(0o600)
            part.replace(copy)
    except OSError as error:
        raise UsageError(f"{path} cannot be copied to {folder}: {error.strerror}") from None
    return copy


def copied_path(path: Path, folder: Path) -> Path:
    """Return the path of the copy that ``copy_recording`` makes, which depends on the content.

    Raises:
        UsageError: The recording cannot be read.
    """
    try:
        with path.open("rb") as recording:
            digest = hashlib.file_digest(recording, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return folder / f"{digest[:32]}{path.suffix}"


@asynccontextmanager
async def open_staging(
    staging: StagingOptions, server: ServerOptions, audio_urls: list[str], events: EventStream, *, days: int = 1
) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Return a function that turns the URL of a file into one that the server can fetch, and passes other URLs through.

    The function uploads each recording once. Call it shortly before the submission: its URLs expire.

    Args:
        staging: The bucket.
        server: The server that fetches the recordings.
        audio_urls: All URLs that the function will get.
        events: Shows the uploads.
        days: Lifetime of the URLs.

    Raises:
        UsageError: The extra ``staging`` is not installed.
        ConfigurationError: The bucket's URL is invalid.
        StagingError: A recording cannot be uploaded or deleted. Also raised by the function.
    """
    bucket = staging.bucket(server)
    if bucket is None or not any(map(path_from_url, audio_urls)):
        yield _unchanged
        return
    with needs_extra():
        from a2v.staging import AsyncStager  # noqa: PLC0415  # an extra
    async with AsyncStager(bucket, expires_in=days * _SECONDS_PER_DAY, remove=staging.remove_staged) as stager:

        async def stage(audio_url: str) -> str:
            path = path_from_url(audio_url)
            if path is None:
                return audio_url
            with events.activity(f"uploading {path.name}"):
                return await stager.url(path)

        yield stage


async def staged_url(staging: StagingOptions, server: ServerOptions, audio_url: str) -> str:
    """Return the URL that the function of ``open_staging`` would return, without an upload.

    Raises:
        UsageError: The extra ``staging`` is not installed.
        ConfigurationError: The bucket's URL is invalid.
        StagingError: The file cannot be read, or no URL can be signed.
    """
    bucket, path = staging.bucket(server), path_from_url(audio_url)
    if bucket is None or path is None:
        return audio_url
    with needs_extra():
        from a2v.staging.stager import preview_url  # noqa: PLC0415  # an extra
    return await preview_url(path, bucket)


async def _unchanged(audio_url: str) -> str:
    return audio_url
