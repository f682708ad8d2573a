"""Turns the rows of a manifest into jobs, or into the complete list of their errors.

``manifest_rows.py`` makes the rows of a file. ``read_rows`` alone decides, for every kind of source, what is blank, a header,
a number or a flag. It continues after an error, so that users see all of them at once; an error that many rows share, such
as a missing column, is reported once.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from itertools import islice
from typing import Any

from attrs import define, field, frozen

from a2v._core.file_names import default_name, mask_name, name_key
from a2v._core.manifest_rows import (
    COLUMNS,
    Decoded,
    Hidden,
    Row,
    Rows,
    column_of,
    is_blank,
    listed,
    repeated_column,
    similar_column,
    table,
)
from a2v._core.speakers import Speakers
from a2v._core.workbook import MAX_CELLS, CellError
from a2v._values.jobs import Job
from a2v._values.models import RowError
from a2v._values.text import escape, find_invisible, find_unwritable, redact_url, redacted_repr, strip

Resolve = Callable[[str], str]

_FLAGS = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
_URL = "https://example.com/a"
# Builds a job with one given value, to check a cell independently of the others in its row.
_CHECKS: dict[str, Callable[[Any], Job]] = {
    "model_id": lambda value: Job(value, _URL),
    "pose_id": lambda value: Job(pose_id=value, audio_url=_URL),
    "audio_url": lambda value: Job("m", value),
    "text": lambda value: Job("m", text=value, voice_name="v"),
    "voice_name": lambda value: Job("m", text="t", voice_name=value),
    "name": lambda value: Job("m", _URL, value),
    "with_mask": lambda value: Job(pose_id="p", audio_url=_URL, with_mask=value),
    "options": lambda value: Job("m", _URL, options=value),
}
_OPTIONAL = frozenset(["name", "with_mask", "options"])
# Above this, a float cannot represent every whole number.
_ROUNDED = 10**15
# A `Decimal` such as 1E+999999999 must not be written out.
_MOST_DIGITS = 100
_MOST_LISTED = 10
_MOST_COMPARED = 100


@frozen
class Manifest:
    """The result of reading a manifest.

    Attributes:
        jobs: The jobs, in the order of the rows.
        rows: The row number of each job.
        errors: The errors, in the order of the rows. With any, ``jobs`` is incomplete.
        hidden: The numbers of the rows that were skipped because the workbook hides them.
        encoding: The presumed encoding of a file that is not UTF-8; ``None`` for others.
        misspelled: Headers that mean nothing, each with the optional column that it may be a misspelling of.
        columns: The columns of jobs that there are.
        speakers: The texts in the columns ``model_id`` and ``pose_id``, by column.
    """

    jobs: list[Job]
    rows: list[int]
    errors: tuple[RowError, ...]
    hidden: list[int] = field(factory=list)
    encoding: str | None = None
    misspelled: Mapping[str, str] = field(factory=dict)
    columns: frozenset[str] = frozenset()
    speakers: Mapping[str, AbstractSet[str]] = field(factory=dict)


def read_rows(
    rows: Iterable[Row | RowError | Hidden | Decoded],
    resolve: Resolve | None = None,
    *,
    speakers: Speakers | None = None,
    is_file: bool = False,
) -> Manifest:
    """Make a job of each row.

    Args:
        rows: The rows, and the errors found when they were read.
        resolve: Replaces the ``audio_url`` of a row, or raises ``ValueError``.
        speakers: The characters and poses that there are. ``None``: any id is accepted.
        is_file: Whether the rows come from a file. It must contain a job, and its size is limited.
    """
    reader = _Reader(resolve, speakers)
    cells = 0
    hidden: list[int] = []
    encoding: str | None = None
    for row in rows:
        if isinstance(row, Decoded):
            encoding = row.encoding
            continue
        if isinstance(row, Hidden):
            hidden = row.numbers
            continue
        if isinstance(row, RowError):
            reader.errors.append(row)
            continue
        cells += max(1, len(row.content) if isinstance(row.content, dict) else 1)
        if is_file and cells > MAX_CELLS:
            reader.errors.append(
                RowError(
                    row.number, None, f"it is too big for a manifest: more than {MAX_CELLS:,} cells (columns × rows)"
                )
            )
            break
        reader.read(row)
    errors = reader.all_errors()
    if not reader.jobs and not errors and (is_file or reader.unfilled):
        among = f", except in hidden rows, which are skipped: {listed_rows(hidden)}" if hidden else ""
        errors = [RowError(None, None, f"there is no job in it{among}")]
    return Manifest(
        reader.jobs, reader.rows, tuple(errors), hidden, encoding, reader.misspelled, reader.columns, reader.named
    )


def listed_rows(numbers: Sequence[int]) -> str:
    """List row numbers for a message, at most ten of them."""
    more = f" and {len(numbers) - _MOST_LISTED} more" if len(numbers) > _MOST_LISTED else ""
    return ", ".join(map(str, numbers[:_MOST_LISTED])) + more


def rows_of(source: Any) -> Rows:
    """Yield the rows of a data frame or an iterable, numbered from 1."""
    if any(name is not None for name in getattr(getattr(source, "index", None), "names", ())):
        source = source.reset_index()  # turns a named index of pandas into columns
    for method, options in (("itertuples", {"index": False, "name": None}), ("iter_rows", {})):
        if hasattr(source, "columns") and hasattr(source, method):
            rows = [(0, source.columns), *enumerate(getattr(source, method)(**options), 1)]
            yield from table(((number, dict(enumerate(cells, 1))) for number, cells in rows), "the data frame")
            return
    for number, content in enumerate(source, 1):
        yield Row(number, content)


@frozen
class _Name:
    """The name of a file that is saved for a row, without extension."""

    row: int
    name: str
    header: str | None  # of the cell with the name; None for a default name
    what: str = "video"


@frozen
class _Layout:
    """The meaning of the keys of a row. Determined once for all rows with the same keys.

    Attributes:
        ours: The columns of a job: the key of the cell, and its header as written.
        extra: The other columns, in the same form.
        nameless: The columns without a header: key, column number, and whether the column comes before all headers.
        headers: All headers.
        problems: The errors in headers: header and message.
    """

    ours: dict[str, tuple[Any, str]]
    extra: list[tuple[Any, str]]
    nameless: list[tuple[Any, int, bool]]
    headers: list[str]
    problems: list[tuple[str, str]]

    @classmethod
    def of(cls, keys: Iterable[Any], *, of_job: bool) -> _Layout:
        """Determine the meaning of keys. The extra columns of a job are extra, whatever their names."""
        found = cls({}, [], [], [], [])
        for place, key in enumerate(keys, 1):
            header = "" if key is None else strip(str(key))
            column = None if of_job and header not in COLUMNS else column_of(header)
            if not header:
                found.nameless.append((key, place, not found.headers))
                continue
            found.headers.append(header)
            if column is None:
                found.extra.append((key, header))
                found.problems.extend((escape(header), problem) for problem in _unwritable(header))
            elif column in found.ours:
                found.problems.append((escape(header), repeated_column(column, (found.ours[column][1], header))))
            else:
                found.ours[column] = key, escape(header)
        return found

    @property
    def names_jobs(self) -> bool:
        """Whether one of the columns is required of a job."""
        return not {"audio_url", "text", "model_id", "pose_id"}.isdisjoint(self.ours)


@define
class _Unnamed:
    """The cells of a column without a header."""

    row: int
    cell: Any
    is_index: bool  # whether its cells are increasing numbers, as in the index of a data frame
    count: int = 0
    last: int = -1

    def add(self, cell: Any) -> None:
        """Add a cell."""
        self.count += 1
        number = _index(cell)
        self.is_index = self.is_index and number > self.last
        self.last = number

    def error(self, place: int) -> RowError:
        """Return the error of the column."""
        problem = f"{_shown(self.cell)} is in a column without a header"
        if self.count > 1:
            problem += f", and so {'is 1 more cell' if self.count == 2 else f'are {self.count - 1} more cells'}"
        if place == 1:
            problem += "; write a data frame with index=False"
        return RowError(self.row, f"cell {place}", problem)


@define
class _Reader:
    resolve: Resolve | None
    speakers: Speakers | None
    jobs: list[Job] = field(factory=list)
    rows: list[int] = field(factory=list)
    errors: list[RowError] = field(factory=list)
    names: list[_Name] = field(factory=list)
    # Rows without a job, until a row with one follows: at the end they are skipped, as leftovers of a spreadsheet.
    unfilled: list[tuple[Row, Mapping[Any, Any], _Layout, dict[str, Any]]] = field(factory=list)
    layouts: dict[tuple[Any, ...], _Layout] = field(factory=dict)
    named: dict[str, set[str]] = field(factory=lambda: {"model_id": set(), "pose_id": set()})
    unnamed: dict[int, _Unnamed] = field(factory=dict)
    # Errors that rows share: the first one, and the number of rows.
    shared: dict[Any, tuple[RowError, int]] = field(factory=dict)
    # Errors of rows that lack a column altogether, by the alternative columns of which one is required.
    without: dict[tuple[str, ...], list[RowError]] = field(factory=dict)
    place: int = 0

    def read(self, row: Row) -> None:
        """Add the job of a row, or its errors."""
        content = _mapping(row.content)
        if content is None:
            self._add_shared(
                "",
                RowError(row.number, None, f"a row must be a mapping of columns to cells, got {_shown(row.content)}"),
            )
            return
        keys = (isinstance(row.content, Job), *content)
        layout = self.layouts.get(keys) or self.layouts.setdefault(keys, _Layout.of(keys[1:], of_job=keys[0]))
        cells = {column: content[key] for column, (key, _) in layout.ours.items() if not is_blank(content[key])}
        if layout.names_jobs and (not cells or (cells.keys() == {"with_mask"} and _is_off(cells["with_mask"]))):
            if not _is_empty(row, content):
                self.unfilled.append((row, content, layout, cells))
            return
        if not cells and _is_empty(row, content):
            return
        for earlier in self.unfilled:
            self._take(*earlier)
        self.unfilled.clear()
        self._take(row, content, layout, cells)

    def all_errors(self) -> list[RowError]:
        """Return all errors in the order of the rows."""
        errors = [
            *(column.error(place) for place, column in self.unnamed.items() if not column.is_index),
            *(_of_several(error, count) for error, count in self.shared.values()),
            *self._lacking(),
            *self.errors,
            *self._collisions(),
        ]
        return sorted(errors, key=lambda error: error.row or 0)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of jobs that there are."""
        return frozenset(column for layout in self.layouts.values() for column in layout.ours)

    @property
    def misspelled(self) -> dict[str, str]:
        """The headers that may be misspellings of optional columns that no row has."""
        missing = _OPTIONAL - self.columns
        extra = dict.fromkeys(header for layout in self.layouts.values() for _, header in layout.extra)
        compared = islice(extra, _MOST_COMPARED)
        return {header: column for header in compared if (column := similar_column(header, missing))}

    def _take(self, row: Row, content: Mapping[Any, Any], layout: _Layout, cells: Mapping[str, Any]) -> None:
        for header, problem in layout.problems:
            self._add_shared((header, problem), RowError(row.number, header, problem))
        self._take_unnamed(row, content, layout)
        extra: dict[str, Any] = {}
        if {"audio_url", "text"} <= cells.keys() and "voice_name" not in cells:
            # Words about the recording, such as its transcript: without a voice, nothing can be spoken.
            extra[layout.ours["text"][1]] = cells["text"]
            cells = {column: cell for column, cell in cells.items() if column != "text"}
        is_whole = self._check_presence(row, cells, layout)
        found: list[RowError] = []
        values: dict[str, Any] = {}
        for column, cell in cells.items():
            try:
                values[column] = self._value(column, cell)
            except ValueError as error:
                found.append(RowError(row.number, layout.ours[column][1], str(error)))
        for key, header in layout.extra:
            extra[header] = cell = content[key]
            if isinstance(cell, str) and not (cell.isascii() and cell.isprintable() and type(cell) is str):
                extra[header] = str(cell)
                found += [RowError(row.number, escape(header), problem) for problem in _unwritable(cell)]
        if is_whole and not found and not layout.problems:
            self._make(row, values, extra, layout)
        else:
            self.errors += found + _wrong(row, values, layout)
        if ("name" in cells) == ("name" in values):
            self._name(row, values, layout)
        self.place += 1

    def _make(self, row: Row, values: dict[str, Any], extra: dict[str, Any], layout: _Layout) -> None:
        try:
            self.jobs.append(Job(**values, extra=extra))
            self.rows.append(row.number)
        except ValueError as error:
            # Each cell may be valid, and the combination not.
            self.errors += _wrong(row, values, layout) or [RowError(row.number, None, str(error))]

    def _take_unnamed(self, row: Row, content: Mapping[Any, Any], layout: _Layout) -> None:
        cells = [(place, place < row.first, cell) for place, cell in row.stray.items()]
        for key, place, is_first in layout.nameless:
            # `csv.DictReader` collects the cells beyond the header in a list.
            several = content[key] if isinstance(content[key], list) else [content[key]]
            cells += [(place + further, is_first, cell) for further, cell in enumerate(several) if not is_blank(cell)]
        for place, is_first, cell in cells:
            self.unnamed.setdefault(place, _Unnamed(row.number, cell, is_first)).add(cell)

    def _check_presence(self, row: Row, cells: Mapping[str, Any], layout: _Layout) -> bool:
        is_whole = True
        speech = ("voice_name",) if "text" in cells else ("audio_url", "text")
        for columns in (speech, ("model_id", "pose_id")):
            if cells.keys().isdisjoint(columns):
                is_whole = False
                headers = [layout.ours[column][1] for column in columns if column in layout.ours]
                error = RowError(row.number, " or ".join(headers or columns[:1]), "it is missing or empty")
                (self.errors if headers else self.without.setdefault(columns, [])).append(error)
        return is_whole

    def _lacking(self) -> Iterator[RowError]:
        """Yield the errors of missing columns: a single one if no row has the column."""
        found = {column for layout in self.layouts.values() for column in layout.ours}
        headers = dict.fromkeys(header for layout in self.layouts.values() for header in layout.headers)
        for columns, errors in self.without.items():
            if len(errors) > 1 and found.isdisjoint(columns):
                others = f"; the columns are {listed(headers)}" if headers else ", and no column has a header"
                problem = f"no row has this column{others}"
                yield RowError(None, " or ".join(columns), problem)
            else:
                yield from errors

    def _value(self, column: str, cell: Any) -> Any:
        if column == "with_mask":
            return _flag(cell)
        if column == "options":
            return cell if isinstance(cell, Mapping) else _json_object(_text(cell))
        text = _text(cell)
        if column == "text":
            return text
        if found := find_invisible(text, is_name=column == "name"):
            raise ValueError(f"it contains {found}: delete it, or retype the text")
        if column == "audio_url" and self.resolve:
            return self.resolve(text)
        if column not in self.named:
            return text
        self.named[column].add(text)
        return self.speakers.resolve(column, text) if self.speakers else text

    def _name(self, row: Row, values: Mapping[str, Any], layout: _Layout) -> None:
        name = values.get("name") or default_name(self.place)
        header = layout.ours["name"][1] if "name" in values else None
        self.names.append(_Name(row.number, name, header))
        if values.get("with_mask") is True:
            self.names.append(_Name(row.number, mask_name(name), header, "mask"))

    def _add_shared(self, cause: Any, error: RowError) -> None:
        first, count = self.shared.get(cause, (error, 0))
        self.shared[cause] = first, count + 1

    def _collisions(self) -> Iterator[RowError]:
        """Yield the errors of files that would have the same name."""
        taken: dict[str, _Name] = {}
        for name in self.names:
            other = taken.setdefault(name_key(name.name), name)
            if other is not name:
                # At least one of the two has a name of its own, because default names are distinct.
                changed, kept = (name, other) if name.header else (other, name)
                owner = f"row {kept.row}" if kept.header else f"row {kept.row} (by default {kept.name})"
                what = f"the name of its mask, {changed.name!r}," if changed.what == "mask" else repr(changed.name)
                problem = f"{what} is also the name of the {kept.what} of {owner}"
                yield RowError(changed.row, changed.header, problem)


def _mapping(content: Any) -> Mapping[Any, Any] | None:
    """Return the cells of a row by header; ``None`` if it is not a row."""
    if isinstance(content, Mapping):
        return content
    if isinstance(content, Job):
        cells = {column: getattr(content, column) for column in COLUMNS}
        return {**cells, **content.extra}
    if hasattr(content, "_asdict"):  # named tuples, rows of SQLAlchemy
        found: Mapping[Any, Any] = content._asdict()
        return found
    if hasattr(content, "keys") and hasattr(content, "__getitem__"):  # `sqlite3.Row`, `pandas.Series`
        return {key: content[key] for key in content.keys()}  # noqa: SIM118  # they iterate over their cells
    return None


def _is_empty(row: Row, content: Mapping[Any, Any]) -> bool:
    return not row.stray and all(
        all(map(is_blank, cell)) if isinstance(cell, list) else is_blank(cell) for cell in content.values()
    )


def _of_several(error: RowError, count: int) -> RowError:
    if count == 1:
        return error
    return RowError(
        error.row, error.column, f"{error.problem} (and so in {count - 1} more {'row' if count == 2 else 'rows'})"
    )


def _wrong(row: Row, values: Mapping[str, Any], layout: _Layout) -> list[RowError]:
    found = []
    for column in values:
        try:
            _CHECKS[column](values[column])
        except ValueError as error:
            found.append(RowError(row.number, layout.ours[column][1], str(error)))
    return found


def _unwritable(text: str) -> Iterator[str]:
    if found := find_unwritable(text):
        yield f"there is {found}"


def _shown(value: Any) -> str:
    return escape(f"{redacted_repr(value) if isinstance(value, str) else redact_url(_said(repr, value)):.80}")


def _said(convert: Callable[[Any], str], value: Any) -> str:
    try:
        return convert(value)
    except Exception:  # noqa: BLE001  # a class of the caller may raise anything
        return f"a value of type {type(value).__name__}"


def _plain_number(cell: Any) -> Any:
    """Return a whole number of any type as an ``int``: spreadsheets and data frames turn integers into floats."""
    if isinstance(cell, (bool, int)) or not isinstance(cell, (numbers.Real, Decimal)):
        return cell
    number: Any = cell
    try:
        if isinstance(cell, Decimal) and cell.adjusted() > _MOST_DIGITS:
            return cell
        return int(number) if int(number) == number else number
    except (ValueError, ArithmeticError):  # not a number, or infinite
        return number


def _is_finite(number: Any) -> bool:
    if isinstance(number, bool):
        return False
    return (
        number.is_finite()
        if isinstance(number, Decimal)
        else isinstance(number, numbers.Real) and math.isfinite(number)
    )


def _index(cell: Any) -> int:
    """Return the number in a cell of an index; -1 if there is none."""
    if isinstance(cell, str) and cell.isascii() and cell.isdecimal() and len(cell) < 16:
        return int(cell)
    number = _plain_number(cell)
    return number if isinstance(number, int) and not isinstance(number, bool) else -1


def _text(cell: Any) -> str:
    """Return the text of a cell. Spreadsheets and data frames turn text that looks like a number or a date into one."""
    if isinstance(cell, CellError):
        words = f"the cell shows the error {escape(cell)}" if cell else "the formula was never calculated"
        raise ValueError(  # noqa: TRY004  # as for all of a job
            f"{words}: correct it in a spreadsheet program and save the workbook again"
        )
    if isinstance(cell, (str, os.PathLike)):
        return str(cell).strip()
    number = _plain_number(cell)
    if isinstance(number, int) and not isinstance(number, bool):
        if not isinstance(cell, (numbers.Integral, Decimal)) and abs(number) >= _ROUNDED:
            raise ValueError(f"a number with so many digits is rounded ({number}): format the cell as text")
        return str(number)
    if _is_finite(number):
        return str(number)
    if isinstance(cell, dt.datetime):
        return (cell if cell.time() != dt.time() else cell.date()).isoformat()
    if isinstance(cell, (dt.date, dt.time)):
        return cell.isoformat()
    raise ValueError(f"it must be text, got {_shown(cell)}")


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, Mapping):
        raise ValueError(f'it must be a JSON object such as {{"fps": 30}}, got {_shown(text)}')  # noqa: TRY004  # as other cells
    return value


def _flag(cell: Any) -> bool:
    flag = _FLAGS.get(strip(_said(str, _plain_number(cell))).casefold())
    if flag is None:
        raise ValueError(f"it must be true or false, got {_shown(cell)}")
    return flag


def _is_off(cell: Any) -> bool:
    try:
        return not _flag(cell)
    except ValueError:
        return False
