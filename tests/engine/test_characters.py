from __future__ import annotations

import io
from collections import Counter
from typing import get_args

import av
import numpy as np
import pytest
from attrs import evolve

from a2v.engine.characters import (
    _FOLDER,
    CharacterError,
    CharacterSpec,
    Framing,
    Outfit,
    Scene,
    built_in_characters,
    camera_poses,
    dump_character,
    get_camera_pose,
    get_character,
    load_character,
    parse_character,
    read_character,
    to_toml,
)
from a2v.engine.drawing import clothes
from a2v.engine.drawing.bust import UNIT, _layer_transform, _layer_transforms, bust, silhouette
from a2v.engine.drawing.display_list import DisplayList, bounds_of
from a2v.engine.drawing.face import face_outline
from a2v.engine.drawing.geometry import Path
from a2v.engine.drawing.mouth import draw_mouth
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.drawing.scenery import backdrop
from a2v.engine.errors import RenderError
from a2v.engine.face_pose import MOUTH_SHAPES, VISEMES, FacePose
from a2v.engine.preview import preview

MODEL_IDS = sorted(built_in_characters())
SIZE = 240


def picture(character: CharacterSpec, pose: FacePose = FacePose()) -> np.ndarray:  # noqa: B008 - a value
    rasterizer = Rasterizer(SIZE, SIZE, Framing(0, 0, UNIT))
    rasterizer.paint([*backdrop(character), *bust(character, pose)])
    return rasterizer.pixels[..., :3].astype(int)


def part(pixels: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return a part of a picture, in fractions of its side."""
    return pixels[int(top * SIZE) : int(bottom * SIZE), int(left * SIZE) : int(right * SIZE)]


def mouth_of(pixels: np.ndarray) -> np.ndarray:
    return part(pixels, 0.42, 0.53, 0.58, 0.66)


def eyes_of(pixels: np.ndarray) -> np.ndarray:
    return part(pixels, 0.36, 0.39, 0.64, 0.48)


def test_there_are_at_least_four_characters_of_both_genders() -> None:
    genders = Counter(character.gender for character in built_in_characters().values())
    assert sum(genders.values()) >= 4
    assert genders["female"] >= 2
    assert genders["male"] >= 1


def test_eva_is_a_character() -> None:
    eva = built_in_characters()["eva_a0008"]
    assert (eva.model_id, eva.display_name, eva.gender) == ("eva_a0008", "Eva 01", "female")


def test_names_are_unique() -> None:
    names = [character.display_name for character in built_in_characters().values()]
    assert len(set(names)) == len(names)


def test_characters_look_different() -> None:
    faces = {name: part(picture(character), 0.25, 0.1, 0.75, 0.7) for name, character in built_in_characters().items()}
    for one in MODEL_IDS:
        for other in MODEL_IDS:
            if one < other:
                assert np.abs(faces[one] - faces[other]).mean() > 15, (one, other)


def test_faces_differ_in_more_than_colours() -> None:
    eva = get_character("eva_a0008")
    faces = {}
    for model_id, character in built_in_characters().items():
        bald = evolve(
            character.features,
            hair="receding",
            beard="none",
            glasses="none",
            freckles=0.0,
            mole="none",
            age=0.0,
            outfit="crew",
        )
        faces[model_id] = part(picture(evolve(eva, features=bald)), 0.3, 0.35, 0.7, 0.7)
    for one in MODEL_IDS:
        for other in MODEL_IDS:
            if one < other:
                assert np.abs(faces[one] - faces[other]).mean() > 3, (one, other)


def test_portraits_show_arms_beside_the_torso() -> None:
    for outfit in get_args(Outfit):
        eva = get_character("eva_a0008")
        character = evolve(eva, features=evolve(eva.features, outfit=outfit))
        rasterizer = Rasterizer(154, 274, get_camera_pose("eva_a0008").framings["portrait"])
        rasterizer.paint(bust(character, FacePose()))
        covered = rasterizer.pixels[-3, :, 3] > 127
        # Arm, gap, torso, gap and arm.
        assert np.count_nonzero(covered[1:] != covered[:-1]) == 6, outfit
        assert covered[77]


def test_the_neck_follows_the_head_and_stays_on_the_torso() -> None:
    neck, *_ = [layer for layer in clothes.layers(get_character("leo_a0047")) if layer.follow == 1]
    for yaw in (-1, 1):
        moved = _layer_transform(neck, FacePose(yaw=yaw))
        head = _layer_transforms(FacePose(yaw=yaw))[2].e - _layer_transforms(FacePose())[2].e
        assert Path((), ((360, 470),)).moved(moved).points[0] == pytest.approx((360 + head, 470))
        assert Path((), ((360, 582),)).moved(moved).points[0] == pytest.approx((360, 582))


def test_the_strings_of_a_hoodie_swing() -> None:
    def left_string(swing: float) -> float:
        rasterizer = Rasterizer(60, 60, Framing(300, 640, 120))
        rasterizer.paint(bust(get_character("leo_a0047"), FacePose(swing=swing)))
        return float(np.nonzero(rasterizer.pixels[20:40, :30, 2] > 215)[1].mean())

    assert left_string(4) + 1 < left_string(0) < left_string(-4) - 1


def test_each_scene_is_a_calm_picture_of_its_own_that_fills_every_format() -> None:
    eva = get_character("eva_a0008")
    pictures = []
    for scene in get_args(Scene):
        character = evolve(eva, features=evolve(eva.features, scene=scene))
        for framing, width, height in ((Framing(-280, 0, 1280), 128, 72), (Framing(70, -120, 580), 58, 104)):
            rasterizer = Rasterizer(width, height, framing)
            rasterizer.paint(backdrop(character))
            assert (rasterizer.pixels[..., 3] == 255).all(), scene
            assert rasterizer.pixels[..., :3].mean() > 150, scene
        pictures.append(rasterizer.pixels[..., :3].astype(int))
    for number, one in enumerate(pictures):
        assert all(np.abs(one - other).mean() > 3 for other in pictures[:number])
    assert len({character.features.scene for character in built_in_characters().values()}) == len(MODEL_IDS)


def test_the_error_for_an_unknown_character_lists_the_characters() -> None:
    with pytest.raises(RenderError, match=r"no character 'bob'.*eva_a0008"):
        get_character("bob")


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_a_preview_has_the_requested_size(model_id: str) -> None:
    data = preview(model_id, 128)
    assert data.startswith(b"\x89PNG")
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (128, 128)
    assert frame.to_ndarray(format="rgb24").std() > 20


def test_every_character_has_poses_of_its_own() -> None:
    ids = [pose.pose_id for model_id in MODEL_IDS for pose in camera_poses(get_character(model_id))]
    assert len(set(ids)) == len(ids) >= 2 * len(MODEL_IDS)
    assert not set(ids) & set(MODEL_IDS)
    for model_id in MODEL_IDS:
        assert {pose.character.model_id for pose in camera_poses(get_character(model_id))} == {model_id}
        assert len({pose.name for pose in camera_poses(get_character(model_id))}) == len(
            camera_poses(get_character(model_id))
        )


def test_a_pose_is_found_by_its_id_and_the_default_one_by_the_model_id() -> None:
    front, closeup = camera_poses(get_character("eva_a0008"))[:2]
    assert get_camera_pose("eva_a0008_closeup") == closeup
    assert get_camera_pose("eva_a0008") == get_camera_pose("eva_a0008_front") == front
    with pytest.raises(RenderError, match=r"no character 'eva_a0008_side'"):
        get_camera_pose("eva_a0008_side")


def test_each_pose_has_a_preview_of_its_own() -> None:
    assert preview("eva_a0008", 128) == preview("eva_a0008_front", 128) != preview("eva_a0008_closeup", 128)


TURNED = [
    FacePose(),
    FacePose(yaw=-1.6, roll=-4, pitch=-1.5, bob=-1, breath=1, mouth=MOUTH_SHAPES["D"]),
    FacePose(yaw=1.6, roll=4, pitch=1.5, bob=1.2, breath=-1, mouth=MOUTH_SHAPES["F"]),
]


@pytest.mark.parametrize("turned", TURNED, ids=["front", "left", "right"])
@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_a_silhouette_covers_the_person_and_nothing_else(model_id: str, turned: FacePose) -> None:
    covers = []
    for draw in (bust, silhouette):
        rasterizer = Rasterizer(SIZE, SIZE, Framing(0, 0, UNIT))
        rasterizer.paint(draw(get_character(model_id), turned))
        covers.append(rasterizer.pixels[..., 3].astype(int))
    assert np.abs(covers[0] - covers[1]).max() < 80  # anti-aliased edges that several parts share
    assert np.abs(covers[0] - covers[1]).mean() < 0.1
    assert covers[1].max() == 255


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_every_mouth_looks_different(model_id: str) -> None:
    mouths = {name: mouth_of(picture(get_character(model_id), FacePose(mouth=MOUTH_SHAPES[name]))) for name in VISEMES}
    for one in VISEMES:
        for other in VISEMES:
            if one < other:
                assert np.abs(mouths[one] - mouths[other]).mean() > 0.8, (one, other)


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_an_open_mouth_is_dark_inside_and_shows_teeth(model_id: str) -> None:
    character = get_character(model_id)
    closed = mouth_of(picture(character, FacePose(mouth=MOUTH_SHAPES["A"])))
    opened = mouth_of(picture(character, FacePose(mouth=MOUTH_SHAPES["D"])))

    def dark(pixels: np.ndarray) -> int:
        red, green = pixels[..., 0], pixels[..., 1]
        return int(((green < 32) & (red > 45) & (red - green > 28)).sum())

    def white(pixels: np.ndarray) -> int:
        return int((pixels.min(-1) > 225).sum())

    assert dark(opened) > dark(closed) + 25
    assert white(opened) > white(closed) + 25


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_closed_eyes_hide_the_white(model_id: str) -> None:
    character = get_character(model_id)

    def white(blink: float) -> int:
        return int((eyes_of(picture(character, FacePose(blink=blink))).min(-1) > 205).sum())

    assert white(0) > 30
    assert white(1) < white(0) / 4
    assert white(1) <= white(0.5) <= white(0)


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_a_lid_of_skin_comes_down_over_the_eye(model_id: str) -> None:
    character = get_character(model_id)
    # Between the pupil and the crease of the lid, where an open eye shows its iris.
    lid = [part(picture(character, FacePose(blink=blink)), 0.425, 0.425, 0.44, 0.433) for blink in (0, 0.75)]
    skin = np.array([int(character.palette.skin.base[at : at + 2], 16) for at in (1, 3, 5)])
    away = [np.abs(pixels.mean((0, 1)) - skin).mean() for pixels in lid]
    assert away[1] < 35
    assert away[1] < away[0]


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_rounded_lips_hide_the_tongue(model_id: str) -> None:
    def tongue(viseme: str) -> int:
        drawing = DisplayList()
        draw_mouth(drawing, get_character(model_id), MOUTH_SHAPES[viseme])
        rasterizer = Rasterizer(SIZE, SIZE, Framing(-60, -60, 120))
        rasterizer.paint(drawing.items)
        inside = rasterizer.pixels[110:136, 104:136, :3].astype(int)
        return int(((inside[..., 0] > 170) & (inside[..., 0] - inside[..., 1] > 50)).sum())

    assert tongue("H") > 40
    assert tongue("F") == 0


@pytest.mark.parametrize("model_id", ["omar_a0012", "viktor_a0059"])
def test_a_moustache_does_not_stretch(model_id: str) -> None:
    character = get_character(model_id)

    def width(viseme: str) -> float:
        """Return the width of what has the colour of the hair."""
        drawing = DisplayList()
        draw_mouth(drawing, character, MOUTH_SHAPES[viseme])
        hair = [item for item in drawing.items if character.palette.hair.shade in str(item)]
        left, _, right, _ = bounds_of(hair) or pytest.fail("no moustache")
        return right - left

    widths = [width(viseme) for viseme in VISEMES]
    assert max(widths) < 1.15 * min(widths)


def chin_of(character: CharacterSpec, yaw: float) -> float:
    outline = face_outline(character, 0, yaw)
    return max(outline.points, key=lambda point: point[1])[0]


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_the_chin_and_the_far_cheek_follow_a_turn(model_id: str) -> None:
    character = get_character(model_id)
    assert chin_of(character, -1) + 10 < chin_of(character, 0) < chin_of(character, 1) - 10
    front, turned = (face_outline(character, 0, yaw).points for yaw in (0, 1))
    assert max(x for x, y in turned if -30 < y < 60) < max(x for x, y in front if -30 < y < 60)


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_eyes_and_mouth_follow_the_turn_of_the_head(model_id: str) -> None:
    def middle(yaw: float) -> float:
        """Return the mean x of the whites of eyes and teeth in pixels."""
        pixels = picture(get_character(model_id), FacePose(mouth=MOUTH_SHAPES["D"], yaw=yaw))
        return float(np.nonzero(part(pixels, 0.36, 0.39, 0.64, 0.62).min(-1) > 215)[1].mean())

    assert middle(-1) + 3 < middle(0) < middle(1) - 3


def test_a_character_is_a_data_file(tmp_path) -> None:
    source = (_FOLDER / "eva_a0008.toml").read_text(encoding="utf-8")
    path = tmp_path / "ada_b0001.toml"
    path.write_text(source.replace("Eva 01", "Ada").replace('hair = "long"', 'hair = "bob"'), encoding="utf-8")
    ada = read_character(path)
    assert (ada.model_id, ada.display_name) == ("ada_b0001", "Ada")
    assert np.abs(picture(ada) - picture(get_character("eva_a0008"))).mean() > 1


@pytest.mark.parametrize("hair", ["long", "bob", "curls", "short", "tousled", "receding"])
@pytest.mark.parametrize("outfit", ["blazer", "crew", "turtleneck", "hoodie", "shirt"])
def test_any_hair_goes_with_any_clothes(hair: str, outfit: str) -> None:
    eva = get_character("eva_a0008")
    other = evolve(
        eva, features=evolve(eva.features, hair=hair, outfit=outfit, beard="stubble", glasses="square", age=0.6)
    )
    assert np.abs(picture(other) - picture(eva)).mean() > 0.5


SOURCE = (_FOLDER / "eva_a0008.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ('hair = "long"', 'hair = "mohawk"', "features.hair must be one of long, bob, curls,"),
        ("eyes = 0.8", "eyes = 8", "features.eyes must be between 0 and 1, got 8"),
        ("eyes = 0.8", 'eyes = "0.8"', "features.eyes must be between 0 and 1, got '0.8'"),
        ("eyes = 0.8", "eyes = nan", "features.eyes must be between 0 and 1, got nan"),
        ("eyes = 0.8", "eye = 0.8", "features.eye is not a key of a character; did you mean eyes?"),
        ("eyes = 0.8", "zoom = 0.8", "features.zoom is not a key of a character; the keys are hair, outfit,"),
        ('"#F2B998"', '"peach"', "palette.skin: a colour is written like '#F2B998', not 'peach'"),
        ('"#F2B998", ', "", "palette.skin must be a list of 3 colours"),
        ('iris = ["#6B4A2F", "#A87A4A"]', 'iris = "#6B4A2F"', "palette.iris must be a list of 2 colours"),
        ('display_name = "Eva 01"', "", "display_name is missing"),
        ('display_name = "Eva 01"', "display_name = 1", "display_name must be text, got 1"),
        ('display_name = "Eva 01"', f'display_name = "{"a" * 101}"', "display_name must have at most 100 characters"),
        ('display_name = "Eva 01"', 'display_name = "E\u200bva"', "display_name must not contain"),
        ('gender = "female"', 'gender = "f"', "gender must be one of female, male; got 'f'"),
        ('gender = "female"', 'gender = "female"\nmodel_id = "ada"', "model_id must not be in the file"),
        ("[palette]", "[palette", "at line 4"),
        ("[palette]", "palette = 1\n[colours]", "palette must be a table"),
    ],
)
def test_an_invalid_character_file_is_reported_with_its_fault(was: str, becomes: str, complaint: str, tmp_path) -> None:
    assert was in SOURCE
    path = tmp_path / "new_a0001.toml"
    path.write_text(SOURCE.replace(was, becomes), encoding="utf-8")
    with pytest.raises(CharacterError, match=r"^new_a0001\.toml: ") as caught:
        read_character(path)
    assert complaint in str(caught.value)


def test_all_problems_of_a_file_are_reported_at_once(tmp_path) -> None:
    source = SOURCE.replace("eyes = 0.8", "eyes = 8").replace('"long"', '"mohawk"').replace("#F2B998", "peach")
    path = tmp_path / "my eva.toml"
    path.write_text(
        source.replace('gender = "female"', "").replace("[palette]", "age = 3\n[palette]"), encoding="utf-8"
    )
    with pytest.raises(CharacterError) as caught:
        read_character(path)
    words = (
        "the name of the file",
        "palette.skin",
        "features.hair",
        "features.eyes",
        "age is not a key",
        "gender is missing",
    )
    assert len(caught.value.problems) == len(words)
    for word in words:
        assert any(word in problem for problem in caught.value.problems), word


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff", "not UTF-8"),
        (b"# " * 40_000, "longer than 64 KiB"),
        (b"", "display_name is missing"),
        (b"a = " + b"[" * 5000, "ada.toml: "),
    ],
    ids=["binary", "long", "empty", "deep"],
)
def test_other_files_are_no_characters(content: bytes, complaint: str) -> None:
    with pytest.raises(CharacterError, match=complaint):
        parse_character("ada.toml", content)


@pytest.mark.parametrize("name", ["ada", "Ada-2_b", "Zoë", "小林"])
def test_the_name_of_a_file_is_the_model_id(name: str) -> None:
    assert parse_character(f"{name}.toml", SOURCE.encode()).model_id == name


@pytest.mark.parametrize("name", ["a.b", "a b", "", "a\nb", "a" * 101, "ada_front", "ada_closeup", "ada_Full"])
def test_a_file_name_that_is_no_model_id_is_refused(name: str) -> None:
    with pytest.raises(CharacterError, match="the name of the file must"):
        parse_character(f"{name}.toml", SOURCE.encode())


def test_an_id_is_the_same_in_both_unicode_forms() -> None:
    assert parse_character("Zoe\u0308.toml", SOURCE.encode()).model_id == "Zo\u00eb"


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_a_character_survives_the_way_to_another_process_and_to_a_file(model_id: str) -> None:
    character = get_character(model_id)
    assert load_character(dump_character(character)) == character
    assert parse_character(f"{model_id}.toml", to_toml(character).encode()) == character


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b'{"model_id": "a", "drawn": 1}', b'{"model_id": "a", "drawn": {}}', b"\0"]
)
def test_damaged_characters_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # of several kinds
        load_character(content)
