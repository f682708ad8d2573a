"""What ``--report`` writes is harmless in any spreadsheet, and replaces nothing that is still needed."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import a2v
from a2v.cli.job_status import JobStatus
from a2v.cli.report import write_report

HEAD = "model_id,audio_url,name\n"
FORMULA = re.compile(r"[\s\"]*[=+\-@＝＋－＠]")  # noqa: RUF001
EVIL = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "＝1", '=HYPERLINK("http://evil";"x")', "-1;=1"]  # noqa: RUF001


def status(**facts) -> JobStatus:
    extra = facts.pop("extra", {})
    job = a2v.Job("eva", "https://example.com/a.wav", extra=extra)
    return JobStatus(**{"row": 2, "name": "one", "state": "failed", "job": job, "source": job.audio_url} | facts)


@pytest.mark.parametrize("formula", EVIL)
@pytest.mark.parametrize(
    "text",
    ["{}", " {}", "fine;{}", "fine; {}", "fine\t{}", "fine|{}", "two\n{}", "two\r\n{}", 'a;"{}"', "a;;{};b", "\t{}", "a\u2028{}"],
)  # fmt: skip
def test_no_cell_is_a_formula_whatever_the_separator(tmp_path, text, formula) -> None:
    evil = text.format(formula)
    extra = {"note": evil, evil: "x", "list": [evil]}
    write_report(tmp_path / "r.csv", [status(error=f"sorry;{formula}", extra=extra, source=evil)])
    written = (tmp_path / "r.csv").read_text("utf-8-sig")
    for delimiter in ",;\t|":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for row in csv.reader(io.StringIO(written, newline=""), delimiter=delimiter, quoting=quoting):
                for line in (line for cell in row for line in cell.splitlines()):
                    assert not FORMULA.match(line), line


@pytest.mark.parametrize(
    "text", ["-5.5", "+3", "1,5", "-1,5", "9 a.m. - 5 p.m.", "a=b", "me@example.com", "C-3PO; R2-D2"]
)
def test_what_is_no_formula_stays_as_it_is(tmp_path, text) -> None:
    write_report(tmp_path / "r.csv", [status(extra={"note": text})])
    (row,) = csv.DictReader((tmp_path / "r.csv").read_text("utf-8-sig").splitlines())
    assert row["note"] == text


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_path_that_is_not_utf_8(tmp_path, ending) -> None:
    write_report(tmp_path / f"r{ending}", [status(path="/videos/caf\udce9.mp4")])
    assert "caf\\udce9.mp4" in (tmp_path / f"r{ending}").read_text("utf-8-sig")
    assert [path.name for path in tmp_path.iterdir()] == [f"r{ending}"]


def test_a_planted_link_leads_nowhere(tmp_path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "r.csv.part").symlink_to("precious")
    write_report(tmp_path / "r.csv", [status()])
    assert (tmp_path / "precious").read_text() == "precious"


class TestWhatItMustNotReplace:
    @pytest.fixture
    def folder(self, tmp_path, speech, monkeypatch):
        (tmp_path / "sub").mkdir()
        (tmp_path / "jobs.csv").write_text(HEAD + "eva_a0008,take.csv,one\n")
        (tmp_path / "take.csv").write_bytes(Path(speech).read_bytes())
        (tmp_path / "token.json").write_text("token-1234")
        (tmp_path / "token.json").chmod(0o600)
        (tmp_path / "soft.csv").symlink_to("jobs.csv")
        (tmp_path / "hard.csv").hardlink_to(tmp_path / "jobs.csv")
        (tmp_path / "linked").symlink_to("sub")
        return tmp_path

    @pytest.mark.parametrize(
        ("report", "options"),
        [
            ("jobs.csv", []),
            ("./jobs.csv", []),
            ("sub/../jobs.csv", []),
            ("{}/jobs.csv", []),
            ("soft.csv", []),
            ("hard.csv", []),
            ("take.csv", []),
            ("jobs.csv", ["--dry-run"]),
            ("journal.json", ["--journal", "./journal.json"]),
            ("JOURNAL.json", ["--journal", "journal.json"]),
            ("linked/journal.json", ["--journal", "sub/journal.json"]),
        ],
    )
    def test_it_is_refused_before_anything_is_done(self, here, folder, report, options) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        code, out, err = here(
            "batch", "jobs.csv", "-o", "videos", "--local", "--report", report.format(folder), *options
        )
        assert (code, out) == (2, "")
        assert "--report would replace the file" in err
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_the_token(self, here, folder, service) -> None:
        (folder / "jobs.csv").write_text(HEAD + "eva,https://example.com/a.wav,one\n")
        code, _, err = here("batch", "jobs.csv", "-o", "v", "--token-file", "token.json", "--report", "token.json")
        assert (code, service.calls) == (2, ())
        assert "--report would replace the file token.json" in err

    def test_an_older_report_is_replaced(self, here, folder, service) -> None:
        service.poll_statuses = ["finished"]
        (folder / "jobs.csv").write_text(HEAD + "eva,https://example.com/a.wav,one\n")
        (folder / "report.json").write_text("old")
        assert here("batch", "jobs.csv", "-o", "v", "--report", "report.json")[0] == 0
        assert json.loads((folder / "report.json").read_text())[0]["state"] == "done"
