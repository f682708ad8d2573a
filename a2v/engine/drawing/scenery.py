"""Scenes: what is behind a character.

Scenes are calm: they use the palette's colours for backdrop and disc, and mixtures of these, in large shapes with low contrast.
They extend beyond the square of the drawing, because portrait and landscape videos show more. A scene is drawn once per video.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import LinearGradient, glow, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.display_list import WHITE, DisplayList
from a2v.engine.drawing.geometry import (
    Path,
    cubic_path,
    ellipse,
    join_paths,
    rectangle,
    rotate,
    svg_path,
    translate,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2v.engine.characters import CharacterSpec, Palette
    from a2v.engine.drawing.display_list import Item

_MIDDLE = 360.0
_LEFT, _TOP, _WIDTH, _HEIGHT = -720, -720, 2160, 2160
_BOTTOM = _TOP + _HEIGHT
_WHOLE = rectangle(_LEFT, _TOP, _WIDTH, _HEIGHT)


def backdrop(character: CharacterSpec) -> list[Item]:
    """Return the scene behind a character."""
    drawing = DisplayList()
    palette = character.palette
    top, bottom = palette.backdrop
    drawing.fill(_WHOLE, LinearGradient(0, -120, 0, 760, ((0, top), (1, bottom))))
    # Light from the upper left, as on the face.
    drawing.fill(_WHOLE, glow(120, 40, 620, WHITE, 0.42))
    _SCENES[character.features.scene](drawing, palette)
    # A soft shadow of the person, which separates them from the scene.
    drawing.fill(_WHOLE, glow(_MIDDLE + 26, 420, 330, mix(bottom, "#20203A", 0.5), 0.26))
    return drawing.items


def plain_backdrop(colour: str) -> list[Item]:
    """Return a backdrop of one colour."""
    drawing = DisplayList()
    drawing.fill(_WHOLE, colour)
    return drawing.items


def _disc(drawing: DisplayList, palette: Palette) -> None:
    disc = palette.disc
    drawing.fill(ellipse(_MIDDLE, 330, 268), LinearGradient(120, 60, 560, 600, ((0, disc), (1, with_alpha(disc, 0.5)))))
    drawing.stroke(ellipse(_MIDDLE, 330, 292), with_alpha(WHITE, 0.34), 2.5)


# -- arches -----------------------------------------------------------------------------------------------------------


def _arches(drawing: DisplayList, palette: Palette) -> None:
    """Draw arches within each other behind the head, and smaller ones at both sides."""
    _, bottom = palette.backdrop
    tones = [mix(palette.disc, bottom, share) for share in (0.55, 0.25, 0.0)]
    for x, base, size in ((-190, 300, 0.62), (_MIDDLE, 330, 1.0), (910, 300, 0.62)):
        for radius, tone in zip((306, 240, 174), tones, strict=True):
            arch = _arch(x, base, radius * size)
            light = LinearGradient(
                x - radius, 0, x + radius, 0, ((0, mix(tone, WHITE, 0.25)), (1, mix(tone, bottom, 0.25)))
            )
            drawing.fill(arch, light, 1.0 if x == _MIDDLE else 0.55)


def _arch(x: float, base: float, radius: float) -> Path:
    """Return an arch whose half circle stands on the height ``base``."""
    k = radius * 0.5523
    return cubic_path(
        (x - radius, base), (x - radius, base - k), (x - k, base - radius), (x, base - radius),
        (x + k, base - radius), (x + radius, base - k), (x + radius, base),
        (x + radius, base), (x + radius, _BOTTOM), (x + radius, _BOTTOM),
        (x + radius, _BOTTOM), (x - radius, _BOTTOM), (x - radius, _BOTTOM),
    )  # fmt: skip


# -- window -----------------------------------------------------------------------------------------------------------


def _window(drawing: DisplayList, palette: Palette) -> None:
    """Draw a room with a window on the left, and a picture and a lamp on the right."""
    top, bottom = palette.backdrop
    frame = mix(top, WHITE, 0.75)
    left, upper, width, height = -250, -60, 400, 500
    drawing.fill(rectangle(left - 14, upper - 14, width + 28, height + 28), frame)
    for column in range(2):
        for row in range(2):
            x, y = left + 10 + column * 196, upper + 10 + row * 246
            pane = rectangle(x, y, 184, 234)
            drawing.fill(
                pane, vertical_gradient(upper, upper + height, mix(top, WHITE, 0.6), mix(palette.disc, WHITE, 0.45))
            )
            with drawing.clipped(pane):
                drawing.fill(ellipse(-60, 520, 260, 190), with_alpha(mix(bottom, WHITE, 0.3), 0.75))
                drawing.fill(ellipse(130, 540, 180, 150), with_alpha(bottom, 0.45))
    drawing.fill(
        rectangle(left - 34, upper + height + 14, width + 68, 20),
        vertical_gradient(454, 474, frame, mix(top, bottom, 0.4)),
    )
    # Daylight that falls through the window onto the wall.
    drawing.fill(
        svg_path("M 230 -200 L 560 -200 L 1010 760 L 590 760 Z"),
        LinearGradient(300, 0, 900, 0, ((0, with_alpha(WHITE, 0.26)), (1, with_alpha(WHITE, 0.05)))),
    )
    _picture_on_the_wall(drawing, palette, 588, 96)
    # A lamp, which landscapes show.
    drawing.stroke(svg_path("M 860 -400 L 860 84"), with_alpha(mix(bottom, "#20303A", 0.5), 0.5), 3)
    shade = svg_path("M 812 172 C 814 120 838 84 860 84 C 882 84 906 120 908 172 Z")
    drawing.fill(
        shade,
        LinearGradient(812, 0, 908, 0, ((0, mix(palette.disc, WHITE, 0.25)), (1, mix(palette.disc, bottom, 0.35)))),
    )


def _picture_on_the_wall(drawing: DisplayList, palette: Palette, x: float, y: float) -> None:
    top, bottom = palette.backdrop
    drawing.fill(rectangle(x + 5, y + 7, 132, 168), with_alpha(mix(bottom, "#20303A", 0.5), 0.16))
    drawing.fill(rectangle(x, y, 132, 168), mix(top, WHITE, 0.7))
    inside = rectangle(x + 12, y + 12, 108, 144)
    drawing.fill(inside, vertical_gradient(y, y + 168, mix(palette.disc, WHITE, 0.35), palette.disc))
    with drawing.clipped(inside):
        drawing.fill(ellipse(x + 82, y + 58, 22), mix(palette.disc, WHITE, 0.65))
        drawing.fill(ellipse(x + 30, y + 176, 74, 66), mix(bottom, palette.disc, 0.35))
        drawing.fill(ellipse(x + 112, y + 182, 60, 52), mix(bottom, palette.disc, 0.1))


# -- hills ------------------------------------------------------------------------------------------------------------


def _hills(drawing: DisplayList, palette: Palette) -> None:
    """Draw a landscape: the sun, clouds, and hills that fade with the distance."""
    top, bottom = palette.backdrop
    # Beside the head in all its postures.
    drawing.fill(ellipse(628, 124, 250), glow(628, 124, 250, mix(palette.disc, WHITE, 0.3), 0.75))
    drawing.fill(ellipse(628, 124, 66), vertical_gradient(58, 190, mix(palette.disc, WHITE, 0.2), palette.disc))
    for x, y, size in ((60, 130, 1.0), (-190, 60, 0.8), (830, 90, 1.1), (160, -60, 0.7)):
        cloud = [ellipse(x + dx * size, y + dy * size, rx * size, ry * size) for dx, dy, rx, ry in _CLOUD]
        drawing.fill(join_paths(*cloud), with_alpha(WHITE, 0.5))
    ranges = (
        ("M -720 330 C -480 250 -330 300 -170 346 C -20 388 60 300 190 300 C 330 300 430 390 560 380 C 690 368 800 280 940 300 C 1120 326 1260 350 1440 330 L 1440 1440 L -720 1440 Z", 0.35),
        ("M -720 440 C -520 400 -360 350 -200 390 C -60 424 20 470 170 440 C 320 410 470 430 600 450 C 760 474 860 390 1010 400 C 1180 412 1300 440 1440 430 L 1440 1440 L -720 1440 Z", 0.70),
        ("M -720 520 C -500 500 -340 520 -190 500 C -20 478 90 520 250 540 C 420 560 560 540 700 510 C 860 478 980 530 1120 520 C 1260 512 1360 520 1440 516 L 1440 1440 L -720 1440 Z", 1.0),
    )  # fmt: skip
    for outline, near in ranges:
        colour = mix(mix(top, WHITE, 0.2), mix(bottom, "#5E8C62", 0.16), near)
        drawing.fill(svg_path(outline), vertical_gradient(280, 640, mix(colour, WHITE, 0.22), colour, colour))


_CLOUD = ((-46, 4, 40, 20), (-8, -10, 44, 32), (36, 2, 40, 22), (0, 10, 82, 14))


# -- leaves -----------------------------------------------------------------------------------------------------------


def _leaves(drawing: DisplayList, palette: Palette) -> None:
    """Draw a pale disc, and palm leaves that reach in from the sides."""
    top, bottom = palette.backdrop
    drawing.fill(ellipse(_MIDDLE, 320, 282), glow(_MIDDLE, 320, 282, mix(top, WHITE, 0.7), 0.5))
    fronds = (
        (-40, 640, -62, 430, 0.55), (30, 760, -88, 470, 0.85), (-190, 700, -72, 520, 0.7),
        (770, 640, -118, 420, 0.55), (700, 770, -92, 470, 0.85), (930, 720, -106, 540, 0.7),
        (-60, -130, 62, 300, 0.4), (800, -150, 118, 320, 0.4),
    )  # fmt: skip
    for x, y, angle, length, strength in fronds:
        tone = mix(mix(top, bottom, 0.6), palette.disc, strength)
        drawing.fill(
            _frond(x, y, angle, length),
            LinearGradient(x, y - length, x + length * 0.3, y, ((0, mix(tone, top, 0.35)), (1, tone))),
            0.55,
        )


def _frond(x: float, y: float, angle: float, length: float) -> Path:
    """Return a palm leaf: a curved stem with narrow leaflets on both sides."""
    parts = []
    for number in range(11):
        place = 0.16 + 0.084 * number
        reach = length * 0.40 * math.sin(math.pi * (0.12 + 0.80 * place)) + 16
        bend = 14 * place**2 * length / 300
        for side in (-1, 1):
            turn = angle + side * (52 - 34 * place)
            at = _towards(x, y + bend, angle, length * place)
            parts.append(_leaflet(*at, turn, reach))
    parts.append(_leaflet(x, y, angle, length * 1.12, 0.018))
    return join_paths(*parts)


def _leaflet(x: float, y: float, angle: float, length: float, width: float = 0.085) -> Path:
    half = length * width
    blade = cubic_path(
        (0, 0), (length * 0.25, -half * 1.3), (length * 0.7, -half), (length, 0),
        (length * 0.7, half), (length * 0.25, half * 1.3), (0, 0),
    )  # fmt: skip
    return blade.moved(translate(x, y) @ rotate(angle))


def _towards(x: float, y: float, angle: float, distance: float) -> tuple[float, float]:
    return x + distance * math.cos(math.radians(angle)), y + distance * math.sin(math.radians(angle))


# -- shelf ------------------------------------------------------------------------------------------------------------


def _shelf(drawing: DisplayList, palette: Palette) -> None:
    """Draw shelves with books, a plant and a vase at both sides of the person."""
    top, bottom = palette.backdrop
    board = mix(mix(top, bottom, 0.5), WHITE, 0.45)
    for y in (-96, 142, 384, 626):
        drawing.fill(
            rectangle(_LEFT, y + 16, _WIDTH, 26),
            vertical_gradient(y + 16, y + 42, with_alpha(mix(bottom, "#402A30", 0.4), 0.22), with_alpha(bottom, 0.0)),
        )
        drawing.fill(rectangle(_LEFT, y, _WIDTH, 16), vertical_gradient(y, y + 16, mix(board, WHITE, 0.4), board))
    tones = (
        mix(bottom, palette.disc, 0.15), mix(palette.disc, WHITE, 0.1), mix(bottom, "#7A4A50", 0.22), mix(palette.disc, "#3E5A52", 0.25),
        mix(top, WHITE, 0.4), mix(bottom, palette.disc, 0.6),
    )  # fmt: skip
    _books(drawing, tones, -268, 142, (0, 3, 1, 4, 2, 5, 3))
    _books(drawing, tones, 4, 142, (2, 4, 0, 1, 5))
    _books(drawing, tones, -30, 384, (1, 5, 0, 3))
    _books(drawing, tones, -300, 384, (4, 2, 5, 0))
    _books(drawing, tones, 610, 384, (3, 0, 4, 1, 2, 5))
    _books(drawing, tones, 850, 142, (5, 1, 3, 0, 2))
    _books(drawing, tones, 860, 626, (0, 4, 1, 3))
    _books(drawing, tones, -260, 626, (5, 3, 2, 0, 1))
    _vase(drawing, palette, 636, 142)
    _vase(drawing, palette, -140, 384)


def _books(drawing: DisplayList, tones: Sequence[str], x: float, floor: float, order: Sequence[int]) -> None:
    """Draw a row of books that stand on the floor of a shelf; ``order`` are their colours."""
    for number, tone in enumerate(order):
        width, height = 22 + 5 * ((tone * 3 + number) % 4), 116 + 9 * ((tone * 5 + number * 2) % 7)
        spine = rectangle(x, floor - height, width - 1.5, height)
        colour = tones[tone]
        drawing.fill(
            spine,
            LinearGradient(
                x, 0, x + width, 0, ((0, mix(colour, WHITE, 0.22)), (0.35, colour), (1, mix(colour, "#302028", 0.10)))
            ),
        )
        drawing.fill(rectangle(x, floor - height + 18, width - 1.5, 5), with_alpha(WHITE, 0.35))
        x += width


def _vase(drawing: DisplayList, palette: Palette, x: float, floor: float) -> None:
    top, bottom = palette.backdrop
    green = mix(palette.disc, "#5E7F68", 0.35)
    for angle, length in ((-118, 112), (-102, 140), (-88, 150), (-74, 132), (-60, 104)):
        drawing.fill(_leaflet(x, floor - 70, angle, length, 0.10), green, 0.85)
    shape = svg_path(
        f"M {x - 14} {floor - 84} C {x - 10} {floor - 66} {x - 36} {floor - 54} {x - 34} {floor - 28} "
        f"C {x - 32} {floor - 8} {x - 20} {floor} {x} {floor} C {x + 20} {floor} {x + 32} {floor - 8} {x + 34} {floor - 28} "
        f"C {x + 36} {floor - 54} {x + 10} {floor - 66} {x + 14} {floor - 84} Z"
    )
    drawing.fill(shape, LinearGradient(x - 34, 0, x + 34, 0, ((0, mix(top, WHITE, 0.7)), (1, mix(bottom, WHITE, 0.1)))))


# -- skyline ----------------------------------------------------------------------------------------------------------

_FAR_HOUSES = (
    (-330, 120, 320), (-214, 90, 240), (-128, 130, 300), (-4, 84, 200), (76, 104, 270), (176, 110, 330), (282, 150, 350),
    (428, 96, 320), (520, 112, 220), (628, 92, 290), (716, 120, 180), (832, 96, 270), (924, 140, 330),
)  # fmt: skip
"""Left edge, width and upper edge."""
_NEAR_HOUSES = (
    (-300, 150, 420), (-160, 96, 372), (-74, 120, 452), (40, 92, 390), (128, 120, 470), (540, 110, 440), (640, 86, 376),
    (720, 132, 462), (846, 100, 400), (940, 150, 450),
)  # fmt: skip


def _skyline(drawing: DisplayList, palette: Palette) -> None:
    """Draw a city in haze, in two rows of buildings."""
    top, bottom = palette.backdrop
    # Beside the head in all its postures.
    drawing.fill(ellipse(100, 130, 240), glow(100, 130, 240, mix(palette.disc, WHITE, 0.2), 0.8))
    drawing.fill(ellipse(100, 130, 56), mix(palette.disc, WHITE, 0.4), 0.9)
    for houses, near in ((_FAR_HOUSES, 0.40), (_NEAR_HOUSES, 0.85)):
        tone = mix(mix(top, WHITE, 0.15), mix(bottom, "#5A7394", 0.25), near)
        fill = vertical_gradient(180, 660, tone, mix(tone, mix(top, WHITE, 0.35), 0.4))
        drawing.fill(join_paths(*(rectangle(x, y, width, _BOTTOM - y) for x, width, y in houses)), fill)
        windows = [
            rectangle(x + 14 + 24 * column, y + 18 + 34 * row, 10, 16)
            for x, width, y in houses
            for column in range(int((width - 18) // 24))
            for row in range(6)
            if (column * 7 + row * 5 + int(x)) % 3
        ]
        drawing.fill(join_paths(*windows), with_alpha(mix(palette.disc, WHITE, 0.5), 0.16 + 0.12 * near))
    # Dusk below, before which even a white shirt stands out.
    dusk = mix(bottom, "#3E5878", 0.25)
    drawing.fill(_WHOLE, LinearGradient(0, 420, 0, 760, ((0, with_alpha(dusk, 0.0)), (1, with_alpha(dusk, 0.85)))))


_SCENES = {
    "disc": _disc,
    "arches": _arches,
    "window": _window,
    "hills": _hills,
    "leaves": _leaves,
    "shelf": _shelf,
    "skyline": _skyline,
}
