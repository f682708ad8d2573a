"""Runs the code of README.md and docs/: every Python block and every command, against a server of its own."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

import a2v
from a2v.testing import Service

ROOT = Path(__file__).parent
TOKEN = "token-of-the-examples"
EVA = a2v.Character(model_id="eva_a0008", name="Eva 01", display_name="Eva 01", gender="female")


def pytest_report_header() -> str:
    """Where the a2v under test comes from."""
    package = Path(a2v.__file__).parent
    if os.environ.get("A2V_TEST_WHEEL") and package.is_relative_to(ROOT / "a2v"):
        pytest.exit("the tree is tested, not the wheel", returncode=4)
    return f"a2v {a2v.__version__} from {package}"


@pytest.fixture(scope="session")
def service_url() -> Iterator[str]:
    with Service(characters=[EVA], content=b"a video", token=TOKEN).server() as server:
        yield server.base_url


@pytest.fixture
def user(service_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who tries the examples: a folder with a recording, and the environment that the README asks for."""
    shutil.copy(ROOT / "a2v/cli/clips/slt.flac", tmp_path / "speech.flac")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A2V_TOKEN", TOKEN)
    monkeypatch.setenv("A2V_BASE_URL", service_url)


def _run_python(example: Example) -> None:
    """A block, with ``await`` allowed where a notebook allows it; each has a namespace of its own."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    namespace = {"a2v": a2v, "__name__": "__main__"}
    if code.co_flags & inspect.CO_COROUTINE:
        anyio.run(eval, code, namespace)
    else:
        exec(code, namespace)


def _run_commands(example: Example) -> None:
    """Each line as it stands, but for those that set up the project: ``tests/test_package.py`` looks after them."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in example.parsed.splitlines():
        if not line.startswith("python3 -m venv"):
            done = subprocess.run(
                line, shell=True, capture_output=True, text=True, timeout=60, env=os.environ | {"PATH": path}
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", _run_python), CodeBlockParser("bash", _run_commands), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["user"],
).pytest()
