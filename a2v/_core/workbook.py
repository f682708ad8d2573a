"""Read the first visible sheet of an Excel workbook (.xlsx, .xlsm) from its bytes.

A workbook is a ZIP archive of XML parts: ``workbook.xml`` lists the sheets, relationships say which part holds each of them,
and cells refer to shared strings and number formats by index. The file may come from a stranger, so it is read with the
standard library alone and in small pieces: parts are unpacked 64 KiB at a time, expat parses them without document type
declarations, and only cells that hold a value take memory. The limits below bound the work. The result is rows or a
``WorkbookError``, for any input.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import re
from functools import lru_cache
from posixpath import basename, dirname, join, normpath
from typing import TYPE_CHECKING, Any, TypeVar
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

MAX_CELLS = 2_000_000
"""Maximum number of cells with a value in a sheet, and of shared strings in a workbook."""
MAX_TEXT = 100_000_000
"""Maximum number of characters in a sheet; a shared string counts once per cell that refers to it."""
MAX_UNPACKED = 256 << 20
"""Maximum size of the unpacked XML, in bytes."""
MAX_TAGS = 20_000_000
"""Maximum number of XML elements."""

# Excel's own limits.
_LAST_ROW, _LAST_COLUMN, _MAX_PIECES = 1_048_576, 16_384, 32_767
# The limit for parts with neither cells nor strings.
_FEW_TAGS = 1_000_000
_PIECE = 1 << 16
# Expat rescans an incomplete tag with each piece.
_MAX_TAG_LENGTH = 1 << 20
_MAX_DEPTH = 100
# The container of encrypted workbooks, and of .xls files.
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_TRUE = ("1", "true")
# The built-in number formats of dates and times, including the East Asian ones.
_DATE_FORMATS = {*range(14, 23), *range(27, 37), 45, 46, 47, *range(50, 59)}
_DURATION_FORMAT = 46
# The parts of a number format that are not placeholders: quoted and escaped text, padding, colours and locales.
_LITERAL = re.compile(r'"[^"]*"?|[\\_*].|\[(?!(?:h+|m+|s+)\])[^\]]*\]', re.IGNORECASE)
_DURATION = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE)


class WorkbookError(Exception):
    """The file is not a workbook that can be read."""


class CellError(str):
    """The error that a cell shows instead of a value, such as ``#REF!``; empty for a formula that was never calculated."""

    __slots__ = ()


@frozen
class Sheet:
    """A sheet.

    Attributes:
        name: The name on its tab.
        rows: The visible rows that hold a value: row number and cells by column number, both counted from 1.
        hidden: The numbers of the rows that hold a value and are hidden, usually by a filter.
    """

    name: str
    rows: list[tuple[int, dict[int, Any]]]
    hidden: list[int]


def read_sheet(data: bytes) -> Sheet:
    """Read the first visible sheet of a workbook that is not blank.

    Raises:
        WorkbookError: The file is not a workbook, is damaged, or exceeds a limit.
    """
    if data.startswith(_OLE):
        raise WorkbookError("it has a password or an older format (.xls): save it as .xlsx, without a password")
    archive = _Archive(data)
    book_part = archive.related("").first("officeDocument") or "xl/workbook.xml"
    related = archive.related(book_part)
    book = archive.read(book_part, _BookPart())
    strings = archive.read_optional(related.first("sharedStrings"), _StringsPart())
    styles = archive.read_optional(related.first("styles"), _StylesPart())
    blank = None
    for name, part in _visible_sheets(book, related):
        cells = archive.read(part, _SheetPart(strings.strings, styles.formats, is_1904=book.is_1904))
        sheet = Sheet(name, cells.rows, cells.hidden)
        if sheet.rows or sheet.hidden:
            return sheet
        blank = blank or sheet
    if blank is None:
        raise WorkbookError("it has no visible worksheet")
    return blank


def _visible_sheets(book: _BookPart, related: _RelationsPart) -> Iterator[tuple[str, str]]:
    """Yield name and part of each sheet, except hidden sheets, charts and macros."""
    for name, state, relation in book.sheets:
        kind, part = related.targets.get(relation, ("", ""))
        if kind == "worksheet" and state not in ("hidden", "veryHidden"):
            yield name, part


def _damaged(reason: object) -> WorkbookError:
    return WorkbookError(f"it is not a workbook that can be read ({reason})")


class _Archive:
    """The parts of a workbook. Their names are case-insensitive, and some programs write backslashes in them."""

    def __init__(self, data: bytes) -> None:
        self._zip = _unzip(lambda: ZipFile(io.BytesIO(data)))
        self._members = {_part_name(member.filename): member for member in self._zip.infolist()}
        self._bytes_left = MAX_UNPACKED
        self._tags_left = MAX_TAGS

    def related(self, part: str) -> _RelationsPart:
        """Return the relationships of a part."""
        relations = join(dirname(part), "_rels", f"{basename(part)}.rels")
        return self.read_optional(relations, _RelationsPart(dirname(part)))

    def read_optional(self, part: str | None, into: P) -> P:
        """Parse a part if the workbook has it."""
        return into if part is None or _part_name(part) not in self._members else self.read(part, into)

    def read(self, part: str, into: P) -> P:
        """Parse a part."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        depth = 0
        fewest_left = max(0, self._tags_left - into.max_tags)

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            self._tags_left -= 1
            if depth > _MAX_DEPTH:
                raise _damaged("its XML is nested too deeply")
            if self._tags_left < fewest_left:
                raise WorkbookError(f"it is too big for a manifest: more than {into.max_tags:,} XML elements")
            # Programs differ in the prefix of the namespace.
            into.start(name.rpartition(":")[2], attributes)

        def end(name: str) -> None:
            nonlocal depth
            depth -= 1
            into.end(name.rpartition(":")[2])

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = into.text
        parser.StartDoctypeDeclHandler = _refuse_doctype
        given = 0
        try:
            for piece in self._pieces(part):
                parser.Parse(piece)
                given += len(piece)
                if given - parser.CurrentByteIndex > _MAX_TAG_LENGTH:
                    raise _damaged("an XML tag of more than 1 MiB")
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError, LookupError) as error:  # the last two for an unknown encoding
            raise _damaged(error) from None
        return into

    def _pieces(self, part: str) -> Iterator[bytes]:
        member = self._members.get(_part_name(part))
        if member is None:
            raise _damaged(f"it has no part {part[:100]!r}")
        if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            # `zipfile` unpacks members of other types as a whole.
            raise _damaged("its compression is not one that Excel uses")
        file = _unzip(lambda: self._zip.open(member))
        while piece := _unzip(lambda: file.read(_PIECE)):
            self._bytes_left -= len(piece)
            if self._bytes_left < 0:
                raise WorkbookError(f"it is too big for a manifest: more than {MAX_UNPACKED >> 20} MiB unpacked")
            yield piece


def _unzip(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # `zipfile` raises a dozen kinds of errors for damaged archives
        raise _damaged(error) from None


def _part_name(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").casefold()


def _refuse_doctype(*_: object) -> None:
    raise _damaged("it has a document type declaration")


class _Part:
    """Receives the XML of a part: the local names of elements, and text."""

    max_tags = _FEW_TAGS

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Text within an element, perhaps in several pieces."""


P = TypeVar("P", bound=_Part)


class _RelationsPart(_Part):
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.targets: dict[str, tuple[str, str]] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Relationship" and attributes.get("TargetMode") != "External":
            kind = attributes.get("Type", "").rpartition("/")[2]
            target = normpath(join("/", self._folder, attributes.get("Target", "")))
            self.targets[attributes.get("Id", "")] = kind, target

    def first(self, kind: str) -> str | None:
        """The first part of a kind."""
        return next((target for found, target in self.targets.values() if found == kind), None)


class _BookPart(_Part):
    def __init__(self) -> None:
        self.sheets: list[tuple[str, str, str]] = []
        self.is_1904 = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "sheet":
            relation = next((value for key, value in attributes.items() if key.endswith(":id")), "")
            self.sheets.append((attributes.get("name", ""), attributes.get("state", ""), relation))
        elif tag == "workbookPr":
            self.is_1904 = attributes.get("date1904") in _TRUE


class _StringsPart(_Part):
    max_tags = MAX_TAGS

    def __init__(self) -> None:
        self.strings: list[str] = []
        self._pieces: list[str] = []
        self._is_text = self._is_phonetic = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: ARG002
        if tag == "si":
            self._pieces = []
        elif tag == "rPh":
            self._is_phonetic = True
        elif tag == "t":
            self._is_text = not self._is_phonetic

    def end(self, tag: str) -> None:
        if tag == "t":
            self._is_text = False
        elif tag == "rPh":
            self._is_phonetic = False
        elif tag == "si":
            _check_count(len(self.strings))
            self.strings.append(_unescaped("".join(self._pieces)))

    def text(self, text: str) -> None:
        if self._is_text:
            _check_pieces(self._pieces)
            self._pieces.append(text)


class _StylesPart(_Part):
    """The cell styles that show a number as a date (``"date"``) or a duration (``"duration"``)."""

    def __init__(self) -> None:
        self.formats: list[str] = []
        self._codes: dict[str, str] = {}
        self._within = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in ("numFmts", "cellXfs"):
            self._within = tag
        elif tag == "numFmt" and self._within == "numFmts":
            self._codes[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")
        elif tag == "xf" and self._within == "cellXfs":
            self.formats.append(self._format(attributes.get("numFmtId", "")))

    def end(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""

    def _format(self, number: str) -> str:
        code = self._codes.get(number)
        if code is None:
            found = _index(number or "0")
            return "duration" if found == _DURATION_FORMAT else "date" if found in _DATE_FORMATS else ""
        placeholders = _LITERAL.sub("", code.partition(";")[0])
        if _DURATION.search(placeholders):
            return "duration"
        return "date" if re.search(r"[ymdhs]", placeholders, re.IGNORECASE) else ""


class _SheetPart(_Part):
    max_tags = MAX_TAGS

    def __init__(self, strings: list[str], formats: list[str], *, is_1904: bool) -> None:
        self.rows: list[tuple[int, dict[int, Any]]] = []
        self.hidden: list[int] = []
        self._strings, self._formats, self._is_1904 = strings, formats, is_1904
        self._readers: dict[str | None, Callable[[str], Any]] = {
            None: self._number,
            "n": self._number,
            "s": self._shared,
            "b": _TRUE.__contains__,
            "e": CellError,
            "d": str,
        }
        self._cells: dict[int, Any] | None = None
        self._row = self._column = self._count = self._characters = 0
        self._row_text = ""
        self._is_hidden = False
        # The state of the current cell.
        self._kind: str | None = None
        self._style = "0"
        self._pieces: list[str] = []
        self._is_text = self._is_phonetic = self._is_formula = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._cells is None:
            if tag == "row":
                self._start_row(attributes)
        elif tag == "c":
            self._start_cell(attributes)
        elif tag == "v":
            self._is_text = True
        elif tag == "t":
            self._is_text = not self._is_phonetic
        elif tag == "f":
            self._is_formula = True
        elif tag == "rPh":
            self._is_phonetic = True

    def text(self, text: str) -> None:
        if self._is_text:
            _check_pieces(self._pieces)
            self._pieces.append(text)

    def end(self, tag: str) -> None:
        if self._cells is None:
            return
        if tag in ("v", "t"):
            self._is_text = False
        elif tag == "c":
            self._end_cell(self._cells)
        elif tag == "rPh":
            self._is_phonetic = False
        elif tag == "row":
            self._end_row(self._cells)

    def _start_row(self, attributes: dict[str, str]) -> None:
        number = attributes.get("r")
        row = self._row + 1 if number is None else _index(number)
        if not self._row < row <= _LAST_ROW:
            raise _damaged(f"row {row} follows row {self._row}")
        self._row, self._row_text, self._column = row, str(row), 0
        self._is_hidden = attributes.get("hidden") in _TRUE
        self._cells = {}

    def _end_row(self, cells: dict[int, Any]) -> None:
        if cells and self._is_hidden:
            self.hidden.append(self._row)
        elif cells:
            self.rows.append((self._row, cells))
        self._cells = None

    def _start_cell(self, attributes: dict[str, str]) -> None:
        place = attributes.get("r")
        column = self._column + 1 if place is None else _column(place.removesuffix(self._row_text)[:4])
        if not self._column < column <= _LAST_COLUMN:
            raise _damaged(f"cell {str(place)[:20]!r} is out of order in row {self._row}")
        self._column = column
        self._kind, self._style = attributes.get("t"), attributes.get("s", "0")
        self._pieces = []
        self._is_formula = False

    def _end_cell(self, cells: dict[int, Any]) -> None:
        value = self._value("".join(self._pieces))
        if value is None:
            return
        _check_count(self._count)
        self._count += 1
        self._characters += len(value) if isinstance(value, str) else 0
        if self._characters > MAX_TEXT:
            raise WorkbookError(f"it is too big for a manifest: more than {MAX_TEXT:,} characters")
        cells[self._column] = value

    def _value(self, text: str) -> Any:
        kind = self._kind
        if kind in ("str", "inlineStr"):
            return _unescaped(text) or None
        if not text:
            return CellError() if self._is_formula else None
        read = self._readers.get(kind)
        if read is None:
            raise _damaged(f"an unknown type of cell, {str(kind)[:20]!r}")
        return read(text)

    def _shared(self, text: str) -> str:
        index = _index(text)
        if index >= len(self._strings):
            raise _damaged(f"there is no shared string {index}")
        return self._strings[index]

    def _number(self, text: str) -> Any:
        try:
            number = float(text)
        except ValueError:
            raise _damaged(f"{text[:20]!r} is not a number") from None
        if not math.isfinite(number):
            raise _damaged(f"{text[:20]!r} is not a number")
        style = _index(self._style)
        shown_as = self._formats[style] if style < len(self._formats) else ""
        if shown_as and (moment := _moment(number, shown_as, is_1904=self._is_1904)):
            return moment
        # Excel stores numbers as floats with fifteen significant digits.
        return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _check_pieces(pieces: list[str]) -> None:
    if len(pieces) >= _MAX_PIECES:
        raise WorkbookError("it is too big for a manifest: the text of a cell has too many parts")


def _check_count(count: int) -> None:
    if count >= MAX_CELLS:
        raise WorkbookError(f"it is too big for a manifest: more than {MAX_CELLS:,} cells")


@lru_cache(maxsize=_LAST_COLUMN)
def _column(letters: str) -> int:
    """Return the number of a column, from 1; 0 for an invalid name."""
    if not re.fullmatch(r"[A-Z]{1,3}", letters):
        return 0
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _index(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text, re.ASCII):
        raise _damaged(f"{text[:20]!r} is not an index")
    return int(text)


def _unescaped(text: str) -> str:
    """Decode the escapes of characters that XML does not allow, such as ``_x000D_``."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def _moment(days: float, shown_as: str, *, is_1904: bool) -> str | None:
    """Return a date, a time or a duration as text, which JSON has no types for; ``None`` if the number is out of range."""
    if days < 0:
        return None
    try:
        whole = dt.timedelta(milliseconds=round(days * 86_400_000))
        if shown_as == "duration":
            return str(whole)
        # Lotus 1-2-3, and so Excel, have a 29 February 1900, day 60, which did not exist.
        epoch = dt.date(1904, 1, 1) if is_1904 else dt.date(1899, 12, 30 if days >= 60 else 31)
        moment = dt.datetime.combine(epoch, dt.time()) + whole
    except OverflowError:
        return None
    if days < 1:
        return moment.time().isoformat()
    return (moment if whole.seconds or whole.microseconds else moment.date()).isoformat()
