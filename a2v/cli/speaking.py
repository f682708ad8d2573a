"""The text and the voice of ``a2v say``."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING

from a2v import A2VError
from a2v._core import wire
from a2v.cli.options import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from a2v import AsyncA2V, Voice

_MOST_BYTES = 1 << 20


def read_text(text: str | None, file: Path | None) -> str:
    """Return the text to speak: the argument, the content of a file, or that of standard input for ``-``.

    Raises:
        UsageError: There is no text, or two, or the file cannot be read.
    """
    if (text is None) == (file is None):
        raise UsageError('say needs one text: a2v say "Hello!", or --text-file FILE, or - for standard input')
    if file is None and text != "-":
        source, content = "the text", text or ""
    else:
        source = f"--text-file: {file}" if file else "standard input"
        content = _read(source, file)
    if not content.strip():
        raise UsageError(f"{source} is empty")
    return content.strip()


def _read(source: str, file: Path | None) -> str:
    try:
        with file.open("rb") if file else nullcontext(_standard_input()) as opened:
            data = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{source} is too long for a text: more than 1 MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8: byte {error.start + 1} is 0x{data[error.start]:02x}") from None


def _standard_input() -> IO[bytes]:
    return sys.stdin.buffer if sys.stdin else io.BytesIO()  # it may be closed


def check_speech(text: str, voice: str | None) -> None:
    """Check the text and the voice before anything is sent.

    Raises:
        UsageError: One is invalid.
    """
    try:
        wire.check_speech(text, "any" if voice is None else voice)
    except ValueError as error:
        raise UsageError(str(error).replace("voice_name", "--voice")) from None


async def choose_voice(client: AsyncA2V, model_id: str | None, pose_id: str | None) -> str:
    """Return the first voice whose gender is that of the character, or else the first voice.

    Raises:
        A2VError: The server has no voices.
    """
    voices = await client.voices.list()
    if not voices:
        raise A2VError("the server has no voices")
    gender = await _gender(client, model_id, pose_id) if len({voice.gender for voice in voices}) > 1 else ""
    return _first(voices, gender).voice_name


def _first(voices: Sequence[Voice], gender: str) -> Voice:
    return next((voice for voice in voices if voice.gender == gender), voices[0])


async def _gender(client: AsyncA2V, model_id: str | None, pose_id: str | None) -> str:
    if pose_id is not None:
        found = [one.gender for one in await client.avatars.list() if pose_id in {pose.pose_id for pose in one.poses}]
    else:
        found = [one.gender for one in await client.characters.list() if one.model_id == model_id]
    return found[0] if found else ""
