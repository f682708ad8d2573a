"""The motion of the lips, the jaw and the cheeks.

The picture is cut along the lips into two layers that move independently: *upper* ends at the edge of the upper lip, *lower* begins at the
edge of the lower lip. Beyond the corners of the mouth both move alike, so no cut is visible there. The inside of the mouth (``inside``)
appears between the edges.

For a ``MouthShape``, the shift of each edge is a function of x. The lower lip moves like the upper one, plus the opening of the mouth, minus
the opening that the picture already has. So the lips meet exactly when the mouth is closed, even if the picture shows a smile. Away from
the edges, the shifts fade towards the nose, and blend into the shift of the jaw towards the chin.

Drawing needs the inverse mapping: for each place in the frame, the place in the picture that appears there. The horizontal shifts are
defined at places in the frame, so x is known at once, and with it the shifts of the edges. y is found by fixed-point iteration:
y = y in the frame - shift(y).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.portrait.geometry import OPEN_GAP, TABLE_REACH, TABLE_SIZE, table_places
from a2v.engine.portrait.head import smoothstep

if TYPE_CHECKING:
    from a2v.engine.face_pose import MouthShape
    from a2v.engine.portrait.geometry import Geometry
    from a2v.engine.portrait.pictures import Array

_ITERATIONS = 3
_SHUT = 0.04
"""The lips touch below this ``MouthShape.open``."""
_MAX_OPENING = 0.62
"""The opening for a ``MouthShape.open`` of 1, in half widths of the mouth."""


class Layers(NamedTuple):
    """Both layers at the same places of a frame."""

    upper: Array
    """The place in the picture that the upper layer shows, in face coordinates."""
    lower: Array
    """The place in the picture that the lower layer shows."""
    above: Array
    """How far that place is above the edge of the upper lip, in pixels; negative below it."""
    below: Array
    """How far that place is below the edge of the lower lip."""
    open: Array
    """The opening of the mouth at the places, in pixels."""


class _Motion(NamedTuple):
    """A mouth shape as shifts."""

    edges: Array
    """The shifts of the edges of the upper and the lower lip in pixels: tables over x."""
    opening: Array
    """The opening in pixels: a table over x."""
    chin: float
    """The shift of the chin in pixels."""
    narrowed: float
    """How much the mouth becomes narrower: the place in the picture is this much further from the middle."""
    swell: tuple[float, float]
    """How much the upper and the lower lip become thicker: their shift per pixel of distance from the edge."""
    smile: float
    """The upward shift of the corners of the mouth in pixels."""


class Lips:
    """The lips of one face."""

    def __init__(self, face: Geometry) -> None:
        self._face = face
        x = table_places(face.mouth) / np.float32(face.mouth)
        wide = np.abs(x)
        inner = np.clip(1 - wide, 0, 1)
        self._gap = (face.lower - face.upper) * (inner > 0)
        self._almond = np.clip(1 - wide**2.3, 0, None)
        self._wide = wide
        self._middle = np.clip(1 - wide**2.5, 0, None)
        # Beyond the ends of the tables, their last values would apply up to the edge of the frame, so these are zero.
        ends = smoothstep((TABLE_REACH - wide) / 0.7)
        self._corners = ends * np.where(wide < 1, wide**3, np.exp(-(((wide - 1) / 0.9) ** 2)))
        self._near = ends * np.exp(-((x / 0.95) ** 2))
        self._near_corners = ends * np.exp(-(((wide - 1.08) / 0.5) ** 2))
        self._edges = np.stack([face.upper, face.lower])
        # How far the edge of the upper lip is from a level line through its middle.
        middle = face.upper[TABLE_SIZE // 2]
        raised = middle - np.interp(np.sign(x), x, face.upper)
        bent = np.where(wide < 1, middle - face.upper, raised * np.exp(-(((wide - 1) / 0.8) ** 2)))
        self._to_level = ends * np.convolve(np.pad(bent, 4, mode="edge"), np.full(9, 1 / 9), "valid")
        # How broad the smile in the picture is, 0 to 1. Rounding it to a small ring would pull the folds beside its corners into the lips.
        self._smiling = min(1.0, max(0.0, face.gap - OPEN_GAP) / 0.12)

    @property
    def reach(self) -> tuple[float, float, float, float]:
        """The part that moves with the mouth, in face coordinates: left, top, right and bottom."""
        face = self._face
        side = max(1.35 * face.jaw, TABLE_REACH * face.mouth)
        return -side, 1.05 * face.nose, side, 2.6 * face.chin

    def opening(self, mouth: MouthShape) -> float:
        """Return the opening in the middle of the mouth, in pixels."""
        if mouth.open < _SHUT:
            return 0.0
        opened = (mouth.open - _SHUT) / (1 - _SHUT)
        return (
            self._face.mouth
            * (_MAX_OPENING + 0.35 * self._face.gap)
            * opened
            * (1 - 0.25 * mouth.tuck + 0.3 * mouth.round)
        )

    def jaw_drop(self, mouth: MouthShape) -> float:
        """Return how far the chin is lowered relative to the picture, in pixels; negative if it is raised."""
        more = self.opening(mouth) - self._face.gap * self._face.mouth
        return 0.85 * more if more > 0 else 0.3 * more

    def _profile(self, rounded: float) -> Array:
        """Return the opening over x: an almond, or a ring in the middle, beside which the lips touch."""
        ring = np.clip(1 - (self._wide / np.float32(1 - 0.45 * rounded)) ** 2.8, 0, None) ** np.float32(0.75)
        return np.asarray(self._almond + (ring - self._almond) * rounded, np.float32)

    def _motion(self, mouth: MouthShape) -> _Motion:
        face = self._face
        opening = self.opening(mouth)
        gap = face.gap * face.mouth
        rounded = min(1.0, mouth.round)
        profile = self._profile(rounded * (1 - 0.45 * self._smiling))
        raised = 0.17 * opening + 0.012 * face.eye_distance * mouth.round + 0.10 * face.mouth * mouth.tuck
        # The upper lip comes down over the teeth of a smile.
        lowered = 0.22 * max(0.0, gap - opening) + 0.4 * self._smiling * rounded * gap
        gap_shape = self._gap / gap if gap > 0 else self._gap
        upper = 0.13 * opening * self._corners - raised * self._middle + lowered * gap_shape
        # A ring is as round above as below. Rounded lips smile less.
        upper = upper - 0.38 * (1 - self._smiling) * rounded * rounded * opening * profile
        if face.gap >= OPEN_GAP:
            # Little more can be seen of the picture's teeth than it shows.
            upper = np.maximum(upper, np.float32(-0.045 * face.mouth))
        upper = upper + (0.9 - 0.35 * self._smiling) * rounded * self._to_level
        narrowed = (0.31 - 0.13 * self._smiling) * rounded + 0.2 * (1.0 - min(1.1, mouth.wide)) * (1 - rounded)
        swell = 0.26 * mouth.round - 0.22 * mouth.press
        return _Motion(
            edges=np.stack([upper, upper + opening * profile - self._gap]).astype(np.float32),
            opening=(opening * profile).astype(np.float32),
            chin=self.jaw_drop(mouth),
            narrowed=1 / (1 - narrowed) - 1,
            swell=(swell, swell - 0.35 * mouth.tuck),
            smile=(mouth.smile - 0.6) * 0.020 * face.eye_distance,
        )

    def solve(self, places: Array, mouth: MouthShape) -> Layers:
        """Return what appears at some places.

        Args:
            places: In face coordinates, after the motion of the head.
            mouth: The shape of the mouth.
        """
        face, motion = self._face, self._motion(mouth)
        x, y = places[..., 0], places[..., 1]
        scale = np.where(y < 0, np.float32(1 / (0.62 * -face.nose)), np.float32(1 / (0.75 * face.chin)))
        height = np.exp(-((y * scale) ** 2))
        x = x * (1 + np.float32(motion.narrowed) * height * np.exp(-((x * np.float32(0.8 / face.mouth)) ** 4)))
        share = (TABLE_SIZE - 1) / (2 * TABLE_REACH * face.mouth)
        at = (x * np.float32(share) + np.float32(TABLE_SIZE / 2)).clip(0, TABLE_SIZE - 1).astype(np.intp)
        side = 1 - smoothstep((np.abs(x) - np.float32(0.25 * face.jaw)) / np.float32(0.9 * face.jaw))
        neck = 1 - smoothstep((y - np.float32(face.chin)) / np.float32(1.45 * face.chin))
        chin = np.float32(motion.chin) * side * neck
        start = y + np.float32(motion.smile) * self._near_corners[at] * height
        near, edges, shifts = self._near[at], self._edges[:, at], motion.edges[:, at]
        upper, lower = start, start
        up, down = np.float32(-1 / (0.95 * -face.nose)), np.float32(1.45 / face.chin)
        swell = [np.float32(amount) * near for amount in motion.swell]
        for _ in range(_ITERATIONS):
            from_edge = upper - edges[0]
            upper = start - (shifts[0] + self._swelling(from_edge, swell[0])) * (1 - smoothstep(from_edge * up))
            from_edge = lower - edges[1]
            to_chin = smoothstep(from_edge * down)
            lower = start - shifts[1] - (chin - shifts[1]) * to_chin - self._swelling(from_edge, swell[1])
        return Layers(
            np.stack([x, upper], -1),
            np.stack([x, lower], -1),
            edges[0] - upper,
            lower - edges[1],
            motion.opening[at],
        )

    def _swelling(self, from_edge: Array, amount: Array) -> Array:
        """Return the shift of lips that become thicker: away from their edge, and nothing far from it."""
        share = from_edge * np.float32(1 / (0.5 * self._face.chin))
        fade = 1 / (1 + share * share)
        return amount * from_edge * fade * fade
