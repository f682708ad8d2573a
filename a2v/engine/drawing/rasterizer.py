"""Turns display lists into pixels. With ``text``, the only module that uses the drawing library, ThorVG.

A frame of an animation differs little from the one before, and drawing is the largest cost of a render beside encoding. So the
rasterizer saves work in two ways:

* *Dirty rectangle.* ``paint`` compares its items with the items of the frame before, and redraws only the bounding box of those that
  differ: mostly the head. The invariant: outside the returned area, ``pixels`` already shows the new frame.
* *Cached groups.* Creating ThorVG objects from Python is expensive. Those of a static group are kept from frame to frame, in a
  least-recently-used cache, by the identity of the group. The cache holds the group too, so that its ``id`` is not reused.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache, lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import thorvg_cython as tv

from a2v.engine.drawing.colours import LinearGradient, rgba
from a2v.engine.drawing.display_list import Group, Shape
from a2v.engine.drawing.geometry import Transform, scale, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from a2v.engine.characters import Framing
    from a2v.engine.drawing.colours import ColourBytes, RadialGradient
    from a2v.engine.drawing.display_list import Item
    from a2v.engine.drawing.geometry import Box, Path

Area = tuple[int, int, int, int]
"""A part of a picture in pixels: left, top, right, bottom; the last two are exclusive."""
_MAX_CACHED_GROUPS = 100  # more than a frame has


@cache
def start_thorvg() -> tv.Engine:
    """Start the drawing library, unless it runs."""
    # Once per process, and never stopped: ThorVG's objects must not outlive it. No threads: the frames are too small for them.
    return tv.Engine(0)


class Rasterizer:
    """Draws display lists on a canvas of ``width`` × ``height`` pixels.

    Args:
        width: In pixels; even.
        height: In pixels; even.
        framing: The part of the drawing to show.
        encode_colour: Returns the four bytes of a colour as they are in ``pixels``.
    """

    def __init__(
        self, width: int, height: int, framing: Framing, encode_colour: Callable[[str], ColourBytes] = rgba
    ) -> None:
        start_thorvg()
        self._size = width, height
        self._encode_colour = encode_colour
        self._transform = scale(width / framing.width) @ translate(-framing.left, -framing.top)
        self._canvas = tv.SwCanvas(width, height, engine_option=int(tv.EngineOption.NONE))
        buffer = self._canvas.buffer
        if buffer is None:  # pragma: no cover - only when memory is out
            raise MemoryError(f"no canvas of {width} × {height} pixels")
        # ThorVG's type stub declares the buffer with a Cython type.
        self._words: NDArray[np.uint32] = np.frombuffer(buffer, np.uint32).reshape(height, width)  # pyright: ignore[reportCallIssue,reportArgumentType]
        self.pixels: NDArray[np.uint8] = self._words.view(np.uint8).reshape(height, width, 4)
        """The picture, which ``paint`` updates: three bytes of colour and one of alpha per pixel, premultiplied."""
        self._backdrop = np.zeros((height, width), np.uint32)
        self._root: tv.Scene | None = None
        self._previous: list[Item] | None = None
        # By the group's id and its number of uses in the frame: a ThorVG scene has one parent, so a group that is drawn twice
        # in a frame (an ear, say) needs two scenes.
        self._scenes: OrderedDict[tuple[int, int], tuple[Group, tv.Scene]] = OrderedDict()
        self._uses: dict[int, int] = {}

    def set_backdrop(self, pixels: NDArray[np.uint8]) -> None:
        """Draw all further frames over a picture, which has the layout of ``pixels``."""
        self._backdrop = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
        self._previous = None

    def paint(self, items: list[Item]) -> Area:
        """Draw the items over the backdrop into ``pixels``; return the area that may have changed."""
        area = self._changed_area(items)
        self._previous = items
        left, top, right, bottom = area
        if left < right and top < bottom:
            self._words[top:bottom, left:right] = self._backdrop[top:bottom, left:right]
            self._draw(items, area)
        return area

    def _changed_area(self, items: list[Item]) -> Area:
        width, height = self._size
        if self._previous is None:
            return 0, 0, width, height
        boxes = []
        for item, previous in zip_longest(items, self._previous):
            if item == previous:
                continue
            for changed in (item, previous):
                if changed is None:
                    continue
                if (box := self._box_of(changed)) is None:
                    return 0, 0, width, height
                boxes.append(box)
        if not boxes:
            return 0, 0, 0, 0
        left, top = (min(box[i] for box in boxes) for i in (0, 1))
        right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
        # One more pixel for anti-aliased edges, and even coordinates, because 2 × 2 pixels share their colour in a video.
        return (
            max(0, int(left - 1) & ~1),
            max(0, int(top - 1) & ~1),
            min(width, int(right + 3) & ~1),
            min(height, int(bottom + 3) & ~1),
        )

    def _box_of(self, item: Item) -> Box | None:
        """Return a box around an item in pixels, or ``None`` if it has no bounds."""
        if isinstance(item, Shape) or item.bounds is None:
            return None
        return (self._transform @ (item.transform or Transform())).transform_box(item.bounds)

    def _is_in(self, area: Area, item: Item) -> bool:
        """Whether a part of an item may be in an area. ThorVG prepares shapes before it finds that they are outside."""
        if (box := self._box_of(item)) is None:
            return True
        return box[0] - 1 < area[2] and box[1] - 1 < area[3] and box[2] + 1 > area[0] and box[3] + 1 > area[1]

    def _draw(self, items: list[Item], area: Area) -> None:
        left, top, right, bottom = area
        # Set the viewport first: a canvas accepts a new one only before the first change after a draw.
        self._canvas.set_viewport(left, top, right - left, bottom - top)
        if self._root is not None:
            # Frees the scene and everything in it except the cached scenes, which hold a reference of their own.
            self._canvas.remove(self._root)
        self._uses.clear()
        self._root = self._make_scene(Group([item for item in items if self._is_in(area, item)], self._transform))
        self._canvas.add(self._root)
        self._canvas.draw(False)
        self._canvas.sync()

    # -- ThorVG objects, which belong to the scene that they are added to ------------------------------------------------

    def _make_scene(self, group: Group) -> tv.Scene:
        scene = tv.Scene()
        if group.clip is not None:
            clip = _make_path(group.clip)
            clip.set_fill_color(255, 255, 255, 255)
            scene.set_clip(clip)
        if group.transform is not None:
            scene.set_transform(_make_matrix(group.transform))
        for item in group.items:
            scene.add(self._make_paint(item))
        return scene

    def _make_paint(self, item: Item) -> tv.Paint:
        if isinstance(item, Shape):
            return self._make_shape(item)
        return self._cached_scene(item) if item.static else self._make_scene(item)

    def _cached_scene(self, group: Group) -> tv.Scene:
        use = self._uses[id(group)] = self._uses.get(id(group), 0) + 1
        key = id(group), use
        if key not in self._scenes:
            scene = self._make_scene(group)
            scene.ref()
            self._scenes[key] = (group, scene)
            if len(self._scenes) > _MAX_CACHED_GROUPS:
                _, (_, oldest) = self._scenes.popitem(last=False)
                oldest.deref(free=True)
        self._scenes.move_to_end(key)
        scene = self._scenes[key][1]
        # When a transform changes, ThorVG moves the shapes of a cached scene but not their gradients, unless the opacity changes too.
        scene.set_opacity(254)
        scene.set_opacity(255)
        return scene

    def _make_shape(self, item: Shape) -> tv.Shape:
        shape = _make_path(item.path)
        paint = item.paint
        if item.width is None:
            if isinstance(paint, str):
                shape.set_fill_color(*self._encode_colour(paint))
            else:
                shape.set_gradient(self._make_gradient(paint))
        else:
            shape.set_stroke_width(item.width)
            shape.set_stroke_cap(tv.StrokeCap.ROUND)
            shape.set_stroke_join(tv.StrokeJoin.ROUND)
            if isinstance(paint, str):
                shape.set_stroke_color(*self._encode_colour(paint))
            else:
                shape.set_stroke_gradient(self._make_gradient(paint))
        if item.opacity < 1:
            shape.set_opacity(round(255 * item.opacity))
        return shape

    def _make_gradient(self, paint: LinearGradient | RadialGradient) -> tv.Gradient:
        if isinstance(paint, LinearGradient):
            gradient: tv.Gradient = tv.LinearGradient(paint.x1, paint.y1, paint.x2, paint.y2)
        else:
            gradient = tv.RadialGradient(paint.x, paint.y, paint.radius, paint.x, paint.y, 0)
        gradient.set_color_stops(_make_colour_stops(paint.stops, self._encode_colour))
        return gradient


# A cache in the rasterizer would be a reference cycle, which keeps the canvas of a video in memory while its mask is rendered.
@lru_cache(maxsize=1024)
def _make_colour_stops(
    stops: tuple[tuple[float, str], ...], encode_colour: Callable[[str], ColourBytes]
) -> list[tv.ColorStop]:
    return [tv.ColorStop(offset, *encode_colour(colour)) for offset, colour in stops]


def _make_matrix(transform: Transform) -> tv.Matrix:
    return tv.Matrix(transform.a, transform.c, transform.e, transform.b, transform.d, transform.f, 0, 0, 1)


def _make_path(path: Path) -> tv.Shape:
    shape = tv.Shape()
    shape.append_path(path.commands, path.points)
    return shape
