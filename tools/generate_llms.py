"""Write llms.txt and llms-full.txt, the docs as plain text for language models, into a built site.

Usage: ``python tools/generate_llms.py site``. ``llms.txt`` lists the pages with a sentence each, and links to their Markdown, which
is copied beside the HTML. ``llms-full.txt`` has all pages in one file. Signatures and docstrings replace the directives of
mkdocstrings.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def generate(site: Path) -> None:
    """Write both files, and the pages as Markdown.

    Args:
        site: The folder of the site.
    """
    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    extensions = griffe.load_extensions(str(ROOT / "tools" / "griffe_attrs.py"), "unpack_typeddict")
    package = griffe.load("a2v", search_paths=[str(ROOT)], resolve_aliases=True, extensions=extensions)
    lines = [f"# {project['site_name']}", "", f"> {project['site_description']}"]
    full = []
    for section, pages in _sections(project["nav"]):
        lines += ["", f"## {section}", ""]
        for title, name in pages:
            text = _with_reference((DOCS / name).read_text(encoding="utf-8"), package)
            target = site / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            lines.append(f"- [{title}]({name}): {_summary(text)}")
            full.append(text)
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(full), encoding="utf-8")


def _sections(nav: list[dict[str, Any]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    single = [(title, page) for entry in nav for title, page in entry.items() if isinstance(page, str)]
    yield "Start", single
    for entry in nav:
        for section, pages in entry.items():
            if not isinstance(pages, str):
                yield section, [(title, page) for page_entry in pages for title, page in page_entry.items()]


def _summary(text: str) -> str:
    """Return the first sentence below the heading."""
    paragraphs = re.split(r"\n\n+", text)[1:]
    first = next((text for text in paragraphs if re.match(r"`?[\w\[]", text)), "")
    sentence = re.split(r"(?<=\.)\s", " ".join(first.split()), maxsplit=1)[0]
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", sentence)


def _with_reference(text: str, package: griffe.Object | griffe.Alias) -> str:
    def describe(match: re.Match[str]) -> str:
        return "\n".join(_describe(package[match[1].removeprefix("a2v.")], level=2))

    return re.sub(r"^::: (\S+)\n(?:    .*\n)*", describe, text, flags=re.MULTILINE)


def _describe(thing: griffe.Object | griffe.Alias, level: int) -> Iterator[str]:
    target = thing.final_target if isinstance(thing, griffe.Alias) else thing
    yield f"{'#' * level} {thing.name}"
    yield ""
    if isinstance(target, griffe.Function):
        yield f"```text\n{target.signature()}\n```\n"
    if target.docstring:
        yield f"{target.docstring.value}\n"
    if not isinstance(target, griffe.Attribute | griffe.Function):
        for member in target.members.values():
            if not member.name.startswith("_") and not member.is_alias and member.docstring:
                yield from _describe(member, level + 1)


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
