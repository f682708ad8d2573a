"""What the engine remembers: the tasks, in SQLite, so that a restart loses none."""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Self

from attrs import frozen

from a2v._core.models import Job, VideoStatus
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_CHANGES = [
    """
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    video_id TEXT NOT NULL UNIQUE,
    model_id TEXT NOT NULL,
    audio_url TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    created REAL NOT NULL
);
CREATE INDEX unfinished ON tasks (status) WHERE status IN ('pending', 'in_progressing');
""",
    """
ALTER TABLE tasks RENAME COLUMN model_id TO who;
ALTER TABLE tasks ADD COLUMN with_mask INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN ended REAL;
UPDATE tasks SET ended = created WHERE status IN ('finished', 'error');
CREATE INDEX by_end ON tasks (ended) WHERE ended IS NOT NULL;
CREATE TABLE spending (calls INTEGER NOT NULL);
INSERT INTO spending VALUES (0);
""",
]
"""What made the database of each version out of the one before. A change is added, never edited."""
_COLUMNS = "video_id, who, with_mask, audio_url, status, message, created"
MAX_INTERRUPTIONS = 10
"""A task that the engine was killed over so often is not taken up again: it may be the task that kills it."""


@frozen
class Task:
    """One video to make, and how far it is.

    Attributes:
        video_id: Its name: 128 random bits, so that whoever has not been told it cannot guess the URL of the video.
        who: Who speaks: a ``model_id``, or the ``pose_id`` of an avatar.
        with_mask: Whether a mask is made too.
        audio_url: What is said.
        status: Where it is on its way.
        message: Why it failed, if it did.
        created: When it was submitted, in seconds since 1970.
    """

    video_id: str
    who: str
    with_mask: bool
    audio_url: str
    status: VideoStatus
    message: str | None
    created: float


class Store:
    """The tasks of one data folder; as a context manager it closes the file at the end.

    Args:
        path: The database file, made if it is not there.

    Raises:
        ConfigurationError: Another engine has it open, it is damaged, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            try:
                self._db = stack.enter_context(closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)))
                self._open()
            except sqlite3.Error as error:
                raise ConfigurationError(_explain(path, error)) from None
            stack.pop_all()

    def _open(self) -> None:
        # One engine for each folder: two would render the same tasks twice. The lock goes when the process does.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        # What a client was told has been accepted is still there after a power cut.
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(_CHANGES):
            raise ConfigurationError("the data folder was written by a newer version of a2v")
        # Also where nothing changes: the writing takes the lock.
        changes = "".join(_CHANGES[version:])
        self._db.executescript(f"BEGIN IMMEDIATE; {changes} PRAGMA user_version = {len(_CHANGES)}; COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, job: Job) -> Task:
        """Remember a new task, which waits from now on."""
        who = job.pose_id or str(job.model_id)
        task = Task(secrets.token_hex(16), who, job.with_mask, job.audio_url, VideoStatus.PENDING, None, time.time())
        values = (task.video_id, who, task.with_mask, task.audio_url, task.status.value, None, task.created)
        self._db.execute(f"INSERT INTO tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608  # constant
        return task

    def mark(self, video_id: str, status: VideoStatus, message: str | None = None) -> None:
        """Remember how far a task is."""
        ended = time.time() if status.is_terminal else None
        self._db.execute(
            "UPDATE tasks SET status = ?, message = ?, ended = ? WHERE video_id = ?",
            (status.value, message, ended, video_id),
        )

    def get(self, video_id: str) -> Task | None:
        """The task of that name, if there is one."""
        return next(iter(self._select("WHERE video_id = ?", video_id)), None)

    def newest(self, limit: int) -> list[Task]:
        """The tasks submitted last, the newest first."""
        return self._select("ORDER BY number DESC LIMIT ?", limit)

    def waiting(self) -> int:
        """How many tasks wait in line."""
        (count,) = self._db.execute("SELECT count(*) FROM tasks WHERE status = 'pending'").fetchone()
        return int(count)

    def take_up(self) -> list[Task]:
        """All that is not done, the oldest first; what was interrupted waits in line again."""
        self._db.execute(
            "UPDATE tasks SET status = 'error', message = ?, ended = ? "
            "WHERE status = 'in_progressing' AND interruptions >= ?",
            (f"the engine ended {MAX_INTERRUPTIONS} times over this render", time.time(), MAX_INTERRUPTIONS - 1),
        )
        self._db.execute(
            "UPDATE tasks SET status = 'pending', interruptions = interruptions + 1 WHERE status = 'in_progressing'"
        )
        return self._select("WHERE status = ? ORDER BY number", VideoStatus.PENDING.value)

    def put_back(self, video_id: str) -> None:
        """A render that is stopped in order waits in line again; that is no interruption to be counted."""
        self._db.execute(
            "UPDATE tasks SET status = 'pending' WHERE video_id = ? AND status = 'in_progressing'", (video_id,)
        )

    def ended_before(self, moment: float) -> list[str]:
        """The names of the tasks that were finished or failed before then."""
        return [row[0] for row in self._db.execute("SELECT video_id FROM tasks WHERE ended < ?", (moment,))]

    def forget(self, video_id: str) -> None:
        """Remove a task."""
        self._db.execute("DELETE FROM tasks WHERE video_id = ?", (video_id,))

    def spend(self, quota: int) -> bool:
        """Count a call; ``False`` if so many have been made in the life of the data folder."""
        return bool(self._db.execute("UPDATE spending SET calls = calls + 1 WHERE calls < ?", (quota,)).rowcount)

    def _select(self, rest: str, value: str | int) -> list[Task]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM tasks {rest}", (value,))  # noqa: S608  # constant
        return [Task(row[0], row[1], bool(row[2]), row[3], VideoStatus(row[4]), row[5], row[6]) for row in rows]


def _explain(path: Path, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"another engine uses the data folder {str(path.parent)!r}; stop it or choose another folder"
    return f"the engine's memory {str(path)!r} cannot be used: {error}"
