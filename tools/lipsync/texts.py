"""Texts for the synthesizers: sentences of the fortune collections in Debian (packages ``fortunes*``)."""

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
    """Yield random sentences of a language (``en``, or one of six others) without end."""
    known = _read(language)
    if len(known) < 50:
        raise SystemExit(f"There are no texts in {language!r}: apt-get install fortunes fortunes-{language}.")
    while True:
        yield random.choice(known)


def plain(text: str) -> str:
    """Return a sentence without punctuation that makes flite and festival split it."""
    return re.sub(r"(,\s*)+", ", ", re.sub(r"[.;!?:\"()]", ",", text)).strip(", ")


def _read(language: str) -> list[str]:
    folder = _FORTUNES / _FOREIGN.get(language, ".")
    files = [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.suffix == ".dat")
    # The top folder has English collections, which have a copy in UTF-8, and some Italian ones, which have none.
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
