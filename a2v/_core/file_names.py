"""The names of a batch's files.

A video is named by its job's ``name``, or by the job's place in the batch, ``0001.mp4`` being the first; the mask of NAME is
``NAME.mask.mp4``, and its captions are ``NAME.srt`` and ``NAME.vtt``. A job that asks an engine for another container, such as
WebM, has the extension of that. File systems differ in which names they distinguish, so names are compared by ``name_key``.
"""

from __future__ import annotations

import unicodedata
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from a2v._core.captions import asks_for_files
from a2v._values.models import RowError
from a2v.errors import ManifestError

FileKind = Literal["video", "mask", "captions"]
"""The files of a video."""
CAPTIONS = (".srt", ".vtt")
"""The extensions of captions: SubRip and WebVTT."""
CONTAINERS = ("mp4", "webm", "mov", "webp", "gif")
"""The containers that an engine of a2v can make, by their extensions."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from a2v._core.journal_rows import JournalRow
    from a2v._values.jobs import Job


def file_names(jobs: Iterable[Job]) -> list[str]:
    """Return the name of each job's file without extension: its own, or its place in the batch, the first being ``0001``."""
    return [job.name or default_name(place) for place, job in enumerate(jobs)]


def default_name(place: int) -> str:
    """Return the name, without extension, of the file of a job without a name."""
    return f"{place + 1:04d}"


def extension(job: Job) -> str:
    """Return the extension of a job's video."""
    container = job.options.get("container")
    return f".{container}" if container in CONTAINERS else ".mp4"


def mask_name(name: str) -> str:
    """Return the name, without extension, of the mask of a video with this name."""
    return f"{name}.mask"


def mask_path(path: Path) -> Path:
    """Return the path of the mask of a video."""
    return path.with_name(f"{mask_name(path.stem)}.mp4")


def caption_paths(path: Path) -> list[Path]:
    """Return the paths of the captions of a video, in two formats."""
    return [path.with_name(f"{path.stem}{extension}") for extension in CAPTIONS]


def side_files(job: Job, path: Path) -> dict[Path, FileKind]:
    """Return the paths of the files that a job has beside its video, with their kinds.

    Args:
        job: The job.
        path: The path of its video.
    """
    files: dict[Path, FileKind] = {mask_path(path): "mask"} if job.with_mask else {}
    if asks_for_files(job.options):
        files.update(dict.fromkeys(caption_paths(path), "captions"))
    return files


def name_key(name: str) -> str:
    """Return a key that is equal for names that some file system does not distinguish: by case, or by composed accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def saved_name(row: JournalRow) -> str | None:
    """Return the ``name_key`` of a row's saved file; ``None`` if there is none."""
    return name_key(Path(row.path).name) if row.path else None


def default_paths(jobs: Sequence[Job], folder: Path | None) -> list[Path | None]:
    """Return the path of each job's video in a first run; ``None`` for each if nothing is saved.

    Raises:
        ManifestError: Two files would have the same name.
    """
    if folder is None:
        return [None] * len(jobs)
    paths = [folder / f"{name}{extension(job)}" for name, job in zip(file_names(jobs), jobs, strict=True)]
    others = [other for path, job in zip(paths, jobs, strict=True) for other in side_files(job, path)]
    stems: dict[str, list[str]] = {}
    for path in (*paths, *others):
        stems.setdefault(name_key(path.name), []).append(path.stem)
    if twice := sorted({same[0] for same in stems.values() if len(same) > 1}):
        problem = "each job needs a name of its own, and the mask of NAME is NAME.mask; used more than once: "
        raise ManifestError("the batch", faults=tuple(RowError(None, "name", problem + name) for name in twice))
    return [*paths]


def assign_paths(
    jobs: Sequence[Job], defaults: Sequence[Path | None], found: Mapping[int, JournalRow], rows: Iterable[JournalRow]
) -> Iterator[Path | None]:
    """Yield the path of each job's video. A job without a name keeps the file that it has, whatever its place is now.

    Args:
        jobs: The jobs of the batch.
        defaults: Their ``default_paths``.
        found: The journal's row of each job that has one.
        rows: All rows of the journal.
    """
    named = [(job, path) for path, job in zip(defaults, jobs, strict=True) if path and job.name]
    reserved = {key for job, path in named for key in _keys(job, path)}
    saved = {key for row in rows if row.path for key in _keys(row.job, Path(row.path))}
    numbers = count(len(jobs))
    for index, (path, job) in enumerate(zip(defaults, jobs, strict=True)):
        if path and not job.name:
            row = found.get(index)
            kept = path.with_name(Path(row.path).name) if row and row.path else None
            if kept and reserved.isdisjoint(_keys(job, kept)):
                path = kept  # noqa: PLW2901  # the same path, more exactly
            else:
                while any(key in saved or key in reserved for key in _keys(job, path)):
                    path = path.with_name(f"{default_name(next(numbers))}{extension(job)}")  # noqa: PLW2901  # as above
            reserved |= _keys(job, path)
        yield path


def _keys(job: Job, path: Path) -> set[str]:
    """Return the ``name_key`` of each file of a job, and of a mask, whether or not it has one."""
    return {name_key(file.name) for file in (path, mask_path(path), *side_files(job, path))}
