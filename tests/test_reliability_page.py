"""The pages of promises: every test that they name exists, so no promise is left without its check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("docs/reliability.md", "SECURITY.md")


def names_of(tree: ast.Module) -> set[str]:
    """The tests of a module as pytest calls them, ``test_x`` or ``TestX::test_x``, and its classes."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {node.name, *(f"{node.name}::{each.name}" for each in methods)}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"\b(tests/[\w/]+\.py)(?:::([\w:]+))?", text)
    assert len(named) > 10
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or (name and name not in names_of(ast.parse((ROOT / file).read_text("utf-8"))))
    ]
    assert missing == []
