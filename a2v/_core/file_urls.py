"""``file://`` URLs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def path_from_url(url: str | None) -> Path | None:
    """Return the path of a ``file://`` URL, or ``None`` for any other URL, and for none."""
    return Path(url2pathname(urlsplit(url).path)) if url and url[:5].lower() == "file:" else None
