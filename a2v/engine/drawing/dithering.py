"""Removes the banding of gradients.

A gradient over few of the 256 levels has bands of one level each, which are visible where they are wide. To remove them, the fractional
level of a pixel is estimated as the mean of its surroundings, where these are nearly flat, and then dithered: rounded after noise is added.
The noise is always the same, so the same picture gives the same result. Encoders would remove noise weaker than ``ENCODED``, and with it
the fractional levels.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

STORED, ENCODED = 0.5, 1.25
"""The amplitude of the noise in levels: for pictures that are stored losslessly, and for those that are encoded as video."""
_FLAT_VARIANCE = 3.0  # up to this variance, surroundings count as flat; from twice as much on, a pixel is not changed
_TILE_SIDE = 64  # of the noise, in pixels
_STRIP_ROWS = 128  # dithered at a time


def dither(pixels: NDArray[np.uint8], noise: float = STORED) -> NDArray[np.uint8]:
    """Return a picture without bands.

    Args:
        pixels: Height × width × channels; the first three channels are colours, the others stay as they are.
        noise: The amplitude of the noise, in levels.
    """
    smooth = pixels.copy()
    height, width = pixels.shape[:2]
    radius = max(2, min(height, width) // 32)
    # In strips, because the intermediate results take several times the memory of the picture.
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(height, top + _STRIP_ROWS)
        # The variance is a mean of means, so a strip needs rows from two radii around it.
        first, last = max(0, top - 2 * radius), min(height, bottom + 2 * radius)
        inner = slice(top - first, bottom - first)
        grain = _noise(top, bottom, width) * np.float32(2 * noise)
        for channel in range(3):
            levels = pixels[first:last, :, channel].astype(np.float32)
            mean = _box_mean(levels, radius)
            variance = _box_mean((levels - mean) ** 2, radius)[inner]
            levels, mean = levels[inner], mean[inner]
            flat = np.clip(2 - variance / _FLAT_VARIANCE, 0, 1)
            smooth[top:bottom, :, channel] = np.clip(np.rint(levels + flat * (mean - levels + grain)), 0, 255)
    return smooth


@cache
def _noise_tile() -> Array:
    """Return a tile of uniform noise without low frequencies (blue noise), which would be visible as clouds."""
    noise = np.random.default_rng(0).random((_TILE_SIDE, _TILE_SIDE))
    for axis in (0, 1):
        neighbours = np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
        noise = noise - neighbours / 2
    order = noise.ravel().argsort().argsort().reshape(_TILE_SIDE, _TILE_SIDE)
    return (order / _TILE_SIDE**2 - 0.5).astype(np.float32)


def _noise(top: int, bottom: int, width: int) -> Array:
    """Return noise between -0.5 and 0.5 for the rows from ``top`` to ``bottom``."""
    return _noise_tile()[np.arange(top, bottom)[:, None] % _TILE_SIDE, np.arange(width) % _TILE_SIDE]


def _box_mean(levels: Array, radius: int) -> Array:
    """Return the mean of the square around each pixel, which reaches ``radius`` pixels to each side."""
    size = 2 * radius + 1
    for _ in range(2):  # along the columns, then along the rows
        total = np.pad(levels, ((radius + 1, radius), (0, 0)), mode="edge").cumsum(0, dtype=np.float64)
        levels = ((total[size:] - total[:-size]) / size).astype(np.float32).T
    return levels
