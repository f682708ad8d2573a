"""How portraits move, measured on their frames."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from a2v.engine.animation import animate
from a2v.engine.audio import Recording
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.face_pose import MOUTH_SHAPES, FacePose, MouthShape
from a2v.engine.lipsync import VISEMES, analyse_pieces
from a2v.engine.portrait.geometry import measure, table_places
from a2v.engine.portrait.head import HeadMotion
from a2v.engine.portrait.inside import _estimate_white, without_specks
from a2v.engine.portrait.painter import PortraitPainter, rgb_to_uvya
from a2v.engine.portrait.photo import Photo, read_photo
from a2v.engine.portrait.studio import Studio
from a2v.engine.render import render
from tests.engine.portrait_helpers import FOLDER, face_points, pixels, png, resize, studio, write_speech

SPEECH = Path(__file__).with_name("speech")
SIZE = 320
RESTING = FacePose(mouth=MOUTH_SHAPES["X"])


def spec(name: str = "hopper", **options: object) -> PortraitSpec:
    picture = (FOLDER / f"{name}.jpg").read_bytes()
    return PortraitSpec(**({"model_id": "p", "display_name": "P", "picture": picture} | options))


@cache
def painter(name: str, *, blinks: bool = True) -> PortraitPainter:
    found = studio(name)
    return Studio(found.photo, found.face, spec(name, blinking=blinks)).painter(close_up=True, width=SIZE, height=SIZE)


def draw(name: str, pose: FacePose) -> np.ndarray:
    """Return a frame: U, V, Y and alpha."""
    drawn = painter(name)
    drawn.paint(pose)
    return drawn.pixels.astype(int)


def say(viseme: str, **pose: float) -> FacePose:
    return FacePose(mouth=MOUTH_SHAPES[viseme], **pose)


def mouth_box(name: str) -> tuple[slice, slice]:
    face = painter(name)._face
    x, y = face.middle
    return slice(int(y - face.mouth), int(y + 1.4 * face.mouth)), slice(
        int(x - 1.3 * face.mouth), int(x + 1.3 * face.mouth)
    )


@cache
def bare(name: str) -> PortraitPainter:
    """Return a painter of a face without features: whatever is not grey in a frame is the inside of the mouth."""
    _, _, points = studio(name)._frame(SIZE, SIZE, close_up=True)
    return PortraitPainter(np.full((SIZE, SIZE, 3), 128, np.uint8), points, blinks=False)


def inside(name: str, mouth: MouthShape) -> np.ndarray:
    """Return which pixels show the inside of the mouth."""
    drawn = bare(name)
    drawn.paint(FacePose(mouth=mouth))
    return np.abs(drawn.pixels.astype(int) - drawn.pixels[0, 0]).max(-1) > 10


# -- mouth ------------------------------------------------------------------------------------------------------------


def test_the_mouth_opens_as_far_as_the_viseme_says() -> None:
    drawn = bare("hopper")
    middle = int(drawn._face.middle[0])
    heights = {
        viseme: float(inside("hopper", MOUTH_SHAPES[viseme])[:, middle - 2 : middle + 3].sum(0).mean())
        for viseme in VISEMES
    }
    assert heights["X"] == heights["A"] == 0
    assert 0 < heights["G"] < heights["B"] < heights["C"] < heights["D"]
    assert heights["D"] == pytest.approx(0.6 * drawn._face.mouth, rel=0.25)
    for viseme in "BCD":
        assert heights[viseme] == pytest.approx(drawn._lips.opening(MOUTH_SHAPES[viseme]), abs=1.6)


def test_rounded_lips_make_a_small_hole() -> None:
    shapes = {viseme: inside("hopper", MOUTH_SHAPES[viseme]) for viseme in "CF"}
    widths, heights = ({viseme: int(shape.any(axis).sum()) for viseme, shape in shapes.items()} for axis in (0, 1))
    assert widths["F"] < 0.6 * widths["C"]
    assert heights["F"] > 0.3 * widths["F"]


@pytest.mark.parametrize("name", ["hopper", "collins"])
def test_nothing_of_the_mouth_shows_in_closures(name: str) -> None:
    for viseme in "XA":
        assert not inside(name, MOUTH_SHAPES[viseme]).any()


@pytest.mark.parametrize("name", [pytest.param("hopper", marks=pytest.mark.extended), "collins"])
def test_lips_meet_in_closures_also_those_of_a_smile(name: str) -> None:
    face = painter(name)._face
    places = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 33), np.linspace(-0.6, 0.9, 200)), -1) * face.mouth
    layers = painter(name)._lips.solve(places.astype(np.float32), MOUTH_SHAPES["A"])
    # Each place belongs to one of the layers: no gap between the lips, and no overlap.
    seam = np.abs(layers.above + layers.below)[np.abs(layers.below) < 1]
    assert len(seam) > 30
    assert seam.max() < 0.35
    assert (layers.open == 0).all()
    # No teeth in sight: nothing brighter than the lips and the skin.
    rows, columns = mouth_box(name)
    lips = draw(name, say("A"))[rows, columns, 2]
    assert np.percentile(lips, 99.5) <= np.percentile(painter_photo(name)[rows, columns, 2], 99.5) + 3


def painter_photo(name: str) -> np.ndarray:
    found = studio(name)
    rgb, _, _ = found._frame(SIZE, SIZE, close_up=True)
    return (rgb_to_uvya(rgb.astype(np.float32)) + 0.5).astype(int)


def test_an_oo_of_a_smile_shows_no_teeth() -> None:
    rows, columns = mouth_box("collins")
    smile, oo = (draw("collins", pose)[rows, columns, 2] for pose in (say("C"), say("F")))
    lips = np.percentile(draw("collins", say("A"))[rows, columns, 2], 99.5)
    assert np.percentile(smile, 99.5) > lips + 8
    assert np.percentile(oo, 99.5) < lips + 8
    assert oo.min() < 0.6 * np.median(oo)


def test_rounded_lips_of_a_smile_have_no_step_in_their_edge() -> None:
    """A ring between the far corners of a smile would bend the upper lip where it begins and ends."""
    drawn = painter("collins")
    x, y = np.linspace(-0.9, 0.9, 91), np.linspace(-0.6, 0.6, 241)
    places = (np.stack(np.meshgrid(x, y), -1) * drawn._face.mouth).astype(np.float32)
    steps = {}
    for viseme in "AEF":
        edge = y[np.abs(drawn._lips.solve(places, MOUTH_SHAPES[viseme]).above).argmin(0)]
        steps[viseme] = np.abs(edge - np.polynomial.Polynomial.fit(x, edge, 4)(x)).max()
    assert max(steps["E"], steps["F"]) < steps["A"]


def test_the_opening_of_an_oo_is_an_ellipse() -> None:
    """The edge of an angular one, or of an almond, would be far from any."""
    drawn = painter("hopper")
    x, y = np.linspace(-0.9, 0.9, 181), np.linspace(-0.8, 0.8, 1201)
    places = (np.stack(np.meshgrid(x, y), -1) * drawn._face.mouth).astype(np.float32)
    layers = drawn._lips.solve(places, MOUTH_SHAPES["F"])
    upper, lower = (y[np.abs(distance).argmin(0)] for distance in (layers.above, layers.below))
    is_open = lower - upper > 0.03
    x, y = np.tile(x[is_open], 2), np.concatenate([upper[is_open], lower[is_open]])
    (a, b, c, d, e), *_ = np.linalg.lstsq(np.stack([x * x, x * y, y * y, x, y], 1), np.ones(len(x)))
    slopes = np.hypot(2 * a * x + b * y + d, b * x + 2 * c * y + e)
    distances = np.abs(a * x * x + b * x * y + c * y * y + d * x + e * y - 1) / slopes
    assert distances.max() < 0.07 * (lower - upper).max()


def test_teeth_in_the_shade_of_rounded_lips_are_not_grey() -> None:
    face = painter("collins")._face
    x, y = face.to_frame(np.array([[0, face.upper[128] + 0.15 * face.mouth]], np.float32))[0].astype(int)
    halfway = MouthShape(*((np.array(MOUTH_SHAPES["E"]) + MOUTH_SHAPES["F"]) / 2))
    teeth = [
        draw("collins", FacePose(mouth=mouth))[y, x - 10 : x + 11].mean(0) for mouth in (MOUTH_SHAPES["C"], halfway)
    ]
    bright, shaded = (int(brightness) - 16 for _, _, brightness, _ in teeth)
    redness = [(red - 128) / (brightness - 16) for _, red, brightness, _ in teeth]
    assert 0.2 * bright < shaded < 0.7 * bright
    assert redness[1] > 4.3 * redness[0] > 0


def test_drawn_teeth_are_as_yellow_as_the_light() -> None:
    """Varnish makes a painting yellow, which teeth of another colour would give away."""
    rgb, face = pixels("hopper").copy(), measure(face_points("hopper"), pixels("hopper"))
    whites = {}
    for share in (1.0, 0.5):
        whites[share] = _estimate_white(face, (rgb * np.array([1, 1, share])).astype(np.uint8))
    assert whites[0.5][2] / whites[0.5][1] < 0.8 * whites[1.0][2] / whites[1.0][1]
    assert whites[0.5][0] == pytest.approx(whites[1.0][0], rel=0.1)


def test_specks_of_teeth_do_not_move_with_the_lower_lip() -> None:
    rgb, face = pixels("collins").copy(), measure(face_points("collins"), pixels("collins"))
    place = [0.2 * face.mouth, float(np.interp(0.2 * face.mouth, table_places(face.mouth), face.lower)) + 1.5]
    x, y = face.to_frame(np.array([place], np.float32))[0].astype(int)
    rgb[y - 1 : y + 1, x - 1 : x + 2] = (235, 230, 225)
    cleaned = without_specks(face, rgb)
    lip = np.median(rgb[y + 4 : y + 8, x - 8 : x + 9].reshape(-1, 3), axis=0)
    assert np.abs(cleaned[y, x] - lip).max() < 40 < np.abs(rgb[y, x] - lip).max()
    changed = np.nonzero((cleaned != rgb).any(-1))
    assert changed[0].max() - y < 0.3 * face.mouth


def test_teeth_keep_their_place_and_size() -> None:
    """The lips uncover the teeth of the picture; they are never moved with them."""
    drawn = painter("collins")
    face = drawn._face
    spots = face.to_frame(np.array([[0, (face.upper[128] + 0.10 * face.mouth)]], np.float32))[0].astype(int)
    rows, columns = slice(spots[1] - 1, spots[1] + 2), slice(spots[0] - 14, spots[0] + 15)
    shown = [draw("collins", say(viseme))[rows, columns, 2] for viseme in "CDH"]
    photo = painter_photo("collins")[rows, columns, 2]
    for teeth in shown:
        assert np.corrcoef(teeth.ravel(), photo.ravel())[0, 1] > 0.8


def test_the_mouth_follows_real_speech() -> None:
    lines = dict(line.split(":") for line in (SPEECH / "mouths.txt").read_text().splitlines())
    lips, shut = painter("hopper")._lips, []
    for path in sorted(SPEECH.glob("*.flac")):
        truth = "".join(word[0] * int(word[1:]) for word in lines[path.stem].split())
        probabilities, loudness = analyse_pieces(Recording(path).pieces())
        heights = np.array([lips.opening(pose.mouth) for pose in animate(probabilities, loudness, seed=1)])
        expected = np.array(
            [lips.opening(MOUTH_SHAPES[truth[min(4 * i + 2, len(truth) - 1)]]) for i in range(len(heights))]
        )
        assert np.corrcoef(heights, expected)[0, 1] > 0.6, path.stem
        closures = [i for i in range(1, len(heights) - 1) if set(truth[4 * i - 2 : 4 * i + 6]) == {"A"}]
        shut += [heights[i - 1 : i + 2].min() < 0.1 * heights.max() for i in closures]
    assert len(shut) > 5
    assert np.mean(shut) > 0.8


# -- the rest of the face ---------------------------------------------------------------------------------------------


def test_nothing_moves_outside_of_the_head() -> None:
    found = studio("hopper")
    drawn = Studio(found.photo, found.face, spec("hopper")).painter(close_up=False, width=512, height=512)
    before = drawn.pixels.copy()
    drawn.paint(say("D", yaw=1, roll=1, bob=1, brow=1))
    left, top, right, bottom = drawn.area
    changed = np.any(drawn.pixels != before, axis=-1)
    assert changed.any()
    changed[top:bottom, left:right] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("collins", (512, 512)),
        *(pytest.param("hopper", shape, marks=pytest.mark.extended) for shape in ((512, 512), (910, 512))),
    ],
)
def test_the_picture_does_not_tear_where_a_movement_ends(name: str, shape: tuple[int, int]) -> None:
    """Neighbouring pixels of a frame are neighbours in the picture, too: at the border of each area that is drawn, and between."""
    height, width = shape
    drawn = studio(name).painter(close_up=False, width=width, height=height)
    times, face = drawn._scale, drawn._face
    # The pixels of this picture are their own places.
    y, x = np.mgrid[: height * times, : width * times].astype(np.uint32)
    drawn._texture = (x | y << 16).ravel()
    offset = times // 2
    drawn._words[:] = (x | y << 16)[offset::times, offset::times]
    still = drawn._words.copy()
    lips = drawn._lips.opening(MOUTH_SHAPES["D"]) + 0.4 * face.mouth
    rows, columns = np.mgrid[:height, :width] + 0.5
    in_face = face.to_face(np.stack([columns, rows], -1).astype(np.float32))
    # There both layers are mixed.
    in_mouth = (np.abs(in_face[..., 0]) < 1.6 * face.mouth) & (np.abs(in_face[..., 1]) < lips)
    left, top, right, bottom = drawn.area
    assert (left, top) > (0, 0) < (width - right, height - bottom) or shape != (512, 512)
    for sign in (1, -1):
        motions = dict.fromkeys(drawn._head._names, 1.5 * sign)
        drawn._words[:] = still
        drawn.paint(say("D" if sign > 0 else "F", **motions))
        places = np.stack([drawn._words & 0xFFFF, drawn._words >> 16], -1).astype(int) / times
        moved = places - np.stack([columns, rows], -1)
        assert np.abs(moved[~in_mouth]).max() > 3
        for axis in (0, 1):
            steps = np.abs(np.diff(moved, axis=axis)).max(-1)
            mouth = in_mouth[1:] | in_mouth[:-1] if axis == 0 else in_mouth[:, 1:] | in_mouth[:, :-1]
            assert steps[~mouth].max() <= 1
        edges = [
            moved[top, left:right],
            moved[bottom - 1, left:right],
            moved[top:bottom, left],
            moved[top:bottom, right - 1],
        ]
        inner = [
            edge for edge, is_inner in zip(edges, (top, bottom < height, left, right < width), strict=True) if is_inner
        ]
        assert inner
        assert max(np.abs(edge).max() for edge in inner) <= 0.75


def test_a_mouth_that_moves_changes_the_lower_face_only() -> None:
    drawn = painter("hopper")
    face = drawn._face
    calm, speaking = draw("hopper", say("X")), draw("hopper", say("D"))
    changed = np.abs(calm - speaking)[..., 2] > 12
    rows, columns = np.nonzero(changed)
    assert rows.min() > face.points[4, 1] - 0.15 * face.eye_distance  # the nose
    assert np.abs(columns - face.middle[0]).max() < 1.25 * face.jaw
    assert (rows - face.middle[1]).max() < 3 * face.chin


@pytest.mark.parametrize("name", ["hopper", "collins"])
def test_a_mouth_moves_nothing_outside_of_its_area(name: str) -> None:
    """It would be cut off there."""
    lips, face = painter(name)._lips, painter(name)._face
    left, top, right, bottom = lips.reach
    reach = 1.2 * max(right, bottom)
    places = np.stack(np.meshgrid(*[np.linspace(-reach, reach, 300)] * 2), -1).astype(np.float32)
    outside = ((places < (left, top)) | (places > (right, bottom))).any(-1)
    for viseme in VISEMES:
        layers = lips.solve(places, MOUTH_SHAPES[viseme])
        sources = np.where(layers.below[..., None] > 0, layers.lower, layers.upper)
        assert np.abs(sources - places)[outside].max() < 0.02 * face.mouth, viseme


def test_lines_behind_the_head_stay_straight() -> None:
    """A line of the background is shifted, but hardly bent."""
    found = studio("hopper")
    grid = np.array([[found.face.points[:, 0].max() + 40.0, y] for y in np.linspace(20, 300, 30)], np.float32)
    motion = HeadMotion(measure(found.face.points, found.photo.rgb), grid, 600)
    for pose in (FacePose(yaw=1), FacePose(yaw=-1), FacePose(pitch=1)):
        x = grid[:, 0] + motion.shifts(pose)[:, 0]
        y = grid[:, 1]
        fitted = np.polynomial.Polynomial.fit(y, x, 1)(y)
        assert np.abs(x - fitted).max() < 1.0


def test_the_edge_of_a_photograph_inside_of_the_frame_does_not_move() -> None:
    """A narrow picture is shown in front of a blurred one."""
    face = studio("collins").face
    left, right = int(face.points[:, 0].min()) - 6, int(face.points[:, 0].max()) + 6
    narrow = resize(pixels("collins")[:, left:right], 2 * (right - left), 640)
    in_narrow = face._replace(points=2 * (face.points - np.array([left, 0, 0], np.float32)))
    found = Studio(Photo(narrow, None, 1.0), in_narrow, spec("collins"))
    drawn = found.painter(close_up=True, width=SIZE, height=SIZE)
    photo = drawn.pixels.astype(int)
    drawn.paint(say("X", yaw=1, roll=1))
    changed = np.abs(drawn.pixels - photo)[..., 2] > 12
    edge = (SIZE - SIZE * (right - left) // 320) // 2
    assert changed[:, SIZE // 2 - 30 : SIZE // 2 + 30].any()
    # Cheeks that end there may stretch by two pixels.
    assert not changed[:, : edge - 3].any()


def test_heads_turn_with_more_movement_of_the_nose_than_of_the_ears() -> None:
    drawn = painter("hopper")
    points = drawn._face.points
    shifts = {}
    for number in (1, 234):
        drawn_at = drawn._nodes.reshape(-1, 2)
        nearest = np.argmin(((drawn_at - points[number, :2]) ** 2).sum(1))
        shifts[number] = drawn._head.shifts(FacePose(yaw=1)).reshape(-1, 2)[nearest, 0]
    assert shifts[1] > 1.5 * shifts[234] > 0


def test_a_blink_covers_the_eye_with_skin() -> None:
    name = "collins"
    face = painter(name)._face
    eye = face.points[[159, 145], :2].mean(0).astype(int)
    part = slice(eye[1] - 2, eye[1] + 2), slice(eye[0] - 2, eye[0] + 3)
    opened, closed = (draw(name, say("X", blink=blink))[part] for blink in (0.0, 1.0))
    skin = np.median(cheek(name))
    assert abs(np.median(closed[..., 2]) - skin) < abs(np.median(opened[..., 2]) - skin)


def with_large_eyes(name: str, height: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Paint the eyes of a cartoon on a face, larger than the landmarks are; return where they are, too."""
    rgb, points = studio(name)._frame(SIZE, SIZE, close_up=True)[::2]
    rgb, rows_columns = rgb.copy(), np.mgrid[:SIZE, :SIZE]
    eyes = []
    for corners in ((33, 133), (362, 263)):
        ends = points[list(corners), :2]
        middle, width = ends.mean(0), float(np.linalg.norm(ends[1] - ends[0]))
        distance = np.hypot((rows_columns[1] - middle[0]) / 0.62, (rows_columns[0] - middle[1]) / height) / width
        for reach, colour in (
            (1.12, (70, 30, 20)),
            (1.0, (250, 250, 250)),
            (0.55, (60, 120, 200)),
            (0.25, (10, 10, 10)),
        ):
            rgb[distance < reach] = colour
        eyes.append(distance < 1.0)
    return rgb, eyes


def test_lids_cover_eyes_that_are_larger_than_the_landmarks_with_plain_skin() -> None:
    rgb, eyes = with_large_eyes("collins", height=0.25)
    drawn = PortraitPainter(rgb, studio("collins")._frame(SIZE, SIZE, close_up=True)[2], blinks=True)
    skin = float(np.median(cheek("collins")))
    for eye in eyes:
        rows = np.nonzero(eye.any(1))[0]
        under_lid = eye & (np.arange(SIZE) < rows[0] + 0.35 * len(rows))[:, None]
        drawn.paint(say("X", blink=0.0))
        assert np.ptp(drawn.pixels[eye, 2].astype(int)) > 150
        drawn.paint(say("X", blink=0.55))
        # No strips of the outline or of lashes.
        assert np.abs(drawn.pixels[under_lid, 2] - skin).max() < 0.4 * skin
        drawn.paint(say("X", blink=1.0))
        closed = drawn.pixels[eye, 2].astype(int)
        assert closed.max() < skin + 25
        assert np.percentile(closed, 15) > 0.7 * skin


def test_eyes_that_a_lid_would_not_cover_do_not_blink() -> None:
    rgb, _ = with_large_eyes("collins", height=0.32)
    drawn = PortraitPainter(rgb, studio("collins")._frame(SIZE, SIZE, close_up=True)[2], blinks=True)
    drawn.paint(say("X"))
    opened = drawn.pixels.copy()
    drawn.paint(say("X", blink=1))
    assert (drawn.pixels == opened).all()


def test_a_glance_moves_the_iris_within_the_eye() -> None:
    name = "collins"
    left, right = (draw(name, say("X", gaze_x=gaze))[..., 2] for gaze in (-1.0, 1.0))
    changed = np.abs(left - right) > 4
    eyes = np.zeros_like(changed)
    for lids in ((33, 133, 159, 145), (362, 263, 386, 374)):
        x, y = painter(name)._face.points[list(lids), :2].T
        part = slice(int(y.min()) - 2, int(y.max()) + 3), slice(int(x.min()) - 1, int(x.max()) + 2)
        eyes[part] = True
        columns = np.arange(part[1].stop - part[1].start)
        darkness = [(np.percentile(one[part], 60) - one[part]).clip(0).sum(0) for one in (left, right)]
        from_left, from_right = ((columns * dark).sum() / dark.sum() for dark in darkness)
        assert 0.5 < from_right - from_left < 0.15 * len(columns)
    assert changed[eyes].any()
    assert not changed[~eyes].any()


def cheek(name: str) -> np.ndarray:
    face = painter(name)._face
    x, y = face.points[50, :2].astype(int)
    return draw(name, say("X"))[y - 3 : y + 4, x - 3 : x + 4, 2]


def test_glasses_are_never_smeared() -> None:
    found = studio("hopper").painter(close_up=True, width=SIZE, height=SIZE)
    found.paint(say("X"))
    opened = found.pixels.copy()
    found.paint(say("X", blink=1))
    assert (found.pixels == opened).all()


# -- background -------------------------------------------------------------------------------------------------------


def test_a_background_replaces_what_is_behind_the_person() -> None:
    found = studio("collins")
    drawn = Studio(found.photo, found.face, spec("collins", background="#00ff00")).painter(
        close_up=False, width=SIZE, height=SIZE
    )
    drawn.paint(say("D", yaw=1))
    green = rgb_to_uvya(np.array([0, 255, 0], np.float32))
    corner, face = drawn.pixels[8, 8], drawn.pixels[int(found_middle(drawn)[1]), int(found_middle(drawn)[0])]
    assert np.abs(corner - green).max() <= 2
    assert np.abs(face[:3] - green[:3]).max() > 60
    assert (drawn.pixels[..., 3] == 255).all()


def found_middle(drawn: PortraitPainter) -> np.ndarray:
    return drawn._face.points[4, :2]


def test_transparent_pictures_keep_their_own_edge() -> None:
    rgb = pixels("collins")
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[:, 60:260] = 255
    photo = read_photo(png(np.dstack([rgb, alpha])))
    found = Studio(photo, studio("collins").face, spec("collins", background="#ff0000"))
    still = found.still(close_up=False, size=SIZE)
    assert (still[:, :40] == (255, 0, 0)).all()
    assert np.abs(still[160, 160].astype(int) - (255, 0, 0)).max() > 60


# -- videos -----------------------------------------------------------------------------------------------------------


def decode(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    with av.open(str(path)) as video:
        return np.array([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]), dict(video.metadata)


def test_a_portrait_becomes_a_video_with_a_mask(tmp_path: Path) -> None:
    recording = Recording(write_speech(tmp_path / "speech.wav"))
    outputs = [tmp_path / name for name in ("one.mp4", "other.mp4")]
    mask = tmp_path / "mask.mp4"
    render(recording, "p_full", outputs[0], character=spec("collins"), size=160, mask=mask)
    frames, metadata = decode(outputs[0])
    masks, mask_metadata = decode(mask)
    assert frames.shape == masks.shape
    assert frames.shape[1:] == (160, 160, 3)
    assert "Synthetic media" in metadata["comment"]
    assert "Synthetic media" in mask_metadata["comment"]
    assert masks[:, 60, 80].min() > 230  # the face
    assert masks[:, 5, 5].max() < 25  # the background
    render(recording, "p_full", outputs[1], character=spec("collins"), size=160)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize(
    ("pose", "shape"),
    [
        ("full", (284, 160)),
        ("closeup", (160, 284)),
        pytest.param("full", (160, 284), marks=pytest.mark.extended),
        pytest.param("closeup", (284, 160), marks=pytest.mark.extended),
    ],
)
def test_portraits_fill_every_shape(pose: str, shape: tuple[int, int]) -> None:
    found = studio("collins")
    drawn = found.painter(close_up=pose == "closeup", width=shape[1], height=shape[0])
    area = drawn.paint(RESTING)
    assert area == (0, 0, shape[1], shape[0])
    points = drawn._face.points[:, :2]
    assert points.min() > 0
    assert (points.max(0) < (shape[1], shape[0])).all()
