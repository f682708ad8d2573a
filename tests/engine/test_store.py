"""What the engine remembers."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from a2v import Job, VideoStatus
from a2v.engine.store import Store
from a2v.errors import ConfigurationError

JOB = Job("eva_a0008", "https://example.com/hello.wav")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.sqlite3"


def test_a_new_task_waits(path):
    with Store(path) as store:
        task = store.add(JOB)
        assert (task.model_id, task.audio_url, task.message) == (JOB.model_id, JOB.audio_url, None)
        assert task.status is VideoStatus.PENDING
        assert store.get(task.video_id) == task
        assert store.waiting() == 1


def test_names_are_128_bits_and_never_the_same(path):
    with Store(path) as store:
        names = {store.add(JOB).video_id for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)


def test_what_was_never_added_is_not_there(path):
    with Store(path) as store:
        assert store.get("nothing") is None
        assert store.newest(10) == []


def test_everything_is_there_after_a_restart(path):
    with Store(path) as store:
        tasks = [store.add(JOB) for _ in range(3)]
        store.mark(tasks[0].video_id, VideoStatus.FINISHED)
        store.mark(tasks[1].video_id, VideoStatus.FAILED, "no recording")
    with Store(path) as store:
        states = [(task.video_id, task.status, task.message) for task in store.newest(10)]
    assert states == [
        (tasks[2].video_id, VideoStatus.PENDING, None),
        (tasks[1].video_id, VideoStatus.FAILED, "no recording"),
        (tasks[0].video_id, VideoStatus.FINISHED, None),
    ]


def test_what_was_interrupted_is_taken_up_in_its_old_order(path):
    with Store(path) as store:
        tasks = [store.add(JOB) for _ in range(4)]
        store.mark(tasks[0].video_id, VideoStatus.FINISHED)
        store.mark(tasks[1].video_id, VideoStatus.IN_PROGRESS)
        store.mark(tasks[3].video_id, VideoStatus.IN_PROGRESS)
    with Store(path) as store:
        assert [task.video_id for task in store.take_up()] == [task.video_id for task in tasks[1:]]
        assert store.waiting() == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from a2v import Job, VideoStatus
from a2v.engine.store import Store
store = Store(Path(sys.argv[1]))
task = store.add(Job("eva_a0008", "https://example.com/hello.wav"))
store.mark(task.video_id, VideoStatus.IN_PROGRESS)
print(task.video_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_loses_nothing_and_leaves_no_lock(path):
    ran = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False)
    with Store(path) as store:
        assert [task.video_id for task in store.take_up()] == [ran.stdout.strip()]


def test_two_engines_cannot_share_a_folder(path):
    with Store(path), pytest.raises(ConfigurationError, match="another engine"):
        Store(path)
    with Store(path) as store:
        assert store.waiting() == 0


def test_a_damaged_file_is_told_not_overwritten(path):
    path.write_text("this is not a database, and somebody may want it back" * 20)
    with pytest.raises(ConfigurationError, match=r"tasks\.sqlite3"):
        Store(path)
    assert path.read_text().startswith("this is not a database")


def test_a_newer_file_is_left_alone(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer version"):
        Store(path)


def test_a_file_that_cannot_be_opened(path):
    path.mkdir()
    with pytest.raises(ConfigurationError, match=r"tasks\.sqlite3"):
        Store(path)
