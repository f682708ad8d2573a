"""Paths, affine maps and colours: plain values, known to every other module here."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUND = 0.5522847  # the handle that makes four cubics a circle
_CLOSE, _MOVE, _LINE, _CUBIC = range(4)  # the numbers of ThorVG's commands, so that a path needs no translation
_POINTS = {"M": (_MOVE, 1), "L": (_LINE, 1), "C": (_CUBIC, 3), "Z": (_CLOSE, 0)}

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Bytes = tuple[int, int, int, int]
"""A colour as it stands in memory."""


class Path(NamedTuple):
    """An outline: commands and the points they use up."""

    commands: tuple[int, ...]
    points: tuple[Point, ...]


class Linear(NamedTuple):
    """A gradient along a line; ``stops`` are pairs of offset and colour."""

    x1: float
    y1: float
    x2: float
    y2: float
    stops: tuple[tuple[float, str], ...]


class Radial(NamedTuple):
    """A gradient around a point; ``stops`` are pairs of offset and colour."""

    x: float
    y: float
    radius: float
    stops: tuple[tuple[float, str], ...]


Paint = str | Linear | Radial


class Map(NamedTuple):
    """An affine map: ``x' = a·x + c·y + e``, ``y' = b·x + d·y + f``."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 1.0
    e: float = 0.0
    f: float = 0.0

    def then(self, inner: Map) -> Map:
        """The map that does ``inner`` first and this one after it."""
        return Map(
            self.a * inner.a + self.c * inner.b,
            self.b * inner.a + self.d * inner.b,
            self.a * inner.c + self.c * inner.d,
            self.b * inner.c + self.d * inner.d,
            self.a * inner.e + self.c * inner.f + self.e,
            self.b * inner.e + self.d * inner.f + self.f,
        )

    def around(self, box: Box) -> Box:
        """The smallest upright box around a mapped one."""
        left, top, right, bottom = box
        xs = [self.a * x + self.c * y + self.e for x in (left, right) for y in (top, bottom)]
        ys = [self.b * x + self.d * y + self.f for x in (left, right) for y in (top, bottom)]
        return min(xs), min(ys), max(xs), max(ys)


def shift(x: float, y: float) -> Map:
    """A move by ``x`` and ``y``."""
    return Map(e=x, f=y)


def scale(x: float, y: float | None = None) -> Map:
    """A stretch about the origin."""
    return Map(a=x, d=x if y is None else y)


def turn(degrees: float, x: float = 0.0, y: float = 0.0) -> Map:
    """A rotation about a point."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return shift(x, y).then(Map(cos, sin, -sin, cos)).then(shift(-x, -y))


@lru_cache(maxsize=1024)
def outline(text: str) -> Path:
    """The path written as absolute ``M``, ``L``, ``C`` and ``Z``, the way SVG writes it."""
    commands: list[int] = []
    numbers: list[float] = []
    for letter, rest in re.findall(r"([MLCZ])([^MLCZ]*)", text):
        command, per_step = _POINTS[letter]
        values = [float(value) for value in rest.replace(",", " ").split()]
        commands += [command] * (len(values) // (2 * per_step) if per_step else 1)
        numbers += values
    return Path(tuple(commands), tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def mirrored(path: Path) -> Path:
    """The same path on the other side of the vertical axis."""
    return Path(path.commands, tuple((-x, y) for x, y in path.points))


def joined(*paths: Path) -> Path:
    """Several paths as one."""
    return Path(sum((path.commands for path in paths), ()), sum((path.points for path in paths), ()))


def ellipse(x: float, y: float, rx: float, ry: float | None = None) -> Path:
    """An ellipse, or a circle if ``ry`` is left out."""
    ry = rx if ry is None else ry
    kx, ky = rx * _ROUND, ry * _ROUND
    points = (
        (x + rx, y),
        (x + rx, y + ky), (x + kx, y + ry), (x, y + ry),
        (x - kx, y + ry), (x - rx, y + ky), (x - rx, y),
        (x - rx, y - ky), (x - kx, y - ry), (x, y - ry),
        (x + kx, y - ry), (x + rx, y - ky), (x + rx, y),
    )  # fmt: skip
    return Path((_MOVE, _CUBIC, _CUBIC, _CUBIC, _CUBIC, _CLOSE), points)


def rectangle(x: float, y: float, width: float, height: float) -> Path:
    """A rectangle by its upper left corner."""
    points = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Path((_MOVE, _LINE, _LINE, _LINE, _CLOSE), points)


def curves(start: Point, *rest: Point, close: bool = True) -> Path:
    """Cubic curves from ``start``: two handles and an end each."""
    commands = (_MOVE,) + (_CUBIC,) * (len(rest) // 3)
    return Path((*commands, _CLOSE) if close else commands, (start, *rest))


def smooth(points: Sequence[Point]) -> Path:
    """The closed curve through all the points (Catmull-Rom)."""
    count = len(points)
    out = [points[0]]
    for i in range(count):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        out += [(bx + (cx - ax) / 6, by + (cy - ay) / 6), (cx - (dx - bx) / 6, cy - (dy - by) / 6), (cx, cy)]
    return curves(out[0], *out[1:])


def both_sides(right: Sequence[Point]) -> list[Point]:
    """A symmetric outline from its right half, which runs from the top of the axis to its bottom."""
    return [*right, *((-x, y) for x, y in right[-2:0:-1])]


def between(a: float, b: float, share: float) -> float:
    """The number that lies ``share`` of the way from ``a`` to ``b``."""
    return a + (b - a) * share


@lru_cache(maxsize=4096)
def rgba(colour: str) -> Bytes:
    """The four bytes of ``#rrggbb`` or ``#rrggbbaa``."""
    red, green, blue, *alpha = bytes.fromhex(colour[1:])
    return red, green, blue, alpha[0] if alpha else 255


@lru_cache(maxsize=4096)
def vuya(colour: str) -> Bytes:
    """The same colour as videos have it: two bytes of hue, brightness (BT.709, limited range), and alpha.

    Blending and gradients come to the same in both. What is painted like this needs no conversion for the encoder.
    """
    red, green, blue, alpha = rgba(colour)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    u, v = (blue - light) / 1.8556, (red - light) / 1.5748
    return round(128 + u * 224 / 255), round(128 + v * 224 / 255), round(16 + light * 219 / 255), alpha


@lru_cache(maxsize=4096)
def mix(one: str, other: str, share: float) -> str:
    """The colour that lies ``share`` of the way from ``one`` to ``other``; opaque."""
    pairs = zip(rgba(one)[:3], rgba(other)[:3], strict=True)
    return "#" + "".join(f"{round(between(a, b, share)):02x}" for a, b in pairs)


@lru_cache(maxsize=4096)
def fade(colour: str, alpha: float) -> str:
    """The colour with another opacity, 0 to 1."""
    return f"{colour[:7]}{round(255 * min(1.0, max(0.0, alpha))):02x}"


def down(top: float, bottom: float, *colours: str) -> Linear:
    """A vertical gradient with the colours spread evenly."""
    last = len(colours) - 1
    return Linear(0, top, 0, bottom, tuple((i / last, colour) for i, colour in enumerate(colours)))


def glow(x: float, y: float, radius: float, colour: str, alpha: float) -> Radial:
    """A spot of colour that fades to nothing."""
    return Radial(x, y, radius, ((0.0, fade(colour, alpha)), (1.0, fade(colour, 0.0))))
