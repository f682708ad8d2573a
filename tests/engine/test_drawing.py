from __future__ import annotations

import numpy as np
import pytest

from a2v.engine.cast import View
from a2v.engine.drawing.painter import Painter
from a2v.engine.drawing.shapes import (
    Linear,
    both_sides,
    ellipse,
    fade,
    glow,
    mix,
    outline,
    rectangle,
    rgba,
    scale,
    shift,
    turn,
)
from a2v.engine.drawing.sheet import Sheet

UNIT, SIZE = 720, 72
VIEW = View(0, 0, UNIT)
RED, BLUE = "#ff0000", "#0000ff"


def paint(sheet: Sheet) -> np.ndarray:
    return Painter(SIZE, SIZE, VIEW).paint(sheet.items)


def at(pixels: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    return tuple(int(value) for value in pixels[int(y / 10), int(x / 10)])


def test_a_fill_covers_its_path_and_nothing_else() -> None:
    sheet = Sheet()
    sheet.fill(rectangle(100, 100, 200, 100), RED)
    pixels = paint(sheet)
    assert at(pixels, 200, 150) == (255, 0, 0, 255)
    assert at(pixels, 50, 150) == (0, 0, 0, 0)
    assert at(pixels, 350, 150) == (0, 0, 0, 0)


def test_later_marks_cover_earlier_ones_and_opacity_lets_them_through() -> None:
    sheet = Sheet()
    sheet.fill(rectangle(0, 0, UNIT, UNIT), BLUE)
    sheet.fill(rectangle(0, 0, 360, UNIT), RED, 0.5)
    red, _, blue, alpha = at(paint(sheet), 100, 100)
    assert red == pytest.approx(128, abs=3)
    assert blue == pytest.approx(127, abs=3)
    assert alpha == 255


def test_groups_are_moved_and_clipped_together() -> None:
    sheet = Sheet()
    with sheet.moved(shift(200, 0).then(scale(2))), sheet.clipped(rectangle(0, 0, 50, 100)):
        sheet.fill(rectangle(0, 0, 100, 100), RED)
    pixels = paint(sheet)
    assert at(pixels, 250, 100) == (255, 0, 0, 255)
    assert at(pixels, 350, 100) == (0, 0, 0, 0)
    assert at(pixels, 100, 100) == (0, 0, 0, 0)


def test_a_fixed_group_may_be_drawn_many_times_in_a_frame_and_in_many_frames() -> None:
    part = Sheet()
    part.fill(rectangle(0, 0, 100, 100), RED)
    group = part.fixed()
    painter = Painter(SIZE, SIZE, VIEW)
    for step in range(4):
        sheet = Sheet()
        sheet.add(group, shift(step * 100, 0))
        sheet.add(group, shift(step * 100, 300))
        pixels = painter.paint(sheet.items)
        assert at(pixels, step * 100 + 50, 50) == (255, 0, 0, 255)
        assert at(pixels, step * 100 + 50, 350) == (255, 0, 0, 255)
        assert int((pixels[..., 3] > 0).sum()) == 200


def test_a_backdrop_stays_behind_every_frame() -> None:
    painter = Painter(SIZE, SIZE, VIEW)
    sheet = Sheet()
    sheet.fill(rectangle(0, 0, UNIT, UNIT), BLUE)
    painter.set_backdrop(painter.paint(sheet.items).copy())
    for x in (0, 300):
        mark = Sheet()
        mark.fill(rectangle(x, 0, 100, 100), RED)
        pixels = painter.paint(mark.items)
        assert at(pixels, x + 50, 50) == (255, 0, 0, 255)
        assert at(pixels, 650, 650) == (0, 0, 255, 255)
        assert int((pixels[..., 0] > 0).sum()) == 100


def test_gradients_run_from_one_colour_to_the_other() -> None:
    sheet = Sheet()
    sheet.fill(rectangle(0, 0, UNIT, UNIT), Linear(0, 0, UNIT, 0, ((0, RED), (1, BLUE))))
    pixels = paint(sheet)
    assert at(pixels, 5, 300)[0] > 240
    assert at(pixels, 715, 300)[2] > 240
    sheet = Sheet()
    sheet.fill(ellipse(360, 360, 300), glow(360, 360, 300, RED, 1.0))
    pixels = paint(sheet)
    assert at(pixels, 360, 360)[3] > 240
    assert at(pixels, 640, 360)[3] < 40


def test_strokes_have_a_width() -> None:
    sheet = Sheet()
    sheet.stroke(outline("M 100 360 L 600 360"), RED, 40)
    pixels = paint(sheet)
    assert at(pixels, 300, 355) == (255, 0, 0, 255)
    assert at(pixels, 300, 395) == (0, 0, 0, 0)


def test_outlines_are_read_as_they_are_written() -> None:
    path = outline("M 0 0 L 10 0 C 1 2 3 4 5 -6.5 Z M 1,1 L 2,2 3,3")
    assert path.points == ((0, 0), (10, 0), (1, 2), (3, 4), (5, -6.5), (1, 1), (2, 2), (3, 3))
    assert path.commands == (1, 2, 3, 0, 1, 2, 2)


def test_maps_are_done_from_the_inside_out() -> None:
    both = shift(10, 0).then(scale(2))
    assert (both.a, both.e) == (2, 10)
    quarter = turn(90, 5, 5)
    x, y = 6, 5
    assert (quarter.a * x + quarter.c * y + quarter.e, quarter.b * x + quarter.d * y + quarter.f) == pytest.approx(
        (5, 6)
    )


def test_colours() -> None:
    assert rgba("#ff8000") == (255, 128, 0, 255)
    assert rgba(fade("#ff8000", 0.5)) == (255, 128, 0, 128)
    assert mix("#000000", "#ffffff", 0.5) == "#808080"


def test_the_left_half_mirrors_the_right_one() -> None:
    assert both_sides([(0, 0), (5, 5), (0, 10)]) == [(0, 0), (5, 5), (0, 10), (-5, 5)]
