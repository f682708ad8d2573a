"""The decoded picture of a portrait: its colours and its alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.errors import PortraitError, RenderError
from a2v.engine.picture import read_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_SIDE = 200  # pixels
_MAX_SIDE = 2400
"""Larger pictures are scaled down until their longer side has this many pixels, more than a video shows."""


class Photo(NamedTuple):
    """A decoded picture."""

    rgb: NDArray[np.uint8]
    """Height × width × 3."""
    alpha: NDArray[np.uint8] | None
    """Height × width; ``None`` if the picture is opaque."""
    scale: float
    """Pixels of the file per pixel of this picture."""


def read_photo(content: bytes) -> Photo:
    """Decode a picture, upright.

    Raises:
        PortraitError: It cannot be used; the message says why and what to do.
    """
    scale = 1.0

    def fit(width: int, height: int) -> tuple[int, int]:
        nonlocal scale
        scale = max(1.0, max(width, height) / _MAX_SIDE)
        return round(width / scale), round(height / scale)

    try:
        pixels = read_picture(content, "The portrait", fit, min_side=_MIN_SIDE)
    except RenderError as error:
        raise PortraitError(str(error)) from None
    opaque = bool((pixels[..., 3] == 255).all())
    return Photo(np.ascontiguousarray(pixels[..., :3]), None if opaque else pixels[..., 3].copy(), scale)
