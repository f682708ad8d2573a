"""Separates the person from the background: an alpha value for each pixel, with soft edges at the hair.

The network sees the whole frame in 256 × 256 pixels, and then the head alone, because hair needs more detail. A guided filter moves the edges
of this blurred result to the edges in the frame: within each small window, alpha becomes a linear function of the brightness.

Pixels at an edge are a mixture of both colours. Before they are shown in front of another background, the old background is removed from
them by extending the colours of the person outwards (``without_background``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np

from a2v.engine.portrait.head import smoothstep
from a2v.engine.portrait.network import get_network
from a2v.engine.portrait.pictures import Pyramid, Square, scale_picture

if TYPE_CHECKING:
    from a2v.engine.portrait.pictures import Array, Pixels


_SIDE = 256
_RADIUS = 0.012
"""The radius of the guided filter, relative to the shorter side of the frame."""
_REGULARIZATION = 2e-4
"""The regularization of the guided filter, in squares of brightness from 0 to 1: windows with less variance are smoothed."""


def segment(rgb: Pixels, face: Array) -> Pixels:
    """Return the alpha of each pixel of a frame: 255 is the person.

    Args:
        rgb: The frame, height × width × 3.
        face: The landmarks in pixels of the frame.
    """
    height, width = rgb.shape[:2]
    whole = _resized(_run(_resized_rgb(rgb, _SIDE, _SIDE)), width, height)
    square = _around_head(face)
    near = _run(Pyramid(rgb).sample(square, _SIDE))
    alpha = _merged(whole, near, square)
    refined = _guided_filter(
        rgb.mean(-1, dtype=np.float32) / np.float32(255), alpha, max(2, round(_RADIUS * min(width, height)))
    )
    sharp = smoothstep((refined - 0.12) / 0.76)
    return np.asarray(sharp * 255 + np.float32(0.5), np.uint8)


def without_background(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Return a frame in which the colours of the person continue beyond its edges."""
    share = alpha.astype(np.float32) / 255
    certain = (share > 0.97).astype(np.float32)
    colours = rgb.astype(np.float32)
    filled = colours * certain[..., None]
    weight = certain
    radius = max(2, round(0.01 * min(alpha.shape)))
    sum_, total = np.zeros_like(filled), np.zeros_like(weight)
    for times in (1, 3, 9):
        near = _box(weight, radius * times)
        strength = np.float32(0.02 ** (times > 1) * 0.02 ** (times > 3))
        sum_ += np.stack([_box(filled[..., i], radius * times) for i in range(3)], -1) * strength
        total += near * strength
    outside = sum_ / np.maximum(total, 1e-6)[..., None]
    known = (total > 1e-6)[..., None]
    mixed = np.where(known, colours * share[..., None] ** 4 + outside * (1 - share[..., None] ** 4), colours)
    return np.asarray(mixed + np.float32(0.5), np.uint8)


def _run(picture: Array) -> Array:
    return get_network("segmentation").run(picture)["activation_10"][..., 0]


def _around_head(face: Array) -> Square:
    least, most = face[:, :2].min(0), face[:, :2].max(0)
    x, y = (least + most) / 2
    size = float((most - least).max())
    return Square(float(x), float(y) - 0.05 * size, 2.4 * size)


def _merged(whole: Array, near: Array, square: Square) -> Array:
    """Replace the part around the head by the detailed result, blended in at its edges."""
    height, width = whole.shape
    side = max(2, round(square.side))
    left, top = round(square.x - side / 2), round(square.y - side / 2)
    detailed = _resized(near, side, side)
    place = (np.arange(side) + 0.5) / side
    fade = smoothstep(np.minimum(place, 1 - place).astype(np.float32) / 0.2)
    weight = np.minimum(fade[:, None], fade[None])
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    inner = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    merged = whole.copy()
    merged[y0:y1, x0:x1] += (detailed[inner] - merged[y0:y1, x0:x1]) * weight[inner]
    return merged


def _resized_rgb(rgb: Pixels, width: int, height: int) -> Array:
    return scale_picture(rgb, width, height).astype(np.float32) / np.float32(255)


def _resized(values: Array, width: int, height: int) -> Array:
    """Return values from 0 to 1 in another size."""
    frame = av.VideoFrame.from_ndarray((values * 65535).astype(np.uint16), format="gray16le")
    large = frame.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray(format="gray16le")
    return large.astype(np.float32) / np.float32(65535)


def _guided_filter(guide: Array, values: Array, radius: int) -> Array:
    mean_guide, mean_values = _box(guide, radius), _box(values, radius)
    covariance = _box(guide * values, radius) - mean_guide * mean_values
    variance = _box(guide * guide, radius) - mean_guide * mean_guide
    slope = covariance / (variance + np.float32(_REGULARIZATION))
    offset = mean_values - slope * mean_guide
    return np.clip(_box(slope, radius) * guide + _box(offset, radius), 0, 1)


def _box(values: Array, radius: int) -> Array:
    """Return the mean over a square around each pixel."""
    for axis in (0, 1):
        widths = [(0, 0), (0, 0)]
        widths[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(values, widths, mode="edge"), axis=axis, dtype=np.float64)
        length = values.shape[axis]
        upper, lower = sums.take(range(2 * radius + 1, 2 * radius + 1 + length), axis), sums.take(range(length), axis)
        values = ((upper - lower) / (2 * radius + 1)).astype(np.float32)
    return values
