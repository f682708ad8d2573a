"""Scales and samples pictures: arrays of height × width × channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""Numbers, nearly always of 32 bits."""
Pixels = NDArray[np.uint8]


class Square(NamedTuple):
    """A square part of a picture, which may be turned and may reach beyond the edges."""

    x: float
    y: float
    side: float
    angle: float = 0.0
    """In radians, clockwise."""

    def to_picture(self, points: Array, size: int) -> Array:
        """Return the places in the picture of points in a sample of ``size`` pixels."""
        offsets = (points / size - 0.5) * self.side
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x = self.x + offsets[..., 0] * cos - offsets[..., 1] * sin
        y = self.y + offsets[..., 0] * sin + offsets[..., 1] * cos
        return np.stack([x, y], -1).astype(np.float32)


class Pyramid:
    """A picture in halving sizes, for samples of any scale without aliasing."""

    def __init__(self, picture: Pixels) -> None:
        self._levels: list[Pixels] = [picture]
        while min(self._levels[-1].shape[:2]) >= 64:
            last = self._levels[-1]
            even = last[: len(last) & ~1, : last.shape[1] & ~1].astype(np.uint16)
            mean = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2
            self._levels.append(mean.astype(np.uint8))

    def sample(self, square: Square, size: int) -> Array:
        """Return ``size`` × ``size`` pixels of a square, 0 to 1; black beyond the edges."""
        level = int(np.clip(np.floor(np.log2(max(square.side / size, 1.0)) + 0.3), 0, len(self._levels) - 1))
        picture = self._levels[level]
        middles = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float32) + 0.5] * 2), -1)
        places = square.to_picture(middles, size) / np.float32(2**level) - np.float32(0.5)
        return sample_bilinear(picture, places) / np.float32(255)


def sample_bilinear(picture: Pixels, places: Array) -> Array:
    """Return the colours at places, pairs of x and y of pixels' middles; black beyond the edges."""
    height, width = picture.shape[:2]
    low = np.floor(places)
    fx, fy = (places - low)[..., :1], (places - low)[..., 1:]
    x, y = low[..., 0].astype(int), low[..., 1].astype(int)
    total = np.zeros((*x.shape, picture.shape[2]), np.float32)
    for right in (0, 1):
        for below in (0, 1):
            weight = (fx if right else 1 - fx) * (fy if below else 1 - fy)
            px, py = x + right, y + below
            inside = (px >= 0) & (px < width) & (py >= 0) & (py < height)
            colours = picture[py.clip(0, height - 1), px.clip(0, width - 1)]
            total += colours * (weight * inside[..., None])
    return total


def scale_picture(picture: Pixels, width: int, height: int, *, smooth: bool = False) -> Pixels:
    """Return a picture, RGB or grey, in another size.

    Args:
        picture: The picture.
        width: The new width.
        height: The new height.
        smooth: Whether an enlargement is smooth instead of sharp.
    """
    name = "gray" if picture.ndim == 2 else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=name)
    filter_ = "AREA" if width < picture.shape[1] else "BICUBIC" if smooth else "LANCZOS"
    return np.asarray(frame.reformat(width, height, interpolation=filter_).to_ndarray(format=name), np.uint8)
