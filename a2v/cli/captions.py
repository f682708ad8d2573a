"""``--captions``: files beside the video, a track of the file, or a part of the picture.

The files are written here, from the words that the server sent with the speech. The other two are options of the job, which an engine
of a2v understands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from a2v import A2VError, Job, ManifestError, RowError
from a2v._core.captions import MAX_CHARACTERS, cues, read_captions, to_srt, to_vtt
from a2v.cli.options import UsageError
from a2v.cli.targets import write_atomically
from a2v.cli.terminal import shown_path
from a2v.cli.text_files import read_text_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from a2v import Speech
    from a2v.cli.batch_manifest import BatchManifest, BatchSource

FILES = "files"
COLUMNS = ("captions_file", "transcript")
_WAYS = (FILES, "track", "burned")
# By precedence.
_BESIDE = (".srt", ".vtt", ".txt")


@frozen
class CaptionWays:
    """The value of ``--captions``.

    Attributes:
        files: Whether captions are written beside the video.
        options: The options of a job: how its video shows them.
    """

    files: bool
    options: dict[str, Any]

    @classmethod
    def of(cls, values: Sequence[str]) -> CaptionWays:
        """Read the values of the option.

        Raises:
            UsageError: One is invalid.
        """
        ways = list(dict.fromkeys(part.strip().lower() for value in values for part in value.split(",")))
        for way in ways:
            if way not in _WAYS:
                raise UsageError(f"--captions: {way!r} is not one of {', '.join(_WAYS)}")
        shown = [way for way in ways if way != FILES]
        return cls(FILES in ways, {"captions": shown} if shown else {})

    @property
    def flags(self) -> str:
        """The part of the option that concerns the video, as text."""
        return f" --captions {','.join(self.options['captions'])}" if self.options else ""


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
    ways = CaptionWays.of(values)
    if ways.files:
        raise UsageError("--captions files is for texts that are synthesized (a2v say); use track or burned")
    if file is None and transcript is None:
        if ways.options and is_file:
            raise UsageError(
                "--captions needs the text of the recording: add --captions-file FILE (.srt or .vtt) or --transcript FILE (.txt)"
            )
        return ways.options
    if not ways.options:
        raise UsageError(f"{'--captions-file' if file else '--transcript'} needs --captions track or --captions burned")
    if file and transcript:
        raise UsageError("--captions-file and --transcript exclude each other: the file has the text and the times")
    if file:
        return ways.options | {"captions_file": read_captions_file(file)}
    assert transcript is not None  # noqa: S101  # for type checkers
    return ways.options | {"transcript": read_transcript(transcript)}


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


def batch_ways(values: Sequence[str]) -> CaptionWays:
    """Read the values of ``--captions`` of a batch.

    Raises:
        UsageError: One is invalid.
    """
    ways = CaptionWays.of(values)
    if ways.files:
        raise UsageError("--captions files is for single videos (a2v say); a batch has track and burned")
    return ways


def with_captions(manifest: BatchManifest, source: BatchSource, ways: CaptionWays) -> BatchManifest:
    """Return a manifest whose jobs have captions.

    A row of a table has them in the file that its column ``captions_file`` names, relative to the table, or their text in its column
    ``transcript``. A recording has them in the file beside it with the same name. A text needs none.

    Raises:
        ManifestError: Captions are missing or invalid.
    """
    if not ways.options:
        return manifest
    jobs: list[Job] = []
    errors: list[RowError] = []
    for index, job in enumerate(manifest.jobs):
        options = ways.options | dict(job.options)
        try:
            if not job.text and options.keys().isdisjoint(COLUMNS):
                options |= _captions_of(source, index, job)
        except UsageError as error:
            row, name = (
                (manifest.rows[index], COLUMNS[0])
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
    return evolve(manifest, jobs=jobs)


def _captions_of(source: BatchSource, index: int, job: Job) -> dict[str, str]:
    """Return the options of a job with the captions of its recording."""
    if source.table:
        cells = {header.strip().casefold().replace(" ", "_"): cell for header, cell in job.extra.items()}
        file, transcript = (str(cells.get(column) or "").strip() for column in COLUMNS)
        if file:
            return {COLUMNS[0]: read_captions_file(source.table.parent / file, "")}
        if transcript:
            return {COLUMNS[1]: transcript}
        raise UsageError(
            "it is missing or empty, and so is transcript; --captions needs the captions (.srt or .vtt) or the text of each recording"
        )
    recording = source.recordings.paths[index]
    text = text_beside(recording)
    if text is None:
        *captions, transcript = (recording.with_suffix(extension).name for extension in _BESIDE)
        raise UsageError(f"--captions needs its text beside it: there is no {', '.join(captions)} or {transcript}")
    if text.suffix == ".txt":
        return {COLUMNS[1]: read_transcript(text, "")}
    return {COLUMNS[0]: read_captions_file(text, "")}


def text_beside(recording: Path) -> Path | None:
    """Return the file with the captions or the transcript of a recording, which has its name; ``None`` if there is none."""
    return next((path for path in map(recording.with_suffix, _BESIDE) if path.is_file()), None)


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


def caption_paths(output: Path) -> list[Path]:
    """Return the paths of the captions of a video."""
    return [output.with_suffix(".srt"), output.with_suffix(".vtt")]


def check_caption_files(output: Path | None, *, overwrite: bool) -> None:
    """Check that the captions of a video can be written.

    Raises:
        UsageError: They cannot.
    """
    if output is None:
        raise UsageError("--captions files writes beside the video: save it with -o FILE")
    for path in caption_paths(output):
        if path.is_dir() or (path.exists() and not overwrite):
            raise UsageError(f"--captions files: {path} exists; add --overwrite to replace it")


def write_caption_files(speech: Speech, output: Path) -> None:
    """Write the captions of a video as SubRip and WebVTT.

    Raises:
        A2VError: The server has not sent the times of the words.
        OSError: They cannot be written.
    """
    if not speech.words:
        raise A2VError(
            "no captions were written: the server does not say when each word is spoken, as the local engine does"
        )
    shown = cues(speech.words)
    for path, write in zip(caption_paths(output), (to_srt, to_vtt), strict=True):
        write_atomically(path, write(shown).encode())
