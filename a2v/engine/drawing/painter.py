"""Turns a display list into pixels. The only module that knows ThorVG."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache, lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import thorvg_cython as tv

from a2v.engine.drawing.shapes import Linear, Map, rgba, scale, shift
from a2v.engine.drawing.sheet import Group, Mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from a2v.engine.cast import View
    from a2v.engine.drawing.shapes import Bytes, Path, Radial

Area = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a picture in pixels; the last two are outside."""
_MOST_KEPT = 100  # more than a frame has


@cache
def _engine() -> tv.Engine:
    # One for the process, never ended: ThorVG's objects must not outlive it. No threads: frames are too small for them.
    return tv.Engine(0)


class Painter:
    """A canvas with a picture of ``width`` × ``height`` pixels on it, which shows what is in ``view``.

    It draws only what differs from the frame before: of a person who speaks, that is mostly the head.

    Args:
        width: In pixels; even.
        height: In pixels; even.
        view: The part of the drawing to show.
        colours: What becomes of a colour: its four bytes as they stand in ``pixels``.
    """

    def __init__(self, width: int, height: int, view: View, colours: Callable[[str], Bytes] = rgba) -> None:
        _engine()
        self._size = width, height
        self._colours = colours
        self._map = scale(width / view.width).then(shift(-view.left, -view.top))
        self._canvas = tv.SwCanvas(width, height, engine_option=int(tv.EngineOption.NONE))
        buffer = self._canvas.buffer
        if buffer is None:  # pragma: no cover - only when memory is out
            raise MemoryError(f"no canvas of {width} × {height} pixels")
        # Its stub spells the buffer protocol in Cython's way.
        self._words: NDArray[np.uint32] = np.frombuffer(buffer, np.uint32).reshape(height, width)  # pyright: ignore[reportCallIssue,reportArgumentType]
        self.pixels: NDArray[np.uint8] = self._words.view(np.uint8).reshape(height, width, 4)
        """The picture: three bytes of colour and one of alpha for each pixel, premultiplied. ``paint`` writes here."""
        self._backdrop = np.zeros((height, width), np.uint32)
        self._root: tv.Scene | None = None
        self._before: list[Mark | Group] | None = None
        # A scene can be in one place only, so a fixed group that is drawn twice in a frame, as an ear is, needs two.
        self._kept: OrderedDict[tuple[int, int], tuple[Group, tv.Scene]] = OrderedDict()
        self._stops = lru_cache(maxsize=1024)(self._make_stops)
        self._uses: dict[int, int] = {}

    def set_backdrop(self, pixels: NDArray[np.uint8]) -> None:
        """Puts a finished picture like ``pixels`` behind everything painted from now on."""
        self._backdrop = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
        self._before = None

    def paint(self, items: list[Mark | Group]) -> Area:
        """Draws the items over the backdrop, into ``pixels``, and returns what part of it may have changed."""
        area = self._damage(items)
        self._before = items
        left, top, right, bottom = area
        if left < right and top < bottom:
            self._words[top:bottom, left:right] = self._backdrop[top:bottom, left:right]
            self._draw(items, area)
        return area

    def _draw(self, items: list[Mark | Group], area: Area) -> None:
        left, top, right, bottom = area
        # In this order: a canvas takes a new viewport only while nothing has been added or removed since it was drawn.
        self._canvas.set_viewport(left, top, right - left, bottom - top)
        if self._root is not None:
            # This frees the scene and all in it but the kept groups, which have a reference of their own.
            self._canvas.remove(self._root)
        keep: list[Any] = []
        self._uses.clear()
        self._root = self._scene(Group(items, self._map), keep)
        self._canvas.add(self._root)
        self._canvas.draw(False)
        self._canvas.sync()

    def _damage(self, items: list[Mark | Group]) -> Area:
        """The part of the picture in which it may differ from that of the frame before."""
        width, height = self._size
        if self._before is None:
            return 0, 0, width, height
        boxes = []
        for one, other in zip_longest(items, self._before):
            if one == other:
                continue
            for item in (one, other):
                if item is None:
                    continue
                if isinstance(item, Mark) or item.box is None:
                    return 0, 0, width, height
                boxes.append(self._map.then(item.map or Map()).around(item.box))
        if not boxes:
            return 0, 0, 0, 0
        left, top = (min(box[i] for box in boxes) for i in (0, 1))
        right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
        # A pixel more for soft edges, and even, because pixels share their colour by four in a video.
        return (
            max(0, int(left - 1) & ~1),
            max(0, int(top - 1) & ~1),
            min(width, int(right + 3) & ~1),
            min(height, int(bottom + 3) & ~1),
        )

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
            shape = self._mark(item)
            keep.append(shape)
            return shape
        return self._fixed(item) if item.fixed else self._scene(item, keep)

    def _fixed(self, group: Group) -> tv.Scene:
        use = self._uses[id(group)] = self._uses.get(id(group), 0) + 1
        key = id(group), use
        if key not in self._kept:
            scene = self._scene(group, [])
            scene.ref()
            # The group is kept too: while it lives, no other can have its id.
            self._kept[key] = (group, scene)
            if len(self._kept) > _MOST_KEPT:
                _, (_, oldest) = self._kept.popitem(last=False)
                oldest.deref(free=True)
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def _mark(self, mark: Mark) -> tv.Shape:
        shape = _shape(mark.path)
        paint = mark.paint
        if mark.width is None:
            if isinstance(paint, str):
                shape.set_fill_color(*self._colours(paint))
            else:
                shape.set_gradient(self._gradient(paint))
        else:
            shape.set_stroke_width(mark.width)
            shape.set_stroke_cap(tv.StrokeCap.ROUND)
            shape.set_stroke_join(tv.StrokeJoin.ROUND)
            if isinstance(paint, str):
                shape.set_stroke_color(*self._colours(paint))
            else:
                shape.set_stroke_gradient(self._gradient(paint))
        if mark.opacity < 1:
            shape.set_opacity(round(255 * mark.opacity))
        return shape

    def _make_stops(self, stops: tuple[tuple[float, str], ...]) -> list[tv.ColorStop]:
        return [tv.ColorStop(offset, *self._colours(colour)) for offset, colour in stops]

    def _gradient(self, paint: Linear | Radial) -> tv.Gradient:
        if isinstance(paint, Linear):
            gradient: tv.Gradient = tv.LinearGradient(paint.x1, paint.y1, paint.x2, paint.y2)
        else:
            gradient = tv.RadialGradient(paint.x, paint.y, paint.radius, paint.x, paint.y, 0)
        gradient.set_color_stops(self._stops(paint.stops))
        return gradient


def _matrix(map: Map) -> tv.Matrix:
    return tv.Matrix(map.a, map.c, map.e, map.b, map.d, map.f, 0, 0, 1)


def _shape(path: Path) -> tv.Shape:
    shape = tv.Shape()
    shape.append_path(path.commands, path.points)
    return shape
