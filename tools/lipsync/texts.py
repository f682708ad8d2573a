"""What the voices say: sentences of the fortune collections that Debian packs (packages ``fortunes*``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

_FORTUNES = Path("/usr/share/games/fortunes")
_FOREIGN = {"cs": "cs", "de": "de", "es": "es", "it": "it", "pl": "pl", "pt-br": "brasil"}
_NOT_PROSE = re.compile(r"[<>{}\[\]|\\/@#$%^=_+~*0-9&]")


def sentences(language: str, random: Random) -> Iterator[str]:
    """Sentences of a language (``en``, or one of six more) in an endless random order."""
    known = _read(language)
    if len(known) < 50:
        raise SystemExit(f"There is nothing to say in {language!r}: apt-get install fortunes fortunes-{language}.")
    while True:
        yield random.choice(known)


def plain(text: str) -> str:
    """A sentence without what makes flite and festival speak it in two parts."""
    return re.sub(r"(,\s*)+", ", ", re.sub(r"[.;!?:\"()]", ",", text)).strip(", ")


def _read(language: str) -> list[str]:
    there = _FORTUNES / _FOREIGN.get(language, ".")
    files = [there] if there.is_file() else sorted(path for path in there.iterdir() if path.suffix == ".dat")
    # At the top lie English ones, which have a copy for UTF-8, and some Italian ones, which have none.
    known = [
        path
        for path in (file.with_suffix("") for file in files)
        if language != "en" or path.with_suffix(".u8").exists()
    ]
    found = []
    for path in known:
        found += _split(path.read_text("utf-8", errors="ignore"))
    return found


def _split(text: str) -> list[str]:
    paragraphs = re.split(r"^%$|\n\s*\n", text, flags=re.MULTILINE)
    parts = [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))]
    return [part.strip(' -"') for part in parts if _is_prose(part)]


def _is_prose(text: str) -> bool:
    capitals = sum(letter.isupper() for letter in text)
    return 18 < len(text) < 110 and not _NOT_PROSE.search(text) and capitals < 0.3 * len(text)
