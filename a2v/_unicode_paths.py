"""Finds files whose names have another Unicode normalization on disk."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def find_existing(path: Path) -> Path:
    """Find an existing file whose path differs from the given one only in its Unicode normalization.

    macOS, and archives made there, write ``é`` as two code points (NFD); most other systems write one (NFC). Both look the same,
    but most file systems distinguish them.

    Returns:
        The path of the existing file or folder, or the given path if there is none.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        found /= part if os.path.lexists(found / part) else _match(found, part)
    return found


def _match(folder: Path, name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return name
    return min((entry for entry in names if unicodedata.normalize("NFC", entry) == composed), default=name)
