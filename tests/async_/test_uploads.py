"""Local recordings and a server that is an engine: what is sent, when, and how often."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import anyio
import anyio.from_thread
import httpx
import httpx2
import pytest

import a2v
from a2v import testing
from a2v._async.requests import uploads
from a2v.engine import LocalEngine
from a2v.staging import AsyncStager, Stager, stage

TOKEN = "canary-0123456789-abcdefghij"
JOB = {"model_id": "eva_a0008"}


@pytest.fixture(autouse=True)
def copies(monkeypatch):
    """Renders that copy the recording."""

    async def render(request):
        request.destination.write_bytes(b"\0\0\0\x18ftypisom" + request.audio.read_bytes())

    monkeypatch.setattr("a2v.engine.app.render_in_child", render)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "my speech.flac"
    path.write_bytes(b"fLaC" + bytes(range(256)) * 4096)  # some chunks
    return path


@pytest.fixture
async def engine(tmp_path, monkeypatch):
    monkeypatch.setattr("a2v.engine.render_queue.SWEEP_SECONDS", 0.01)
    async with LocalEngine(token=TOKEN, data_dir=tmp_path / "data") as running:
        yield running


@pytest.fixture
async def client(engine):
    async with a2v.AsyncA2V(TOKEN, base_url=engine.base_url, rate_limit=None) as client:
        yield client


@pytest.fixture
def seen(monkeypatch):
    """The requests about single uploads that clients have sent, with what came of them."""
    exchange, seen = uploads._exchange, []

    async def observed(session, state, request, body=None):
        seen.append(request.method)
        try:
            return await exchange(session, state, request, body)
        except a2v.NotFoundError:
            seen[-1] += " 404"
            raise

    monkeypatch.setattr(uploads, "_exchange", observed)
    return seen


def url_of(content: bytes) -> str:
    return f"upload://{hashlib.sha256(content).hexdigest()}"


@pytest.mark.anyio
async def test_a_recording_is_sent_once_and_spoken(client, recording, seen, tmp_path):
    audio_url = await client.upload(recording)
    assert audio_url == url_of(recording.read_bytes()) == uploads.upload_url(recording)
    copy = tmp_path / "copy.wav"
    copy.write_bytes(recording.read_bytes())
    assert await client.upload(copy) == audio_url
    task = await client.videos.generate(**JOB, audio_url=audio_url)
    path = await task.download(tmp_path / "video.mp4")
    assert path.read_bytes().endswith(recording.read_bytes())
    assert seen == ["GET 404", "PUT"]


@pytest.mark.anyio
async def test_another_client_finds_it(client, engine, recording, seen):
    await client.upload(recording)
    async with a2v.AsyncA2V(TOKEN, base_url=engine.base_url) as other:
        await other.upload(recording)
    assert seen == ["GET 404", "PUT", "GET"]


@pytest.mark.anyio
async def test_videos_submitted_together_share_one_transfer(client, recording, seen):
    audio_url = await client.upload(recording, later=True)
    assert seen == []
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(lambda: client.videos.generate(**JOB, audio_url=audio_url))
    assert seen == ["GET 404", "PUT"]


@pytest.mark.anyio
async def test_two_clients_send_the_same_recording_at_the_same_time(engine, recording, tmp_path):
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(a2v.AsyncA2V(TOKEN, base_url=engine.base_url).upload, recording)
    (stored,) = (tmp_path / "data/uploads").iterdir()
    assert stored.read_bytes() == recording.read_bytes()


@pytest.mark.anyio
async def test_a_recording_that_the_engine_lost_is_sent_again(client, engine, recording, seen, tmp_path):
    audio_url = await client.upload(recording)
    await _expire(engine, audio_url, tmp_path / "data/uploads")
    await client.videos.generate(**JOB, audio_url=audio_url)
    assert seen == ["GET 404", "PUT"] * 2


async def _expire(engine: LocalEngine, audio_url: str, folder: Path) -> None:
    """Let the engine delete an upload, as it does a day after its last use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2v.engine.uploads.KEEP_SECONDS", -1.0)
        async with httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": TOKEN}) as http:
            await http.get(f"/v1/a2v/uploads/{audio_url.removeprefix('upload://')}")
    await _until_empty(folder)


async def _until_empty(folder: Path) -> None:
    with anyio.fail_after(20):
        while os.listdir(folder):  # noqa: ASYNC110, PTH208  # another thread deletes it
            await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_job_that_waited_for_long_asks_for_its_recording_again(recording, tmp_path, monkeypatch, seen):
    monkeypatch.setattr("a2v.engine.uploads.KEEP_SECONDS", 0.0)
    async with LocalEngine(token=TOKEN) as engine, a2v.AsyncA2V(TOKEN, base_url=engine.base_url) as client:
        audio_url = await client.upload(recording)
        await client.videos.generate(**JOB, audio_url=audio_url)
    assert seen == ["GET 404", "PUT", "GET"]


@pytest.mark.anyio
async def test_a_batch_sends_what_it_submits(client, engine, recording, seen, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(b"RIFF")

    async def run(*paths) -> None:
        jobs = [a2v.Job("eva_a0008", await client.upload(path, later=True), name=path.stem) for path in paths]
        async with client.batch(jobs, save_to=tmp_path / "videos", journal=tmp_path / "journal.db") as batch:
            async for outcome in batch:
                assert outcome.error is None

    await run(recording)
    await _expire(engine, url_of(recording.read_bytes()), tmp_path / "data/uploads")
    await run(recording, other)
    assert seen == ["GET 404", "PUT"] * 2
    assert (tmp_path / "videos/other.mp4").read_bytes().endswith(b"RIFF")


@pytest.mark.anyio
async def test_a_job_whose_recording_is_gone_fails_alone(client, recording, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(b"RIFF")
    jobs = [a2v.Job("eva_a0008", await client.upload(path, later=True)) for path in (recording, other)]
    recording.unlink()
    async with client.batch(jobs, save_to=tmp_path / "videos", journal=tmp_path / "journal.db") as batch:
        outcomes = {outcome.index: outcome async for outcome in batch}
    assert isinstance(outcomes[0].error, a2v.StagingError)
    assert "does not exist" in str(outcomes[0].error)
    assert outcomes[1].error is None
    assert [entry.state for entry in a2v.read_journal(tmp_path / "journal.db")] == ["pending", "done"]


@pytest.mark.anyio
async def test_a_batch_outlasts_an_outage_during_an_upload(client, engine, recording, tmp_path, monkeypatch):
    audio_url = await client.upload(recording, later=True)
    exchange, failures = uploads._exchange, iter(range(2))

    async def sometimes(session, state, request, body=None):
        if body and next(failures, None) is not None:
            return uploads.Retry(a2v.TransportError("the server cannot be reached"))
        return await exchange(session, state, request, body)

    monkeypatch.setattr(uploads, "_exchange", sometimes)
    async with client.batch([a2v.Job("eva_a0008", audio_url)], journal=tmp_path / "journal.db") as batch:
        assert [outcome.error async for outcome in batch] == [None]


@pytest.mark.anyio
@pytest.mark.parametrize("change", [b"shorter", b"longer" * 300_000])
async def test_a_recording_that_changes_is_refused_and_leaves_nothing(client, recording, tmp_path, change):
    audio_url = await client.upload(recording, later=True)
    recording.write_bytes(change)
    with pytest.raises(a2v.StagingError, match="was changed while it was uploaded"):
        await client.videos.generate(**JOB, audio_url=audio_url)
    # The engine deletes the part as soon as it notices that the connection is gone.
    await _until_empty(tmp_path / "data/uploads")


@pytest.mark.anyio
async def test_a_recording_that_changes_and_keeps_its_size_is_refused(client, recording, tmp_path):
    audio_url = await client.upload(recording, later=True)
    recording.write_bytes(bytes(recording.stat().st_size))
    with pytest.raises(a2v.APIError, match="the file was changed while it was sent"):
        await client.videos.generate(**JOB, audio_url=audio_url)
    assert list((tmp_path / "data/uploads").iterdir()) == []


def _file(folder, content: bytes):
    (folder / "file.wav").write_bytes(content)
    return folder / "file.wav"


def _pipe(folder):
    os.mkfifo(folder / "pipe.wav")
    return folder / "pipe.wav"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: folder / "missing.wav", "missing.wav does not exist"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: _file(folder, b""), "file.wav is empty"),
        (lambda folder: _file(folder, b"RIFF" * 300), "convert it to a compressed format"),
        pytest.param(_pipe, "is not a file", marks=pytest.mark.skipif(os.name != "posix", reason="no pipes")),
        pytest.param(
            lambda _: "/proc/self/mem",
            "cannot be read: Input/output error",
            marks=pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux"),
        ),
        (lambda folder: folder / ("x" * 300), "cannot be read: File name too long"),
    ],
)
async def test_files_that_cannot_be_uploaded(tmp_path, monkeypatch, prepare, said):
    monkeypatch.setattr("a2v.engine.uploads.MAX_BYTES", 1000)
    async with LocalEngine(token=TOKEN) as engine, a2v.AsyncA2V(TOKEN, base_url=engine.base_url) as client:
        with pytest.raises(a2v.StagingError, match=re.escape(said)):
            await client.upload(prepare(tmp_path))


@pytest.mark.anyio
async def test_a_file_that_cannot_be_read_any_more(tmp_path):
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    body = uploads.UploadBody(Broken(), tmp_path / "file.wav", 10, 1.0)
    with pytest.raises(a2v.StagingError, match=r"file\.wav cannot be read: Input/output error"):
        await anext(aiter(body))


@pytest.mark.anyio
async def test_other_servers_are_asked_once_and_accept_nothing(recording):
    with testing.Service(token=TOKEN).server() as server:
        async with a2v.AsyncA2V(TOKEN, base_url=server.base_url) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(client.accepts_uploads)
            assert not await client.accepts_uploads()
            for _ in range(2):
                with pytest.raises(a2v.StagingError, match="accepts no uploads"):
                    await client.upload(recording)
        assert [call.url.rpartition("/")[2] for call in server.service.calls] == ["uploads"]


@pytest.mark.anyio
async def test_the_hosted_service_is_not_asked(service):
    async with a2v.AsyncA2V(TOKEN, transport=httpx.MockTransport(service)) as client:
        assert not await client.accepts_uploads()
    assert service.requests == []


@pytest.mark.anyio
async def test_a_gateway_that_has_no_such_path_is_not_taken_for_a_missing_upload(client, recording):
    audio_url = await client.upload(recording, later=True)
    not_here = httpx.MockTransport(lambda _: httpx.Response(404, text="nothing here"))
    client._session._loop_state.transport._custom = not_here
    with pytest.raises(a2v.NotFoundError):
        await client.videos.generate(**JOB, audio_url=audio_url)


@pytest.mark.anyio
async def test_a_server_that_cannot_be_reached(client, engine, recording, monkeypatch):
    assert await client.accepts_uploads()
    client._session.base_url = "http://127.0.0.1:9"
    impatient = client.with_options(max_retries=0)
    with pytest.raises(a2v.TransportError, match="ConnectError"):
        await impatient.upload(recording)


@pytest.mark.anyio
async def test_a_transport_of_httpx2(engine, recording, anyio_backend_name):
    transport = httpx2.AsyncHTTPTransport()
    async with a2v.AsyncA2V(TOKEN, base_url=engine.base_url, transport=transport) as client:
        assert await client.upload(recording) == url_of(recording.read_bytes())


@pytest.mark.anyio
async def test_uploads_do_not_count_for_the_limits(recording, tmp_path):
    async with (
        LocalEngine(token=TOKEN, data_dir=tmp_path / "data", requests_per_minute=3, quota=2) as engine,
        a2v.AsyncA2V(TOKEN, base_url=engine.base_url) as client,
    ):
        for number in range(5):
            other = tmp_path / f"{number}.wav"
            other.write_bytes(b"RIFF%d" % number)
            await client.upload(other)
        task = await client.videos.generate(**JOB, audio_url=await client.upload(recording))
        # The second of the two requests of the quota. The client counts its question for uploads, too.
        assert [video.video_id for video in await client.videos.list()] == [task.video_id]
    assert len(list((tmp_path / "data/uploads").iterdir())) == 6


def test_the_sync_client_and_staging(recording, tmp_path):
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(LocalEngine(token=TOKEN)) as engine,
        a2v.A2V(TOKEN, base_url=engine.base_url) as client,
    ):
        expected = url_of(recording.read_bytes())
        assert client.accepts_uploads()
        assert client.upload(recording) == expected
        with stage(recording, client) as audio_url, Stager(client) as stager:
            assert (audio_url, stager.url(str(recording))) == (expected, expected)
        assert "A2V http://127.0.0.1" in repr(stage(recording, client))
        with pytest.raises(a2v.ConfigurationError, match="with an AsyncA2V"):
            anyio.run(AsyncStager(client).url, recording)


@pytest.mark.anyio
async def test_staging(client, recording):
    expected = url_of(recording.read_bytes())
    async with stage(recording, client) as audio_url, AsyncStager(client) as stager:
        assert (audio_url, await stager.url(recording)) == (expected, expected)
    with pytest.raises(a2v.ConfigurationError, match="use async with"), stage(recording, client):
        pass
    for options in ({"remove": True}, {"expires_in": 60}):
        with pytest.raises(a2v.ConfigurationError, match="leave expires_in and remove out"):
            AsyncStager(client, **options)
