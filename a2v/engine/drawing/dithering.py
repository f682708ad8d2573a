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
_STRIP = 128  # rows


def dither(pixels: NDArray[np.uint8], noise: float = STORED) -> NDArray[np.uint8]:
    """Return a picture without bands.

    Args:
        pixels: Height × width × channels; the first three channels are colours, the others stay as they are.
        noise: The most that is added to or subtracted from a colour.
    """
    smooth = pixels.copy()
    height, width = pixels.shape[:2]
    radius = max(2, min(height, width) // 32)
    # In strips, because the intermediate results take several times the memory of the picture.
    for top in range(0, height, _STRIP):
        bottom = min(height, top + _STRIP)
        # The rows that the means of a strip's means need.
        first, last = max(0, top - 2 * radius), min(height, bottom + 2 * radius)
        inner = slice(top - first, bottom - first)
        grain = _noise(top, bottom, width) * np.float32(2 * noise)
        for channel in range(3):
            levels = pixels[first:last, :, channel].astype(np.float32)
            mean = _box_mean(levels, radius)
            variance = _box_mean((levels - mean) ** 2, radius)[inner]
            levels, mean = levels[inner], mean[inner]
            flat = np.clip(2 - variance / _FLAT, 0, 1)
            smooth[top:bottom, :, channel] = np.clip(np.rint(levels + flat * (mean - levels + grain)), 0, 255)
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


def _noise(top: int, bottom: int, width: int) -> Array:
    """Return noise between -0.5 and 0.5 for some rows."""
    return _tile()[np.arange(top, bottom)[:, None] % _BLOCK, np.arange(width) % _BLOCK]


def _box_mean(levels: Array, radius: int) -> Array:
    """Return the mean of the square around each pixel."""
    size = 2 * radius + 1
    for _ in range(2):  # along the columns, then along the rows
        total = np.pad(levels, ((radius + 1, radius), (0, 0)), mode="edge").cumsum(0, dtype=np.float64)
        levels = ((total[size:] - total[:-size]) / size).astype(np.float32).T
    return levels
