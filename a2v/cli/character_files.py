"""``a2v character new`` and ``a2v character check``: files of characters, and their preview pictures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from a2v import A2VError
from a2v.cli.connection import needs_extra
from a2v.cli.options import UsageError
from a2v.cli.targets import make_folder
from a2v.cli.terminal import eprint, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2v.engine.characters import Character, CharacterSpec

PREVIEW = ".preview.png"
_MAX_SEED = 1_000_000


def new_character(name: str, folder: Path, *, seed: int | None, like: str | None, overwrite: bool) -> list[Path]:
    """Write the file of a new character, and its preview picture.

    Args:
        name: The ``model_id``.
        folder: The folder.
        seed: The seed of the character; ``None``: a random one.
        like: A character that it resembles: the ``model_id`` of a built-in one, or a file.
        overwrite: Whether files may be replaced.

    Returns:
        The two files.

    Raises:
        UsageError: The name cannot be an id, the other character does not exist, or a file exists.
    """
    with needs_extra():
        from a2v.engine.characters import built_in_characters, character_id, id_problems, to_toml  # noqa: PLC0415
        from a2v.engine.characters.generator import generate_character  # noqa: PLC0415
    model_id = character_id(name.removesuffix(".toml"))
    if problems := list(id_problems(model_id)):
        raise UsageError("; ".join(problems))
    if model_id.casefold() in map(str.casefold, built_in_characters()):
        raise UsageError(f"{model_id} is the id of a built-in character; choose another name")
    path, picture = folder / f"{model_id}.toml", folder / f"{model_id}{PREVIEW}"
    make_folder(folder)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; add --overwrite to replace it")
    used = random.randrange(_MAX_SEED) if seed is None else seed  # noqa: S311  # not for secrets
    character = generate_character(model_id, used, _find(like) if like else None)
    command = f"a2v character new {model_id} --seed {used}" + (f" --like {like}" if like else "")
    path.write_text(f"# {command}\n{to_toml(character)}", encoding="utf-8")
    picture.write_bytes(_draw(character))
    return [path, picture]


def check_characters(paths: Sequence[Path]) -> list[Path]:
    """Check files of characters, portraits and drawn ones, and draw the valid ones.

    Args:
        paths: The files.

    Returns:
        The preview pictures, beside the files.

    Raises:
        A2VError: A file is invalid; its notes are all problems.
    """
    with needs_extra():
        from a2v.engine.characters import CharacterError, read_character  # noqa: PLC0415
        from a2v.engine.characters.catalogue import read_files  # noqa: PLC0415
    pictures, problems = [], []
    for path in paths:
        try:
            files = _files_of_portrait(path)
            character = anyio.run(read_files, files) if files else read_character(path)
            picture = path.with_name(f"{path.stem}{PREVIEW}")
            picture.write_bytes(_draw(character))
        except CharacterError as error:
            problems += [f"  {path}: {problem}" for problem in error.problems]
        except OSError as error:
            problems.append(f"  {path}: it cannot be read or its picture cannot be written: {error.strerror}")
        else:
            pictures.append(picture)
    if problems:
        eprint(*(f"{picture} was drawn" for picture in pictures))
        found = A2VError(f"{plural(len(problems), 'problem')} in {plural(len(paths), 'file')}:")
        for problem in problems:
            found.add_note(problem)
        raise found
    return pictures


def _files_of_portrait(path: Path) -> list[Path]:
    """Return the files of the portrait that a file belongs to: pictures and settings; nothing if there is no picture."""
    from a2v.engine.characters.portraits import PICTURE_SUFFIXES  # noqa: PLC0415

    if not path.name:  # as . and / have none
        return []
    beside = [path, *(path.with_suffix(suffix) for suffix in (*PICTURE_SUFFIXES, ".toml"))]
    found = [one for one in dict.fromkeys(beside) if one == path or one.exists()]
    return found if any(one.suffix.lower() in PICTURE_SUFFIXES for one in found) else []


def _find(like: str) -> CharacterSpec:
    from a2v.engine.characters import CharacterError, built_in_characters, read_character  # noqa: PLC0415

    if like in built_in_characters():
        return built_in_characters()[like]
    if _files_of_portrait(Path(like)):
        raise UsageError(f"--like: {like} is a portrait; pass the model_id or the file of a drawn character")
    try:
        return read_character(Path(like))
    except CharacterError as error:
        raise UsageError(f"--like: {error}") from None
    except OSError:
        known = ", ".join(built_in_characters())
        raise UsageError(f"--like: there is no character and no file {like!r}; the characters are {known}") from None


def _draw(character: Character) -> bytes:
    from a2v.engine.characters.portraits import PortraitSpec  # noqa: PLC0415
    from a2v.engine.preview import preview  # noqa: PLC0415

    if isinstance(character, PortraitSpec):
        return character.previews[0][1]
    return preview(character.model_id, character=character)
