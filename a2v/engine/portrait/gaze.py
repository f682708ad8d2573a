"""Glances: the iris moves sideways within the opening of the eye.

All of the iris is shifted by the same amount. The shift fades across the white of the eye towards its corners, and in a thin strip along
the lids. So the iris keeps its shape, and lids and lashes stay in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.portrait.head import smoothstep
from a2v.engine.portrait.pictures import sample_bilinear

if TYPE_CHECKING:
    from a2v.engine.portrait.geometry import Eye, Geometry
    from a2v.engine.portrait.pictures import Array, Pixels

_MAX_SHIFT = 0.07
"""The largest shift, relative to the width of the eye."""
_IRIS_RADIUS = 0.22
"""Half the width of the part that keeps its shape, relative to the width of the eye."""
_MIN_OPENING, _MAX_OPENING, _MIN_CONTRAST = 0.14, 0.38, 0.18
"""Eyes whose opening, relative to their width, is outside of this range, or whose contrast is lower, do not move: the iris of a wide cartoon
eye would tear."""


class Gaze:
    """The gaze of one eye.

    Args:
        face: The measures of the face.
        eye: The measures of the eye.
        rgb: The frame, height × width × 3.
    """

    def __init__(self, face: Geometry, eye: Eye, rgb: Pixels) -> None:
        self._eye = eye
        share = np.linspace(0.25, 0.75, 7, dtype=np.float32)[:, None]
        places = np.stack([np.broadcast_to(eye.x, (7, len(eye.x))), eye.upper + (eye.lower - eye.upper) * share], -1)
        luma = sample_bilinear(rgb, face.to_frame(places.astype(np.float32)) - np.float32(0.5)).mean((0, 2))[6:-6]
        dark, bright = np.percentile(luma, (20, 80))
        darkness = np.clip((dark + bright) / 2 - luma, 0, None) + 1e-3
        self._iris = float((eye.x[6:-6] * darkness).sum() / darkness.sum())
        self._rooms = self._iris - float(eye.x[0]), float(eye.x[-1]) - self._iris
        self._radius = _IRIS_RADIUS * eye.width
        # A shift that fades over too short a distance would fold the picture.
        self._reach = max(0.0, min(_MAX_SHIFT * eye.width, 0.4 * (min(self._rooms) - self._radius)))
        # If the iris continues below the landmarks of the lower lid, the eye is larger than a human eye, as in cartoons.
        below = np.stack([eye.x, eye.lower + np.float32(0.15 * eye.opening)], -1)[
            np.abs(eye.x - self._iris) < 0.5 * self._radius
        ]
        skin = float(sample_bilinear(rgb, face.to_frame(below) - np.float32(0.5)).mean())
        if (
            not _MIN_OPENING < eye.opening / eye.width < _MAX_OPENING
            or bright - dark < _MIN_CONTRAST * bright
            or skin < 0.7 * dark + 0.3 * bright
        ):
            self._reach = 0.0

    @property
    def reach(self) -> float:
        """The largest shift in pixels; 0 if the eye must not move."""
        return self._reach

    def shifts(self, places: Array, shift: float) -> Array:
        """Return how far the picture moves to the right at some places, in pixels.

        Args:
            places: In face coordinates.
            shift: The shift of the iris.
        """
        eye = self._eye
        x, y = places[..., 0], places[..., 1]
        at = ((x - eye.x[0]) * ((len(eye.x) - 1) / eye.width) + 0.5).clip(0, len(eye.x) - 1).astype(np.intp)
        from_iris = x - np.float32(self._iris)
        room = np.where(from_iris < 0, *map(np.float32, self._rooms))
        across = 1 - smoothstep((np.abs(from_iris) - self._radius) / np.maximum(room - self._radius, 1e-3))
        inside = smoothstep(np.minimum(y - eye.upper[at], eye.lower[at] - y) / np.float32(0.2 * eye.opening))
        return np.asarray(across * inside * np.float32(shift), np.float32)
