"""Eyes, brows and glasses. The origin is the middle of an eye, and x points away from the nose."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import glow, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import Path, cubic_path, ellipse, lerp, rotate, scale, svg_path, translate

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec
    from a2v.engine.drawing.geometry import Point, Transform
    from a2v.engine.face_pose import FacePose

EYE_X, EYE_Y = 49.0, -6.0
"""The position of the right eye in a face that looks straight ahead."""

_WIDTH = 27.0
_LASH = "#281518"


@lru_cache(maxsize=64)
def socket(character: CharacterSpec) -> Group:
    """Return the shadow around an eye; the same for both."""
    drawing = DisplayList()
    shade = character.palette.skin.shade
    drawing.fill(ellipse(0, -2, 38), glow(0, -2, 38, shade, 0.28))
    if character.features.age > 0.25:
        fold = svg_path("M -20 19 C -10 26 8 27 20 20")
        drawing.stroke(fold, with_alpha(mix(shade, "#6B3030", 0.2), 0.55 * character.features.age), 2.0)
    if character.features.age > 0.5:
        feet = svg_path("M 34 0 C 38 -2 42 -5 45 -8 M 35 5 C 40 5 44 5 48 4 M 34 10 C 38 12 42 14 45 17")
        drawing.stroke(feet, with_alpha(mix(shade, "#6B3030", 0.2), 0.5 * character.features.age), 1.7)
    return drawing.static_group()


def eye(character: CharacterSpec, pose: FacePose, side: int) -> Group:
    """Return an eye; ``side`` is 1 for the right of the picture, -1 for the left."""
    shut = min(1.0, max(pose.blink, pose.squint * 0.30))
    # Rounded to steps that are too small to see, so that most frames find their eyes in the cache.
    return _eye(character, side, round(shut * 64) / 64, round(pose.gaze_x * 32) / 4, round(pose.gaze_y * 20) / 4)


@lru_cache(maxsize=256)
def _eye(character: CharacterSpec, side: int, shut: float, x: float, y: float) -> Group:
    """Return an eye that is closed to a degree (0 to 1) and looks at a point."""
    drawing = DisplayList()
    features = character.features
    height = lerp(14.0, 20.5, features.eyes)
    upper = -height * (1 - shut) + 10.5 * shut
    lower = height * 0.62 * (1 - shut * 0.30) + 3.5 * shut
    inner, outer = (-_WIDTH, 5.0), (_WIDTH, -3.0 + 4.5 * shut)
    lid = ((-_WIDTH * 0.62, upper * 1.05), (_WIDTH * 0.42, upper * 1.28))
    under = ((_WIDTH * 0.62, lower * 1.05), (-_WIDTH * 0.5, lower * 1.25))
    if shut < 0.93:
        ball = cubic_path(inner, *lid, outer, *under, inner)
        _draw_ball(drawing, character, (x * side, y - 0.5), side, shape=ball, upper=upper, height=height)
        rim = cubic_path((outer[0] - 4, outer[1] + 3.5), *under, (inner[0] + 5, inner[1] + 1.2), close=False)
        drawing.stroke(rim, with_alpha(mix(character.palette.skin.shade, "#6B2F2F", 0.35), 0.5), 1.8)
    _draw_lashes(drawing, features.lashes, upper, shut, (inner, outer))
    if shut < 0.75:
        points = (
            (-_WIDTH * 0.78, upper * 0.78 - 5 + shut * 6),
            (-_WIDTH * 0.4, upper * 1.35 - 8 + shut * 8),
            (_WIDTH * 0.45, upper * 1.5 - 8 + shut * 8),
            (_WIDTH * 1.02, upper * 0.55 - 6 + shut * 5),
        )
        crease = with_alpha(mix(character.palette.skin.shade, "#7A3A34", 0.25), 0.6)
        drawing.stroke(cubic_path(*points, close=False), crease, 2.0)
    return drawing.static_group()


def _draw_ball(
    drawing: DisplayList, character: CharacterSpec, pupil: Point, side: int, *, shape: Path, upper: float, height: float
) -> None:
    drawing.fill(shape, vertical_gradient(-height, height * 0.7, "#D9CCCC", "#FFFDFB", "#F8F0EC"))
    x, y = pupil
    radius = lerp(11.8, 14.2, character.features.eyes)
    dark, light = character.palette.iris
    with drawing.clipped(shape):
        drawing.fill(ellipse(x, y, radius + 1.3), with_alpha("#2A1712", 0.55))
        drawing.fill(
            ellipse(x, y, radius), vertical_gradient(y - radius, y + radius, mix(dark, "#000000", 0.45), dark, light)
        )
        drawing.fill(ellipse(x, y + radius * 0.45, radius * 0.62, radius * 0.4), with_alpha(light, 0.35))
        drawing.fill(ellipse(x, y, radius * 0.47), "#140B0B")
        # The shadow of the lid on the eyeball.
        shadow = cubic_path(
            (-_WIDTH - 2, upper - 8), (-_WIDTH, upper - 8), (_WIDTH, upper - 8), (_WIDTH + 2, upper - 8),
            (_WIDTH, upper * 0.45 + 4), (_WIDTH * 0.4, upper * 0.74 + 2), (0, upper * 0.72 + 3),
            (-_WIDTH * 0.5, upper * 0.70 + 3), (-_WIDTH, upper * 0.2 + 5), (-_WIDTH - 2, upper - 8),
        )  # fmt: skip
        drawing.fill(shadow, with_alpha("#3A1A1C", 0.22))
        # Reflections of the light, which comes from the left for both eyes.
        drawing.fill(ellipse(x - 4.6 * side, y - 5.2, 3.9), with_alpha("#ffffff", 0.96))
        drawing.fill(ellipse(x + 4.6 * side, y + 5.0, 2.0), with_alpha("#ffffff", 0.7))


def _draw_lashes(drawing: DisplayList, lashes: float, upper: float, shut: float, ends: tuple[Point, Point]) -> None:
    (ix, iy), (ox, oy) = ends
    thick = lerp(3.8, 5.8, lashes)
    flick = lerp(0.8, 8.0, lashes) * (1 - 0.3 * shut)
    line = cubic_path(
        (ix - 1, iy + 1), (-_WIDTH * 0.62, upper * 1.05 - thick * 0.75), (_WIDTH * 0.42, upper * 1.28 - thick),
        (ox + flick, oy - flick * 0.62), (ox + 1, oy + 1.5), (_WIDTH * 0.5, upper * 1.10 + 0.5),
        (_WIDTH * 0.18, upper * 0.92), (-_WIDTH * 0.2, upper * 0.86), (-_WIDTH * 0.6, upper * 0.72 + 1.5),
        (ix - 1, iy + 1),
    )  # fmt: skip
    drawing.fill(line, _LASH)
    if lashes > 0.4 and shut < 0.9:
        wing = cubic_path(
            (ox - 3, oy - 2), (ox + 3, oy - 4), (ox + 7, oy - 8), (ox + 3 + 8 * lashes, oy - 3 - 9 * lashes),
            (ox + 8.5, oy - 5), (ox + 5, oy - 0.5), (ox - 1, oy + 2),
        )  # fmt: skip
        drawing.fill(wing, _LASH)


@lru_cache(maxsize=64)
def brow(character: CharacterSpec) -> Group:
    """Return an eyebrow."""
    drawing = DisplayList()
    t = lerp(0.85, 1.7, character.features.brows)
    shape = cubic_path(
        (-27, 3.0), (-16, -3.0 * t), (6, -8.6 * t), (22, -5.6), (28, -4.2), (33, -1.0), (37, 4.2),
        (28, -0.6), (18, -1.8), (8, -1.0), (-4, -0.2), (-14, 2.8), (-24, 7.6 * (0.7 + 0.3 * t)),
        (-28, 8.6), (-30, 5.6), (-27, 3.0),
    )  # fmt: skip
    colour = mix(character.palette.hair.shade, character.palette.hair.base, 0.4)
    drawing.fill(shape, colour, 0.94)
    return drawing.static_group()


def brow_transform(pose: FacePose) -> Transform:
    """Return the position of a brow relative to its eye."""
    return translate(0, -45 - pose.brow * 9) @ scale(1.04) @ rotate(3 - pose.brow * 3)


@lru_cache(maxsize=64)
def glasses(character: CharacterSpec) -> Group:
    """Return the frame and the lenses, in the coordinates of the face; an empty group without glasses."""
    drawing = DisplayList()
    kind, colour = character.features.glasses, character.palette.accent
    if kind == "none":
        return drawing.static_group()
    for side in (-1, 1):
        x, y = side * 52, EYE_Y + 4
        lens = ellipse(x, y, 39, 36) if kind == "round" else _rounded_square(x, y, 42, 31)
        drawing.fill(lens, with_alpha("#EAF4FF", 0.13))
        gleam = ((x - 24, y + 6), (x - 16, y - 14), (x - 10, y - 20), (x - 2, y - 26))
        drawing.stroke(cubic_path(*gleam, close=False), with_alpha("#ffffff", 0.30), 5)
        drawing.stroke(lens, colour, 5.0)
        drawing.stroke(lens, with_alpha("#ffffff", 0.14), 1.4)
    drawing.stroke(svg_path("M -13 -6 C -8 -13 8 -13 13 -6"), colour, 5.0)
    return drawing.static_group()


def draw_temples(
    drawing: DisplayList, character: CharacterSpec, hinges: tuple[float, float], ears: tuple[float, float]
) -> None:
    """Draw the temples of the glasses, from the hinges of the frame to the ears."""
    if character.features.glasses == "none":
        return
    for side, hinge, ear in zip((-1, 1), hinges, ears, strict=True):
        if (ear - hinge) * side <= 0:
            continue  # hidden behind the frame, which the turn has moved beyond the ear
        arm = cubic_path((hinge, -9), (hinge + (ear - hinge) * 0.3, -13), (ear, -14), (ear, -12), close=False)
        drawing.stroke(arm, character.palette.accent, 4.5)


def _rounded_square(x: float, y: float, rx: float, ry: float) -> Path:
    k = 0.82  # long handles turn the quarters of an ellipse into rounded corners
    return cubic_path(
        (x + rx, y), (x + rx, y + ry * k), (x + rx * k, y + ry), (x, y + ry), (x - rx * k, y + ry), (x - rx, y + ry * k),
        (x - rx, y), (x - rx, y - ry * k), (x - rx * k, y - ry), (x, y - ry), (x + rx * k, y - ry), (x + rx, y - ry * k),
        (x + rx, y),
    )  # fmt: skip
