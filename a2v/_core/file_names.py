"""The names of a batch's files.

The file name of a video is its job's ``name``, or the number of the job in the batch: ``0001.mp4`` is the first. The mask of NAME
is ``NAME.mask.mp4``, and its captions are ``NAME.srt`` and ``NAME.vtt``. The extension follows the container that the job requests
from an engine, such as WebM; the default is ``.mp4``. Some file systems ignore case or the normalization of accents, so names are
compared by ``name_key``.
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
    """Return the name of each job's video, without extension: the job's ``name``, or else its number in the batch."""
    return [job.name or default_name(place) for place, job in enumerate(jobs)]


def default_name(place: int) -> str:
    """Return the file name, without extension, for the unnamed job at a position from 0: ``0001`` for the first."""
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
    """Return the paths of a video's captions: SubRip, then WebVTT."""
    return [path.with_name(f"{path.stem}{extension}") for extension in CAPTIONS]


def side_files(job: Job, path: Path) -> dict[Path, FileKind]:
    """Return the paths of the mask and the captions that a job requests, with their kinds.

    Args:
        job: The job.
        path: The path of its video.
    """
    files: dict[Path, FileKind] = {mask_path(path): "mask"} if job.with_mask else {}
    if asks_for_files(job.options):
        files.update(dict.fromkeys(caption_paths(path), "captions"))
    return files


def name_key(name: str) -> str:
    """Return a key under which two names are equal if some file system treats them as the same name.

    It ignores case, and whether accents are composed (NFC) or decomposed (NFD).
    """
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
    """Yield the path of each job's video.

    An unnamed job keeps the file that an earlier run saved for it, even if the job has another position now. So an unnamed job
    whose default name is taken by such a file, or by a named job, gets a free number instead.

    Args:
        jobs: The jobs of the batch.
        defaults: Their ``default_paths``.
        found: The journal's rows, by the positions of their jobs.
        rows: All rows of the journal.
    """
    named = [(job, path) for path, job in zip(defaults, jobs, strict=True) if path and job.name]
    reserved = {key for job, path in named for key in _name_keys(job, path)}
    saved = {key for row in rows if row.path for key in _name_keys(row.job, Path(row.path))}
    numbers = count(len(jobs))
    for index, (path, job) in enumerate(zip(defaults, jobs, strict=True)):
        if path and not job.name:
            row = found.get(index)
            kept = path.with_name(Path(row.path).name) if row and row.path else None
            if kept and reserved.isdisjoint(_name_keys(job, kept)):
                path = kept  # noqa: PLW2901  # the final path of this job
            else:
                while any(key in saved or key in reserved for key in _name_keys(job, path)):
                    path = path.with_name(f"{default_name(next(numbers))}{extension(job)}")  # noqa: PLW2901  # as above
            reserved |= _name_keys(job, path)
        yield path


def _name_keys(job: Job, path: Path) -> set[str]:
    """Return the ``name_key`` of each file of a job. The name of the mask is included even if the job has none."""
    return {name_key(file.name) for file in (path, mask_path(path), *side_files(job, path))}
