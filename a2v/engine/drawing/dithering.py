"""Removes the bands of gradients.

A gradient that spans few levels has bands of one level each, which are visible where they are wide. To remove them, the levels between
those of the eight bits are estimated as the mean of the surroundings, where these are nearly flat, and rounded with noise (dither). The
noise is always the same, so the same picture gives the same result. Encoders remove weaker noise than that of ``ENCODED``, and with it
the levels in between.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

STORED, ENCODED = 0.5, 1.25
"""The most that noise adds, for pictures that are stored as they are, and for those that are encoded."""
_FLAT = 3.0  # variance of a gradient, whose levels are averaged
_BLOCK = 64  # of the noise, in pixels


def dither(pixels: NDArray[np.uint8], noise: float = STORED) -> NDArray[np.uint8]:
    """Return a picture without bands.

    Args:
        pixels: Height × width × channels; the first three channels are colours, the others stay as they are.
        noise: The most that is added to or subtracted from a colour.
    """
    smooth = pixels.copy()
    radius = max(2, min(pixels.shape[:2]) // 32)
    grain = _noise(*pixels.shape[:2]) * np.float32(2 * noise)
    for channel in range(3):
        levels = pixels[..., channel].astype(np.float32)
        mean = _box_mean(levels, radius)
        variance = _box_mean((levels - mean) ** 2, radius)
        flat = np.clip(2 - variance / _FLAT, 0, 1)
        smooth[..., channel] = np.clip(np.rint(levels + flat * (mean - levels + grain)), 0, 255)
    return smooth


@cache
def _tile() -> Array:
    """Return a block of evenly distributed noise without low frequencies, which would be visible as clouds."""
    noise = np.random.default_rng(0).random((_BLOCK, _BLOCK))
    for axis in (0, 1):
        neighbours = np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
        noise = noise - neighbours / 2
    order = noise.ravel().argsort().argsort().reshape(_BLOCK, _BLOCK)
    return (order / _BLOCK**2 - 0.5).astype(np.float32)


def _noise(height: int, width: int) -> Array:
    """Return noise between -0.5 and 0.5."""
    return np.tile(_tile(), (-(-height // _BLOCK), -(-width // _BLOCK)))[:height, :width]


def _box_mean(levels: Array, radius: int) -> Array:
    """Return the mean of the square around each pixel."""
    size = 2 * radius + 1
    for _ in range(2):  # along the columns, then along the rows
        total = np.pad(levels, ((radius + 1, radius), (0, 0)), mode="edge").cumsum(0, dtype=np.float64)
        levels = ((total[size:] - total[:-size]) / size).astype(np.float32).T
    return levels
