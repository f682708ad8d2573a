"""The characters that come with the engine, the format of their files, and how the camera frames them.

A character is a value: a ``CharacterSpec`` describes everything that is drawn, and ``read_character`` makes one from a file,
``NAME.toml``. Its name is the ``model_id``, and its keys are the fields of ``CharacterSpec``, ``Palette`` and ``Features``. Each
field has a validator, which ``parse_character`` calls for each key on its own, so that it reports all problems of a file at once.

The files beside this module are the built-in characters. ``catalogue`` adds the characters of a folder.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

import attrs
from attrs import Attribute, field, frozen
from attrs.validators import optional

from a2v._values.text import escape, find_invisible
from a2v.engine.characters.portraits import (
    PortraitGender,
    PortraitSpec,
    check_blinking,
    check_crop,
    dump_portrait,
    load_portrait,
)
from a2v.engine.errors import RenderError
from a2v.engine.settings import Format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FOLDER = Path(__file__).parent
MAX_FILE_SIZE = 64 * 1024
"""The largest TOML file in bytes."""
_MAX_NAME = 100  # characters
_ID = re.compile(r"[\w-]{1,100}")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
_DRAWN = "drawn"

Check = Callable[[Any, "Attribute[Any]", Any], None]

Gender = Literal["female", "male"]
Hair = Literal["long", "bob", "curls", "short", "tousled", "receding"]
Outfit = Literal["blazer", "crew", "turtleneck", "hoodie", "shirt"]
Beard = Literal["none", "stubble", "full", "moustache"]
Glasses = Literal["none", "round", "square"]
Earrings = Literal["none", "stud", "hoop"]
Mole = Literal["none", "cheek", "lip"]
Scene = Literal["disc", "arches", "window", "hills", "leaves", "shelf", "skyline"]


class CharacterError(ValueError):
    """A file does not describe a character.

    Attributes:
        name: The name of the file.
        problems: Everything that is wrong with it.
    """

    def __init__(self, name: str, problems: Iterable[str]) -> None:
        self.name: str = name
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__(f"{name}: {'; '.join(self.problems)}")


# -- checks of single fields ------------------------------------------------------------------------------------------


def _quoted(value: object) -> str:
    text = escape(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}…"


def _check_name(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{attribute.name} must be text, got {_quoted(value)}")
    if found := find_invisible(value, is_name=True):
        raise ValueError(f"{attribute.name} must not contain {found}")
    if len(value) > _MAX_NAME:
        raise ValueError(f"{attribute.name} must have at most {_MAX_NAME} characters, got {len(value)}")


def _colours(count: int) -> Check:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        colours = [value] if count == 1 else list(value) if isinstance(value, (list, tuple)) else []
        if len(colours) != count:
            raise ValueError(f"{attribute.name} must be a list of {count} colours, got {_quoted(value)}")
        if bad := [colour for colour in colours if not isinstance(colour, str) or not _COLOUR.fullmatch(colour)]:
            shown = ", ".join(map(_quoted, bad))
            raise ValueError(f"{attribute.name}: a colour is written like '#F2B998', not {shown}")

    return check


def _check_fraction(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, got {_quoted(value)}")


def _choice(words: Any) -> Check:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if value not in get_args(words):
            raise ValueError(f"{attribute.name} must be one of {', '.join(get_args(words))}; got {_quoted(value)}")

    return check


def _table(kind: type) -> Check:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise ValueError(f"{attribute.name} must be a table")  # noqa: TRY004  # collected with the other problems

    return check


def _fraction(default: float) -> Any:
    return field(default=default, validator=_check_fraction)


class Tones(NamedTuple):
    """A colour with a darker and a lighter shade of it."""

    base: str
    shade: str
    light: str


def _as_tones(value: Any) -> Any:
    # Anything but three items is left for the validator, which describes it.
    return Tones(*value) if isinstance(value, (list, tuple)) and len(value) == 3 else value


def _as_pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# -- characters -------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Palette:
    """The colours of a character."""

    skin: Tones = field(converter=_as_tones, validator=_colours(3))
    hair: Tones = field(converter=_as_tones, validator=_colours(3))
    lips: Tones = field(converter=_as_tones, validator=_colours(3))
    clothes: Tones = field(converter=_as_tones, validator=_colours(3))
    second: Tones = field(converter=_as_tones, validator=_colours(3))
    """Clothes under or beside the main ones, such as a shirt or a tie."""
    iris: tuple[str, str] = field(converter=_as_pair, validator=_colours(2))
    blush: str = field(validator=_colours(1))
    backdrop: tuple[str, str] = field(converter=_as_pair, validator=_colours(2))
    """Top and bottom of the backdrop."""
    disc: str = field(validator=_colours(1))
    """The disc behind the head, or the second colour of another scene."""
    accent: str = field(default="#F4C95D", validator=_colours(1))
    """Earrings, necklace and frame of the glasses."""


@frozen(kw_only=True)
class Features:
    """The shapes of a character. Numbers run from 0 to 1."""

    hair: Hair = field(validator=_choice(Hair))
    outfit: Outfit = field(validator=_choice(Outfit))
    beard: Beard = field(default="none", validator=_choice(Beard))
    glasses: Glasses = field(default="none", validator=_choice(Glasses))
    earrings: Earrings = field(default="none", validator=_choice(Earrings))
    scene: Scene = field(default="disc", validator=_choice(Scene))
    """The background, in the colours ``backdrop`` and ``disc`` of the palette."""
    mole: Mole = field(default="none", validator=_choice(Mole))
    length: float = _fraction(0.5)
    """Of the face, from short to long."""
    width: float = _fraction(0.5)
    """Of the face, from narrow to broad."""
    jaw: float = _fraction(0.3)
    """From pointed to square."""
    neck: float = _fraction(0.3)
    """From slim to broad."""
    eyes: float = _fraction(0.7)
    """From narrow to wide."""
    eye_distance: float = _fraction(0.5)
    eye_slant: float = _fraction(0.5)
    """From outer corners that are lower to outer corners that are higher."""
    lashes: float = _fraction(0.5)
    brows: float = _fraction(0.3)
    """From thin to heavy."""
    brow_arch: float = _fraction(0.5)
    """From straight to arched."""
    nose: float = _fraction(0.5)
    """From short to long."""
    nose_width: float = _fraction(0.5)
    ears: float = _fraction(0.5)
    """From small to large."""
    mouth: float = _fraction(0.5)
    """From narrow to wide."""
    lips: float = _fraction(0.6)
    """From thin to full."""
    age: float = _fraction(0.2)
    """How visible the lines of the face are."""
    freckles: float = _fraction(0.0)
    blush: float = _fraction(0.5)


@frozen(kw_only=True, cache_hash=True)
class CharacterSpec:
    """The description of a drawn character. Hashable: the parts of a drawing are cached by it."""

    model_id: str
    display_name: str = field(validator=_check_name)
    gender: Gender = field(validator=_choice(Gender))
    palette: Palette = field(validator=_table(Palette))
    features: Features = field(validator=_table(Features))


Character = CharacterSpec | PortraitSpec
"""A character of either kind."""


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
    character: Character
    framings: dict[Format, Framing]
    """The part of the drawing for each shape of a video. Empty for a portrait, whose framing depends on the position of the face."""
    close_up: bool = False


_POSES: tuple[tuple[str, str, dict[Format, Framing]], ...] = (
    (
        "front",
        "Front",
        {"square": Framing(0, 0, 720), "portrait": Framing(52, -130, 616), "landscape": Framing(-280, 0, 1280)},
    ),
    (
        "closeup",
        "Close-up",
        {"square": Framing(114, 46, 492), "portrait": Framing(134, -12, 452), "landscape": Framing(-77, 46, 874)},
    ),
)
"""The poses of each drawn character: suffix of the ``pose_id``, name and framings. The first is the default."""
_PORTRAIT_POSES = (("full", "Full picture", False), ("closeup", "Close-up", True))
"""The poses of each portrait: suffix, name, and whether it is a close-up."""
POSE_SUFFIXES = tuple(dict.fromkeys(suffix for suffix, *_ in (*_POSES, *_PORTRAIT_POSES)))
"""The ends of ``pose_id``s, which no ``model_id`` may have."""


@cache
def built_in_characters() -> dict[str, CharacterSpec]:
    """Return the characters that come with the engine by ``model_id``, sorted."""
    return {path.stem: read_character(path) for path in sorted(_FOLDER.glob("*.toml"))}


def get_character(model_id: str) -> CharacterSpec:
    """Return a built-in character.

    Raises:
        RenderError: There is no such character.
    """
    try:
        return built_in_characters()[model_id]
    except KeyError:
        known = ", ".join(built_in_characters())
        raise RenderError(f"There is no character {model_id!r}. The characters are {known}.") from None


@lru_cache(maxsize=1024)
def camera_poses(character: Character) -> tuple[CameraPose, ...]:
    """Return the poses of a character; the first is the default."""
    if isinstance(character, PortraitSpec):
        return tuple(
            CameraPose(
                pose_id=f"{character.model_id}_{suffix}",
                name=name,
                character=character,
                framings={},
                close_up=close_up,
            )
            for suffix, name, close_up in _PORTRAIT_POSES
        )
    return tuple(
        CameraPose(pose_id=f"{character.model_id}_{suffix}", name=name, character=character, framings=framings)
        for suffix, name, framings in _POSES
    )


def get_camera_pose(subject_id: str, character: Character | None = None) -> CameraPose:
    """Return a pose by its ``pose_id``, or the default pose of a character by its ``model_id``.

    Args:
        subject_id: The id.
        character: The character; ``None`` if it is a built-in one.

    Raises:
        RenderError: There is no such pose or character.
    """
    known: Iterable[Character] = [character] if character else built_in_characters().values()
    for candidate in known:
        if found := [pose for pose in camera_poses(candidate) if pose.pose_id == subject_id]:
            return found[0]
    return camera_poses(character or get_character(subject_id))[0]


# -- files ------------------------------------------------------------------------------------------------------------


def read_character(path: Path) -> CharacterSpec:
    """Read a character from a TOML file; the file's name without the suffix is the ``model_id``.

    Raises:
        CharacterError: The file does not describe a character; the error has everything that is wrong with it.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_SIZE + 1)
    return parse_character(path.name, content)


def parse_character(name: str, content: bytes) -> CharacterSpec:
    """Return the character of a file.

    Args:
        name: The name of the file.
        content: Its content.

    Raises:
        CharacterError: It does not describe a character.
    """
    stem = name.rpartition(".")[0] or name
    problems = list(id_problems(stem))
    try:
        return _make_character(character_id(stem), _read_toml(content, problems), problems)
    except ValueError as error:
        raise CharacterError(name, error.args) from None


def _read_toml(content: bytes, problems: list[str]) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ValueError: Its arguments are the problems, after those given.
    """
    try:
        if len(content) > MAX_FILE_SIZE:
            raise ValueError(f"it is longer than {MAX_FILE_SIZE // 1024} KiB")  # noqa: TRY301  # as other problems
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(*problems, f"it is not UTF-8 text (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(*problems, str(error)) from None


def character_id(stem: str) -> str:
    """Return the ``model_id`` that a file name means. Some systems store names with decomposed accents."""
    return unicodedata.normalize("NFC", stem)


def name_of(model_id: str) -> str:
    """Return the display name of a character whose file gives none."""
    return model_id.replace("_", " ").replace("-", " ").strip().title() or model_id


def id_problems(stem: str) -> Iterator[str]:
    """Yield the reasons why the name of a file, without its extension, cannot be a ``model_id``."""
    model_id = character_id(stem)
    if not _ID.fullmatch(model_id):
        rule = "1 to 100 letters, digits, _ and -, because it becomes the model_id"
        yield f"the name of the file must have {rule}; got {_quoted(stem)}"
    for suffix in POSE_SUFFIXES:
        if model_id.casefold().endswith(f"_{suffix}"):
            yield f"the name of the file must not end in _{suffix}, as the ids of poses do"


def parse_portrait(name: str, picture: bytes, settings: bytes | None) -> PortraitSpec:
    """Return the portrait that consists of a picture, which is not decoded here, and the TOML file beside it.

    Args:
        name: The name of the picture's file.
        picture: Its content.
        settings: The content of the TOML file; ``None``: there is none.

    Raises:
        CharacterError: The settings are invalid.
    """
    stem = name.rpartition(".")[0]
    problems = list(id_problems(stem))
    model_id = character_id(stem)
    table: dict[str, Any] = {}
    if settings is not None:
        name = f"{stem}.toml"
        try:
            table = _read_toml(settings, problems)
        except ValueError as error:
            raise CharacterError(name, error.args) from None
    values = {"display_name": name_of(model_id)} | table
    checked = _make_value(_PortraitSettings, values, "", problems)
    if checked is None:
        raise CharacterError(name, problems)
    return PortraitSpec(model_id=model_id, picture=picture, **attrs.asdict(checked))


@frozen(kw_only=True)
class _PortraitSettings:
    """The keys of the TOML file of a portrait."""

    display_name: str = field(validator=_check_name)
    gender: PortraitGender = field(default="unspecified", validator=_choice(PortraitGender))
    crop: tuple[float, float, float, float] | None = field(default=None, validator=check_crop)
    background: str | None = field(default=None, validator=optional(_colours(1)))
    blinking: bool | None = field(default=None, validator=check_blinking)


def dump_character(character: Character) -> bytes:
    """Return a character as bytes, for ``load_character`` in another process or after a restart."""
    if isinstance(character, PortraitSpec):
        return dump_portrait(character)
    content: dict[str, object] = {"model_id": character.model_id, _DRAWN: _plain(character)}
    return json.dumps(content, ensure_ascii=False).encode()


def load_character(content: bytes) -> Character:
    """Return the character that ``dump_character`` wrote.

    Raises:
        ValueError: The content is damaged.
    """
    if portrait := load_portrait(content):
        return portrait
    data = json.loads(content)
    if not isinstance(data, dict) or not isinstance(data.get(_DRAWN), dict):
        raise ValueError("it is not a character")  # noqa: TRY004  # as documented
    return _make_character(str(data.get("model_id")), data[_DRAWN], [])


def to_toml(character: CharacterSpec) -> str:
    """Return the content of a character's file."""
    data = _plain(character)
    tables = {name: data.pop(name) for name in ("palette", "features")}
    lines = [f"{key} = {_toml_value(value)}" for key, value in data.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _plain(character: CharacterSpec) -> dict[str, Any]:
    data = attrs.asdict(character)
    del data["model_id"]
    return data


def _toml_value(value: object) -> str:
    # Strings, lists of strings and numbers are written alike in TOML and JSON.
    return json.dumps(value, ensure_ascii=False)


T = TypeVar("T")


def _make_character(model_id: str, data: dict[str, Any], problems: list[str]) -> CharacterSpec:
    """Make a character from the tables of a file.

    Raises:
        ValueError: Its arguments are the problems, after those given.
    """
    found = dict(data)
    for name, kind in (("palette", Palette), ("features", Features)):
        if isinstance(found.get(name), dict):
            found[name] = _make_value(kind, found[name], f"{name}.", problems)
    if "model_id" in data:
        problems.append("model_id must not be in the file: the name of the file is the model_id")
    character = _make_value(CharacterSpec, {"model_id": model_id} | found, "", problems)
    if character is None or problems:
        raise ValueError(*problems)
    return character


def _make_value(kind: Callable[..., T], table: dict[str, Any], prefix: str, problems: list[str]) -> T | None:
    """Make a value from a table. Problems of the table are added to the list; if there are any, return ``None``."""
    fields = attrs.fields_dict(kind)  # type: ignore[arg-type]  # an attrs class
    for key in [key for key in table if key not in fields]:
        similar = difflib.get_close_matches(key, fields, 1)
        hint = (
            f"did you mean {similar[0]}?"
            if similar
            else f"the keys are {', '.join(name for name in fields if name != 'model_id')}"
        )
        problems.append(f"{prefix}{_quoted(key)[1:-1]} is not a key of a character; {hint}")
    for name, attribute in fields.items():
        if name not in table:
            if attribute.default is attrs.NOTHING:
                problems.append(f"{prefix}{name} is missing")
        elif attribute.validator and table[name] is not None:
            try:
                attribute.validator(None, attribute, table[name])
            except ValueError as error:
                problems.append(f"{prefix}{error}")
    return None if problems else kind(**table)
