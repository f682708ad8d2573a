"""A folder of characters, which changes while the engine runs."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import wave
from contextlib import asynccontextmanager

import anyio
import av
import httpx
import pytest

from a2v.engine import LocalEngine, Settings
from a2v.engine.characters import _FOLDER, built_in_characters, get_character
from a2v.engine.characters.catalogue import Catalogue, is_built_in, portable
from a2v.errors import ConfigurationError

pytestmark = pytest.mark.anyio
EVA = (_FOLDER / "eva_a0008.toml").read_text(encoding="utf-8")
INVALID = EVA.replace("eyes = 0.8", "eyes = 8")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "characters"
    folder.mkdir()
    return folder


def write(folder, name: str, text: str = EVA, *, settled: bool = False) -> None:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    if settled:  # as if it was written a minute ago
        os.utime(path, (path.stat().st_mtime - 60,) * 2)


async def own(catalogue: Catalogue) -> list[str]:
    return [model_id for model_id, spec in (await catalogue.current()).specs.items() if not is_built_in(spec)]


async def test_without_a_folder_there_are_the_built_in_characters() -> None:
    assert (await Catalogue().current()).specs == built_in_characters()


async def test_the_folder_adds_to_the_built_in_characters(folder) -> None:
    write(folder, "zoe")
    write(folder, "Ada")
    found = await Catalogue(folder).current()
    assert list(found.specs) == [*built_in_characters(), "Ada", "zoe"]
    assert found.problems == ()
    assert list(found.poses)[-2:] == ["zoe_front", "zoe_closeup"]
    assert found.find_pose("zoe") == found.find_pose("zoe_front") != found.find_pose("zoe_closeup")
    assert found.find_pose("zoe_back") is None


@pytest.mark.parametrize("settled", [True, False])
async def test_changes_count_at_once(folder, settled) -> None:
    catalogue = Catalogue(folder)
    assert await own(catalogue) == []
    write(folder, "ada", settled=settled)
    assert await own(catalogue) == ["ada"]
    write(folder, "ada", EVA.replace("Eva 01", "Ada"), settled=settled)
    assert (await catalogue.current()).specs["ada"].display_name == "Ada"
    # Of the same size and, unless it is settled, perhaps in the same tick of the file system's clock.
    write(folder, "ada", EVA.replace("Eva 01", "Bea"))
    assert (await catalogue.current()).specs["ada"].display_name == "Bea"
    (folder / "ada.toml").rename(folder / "bob.toml")
    assert await own(catalogue) == ["bob"]
    (folder / "bob.toml").unlink()
    assert await own(catalogue) == []


async def test_a_snapshot_does_not_change(folder) -> None:
    catalogue = Catalogue(folder)
    before = await catalogue.current()
    write(folder, "ada")
    await catalogue.current()
    assert "ada" not in before.specs


async def test_a_file_that_has_not_changed_is_not_read_again(folder, monkeypatch) -> None:
    write(folder, "ada", settled=True)
    catalogue = Catalogue(folder)
    before = await catalogue.current()
    monkeypatch.setattr("a2v.engine.characters.catalogue.parse_character", None)
    assert await catalogue.current() is before


async def test_an_invalid_file_is_logged_once_and_does_not_affect_the_others(folder, caplog) -> None:
    caplog.set_level(logging.INFO, "a2v.engine")
    catalogue = Catalogue(folder)
    write(folder, "ada")
    write(folder, "bad", INVALID)
    assert await own(catalogue) == await own(catalogue) == ["ada"]
    assert [str(problem) for problem in (await catalogue.current()).problems] == [
        "bad.toml: features.eyes must be between 0 and 1, got 8"
    ]
    assert caplog.messages == [
        "invalid character: bad.toml: features.eyes must be between 0 and 1, got 8",
        "character ada: added",
    ]
    caplog.clear()
    write(folder, "bad")
    write(folder, "ada", EVA.replace("Eva 01", "Ada"))
    assert await own(catalogue) == ["ada", "bad"]
    (folder / "bad.toml").unlink()
    assert (await catalogue.current()).problems == ()
    assert sorted(caplog.messages) == ["character ada: changed", "character bad: added", "character bad: removed"]


async def test_ids_are_unique_whatever_their_case_and_built_in_ones_stay(folder) -> None:
    for name in ("eva_a0008", "LEO_A0047", "Ada"):
        write(folder, name)
    found = await Catalogue(folder).current()
    assert found.specs["eva_a0008"] is get_character("eva_a0008")
    assert list(found.specs) == [*built_in_characters(), "Ada"]
    assert [str(problem).partition(";")[0] for problem in found.problems] == [
        "LEO_A0047.toml: the built-in character leo_a0047 has the same model_id",
        "eva_a0008.toml: the built-in character eva_a0008 has the same model_id",
    ]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs a file system that distinguishes these names")
async def test_of_two_files_with_one_id_the_first_counts(folder) -> None:
    for name in ("Ada", "ada", "Zo\u00eb", "Zoe\u0308"):
        write(folder, name)
    found = await Catalogue(folder).current()
    assert list(found.specs) == [*built_in_characters(), "Ada", "Zo\u00eb"]
    assert [problem.name for problem in found.problems] == ["Zo\u00eb.toml", "ada.toml"]


async def test_other_files_are_ignored(folder) -> None:
    for name in (".hidden.toml", "notes.txt", "ada.toml~", "ada.preview.png", ".#ada.toml"):
        (folder / name).write_text("?")
    (folder / "sub").mkdir()
    write(folder, "sub/ada")
    found = await Catalogue(folder).current()
    assert (found.specs, found.problems) == (built_in_characters(), ())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
async def test_what_cannot_be_read_is_a_problem_that_does_not_block(folder) -> None:
    os.mkfifo(folder / "pipe.toml")
    (folder / "folder.toml").mkdir()
    (folder / "link.toml").symlink_to("nowhere")
    write(folder, "ada")
    with anyio.fail_after(10):
        found = await Catalogue(folder).current()
    assert {problem.name: problem.problems for problem in found.problems} == {
        "pipe.toml": ("it is not a file",),
        "folder.toml": ("it cannot be read: Is a directory",),
        "link.toml": ("it cannot be read: No such file or directory",),
    }
    assert "ada" in found.specs
    (folder / "link.toml").unlink()
    write(folder, "link")
    (folder / "folder.toml").rmdir()
    (folder / "pipe.toml").unlink()
    assert (await Catalogue(folder).current()).problems == ()


async def test_a_file_is_read_again_if_the_machine_could_not(folder, monkeypatch) -> None:
    write(folder, "ada", settled=True)
    catalogue = Catalogue(folder)

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("a2v.engine.characters.catalogue.os.open", fail)
        assert await own(catalogue) == []
    assert await own(catalogue) == ["ada"]


async def test_while_the_folder_is_missing_its_characters_stay(folder, tmp_path, caplog) -> None:
    write(folder, "ada")
    catalogue = Catalogue(folder)
    assert await own(catalogue) == ["ada"]
    folder.rename(tmp_path / "elsewhere")
    assert await own(catalogue) == await own(catalogue) == ["ada"]
    assert catalogue.error == "No such file or directory"
    assert len(caplog.messages) == 1
    assert "they remain unchanged: No such file or directory" in caplog.messages[0]
    (tmp_path / "elsewhere").rename(folder)
    (folder / "ada.toml").unlink()
    assert await own(catalogue) == []
    assert catalogue.error is None


async def test_only_characters_that_are_not_built_in_are_sent_along(folder) -> None:
    write(folder, "ada")
    found = await Catalogue(folder).current()
    assert portable(found.specs["eva_a0008"]) is None
    assert b"Eva 01" in portable(found.specs["ada"])


@pytest.mark.parametrize(("name", "problem"), [("nowhere", "does not exist"), ("file", "is not a folder")])
def test_the_folder_must_exist(tmp_path, name, problem) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=f"^characters: '.*{name}' {problem}$"):
        Settings(characters=tmp_path / name)


# -- in an engine -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(**settings):
    async with (
        LocalEngine(**settings) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token}) as client,
    ):
        yield client


async def data(client, path: str):
    return (await client.get(f"/v1/a2v/{path}")).json()["data"]


@pytest.mark.usefixtures("quick_renders")
async def test_a_character_of_the_folder_is_everywhere(folder, recordings, say, poll_until) -> None:
    write(folder, "bad", INVALID)
    async with running(characters=folder, allow_files=recordings) as client:
        before = await client.get("/openapi.json")
        assert "zoë" not in before.text
        write(folder, "zoë", EVA.replace("Eva 01", "<Zoë>"))
        zoe = (await data(client, "character.list"))[-1]
        assert (zoe["model_id"], zoe["display_name"], zoe["gender"]) == ("zoë", "<Zoë>", "female")
        avatar = (await data(client, "avatar.list"))[-1]
        assert [pose["pose_id"] for pose in avatar["poses"]] == ["zoë_front", "zoë_closeup"]
        assert await data(client, "avatar-pose.list?avatar_id=zoë") == avatar["poses"]
        jobs = (await client.get("/openapi.json")).json()["components"]["schemas"]
        assert "zoë" in jobs["JobOfCharacter"]["properties"]["model_id"]["enum"]
        assert "zoë_closeup" in jobs["JobOfPose"]["properties"]["pose_id"]["enum"]
        page = (await client.get("/")).text
        assert "&lt;Zoë&gt;" in page
        assert "previews/zo%C3%AB.png" in page
        pictures = []
        for url in (zoe["preview_url"], avatar["poses"][1]["preview_url"]):
            reply = await client.get(url)
            assert reply.headers["content-type"] == "image/png"
            assert reply.headers["cache-control"] == "no-cache"
            pictures.append(reply.content)
        write(folder, "zoë", EVA.replace("#F2B998", "#805030"))
        assert (await client.get(zoe["preview_url"])).content not in pictures
        for subject in ({"model_id": "zoë"}, {"pose_id": "zoë_closeup", "with_mask": True}):
            reply = await client.post("/v1/a2v/video.generate", json={**subject, "audio_url": say("hello")})
            await poll_until(client, reply.json()["data"]["video_id"], "finished")
        (folder / "zoë.toml").unlink()
        reply = await client.post("/v1/a2v/video.generate", json={"model_id": "zoë", "audio_url": say("hello")})
        assert reply.status_code == 400
        assert "there is no character 'zoë'; model_id must be one of: amara" in reply.json()["message"]
        reply = await client.post("/v1/a2v/video.generate", json={"model_id": "bad", "audio_url": say("hello")})
        assert reply.status_code == 400


@pytest.mark.usefixtures("quick_renders")
async def test_a_task_keeps_its_character(folder, recordings, say, data_dir, poll_until, child) -> None:  # noqa: PLR0917  # fixtures
    write(folder, "ada", EVA.replace("Eva 01", "Ada"))
    settings = {"characters": folder, "data_dir": data_dir, "allow_files": recordings, "workers": 1}
    job = {"model_id": "ada", "audio_url": say(f"sleep once {child.note}")}
    async with running(**settings) as client:
        video_id = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
        # Not until the status changes, which is earlier: the next engine's renderer would be the first one, and sleep.
        await child.pid()
        (folder / "ada.toml").unlink()
    async with running(**settings) as client:
        await poll_until(client, video_id, "finished")
        assert "ada" in (await client.get("/")).text  # under its id
    content = (data_dir / "videos" / f"{video_id}.mp4").read_text()
    assert content.endswith(" by Ada")


async def test_a_character_of_the_folder_is_rendered(folder, tmp_path) -> None:
    """By a confined process, which cannot read the folder."""
    write(
        folder,
        "ada",
        EVA.replace('["#CFE8E4", "#8FC7C4"]', '["#203040", "#203040"]')
        .replace("window", "disc")
        .replace("#F7C9A8", "#203040"),
    )
    with wave.open(str(tmp_path / "audio.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    async with running(characters=folder, allow_files=tmp_path) as client:
        job = {"pose_id": "ada_closeup", "with_mask": True, "audio_url": (tmp_path / "audio.wav").as_uri()}
        video_id = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
        with anyio.fail_after(60):
            while (video := await data(client, f"video.get?video_id={video_id}"))["status"] != "finished":
                assert video["status"] != "error", video
                await anyio.sleep(0.05)
        corners = []
        for url in (video["video_url"], video["mask_video_url"]):
            with av.open(io.BytesIO((await client.get(url)).content)) as container:
                picture = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
            corners.append(picture[:64, :64].mean((0, 1)))
    # The light of the backdrop is added to its colour.
    assert corners[0][2] > corners[0][0] + 10
    assert corners[0].mean() < 130
    assert corners[1].max() < 3
