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

_SCHEMA = """
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
PRAGMA user_version = 1;
"""
_COLUMNS = "video_id, model_id, audio_url, status, message, created"


@frozen
class Task:
    """One video to make, and how far it is.

    Attributes:
        video_id: Its name: 128 random bits, so that whoever has not been told it cannot guess the URL of the video.
        model_id: Who speaks.
        audio_url: What is said.
        status: Where it is on its way.
        message: Why it failed, if it did.
        created: When it was submitted, in seconds since 1970.
    """

    video_id: str
    model_id: str
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
        # Survives the death of the process; only a power cut can take the last moments, never the file.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > 1:
            raise ConfigurationError("the data folder was written by a newer version of a2v")
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, job: Job) -> Task:
        """Remember a new task, which waits from now on."""
        task = Task(secrets.token_hex(16), job.model_id or "", job.audio_url, VideoStatus.PENDING, None, time.time())
        values = (task.video_id, task.model_id, task.audio_url, task.status.value, task.message, task.created)
        self._db.execute(f"INSERT INTO tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)  # noqa: S608  # constant
        return task

    def mark(self, video_id: str, status: VideoStatus, message: str | None = None) -> None:
        """Remember how far a task is."""
        self._db.execute(
            "UPDATE tasks SET status = ?, message = ? WHERE video_id = ?", (status.value, message, video_id)
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
        self._db.execute("UPDATE tasks SET status = 'pending' WHERE status = 'in_progressing'")
        return self._select("WHERE status = ? ORDER BY number", VideoStatus.PENDING.value)

    def _select(self, rest: str, value: str | int) -> list[Task]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM tasks {rest}", (value,))  # noqa: S608  # constant
        return [Task(row[0], row[1], row[2], VideoStatus(row[3]), row[4], row[5]) for row in rows]


def _explain(path: Path, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"another engine uses the data folder {str(path.parent)!r}; stop it or choose another folder"
    return f"the engine's memory {str(path)!r} cannot be used: {error}"
