"""Workbooks, made by hand where no program makes such."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import openpyxl

URL = "https://example.com/a.wav"
HEADER = ["model_id", "audio_url", "name"]
_KIND = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def saved(book: openpyxl.Workbook) -> bytes:
    """The bytes of a workbook."""
    stored = io.BytesIO()
    book.save(stored)
    return stored.getvalue()


def workbook(*rows: list[Any], **cells: Any) -> bytes:
    """A workbook of one sheet, as openpyxl writes it."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, value in cells.items():
        book.active[name] = value
    return saved(book)


def parts_of(data: bytes) -> dict[str, bytes]:
    """What is in a workbook."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {member.filename: archive.read(member) for member in archive.infolist()}


def packed(parts: dict[str, Any], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of these parts."""
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stored.getvalue()


def by_hand(
    rows: str = "",
    *,
    strings: str | None = None,
    styles: str | None = None,
    target: str = "worksheets/sheet1.xml",
    book: str = "",
    sheets: str = '<sheet name="jobs" sheetId="1" r:id="r1"/>',
    **others: Any,
) -> dict[str, Any]:
    """The parts of a workbook whose XML is given."""
    relations = f'<Relationship Id="r1" Type="{_KIND}/worksheet" Target="{target}"/>'
    relations += f'<Relationship Id="r2" Type="{_KIND}/sharedStrings" Target="/xl/sharedStrings.xml"/>'
    relations += f'<Relationship Id="r3" Type="{_KIND}/styles" Target="styles.xml"/>'
    relations += f'<Relationship Id="r4" Type="{_KIND}/chartsheet" Target="chartsheets/sheet1.xml"/>'
    parts: dict[str, Any] = {
        "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_KIND}">{book}<sheets>{sheets}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f"<Relationships>{relations}</Relationships>",
        "xl/worksheets/sheet1.xml": f"<worksheet {_MAIN}><sheetData>{rows}</sheetData></worksheet>",
    }
    if strings is not None:
        parts["xl/sharedStrings.xml"] = f"<sst {_MAIN}>{strings}</sst>"
    if styles is not None:
        parts["xl/styles.xml"] = f"<styleSheet {_MAIN}>{styles}</styleSheet>"
    return parts | others
