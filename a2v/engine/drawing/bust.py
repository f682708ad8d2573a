"""Puts a character together: backdrop once, and the person as each pose has it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from a2v.engine.drawing import clothes, eyes, face, hair
from a2v.engine.drawing.mouth import draw_mouth
from a2v.engine.drawing.shapes import Linear, Map, ellipse, fade, rectangle, scale, shift, turn
from a2v.engine.drawing.sheet import Group, Mark, Sheet

if TYPE_CHECKING:
    from a2v.engine.cast import Look
    from a2v.engine.pose import Pose

UNIT = 720
"""The side of the square that a character is drawn for; wider and higher pictures show more of it."""
_MIDDLE = UNIT / 2
_HEAD_Y = 318  # the middle of the face, between the eyes and the mouth
_NECK_Y = 470  # the head tilts about this point
_RADIUS = 118.0  # of the ball that the features lie on
_FURTHEST = 0.15  # radians: a yaw of 1


def backdrop(look: Look) -> list[Mark | Group]:
    """What is behind the character and never moves."""
    sheet = Sheet()
    top, bottom = look.palette.backdrop
    sheet.fill(rectangle(-UNIT, -UNIT, 3 * UNIT, 3 * UNIT), Linear(0, 0, 0, UNIT, ((0, top), (1, bottom))))
    disc = look.palette.disc
    sheet.fill(ellipse(_MIDDLE, 330, 268), Linear(0, 60, 0, 600, ((0, fade(disc, 0.95)), (1, fade(disc, 0.55)))))
    for x, y, radius, alpha in ((118, 150, 26, 0.35), (628, 486, 16, 0.4), (650, 170, 10, 0.45), (84, 430, 9, 0.35)):
        sheet.fill(ellipse(x, y, radius), fade("#ffffff", alpha))
    return sheet.items


def bust(look: Look, pose: Pose) -> list[Mark | Group]:
    """The character in a pose, without the backdrop."""
    sheet = Sheet()
    lean = shift(pose.yaw * 4, pose.bob * 5)
    behind = lean.then(turn(pose.roll * 0.7, _MIDDLE, _NECK_Y)).then(shift(_MIDDLE, _HEAD_Y))
    head = lean.then(turn(pose.roll, _MIDDLE, _NECK_Y)).then(shift(_MIDDLE, _HEAD_Y))
    sheet.add(hair.back(look), behind.then(shift(-pose.yaw * 5, 0)))
    sheet.add(clothes.torso(look), shift(pose.yaw * 2, -pose.breath * 2.0))
    with sheet.moved(head):
        _draw_head(sheet, look, pose)
    return sheet.items


def _at(pose: Pose, x: float, y: float) -> Map:
    """Where a feature at ``x``, ``y`` of a face seen from the front goes when the head turns, and how it narrows."""
    angle = math.asin(x / _RADIUS)
    turned = angle + pose.yaw * _FURTHEST
    return shift(_RADIUS * math.sin(turned), y + pose.pitch * 8).then(scale(math.cos(turned) / math.cos(angle), 1))


def _draw_head(sheet: Sheet, look: Look, pose: Pose) -> None:
    jaw = pose.mouth.open
    for side in (-1, 1):
        sheet.add(face.ear(look), shift(side * 109 - pose.yaw * 3, -pose.pitch * 3).then(scale(side, 1)))
    with sheet.moved(shift(pose.yaw * 2.5, 0)):
        shape = face.face_outline(look, jaw)
        sheet.fill(shape, face.skin_paint(look))
        with sheet.clipped(shape):
            sheet.add(face.skin_shade(look))
            sheet.add(hair.shadow(look))
            face.draw_beard(sheet, look, jaw)
    _draw_features(sheet, look, pose)
    sheet.add(hair.front(look), shift(pose.yaw * 2.5, pose.pitch * 2))


def _draw_features(sheet: Sheet, look: Look, pose: Pose) -> None:
    sheet.add(face.complexion(look), _at(pose, 0, 0))
    for side in (-1, 1):
        with sheet.moved(_at(pose, side * eyes.EYE_X, eyes.EYE_Y).then(scale(side * 1.14, 1.14))):
            sheet.add(eyes.socket(look))
            eyes.draw_eye(sheet, look, pose, side)
            sheet.add(eyes.brow(look), eyes.brow_place(pose))
    # The nose stands out, so it goes further than the face it stands on.
    sheet.add(face.nose(look), _at(pose, 0, 0).then(shift(pose.yaw * 5, pose.pitch * 2)))
    with sheet.moved(_at(pose, 0, face.MOUTH_Y).then(shift(pose.yaw * 1.5, pose.pitch * 1.5))):
        draw_mouth(sheet, look, pose.mouth)
    frame = _at(pose, 0, 0).then(shift(pose.yaw, 0))
    hinges, ears = (frame.e - 92, frame.e + 92), (-110 - pose.yaw * 3, 110 - pose.yaw * 3)
    with sheet.moved(shift(0, frame.f)):
        eyes.draw_temples(sheet, look, hinges, ears)
    sheet.add(eyes.glasses(look), frame)
