"""Finds the face in a picture: the face detector, the 468 landmarks of MediaPipe's face mesh, and the reasons to reject a picture.

The detector sees 128 × 128 pixels, in which small faces are lost. So it also runs on overlapping tiles of half the side of the picture and,
if it has found no face, of a quarter of the side. Landmarks are found in a square around the detected face, then again in a square around
these landmarks. Finally they are averaged over several squares that differ a little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.errors import PortraitError
from a2v.engine.portrait.network import get_network
from a2v.engine.portrait.pictures import Pyramid, Square

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.engine.portrait.photo import Photo
    from a2v.engine.portrait.pictures import Array


MIN_FACE = 80
"""The least width of a face, in pixels of the file."""
MAX_TURN = 25
"""The largest angle that a face may be turned, raised, lowered or tilted, in degrees."""

_DETECTOR_SIDE, _LANDMARKS_SIDE = 128, 192
_MIN_CANDIDATE = 0.5
_MIN_SCORE, _MIN_PRESENCE = 0.81, 0.97
"""The minimum score of the detector, and the minimum presence that the landmarks network reports, for a human face; both 0 to 1.

Faces that look at the camera score 0.88 or more, even if they are painted, and mostly even in poor light; their presence is 0.999. A dog
can score 0.78, with a presence of 0.9997.
"""
_MIN_RIVAL_SIZE = 0.4
"""A second face counts if it has at least this size, relative to the largest face."""
# The squares over which landmarks are averaged: shifts relative to their side, and scales.
_JITTER = ((0.0, 0.0, 1.0), (0.02, 0.01, 1.05), (-0.02, 0.015, 0.96), (0.0, -0.02, 1.1))

_OVAL_TOP, _CHIN, _LEFT_EAR, _RIGHT_EAR, _NOSE_TIP = 10, 152, 234, 454, 1
_OUTER_EYES = 33, 263


class Detection(NamedTuple):
    """A face that the detector found, in pixels of the picture."""

    score: float
    x: float
    y: float
    side: float
    angle: float
    """Of the line through the eyes, in radians, clockwise."""


class Face(NamedTuple):
    """The face of a portrait. Points are in pixels of the picture; z points away from the viewer, in the same unit."""

    points: Array
    """468 × 3."""
    turn: float
    """The yaw in degrees; positive if the face looks to the right of the picture."""
    tilt: float
    """The roll in degrees, clockwise."""


def find_face(photo: Photo) -> Face:
    """Find the one face of a picture.

    Raises:
        PortraitError: There is no face, or several, or it is too small, turned too far, or cut off.
    """
    pyramid = Pyramid(photo.rgb)
    height, width = photo.rgb.shape[:2]
    detections = detect_faces(pyramid, width, height)
    candidates = [
        (found.score, points) for found in detections if (points := _find_landmarks(pyramid, found)) is not None
    ]
    faces = [points for score, points in candidates if score > _MIN_SCORE]
    if not faces:
        for _, points in candidates:
            check_direction(points)  # a more helpful error, if it raises one
        raise PortraitError(
            "No human face was found in the portrait. "
            "Use a picture in which the face is well lit, not covered, and looks at the camera."
        )
    largest = max(face_width(points) for points in faces)
    visible = _distinct([points for points in faces if face_width(points) > _MIN_RIVAL_SIZE * largest])
    if len(visible) > 1:
        raise PortraitError(
            f"The portrait shows {len(visible)} faces; it must show one. Crop the picture around the face that speaks."
        )
    points = visible[0]
    size = face_width(points) * photo.scale
    if size < MIN_FACE:
        raise PortraitError(
            f"The face in the portrait is {size:.0f} pixels wide; it must be {MIN_FACE} or more. "
            "Use a larger picture, or one taken from closer up."
        )
    face = check_direction(_refined(pyramid, points))
    _check_visible(face, width, height)
    return face


def face_width(points: Array) -> float:
    """Return the distance between the ears."""
    return float(np.linalg.norm(points[_RIGHT_EAR, :3] - points[_LEFT_EAR, :3]))


def _distinct(faces: list[Array]) -> list[Array]:
    """Return the faces without duplicates: of overlapping ones, only the largest."""
    kept: list[Array] = []
    for points in sorted(faces, key=face_width, reverse=True):
        middle = points[_NOSE_TIP, :2]
        if all(np.linalg.norm(middle - other[_NOSE_TIP, :2]) > 0.5 * face_width(other) for other in kept):
            kept.append(points)
    return kept


# -- rejected faces ---------------------------------------------------------------------------------------------------


def _measure_direction(points: Array) -> Face:
    across = points[_RIGHT_EAR] - points[_LEFT_EAR]
    turn, tilt = (np.degrees(np.arctan2(across[i], base)) for i, base in ((2, np.hypot(*across[:2])), (1, across[0])))
    return Face(points, float(turn), float(tilt))


def check_direction(points: Array) -> Face:
    """Measure where a face looks.

    Raises:
        PortraitError: It does not look at the camera.
    """
    face = _measure_direction(points)
    down = points[_CHIN] - points[_OVAL_TOP]
    # The chin of a face that looks straight ahead lies slightly behind the forehead.
    nod = float(np.degrees(np.arctan2(down[2], np.hypot(*down[:2])))) - 5
    for angle, how in ((face.tilt, "tilted"), (face.turn, "turned away"), (nod, "raised or lowered")):
        if abs(angle) > MAX_TURN:
            raise PortraitError(
                f"The face in the portrait is {how} by {abs(angle):.0f} degrees; at most {MAX_TURN} are allowed. "
                "Use a picture in which the face looks at the camera."
            )
    return face


def _check_visible(face: Face, width: int, height: int) -> None:
    least, most = face.points[:, :2].min(0), face.points[:, :2].max(0)
    margin = 0.02 * (most[0] - least[0])
    if (least < -margin).any() or (most > np.array([width, height]) + margin).any():
        raise PortraitError("The face in the portrait is cut off. Use a picture that shows the whole face.")


# -- the detector -----------------------------------------------------------------------------------------------------


def detect_faces(pyramid: Pyramid, width: int, height: int) -> list[Detection]:
    """Return the faces that the detector finds in a picture; the same face may occur more than once."""
    found: list[Detection] = []
    for step in (1, 2, 4):
        if step == 4 and found:
            break
        for square in _tiles(width, height, step):
            found += _detect(pyramid, square)
    return _without_overlaps(found)


def _tiles(width: int, height: int, step: int) -> Iterator[Square]:
    side = max(width, height) / step
    if step == 1:
        yield Square(width / 2, height / 2, side)
        return
    columns, rows = (max(1, round((length - side) / (side / 2)) + 1) for length in (width, height))
    for y in np.linspace(min(side, height) / 2, height - min(side, height) / 2, rows):
        for x in np.linspace(min(side, width) / 2, width - min(side, width) / 2, columns):
            yield Square(float(x), float(y), side)


def _anchors() -> Array:
    """Return the centres of the detector's 896 anchors, as fractions of the side of its input."""
    places = []
    for cells, each in ((16, 2), (8, 6)):
        middles = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
        places.append(np.repeat(grid, each, axis=0))
    return np.concatenate(places).astype(np.float32)


def _detect(pyramid: Pyramid, square: Square) -> list[Detection]:
    outputs = get_network("detector").run(pyramid.sample(square, _DETECTOR_SIDE) * 2 - 1)
    scores = 1 / (1 + np.exp(-outputs["classificators"][:, 0].clip(-80, 80)))
    chosen = np.flatnonzero(scores > _MIN_CANDIDATE)
    values = outputs["regressors"][chosen].reshape(-1, 8, 2)
    corners = values / _DETECTOR_SIDE
    anchors = _anchors()[chosen, None]
    points = square.to_picture((corners + anchors) * _DETECTOR_SIDE, _DETECTOR_SIDE)
    found = []
    for score, (middle, _, right_eye, left_eye, *_), (_, size, *_) in zip(scores[chosen], points, corners, strict=True):
        across = left_eye - right_eye
        side = float(size.max()) * square.side
        found.append(
            Detection(float(score), float(middle[0]), float(middle[1]), side, float(np.arctan2(across[1], across[0])))
        )
    return found


def _without_overlaps(detections: list[Detection]) -> list[Detection]:
    """Keep the detection with the highest score among those that overlap (non-maximum suppression)."""
    kept: list[Detection] = []
    for found in sorted(detections, reverse=True):
        radius = 0.4 * found.side
        if all(abs(found.x - other.x) > radius or abs(found.y - other.y) > radius for other in kept):
            kept.append(found)
    return kept


# -- landmarks --------------------------------------------------------------------------------------------------------


def _find_landmarks(pyramid: Pyramid, found: Detection) -> Array | None:
    points, _ = _landmarks(pyramid, Square(found.x, found.y, found.side * 1.5, found.angle))
    points, presence = _landmarks(pyramid, _square_around(points))
    return points if presence > _MIN_PRESENCE else None


def _refined(pyramid: Pyramid, points: Array) -> Array:
    square = _square_around(points)
    squares = [
        Square(square.x + x * square.side, square.y + y * square.side, square.side * scale, square.angle)
        for x, y, scale in _JITTER
    ]
    return np.asarray(np.mean([_landmarks(pyramid, each)[0] for each in squares], axis=0), np.float32)


def _square_around(points: Array) -> Square:
    across = points[_OUTER_EYES[1], :2] - points[_OUTER_EYES[0], :2]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = points[:, :2] @ np.array([[cos, -sin], [sin, cos]], np.float32)
    least, most = turned.min(0), turned.max(0)
    x, y = (least + most) / 2 @ np.array([[cos, sin], [-sin, cos]], np.float32)
    return Square(float(x), float(y), float((most - least).max()) * 1.5, angle)


def _landmarks(pyramid: Pyramid, square: Square) -> tuple[Array, float]:
    outputs = get_network("landmarks").run(pyramid.sample(square, _LANDMARKS_SIDE))
    values = outputs["conv2d_21"].reshape(468, 3)
    presence = float(1 / (1 + np.exp(-outputs["conv2d_31"].item())))
    places = square.to_picture(values[:, :2], _LANDMARKS_SIDE)
    depth = values[:, 2:] * np.float32(square.side / _LANDMARKS_SIDE)
    return np.concatenate([places, depth], 1), presence
