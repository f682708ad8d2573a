"""A display list: what to draw, in order, with nothing said about how it becomes pixels."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.engine.drawing.shapes import Map, Paint, Path


class Mark(NamedTuple):
    """A filled path, or a stroked one if it has a ``width``."""

    path: Path
    paint: Paint
    opacity: float = 1.0
    width: float | None = None


class Group(NamedTuple):
    """Marks and groups that are moved or clipped as one.

    A ``fixed`` group is the same object frame after frame, so that a painter may keep what it made of it.
    """

    items: list[Mark | Group]
    map: Map | None = None
    clip: Path | None = None
    fixed: bool = False


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
        self.items.append(group if map is None else Group([group], map))

    def fixed(self) -> Group:
        """All that was drawn so far as a group that will not change."""
        return Group(self.items, fixed=True)

    @contextmanager
    def moved(self, map: Map) -> Iterator[None]:
        """What is drawn inside is mapped."""
        with self._inside(Group([], map=map)):
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
