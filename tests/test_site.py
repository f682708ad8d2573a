"""The site: what is in docs/ can be found in it, and so can every public name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import a2v
import a2v.engine
import a2v.staging
import a2v.testing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages(nav: list[Any]) -> list[str]:
    return [page for entry in nav for of in entry.values() for page in ([of] if isinstance(of, str) else pages(of))]


def _titled(entry: dict[str, Any], section: Any) -> list[tuple[str, str]]:
    return list(entry.items()) if isinstance(section, str) else [pair for page in section for pair in page.items()]


def test_every_page_is_in_the_navigation() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(pages(nav)) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_public_name_is_in_the_reference() -> None:
    told = {
        name
        for path in DOCS.glob("reference/*.md")
        for name in re.findall(r"^::: (\S+)", path.read_text(), re.MULTILINE)
    }
    rooms = (a2v, a2v.engine, a2v.staging, a2v.testing)
    public = {f"{room.__name__}.{name}" for room in rooms for name in room.__all__ if not name.startswith("__")}
    errors = {f"a2v.{name}" for name in a2v.errors.__all__}  # which the page of errors has as a module
    assert public - errors - told == set()


def test_the_recipes_show_the_code_that_is_tested() -> None:
    shown = re.findall(
        r'^```py title="(\S+)"\n(.*?)^```$', (DOCS / "task-queues.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(shown) == 4
    assert [path for path, code in shown if code not in (ROOT / path).read_text()] == []


def test_the_readme_begins_with_a_video_made_for_it() -> None:
    video = DOCS / "talking.webp"
    assert video.read_bytes()[8:16] == b"WEBPVP8X"
    assert video.read_bytes().count(b"ANMF") > 20
    assert video.stat().st_size < 1_500_000
    readme = (ROOT / "README.md").read_text()
    assert readme.index("(docs/talking.webp)") < readme.index("```")


def test_titles_match_the_navigation() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    entries = {page: title for entry in nav for section in entry.values() for title, page in _titled(entry, section)}
    titles = {page: (DOCS / page).read_text().partition("\n")[0].removeprefix("# ") for page in entries}
    assert entries == titles
