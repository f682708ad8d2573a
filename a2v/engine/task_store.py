"""What the engine remembers: the tasks, in SQLite, so that a restart loses none."""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Self

from attrs import field, frozen

from a2v._values.models import VideoStatus
from a2v.engine.data_folder import ensure_private_file
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from a2v._values.jobs import Job

_MIGRATIONS = [
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
_STATUSES = set(VideoStatus) - {VideoStatus.UNKNOWN}
_YEAR_9999 = 253_370_764_800.0
MAX_INTERRUPTIONS = 10
"""A task that the engine was killed over so often is not taken up again: it may be the task that kills it."""


@frozen
class Task:
    """One video to make, and how far it is.

    Attributes:
        video_id: Its name: 128 random bits, so that whoever has not been told it cannot guess the URL of the video.
        who: Who speaks: a ``model_id``, or the ``pose_id`` of an avatar.
        with_mask: Whether a mask is made too.
        audio_url: What is said; not in the ``repr``, because it may be signed.
        status: Where it is on its way.
        message: Why it failed, if it did.
        created: When it was submitted, in seconds since 1970.
    """

    video_id: str
    who: str
    with_mask: bool
    audio_url: str = field(repr=False)
    status: VideoStatus
    message: str | None
    created: float


class TaskStore:
    """The tasks of one data folder; as a context manager it closes the file at the end.

    Args:
        path: The database file, made if it is not there.

    Raises:
        ConfigurationError: Another engine has it open, it is damaged, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            try:
                for suffix in ("", "-wal", "-shm", "-journal"):
                    # SQLite gives the files beside the database its mode.
                    ensure_private_file(path.with_name(path.name + suffix), make=not suffix)
                self._db = stack.enter_context(closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)))
                self._open()
            # UnicodeError: SQLite's message may quote a damaged schema.
            except (sqlite3.Error, OSError, UnicodeError) as error:
                raise ConfigurationError(_explain(path, error)) from None
            stack.pop_all()

    def _open(self) -> None:
        # Damaged text is shown, not raised.
        self._db.text_factory = partial(str, encoding="utf-8", errors="replace")
        # One engine for each folder: two would render the same tasks twice. The lock goes when the process does.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        # What a client was told has been accepted is still there after a power cut; the second is for macOS.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise ConfigurationError("the data folder was written by a newer version of a2v")
        if version < 0:
            raise sqlite3.DatabaseError(f"its version is {version}")
        # Also where nothing changes: the writing takes the lock.
        changes = "".join(_MIGRATIONS[version:])
        self._db.executescript(f"BEGIN IMMEDIATE; {changes} PRAGMA user_version = {len(_MIGRATIONS)}; COMMIT;")
        self.check(whole=True)

    def check(self, *, whole: bool = False) -> None:
        """Find out whether the database can be read and written.

        Args:
            whole: Also compare the indexes with the tables.

        Raises:
            sqlite3.Error: It cannot, or it is damaged.
        """
        ((verdict,),) = self._db.execute("PRAGMA integrity_check(1)" if whole else "PRAGMA quick_check(1)")
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))
        self._select("LIMIT ?", 1)
        if self._db.execute("UPDATE spending SET calls = calls").rowcount != 1:
            raise sqlite3.DatabaseError("the count of calls is missing")

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
        self._db.execute(
            f"INSERT INTO tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # constant
            # Not a variable: tracebacks show those, and the URL may be signed.
            (task.video_id, who, task.with_mask, task.audio_url, task.status.value, None, task.created),
        )
        return task

    def set_status(self, video_id: str, status: VideoStatus, message: str | None = None) -> None:
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

    def pending_count(self) -> int:
        """How many tasks wait in line."""
        (count,) = self._db.execute("SELECT count(*) FROM tasks WHERE status = 'pending'").fetchone()
        return int(count)

    def recover(self) -> list[Task]:
        """All that is not done, the oldest first; what was interrupted waits in line again."""
        self._db.execute(
            "UPDATE tasks SET status = 'error', message = ?, ended = ? "
            "WHERE status = 'in_progressing' AND interruptions >= ?",
            (f"the engine ended {MAX_INTERRUPTIONS} times over this render", time.time(), MAX_INTERRUPTIONS - 1),
        )
        self._db.execute(
            "UPDATE tasks SET status = 'pending', interruptions = interruptions + 1 WHERE status = 'in_progressing'"
        )
        tasks = self._select("WHERE status = ? ORDER BY number", VideoStatus.PENDING.value)
        for task in tasks:
            if task.status is VideoStatus.FAILED:
                self.set_status(task.video_id, VideoStatus.FAILED, task.message)
        return [task for task in tasks if task.status is VideoStatus.PENDING]

    def requeue(self, video_id: str) -> None:
        """A render that is stopped in order waits in line again; that is no interruption to be counted."""
        self._db.execute(
            "UPDATE tasks SET status = 'pending' WHERE video_id = ? AND status = 'in_progressing'", (video_id,)
        )

    def ended_before(self, moment: float) -> list[str]:
        """The names of the tasks that were finished or failed before then."""
        names = [row[0] for row in self._db.execute("SELECT video_id FROM tasks WHERE ended < ?", (moment,))]
        return [name for name in names if _is_name(name)]

    def delete(self, video_id: str) -> None:
        """Remove a task."""
        self._db.execute("DELETE FROM tasks WHERE video_id = ?", (video_id,))

    def consume_quota(self, quota: int) -> bool:
        """Count a call; ``False`` if so many have been made in the life of the data folder."""
        return bool(self._db.execute("UPDATE spending SET calls = calls + 1 WHERE calls < ?", (quota,)).rowcount)

    def _select(self, rest: str, value: str | int) -> list[Task]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM tasks {rest}", (value,))  # noqa: S608  # constant
        return [_read(*row) for row in rows if _is_name(row[0])]


def _is_name(video_id: object) -> bool:
    """Only what ``add`` made: names become part of paths."""
    return isinstance(video_id, str) and re.fullmatch("[0-9a-f]{32}", video_id) is not None


def _read(  # noqa: PLR0917  # the columns
    video_id: str, who: object, with_mask: object, audio_url: object, status: object, message: object, created: object
) -> Task:
    """A task as it was stored; a row that somebody or something changed is a task that failed."""
    told = VideoStatus(status) if isinstance(status, str) and status in _STATUSES else VideoStatus.UNKNOWN
    when = created if isinstance(created, float) and 0 <= created < _YEAR_9999 else 0.0
    is_whole = isinstance(who, str) and isinstance(audio_url, str) and told is not VideoStatus.UNKNOWN
    if not is_whole:
        told, message = VideoStatus.FAILED, "what the engine stored about this video is damaged"
    return Task(
        video_id=video_id,
        who=str(who),
        with_mask=bool(with_mask),
        audio_url=str(audio_url),
        status=told,
        message=message if isinstance(message, str) else None,
        created=when,
    )


def _explain(path: Path, error: sqlite3.Error | OSError | UnicodeError) -> str:
    if "locked" in str(error):
        return f"another engine uses the data folder {str(path.parent)!r}; stop it or choose another folder"
    reason = error.strerror if isinstance(error, OSError) else error if isinstance(error, sqlite3.Error) else "damaged"
    advice = "free its disk, restore it from a backup, or move it away to start with an empty one"
    return f"the engine's database {str(path)!r} cannot be used: {reason}; {advice}"
