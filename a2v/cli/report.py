"""What became of a batch, as a file: the rows of the manifest again, with their videos beside them."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from a2v.cli.printing import clean
from a2v.cli.server import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from a2v.cli.table import Standing

# What a spreadsheet takes for a formula, and would run. A number is none.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001  # some spreadsheets take the wide ones as well
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")


def check_report(path: Path) -> None:
    """Find out before anything is paid for whether a report can be written.

    Raises:
        UsageError: It cannot.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--report: {path} must end in .csv or .json")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--report: {path} is not a file in a folder that is there")


def write_report(path: Path, ones: Sequence[Standing]) -> None:
    """Write what became of each job, whole or not at all.

    Args:
        path: Where to; the ending tells whether it is CSV or JSON.
        ones: The jobs, in the order of the manifest.
    """
    text = (
        _as_csv(ones) if path.suffix.lower() == ".csv" else json.dumps([one.facts() for one in ones], indent=1) + "\n"
    )
    part = path.with_name(f"{path.name}.part")
    # With a BOM, for Excel would take it for an encoding of old.
    part.write_text(text, encoding="utf-8-sig" if path.suffix.lower() == ".csv" else "utf-8", newline="")
    part.replace(path)


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
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"
