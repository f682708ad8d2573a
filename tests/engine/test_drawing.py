from __future__ import annotations

import av
import numpy as np
import pytest

from a2v.engine.cast import View, look
from a2v.engine.drawing.bust import backdrop, bust
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
    vuya,
)
from a2v.engine.drawing.sheet import Group, Mark, Sheet, box_around, cover
from a2v.engine.film import Frame
from a2v.engine.pose import MOUTHS, Pose

UNIT, SIZE = 720, 72
VIEW = View(0, 0, UNIT)
RED, BLUE = "#ff0000", "#0000ff"


def paint(sheet: Sheet) -> np.ndarray:
    painter = Painter(SIZE, SIZE, VIEW)
    painter.paint(sheet.items)
    return painter.pixels


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
        painter.paint(sheet.items)
        pixels = painter.pixels
        assert at(pixels, step * 100 + 50, 50) == (255, 0, 0, 255)
        assert at(pixels, step * 100 + 50, 350) == (255, 0, 0, 255)
        assert int((pixels[..., 3] > 0).sum()) == 200


def test_a_backdrop_stays_behind_every_frame() -> None:
    painter = Painter(SIZE, SIZE, VIEW)
    sheet = Sheet()
    sheet.fill(rectangle(0, 0, UNIT, UNIT), BLUE)
    painter.paint(sheet.items)
    painter.set_backdrop(painter.pixels.copy())
    for x in (0, 300):
        mark = Sheet()
        mark.fill(rectangle(x, 0, 100, 100), RED)
        painter.paint(mark.items)
        pixels = painter.pixels
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


MOVING = [Pose(mouth=MOUTHS[name], yaw=0.02 * i, bob=0.1 * i, breath=0.01 * i) for i, name in enumerate("XDBFA")]


@pytest.mark.parametrize("view", [VIEW, View(134, -12, 452)])
def test_drawing_what_moved_comes_to_the_same_as_drawing_all(view: View) -> None:
    person = look("amara_a0033")
    moved, whole = Painter(180, 320, view), Painter(180, 320, view)
    moved.paint(backdrop(person))
    moved.set_backdrop(moved.pixels.copy())
    areas = []
    for pose in MOVING:
        areas.append(moved.paint(bust(person, pose)))
        whole.set_backdrop(moved._backdrop.view(np.uint8).reshape(moved.pixels.shape))
        whole.paint(bust(person, pose))
        assert (moved.pixels == whole.pixels).all()
    assert areas[0] == (0, 0, 180, 320)
    # The torso took no step that can be seen, so the others are about the head.
    assert all((right - left) * (bottom - top) < 0.8 * 180 * 320 for left, top, right, bottom in areas[1:])
    assert moved.paint(bust(person, MOVING[-1])) == (0, 0, 0, 0)


def test_what_appears_and_vanishes_is_drawn_and_erased() -> None:
    painter = Painter(SIZE, SIZE, VIEW)
    square = Sheet()
    square.fill(rectangle(100, 100, 100, 100), RED)
    group = square.fixed()
    painter.paint([group])
    assert painter.paint([]) == (8, 8, 22, 22)
    assert not painter.pixels.any()
    painter.paint([group])
    assert at(painter.pixels, 150, 150) == (255, 0, 0, 255)


def test_more_groups_than_are_kept_can_be_drawn() -> None:
    painter = Painter(SIZE, SIZE, VIEW)
    for number in range(250):
        sheet = Sheet()
        sheet.fill(rectangle(number, 0, 100, 100), RED)
        painter.paint([sheet.fixed()])
        assert at(painter.pixels, number + 50, 50) == (255, 0, 0, 255)
    assert len(painter._kept) <= 100


def test_a_box_is_around_strokes_clips_and_what_is_moved() -> None:
    sheet = Sheet()
    sheet.stroke(outline("M 10 10 L 20 10"), RED, 4)
    with sheet.moved(shift(100, 0)), sheet.clipped(rectangle(0, 0, 5, 5)):
        sheet.fill(rectangle(0, 0, 500, 500), RED)
    assert box_around(sheet.items) == (8, 0, 105, 12)
    assert box_around([]) is None


def test_a_cover_is_white_and_leaves_out_what_light_passes() -> None:
    inner, sheet = Sheet(), Sheet()
    inner.fill(rectangle(0, 0, 10, 10), BLUE)
    sheet.fill(rectangle(0, 0, 100, 100), Linear(0, 0, 1, 1, ((0, RED), (1, BLUE))))
    sheet.fill(rectangle(0, 0, 300, 100), fade(RED, 0.5))
    sheet.fill(rectangle(0, 0, 300, 100), RED, 0.5)
    sheet.add(inner.fixed(), shift(50, 0))
    with sheet.clipped(rectangle(0, 0, 5, 5)):
        sheet.fill(rectangle(0, 0, 500, 500), RED)
    mark, group = cover(sheet.fixed()).items
    assert isinstance(mark, Mark)
    assert mark.paint == "#ffffff"
    assert isinstance(group, Group)
    assert group.map == shift(50, 0)


@pytest.mark.parametrize("colour", [RED, BLUE, "#00ff00", "#000000", "#ffffff", "#F2B998", "#2D3A63", "#8A5237"])
def test_colours_of_videos_are_those_that_ffmpeg_makes(colour: str) -> None:
    picture = np.full((16, 16, 3), rgba(colour)[:3], np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709", dst_color_range="MPEG")
    y, u, v = frame.to_ndarray()[:, 8, 8]
    ours = vuya(colour)
    assert ours[:3] == pytest.approx((u, v, y), abs=1)
    assert vuya(fade(colour, 0.5))[3] == 128


def test_a_frame_shows_what_was_painted_and_averages_colour_over_four_pixels() -> None:
    painter = Painter(SIZE, SIZE, VIEW, vuya)
    sheet = Sheet()
    sheet.fill(rectangle(0, 0, UNIT, UNIT), "#808080")
    sheet.fill(rectangle(0, 0, 130, 300), RED)  # ends in the middle of a pair of pixels
    frame = Frame(SIZE, SIZE)
    frame.show(painter.pixels, painter.paint(sheet.items))
    picture = frame.video.to_ndarray(format="yuv420p")
    _, v, y, _ = vuya(RED)
    assert (picture[:30, :13] == y).all()
    assert abs(int(picture[40, 40]) - vuya("#808080")[2]) <= 1
    reds = picture[SIZE + SIZE // 4 :].reshape(SIZE // 2, SIZE // 2)
    assert reds[5, 2] == v
    assert reds[5, 6] == pytest.approx((v + 128) / 2, abs=1)
    assert reds[5, 8] == reds[30, 2] == 128
