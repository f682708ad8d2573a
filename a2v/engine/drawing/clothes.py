"""Neck, shoulders, arms and clothes, in the coordinates of the drawing; down to the elbows, for portrait videos.

An outfit is a list of layers from back to front. Most of them move with the torso. The neck leans towards the head, collars follow it a
little, and hanging parts swing. The arms hang from the shoulders behind the torso, whichever way it leans.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from a2v.engine.drawing.colours import LinearGradient, RadialGradient, glow, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import (
    Path,
    both_sides,
    cubic_path,
    ellipse,
    lerp,
    mirror_path,
    rectangle,
    svg_path,
    tapered,
)

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec, Tones
    from a2v.engine.drawing.geometry import Point

_AXIS = 360.0
_FLOOR = 1080.0  # below all videos
SHOULDER = 190.0, 606.0
"""The joint of the left arm."""
HIPS_Y = 1150
"""The centre of rotation of the torso."""
_COLLAR_FOLLOWS = 0.3


class Layer(NamedTuple):
    """A part of an outfit."""

    group: Group
    follow: float = 0.0
    """How far its upper end moves with the head, from 0 (not at all) to 1 (as far as the neck)."""
    hangs_from: Point | None = None
    """The point around which it swings."""


def _both_sides(path: Path) -> Path:
    return both_sides(path, _AXIS)


@lru_cache(maxsize=64)
def layers(character: CharacterSpec) -> tuple[Layer, ...]:
    """Return everything below the chin except the arms, from back to front."""
    return tuple(_OUTFITS[character.features.outfit](character))


def _fabric(tones: Tones) -> LinearGradient:
    """Return the fill that torso and arms share, so that they look like one piece."""
    return LinearGradient(0, 520, 0, 1000, ((0, tones.light), (0.34, tones.base), (1, tones.shade)))


# -- the body ---------------------------------------------------------------------------------------------------------


class _Measures(NamedTuple):
    """The x coordinates of the left side of a body."""

    neck: float  # half of the width of the neck
    shoulder: float  # where the shoulder bends
    arm: float  # the outer side of the arm
    armpit: float
    waist: float


def _measure(character: CharacterSpec) -> _Measures:
    # A broad neck comes with broad shoulders.
    w = character.features.neck
    return _Measures(lerp(44, 61, w), lerp(200, 186, w), lerp(98, 42, w), lerp(166, 150, w), lerp(182, 173, w))


@lru_cache(maxsize=64)
def arm(character: CharacterSpec) -> Group:
    """Return the left arm, down to the elbow."""
    drawing = DisplayList()
    m, tones, skin = _measure(character), character.palette.clothes, character.palette.skin
    inner = m.armpit - 4
    has_short_sleeves = character.features.outfit == "crew"
    if has_short_sleeves:
        bare = svg_path(
            f"M {m.arm + 10} 720 C {m.arm + 4} 820 {m.arm + 2} 900 {m.arm + 8} {_FLOOR} L {inner - 20} {_FLOOR} "
            f"C {inner - 18} 920 {inner - 8} 820 {inner - 4} 720 Z"
        )
        light, edge = mix(skin.base, skin.light, 0.35), mix(skin.base, skin.shade, 0.65)
        drawing.fill(
            bare, LinearGradient(m.arm, 0, inner, 0, ((0, skin.base), (0.35, light), (0.7, skin.base), (1, edge)))
        )
        shadow = vertical_gradient(796, 834, with_alpha(skin.shade, 0.65), with_alpha(skin.shade, 0.0))
        drawing.fill(bare, shadow)
    end = 800 if has_short_sleeves else _FLOOR
    outer, narrow = (m.arm - 6, 3) if has_short_sleeves else (m.arm - 2, -14)
    outside = f"C {m.arm - 1} 736 {outer} 768 {outer} {end}"
    inside = f"C {inner + narrow} {lerp(700, end, 0.6)} {inner + 16} {lerp(700, end, 0.3)} {inner + 18} 700"
    sleeve = svg_path(
        f"M {m.shoulder + 14} 566 C {m.shoulder - 36} 580 {m.arm + 26} 606 {m.arm + 6} 700 {outside} "
        f"C {m.arm + 20} {end + 12} {inner - 24} {end + 12} {inner + narrow} {end} {inside} "
        f"C {inner + 14} 640 {inner + 40} 600 {m.shoulder + 14} 566 Z"
    )
    drawing.fill(sleeve, _fabric(tones))
    # Both sides turn away from the viewer, more so further down.
    shade = mix(tones.shade, "#10142A", 0.30)
    side = svg_path(
        f"M {inner + 14} 626 C {inner - 12} 690 {inner - 34} 760 {inner - 40} {end + 5} L {inner + narrow} {end} {inside} Z"
    )
    stops = ((0, with_alpha(shade, 0.0)), (1, with_alpha(shade, 0.60)))
    drawing.fill(side, LinearGradient(inner - 40, 0, inner, 0, stops))
    side = svg_path(
        f"M {m.arm + 6} 700 {outside} L {m.arm + 20} {end + 5} C {m.arm + 22} 780 {m.arm + 16} 740 {m.arm + 6} 700 Z"
    )
    stops = ((0, with_alpha(shade, 0.36)), (1, with_alpha(shade, 0.0)))
    drawing.fill(side, LinearGradient(m.arm - 4, 0, m.arm + 22, 0, stops))
    if has_short_sleeves:
        y = end - 14
        hem = tapered(f"M {outer + 1} {y} C {m.arm + 20} {y + 12} {inner - 20} {y + 12} {inner + 3} {y}", 3.0)
        drawing.fill(hem, with_alpha(tones.shade, 0.8))
    if not has_short_sleeves:
        folds = (
            f"M {m.arm} 850 C {m.arm + 18} 866 {m.arm + 36} 870 {m.arm + 58} 862 M {inner} 812 C {inner - 14} 830 {inner - 30} 838 {inner - 52} 838 "
            f"M {m.arm} 916 C {m.arm + 14} 934 {m.arm + 34} 940 {m.arm + 60} 930"
        )
        drawing.fill(tapered(folds, 6.0), with_alpha(shade, 0.5))
    return drawing.static_group()


def _draw_torso(drawing: DisplayList, character: CharacterSpec) -> None:
    """Draw the torso."""
    m, tones = _measure(character), character.palette.clothes
    left = (
        (360 - m.neck - 4, 532.0),
        (304.0, 546.0), (250.0, 551.0), (m.shoulder, 568.0),
        (m.shoulder - 30, 577.0), (m.armpit - 10, 618.0), (m.armpit, 690.0),
        (m.armpit + 6, 760.0), (m.waist - 8, 830.0), (m.waist, 900.0),
        (m.waist + 2, 960.0), (m.waist - 10, 1020.0), (m.waist - 16, _FLOOR),
    )  # fmt: skip
    right = tuple((2 * _AXIS - x, y) for x, y in reversed(left))
    shape = cubic_path(*left, left[-1], right[0], *right)
    drawing.fill(shape, _fabric(tones))
    # Light from the left. Nothing here is clipped: clipping costs more than drawing.
    drawing.fill(shape, glow(244, 610, 120, mix(tones.light, "#ffffff", 0.3), 0.30))
    shade = mix(tones.shade, "#10142A", 0.28)
    # The sides turn away from the viewer, and the far one is in shadow. They share their outer edge with the torso.
    for width, alpha in ((60.0, 0.40), (130.0, 0.50)):
        x, floor = m.armpit, (m.armpit + width, _FLOOR)
        side = cubic_path(*left[3:], left[-1], floor, floor, (x + width, 780), (x + width * 0.08, 680), left[3])
        stops = ((0, with_alpha(shade, alpha)), (0.45, with_alpha(shade, alpha * 0.42)), (1, with_alpha(shade, 0.0)))
        if width == 60:
            drawing.fill(side, LinearGradient(x, 0, x + width, 0, stops))
        else:
            drawing.fill(mirror_path(side, _AXIS), LinearGradient(2 * _AXIS - x, 0, 2 * _AXIS - x - width, 0, stops))
    x = m.armpit
    creases = tapered(
        f"M {x + 2} 700 C {x - 2} 670 {x + 4} 640 {x + 20} 612 M {x + 4} 700 C {x + 22} 722 {x + 36} 730 {x + 62} 736 "
        f"M {x + 8} 760 C {x + 24} 780 {x + 36} 786 {x + 58} 788",
        5.0,
    )
    drawing.fill(_both_sides(creases), with_alpha(shade, 0.50))


def _neck(character: CharacterSpec, *, bare: bool = True) -> Layer:
    drawing = DisplayList()
    skin = character.palette.skin
    w = _measure(character).neck
    shape = svg_path(
        f"M {360 - w} 420 C {360 - w} 480 {360 - w} 510 {360 - w - 14} 534 C {360 - w + 18} 586 {360 + w - 18} 586 "
        f"{360 + w + 14} 534 C {360 + w} 510 {360 + w} 480 {360 + w} 420 Z"
    )
    edge = mix(skin.base, skin.shade, 0.75)
    round_ = (
        (0, mix(skin.base, skin.shade, 0.45)),
        (0.32, skin.base),
        (0.62, mix(skin.base, skin.shade, 0.30)),
        (1, edge),
    )
    drawing.fill(shape, LinearGradient(360 - w, 0, 360 + w, 0, round_))
    # The shadow of the head, which fades downwards.
    dark = mix(skin.shade, "#5A2030", 0.30)
    stops = ((0, 0.85), (0.62, 0.70), (0.86, 0.22), (1, 0.0))
    drawing.fill(shape, RadialGradient(366, 410, 140, tuple((at, with_alpha(dark, alpha)) for at, alpha in stops)))
    if bare and character.features.neck < 0.5:
        bones = tapered("M 312 554 C 322 562 338 564 350 572 M 338 536 C 342 552 346 562 352 572", 5.0)
        drawing.fill(_both_sides(bones), with_alpha(skin.shade, 0.5))
    elif bare:
        muscles = tapered("M 322 470 C 326 510 338 548 352 570", 7.0)
        drawing.fill(_both_sides(muscles), with_alpha(skin.shade, 0.35))
    return Layer(drawing.static_group(), follow=1.0)


# -- outfits ----------------------------------------------------------------------------------------------------------


def _start_with_torso(character: CharacterSpec) -> DisplayList:
    drawing = DisplayList()
    _draw_torso(drawing, character)
    return drawing


def _blazer(character: CharacterSpec) -> list[Layer]:
    tones, shirt = character.palette.clothes, character.palette.second
    drawing = _start_with_torso(character)
    drawing.fill(
        svg_path("M 296 530 C 300 600 330 656 360 694 C 390 656 420 600 424 530 Z"),
        vertical_gradient(520, 686, shirt.base, shirt.shade),
    )
    front = DisplayList()
    front.stroke(svg_path("M 316 564 C 336 604 384 604 404 564"), with_alpha(shirt.shade, 0.9), 2.4)
    lapel = svg_path(
        "M 302 518 C 264 542 246 562 236 586 L 272 606 L 262 626 C 296 650 330 672 357 692 C 344 640 314 584 302 518 Z"
    )
    front.fill(lapel, LinearGradient(240, 550, 350, 690, ((0, tones.light), (1, mix(tones.light, tones.base, 0.6)))))
    other = LinearGradient(
        480, 550, 370, 690, ((0, mix(tones.light, tones.base, 0.35)), (1, mix(tones.light, tones.base, 0.9)))
    )
    front.fill(mirror_path(lapel, _AXIS), other)
    front.stroke(_both_sides(svg_path("M 302 522 C 314 584 344 640 357 692")), with_alpha(tones.shade, 0.4), 2)
    dark = mix(tones.shade, "#000000", 0.35)
    front.stroke(svg_path(f"M 358 690 C 363 800 362 940 358 {_FLOOR}"), with_alpha(dark, 0.7), 2.6)
    for y in (764, 860):
        front.fill(ellipse(374, y, 8), LinearGradient(368, y - 8, 380, y + 8, ((0, tones.light), (1, dark))))
    front.stroke(_both_sides(svg_path("M 238 587 L 272 606 L 262 626")), with_alpha(tones.shade, 0.45), 2)
    return [Layer(drawing.static_group()), _neck(character), Layer(front.static_group())]


def _crew(character: CharacterSpec) -> list[Layer]:
    drawing = _start_with_torso(character)
    return [Layer(drawing.static_group()), _neck(character), _collar(character, character.palette.clothes)]


def _collar(character: CharacterSpec, tones: Tones) -> Layer:
    drawing = DisplayList()
    inner = _measure(character).neck + 12
    a, b, c, d = 360 - inner, 360 + inner, 360 - inner - 15, 360 + inner + 15
    collar = svg_path(
        f"M {a} 522 C {a + 12} 590 {b - 12} 590 {b} 522 L {d} 534 C {d - 6} 618 {c + 6} 618 {c} 534 Z"
    )  # fmt: skip
    drawing.fill(collar, vertical_gradient(530, 606, tones.shade, tones.light))
    drawing.stroke(svg_path(f"M {c} 534 C {c + 6} 618 {d - 6} 618 {d} 534"), with_alpha(tones.shade, 0.55), 2)
    return Layer(drawing.static_group(), _COLLAR_FOLLOWS)


def _turtleneck(character: CharacterSpec) -> list[Layer]:
    tones = character.palette.clothes
    torso = _start_with_torso(character)
    chain, bead = svg_path("M 262 572 C 280 650 330 672 360 676 C 390 672 440 650 458 572"), character.palette.second
    torso.stroke(chain, with_alpha(tones.shade, 0.5), 3.5)
    torso.stroke(chain, bead.base, 2.2)
    torso.fill(ellipse(360, 684, 10), LinearGradient(353, 676, 367, 694, ((0, bead.light), (1, bead.shade))))
    drawing = DisplayList()
    w = _measure(character).neck + 10
    roll = svg_path(
        f"M {360 - w} 496 C {360 - w + 26} 516 {360 + w - 26} 516 {360 + w} 496 C {360 + w + 7} 520 {360 + w + 10} 548 "
        f"{360 + w + 18} 570 C {360 + w - 20} 604 {360 - w + 20} 604 {360 - w - 18} 570 C {360 - w - 10} 548 {360 - w - 7} 520 "
        f"{360 - w} 496 Z"
    )
    drawing.fill(roll, LinearGradient(300, 500, 420, 600, ((0, tones.light), (0.5, tones.base), (1, tones.shade))))
    with drawing.clipped(roll):
        drawing.fill(ellipse(360, 488, 100, 34), glow(360, 488, 90, "#000000", 0.30))
        ribs = " ".join(
            f"M {x} 500 C {x - 1} 540 {x - 1} 560 {x + (x - 360) * 0.1:.1f} 606" for x in range(306, 420, 9)
        )
        drawing.fill(tapered(ribs, 4.0), with_alpha(tones.shade, 0.55))
    hem = svg_path(f"M {360 - w - 18} 570 C {360 - w + 20} 604 {360 + w - 20} 604 {360 + w + 18} 570")
    drawing.stroke(hem, with_alpha(tones.shade, 0.8), 2.5)
    # The roll is wide, and follows the neck in it.
    return [Layer(torso.static_group()), _neck(character, bare=False), Layer(drawing.static_group(), 0.5)]


def _hoodie(character: CharacterSpec) -> list[Layer]:
    tones, under = character.palette.clothes, character.palette.second
    torso = DisplayList()
    hood = svg_path(
        "M 232 566 C 236 500 272 468 300 458 L 420 458 C 448 468 484 500 488 566 C 440 610 280 610 232 566 Z"
    )
    torso.fill(hood, vertical_gradient(460, 600, tones.shade, mix(tones.shade, tones.base, 0.6)))
    _draw_torso(torso, character)
    torso.fill(
        svg_path("M 290 530 L 430 530 C 424 590 395 640 360 662 C 325 640 296 590 290 530 Z"),
        mix(under.base, under.shade, 0.35),
    )
    pocket = svg_path(f"M 360 838 L 280 838 C 268 880 258 900 236 930 L 236 {_FLOOR}")
    torso.stroke(_both_sides(pocket), with_alpha(tones.shade, 0.7), 2.6)
    torso.stroke(svg_path(f"M 360 655 L 360 {_FLOOR}"), with_alpha(tones.shade, 0.7), 2.4)
    sides = DisplayList()
    side = svg_path(
        "M 300 470 C 262 484 238 520 234 562 C 262 606 306 640 352 660 C 330 620 300 580 292 530 C 290 506 294 486 300 470 Z"
    )
    sides.fill(side, LinearGradient(234, 500, 350, 650, ((0, tones.light), (1, tones.base))))
    sides.fill(
        mirror_path(side, _AXIS),
        LinearGradient(486, 500, 370, 650, ((0, mix(tones.light, tones.base, 0.4)), (1, tones.base))),
    )
    sides.stroke(_both_sides(svg_path("M 234 562 C 262 606 306 640 352 660")), with_alpha(tones.shade, 0.7), 2.4)
    folds = tapered("M 292 478 C 264 504 254 540 260 582 M 284 500 C 272 530 280 580 308 616", 6.0)
    sides.fill(_both_sides(folds), with_alpha(tones.shade, 0.45))
    strings = DisplayList()
    strings.stroke(_both_sides(svg_path("M 326 634 C 322 660 324 690 320 716")), under.base, 4.5)
    strings.fill(_both_sides(ellipse(320, 719, 3.4, 5.0)), under.shade)
    return [
        Layer(torso.static_group()),
        _neck(character),
        _collar(character, under),
        Layer(sides.static_group(), _COLLAR_FOLLOWS),
        Layer(strings.static_group(), hangs_from=(360, 634)),
    ]


def _shirt(character: CharacterSpec) -> list[Layer]:
    tones, tie = character.palette.clothes, character.palette.second
    torso = _start_with_torso(character)
    inside = svg_path("M 292 512 C 296 560 330 592 360 600 C 390 592 424 560 428 512 Z")
    torso.fill(inside, vertical_gradient(520, 600, mix(tones.shade, "#566070", 0.25), tones.shade))
    front = DisplayList()
    front.stroke(svg_path(f"M 360 600 L 360 {_FLOOR}"), with_alpha(mix(tones.shade, "#566070", 0.3), 0.5), 2.2)
    blade = svg_path("M 344 586 L 376 586 L 384 632 L 402 790 L 408 1040 L 360 1074 L 312 1040 L 318 790 L 336 632 Z")
    front.fill(
        blade, LinearGradient(312, 0, 408, 0, ((0, tie.light), (0.45, tie.base), (1, mix(tie.base, tie.shade, 0.8))))
    )
    with front.clipped(blade):
        stripes = svg_path(" ".join(f"M 300 {y} L 420 {y - 66}" for y in range(696, 1110, 48)))
        front.stroke(stripes, with_alpha(tie.shade, 0.5), 8)
        front.fill(
            rectangle(300, 618, 120, 40),
            vertical_gradient(620, 650, with_alpha(tie.shade, 0.7), with_alpha(tie.shade, 0.0)),
        )
    front.fill(
        svg_path("M 332 572 L 388 572 L 380 618 C 370 626 350 626 340 618 Z"),
        vertical_gradient(574, 624, tie.base, tie.shade),
    )
    flaps = DisplayList()
    flap = svg_path("M 290 502 C 282 522 278 540 275 558 L 312 642 L 361 579 C 336 568 308 546 290 502 Z")
    flaps.fill(flap, LinearGradient(290, 520, 330, 640, ((0, tones.light), (1, mix(tones.base, tones.shade, 0.25)))))
    other = LinearGradient(430, 520, 390, 640, ((0, tones.base), (1, mix(tones.base, tones.shade, 0.55))))
    flaps.fill(mirror_path(flap, _AXIS), other)
    edge = svg_path("M 275 558 L 312 642 L 361 579")
    flaps.stroke(_both_sides(edge), with_alpha(mix(tones.shade, "#566070", 0.3), 0.7), 2.2)
    return [
        Layer(torso.static_group()),
        _neck(character, bare=False),
        Layer(front.static_group()),
        Layer(flaps.static_group(), _COLLAR_FOLLOWS),
    ]


_OUTFITS = {"blazer": _blazer, "crew": _crew, "turtleneck": _turtleneck, "hoodie": _hoodie, "shirt": _shirt}
