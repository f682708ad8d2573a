"""Blinks: the skin of the upper lid is drawn down over the eye.

In each column of an eye, the skin between brow and lashes is stretched down to the lid's edge. The lashes themselves are moved and not
stretched, because stretched lashes would look like eye shadow. Below the edge, the eye stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.portrait.head import smoothstep

if TYPE_CHECKING:
    from a2v.engine.portrait.geometry import Eye, Geometry
    from a2v.engine.portrait.pictures import Array

LIDS_AT_REST = 0.03
"""A blink of less than this is not drawn."""


class Lid(NamedTuple):
    """What appears in the part of a frame around an eye."""

    source: Array
    """Where the content of each place comes from, in face coordinates."""
    coverage: Array
    """How much of each place the lid covers, 0 to 1."""


class Lids:
    """The lid of one eye."""

    def __init__(self, face: Geometry, eye: Eye) -> None:
        self._eye = eye
        self._width = eye.width
        self._lashes = 0.022 * face.eye_distance
        middle = len(eye.x) // 2
        skin = float(eye.upper[middle] - eye.brow[middle])
        self._skin = eye.upper - np.maximum(eye.brow, eye.upper - 0.85 * skin)
        place = (eye.x - eye.x[0]) / self._width
        self._ends = smoothstep(np.minimum(place, 1 - place) / 0.2)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The part that a blink changes, in face coordinates."""
        eye = self._eye
        return (
            float(eye.x[0]),
            float((eye.upper - self._skin).min()) - 2,
            float(eye.x[-1]),
            float(eye.lower.max()) + 2 * self._lashes + 2,
        )

    def close(self, places: Array, shut: float) -> Lid:
        """Return what appears at some places.

        Args:
            places: In face coordinates.
            shut: How far the eye is closed, 0 to 1.
        """
        eye = self._eye
        x, y = places[..., 0], places[..., 1]
        at = ((x - eye.x[0]) * ((len(eye.x) - 1) / self._width) + 0.5).clip(0, len(eye.x) - 1).astype(np.intp)
        drop = ((eye.lower + 0.35 * self._lashes * self._ends - eye.upper) * min(1.0, shut))[at]
        upper, skin = eye.upper[at], self._skin[at]
        lashes = self._lashes * self._ends[at]
        edge = upper + drop + lashes
        # The skin is stretched from the fold to where the lashes begin; then everything is moved.
        fold = upper - skin
        stretched = fold + (y - fold) * skin / np.maximum(skin + drop, 1e-3)
        begin = upper + drop
        source = np.where(y < fold, y, np.where(y < begin, stretched, y - drop))
        coverage = np.clip(edge - y + 0.5, 0, 1) * (drop > 0.01)
        return Lid(np.stack([x, source], -1).astype(np.float32), coverage.astype(np.float32))
