"""The motion of the head, the brows and the chest: smooth shifts of the picture, computed at the nodes of a grid.

Each motion of a ``FacePose`` is a vector field that is computed once; the motion of a frame is a weighted sum of these fields. A turn
shifts each place in proportion to its depth, which is interpolated from the landmarks, so the nose moves more than the ears. The field of
the head fades out well beyond the head. So neck and hair follow, and lines in the background still look straight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.portrait.geometry import BROWS, FACE_OVAL

if TYPE_CHECKING:
    from a2v.engine.face_pose import FacePose
    from a2v.engine.portrait.geometry import Geometry
    from a2v.engine.portrait.pictures import Array

HEAD_HALF_WIDTH, HEAD_HALF_HEIGHT = 1.35, 1.45
"""Half the size of a head with hair, in half sizes of the face."""
_FADE = 1.15
"""The distance over which the shifts fade outside of the head, in half sizes of the head."""
# The strength of each motion at a value of 1 in the pose:
_TURN, _NOD = 0.055, 0.04  # radians, for yaw and pitch
_SHIFT, _BOB, _BROW, _BREATH = 0.028, 0.022, 0.045, 0.020  # relative to the distance of the eyes; the first one for yaw
_ROLL = 0.55  # degrees


def smoothstep(value: Array) -> Array:
    """Return 0 below 0, 1 above 1, and a smooth transition between (a cubic Hermite curve)."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def head_box(face: Geometry) -> tuple[float, float, float, float]:
    """Return the part of the frame that moves with the head: left, top, right and bottom."""
    centre, half = _head(face)
    # Beyond 90 % of the fade the shifts are less than a tenth of a pixel.
    reach = half * (0.95 + 0.9 * _FADE)
    return centre[0] - reach[0], centre[1] - reach[1], centre[0] + reach[0], centre[1] + reach[1]


def _head(face: Geometry) -> tuple[Array, Array]:
    """Return the middle and half the size of the head."""
    oval = face.points[list(FACE_OVAL), :2]
    half = np.ptp(oval, axis=0) / 2
    centre = (oval.min(0) + oval.max(0)) / 2
    # There is more hair above than chin below.
    centre = centre - np.array([0, 0.28 * half[1]], np.float32)
    return centre, half * np.array([HEAD_HALF_WIDTH, HEAD_HALF_HEIGHT], np.float32)


class HeadMotion:
    """The motion of one head.

    Args:
        face: Its measures.
        nodes: The places for which shifts are computed.
        height: Of the frame.
        edges: Where the photograph ends within the frame.
    """

    def __init__(
        self, face: Geometry, nodes: Array, height: int, edges: tuple[float, float, float, float] | None = None
    ) -> None:
        self._shape = nodes.shape
        places = nodes.reshape(-1, 2)
        x, y = places[:, 0], places[:, 1]
        eyes = face.eye_distance
        weight = _head_weight(face, places)
        depth = _depth(face, places) * weight
        chin = face.middle + face.chin * face.down
        pivot = chin + 0.8 * face.chin * face.down
        angle = np.float32(np.radians(_ROLL))
        zero = np.zeros_like(x)
        fields = {
            "yaw": (weight * _SHIFT * eyes + depth * _TURN, zero),
            "pitch": (zero, depth * _NOD),
            "roll": (-angle * weight * (y - pivot[1]), angle * weight * (x - pivot[0])),
            "bob": (zero, weight * _BOB * eyes),
            "brow": (zero, -_BROW * eyes * _brow_weight(face, places)),
            "breath": (zero, -_BREATH * eyes * _chest_weight(face, places, height)),
        }
        self._names = list(fields)
        still = _stillness(places, edges, 0.35 * eyes)[:, None]
        self._fields = np.stack([(np.stack(pair, -1) * still).ravel() for pair in fields.values()]).astype(np.float32)

    def shifts(self, pose: FacePose) -> Array:
        """Return how far the picture is shifted at each node."""
        amounts = np.array([getattr(pose, name) for name in self._names], np.float32)
        return np.asarray((amounts @ self._fields).reshape(self._shape), np.float32)


def _stillness(places: Array, edges: tuple[float, float, float, float] | None, reach: float) -> Array:
    """Return 0 at the edges of a box and beyond, and 1 where they are further away than ``reach``."""
    if edges is None:
        return np.ones(len(places), np.float32)
    left, top, right, bottom = edges
    x, y = places[:, 0], places[:, 1]
    return smoothstep(np.minimum.reduce([x - left, right - x, y - top, bottom - y]) / reach)


def _head_weight(face: Geometry, places: Array) -> Array:
    """Return how far each place follows the head, 0 to 1."""
    centre, half = _head(face)
    radius = np.sqrt((((places - centre) / half) ** 2).sum(-1))
    follows = 1 - smoothstep((radius - 0.95) / _FADE)
    # The neck bends over its length.
    below = places @ face.down - (face.middle @ face.down + face.chin)
    return np.asarray(follows * (1 - smoothstep(below / (1.9 * face.chin) + 0.12)), np.float32)


def _depth(face: Geometry, places: Array) -> Array:
    """Return how far each place lies in front of the edge of the face, in pixels."""
    front = np.median(face.points[list(FACE_OVAL), 2]) - face.points[:, 2]
    spread = 0.11 * face.eye_distance * 2
    sum_, weighted = np.full(len(places), 1e-6, np.float32), np.zeros(len(places), np.float32)
    for (x, y, _), value in zip(face.points, front, strict=True):
        near = np.exp(-((places[:, 0] - x) ** 2 + (places[:, 1] - y) ** 2) / spread**2)
        sum_ += near
        weighted += near * value
    # Far from all landmarks the depth fades instead of keeping the value of the nearest one.
    return np.asarray(np.clip(weighted / sum_, 0, None) * np.clip(sum_, 0, 1), np.float32)


def _brow_weight(face: Geometry, places: Array) -> Array:
    in_face = face.to_face(places)
    total = np.zeros(len(places), np.float32)
    for brow in BROWS:
        x, y = face.to_face(face.points[list(brow), :2]).mean(0)
        eyes = face.eye_distance
        total += np.exp(-(((in_face[:, 0] - x) / (0.27 * eyes)) ** 2) - ((in_face[:, 1] - y) / (0.17 * eyes)) ** 2)
    return np.minimum(total, 1)


def _chest_weight(face: Geometry, places: Array, height: int) -> Array:
    """Return how far each place moves with the breath: from the neck down, but not at the edge of the frame or of ``head_box``."""
    y = places[:, 1]
    neck = face.middle[1] + 1.6 * face.chin
    rising = smoothstep((y - neck) / (1.5 * face.chin))
    at_frame = smoothstep((height - y) / (0.1 * height))
    return np.asarray(rising * at_frame * _stillness(places, head_box(face), face.eye_distance), np.float32)
