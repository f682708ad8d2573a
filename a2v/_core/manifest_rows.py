"""Turns the bytes of a manifest into rows: CSV, JSON Lines, JSON, XLSX. ``manifest_jobs.py`` interprets the rows."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from a2v._core import code_pages
from a2v._core.workbook import CellError, WorkbookError, read_sheet
from a2v._values.models import RowError
from a2v._values.text import escape, is_invisible, strip

MAX_BYTES = 100 << 20
"""The most bytes of a manifest's file."""
MAX_COLUMNS = 16_384
"""The most columns of a table, as in Excel."""

COLUMNS = ("model_id", "pose_id", "audio_url", "text", "voice_name", "name", "with_mask", "options")
ALIASES = {
    "audio": "audio_url",
    "file": "audio_url",
    "recording": "audio_url",
    "url": "audio_url",
    "character": "model_id",
    "model": "model_id",
}
"""Other headers of a job's columns."""
_PLAIN = {column.replace("_", ""): column for column in COLUMNS} | ALIASES
# The longer ones first, because the BOM of UTF-32 LE begins with that of UTF-16 LE.
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SPACE = re.compile(r"\s*")
_DELIMITERS = (",", ";", "\t", "|")
# The line that sets the delimiter for Excel.
_SEPARATOR_LINE = re.compile(r'"?sep=([^\r\n"]?)"?\s*', re.IGNORECASE)
_MOST_NAMED = 20
# Two neighbouring letters of a name with four are exchanged.
_SIMILAR = 0.75


@frozen
class Row:
    """A row of a manifest, not yet interpreted.

    Attributes:
        number: Its number, counted from 1 as in editors and spreadsheets.
        content: Usually a mapping of headers to cells; ``manifest_jobs.py`` accepts other types too.
        stray: The cells without a header, by column number, counted from 1.
        first: The number of the first column with a header; only used with ``stray``.
    """

    number: int
    content: Any
    stray: Mapping[int, Any] = field(factory=dict)
    first: int = 0


@frozen
class Hidden:
    """The numbers of the rows that were skipped because the workbook hides them."""

    numbers: list[int]


@frozen
class Decoded:
    """The presumed encoding of a file that is not UTF-8."""

    encoding: str


Rows = Iterator[Row | RowError | Hidden | Decoded]


@lru_cache(maxsize=1024)
def column_of(header: str) -> str | None:
    """Return the column of a job that a header means, in any spelling: ``Audio URL`` and ``File`` are ``audio_url``."""
    return _PLAIN.get(_plain(header))


def similar_column(header: str, columns: Iterable[str]) -> str | None:
    """Return the column whose name is most similar to a header; ``None`` if none is.

    ``naem`` is similar to ``name``, and ``game`` is another word: typing mistakes rarely concern the first letter.
    """
    plain = _plain(header)
    names = {column.replace("_", ""): column for column in columns if plain[:1] == column[:1]}
    found = get_close_matches(plain, names, n=1, cutoff=_SIMILAR)
    return names[found[0]] if found else None


def _plain(header: str) -> str:
    plain = re.sub(r"[\s_-]", "", header).casefold()
    return plain if plain.isascii() else "".join(one for one in plain if not is_invisible(one))


def is_blank(value: Any) -> bool:
    """Whether a cell is blank: ``None``, text without visible characters, or a missing value (NaN, NaT, ``pandas.NA``)."""
    if isinstance(value, str):
        return not isinstance(value, CellError) and not strip(value)
    if value is None:
        return True
    try:
        # Missing values differ from themselves; comparing `pandas.NA` or numpy's `masked` returns the same object.
        differs = value != value  # noqa: PLR0124
        return differs is value or bool(differs)
    except Exception:  # noqa: BLE001  # a class of the caller may raise anything; it is not a missing value
        return False


def read_csv(data: bytes) -> Rows:
    """Read CSV. The delimiter (comma, semicolon, tab or bar) is the one that yields most known headers."""
    return _of_text(data, _csv_rows)


def read_json_lines(data: bytes) -> Rows:
    """Read JSON Lines: one object per line."""
    return _of_text(data, _json_lines)


def read_json(data: bytes) -> Rows:
    """Read a JSON array of objects."""
    return _of_text(data, _json_array)


def read_xlsx(data: bytes) -> Rows:
    """Read the visible rows of the first visible sheet of an Excel workbook."""
    try:
        sheet = read_sheet(data)
    except WorkbookError as error:
        yield RowError(None, None, str(error))
        return
    yield from table(iter(sheet.rows), f"the first row of the sheet {escape(sheet.name)!r}")
    if sheet.hidden:
        yield Hidden(sheet.hidden)


def _of_text(data: bytes, read: Callable[[str], Rows]) -> Rows:
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        guess = code_pages.decode(data) if encoding == "utf-8" else None
        if guess:
            yield Decoded(guess[1])
            yield from read(guess[0])
            return
        at = error.start + len(data) - len(error.object)  # the utf-8-sig codec does not count the BOM
        line = data[:at].decode(encoding, "ignore").count("\n") + 1
        byte = f"the byte 0x{data[at]:02x} (number {at + 1} of the file)"
        yield RowError(
            line,
            None,
            f"{byte} is not {encoding.removesuffix('-sig').upper()}: save the file as UTF-8"
            ' (in Excel "CSV UTF-8 (Comma delimited)"), or as .xlsx',
        )
        return
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        yield RowError(line, None, "there is a NUL character: save the file as text, in UTF-8")
        return
    yield from read(text.lstrip("\ufeff"))


def _csv_rows(text: str) -> Rows:
    # Without newline translation, so that line breaks in quotes are kept.
    lines = list(io.StringIO(text, newline=""))
    skipped, delimiter = 0, ""
    if lines and (found := _SEPARATOR_LINE.fullmatch(lines[0])):
        skipped, delimiter = 1, found[1]
    del lines[:skipped]
    failed: list[RowError] = []
    cells = _csv_cells(lines, delimiter or _delimiter(lines), failed, skipped + 1)
    yield from table((number, dict(enumerate(row, 1))) for number, row in cells)
    yield from failed


def _delimiter(lines: list[str]) -> str:
    def sense(delimiter: str) -> tuple[int, int]:
        header = next((cells for _, cells in _csv_cells(lines, delimiter, []) if not all(map(is_blank, cells))), [])
        return sum(column_of(cell) is not None for cell in header), len(header)

    return max(_DELIMITERS, key=sense)


def _csv_cells(
    lines: list[str], delimiter: str, failed: list[RowError], first: int = 1
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = first
    try:
        for cells in reader:
            if any(cells[MAX_COLUMNS:]) and not failed:
                failed.append(_too_wide(number))
            yield number, cells[:MAX_COLUMNS]
            number = reader.line_num + first  # a row of several lines has the number of the first
    except csv.Error as error:
        # The rest cannot be split into rows: the quote may have swallowed it.
        problem = "a quote is opened and never closed" if "unexpected end" in str(error) else f"it is not CSV: {error}"
        failed.append(RowError(number, None, problem))


def table(rows: Iterator[tuple[int, Mapping[int, Any]]], where: str = "the first row") -> Rows:
    """Yield the rows below a header.

    Args:
        rows: Row numbers, and cells by column number. The first row that is not blank is the header; its number is 0 if the
            header is not a row.
        where: The name of the header's row in messages.
    """
    filled = ((number, cells) for number, cells in rows if not all(map(is_blank, cells.values())))
    number, names = next(filled, (0, {}))
    header = {place: strip(str(name)) for place, name in names.items() if not is_blank(name)}
    if not header:
        return
    errors = list(_header_errors(number, list(header.values()), where))
    yield from errors
    if errors:  # each row would repeat them
        return
    first = min(header)
    for number, cells in rows:
        stray = {place: cells[place] for place in cells.keys() - header.keys() if not is_blank(cells[place])}
        yield Row(number, {name: cells.get(place, "") for place, name in header.items()}, stray, first)


def _header_errors(number: int, header: list[str], where: str) -> Iterator[RowError]:
    if len(header) > MAX_COLUMNS:
        yield _too_wide(number or None)
        return
    columns: dict[str, list[str]] = {}
    for name in header:
        columns.setdefault(column_of(name) or name, []).append(name)
    for column, names in columns.items():
        if len(names) > 1:
            yield RowError(number or None, escape(column), repeated_column(column, names))
    missing = missing_columns(columns)
    if missing:
        yield RowError(number or None, None, f"{where} must name the columns, and lacks {missing}: {listed(header)}")


def repeated_column(column: str, headers: Iterable[str]) -> str:
    """Say that several headers are the same column."""
    spellings = list(dict.fromkeys(headers))
    if len(spellings) == 1:
        return "the header names this column more than once"
    return f"the headers {listed(spellings)} are the same column, {column}: keep one, and rename or remove the others"


def _too_wide(number: int | None) -> RowError:
    return RowError(number, None, f"it is too big for a manifest: more than {MAX_COLUMNS:,} columns")


def missing_columns(columns: Iterable[str]) -> str:
    """Return the required columns that are missing, for a message; empty if none is."""
    found = set(columns)
    missing = [] if {"audio_url", "text"} & found else ["audio_url (or text)"]
    missing += [] if {"audio_url", "voice_name"} & found or "text" not in found else ["voice_name"]
    missing += [] if {"model_id", "pose_id"} & found else ["model_id (or pose_id)"]
    return " and ".join(missing)


def listed(headers: Iterable[str]) -> str:
    """List headers for a message, at most twenty of them."""
    names = [repr(escape(name[:60])) for name in headers]
    return ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )


def _json_lines(text: str) -> Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield Row(number, _DECODER.decode(line))
            except (ValueError, RecursionError) as error:
                yield RowError(number, None, _not_json(error))


def _json_array(text: str) -> Rows:
    """Decode the array element by element, to know the line of each."""
    at = _skip(text, 0)
    if at == len(text):
        return
    if text[at] != "[":
        yield RowError(1, None, "a .json manifest is one array of objects; with an object in each line it is .jsonl")
        return
    number, counted = 1, 0
    try:
        at = _skip(text, at + 1)
        while text[at : at + 1] != "]":
            number, counted = number + text.count("\n", counted, at), at
            value, end = _DECODER.raw_decode(text, at)
            yield Row(number, value)
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
        yield RowError(line, None, _not_json(error))


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is not JSON that can be read: nested too deeply"
    where = f" (character {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
    return f"it is not JSON: {getattr(error, 'msg', error)}{where}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} occurs more than once")
    return dict(pairs)


def _constant(name: str) -> None:
    # Python's `json` writes missing numbers as NaN.
    if name != "NaN":
        raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_constant)
