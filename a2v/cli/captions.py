"""``--captions``: files beside the video, a track of the file, or a part of the picture.

All of them are options of the job, which an engine of a2v understands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve

from a2v import Job, ManifestError, RowError
from a2v._core.captions import FILES, MAX_CHARACTERS, read_captions
from a2v.cli.options import UsageError
from a2v.cli.terminal import shown_path
from a2v.cli.text_files import read_text_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from a2v.cli.batch_manifest import BatchManifest, BatchSource

# The columns of a table, and options of a job.
_CAPTIONS_FILE = "captions_file"
_TRANSCRIPT = "transcript"
_WAYS = (FILES, "track", "burned")
TEXTS = (".srt", ".vtt", ".txt")
"""The extensions of files with captions or a transcript, by precedence."""


def read_ways(values: Sequence[str]) -> dict[str, Any]:
    """Return the options of a job for the values of ``--captions``, which are the same in whatever order they are given.

    Raises:
        UsageError: One is invalid.
    """
    given = {part.strip().lower() for value in values for part in value.split(",")}
    if unknown := sorted(given.difference(_WAYS)):
        raise UsageError(f"--captions: {unknown[0]!r} is not one of {', '.join(_WAYS)}")
    return {"captions": [way for way in _WAYS if way in given]} if given else {}


def captions_flag(options: Mapping[str, Any]) -> str:
    """Return ``--captions`` as text; empty if the options of a job have none."""
    return f" --captions {','.join(options['captions'])}" if "captions" in options else ""


def caption_options(
    values: Sequence[str], file: Path | None, transcript: Path | None, *, is_file: bool
) -> dict[str, Any]:
    """Return the options of a job with a recording.

    Args:
        values: The values of ``--captions``.
        file: The value of ``--captions-file``.
        transcript: The value of ``--transcript``.
        is_file: Whether the recording is a file, and so no speech of the server.

    Raises:
        UsageError: They contradict each other, or the file is invalid.
    """
    ways = read_ways(values)
    if file is None and transcript is None:
        if ways and is_file:
            raise UsageError(
                "--captions needs the text of the recording: add --captions-file FILE (.srt or .vtt) or --transcript FILE (.txt)"
            )
        return ways
    if not ways:
        raise UsageError(f"{'--captions-file' if file else '--transcript'} needs --captions: {', '.join(_WAYS)}")
    if file and transcript:
        raise UsageError("--captions-file and --transcript exclude each other: the file has the text and the times")
    if file:
        return ways | {_CAPTIONS_FILE: read_captions_file(file)}
    assert transcript is not None  # noqa: S101  # for type checkers
    return ways | {_TRANSCRIPT: read_transcript(transcript)}


def read_transcript(path: Path, option: str = "--transcript: ") -> str:
    """Return the text of a file with a transcript.

    Args:
        path: The file.
        option: How messages begin.

    Raises:
        UsageError: It cannot be read, or is empty or too long.
    """
    text = _read_text(path, option).strip()
    if not text:
        raise UsageError(f"{option}{path} is empty")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{option}{path} is too long: more than {MAX_CHARACTERS:,} characters")
    return text


def with_captions(manifest: BatchManifest, source: BatchSource, ways: Mapping[str, Any]) -> BatchManifest:
    """Return a manifest whose jobs have captions.

    A row of a table has them in the file that its column ``captions_file`` names, relative to the table, or their text in its column
    ``transcript``. A recording has them in the file beside it with the same name. A text needs none.

    Args:
        manifest: The manifest.
        source: Where its jobs come from.
        ways: The options of ``read_ways``.

    Raises:
        ManifestError: Captions are missing or invalid.
    """
    if not ways:
        return manifest
    jobs: list[Job] = []
    errors: list[RowError] = []
    files: list[Path] = []
    for index, job in enumerate(manifest.jobs):
        options = dict(ways) | dict(job.options)
        try:
            if not job.text and options.keys().isdisjoint((_CAPTIONS_FILE, _TRANSCRIPT)):
                more, file = _captions_of(source, index, job)
                options |= more
                files += [file] if file else []
        except UsageError as error:
            row, name = (
                (manifest.rows[index], _CAPTIONS_FILE)
                if manifest.rows
                else (None, shown_path(source.recordings.paths[index]))
            )
            errors.append(RowError(row, name, str(error)))
        values: dict[str, Any] = asdict(job, recurse=False)
        values["options"] = options
        jobs.append(Job(**values))
    if errors:
        what = f"the manifest {source.table}" if source.table else "the batch"
        raise ManifestError(what, faults=tuple(errors))
    return evolve(manifest, jobs=jobs, texts=files)


def _captions_of(source: BatchSource, index: int, job: Job) -> tuple[dict[str, str], Path | None]:
    """Return the options of a job with the captions of its recording, and the file that has them."""
    if source.table:
        cells = {header.strip().casefold().replace(" ", "_"): cell for header, cell in job.extra.items()}
        file, transcript = (str(cells.get(column) or "").strip() for column in (_CAPTIONS_FILE, _TRANSCRIPT))
        if file:
            path = source.table.parent / file
            return {_CAPTIONS_FILE: read_captions_file(path, "")}, path
        if transcript:
            return {_TRANSCRIPT: transcript}, None
        raise UsageError(
            "it is missing or empty, and so is transcript; --captions needs the captions (.srt or .vtt) or the text of each recording"
        )
    recording = source.recordings.paths[index]
    text = text_beside(recording)
    if text is None:
        *captions, transcript = (recording.with_suffix(extension).name for extension in TEXTS)
        raise UsageError(f"--captions needs its text beside it: there is no {', '.join(captions)} or {transcript}")
    if text.suffix == ".txt":
        return {_TRANSCRIPT: read_transcript(text, "")}, text
    return {_CAPTIONS_FILE: read_captions_file(text, "")}, text


def text_beside(recording: Path) -> Path | None:
    """Return the file with the captions or the transcript of a recording, which has its name; ``None`` if there is none."""
    return next((path for path in map(recording.with_suffix, TEXTS) if path.is_file()), None)


def read_captions_file(path: Path, option: str = "--captions-file: ") -> str:
    """Return the text of a file with captions.

    Args:
        path: The file.
        option: How messages begin.

    Raises:
        UsageError: It cannot be read, or has no valid captions.
    """
    text = _read_text(path, option)
    try:
        read_captions(text)
    except ValueError as error:
        raise UsageError(f"{option}{path}: {error}") from None
    return text


def _read_text(path: Path, option: str) -> str:
    return read_text_file(path, f"{option}{path}", max_bytes=4 * MAX_CHARACTERS, limit=f"{MAX_CHARACTERS:,} characters")
