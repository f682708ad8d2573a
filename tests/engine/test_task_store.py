"""The tasks in the database."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from a2v import Job, VideoStatus
from a2v.engine.task_store import MAX_INTERRUPTIONS, TaskStore
from a2v.errors import ConfigurationError

JOB = Job("eva_a0008", "https://example.com/hello.wav")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.sqlite3"


def test_a_new_task_is_pending(path):
    with TaskStore(path) as store:
        task = store.add(JOB)
        assert (task.subject_id, task.audio_url, task.with_mask, task.message) == (
            "eva_a0008",
            JOB.audio_url,
            False,
            None,
        )
        assert task.status is VideoStatus.PENDING
        assert store.get(task.video_id) == task
        assert store.pending_count() == 1


def test_a_pose_and_its_mask_are_stored(path):
    with TaskStore(path) as store:
        video_id = store.add(Job(pose_id="eva_a0008_closeup", audio_url=JOB.audio_url, with_mask=True)).video_id
    with TaskStore(path) as store:
        task = store.get(video_id)
    assert (task.subject_id, task.with_mask) == ("eva_a0008_closeup", True)


def test_video_ids_are_128_random_bits(path):
    with TaskStore(path) as store:
        names = {store.add(JOB).video_id for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)


def test_an_unknown_task_does_not_exist(path):
    with TaskStore(path) as store:
        assert store.get("nothing") is None
        assert store.newest(10) == []


def test_tasks_survive_a_restart(path):
    with TaskStore(path) as store:
        tasks = [store.add(JOB) for _ in range(3)]
        store.set_status(tasks[0].video_id, VideoStatus.FINISHED)
        store.set_status(tasks[1].video_id, VideoStatus.FAILED, "no recording")
    with TaskStore(path) as store:
        states = [(task.video_id, task.status, task.message) for task in store.newest(10)]
    assert states == [
        (tasks[2].video_id, VideoStatus.PENDING, None),
        (tasks[1].video_id, VideoStatus.FAILED, "no recording"),
        (tasks[0].video_id, VideoStatus.FINISHED, None),
    ]


def test_interrupted_tasks_are_recovered_in_their_order(path):
    with TaskStore(path) as store:
        tasks = [store.add(JOB) for _ in range(4)]
        store.set_status(tasks[0].video_id, VideoStatus.FINISHED)
        store.set_status(tasks[1].video_id, VideoStatus.IN_PROGRESS)
        store.set_status(tasks[3].video_id, VideoStatus.IN_PROGRESS)
    with TaskStore(path) as store:
        assert [task.video_id for task in store.recover()] == [task.video_id for task in tasks[1:]]
        assert store.pending_count() == 3


def test_a_requeued_task_keeps_its_place(path):
    with TaskStore(path) as store:
        tasks = [store.add(JOB) for _ in range(2)]
        for task in tasks:
            store.set_status(task.video_id, VideoStatus.IN_PROGRESS)
        store.requeue(tasks[0].video_id)
        assert store.get(tasks[0].video_id).status is VideoStatus.PENDING
        store.set_status(tasks[1].video_id, VideoStatus.FINISHED)
        store.requeue(tasks[1].video_id)
        assert store.get(tasks[1].video_id).status is VideoStatus.FINISHED


def test_a_task_that_repeatedly_kills_the_engine_fails(path):
    with TaskStore(path) as store:
        deadly, harmless = store.add(JOB).video_id, store.add(JOB).video_id
    for _ in range(MAX_INTERRUPTIONS - 1):
        with TaskStore(path) as store:
            assert [task.video_id for task in store.recover()] == [deadly, harmless]
            store.set_status(deadly, VideoStatus.IN_PROGRESS)
    with TaskStore(path) as store:
        assert [task.video_id for task in store.recover()] == [deadly, harmless]
        store.set_status(deadly, VideoStatus.IN_PROGRESS)
    with TaskStore(path) as store:
        assert [task.video_id for task in store.recover()] == [harmless]
        assert store.get(deadly).status is VideoStatus.FAILED
        assert "10 times" in store.get(deadly).message


def test_tasks_that_ended_before_a_time(path):
    with TaskStore(path) as store:
        finished, failed, waiting = (store.add(JOB).video_id for _ in range(3))
        store.set_status(finished, VideoStatus.FINISHED)
        store.set_status(failed, VideoStatus.FAILED, "no recording")
        assert store.ended_before(time.time() - 60) == []
        assert store.ended_before(time.time() + 60) == [finished, failed]
        store.delete(finished)
        assert store.get(finished) is None
        assert store.ended_before(time.time() + 60) == [failed]
        assert store.get(waiting)


def test_a_quota_survives_restarts(path):
    with TaskStore(path) as store:
        assert store.consume_quota(2)
    with TaskStore(path) as store:
        assert [store.consume_quota(2), store.consume_quota(2), store.consume_quota(3)] == [True, False, True]


KILLED = """
import os, signal, sys
from pathlib import Path
from a2v import Job, VideoStatus
from a2v.engine.task_store import TaskStore
store = TaskStore(Path(sys.argv[1]))
task = store.add(Job("eva_a0008", "https://example.com/hello.wav"))
store.set_status(task.video_id, VideoStatus.IN_PROGRESS)
print(task.video_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_loses_nothing_and_leaves_no_lock(path):
    ran = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False)
    with TaskStore(path) as store:
        assert [task.video_id for task in store.recover()] == [ran.stdout.strip()]


def test_two_engines_cannot_share_a_folder(path):
    with TaskStore(path), pytest.raises(ConfigurationError, match="another engine"):
        TaskStore(path)
    with TaskStore(path) as store:
        assert store.pending_count() == 0


def test_a_damaged_file_is_reported_and_not_overwritten(path):
    path.write_text("this is not a database, and must not be overwritten" * 20)
    with pytest.raises(ConfigurationError, match=r"tasks\.sqlite3"):
        TaskStore(path)
    assert path.read_text().startswith("this is not a database")


def test_a_file_of_an_earlier_version_is_migrated(path):
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_VERSION)
    with TaskStore(path) as store:
        assert [(task.video_id, task.subject_id, task.with_mask, task.status.value) for task in store.newest(9)] == [
            ("b" * 32, "leo_a0047", False, "pending"),
            ("a" * 32, "eva_a0008", False, "finished"),
        ]
        assert store.ended_before(101) == ["a" * 32]
        assert store.consume_quota(1)
    with TaskStore(path) as store:
        assert len(store.newest(9)) == 2


FIRST_VERSION = f"""
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY, video_id TEXT NOT NULL UNIQUE, model_id TEXT NOT NULL, audio_url TEXT NOT NULL,
    status TEXT NOT NULL, message TEXT, created REAL NOT NULL
);
CREATE INDEX unfinished ON tasks (status) WHERE status IN ('pending', 'in_progressing');
INSERT INTO tasks VALUES (1, '{"a" * 32}', 'eva_a0008', 'https://example.com/a', 'finished', NULL, 100);
INSERT INTO tasks VALUES (2, '{"b" * 32}', 'leo_a0047', 'https://example.com/b', 'pending', NULL, 200);
PRAGMA user_version = 1;
"""


def test_a_file_of_a_newer_version_is_refused(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer version"):
        TaskStore(path)


def test_a_file_that_cannot_be_opened(path):
    path.mkdir()
    with pytest.raises(ConfigurationError, match=r"tasks\.sqlite3"):
        TaskStore(path)
