"""The queue of renders: one process each, which may crash, hang or be killed."""

from __future__ import annotations

import errno
import logging
import sqlite3
import sys
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest

from a2v import Job, VideoStatus
from a2v.engine import Settings
from a2v.engine.render_queue import BusyError, QueueFullError, RenderQueue
from a2v.engine.task_store import TaskStore

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_renders")]


@pytest.fixture
def open_queue(data_dir, recordings):
    data_dir.mkdir()

    @asynccontextmanager
    async def open_queue(**settings):
        with TaskStore(data_dir / "tasks.sqlite3") as store:
            async with RenderQueue(store, data_dir, Settings(allow_files=recordings, **settings)) as queue:
                yield queue, store

    return open_queue


@pytest.fixture
def job(say, model_id):
    return lambda what: Job(model_id, say(what))


async def until(store: TaskStore, video_id: str, *statuses: VideoStatus):
    with anyio.fail_after(20):
        while (task := store.get(video_id)).status not in statuses:  # noqa: ASYNC110  # polls, as a client does
            await anyio.sleep(0.01)
    return task


async def ended(store: TaskStore, video_id: str):
    return await until(store, video_id, VideoStatus.FINISHED, VideoStatus.FAILED)


async def test_a_video(open_queue, job, data_dir):
    async with open_queue(size=720) as (queue, store):
        task = queue.submit(job("hello"))
        assert task.status is VideoStatus.PENDING
        assert (await ended(store, task.video_id)).status is VideoStatus.FINISHED
        assert queue.path(task.video_id).read_text() == "eva_a0008 --size 720: hello"
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []
    assert [path.name for path in (data_dir / "videos").iterdir()] == [f"{task.video_id}.mp4"]
    assert list((data_dir / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("bad", "this is no recording"),
        ("crash", "the renderer crashed"),
        ("exit", "the renderer crashed"),
        ("babble", "the renderer crashed"),
        ("liar", "internal error; see the engine's log"),
    ],
)
async def test_a_render_that_fails_fails_alone(open_queue, job, data_dir, what, message):
    async with open_queue(workers=1) as (queue, store):
        failing, good = queue.submit(job(what)), queue.submit(job("hello"))
        failed = await ended(store, failing.video_id)
        assert (failed.status, failed.message) == (VideoStatus.FAILED, message)
        assert (await ended(store, good.video_id)).status is VideoStatus.FINISHED
        assert not queue.path(failing.video_id).exists()
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []


async def test_a_failed_video_is_logged_as_a_warning(open_queue, job, caplog):
    caplog.set_level("INFO", "a2v.engine")
    async with open_queue(workers=1) as (queue, store):
        failing, good = queue.submit(job("bad")), queue.submit(job("hello"))
        await ended(store, failing.video_id)
        await ended(store, good.video_id)
    assert ("a2v.engine", logging.WARNING, f"video {failing.video_id}: this is no recording") in caplog.record_tuples
    assert ("a2v.engine", logging.INFO, f"video {good.video_id}: finished") in caplog.record_tuples


async def test_a_render_that_crashes_is_retried_once(open_queue, job, tmp_path, caplog):
    caplog.set_level("INFO", "a2v.engine")
    async with open_queue() as (queue, store):
        task = await ended(store, queue.submit(job(f"crash once {tmp_path / 'note'}")).video_id)
    assert task.status is VideoStatus.FINISHED
    assert caplog.text.count("crashed; retrying") == 1


CAPTIONS = {"captions": "files", "captions_file": "1\n00:00:00,000 --> 00:00:01,000\nHello\n"}


async def test_a_mask_and_captions_are_kept_beside_their_video(open_queue, say, data_dir):
    async with open_queue() as (queue, store):
        job = Job(pose_id="eva_a0008_closeup", audio_url=say("hello"), with_mask=True, options=CAPTIONS)
        task = await ended(store, queue.submit(job).video_id)
        assert task.status is VideoStatus.FINISHED
        assert queue.path(task.video_id).read_text() == "eva_a0008_closeup --size 512: hello"
        assert queue.mask_path(task.video_id).read_text() == "mask of hello"
        assert queue.captions_path(task.video_id).read_text() == "captions"
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []


async def test_the_renderer_can_be_any_async_function(data_dir, say, model_id):
    """It is called with a request, and cancelled at the end."""
    requests, cancelled = [], []

    async def renderer(request):
        requests.append(request)
        request.destination.write_bytes(b"made elsewhere")
        if len(requests) == 2:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(request)

    data_dir.mkdir()
    settings = Settings(allow_files=urlsplit(say("hello")).path, max_audio_seconds=7, fps=30, format="portrait")
    with TaskStore(data_dir / "tasks.sqlite3") as store:
        async with RenderQueue(store, data_dir, settings, renderer) as queue:
            task = await ended(store, queue.submit(Job(model_id, say("hello"))).video_id)
            assert queue.path(task.video_id).read_bytes() == b"made elsewhere"
            second = queue.submit(Job(model_id, say("hello")))
            await until(store, second.video_id, VideoStatus.IN_PROGRESS)
        assert store.get(second.video_id).status is VideoStatus.PENDING
    assert cancelled == requests[1:]
    assert (requests[0].subject_id, requests[0].fps, requests[0].format, requests[0].max_audio_seconds) == (
        model_id,
        30,
        "portrait",
        7,
    )


async def test_expired_videos_are_deleted(open_queue, say, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.render_queue.SWEEP_SECONDS", 0.05)
    async with open_queue(keep_days=1 / 86_400) as (queue, store):
        job_of_all = Job(pose_id="eva_a0008_front", audio_url=say("hello"), with_mask=True, options=CAPTIONS)
        masked = queue.submit(job_of_all).video_id
        failed = queue.submit(job("bad")).video_id
        waiting = queue.submit(job("sleep")).video_id
        await until(store, masked, VideoStatus.FINISHED)
        assert queue.mask_path(masked).exists()
        assert queue.captions_path(masked).exists()
        with anyio.fail_after(20):
            while store.get(masked) or store.get(failed):  # noqa: ASYNC110  # polls, as a client does
                await anyio.sleep(0.02)
        assert store.get(waiting)
        assert not queue.path(masked).exists()
        assert not queue.mask_path(masked).exists()
        assert not queue.captions_path(masked).exists()


async def test_a_deletion_that_fails_is_retried_by_the_next_sweep(open_queue, job, monkeypatch, caplog):
    """It does not prevent other deletions, and the log has one line about it."""
    monkeypatch.setattr("a2v.engine.render_queue.SWEEP_SECONDS", 0.02)
    async with open_queue() as (queue, store):
        stuck, other = [(await ended(store, queue.submit(job("hello")).video_id)).video_id for _ in range(2)]
        path = queue.path(stuck)
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    async with open_queue(keep_days=0.01 / 86_400) as (queue, store):
        with anyio.fail_after(20):
            while store.get(other):  # noqa: ASYNC110  # polls, as a client does
                await anyio.sleep(0.01)
        assert store.get(stuck)
        (path / "file").unlink()
        path.rmdir()
        with anyio.fail_after(20):
            while store.get(stuck):  # noqa: ASYNC110  # polls, as a client does
                await anyio.sleep(0.01)
    assert caplog.text.count("could not be deleted") == 1


async def test_the_log_says_why_a_renderer_crashed(open_queue, job, caplog):
    async with open_queue() as (queue, store):
        await ended(store, queue.submit(job("exit")).video_id)
    assert "there is a bug" in caplog.text


async def test_a_renderer_that_cannot_even_start(open_queue, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.renderer.WORKER", ("/nowhere/python",))
    async with open_queue() as (queue, store):
        task = await ended(store, queue.submit(job("hello")).video_id)
    assert (task.status, task.message) == (VideoStatus.FAILED, "internal error; see the engine's log")


async def test_a_finished_render_is_kept_while_its_status_cannot_be_stored(open_queue, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.exhaustion.INITIAL_BACKOFF", 0.01)
    renders = []
    async with open_queue() as (queue, store):
        render = queue._renderer
        monkeypatch.setattr(queue, "_renderer", lambda request: renders.append(request) or render(request))
        mark, refusals = store.set_status, iter([_disk_is_full, _disk_is_full])

        def refuse_twice(video_id, status, message=None):
            if status.is_terminal:
                next(refusals, str)()
            mark(video_id, status, message)

        monkeypatch.setattr(store, "set_status", refuse_twice)
        task = queue.submit(job("hello"))
        assert (await ended(store, task.video_id)).status is VideoStatus.FINISHED
    assert len(renders) == 1


async def test_a_store_that_cannot_be_written_accepts_nothing(open_queue, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.exhaustion.INITIAL_BACKOFF", 0.01)
    async with open_queue() as (queue, store):
        with monkeypatch.context() as patch:
            patch.setattr(store, "add", _disk_is_full)
            for _ in range(2):
                with pytest.raises(BusyError, match="database or disk is full"):
                    queue.submit(job("hello"))
        with anyio.fail_after(20):
            await queue.resources.wait_until_available()
        assert (await ended(store, queue.submit(job("hello")).video_id)).status is VideoStatus.FINISHED


@pytest.mark.parametrize("what", ["exhaust", "killed"])
async def test_a_render_that_runs_out_of_something_is_repeated(open_queue, job, tmp_path, what, monkeypatch):
    monkeypatch.setattr("a2v.engine.exhaustion.INITIAL_BACKOFF", 0.01)
    monkeypatch.setattr("a2v.engine.render_queue.MAX_BACKOFF", 0.01)
    async with open_queue() as (queue, store):
        task = await ended(store, queue.submit(job(f"{what} once {tmp_path / 'note'}")).video_id)
    assert task.status is VideoStatus.FINISHED


async def test_a_task_fails_if_it_alone_runs_out_of_something_repeatedly(open_queue, job, monkeypatch):
    """While the probe finds nothing exhausted: the task needs too much, and must not be retried for ever."""
    monkeypatch.setattr("a2v.engine.render_queue.MAX_BACKOFF", 0.001)
    requests = []

    async def renderer(request):
        requests.append(request)
        raise OSError(errno.ENOSPC, "No space left on device")

    async with open_queue() as (queue, store):
        monkeypatch.setattr(queue, "_renderer", renderer)
        task = await ended(store, queue.submit(job("hello")).video_id)
        assert queue.resources.exhausted is None
    assert (task.status, len(requests)) == (VideoStatus.FAILED, 10)
    assert task.message == (
        "the engine could not render this 10 times in a row: the disk cannot be used (No space left on device)"
    )


async def test_confirmed_exhaustion_does_not_count_as_the_tasks_own(open_queue, job, monkeypatch):
    """Whichever attempts it concerns, the task fails at the tenth one that runs out of something alone."""
    monkeypatch.setattr("a2v.engine.exhaustion.INITIAL_BACKOFF", 0.001)
    monkeypatch.setattr("a2v.engine.exhaustion.MAX_BACKOFF", 0.001)
    monkeypatch.setattr("a2v.engine.render_queue.MAX_BACKOFF", 0.001)
    requests = []

    async with open_queue() as (queue, store):

        async def renderer(request):
            requests.append(request)
            if len(requests) in (3, 10):
                queue.resources.report("the disk cannot be used")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(queue, "_renderer", renderer)
        task = await ended(store, queue.submit(job("hello")).video_id)
    assert (task.status, len(requests)) == (VideoStatus.FAILED, 12)


async def test_an_unexpected_error_does_not_show_a_signed_url(open_queue, model_id, monkeypatch, say, caplog):
    """Not even in tracebacks with local variables."""

    async def renderer(_: object):
        raise ZeroDivisionError

    async with open_queue() as (queue, store):
        monkeypatch.setattr(queue, "_renderer", renderer)
        task = queue.submit(Job(model_id, say("hello") + "?signature=canary"))
        assert (await ended(store, task.video_id)).message == "internal error; see the engine's log"
        assert "canary" not in repr(task)
    assert "ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


async def test_a_recording_that_was_fetched_is_not_fetched_again_after_a_restart(open_queue, job, recordings, data_dir):
    """Its URL may have expired."""
    async with open_queue(workers=1) as (queue, store):
        under_way = queue.submit(job("sleep"))
        await until(store, under_way.video_id, VideoStatus.IN_PROGRESS)
        waiting = queue.submit(job("gone soon"))
        with anyio.fail_after(20):
            while not (data_dir / "audio" / waiting.video_id).exists():  # noqa: ASYNC110  # no event for it
                await anyio.sleep(0.01)
    for path in recordings.iterdir():
        if path.read_text() == "gone soon":
            path.unlink()
    (data_dir / "audio" / ("0" * 32)).write_text("of a task that is done")
    async with open_queue(workers=2) as (queue, store):
        task = await ended(store, waiting.video_id)
        assert queue.path(task.video_id).read_text() == "eva_a0008 --size 512: gone soon"
        assert [path.name for path in (data_dir / "audio").iterdir()] == [under_way.video_id]


def _disk_is_full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_recording_that_cannot_be_fetched(open_queue, model_id):
    async with open_queue() as (queue, store):
        task = await ended(store, queue.submit(Job(model_id, "http://127.0.0.1:8009/a")).video_id)
    assert task.status is VideoStatus.FAILED
    assert "public internet" in task.message


async def test_time_is_limited_and_the_child_is_killed(open_queue, job, child, data_dir):
    async with open_queue(max_render_seconds=3) as (queue, store):
        task = queue.submit(job(child.says))
        pid = await child.pid()
        failed = await ended(store, task.video_id)
        assert failed.message == "the render took longer than 3 s"
        assert not child.is_alive(pid)
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []


async def test_an_orphaned_render_does_not_prevent_the_next_start(open_queue, job, data_dir, monkeypatch):
    """A folder to which an orphaned render is writing cannot always be deleted."""
    (data_dir / "work" / "old").mkdir(parents=True)
    monkeypatch.setattr("a2v.engine.render_queue.shutil.rmtree", lambda *_, **__: None)
    async with open_queue() as (queue, store):
        task = await ended(store, queue.submit(job("hello")).video_id)
    assert task.status is VideoStatus.FINISHED


@pytest.mark.skipif(sys.platform == "win32", reason="looks at processes the POSIX way")
async def test_closing_kills_the_children_and_the_next_start_renders_again(open_queue, job, child):
    async with open_queue(workers=1) as (queue, store):
        under_way, waiting = queue.submit(job(child.says)), queue.submit(job("hello"))
        pid = await child.pid()
        assert store.get(under_way.video_id).status is VideoStatus.IN_PROGRESS
    assert not child.is_alive(pid)
    child.note.unlink()
    async with open_queue(workers=2) as (queue, store):
        assert (await ended(store, waiting.video_id)).status is VideoStatus.FINISHED
        assert await child.pid() != pid
        assert store.get(under_way.video_id).status is VideoStatus.IN_PROGRESS


async def test_no_more_renders_at_a_time_than_workers(open_queue, job, recordings):
    async with open_queue(workers=2) as (queue, store):
        for _ in range(4):
            queue.submit(job("sleep"))

        def rendering() -> int:
            return sum(task.status is VideoStatus.IN_PROGRESS for task in store.newest(10))

        with anyio.fail_after(20):
            while rendering() < 2:  # noqa: ASYNC110  # polls, as a client does
                await anyio.sleep(0.01)
        await anyio.wait_all_tasks_blocked()
        assert rendering() == 2


async def test_the_queue_is_limited(open_queue, job):
    async with open_queue(workers=1, queue_limit=2) as (queue, store):
        first = queue.submit(job("sleep"))
        await until(store, first.video_id, VideoStatus.IN_PROGRESS)
        queue.submit(job("sleep"))
        queue.submit(job("sleep"))
        with pytest.raises(QueueFullError):
            queue.submit(job("sleep"))
        assert len(store.newest(10)) == 3


async def test_a_full_queue_is_recovered_completely(open_queue, job):
    async with open_queue(workers=1, queue_limit=3) as (queue, _):
        tasks = [queue.submit(job("hello")) for _ in range(3)]
    async with open_queue(workers=1, queue_limit=1) as (_, store):
        for task in tasks:
            assert (await ended(store, task.video_id)).status is VideoStatus.FINISHED
