"""Manifests: the jobs of a batch, written down as a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2v._core import manifest, tables
from a2v._core.models import Fault, Job
from a2v.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["read_manifest"]

_READERS: dict[str, Callable[[bytes], tables.Rows]] = {
    ".csv": tables.read_csv,
    ".tsv": tables.read_csv,
    ".txt": tables.read_csv,
    ".jsonl": tables.read_json_lines,
    ".ndjson": tables.read_json_lines,
    ".json": tables.read_json,
    ".xlsx": tables.read_xlsx,
    ".xlsm": tables.read_xlsx,
}


def read_manifest(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, resolve: Callable[[str], str] | None = None
) -> list[Job]:
    """Read the jobs of a batch from a table: a file, or rows of your own.

    The columns are ``audio_url``, ``model_id`` (or ``pose_id``, where the server has poses), and if you like ``name`` and
    ``with_mask``; case and spaces in their names do not matter. What stands in other columns comes back in ``job.extra``.

    Args:
        source: The path of a file: CSV (``.csv``, ``.tsv``, ``.txt``; comma, semicolon or tab), JSON Lines (``.jsonl``,
            ``.ndjson``), a JSON array of objects (``.json``), or the first sheet of an Excel workbook (``.xlsx``,
            ``.xlsm``; needs the extra ``xlsx``). Text is UTF-8, or UTF-16 with a byte-order mark. Or else an iterable of
            mappings, such as ``csv.DictReader`` is, or ``frame.to_dict("records")`` of pandas.
        resolve: Called with each ``audio_url`` that is written there; what it returns is taken instead, and a
            ``ValueError`` that it raises becomes a fault of that cell.

    Returns:
        The jobs, in the order of the rows. Blank rows are skipped.

    Raises:
        ManifestError: Something is wrong with it. ``error.faults`` has all that is, each with its row and column.
        OSError: The file cannot be read.
        ImportError: The file is a workbook and the extra is not installed.
    """
    found = load(source, resolve)
    if found.faults:
        what = f"the manifest {os.fspath(source)}" if isinstance(source, (str, os.PathLike)) else "the manifest"
        raise ManifestError(what, faults=found.faults)
    return found.jobs


def load(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], resolve: Callable[[str], str] | None = None
) -> manifest.Manifest:
    """As ``read_manifest``, with the number of each row and the faults as they are."""
    if not isinstance(source, (str, os.PathLike)):
        return manifest.read_rows(manifest.mappings(source), resolve)
    path = Path(source)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ManifestError(f"the manifest {path}", faults=(Fault(None, None, _unknown(path.suffix)),))
    found = manifest.read_rows(read(path.read_bytes()), resolve)
    if not found.jobs and not found.faults:
        return manifest.Manifest([], [], (Fault(None, None, "there is no job in it"),))
    return found


def _unknown(suffix: str) -> str:
    return f"its kind is told by its ending, which is one of {', '.join(_READERS)}, and not {suffix or 'none'}"
