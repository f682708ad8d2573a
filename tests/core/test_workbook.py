"""Workbooks of all origins: what is read of them, and that any other file is refused without harm."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile

import openpyxl
import pytest

from a2v._core import workbook
from a2v._core.workbook import CellError, WorkbookError, read_sheet
from tests.workbooks import by_hand, packed, parts_of, saved


def rows_of(*arguments, **more):
    """The cells of each row of a workbook whose XML is given."""
    return [list(cells.values()) for _, cells in read_sheet(packed(by_hand(*arguments, **more))).rows]


def test_the_kinds_of_cells() -> None:
    strings = '<si><t>shared</t></si><si><r><t>r</t></r><r><t xml:space="preserve">ich </t></r></si>'
    strings += "<si><t>東京</t><rPh><t>トウキョウ</t></rPh></si><si><t>a_x000D__x005F_x</t></si>"
    cells = [
        '<c t="s"><v>0</v></c><c t="s"><v>1</v></c><c t="s"><v>2</v></c><c t="s"><v>3</v></c>',
        '<c t="inlineStr"><is><t>in</t><rPh><t>x</t></rPh><r><t>line</t></r></is></c>',
        '<c t="str"><f>A1</f><v>made</v></c><c t="str"><f>A1</f><v></v></c>',
        '<c><v>7</v></c><c t="n"><v>1.5</v></c><c><v>1E+16</v></c><c><f>1+1</f><v>2</v></c>',
        '<c t="b"><v>1</v></c><c t="b"><v>0</v></c><c t="e"><v>#REF!</v></c><c t="d"><v>2026-01-02</v></c>',
        '<c><f>A1</f><v/></c><c s="1"/><c t="s"/>',
    ]
    found = rows_of(f"<row>{''.join(cells)}</row>", strings=strings)[0]

    assert found == [
        *("shared", "rich ", "東京", "a\r_x", "inline", "made"),
        *(7, 1.5, 1e16, 2, True, False, "#REF!", "2026-01-02", ""),
    ]
    assert [type(cell) for cell in found if isinstance(cell, CellError)] == [CellError, CellError]
    assert type(found[6]) is int


def test_numbers_that_are_shown_as_dates() -> None:
    formats = {
        "14": "2026-01-02",
        "22": "2026-01-02",
        "46": "1104576:00:00",
        "0": 46024,
        "164": "2026-01-02",
        "165": 46024,
        "166": 46024,
        "167": "46024 days, 0:00:00",
        "168": 46024,
        "": 46024,
    }
    formats["46"] = formats["167"]
    codes = {
        "164": "[$-407]d. mmmm yyyy;@",
        "165": '0.0 "days"',
        "166": "[Red]0_d\\y",
        "167": "[HH]:mm",
        "168": "General",
    }
    styles = "<numFmts>" + "".join(
        f'<numFmt numFmtId="{n}" formatCode="{c.replace(chr(34), "&quot;")}"/>' for n, c in codes.items()
    )
    styles += '</numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs>'
    styles += (
        "".join(f'<xf numFmtId="{number}"/>' for number in formats)
        + '</cellXfs><dxfs><numFmt numFmtId="165" formatCode="d"/></dxfs>'
    )
    cells = "".join(f'<c s="{style}"><v>46024</v></c>' for style in range(len(formats)))

    assert rows_of(f"<row>{cells}</row>", styles=styles) == [list(formats.values())]


@pytest.mark.parametrize(
    ("number", "book", "shown"),
    [
        ("46024.127777777778", "", "2026-01-02T03:04:00"),
        ("0.5", "", "12:00:00"),
        ("1", "", "1900-01-01"),
        ("59", "", "1900-02-28"),
        ("61", "", "1900-03-01"),
        ("61", '<workbookPr date1904="1"/>', "1904-03-02"),
        ("2958465", "", "9999-12-31"),
        ("2958466", "", 2958466),
        ("1e300", "", 1e300),
        ("-1", "", -1),
    ],
)
def test_dates_and_times(number, book, shown) -> None:
    styles = '<cellXfs><xf numFmtId="22"/></cellXfs>'
    assert rows_of(f"<row><c><v>{number}</v></c></row>", styles=styles, book=book) == [[shown]]


def test_rows_and_columns_are_where_they_say() -> None:
    rows = '<row><c><v>1</v></c></row><row r="3"><c r="B3"><v>2</v></c><c><v>3</v></c></row><row/><row r="1048576"><c r="XFD1048576"><v>4</v></c></row>'
    sheet = read_sheet(packed(by_hand(rows)))

    assert sheet.rows == [(1, {1: 1}), (3, {2: 2, 3: 3}), (1_048_576, {16_384: 4})]


def test_text_outside_of_cells_is_nothing() -> None:
    sheet = (
        "<worksheet><c><v>1</v></c><sheetData>x<row>y<c>z<v>2</v></c></row></sheetData><row><v>3</v></row></worksheet>"
    )
    assert rows_of(**{"xl/worksheets/sheet1.xml": sheet}) == [[2]]


def test_hidden_rows_are_left_out_and_counted() -> None:
    rows = '<row><c><v>1</v></c></row><row hidden="1"><c><v>2</v></c></row><row hidden="true"/><row hidden="0"><c><v>3</v></c></row>'
    sheet = read_sheet(packed(by_hand(rows)))

    assert [number for number, _ in sheet.rows] == [1, 4]
    assert sheet.hidden == [2]


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_the_first_visible_worksheet_is_read(state) -> None:
    sheets = (
        f'<sheet name="lists" state="{state}" r:id="r1"/><sheet name="chart" r:id="r4"/><sheet name="none" r:id="r9"/>'
    )
    parts = by_hand("<row><c><v>1</v></c></row>", sheets=f'{sheets}<sheet name="jobs" state="visible" r:id="r1"/>')

    assert read_sheet(packed(parts)).name == "jobs"
    with pytest.raises(WorkbookError, match="no visible worksheet"):
        read_sheet(packed(by_hand(sheets=sheets)))


@pytest.mark.parametrize(
    "change",
    [
        lambda name, text: (name, re.sub(r"<(/?)(?![?!])", r"<\1x:", text).replace("xmlns=", "xmlns:x=")),
        lambda name, text: (name.replace("/", "\\"), text),
        lambda name, text: (name.upper(), text),
        lambda name, text: (name, text.encode("utf-16")),
        lambda name, text: (name, text.replace("schemas.openxmlformats.org", "purl.oclc.org")),
        lambda name, text: (name.replace("xl/", "y/z/"), text.replace("/xl/", "/y/z/")),
    ],
)
def test_other_programs_write_it_otherwise(change) -> None:
    parts = by_hand('<row><c t="s"><v>0</v></c></row>', strings="<si><t>a</t></si>")
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    parts["_rels/.rels"] = (
        f'<Relationships><Relationship Id="a" Type="{kind}" Target="xl/workbook.xml"/></Relationships>'
    )
    parts["_rels/.rels"] = change("", parts["_rels/.rels"])[1]
    if isinstance(parts["_rels/.rels"], str):
        parts["_rels/.rels"] = (
            parts["_rels/.rels"]
            .replace('"xl/', '"/xl/')
            .replace("/xl/", "/y/z/" if change("xl/", "")[0] == "y/z/" else "/xl/")
        )
    changed = dict(change(name, text) if name != "_rels/.rels" else (name, text) for name, text in parts.items())

    assert [cells for _, cells in read_sheet(packed(changed)).rows] == [{1: "a"}]


def test_blank_sheets_are_passed_over() -> None:
    """A program that adds a sheet may leave the blank one that was there."""
    sheets = '<sheet name="Sheet" r:id="r5"/><sheet name="Sheet2" r:id="r5"/><sheet name="jobs" r:id="r1"/>'
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
    for rows, name in (
        ("<row><c><v>1</v></c></row>", "jobs"),
        ('<row hidden="1"><c><v>1</v></c></row>', "jobs"),
        ("", "Sheet"),
    ):
        parts = by_hand(rows, sheets=sheets, **{"xl/worksheets/blank.xml": "<worksheet><sheetData/></worksheet>"})
        relation = f'<Relationship Id="r5" Type="{kind}" Target="worksheets/blank.xml"/></Rel'
        parts["xl/_rels/workbook.xml.rels"] = parts["xl/_rels/workbook.xml.rels"].replace("</Rel", relation)
        assert read_sheet(packed(parts)).name == name


def test_external_links_and_missing_parts_are_nothing() -> None:
    parts = by_hand("<row><c><v>1</v></c></row>")
    relations = parts["xl/_rels/workbook.xml.rels"]
    link = '<Relationship Id="r2" TargetMode="External" Type="x/sharedStrings" Target="https://example.com"/>'
    parts["xl/_rels/workbook.xml.rels"] = relations.replace("</Rel", f"{link}</Rel")

    assert [cells for _, cells in read_sheet(packed(parts)).rows] == [{1: 1}]


def test_as_openpyxl_writes_it() -> None:
    book = openpyxl.Workbook()
    when = dt.datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001  # a spreadsheet has no zones
    book.active.append(["a", 1, True, when, when.date(), when.time(), dt.timedelta(hours=30), "=A1"])
    (_, cells), *_ = read_sheet(saved(book)).rows

    assert list(cells.values()) == [
        *("a", 1, True, "2026-01-02T03:04:00", "2026-01-02", "03:04:00", "1 day, 6:00:00"),
        "",
    ]


def sheet(rows):
    return packed(by_hand(rows))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "not a zip file"),
        (b"no workbook", "not a zip file"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "password"),
        (packed({"hello.txt": "hello"}), "no part 'xl/workbook.xml'"),
        (packed(by_hand(), zipfile.ZIP_BZIP2), "its compression is not one that Excel uses"),
        (packed(by_hand(), zipfile.ZIP_LZMA), "its compression is not one that Excel uses"),
        (packed(by_hand() | {"xl/workbook.xml": "<workbook>"}), "no element found"),
        (packed(by_hand() | {"xl/workbook.xml": "<!DOCTYPE w []><workbook/>"}), "document type"),
        (packed(by_hand() | {"xl/workbook.xml": "<?xml version='1.0' encoding='nonsense'?><workbook/>"}), "nonsense"),
        (packed(by_hand() | {"xl/workbook.xml": "<?xml version='1.0' encoding='utf-7'?><workbook/>"}), "can be read"),
        (packed(by_hand(sheets="")), "no visible worksheet"),
        (packed(by_hand(target="worksheets/sheet2.xml")), "no part '/xl/worksheets/sheet2.xml'"),
        (sheet("<row>" * 200), "nested too deeply"),
        (sheet(f'<row x="{"y" * 2_000_000}"/>'), "tag of more than 1 MiB"),
        (sheet('<row r="2"/><row r="2"/>'), "row 2 follows row 2"),
        (sheet('<row r="1048577"/>'), "row 1048577"),
        (sheet('<row r="99999999999999999999"/>'), "not an index"),
        (sheet('<row r="-1"/>'), "not an index"),
        (sheet('<row><c r="A2"/></row>'), "out of order"),
        (sheet('<row><c r="XFE1"/></row>'), "out of order"),
        (sheet('<row><c r="AAAA1"/></row>'), "out of order"),
        (sheet('<row><c r="C99999999999999999999931"/></row>'), "out of order"),
        (sheet('<row><c r="B1"/><c r="A1"/></row>'), "out of order"),
        (sheet("<row>" + "<c/>" * 16_385 + "</row>"), "out of order"),
        (sheet('<row><c t="s"><v>0</v></c></row>'), "no shared string 0"),
        (sheet('<row><c t="s"><v>-1</v></c></row>'), "not an index"),
        (sheet("<row><c><v>one</v></c></row>"), "'one' is not a number"),
        (sheet("<row><c><v>nan</v></c></row>"), "'nan' is not a number"),
        (sheet("<row><c><v>1e999</v></c></row>"), "'1e999' is not a number"),
        (sheet('<row><c s="x"><v>1</v></c></row>'), "not an index"),
        (sheet('<row><c t="z"><v>1</v></c></row>'), "unknown type"),
        (packed(by_hand(styles='<cellXfs><xf numFmtId="x"/></cellXfs>')), "not an index"),
        (sheet('<row><c t="inlineStr"><is>' + "<t>a</t>" * 40_000 + "</is></c></row>"), "too many parts"),
    ],
)
def test_what_is_no_workbook_is_refused(data, named) -> None:
    with pytest.raises(WorkbookError, match=named):
        read_sheet(data)


def test_an_encrypted_part_is_refused() -> None:
    data = bytearray(packed(by_hand()))
    at = data.find(b"PK\1\2")
    while at >= 0:
        data[at + 8] |= 1
        at = data.find(b"PK\1\2", at + 1)

    with pytest.raises(WorkbookError, match="encrypted"):
        read_sheet(bytes(data))


def test_a_changed_byte_is_noticed() -> None:
    parts = parts_of(saved(openpyxl.Workbook()))
    data = bytearray(packed(parts))
    at = data.index(b"xl/workbook.xml") + len("xl/workbook.xml") + 20
    data[at] ^= 0xFF

    with pytest.raises(WorkbookError, match="not a workbook that can be read"):
        read_sheet(bytes(data))


@pytest.mark.parametrize(
    ("limit", "rows", "more"),
    [
        ("MAX_CELLS", "<row><c><v>1</v></c><c><v>1</v></c></row>", {}),
        ("MAX_CELLS", "", {"strings": "<si/><si/>"}),
        ("MAX_TEXT", '<row><c t="s"><v>0</v></c><c t="s"><v>0</v></c></row>', {"strings": "<si><t>abc</t></si>"}),
        ("MAX_UNPACKED", "<row>" + " " * 2000 + "</row>", {}),
        ("MAX_TAGS", "<row/>" * 30, {}),
        ("_FEW_TAGS", "", {"book": "<x/>" * 30}),
    ],
)
def test_one_above_a_limit_is_too_big(limit, rows, more, monkeypatch) -> None:
    at_limit = {
        "MAX_CELLS": (2, 1),
        "MAX_TEXT": (6, 5),
        "MAX_UNPACKED": (9000, 1500),
        "MAX_TAGS": (100, 30),
        "_FEW_TAGS": (100, 30),
    }
    enough, too_few = at_limit[limit]
    data = packed(by_hand(rows, **more))
    for most, is_read in ((enough, True), (too_few, False)):
        monkeypatch.setattr(workbook, limit, most)
        for part in (workbook._Part, workbook._StringsPart, workbook._SheetPart):
            monkeypatch.setattr(
                part, "max_tags", workbook.MAX_TAGS if part is not workbook._Part else workbook._FEW_TAGS
            )
        if is_read:
            assert read_sheet(data).name == "jobs"
        else:
            with pytest.raises(WorkbookError, match="too big for a manifest"):
                read_sheet(data)


def test_what_is_stored_and_not_compressed_is_read() -> None:
    assert read_sheet(packed(by_hand("<row><c><v>1</v></c></row>"), zipfile.ZIP_STORED)).rows == [(1, {1: 1})]
    assert zipfile.is_zipfile(io.BytesIO(packed(by_hand())))
