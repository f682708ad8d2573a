"""The head without hair, eyes and mouth: outline, ears, nose, beard, blush, freckles and lines."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import LinearGradient, glow, mix, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import (
    Path,
    closed_spline,
    ellipse,
    join_paths,
    lerp,
    mirror_path,
    mirror_points,
    svg_path,
)

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec

MOUTH_Y = 94.0
"""The position of the closed lips."""


def _with_open_jaw(points: list[tuple[float, float]], jaw: float) -> list[tuple[float, float]]:
    """Return points of the face with the jaw open. The lower a point, the further it moves down and inwards."""
    out = []
    for x, y in points:
        share = max(0.0, (y - 36) / 126)
        out.append((x * (1 - jaw * 0.035 * share), y + jaw * 15 * share))
    return out


def _turned(points: list[tuple[float, float]], yaw: float, pitch: float) -> list[tuple[float, float]]:
    """Return points of the face in a turned head.

    The chin is in front of the axis and moves with the features. The far cheek recedes behind the nose, and the near one comes forward.
    """
    out = []
    for x, y in points:
        low = min(1.0, max(0.0, (y + 40) / 190))
        width = 1 - 0.050 * yaw * (0.3 + 0.7 * low) * (x / 110)
        out.append((x * width + yaw * 14 * low**1.4, y + pitch * 3.5 * low))
    return out


def face_outline(character: CharacterSpec, jaw: float, yaw: float = 0.0, pitch: float = 0.0) -> Path:
    """Return the outline from hairline to chin, with the jaw open by ``jaw`` (0 to 1), in a turned head."""
    square = character.features.jaw
    right = [
        (0, -158), (66, -148), (104, -96), (112, -20), (lerp(106, 109, square), 46),
        (lerp(87, 99, square), 100), (lerp(49, 70, square), 142), (lerp(21, 36, square), 159), (0, 162),
    ]  # fmt: skip
    return closed_spline(_turned(_with_open_jaw(mirror_points(right), jaw), yaw, pitch))


@lru_cache(maxsize=64)
def skin_gradient(character: CharacterSpec) -> LinearGradient:
    """Return the fill of the face, lit from the upper left."""
    skin = character.palette.skin
    return LinearGradient(
        -70, -150, 70, 160, ((0, skin.light), (0.45, skin.base), (1, mix(skin.base, skin.shade, 0.35)))
    )


@lru_cache(maxsize=64)
def skin_shade(character: CharacterSpec) -> Group:
    """Return the shadow on the far side of the face; to be clipped to its outline."""
    drawing = DisplayList()
    path = svg_path("M 60 -170 C 112 -100 118 20 84 90 C 64 132 30 156 -20 190 L 150 200 L 160 -160 Z")
    skin = character.palette.skin
    drawing.fill(path, with_alpha(skin.shade, 0.26))
    return drawing.static_group()


@lru_cache(maxsize=64)
def chin_light(character: CharacterSpec) -> Group:
    """Return the highlight of the chin, which moves with the jaw."""
    drawing = DisplayList()
    drawing.fill(ellipse(-10, 138, 34), glow(-10, 138, 34, _highlight(character), 0.36))
    return drawing.static_group()


def _highlight(character: CharacterSpec) -> str:
    return mix(character.palette.skin.light, "#ffffff", 0.10)


@lru_cache(maxsize=64)
def ear(character: CharacterSpec) -> Group:
    """Return the right ear."""
    drawing = DisplayList()
    skin = character.palette.skin
    drawing.fill(
        closed_spline([(-14, -24), (4, -25), (17, -30), (24, -10), (18, 16), (6, 34), (-4, 28), (-14, 20)]), mix(skin.base, skin.shade, 0.28)
    )  # fmt: skip
    drawing.stroke(svg_path("M 6 -16 C 18 -18 17 4 8 14"), with_alpha(skin.shade, 0.75), 3)
    return drawing.static_group()


EAR_LOBE = 8.0, 34.0
"""The point from which an earring hangs."""


@lru_cache(maxsize=64)
def earring(character: CharacterSpec) -> Group:
    """Return the right earring; an empty group without earrings."""
    drawing = DisplayList()
    accent = character.palette.accent
    if character.features.earrings == "stud":
        drawing.fill(ellipse(7, 39, 6), glow(5, 37, 12, mix(accent, "#ffffff", 0.6), 1.0))
        drawing.fill(ellipse(7, 39, 6), with_alpha(accent, 0.75))
        drawing.fill(ellipse(5, 37, 2), with_alpha("#ffffff", 0.8))
    elif character.features.earrings == "hoop":
        drawing.stroke(ellipse(8, 58, 17, 21), mix(accent, "#5A3A00", 0.25), 5)
        drawing.stroke(ellipse(7, 57.5, 17, 21), accent, 3.2)
    return drawing.static_group()


@lru_cache(maxsize=64)
def nose(character: CharacterSpec) -> Group:
    """Return the nose: its shaded side, its highlight and its wings."""
    drawing = DisplayList()
    skin = character.palette.skin
    side = svg_path("M -5 -24 C -7 2 -15 26 -18 38 C -15 48 0 51 6 48 C -2 36 -2 0 -5 -24 Z")
    shade = LinearGradient(
        -16,
        0,
        6,
        0,
        ((0, with_alpha(skin.shade, 0)), (0.4, with_alpha(skin.shade, 0.32)), (1, with_alpha(skin.shade, 0.02))),
    )
    drawing.fill(side, shade)
    drawing.fill(ellipse(2, 30, 9, 13), glow(2, 30, 13, skin.light, 0.85))
    wings = svg_path("M -17 38 C -16 47.5 -7 47 -4 48.8 C 0 51 5 50 8 47.5 C 13 46.5 16.5 44 17 38")
    drawing.stroke(wings, with_alpha(mix(skin.shade, "#7A3028", 0.30), 0.8), 2.5)
    return drawing.static_group()


@lru_cache(maxsize=64)
def complexion(character: CharacterSpec) -> Group:
    """Return highlights, blush, freckles and lines, which move with the features."""
    drawing = DisplayList()
    features, palette = character.features, character.palette
    # The forehead and the cheekbone.
    for x, y, radius in ((-28, -82, 76), (-62, 20, 34)):
        drawing.fill(ellipse(x, y, radius), glow(x, y, radius, _highlight(character), 0.35))
    for side in (-1, 1):
        drawing.fill(ellipse(side * 66, 50, 38), glow(side * 66, 50, 38, palette.blush, 0.60 * features.blush))
    if features.freckles:
        _draw_freckles(drawing, character)
    if features.age > 0.25:
        _draw_lines(drawing, character)
    return drawing.static_group()


_FRECKLES = ((-84, 34), (-72, 45), (-62, 33), (-52, 46), (-42, 36), (-78, 57), (-60, 57), (-30, 44), (-90, 46))


def _draw_freckles(drawing: DisplayList, character: CharacterSpec) -> None:
    spots = [ellipse(x, y, 2.3 - 0.35 * (i % 3)) for i, (x, y) in enumerate(_FRECKLES)]
    path = join_paths(*spots, *(mirror_path(spot) for spot in spots), ellipse(-7, 22, 1.8), ellipse(9, 15, 2.0))
    drawing.fill(
        path, with_alpha(mix(character.palette.skin.shade, "#9A4A20", 0.45), 0.65 * character.features.freckles)
    )


def _draw_lines(drawing: DisplayList, character: CharacterSpec) -> None:
    age = character.features.age
    colour = mix(character.palette.skin.shade, "#6B3030", 0.2)
    if character.features.beard != "full":
        fold = svg_path("M 27 46 C 40 56 52 68 56 84")
        drawing.stroke(join_paths(fold, mirror_path(fold)), with_alpha(colour, 0.62 * age), 2.4)
    if age > 0.5:
        brow = svg_path("M -46 -100 C -20 -105 20 -105 46 -100 M -36 -86 C -14 -90 14 -90 36 -86")
        drawing.stroke(brow, with_alpha(colour, 0.40 * age), 2.0)
        chin = svg_path("M 60 104 C 63 112 62 120 58 126")
        drawing.stroke(join_paths(chin, mirror_path(chin)), with_alpha(colour, 0.45 * age), 2.0)


def draw_beard(drawing: DisplayList, character: CharacterSpec, jaw: float, yaw: float, pitch: float) -> None:
    """Draw the beard on cheeks and chin, which follows the jaw and the turn of the head; to be clipped to the outline of the face."""
    hair, kind = character.palette.hair, character.features.beard
    if kind not in ("full", "stubble"):
        return
    right = [
        (0, 172), (36, 168), (72, 146), (99, 98), (109, 40), (112, -16),
        (103, 24), (88, 58), (62, 66), (30, 58), (0, 60),
    ]  # fmt: skip
    both = _turned(_with_open_jaw(mirror_points(right), jaw), yaw, pitch)
    strength = 1.0 if kind == "full" else 0.38
    stops = ((0, with_alpha(hair.base, 0.34 * strength)), (0.5, with_alpha(hair.base, 0.80 * strength)))
    drawing.fill(
        closed_spline(both), LinearGradient(0, 10, 0, 165, (*stops, (1, with_alpha(hair.shade, 0.92 * strength))))
    )
