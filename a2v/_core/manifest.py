"""Rows become jobs, or all the faults that keep them from it. The bytes of a file become rows in ``tables.py``."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

from a2v._core.models import Fault, Job
from a2v._core.tables import Row, column_of, is_blank

Resolve = Callable[[str], str]

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_URL = "https://example.com/a"
# What is wrong with one cell, whatever is wrong with the others.
_CHECKS: dict[str, Callable[[Any], Job]] = {
    "model_id": lambda value: Job(value, _URL),
    "pose_id": lambda value: Job(pose_id=value, audio_url=_URL),
    "audio_url": lambda value: Job("m", value),
    "name": lambda value: Job("m", _URL, value),
    "with_mask": lambda value: Job(pose_id="p", audio_url=_URL, with_mask=value),
}


@frozen
class Manifest:
    """What a manifest says.

    Attributes:
        jobs: The jobs, in the order of the rows.
        rows: For each job, the number of its row.
        faults: All that is wrong, in the order of the rows. With any, `jobs` is not complete.
    """

    jobs: list[Job]
    rows: list[int]
    faults: tuple[Fault, ...]


def read_rows(rows: Iterable[Row | Fault], resolve: Resolve | None = None) -> Manifest:
    """Make a job of each row.

    Args:
        rows: The rows, and what was found wrong in reading them.
        resolve: Makes a URL of the ``audio_url`` that is written in a row, or raises ``ValueError``.
    """
    reader = _Reader(resolve)
    for row in rows:
        if isinstance(row, Fault):
            reader.faults.append(row)
        else:
            reader.read(row)
    faults = [*reader.faults, *reader.collisions()]
    in_order = sorted(faults, key=lambda fault: fault.row or 0)
    return Manifest(reader.jobs, reader.rows, tuple(in_order))


def mappings(rows: Iterable[Any]) -> Iterator[Row | Fault]:
    """Rows of Python's own, counted from 1."""
    for number, cells in enumerate(rows, 1):
        if isinstance(cells, Mapping):
            yield Row(number, cells)
        else:
            yield Fault(number, None, f"a row is a mapping of columns to cells, and not {cells!r:.80}")


def file_names(jobs: Iterable[Job]) -> list[str]:
    """The name of each job's file, without extension: its own, or its place in the batch, the first being ``0001``."""
    return [job.name or _default_name(place) for place, job in enumerate(jobs)]


def same_file(name: str) -> str:
    """What two names have in common that some file system does not tell apart: case, and how accents are composed."""
    return unicodedata.normalize("NFC", name.casefold())


def _default_name(place: int) -> str:
    return f"{place + 1:04d}"


@frozen
class _Name:
    """What the video of a row is saved as, and the header of the cell that says so, if one does."""

    row: int
    name: str
    header: str | None


@define
class _Reader:
    resolve: Resolve | None
    jobs: list[Job] = field(factory=list)
    rows: list[int] = field(factory=list)
    faults: list[Fault] = field(factory=list)
    names: list[_Name] = field(factory=list)
    place: int = 0

    def read(self, row: Row) -> None:
        """Add what a row says: a job, or what is wrong with it."""
        cells, headers, extra = self._sort_out(row)
        found = list(_missing(row, cells, headers))
        values: dict[str, Any] = {}
        for column, cell in cells.items():
            try:
                values[column] = self._value(column, cell)
            except ValueError as error:
                found.append(Fault(row.number, headers[column], str(error)))
        if not found:
            try:
                self.jobs.append(Job(**values, extra=extra))
                self.rows.append(row.number)
            except ValueError as error:
                found = [Fault(row.number, headers[column], problem) for column, problem in _wrong(values)]
                # Each cell may be right and two of them not go together.
                found = found or [Fault(row.number, None, str(error))]
        else:
            found += [Fault(row.number, headers[column], problem) for column, problem in _wrong(values)]
        self.faults += found
        if ("name" in cells) == ("name" in values):
            name = values.get("name") or _default_name(self.place)
            self.names.append(_Name(row.number, name, headers["name"] if "name" in values else None))
        self.place += 1

    def _sort_out(self, row: Row) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """The cells by our names of the columns, the headers by the same, and the cells of other columns."""
        cells: dict[str, Any] = {}
        headers: dict[str, str] = {}
        extra: dict[str, Any] = {}
        for key, cell in row.cells.items():
            header = str(key).strip()
            column = column_of(header)
            if column is None:
                extra[header] = cell
            elif column in headers:
                self.faults.append(Fault(row.number, header, f"it is the same column as {headers[column]!r}"))
            else:
                headers[column] = header
                if not is_blank(cell):
                    cells[column] = cell
        return cells, headers, extra

    def _value(self, column: str, cell: Any) -> Any:
        if column == "with_mask":
            return _flag(cell)
        text = _text(cell)
        return self.resolve(text) if column == "audio_url" and self.resolve else text

    def collisions(self) -> Iterator[Fault]:
        """Videos that would be saved under one name."""
        taken: dict[str, _Name] = {}
        for name in self.names:
            other = taken.setdefault(same_file(name.name), name)
            if other is not name:
                # One of the two has a cell to be changed, as default names differ from each other.
                changed, kept = (name, other) if name.header else (other, name)
                owner = (
                    f"row {kept.row}"
                    if kept.header
                    else f"row {kept.row}, which has none and so is called {kept.name},"
                )
                problem = f"{changed.name!r} is the name of the video of {owner} too"
                yield Fault(changed.row, changed.header, problem)


def _missing(row: Row, cells: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[Fault]:
    if "audio_url" not in cells:
        yield Fault(row.number, headers.get("audio_url", "audio_url"), "it is missing or empty")
    if "model_id" not in cells and "pose_id" not in cells:
        either = [headers[column] for column in ("model_id", "pose_id") if column in headers] or ["model_id"]
        yield Fault(row.number, " or ".join(either), "it is missing or empty")


def _wrong(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for column in values:
        try:
            _CHECKS[column](values[column])
        except ValueError as error:
            yield column, str(error)


def _text(cell: Any) -> str:
    """What a cell says where a text is wanted: a spreadsheet makes numbers of what looks like one."""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        raise ValueError(f"a text is wanted here, and not {cell!r:.80}")  # noqa: TRY004  # as for all of a job
    if isinstance(cell, float) and abs(cell) >= 1e15:
        raise ValueError(f"a number of so many digits ({cell:.0f}) is rounded: make the cell a text")
    return str(int(cell) if cell == int(cell) else cell)


def _flag(cell: Any) -> bool:
    flag = _FLAGS.get(str(cell).strip().casefold())
    if flag is None:
        raise ValueError(f"it is true or false, and not {cell!r:.80}")
    return flag
