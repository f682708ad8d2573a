"""Paths as people write them, and as file systems have them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def find_existing(path: Path) -> Path:
    """Find the file that a path means, if its name is composed in another way on the disk.

    macOS and programs from there write ``é`` as two characters (NFD), most others as one (NFC). The two look the same, and
    other file systems tell them apart.

    Returns:
        The path of the file or folder that exists, otherwise the path as it is.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        found /= part if os.path.lexists(found / part) else _alike(found, part)
    return found


def _alike(folder: Path, name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return name
    return min((one for one in names if unicodedata.normalize("NFC", one) == composed), default=name)
