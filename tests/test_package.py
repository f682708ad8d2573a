"""The front door: what it exports, what it costs, and that the project's pages say what is so."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import a2v

ROOT = Path(__file__).parents[1]
EXPORTED = sorted(set(a2v.__all__) - {"__version__"})


def python(code: str) -> str:
    """What another interpreter prints, where warnings are errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_is_everything_public() -> None:
    public = {name for name in dir(a2v) if not name.startswith("_") and not inspect.ismodule(getattr(a2v, name))}
    assert set(EXPORTED) == public - {
        "Any",
        "NullHandler",
        "TYPE_CHECKING",
        "annotations",
        "getLogger",
        "import_module",
    }
    assert not hasattr(a2v, "nothing")


@pytest.mark.parametrize("name", EXPORTED)
def test_a_public_class_goes_by_its_short_name(name: str) -> None:
    assert getattr(a2v, name).__module__ == "a2v"
    assert getattr(a2v, name).__doc__


def test_an_import_brings_no_extra() -> None:
    def imported(code: str) -> set[str]:
        return set(python(f"{code}; import sys; print(*(name.partition('.')[0] for name in sys.modules))").split())

    # httpx imports rich, for a command line of its own, and httpcore imports trio, where these are installed.
    brought = imported("from a2v import *") - imported("import httpcore, httpx")
    assert "a2v" in brought
    assert not brought & {
        "av",
        "cyclopts",
        "numpy",
        "obstore",
        "opentelemetry",
        "rich",
        "starlette",
        "thorvg_cython",
        "trio",
        "uvicorn",
    }


def test_an_import_opens_no_upper_room() -> None:
    loaded = python("from a2v import *; import sys; print(*sys.modules)").split()
    assert not {"a2v.cli", "a2v.engine", "a2v.staging"} & set(loaded)


def test_the_libraries_come_with_the_first_client() -> None:
    loaded = python("import a2v, sys; print(*sys.modules); a2v.AsyncA2V; print(*sys.modules)").splitlines()
    assert ["httpx" in names.split() for names in loaded] == [False, True]


def test_batches_downloads_and_responses_bring_their_libraries_when_used() -> None:
    code = "import httpx, sys; before = set(sys.modules); from a2v import AsyncA2V; print(*(set(sys.modules) - before))"
    loaded = set(python(code).split())
    assert "a2v._async.client" in loaded
    assert not loaded & {
        "a2v._async.batch.batch",
        "a2v._async.download",
        "a2v._core.gateways",
        "a2v._core.journal_rows",
        "a2v._core.url_signatures",
        "a2v._threads",
        "a2v._values.html",
        "asyncio",
        "cattrs",
        "sqlite3",
    }


def test_help_needs_neither_the_http_library_nor_the_code_of_batches() -> None:
    loaded = set(python("import a2v.cli.commands, sys; print(*sys.modules)").split())
    assert "a2v.cli.tracking" in loaded
    assert not loaded & {"httpx", "sqlite3", "a2v._async.client", "a2v.cli.batch_run", "a2v.engine", "a2v.manifest"}


def test_an_import_does_no_work() -> None:
    """No thread, no socket, no TLS context: constructing a client is cheap too."""
    # httpcore imports trio where that is installed, which asks the system for a library.
    code = """
import sys, httpcore
def audit(event, args):
    if event.startswith(("socket.", "subprocess.", "_thread.start")) or event == "open" and ".pem" in str(args[0]):
        print(event, args)
sys.addaudithook(audit)
import a2v
a2v.AsyncA2V("token")
a2v.A2V("token")
"""
    assert python(code) == ""


def test_one_source_for_the_version() -> None:
    assert importlib.metadata.version("a2v") == a2v.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]


def test_types_are_shipped() -> None:
    assert (importlib.resources.files("a2v") / "py.typed").is_file()


def test_the_readme_is_short_and_shows_a_program_first() -> None:
    """The tests in ``conftest.py`` run each block: programs as files, as a reader would."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 100
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert all("asyncio.run(" in block for block in blocks)
    assert 0 < len(blocks[0].splitlines()) <= 20


def test_ci_runs_what_the_readme_says() -> None:
    """Both set-up commands are one line each; .ci/run runs the one for the tests."""
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]
    demo, tests = commands
    assert demo.endswith("a2v demo")
    assert f"\n({tests})" in (ROOT / ".ci/run").read_text()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0] == "## [Unreleased]"


def test_the_architecture_page_names_what_is_there() -> None:
    """Every path in it exists, and no module of the package goes unmentioned."""
    page = (ROOT / "docs/architecture.md").read_text()
    package = Path(a2v.__file__).parent
    folders = [ROOT, package, *(path.parent for path in package.rglob("__init__.py"))]
    named = set(re.findall(r"[\w./]*\w(?:\.py|/(?=`))", page))
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []
    modules = {path.name for path in package.rglob("*.py") if not path.name.startswith("_")}
    assert modules - {Path(name).name for name in named} == set()
