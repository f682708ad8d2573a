"""Where commands save files: checked before anything is paid for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from a2v import DownloadError
from a2v._async.destination import Destination, FileId, file_ids
from a2v._core.file_names import default_paths, mask_path
from a2v._core.file_urls import path_from_url
from a2v.cli.plan import Work, as_options
from a2v.cli.server import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Endings that promise a player or an editor something else than the MP4 that is saved.
_OTHER_FORMATS = frozenset(
    [
        ".3gp",
        ".aac",
        ".aif",
        ".aiff",
        ".apng",
        ".avi",
        ".flac",
        ".flv",
        ".gif",
        ".jpeg",
        ".jpg",
        ".m4a",
        ".mka",
        ".mkv",
        ".mov",
        ".mp3",
        ".mpeg",
        ".mpg",
        ".mxf",
        ".oga",
        ".ogg",
        ".ogv",
        ".opus",
        ".png",
        ".ts",
        ".wav",
        ".webm",
        ".webp",
        ".wma",
        ".wmv",
    ]
)


def recording_of(audio: str) -> Path | None:
    """The file that the user means by AUDIO, if it is one on this machine."""
    return path_from_url(audio) if "://" in audio else Path(audio)


def check_targets(
    output: Path | None, mask_output: Path | None, recordings: Iterable[Path | None] = (), *, overwrite: bool
) -> None:
    """Check that a video and its mask can be saved.

    Args:
        output: Where the video goes, if it is saved.
        mask_output: Where its mask goes, if it is saved.
        recordings: The files from which the video is made, if they are on this machine.
        overwrite: Whether files may be replaced.

    Raises:
        UsageError: They cannot.
    """
    spared = file_ids(recordings)
    for option, target in (("--output", output), ("--mask-output", mask_output)):
        if target:
            try:
                _check_target(target, option, spared, overwrite=overwrite)
            except OSError as error:
                raise UsageError(f"{option}: {target} cannot be written: {error.strerror}") from None
    if output and mask_output and os.path.realpath(output) == os.path.realpath(mask_output):
        raise UsageError(f"--mask-output: {mask_output} is where the video goes; give the mask a file of its own")


def _check_target(path: Path, option: str, spared: frozenset[FileId], *, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; give the name of a file in it")
    if file_ids([path]) & spared:
        raise UsageError(f"{option}: {path} is the recording itself; save the video under another name")
    if path.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(
            f"{option}: videos are saved as MP4; name the file {path.with_suffix('.mp4').name}, not {path.name}"
        )
    if path.is_file() and not overwrite:
        raise UsageError(f"{option}: {path} is there already; add --overwrite to replace it")
    make_folder(path.parent, option)
    try:
        Destination(path.absolute(), overwrite).prepare()
    except DownloadError as error:
        raise UsageError(f"{option}: {as_options(str(error))}") from None


def make_folder(path: Path, option: str = "--output") -> None:
    """Make the folder of a file, if need be.

    Raises:
        UsageError: It cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{option}: {path} is not a folder") from None
    except OSError as error:
        raise UsageError(f"{option}: the folder {path} cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UsageError(f"{option}: the folder {path} is not writable")


def check_videos(work: Work, folder: Path, needed: Iterable[Path]) -> None:
    """Check that no video or mask of a batch replaces a file that the batch needs.

    Args:
        work: The manifest.
        folder: Where the videos go.
        needed: The manifest and other files; recordings that are files are added.

    Raises:
        UsageError: One would.
    """
    spared = file_ids([*needed, *map(path_from_url, work.files)])
    for path in filter(None, default_paths(work.jobs, folder)):
        for target in (path, mask_path(path)):
            if file_ids([target]) & spared:
                raise UsageError(
                    f"--output: {target} is the manifest or a recording, which a video would replace: "
                    "choose another folder, or another name for its row"
                )
