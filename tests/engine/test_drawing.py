from __future__ import annotations

import av
import numpy as np
import pytest

from a2v.engine.characters import Framing, get_character
from a2v.engine.drawing.bust import bust
from a2v.engine.drawing.colours import LinearGradient, Paint, glow, mix, rgba, uvya, with_alpha
from a2v.engine.drawing.display_list import DisplayList, Group, Shape, bounds_of, silhouette_of
from a2v.engine.drawing.dithering import dither
from a2v.engine.drawing.geometry import ellipse, mirror_points, rectangle, rotate, scale, svg_path, tapered, translate
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.drawing.scenery import backdrop
from a2v.engine.face_pose import MOUTH_SHAPES, FacePose
from a2v.engine.video_writer import FrameBuffer

UNIT, SIZE = 720, 72
VIEW = Framing(0, 0, UNIT)
RED, BLUE = "#ff0000", "#0000ff"


def paint(drawing: DisplayList) -> np.ndarray:
    rasterizer = Rasterizer(SIZE, SIZE, VIEW)
    rasterizer.paint(drawing.items)
    return rasterizer.pixels


def at(pixels: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    return tuple(int(value) for value in pixels[int(y / 10), int(x / 10)])


def test_a_fill_covers_its_path_and_nothing_else() -> None:
    drawing = DisplayList()
    drawing.fill(rectangle(100, 100, 200, 100), RED)
    pixels = paint(drawing)
    assert at(pixels, 200, 150) == (255, 0, 0, 255)
    assert at(pixels, 50, 150) == (0, 0, 0, 0)
    assert at(pixels, 350, 150) == (0, 0, 0, 0)


def test_later_shapes_cover_earlier_ones_by_their_opacity() -> None:
    drawing = DisplayList()
    drawing.fill(rectangle(0, 0, UNIT, UNIT), BLUE)
    drawing.fill(rectangle(0, 0, 360, UNIT), RED, 0.5)
    red, _, blue, alpha = at(paint(drawing), 100, 100)
    assert red == pytest.approx(128, abs=3)
    assert blue == pytest.approx(127, abs=3)
    assert alpha == 255


def test_groups_are_transformed_and_clipped_together() -> None:
    drawing = DisplayList()
    with drawing.transformed(translate(200, 0) @ scale(2)), drawing.clipped(rectangle(0, 0, 50, 100)):
        drawing.fill(rectangle(0, 0, 100, 100), RED)
    pixels = paint(drawing)
    assert at(pixels, 250, 100) == (255, 0, 0, 255)
    assert at(pixels, 350, 100) == (0, 0, 0, 0)
    assert at(pixels, 100, 100) == (0, 0, 0, 0)


def test_a_static_group_can_be_drawn_repeatedly_in_a_frame_and_in_several_frames() -> None:
    part = DisplayList()
    part.fill(rectangle(0, 0, 100, 100), RED)
    group = part.static_group()
    rasterizer = Rasterizer(SIZE, SIZE, VIEW)
    for step in range(4):
        drawing = DisplayList()
        drawing.add(group, translate(step * 100, 0))
        drawing.add(group, translate(step * 100, 300))
        rasterizer.paint(drawing.items)
        pixels = rasterizer.pixels
        assert at(pixels, step * 100 + 50, 50) == (255, 0, 0, 255)
        assert at(pixels, step * 100 + 50, 350) == (255, 0, 0, 255)
        assert int((pixels[..., 3] > 0).sum()) == 200


def test_a_backdrop_stays_behind_every_frame() -> None:
    rasterizer = Rasterizer(SIZE, SIZE, VIEW)
    drawing = DisplayList()
    drawing.fill(rectangle(0, 0, UNIT, UNIT), BLUE)
    rasterizer.paint(drawing.items)
    rasterizer.set_backdrop(rasterizer.pixels.copy())
    for x in (0, 300):
        mark = DisplayList()
        mark.fill(rectangle(x, 0, 100, 100), RED)
        rasterizer.paint(mark.items)
        pixels = rasterizer.pixels
        assert at(pixels, x + 50, 50) == (255, 0, 0, 255)
        assert at(pixels, 650, 650) == (0, 0, 255, 255)
        assert int((pixels[..., 0] > 0).sum()) == 100


def test_gradients_run_from_one_colour_to_the_other() -> None:
    drawing = DisplayList()
    drawing.fill(rectangle(0, 0, UNIT, UNIT), LinearGradient(0, 0, UNIT, 0, ((0, RED), (1, BLUE))))
    pixels = paint(drawing)
    assert at(pixels, 5, 300)[0] > 240
    assert at(pixels, 715, 300)[2] > 240
    drawing = DisplayList()
    drawing.fill(ellipse(360, 360, 300), glow(360, 360, 300, RED, 1.0))
    pixels = paint(drawing)
    assert at(pixels, 360, 360)[3] > 240
    assert at(pixels, 640, 360)[3] < 40


def test_dithered_gradients_have_no_bands() -> None:
    shallow = np.linspace(100, 116, 240, dtype=np.float32)
    picture = np.repeat(np.rint(shallow)[:, None, None], 240, 1).repeat(4, 2).astype(np.uint8)
    picture[:, 200:] = 30
    smooth = dither(picture)
    assert np.abs(picture[20:-20, :180].mean((1, 2)) - shallow[20:-20]).max() > 0.4
    assert np.abs(smooth[20:-20, :180, :3].mean((1, 2)) - shallow[20:-20]).max() < 0.15
    assert (smooth == dither(picture)).all()
    assert (smooth[..., 3] == picture[..., 3]).all()
    # Edges stay sharp.
    assert smooth[:, 198, :3].min() >= 98
    assert smooth[:, 201, :3].max() <= 32


def test_strokes_have_a_width() -> None:
    drawing = DisplayList()
    drawing.stroke(svg_path("M 100 360 L 600 360"), RED, 40)
    pixels = paint(drawing)
    assert at(pixels, 300, 355) == (255, 0, 0, 255)
    assert at(pixels, 300, 395) == (0, 0, 0, 0)


def test_strands_have_pointed_ends() -> None:
    drawing = DisplayList()
    drawing.fill(
        tapered(
            "M 100 360 C 250 360 450 360 600 360 M 100 100 C 100 200 200 200 200 300 C 200 400 300 400 300 500", 60
        ),
        RED,
    )
    pixels = paint(drawing)

    def thickness(x: float) -> int:
        return int((pixels[30:42, int(x / 10), 3] > 127).sum())

    assert 5 <= thickness(350) <= 7
    assert thickness(110) < thickness(150) < thickness(350)
    assert thickness(590) <= 1
    assert at(pixels, 195, 290) == (255, 0, 0, 255)


def test_svg_path_data_is_parsed() -> None:
    path = svg_path("M 0 0 L 10 0 C 1 2 3 4 5 -6.5 Z M 1,1 L 2,2 3,3")
    assert path.points == ((0, 0), (10, 0), (1, 2), (3, 4), (5, -6.5), (1, 1), (2, 2), (3, 3))
    assert path.commands == (1, 2, 3, 0, 1, 2, 2)


def test_transforms_are_applied_from_right_to_left() -> None:
    both = translate(10, 0) @ scale(2)
    assert (both.a, both.e) == (2, 10)
    quarter = rotate(90, 5, 5)
    x, y = 6, 5
    assert (quarter.a * x + quarter.c * y + quarter.e, quarter.b * x + quarter.d * y + quarter.f) == pytest.approx(
        (5, 6)
    )


def test_colours() -> None:
    assert rgba("#ff8000") == (255, 128, 0, 255)
    assert rgba(with_alpha("#ff8000", 0.5)) == (255, 128, 0, 128)
    assert mix("#000000", "#ffffff", 0.5) == "#808080"


def test_a_symmetric_outline_is_completed_from_its_right_half() -> None:
    assert mirror_points([(0, 0), (5, 5), (0, 10)]) == [(0, 0), (5, 5), (0, 10), (-5, 5)]


MOVING = [
    FacePose(mouth=MOUTH_SHAPES[name], yaw=0.02 * i, bob=0.1 * i, breath=0.01 * i) for i, name in enumerate("XDBFA")
]


@pytest.mark.parametrize("view", [VIEW, Framing(134, -12, 452)])
def test_redrawing_the_changed_area_gives_the_same_picture_as_redrawing_everything(view: Framing) -> None:
    character = get_character("amara_a0033")
    moved, whole = Rasterizer(180, 320, view), Rasterizer(180, 320, view)
    moved.paint(backdrop(character))
    moved.set_backdrop(moved.pixels.copy())
    areas = []
    for pose in MOVING:
        areas.append(moved.paint(bust(character, pose)))
        whole.set_backdrop(moved._backdrop.view(np.uint8).reshape(moved.pixels.shape))
        whole.paint(bust(character, pose))
        assert (moved.pixels == whole.pixels).all()
    assert areas[0] == (0, 0, 180, 320)
    # The torso did not move by a whole step, so the other areas are around the head.
    assert all((right - left) * (bottom - top) < 0.8 * 180 * 320 for left, top, right, bottom in areas[1:])
    assert moved.paint(bust(character, MOVING[-1])) == (0, 0, 0, 0)


def test_groups_that_appear_and_disappear_are_drawn_and_erased() -> None:
    rasterizer = Rasterizer(SIZE, SIZE, VIEW)
    square = DisplayList()
    square.fill(rectangle(100, 100, 100, 100), RED)
    group = square.static_group()
    rasterizer.paint([group])
    assert rasterizer.paint([]) == (8, 8, 22, 22)
    assert not rasterizer.pixels.any()
    rasterizer.paint([group])
    assert at(rasterizer.pixels, 150, 150) == (255, 0, 0, 255)


def test_items_outside_the_changed_area_stay() -> None:
    still, moving = DisplayList(), DisplayList()
    still.fill(rectangle(500, 500, 100, 100), BLUE)
    moving.fill(rectangle(0, 0, 100, 100), RED)
    parts = still.static_group(), moving.static_group()
    rasterizer = Rasterizer(SIZE, SIZE, VIEW)
    for x in (0, 50, 480):
        drawing = DisplayList()
        drawing.add(parts[0])
        drawing.add(parts[1], translate(x, x))
        rasterizer.paint(drawing.items)
        assert (rasterizer.pixels == paint(drawing)).all()


def test_more_groups_than_the_cache_holds_can_be_drawn() -> None:
    rasterizer = Rasterizer(SIZE, SIZE, VIEW)
    for number in range(250):
        drawing = DisplayList()
        drawing.fill(rectangle(number, 0, 100, 100), RED)
        rasterizer.paint([drawing.static_group()])
        assert at(rasterizer.pixels, number + 50, 50) == (255, 0, 0, 255)
    assert len(rasterizer._scenes) <= 100


@pytest.mark.parametrize("fill", [glow(0, 0, 60, RED, 1.0), LinearGradient(-60, 0, 60, 0, ((0, RED), (1, BLUE)))])
def test_gradients_move_with_the_groups_that_they_fill(fill: Paint) -> None:
    part = DisplayList()
    with part.clipped(ellipse(0, 0, 50)):
        part.fill(ellipse(0, 0, 60), fill)
    group = part.static_group()
    kept = Rasterizer(SIZE, SIZE, VIEW)
    for step in (0, 1, 2, 0, 5):
        drawing = DisplayList()
        with drawing.transformed(rotate(step)):
            drawing.add(group, translate(100 + step * 90, 200) @ scale(1 - 0.05 * step, 1))
        kept.paint(drawing.items)
        assert (kept.pixels == paint(drawing)).all()


def test_a_moving_head_looks_as_if_each_frame_were_drawn_on_its_own() -> None:
    character = get_character("leo_a0047")
    kept = Rasterizer(180, 180, VIEW)
    for yaw in (-1.0, 0.0, 1.0, -1.0):
        kept.paint(bust(character, FacePose(yaw=yaw, gaze_x=-0.4 * yaw, lean=yaw)))
        fresh = Rasterizer(180, 180, VIEW)
        fresh.paint(bust(character, FacePose(yaw=yaw, gaze_x=-0.4 * yaw, lean=yaw)))
        assert np.abs(kept.pixels.astype(int) - fresh.pixels).max() <= 2


def test_bounds_include_strokes_clips_and_transforms() -> None:
    drawing = DisplayList()
    drawing.stroke(svg_path("M 10 10 L 20 10"), RED, 4)
    with drawing.transformed(translate(100, 0)), drawing.clipped(rectangle(0, 0, 5, 5)):
        drawing.fill(rectangle(0, 0, 500, 500), RED)
    assert bounds_of(drawing.items) == (8, 0, 105, 12)
    assert bounds_of([]) is None


def test_a_silhouette_is_white_and_omits_translucent_shapes() -> None:
    inner, drawing = DisplayList(), DisplayList()
    inner.fill(rectangle(0, 0, 10, 10), BLUE)
    drawing.fill(rectangle(0, 0, 100, 100), LinearGradient(0, 0, 1, 1, ((0, RED), (1, BLUE))))
    drawing.fill(rectangle(0, 0, 300, 100), with_alpha(RED, 0.5))
    drawing.fill(rectangle(0, 0, 300, 100), RED, 0.5)
    drawing.add(inner.static_group(), translate(50, 0))
    with drawing.clipped(rectangle(0, 0, 5, 5)):
        drawing.fill(rectangle(0, 0, 500, 500), RED)
    mark, group = silhouette_of(drawing.static_group()).items
    assert isinstance(mark, Shape)
    assert mark.paint == "#ffffff"
    assert isinstance(group, Group)
    assert group.transform == translate(50, 0)


@pytest.mark.parametrize("colour", [RED, BLUE, "#00ff00", "#000000", "#ffffff", "#F2B998", "#2D3A63", "#8A5237"])
def test_video_colours_match_ffmpeg(colour: str) -> None:
    picture = np.full((16, 16, 3), rgba(colour)[:3], np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709", dst_color_range="MPEG")
    y, u, v = frame.to_ndarray()[:, 8, 8]
    ours = uvya(colour)
    assert ours[:3] == pytest.approx((u, v, y), abs=1)
    assert uvya(with_alpha(colour, 0.5))[3] == 128


def test_a_frame_has_the_painted_luma_and_the_mean_chroma_of_four_pixels() -> None:
    rasterizer = Rasterizer(SIZE, SIZE, VIEW, uvya)
    drawing = DisplayList()
    drawing.fill(rectangle(0, 0, UNIT, UNIT), "#808080")
    drawing.fill(rectangle(0, 0, 130, 300), RED)  # ends in the middle of a 2 × 2 block
    frame = FrameBuffer(SIZE, SIZE)
    frame.update(rasterizer.pixels, rasterizer.paint(drawing.items))
    picture = frame.frame.to_ndarray(format="yuv420p")
    _, v, y, _ = uvya(RED)
    assert (picture[:30, :13] == y).all()
    assert abs(int(picture[40, 40]) - uvya("#808080")[2]) <= 1
    reds = picture[SIZE + SIZE // 4 :].reshape(SIZE // 2, SIZE // 2)
    assert reds[5, 2] == v
    assert reds[5, 6] == pytest.approx((v + 128) / 2, abs=1)
    assert reds[5, 8] == reds[30, 2] == 128
