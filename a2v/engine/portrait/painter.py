"""Draws the frames of a portrait.

A frame is a warped photograph: for each pixel, the place in the photograph that it shows is computed, from the motion of the head
(``head``) and then of the mouth (``lips``). Places are computed at the nodes of a coarse grid and interpolated (``grid``). The photograph is
enlarged up to four times beforehand, and the nearest pixel is taken. That is accurate to an eighth of a pixel, and faster than
interpolation. Glances (``gaze``) and lids (``lids``) are drawn afterwards. Where lips meet the inside of the mouth, and lids the eye, both
are mixed by how much of the pixel each covers.

Pixels have the colours of the video, four bytes as ``colours.uvya`` defines them, so frames need no conversion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.drawing.colours import uvy
from a2v.engine.portrait.gaze import Gaze
from a2v.engine.portrait.geometry import Geometry, measure
from a2v.engine.portrait.glasses import wears_glasses
from a2v.engine.portrait.grid import Grid
from a2v.engine.portrait.head import HeadMotion, head_box
from a2v.engine.portrait.inside import Inside, without_specks
from a2v.engine.portrait.lids import LIDS_AT_REST, Lids
from a2v.engine.portrait.lips import Lips
from a2v.engine.portrait.pictures import scale_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from a2v.engine.drawing.rasterizer import Area
    from a2v.engine.face_pose import FacePose, MouthShape
    from a2v.engine.portrait.lips import Layers
    from a2v.engine.portrait.pictures import Array, Pixels


_CELLS = 128
"""The approximate number of cells of the grid along the shorter side of the frame."""
_LARGE = 640
"""Frames whose shorter side has at least this many pixels are large."""
_SCALE, _SCALE_LARGE = 4, 3
"""The size of the texture relative to the frame. With 4, the texture of a large frame would not fit into the CPU's cache."""
_BAND_ROWS = 256  # converted at a time
_CLOSED = 1.2
"""An opening of fewer pixels does not show the inside of the mouth."""
_MAX_GAZE = 0.6
"""The eyes of a photograph do not move beyond this ``FacePose.gaze_x``."""


class PortraitPainter:
    """Draws one portrait.

    Args:
        rgb: The photograph in the size of the frame, height × width × 3.
        points: The landmarks in pixels of the frame.
        blinks: Whether the eyes blink and glance; ``None``: unless the person wears glasses.
        alpha: Which pixels show the person; ``None``: the whole photograph is shown.
        background: The colour behind the person; ``None``: frames keep the alpha of their pixels.
        edges: Where the photograph ends within the frame: left, top, right and bottom. Nothing moves there.
    """

    def __init__(
        self,
        rgb: Pixels,
        points: Array,
        *,
        blinks: bool | None = None,
        alpha: Pixels | None = None,
        background: tuple[int, int, int] | None = None,
        edges: tuple[float, float, float, float] | None = None,
    ) -> None:
        height, width = rgb.shape[:2]
        self._size = width, height
        self._shown = False
        step = max(2, round(min(width, height) / _CELLS))
        face = measure(points, rgb)
        self._face = face
        self._grid = Grid.over(_with_margin(head_box(face), step), step, width, height)
        self._nodes = self._grid.nodes()
        self._head = HeadMotion(face, self._nodes, height, edges)
        self._lips = Lips(face)
        self._inside = Inside(face, rgb)
        if blinks is None:
            blinks = not wears_glasses(rgb, face)
        lids = [Lids(face, eye, rgb) for eye in face.eyes] if blinks else []
        self._lids = lids if all(lid.covers for lid in lids) else []
        self._gazes = [Gaze(face, eye, rgb) for eye in face.eyes] if self._lids else []
        mouth_box = _frame_box(face, self._lips.reach)
        self._mouth_grid = self._within(_with_margin(mouth_box, step), self._grid)
        half = face.mouth
        least, most = float(face.upper.min()) - 0.35 * half, float(face.lower.max()) + half
        self._lip_grid = self._within(
            _with_margin(_frame_box(face, (-1.25 * half, least, 1.25 * half, most)), step), self._mouth_grid
        )
        self._eye_grids = [
            self._within(_with_margin(_frame_box(face, lids.box), 2 * step), self._grid) for lids in self._lids
        ]
        self._scale = _SCALE if min(width, height) < _LARGE else _SCALE_LARGE
        self._texture = _enlarge(without_specks(face, rgb), alpha, self._scale)
        self._background: Array | None = None
        if background is not None:
            self._background = rgb_to_uvya(np.array(background, np.float32))
        self.pixels: Pixels = to_uvya(rgb, alpha)
        """The picture, which ``paint`` updates: U, V, Y and alpha."""
        self._words: NDArray[np.uint32] = self.pixels.view(np.uint32)[..., 0]
        self._mix_background((0, 0, width, height))

    @property
    def area(self) -> Area:
        """The part of the frame that changes."""
        rows, columns = self._grid.slices
        width, height = self._size
        return columns.start, rows.start, min(columns.stop, width), min(rows.stop, height)

    def paint(self, pose: FacePose) -> Area:
        """Draw a pose into ``pixels``; return the area that may have changed, which is all of it the first time."""
        self._draw(pose)
        area, self._shown = (self.area if self._shown else (0, 0, *self._size)), True
        return area

    def _draw(self, pose: FacePose) -> None:
        face, grid = self._face, self._grid
        head = self._nodes - self._head.shifts(pose)
        near_mouth = grid.part(self._mouth_grid)
        layers = self._lips.solve(face.to_face(head[near_mouth]), pose.mouth)
        places = head.copy()
        chosen = np.where(layers.below[..., None] > 0, layers.lower, layers.upper)
        places[near_mouth] = face.to_frame(chosen)
        left, top, right, bottom = self.area
        for row, (columns, rows) in grid.bands(self._to_texture(places)):
            target = self._words[top + row : min(top + row + len(rows), bottom), left:right]
            index = self._index(columns, rows)[: len(target), : right - left].astype(np.intp)
            # "wrap" is the fastest mode; all places are within the texture.
            np.take(self._texture, index, out=target, mode="wrap")
        self._paint_mouth(pose.mouth, layers, head)
        for lids, gaze, eye_grid in zip(self._lids, self._gazes, self._eye_grids, strict=True):
            self._paint_eye(lids, gaze, eye_grid, pose, places[grid.part(eye_grid)])
        self._mix_background(self.area)

    def _mix_background(self, area: Area) -> None:
        if self._background is None:
            return
        left, top, right, bottom = area
        part = self.pixels[top:bottom, left:right]
        at = np.nonzero(part[..., 3] != 255)
        colours = part[at].astype(np.float32)
        colours += (self._background - colours) * (1 - colours[:, 3:] / 255)
        colours[:, 3] = 255
        part[at] = (colours + np.float32(0.5)).astype(np.uint8)

    def _within(self, box: tuple[float, float, float, float], outer: Grid) -> Grid:
        """Return a grid over a box, as far as it lies in another grid."""
        rows, columns = outer.slices
        clipped = max(box[0], columns.start), max(box[1], rows.start), min(box[2], columns.stop), min(box[3], rows.stop)
        return Grid.over(clipped, outer.step, *self._size)

    def _to_texture(self, places: Array) -> Array:
        """Return places in the frame as columns and rows of the texture, within it."""
        limits = np.array(self._size, np.float32) * self._scale - 1
        return np.asarray(np.moveaxis((places * self._scale).clip(0, limits), -1, 0), np.float32)

    def _index(self, columns: Array, rows: Array) -> NDArray[np.int32]:
        """Return the index in the texture of each pixel, given its column and row."""
        index = rows.astype(np.int32)
        index *= self._size[0] * self._scale
        index += columns.astype(np.int32)
        return index

    def _look_up(self, index: NDArray[np.int32]) -> Array:
        """Return the pixels of the texture as floats, so that they can be mixed."""
        return self._texture[index][..., None].view(np.uint8).astype(np.float32)

    # -- mouth --------------------------------------------------------------------------------------------------------

    def _paint_mouth(self, mouth: MouthShape, layers: Layers, head: Array) -> None:
        face, grid = self._face, self._lip_grid
        part = self._mouth_grid.part(grid)
        target = self.pixels[grid.slices]
        height, width = target.shape[:2]
        upper, lower = (
            self._look_up(self._index(*grid.interpolate(self._to_texture(face.to_frame(layer[part]))))[:height, :width])
            for layer in (layers.upper, layers.lower)
        )
        fields = [layers.above[part], layers.below[part], layers.open[part]]
        in_face = face.to_face(head[self._grid.part(grid)])
        above, below, opened, x, y = grid.interpolate(np.stack([*fields, in_face[..., 0], in_face[..., 1]]))[
            :, :height, :width
        ]
        lower_share = np.clip(below + np.float32(0.5), 0, 1)
        opening = self._lips.opening(mouth)
        if opening > _CLOSED:
            opened = np.clip(opened / np.float32(_CLOSED) - np.float32(0.3), 0, 1)
            share = np.clip(np.float32(0.5) - above, 0, 1) * opened
            at = np.nonzero((share > 0) & (lower_share < 1))
            places = np.stack([x[at], y[at]], -1)
            rgb = self._inside.colours(places, -above[at], -below[at], mouth, opening)
            upper[at] += (rgb_to_uvya(rgb) - upper[at]) * share[at][:, None]
        upper += (lower - upper) * lower_share[..., None]
        target[:] = (upper + np.float32(0.5)).astype(np.uint8)

    # -- eyes ---------------------------------------------------------------------------------------------------------

    def _paint_eye(self, lids: Lids, gaze: Gaze, grid: Grid, pose: FacePose, places: Array) -> None:
        target = self.pixels[grid.slices]
        height, width = target.shape[:2]
        in_face = np.moveaxis(grid.interpolate(np.moveaxis(self._face.to_face(places), -1, 0)), 0, -1)[:height, :width]
        # Both eyes move alike.
        reach = min(each.reach for each in self._gazes)
        shifts = gaze.shifts(in_face, reach * max(-_MAX_GAZE, min(_MAX_GAZE, pose.gaze_x)))
        moved = np.nonzero(shifts)
        sources = in_face[moved]
        sources[:, 0] -= shifts[moved]
        target[moved] = self._colours_at(sources)
        if pose.blink > LIDS_AT_REST:
            lid = lids.close(in_face, pose.blink)
            mixed = target + (rgb_to_uvya(lid.colours) - target) * lid.coverage[..., None]
            target[:] = (mixed + np.float32(0.5)).astype(np.uint8)

    def _colours_at(self, places: Array) -> Array:
        """Return the colours of the photograph at places in face coordinates."""
        return self._look_up(self._index(*self._to_texture(self._face.to_frame(places))))


class Silhouette:
    """The mask of a portrait: the person in white on black.

    Args:
        painter: Draws the portrait without background.
    """

    def __init__(self, painter: PortraitPainter) -> None:
        self._painter = painter
        self.pixels: Pixels = np.full_like(painter.pixels, 255)
        self.pixels[..., :2] = 128

    def paint(self, pose: FacePose) -> Area:
        """Draw a pose into ``pixels``; return the area that may have changed."""
        left, top, right, bottom = area = self._painter.paint(pose)
        alpha = self._painter.pixels[top:bottom, left:right, 3].astype(np.uint16)
        self.pixels[top:bottom, left:right, 2] = 16 + alpha * 219 // 255
        return area


def _frame_box(face: Geometry, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return the box in the frame around a box in face coordinates."""
    left, top, right, bottom = box
    corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]], np.float32)
    places = face.to_frame(corners)
    return float(places[:, 0].min()), float(places[:, 1].min()), float(places[:, 0].max()), float(places[:, 1].max())


def _with_margin(box: tuple[float, float, float, float], margin: float) -> tuple[float, float, float, float]:
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


# -- colours ----------------------------------------------------------------------------------------------------------

_TO_UVY = np.array([uvy(*primary) for primary in np.eye(3).tolist()], np.float32)
"""From red, green and blue to U, V and Y of BT.709, limited range."""
_UVY_BASE = np.array([128, 128, 16], np.float32)


def rgb_to_uvya(rgb: Array) -> Array:
    """Return colours as numbers in the order of ``colours.uvya``."""
    uvya = np.full((*rgb.shape[:-1], 4), 255, np.float32)
    uvya[..., :3] = rgb @ _TO_UVY + _UVY_BASE
    return uvya


def to_uvya(rgb: Pixels, alpha: Pixels | None = None) -> Pixels:
    """Return a picture in the colours of ``colours.uvya``."""
    result = np.empty((*rgb.shape[:2], 4), np.uint8)
    for start in range(0, len(rgb), _BAND_ROWS):
        band = rgb[start : start + _BAND_ROWS].astype(np.float32)
        result[start : start + _BAND_ROWS] = (rgb_to_uvya(band) + np.float32(0.5)).astype(np.uint8)
    if alpha is not None:
        result[..., 3] = alpha
    return result


def _enlarge(rgb: Pixels, alpha: Pixels | None, times: int) -> NDArray[np.uint32]:
    height, width = rgb.shape[:2]
    large = scale_picture(rgb, width * times, height * times, smooth=True)
    opacity = None if alpha is None else scale_picture(alpha, width * times, height * times, smooth=True)
    return to_uvya(large, opacity).view(np.uint32).ravel()
