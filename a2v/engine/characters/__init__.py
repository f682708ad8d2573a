"""The characters, read from the data files beside this module, and how the camera frames them.

A character is a value: a ``CharacterSpec`` describes everything that is drawn, and ``read_character`` makes one from a file. To
add a character, add a ``NAME.toml``: its name is the ``model_id``, and its keys are the fields of ``CharacterSpec``, ``Palette``
and ``Features``. A file with unknown keys or bad values is refused.
"""

# No `from __future__ import annotations`: cattrs needs the types of a NamedTuple's fields, not strings.

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

_FOLDER = Path(__file__).parent
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def _check_colours(_: object, attribute: "Attribute[Any]", value: tuple[str, ...] | str) -> None:
    for colour in (value,) if isinstance(value, str) else value:
        if not _COLOUR.fullmatch(colour):
            raise ValueError(f"{attribute.name}: a colour is written like '#F2B998', not {colour!r}")


def _check_fraction(_: object, attribute: "Attribute[Any]", value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, got {value}")


def _fraction(default: float) -> Any:
    return field(default=default, validator=_check_fraction)


class Tones(NamedTuple):
    """A colour with a darker and a lighter shade of it."""

    base: str
    shade: str
    light: str


@frozen(kw_only=True)
class Palette:
    """The colours of a character."""

    skin: Tones = field(validator=_check_colours)
    hair: Tones = field(validator=_check_colours)
    lips: Tones = field(validator=_check_colours)
    clothes: Tones = field(validator=_check_colours)
    second: Tones = field(validator=_check_colours)
    """Clothes under or beside the main ones, such as a shirt or a tie."""
    iris: tuple[str, str] = field(validator=_check_colours)
    blush: str = field(validator=_check_colours)
    backdrop: tuple[str, str] = field(validator=_check_colours)
    """Top and bottom of the backdrop."""
    disc: str = field(validator=_check_colours)
    """The disc behind the head."""
    accent: str = field(default="#F4C95D", validator=_check_colours)
    """Earrings, necklace and frame of the glasses."""


@frozen(kw_only=True)
class Features:
    """The shapes of a character. Numbers run from 0 to 1."""

    hair: Literal["long", "bob", "curls", "short", "tousled", "receding"]
    outfit: Literal["blazer", "crew", "turtleneck", "hoodie", "shirt"]
    beard: Literal["none", "stubble", "full", "moustache"] = "none"
    glasses: Literal["none", "round", "square"] = "none"
    earrings: Literal["none", "stud", "hoop"] = "none"
    jaw: float = _fraction(0.3)
    """From pointed to square."""
    neck: float = _fraction(0.3)
    """From slim to broad."""
    eyes: float = _fraction(0.7)
    """From narrow to wide."""
    lashes: float = _fraction(0.5)
    brows: float = _fraction(0.3)
    """From thin to heavy."""
    lips: float = _fraction(0.6)
    """From thin to full."""
    age: float = _fraction(0.2)
    """How visible the lines of the face are."""
    freckles: float = _fraction(0.0)
    blush: float = _fraction(0.5)


@frozen(kw_only=True, cache_hash=True)
class CharacterSpec:
    """The description of a character. Hashable: the parts of a drawing are cached by it."""

    model_id: str
    display_name: str
    gender: Literal["female", "male"]
    palette: Palette
    features: Features


class Framing(NamedTuple):
    """The part of a drawing that a video shows, in the drawing's units. The height follows from the video's aspect ratio."""

    left: float
    top: float
    width: float


@frozen(kw_only=True)
class CameraPose:
    """A character and how the camera frames it: what the protocol calls a pose.

    Not to be confused with ``FacePose``, the state of the face in one frame.
    """

    pose_id: str
    name: str
    character: CharacterSpec
    framings: dict[Format, Framing]


_POSES: tuple[tuple[str, str, dict[Format, Framing]], ...] = (
    ("front", "Front", {"square": Framing(0, 0, 720), "portrait": Framing(70, -120, 580)}),
    ("closeup", "Close-up", {"square": Framing(114, 46, 492), "portrait": Framing(134, -12, 452)}),
)
"""The poses of each character: suffix of the ``pose_id``, name and framings. The first is the default."""


@cache
def all_characters() -> dict[str, CharacterSpec]:
    """Return the characters by ``model_id``, in its order.

    Raises:
        ValueError: A data file is invalid; the message names the file and the fault.
    """
    return {path.stem: read_character(path) for path in sorted(_FOLDER.glob("*.toml"))}


def get_character(model_id: str) -> CharacterSpec:
    """Return a character.

    Raises:
        RenderError: There is no such character.
    """
    try:
        return all_characters()[model_id]
    except KeyError:
        raise RenderError(
            f"There is no character {model_id!r}. The characters are {', '.join(all_characters())}."
        ) from None


def camera_poses(model_id: str) -> tuple[CameraPose, ...]:
    """Return the poses of a character; the first is the default.

    Raises:
        RenderError: There is no such character.
    """
    character = get_character(model_id)
    return tuple(
        CameraPose(pose_id=f"{model_id}_{suffix}", name=name, character=character, framings=framings)
        for suffix, name, framings in _POSES
    )


def get_camera_pose(subject_id: str) -> CameraPose:
    """Return a pose by its ``pose_id``, or the default pose of a character by its ``model_id``.

    Raises:
        RenderError: There is no such pose or character.
    """
    known = _all_camera_poses()
    return known[subject_id] if subject_id in known else camera_poses(subject_id)[0]


@cache
def _all_camera_poses() -> dict[str, CameraPose]:
    return {pose.pose_id: pose for model_id in all_characters() for pose in camera_poses(model_id)}


def read_character(path: Path) -> CharacterSpec:
    """Read a character from a TOML file; the file's name without the suffix is the ``model_id``.

    Raises:
        ValueError: The file does not describe a character; the message names the file and the fault.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return converter.structure({"model_id": path.stem, **data}, CharacterSpec)
    except cattrs.BaseValidationError as error:
        faults = transform_error(error, path="character", format_exception=_describe_fault)
        raise ValueError(f"{path.name}: {'; '.join(faults)}") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _describe_fault(error: BaseException, type_: type | None) -> str:
    # The messages of this module's validators are clearer than cattrs' "invalid value".
    message = type(error) is ValueError and str(error)
    return message or format_exception(error, type_)
