"""``file://`` URLs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def path_from_url(url: str) -> Path | None:
    """Return the path of a ``file://`` URL, or ``None`` for any other URL."""
    return Path(url2pathname(urlsplit(url).path)) if url[:5].lower() == "file:" else None
