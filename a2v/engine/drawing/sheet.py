"""A display list: what to draw, in order, with nothing said about how it becomes pixels."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from a2v.engine.drawing.shapes import Map, rgba

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.engine.drawing.shapes import Box, Paint, Path


WHITE = "#ffffff"


class Mark(NamedTuple):
    """A filled path, or a stroked one if it has a ``width``."""

    path: Path
    paint: Paint
    opacity: float = 1.0
    width: float | None = None


class Group(NamedTuple):
    """Marks and groups that are moved or clipped as one.

    A ``fixed`` group is the same object frame after frame, so that a painter may keep what it made of it. With a ``box``
    around all that is in it, before it is moved, a painter knows what to draw anew when it changes.
    """

    items: list[Mark | Group]
    map: Map | None = None
    clip: Path | None = None
    fixed: bool = False
    box: Box | None = None


class Sheet:
    """Collects marks. All ends of strokes are round."""

    def __init__(self) -> None:
        self.items: list[Mark | Group] = []

    def fill(self, path: Path, paint: Paint, opacity: float = 1.0) -> None:
        """Adds a filled path."""
        self.items.append(Mark(path, paint, opacity))

    def stroke(self, path: Path, paint: Paint, width: float, opacity: float = 1.0) -> None:
        """Adds a line along the path."""
        self.items.append(Mark(path, paint, opacity, width))

    def add(self, group: Group, map: Map | None = None) -> None:
        """Adds a group made elsewhere, moved by ``map``."""
        self.items.append(group if map is None else Group([group], map, box=group.box))

    def fixed(self) -> Group:
        """All that was drawn so far as a group that will not change."""
        return Group(self.items, fixed=True, box=box_around(self.items) or (0, 0, 0, 0))

    @contextmanager
    def moved(self, map: Map, box: Box | None = None) -> Iterator[None]:
        """What is drawn inside is mapped; ``box`` is around it, before that."""
        with self._inside(Group([], map=map, box=box)):
            yield

    @contextmanager
    def clipped(self, path: Path) -> Iterator[None]:
        """What is drawn inside shows only within the path."""
        with self._inside(Group([], clip=path)):
            yield

    @contextmanager
    def _inside(self, group: Group) -> Iterator[None]:
        outer = self.items
        outer.append(group)
        self.items = group.items
        yield
        self.items = outer


def cover(group: Group) -> Group:
    """A group that covers the same pixels, all white, with nothing inside it that lets something through."""
    sheet = Sheet()
    for item in group.items:
        if isinstance(item, Group):
            if item.clip is None:
                sheet.add(cover(item), item.map)
        elif item.opacity == 1 and _is_opaque(item.paint):
            sheet.items.append(item._replace(paint=WHITE))
    return sheet.fixed()


def _is_opaque(paint: Paint) -> bool:
    colours = (paint,) if isinstance(paint, str) else tuple(colour for _, colour in paint.stops)
    return all(rgba(colour)[3] == 255 for colour in colours)


def box_around(items: list[Mark | Group]) -> Box | None:
    """A box around all that the items draw, not much larger than need be; nothing around nothing."""
    boxes = [box for item in items if (box := _box(item))]
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _box(item: Mark | Group) -> Box | None:
    if isinstance(item, Group):
        inner = item.box or (box_around(item.items) if item.clip is None else _path_box(item.clip))
        return inner and (item.map or Map()).around(inner)
    return _path_box(item.path, (item.width or 0) / 2)


def _path_box(path: Path, edge: float = 0.0) -> Box:
    xs, ys = zip(*path.points, strict=True)
    return min(xs) - edge, min(ys) - edge, max(xs) + edge, max(ys) + edge
