"""The bytes of a file become rows: CSV, JSON Lines, JSON, XLSX. What the rows mean is for ``manifest.py``."""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from zipfile import BadZipFile, ZipFile

from attrs import frozen

from a2v._core.models import Fault

COLUMNS = ("model_id", "pose_id", "audio_url", "name", "with_mask")
_PLAIN = {column.replace("_", ""): column for column in COLUMNS}
# A BOM says it all; the longer ones first, as one begins with another.
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What a workbook is packed in if it has a password, and what those of before 2007 are.
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_SPACE = re.compile(r"\s*")
_CELL = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]{1,3})([0-9]{1,7})["']""")
# 50,000 rows of 100 columns. The reader keeps the blank cells between, and ends the process if there is no room for them.
_MOST_CELLS = 5_000_000
_MOST_BYTES = 500_000_000


@frozen
class Row:
    """A row of a manifest.

    Attributes:
        number: Where it stands in the file, counted from 1 as editors and spreadsheets do.
        cells: What is in it, by header.
    """

    number: int
    cells: Mapping[str, Any]


Rows = Iterator[Row | Fault]


@lru_cache(maxsize=1024)
def column_of(header: str) -> str | None:
    """Which of our columns a header means, however it is spelt: ``Audio URL`` is ``audio_url``."""
    return _PLAIN.get(re.sub(r"[\s_-]", "", header).casefold())


def is_blank(value: Any) -> bool:
    """Whether a cell has nothing in it; not-a-number is how data frames say so."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value  # noqa: PLR0124


def read_csv(data: bytes) -> Rows:
    """CSV, with the delimiter under which the header makes most sense: comma, semicolon or tab."""
    return _of_text(data, _csv_rows)


def read_json_lines(data: bytes) -> Rows:
    """JSON Lines: an object in each line."""
    return _of_text(data, _json_lines)


def read_json(data: bytes) -> Rows:
    """One JSON array of objects."""
    return _of_text(data, _json_array)


def read_xlsx(data: bytes) -> Rows:
    """The first sheet of an Excel workbook.

    Raises:
        ImportError: The extra ``xlsx`` is not installed.
    """
    try:
        import python_calamine as calamine  # noqa: PLC0415  # an extra
    except ImportError:
        raise ImportError(
            'reading .xlsx files needs python-calamine: pip install "a2v[xlsx]"', name="python_calamine"
        ) from None
    if problem := _unreadable(data):
        yield Fault(None, None, problem)
        return
    try:
        with calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)) as book:
            cells = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except calamine.CalamineError as error:
        yield Fault(None, None, f"it is not a workbook that can be read ({error})")
    else:
        yield from _under_header((number, list(map(_json_value, row))) for number, row in enumerate(cells, 1))


def _of_text(data: bytes, read: Callable[[str], Rows]) -> Rows:
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(error.object)  # one of the codecs does not count the BOM
        line = data[:at].decode(encoding, "ignore").count("\n") + 1
        byte = f"the byte 0x{data[at]:02x} (number {at + 1} of the file)"
        yield Fault(line, None, f"{byte} is not {encoding.removesuffix('-sig').upper()}: save the file as UTF-8")
        return
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        yield Fault(line, None, "there is a NUL character: save the file as text, in UTF-8")
        return
    yield from read(text)


def _csv_rows(text: str) -> Rows:
    # Without translation, so that a line break in quotes is kept as it is.
    lines = list(io.StringIO(text, newline=""))
    failed: list[Fault] = []
    yield from _under_header(_csv_cells(lines, _delimiter(lines), failed))
    yield from failed


def _delimiter(lines: list[str]) -> str:
    def sense(delimiter: str) -> tuple[int, int]:
        header = next((cells for _, cells in _csv_cells(lines, delimiter, []) if not all(map(is_blank, cells))), [])
        return sum(column_of(cell) is not None for cell in header), len(header)

    return max((",", ";", "\t"), key=sense)


def _csv_cells(lines: list[str], delimiter: str, failed: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 1
    try:
        for cells in reader:
            yield number, cells
            number = reader.line_num + 1  # a row may go over several lines, and counts by its first
    except csv.Error as error:
        # What follows cannot be told apart: the quote may have swallowed it.
        problem = "a quote is opened and never closed" if "unexpected end" in str(error) else f"it is not CSV: {error}"
        failed.append(Fault(number, None, problem))


def _under_header(table: Iterable[tuple[int, Sequence[Any]]]) -> Rows:
    filled = ((number, cells) for number, cells in table if not all(map(is_blank, cells)))
    number, names = next(filled, (0, ()))
    header = ["" if is_blank(name) else str(name).strip() for name in names]
    if not header:
        return
    faults = list(_header_faults(number, header))
    yield from faults
    if faults:  # every row would only tell the same again
        return
    for number, cells in filled:
        for place, cell in enumerate(cells, 1):
            if (place > len(header) or not header[place - 1]) and not is_blank(cell):
                yield Fault(number, f"cell {place}", f"{cell!r} stands under no header")
        padded = [*cells, *[""] * (len(header) - len(cells))]
        yield Row(number, {name: cell for name, cell in zip(header, padded, strict=False) if name})


def _header_faults(number: int, header: list[str]) -> Iterator[Fault]:
    twice = Counter(column_of(name) or name for name in header if name)
    for name, count in twice.items():
        if count > 1:
            yield Fault(number, name, "the header names this column more than once")
    missing = [] if "audio_url" in twice else ["audio_url"]
    missing += [] if {"model_id", "pose_id"} & set(twice) else ["model_id (or pose_id)"]
    if missing:
        found = ", ".join(repr(name) for name in header)
        yield Fault(number, None, f"the first row must name the columns, and lacks {' and '.join(missing)}: {found}")


def _json_lines(text: str) -> Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _object(number, _DECODER.decode(line))
            except (ValueError, RecursionError) as error:
                yield Fault(number, None, _not_json(error))


def _json_array(text: str) -> Rows:
    """Element by element, which tells the line of each."""
    at = _skip(text, 0)
    if at == len(text):
        return
    if text[at] != "[":
        yield Fault(1, None, "a .json manifest is one array of objects; with an object in each line it is .jsonl")
        return
    number, counted = 1, 0
    try:
        at = _skip(text, at + 1)
        while text[at : at + 1] != "]":
            number, counted = number + text.count("\n", counted, at), at
            value, end = _DECODER.raw_decode(text, at)
            yield _object(number, value)
            at = _skip(text, end)
            if text[at : at + 1] == ",":
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        at = _skip(text, at + 1)
        if at < len(text):
            raise json.JSONDecodeError("Extra data", text, at)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else number
        yield Fault(line, None, _not_json(error))


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _object(number: int, value: Any) -> Row | Fault:
    if isinstance(value, dict):
        return Row(number, value)
    return Fault(number, None, f"a row is an object, {{…}}, and not {json.dumps(value)[:50]}")


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is not JSON that can be read: nested too deeply"
    where = f" (character {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
    return f"it is not JSON: {getattr(error, 'msg', error)}{where}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is there more than once")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no value of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _json_value(cell: Any) -> Any:
    """A spreadsheet's numbers are all floats, of fifteen digits; its dates and times are not JSON."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return int(cell)
    if isinstance(cell, dt.timedelta):
        return str(cell)
    return cell.isoformat() if isinstance(cell, (dt.date, dt.time)) else cell


def _unreadable(data: bytes) -> str | None:
    if data.startswith(_OLE):
        return "it is protected with a password or of an older kind: save it as .xlsx, without a password"
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            sheets = [member for member in archive.infolist() if "/worksheets/" in member.filename]
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                return "it is too big for a manifest"
            return next(filter(None, (_too_wide(archive.read(sheet)) for sheet in sheets)), None)
    except (BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        return f"it is not a workbook that can be read ({error})"


def _too_wide(sheet: bytes) -> str | None:
    letters: set[bytes] = set()
    row = 0
    for match in _CELL.finditer(sheet):
        letters.add(match[1].upper())
        row = max(row, int(match[2]))
    column = max(letters, key=lambda name: (len(name), name), default=b"")
    width = 0
    for letter in column:
        width = 26 * width + letter - 64
    if width * row <= _MOST_CELLS:
        return None
    return f"a sheet has cells as far as {column.decode()}{row}: delete what stands far from the table"
