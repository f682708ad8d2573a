"""Reads manifests, the tables that list the jobs of a batch: files here; the rows and jobs in them in ``_core``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from a2v import _unicode_paths
from a2v._core import manifest_jobs, manifest_rows
from a2v._core.speakers import Speakers
from a2v._values import arguments
from a2v._values.models import Avatar, Character, RowError
from a2v.errors import InvalidArgumentError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2v._values.jobs import Job

__all__ = ["read_manifest"]

_READERS: dict[str, Callable[[bytes], manifest_rows.Rows]] = {
    ".csv": manifest_rows.read_csv,
    ".tsv": manifest_rows.read_csv,
    ".txt": manifest_rows.read_csv,
    ".jsonl": manifest_rows.read_json_lines,
    ".ndjson": manifest_rows.read_json_lines,
    ".json": manifest_rows.read_json,
    ".xlsx": manifest_rows.read_xlsx,
    ".xlsm": manifest_rows.read_xlsx,
}
EXTENSIONS = frozenset(_READERS)
"""The file name extensions of manifests."""


class DataFrame(Protocol):
    """A data frame of pandas or polars."""

    @property
    def columns(self) -> Any:
        """The headers."""
        ...


def read_manifest(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any] | Job] | DataFrame,
    *,
    resolve: Callable[[str], str] | None = None,
    characters: Iterable[Character | Avatar] | None = None,
) -> list[Job]:
    """Read the jobs of a batch from a table: a file, a data frame, or your own rows.

    The columns are ``audio_url`` (or ``text`` and ``voice_name``, if the server has voices), ``model_id`` (or ``pose_id``, if it
    has poses), and optionally ``name``, ``with_mask`` and ``options``. Case, spaces, hyphens and underscores in headers do not
    matter. ``audio``, ``file``, ``recording`` and ``url`` also mean ``audio_url``, and ``character`` and ``model`` mean
    ``model_id``. All other columns go to ``job.extra``, and so does the ``text`` of a row with an ``audio_url`` and no
    ``voice_name``.

    The same rules apply to all sources. Blank rows are skipped, and so are rows at the end in which all of these columns are
    blank. A missing value (``None``, NaN, ``pandas.NA``) is blank, a whole number may be a float, and an index
    column without a header is ignored.

    Args:
        source: One of:

            * the path of a file: CSV (``.csv``, ``.tsv``, ``.txt``; separated by comma, semicolon, tab or bar), JSON Lines
              (``.jsonl``, ``.ndjson``), a JSON array of objects (``.json``), or the visible rows of the first visible sheet of an
              Excel workbook (``.xlsx``, ``.xlsm``) that is not blank. Text is UTF-8, or UTF-16 with a byte-order mark; any other
              encoding is guessed, with a ``UnicodeWarning``. A file may have up to 100 MiB and 2,000,000 cells;
            * a data frame of pandas or polars;
            * an iterable of rows: mappings, as from ``csv.DictReader``, named tuples, ``sqlite3`` rows, or jobs.
        resolve: Called with each ``audio_url`` as written. Its result is used instead, and a ``ValueError`` that it
            raises is reported as an error of that cell. ``None``: URLs are used as written.
        characters: The server's characters, from ``client.characters.list()``, or its avatars, or both. Then unknown ids are
            errors, and ``model_id`` may also be the name or display name of exactly one character. ``None``: all ids are
            accepted.

    Returns:
        The jobs, in the order of the rows.

    Raises:
        ManifestError: The manifest has errors, or the file cannot be read. ``error.faults`` has every error, with its row
            and column.
        InvalidArgumentError: ``resolve`` is not a function, or ``characters`` contains something else.
    """
    label = f"the manifest {os.fspath(source)}" if isinstance(source, (str, os.PathLike)) else "the manifest"
    try:
        found = load(source, resolve, None if characters is None else _speakers(characters))
    except OSError as error:
        if not isinstance(source, (str, os.PathLike)):
            raise  # raised by the rows of the caller
        row_error = RowError(None, None, f"it cannot be read: {error.strerror or error}")
        raise ManifestError(label, faults=(row_error,)) from None
    if found.errors:
        raise ManifestError(label, faults=found.errors)
    if found.encoding:
        warnings.warn(f"{label} is not UTF-8; it was read as {found.encoding}", UnicodeWarning, stacklevel=2)
    return found.jobs


def _speakers(characters: object) -> Speakers:
    speakers: list[Character | Avatar] = []
    for speaker in characters if isinstance(characters, Iterable) else [characters]:
        if not isinstance(speaker, (Character, Avatar)):
            wrong = arguments.short_repr(speaker)
            raise InvalidArgumentError(f"characters must be characters and avatars of a server, got {wrong}")
        speakers.append(speaker)
    return Speakers.of(speakers)


def load(
    source: Any, resolve: Callable[[str], str] | None = None, speakers: Speakers | None = None
) -> manifest_jobs.Manifest:
    """Read a manifest like ``read_manifest``, but return the errors, row numbers and encoding instead of raising an error.

    Raises:
        InvalidArgumentError: ``resolve`` is not a function.
        OSError: The file cannot be read.
    """
    if resolve is not None and not callable(resolve):
        raise InvalidArgumentError(f"resolve must be a function or None, got {arguments.short_repr(resolve)}")
    if isinstance(source, (str, os.PathLike)):
        return _load_file(_unicode_paths.find_existing(Path(source)), resolve, speakers)
    if isinstance(source, (bytes, Mapping)) or not hasattr(source, "__iter__"):
        kind = type(source).__name__
        return _invalid(
            f"it must be the path of a file, a data frame or an iterable of rows, got a value of type {kind}"
        )
    return manifest_jobs.read_rows(manifest_jobs.rows_of(source), resolve, speakers=speakers)


def _load_file(path: Path, resolve: Callable[[str], str] | None, speakers: Speakers | None) -> manifest_jobs.Manifest:
    if path.is_dir():
        return _invalid("it is a folder; give the name of a file in it")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        return _invalid(f"its name must end in one of {', '.join(_READERS)}, got {path.suffix or 'none'}")
    if "\0" in str(path):
        return _invalid("its path contains a NUL character")
    with path.open("rb") as file:
        data = file.read(manifest_rows.MAX_BYTES + 1)
    if len(data) > manifest_rows.MAX_BYTES:
        return _invalid(f"it is too big for a manifest: more than {manifest_rows.MAX_BYTES >> 20} MiB")
    return manifest_jobs.read_rows(read(data), resolve, speakers=speakers, is_file=True)


def _invalid(problem: str) -> manifest_jobs.Manifest:
    return manifest_jobs.Manifest([], [], (RowError(None, None, problem),))
