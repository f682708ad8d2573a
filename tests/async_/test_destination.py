"""Where files go: what is checked before anything is paid for, what is never replaced, and whose partial file is whose."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import socket
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest

import a2v
from a2v._async.destination import Destination

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

VIDEO = b"\0\0\0\x20ftypisom" + bytes(5000)
FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4", "mask_video_url": "https://files.example/m.mp4"}  # fmt: skip


@pytest.fixture
def save(service, make_client):
    """Download a finished video."""
    service.plan = [(0, FINISHED)]
    service.content = VIDEO

    async def save(path: object, **options: object) -> Path:
        async with make_client() as client:
            return await client.videos.task("v").download(path, **options)

    return save


@pytest.fixture
def batch(service, make_client, tmp_path):
    """Run a batch; its outcomes by name."""
    service.plan = [(0, FINISHED)]
    service.content = VIDEO

    async def batch(*jobs: a2v.Job, transport: object = None, **options: object) -> dict[str, a2v.Outcome]:
        options = {"save_to": tmp_path / "videos", "journal": tmp_path / "batch.db"} | options
        settings = {"transport": transport} if transport else {}
        async with make_client(**settings) as client, client.batch(jobs, **options) as outcomes:
            return {outcome.job.name: outcome async for outcome in outcomes}

    return batch


def job(name: str = "a", audio_url: str = "https://example.com/a.wav") -> a2v.Job:
    return a2v.Job("eva_a0008", audio_url, name)


# -- what stands there ------------------------------------------------------------------------------------------------


def special(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # The paths of sockets have at most 107 bytes, those of temporary folders may have more.
        with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory() as short:
            listener.bind(f"{short}/s")
            Path(short, "s").rename(path)
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            path.symlink_to("/dev/null")


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
async def test_devices_pipes_and_sockets_are_not_replaced(service, save, batch, tmp_path, kind, linked) -> None:  # noqa: PLR0917
    (tmp_path / "videos").mkdir()
    path = there = tmp_path / "videos" / "a.mp4"
    if linked:
        there = tmp_path / "elsewhere"
        path.symlink_to(there)
    special(kind, there)
    before = (there.lstat().st_mode, there.lstat().st_ino)
    for overwrite in (False, True):
        with pytest.raises(a2v.DownloadError, match="a device, a pipe or a socket"):
            await save(path, overwrite=overwrite)
        with pytest.raises(a2v.DownloadError, match="a device, a pipe or a socket"):
            await batch(job(), overwrite=overwrite)
    assert (there.lstat().st_mode, there.lstat().st_ino) == before
    assert not service.requests


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="files that are open have no paths here")
async def test_a_pipe_without_a_path_of_its_own_is_not_replaced(service, save) -> None:
    """As ``/dev/stdout`` in a pipeline."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(a2v.DownloadError, match="a device, a pipe or a socket"):
            await save(Path(f"/proc/self/fd/{writer}"))
    finally:
        os.close(reader)
        os.close(writer)
    assert not service.requests


async def test_a_link_stays_and_its_target_is_written(save, batch, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "videos").mkdir()
    real, link = tmp_path / "elsewhere" / "real.mp4", tmp_path / "videos" / "a.mp4"
    link.symlink_to(real)
    assert await save(link) == link
    assert (link.is_symlink(), real.read_bytes()) == (True, VIDEO)
    real.write_bytes(b"old")
    with pytest.raises(a2v.DownloadError, match="exists already"):
        await save(link)
    await save(link, overwrite=True)
    real.write_bytes(b"old")
    assert (await batch(job(), overwrite=True))["a"].path == link
    assert (link.is_symlink(), real.read_bytes()) == (True, VIDEO)
    assert [path.name for path in real.parent.iterdir()] == ["real.mp4"]


async def test_a_link_in_a_circle(service, save, tmp_path) -> None:
    (tmp_path / "a.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    with pytest.raises(a2v.DownloadError, match="in a circle"):
        await save(tmp_path / "a.mp4", overwrite=True)
    assert not service.requests


@pytest.mark.parametrize("name", ["语" * 83 + "x.mp4", "x" * 251 + ".mp4", "x" * 255])
async def test_a_name_that_just_fits(save, tmp_path, name) -> None:
    """The partial file's name does not depend on it."""
    path = tmp_path / name[-255:]
    assert await save(path) == path
    assert path.read_bytes() == VIDEO


async def test_a_name_that_is_too_long_is_refused_before_submission(service, save, tmp_path) -> None:
    for name in ("语" * 84 + ".mp4", "x" * 256):
        with pytest.raises(a2v.DownloadError, match="too long"):
            await save(tmp_path / name)
    assert not service.requests


# -- paths ------------------------------------------------------------------------------------------------------------


async def test_paths_are_resolved_when_the_call_is_made(service, make_client, tmp_path, monkeypatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    service.plan = [(0, {"status": "pending"}), (100, FINISHED)]

    async def leave() -> None:
        await anyio.sleep(50)
        os.chdir(tmp_path / "other")

    async with make_client() as client:
        batch = client.batch([job()], save_to="videos", journal="batch.db")
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            assert await client.videos.task("v").download("v.mp4") == tmp_path / "v.mp4"
        async with batch:
            assert [outcome.path async for outcome in batch] == [tmp_path / "videos" / "a.mp4"]
    assert {path.name for path in tmp_path.iterdir()} == {"v.mp4", "videos", "batch.db", "batch.db.lock", "other"}
    assert not list((tmp_path / "other").iterdir())


async def test_the_home_folder(save, batch, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert await save("~/v.mp4") == tmp_path / "v.mp4"
    assert (await batch(job(), save_to="~/videos", journal="~/b.db"))["a"].path == tmp_path / "videos" / "a.mp4"
    assert [entry.state for entry in a2v.read_journal("~/b.db")] == ["done"]
    assert not (tmp_path / "~").exists()
    with pytest.raises(a2v.InvalidArgumentError, match="starts with ~"):
        await save("~nobody-of-this-name/v.mp4")


# -- what is never replaced -------------------------------------------------------------------------------------------


def other_name(kind: str, recording: Path, path: Path) -> None:
    """Another name of a recording, under which a video would replace it."""
    {"link": path.symlink_to, "hard link": path.hardlink_to}[kind](recording)


@pytest.mark.parametrize("kind", ["itself", "link", "hard link"])
async def test_the_recording_is_never_replaced(service, make_client, tmp_path, kind) -> None:
    recording = path = tmp_path / "speech 1.wav"
    recording.write_bytes(b"precious")
    if kind != "itself":
        path = tmp_path / "v.mp4"
        other_name(kind, recording, path)
    async with make_client() as client:
        task = await client.videos.generate(model_id="eva_a0008", audio_url=recording.as_uri())
        with pytest.raises(a2v.DownloadError, match="its recording"):
            await task.download(path, overwrite=True)
    assert recording.read_bytes() == b"precious"
    assert not service.seen("video.get")


@pytest.mark.parametrize("kind", ["link", "hard link"])
@pytest.mark.parametrize("what", ["its own recording", "another job's recording", "the journal"])
async def test_a_batch_never_replaces_its_recordings_or_journal(service, batch, tmp_path, kind, what) -> None:
    recording = tmp_path / "speech.wav"
    recording.write_bytes(b"precious")
    (tmp_path / "videos").mkdir()
    (tmp_path / "batch.db").touch()
    (tmp_path / "batch.db").unlink()
    jobs = [job("a", recording.as_uri()), job("b")]
    if what == "the journal":
        await batch(job("z"))
        submitted = service.posts
        other_name(kind, tmp_path / "batch.db", tmp_path / "videos" / "b.mp4")
    else:
        submitted = 0
        name = "a.mp4" if what == "its own recording" else "b.mp4"
        other_name(kind, recording, tmp_path / "videos" / name)
    with pytest.raises(a2v.DownloadError, match="its recording"):
        await batch(*jobs, overwrite=True)
    assert recording.read_bytes() == b"precious"
    assert service.posts == submitted


# -- the end of it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.EBADF, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "open"])
async def test_a_folder_that_cannot_be_synced(save, batch, tmp_path, monkeypatch, caplog, code, call) -> None:  # noqa: PLR0917
    """The file is whole and has its name: that is no failure any more."""
    really = getattr(os, call)

    def fail(of: int | str, *args: object) -> object:
        if os.path.isdir(of) and str(of) != str(tmp_path):  # noqa: PTH112  # it may be a descriptor
            raise OSError(code, os.strerror(code))
        return really(of, *args)

    monkeypatch.setattr(os, call, fail)
    with caplog.at_level(logging.INFO, "a2v"):
        assert (await save(tmp_path / "one" / "v.mp4")).read_bytes() == VIDEO
        assert (await batch(job()))["a"].ok
    supported = call == "open" or code not in (errno.EINVAL, errno.ENOTSUP)
    assert ("cannot be synced" in caplog.text) == supported


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
async def test_a_file_system_without_sync(save, tmp_path, monkeypatch, code) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    assert (await save(tmp_path / "v.mp4")).read_bytes() == VIDEO


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_a_disk_that_fails_before_the_file_has_its_name(save, tmp_path, monkeypatch, code) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(a2v.DownloadError, match="could not be stored"):
        await save(tmp_path / "v.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
async def test_a_file_system_without_hard_links(save, tmp_path, monkeypatch, code) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", fail)
    assert (await save(tmp_path / "v.mp4")).read_bytes() == VIDEO
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


async def test_a_file_that_appears_at_the_last_moment_is_not_replaced(save, tmp_path, monkeypatch) -> None:
    """Between the last look and the renaming."""
    really = os.link

    def link(source: Path, target: Path, **options: bool) -> None:
        Path(target).write_bytes(b"precious")
        really(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(a2v.DownloadError, match="appeared meanwhile"):
        await save(tmp_path / "v.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    assert (tmp_path / "v.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize("harm", ["shorter", "longer", "replaced", "removed"])
async def test_a_partial_file_that_others_change_is_not_taken(service, save, tmp_path, harm) -> None:
    def meddle(_: httpx.Request) -> httpx.Response:
        (part,) = tmp_path.iterdir()

        class Body(httpx.AsyncByteStream):
            async def __aiter__(self):
                yield VIDEO
                if harm == "shorter":
                    os.truncate(part, 0)
                    yield b""
                elif harm == "longer":
                    os.truncate(part, len(VIDEO) + 1)
                else:
                    part.unlink()
                    if harm == "replaced":
                        part.write_bytes(VIDEO)

        return httpx.Response(200, stream=Body())

    service.replies["v.mp4"] = [meddle]
    path = tmp_path / "v.mp4"
    if harm == "shorter":  # what is in the buffer is written behind the hole
        service.content = VIDEO
    with pytest.raises(a2v.DownloadError, match="another program has changed"):
        await save(path)
    assert not list(tmp_path.iterdir())


# -- partial files ----------------------------------------------------------------------------------------------------


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "videos").glob("*.part"))


class Halves(httpx.AsyncByteStream):
    """Half of a file, after which the connection breaks."""

    async def __aiter__(self):
        yield VIDEO[:3000]
        raise httpx.ReadError("gone")


def half(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"etag": '"t"', "content-length": str(len(VIDEO))}, stream=Halves())


@pytest.mark.parametrize("plant", ["link", "hard link", "pipe", "socket", "device"])
async def test_a_planted_partial_file_is_never_opened(service, batch, tmp_path, plant) -> None:
    service.replies["v.mp4"] = [half]
    assert not (await batch(job()))["a"].ok
    (part,) = parts(tmp_path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part.unlink()
    if plant == "link":
        part.symlink_to(victim)
    elif plant == "hard link":
        part.hardlink_to(victim)
    else:
        special(plant, part)
    service.replies.clear()
    with anyio.fail_after(60):
        outcome = (await batch(job()))["a"]
    assert outcome.ok
    assert outcome.path.read_bytes() == VIDEO
    assert not outcome.path.is_symlink()
    assert victim.read_bytes() == b"precious"
    assert not parts(tmp_path)


async def test_a_link_or_pipe_planted_at_the_last_moment(service, batch, tmp_path, monkeypatch) -> None:
    """Between the look and the opening: a pipe is not waited for."""
    service.replies["v.mp4"] = [half]
    await batch(job())
    (part,) = parts(tmp_path)
    part.unlink()
    os.mkfifo(part)
    monkeypatch.setattr("a2v._async.destination._remove_unless_regular", lambda _: None)
    with anyio.fail_after(60):
        outcome = (await batch(job()))["a"]
    assert isinstance(outcome.error, a2v.DownloadError)
    assert "device, a pipe or a socket" in str(outcome.error)


async def test_a_partial_file_that_another_process_writes(service, batch, tmp_path) -> None:
    service.replies["v.mp4"] = [half]
    await batch(job())
    (part,) = parts(tmp_path)
    before = part.read_bytes()
    service.replies.clear()
    with part.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = (await batch(job()))["a"]
        assert "another process is writing" in str(outcome.error)
        assert part.read_bytes() == before
    assert (await batch(job()))["a"].ok


async def test_a_file_system_without_locks(batch, tmp_path, monkeypatch) -> None:
    really = fcntl.flock

    def flock(file: object, operation: int) -> None:
        if not isinstance(file, int):  # that of the journal, which is opened by its descriptor, is another story
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        really(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert (await batch(job()))["a"].path.read_bytes() == VIDEO


async def test_two_batches_in_one_folder(make_client, tmp_path) -> None:
    """Each with its journal and the same names: whichever wins, what is called whole is one of the two videos."""
    contents = {letter: b"\0\0\0\x20ftyp" + letter.encode() * 500_000 for letter in "ab"}
    outcomes: dict[str, a2v.Outcome] = {}

    class Mixed(httpx.AsyncByteStream):
        def __init__(self, content: bytes) -> None:
            self.content = content

        async def __aiter__(self):
            for at in range(0, len(self.content), 50_000):
                yield self.content[at : at + 50_000]
                await anyio.sleep(1)

    async def run(letter: str) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            name = request.url.path.rpartition("/")[2]
            if name == "v.mp4":
                content = contents[letter]
                headers = {"etag": f'"{letter}"', "content-length": str(len(content))}
                return httpx.Response(200, headers=headers, stream=Mixed(content))
            data = [] if name == "video.list" else {"video_id": "v1", **FINISHED}
            return httpx.Response(200, json={"code": 0, "data": data})

        async with make_client(transport=httpx.MockTransport(answer)) as client:
            options = {"save_to": tmp_path / "videos", "journal": tmp_path / f"{letter}.db", "overwrite": True}
            async with client.batch([a2v.Job("m", f"https://example.com/{letter}.wav")], **options) as batch:
                async for outcome in batch:
                    outcomes[letter] = outcome

    async with anyio.create_task_group() as group:
        for letter in contents:
            group.start_soon(run, letter)
    assert all(outcome.ok for outcome in outcomes.values())
    assert (tmp_path / "videos" / "0001.mp4").read_bytes() in contents.values()
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["0001.mp4"]
    for letter, content in contents.items():
        with closing(sqlite3.connect(tmp_path / f"{letter}.db")) as db:
            assert db.execute("SELECT size, sha256 FROM items").fetchall() == [
                (len(content), hashlib.sha256(content).hexdigest())
            ]


@pytest.mark.parametrize("tag", ['"caf\xe9"', 'W/"t"', "t", '"\n"'])
async def test_an_odd_etag_in_a_journal_is_not_sent(service, batch, tmp_path, tag) -> None:
    """A journal of an earlier version may remember one."""
    service.replies["v.mp4"] = [half]
    await batch(job())
    with closing(sqlite3.connect(tmp_path / "batch.db", isolation_level=None)) as db:
        db.execute("UPDATE items SET etag = ?", (tag,))
    service.replies.clear()
    service.requests.clear()
    assert (await batch(job()))["a"].path.read_bytes() == VIDEO
    (request,) = service.seen("v.mp4")
    assert not {"range", "if-range"} & set(request.headers)


async def test_a_video_beyond_the_limit_leaves_nothing(service, make_client, tmp_path) -> None:
    service.plan = [(0, FINISHED)]
    service.replies["v.mp4"] = [lambda _: httpx.Response(200, headers={"etag": '"t"'}, content=_chunks())]
    places = {"save_to": tmp_path / "videos", "journal": tmp_path / "b.db"}
    async with make_client(max_download_bytes=4000) as client, client.batch([job()], **places) as batch:
        (outcome,) = [outcome async for outcome in batch]
    assert "larger than 4000 bytes" in str(outcome.error)
    assert not parts(tmp_path)


async def _chunks():
    for at in range(0, len(VIDEO), 1000):
        yield VIDEO[at : at + 1000]


# -- masks ------------------------------------------------------------------------------------------------------------


async def test_a_missing_mask_does_not_cost_the_video(service, batch, tmp_path) -> None:
    service.plan = [(0, {"status": "finished", "video_url": "https://files.example/v.mp4"})]
    masked = a2v.Job(pose_id="p1", audio_url="https://example.com/a.wav", name="a", with_mask=True)
    for _ in range(2):
        outcome = (await batch(masked))["a"]
        assert isinstance(outcome.error, a2v.DownloadError)
        assert "has no mask" in str(outcome.error)
        assert (tmp_path / "videos" / "a.mp4").read_bytes() == VIDEO
    assert service.posts == len(service.seen("v.mp4")) == 1


def test_a_destination_has_a_partial_file_of_its_own(tmp_path) -> None:
    one, other = (Destination(tmp_path / "v.mp4", overwrite=False) for _ in range(2))
    assert one.part != other.part
    assert one.part.parent == tmp_path
