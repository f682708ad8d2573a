"""The data folder is private, and no file in it is a link."""

from __future__ import annotations

import os
import stat
import sys

import anyio
import httpx
import pytest

from a2v.engine import LocalEngine
from a2v.errors import ConfigurationError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("quick_renders"),
    pytest.mark.skipif(sys.platform == "win32", reason="files have the rights of their folder"),
]


@pytest.fixture(autouse=True)
def open_umask():
    """No umask, so that files are not private merely because of it."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def use(data_dir, recordings, say, poll_until):
    async def use():
        async with (
            LocalEngine(data_dir=data_dir, token="t", allow_files=recordings, workers=1) as engine,
            httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as client,
        ):

            async def submit(what: str) -> str:
                job = {"pose_id": "eva_a0008_front", "audio_url": say(what), "with_mask": True}
                return (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]

            await poll_until(client, await submit("hello"), "finished")
            await poll_until(client, await submit("sleep"), "in_progressing")
            waiting = await submit("hello")
            with anyio.fail_after(20):
                while not (data_dir / "audio" / waiting).exists():  # noqa: ASYNC110  # no event for it
                    await anyio.sleep(0.01)
            return open_to_others(data_dir)

    return use


def open_to_others(folder) -> dict[str, str]:
    modes = {path: path.lstat().st_mode for path in [folder, *folder.rglob("*")]}
    return {str(path): stat.filemode(mode) for path, mode in modes.items() if mode & 0o077}


async def test_a_new_folder_is_private_with_all_its_files(use, data_dir):
    assert await use() == {}
    assert open_to_others(data_dir) == {}


async def test_an_existing_folder_becomes_private_with_all_its_files(use, data_dir):
    await use()
    for path in [data_dir, *data_dir.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    async with LocalEngine(data_dir=data_dir):
        assert open_to_others(data_dir) == {}


async def test_a_folder_with_other_contents_keeps_its_mode(use, data_dir):
    """For example a home folder."""
    data_dir.mkdir(mode=0o755)
    (data_dir / "notes.txt").touch(0o644)
    assert set(await use()) == {str(data_dir), str(data_dir / "notes.txt")}


LINKED = ["tasks.sqlite3", "tasks.sqlite3-wal", "tasks.sqlite3-journal", "videos", "work", "audio"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
@pytest.mark.parametrize("name", LINKED)
async def test_links_and_pipes_in_place_of_files_are_refused(use, data_dir, tmp_path, name, kind):
    data_dir.mkdir()
    if not name.startswith("tasks"):
        (data_dir / "tasks.sqlite3").touch()  # a folder of an engine
    elsewhere = tmp_path / "elsewhere"
    if kind == "pipe":
        os.mkfifo(data_dir / name)
    else:
        (data_dir / name).symlink_to(elsewhere)
    if kind == "link" and "." not in name:
        elsewhere.mkdir()
    elif kind == "link":
        elsewhere.write_text("of another user")
    with anyio.fail_after(20), pytest.raises(ConfigurationError, match="data"):
        await use()
    if kind == "link":
        assert elsewhere.is_dir() or elsewhere.read_text() == "of another user"
    else:
        assert not elsewhere.exists()


@pytest.mark.parametrize("name", ["audio", "recordings", "speeches", "uploads", "videos", "work"])
async def test_folders_of_others_are_left_alone(use, data_dir, name):
    """For example in a project, or in the root folder of the system."""
    (data_dir / name).mkdir(mode=0o755, parents=True)
    (data_dir / name / "thesis.txt").touch(0o644)
    before = open_to_others(data_dir)
    with pytest.raises(
        ConfigurationError, match=f"data_dir: .* has '{name}', not made by an engine, .* choose another folder"
    ):
        await use()
    assert open_to_others(data_dir) == before
    assert [path.name for path in data_dir.rglob("*")] == [name, "thesis.txt"]
