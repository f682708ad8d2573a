"""Each extra: with it, what it is for can be had; without it, one is told what to install. `nox -s extras` runs both."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

PROBES = {
    "cli": ("cyclopts", "import sys; sys.argv = ['a2v', '--version']; from a2v.cli import main; main()"),
    "engine": ("av", "from a2v.engine import LocalEngine, Settings, create_app, serve; LocalEngine()"),
    "staging": ("obstore", "from a2v.staging import AsyncStager, Stager, stage"),
    "xlsx": ("python_calamine", "import a2v; a2v.read_manifest('jobs.xlsx')"),
}
JOBS = {  # the least that is a workbook
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"/>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Target="worksheets/sheet1.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
    '<sheets><sheet name="jobs" sheetId="1" r:id="r1"/></sheets></workbook>',
    "xl/worksheets/sheet1.xml": '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    '<row r="1"><c r="A1" t="inlineStr"><is><t>model_id</t></is></c>'
    '<c r="B1" t="inlineStr"><is><t>audio_url</t></is></c></row>'
    '<row r="2"><c r="A2" t="inlineStr"><is><t>eva_a0008</t></is></c>'
    '<c r="B2" t="inlineStr"><is><t>https://example.com/a.wav</t></is></c></row></sheetData></worksheet>',
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("extra", PROBES)
def test_an_extra_works_or_says_what_to_install(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, probe = PROBES[extra]
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("jobs.xlsx", "w") as workbook:
        for name, content in JOBS.items():
            workbook.writestr(name, content)
    done = python(probe)
    if find_spec(package):
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode
        assert f'pip install "a2v[{extra}]"' in done.stderr.splitlines()[-1]


def test_the_client_needs_no_extra() -> None:
    """With OpenTelemetry or without: a call goes out, and its error comes back."""
    code = """
import a2v
from a2v.testing import Service
with a2v.A2V("token", transport=Service().transport()) as client:
    print(client.characters.list()[0].model_id)
    print(client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav").wait().status)
"""
    done = python(code)
    assert (done.stdout.split(), done.stderr) == (["eva_a0008", "finished"], "")
