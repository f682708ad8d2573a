"""Neck, shoulders and clothes, in the coordinates of the drawing; down to the elbows, for portrait videos."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from a2v.engine.drawing.colours import LinearGradient, glow, mix, vertical_gradient, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group
from a2v.engine.drawing.geometry import Path, ellipse, join_paths, lerp, mirror_path, svg_path

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec, Tones


_AXIS = 360.0


def _both_sides(path_data: str) -> Path:
    left = svg_path(path_data)
    return join_paths(left, mirror_path(left, _AXIS))


@lru_cache(maxsize=64)
def torso(character: CharacterSpec) -> Group:
    """Return everything below the chin."""
    drawing = DisplayList()
    _OUTFITS[character.features.outfit](drawing, character)
    return drawing.static_group()


def _draw_shoulders(drawing: DisplayList, character: CharacterSpec) -> None:
    # A broad neck comes with broad shoulders.
    w = character.features.neck
    x1, x2, x3, x4 = lerp(66, 42, w), lerp(104, 94, w), lerp(196, 190, w), lerp(250, 252, w)
    text = (
        f"M {x1 - 4} 1040 L {x1} 770 C {x1 + 3} 642 {x2} 596 {x3} 570 C {x4} 553 292 545 306 515 L 414 515 "
        f"C 428 545 {720 - x4} 553 {720 - x3} 570 C {720 - x2} 596 {717 - x1} 642 {720 - x1} 770 L {724 - x1} 1040 Z"
    )
    tones = character.palette.clothes
    shape = svg_path(text)
    drawing.fill(shape, vertical_gradient(520, 780, tones.light, tones.base, tones.shade))
    with drawing.clipped(shape):
        # Light from the left: the far arm and the side below it are in shadow.
        drawing.fill(ellipse(220, 600, 110), glow(220, 600, 110, mix(tones.light, "#ffffff", 0.3), 0.30))
        shade = mix(tones.shade, "#10142A", 0.28)
        far = "M 574 628 C 564 700 560 820 562 1040 L 740 1040 L 740 600 C 700 560 600 560 574 628 Z"
        drawing.fill(
            svg_path(far),
            LinearGradient(
                560,
                0,
                660,
                0,
                ((0, with_alpha(shade, 0.42)), (0.5, with_alpha(shade, 0.20)), (1, with_alpha(shade, 0.34))),
            ),
        )
        near = "M 146 628 C 156 700 160 820 158 1040 L 186 1040 C 184 820 176 700 146 628 Z"
        drawing.fill(
            svg_path(near), LinearGradient(150, 0, 186, 0, ((0, with_alpha(shade, 0.34)), (1, with_alpha(shade, 0.0))))
        )
    folds = (
        "M 146 628 C 156 700 160 820 158 1040 M 168 690 C 180 706 186 716 204 724 M 160 760 C 176 768 184 770 196 768"
    )
    drawing.stroke(_both_sides(folds), with_alpha(tones.shade, 0.55), 3)


def _draw_neck(drawing: DisplayList, character: CharacterSpec, *, bare: bool = True) -> None:
    skin = character.palette.skin
    w = lerp(44, 61, character.features.neck)
    shape = svg_path(
        f"M {360 - w} 420 C {360 - w} 480 {360 - w} 510 {360 - w - 14} 534 C {360 - w + 18} 586 {360 + w - 18} 586 "
        f"{360 + w + 14} 534 C {360 + w} 510 {360 + w} 480 {360 + w} 420 Z"
    )
    drawing.fill(shape, vertical_gradient(440, 585, skin.shade, mix(skin.base, skin.shade, 0.5), skin.base))
    with drawing.clipped(shape):
        drawing.fill(ellipse(360, 432, 112, 78), with_alpha(mix(skin.shade, "#5A2030", 0.25), 0.55))
    if bare and character.features.neck < 0.5:
        drawing.stroke(_both_sides("M 338 556 C 346 566 350 570 352 574"), with_alpha(skin.shade, 0.5), 2)


def _blazer(drawing: DisplayList, character: CharacterSpec) -> None:
    tones, shirt = character.palette.clothes, character.palette.second
    _draw_shoulders(drawing, character)
    drawing.fill(
        svg_path("M 296 530 C 300 620 330 690 360 740 C 390 690 420 620 424 530 Z"),
        vertical_gradient(520, 730, shirt.base, shirt.shade),
    )
    _draw_neck(drawing, character)
    drawing.stroke(svg_path("M 316 564 C 336 604 384 604 404 564"), with_alpha(shirt.shade, 0.9), 2.4)
    lapel = (
        "M 300 526 C 262 554 246 574 236 604 L 272 628 L 262 652 C 296 690 330 724 356 760 C 344 690 312 610 300 526 Z"
    )
    drawing.fill(
        svg_path(lapel), LinearGradient(240, 560, 350, 740, ((0, tones.light), (1, mix(tones.light, tones.base, 0.6))))
    )
    other = LinearGradient(480, 560, 370, 740, ((0, tones.light), (1, mix(tones.light, tones.base, 0.8))))
    drawing.fill(mirror_path(svg_path(lapel), _AXIS), other)
    edge = "M 300 526 C 312 610 344 690 356 760"
    drawing.stroke(_both_sides(edge), with_alpha(tones.shade, 0.4), 2)
    drawing.stroke(
        svg_path("M 357 758 C 362 840 362 940 358 1040"), with_alpha(mix(tones.shade, "#000000", 0.3), 0.7), 2.6
    )
    for y in (800, 892):
        drawing.fill(
            ellipse(374, y, 8),
            LinearGradient(368, y - 8, 380, y + 8, ((0, tones.light), (1, mix(tones.shade, "#000000", 0.35)))),
        )
    drawing.stroke(_both_sides("M 238 605 L 272 628 L 262 652"), with_alpha(tones.shade, 0.45), 2)


def _crew(drawing: DisplayList, character: CharacterSpec) -> None:
    _draw_shoulders(drawing, character)
    _draw_neck(drawing, character)
    _draw_collar(drawing, character, character.palette.clothes)


def _draw_collar(drawing: DisplayList, character: CharacterSpec, tones: Tones) -> None:
    inner = lerp(56, 73, character.features.neck)
    a, b, c, d = 360 - inner, 360 + inner, 360 - inner - 15, 360 + inner + 15
    collar = svg_path(
        f"M {a} 524 C {a + 12} 590 {b - 12} 590 {b} 524 L {d} 532 C {d - 6} 618 {c + 6} 618 {c} 532 Z"
    )  # fmt: skip
    drawing.fill(collar, vertical_gradient(530, 606, tones.shade, tones.light))
    drawing.stroke(svg_path(f"M {c} 532 C {c + 6} 618 {d - 6} 618 {d} 532"), with_alpha(tones.shade, 0.55), 2)


def _turtleneck(drawing: DisplayList, character: CharacterSpec) -> None:
    tones = character.palette.clothes
    _draw_shoulders(drawing, character)
    _draw_neck(drawing, character, bare=False)
    w = lerp(44, 61, character.features.neck) + 10
    roll = svg_path(
        f"M {360 - w} 496 C {360 - w + 26} 516 {360 + w - 26} 516 {360 + w} 496 C {360 + w + 7} 520 {360 + w + 10} 548 "
        f"{360 + w + 18} 570 C {360 + w - 20} 604 {360 - w + 20} 604 {360 - w - 18} 570 C {360 - w - 10} 548 {360 - w - 7} 520 "
        f"{360 - w} 496 Z"
    )
    drawing.fill(roll, LinearGradient(300, 500, 420, 600, ((0, tones.light), (0.5, tones.base), (1, tones.shade))))
    with drawing.clipped(roll):
        drawing.fill(ellipse(360, 488, 100, 34), glow(360, 488, 90, "#000000", 0.30))
        for x in range(310, 420, 12):
            drawing.stroke(
                svg_path(f"M {x} 505 C {x - 1} 540 {x - 1} 560 {x + (x - 360) * 0.1:.1f} 600"),
                with_alpha(tones.shade, 0.4),
                2,
            )
    drawing.stroke(
        svg_path(f"M {360 - w - 18} 570 C {360 - w + 20} 604 {360 + w - 20} 604 {360 + w + 18} 570"),
        with_alpha(tones.shade, 0.8),
        2.5,
    )
    chain, bead = svg_path("M 262 572 C 280 650 330 672 360 676 C 390 672 440 650 458 572"), character.palette.second
    drawing.stroke(chain, with_alpha(tones.shade, 0.5), 3.5)
    drawing.stroke(chain, bead.base, 2.2)
    drawing.fill(ellipse(360, 684, 10), LinearGradient(353, 676, 367, 694, ((0, bead.light), (1, bead.shade))))


def _hoodie(drawing: DisplayList, character: CharacterSpec) -> None:
    tones, under = character.palette.clothes, character.palette.second
    hood = svg_path(
        "M 232 566 C 236 500 272 468 300 458 L 420 458 C 448 468 484 500 488 566 C 440 610 280 610 232 566 Z"
    )
    drawing.fill(hood, vertical_gradient(460, 600, tones.shade, mix(tones.shade, tones.base, 0.6)))
    _draw_shoulders(drawing, character)
    drawing.fill(
        svg_path("M 294 530 L 426 530 C 420 590 395 640 360 662 C 325 640 300 590 294 530 Z"),
        mix(under.base, under.shade, 0.35),
    )
    _draw_neck(drawing, character)
    _draw_collar(drawing, character, under)
    side = "M 300 470 C 262 484 238 520 234 562 C 262 606 306 640 352 660 C 330 620 300 580 292 530 C 290 506 294 486 300 470 Z"
    drawing.fill(svg_path(side), LinearGradient(234, 500, 350, 650, ((0, tones.light), (1, tones.base))))
    drawing.fill(
        mirror_path(svg_path(side), _AXIS),
        LinearGradient(486, 500, 370, 650, ((0, mix(tones.light, tones.base, 0.4)), (1, tones.base))),
    )
    drawing.stroke(_both_sides("M 234 562 C 262 606 306 640 352 660"), with_alpha(tones.shade, 0.7), 2.4)
    drawing.stroke(svg_path("M 360 655 L 360 1040"), with_alpha(tones.shade, 0.7), 2.4)
    drawing.stroke(
        _both_sides("M 360 838 L 280 838 C 268 880 258 900 236 930 L 236 1040"), with_alpha(tones.shade, 0.7), 2.6
    )
    drawing.stroke(_both_sides("M 326 634 C 322 660 324 690 320 716"), under.base, 4.5)


def _shirt(drawing: DisplayList, character: CharacterSpec) -> None:
    tones, tie = character.palette.clothes, character.palette.second
    _draw_shoulders(drawing, character)
    inside = svg_path("M 296 512 C 300 560 330 590 360 596 C 390 590 420 560 424 512 Z")
    drawing.fill(inside, vertical_gradient(520, 600, mix(tones.shade, "#566070", 0.25), tones.shade))
    _draw_neck(drawing, character, bare=False)
    blade = svg_path("M 344 586 L 376 586 L 384 632 L 402 790 L 408 1040 L 312 1040 L 318 790 L 336 632 Z")
    drawing.fill(blade, vertical_gradient(590, 740, tie.light, tie.base, tie.base))
    with drawing.clipped(blade):
        drawing.stroke(
            svg_path(" ".join(f"M 300 {y} L 420 {y - 66}" for y in range(696, 1110, 48))), with_alpha(tie.shade, 0.5), 8
        )
    drawing.fill(
        svg_path("M 336 574 L 384 574 L 380 618 C 370 626 350 626 340 618 Z"),
        vertical_gradient(574, 624, tie.base, tie.shade),
    )
    flap = "M 292 504 C 284 522 279 540 277 556 L 312 640 L 360 578 C 336 568 310 546 292 504 Z"
    drawing.fill(
        svg_path(flap), LinearGradient(290, 520, 330, 640, ((0, tones.light), (1, mix(tones.base, tones.shade, 0.25))))
    )
    other = LinearGradient(430, 520, 390, 640, ((0, tones.base), (1, mix(tones.base, tones.shade, 0.55))))
    drawing.fill(mirror_path(svg_path(flap), _AXIS), other)
    drawing.stroke(_both_sides("M 277 556 L 312 640 L 360 578"), with_alpha(mix(tones.shade, "#566070", 0.3), 0.7), 2.2)


_OUTFITS = {"blazer": _blazer, "crew": _crew, "turtleneck": _turtleneck, "hoodie": _hoodie, "shirt": _shirt}
