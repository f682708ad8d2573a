"""Blinks: a lid of skin is drawn down over the eye, with lashes at its edge.

The landmarks give the outline of an eye with an error of a few pixels, more for painted or wide cartoon eyes. So the outline is searched for
near the landmarks: it is the line where the picture stops looking like the skin above and below the eye. Lashes and a painted outline
belong to the eye.

At its top, the lid has the colour of the skin between brow and eye; towards its edge, the colour of the skin below the eye is mixed in. Both
colours are medians of each column, smoothed across the eye. Stretching the pixels of the picture instead would draw lashes, folds and
outlines out into stripes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.portrait.geometry import best_path
from a2v.engine.portrait.head import smoothstep
from a2v.engine.portrait.pictures import sample_bilinear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from a2v.engine.portrait.geometry import Eye, Geometry
    from a2v.engine.portrait.pictures import Array, Pixels

    Choice = NDArray[np.bool_]

LIDS_AT_REST = 0.03
"""A blink of less than this is not drawn."""
_CORNER_SEARCH, _CORNER_MARGIN = 0.4, 0.02
"""How far beyond the landmarks the corners of an eye are searched for, in widths of the eye; and how far a lid extends beyond the corners,
relative to the width of the searched area."""
_COLUMNS, _ROWS = 81, 96
_SEARCH = 0.5
"""How far from the landmarks the outline is searched for, in openings of the eye."""
_CAUTION = 0.3
"""The cost of the largest distance from the landmarks, in the unit of the score of an outline."""
_MIN_OPENING = 0.12
"""The smallest opening of an eye, relative to its width; narrower eyes are treated as if they had it."""
_MAX_WHITE = 0.2
"""The largest share of the skin below a lid that may be as white as an eye."""


class Lid(NamedTuple):
    """What a lid shows in the part of a frame around an eye."""

    colours: Array
    """Red, green and blue of each place, 0 to 255."""
    coverage: Array
    """How much of each place the lid covers, 0 to 1."""


class Lids:
    """The lid of one eye.

    Args:
        face: The measures of the face.
        eye: The measures of the eye.
        rgb: The frame, height × width × 3.
    """

    def __init__(self, face: Geometry, eye: Eye, rgb: Pixels) -> None:
        self._line = max(0.7, 0.011 * face.eye_distance)
        opening, beyond = max(eye.opening, _MIN_OPENING * eye.width), _CORNER_SEARCH * eye.width
        x = np.linspace(eye.x[0] - beyond, eye.x[-1] + beyond, _COLUMNS).astype(np.float32)
        upper, lower, brow = (np.interp(x, eye.x, line) for line in (eye.upper, eye.lower, eye.brow))
        y = np.linspace(upper.min() - 1.2 * opening, lower.max() + 1.1 * opening, _ROWS).astype(np.float32)
        places = np.stack(np.broadcast_arrays(x[:, None], y), -1)
        picture = sample_bilinear(rgb, face.to_frame(places) - np.float32(0.5))
        fold = np.clip(brow + 0.3 * opening, upper - 0.95 * opening, upper - 0.6 * opening)
        above = _skin(picture, (y > fold[:, None]) & (y < upper[:, None] - 0.4 * opening))
        below = _skin(picture, (y > lower[:, None] + 0.45 * opening) & (y < lower[:, None] + 0.95 * opening))
        middle = ((y - upper[:, None]) / np.maximum(lower - upper, 0.2 * opening)[:, None]).clip(0, 1)[..., None]
        skin = above[:, None] * (1 - middle) + below[:, None] * middle
        unlike = np.abs(picture - skin).mean(-1) / np.maximum(skin.mean(-1), 24)
        # Clipped: all that is clearly not skin counts the same, or else the edge of the pupil would be found.
        unlike = np.minimum(unlike / 0.22, 1)
        first, last = _corners(eye, x, np.abs(y - upper[:, None]) < 0.12 * opening, unlike)
        eye_columns = slice(first, last + 1)
        self._x, self._above, self._below = x[eye_columns], above[eye_columns], below[eye_columns]
        near_lines = unlike[eye_columns]
        upper_line = _outline(_stretched(eye, eye.upper, self._x), near_lines, y, opening, side=1, degree=4)
        lower_line = _outline(_stretched(eye, eye.lower, self._x), near_lines, y, opening, side=-1, degree=2)
        lower_line = np.maximum(lower_line, upper_line)
        place = np.linspace(0, 1, len(self._x))
        # The lids meet in the corners.
        ends = np.sqrt(np.clip(1 - np.abs(2 * place - 1) ** 5, 0, 1))
        between = (upper_line + 2 * lower_line) / 3
        self._upper, self._lower = (
            (between + (line - between) * ends).astype(np.float32) for line in (upper_line, lower_line)
        )
        self._skin = (np.maximum(upper_line - fold[eye_columns], 0.3 * opening) * ends + 1e-3).astype(np.float32)
        under = (y > lower_line[:, None] + self._line) & (y < lower_line[:, None] + 0.4 * opening)
        white = _is_white(picture[eye_columns], below[eye_columns, None])
        self.covers: bool = bool(white[under].mean() < _MAX_WHITE)
        """Whether the closed lid covers all the white of the eye; otherwise the eye must not blink."""
        # Lashes are thickest towards the outer corner.
        outer = place if eye.x.mean() > 0 else 1 - place
        self._thickness = (self._line * (0.5 + 0.9 * smoothstep(outer / 0.7))).astype(np.float32)
        shown = picture[eye_columns][np.abs(y - upper_line[:, None] - 0.15 * opening) < 0.15 * opening]
        brightness = shown.mean(-1)
        self._lashes = shown[brightness <= np.percentile(brightness, 30)].mean(0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The part that a blink changes, in face coordinates."""
        margin = 2 + 2 * self._line
        return (
            float(self._x[0]),
            float((self._upper - self._skin).min()) - margin,
            float(self._x[-1]),
            float(self._lower.max()) + margin,
        )

    def close(self, places: Array, shut: float) -> Lid:
        """Return what a lid shows at some places.

        Args:
            places: In face coordinates.
            shut: How far the eye is closed, 0 to 1.
        """
        x, y = places[..., 0], places[..., 1]
        step = (len(self._x) - 1) / (self._x[-1] - self._x[0])
        at = ((x - self._x[0]) * step + 0.5).clip(0, len(self._x) - 1).astype(np.intp)
        upper, skin = self._upper[at], self._skin[at]
        height = self._lower[at] - upper
        edge = upper + height * min(1.0, shut)
        there = smoothstep(height / (3 * self._line))
        share = ((y - upper + skin) / np.maximum(edge - upper + skin, 1e-3)).clip(0, 1)
        # A lid that is down is no longer in the shadow of the brow, but in the light of the cheek.
        lit = (0.1 + 0.2 * min(1.0, shut) + 0.4 * share)[..., None]
        colours = self._above[at] + (self._below[at] - self._above[at]) * lit
        # A lid is round: it is brightest in its middle.
        colours = colours * (0.97 + 0.05 * np.sin(np.pi * share) - 0.05 * share**4)[..., None]
        begun = min(1.0, shut / 0.35)
        lashes = there * begun * 0.8 * np.exp(-(((y - edge) / self._thickness[at]) ** 2))
        colours += (self._lashes - colours) * lashes[..., None]
        over = np.clip(edge - y + 0.5, 0, 1) * there
        upwards = smoothstep((y - upper + skin) / skin)
        coverage = np.where(y < upper, upwards * begun, 1) * over
        coverage = np.maximum(coverage, lashes)
        return Lid(colours.astype(np.float32), coverage.astype(np.float32))


def _skin(picture: Array, chosen: Choice) -> Array:
    """Return the colour of the skin in each column: the median of its chosen places, smooth across the columns."""
    usual = np.median(picture[chosen], axis=0)
    columns = [
        np.median(column[places], axis=0) if places.any() else usual
        for column, places in zip(picture, chosen, strict=True)
    ]
    window = np.hanning(2 * (_COLUMNS // 5) + 1)
    padded = np.pad(np.array(columns), ((len(window) // 2,) * 2, (0, 0)), mode="edge")
    smooth = [np.convolve(padded[:, i], window / window.sum(), "valid") for i in range(3)]
    return np.stack(smooth, -1).astype(np.float32)


def _is_white(colours: Array, skin: Array) -> Choice:
    """Return which colours are brighter and less saturated than skin, or much brighter."""
    brighter = colours.mean(-1) / skin.mean(-1).clip(24)
    greyness, greyness_of_skin = (colour.min(-1) / colour.max(-1).clip(1) for colour in (colours, skin))
    return np.asarray((brighter > 1.1) & (greyness > greyness_of_skin + 0.12) | (brighter > 1.6), bool)


def _corners(eye: Eye, x: Array, near: Choice, unlike: Array) -> tuple[int, int]:
    """Return the columns of the corners of an eye, which may lie beyond the landmarks.

    Args:
        eye: The measures of the eye.
        x: The columns.
        near: Which places of each column are at the height of the corner.
        unlike: How unlike skin each place is.
    """
    corners = []
    for side, corner in ((-1, eye.x[0]), (1, eye.x[-1])):
        start = end = int(np.abs(x - corner).argmin())
        while 0 < end < len(x) - 1 and unlike[end, near[end]].mean() > 0.6:
            end += side
        if end in (0, len(x) - 1):
            end = start  # hair, or a shadow
        corners.append(end)
    margin = round(_CORNER_MARGIN * len(x))
    return max(0, corners[0] - margin), min(len(x) - 1, corners[1] + margin)


def _stretched(eye: Eye, line: Array, x: Array) -> Array:
    """Stretch a line of the landmarks to the corners that were found, and its height by the same factor."""
    place = np.linspace(0, 1, len(x))
    shape = np.interp(place, (eye.x - eye.x[0]) / eye.width, line)
    corners = line[0] + (line[-1] - line[0]) * place
    return np.asarray(corners + (shape - corners) * (x[-1] - x[0]) / eye.width, np.float32)


def _outline(line: Array, unlike: Array, y: Array, opening: float, *, side: int, degree: int) -> Array:
    """Move a line of the landmarks to the edge of the eye nearby; ``side``: 1 if the eye is below the line, -1 if it is above."""
    offsets = np.linspace(-_SEARCH, _SEARCH, 41, dtype=np.float32) * np.float32(opening)
    reach = side * 0.12 * opening * np.array([[0.35], [0.7], [1.0]], np.float32)
    scores = []
    for column, middle in zip(unlike, line, strict=True):
        inside, outside = (np.interp(middle + offsets + sign * reach, y, column) for sign in (1, -1))
        scores.append((inside - outside).mean(0))
    path = best_path(_CAUTION * (offsets / offsets[-1]) ** 2 - np.array(scores), 0.02)
    # A lid is a simple curve; where the path follows a lash, a crease or a highlight, it is not.
    place, found = np.linspace(-1, 1, len(line)), line + offsets[path]
    curve, certain = found, np.clip((1 - np.abs(place)) * 10, 0.1, 1)
    for _ in range(4):
        weight = certain / (1 + ((found - curve) / (0.08 * opening)) ** 2)
        curve = np.polynomial.Polynomial.fit(place, found, degree, w=weight)(place)
    return np.asarray(curve, np.float32)
