"""Turns a display list into pixels. The only module that knows ThorVG."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import thorvg_cython as tv

from a2v.engine.drawing.shapes import Linear, rgba, scale, shift
from a2v.engine.drawing.sheet import Group, Mark

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from a2v.engine.cast import View
    from a2v.engine.drawing.shapes import Map, Path, Radial


@cache
def _engine() -> tv.Engine:
    # One for the process, never ended: ThorVG's objects must not outlive it. No threads: frames are too small for them.
    return tv.Engine(0)


class Painter:
    """A canvas with a picture of ``width`` × ``height`` pixels on it, which shows what is in ``view``."""

    def __init__(self, width: int, height: int, view: View) -> None:
        _engine()
        self._canvas = tv.SwCanvas(width, height)
        self._map = scale(width / view.width).then(shift(-view.left, -view.top))
        buffer = self._canvas.buffer
        if buffer is None:  # pragma: no cover - only when memory is out
            raise MemoryError(f"no canvas of {width} × {height} pixels")
        # Its stub spells the buffer protocol in Cython's way.
        flat: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)  # pyright: ignore[reportCallIssue,reportArgumentType]
        self.pixels: NDArray[np.uint8] = flat.reshape(height, width, 4)
        """The picture: red, green, blue and alpha of each pixel, premultiplied. Every ``paint`` writes it anew."""
        # A scene can be in one place only, so a fixed group that is drawn twice in a frame, as an ear is, needs two.
        self._kept: dict[tuple[int, int], tuple[Group, tv.Scene]] = {}
        self._uses: dict[int, int] = {}
        self._backdrop: tv.Picture | None = None

    def set_backdrop(self, pixels: NDArray[np.uint8]) -> None:
        """Puts a finished picture of the canvas's size and layout behind everything painted from now on."""
        height, width, _ = pixels.shape
        picture = tv.Picture()
        picture.load_raw(np.ascontiguousarray(pixels).ctypes.data, width, height, int(self._canvas.colorspace), True)
        self._canvas.add(picture)
        self._backdrop = picture

    def paint(self, items: list[Mark | Group]) -> NDArray[np.uint8]:
        """Draws the items over the backdrop and returns ``pixels``."""
        keep: list[Any] = []
        self._uses.clear()
        root = self._scene(Group(items, self._map), keep)
        self._canvas.add(root)
        self._canvas.draw(True)
        self._canvas.sync()
        # This frees the scene and all in it but the kept groups, which have a reference of their own.
        self._canvas.remove(root)
        return self.pixels

    def _scene(self, group: Group, keep: list[Any]) -> tv.Scene:
        scene = tv.Scene()
        keep.append(scene)
        if group.clip is not None:
            clip = _shape(group.clip)
            clip.set_fill_color(255, 255, 255, 255)
            scene.set_clip(clip)
            keep.append(clip)
        if group.map is not None:
            scene.set_transform(_matrix(group.map))
        for item in group.items:
            scene.add(self._paint_of(item, keep))
        return scene

    def _paint_of(self, item: Mark | Group, keep: list[Any]) -> tv.Paint:
        if isinstance(item, Mark):
            shape = _mark(item)
            keep.append(shape)
            return shape
        return self._fixed(item) if item.fixed else self._scene(item, keep)

    def _fixed(self, group: Group) -> tv.Scene:
        use = self._uses[id(group)] = self._uses.get(id(group), 0) + 1
        known = self._kept.get((id(group), use))
        if known is None:
            scene = self._scene(group, [])
            scene.ref()
            # The group is kept too: while it lives, no other can have its id.
            known = self._kept[id(group), use] = (group, scene)
        return known[1]


def _matrix(map: Map) -> tv.Matrix:
    return tv.Matrix(map.a, map.c, map.e, map.b, map.d, map.f, 0, 0, 1)


def _shape(path: Path) -> tv.Shape:
    shape = tv.Shape()
    shape.append_path(path.commands, path.points)
    return shape


def _mark(mark: Mark) -> tv.Shape:
    shape = _shape(mark.path)
    paint = mark.paint
    if mark.width is None:
        if isinstance(paint, str):
            shape.set_fill_color(*rgba(paint))
        else:
            shape.set_gradient(_gradient(paint))
    else:
        shape.set_stroke_width(mark.width)
        shape.set_stroke_cap(tv.StrokeCap.ROUND)
        shape.set_stroke_join(tv.StrokeJoin.ROUND)
        if isinstance(paint, str):
            shape.set_stroke_color(*rgba(paint))
        else:
            shape.set_stroke_gradient(_gradient(paint))
    if mark.opacity < 1:
        shape.set_opacity(round(255 * mark.opacity))
    return shape


def _gradient(paint: Linear | Radial) -> tv.Gradient:
    if isinstance(paint, Linear):
        gradient: tv.Gradient = tv.LinearGradient(paint.x1, paint.y1, paint.x2, paint.y2)
    else:
        gradient = tv.RadialGradient(paint.x, paint.y, paint.radius, paint.x, paint.y, 0)
    gradient.set_color_stops([tv.ColorStop(offset, *rgba(colour)) for offset, colour in paint.stops])
    return gradient
