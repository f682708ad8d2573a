"""Display lists: the shapes of a picture in drawing order, independent of how they become pixels."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from a2v.engine.drawing.colours import rgba
from a2v.engine.drawing.geometry import Transform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from a2v.engine.drawing.colours import Paint
    from a2v.engine.drawing.geometry import Box, Path


WHITE = "#ffffff"


class Shape(NamedTuple):
    """A path, filled, or stroked if it has a ``width``."""

    path: Path
    paint: Paint
    opacity: float = 1.0
    width: float | None = None


class Group(NamedTuple):
    """Shapes and groups that are transformed or clipped together.

    A ``static`` group is the same object in every frame, which lets the rasterizer cache what it makes of it. ``bounds`` is a
    box around the content, before the transform; it lets the rasterizer redraw only this part when the group changes.
    """

    items: list[Item]
    transform: Transform | None = None
    clip: Path | None = None
    static: bool = False
    bounds: Box | None = None


Item = Shape | Group


class DisplayList:
    """Collects shapes and groups. Ends and corners of strokes are round."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def fill(self, path: Path, paint: Paint, opacity: float = 1.0) -> None:
        """Append a filled path."""
        self.items.append(Shape(path, paint, opacity))

    def stroke(self, path: Path, paint: Paint, width: float, opacity: float = 1.0) -> None:
        """Append a line along the path."""
        self.items.append(Shape(path, paint, opacity, width))

    def add(self, group: Group, transform: Transform | None = None) -> None:
        """Append an existing group, transformed."""
        self.items.append(group if transform is None else Group([group], transform, bounds=group.bounds))

    def static_group(self) -> Group:
        """Return everything collected so far as a static group."""
        return Group(self.items, static=True, bounds=bounds_of(self.items) or (0, 0, 0, 0))

    def transformed(self, transform: Transform, bounds: Box | None = None) -> AbstractContextManager[None]:
        """Transform what the block appends. ``bounds`` is a box around it, before the transform."""
        return self._nested(Group([], transform, bounds=bounds))

    def clipped(self, path: Path) -> AbstractContextManager[None]:
        """Clip what the block appends to the path."""
        return self._nested(Group([], clip=path))

    @contextmanager
    def _nested(self, group: Group) -> Iterator[None]:
        outer = self.items
        outer.append(group)
        self.items = group.items
        yield
        self.items = outer


def silhouette_of(group: Group) -> Group:
    """Return a static group that covers the same pixels in opaque white.

    Translucent shapes are left out: in these drawings they only shade what an opaque shape covers. So are clipped groups,
    which never reach beyond the shape that clips them.
    """
    drawing = DisplayList()
    for item in group.items:
        if isinstance(item, Group):
            if item.clip is None:
                drawing.add(silhouette_of(item), item.transform)
        elif item.opacity == 1 and _is_opaque(item.paint):
            drawing.items.append(item._replace(paint=WHITE))
    return drawing.static_group()


def _is_opaque(paint: Paint) -> bool:
    colours = (paint,) if isinstance(paint, str) else tuple(colour for _, colour in paint.stops)
    return all(rgba(colour)[3] == 255 for colour in colours)


def bounds_of(items: list[Item]) -> Box | None:
    """Return a box around the items, or ``None`` without items.

    Curves count with their handles, so the box may be a little larger than necessary.
    """
    boxes = [box for item in items if (box := _item_bounds(item))]
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _item_bounds(item: Item) -> Box | None:
    if isinstance(item, Group):
        inner = item.bounds or (bounds_of(item.items) if item.clip is None else _path_bounds(item.clip))
        return inner and (item.transform or Transform()).transform_box(inner)
    return _path_bounds(item.path, (item.width or 0) / 2)


def _path_bounds(path: Path, margin: float = 0.0) -> Box:
    xs, ys = zip(*path.points, strict=True)
    return min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin
