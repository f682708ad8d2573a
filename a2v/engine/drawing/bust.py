"""Puts a character together: backdrop once, and the person as each pose has it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing import clothes, eyes, face, hair
from a2v.engine.drawing.mouth import draw_mouth
from a2v.engine.drawing.shapes import Linear, Map, Radial, ellipse, fade, glow, mix, rectangle, scale, shift, turn
from a2v.engine.drawing.sheet import WHITE, Group, Mark, Sheet, box_around, cover
from a2v.engine.pose import Mouth, Pose

if TYPE_CHECKING:
    from a2v.engine.cast import Look
    from a2v.engine.drawing.shapes import Box

UNIT = 720
"""The side of the square that a character is drawn for; wider and higher pictures show more of it."""
_MIDDLE = UNIT / 2
_HEAD_Y = 318  # the middle of the face, between the eyes and the mouth
_NECK_Y = 470  # the head tilts about this point
_RADIUS = 118.0  # of the ball that the features lie on
_FURTHEST = 0.15  # radians: a yaw of 1


_BUBBLES = (
    (92, 132, 30, 0.62), (142, 196, 11, 0.5), (652, 470, 22, 0.5), (628, 540, 8, 0.6), (662, 128, 13, 0.6), (56, 452, 12, 0.5),
    (130, -66, 16, 0.5), (520, -40, 9, 0.6), (600, 10, 20, 0.45),
)  # fmt: skip


def backdrop(look: Look) -> list[Mark | Group]:
    """What is behind the character and never moves."""
    sheet = Sheet()
    top, bottom = look.palette.backdrop
    whole = rectangle(-UNIT, -UNIT, 3 * UNIT, 3 * UNIT)
    sheet.fill(whole, Linear(0, 0, 0, UNIT, ((0, top), (1, bottom))))
    # Light falls in from the upper left, as it does on the face.
    sheet.fill(whole, glow(120, 40, 620, "#ffffff", 0.42))
    disc = look.palette.disc
    sheet.fill(ellipse(_MIDDLE, 330, 268), Linear(120, 60, 560, 600, ((0, fade(disc, 1.0)), (1, fade(disc, 0.5)))))
    sheet.stroke(ellipse(_MIDDLE, 330, 292), fade("#ffffff", 0.34), 2.5)
    for x, y, radius, alpha in _BUBBLES:
        light = Radial(
            x - radius * 0.3,
            y - radius * 0.3,
            radius * 1.3,
            ((0, fade("#ffffff", alpha)), (1, fade("#ffffff", alpha * 0.35))),
        )
        sheet.fill(ellipse(x, y, radius), light)
    # What the person keeps from the disc: a soft shade, so that they stand before it.
    sheet.fill(whole, glow(_MIDDLE + 26, 420, 300, mix(bottom, "#20203A", 0.5), 0.30))
    return sheet.items


def nowhere() -> list[Mark | Group]:
    """What is behind a silhouette: nothing, which is black."""
    sheet = Sheet()
    sheet.fill(rectangle(-UNIT, -UNIT, 3 * UNIT, 3 * UNIT), "#000000")
    return sheet.items


def bust(look: Look, pose: Pose) -> list[Mark | Group]:
    """The character in a pose, without the backdrop."""
    sheet = Sheet()
    behind, body, head = _places(pose)
    sheet.add(hair.back(look), behind)
    sheet.add(clothes.torso(look), body)
    with sheet.moved(head, _head_box(look)):
        _draw_head(sheet, look, pose)
    return sheet.items


def silhouette(look: Look, pose: Pose) -> list[Mark | Group]:
    """What covers the same pixels as the character in a pose, all white and with nothing inside."""
    back, torso, ear, front, glasses = _covers(look)
    sheet = Sheet()
    behind, body, head = _places(pose)
    sheet.add(back, behind)
    sheet.add(torso, body)
    with sheet.moved(head, _head_box(look)):
        for side in (-1, 1):
            sheet.add(ear, _ear_place(pose, side))
        with sheet.moved(_face_place(pose)):
            sheet.fill(face.face_outline(look, pose.mouth.open), WHITE)
        sheet.add(front, _hair_place(pose))
        sheet.add(glasses, _glasses_place(pose))
    return sheet.items


@lru_cache(maxsize=64)
def _covers(look: Look) -> tuple[Group, ...]:
    parts = hair.back(look), clothes.torso(look), face.ear(look), hair.front(look), eyes.glasses(look)
    return tuple(map(cover, parts))


def _places(pose: Pose) -> tuple[Map, Map, Map]:
    """Where the hair behind the head, the torso and the head go."""
    lean = shift(pose.yaw * 4, pose.bob * 5)
    back, front = (
        lean.then(turn(pose.roll * share, _MIDDLE, _NECK_Y)).then(shift(_MIDDLE, _HEAD_Y)) for share in (0.7, 1)
    )
    # In steps too small to be seen, so that most of the time it need not be drawn, or encoded, anew.
    body = shift(round(pose.yaw * 6) / 3, round(-pose.breath * 6) / 3)
    return back.then(shift(-pose.yaw * 5, 0)), body, front


def _ear_place(pose: Pose, side: int) -> Map:
    return shift(side * 109 - pose.yaw * 3, -pose.pitch * 3).then(scale(side, 1))


def _face_place(pose: Pose) -> Map:
    return shift(pose.yaw * 2.5, 0)


def _hair_place(pose: Pose) -> Map:
    return shift(pose.yaw * 2.5, pose.pitch * 2)


def _glasses_place(pose: Pose) -> Map:
    return _at(pose, 0, 0).then(shift(pose.yaw, 0))


@lru_cache(maxsize=64)
def _head_box(look: Look) -> Box | None:
    """A box around the head, its jewellery and its glasses, however it turns and speaks."""
    sheet = Sheet()
    for yaw in (-1.7, 1.7):
        _draw_head(sheet, look, Pose(mouth=Mouth(open=1.1), yaw=yaw, pitch=math.copysign(2, yaw)))
    return box_around(sheet.items)


def _at(pose: Pose, x: float, y: float) -> Map:
    """Where a feature at ``x``, ``y`` of a face seen from the front goes when the head turns, and how it narrows."""
    angle = math.asin(x / _RADIUS)
    turned = angle + pose.yaw * _FURTHEST
    return shift(_RADIUS * math.sin(turned), y + pose.pitch * 8).then(scale(math.cos(turned) / math.cos(angle), 1))


def _draw_head(sheet: Sheet, look: Look, pose: Pose) -> None:
    jaw = pose.mouth.open
    for side in (-1, 1):
        sheet.add(face.ear(look), _ear_place(pose, side))
    with sheet.moved(_face_place(pose)):
        shape = face.face_outline(look, jaw)
        sheet.fill(shape, face.skin_paint(look))
        with sheet.clipped(shape):
            sheet.add(face.skin_shade(look))
            sheet.add(hair.shadow(look))
            # Within the face, of which a turn brings one cheek to the edge.
            sheet.add(face.complexion(look), Map(e=-_face_place(pose).e).then(_at(pose, 0, 0)))
            face.draw_beard(sheet, look, jaw)
    _draw_features(sheet, look, pose)
    sheet.add(hair.front(look), _hair_place(pose))


def _draw_features(sheet: Sheet, look: Look, pose: Pose) -> None:
    for side in (-1, 1):
        with sheet.moved(_at(pose, side * eyes.EYE_X, eyes.EYE_Y).then(scale(side * 1.14, 1.14))):
            sheet.add(eyes.socket(look))
            sheet.add(eyes.eye(look, pose, side))
            sheet.add(eyes.brow(look), eyes.brow_place(pose))
    # The nose stands out, so it goes further than the face it stands on.
    sheet.add(face.nose(look), _at(pose, 0, 0).then(shift(pose.yaw * 5, pose.pitch * 2)))
    with sheet.moved(_at(pose, 0, face.MOUTH_Y).then(shift(pose.yaw * 1.5, pose.pitch * 1.5))):
        draw_mouth(sheet, look, pose.mouth)
    frame = _glasses_place(pose)
    hinges, ears = (frame.e - 92, frame.e + 92), (-110 - pose.yaw * 3, 110 - pose.yaw * 3)
    with sheet.moved(shift(0, frame.f)):
        eyes.draw_temples(sheet, look, hinges, ears)
    sheet.add(eyes.glasses(look), frame)
