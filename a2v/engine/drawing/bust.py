"""Puts a character together from its parts, in a pose, and draws its silhouette.

The head is two-dimensional. To suggest a turn, its features move as if they lay on a sphere (``_feature_transform``), and the parts
in front of it and behind it are shifted by different amounts (parallax).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing import clothes, eyes, face, hair
from a2v.engine.drawing.display_list import WHITE, DisplayList, Group, bounds_of, silhouette_of
from a2v.engine.drawing.geometry import Transform, rotate, scale, translate
from a2v.engine.drawing.mouth import draw_mouth
from a2v.engine.drawing.proportions import proportions
from a2v.engine.face_pose import FacePose, MouthShape

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec
    from a2v.engine.drawing.clothes import Layer
    from a2v.engine.drawing.display_list import Item
    from a2v.engine.drawing.geometry import Box, Path

UNIT = 720
"""The side of the square that a character is drawn for."""
_MIDDLE = UNIT / 2
_HEAD_Y = 318  # the middle of the face
_NECK_Y = 470  # the centre of rotation of the head
_NECK_BASE_Y = 582  # where the neck ends in the torso
_NECK_SHIFT = 5.0  # how far the head moves sideways at a yaw of 1
_CROWN_Y = -150  # in head coordinates: the point around which the hair swings
_EARRING_SWING = 4.0  # relative to the swing of the hair
_HEAD_RADIUS = 118.0  # of the sphere on which the features lie
_MAX_YAW = 0.15  # radians, for a yaw of 1


def bust(character: CharacterSpec, pose: FacePose) -> list[Item]:
    """Return the character in a pose, without the backdrop."""
    drawing = DisplayList()
    behind, body, head = _layer_transforms(pose)
    drawing.add(hair.back(character), behind)
    for side in (-1, 1):
        drawing.add(clothes.arm(character), body @ _arm_transform(pose, side))
    for layer in clothes.layers(character):
        drawing.add(layer.group, body @ _layer_transform(layer, pose))
    with drawing.transformed(head, _head_bounds(character)):
        _draw_head(drawing, character, pose)
    return drawing.items


def silhouette(character: CharacterSpec, pose: FacePose) -> list[Item]:
    """Return the outline of the character in a pose, filled with white: it covers the same pixels as ``bust``."""
    back, arm, ear, earring, front, glasses = _silhouettes_of_parts(character)
    drawing = DisplayList()
    behind, body, head = _layer_transforms(pose)
    drawing.add(back, behind)
    for side in (-1, 1):
        drawing.add(arm, body @ _arm_transform(pose, side))
    for layer in _silhouettes_of_layers(character):
        drawing.add(layer.group, body @ _layer_transform(layer, pose))
    with drawing.transformed(head, _head_bounds(character)):
        for side in (-1, 1):
            if not hair.covers_ears(character):
                drawing.add(ear, _ear_transform(character, pose, side))
            drawing.add(earring, _earring_transform(character, pose, side))
        with drawing.transformed(_face_transform(pose)):
            drawing.fill(_face_outline(character, pose), WHITE)
        drawing.add(front, _hair_transform(pose))
        drawing.add(glasses, _glasses_transform(pose))
    return drawing.items


@lru_cache(maxsize=64)
def _silhouettes_of_parts(character: CharacterSpec) -> tuple[Group, ...]:
    parts = (
        hair.back(character),
        clothes.arm(character),
        face.ear(character),
        face.earring(character),
        hair.front(character),
        eyes.glasses(character),
    )
    return tuple(map(silhouette_of, parts))


@lru_cache(maxsize=64)
def _silhouettes_of_layers(character: CharacterSpec) -> tuple[Layer, ...]:
    return tuple(layer._replace(group=silhouette_of(layer.group)) for layer in clothes.layers(character))


def _layer_transforms(pose: FacePose) -> tuple[Transform, Transform, Transform]:
    """Return the transforms of the hair behind the head, of the torso and of the head."""
    # The torso leans about the hips and carries the head.
    body = rotate(_lean(pose), _MIDDLE, clothes.HIPS_Y) @ translate(0, round(-pose.breath * 3))
    neck = rotate(pose.lean, _MIDDLE, clothes.HIPS_Y) @ translate(pose.yaw * _NECK_SHIFT, pose.bob * 5)
    back, front = (
        neck @ rotate(pose.roll * share, _MIDDLE, _NECK_Y) @ translate(_MIDDLE, _HEAD_Y) for share in (0.7, 1)
    )
    return back @ translate(-pose.yaw * 5, 0) @ rotate(pose.swing, 0, _CROWN_Y), body, front


def _layer_transform(layer: Layer, pose: FacePose) -> Transform:
    """Return how a layer of the clothes moves on the torso, in steps too small to see, so that it is redrawn less often."""
    if layer.hangs_from:
        return rotate(round(pose.swing * 4) / 3, *layer.hangs_from)
    if not layer.follow:
        return Transform()
    steps = 12 if layer.follow == 1 else 5  # the neck moves further
    yaw = round(pose.yaw * steps) / steps
    # Sheared, so that the lower end stays where it is.
    slope = -layer.follow * yaw * _NECK_SHIFT / (_NECK_BASE_Y - _NECK_Y)
    return Transform(c=slope, e=-slope * _NECK_BASE_Y)


def _arm_transform(pose: FacePose, side: int) -> Transform:
    # Arms hang down, whichever way the torso leans. The left one is drawn.
    x, y = clothes.SHOULDER
    hang = rotate(-0.8 * _lean(pose) * -side, x, y)
    return hang if side < 0 else Transform(a=-1, e=UNIT) @ hang


def _lean(pose: FacePose) -> float:
    """Return the lean of the torso in steps too small to see, like those of its breath.

    The torso costs as much to draw and to encode as the head. While the head moves in every frame, the torso stands still in most.
    """
    return round(pose.lean * 8) / 8


def _ear_transform(character: CharacterSpec, pose: FacePose, side: int) -> Transform:
    # The ear on the far side disappears behind the cheek, and the other one comes forward.
    measures = proportions(character)
    place = translate(side * measures.ear_x - pose.yaw * 5.5, measures.ear_y - pose.pitch * 3.5)
    return place @ scale(side * measures.ear_size, measures.ear_size)


def _earring_transform(character: CharacterSpec, pose: FacePose, side: int) -> Transform:
    # Earrings have the same size on ears of all sizes.
    x, y = face.EAR_LOBE
    lobe = _ear_transform(character, pose, side) @ translate(x, y) @ scale(1 / proportions(character).ear_size)
    return lobe @ rotate(side * _EARRING_SWING * pose.swing) @ translate(-x, -y)


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
    """Return a box around the head with jewellery and glasses in all poses, from the two most extreme ones."""
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
        if not hair.covers_ears(character):
            drawing.add(face.ear(character), _ear_transform(character, pose, side))
        if character.features.earrings != "none":
            drawing.add(face.earring(character), _earring_transform(character, pose, side))
    with drawing.transformed(_face_transform(pose)):
        shape = _face_outline(character, pose)
        drawing.fill(shape, face.skin_gradient(character))
        with drawing.clipped(shape):
            drawing.add(face.skin_shade(character), translate(pose.yaw * 9, 0))
            drawing.add(hair.shadow(character), _hair_transform(pose) @ _face_transform(pose, -1))
            # Clipped: a turn of the head moves one cheek beyond the edge of the face.
            features = _face_transform(pose, -1) @ _feature_transform(pose, 0, 0)
            lifted = 5 * pose.cheeks + 2.5 * max(0.0, pose.mouth.smile)
            drawing.add(face.complexion(character), features @ translate(0, 1.5 - lifted))
            drawing.add(face.chin_light(character), features @ translate(0, jaw * 13 - 3 * pose.mouth.press))
            face.draw_beard(drawing, character, jaw, pose.yaw, pose.pitch)
    _draw_features(drawing, character, pose)
    drawing.add(hair.front(character), _hair_transform(pose))


def _draw_features(drawing: DisplayList, character: CharacterSpec, pose: FacePose) -> None:
    measures = proportions(character)
    size = measures.eye_size
    for side in (-1, 1):
        place = _feature_transform(pose, side * measures.eye_x, measures.eye_y)
        with drawing.transformed(place @ scale(side * size, size) @ rotate(-measures.eye_slant)):
            drawing.add(eyes.socket(character))
            drawing.add(eyes.eye(character, pose, side))
            drawing.add(eyes.brow(character), eyes.brow_transform(character, pose))
    # The nose protrudes, so it moves further than the face.
    drawing.add(face.nose(character), _feature_transform(pose, 0, 0) @ translate(pose.yaw * 5, pose.pitch * 2))
    with drawing.transformed(
        _feature_transform(pose, 0, measures.mouth_y) @ translate(pose.yaw * 1.5, pose.pitch * 1.5)
    ):
        draw_mouth(drawing, character, pose.mouth)
    frame = _glasses_transform(pose)
    hinge = measures.eye_x + 43
    hinges, ears = (frame.e - hinge, frame.e + hinge), (-110 - pose.yaw * 5.5, 110 - pose.yaw * 5.5)
    with drawing.transformed(translate(0, frame.f)):
        eyes.draw_temples(drawing, character, hinges, ears)
    drawing.add(eyes.glasses(character), frame)
