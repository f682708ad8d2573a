"""The head without hair, eyes and mouth: outline, ears, nose, beard, and what years and sun leave on a skin."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.shapes import (
    Linear,
    Path,
    between,
    both_sides,
    ellipse,
    fade,
    glow,
    joined,
    mirrored,
    mix,
    outline,
    smooth,
)
from a2v.engine.drawing.sheet import Group, Sheet

if TYPE_CHECKING:
    from a2v.engine.cast import Look

MOUTH_Y = 94.0
"""Where the closed lips are."""


def _dropped(points: list[tuple[float, float]], jaw: float) -> list[tuple[float, float]]:
    """The points with the jaw let down: the lower, the further, and a little narrower."""
    out = []
    for x, y in points:
        share = max(0.0, (y - 36) / 126)
        out.append((x * (1 - jaw * 0.035 * share), y + jaw * 15 * share))
    return out


def face_outline(look: Look, jaw: float) -> Path:
    """The face from hairline to chin with the jaw open by ``jaw`` (0 to 1)."""
    square = look.features.jaw
    right = [
        (0, -158), (66, -148), (104, -96), (112, -20), (between(106, 109, square), 46),
        (between(87, 99, square), 100), (between(49, 70, square), 142), (between(21, 36, square), 159), (0, 162),
    ]  # fmt: skip
    return smooth(_dropped(both_sides(right), jaw))


@lru_cache(maxsize=64)
def skin_paint(look: Look) -> Linear:
    """The light on the face, from the upper left."""
    skin = look.palette.skin
    return Linear(-70, -150, 70, 160, ((0, skin.light), (0.45, skin.base), (1, mix(skin.base, skin.shade, 0.35))))


@lru_cache(maxsize=64)
def skin_shade(look: Look) -> Group:
    """Where the face lies in the shade and where in the light; to be clipped to it."""
    sheet = Sheet()
    path = outline("M 60 -170 C 112 -100 118 20 84 90 C 64 132 30 156 -20 190 L 150 200 L 160 -160 Z")
    skin = look.palette.skin
    sheet.fill(path, fade(skin.shade, 0.26))
    # Forehead and cheekbone are round.
    light = mix(skin.light, "#ffffff", 0.10)
    for x, y, radius, alpha in ((-28, -82, 76, 0.36), (-62, 20, 34, 0.34), (-10, 138, 34, 0.36)):
        sheet.fill(ellipse(x, y, radius), glow(x, y, radius, light, alpha))
    return sheet.fixed()


@lru_cache(maxsize=64)
def ear(look: Look) -> Group:
    """An ear that sticks out to the right, with its jewel."""
    sheet = Sheet()
    skin, accent = look.palette.skin, look.palette.accent
    sheet.fill(
        smooth([(-14, -24), (4, -25), (17, -30), (24, -10), (18, 16), (6, 34), (-4, 28), (-14, 20)]), mix(skin.base, skin.shade, 0.28)
    )  # fmt: skip
    sheet.stroke(outline("M 6 -16 C 18 -18 17 4 8 14"), fade(skin.shade, 0.75), 3)
    if look.features.earrings == "stud":
        sheet.fill(ellipse(7, 39, 6), glow(5, 37, 12, mix(accent, "#ffffff", 0.6), 1.0))
        sheet.fill(ellipse(7, 39, 6), fade(accent, 0.75))
        sheet.fill(ellipse(5, 37, 2), fade("#ffffff", 0.8))
    elif look.features.earrings == "hoop":
        sheet.stroke(ellipse(8, 58, 17, 21), mix(accent, "#5A3A00", 0.25), 5)
        sheet.stroke(ellipse(7, 57.5, 17, 21), accent, 3.2)
    return sheet.fixed()


@lru_cache(maxsize=64)
def nose(look: Look) -> Group:
    """The nose: its shaded side, its light, its wings."""
    sheet = Sheet()
    skin = look.palette.skin
    side = outline("M -5 -24 C -7 2 -15 26 -18 38 C -15 48 0 51 6 48 C -2 36 -2 0 -5 -24 Z")
    shade = Linear(-16, 0, 6, 0, ((0, fade(skin.shade, 0)), (0.4, fade(skin.shade, 0.32)), (1, fade(skin.shade, 0.02))))
    sheet.fill(side, shade)
    sheet.fill(ellipse(2, 30, 9, 13), glow(2, 30, 13, skin.light, 0.85))
    wings = outline("M -17 38 C -16 47.5 -7 47 -4 48.8 C 0 51 5 50 8 47.5 C 13 46.5 16.5 44 17 38")
    sheet.stroke(wings, fade(mix(skin.shade, "#7A3028", 0.30), 0.8), 2.5)
    return sheet.fixed()


@lru_cache(maxsize=64)
def complexion(look: Look) -> Group:
    """Blush, freckles and lines; moves with the features, under them."""
    sheet = Sheet()
    features, palette = look.features, look.palette
    for side in (-1, 1):
        sheet.fill(ellipse(side * 66, 50, 38), glow(side * 66, 50, 38, palette.blush, 0.60 * features.blush))
    if features.freckles:
        _draw_freckles(sheet, look)
    if features.age > 0.25:
        _draw_lines(sheet, look)
    return sheet.fixed()


_FRECKLES = ((-84, 34), (-72, 45), (-62, 33), (-52, 46), (-42, 36), (-78, 57), (-60, 57), (-30, 44), (-90, 46))


def _draw_freckles(sheet: Sheet, look: Look) -> None:
    spots = [ellipse(x, y, 2.3 - 0.35 * (i % 3)) for i, (x, y) in enumerate(_FRECKLES)]
    path = joined(*spots, *(mirrored(spot) for spot in spots), ellipse(-7, 22, 1.8), ellipse(9, 15, 2.0))
    sheet.fill(path, fade(mix(look.palette.skin.shade, "#9A4A20", 0.45), 0.65 * look.features.freckles))


def _draw_lines(sheet: Sheet, look: Look) -> None:
    age = look.features.age
    colour = mix(look.palette.skin.shade, "#6B3030", 0.2)
    if look.features.beard != "full":
        fold = outline("M 27 46 C 40 56 52 68 56 84")
        sheet.stroke(joined(fold, mirrored(fold)), fade(colour, 0.62 * age), 2.4)
    if age > 0.5:
        brow = outline("M -46 -100 C -20 -105 20 -105 46 -100 M -36 -86 C -14 -90 14 -90 36 -86")
        sheet.stroke(brow, fade(colour, 0.40 * age), 2.0)
        chin = outline("M 60 104 C 63 112 62 120 58 126")
        sheet.stroke(joined(chin, mirrored(chin)), fade(colour, 0.45 * age), 2.0)


def draw_beard(sheet: Sheet, look: Look, jaw: float) -> None:
    """The beard on cheeks and chin, which follows the jaw; to be clipped to the face."""
    hair, kind = look.palette.hair, look.features.beard
    if kind not in ("full", "stubble"):
        return
    right = [
        (0, 172), (36, 168), (72, 146), (99, 98), (109, 40), (112, -16),
        (103, 24), (88, 58), (62, 66), (30, 58), (0, 60),
    ]  # fmt: skip
    both = _dropped(both_sides(right), jaw)
    strength = 1.0 if kind == "full" else 0.38
    stops = ((0, fade(hair.base, 0.34 * strength)), (0.5, fade(hair.base, 0.80 * strength)))
    sheet.fill(smooth(both), Linear(0, 10, 0, 165, (*stops, (1, fade(hair.shade, 0.92 * strength)))))
