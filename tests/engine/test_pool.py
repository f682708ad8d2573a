"""The renders: one process each, whatever becomes of it."""

from __future__ import annotations

import errno
import sqlite3
import sys
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest

from a2v import Job, VideoStatus
from a2v.engine import Settings
from a2v.engine.pool import BusyError, Pool, QueueFullError
from a2v.engine.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_renders")]


@pytest.fixture
def open_pool(data_dir, recordings):
    data_dir.mkdir()

    @asynccontextmanager
    async def open_pool(**settings):
        with Store(data_dir / "tasks.sqlite3") as store:
            async with Pool(store, data_dir, Settings(allow_files=recordings, **settings)) as pool:
                yield pool, store

    return open_pool


@pytest.fixture
def job(say, model_id):
    return lambda what: Job(model_id, say(what))


async def until(store: Store, video_id: str, *statuses: VideoStatus):
    with anyio.fail_after(20):
        while (task := store.get(video_id)).status not in statuses:  # noqa: ASYNC110  # as a client would look
            await anyio.sleep(0.01)
    return task


async def ended(store: Store, video_id: str):
    return await until(store, video_id, VideoStatus.FINISHED, VideoStatus.FAILED)


async def test_a_video(open_pool, job, data_dir):
    async with open_pool(size=720) as (pool, store):
        task = pool.submit(job("hello"))
        assert task.status is VideoStatus.PENDING
        assert (await ended(store, task.video_id)).status is VideoStatus.FINISHED
        assert pool.path(task.video_id).read_text() == "eva_a0008 --size 720: hello"
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
        ("liar", "the engine failed; its log says why"),
    ],
)
async def test_a_render_that_fails_fails_alone(open_pool, job, data_dir, what, message):
    async with open_pool(workers=1) as (pool, store):
        failing, good = pool.submit(job(what)), pool.submit(job("hello"))
        failed = await ended(store, failing.video_id)
        assert (failed.status, failed.message) == (VideoStatus.FAILED, message)
        assert (await ended(store, good.video_id)).status is VideoStatus.FINISHED
        assert not pool.path(failing.video_id).exists()
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []


async def test_a_render_that_crashes_is_tried_once_more(open_pool, job, tmp_path, caplog):
    caplog.set_level("INFO", "a2v.engine")
    async with open_pool() as (pool, store):
        task = await ended(store, pool.submit(job(f"crash once {tmp_path / 'note'}")).video_id)
    assert task.status is VideoStatus.FINISHED
    assert caplog.text.count("tried again") == 1


async def test_a_mask_is_kept_beside_its_video(open_pool, say, data_dir):
    async with open_pool() as (pool, store):
        job = Job(pose_id="eva_a0008_closeup", audio_url=say("hello"), with_mask=True)
        task = await ended(store, pool.submit(job).video_id)
        assert task.status is VideoStatus.FINISHED
        assert pool.path(task.video_id).read_text() == "eva_a0008_closeup --size 512: hello"
        assert pool.mask_path(task.video_id).read_text() == "mask of hello"
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []


async def test_any_renderer_will_do(data_dir, say, model_id):
    """A farm of machines, say: called with an order, cancelled at the end."""
    orders, cancelled = [], []

    async def farm(order):
        orders.append(order)
        order.destination.write_bytes(b"made elsewhere")
        if len(orders) == 2:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(order)

    data_dir.mkdir()
    settings = Settings(allow_files=urlsplit(say("hello")).path, max_audio_seconds=7, fps=30, format="portrait")
    with Store(data_dir / "tasks.sqlite3") as store:
        async with Pool(store, data_dir, settings, farm) as pool:
            task = await ended(store, pool.submit(Job(model_id, say("hello"))).video_id)
            assert pool.path(task.video_id).read_bytes() == b"made elsewhere"
            second = pool.submit(Job(model_id, say("hello")))
            await until(store, second.video_id, VideoStatus.IN_PROGRESS)
        assert store.get(second.video_id).status is VideoStatus.PENDING
    assert cancelled == orders[1:]
    assert (orders[0].who, orders[0].fps, orders[0].format, orders[0].max_audio_seconds) == (
        model_id,
        30,
        "portrait",
        7,
    )


async def test_videos_are_removed_when_their_time_is_over(open_pool, say, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.pool.SWEEP_SECONDS", 0.05)
    async with open_pool(keep_days=1 / 86_400) as (pool, store):
        masked = pool.submit(Job(pose_id="eva_a0008_front", audio_url=say("hello"), with_mask=True)).video_id
        failed = pool.submit(job("bad")).video_id
        waiting = pool.submit(job("sleep")).video_id
        await until(store, masked, VideoStatus.FINISHED)
        assert pool.mask_path(masked).exists()
        with anyio.fail_after(20):
            while store.get(masked) or store.get(failed):  # noqa: ASYNC110  # as a client would look
                await anyio.sleep(0.02)
        assert store.get(waiting)
        assert not pool.path(masked).exists()
        assert not pool.mask_path(masked).exists()


async def test_what_cannot_be_removed_is_the_next_sweeps_work(open_pool, job, monkeypatch, caplog):
    """And keeps nothing else from being removed; the log has one line of it."""
    monkeypatch.setattr("a2v.engine.pool.SWEEP_SECONDS", 0.02)
    async with open_pool() as (pool, store):
        stuck, other = [(await ended(store, pool.submit(job("hello")).video_id)).video_id for _ in range(2)]
        path = pool.path(stuck)
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    async with open_pool(keep_days=0.01 / 86_400) as (pool, store):
        with anyio.fail_after(20):
            while store.get(other):  # noqa: ASYNC110  # as a client would look
                await anyio.sleep(0.01)
        assert store.get(stuck)
        (path / "file").unlink()
        path.rmdir()
        with anyio.fail_after(20):
            while store.get(stuck):  # noqa: ASYNC110  # as a client would look
                await anyio.sleep(0.01)
    assert caplog.text.count("could not be removed") == 1


async def test_the_log_says_why_a_renderer_crashed(open_pool, job, caplog):
    async with open_pool() as (pool, store):
        await ended(store, pool.submit(job("exit")).video_id)
    assert "there is a bug" in caplog.text


async def test_a_renderer_that_cannot_even_start(open_pool, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.renderer.WORKER", ("/nowhere/python",))
    async with open_pool() as (pool, store):
        task = await ended(store, pool.submit(job("hello")).video_id)
    assert (task.status, task.message) == (VideoStatus.FAILED, "the engine failed; its log says why")


async def test_a_finished_render_is_not_lost_because_its_end_cannot_be_stored(open_pool, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.shortage.FIRST_PAUSE", 0.01)
    renders = []
    async with open_pool() as (pool, store):
        render = pool._renderer
        monkeypatch.setattr(pool, "_renderer", lambda order: renders.append(order) or render(order))
        mark, refusals = store.mark, iter([_disk_is_full, _disk_is_full])

        def refuse_twice(video_id, status, message=None):
            if status.is_terminal:
                next(refusals, str)()
            mark(video_id, status, message)

        monkeypatch.setattr(store, "mark", refuse_twice)
        task = pool.submit(job("hello"))
        assert (await ended(store, task.video_id)).status is VideoStatus.FINISHED
    assert len(renders) == 1


async def test_a_store_that_cannot_be_written_accepts_nothing(open_pool, job, monkeypatch):
    monkeypatch.setattr("a2v.engine.shortage.FIRST_PAUSE", 0.01)
    async with open_pool() as (pool, store):
        with monkeypatch.context() as patch:
            patch.setattr(store, "add", _disk_is_full)
            for _ in range(2):
                with pytest.raises(BusyError, match="database or disk is full"):
                    pool.submit(job("hello"))
        with anyio.fail_after(20):
            await pool.shortage.over()
        assert (await ended(store, pool.submit(job("hello")).video_id)).status is VideoStatus.FINISHED


@pytest.mark.parametrize("what", ["lack", "killed"])
async def test_a_render_for_which_the_machine_lacks_something_is_repeated(open_pool, job, tmp_path, what, monkeypatch):
    monkeypatch.setattr("a2v.engine.shortage.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("a2v.engine.pool.LONGEST_PAUSE", 0.01)
    async with open_pool() as (pool, store):
        task = await ended(store, pool.submit(job(f"{what} once {tmp_path / 'note'}")).video_id)
    assert task.status is VideoStatus.FINISHED


async def test_a_task_that_alone_lacks_something_again_and_again_fails(open_pool, job, monkeypatch):
    """While others find everything there: it asks for too much, and must not be tried for ever."""
    monkeypatch.setattr("a2v.engine.pool.LONGEST_PAUSE", 0.001)
    orders = []

    async def renderer(order):
        orders.append(order)
        raise OSError(errno.ENOSPC, "No space left on device")

    async with open_pool() as (pool, store):
        monkeypatch.setattr(pool, "_renderer", renderer)
        task = await ended(store, pool.submit(job("hello")).video_id)
        assert pool.shortage.reason is None
    assert (task.status, len(orders)) == (VideoStatus.FAILED, 10)
    assert task.message == (
        "the engine could not render this 10 times in a row: the disk cannot be used (No space left on device)"
    )


async def test_an_unforeseen_error_does_not_show_a_signed_url(open_pool, model_id, monkeypatch, say, caplog):
    """Not even to what collects the variables of tracebacks."""

    async def renderer(_: object):
        raise ZeroDivisionError

    async with open_pool() as (pool, store):
        monkeypatch.setattr(pool, "_renderer", renderer)
        task = pool.submit(Job(model_id, say("hello") + "?signature=canary"))
        assert (await ended(store, task.video_id)).message == "the engine failed; its log says why"
        assert "canary" not in repr(task)
    assert "ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


async def test_a_recording_that_was_fetched_is_not_fetched_again_after_a_restart(open_pool, job, recordings, data_dir):
    """Its URL may have expired by then."""
    async with open_pool(workers=1) as (pool, store):
        under_way = pool.submit(job("sleep"))
        await until(store, under_way.video_id, VideoStatus.IN_PROGRESS)
        waiting = pool.submit(job("gone soon"))
        with anyio.fail_after(20):
            while not (data_dir / "audio" / waiting.video_id).exists():  # noqa: ASYNC110  # nobody tells us
                await anyio.sleep(0.01)
    for path in recordings.iterdir():
        if path.read_text() == "gone soon":
            path.unlink()
    (data_dir / "audio" / ("0" * 32)).write_text("of a task that is done")
    async with open_pool(workers=2) as (pool, store):
        task = await ended(store, waiting.video_id)
        assert pool.path(task.video_id).read_text() == "eva_a0008 --size 512: gone soon"
        assert [path.name for path in (data_dir / "audio").iterdir()] == [under_way.video_id]


def _disk_is_full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_recording_that_cannot_be_had(open_pool, model_id):
    async with open_pool() as (pool, store):
        task = await ended(store, pool.submit(Job(model_id, "http://127.0.0.1:8009/a")).video_id)
    assert task.status is VideoStatus.FAILED
    assert "public internet" in task.message


async def test_time_is_bounded_and_the_child_dies(open_pool, job, child, data_dir):
    async with open_pool(max_render_seconds=3) as (pool, store):
        task = pool.submit(job(child.says))
        pid = await child.pid()
        failed = await ended(store, task.video_id)
        assert failed.message == "the render took longer than 3 s"
        assert not child.is_alive(pid)
        assert [path for path in (data_dir / "work").rglob("*") if path.is_file()] == []


async def test_what_an_orphan_still_writes_does_not_keep_the_next_start_back(open_pool, job, data_dir, monkeypatch):
    """A folder that an orphaned render writes to cannot be removed at that moment."""
    (data_dir / "work" / "old").mkdir(parents=True)
    monkeypatch.setattr("a2v.engine.pool.shutil.rmtree", lambda *_, **__: None)
    async with open_pool() as (pool, store):
        task = await ended(store, pool.submit(job("hello")).video_id)
    assert task.status is VideoStatus.FINISHED


@pytest.mark.skipif(sys.platform == "win32", reason="looks at processes the POSIX way")
async def test_closing_kills_the_children_and_the_next_start_renders_again(open_pool, job, child):
    async with open_pool(workers=1) as (pool, store):
        under_way, waiting = pool.submit(job(child.says)), pool.submit(job("hello"))
        pid = await child.pid()
        assert store.get(under_way.video_id).status is VideoStatus.IN_PROGRESS
    assert not child.is_alive(pid)
    child.note.unlink()
    async with open_pool(workers=2) as (pool, store):
        assert (await ended(store, waiting.video_id)).status is VideoStatus.FINISHED
        assert await child.pid() != pid
        assert store.get(under_way.video_id).status is VideoStatus.IN_PROGRESS


async def test_no_more_renders_at_once_than_workers(open_pool, job, recordings):
    async with open_pool(workers=2) as (pool, store):
        for _ in range(4):
            pool.submit(job("sleep"))

        def rendering() -> int:
            return sum(task.status is VideoStatus.IN_PROGRESS for task in store.newest(10))

        with anyio.fail_after(20):
            while rendering() < 2:  # noqa: ASYNC110  # as a client would look
                await anyio.sleep(0.01)
        await anyio.wait_all_tasks_blocked()
        assert rendering() == 2


async def test_the_queue_is_bounded(open_pool, job):
    async with open_pool(workers=1, queue_limit=2) as (pool, store):
        first = pool.submit(job("sleep"))
        await until(store, first.video_id, VideoStatus.IN_PROGRESS)
        pool.submit(job("sleep"))
        pool.submit(job("sleep"))
        with pytest.raises(QueueFullError):
            pool.submit(job("sleep"))
        assert len(store.newest(10)) == 3


async def test_a_full_queue_is_taken_up_whole(open_pool, job):
    async with open_pool(workers=1, queue_limit=3) as (pool, _):
        tasks = [pool.submit(job("hello")) for _ in range(3)]
    async with open_pool(workers=1, queue_limit=1) as (_, store):
        for task in tasks:
            assert (await ended(store, task.video_id)).status is VideoStatus.FINISHED
