"""The measures of a face in a video frame, and the lines of its lips.

Everything that moves is described in *face coordinates*: the origin is the middle of the mouth, x points to the right of the picture
along the line through the eyes, y down the face, and the unit is a pixel of the frame.

The landmarks give the edges of the lips with an error of a few pixels, which is too much: the lips would be cut beside the dark line between
them, or a strip of teeth would stick to them. So the edges are moved to the best line nearby in the picture (dynamic programming): the
darkest one between closed lips, or else the line where the red of the lips begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.portrait.pictures import sample_bilinear

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from a2v.engine.portrait.pictures import Array


INNER_UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))
BROWS = ((46, 53, 52, 65, 55, 107, 66, 105, 63, 70), (276, 283, 282, 295, 285, 336, 296, 334, 293, 300))
_LOWER_EDGES_OF_BROWS = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))
_NOSE_BASE, _CHIN, _OUTER_EYES, _MOUTH_CORNERS = 2, 152, (33, 263), (78, 308)
_JAW = (172, 397)

TABLE_SIZE = 257
TABLE_REACH = 2.0
"""Tables over x reach this many half widths of the mouth to both sides."""
_SEARCH, _STEPS = 0.14, 33
"""How far from the landmarks edges are searched for, in half widths of the mouth, and in how many steps."""
OPEN_GAP = 0.16
"""Lips that are further apart than this, in half widths of the mouth, show the inside of the mouth."""


class Eye(NamedTuple):
    """An eye in face coordinates relative to ``middle``, as tables over x."""

    x: Array
    upper: Array
    lower: Array
    brow: Array
    """The lower edge of the brow."""

    @property
    def opening(self) -> float:
        """The largest distance of the lids."""
        return float((self.lower - self.upper).max())

    @property
    def width(self) -> float:
        """The distance of the corners."""
        return float(self.x[-1] - self.x[0])


class Geometry(NamedTuple):
    """The measures of a face in a frame."""

    points: Array
    """The landmarks in pixels of the frame, 468 × 3."""
    middle: Array
    """The origin of face coordinates in pixels of the frame."""
    across: Array
    """The unit vectors of face coordinates in the frame."""
    down: Array
    eye_distance: float
    """Between the outer corners of the eyes."""
    mouth: float
    """Half of the width of the mouth between the corners of the inner lips."""
    chin: float
    """The y of the chin."""
    nose: float
    """The y of the base of the nose, negative."""
    jaw: float
    """Half of the width of the jaw at the height of the mouth."""
    upper: Array
    """The lower edge of the upper lip: a table of y over x."""
    lower: Array
    """The upper edge of the lower lip."""
    eyes: tuple[Eye, Eye]

    @property
    def gap(self) -> float:
        """How far the lips are apart in the middle, in half widths of the mouth; 0 if they touch."""
        return float(self.lower[TABLE_SIZE // 2] - self.upper[TABLE_SIZE // 2]) / self.mouth

    def to_face(self, places: Array) -> Array:
        """Return places in the frame in face coordinates."""
        offsets = places - self.middle
        return np.stack([offsets @ self.across, offsets @ self.down], -1).astype(np.float32)

    def to_frame(self, places: Array) -> Array:
        """Return face coordinates as places in the frame."""
        return np.asarray(self.middle + places[..., :1] * self.across + places[..., 1:2] * self.down, np.float32)


def table_places(mouth: float) -> Array:
    """Return the x of each entry of a table."""
    return np.linspace(-TABLE_REACH * mouth, TABLE_REACH * mouth, TABLE_SIZE).astype(np.float32)


def measure(points: Array, rgb: NDArray[np.uint8]) -> Geometry:
    """Measure a face.

    Args:
        points: The landmarks in pixels of the frame.
        rgb: The frame, height × width × 3.
    """
    flat = points[:, :2]
    across = flat[_OUTER_EYES[1]] - flat[_OUTER_EYES[0]]
    eye_distance = float(np.linalg.norm(across))
    across = across / eye_distance
    down = np.array([-across[1], across[0]], np.float32)
    middle = flat[list(_MOUTH_CORNERS)].mean(0)
    mouth = float(np.linalg.norm(flat[_MOUTH_CORNERS[1]] - flat[_MOUTH_CORNERS[0]]) / 2)

    def line(numbers: tuple[int, ...]) -> tuple[Array, Array]:
        offsets = flat[list(numbers)] - middle
        return offsets @ across, offsets @ down

    upper, lower = (_lip_table(*line(numbers), mouth) for numbers in (INNER_UPPER_LIP, INNER_LOWER_LIP))
    bare = Geometry(
        points=points,
        middle=middle,
        across=across,
        down=down,
        eye_distance=eye_distance,
        mouth=mouth,
        chin=float((flat[_CHIN] - middle) @ down),
        nose=float((flat[_NOSE_BASE] - middle) @ down),
        jaw=float(np.linalg.norm(flat[_JAW[1]] - flat[_JAW[0]]) / 2),
        upper=upper,
        lower=np.maximum(upper, lower),
        eyes=(_measure_eye(0, line), _measure_eye(1, line)),
    )
    if bare.gap < OPEN_GAP:
        guess = (bare.upper + bare.lower) / 2
        seam = _move_to_edge(bare, guess, _darkness(bare, guess, rgb), caution=0.35)
        return bare._replace(upper=seam, lower=seam)
    upper = _move_to_edge(bare, bare.upper, _lip_edge(bare, bare.upper, rgb, side=-1), caution=0.5)
    lower = _move_to_edge(bare, bare.lower, _lip_edge(bare, bare.lower, rgb, side=1), caution=0.6)
    inset = 0.018 * mouth * np.clip(1 - (table_places(mouth) / mouth) ** 4, 0, 1)
    upper, lower = upper - inset, lower + inset
    return bare._replace(upper=np.minimum(upper, lower).astype(np.float32), lower=lower.astype(np.float32))


def _lip_table(x: Array, y: Array, mouth: float) -> Array:
    """Return a smooth table through the points of a lip; beyond the corners it continues horizontally."""
    places = table_places(mouth)
    # A polynomial of degree 6 follows every lip, and smooths the errors of the landmarks.
    fitted = np.polynomial.Polynomial.fit(x, y, 6)(places.clip(x[0], x[-1]))
    ends = np.interp(places, (x[0], x[-1]), (y[0], y[-1]))
    # The corners themselves are exact, because both lips meet there.
    inside = (np.abs(places) < mouth).astype(np.float32)
    correction = np.interp(places, (x[0], x[-1]), (y[0] - fitted[0], y[-1] - fitted[-1]))
    return np.asarray(inside * (fitted + correction) + (1 - inside) * ends, np.float32)


def _measure_eye(side: int, line: Callable[[tuple[int, ...]], tuple[Array, Array]]) -> Eye:
    ux, uy = line(UPPER_LIDS[side])
    lx, ly = line(LOWER_LIDS[side])
    bx, by = line(_LOWER_EDGES_OF_BROWS[side])
    x = np.linspace(ux[0], ux[-1], 65).astype(np.float32)
    order = np.argsort(bx)
    return Eye(
        x,
        np.interp(x, ux, uy).astype(np.float32),
        np.interp(x, lx, ly).astype(np.float32),
        np.interp(x, bx[order], by[order]).astype(np.float32),
    )


def _grid_along(face: Geometry, line: Array) -> tuple[Array, Array, Array]:
    """Return the x of columns across the mouth, the offsets from a line, and the places in the frame."""
    places = table_places(face.mouth)
    columns = places[np.abs(places) <= face.mouth][::2]
    offsets = np.linspace(-_SEARCH * face.mouth, _SEARCH * face.mouth, _STEPS).astype(np.float32)
    expected = np.interp(columns, places, line).astype(np.float32)
    grid = np.stack(np.broadcast_arrays(columns[:, None], expected[:, None] + offsets), -1)
    return columns, offsets, face.to_frame(grid.astype(np.float32))


def _smoothed(values: Array) -> Array:
    """Return the moving average over five neighbouring columns."""
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    return np.asarray(sum(padded[i : i + len(values)] for i in range(5)) / np.float32(5), np.float32)


def _darkness(face: Geometry, line: Array, rgb: NDArray[np.uint8]) -> Array:
    """Return a score for the places near the line between closed lips: the darker, the higher."""
    _, _, spots = _grid_along(face, line)
    luma = _smoothed(sample_bilinear(rgb, spots - np.float32(0.5)).mean(-1))
    return np.asarray(-luma / max(12.0, float(np.percentile(luma, 90) - np.percentile(luma, 10))), np.float32)


def _lip_edge(face: Geometry, line: Array, rgb: NDArray[np.uint8], side: int) -> Array:
    """Return a score for the places near the edge of a lip: high if the lip's side is red, and the other side is teeth or dark."""
    _, _, spots = _grid_along(face, line)
    colours = sample_bilinear(rgb, spots - np.float32(0.5))
    luma = _smoothed(colours.mean(-1))
    redness = _smoothed(colours[..., 0] - colours[..., 1:].mean(-1))

    def step(values: Array) -> Array:
        """Return the mean of three places below minus the mean of three places above."""
        total = np.cumsum(np.pad(values, ((0, 0), (4, 3)), mode="edge"), axis=1)
        return np.asarray((total[:, 7:] - 2 * total[:, 4:-3] + total[:, 1:-6])[:, : values.shape[1]] / 3, np.float32)

    reddens, darkens = side * step(redness), np.abs(step(luma))
    score = 1.0 * reddens + 0.5 * darkens
    return np.asarray(1.2 * score / max(8.0, float(np.percentile(score, 95))), np.float32)


def _move_to_edge(face: Geometry, line: Array, score: Array, caution: float) -> Array:
    """Move a line to the smooth path with the highest score near it (dynamic programming).

    Args:
        face: The measures of the face.
        line: The line, as a table.
        score: Columns × offsets.
        caution: The cost of the largest offset, in the unit of the score.
    """
    columns, offsets, _ = _grid_along(face, line)
    path = best_path(caution * (offsets / offsets[-1]) ** 2 - score, 0.05)
    # Towards the corners the best path may follow a wrinkle of the cheek.
    shift = offsets[path] * np.clip((1 - np.abs(columns) / face.mouth) * 6, 0, 1)
    window = np.hanning(9)[1:-1]
    shift = np.convolve(np.pad(shift, 3, mode="edge"), window / window.sum(), "valid")
    return (line + np.interp(table_places(face.mouth), columns, shift, left=0, right=0)).astype(np.float32)


def best_path(cost: Array, bend: float) -> NDArray[np.intp]:
    """Return the row of each column on the path with the lowest cost.

    Args:
        cost: Columns × rows.
        bend: The cost of moving by one row from a column to the next; it grows with the square of the number of rows.
    """
    columns, rows = cost.shape
    steps = np.abs(np.arange(rows)[:, None] - np.arange(rows)) ** 2 * bend
    best, came = cost.copy(), np.zeros(cost.shape, np.intp)
    for i in range(1, columns):
        total = best[i - 1][None, :] + steps
        came[i] = total.argmin(1)
        best[i] += total.min(1)
    path = np.empty(columns, np.intp)
    path[-1] = best[-1].argmin()
    for i in range(columns - 1, 0, -1):
        path[i - 1] = came[i, path[i]]
    return path
