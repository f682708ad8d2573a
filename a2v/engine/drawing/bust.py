"""Puts a character together from its parts, in a pose, and draws its silhouette.

The head is two-dimensional. To suggest a turn, its features move as if they lay on a ball (``_feature_transform``), and the parts
before and behind it are shifted by different amounts (parallax).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing import clothes, eyes, face, hair
from a2v.engine.drawing.display_list import WHITE, DisplayList, Group, bounds_of, silhouette_of
from a2v.engine.drawing.geometry import Transform, rotate, scale, translate
from a2v.engine.drawing.mouth import draw_mouth
from a2v.engine.face_pose import FacePose, MouthShape

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec
    from a2v.engine.drawing.display_list import Item
    from a2v.engine.drawing.geometry import Box, Path

UNIT = 720
"""The side of the square that a character is drawn for."""
_MIDDLE = UNIT / 2
_HEAD_Y = 318  # the middle of the face
_NECK_Y = 470  # the centre of rotation of the head
_HIPS_Y = 1150  # the centre of rotation of the torso
_CROWN_Y = -150  # from there, in the head, the hair hangs
_EARRING_SWING = 4.0  # relative to that of hair
_HEAD_RADIUS = 118.0  # of the ball that the features lie on
_MAX_YAW = 0.15  # radians, for a yaw of 1


def bust(character: CharacterSpec, pose: FacePose) -> list[Item]:
    """Return the character in a pose, without the backdrop."""
    drawing = DisplayList()
    behind, body, head = _layer_transforms(pose)
    drawing.add(hair.back(character), behind)
    drawing.add(clothes.torso(character), body)
    with drawing.transformed(head, _head_bounds(character)):
        _draw_head(drawing, character, pose)
    return drawing.items


def silhouette(character: CharacterSpec, pose: FacePose) -> list[Item]:
    """Return the outline of the character in a pose, filled with white: it covers the same pixels as ``bust``."""
    back, torso, ear, earring, front, glasses = _silhouettes_of_parts(character)
    drawing = DisplayList()
    behind, body, head = _layer_transforms(pose)
    drawing.add(back, behind)
    drawing.add(torso, body)
    with drawing.transformed(head, _head_bounds(character)):
        for side in (-1, 1):
            drawing.add(ear, _ear_transform(pose, side))
            drawing.add(earring, _earring_transform(pose, side))
        with drawing.transformed(_face_transform(pose)):
            drawing.fill(_face_outline(character, pose), WHITE)
        drawing.add(front, _hair_transform(pose))
        drawing.add(glasses, _glasses_transform(pose))
    return drawing.items


@lru_cache(maxsize=64)
def _silhouettes_of_parts(character: CharacterSpec) -> tuple[Group, ...]:
    parts = (
        hair.back(character),
        clothes.torso(character),
        face.ear(character),
        face.earring(character),
        hair.front(character),
        eyes.glasses(character),
    )
    return tuple(map(silhouette_of, parts))


def _layer_transforms(pose: FacePose) -> tuple[Transform, Transform, Transform]:
    """Return the transforms of the hair behind the head, of the torso and of the head."""
    # The torso leans about the hips and carries the head. Its steps are too small to see: in most frames, it need not be redrawn and
    # encoded.
    stand = rotate(round(pose.lean * 12) / 12, _MIDDLE, _HIPS_Y)
    body = stand @ translate(0, round(-pose.breath * 6) / 2)
    neck = stand @ translate(pose.yaw * 5, pose.bob * 5)
    back, front = (
        neck @ rotate(pose.roll * share, _MIDDLE, _NECK_Y) @ translate(_MIDDLE, _HEAD_Y) for share in (0.7, 1)
    )
    return back @ translate(-pose.yaw * 5, 0) @ rotate(pose.swing, 0, _CROWN_Y), body, front


def _ear_transform(pose: FacePose, side: int) -> Transform:
    # The ear on the far side disappears behind the cheek, and the other one comes forward.
    return translate(side * 109 - pose.yaw * 5.5, -pose.pitch * 3.5) @ scale(side, 1)


def _earring_transform(pose: FacePose, side: int) -> Transform:
    return _ear_transform(pose, side) @ rotate(side * _EARRING_SWING * pose.swing, *face.EAR_LOBE)


def _face_outline(character: CharacterSpec, pose: FacePose) -> Path:
    return face.face_outline(character, pose.mouth.open, pose.yaw, pose.pitch)


def _face_transform(pose: FacePose, direction: int = 1) -> Transform:
    return translate(direction * pose.yaw * 2.5, 0)


def _hair_transform(pose: FacePose) -> Transform:
    return translate(pose.yaw * 4, pose.pitch * 3)


def _glasses_transform(pose: FacePose) -> Transform:
    return _feature_transform(pose, 0, 0) @ translate(pose.yaw, 0)


@lru_cache(maxsize=64)
def _head_bounds(character: CharacterSpec) -> Box | None:
    """Return a box around the head with jewellery and glasses, in every pose: that of the two most extreme ones."""
    drawing = DisplayList()
    for yaw in (-1.7, 1.7):
        _draw_head(drawing, character, FacePose(mouth=MouthShape(open=1.1), yaw=yaw, pitch=math.copysign(2, yaw)))
    return bounds_of(drawing.items)


def _feature_transform(pose: FacePose, x: float, y: float) -> Transform:
    """Return how a turn of the head moves and narrows a feature that is at ``x``, ``y`` when seen from the front."""
    angle = math.asin(x / _HEAD_RADIUS)
    turned = angle + pose.yaw * _MAX_YAW
    return translate(_HEAD_RADIUS * math.sin(turned), y + pose.pitch * 8) @ scale(math.cos(turned) / math.cos(angle), 1)


def _draw_head(drawing: DisplayList, character: CharacterSpec, pose: FacePose) -> None:
    jaw = pose.mouth.open
    for side in (-1, 1):
        drawing.add(face.ear(character), _ear_transform(pose, side))
        drawing.add(face.earring(character), _earring_transform(pose, side))
    with drawing.transformed(_face_transform(pose)):
        shape = _face_outline(character, pose)
        drawing.fill(shape, face.skin_gradient(character))
        with drawing.clipped(shape):
            drawing.add(face.skin_shade(character))
            drawing.add(hair.shadow(character), _hair_transform(pose) @ _face_transform(pose, -1))
            # Clipped: a turn of the head moves one cheek beyond the edge of the face.
            features = _face_transform(pose, -1) @ _feature_transform(pose, 0, 0)
            drawing.add(face.complexion(character), features @ translate(0, -5 * pose.cheeks))
            drawing.add(face.chin_light(character), features @ translate(0, jaw * 13))
            face.draw_beard(drawing, character, jaw, pose.yaw, pose.pitch)
    _draw_features(drawing, character, pose)
    drawing.add(hair.front(character), _hair_transform(pose))


def _draw_features(drawing: DisplayList, character: CharacterSpec, pose: FacePose) -> None:
    for side in (-1, 1):
        with drawing.transformed(_feature_transform(pose, side * eyes.EYE_X, eyes.EYE_Y) @ scale(side * 1.14, 1.14)):
            drawing.add(eyes.socket(character))
            drawing.add(eyes.eye(character, pose, side))
            drawing.add(eyes.brow(character), eyes.brow_transform(pose))
    # The nose protrudes, so it moves further than the face.
    drawing.add(face.nose(character), _feature_transform(pose, 0, 0) @ translate(pose.yaw * 5, pose.pitch * 2))
    with drawing.transformed(_feature_transform(pose, 0, face.MOUTH_Y) @ translate(pose.yaw * 1.5, pose.pitch * 1.5)):
        draw_mouth(drawing, character, pose.mouth)
    frame = _glasses_transform(pose)
    hinges, ears = (frame.e - 92, frame.e + 92), (-110 - pose.yaw * 5.5, 110 - pose.yaw * 5.5)
    with drawing.transformed(translate(0, frame.f)):
        eyes.draw_temples(drawing, character, hinges, ears)
    drawing.add(eyes.glasses(character), frame)
