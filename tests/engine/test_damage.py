"""A damaged database is reported at the start or worked around: no traceback, and no call fails because of one row."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import httpx
import pytest

from a2v import Job, VideoStatus
from a2v.engine import Settings, create_app
from a2v.engine.task_store import TaskStore
from a2v.errors import ConfigurationError

TOKEN = "t0k3n"
JOB = Job("eva_a0008", "https://example.invalid/hello.wav")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def path(data_dir):
    """A database with thirty tasks, some of each status."""
    data_dir.mkdir()
    path = data_dir / "tasks.sqlite3"
    with TaskStore(path) as store:
        for number in range(30):
            task = store.add(JOB)
            if status := (VideoStatus.FINISHED, VideoStatus.FAILED, None)[number % 3]:
                store.set_status(task.video_id, status, "no recording" * 20)
    return path


async def use(path) -> set[int]:
    """Start an engine with the folder, make all calls, and return the statuses."""
    app = create_app(Settings(data_dir=path.parent, token=TOKEN, quota=100, workers=1), renderer=_render)
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": TOKEN}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client,
    ):
        replies = [await client.get(path) for path in ("/v1/a2v/video.list", "/", "/health")]
        names = [task.video_id for task in TaskStore.newest(app.state.engine.store, 40)]
        replies += [await client.get("/v1/a2v/video.get", params={"video_id": name}) for name in names]
        body = {"model_id": "eva_a0008", "audio_url": JOB.audio_url}
        replies.append(await client.post("/v1/a2v/video.generate", json=body))
    return {reply.status_code for reply in replies}


async def _render(_: object) -> None:
    """Never called, because the recordings cannot be fetched."""


async def start(path) -> set[int]:
    try:
        return await use(path)
    except ConfigurationError as error:
        assert str(path) in str(error) or "newer version" in str(error)  # noqa: PT017  # either is right
        return set()


async def answers_after_damage(path, seeds) -> set[int]:
    """Yield the results of engines with the database, each with different random damage."""
    answers: set[int] = set()
    whole = path.read_bytes()
    for seed in seeds:
        dice = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 4, 100))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if dice.random() < 0.2:
            del damaged[dice.randrange(len(damaged)) :]
        for beside in path.parent.glob("tasks.sqlite3*"):
            beside.unlink()
        path.write_bytes(damaged)
        answers |= await start(path)
    return answers


@pytest.mark.anyio
async def test_any_damage_is_reported_or_survived(path):
    assert await answers_after_damage(path, range(20)) <= {200, 404, 429, 503}


@pytest.mark.anyio
@pytest.mark.extended
async def test_any_damage_is_reported_or_survived_at_length(path):
    assert await answers_after_damage(path, range(20, 400)) <= {200, 404, 429, 503}


ODD = [
    "status = 'fjnished'",
    "status = x'00ff'",
    "status = 7",
    "who = x'80'",
    "audio_url = 7.5",
    "message = x'ff'",
    "message = CAST(x'ff' AS TEXT)",
    "created = 'yesterday'",
    "created = 1e300",
    "created = -9e999",
    "with_mask = 'perhaps'",
    "video_id = '../../etc/passwd'",
    "video_id = CAST(x'ff' AS TEXT)",
    "ended = 'never'",
]


@pytest.mark.anyio
@pytest.mark.parametrize("change", ODD)
async def test_a_damaged_row_does_not_affect_others(path, change):
    with closing(sqlite3.connect(path)) as db:
        rows = "(1)" if change.startswith("video_id") else "(1, 2, 3)"
        db.execute(f"UPDATE tasks SET {change} WHERE number IN {rows}")
        db.commit()
    assert await use(path) == {200}


def test_a_damaged_row_is_a_failed_video(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE tasks SET status = 'pending', audio_url = x'00' WHERE number = 5")
        db.execute("UPDATE tasks SET status = 'soon' WHERE number = 6")
        db.commit()
    with TaskStore(path) as store:
        taken_up = store.recover()
        odd = [task for task in store.newest(40) if task.message and "damaged" in task.message]
    assert [task.status for task in odd] == [VideoStatus.FAILED] * 2
    assert not {task.video_id for task in odd} & {task.video_id for task in taken_up}


SCHEMAS = {
    "no tables": "DROP TABLE tasks",
    "no count": "DROP TABLE spending",
    "two counts": "INSERT INTO spending VALUES (1)",
    "missing column": "ALTER TABLE tasks DROP COLUMN message",
    "negative version": "PRAGMA user_version = -3",
    "version 0 with tables": "PRAGMA user_version = 0",
    "a trigger": "CREATE TRIGGER t BEFORE UPDATE ON spending BEGIN SELECT RAISE(ABORT, 'no'); END",
    "a trigger on tasks": "CREATE TRIGGER t BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'no'); END",
}


@pytest.mark.anyio
@pytest.mark.parametrize("change", SCHEMAS)
async def test_another_schema_is_reported_at_the_start(path, change):
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE tasks SET status = 'in_progressing' WHERE number = 1")
        db.execute(SCHEMAS[change])
        db.commit()
    with pytest.raises(ConfigurationError, match=r"cannot be used"):
        await use(path)


@pytest.mark.anyio
async def test_damage_while_the_engine_runs_is_logged_once(path, caplog):
    app = create_app(Settings(data_dir=path.parent, token=TOKEN))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers={"Authorization": TOKEN}) as client,
    ):
        app.state.engine.store._db.execute("DROP TABLE tasks")
        body = {"model_id": "eva_a0008", "audio_url": JOB.audio_url}
        for _ in range(20):
            for look in ("/v1/a2v/video.list", "/", "/health"):
                assert (await client.get(look)).status_code == 503
            assert (await client.post("/v1/a2v/video.generate", json=body)).status_code == 429
    assert caplog.text.count("the database cannot be used") == 1
