"""The files that commands save: checks of their paths, made before anything is submitted and paid for, and atomic writes."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2v import DownloadError
from a2v._async.destination import Destination, FileId, file_ids
from a2v._core.captions import asks_for_files
from a2v._core.file_names import CONTAINERS, FileKind, caption_paths, default_paths, mask_path, side_files
from a2v._core.file_urls import path_from_url
from a2v.cli.options import UsageError, in_cli_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from a2v.cli.batch_manifest import BatchManifest
    from a2v.cli.options import ServerOptions

_OPTIONS: Mapping[FileKind, str] = {"video": "--output", "mask": "--mask-output", "captions": "--captions files"}
# Extensions of other formats: players and editors would take the video for something else.
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
        ".jpeg",
        ".jpg",
        ".m4a",
        ".mka",
        ".mkv",
        ".mp3",
        ".mpeg",
        ".mpg",
        ".mxf",
        ".oga",
        ".ogg",
        ".ogv",
        ".opus",
        ".png",
        ".srt",
        ".ts",
        ".vtt",
        ".wav",
        ".wma",
        ".wmv",
    ]
)


def container_of(output: Path | None) -> str | None:
    """Return the container that the extension of a path means; ``None`` for MP4, which is the default."""
    extension = output.suffix.lower().removeprefix(".") if output else ""
    return extension if extension in CONTAINERS and extension != "mp4" else None


def recording_of(audio: str) -> Path | None:
    """Return the file that AUDIO means, if it is one on this machine."""
    return path_from_url(audio) if "://" in audio else Path(audio)


def side_targets(output: Path | None, mask_output: Path | None, options: Mapping[str, Any]) -> dict[Path, FileKind]:
    """Return the paths of the files that are saved beside a video, with their kinds.

    Args:
        output: The path of the video, if it is saved.
        mask_output: The path of its mask, if it is saved.
        options: The options of the job.

    Raises:
        UsageError: There are captions beside a video that is not saved.
    """
    targets: dict[Path, FileKind] = {mask_output: "mask"} if mask_output else {}
    if asks_for_files(options):
        if output is None:
            raise UsageError("--captions files writes beside the video: save it with -o FILE")
        targets |= dict.fromkeys(caption_paths(output), "captions")
    return targets


def check_targets(
    output: Path | None,
    side_targets: Mapping[Path, FileKind],
    sources: Iterable[Path | None] = (),
    *,
    overwrite: bool,
) -> None:
    """Check that a video and the files beside it can be saved.

    Args:
        output: The path of the video, if it is saved.
        side_targets: The paths of the files beside it.
        sources: The files that the video is made of, such as its recording.
        overwrite: Whether files may be replaced.

    Raises:
        UsageError: They cannot be saved.
    """
    protected = file_ids(sources)
    targets: list[tuple[Path, FileKind]] = [(output, "video")] if output else []
    for target, kind in [*targets, *side_targets.items()]:
        try:
            _check_target(target, kind, protected, overwrite=overwrite)
        except OSError as error:
            raise UsageError(f"{_OPTIONS[kind]}: {target} cannot be written: {error.strerror}") from None
    for target, kind in side_targets.items():
        if output and os.path.realpath(output) == os.path.realpath(target):
            raise UsageError(f"{_OPTIONS[kind]}: {target} is the file of the video; give the mask another file")


def check_kept(server: ServerOptions, output: Path | None, mask_output: Path | None, *, with_mask: bool) -> None:
    """Check that a video and its mask are saved if they would be deleted when the command ends.

    Raises:
        UsageError: One is not saved.
    """
    if server.keeps_videos:
        return
    if with_mask and not mask_output:
        raise UsageError("with --local the mask is deleted when the command ends: save it with --mask-output FILE")
    if not output:
        raise UsageError("with --local the video is deleted when the command ends: save it with -o FILE")


def _check_target(path: Path, kind: FileKind, protected: frozenset[FileId], *, overwrite: bool) -> None:
    option = _OPTIONS[kind]
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; give the name of a file in it")
    if file_ids([path]) & protected:
        what = "a file that the video is made of" if kind == "captions" else "the recording"
        raise UsageError(f"{option}: {path} is {what}; choose another file for the video")
    is_video = kind == "video"
    if kind != "captions" and (path.suffix.lower() in _OTHER_FORMATS or (container_of(path) and not is_video)):
        raise UsageError(
            f"{option}: {'videos are saved as MP4, WebM, MOV, WebP or GIF' if is_video else 'masks are saved as MP4'}; "
            f"name the file {path.with_suffix('.mp4').name}, not {path.name}"
        )
    if path.is_file() and not overwrite:
        raise UsageError(f"{option}: {path} exists; add --overwrite to replace it")
    make_folder(path.parent, option)
    try:
        Destination(path.absolute(), overwrite).prepare()
    except DownloadError as error:
        raise UsageError(f"{option}: {in_cli_terms(str(error))}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file, replacing one that exists.

    Raises:
        OSError: It cannot be written.
    """
    # Under an unpredictable name, so that no other user can plant a link there.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_folder(path: Path, option: str = "--output") -> None:
    """Check that a folder exists or could be created, without creating it.

    Raises:
        UsageError: It cannot be created or written to.
    """
    existing = path
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"{option}: {path} is not a folder")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{option}: the folder {existing} is not writable")


def make_folder(path: Path, option: str = "--output") -> None:
    """Create a folder unless it exists.

    Raises:
        UsageError: It cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{option}: {path} is not a folder") from None
    except OSError as error:
        raise UsageError(f"{option}: the folder {path} cannot be created: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UsageError(f"{option}: the folder {path} is not writable")


@contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """Create a folder unless it exists, and remove it again if it is still empty at the end of the block.

    Raises:
        UsageError: It cannot be created or written to.
    """
    existed = path.exists()
    make_folder(path)
    try:
        yield
    finally:
        if not existed:
            with suppress(OSError):
                path.rmdir()


def check_videos(manifest: BatchManifest, folder: Path, needed: Iterable[Path]) -> None:
    """Check that no file of a batch replaces one that the batch needs.

    Args:
        manifest: The jobs, and the files that they are made of.
        folder: The folder of the videos.
        needed: The other files that must not be replaced.

    Raises:
        UsageError: A file would be replaced.
    """
    protected = file_ids([*needed, *manifest.needed])
    for path, job in zip(default_paths(manifest.jobs, folder), manifest.jobs, strict=True):
        for target in (path, mask_path(path), *side_files(job, path)) if path else ():
            if file_ids([target]) & protected:
                raise UsageError(
                    f"--output: {target} is the manifest or a recording or its text, which a video or its captions would replace: "
                    "choose another folder, or another name for its row"
                )
