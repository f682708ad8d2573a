"""What became of a batch, as a file: the rows of the manifest again, with their videos beside them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2v._core.file_names import name_key
from a2v.cli.printing import clean
from a2v.cli.server import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from a2v.cli.table import Standing

# Where a cell may begin: at the beginning of the text, or, for a spreadsheet whose separator is another one than ours, behind
# a separator or a line break.
_BEGINNING = r"(?:^|[;|\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029])"
# What a spreadsheet takes for a formula, and would run: behind spaces and quotes, too. Some take the wide ones as well.
_FORMULA = re.compile(rf"({_BEGINNING}[\s'\"]*)(?=[=+\-@＝＋－＠])")  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")


def check_report(report: Path, kept: Iterable[Path]) -> None:
    """Check before anything is done that a report can be written, and that it replaces no file that is still needed.

    Args:
        report: Where it goes.
        kept: The files that must not be replaced, whether they exist or not.

    Raises:
        UsageError: It cannot be written there.
    """
    if report.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--report: {report} must end in .csv or .json")
    if report.is_dir() or not report.absolute().parent.is_dir():
        raise UsageError(f"--report: {report} is not a file in a folder that is there")
    for path in kept:
        if _is_same_file(report, path):
            raise UsageError(f"--report: {report} is the file {path}, which it would replace: give it another name")


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, by whatever links and spelling, or would if it was made."""
    try:
        # Tells hard links and names that differ only in case, too.
        return one.samefile(other)
    except OSError:
        one, other = Path(os.path.realpath(one)), Path(os.path.realpath(other))
        return one.parent == other.parent and name_key(one.name) == name_key(other.name)


def write_report(path: Path, ones: Sequence[Standing]) -> None:
    """Write what became of each job, whole or not at all.

    Args:
        path: Where to; the ending tells whether it is CSV or JSON.
        ones: The jobs, in the order of the manifest.

    Raises:
        OSError: It cannot be written.
    """
    is_csv = path.suffix.lower() == ".csv"
    text = _as_csv(ones) if is_csv else json.dumps([one.facts() for one in ones], indent=1) + "\n"
    # With a BOM, without which Excel takes it for an old encoding. The path of a file may be no valid text.
    data = text.encode("utf-8-sig" if is_csv else "utf-8", "backslashreplace")
    # A new file under a name that nobody can foresee, so that no link of somebody else leads elsewhere.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _as_csv(ones: Sequence[Standing]) -> str:
    rows = [_flat(one.facts()) for one in ones]
    header = list(dict.fromkeys(name for row in rows for name in row))
    stored = io.StringIO(newline="")
    writer = csv.writer(stored)
    writer.writerow(map(_harmless, header))
    writer.writerows(_cells(row, header) for row in rows)
    return stored.getvalue()


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    extra = facts.pop("extra")
    facts["error"] = clean(facts["error"] or "")
    return facts | {f"{name} (manifest)" if name in facts else name: value for name, value in extra.items()}


def _cells(row: dict[str, Any], header: list[str]) -> Iterable[Any]:
    for name in header:
        value = row.get(name)
        yield _harmless(value if value is None or isinstance(value, (str, int, float)) else json.dumps(value))


def _harmless(value: Any) -> Any:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    marked = _FORMULA.sub(r"\1'", value)
    # Some spreadsheets drop white space at the beginning.
    return f"'{marked}" if marked == value and value[:1] in ("\t", "\r", "\n") else marked
