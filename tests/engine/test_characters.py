from __future__ import annotations

import io
from collections import Counter

import av
import numpy as np
import pytest
from attrs import evolve

from a2v.engine.characters import (
    _FOLDER,
    CharacterSpec,
    Framing,
    all_characters,
    camera_poses,
    get_camera_pose,
    get_character,
    read_character,
)
from a2v.engine.drawing.bust import UNIT, backdrop, bust, silhouette
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.errors import RenderError
from a2v.engine.face_pose import MOUTH_SHAPES, VISEMES, FacePose
from a2v.engine.preview import preview

MODEL_IDS = sorted(all_characters())
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
    genders = Counter(character.gender for character in all_characters().values())
    assert sum(genders.values()) >= 4
    assert genders["female"] >= 2
    assert genders["male"] >= 1


def test_eva_is_a_character() -> None:
    eva = all_characters()["eva_a0008"]
    assert (eva.model_id, eva.display_name, eva.gender) == ("eva_a0008", "Eva 01", "female")


def test_names_are_unique() -> None:
    names = [character.display_name for character in all_characters().values()]
    assert len(set(names)) == len(names)


def test_characters_look_different() -> None:
    faces = {name: part(picture(character), 0.25, 0.1, 0.75, 0.7) for name, character in all_characters().items()}
    for one in MODEL_IDS:
        for other in MODEL_IDS:
            if one < other:
                assert np.abs(faces[one] - faces[other]).mean() > 15, (one, other)


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
    ids = [pose.pose_id for model_id in MODEL_IDS for pose in camera_poses(model_id)]
    assert len(set(ids)) == len(ids) >= 2 * len(MODEL_IDS)
    assert not set(ids) & set(MODEL_IDS)
    for model_id in MODEL_IDS:
        assert {pose.character.model_id for pose in camera_poses(model_id)} == {model_id}
        assert len({pose.name for pose in camera_poses(model_id)}) == len(camera_poses(model_id))


def test_a_pose_is_found_by_its_id_and_the_default_one_by_the_model_id() -> None:
    front, closeup = camera_poses("eva_a0008")[:2]
    assert get_camera_pose("eva_a0008_closeup") == closeup
    assert get_camera_pose("eva_a0008") == get_camera_pose("eva_a0008_front") == front
    for unknown in (get_camera_pose, camera_poses):
        with pytest.raises(RenderError, match=r"no character 'eva_a0008_side'"):
            unknown("eva_a0008_side")


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
        return int((eyes_of(picture(character, FacePose(blink=blink))).min(-1) > 210).sum())

    assert white(0) > 45
    assert white(1) < white(0) / 4
    assert white(1) <= white(0.5) <= white(0)


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


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ('hair = "long"', 'hair = "mohawk"', "hair"),
        ("eyes = 0.8", "eyes = 8", "eyes must be between 0 and 1"),
        ("eyes = 0.8", "ears = 0.8", "ears"),
        ('"#F2B998"', '"peach"', "a colour is written like"),
        ('display_name = "Eva 01"', "", "display_name"),
        ('gender = "female"', 'gender = "f"', "gender"),
        ("[palette]", "[palette", "new_a0001.toml"),
    ],
)
def test_an_invalid_character_file_is_reported_with_its_fault(was: str, becomes: str, complaint: str, tmp_path) -> None:
    source = (_FOLDER / "eva_a0008.toml").read_text(encoding="utf-8")
    assert was in source
    path = tmp_path / "new_a0001.toml"
    path.write_text(source.replace(was, becomes), encoding="utf-8")
    with pytest.raises(ValueError, match=r"new_a0001\.toml") as caught:
        read_character(path)
    assert complaint in str(caught.value)
