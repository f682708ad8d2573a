"""Files that URLs name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def path_from_url(url: str) -> Path | None:
    """The file that a ``file://`` URL names, or ``None`` for any other URL."""
    return Path(url2pathname(urlsplit(url).path)) if url[:5].lower() == "file:" else None
