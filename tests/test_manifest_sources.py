"""The same table by every way in: it leads to the same jobs, or to the same faults."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import sqlite3
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import openpyxl
import pytest

import a2v
from a2v._core import file_names, manifest_jobs, manifest_rows, workbook
from tests.workbooks import by_hand, packed, saved

URL = "https://example.com/a.wav"
JOB = a2v.Job("eva", URL)
HEADER = ["model_id", "audio_url", "name", "note"]


class Missing:
    """As `pandas.NA` and numpy's `masked`: a comparison with it is missing too, and that is neither true nor false."""

    def __eq__(self, other: object) -> Missing:
        return self

    def __ne__(self, other: object) -> Missing:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


class PandasFrame:
    """What is used of a data frame of pandas."""

    def __init__(self, header, rows) -> None:
        self.columns, self._rows = header, rows

    def itertuples(self, *, index, name):
        assert (index, name) == (False, None)
        return iter([tuple(row) for row in self._rows])

    def __iter__(self):
        return iter(self.columns)


class PolarsFrame:
    """What is used of a data frame of polars."""

    def __init__(self, header, rows) -> None:
        self.columns, self._rows = header, rows

    def iter_rows(self):
        return iter([tuple(row) for row in self._rows])

    def __iter__(self):
        return iter(self.columns)


def as_csv(header, rows, folder, delimiter=","):
    stored = io.StringIO()
    csv.writer(stored, delimiter=delimiter).writerows(
        ["" if cell is None else cell for cell in row] for row in [header, *rows]
    )
    return stored.getvalue()


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def records(header, rows):
    return [dict(zip(header, row, strict=True)) for row in rows]


def as_xlsx(header, rows, folder):
    book = openpyxl.Workbook()
    for row in [header, *rows]:
        book.active.append(row)
    return written(folder, "jobs.xlsx", saved(book))


def as_named_tuple(header, row):
    return namedtuple("Row", header)(*row)  # noqa: PYI024  # its fields are known at run time alone


def as_sqlite(header, rows, folder):
    base = sqlite3.connect(":memory:")
    base.row_factory = sqlite3.Row
    base.execute("CREATE TABLE jobs (" + ", ".join(f'"{name}"' for name in header) + ")")
    base.executemany(f"INSERT INTO jobs VALUES ({', '.join('?' * len(header))})", rows)
    found = base.execute("SELECT * FROM jobs").fetchall()
    base.close()
    return found


SOURCES = {
    "csv": lambda header, rows, folder: written(folder, "jobs.csv", as_csv(header, rows, folder)),
    "semicolons": lambda header, rows, folder: written(folder, "jobs.csv", as_csv(header, rows, folder, ";")),
    "bars": lambda header, rows, folder: written(folder, "jobs.csv", as_csv(header, rows, folder, "|")),
    "json": lambda header, rows, folder: written(folder, "jobs.json", json.dumps(records(header, rows))),
    "jsonl": lambda header, rows, folder: written(
        folder, "jobs.jsonl", "\n".join(json.dumps(row) for row in records(header, rows))
    ),
    "xlsx": as_xlsx,
    "records": lambda header, rows, folder: records(header, rows),
    "iterator": lambda header, rows, folder: iter(records(header, rows)),
    "DictReader": lambda header, rows, folder: csv.DictReader(io.StringIO(as_csv(header, rows, folder))),
    "named tuples": lambda header, rows, folder: [as_named_tuple(header, row) for row in rows],
    "sqlite": as_sqlite,
    "pandas": lambda header, rows, folder: PandasFrame(header, rows),
    "polars": lambda header, rows, folder: PolarsFrame(header, rows),
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    return lambda header, rows: SOURCES[request.param](header, rows, tmp_path)


def faults(source, **more):
    with pytest.raises(a2v.ManifestError) as caught:
        a2v.read_manifest(source, **more)
    return [(fault.row, fault.column, fault.problem) for fault in caught.value.faults]


class TestBlank:
    def test_blank_rows_are_skipped_wherever_they_are(self, source) -> None:
        blank = [None, " ", "\u200b", None]
        rows = [blank, ["eva", URL, None, "n"], blank, [None] * 4, ["eva", URL, "two", ""], blank, blank]

        jobs = a2v.read_manifest(source(HEADER, rows))

        assert jobs == [JOB, a2v.Job("eva", URL, "two")]
        assert jobs[0].extra == {"note": "n"}

    def test_rows_at_the_end_that_name_no_job_are_skipped(self, source) -> None:
        """A spreadsheet with a column of checkboxes has FALSE as far down as its rows go."""
        header = ["model_id", "audio_url", "with_mask", "done"]
        rows = [["eva", URL, None, "TRUE"], *[[None, None, "FALSE", "FALSE"]] * 50]

        assert a2v.read_manifest(source(header, rows)) == [JOB]

    def test_such_rows_in_between_are_faults(self, source) -> None:
        found = faults(source(HEADER, [["eva", URL, "", ""], ["", "", "", "n"], ["eva", URL, "", ""]]))

        assert [(column, problem) for _, column, problem in found] == [
            ("audio_url", "it is missing or empty"),
            ("model_id", "it is missing or empty"),
        ]

    def test_a_row_at_the_end_that_names_some_of_a_job_is_a_fault(self, source) -> None:
        assert [column for _, column, _ in faults(source(HEADER, [["eva", "", "", ""]]))] == ["audio_url"]
        header = ["model_id", "audio_url", "with_mask"]
        assert len(faults(source(header, [["eva", URL, ""], ["", "", "yes"]]))) == 2
        assert len(faults(source(header, [["eva", URL, ""], ["", "", "perhaps"]]))) == 3

    def test_only_rows_that_name_no_job_are_no_batch(self, source) -> None:
        assert faults(source(HEADER, [["", "", "", "n"]] * 3)) == [(None, None, "there is no job in it")]

    @pytest.mark.parametrize(
        "missing",
        [None, "", " \xa0", "\ufeff", math.nan, Missing(), Decimal("NaN"), float("nan")],
        ids=["none", "empty", "spaces", "bom", "nan", "NA", "decimal", "float"],
    )
    def test_a_missing_value_is_blank(self, missing) -> None:
        job = {"model_id": "eva", "audio_url": URL, "name": missing, "with_mask": missing, "pose_id": missing}
        assert a2v.read_manifest([job, dict.fromkeys(job, missing)]) == [JOB]

    def test_cells_that_cannot_be_compared_are_not_blank(self) -> None:
        class Rude:
            def __ne__(self, other: object) -> bool:
                raise RuntimeError("do not ask")

            __hash__ = None

        (job,) = a2v.read_manifest([{"model_id": "eva", "audio_url": URL, "x": Rude(), "y": [math.nan]}])
        assert set(job.extra) == {"x", "y"}
        assert "it must be text" in faults([{"model_id": "eva", "audio_url": URL, "name": Rude()}])[0][2]

    def test_missing_numbers_in_json_are_blank(self, tmp_path) -> None:
        row = f'{{"model_id": "eva", "audio_url": "{URL}", "name": NaN}}'
        assert a2v.read_manifest(written(tmp_path, "jobs.jsonl", row)) == [JOB]


class TestHeaders:
    @pytest.mark.parametrize(
        "name", ["\ufeffmodel_id", "\ufeff\ufeffModel ID", "model_id\u200b", "mo\u00addel_id\u00a0"]
    )
    def test_invisible_characters_in_headers_do_not_matter(self, source, name) -> None:
        header = [name, "audio_url", "name", "\ufeffnote\u200b"]
        try:
            table = source(header, [["eva", URL, "", "n"]])
        except ValueError:
            return  # a named tuple cannot have such a field
        (job,) = a2v.read_manifest(table)
        assert job == JOB
        assert job.extra == {"note": "n"}

    def test_a_missing_column_is_one_fault(self, source) -> None:
        found = faults(source(["who", "audio_url", "name"], [["eva", URL, ""]] * 200))

        assert len(found) == 1
        assert "model_id" in str(found)
        assert "'who', 'audio_url', 'name'" in found[0][2]

    def test_no_column_that_we_know_is_one_fault_each(self) -> None:
        rows = [{"who": "eva", "says": URL}] * 200
        problem = "no row has this column; the columns are 'who', 'says'"
        assert faults(rows) == [(None, "audio_url or text", problem), (None, "model_id or pose_id", problem)]

    def test_a_column_that_some_rows_lack_is_a_fault_of_each(self) -> None:
        rows = [{"model_id": "eva", "audio_url": URL}, {"model_id": "eva"}, {"model_id": "eva", "link": URL}]
        assert [(row, column) for row, column, _ in faults(rows)] == [(2, "audio_url"), (3, "audio_url")]
        assert [row for row, _, _ in faults([rows[0], {"who": "eva", "says": URL}])] == [2, 2]

    def test_one_column_twice_is_one_fault(self, tmp_path) -> None:
        row = {"model_id": "eva", "modelId": "eva", "audio_url": URL}
        same = (
            "the headers 'model_id', 'modelId' are the same column, model_id: keep one, and rename or remove the others"
        )
        assert faults([row] * 3) == [(1, "modelId", f"{same} (and so in 2 more rows)")]
        assert faults([row] * 2) == [(1, "modelId", f"{same} (and so in 1 more row)")]
        frame = PandasFrame(["model_id", "Model ID", "audio_url"], [["eva", "eva", URL]])
        assert faults(frame) == [(None, "model_id", same.replace("modelId", "Model ID"))]

    def test_of_many_columns_the_first_are_named(self) -> None:
        (_, _, problem), _ = faults([{f"column {number}" * 20: 1 for number in range(30)}] * 2)
        assert problem.endswith("and 10 more")
        assert len(problem) < 1500

    def test_no_headers_at_all(self) -> None:
        assert faults([{"": "eva", None: [URL]}] * 2)[0][2] == "no row has this column, and no column has a header"


class TestColumnsWithoutHeader:
    @pytest.mark.parametrize("index", [[0, 1, 2], [1, 2, 3], [4, 17, 90]])
    def test_an_index_is_ignored(self, source, index) -> None:
        rows = [[number, "eva", URL] for number in index]
        try:
            jobs = a2v.read_manifest(source(["", "model_id", "audio_url"], rows))
        except ValueError:
            return  # a named tuple cannot have such a field
        assert jobs == [JOB] * 3
        assert jobs[0].extra == {}

    @pytest.mark.parametrize("cells", [["a", "b", "c"], [3, 2, 1], [1, None, 1.5], [0, "", "x"]])
    def test_anything_else_is_one_fault(self, tmp_path, cells) -> None:
        rows = [[cell, "eva", URL] for cell in cells]
        for way in ("csv", "xlsx", "json", "DictReader", "pandas"):
            found = faults(SOURCES[way](["", "model_id", "audio_url"], rows, tmp_path))
            assert len(found) == 1
            assert found[0][1] == "cell 1"
            assert "is in a column without a header" in found[0][2]
            assert "index=False" in found[0][2]

    @pytest.mark.parametrize("way", ["csv", "DictReader"])
    def test_cells_beyond_the_header_are_no_index(self, tmp_path, way) -> None:
        """They are what a delimiter within a URL leads to."""
        rows = [["eva", f"{URL}?a=1", number, ""] for number in range(3)]
        found = faults(SOURCES[way](["model_id", "audio_url"], rows, tmp_path))

        assert [column for _, column, _ in found] == ["cell 3"]
        assert "'0' is in a column without a header, and so are 2 more cells" in found[0][2]
        found = faults(SOURCES[way](["model_id", "audio_url"], rows[:2], tmp_path))
        assert "and so is 1 more cell" in found[0][2]

    def test_a_title_beside_the_table_is_a_fault(self, tmp_path) -> None:
        book = openpyxl.Workbook()
        for row in [[None, "model_id", "audio_url"], ["old", "eva", URL]]:
            book.active.append(row)
        assert faults(written(tmp_path, "jobs.xlsx", saved(book)))[0][:2] == (2, "cell 1")


class TestCells:
    @pytest.mark.parametrize(
        ("cell", "name"),
        [
            (7, "7"),
            (7.0, "7"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (10**20, "1" + "0" * 20),
            (Decimal("7.0"), "7"),
            (Decimal("7.25"), "7.25"),
            (Decimal("1E+3"), "1000"),
            (Decimal("1E+1000000000"), "1E+1000000000"),
            (Fraction(14, 2), "7"),
            (dt.date(2026, 1, 2), "2026-01-02"),
            (dt.datetime(2026, 1, 2), "2026-01-02"),  # noqa: DTZ001
            (Path("hello"), "hello"),
        ],
    )
    def test_names_that_are_no_text(self, cell, name) -> None:
        assert a2v.read_manifest([{"model_id": "eva", "audio_url": URL, "name": cell}])[0].name == name

    @pytest.mark.parametrize(
        ("cell", "problem"),
        [
            (True, "it must be text, got True"),
            (1e15, "format the cell as text"),
            (math.inf, "it must be text, got inf"),
            (Decimal("Infinity"), "it must be text"),
            (Decimal("sNaN"), "it must be text"),
            (1j, "it must be text"),
            (b"eva", "it must be text"),
            (["eva"], "it must be text"),
            pytest.param(10**5000, "digits", id="of 5,001 digits"),
            (dt.time(3, 4), "03:04:00"),
            (dt.datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),  # noqa: DTZ001
        ],
    )
    def test_names_that_cannot_be_one(self, cell, problem) -> None:
        ((row, column, found),) = faults([{"model_id": "eva", "audio_url": URL, "name": cell}])
        assert (row, column) == (1, "name")
        assert problem in found

    @pytest.mark.parametrize(
        ("cell", "flag"),
        [
            *[
                (True, True),
                (1, True),
                (1.0, True),
                ("1.0", True),
                ("Yes", True),
                (Decimal(1), True),
                ("TRUE\xa0", True),
            ],
            *[(False, False), (0, False), (0.0, False), ("0.0", False), ("no", False), ("\ufefffalse", False)],
        ],
    )
    def test_flags(self, cell, flag) -> None:
        (job,) = a2v.read_manifest([{"pose_id": "p", "audio_url": URL, "with_mask": cell}])
        assert job.with_mask is flag

    @pytest.mark.parametrize("cell", ["perhaps", 2, 0.5, math.inf, [True]])
    def test_what_is_no_flag(self, cell) -> None:
        ((_, column, problem),) = faults([{"pose_id": "p", "audio_url": URL, "with_mask": cell}])
        assert column == "with_mask"
        assert problem.startswith("it must be true or false, got ")

    @pytest.mark.parametrize(
        "character", ["\u200b", "\ufeff", "\u2060", "\u00ad", "\u202a", "\u202c", "\u3164", "\x07"]
    )
    @pytest.mark.parametrize(("column", "cell"), [("model_id", "eva"), ("audio_url", URL), ("name", "hello")])
    def test_invisible_characters_are_shown(self, tmp_path, column, cell, character) -> None:
        """Whether at an end or within: what is submitted would lead nowhere, and look right."""
        for wrong in (cell + character, character + cell, cell[:2] + character + cell[2:]):
            row = {"model_id": "eva", "audio_url": URL, "name": "hello"} | {column: wrong}
            for way in ("json", "records"):
                ((number, found, problem),) = faults(SOURCES[way](list(row), [list(row.values())], tmp_path))
                assert (number, found) == (1, column)
                assert ascii(character).strip("'") in problem
                assert character not in problem

    def test_half_a_character_is_reported_by_row_and_column(self, tmp_path) -> None:
        for way in ("json", "records"):
            header, row = ["model_id", "audio_url", "note", "h\udc80h"], ["eva", URL, "n\ud800", ""]
            found = faults(SOURCES[way](header, [row] * 2, tmp_path))
            assert {column for _, column, _ in found} == {"h\\udc80h", "note"}
            assert sum("half of a character, \\udc80" in problem for _, _, problem in found) == 1
            assert sum("half of a character, \\ud800" in problem for _, _, problem in found) == 2
            assert all(problem.encode() for _, _, problem in found)

    def test_a_value_that_cannot_be_shown_is_named_by_its_type(self) -> None:
        class Shy:
            def __repr__(self) -> str:
                raise RuntimeError("not me")

        for cell in (Shy(), 10**5000):
            found = faults([{"pose_id": "p", "audio_url": URL, "with_mask": cell, "": cell}, cell])
            assert all(f"a value of type {type(cell).__name__}" in problem for _, _, problem in found)
            assert len(found) == 3

    @pytest.mark.parametrize("name", ["CON", "nul", "nul.txt", "Com1", "LPT\u00b9", "CONIN$", "aux .x"])
    def test_names_of_devices_are_refused(self, name) -> None:
        ((_, column, problem),) = faults([{"model_id": "eva", "audio_url": URL, "name": name}])
        assert column == "name"
        assert "device" in problem
        assert a2v.read_manifest([{"model_id": "eva", "audio_url": URL, "name": f"{name[0]}x{name}"}])

    def test_a_name_that_is_the_mask_of_another_is_taken(self, source) -> None:
        header = ["pose_id", "audio_url", "name", "with_mask"]
        rows = [["p", URL, "x", "yes"], ["p", URL, "X.mask", ""], ["p", URL, "0004.mask", ""], ["p", URL, "", "yes"]]

        found = faults(source(header, rows))

        assert [column for _, column, _ in found] == ["name", "name"]
        assert "'X.mask' is also the name of the mask of row" in found[0][2].replace(
            "the mask of the video of", "the mask of"
        )

    @pytest.mark.parametrize(("first", "second"), [("\u0345\u0301", "\u0301\u0345"), ("ῼ", "ωι")])
    def test_names_that_are_canonically_equal(self, first, second) -> None:
        assert file_names.name_key(f"a{first}") == file_names.name_key(f"a{second}")


class TestWorkbooks:
    def test_what_is_hidden_is_not_read(self, tmp_path) -> None:
        book = openpyxl.Workbook()
        book.active.append(["eva"])
        book.active.sheet_state = "hidden"
        jobs = book.create_sheet("jobs")
        for row in [["model_id", "audio_url"], ["eva", URL], ["eva", f"{URL}?paid"]]:
            jobs.append(row)
        jobs.row_dimensions[3].hidden = True
        book.create_sheet("old")["XFD1048576"] = 1

        assert a2v.read_manifest(written(tmp_path, "jobs.xlsx", saved(book))) == [JOB]

    def test_cells_far_below_the_table_are_nothing(self, tmp_path) -> None:
        book = openpyxl.Workbook()
        for row in [["model_id", "audio_url"], ["eva", URL]]:
            book.active.append(row)
        book.active["XFD1048576"] = "x"
        assert a2v.read_manifest(written(tmp_path, "jobs.xlsx", saved(book))) == [JOB]

    @pytest.mark.parametrize(
        ("cell", "problem"),
        [
            ('<c t="e"><v>#REF!</v></c>', "the cell shows the error #REF!"),
            ("<c><f>A1</f><v/></c>", "never calculated"),
            ("<c><f>A1</f></c>", "never calculated"),
        ],
    )
    def test_cells_without_a_value(self, tmp_path, cell, problem) -> None:
        text = '<c t="inlineStr"><is><t>{}</t></is></c>'.format
        rows = f"<row>{text('model_id')}{text('audio_url')}{text('note')}</row>"
        wrong = written(tmp_path, "jobs.xlsx", packed(by_hand(f"{rows}<row>{cell}{text(URL)}</row>")))
        ((row, column, found),) = faults(wrong)
        assert (row, column) == (2, "model_id")
        assert problem in found

        other = written(tmp_path, "jobs.xlsx", packed(by_hand(f"{rows}<row>{text('eva')}{text(URL)}{cell}</row>")))
        assert type(a2v.read_manifest(other)[0].extra["note"]) is str

    def test_a_missing_column_names_the_sheet(self, tmp_path) -> None:
        path = written(tmp_path, "jobs.xlsx", packed(by_hand("<row><c><v>7</v></c></row>")))
        assert "the first row of the sheet 'jobs' must name the columns" in faults(path)[0][2]


class TestCsv:
    @pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=", "sep=; "])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_the_line_for_excel_is_not_the_header(self, tmp_path, line, encoding) -> None:
        text = f"{line}\r\nmodel_id;audio_url\r\neva;{URL}\r\neva;\r\n"
        path = written(tmp_path, "jobs.csv", text.encode(encoding))
        assert faults(path) == [(4, "audio_url", "it is missing or empty")]

    @pytest.mark.parametrize("separator", [",", ";", "\t", "|", "^"])
    def test_it_names_the_delimiter(self, tmp_path, separator) -> None:
        text = f"sep={separator}\nmodel_id{separator}audio_url{separator}a,b;c\neva{separator}{URL}\n"
        (job,) = a2v.read_manifest(written(tmp_path, "jobs.csv", text))
        assert job == JOB

    def test_two_byte_order_marks(self, tmp_path) -> None:
        assert a2v.read_manifest(written(tmp_path, "jobs.csv", f"\ufeff\ufeffmodel_id,audio_url\neva,{URL}\n")) == [JOB]


class TestBounds:
    def test_a_table_of_too_many_columns(self, tmp_path) -> None:
        def table(columns):
            extra = ",".join(f"c{number}" for number in range(columns - 2))
            return written(tmp_path, "jobs.csv", f"model_id,audio_url,{extra}\neva,{URL}\n")

        assert len(a2v.read_manifest(table(manifest_rows.MAX_COLUMNS))[0].extra) == 16_382
        assert "more than 16,384 columns" in faults(table(manifest_rows.MAX_COLUMNS + 1))[0][2]
        assert "more than 16,384 columns" in faults(PandasFrame([str(one) for one in range(16_385)], []))[0][2]

    @pytest.mark.parametrize("way", ["csv", "json", "jsonl", "xlsx"])
    def test_columns_times_rows(self, tmp_path, way, monkeypatch) -> None:
        monkeypatch.setattr(manifest_jobs, "MAX_CELLS", 30)
        header = ["model_id", "audio_url", "note"]
        assert len(a2v.read_manifest(SOURCES[way](header, [["eva", URL, ""]] * 10, tmp_path))) == 10
        found = faults(SOURCES[way](header, [["eva", URL, ""]] * 11, tmp_path))
        assert len(found) == 1
        assert "more than 30 cells (columns × rows)" in found[0][2]
        assert len(a2v.read_manifest(records(header, [["eva", URL, ""]] * 11))) == 11

    def test_rows_that_are_none_count_too(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(manifest_jobs, "MAX_CELLS", 30)
        assert "more than 30 cells" in faults(written(tmp_path, "jobs.json", "[" + "1," * 30 + "1]"))[-1][2]

    @pytest.mark.extended
    def test_the_documented_number_of_cells(self, tmp_path) -> None:
        header = "model_id,audio_url," + ",".join(f"c{number}" for number in range(4998))
        assert manifest_rows.MAX_BYTES == 100 << 20
        assert manifest_jobs.MAX_CELLS == workbook.MAX_CELLS == 2_000_000
        path = written(tmp_path, "jobs.csv", f"{header}\n" + f"eva,{URL}\n" * 400)
        assert len(a2v.read_manifest(path)) == 400
        path = written(tmp_path, "jobs.csv", f"{header}\n" + f"eva,{URL}\n" * 401)
        assert "more than 2,000,000 cells" in faults(path)[0][2]

    def test_a_file_that_is_too_big(self, tmp_path, monkeypatch) -> None:
        path = written(tmp_path, "jobs.csv", f"model_id,audio_url\neva,{URL}\n")
        monkeypatch.setattr(manifest_rows, "MAX_BYTES", path.stat().st_size)
        assert a2v.read_manifest(path) == [JOB]
        monkeypatch.setattr(manifest_rows, "MAX_BYTES", path.stat().st_size - 1)
        assert "too big for a manifest" in faults(path)[0][2]

    def test_a_file_of_more_than_100_mib(self, tmp_path) -> None:
        path = tmp_path / "jobs.csv"
        with path.open("wb") as file:
            file.truncate(manifest_rows.MAX_BYTES + 1)
        assert faults(path) == [(None, None, "it is too big for a manifest: more than 100 MiB")]


class TestSources:
    def test_jobs_are_rows_too(self) -> None:
        front = a2v.Job(pose_id="front", audio_url=URL, name="x", with_mask=True, extra={"n": 1})
        jobs = a2v.read_manifest([JOB, {"model_id": "leo", "audio_url": URL}, front])

        assert jobs == [JOB, a2v.Job("leo", URL), front]
        assert jobs[2].extra == {"n": 1}
        assert [column for _, column, _ in faults([front, front])] == ["name", "name"]

    @pytest.mark.parametrize(
        "source", [None, 7, b"jobs.csv", {"model_id": ["eva"], "audio_url": [URL]}, SimpleNamespace(columns=[])]
    )
    def test_what_is_no_table(self, source) -> None:
        ((row, column, problem),) = faults(source)
        assert (row, column) == (None, None)
        assert "an iterable of rows" in problem

    def test_rows_that_are_none_are_one_fault(self, tmp_path) -> None:
        lines = io.StringIO(f"model_id,audio_url\neva,{URL}\n")
        problem = r"a row must be a mapping of columns to cells, got 'model_id,audio_url\n' (and so in 1 more row)"
        assert faults(lines) == [(1, None, problem)]
        (found,) = faults(written(tmp_path, "jobs.json", "[1, 2, 3]"))
        assert found[2].endswith("got 1 (and so in 2 more rows)")

    def test_the_named_index_of_a_frame_is_a_column(self) -> None:
        class Indexed(PandasFrame):
            index = SimpleNamespace(names=["model_id"])

            def reset_index(self):
                return PandasFrame(["model_id", *self.columns], [["eva", *row] for row in self._rows])

        assert a2v.read_manifest(Indexed(["audio_url"], [[URL]])) == [JOB]
        frame = PandasFrame(["model_id", "audio_url"], [["eva", URL]])
        frame.index = SimpleNamespace(names=[None])
        assert a2v.read_manifest(frame) == [JOB]

    def test_an_empty_frame_is_an_empty_batch(self) -> None:
        assert a2v.read_manifest(PandasFrame(["model_id", "audio_url"], [])) == []
        assert a2v.read_manifest(PandasFrame([], [])) == []

    def test_a_path_that_cannot_be_one(self) -> None:
        assert faults("jobs\0.csv") == [(None, None, "its path contains a NUL character")]

    @pytest.mark.parametrize(("written_as", "named"), [("e\u0301", "é"), ("é", "e\u0301")])
    def test_names_of_files_are_found_however_they_are_composed(self, tmp_path, written_as, named) -> None:
        folder = tmp_path / f"f{written_as}"
        folder.mkdir()
        written(folder, f"jobs {written_as}.csv", f"model_id,audio_url\neva,{URL}\n")

        assert a2v.read_manifest(tmp_path / f"f{named}" / f"jobs {named}.csv") == [JOB]
        with pytest.raises(a2v.ManifestError, match="No such file"):
            a2v.read_manifest(tmp_path / f"f{named}" / f"jobs {named}2.csv")
        with pytest.raises(a2v.ManifestError, match="No such file"):
            a2v.read_manifest(tmp_path / "nowhere" / f"jobs {named}.csv")


def test_of_many_rows_the_first_are_listed() -> None:
    assert manifest_jobs.listed_rows(range(2, 22)) == "2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 10 more"
