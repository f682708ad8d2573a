"""The pictures of characters and poses: saved to a folder, or shown in terminals that can.

A picture in a terminal is an escape sequence with the file in Base64. Two protocols are in use, that of kitty, which takes PNG, and
that of iTerm2. Terminals are recognised by the variables that they set; within tmux and screen, which do not pass pictures on,
and everywhere else, there are none.
"""

from __future__ import annotations

import os
import re
from base64 import standard_b64encode
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

import anyio
from attrs import frozen

from a2v import A2VError, _threads
from a2v._values.text import redacted_repr
from a2v.cli.targets import make_folder
from a2v.cli.terminal import shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MAX_BYTES = 20 << 20
_TIMEOUT = 30.0  # seconds
_EXTENSIONS = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}
_COLUMNS, _ROWS = 16, 8
_CHUNK = 4096  # the most that kitty takes at once


@frozen
class Picture:
    """The picture of a character or a pose.

    Attributes:
        name: The ``model_id`` or ``pose_id``.
        content: The bytes of the file.
    """

    name: str
    content: bytes

    @property
    def extension(self) -> str:
        """The extension that fits the content."""
        return next(extension for start, extension in _EXTENSIONS.items() if self.content.startswith(start))

    def escape_sequence(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the escape sequence that shows the picture; empty if the terminal does not show it."""
        protocol = _protocol(environment)
        data = standard_b64encode(self.content).decode()
        if protocol == "iterm2":
            size = f"width={_COLUMNS};height={_ROWS};preserveAspectRatio=1"
            return f"\x1b]1337;File=inline=1;size={len(self.content)};{size}:{data}\x07"
        if protocol == "kitty" and self.extension == ".png":
            chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
            first = f"a=T,f=100,c={_COLUMNS},r={_ROWS},"
            return "".join(
                f"\x1b_G{first if not number else ''}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
                for number, chunk in enumerate(chunks)
            )
        return ""


async def fetch(urls: Mapping[str, str]) -> list[Picture]:
    """Fetch pictures, four at a time.

    Args:
        urls: The URL of each picture, by name. Without one, there is no picture.

    Raises:
        A2VError: A picture cannot be fetched.
    """
    found: dict[str, Picture] = {}
    errors: list[A2VError] = []
    slots = anyio.Semaphore(4)

    async def fetch_one(name: str, url: str) -> None:
        try:
            async with slots:
                found[name] = Picture(name, await _threads.run(partial(_fetch, url), grace=0.5))
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            errors.append(A2VError(f"the picture of {name} cannot be fetched from {redacted_repr(url)}: {reason}"))

    async with anyio.create_task_group() as group:
        for name, url in urls.items():
            if url:
                group.start_soon(fetch_one, name, url)
    if errors:
        raise errors[0]
    return [found[name] for name in urls if name in found]


def _fetch(url: str) -> bytes:
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise ValueError("it is not an http(s):// URL")
    with urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310  # checked above; redirects lead to http(s) only
        content: bytes = response.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MiB")
    if not content.startswith(tuple(_EXTENSIONS)):
        raise ValueError("it is not a PNG, JPEG, GIF or WebP picture")
    return content


def save(pictures: Sequence[Picture], folder: Path) -> dict[str, Path]:
    """Save pictures to a folder, under their names. Those of an earlier command are replaced.

    Returns:
        The path of each, by name.

    Raises:
        UsageError: The folder cannot be created or written to.
        A2VError: A picture cannot be written.
    """
    make_folder(folder, "--save")
    saved = {}
    for picture in pictures:
        path = folder / f"{re.sub(r'[^A-Za-z0-9_-]', '_', picture.name)}{picture.extension}"
        try:
            path.write_bytes(picture.content)
        except OSError as error:
            raise A2VError(f"{shown_path(path)} cannot be written: {error.strerror}") from None
        saved[picture.name] = path
    return saved


def can_show(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal that set these variables shows pictures."""
    return _protocol(environment) is not None


def _protocol(environment: Mapping[str, str]) -> str | None:
    if environment.get("TMUX") or environment.get("STY") or environment.get("TERM", "").startswith(("tmux", "screen")):
        return None
    program = environment.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in environment or environment.get("TERM") == "xterm-kitty" or program == "ghostty":
        return "kitty"
    return "iterm2" if program in ("iTerm.app", "WezTerm") else None
