"""Hairstyles: the hair behind the head, the hair in front of it, and its shadow on the forehead."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import LinearGradient, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import (
    Path,
    both_sides,
    closed_spline,
    ellipse,
    join_paths,
    mirror_points,
    rotate,
    svg_path,
    tapered,
    translate,
)

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec, Tones


@lru_cache(maxsize=64)
def back(character: CharacterSpec) -> Group:
    """Return the hair behind the neck and the ears."""
    drawing = DisplayList()
    _BACKS.get(character.features.hair, _cropped_back)(drawing, character.palette.hair)
    return drawing.static_group()


@lru_cache(maxsize=64)
def front(character: CharacterSpec) -> Group:
    """Return the hair in front of the face."""
    drawing = DisplayList()
    _FRONTS[character.features.hair](drawing, character.palette.hair)
    return drawing.static_group()


def covers_ears(character: CharacterSpec) -> bool:
    """Whether the hair hangs over the ears."""
    return character.features.hair in ("long", "bob")


@lru_cache(maxsize=64)
def shadow(character: CharacterSpec) -> Group:
    """Return the shadow of the hair; to be clipped to the outline of the face."""
    drawing = DisplayList()
    colour = mix(character.palette.skin.shade, "#5A2628", 0.25)
    shade = LinearGradient(-30, -170, 0, 70, ((0, with_alpha(colour, 0.52)), (1, with_alpha(colour, 0.26))))
    drawing.fill(svg_path(_SHADOWS[character.features.hair]), shade)
    return drawing.static_group()


def _sheen(hair: Tones) -> str:
    return mix(hair.light, "#E0A888", 0.18)


def _draw_strands(drawing: DisplayList, lines: str, width: float, colour: str, alpha: float) -> None:
    drawing.fill(tapered(lines, width), with_alpha(colour, alpha))


def _long_back(drawing: DisplayList, hair: Tones) -> None:
    right = [
        (0, -196),
        (86, -182),
        (142, -122),
        (158, -30),
        (160, 60),
        (172, 140),
        (168, 214),
        (122, 254),
        (60, 240),
        (0, 226),
    ]
    drawing.fill(closed_spline(mirror_points(right)), vertical_gradient(-190, 250, hair.base, hair.shade, hair.shade))
    light = tapered("M 142 -20 C 150 60 162 130 146 226 M 128 20 C 132 110 142 160 116 236", 7.0)
    drawing.fill(both_sides(light), with_alpha(hair.light, 0.34))


def _long_front(drawing: DisplayList, hair: Tones) -> None:
    right = "M -44 -172 C -6 -150 64 -128 100 -62 C 116 -30 116 10 118 60 C 120 104 128 150 120 196 C 146 190 166 150 162 96 C 160 40 166 -40 146 -104 C 122 -178 60 -214 0 -208 C -28 -206 -44 -190 -44 -172 Z"
    left = "M -40 -174 C -62 -150 -92 -110 -106 -58 C -114 -24 -116 10 -118 62 C -120 106 -130 150 -120 198 C -148 190 -168 150 -162 92 C -158 30 -168 -46 -146 -108 C -126 -168 -84 -200 -44 -206 C -30 -206 -30 -188 -40 -174 Z"
    drawing.fill(
        svg_path(right), LinearGradient(-100, -200, 120, 140, ((0, hair.light), (0.3, hair.base), (1, hair.shade)))
    )
    drawing.fill(
        svg_path(left),
        LinearGradient(-150, -190, -90, 160, ((0, hair.base), (0.35, hair.light), (0.7, hair.base), (1, hair.shade))),
    )
    # Light that runs across the crown, then strands, which begin at the parting and end in points.
    sheen = "M -24 -196 C 50 -190 112 -150 132 -64 M -60 -192 C -108 -152 -136 -104 -140 -30"
    _draw_strands(drawing, sheen, 26, _sheen(hair), 0.20)
    light = (
        "M -28 -192 C 50 -190 118 -150 140 -50 C 148 10 148 80 146 150 M -36 -182 C 20 -178 96 -150 124 -70 "
        "M 126 -20 C 132 60 134 120 128 186 M -48 -184 C -92 -152 -124 -108 -130 -40 C -134 20 -136 80 -132 150 "
        "M -58 -192 C -108 -162 -140 -110 -146 -40"
    )
    _draw_strands(drawing, light, 6.0, _sheen(hair), 0.50)
    dark = (
        "M -40 -176 C 10 -164 80 -130 112 -54 M 148 -90 C 160 -30 158 40 156 100 "
        "M -44 -178 C -80 -146 -112 -100 -118 -36 M -152 -70 C -162 -10 -158 50 -158 100"
    )
    _draw_strands(drawing, dark, 5.0, hair.shade, 0.75)


def _bob_back(drawing: DisplayList, hair: Tones) -> None:
    right = [(0, -200), (88, -186), (146, -120), (160, -30), (164, 50), (156, 112), (118, 142), (60, 120), (0, 110)]
    drawing.fill(closed_spline(mirror_points(right)), vertical_gradient(-190, 140, hair.base, hair.shade, hair.shade))


def _bob_front(drawing: DisplayList, hair: Tones) -> None:
    cap = "M 42 -176 C 8 -138 -58 -108 -98 -62 C -112 -30 -112 10 -112 52 C -114 86 -124 112 -122 136 C -152 132 -172 92 -166 40 C -164 -20 -164 -70 -146 -114 C -118 -182 -56 -216 6 -212 C 84 -212 136 -168 152 -104 C 166 -50 164 0 167 44 C 171 94 152 134 122 138 C 122 110 112 84 112 50 C 112 8 114 -34 104 -70 C 92 -112 66 -142 42 -176 Z"
    drawing.fill(
        svg_path(cap), LinearGradient(-120, -200, 130, 130, ((0, hair.light), (0.4, hair.base), (1, hair.shade)))
    )
    light = (
        "M 34 -186 C -20 -150 -94 -116 -124 -60 C -134 -20 -136 30 -134 84 M 26 -194 C -40 -170 -112 -138 -138 -70 "
        "C -150 -20 -150 40 -148 92 M 0 -204 C -70 -186 -126 -150 -150 -84 M -122 -10 C -128 40 -132 70 -130 116 "
        "M 50 -182 C 92 -152 120 -108 128 -46 C 134 0 134 50 132 96 M 60 -198 C 106 -170 136 -128 142 -64 M 142 -20 C 148 30 150 60 146 104"
    )
    _draw_strands(drawing, light, 6.0, mix(hair.light, "#ffffff", 0.25), 0.75)
    dark = (
        "M 38 -180 C -8 -142 -78 -112 -112 -58 C -124 -10 -120 40 -126 104 M -142 -96 C -158 -40 -160 20 -158 70 "
        "M 46 -178 C 80 -144 108 -104 116 -40 C 124 10 120 60 124 104 M 150 -90 C 160 -30 158 30 160 70"
    )
    _draw_strands(drawing, dark, 5.0, hair.shade, 0.60)


def _cloud(y: float, rx: float, ry: float, *, start: float, end: float, count: int, size: float) -> Path:
    """Return curls along an arc (degrees, clockwise from the right) around a point of the y axis; every second one is smaller."""
    curls = []
    for i in range(count):
        angle = math.radians(start + (end - start) * i / (count - 1))
        curls.append(ellipse(rx * math.cos(angle), y + ry * math.sin(angle), size * (1.0 if i % 2 else 0.84)))
    return join_paths(*curls)


def _curls_back(drawing: DisplayList, hair: Tones) -> None:
    shape = join_paths(ellipse(0, -58, 168, 160), _cloud(-58, 160, 150, start=120, end=420, count=19, size=44))
    drawing.fill(shape, vertical_gradient(-230, 120, hair.base, hair.shade, hair.shade))


def _curls_front(drawing: DisplayList, hair: Tones) -> None:
    crown = join_paths(
        _cloud(-60, 118, 92, start=172, end=368, count=11, size=31),
        _cloud(-74, 134, 112, start=170, end=370, count=13, size=33),
        _cloud(-80, 112, 104, start=200, end=340, count=9, size=36),
    )
    drawing.fill(
        crown,
        LinearGradient(-110, -230, 110, 0, ((0, mix(hair.base, hair.light, 0.55)), (0.45, hair.base), (1, hair.shade))),
    )
    for number, (x, y, r) in enumerate(_RINGLETS):
        # Open curls, which turn in different directions.
        turn = 40 * (number % 5) - 80
        arc = tapered(
            f"M {-r} {r * 0.3:.1f} C {-r * 1.05:.1f} {-r * 0.9:.1f} {r * 0.7:.1f} {-r * 1.2:.1f} {r * 0.95:.1f} {-r * 0.1:.1f}",
            4.6,
        )
        drawing.fill(arc.moved(translate(x, y) @ rotate(turn)), with_alpha(hair.light, 0.62 if number % 2 else 0.42))


_RINGLETS = (
    (-112, -112, 15), (-78, -150, 17), (-38, -172, 16), (4, -182, 18), (48, -174, 16), (86, -148, 17), (116, -110, 15),
    (-96, -84, 12), (-58, -122, 13), (-14, -142, 14), (30, -140, 13), (66, -118, 13), (100, -80, 12),
    (-134, -70, 14), (136, -66, 14), (-20, -206, 15), (30, -210, 14), (-66, -190, 15), (76, -190, 14),
)  # fmt: skip


def _short_front(drawing: DisplayList, hair: Tones) -> None:
    cap = "M -113 -18 C -120 -60 -124 -120 -92 -160 C -70 -196 -10 -214 44 -204 C 96 -196 126 -150 122 -96 C 122 -66 118 -40 113 -18 C 110 -50 106 -72 96 -92 C 84 -108 60 -112 34 -118 C -10 -126 -50 -128 -78 -112 C -98 -98 -108 -62 -113 -18 Z"
    drawing.fill(
        svg_path(cap), LinearGradient(-60, -210, 60, -40, ((0, hair.light), (0.35, hair.base), (1, hair.shade)))
    )
    top = "M -92 -150 C -60 -190 20 -204 80 -176 C 40 -182 -20 -176 -56 -150 C -70 -140 -84 -136 -92 -150 Z"
    drawing.fill(svg_path(top), with_alpha(hair.light, 0.55))
    light = (
        "M -92 -122 C -60 -158 10 -172 100 -132 M -84 -112 C -40 -146 40 -152 108 -112 M -98 -140 C -64 -178 10 -190 96 -156 "
        "M -80 -162 C -40 -190 20 -194 84 -172"
    )
    _draw_strands(drawing, light, 5.0, hair.light, 0.50)
    dark = "M -88 -116 C -50 -152 30 -162 104 -122 M -96 -130 C -60 -168 10 -182 98 -144"
    _draw_strands(drawing, dark, 3.6, hair.shade, 0.7)
    # The sides are shaved shorter.
    side = "M 110 -26 C 116 -52 116 -80 110 -104 M 104 -50 C 108 -70 106 -88 100 -100"
    drawing.fill(both_sides(tapered(side, 5.0)), with_alpha(hair.light, 0.28))


def _tousled_front(drawing: DisplayList, hair: Tones) -> None:
    cap = (
        "M -114 -14 C -126 -52 -132 -96 -114 -134 C -126 -146 -128 -160 -122 -172 C -108 -170 -98 -176 -88 -186 "
        "C -92 -202 -84 -214 -70 -220 C -58 -212 -44 -212 -30 -214 C -22 -226 -4 -234 12 -230 C 20 -220 34 -216 48 -216 "
        "C 62 -222 80 -216 88 -204 C 92 -194 102 -188 114 -184 C 128 -176 134 -160 128 -146 C 134 -104 128 -56 114 -14 "
        "C 112 -44 110 -64 104 -80 C 96 -92 88 -98 76 -102 C 78 -112 74 -122 66 -128 C 58 -112 42 -102 22 -98 "
        "C 28 -108 28 -118 22 -126 C 6 -106 -22 -94 -50 -92 C -42 -102 -40 -112 -44 -120 C -62 -106 -84 -92 -98 -72 "
        "C -108 -54 -112 -36 -114 -14 Z"
    )
    drawing.fill(
        svg_path(cap), LinearGradient(-70, -225, 70, -30, ((0, hair.light), (0.42, hair.base), (1, hair.shade)))
    )
    light = "M -86 -176 C -66 -196 -36 -202 -14 -198 M -30 -200 C 0 -216 36 -208 60 -196 M 48 -196 C 76 -192 100 -176 108 -154 M -104 -130 C -98 -150 -84 -162 -66 -166"
    light += (
        " M -78 -150 C -70 -176 -52 -190 -30 -194 M -8 -140 C 4 -168 22 -184 50 -188 "
        "M -66 -112 C -56 -130 -50 -146 -48 -166"
    )
    _draw_strands(drawing, light, 8.0, _sheen(hair), 0.62)
    dark = "M 66 -128 C 78 -142 84 -152 84 -166 M 22 -126 C 36 -138 42 -152 42 -168 M -44 -120 C -28 -132 -20 -146 -20 -162 M -98 -84 C -98 -108 -92 -124 -80 -140 M -62 -104 C -54 -124 -52 -136 -54 -152 M 100 -84 C 110 -108 112 -130 108 -150"
    _draw_strands(drawing, dark, 6.0, hair.shade, 0.7)


def _receding_front(drawing: DisplayList, hair: Tones) -> None:
    side = "M 112 0 C 124 -40 128 -92 112 -132 C 98 -162 70 -178 44 -182 C 62 -168 78 -152 88 -128 C 100 -98 104 -52 112 0 Z"
    top = "M -48 -181 C -22 -196 24 -198 52 -180 C 78 -170 96 -150 104 -126 C 86 -146 54 -158 20 -160 C -14 -162 -54 -156 -84 -132 C -100 -120 -102 -118 -106 -120 C -98 -146 -76 -170 -48 -181 Z"
    paint = LinearGradient(-60, -200, 60, -30, ((0, hair.light), (0.45, hair.base), (1, hair.shade)))
    drawing.fill(both_sides(svg_path(side)), paint)
    drawing.fill(svg_path(top), paint)
    light = (
        "M -96 -128 C -60 -174 20 -186 84 -152 M -80 -138 C -40 -170 20 -174 66 -162 M -52 -176 C -20 -190 24 -190 56 -174 "
        "M -64 -152 C -30 -172 10 -176 44 -166"
    )
    _draw_strands(drawing, light, 5.0, hair.light, 0.8)
    dark = "M -90 -132 C -54 -168 16 -178 78 -150 M -70 -158 C -30 -184 20 -186 62 -168"
    _draw_strands(drawing, dark, 3.4, hair.shade, 0.7)
    greying = (
        "M 114 -20 C 121 -60 118 -96 106 -124 M 109 -16 C 114 -54 110 -86 98 -110 M 116 -50 C 120 -80 114 -106 102 -128"
    )
    drawing.fill(both_sides(tapered(greying, 4.6)), with_alpha(mix(hair.light, "#ffffff", 0.35), 0.7))


def _cropped_back(drawing: DisplayList, hair: Tones) -> None:
    right = [(0, -186), (70, -172), (112, -122), (117, -50), (108, 6), (0, 0)]
    drawing.fill(closed_spline(mirror_points(right)), vertical_gradient(-180, 0, hair.base, hair.shade))


_BACKS = {"long": _long_back, "bob": _bob_back, "curls": _curls_back}
_FRONTS = {
    "long": _long_front,
    "bob": _bob_front,
    "curls": _curls_front,
    "short": _short_front,
    "tousled": _tousled_front,
    "receding": _receding_front,
}
_SHADOWS = {
    "long": "M -130 -200 L 130 -200 L 130 40 L 112 70 C 112 20 112 -20 96 -50 C 62 -112 -4 -134 -42 -156 C -60 -134 -90 -98 -103 -44 C -110 -14 -110 20 -112 70 L -130 70 Z",
    "bob": "M -130 -200 L 130 -200 L 130 70 L 108 70 C 104 20 106 -24 98 -58 C 86 -100 62 -128 40 -160 C 6 -122 -54 -94 -92 -46 C -106 -14 -104 30 -108 70 L -130 70 Z",
    "curls": "M -130 -200 L 130 -200 L 122 10 C 112 -30 100 -62 84 -84 C 50 -112 -50 -112 -84 -84 C -100 -62 -112 -30 -122 10 Z",
    "short": "M -130 -200 L 130 -200 L 116 -8 C 110 -36 104 -60 94 -78 C 80 -94 58 -98 32 -104 C -10 -112 -48 -114 -74 -98 C -94 -84 -106 -50 -114 -8 Z",
    "tousled": "M -130 -200 L 130 -200 L 118 0 C 110 -36 104 -58 94 -70 C 80 -84 70 -88 62 -104 C 50 -92 30 -86 12 -84 C 0 -92 -30 -80 -60 -78 C -80 -66 -100 -44 -114 0 Z",
    "receding": "M -130 -200 L 130 -200 L 116 0 C 104 -60 100 -100 84 -122 C 50 -148 -50 -150 -84 -120 C -98 -96 -104 -60 -116 0 Z",
}
