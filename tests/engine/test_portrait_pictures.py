"""Which pictures become portraits, and why the others are refused."""

from __future__ import annotations

import numpy as np
import pytest

from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.errors import PortraitError
from a2v.engine.portrait.faces import check_direction, face_width, find_face
from a2v.engine.portrait.geometry import measure
from a2v.engine.portrait.glasses import wears_glasses
from a2v.engine.portrait.photo import Photo, read_photo
from a2v.engine.portrait.studio import open_studio
from tests.engine.portrait_helpers import (
    CMYK,
    COLLINS,
    encode,
    exif,
    face_points,
    pixels,
    png,
    resize,
    studio,
    with_exif,
)

TURNED = {
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: picture.swapaxes(0, 1)[::-1],
    7: lambda picture: picture.swapaxes(0, 1)[::-1, ::-1],
    8: lambda picture: picture.swapaxes(0, 1)[:, ::-1],
}
"""How a camera stores an upright picture, by the Exif orientation that makes it upright again."""


def photo(rgb: np.ndarray, scale: float = 1.0) -> Photo:
    return Photo(np.ascontiguousarray(rgb), None, scale)


def on_canvas(*pictures: tuple[np.ndarray, int, int], width: int, height: int) -> np.ndarray:
    canvas = np.full((height, width, 3), 128, np.uint8)
    for picture, left, top in pictures:
        canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
    return canvas


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_orientation_says(orientation: int) -> None:
    upright = resize(pixels("hopper"), 240, 280)
    stored = np.ascontiguousarray(TURNED[orientation](upright))
    assert difference(read_photo(png(stored, exif(orientation))).rgb, upright) == 0
    for order in "<>":
        jpeg = with_exif(encode(stored, "mjpeg"), exif(orientation, order))
        assert difference(read_photo(jpeg).rgb, upright) < 20
        assert read_photo(jpeg).rgb.shape == upright.shape


@pytest.mark.parametrize("data", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"no exif", exif(0), exif(9)])
def test_exif_data_that_make_no_sense_are_ignored(data: bytes) -> None:
    assert read_photo(with_exif(COLLINS, data)).rgb.shape == (320, 320, 3)


def test_all_formats_and_colours_show_the_same_picture() -> None:
    reference = resize(pixels("collins"), 220, 220)
    assert difference(read_photo(CMYK).rgb, reference) < 6
    assert difference(read_photo(encode(reference, "libwebp")).rgb, reference) < 8
    grey = reference.mean(-1).astype(np.uint8)
    assert difference(read_photo(png(grey)).rgb, np.repeat(grey[..., None], 3, 2)) < 2
    assert read_photo(png(reference)).alpha is None
    opaque = np.dstack([reference, np.full((220, 220), 255, np.uint8)])
    assert read_photo(png(opaque)).alpha is None
    opaque[:40, :, 3] = 0
    alpha = read_photo(png(opaque)).alpha
    assert alpha is not None
    assert (alpha[:40] == 0).all()
    assert (alpha[40:] == 255).all()


def test_large_pictures_are_scaled_down() -> None:
    large = read_photo(png(np.zeros((210, 8000), np.uint8)))
    assert large.rgb.shape == (63, 2400, 3)
    assert large.scale == pytest.approx(8000 / 2400)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a JPEG, PNG or WebP file"),
        (b"GIF89a" + bytes(100), "must be a JPEG, PNG or WebP file"),
        (b"#EXTM3U\nhttp://127.0.0.1/", "must be a JPEG, PNG or WebP file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "must be a JPEG, PNG or WebP file"),
        (COLLINS[:300], "cut off|damaged"),
        (b"\xff\xd8\xff", "cut off"),
        (b"RIFF\x04\0\0\0WEBP", "cut off"),
        (b"\x89PNG\r\n\x1a\n", "cut off"),
        (COLLINS[:200] + bytes(1000), "cut off|damaged"),
        *((picture[: len(picture) * 9 // 10], "cut off, damaged") for picture in (COLLINS, CMYK)),
        (png(np.zeros((199, 300), np.uint8)), r"300 × 199 pixels; each side must have 200 or more"),
        (png(np.zeros((200, 8001), np.uint8)), r"8001 × 200 pixels; a side may have at most 8,000"),
        (bytes((40 << 20) + 1), "larger than 40 MiB"),
    ],
)
def test_files_that_are_no_usable_pictures_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(PortraitError, match=message):
        read_photo(content)


@pytest.mark.extended
def test_damaged_files_are_refused_or_read_but_never_crash() -> None:
    random = np.random.default_rng(0)
    for original in (COLLINS, CMYK, png(pixels("collins")), encode(pixels("collins"), "libwebp")):
        for _ in range(60):
            damaged = bytearray(original)
            for at in random.integers(0, len(damaged), 20):
                damaged[at] = random.integers(256)
            try:
                found = read_photo(bytes(damaged[: random.integers(20, len(damaged))]))
            except PortraitError:
                continue
            assert found.rgb.ndim == 3


# -- faces ------------------------------------------------------------------------------------------------------------


def test_a_face_is_found_with_its_landmarks() -> None:
    face = studio("hopper").face
    assert face_width(face.points) == pytest.approx(186, abs=8)
    # The tip of the nose and the outer corners of the eyes, to about three pixels.
    for number, place in ((1, (267, 246)), (33, (201, 193)), (263, (329, 186))):
        assert face.points[number, :2] == pytest.approx(place, abs=3), number
    assert abs(face.turn) < 5
    assert abs(face.tilt) < 6


@pytest.mark.parametrize("name", ["collins", pytest.param("hopper", marks=pytest.mark.extended)])
def test_landmarks_do_not_depend_on_the_size_of_the_picture(name: str) -> None:
    rgb = pixels(name)
    height, width = rgb.shape[:2]
    points = face_points(name)
    enlarged = find_face(photo(resize(rgb, 2 * width, 2 * height))).points / 2
    assert np.abs(points - enlarged)[:, :2].mean() < 0.012 * face_width(points)


def test_pictures_without_a_face_are_refused() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (800, 200, 3), np.uint8)
    with pytest.raises(PortraitError, match=r"No human face was found in the portrait\. Use a picture in which"):
        find_face(photo(noise))


def test_what_only_resembles_a_face_is_refused() -> None:
    """Animals do, as this person with a snout does: the landmarks find eyes and mouth."""
    rgb, points = pixels("collins").copy(), face_points("collins")
    left, right = points[[205, 425], 0].astype(int)
    rgb[int(points[168, 1]) : int(points[13, 1]), left:right] = (60, 45, 35)
    with pytest.raises(PortraitError, match="No human face was found"):
        find_face(photo(rgb))


def test_pictures_with_several_faces_are_refused_unless_one_is_cropped() -> None:
    both = on_canvas((pixels("collins"), 0, 0), (pixels("collins"), 330, 40), width=660, height=370)
    with pytest.raises(PortraitError, match="shows 2 faces; it must show one"):
        find_face(photo(both))
    portrait = PortraitSpec(model_id="p", display_name="P", picture=png(both), crop=(0, 0, 0.5, 1))
    assert open_studio(portrait).face.points[1, 0] < 330


def test_faces_in_the_background_do_not_count() -> None:
    small = resize(pixels("collins"), 110, 110)
    both = on_canvas((resize(pixels("hopper"), 512, 600), 0, 0), (small, 520, 10), width=700, height=600)
    assert face_width(find_face(photo(both)).points) > 150


def test_small_faces_are_refused_by_their_size_in_the_file() -> None:
    picture = on_canvas((resize(pixels("collins"), 220, 220), 300, 200), width=900, height=700)
    with pytest.raises(PortraitError, match=r"is \d+ pixels wide; it must be 80 or more"):
        find_face(photo(picture))
    # The file had twice as many pixels.
    assert face_width(find_face(photo(picture, scale=2.0)).points) < 80


@pytest.mark.extended
def test_faces_that_are_tilted_too_far_are_refused() -> None:
    with pytest.raises(PortraitError, match=r"No human face|tilted by \d+ degrees"):
        find_face(photo(pixels("hopper").swapaxes(0, 1)))


@pytest.mark.parametrize(
    ("axes", "message"), [((0, 2), "turned away"), ((1, 2), "raised or lowered"), ((0, 1), "tilted")]
)
def test_faces_that_look_elsewhere_are_refused(axes: tuple[int, int], message: str) -> None:
    points = face_points("collins")
    middle = points.mean(0)
    for degrees in (-14, 14, 40, -40):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = points - middle
        turned[:, axes] = turned[:, axes] @ np.array([[cos, sin], [-sin, cos]], np.float32)
        if abs(degrees) < 25:
            check_direction(turned + middle)
            continue
        with pytest.raises(PortraitError, match=rf"{message} by \d+ degrees; at most 25 are allowed"):
            check_direction(turned + middle)


def test_faces_that_are_cut_off_are_refused() -> None:
    cut = pixels("hopper")[: int(face_points("hopper")[14, 1])]
    with pytest.raises(PortraitError, match=r"cut off|No human face"):
        find_face(photo(cut))


def test_glasses_are_noticed() -> None:
    for name, expected in (("hopper", True), ("collins", False)):
        rgb = pixels(name)
        points = face_points(name)
        assert wears_glasses(rgb, measure(points, rgb)) is expected, name


def test_an_open_mouth_is_refused() -> None:
    rgb, points = pixels("collins").copy(), face_points("collins")
    # Draw a mouth that is wide open: a dark ellipse with a red rim.
    y, x = np.mgrid[: len(rgb), : rgb.shape[1]]
    middle = points[[13, 14], :2].mean(0) + np.array([0, 8])
    for scale, colour in ((1.35, (170, 70, 80)), (1.0, (40, 10, 12))):
        rgb[((x - middle[0]) / 17) ** 2 + ((y - middle[1]) / 19) ** 2 < scale**2] = colour
    with pytest.raises(PortraitError, match="mouth in the portrait is wide open"):
        open_studio(PortraitSpec(model_id="p", display_name="P", picture=png(rgb)))
