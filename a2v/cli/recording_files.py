"""Recordings named by arguments: folders, files, and patterns such as ``*.wav``. ``a2v manifest`` writes a table of them."""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from a2v._unicode_paths import find_existing
from a2v._values import arguments
from a2v._values.text import redacted_repr
from a2v.cli.captions import TEXTS, text_beside
from a2v.cli.options import UsageError
from a2v.cli.terminal import shown_path
from a2v.manifest import EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from a2v.cli.options import SpeakerOptions

# The usual extensions of what the engine reads, which tell recordings from other files in a folder.
_RECORDINGS = frozenset(
    [
        ".3g2",
        ".3gp",
        ".aac",
        ".aif",
        ".aifc",
        ".aiff",
        ".amr",
        ".au",
        ".awb",
        ".caf",
        ".flac",
        ".m4a",
        ".m4b",
        ".m4v",
        ".mka",
        ".mkv",
        ".mov",
        ".mp3",
        ".mp4",
        ".oga",
        ".ogg",
        ".opus",
        ".rf64",
        ".snd",
        ".spx",
        ".w64",
        ".wav",
        ".wave",
        ".weba",
        ".webm",
    ]
)
_MOST_LISTED = 5


@frozen
class RecordingFiles:
    """Recordings in the order of a batch.

    Attributes:
        paths: The files, relative if the arguments are.
        folders: The folders that were searched.
        notices: Warnings about what was skipped.
    """

    paths: list[Path] = field(factory=list)
    folders: list[Path] = field(factory=list)
    notices: list[str] = field(factory=list)


def table_among(sources: Sequence[str]) -> Path | None:
    """Return the table that the arguments name; ``None`` if they name recordings.

    Raises:
        UsageError: They name a table and something else.
    """
    tables = [
        source for source in sources if Path(source).suffix.lower() in EXTENSIONS and not _expand(source).is_dir()
    ]
    if tables and len(sources) > 1:
        raise UsageError(f"a batch is one table or any number of recordings; run a batch of its own for {tables[0]}")
    # The path as the disk spells it (NFC or NFD).
    return find_existing(_expand(tables[0])) if tables else None


def find_recordings(sources: Sequence[str], *, with_captions: bool = False) -> RecordingFiles:
    """Find the recordings that arguments name. Subfolders are not searched.

    Args:
        sources: The arguments.
        with_captions: Whether the files with the captions of the recordings are used too, and so not reported as skipped.

    Raises:
        UsageError: An argument names nothing, or there are no recordings.
    """
    found = RecordingFiles()
    others: dict[Path, list[Path]] = {}
    for source in sources:
        path = find_existing(_expand(source))
        if os.path.isdir(path):  # noqa: PTH112  # accepts a text that is too long for a path
            found.folders.append(path)
            recordings, others[path] = _search(path)
            found.paths.extend(recordings)
        elif os.path.isfile(path):  # noqa: PTH113  # as above
            found.paths.append(path)
        else:
            found.paths.extend(_matching(source))
    used: set[str] = set()
    if with_captions:
        used = {
            os.path.realpath(text) for path in found.paths if path.suffix not in TEXTS and (text := text_beside(path))
        }
        # Shells replace a pattern such as recordings/* with the names of all files.
        found.paths[:] = [path for path in found.paths if os.path.realpath(path) not in used]
    # A file that is named twice is one recording.
    found.paths[:] = {os.path.realpath(path): path for path in reversed(found.paths)}.values()
    found.paths.reverse()
    if not found.paths:
        raise UsageError(
            f"there are no recordings in {', '.join(map(shown_path, found.folders))}; subfolders are not searched"
        )
    for folder, skipped in others.items():
        if names := [path.name + os.sep * path.is_dir() for path in skipped if os.path.realpath(path) not in used]:
            more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
            listed = ", ".join(names[:_MOST_LISTED])
            found.notices.append(f"{shown_path(folder)}: skipped (not recordings): {listed}{more}")
    return found


def write_table(recordings: RecordingFiles, speaker: SpeakerOptions, output: Path | None, *, as_json: bool) -> None:
    """Write a table that ``a2v batch`` reads.

    Args:
        recordings: The recordings.
        speaker: Who speaks; an empty column if it is not given.
        output: The file; ``None`` for standard output. The paths in the table are relative to its folder, or to the current one.
        as_json: Whether to write JSON instead of CSV.

    Raises:
        UsageError: The table cannot be written.
    """
    folder = output.absolute().parent if output else Path.cwd()
    columns = speaker.columns or {"model_id": ""}
    rows = [{"audio_url": _cell(path, folder)} | columns | {"name": path.stem} for path in recordings.paths]
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n" if as_json else _as_csv(rows)
    try:
        # Without a BOM, Excel assumes a legacy encoding; other programs do not expect one.
        data = text.encode("utf-8" if text.isascii() or as_json else "utf-8-sig")
    except UnicodeEncodeError as error:
        name = next(path for path in recordings.paths if error.object[error.start] in str(path))
        raise UsageError(f"the name of {str(name)!r} is not valid Unicode: rename the file") from None
    if output is None:
        if sys.stdout.isatty():
            data = data.removeprefix(codecs.BOM_UTF8)
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--output: {output} cannot be written: {error.strerror}") from None


def _as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _cell(path: Path, folder: Path) -> str:
    """Return the path as a cell that neither a2v strips nor a spreadsheet takes for a formula."""
    try:
        text = os.path.relpath(path, folder)
    except ValueError:  # another drive
        text = str(path.absolute())
    return text if text[0].isalnum() or text[0] in "._/" else os.path.join(os.curdir, text)  # noqa: PTH118  # kept


def _search(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the recordings in a folder, and what else there is."""
    try:
        entries = sorted((one for one in folder.iterdir() if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise UsageError(f"the folder {shown_path(folder)} cannot be read: {error.strerror}") from None
    recordings: list[Path] = []
    others: list[Path] = []
    for one in entries:
        is_recording = one.suffix.lower() in _RECORDINGS and one.is_file()
        (recordings if is_recording else others).append(one)
    return recordings, others


def _matching(source: str) -> list[Path]:
    """Return the files that match a pattern, for shells that pass patterns on."""
    if "://" in source:
        raise UsageError(
            f"{redacted_repr(source)} is a URL; list URLs in a table with the columns audio_url and model_id"
        )
    # Not `Path.glob`, which cannot have an absolute pattern.
    matching = sorted(glob.glob(str(_expand(source)))) if glob.has_magic(source) else []  # noqa: PTH207
    if not matching:
        what = "no file matches the pattern" if glob.has_magic(source) else "there is no file or folder"
        hint = "; folders are separated by / on this machine" if "\\" in source and os.sep == "/" else ""
        raise UsageError(f"{what} {source}{hint}")
    return [Path(one) for one in matching if os.path.isfile(one)]  # noqa: PTH113  # as above


def _expand(source: str) -> Path:
    return arguments.path("it", source) if source.startswith("~") else Path(source)
