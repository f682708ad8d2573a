"""Manifests as their users write them: what is read, and that every fault is told at once, with its place."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import zipfile

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import a2v
from a2v._core import file_names, manifest_jobs, manifest_rows
from a2v._values import text

URL = "https://example.com/a.wav"
JOB = a2v.Job("eva", URL)


@pytest.fixture
def read(tmp_path):
    """Read a manifest of these bytes, or of this text in UTF-8."""

    def read(content, name="jobs.csv", **more):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return a2v.read_manifest(path, **more)

    return read


@pytest.fixture
def faults(read):
    """What is wrong with a manifest, as (row, column) and a problem."""

    def faults(*arguments, **more):
        with pytest.raises(a2v.ManifestError) as caught:
            read(*arguments, **more)
        return [((fault.row, fault.column), fault.problem) for fault in caught.value.faults]

    return faults


def places(faults):
    return [place for place, _ in faults]


def workbook(*rows, **cells):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, value in cells.items():
        book.active[name] = value
    stored = io.BytesIO()
    book.save(stored)
    return stored.getvalue()


class TestTables:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_csv(self, read, delimiter, end, encoding) -> None:
        rows = [
            ["Audio URL", " model_ID ", "name", "customer, dept; tab\t"],
            [URL, "eva", "ünï", f'says "a, b; c\td",{end}twice'],
            [f" {URL} ", "eva", "", ""],
        ]
        stored = io.StringIO()
        csv.writer(stored, delimiter=delimiter, lineterminator=end).writerows(rows)

        jobs = read(stored.getvalue().encode(encoding))

        assert jobs == [a2v.Job("eva", URL, "ünï"), JOB]
        assert [dict(job.extra) for job in jobs] == [{"customer, dept; tab": rows[1][3]}, {"customer, dept; tab": ""}]

    def test_the_delimiter_is_the_one_that_makes_columns(self, read) -> None:
        """And not the one that is there most often."""
        text = "model_id;audio_url;a,b,c,d,e\neva;https://example.com/?a=1,2,3,4;1,2\n"
        assert read(text) == [a2v.Job("eva", "https://example.com/?a=1,2,3,4")]

    @pytest.mark.parametrize(
        ("audio", "speaker"),
        [("Audio", "Character"), ("file", "MODEL"), ("Recording", "model_id"), ("url", "model-id")],
    )
    def test_other_names_of_the_columns(self, read, audio, speaker) -> None:
        assert read(f"{speaker},{audio},url of customer\neva,{URL},x") == [JOB]
        assert a2v.read_manifest([{speaker: "eva", audio: URL}]) == [JOB]

    def test_headers_that_may_be_misspelled(self) -> None:
        """Only for columns that are missing, because other columns are allowed."""

        def misspelled(*headers):
            rows = [dict.fromkeys(headers, "1") | {"audio_url": URL, "model_id": "eva"}]
            return manifest_jobs.read_rows(manifest_jobs.rows_of(rows)).misspelled

        assert misspelled("naem", "With Masks", "Optoins") == {
            "naem": "name",
            "With Masks": "with_mask",
            "Optoins": "options",
        }
        assert misspelled("naem", "name", "customer", "nickname", "text") == {}

    def test_the_extra_columns_of_jobs_are_not_other_names(self) -> None:
        (job,) = a2v.read_manifest([a2v.Job("eva", URL, extra={"url": "https://example.com", "file": 7})])
        assert (job, job.extra) == (JOB, {"url": "https://example.com", "file": 7})

    @pytest.mark.parametrize(
        ("encoding", "shown", "name"),
        [
            ("cp1252", "Windows-1252", "Grüße – „10 €“"),
            ("cp1250", "Windows-1250", "žluťoučký kůň"),
            ("cp1251", "Windows-1251", "Запись, привет"),
            ("mac_roman", "Mac OS Roman", "Müller é"),
            ("gb18030", "GB18030", "录音一 北京"),
            ("cp932", "Windows-932", "録音テスト"),
        ],
    )
    def test_text_in_another_encoding_is_read_with_a_warning(self, read, encoding, shown, name) -> None:
        content = f"file;character;name\n{URL};eva;{name.replace(';', '')}\n".encode(encoding)
        with pytest.warns(UnicodeWarning, match=f"jobs.csv is not UTF-8; it was read as {shown}") as warned:
            assert read(content) == [a2v.Job("eva", URL, name)]
        assert warned[0].filename == __file__

    @pytest.mark.parametrize("name", ["jobs.tsv", "jobs.TXT"])
    def test_other_endings_of_csv(self, read, name) -> None:
        assert read(f"model_id\taudio_url\neva\t{URL}", name) == [JOB]

    def test_blank_rows_and_trailing_delimiters_are_nothing(self, read) -> None:
        assert read(f"\n,,\nmodel_id,audio_url,,\n\neva,{URL},,\n ,,\t,\neva,{URL},,,,\n\n") == [JOB, JOB]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("name", ["jobs.jsonl", "jobs.ndjson"])
    def test_json_lines(self, read, name, end) -> None:
        rows = [
            {"modelId": "eva", "audio_url": URL, "order": {"no": 7, "of": [1, None]}, "separator": "\u2028"},
            {"pose_id": "front", "audio_url": URL, "with_mask": True, "name": None, "model_id": None},
        ]
        text = end.join(["", *(json.dumps(row, ensure_ascii=False) for row in rows), " ", ""])

        jobs = read(text, name)

        assert jobs == [JOB, a2v.Job(pose_id="front", audio_url=URL, with_mask=True)]
        assert jobs[0].extra == {"order": {"no": 7, "of": [1, None]}, "separator": "\u2028"}

    @pytest.mark.parametrize("indent", [None, 2])
    def test_json(self, read, indent) -> None:
        row = {"model_id": "eva", "audio_url": URL}
        assert read("\ufeff " + json.dumps([row, row], indent=indent) + "\n", "jobs.json") == [JOB, JOB]

    def test_xlsx(self, read) -> None:
        when = dt.datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001  # a spreadsheet has no zones
        head = ["Model ID", "Audio URL", "Name", "with mask", "count", "share", "when", "day", "time", "length", "vip"]
        row = ["eva", URL, 7, None, 3, 1.5, when, dt.date(2026, 1, 2), dt.time(3, 4), dt.timedelta(hours=30), True]

        jobs = read(workbook([], head, [], row), "jobs.xlsx")

        assert jobs == [a2v.Job("eva", URL, "7")]
        assert jobs[0].extra == {
            "count": 3,
            "share": 1.5,
            "when": "2026-01-02T03:04:00",
            "day": "2026-01-02",
            "time": "03:04:00",
            "length": "1 day, 6:00:00",
            "vip": True,
        }
        assert json.loads(json.dumps(dict(jobs[0].extra))) == jobs[0].extra

    def test_mappings(self) -> None:
        """What is no file: any mappings, also those of a data frame, where not-a-number means nothing."""
        rows = [
            {"model_id": "eva", "audio_url": URL, "name": math.nan, "n": 1, 5: "five"},
            {"POSE ID": "front", "audio_url": URL, "with_mask": "Yes", "name": 8.0, "key": (1, 2)},
            {"model_id": "eva", "audio_url": URL, "with_mask": "0", "name": 1.5},
        ]

        jobs = a2v.read_manifest(iter(rows))

        front = a2v.Job(pose_id="front", audio_url=URL, name="8", with_mask=True)
        assert jobs == [JOB, front, a2v.Job("eva", URL, "1.5")]
        assert [dict(job.extra) for job in jobs] == [{"n": 1, "5": "five"}, {"key": (1, 2)}, {}]
        assert a2v.read_manifest([]) == []

    def test_a_url_may_be_made_of_what_is_written(self, read, faults) -> None:
        def resolve(written):
            if "missing" in written:
                raise ValueError(f"there is no file {written!r}")
            return f"https://example.com/{written}"

        assert read("model_id,audio_url\neva,a.wav\n", resolve=resolve) == [JOB]
        found = faults("model_id,audio_url\neva,missing.wav\neva,\neva,b c.wav\n", resolve=resolve)
        assert places(found) == [(2, "audio_url"), (3, "audio_url"), (4, "audio_url")]
        assert found[0][1] == "there is no file 'missing.wav'"


class TestFaults:
    def test_all_errors_are_reported_at_once_with_their_places(self, faults) -> None:
        """By the lines that an editor shows, and by the headers that are written there."""
        rows = [
            "Model ID;Audio-URL;Name;note",
            ";;a;",
            'eva;ftp://x/a;A;"two\nlines"',
            "",
            f"eva;{URL};;",
            f"eva;{URL};0003;;more",
            "e va;https://x y/a;.x;",
            f"eva;{URL};../up;",
        ]

        found = faults("\r\n".join(rows))

        assert places(found) == [
            (2, "Audio-URL"),
            (2, "Model ID"),
            (3, "Audio-URL"),
            (3, "Name"),
            (7, "cell 5"),
            (7, "Name"),
            (8, "Model ID"),
            (8, "Audio-URL"),
            (8, "Name"),
            (9, "Name"),
        ]
        problems = [problem for _, problem in found]
        assert problems[3] == "'A' is also the name of the video of row 2"
        assert problems[4] == "'more' is in a column without a header"
        assert problems[5] == "'0003' is also the name of the video of row 6 (by default 0003)"

    def test_the_message_lists_the_first_ten(self, read) -> None:
        with pytest.raises(a2v.ManifestError) as caught:
            read("model_id,audio_url\n" + "eva,\n" * 25)

        lines = str(caught.value).splitlines()
        assert lines[0].endswith("jobs.csv has 25 faults:")
        assert lines[1] == "  row 2, audio_url: it is missing or empty"
        assert lines[10:] == ["  row 11, audio_url: it is missing or empty", "  … and 15 more"]
        assert len(caught.value.faults) == 25

    @pytest.mark.parametrize(
        ("name", "content", "place", "named"),
        [
            ("jobs.csv", "", (None, None), "no job in it"),
            ("jobs.csv", "\n \n", (None, None), "no job in it"),
            ("jobs.csv", "model_id,audio_url\n,\n", (None, None), "no job in it"),
            ("jobs.jsonl", "\n", (None, None), "no job in it"),
            ("jobs.json", " ", (None, None), "no job in it"),
            ("jobs.json", "[ ]", (None, None), "no job in it"),
            ("jobs.xlsx", workbook(), (None, None), "no job in it"),
            ("jobs.docx", "x", (None, None), "one of .csv, .tsv"),
            ("jobs", "x", (None, None), "got none"),
            (
                "jobs.csv",
                f"\neva,{URL}\n",
                (2, None),
                "lacks audio_url (or text) and model_id (or pose_id): 'eva', 'https",
            ),
            ("jobs.csv", f"audio_url,who\n{URL},eva\n", (1, None), "lacks model_id (or pose_id): 'audio_url', 'who'"),
            ("jobs.csv", "model_id,audio_url,Model ID\n", (1, "model_id"), "the same column, model_id: keep one"),
            ("jobs.csv", "file,character,audio_url\n", (1, "audio_url"), "'file', 'audio_url' are the same column"),
            ("jobs.csv", "url,recording,model\n", (1, "audio_url"), "'url', 'recording' are the same column"),
            ("jobs.jsonl", json.dumps({"model": "a", "model_id": "b", "url": URL}), (1, "model_id"), "'model'"),
            ("jobs.csv", "model_id,audio_url,x,x\n", (1, "x"), "more than once"),
            ("jobs.csv", f'model_id,audio_url\neva,{URL}\n"eva,x\ny', (3, None), "never closed"),
            ("jobs.csv", f'model_id,audio_url\n"e"va,{URL}\n', (2, None), "not CSV: ',' expected after"),
            ("jobs.csv", f"model_id,audio_url\neva,{URL}\nev\0a,{URL}", (3, None), "NUL"),
            (
                "jobs.csv",
                f"model_id,audio_url,ü,é\n\neva,{URL},".encode() + b"\xfc",
                (3, None),
                "byte 0xfc (number 57 of the",
            ),
            ("jobs.csv", f"\ufeffmodel_id,audio_url\nü,{URL},".encode() + b"\xff", (2, None), "0xff (number 52 of the"),
            ("jobs.csv", "model_id\n".encode("utf-16") + b"x", (2, None), "not UTF-16: save the file as UTF-8"),
            ("jobs.csv", f"model_id,audio_url\neva,{URL}".encode("utf-16-le"), (1, None), "NUL"),
            ("jobs.csv", f"model_id,pose_id,audio_url\n,,{URL}", (2, "model_id or pose_id"), "missing"),
            ("jobs.csv", f"model_id,pose_id,audio_url\na,b,{URL}", (2, None), "not both"),
            ("jobs.csv", f"pose_id,audio_url,with_mask\na,{URL},perhaps", (2, "with_mask"), "true or false"),
            ("jobs.csv", f"model_id,audio_url,with_mask\na,{URL},yes", (2, None), "requires a pose_id"),
            ("jobs.jsonl", "\n{]\n", (2, None), "not JSON: Expecting property name"),
            ("jobs.jsonl", "\n[1]\n", (2, None), "got [1]"),
            ("jobs.jsonl", '{"model_id": "a", "model_id": "b"}', (1, None), "'model_id' occurs more than once"),
            ("jobs.jsonl", '{"n": -Infinity}', (1, None), "-Infinity"),
            ("jobs.jsonl", '{"n": 1' + "0" * 5000 + "}", (1, None), "not JSON: Exceeds the limit"),
            ("jobs.jsonl", "[" * 200_000, (1, None), "nested too deeply"),
            (
                "jobs.jsonl",
                json.dumps({"modelId": "a", "model_id": "b", "audio_url": URL}),
                (1, "model_id"),
                "'modelId'",
            ),
            ("jobs.jsonl", json.dumps({"model_id": "a"}), (1, "audio_url"), "missing"),
            ("jobs.jsonl", json.dumps({"audio_url": URL}), (1, "model_id"), "missing"),
            ("jobs.jsonl", json.dumps({"model_id": True, "audio_url": URL}), (1, "model_id"), "it must be text"),
            ("jobs.jsonl", json.dumps({"model_id": ["a"], "audio_url": URL}), (1, "model_id"), "it must be text"),
            (
                "jobs.jsonl",
                json.dumps({"model_id": "a", "audio_url": URL, "name": {}}),
                (1, "name"),
                "it must be text",
            ),
            ("jobs.json", "{}", (1, None), "one array of objects"),
            ("jobs.json", '[\n{"model_id": "a"}\n]', (2, "audio_url"), "missing"),
            ("jobs.json", "[\n\n7]", (3, None), "got 7"),
            ("jobs.json", "[\n[]\n[]]", (3, None), "Expecting ',' or ']'"),
            ("jobs.json", "[[]]\n]", (2, None), "Extra data"),
            ("jobs.json", "[[]", (1, None), "Expecting"),
            ("jobs.json", "[\n[],\n", (3, None), "Expecting value"),
            ("jobs.json", '[\n{"a": 1, "a": 2}]', (2, None), "more than once"),
            ("jobs.xlsx", b"no workbook", (None, None), "not a workbook"),
            ("jobs.xlsx", workbook(["audio_url"], [URL]), (1, None), "lacks model_id"),
            ("jobs.xlsx", workbook(["model_id", "audio_url"], ["a", 7]), (2, "audio_url"), "got '7'"),
            ("jobs.xlsx", workbook(["model_id", "audio_url"], [1234567890123456, URL]), (2, "model_id"), "digits"),
            ("jobs.xlsx", workbook(["x"], XFD1048576=1), (1, None), "the first row of the sheet 'Sheet' must name"),
        ],
    )
    def test_what_is_wrong_and_where(self, faults, name, content, place, named) -> None:
        found = faults(content, name)

        assert place in places(found)
        assert named in dict(found)[place]

    def test_errors_of_reading_and_of_rows_are_reported_together(self, faults) -> None:
        assert places(faults('{\n{}\n7\n{"audio_url": "https://a/b"}\n{', "jobs.jsonl")) == [
            (1, None),
            (3, None),
            (4, "model_id"),
            (5, None),
        ]

    def test_mappings_that_are_none(self) -> None:
        with pytest.raises(a2v.ManifestError, match="row 2: a row must be a mapping of columns to cells, got 'eva'"):
            a2v.read_manifest([{"model_id": "eva", "audio_url": URL}, "eva"])

    @pytest.mark.parametrize(
        ("first", "second"), [("a", "A"), ("straße", "STRASSE"), ("e\u0301", "\xe9"), ("0002", ""), ("", "0001")]
    )
    def test_names_that_some_file_system_takes_for_one(self, faults, first, second) -> None:
        found = faults(f"model_id,audio_url,name\neva,{URL},{first}\neva,{URL},{second}\n")

        assert places(found) == [(3 if second else 2, "name")]

    def test_a_fault_says_where_it_is(self) -> None:
        assert str(a2v.RowError(3, "name", "it is odd")) == "row 3, name: it is odd"
        assert str(a2v.RowError(3, None, "it is odd")) == "row 3: it is odd"
        assert str(a2v.RowError(None, None, "it is odd")) == "it is odd"


class TestCharacters:
    CHARACTERS = (
        a2v.Character(model_id="eva_a0008", name="eva", display_name="Eva 01"),
        a2v.Character(model_id="leo_a0047", name="leo", display_name="Leo"),
        a2v.Character(model_id="leo_b0001", display_name="leo"),
    )
    AVATAR = a2v.Avatar(avatar_id="a", poses=(a2v.Pose(pose_id="front"), a2v.Pose(pose_id="side")))

    @pytest.mark.parametrize("name", ["eva_a0008", "Eva 01", "eva_01", " EVA "])
    def test_a_character_may_be_named(self, read, name) -> None:
        jobs = read(f"character,audio_url\n{name},{URL}", characters=self.CHARACTERS)
        assert jobs == [a2v.Job("eva_a0008", URL)]

    def test_unknown_ids_and_ambiguous_names_are_errors(self, faults) -> None:
        rows = "".join(f"{name},{URL}\n" for name in ("Eva_a008", "leo", "xyz", ""))
        assert faults(f"model,audio_url\n{rows}{'eva'},", characters=iter(self.CHARACTERS)) == [
            ((2, "model"), "there is no character 'Eva_a008'; did you mean 'eva_a0008'?"),
            ((3, "model"), "2 characters are called 'leo': use one of 'leo_a0047', 'leo_b0001'"),
            ((4, "model"), "there is no character 'xyz'; use one of 'eva_a0008', 'leo_a0047', 'leo_b0001'"),
            ((5, "model"), "it is missing or empty"),
            ((6, "audio_url"), "it is missing or empty"),
        ]

    def test_poses(self, read, faults) -> None:
        table = f"pose_id,audio_url\n{{}},{URL}"
        assert read(table.format("side"), characters=[self.AVATAR]) == [a2v.Job(pose_id="side", audio_url=URL)]
        (fault,) = faults(table.format("sid"), characters=[self.AVATAR])
        assert fault == ((2, "pose_id"), "there is no pose 'sid'; did you mean 'side'?")
        # Without avatars among them, poses are not checked.
        assert read(table.format("sid"), characters=self.CHARACTERS) == [a2v.Job(pose_id="sid", audio_url=URL)]

    @pytest.mark.parametrize("characters", [5, ["eva"], [None]])
    def test_something_else(self, read, characters) -> None:
        with pytest.raises(a2v.InvalidArgumentError, match="characters must be characters and avatars"):
            read("", characters=characters)


class TestWorkbooks:
    @pytest.mark.parametrize("kept", [100, 1000, 3000])
    def test_one_that_was_cut_off(self, faults, kept) -> None:
        assert "not a workbook" in faults(workbook(["model_id"])[:kept], "jobs.xlsx")[0][1]

    def test_an_archive_of_something_else(self, faults) -> None:
        stored = io.BytesIO()
        with zipfile.ZipFile(stored, "w") as archive:
            archive.writestr("hello.txt", "hello")
        assert "not a workbook" in faults(stored.getvalue(), "jobs.xlsx")[0][1]

    def test_one_with_a_password(self, faults) -> None:
        packed = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000)
        assert "save it as .xlsx, without a password" in faults(packed, "jobs.xlsx")[0][1]


def test_file_names() -> None:
    assert file_names.file_names([JOB, a2v.Job("eva", URL, "hello"), JOB]) == ["0001", "hello", "0003"]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\r\n"), max_size=20)
NAME = st.from_regex(r"[a-zäß日][a-z0-9 ,;'é日]{0,8}[a-z]", fullmatch=True)
HEADER = TEXT.filter(lambda header: header == text.strip(header) != "" and not manifest_rows.column_of(header))


@st.composite
def jobs_of_one_table(draw):
    headers = draw(st.lists(HEADER, max_size=2, unique=True))
    jobs = []
    for name in draw(st.lists(NAME, min_size=1, max_size=8, unique_by=file_names.name_key)):
        more = {"name": name, "extra": {header: draw(TEXT) for header in headers}}
        if draw(st.booleans()):
            jobs.append(a2v.Job("eva,;", f"https://example.com/{name.replace(' ', '+')}?a=1,2;3", **more))
        else:
            jobs.append(a2v.Job(pose_id="front", audio_url=URL, with_mask=draw(st.booleans()), **more))
    return jobs


def cells_of(job):
    columns = {column: getattr(job, column) for column in manifest_rows.COLUMNS}
    return {column: "" if value is None else value for column, value in columns.items()} | dict(job.extra)


def as_csv(jobs, delimiter):
    stored = io.StringIO()
    writer = csv.DictWriter(stored, cells_of(jobs[0]).keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(map(cells_of, jobs))
    return stored.getvalue().encode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jobs_of_one_table(), st.sampled_from(",;\t"))
def test_what_was_written_is_read(jobs, delimiter) -> None:
    written = [cells_of(job) for job in jobs]
    for rows in (
        manifest_rows.read_csv(as_csv(jobs, delimiter)),
        manifest_rows.read_json_lines("\n".join(map(json.dumps, written)).encode()),
        manifest_rows.read_json(json.dumps(written, indent=1).encode()),
        manifest_jobs.rows_of(written),
    ):
        found = manifest_jobs.read_rows(rows)
        assert found.errors == ()
        assert found.jobs == jobs
        assert [job.extra for job in found.jobs] == [job.extra for job in jobs]


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([manifest_rows.read_csv, manifest_rows.read_json_lines, manifest_rows.read_json]),
)
def test_any_bytes_are_jobs_or_errors(data, read) -> None:
    for prefix in (b"", b"model_id,audio_url\n", b"\xff\xfe", b"[{"):
        found = manifest_jobs.read_rows(read(prefix + data))
        assert len(found.jobs) == len(found.rows)
        assert all(error.problem for error in found.errors)


class TestTexts:
    """Rows with a text and a voice instead of a recording."""

    def test_the_services_own_columns(self, read) -> None:
        jobs = read('model_id,voice_name,text,name\neva,heart,"Hello, 2 ""worlds""\n– twice!",hello\nmia,mike,7,\n')
        assert jobs == [
            a2v.Job("eva", text='Hello, 2 "worlds"\n– twice!', voice_name="heart", name="hello"),
            a2v.Job("mia", text="7", voice_name="mike"),
        ]

    def test_recordings_and_texts_in_one_table(self, read) -> None:
        jobs = read(f"model_id,audio_url,text,voice_name\neva,{URL},,\neva,,Hello!,heart\n")
        assert jobs == [JOB, a2v.Job("eva", text="Hello!", voice_name="heart")]

    def test_a_transcript_beside_a_recording_stays_with_the_job(self, read) -> None:
        """Manifests had such columns before there were voices."""
        (job,) = read(f"model_id,audio_url,Text\neva,{URL},what is said\n")
        assert (job, dict(job.extra)) == (JOB, {"Text": "what is said"})

    @pytest.mark.parametrize(
        ("rows", "place", "problem"),
        [
            ("model_id,text\neva,Hello!\n", (1, None), "lacks voice_name"),
            ("model_id,text,voice_name\neva,Hello!,\n", (2, "voice_name"), "it is missing or empty"),
            ("model_id,text,voice_name\neva,,heart\nmia,b,heart\n", (2, "text"), "it is missing or empty"),
            ("model_id,Text,voice_name\neva,a\x01b,heart\n", (2, "Text"), "text must not contain '\\x01'"),
            ("model_id,text,voice_name\neva,Hello!,he\u200bart\n", (2, "voice_name"), "it contains '\\u200b'"),
            (f"model_id,audio_url,text,voice_name\neva,{URL},Hello!,heart\n", (2, None), "not both"),
            (f"model_id,audio_url,voice_name\neva,{URL},heart\n", (2, None), "voice_name requires a text"),
            ("model_id,name,voice_name\neva,a,heart\n", (1, None), "lacks audio_url (or text)"),
        ],
    )
    def test_faults(self, faults, rows, place, problem) -> None:
        found = dict(faults(rows))
        assert list(found) == [place]
        assert problem in found[place]

    def test_rows_of_other_sources(self) -> None:
        job = a2v.Job("eva", text="Hello!", voice_name="heart")
        assert a2v.read_manifest([job, {"model_id": "eva", "text": "Hello!", "voice name": "heart"}]) == [job, job]


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("naem", "name"),
        ("Names", "name"),
        ("nam", "name"),
        ("With-Masks", "with_mask"),
        ("optoins", "options"),
        ("option", "options"),
        ("game", None),
        ("same", None),
        ("frame", None),
        ("motions", None),
        ("notes", None),
        ("mask", None),
        ("", None),
    ],
)
def test_a_header_that_is_another_word_is_no_misspelling(header: str, column: str | None) -> None:
    assert manifest_rows.similar_column(header, ["name", "with_mask", "options"]) == column
