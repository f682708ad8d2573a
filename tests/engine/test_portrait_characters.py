"""Portraits in a folder of characters, and with ``a2v generate --portrait``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import anyio
import av
import httpx
import numpy as np
import pytest

from a2v import AsyncA2V
from a2v.cli.character_files import new_character
from a2v.cli.options import ServerOptions, UsageError
from a2v.cli.portrait import check_portrait_options, serve_portrait
from a2v.engine import LocalEngine, characters
from a2v.engine.characters import camera_poses, dump_character, load_character
from a2v.engine.characters.catalogue import Catalogue
from a2v.engine.characters.portraits import PortraitSpec
from tests.engine.portrait_helpers import COLLINS, HOPPER, png, write_speech

pytestmark = pytest.mark.anyio
EMPTY, TINY = (png(np.full(shape, 90, np.uint8)) for shape in ((210, 210), (300, 199)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "characters"
    folder.mkdir()
    return folder


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav", seconds=0.12)


async def run(*arguments: str) -> tuple[int, str, str]:
    done = await anyio.run_process([str(Path(sys.executable).with_name("a2v")), *arguments], check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.extended
async def test_a_picture_in_the_folder_is_a_character_that_speaks(folder: Path, tmp_path: Path, speech: Path) -> None:
    (folder / "grace_hopper.jpg").write_bytes(HOPPER)
    (folder / "eileen.jpeg").write_bytes(COLLINS)
    (folder / "eileen.toml").write_text('display_name = "Eileen C."\ngender = "female"\nbackground = "#203040"\n')
    (folder / "nobody.png").write_bytes(EMPTY)
    async with (
        LocalEngine(characters=folder, allow_files=[speech]) as engine,
        AsyncA2V(engine.token, base_url=engine.base_url) as client,
    ):
        found = {one.model_id: one for one in await client.characters.list()}
        assert "nobody" not in found
        assert (found["eileen"].display_name, found["eileen"].gender) == ("Eileen C.", "female")
        assert (found["grace_hopper"].display_name, found["grace_hopper"].gender) == ("Grace Hopper", "unspecified")
        avatar = next(one for one in await client.avatars.list() if one.avatar_id == "eileen")
        assert [pose.pose_id for pose in avatar.poses] == ["eileen_full", "eileen_closeup"]
        async with httpx.AsyncClient() as http:
            pictures = [(await http.get(pose.preview_url)).content for pose in avatar.poses]
        assert all(picture.startswith(b"\x89PNG") for picture in pictures)
        assert pictures[0] != pictures[1]
        task = await client.videos.generate(pose_id="eileen_closeup", audio_url=speech.as_uri(), with_mask=True)
        # The task keeps its portrait.
        (folder / "eileen.jpeg").unlink()
        await task.wait()
        await task.download(tmp_path / "video.mp4")
        await task.download(tmp_path / "mask.mp4", mask=True)
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert "Synthetic media" in video.metadata["comment"]
        assert next(video.decode(video=0)).width == 512
    assert (tmp_path / "mask.mp4").stat().st_size > 1000


async def test_invalid_portraits_are_reported_and_do_not_affect_others(folder: Path) -> None:
    shutil.copy(Path(characters.__file__).with_name("leo_a0047.toml"), folder / "good.toml")
    (folder / "text.webp").write_text("no picture")
    for name, table in (
        ("crop", "crop = [0.5, 0, 0.2, 1]"),
        ("unknown", 'backgruond = "#ffffff"'),
        ("colour", 'background = "white"'),
        ("blink", "blinking = 1"),
        ("broken", "display_name ="),
    ):  # refused before the picture is examined
        (folder / f"{name}.jpg").write_bytes(HOPPER)
        (folder / f"{name}.toml").write_text(table)
    (folder / "twice.jpg").write_bytes(HOPPER)
    (folder / "twice.png").write_bytes(EMPTY)
    found = await Catalogue(folder).current()
    assert found.specs["good"].display_name == "Leo"
    problems = {problem.name: str(problem) for problem in found.problems}
    assert "must be a JPEG, PNG or WebP file" in problems["text.webp"]
    assert "crop must be [left, top, right, bottom]" in problems["crop.toml"]
    assert "did you mean background?" in problems["unknown.toml"]
    assert "a colour is written like" in problems["colour.toml"]
    assert "blinking must be true or false" in problems["blink.toml"]
    assert "broken.toml" in problems
    assert "keep one picture and one .toml" in problems["twice.jpg"]


async def test_a_picture_that_is_replaced_is_another_portrait(folder: Path) -> None:
    """Although its name and its settings are the same."""
    catalogue = Catalogue(folder)
    (folder / "ada.jpg").write_bytes(HOPPER)
    before = (await catalogue.current()).specs["ada"]
    (folder / "ada.jpg").write_bytes(COLLINS)
    after = (await catalogue.current()).specs["ada"]
    assert (before.picture, after.picture) == (HOPPER, COLLINS)
    assert before.previews != after.previews


async def test_problems_name_the_file_that_has_them(folder: Path) -> None:
    (folder / "eva_a0008.jpg").write_bytes(HOPPER)
    for name, table in (("latin", b"display_name = '\xe9'"), ("long", b"#" * 70_000)):
        (folder / f"{name}.jpg").write_bytes(HOPPER)
        (folder / f"{name}.toml").write_bytes(table)
    assert [str(problem).partition(";")[0] for problem in (await Catalogue(folder).current()).problems] == [
        "eva_a0008.jpg: the built-in character eva_a0008 has the same model_id",
        "latin.toml: it is not UTF-8 text (byte 16)",
        "long.toml: it is longer than 64 KiB",
    ]


def test_portraits_survive_the_way_to_another_process() -> None:
    portrait = PortraitSpec(
        model_id="é", display_name="É", picture=b"\n\0\xff", crop=(0, 0, 1, 0.5), background="#ffffff", blinking=True
    )
    assert load_character(dump_character(portrait)) == portrait
    assert [pose.close_up for pose in camera_poses(portrait)] == [False, True]
    with pytest.raises(ValueError, match="not a portrait"):
        load_character(b'{"portrait": {"name": 1}}\n')


async def test_the_command_renders_a_portrait_without_a_folder(tmp_path: Path, speech: Path) -> None:
    picture, video = tmp_path / "me.jpg", tmp_path / "me.mp4"
    picture.write_bytes(COLLINS)
    status, printed, errors = await run("generate", str(speech), "--portrait", str(picture), "-o", str(video))
    assert status == 0, errors
    assert "must have consented" in printed
    with av.open(str(video)) as file:
        assert "Synthetic media" in file.metadata["comment"]
        assert len(list(file.decode(video=0))) == 3


async def test_check_also_examines_portraits(folder: Path) -> None:
    for name, table in (("crop", "crop = [0.5, 0, 0.2, 1]"), ("good", "blinking = false")):
        (folder / f"{name}.jpg").write_bytes(COLLINS)
        (folder / f"{name}.toml").write_text(table)
    status, printed, errors = await run("character", "check", str(folder / "crop.toml"), str(folder / "good.jpg"))
    assert (status, printed) == (1, "")
    assert "1 problem in 2 files:" in errors
    assert "crop.toml: crop must be [left, top, right, bottom]" in errors
    assert (folder / "good.preview.png").read_bytes().startswith(b"\x89PNG")
    assert f"{folder / 'good.preview.png'} was drawn" in errors.replace("\n", "")
    with pytest.raises(UsageError, match="is a portrait; pass the model_id or the file of a drawn character"):
        new_character("other", folder, seed=1, like=str(folder / "good.jpg"), overwrite=False)


@pytest.mark.parametrize(
    ("options", "model_id", "message"),
    [
        ({}, "eva_a0008", "remove --model-id, or remove --portrait"),
        ({"base_url": "http://127.0.0.1"}, None, "remove --base-url, or remove --portrait"),
        ({"data_dir": Path("data")}, None, "instead of combining it with --data-dir, copy the picture into a folder"),
    ],
)
def test_options_that_contradict_a_portrait_are_refused(options: dict, model_id: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_portrait_options(ServerOptions(**options), model_id, None)


async def test_files_that_cannot_be_portraits_are_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    for name, content, message in (
        ("missing.jpg", None, "missing.jpg cannot be read: No such file"),
        ("endless.jpg", b"", "endless.jpg is not a file"),
        ("me.gif", EMPTY, r"me.gif must be a picture: .png, .jpg, .jpeg, .webp"),
        ("me.png", TINY, "me.png: The portrait has 199 × 300 pixels; each side must have 200 or more"),
    ):
        path = tmp_path / name
        if content:
            path.write_bytes(content)
        elif content is not None and sys.platform != "win32":
            path.symlink_to("/dev/zero")
        elif content is not None:
            path.mkdir()
        with pytest.raises(UsageError, match=message):
            async with serve_portrait(path, ServerOptions(local=True)):
                pytest.fail("the portrait was accepted")
