"""Portraits: characters that are a photo or an illustration, with optional settings in a TOML file beside it.

This module has only the values. Pictures are untrusted, so they are decoded and examined in a child process (``portrait.check``).
"""

from __future__ import annotations

import json
from typing import Any, Literal

import attrs
from attrs import Attribute, field, frozen

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""The extensions of pictures, in lower case."""
MAX_PICTURE = 40 << 20
"""The largest file of a picture, in bytes."""
_HEADER = b'{"portrait": '

PortraitGender = Literal["female", "male", "unspecified"]


def check_crop(_: object, __: Attribute[Any], value: object) -> None:
    """Check the ``crop`` of a portrait.

    Raises:
        ValueError: It is not a part of a picture.
    """
    is_valid = (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(isinstance(edge, (int, float)) and not isinstance(edge, bool) and 0 <= edge <= 1 for edge in value)
        and value[0] < value[2]
        and value[1] < value[3]
    )
    if value is not None and not is_valid:
        raise ValueError(
            "crop must be [left, top, right, bottom] as fractions of the picture, such as [0.1, 0, 0.9, 0.8]"
        )


def check_blinking(_: object, __: Attribute[Any], value: object) -> None:
    """Check the ``blinking`` of a portrait.

    Raises:
        ValueError: It is neither true nor false.
    """
    if value is not None and not isinstance(value, bool):
        raise ValueError("blinking must be true or false")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@frozen(kw_only=True, cache_hash=True)
class PortraitSpec:
    """A portrait. Hashable, like ``CharacterSpec``.

    Attributes:
        model_id: The id.
        display_name: The name.
        gender: The gender that the lists of characters show.
        picture: The content of the file: JPEG, PNG or WebP.
        crop: The part of the picture to use: left, top, right and bottom as fractions of its size. ``None``: all of it.
        background: The colour behind the person, ``#rrggbb``; ``None``: the picture's own background.
        blinking: Whether the eyes blink; ``None``: unless the person wears glasses.
        previews: The preview pictures by the suffix of the ``pose_id``, as PNG; empty until the picture has been examined.
    """

    model_id: str
    display_name: str
    gender: PortraitGender = "unspecified"
    picture: bytes = field(repr=False)
    crop: tuple[float, float, float, float] | None = field(default=None, converter=_as_tuple, validator=check_crop)
    background: str | None = None
    blinking: bool | None = field(default=None, validator=check_blinking)
    previews: tuple[tuple[str, bytes], ...] = field(default=(), repr=False, eq=False)


def dump_portrait(portrait: PortraitSpec) -> bytes:
    """Return a portrait without its previews as bytes, for ``load_portrait``: a line of JSON, and the picture."""
    hidden = attrs.filters.exclude("picture", "previews")
    head = json.dumps(attrs.asdict(portrait, filter=hidden), ensure_ascii=False)
    return _HEADER + head.encode() + b"}\n" + portrait.picture


def load_portrait(content: bytes) -> PortraitSpec | None:
    """Return the portrait that ``dump_portrait`` wrote, or ``None`` if the content is not a portrait.

    Raises:
        ValueError: The content is damaged.
    """
    if not content.startswith(_HEADER):
        return None
    head, _, picture = content.partition(b"\n")
    try:
        return PortraitSpec(**json.loads(head)["portrait"], picture=picture)
    except TypeError as error:
        raise ValueError(f"it is not a portrait: {error}") from None
