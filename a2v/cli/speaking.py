"""Who speaks in a video, and the text and the voice of ``a2v say``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from a2v import A2VError, Avatar, Character, NotFoundError, Pose
from a2v._core import wire
from a2v.cli.connection import needs_extra
from a2v.cli.options import UsageError
from a2v.cli.text_files import read_text_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from a2v import AsyncA2V
    from a2v.cli.options import ServerOptions


@frozen
class Speaker:
    """The character or the pose that speaks in a video; its gender is empty if that is unknown."""

    model_id: str | None
    pose_id: str | None
    gender: str = ""

    @classmethod
    def stand_in(cls, model_id: str | None, pose_id: str | None) -> Speaker:
        """Return a speaker for checks before the server is asked: the name of a character may contain spaces."""
        return cls(model_id and model_id.strip(" ").replace(" ", "_"), pose_id)


async def list_speakers(client: AsyncA2V, columns: Collection[str]) -> list[Character | Avatar]:
    """Return the characters of a server for ``model_id``, and its avatars for ``pose_id``; none if it has no such list."""
    found: list[Character | Avatar] = []
    with suppress(NotFoundError):
        found += await client.characters.list() if "model_id" in columns else []
    with suppress(NotFoundError):
        found += await client.avatars.list() if "pose_id" in columns else []
    return found


async def local_speakers(server: ServerOptions) -> list[Character | Avatar]:
    """Return the characters and avatars that a local engine would have, without starting one.

    Raises:
        UsageError: The extra ``engine`` is not installed.
        ConfigurationError: There is no such folder of characters.
    """
    with needs_extra():
        from a2v.engine import Settings  # noqa: PLC0415  # an extra
        from a2v.engine.characters import camera_poses  # noqa: PLC0415
        from a2v.engine.characters.catalogue import Catalogue  # noqa: PLC0415
    known = (await Catalogue(Settings(characters=server.characters).characters).current()).specs
    characters = [Character(model_id=model_id, display_name=one.display_name) for model_id, one in known.items()]
    poses = {model_id: [Pose(pose_id=pose.pose_id) for pose in camera_poses(one)] for model_id, one in known.items()}
    return [*characters, *(Avatar(avatar_id=model_id, poses=tuple(found)) for model_id, found in poses.items())]


async def resolve_speaker(client: AsyncA2V, column: str, text: str) -> tuple[str, str]:
    """Return the id that an id or a unique name means, and the gender. A server without a list accepts any id.

    Args:
        client: The client of the server.
        column: ``model_id`` or ``pose_id``.
        text: The id, or the name of a character.

    Raises:
        ValueError: There is no such character or pose, or there are several characters with this name.
    """
    from a2v._core.speakers import Speakers  # noqa: PLC0415  # loads what reads tables

    found = await list_speakers(client, [column])
    chosen = Speakers.of(found).resolve(column, text)
    return chosen, _gender_of(found, chosen)


async def find_speaker(client: AsyncA2V, model_id: str | None, pose_id: str | None) -> Speaker:
    """Return the character that an id or a unique name means, or the pose; see ``resolve_speaker``.

    Raises:
        UsageError: There is no such character or pose, or there are several characters with this name.
    """
    column, given = ("model_id", model_id) if pose_id is None else ("pose_id", pose_id)
    try:
        chosen, gender = await resolve_speaker(client, column, given or "")
    except ValueError as error:
        raise UsageError(f"--{column.replace('_', '-')}: {error}") from None
    return Speaker(chosen, None, gender) if pose_id is None else Speaker(None, chosen, gender)


def _gender_of(speakers: Iterable[Character | Avatar], speaker_id: str) -> str:
    """Return the gender of a character or of the avatar of a pose; empty if there is none."""
    return next((one.gender for one in speakers if speaker_id in _ids(one)), "")


def _ids(speaker: Character | Avatar) -> list[str]:
    return [speaker.model_id] if isinstance(speaker, Character) else [pose.pose_id for pose in speaker.poses]


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
        content = read_text_file(file, source, max_bytes=1 << 20, limit="1 MiB")
    if not content.strip():
        raise UsageError(f"{source} is empty")
    return content.strip()


def check_speech(text: str, voice: str | None) -> None:
    """Check the text and the voice before anything is sent.

    Raises:
        UsageError: One is invalid.
    """
    try:
        wire.check_speech(text, "any" if voice is None else voice)
    except ValueError as error:
        raise UsageError(str(error).replace("voice_name", "--voice")) from None


async def choose_voice(client: AsyncA2V, gender: str) -> str:
    """Return the first voice of a gender, or else the first voice.

    Raises:
        A2VError: The server has no voices.
    """
    voices = await client.voices.list()
    if not voices:
        raise A2VError("the server has no voices")
    return next((voice for voice in voices if voice.gender == gender), voices[0]).voice_name
