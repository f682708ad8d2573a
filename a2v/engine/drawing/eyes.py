"""Eyes, brows and glasses. The origin is the middle of an eye, and x points away from the nose."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import LinearGradient, RadialGradient, glow, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import Path, cubic_path, ellipse, lerp, rotate, scale, tapered, translate
from a2v.engine.drawing.proportions import proportions

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec
    from a2v.engine.drawing.geometry import Point, Transform
    from a2v.engine.face_pose import FacePose

_WIDTH = 27.0
_LASH = "#281518"
_BALL_SHADING = LinearGradient(
    -_WIDTH,
    0,
    _WIDTH,
    0,
    tuple((x, with_alpha("#9A6462", alpha)) for x, alpha in ((0, 0.3), (0.22, 0), (0.78, 0), (1, 0.3))),
)
_OPEN, _CLOSED = 0.12, 0.97  # eyes closed less than _OPEN show no skin of the lid; closed more than _CLOSED, no eyeball


@lru_cache(maxsize=64)
def socket(character: CharacterSpec) -> Group:
    """Return the shadow around an eye; the same for both."""
    drawing = DisplayList()
    shade = character.palette.skin.shade
    drawing.fill(ellipse(0, -2, 38), glow(0, -2, 38, shade, 0.28))
    if character.features.age > 0.25:
        fold = tapered("M -22 18 C -10 27 8 28 23 19", 3.6)
        drawing.fill(fold, with_alpha(mix(shade, "#6B3030", 0.2), 0.60 * character.features.age))
    if character.features.age > 0.5:
        crows_feet = tapered("M 34 0 C 38 -2 42 -5 46 -9 M 35 5 C 40 5 44 5 49 4 M 34 10 C 38 12 42 14 46 18", 2.8)
        drawing.fill(crows_feet, with_alpha(mix(shade, "#6B3030", 0.2), 0.6 * character.features.age))
    return drawing.static_group()


def eye(character: CharacterSpec, pose: FacePose, side: int) -> Group:
    """Return an eye; ``side`` is 1 for the right of the picture, -1 for the left."""
    shut = min(1.0, max(pose.blink, pose.squint * 0.25))
    # Rounded to steps that are too small to see, so that most frames find their eyes in the cache.
    gaze = round(pose.gaze_x * 24) / 3, round(pose.gaze_y * 15) / 3
    return _eye(character, side, round(shut * 40) / 40, gaze, round(pose.cheeks * 6) / 6)


@lru_cache(maxsize=128)
def _eye(character: CharacterSpec, side: int, shut: float, gaze: Point, cheeks: float) -> Group:
    """Return an eye that is closed to a degree (0 to 1; below 0: wide open) and looks at a point. ``cheeks`` raise its lower lid."""
    drawing = DisplayList()
    x, y = gaze
    features, skin = character.features, character.palette.skin
    top = -lerp(14.0, 20.5, features.eyes)
    # The lids meet below the middle: the upper one comes most of the way, and is an arc that turns over.
    meet = -top * 0.42
    upper = lerp(top, meet, shut)
    lower = lerp(-top * 0.62 - 3.2 * cheeks, meet + 1.0, max(0.0, shut))
    inner, outer = (-_WIDTH, 5.0), (_WIDTH, -3.0 + 7.0 * shut)
    lid = (
        (-_WIDTH * 0.62, lerp(upper * 1.05, upper + 1.5, shut)),
        (_WIDTH * 0.42, lerp(upper * 1.28, upper + 3.0, shut)),
    )
    under = ((_WIDTH * 0.62, lower * 1.05), (-_WIDTH * 0.5, lower * 1.25))
    if shut < _CLOSED:
        ball = cubic_path(inner, *lid, outer, *under, inner)
        _draw_ball(drawing, character, (x * side, y - 0.5), side, shape=ball, edge=(inner, *lid, outer))
    crease = mix(skin.shade, "#7A3A34", 0.28)
    if shut > _OPEN:
        # The skin of the lid, from the crease to the lashes.
        high = top * 1.30 - 4
        skin_of_lid = cubic_path(
            inner, *lid, outer, (_WIDTH * 1.04, top * 0.9), (_WIDTH * 0.62, high), (_WIDTH * 0.05, high),
            (-_WIDTH * 0.55, high), (-_WIDTH * 0.98, top * 0.9), inner,
        )  # fmt: skip
        shaded = (with_alpha(crease, 0.24), with_alpha(skin.light, 0.42), with_alpha(crease, 0.30))
        visible = min(1.0, (shut - _OPEN) * 5)
        drawing.fill(skin_of_lid, vertical_gradient(high, max(upper, high + 6) + 4, *shaded), visible)
    rim = cubic_path((outer[0] - 4, outer[1] + 3.5), *under, (inner[0] + 5, inner[1] + 1.2), close=False)
    drawing.stroke(rim, with_alpha(mix(skin.shade, "#6B2F2F", 0.35), 0.55 * (1 - 0.6 * shut)), 1.8)
    _draw_lashes(drawing, features.lashes, (inner, *lid, outer), shut)
    points = (
        (-_WIDTH * 0.78, top * 0.78 - 5 + shut * 1.5),
        (-_WIDTH * 0.4, top * 1.35 - 8 + shut * 3),
        (_WIDTH * 0.45, top * 1.5 - 8 + shut * 3),
        (_WIDTH * 1.02, top * 0.55 - 6 + shut * 3),
    )
    drawing.stroke(cubic_path(*points, close=False), with_alpha(crease, 0.60 - 0.22 * shut), 2.0)
    return drawing.static_group()


def _draw_ball(
    drawing: DisplayList, character: CharacterSpec, pupil: Point, side: int, *, shape: Path, edge: tuple[Point, ...]
) -> None:
    """Draw the eyeball within the lids. ``edge`` is the edge of the upper lid, from the inner corner to the outer one."""
    drawing.fill(shape, vertical_gradient(-18, 14, "#EAE1E0", "#FFFDFB", "#F8F0EC"))
    x, y = pupil
    radius = lerp(12.0, 14.4, character.features.eyes)
    dark, light = character.palette.iris
    rim = mix(dark, "#0A0507", 0.62)
    with drawing.clipped(shape):
        # A ball is darker at its sides.
        drawing.fill(shape, _BALL_SHADING)
        drawing.fill(ellipse(x, y, radius + 1.0), with_alpha(rim, 0.45))
        stops = ((0, mix(dark, light, 0.55)), (0.55, mix(dark, light, 0.22)), (0.86, dark), (1, rim))
        drawing.fill(ellipse(x, y, radius), RadialGradient(x, y + radius * 0.2, radius * 1.12, stops))
        # Light that has passed through the eye from above.
        spot = y + radius * 0.55
        drawing.fill(
            ellipse(x, spot, radius * 0.72, radius * 0.5),
            glow(x, spot, radius * 0.72, mix(light, "#ffffff", 0.12), 0.8),
        )
        drawing.fill(ellipse(x, y, radius * 0.45), "#0E0708")
        # The shadow of the lid on the eyeball.
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = edge
        shadow = cubic_path(
            (ax, ay), (bx, by), (cx, cy), (dx, dy), (dx + 2, dy - 9), (dx + 2, dy - 9), (dx, dy + 5),
            (cx, cy * 0.62 + 4), (bx, by * 0.62 + 4), (ax, ay + 4),
        )  # fmt: skip
        drawing.fill(shadow, with_alpha("#3A1A1C", 0.20))
        # Reflections of the light, which comes from the left for both eyes.
        drawing.fill(ellipse(x - 4.8 * side, y - 5.0, 4.0, 4.4), with_alpha("#ffffff", 0.96))
        drawing.fill(ellipse(x + 5.0 * side, y + 5.4, 1.9), with_alpha("#ffffff", 0.6))


def _draw_lashes(drawing: DisplayList, lashes: float, edge: tuple[Point, ...], shut: float) -> None:
    """Draw the line of lashes along the edge of the upper lid. It is one shape, which ends in a wing."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = edge
    thick = lerp(3.4, 5.6, lashes)
    out, rise = lerp(2.0, 11.0, lashes), lerp(0.8, 8.0, lashes) * (1 - 1.5 * shut)
    tip = (dx + out, dy - rise)
    line = cubic_path(
        (ax - 1.5, ay + 1.2), (bx, by - thick * 0.8), (cx - 3, cy - thick * 1.05), (dx, dy - thick * 0.72),
        (dx + out * 0.35, dy - rise * 0.18 - thick * 0.5), (dx + out * 0.7, dy - rise * 0.62 - 1), tip,
        (dx + out * 0.6, dy - rise * 0.3 + 0.8), (dx + out * 0.3, dy + 1.6), (dx - 1, dy + 2.2),
        (cx + 4, cy + thick * 0.55), (bx + 6, by + thick * 0.22), (ax - 1.5, ay + 1.2),
    )  # fmt: skip
    drawing.fill(line, _LASH)


@lru_cache(maxsize=64)
def brow(character: CharacterSpec) -> Group:
    """Return an eyebrow."""
    drawing = DisplayList()
    features = character.features
    thick, arch = lerp(2.4, 5.4, features.brows), features.brow_arch
    # The line that the brow follows: its inner end, the bend and the outer end.
    inner, bend, tail = lerp(1.5, -0.5, arch), lerp(-2.0, -6.5, arch), lerp(0.0, 6.5, arch)
    shape = cubic_path(
        (-29, inner - thick * 0.15), (-16, inner - 1.5 - thick * 0.85), (4, bend - thick * 1.15), (17, bend - thick * 0.9),
        (26, bend * 0.7 + tail * 0.1 - thick * 0.6), (33, tail * 0.6 - thick * 0.2), (38, tail),
        (30, tail * 0.4 + bend * 0.3 + thick * 0.2), (20, bend * 0.85 + thick * 0.3), (8, bend * 0.9 + thick * 0.55),
        (-4, bend * 0.7 + thick * 0.8), (-14, inner - 0.5 + thick * 0.9), (-25, inner + 1.2 + thick * 0.85),
        (-31, inner + 1.5 + thick * 0.6), (-32, inner + thick * 0.2), (-29, inner - thick * 0.15),
    )  # fmt: skip
    hair = character.palette.hair
    colour = mix(hair.shade, hair.base, 0.4)
    drawing.fill(
        shape,
        LinearGradient(-32, 0, 38, 0, ((0, with_alpha(colour, 0.55)), (0.35, colour), (1, with_alpha(colour, 0.92)))),
    )
    return drawing.static_group()


def brow_transform(character: CharacterSpec, pose: FacePose) -> Transform:
    """Return the position of a brow relative to its eye."""
    measures = proportions(character)
    return (
        translate(0, -measures.brow_y - pose.brow * 9 - pose.inner_brow * 2)
        @ scale(1.04)
        @ rotate(4.5 + measures.eye_slant * 0.85 - pose.brow * 3 + pose.inner_brow * 10)
    )


@lru_cache(maxsize=64)
def glasses(character: CharacterSpec) -> Group:
    """Return the frame and the lenses, in the coordinates of the face; an empty group without glasses."""
    drawing = DisplayList()
    kind, colour = character.features.glasses, character.palette.accent
    if kind == "none":
        return drawing.static_group()
    measures = proportions(character)
    middle, y = measures.eye_x + 3, measures.eye_y + 4
    for side in (-1, 1):
        x = side * middle
        lens = ellipse(x, y, 39, 36) if kind == "round" else _rounded_square(x, y, 42, 31)
        drawing.fill(lens, with_alpha("#EAF4FF", 0.13))
        gleam = ((x - 24, y + 6), (x - 16, y - 14), (x - 10, y - 20), (x - 2, y - 26))
        drawing.stroke(cubic_path(*gleam, close=False), with_alpha("#ffffff", 0.30), 5)
        drawing.stroke(lens, colour, 5.0)
        drawing.stroke(lens, with_alpha("#ffffff", 0.14), 1.4)
    gap = middle - (39 if kind == "round" else 42)
    drawing.stroke(
        cubic_path((-gap, y - 4), (-gap * 0.6, y - 11), (gap * 0.6, y - 11), (gap, y - 4), close=False), colour, 5.0
    )
    return drawing.static_group()


def draw_temples(
    drawing: DisplayList, character: CharacterSpec, hinges: tuple[float, float], ears: tuple[float, float]
) -> None:
    """Draw the temples of the glasses, from the hinges of the frame to the ears."""
    y = proportions(character).eye_y + 6
    if character.features.glasses == "none":
        return
    for side, hinge, ear in zip((-1, 1), hinges, ears, strict=True):
        if (ear - hinge) * side <= 0:
            continue  # hidden behind the frame, which the turn has moved beyond the ear
        arm = cubic_path(
            (hinge, y - 9), (hinge + (ear - hinge) * 0.3, y - 13), (ear, y - 14), (ear, y - 12), close=False
        )
        drawing.stroke(arm, character.palette.accent, 4.5)


def _rounded_square(x: float, y: float, rx: float, ry: float) -> Path:
    k = 0.82  # long handles turn the quarters of an ellipse into rounded corners
    return cubic_path(
        (x + rx, y), (x + rx, y + ry * k), (x + rx * k, y + ry), (x, y + ry), (x - rx * k, y + ry), (x - rx, y + ry * k),
        (x - rx, y), (x - rx, y - ry * k), (x - rx * k, y - ry), (x, y - ry), (x + rx * k, y - ry), (x + rx, y - ry * k),
        (x + rx, y),
    )  # fmt: skip
