"""What reading a manifest of 50,000 rows costs beside parsing the same file.

``a2v.read_manifest`` against the parser alone, in turns on the same files in the same run, in CPU seconds: ``csv.DictReader``
and ``json.loads`` of the standard library, and for XLSX openpyxl (read-only), which is the other library that could read it.

    python benchmarks/manifest.py

Exits with 1 when a bound is missed: 5 s for a file, or XLSX slower than openpyxl.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import openpyxl

import a2v

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, ROUNDS, BOUND = 50_000, 3, 5.0
HEADER = ("model_id", "audio_url", "name", "customer")


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    """A file as spreadsheets save it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def write_json_lines(path: Path, rows: list[tuple[str, ...]]) -> None:
    """A file as programs write it."""
    path.write_text("".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in rows))


def write_xlsx(path: Path, rows: list[tuple[str, ...]]) -> None:
    """A workbook of one sheet."""
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in [HEADER, *rows]:
        sheet.append(row)
    book.save(path)


def parse_csv(path: Path) -> int:
    """The standard library's way."""
    with path.open(encoding="utf-8", newline="") as file:
        return len(list(csv.DictReader(file)))


def parse_json_lines(path: Path) -> int:
    """The standard library's way."""
    return len([json.loads(line) for line in path.read_text().splitlines()])


def parse_xlsx(path: Path) -> int:
    """The way of openpyxl that takes the least memory."""
    book = openpyxl.load_workbook(path, read_only=True)
    return len(list(book.worksheets[0].iter_rows(values_only=True))) - 1


KINDS: dict[str, tuple[Callable[[Path, list[tuple[str, ...]]], None], Callable[[Path], int]]] = {
    ".csv": (write_csv, parse_csv),
    ".jsonl": (write_json_lines, parse_json_lines),
    ".xlsx": (write_xlsx, parse_xlsx),
}


def read(path: Path) -> int:
    """Our way."""
    return len(a2v.read_manifest(path))


def seconds(work: Callable[[Path], int], path: Path) -> float:
    """The CPU time of reading a file, which must have all its rows."""
    start = time.process_time()
    if work(path) != ROWS:
        raise RuntimeError(f"{path} was not read whole")
    return time.process_time() - start


def main() -> int:
    """Measure, print, judge."""
    rows: list[tuple[str, ...]] = [
        ("eva_a0008", f"https://example.com/{n}.wav", f"clip-{n}", "Müller & Söhne") for n in range(ROWS)
    ]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for suffix, (write, parse) in KINDS.items():
            path = Path(folder, f"jobs{suffix}")
            write(path, rows)
            times = [(seconds(read, path), seconds(parse, path)) for _ in range(ROUNDS)]
            ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"{suffix:6} {ours:5.2f} s, parsed alone {theirs:5.2f} s: {ours / theirs:.2f} x")
            missed |= ours > BOUND or (suffix == ".xlsx" and ours > theirs)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
