"""Rows become jobs, or all the faults that keep them from it. The bytes of a file become rows in ``tables.py``.

Every kind of source goes through ``read_rows``, which decides what counts as blank, as a header, as a number or a flag. A
fault with one cause is reported once: for a missing column, say, and not for each row that lacks it.
"""

from __future__ import annotations

import datetime as dt
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from attrs import define, field, frozen

from a2v._core.file_names import default_name, mask_name, name_key
from a2v._core.manifest_rows import COLUMNS, Hidden, Row, column_of, is_blank, listed, table
from a2v._core.workbook import MAX_CELLS, CellError
from a2v._values.jobs import Job
from a2v._values.models import RowError
from a2v._values.text import escape, find_invisible, find_unwritable, redact_url, redacted_repr, strip

Resolve = Callable[[str], str]

_FLAGS = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
_URL = "https://example.com/a"
# What is wrong with one cell, whatever is wrong with the others.
_CHECKS: dict[str, Callable[[Any], Job]] = {
    "model_id": lambda value: Job(value, _URL),
    "pose_id": lambda value: Job(pose_id=value, audio_url=_URL),
    "audio_url": lambda value: Job("m", value),
    "name": lambda value: Job("m", _URL, value),
    "with_mask": lambda value: Job(pose_id="p", audio_url=_URL, with_mask=value),
}
# From here on, a float does not hold each whole number.
_ROUNDED = 10**15
# A decimal number may have a billion digits, which are not to be written out.
_MOST_DIGITS = 100
_MOST_LISTED = 10


@frozen
class Manifest:
    """What a manifest says.

    Attributes:
        jobs: The jobs, in the order of the rows.
        rows: For each job, the number of its row.
        faults: All that is wrong, in the order of the rows. With any, `jobs` is not complete.
        hidden: The numbers of rows that were left out because a workbook hides them.
    """

    jobs: list[Job]
    rows: list[int]
    faults: tuple[RowError, ...]
    hidden: list[int] = field(factory=list)


def read_rows(
    rows: Iterable[Row | RowError | Hidden], resolve: Resolve | None = None, *, is_file: bool = False
) -> Manifest:
    """Make a job of each row.

    Args:
        rows: The rows, and what was found wrong in reading them.
        resolve: Makes a URL of the ``audio_url`` that is written in a row, or raises ``ValueError``.
        is_file: Whether the rows come from a file, so that their number is bounded and there must be one.
    """
    reader = _Reader(resolve)
    cells = 0
    hidden: list[int] = []
    for row in rows:
        if isinstance(row, Hidden):
            hidden = row.numbers
            continue
        if isinstance(row, RowError):
            reader.faults.append(row)
            continue
        cells += max(1, len(row.content) if isinstance(row.content, dict) else 1)
        if is_file and cells > MAX_CELLS:
            reader.faults.append(
                RowError(
                    row.number, None, f"it is too big for a manifest: more than {MAX_CELLS:,} cells (columns × rows)"
                )
            )
            break
        reader.read(row)
    faults = reader.all_faults()
    if not reader.jobs and not faults and (is_file or reader.unfilled):
        among = f" but in hidden rows, which are left out: {listed_rows(hidden)}" if hidden else ""
        faults = [RowError(None, None, f"there is no job in it{among}")]
    return Manifest(reader.jobs, reader.rows, tuple(faults), hidden)


def listed_rows(numbers: Sequence[int]) -> str:
    """Some numbers of rows, for a message."""
    more = f" and {len(numbers) - _MOST_LISTED} more" if len(numbers) > _MOST_LISTED else ""
    return ", ".join(map(str, numbers[:_MOST_LISTED])) + more


def rows_of(source: Any) -> Iterator[Row | RowError | Hidden]:
    """Rows of Python's own, counted from 1: of a data frame, or of an iterable of whatever ``read_rows`` takes for a row."""
    if any(name is not None for name in getattr(getattr(source, "index", None), "names", ())):
        source = source.reset_index()  # pandas keeps such columns apart
    for method, options in (("itertuples", {"index": False, "name": None}), ("iter_rows", {})):
        if hasattr(source, "columns") and hasattr(source, method):
            rows = [(0, source.columns), *enumerate(getattr(source, method)(**options), 1)]
            yield from table(((number, dict(enumerate(cells, 1))) for number, cells in rows), "the data frame")
            return
    for number, content in enumerate(source, 1):
        yield Row(number, content)


@frozen
class _Name:
    """The name of a file that a row leads to, without extension."""

    row: int
    name: str
    header: str | None  # of the cell with the name; None for a name by the row's place
    what: str = "video"


@frozen
class _Layout:
    """What the keys of a row mean. Most rows of a manifest have the same keys, so it is found out once.

    Attributes:
        ours: Our columns: the key of the cell, and its header as it is written.
        extra: The other columns, in the same way.
        nameless: The columns without a header: the key and number of each, and whether it stands before all others.
        headers: All headers.
        problems: What is wrong with the headers, by header.
    """

    ours: dict[str, tuple[Any, str]]
    extra: list[tuple[Any, str]]
    nameless: list[tuple[Any, int, bool]]
    headers: list[str]
    problems: list[tuple[str, str]]

    @classmethod
    def of(cls, keys: Iterable[Any]) -> _Layout:
        """Find out what the keys mean."""
        found = cls({}, [], [], [], [])
        for place, key in enumerate(keys, 1):
            header = "" if key is None else strip(str(key))
            column = column_of(header)
            if not header:
                found.nameless.append((key, place, not found.headers))
                continue
            found.headers.append(header)
            if column is None:
                found.extra.append((key, header))
                found.problems.extend((escape(header), problem) for problem in _unwritable(header))
            elif column in found.ours:
                found.problems.append((escape(header), f"it is the same column as {found.ours[column][1]!r}"))
            else:
                found.ours[column] = key, escape(header)
        return found

    @property
    def names_jobs(self) -> bool:
        """Whether there is a column that every job has."""
        return not {"audio_url", "model_id", "pose_id"}.isdisjoint(self.ours)


@define
class _Unnamed:
    """What stands in a column without a header."""

    row: int
    cell: Any
    is_index: bool  # as long as its cells are the numbers of the rows, more or less
    count: int = 0
    last: int = -1

    def add(self, cell: Any) -> None:
        """Add a cell."""
        self.count += 1
        number = _index(cell)
        self.is_index = self.is_index and number > self.last
        self.last = number

    def fault(self, place: int) -> RowError:
        """What is wrong with the column."""
        problem = f"{_shown(self.cell)} stands under no header"
        if self.count > 1:
            others = "does 1 more cell" if self.count == 2 else f"do {self.count - 1} more cells"
            problem += f", as {others} of this column"
        if place == 1:
            problem += "; a data frame is written without its index with index=False"
        return RowError(self.row, f"cell {place}", problem)


@define
class _Reader:
    resolve: Resolve | None
    jobs: list[Job] = field(factory=list)
    rows: list[int] = field(factory=list)
    faults: list[RowError] = field(factory=list)
    names: list[_Name] = field(factory=list)
    # Rows that name no job, until one follows that does: they may be what a spreadsheet leaves below a table.
    unfilled: list[tuple[Row, Mapping[Any, Any], _Layout, dict[str, Any]]] = field(factory=list)
    layouts: dict[tuple[Any, ...], _Layout] = field(factory=dict)
    unnamed: dict[int, _Unnamed] = field(factory=dict)
    # Faults with one cause: the first of them, and how many rows have it.
    shared: dict[Any, tuple[RowError, int]] = field(factory=dict)
    # Faults of rows that do not have a column at all, by the columns of which one is needed.
    without: dict[tuple[str, ...], list[RowError]] = field(factory=dict)
    place: int = 0

    def read(self, row: Row) -> None:
        """Add what a row says: a job, or what is wrong with it."""
        content = _mapping(row.content)
        if content is None:
            self._add_shared(
                "", RowError(row.number, None, f"a row is a mapping of columns to cells, and not {_shown(row.content)}")
            )
            return
        keys = tuple(content)
        layout = self.layouts.get(keys) or self.layouts.setdefault(keys, _Layout.of(keys))
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

    def all_faults(self) -> list[RowError]:
        """All that is wrong, in the order of the rows."""
        faults = [
            *(column.fault(place) for place, column in self.unnamed.items() if not column.is_index),
            *(_of_several(fault, count) for fault, count in self.shared.values()),
            *self._lacking(),
            *self.faults,
            *self._collisions(),
        ]
        return sorted(faults, key=lambda fault: fault.row or 0)

    def _take(self, row: Row, content: Mapping[Any, Any], layout: _Layout, cells: Mapping[str, Any]) -> None:
        for header, problem in layout.problems:
            self._add_shared((header, problem), RowError(row.number, header, problem))
        self._take_unnamed(row, content, layout)
        is_whole = self._check_presence(row, cells, layout)
        found: list[RowError] = []
        values: dict[str, Any] = {}
        for column, cell in cells.items():
            try:
                values[column] = self._value(column, cell)
            except ValueError as error:
                found.append(RowError(row.number, layout.ours[column][1], str(error)))
        extra: dict[str, Any] = {}
        for key, header in layout.extra:
            extra[header] = cell = content[key]
            if isinstance(cell, str) and not (cell.isascii() and cell.isprintable() and type(cell) is str):
                extra[header] = str(cell)
                found += [RowError(row.number, escape(header), problem) for problem in _unwritable(cell)]
        if is_whole and not found and not layout.problems:
            self._make(row, values, extra, layout)
        else:
            self.faults += found + _wrong(row, values, layout)
        if ("name" in cells) == ("name" in values):
            self._name(row, values, layout)
        self.place += 1

    def _make(self, row: Row, values: dict[str, Any], extra: dict[str, Any], layout: _Layout) -> None:
        try:
            self.jobs.append(Job(**values, extra=extra))
            self.rows.append(row.number)
        except ValueError as error:
            # Each cell may be right and two of them not go together.
            self.faults += _wrong(row, values, layout) or [RowError(row.number, None, str(error))]

    def _take_unnamed(self, row: Row, content: Mapping[Any, Any], layout: _Layout) -> None:
        cells = [(place, place < row.first, cell) for place, cell in row.stray.items()]
        for key, place, is_first in layout.nameless:
            # `csv.DictReader` makes a list of the cells beyond the header.
            several = content[key] if isinstance(content[key], list) else [content[key]]
            cells += [(place + further, is_first, cell) for further, cell in enumerate(several) if not is_blank(cell)]
        for place, is_first, cell in cells:
            self.unnamed.setdefault(place, _Unnamed(row.number, cell, is_first)).add(cell)

    def _check_presence(self, row: Row, cells: Mapping[str, Any], layout: _Layout) -> bool:
        is_whole = True
        for columns in (("audio_url",), ("model_id", "pose_id")):
            if cells.keys().isdisjoint(columns):
                is_whole = False
                headers = [layout.ours[column][1] for column in columns if column in layout.ours]
                fault = RowError(row.number, " or ".join(headers or columns[:1]), "it is missing or empty")
                (self.faults if headers else self.without.setdefault(columns, [])).append(fault)
        return is_whole

    def _lacking(self) -> Iterator[RowError]:
        """What is missing because the row has no such column: one fault if no row has it."""
        found = {column for layout in self.layouts.values() for column in layout.ours}
        headers = dict.fromkeys(header for layout in self.layouts.values() for header in layout.headers)
        for columns, faults in self.without.items():
            if len(faults) > 1 and found.isdisjoint(columns):
                others = f"; the columns are {listed(headers)}" if headers else ", and no column has a header"
                problem = f"no row has this column{others}"
                yield RowError(None, " or ".join(columns), problem)
            else:
                yield from faults

    def _value(self, column: str, cell: Any) -> Any:
        if column == "with_mask":
            return _flag(cell)
        text = _text(cell)
        if found := find_invisible(text, is_name=column == "name"):
            raise ValueError(f"it contains {found}: delete it, or type the text again")
        return self.resolve(text) if column == "audio_url" and self.resolve else text

    def _name(self, row: Row, values: Mapping[str, Any], layout: _Layout) -> None:
        name = values.get("name") or default_name(self.place)
        header = layout.ours["name"][1] if "name" in values else None
        self.names.append(_Name(row.number, name, header))
        if values.get("with_mask") is True:
            self.names.append(_Name(row.number, mask_name(name), header, "mask"))

    def _add_shared(self, cause: Any, fault: RowError) -> None:
        first, count = self.shared.get(cause, (fault, 0))
        self.shared[cause] = first, count + 1

    def _collisions(self) -> Iterator[RowError]:
        """Files that would be saved under one name."""
        taken: dict[str, _Name] = {}
        for name in self.names:
            other = taken.setdefault(name_key(name.name), name)
            if other is not name:
                # One of the two has a cell to be changed, as default names differ from each other.
                changed, kept = (name, other) if name.header else (other, name)
                owner = (
                    f"row {kept.row}"
                    if kept.header
                    else f"row {kept.row}, which has none and so is called {kept.name},"
                )
                what = (
                    f"its mask would be called {changed.name!r}, which"
                    if changed.what == "mask"
                    else repr(changed.name)
                )
                problem = f"{what} is the name of the {kept.what} of {owner} too"
                yield RowError(changed.row, changed.header, problem)


def _mapping(content: Any) -> Mapping[Any, Any] | None:
    """The cells of a row by their headers; ``None`` if it is no row."""
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


def _of_several(fault: RowError, count: int) -> RowError:
    if count == 1:
        return fault
    return RowError(
        fault.row, fault.column, f"{fault.problem} (and so in {count - 1} more {'row' if count == 2 else 'rows'})"
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
    except Exception:  # noqa: BLE001  # whatever a class of the caller raises
        return f"a value of type {type(value).__name__}"


def _plain_number(cell: Any) -> Any:
    """A number of whatever class as an ``int`` if it is whole: spreadsheets and data frames make floats of such."""
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
    """The number in a cell of an index; -1 if it is none."""
    if isinstance(cell, str) and cell.isascii() and cell.isdecimal() and len(cell) < 16:
        return int(cell)
    number = _plain_number(cell)
    return number if isinstance(number, int) and not isinstance(number, bool) else -1


def _text(cell: Any) -> str:
    """What a cell says where a text is wanted: spreadsheets and data frames make numbers and dates of what looks like one."""
    if isinstance(cell, CellError):
        words = f"the cell shows the error {escape(cell)}" if cell else "the formula was never calculated"
        raise ValueError(  # noqa: TRY004  # as for all of a job
            f"{words}: correct it in a spreadsheet program, and save the workbook again"
        )
    if isinstance(cell, (str, os.PathLike)):
        return str(cell).strip()
    number = _plain_number(cell)
    if isinstance(number, int) and not isinstance(number, bool):
        if not isinstance(cell, (numbers.Integral, Decimal)) and abs(number) >= _ROUNDED:
            raise ValueError(f"a number of so many digits ({number}) is rounded: make the cell a text")
        return str(number)
    if _is_finite(number):
        return str(number)
    if isinstance(cell, dt.datetime):
        return (cell if cell.time() != dt.time() else cell.date()).isoformat()
    if isinstance(cell, (dt.date, dt.time)):
        return cell.isoformat()
    raise ValueError(f"a text is wanted here, and not {_shown(cell)}")


def _flag(cell: Any) -> bool:
    flag = _FLAGS.get(strip(_said(str, _plain_number(cell))).casefold())
    if flag is None:
        raise ValueError(f"it is true or false, and not {_shown(cell)}")
    return flag


def _is_off(cell: Any) -> bool:
    try:
        return not _flag(cell)
    except ValueError:
        return False
