"""Paths and affine transforms, as plain values.

All coordinates are units of the drawing, a square of 720; x runs to the right and y down.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_CIRCLE_HANDLE = 0.5522847  # length of the handles with which four cubic curves approximate a unit circle
# The values of ThorVG's path commands: the rasterizer passes paths on unchanged.
_CLOSE, _MOVE, _LINE, _CUBIC = range(4)
_COMMANDS = {"M": (_MOVE, 1), "L": (_LINE, 1), "C": (_CUBIC, 3), "Z": (_CLOSE, 0)}

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Path(NamedTuple):
    """An outline: commands, and the points that they consume in order."""

    commands: tuple[int, ...]
    points: tuple[Point, ...]

    def moved(self, transform: Transform) -> Path:
        """Return the transformed path."""
        a, b, c, d, e, f = transform
        return Path(self.commands, tuple((a * x + c * y + e, b * x + d * y + f) for x, y in self.points))


class Transform(NamedTuple):
    """An affine transform: ``x' = a·x + c·y + e``, ``y' = b·x + d·y + f``."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 1.0
    e: float = 0.0
    f: float = 0.0

    def __matmul__(self, inner: Transform) -> Transform:
        """Return the transform that applies ``inner`` first, then this one."""
        a, b, c, d, e, f = self
        p, q, r, s, t, u = inner
        return Transform(
            a * p + c * q, b * p + d * q, a * r + c * s, b * r + d * s, a * t + c * u + e, b * t + d * u + f
        )

    def transform_box(self, box: Box) -> Box:
        """Return the bounding box of a transformed box."""
        left, top, right, bottom = box
        xs = [self.a * x + self.c * y + self.e for x in (left, right) for y in (top, bottom)]
        ys = [self.b * x + self.d * y + self.f for x in (left, right) for y in (top, bottom)]
        return min(xs), min(ys), max(xs), max(ys)


def translate(x: float, y: float) -> Transform:
    """Return a translation."""
    return Transform(1.0, 0.0, 0.0, 1.0, x, y)


def scale(x: float, y: float | None = None) -> Transform:
    """Return a scaling about the origin; by ``x`` in both directions without ``y``."""
    return Transform(a=x, d=x if y is None else y)


@lru_cache(maxsize=1024)
def rotate(degrees: float, x: float = 0.0, y: float = 0.0) -> Transform:
    """Return a clockwise rotation about a point."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return translate(x, y) @ Transform(cos, sin, -sin, cos) @ translate(-x, -y)


@lru_cache(maxsize=1024)
def svg_path(text: str) -> Path:
    """Parse SVG path data; only the absolute commands ``M``, ``L``, ``C`` and ``Z`` are supported."""
    commands: list[int] = []
    numbers: list[float] = []
    for letter, arguments in re.findall(r"([MLCZ])([^MLCZ]*)", text):
        command, points_each = _COMMANDS[letter]
        values = [float(value) for value in arguments.replace(",", " ").split()]
        commands += [command] * (len(values) // (2 * points_each) if points_each else 1)
        numbers += values
    return Path(tuple(commands), tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def mirror_path(path: Path, axis: float = 0.0) -> Path:
    """Return a path mirrored at a vertical axis."""
    return Path(path.commands, tuple((2 * axis - x, y) for x, y in path.points))


def both_sides(path: Path, axis: float = 0.0) -> Path:
    """Return a path together with itself mirrored at a vertical axis."""
    return join_paths(path, mirror_path(path, axis))


def join_paths(*paths: Path) -> Path:
    """Return one path with the outlines of several."""
    return Path(sum((path.commands for path in paths), ()), sum((path.points for path in paths), ()))


def ellipse(x: float, y: float, rx: float, ry: float | None = None) -> Path:
    """Return an ellipse around a point; a circle without ``ry``."""
    ry = rx if ry is None else ry
    kx, ky = rx * _CIRCLE_HANDLE, ry * _CIRCLE_HANDLE
    points = (
        (x + rx, y),
        (x + rx, y + ky), (x + kx, y + ry), (x, y + ry),
        (x - kx, y + ry), (x - rx, y + ky), (x - rx, y),
        (x - rx, y - ky), (x - kx, y - ry), (x, y - ry),
        (x + kx, y - ry), (x + rx, y - ky), (x + rx, y),
    )  # fmt: skip
    return Path((_MOVE, _CUBIC, _CUBIC, _CUBIC, _CUBIC, _CLOSE), points)


def rectangle(x: float, y: float, width: float, height: float) -> Path:
    """Return a rectangle, given its upper left corner."""
    points = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Path((_MOVE, _LINE, _LINE, _LINE, _CLOSE), points)


def cubic_path(start: Point, *points: Point, close: bool = True) -> Path:
    """Return connected cubic curves; each takes two handles and an end point."""
    commands = (_MOVE,) + (_CUBIC,) * (len(points) // 3)
    return Path((*commands, _CLOSE) if close else commands, (start, *points))


def closed_spline(points: Sequence[Point]) -> Path:
    """Return a smooth closed curve through the points (Catmull-Rom)."""
    count = len(points)
    path = [points[0]]
    for i in range(count):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        path += [(bx + (cx - ax) / 6, by + (cy - ay) / 6), (cx - (dx - bx) / 6, cy - (dy - by) / 6), (cx, cy)]
    return cubic_path(*path)


@lru_cache(maxsize=256)
def tapered(text: str, width: float) -> Path:
    """Return strands: lines with pointed ends, which are ``width`` wide in the middle.

    Args:
        text: The lines as SVG path data, each of an ``M`` and at least one ``C``.
        width: In units.
    """
    path = svg_path(text)
    outlines = []
    starts = [number for number, command in enumerate(path.commands) if command == _MOVE]
    first = 0
    for start, end in zip(starts, [*starts[1:], len(path.commands)], strict=True):
        count = 1 + 3 * (end - start - 1)
        outlines.append(_strand(path.points[first : first + count], width / 2))
        first += count
    return join_paths(*outlines)


def _strand(points: tuple[Point, ...], half: float) -> Path:
    """Return the outline of a line of connected cubic curves."""
    last = len(points) - 1
    sides: tuple[list[Point], list[Point]] = ([], [])
    for i, (x, y) in enumerate(points):
        (ax, ay), (bx, by) = points[max(0, i - 1)], points[min(last, i + 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        # A third beyond the half: the curve comes only so near to its handles.
        away = half * 4 / 3 * math.sin(math.pi * i / last) / length
        for side, sign in zip(sides, (1, -1), strict=True):
            side.append((x - sign * (by - ay) * away, y + sign * (bx - ax) * away))
    there, back = sides
    return cubic_path(*there, *back[-2::-1])


def mirror_points(right: Sequence[Point]) -> list[Point]:
    """Complete a symmetric outline from its right half, which starts at the top of the y axis and ends at its bottom."""
    return [*right, *((-x, y) for x, y in right[-2:0:-1])]


def lerp(a: float, b: float, t: float) -> float:
    """Interpolate linearly from ``a`` (``t`` = 0) to ``b`` (``t`` = 1)."""
    return a + (b - a) * t
