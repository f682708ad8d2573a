"""The characters and how each can stand: who there is, read from the data files beside this module.

A new character is one more file in ``characters/``. Its name is the ``model_id``; what may be in it is what ``Look``
and its parts describe, and anything else is refused with the name of what was wrong.
"""

# No `from __future__ import annotations`: cattrs reads the types of a NamedTuple's fields as they stand.

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cattrs
from attrs import Attribute, field, frozen
from cattrs import transform_error
from cattrs.v import format_exception

from a2v.engine.errors import RenderError
from a2v.engine.settings import Format

_FOLDER = Path(__file__).parent / "characters"
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


class Tones(NamedTuple):
    """A colour with its shade and its light."""

    base: str
    shade: str
    light: str


def _are_colours(_: object, attribute: "Attribute[Any]", value: tuple[str, ...] | str) -> None:
    for colour in (value,) if isinstance(value, str) else value:
        if not _COLOUR.fullmatch(colour):
            raise ValueError(f"{attribute.name}: a colour is written like '#F2B998', not {colour!r}")


def _is_share(_: object, attribute: "Attribute[Any]", value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} runs from 0 to 1, got {value}")


def _share(default: float) -> Any:
    return field(default=default, validator=_is_share)


@frozen(kw_only=True)
class Palette:
    """The colours of a character. ``second`` are clothes under or beside the main ones."""

    skin: Tones = field(validator=_are_colours)
    hair: Tones = field(validator=_are_colours)
    lips: Tones = field(validator=_are_colours)
    clothes: Tones = field(validator=_are_colours)
    second: Tones = field(validator=_are_colours)
    iris: tuple[str, str] = field(validator=_are_colours)
    blush: str = field(validator=_are_colours)
    backdrop: tuple[str, str] = field(validator=_are_colours)
    disc: str = field(validator=_are_colours)
    accent: str = field(default="#F4C95D", validator=_are_colours)
    """Earrings, necklace, frame of the glasses."""


@frozen(kw_only=True)
class Features:
    """The shapes of a character. Numbers run from 0 to 1."""

    hair: Literal["long", "bob", "curls", "short", "tousled", "receding"]
    outfit: Literal["blazer", "crew", "turtleneck", "hoodie", "shirt"]
    beard: Literal["none", "stubble", "full", "moustache"] = "none"
    glasses: Literal["none", "round", "square"] = "none"
    earrings: Literal["none", "stud", "hoop"] = "none"
    jaw: float = _share(0.3)
    """From a pointed chin to a square one."""
    neck: float = _share(0.3)
    eyes: float = _share(0.7)
    """From narrow to wide."""
    lashes: float = _share(0.5)
    brows: float = _share(0.3)
    """From thin to heavy."""
    lips: float = _share(0.6)
    age: float = _share(0.2)
    """How much of the lines of a face is drawn."""
    freckles: float = _share(0.0)
    blush: float = _share(0.5)


@frozen(kw_only=True, cache_hash=True)
class Look:
    """Everything that is known about a character."""

    model_id: str
    display_name: str
    gender: Literal["female", "male"]
    palette: Palette
    features: Features


class View(NamedTuple):
    """The part of a drawing that is in the picture. How high it is follows from the picture's shape."""

    left: float
    top: float
    width: float


@frozen(kw_only=True)
class AvatarPose:
    """A way for a character to stand before the camera; the wire calls it a pose, by its ``pose_id``."""

    pose_id: str
    name: str
    model_id: str
    views: dict[Format, View]


_STANCES: tuple[tuple[str, str, dict[Format, View]], ...] = (
    ("front", "Front", {"square": View(0, 0, 720), "portrait": View(70, -120, 580)}),
    ("closeup", "Close-up", {"square": View(114, 46, 492), "portrait": View(134, -12, 452)}),
)
"""How everybody can stand; the first is what a ``model_id`` alone asks for."""


@cache
def characters() -> dict[str, Look]:
    """The characters by ``model_id``, in its order.

    Raises:
        ValueError: A data file does not describe a character; the message names the file and what is wrong with it.
    """
    return {path.stem: read_look(path) for path in sorted(_FOLDER.glob("*.toml"))}


def look(model_id: str) -> Look:
    """The character called ``model_id``.

    Raises:
        RenderError: There is no such character.
    """
    try:
        return characters()[model_id]
    except KeyError:
        raise RenderError(f"There is no character {model_id!r}; there are {', '.join(characters())}.") from None


def poses(model_id: str) -> tuple[AvatarPose, ...]:
    """The ways in which a character can stand; the first is the usual one.

    Raises:
        RenderError: There is no such character.
    """
    look(model_id)
    return tuple(
        AvatarPose(pose_id=f"{model_id}_{key}", name=name, model_id=model_id, views=views)
        for key, name, views in _STANCES
    )


def pose(who: str) -> AvatarPose:
    """The pose called ``who``; a ``model_id`` will do for the usual pose of a character.

    Raises:
        RenderError: There is no such pose, and no such character.
    """
    known = _poses()
    if who in known:
        return known[who]
    return poses(who)[0]


@cache
def _poses() -> dict[str, AvatarPose]:
    return {one.pose_id: one for model_id in characters() for one in poses(model_id)}


def read_look(path: Path) -> Look:
    """The character that a data file describes.

    Raises:
        ValueError: The file does not describe a character.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return converter.structure({"model_id": path.stem, **data}, Look)
    except cattrs.BaseValidationError as error:
        complaints = transform_error(error, path="character", format_exception=_complaint)
        raise ValueError(f"{path.name}: {'; '.join(complaints)}") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _complaint(error: BaseException, type_: type | None) -> str:
    # What the validators of this module say is clearer than "invalid value".
    said = type(error) is ValueError and str(error)
    return said or format_exception(error, type_)
