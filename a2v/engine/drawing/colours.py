"""Colours and gradients, as plain values. A colour is a string, ``#rrggbb`` or ``#rrggbbaa``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from a2v.engine.drawing.geometry import lerp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Number = TypeVar("Number", float, "NDArray[np.float64]")

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
"""The weights of the primary colours in the luma of BT.709."""
U_RANGE, V_RANGE = 1.8556, 1.5748
"""The ranges of blue minus luma and of red minus luma in BT.709, for colours from 0 to 1."""
ColourBytes = tuple[int, int, int, int]
"""The four bytes of a pixel, in the order of memory."""


class LinearGradient(NamedTuple):
    """A gradient along a line. ``stops`` are pairs of an offset, 0 to 1, and a colour."""

    x1: float
    y1: float
    x2: float
    y2: float
    stops: tuple[tuple[float, str], ...]


class RadialGradient(NamedTuple):
    """A gradient around a point. ``stops`` are pairs of an offset, 0 to 1, and a colour."""

    x: float
    y: float
    radius: float
    stops: tuple[tuple[float, str], ...]


Paint = str | LinearGradient | RadialGradient


@lru_cache(maxsize=4096)
def rgba(colour: str) -> ColourBytes:
    """Return the bytes of a colour: red, green, blue and alpha."""
    red, green, blue, *alpha = bytes.fromhex(colour[1:])
    return red, green, blue, alpha[0] if alpha else 255


@lru_cache(maxsize=4096)
def uvya(colour: str) -> ColourBytes:
    """Return the bytes of a colour as videos store it: U, V, Y (BT.709, limited range) and alpha.

    The conversion is linear, so blending and gradients give the same result as in RGB. Frames that are drawn in these
    colours need no conversion for the encoder.
    """
    red, green, blue, alpha = rgba(colour)
    u, v, y = uvy(red, green, blue)
    return round(128 + u), round(128 + v), round(16 + y), alpha


def uvy(red: Number, green: Number, blue: Number) -> tuple[Number, Number, Number]:
    """Return U, V and Y (BT.709, limited range) without their offsets 128, 128 and 16, which makes the conversion linear."""
    luma = RED * red + GREEN * green + BLUE * blue
    return (blue - luma) / U_RANGE * 224 / 255, (red - luma) / V_RANGE * 224 / 255, luma * 219 / 255


@lru_cache(maxsize=4096)
def bgra(colour: str) -> ColourBytes:
    """Return the bytes of a colour: blue, green, red and alpha."""
    red, green, blue, alpha = rgba(colour)
    return blue, green, red, alpha


@lru_cache(maxsize=4096)
def mix(one: str, other: str, t: float) -> str:
    """Interpolate from one colour to another; the result is opaque."""
    pairs = zip(rgba(one)[:3], rgba(other)[:3], strict=True)
    return "#" + "".join(f"{round(lerp(a, b, t)):02x}" for a, b in pairs)


@lru_cache(maxsize=4096)
def with_alpha(colour: str, alpha: float) -> str:
    """Return the colour with this opacity, 0 to 1."""
    return f"{colour[:7]}{round(255 * min(1.0, max(0.0, alpha))):02x}"


def vertical_gradient(top: float, bottom: float, *colours: str) -> LinearGradient:
    """Return a vertical gradient with evenly spaced colours."""
    last = len(colours) - 1
    return LinearGradient(0, top, 0, bottom, tuple((i / last, colour) for i, colour in enumerate(colours)))


def glow(x: float, y: float, radius: float, colour: str, alpha: float) -> RadialGradient:
    """Return a spot of colour that fades out towards its edge."""
    return RadialGradient(x, y, radius, ((0.0, with_alpha(colour, alpha)), (1.0, with_alpha(colour, 0.0))))
