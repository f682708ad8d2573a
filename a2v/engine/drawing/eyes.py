"""Eyes, brows and glasses. Coordinates: the middle of an eye is the origin, and x points away from the nose."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.shapes import Path, between, curves, down, ellipse, fade, glow, mix, outline, scale, shift, turn
from a2v.engine.drawing.sheet import Group, Sheet

if TYPE_CHECKING:
    from a2v.engine.cast import Look
    from a2v.engine.drawing.shapes import Map, Point
    from a2v.engine.pose import Pose

EYE_X, EYE_Y = 49.0, -6.0
"""Where the right eye is on a face that looks straight ahead."""

_WIDTH = 27.0
_LASH = "#281518"


@lru_cache(maxsize=64)
def socket(look: Look) -> Group:
    """The shade around an eye; the same for both."""
    sheet = Sheet()
    shade = look.palette.skin.shade
    sheet.fill(ellipse(0, -2, 38), glow(0, -2, 38, shade, 0.28))
    if look.features.age > 0.25:
        fold = outline("M -20 19 C -10 26 8 27 20 20")
        sheet.stroke(fold, fade(mix(shade, "#6B3030", 0.2), 0.55 * look.features.age), 2.0)
    if look.features.age > 0.5:
        feet = outline("M 34 0 C 38 -2 42 -5 45 -8 M 35 5 C 40 5 44 5 48 4 M 34 10 C 38 12 42 14 45 17")
        sheet.stroke(feet, fade(mix(shade, "#6B3030", 0.2), 0.5 * look.features.age), 1.7)
    return sheet.fixed()


def eye(look: Look, pose: Pose, side: int) -> Group:
    """One eye; ``side`` is 1 for the right of the picture, -1 for the left."""
    shut = min(1.0, max(pose.blink, pose.squint * 0.30))
    # In steps too small to be seen: an eye is the same for many frames, and need not be made anew for each.
    return _eye(look, side, round(shut * 64) / 64, round(pose.gaze_x * 32) / 4, round(pose.gaze_y * 20) / 4)


@lru_cache(maxsize=256)
def _eye(look: Look, side: int, shut: float, x: float, y: float) -> Group:
    """An eye that is shut so far and looks at a point."""
    sheet = Sheet()
    features = look.features
    height = between(14.0, 20.5, features.eyes)
    upper = -height * (1 - shut) + 10.5 * shut
    lower = height * 0.62 * (1 - shut * 0.30) + 3.5 * shut
    inner, outer = (-_WIDTH, 5.0), (_WIDTH, -3.0 + 4.5 * shut)
    lid = ((-_WIDTH * 0.62, upper * 1.05), (_WIDTH * 0.42, upper * 1.28))
    under = ((_WIDTH * 0.62, lower * 1.05), (-_WIDTH * 0.5, lower * 1.25))
    if shut < 0.93:
        ball = curves(inner, *lid, outer, *under, inner)
        _draw_ball(sheet, look, (x * side, y - 0.5), side, shape=ball, upper=upper, height=height)
        rim = curves((outer[0] - 4, outer[1] + 3.5), *under, (inner[0] + 5, inner[1] + 1.2), close=False)
        sheet.stroke(rim, fade(mix(look.palette.skin.shade, "#6B2F2F", 0.35), 0.5), 1.8)
    _draw_lashes(sheet, features.lashes, upper, shut, (inner, outer))
    if shut < 0.75:
        points = (
            (-_WIDTH * 0.78, upper * 0.78 - 5 + shut * 6),
            (-_WIDTH * 0.4, upper * 1.35 - 8 + shut * 8),
            (_WIDTH * 0.45, upper * 1.5 - 8 + shut * 8),
            (_WIDTH * 1.02, upper * 0.55 - 6 + shut * 5),
        )
        crease = fade(mix(look.palette.skin.shade, "#7A3A34", 0.25), 0.6)
        sheet.stroke(curves(*points, close=False), crease, 2.0)
    return sheet.fixed()


def _draw_ball(sheet: Sheet, look: Look, pupil: Point, side: int, *, shape: Path, upper: float, height: float) -> None:
    sheet.fill(shape, down(-height, height * 0.7, "#D9CCCC", "#FFFDFB", "#F8F0EC"))
    x, y = pupil
    radius = between(11.8, 14.2, look.features.eyes)
    dark, light = look.palette.iris
    with sheet.clipped(shape):
        sheet.fill(ellipse(x, y, radius + 1.3), fade("#2A1712", 0.55))
        sheet.fill(ellipse(x, y, radius), down(y - radius, y + radius, mix(dark, "#000000", 0.45), dark, light))
        sheet.fill(ellipse(x, y + radius * 0.45, radius * 0.62, radius * 0.4), fade(light, 0.35))
        sheet.fill(ellipse(x, y, radius * 0.47), "#140B0B")
        # The lid's shadow on the ball.
        shadow = curves(
            (-_WIDTH - 2, upper - 8), (-_WIDTH, upper - 8), (_WIDTH, upper - 8), (_WIDTH + 2, upper - 8),
            (_WIDTH, upper * 0.45 + 4), (_WIDTH * 0.4, upper * 0.74 + 2), (0, upper * 0.72 + 3),
            (-_WIDTH * 0.5, upper * 0.70 + 3), (-_WIDTH, upper * 0.2 + 5), (-_WIDTH - 2, upper - 8),
        )  # fmt: skip
        sheet.fill(shadow, fade("#3A1A1C", 0.22))
        # The light comes from the left of the picture for both eyes.
        sheet.fill(ellipse(x - 4.6 * side, y - 5.2, 3.9), fade("#ffffff", 0.96))
        sheet.fill(ellipse(x + 4.6 * side, y + 5.0, 2.0), fade("#ffffff", 0.7))


def _draw_lashes(sheet: Sheet, lashes: float, upper: float, shut: float, ends: tuple[Point, Point]) -> None:
    (ix, iy), (ox, oy) = ends
    thick = between(3.8, 5.8, lashes)
    flick = between(0.8, 8.0, lashes) * (1 - 0.3 * shut)
    line = curves(
        (ix - 1, iy + 1), (-_WIDTH * 0.62, upper * 1.05 - thick * 0.75), (_WIDTH * 0.42, upper * 1.28 - thick),
        (ox + flick, oy - flick * 0.62), (ox + 1, oy + 1.5), (_WIDTH * 0.5, upper * 1.10 + 0.5),
        (_WIDTH * 0.18, upper * 0.92), (-_WIDTH * 0.2, upper * 0.86), (-_WIDTH * 0.6, upper * 0.72 + 1.5),
        (ix - 1, iy + 1),
    )  # fmt: skip
    sheet.fill(line, _LASH)
    if lashes > 0.4 and shut < 0.9:
        wing = curves(
            (ox - 3, oy - 2), (ox + 3, oy - 4), (ox + 7, oy - 8), (ox + 3 + 8 * lashes, oy - 3 - 9 * lashes),
            (ox + 8.5, oy - 5), (ox + 5, oy - 0.5), (ox - 1, oy + 2),
        )  # fmt: skip
        sheet.fill(wing, _LASH)


@lru_cache(maxsize=64)
def brow(look: Look) -> Group:
    """An eyebrow, for the side that x points away to."""
    sheet = Sheet()
    t = between(0.85, 1.7, look.features.brows)
    shape = curves(
        (-27, 3.0), (-16, -3.0 * t), (6, -8.6 * t), (22, -5.6), (28, -4.2), (33, -1.0), (37, 4.2),
        (28, -0.6), (18, -1.8), (8, -1.0), (-4, -0.2), (-14, 2.8), (-24, 7.6 * (0.7 + 0.3 * t)),
        (-28, 8.6), (-30, 5.6), (-27, 3.0),
    )  # fmt: skip
    colour = mix(look.palette.hair.shade, look.palette.hair.base, 0.4)
    sheet.fill(shape, colour, 0.94)
    return sheet.fixed()


def brow_place(pose: Pose) -> Map:
    """Where a brow sits over its eye."""
    return shift(0, -45 - pose.brow * 9).then(scale(1.04)).then(turn(3 - pose.brow * 3))


@lru_cache(maxsize=64)
def glasses(look: Look) -> Group:
    """The frame and its lenses, in the face's coordinates; empty if there are none."""
    sheet = Sheet()
    kind, colour = look.features.glasses, look.palette.accent
    if kind == "none":
        return sheet.fixed()
    for side in (-1, 1):
        x, y = side * 52, EYE_Y + 4
        lens = ellipse(x, y, 39, 36) if kind == "round" else _soft_square(x, y, 42, 31)
        sheet.fill(lens, fade("#EAF4FF", 0.13))
        gleam = ((x - 24, y + 6), (x - 16, y - 14), (x - 10, y - 20), (x - 2, y - 26))
        sheet.stroke(curves(*gleam, close=False), fade("#ffffff", 0.30), 5)
        sheet.stroke(lens, colour, 5.0)
        sheet.stroke(lens, fade("#ffffff", 0.14), 1.4)
    sheet.stroke(outline("M -13 -6 C -8 -13 8 -13 13 -6"), colour, 5.0)
    return sheet.fixed()


def draw_temples(sheet: Sheet, look: Look, hinges: tuple[float, float], ears: tuple[float, float]) -> None:
    """The arms of the glasses, from where the frame is to where the ears are."""
    if look.features.glasses == "none":
        return
    for side, hinge, ear in zip((-1, 1), hinges, ears, strict=True):
        if (ear - hinge) * side <= 0:
            continue  # hidden by the frame, which has turned beyond it
        arm = curves((hinge, -9), (hinge + (ear - hinge) * 0.3, -13), (ear, -14), (ear, -12), close=False)
        sheet.stroke(arm, look.palette.accent, 4.5)


def _soft_square(x: float, y: float, rx: float, ry: float) -> Path:
    k = 0.82  # handles this far out make a circle's quarter almost a corner
    return curves(
        (x + rx, y), (x + rx, y + ry * k), (x + rx * k, y + ry), (x, y + ry), (x - rx * k, y + ry), (x - rx, y + ry * k),
        (x - rx, y), (x - rx, y - ry * k), (x - rx * k, y - ry), (x, y - ry), (x + rx * k, y - ry), (x + rx, y - ry * k),
        (x + rx, y),
    )  # fmt: skip
