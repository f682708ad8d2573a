"""The head without hair, eyes and mouth: outline, ears, nose, beard, blush, freckles and lines."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import LinearGradient, RadialGradient, glow, mix, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import (
    Path,
    both_sides,
    closed_spline,
    ellipse,
    join_paths,
    mirror_path,
    mirror_points,
    rectangle,
    svg_path,
    tapered,
)
from a2v.engine.drawing.proportions import AVERAGE_CHIN, AVERAGE_MOUTH_Y, proportions

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec


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
    right = proportions(character).outline
    return closed_spline(_turned(_with_open_jaw(mirror_points(right), jaw), yaw, pitch))


@lru_cache(maxsize=64)
def skin_gradient(character: CharacterSpec) -> RadialGradient:
    """Return the fill of the face, which is lit from the upper left and turns away from the light towards its edges."""
    skin = character.palette.skin
    stops = (
        (0, skin.light),
        (0.40, mix(skin.light, skin.base, 0.8)),
        (0.72, skin.base),
        (1, mix(skin.base, skin.shade, 0.72)),
    )
    return RadialGradient(-30, -46, 232, stops)


@lru_cache(maxsize=64)
def skin_shade(character: CharacterSpec) -> Group:
    """Return the soft shadow on the far side of the face and below its cheekbones; to be clipped to its outline."""
    drawing = DisplayList()
    shade = character.palette.skin.shade
    far = LinearGradient(
        34, 0, 122, 10, ((0, with_alpha(shade, 0.0)), (0.55, with_alpha(shade, 0.16)), (1, with_alpha(shade, 0.46)))
    )
    drawing.fill(rectangle(34, -170, 110, 380), far)
    return drawing.static_group()


@lru_cache(maxsize=64)
def chin_light(character: CharacterSpec) -> Group:
    """Return the highlight of the chin and the shadow below the lower lip, which move with the jaw."""
    drawing = DisplayList()
    measures = proportions(character)
    y = measures.chin - 22
    drawing.fill(ellipse(-8, y, 32), glow(-8, y, 32, _highlight(character), 0.34))
    fold = measures.mouth_y + 27
    drawing.fill(ellipse(0, fold, 17), glow(0, fold, 17, character.palette.skin.shade, 0.40))
    return drawing.static_group()


def _highlight(character: CharacterSpec) -> str:
    return mix(character.palette.skin.light, "#ffffff", 0.10)


@lru_cache(maxsize=64)
def ear(character: CharacterSpec) -> Group:
    """Return the right ear."""
    drawing = DisplayList()
    skin = character.palette.skin
    outline = closed_spline([(-14, -24), (4, -26), (17, -30), (24, -10), (18, 16), (6, 34), (-4, 28), (-14, 20)])
    edge = mix(skin.base, skin.shade, 0.5)
    drawing.fill(
        outline, LinearGradient(-10, 0, 24, 6, ((0, edge), (0.5, mix(skin.base, skin.shade, 0.12)), (1, edge)))
    )
    drawing.fill(tapered("M 3 -18 C 12 -24 20 -16 17 -2 C 15 8 10 12 6 20", 4.0), with_alpha(skin.shade, 0.85))
    drawing.fill(tapered("M 2 -8 C 9 -10 10 0 4 8", 3.4), with_alpha(skin.shade, 0.6))
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
    """Return the nose: the shadow at the side of its bridge, its light, its wings and its nostrils."""
    drawing = DisplayList()
    skin, measures = character.palette.skin, proportions(character)
    w, tip = measures.nose_width, measures.nose_tip
    wing = tip - 11
    line = mix(skin.shade, "#7A3028", 0.30)
    # The bridge: its far side is in shadow, and light runs along its ridge.
    side = svg_path(
        f"M 5 -32 C 12 -18 8 {wing - 26} {w * 0.9:.1f} {wing} C {w * 0.8:.1f} {tip - 2} {w * 0.3:.1f} {tip} 2 {tip - 2} C 4 {wing - 18} 3 -8 5 -32 Z"
    )
    drawing.fill(
        side,
        LinearGradient(
            0,
            0,
            w,
            0,
            ((0, with_alpha(skin.shade, 0.0)), (0.55, with_alpha(skin.shade, 0.40)), (1, with_alpha(skin.shade, 0.10))),
        ),
    )
    drawing.fill(ellipse(-1, wing - 34, 6, 36), glow(-1, wing - 34, 36, _highlight(character), 0.34))
    # The tip: a ball of light, with a soft shadow below it.
    drawing.fill(ellipse(0, tip + 3, w * 1.15), glow(0, tip + 3, w * 1.15, skin.shade, 0.42))
    drawing.fill(ellipse(-1, tip - 14, w * 0.92), glow(-1, tip - 14, w * 0.92, _highlight(character), 0.75))
    nostril = tapered(
        f"M {w * 0.26:.1f} {tip - 2.4:.1f} C {w * 0.42:.1f} {tip - 5.2:.1f} {w * 0.62:.1f} {tip - 5.2:.1f} {w * 0.74:.1f} {tip - 3:.1f}",
        3.2,
    )
    drawing.fill(both_sides(nostril), with_alpha(mix(line, "#401418", 0.45), 0.75))
    alar = tapered(
        f"M {w * 0.86:.1f} {wing - 5:.1f} C {w * 1.12:.1f} {wing - 1:.1f} {w * 1.12:.1f} {tip - 2:.1f} {w * 0.72:.1f} {tip - 1.6:.1f}",
        3.0,
    )
    base = tapered(
        f"M {-w * 0.42:.1f} {tip - 0.5:.1f} C {-w * 0.2:.1f} {tip + 2.6:.1f} {w * 0.2:.1f} {tip + 2.6:.1f} {w * 0.42:.1f} {tip - 0.5:.1f}",
        2.6,
    )
    drawing.fill(join_paths(alar, mirror_path(alar), base), with_alpha(line, 0.8))
    return drawing.static_group()


@lru_cache(maxsize=64)
def complexion(character: CharacterSpec) -> Group:
    """Return highlights, blush, freckles, moles and lines, which move with the features."""
    drawing = DisplayList()
    features, palette = character.features, character.palette
    measures = proportions(character)
    # The cheekbone in the light.
    drawing.fill(ellipse(-62, 22, 36), glow(-62, 22, 36, _highlight(character), 0.32))
    for side in (-1, 1):
        drawing.fill(ellipse(side * 66, 48, 40), glow(side * 66, 48, 40, palette.blush, 0.60 * features.blush))
    if features.freckles:
        _draw_freckles(drawing, character)
    if features.mole != "none":
        x, y = (-62.0, measures.mouth_y - 26) if features.mole == "cheek" else (31.0, measures.mouth_y - 19)
        drawing.fill(ellipse(x, y, 2.7), with_alpha(mix(palette.skin.shade, "#2A1210", 0.62), 0.9))
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
    age, measures = character.features.age, proportions(character)
    colour = mix(character.palette.skin.shade, "#6B3030", 0.2)
    mouth, w = measures.mouth_y, measures.nose_width
    if character.features.beard != "full":
        fold = tapered(
            f"M {w + 8:.1f} {measures.nose_tip - 8:.1f} C {w + 23:.1f} {measures.nose_tip + 2:.1f} 53 {mouth - 26:.1f} 56 {mouth - 8:.1f}",
            4.6,
        )
        drawing.fill(both_sides(fold), with_alpha(colour, 0.66 * age))
    if age > 0.5:
        brow = tapered(
            "M -48 -100 C -20 -106 20 -106 48 -100 M -38 -85 C -14 -90 14 -90 38 -85 M -5 -34 C -7 -29 -7 -24 -5 -19",
            3.6,
        )
        drawing.fill(brow, with_alpha(colour, 0.50 * age))
        chin = tapered(
            f"M 60 {mouth + 9:.1f} C 64 {mouth + 18:.1f} 62 {mouth + 27:.1f} 57 {mouth + 34:.1f} M 74 {mouth - 22:.1f} C 80 {mouth - 12:.1f} 81 {mouth:.1f} 77 {mouth + 12:.1f}",
            3.8,
        )
        drawing.fill(both_sides(chin), with_alpha(colour, 0.48 * age))


def draw_beard(drawing: DisplayList, character: CharacterSpec, jaw: float, yaw: float, pitch: float) -> None:
    """Draw the beard on cheeks and chin, which follows the jaw and the turn of the head; to be clipped to the outline of the face."""
    hair, kind = character.palette.hair, character.features.beard
    if kind not in ("full", "stubble"):
        return
    measures = proportions(character)
    chin, mouth = measures.chin - AVERAGE_CHIN, measures.mouth_y - AVERAGE_MOUTH_Y
    right = [
        (0, 174 + chin), (40, 170 + chin), (78, 148 + chin), (112, 98 + chin * 0.5), (122, 40), (118, -16),
        (103, 24), (88, 58 + mouth * 0.5), (62, 66 + mouth), (30, 58 + mouth), (0, 60 + mouth),
    ]  # fmt: skip
    both = _turned(_with_open_jaw(mirror_points(right), jaw), yaw, pitch)
    strength = 1.0 if kind == "full" else 0.38
    stops = ((0, with_alpha(hair.base, 0.30 * strength)), (0.34, with_alpha(hair.base, 0.80 * strength)))
    drawing.fill(
        closed_spline(both),
        LinearGradient(0, 10, 0, 165 + chin, (*stops, (1, with_alpha(hair.shade, 0.94 * strength)))),
    )
