"""The mouth: lips, and the opening with teeth and tongue clipped to it. The origin is the middle of the closed lips.

Both lips are filled as one shape, and the opening is drawn over it. With a shape per lip, skin could show between lip and opening for
some interpolated mouth shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from a2v.engine.drawing.colours import LinearGradient, glow, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.geometry import Path, both_sides, cubic_path, ellipse, lerp, svg_path
from a2v.engine.drawing.proportions import proportions

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec
    from a2v.engine.drawing.display_list import DisplayList
    from a2v.engine.drawing.geometry import Point
    from a2v.engine.face_pose import MouthShape

_DARK, _THROAT = "#330B14", "#6B1C28"
_TEETH, _GAPS = "#FFFDFA", "#CDBDB8"
# The stops of a shadow over the sides of a row of teeth, which bends back into the shadow of the cheeks.
_TEETH_SHADOW = tuple(
    (x, with_alpha("#4A1A20", alpha))
    for x, alpha in ((0, 0.75), (0.1, 0.5), (0.26, 0), (0.74, 0), (0.9, 0.5), (1, 0.75))
)
_SHUT = 0.035  # the lips touch below this ``MouthShape.open``
_TONGUE_HIDDEN = 0.8  # lips hide the tongue from this ``MouthShape.round`` on


class _Lips(NamedTuple):
    """The measures of a mouth."""

    width: float  # half of the opening's width
    corner: float  # height of the corners
    top: float  # the opening's upper and lower edge in the middle
    bottom: float
    upper: float  # thickness of the lips
    lower: float
    round: float  # from an almond to an ellipse

    @property
    def opening(self) -> float:
        return self.bottom - self.top


def _measure(mouth: MouthShape, fullness: float, size: float) -> _Lips:
    opened = max(0.0, mouth.open)
    top = -2.0 - 6.5 * min(1.0, opened * 1.1) - 3.0 * mouth.round
    bottom = top if opened < _SHUT else top + opened * 48 + 4 * mouth.round
    pressed = 1 - 0.36 * mouth.press
    corner = -mouth.smile * 11 * (1 - 0.35 * opened) + opened * 13 + mouth.press
    return _Lips(
        width=45 * size * mouth.wide * (1 - 0.16 * mouth.round),
        # Rounded lips form a ring, with the corners halfway down.
        corner=lerp(corner, (top + bottom) / 2 + 1, mouth.round),
        top=top,
        bottom=bottom,
        upper=lerp(4.6, 10.4, fullness) * (1 + 0.30 * mouth.round) * pressed,
        lower=lerp(7.2, 12.6, fullness) * (1 + 0.34 * mouth.round) * pressed,
        round=min(1.0, 0.35 + 0.65 * mouth.round + 0.25 * opened) * min(1.0, opened / 0.12),
    )


def _half(lips: _Lips, middle: float, flat: float, swell: float) -> tuple[Point, Point]:
    """Return the handles of the edge between the right corner and ``middle`` on the y axis."""
    near = lips.width * lerp(flat, 1.0, lips.round)
    far = lips.width * lerp(0.36, 0.56, lips.round)
    return (near, lips.corner + (middle - lips.corner) * lerp(swell, 0.62, lips.round)), (far, middle)


def _edge(lips: _Lips, middle: float, flat: float, swell: float) -> tuple[Point, ...]:
    """Return an edge of the opening, from the left corner to the right one."""
    (nx, ny), (fx, fy) = _half(lips, middle, flat, swell)
    return (-lips.width, lips.corner), (-nx, ny), (-fx, fy), (0, middle), (fx, fy), (nx, ny), (lips.width, lips.corner)


def _opening(lips: _Lips) -> Path:
    upper = _edge(lips, lips.top, 0.66, 0.45)
    lower = _edge(lips, lips.bottom, 0.82, 0.62)
    return cubic_path(*upper, *lower[-2::-1])


def _outer_upper(lips: _Lips) -> tuple[Point, ...]:
    """Return the edge of the upper lip, from the left corner to the right one, with a cupid's bow."""
    end, peak, crest = lips.width + 4.0, lips.width * (0.14 + 0.12 * lips.round), lips.top - lips.upper
    dip = lips.top - lips.upper * 0.74
    side_x = lips.width * lerp(0.70, 0.98, lips.round)
    side_y = lerp(crest + lips.upper * 0.55, lerp(lips.corner, crest, 0.55), lips.round)
    # From an almond with a long slope to a ring.
    slope = lerp(peak * 2.4, lips.width * 0.80, lips.round)
    right = ((peak * 0.45, dip), (peak * 0.55, crest), (peak, crest), (slope, crest), (side_x, side_y))
    left = tuple((-x, y) for x, y in reversed(right))
    return (-end, lips.corner), *left, (0, dip), *right, (end, lips.corner)


def _outer_lower(lips: _Lips) -> tuple[Point, ...]:
    """Return the edge of the lower lip, from the right corner to the left one."""
    end, floor = lips.width + 4.0, lips.bottom + lips.lower
    side_x = lips.width * lerp(0.80, 1.04, lips.round)
    side_y = lerp(lips.corner + (floor - lips.corner) * 0.86, lips.corner + (floor - lips.corner) * 0.62, lips.round)
    far = lips.width * lerp(0.46, 0.58, lips.round)
    return (side_x, side_y), (far, floor), (0, floor), (-far, floor), (-side_x, side_y), (-end, lips.corner)


def draw_mouth(drawing: DisplayList, character: CharacterSpec, mouth: MouthShape) -> None:
    """Draw the mouth with lips, teeth and tongue, a moustache, and the shadow below the lips."""
    lips = _measure(mouth, character.features.lips, proportions(character).mouth_width)
    skin = character.palette.skin
    floor = lips.bottom + lips.lower + 7
    if character.features.beard != "full":
        drawing.fill(ellipse(0, floor, lips.width * 0.55, 6), glow(0, floor, lips.width * 0.55, skin.shade, 0.5))
    if character.features.beard in ("full", "moustache"):
        _draw_moustache(drawing, character, lips)
    _draw_lips(drawing, character, lips)
    if mouth.open > _SHUT:
        _draw_inside(drawing, lips, mouth)
    else:
        _draw_seam(drawing, character, lips, mouth)
    if mouth.tuck > 0.05:
        _draw_bite(drawing, lips, mouth.tuck)
    if character.features.beard != "full":
        _draw_corners(drawing, character, lips, mouth)


def _draw_moustache(drawing: DisplayList, character: CharacterSpec, lips: _Lips) -> None:
    """Draw a moustache. It lies on the skin above the lip, which moves less than the lip, and hardly stretches."""
    hair, alone = character.palette.hair, character.features.beard == "moustache"
    bushy = 1.25 if alone else 1.0
    w, y, end = lerp(56, 28 + lips.width * 0.62, 0.25), lerp(0, lips.top + 2, 0.65), lerp(2, lips.corner + 6, 0.35)
    right = (
        (0, -21 + y), (w * 0.22, -28 * bushy + y), (w * 0.66, -24 * bushy + y), (w * 0.98, end - 7),
        (w * 1.02, end - 3), (w * 0.98, end + 1), (w * 0.92, end - 2),
        (w * 0.64, (end + y) / 2 - 10), (w * 0.28, -10 + y), (0, -9.5 + y),
    )  # fmt: skip
    shape = cubic_path(*right, *((-x, py) for x, py in right[-2::-1]))
    paint = vertical_gradient(-30 + y, 4 + y, mix(hair.base, hair.light, 0.25), hair.base, hair.shade)
    drawing.fill(shape, paint, 1.0 if alone else 0.92)
    strand = cubic_path(
        (w * 0.16, y - 20), (w * 0.36, y - 21), (w * 0.6, y - 14), (w * 0.78, (y + end) / 2 - 9), close=False
    )
    drawing.stroke(both_sides(strand), with_alpha(hair.light, 0.3), 2.0)


def _draw_lips(drawing: DisplayList, character: CharacterSpec, lips: _Lips) -> None:
    tones = character.palette.lips
    upper, lower = _outer_upper(lips), _outer_lower(lips)
    shine = mix(tones.base, tones.light, lerp(0.35, 1.0, character.features.lips))
    floor = lips.bottom + lips.lower
    drawing.fill(cubic_path(*upper, *lower), vertical_gradient(lips.bottom - 1, floor, tones.base, shine, tones.base))
    middle = _edge(lips, max(lips.top, lips.corner - 40), 0.66, 0.45)
    end = upper[-1]
    # Back along the upper edge of the opening, whose handles also suit this wider outline.
    back = (middle[5], middle[4], (0, lips.top + 1.2), middle[2], middle[1], upper[0])
    upper_lip = cubic_path(*upper[:-1], end, *back)
    drawing.fill(upper_lip, vertical_gradient(lips.top - lips.upper, lips.top + 2, tones.base, tones.shade))
    gleam = lips.bottom + lips.lower * 0.48
    alpha = lerp(0.10, 0.32, character.features.lips)
    drawing.fill(ellipse(-lips.width * 0.10, gleam, lips.width * 0.30, lips.lower * 0.19), with_alpha("#ffffff", alpha))


def _draw_inside(drawing: DisplayList, lips: _Lips, mouth: MouthShape) -> None:
    shape = _opening(lips)
    drawing.fill(shape, vertical_gradient(lips.top, max(lips.bottom, lips.top + 8), _DARK, _THROAT))
    with drawing.clipped(shape):
        if mouth.round < _TONGUE_HIDDEN:
            _draw_tongue(drawing, lips, mouth)
        if mouth.lower_teeth > 0.02:
            _draw_lower_teeth(drawing, lips, mouth)
        if mouth.upper_teeth > 0.02:
            _draw_upper_teeth(drawing, lips, mouth)
        # The shadow of the upper lip, which makes the teeth appear behind it.
        upper = _edge(lips, lips.top, 0.66, 0.45)
        drawing.stroke(cubic_path(*upper, close=False), with_alpha("#2A0A10", 0.32), 5)


def _draw_tongue(drawing: DisplayList, lips: _Lips, mouth: MouthShape) -> None:
    # Rounded lips hide it.
    low = lips.bottom - (5 + 14 * mouth.tongue) * min(1.0, mouth.open * 1.6) * (1 - mouth.round)
    raised = lips.top + 9
    # Above 0.6, the tip of the tongue rises from the floor towards the teeth.
    y = lerp(low, raised, min(1.0, max(0.0, (mouth.tongue - 0.6) / 0.3)))
    width = lips.width * 0.66
    drawing.fill(ellipse(0, y + 22, width, 23), vertical_gradient(y - 2, y + 26, "#EF9090", "#C2535C"))
    if mouth.open > 0.25:
        line = svg_path(f"M 0 {y + 5:.2f} C 0.8 {y + 10:.2f} 0.8 {y + 15:.2f} 0 {y + 20:.2f}")
        drawing.stroke(line, with_alpha("#A8434E", 0.45), 1.6)


def _draw_upper_teeth(drawing: DisplayList, lips: _Lips, mouth: MouthShape) -> None:
    edge = lips.top + (4.0 + 8.5 * min(1.2, mouth.open * 1.7)) * mouth.upper_teeth + 4 * mouth.tuck
    w, roof = lips.width, min(lips.top, lips.corner) - 14
    points = (
        (-w * 0.9, roof), (-w * 0.9, roof), (-w * 0.9, edge - 6), (-w * 0.9, edge - 6),
        (-w * 0.70, edge + 0.6), (-w * 0.34, edge + 1.2), (0, edge + 1.2),
        (w * 0.34, edge + 1.2), (w * 0.70, edge + 0.6), (w * 0.9, edge - 6),
        (w * 0.9, edge - 6), (w * 0.9, roof), (w * 0.9, roof),
    )  # fmt: skip
    shape = cubic_path(*points)
    drawing.fill(shape, vertical_gradient(lips.top, edge + 2, "#E2D5CF", _TEETH, "#F6EDE8"))
    drawing.fill(shape, LinearGradient(-w, 0, w, 0, _TEETH_SHADOW))
    _draw_gaps(drawing, w, lips.top - 2, edge - 0.8, (-0.64, -0.42, -0.2, 0.0, 0.2, 0.42, 0.64))


def _draw_lower_teeth(drawing: DisplayList, lips: _Lips, mouth: MouthShape) -> None:
    edge = lips.bottom - (2.5 + 5.2 * min(1.0, mouth.open * 2.4)) * mouth.lower_teeth
    w, floor = lips.width * 0.74, lips.bottom + 8
    points = (
        (-w, floor), (-w, floor), (-w, edge + 3.5), (-w, edge + 3.5),
        (-w * 0.55, edge - 0.6), (w * 0.55, edge - 0.6), (w, edge + 3.5),
        (w, edge + 3.5), (w, floor), (w, floor),
    )  # fmt: skip
    shape = cubic_path(*points)
    drawing.fill(shape, "#EFE4DF")
    drawing.fill(shape, LinearGradient(-w, 0, w, 0, _TEETH_SHADOW))
    _draw_gaps(drawing, lips.width, edge + 1.4, lips.bottom + 2, (-0.3, -0.1, 0.1, 0.3))


def _draw_gaps(drawing: DisplayList, width: float, top: float, bottom: float, places: tuple[float, ...]) -> None:
    lines = [((width * x, top), (width * x, bottom)) for x in places]
    path = Path((1, 2) * len(lines), tuple(point for line in lines for point in line))
    drawing.stroke(path, with_alpha(_GAPS, 0.4), 1.0)


def _draw_seam(drawing: DisplayList, character: CharacterSpec, lips: _Lips, mouth: MouthShape) -> None:
    # The middle of the upper lip reaches a little further down.
    x, y, end = lips.width, lips.top + 0.6, lips.width + 3.6
    right = (
        (x * 0.08, y + 2.2),
        (x * 0.16, y),
        (x * 0.32, y),
        (x * 0.55, y),
        (x * 0.8, lips.corner + (y - lips.corner) * 0.6),
    )
    left = tuple((-px, py) for px, py in reversed(right))
    path = cubic_path((-end, lips.corner), *left, (0, y + 2.2), *right, (end, lips.corner), close=False)
    drawing.stroke(path, with_alpha(mix(character.palette.lips.shade, "#3A0F18", 0.55), 0.85), 2.2 + 0.5 * mouth.press)


def _draw_bite(drawing: DisplayList, lips: _Lips, tuck: float) -> None:
    """Draw the upper teeth on the lower lip, as for f and v."""
    w, y, depth = lips.width, lips.bottom, 4.4 * tuck
    points = (
        (-w * 0.58, y - 3), (-w * 0.3, y - 5.6), (w * 0.3, y - 5.6), (w * 0.58, y - 3),
        (w * 0.54, y + depth * 0.7), (w * 0.24, y + depth), (0, y + depth),
        (-w * 0.24, y + depth), (-w * 0.54, y + depth * 0.7), (-w * 0.58, y - 3),
    )  # fmt: skip
    drawing.fill(cubic_path(*points), _TEETH, min(1.0, tuck * 1.5))
    _draw_gaps(drawing, w, y - 3, y + depth * 0.7, (-0.3, -0.1, 0.1, 0.3))


def _draw_corners(drawing: DisplayList, character: CharacterSpec, lips: _Lips, mouth: MouthShape) -> None:
    skin, x, y = character.palette.skin, lips.width + 4.5, lips.corner
    dark = mix(skin.shade, character.palette.lips.shade, 0.5)
    corner = ellipse(x, y, 2.4, 2.0)
    drawing.fill(both_sides(corner), with_alpha(dark, 0.5))
    if mouth.smile > 0.05:
        dimple = cubic_path((x + 5, y - 9), (x + 9, y - 4), (x + 9, y + 3), (x + 5.5, y + 7), close=False)
        tone = with_alpha(skin.shade, 0.4 * min(1.0, mouth.smile))
        drawing.stroke(both_sides(dimple), tone, 2.0)
    # The cheek folds over the corner of a mouth that smiles or opens. Older faces have lines there anyway.
    fold = max(0.0, mouth.smile - 0.45) + 0.4 * mouth.open * (1 - mouth.round)
    if fold > 0.05 and character.features.age <= 0.25:
        line = cubic_path((27, -46), (x * 0.55 + 17, -37), (x + 9, y - 28), (x + 13, y - 10), close=False)
        drawing.stroke(both_sides(line), with_alpha(dark, 0.34 * min(1.0, fold)), 2.2)
