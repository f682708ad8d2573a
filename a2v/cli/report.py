"""The report of a batch: a CSV or JSON file with the status of each row of the manifest."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2v._core.file_names import name_key
from a2v.cli.options import UsageError
from a2v.cli.targets import check_folder, write_atomically
from a2v.cli.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from a2v.cli.job_status import JobStatus

# The start of a cell: the start of the text, or, for a spreadsheet that expects another separator than the comma, the text
# after a separator or a line break.
_CELL_START = r"(?:^|[;|\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029])"
# What a spreadsheet runs as a formula, also after spaces and quotes. Some accept the full-width characters too.
_FORMULA = re.compile(rf"({_CELL_START}[\s'\"]*)(?=[=+\-@＝＋－＠])")  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")


def check_report(report: Path, needed: Iterable[Path], folder: Path) -> None:
    """Check that a report can be written, and that it replaces no file that is still needed.

    Args:
        report: The file of the report.
        needed: The files that must not be replaced, whether they exist or not.
        folder: The folder of the videos, which the batch creates.

    Raises:
        UsageError: It cannot be written.
    """
    if report.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--report: {report} must end in .csv or .json")
    parent = report.absolute().parent
    if report.is_dir() or not (parent.is_dir() or os.path.realpath(parent) == os.path.realpath(folder)):
        raise UsageError(f"--report: {report} is not a file in an existing folder")
    check_folder(parent, "--report")
    for path in needed:
        if _is_name_key(report, path):
            raise UsageError(f"--report would replace the file {path}: choose another name for the report")


def _is_name_key(one: Path, other: Path) -> bool:
    """Whether two paths name one file, also through links or another spelling, or would if it was created."""
    try:
        # Also true for hard links, and for spellings that the file system treats as equal.
        return one.samefile(other)
    except OSError:
        one, other = Path(os.path.realpath(one)), Path(os.path.realpath(other))
        return one.parent == other.parent and name_key(one.name) == name_key(other.name)


def write_report(path: Path, jobs: Sequence[JobStatus]) -> None:
    """Write the status of each job, atomically.

    Args:
        path: The file, .csv or .json.
        jobs: The jobs, in the order of the manifest.

    Raises:
        OSError: It cannot be written.
    """
    is_csv = path.suffix.lower() == ".csv"
    text = _as_csv(jobs) if is_csv else json.dumps([job.to_json() for job in jobs], indent=1) + "\n"
    # Without a BOM, Excel assumes a legacy encoding. Paths may contain bytes that are not UTF-8.
    data = text.encode("utf-8-sig" if is_csv else "utf-8", "backslashreplace")
    write_atomically(path, data)


def _as_csv(jobs: Sequence[JobStatus]) -> str:
    rows = [_flat(job.to_json()) for job in jobs]
    header = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(map(_without_formula, header))
    writer.writerows(_cells(row, header) for row in rows)
    return buffer.getvalue()


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    extra = values.pop("extra")
    values["error"] = clean(values["error"] or "")
    return values | {f"{name} (manifest)" if name in values else name: value for name, value in extra.items()}


def _cells(row: dict[str, Any], header: list[str]) -> Iterable[Any]:
    for name in header:
        value = row.get(name)
        yield _without_formula(value if value is None or isinstance(value, (str, int, float)) else json.dumps(value))


def _without_formula(value: Any) -> Any:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    marked = _FORMULA.sub(r"\1'", value)
    # Some spreadsheets strip leading white space.
    return f"'{marked}" if marked == value and value[:1] in ("\t", "\r", "\n") else marked
