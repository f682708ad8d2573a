"""``a2v character new`` and ``a2v character check``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from a2v.engine.characters import Framing, built_in_characters, get_character, read_character
from a2v.engine.characters.generator import generate_character
from a2v.engine.drawing.bust import UNIT, bust
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.drawing.scenery import backdrop
from a2v.engine.face_pose import FacePose


def hsv(colour: str) -> tuple[float, float, float]:
    import colorsys

    return colorsys.rgb_to_hsv(*(byte / 255 for byte in bytes.fromhex(colour[1:])))


def test_a_new_character_is_a_valid_file_with_a_picture(here, tmp_path) -> None:
    code, out, err = here("character", "new", "nora", "-o", "mine", "--seed", "7", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == ["mine/nora.toml", "mine/nora.preview.png"]
    made = read_character(tmp_path / "mine" / "nora.toml")
    assert (made.model_id, made.display_name) == ("nora", "Nora")
    assert made == generate_character("nora", 7)
    assert (tmp_path / "mine" / "nora.preview.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = here("character", "check", "mine/nora.toml")
    assert (code, out) == (0, "mine/nora.preview.png\n")


def test_the_file_says_how_to_make_it_again(here, tmp_path) -> None:
    assert here("character", "new", "nora", "--like", "eva_a0008")[0] == 0
    first, content = (tmp_path / "nora.toml").read_text().split("\n", 1)
    command = first.removeprefix("# a2v ").split()
    assert command[:3] == ["character", "new", "nora"]
    assert here(*command, "--overwrite")[0] == 0
    assert (tmp_path / "nora.toml").read_text() == f"{first}\n{content}"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["new", "my nora"], "the name of the file must have 1 to 100 letters"),
        (["new", "nora_front"], "must not end in _front"),
        (["new", "Eva_A0008"], "Eva_A0008 is the id of a built-in character"),
        (["new", "nora", "--like", "bob"], "--like: there is no character and no file 'bob'; the characters are amara"),
        (["new", "nora", "--like", "bad.toml"], "--like: bad.toml: display_name is missing"),
        (["new", "old"], "old.toml exists; add --overwrite to replace it"),
        (["check"], "character check needs at least one file"),
    ],
)
def test_what_cannot_be_made_is_refused(here, tmp_path, arguments, problem) -> None:
    (tmp_path / "bad.toml").touch()
    (tmp_path / "old.toml").touch()
    code, out, err = here("character", *arguments)
    assert (code, out) == (2, "")
    assert problem in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.toml", "old.toml"]


def test_check_reports_all_problems_of_all_files(here, tmp_path) -> None:
    here("character", "new", "good", "--seed", "1")
    source = (tmp_path / "good.toml").read_text()
    (tmp_path / "good.preview.png").unlink()
    (tmp_path / "bad.toml").write_text(
        source.replace("gender =", "sex =").replace("[features]", "[features]\nzoom = 1")
    )
    code, out, err = here("character", "check", "bad.toml", "good.toml", "missing.toml")
    assert (code, out) == (1, "")
    assert "4 problems in 3 files" in err
    for problem in (
        "sex is not a key",
        "features.zoom is not a key",
        "gender is missing",
        "missing.toml: it cannot be",
    ):
        assert problem in err
    assert (tmp_path / "good.preview.png").exists()


@pytest.mark.parametrize("folder", [".", "/"])
def test_folders_without_a_name(here, folder) -> None:
    code, _, err = here("character", "check", folder)
    assert (code, f"  {folder}: it cannot be read" in err) == (1, True)
    code, _, err = here("character", "new", "x", "--like", folder)
    assert (code, f"--like: there is no character and no file '{folder}'" in err) == (2, True)


# -- the generator ----------------------------------------------------------------------------------------------------

MADE = [generate_character("x", seed) for seed in range(300)]


def test_seeds_give_different_people() -> None:
    assert len(set(MADE)) == len(MADE)
    assert {one.gender for one in MADE} == {"female", "male"}
    assert len({one.palette.skin.base for one in MADE}) == 10
    assert {one.features.hair for one in MADE} == {"long", "bob", "curls", "short", "tousled", "receding"}
    assert len({one.features.scene for one in MADE}) > 5
    assert MADE[7] == generate_character("x", 7)


def test_colours_go_together() -> None:
    for one in MADE:
        palette = one.palette
        for tones in (palette.skin, palette.hair, palette.lips, palette.clothes):
            assert hsv(tones.shade)[2] < hsv(tones.base)[2] <= hsv(tones.light)[2], one
        skin, hair = hsv(palette.skin.base)[2], hsv(palette.hair.base)[2]
        assert abs(hsv(palette.backdrop[0])[1]) < 0.2, "the backdrop is pale"
        assert skin > 0.6 or hair < 0.6 or hsv(palette.hair.base)[1] < 0.1, "no fair hair on dark skin, except grey"
        if one.gender == "female":
            assert one.features.beard == "none"
        if one.features.age < 0.4:
            assert hsv(palette.hair.base)[1] > 0.15, "the young are not grey"


@pytest.mark.parametrize("like", sorted(built_in_characters()))
def test_like_another_character(like) -> None:
    model = get_character(like)
    for seed in range(20):
        made = generate_character("x", seed, model)
        assert made.gender == model.gender
        assert abs(made.features.age - model.features.age) <= 0.11
        skins = [np.array(list(bytes.fromhex(one.palette.skin.base[1:])), int) for one in (made, model)]
        assert np.abs(skins[0] - skins[1]).max() < 40
        assert made.palette != model.palette
        for name in ("length", "width", "eye_distance", "eye_slant", "nose", "nose_width", "ears", "mouth"):
            assert abs(getattr(made.features, name) - getattr(model.features, name)) <= 0.125, name


def test_they_can_be_drawn() -> None:
    for one in MADE[:12]:
        rasterizer = Rasterizer(64, 64, Framing(0, 0, UNIT))
        rasterizer.paint([*backdrop(one), *bust(one, FacePose())])
        assert rasterizer.pixels[..., :3].std() > 25
