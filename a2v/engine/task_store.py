"""The engine's tasks in SQLite: the only owner of a task's state.

A row is the whole state of a task. Nothing caches it: the queue length, ``video.get`` and the decision what to render after
a restart are all queries. The render queue is the only writer of statuses, and the API only reads. A status goes from
``pending`` to ``in_progressing`` to ``finished`` or ``error``, and back to ``pending`` when a render is interrupted.

* ``add`` commits before the client gets the ``video_id``, with ``synchronous = FULL``, so a restart or a power cut loses no
  accepted task.
* The database is locked for as long as it is open. Two engines with one data folder would render each task twice.
* ``recover`` counts, per task, how often the engine died while rendering it, and fails the task at ``MAX_INTERRUPTIONS``:
  otherwise one task that kills the engine would kill it after every restart. A render that is stopped in an orderly way is
  put back with ``requeue`` and does not count.
* A task keeps its character (``add``), so a character that is changed or deleted meanwhile does not affect it. Equal ones are
  stored once, and deleted with the last task that needs them.
* Two more tables hold the uploads, whose files ``Uploads`` owns, and the number of requests that count against the quota.
* Files can be damaged. A row with impossible values becomes a failed task instead of an error of every listing, and a row
  whose ``video_id`` is not 32 hexadecimal digits is ignored, because the ``video_id`` becomes part of paths.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from attrs import field, frozen

from a2v._values.models import VideoStatus
from a2v.engine.data_folder import ensure_private_file
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    """
CREATE TABLE characters (digest TEXT PRIMARY KEY, content BLOB NOT NULL);
ALTER TABLE tasks ADD COLUMN character TEXT;
""",
    """
ALTER TABLE tasks ADD COLUMN recording TEXT;
CREATE TABLE uploads (
    sha256 TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    expires REAL NOT NULL
);
""",
    """
ALTER TABLE tasks ADD COLUMN options TEXT;
""",
]
"""The SQL that upgrades the database from each version to the next. Append to it; never edit an entry."""
_COLUMNS = "video_id, who, with_mask, audio_url, status, message, created, character, recording, options"
_STATUSES = set(VideoStatus) - {VideoStatus.UNKNOWN}
_YEAR_9999 = 253_370_764_800.0
MAX_INTERRUPTIONS = 10
"""A task fails when the engine has died this many times while rendering it, because the task may be the cause."""


@frozen
class Task:
    """A snapshot of one task.

    Attributes:
        video_id: 128 random bits in hexadecimal, so that the URL of the video cannot be guessed.
        subject_id: The ``model_id`` of the character, or the ``pose_id`` of the avatar's pose.
        with_mask: Whether to render a mask too.
        audio_url: The URL of the recording; not in the ``repr``, because it may be signed.
        status: The status, as ``video.get`` reports it.
        message: The reason of a failure, or a warning about the finished video.
        created: The time of the submission, in seconds since 1970.
        character: The key of the character; ``None`` for a built-in one.
        recording: The name of the recording, to display; empty if it has none.
        options: The options of the job; not in the ``repr``, because a URL in them may be signed.
    """

    video_id: str
    subject_id: str
    with_mask: bool
    audio_url: str = field(repr=False)
    status: VideoStatus
    message: str | None
    created: float
    character: str | None = None
    recording: str = ""
    options: Mapping[str, Any] = field(factory=dict, repr=False)


@frozen
class Upload:
    """A recording that a client has uploaded.

    Attributes:
        sha256: The hash of its content, in hexadecimal.
        name: Its name, to display.
        size: Its size in bytes.
        expires: The time of its deletion, in seconds since 1970.
    """

    sha256: str
    name: str
    size: int
    expires: float


class TaskStore:
    """The tasks of one data folder. Closes the database on leaving the ``with`` block.

    Args:
        path: The database file; created if it does not exist.

    Raises:
        ConfigurationError: The database is open in another engine, damaged, or of a newer version of a2v.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            try:
                for suffix in ("", "-wal", "-shm", "-journal"):
                    # SQLite creates its other files with the mode of the database.
                    ensure_private_file(path.with_name(path.name + suffix), create=not suffix)
                self._db = stack.enter_context(closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)))
                self._open()
            # UnicodeError: the message of the SQLite error may quote a damaged schema.
            except (sqlite3.Error, OSError, UnicodeError) as error:
                raise ConfigurationError(_explain(path, error)) from None
            stack.pop_all()

    def _open(self) -> None:
        # Damaged text is decoded with replacement characters instead of raising an error.
        self._db.text_factory = partial(str, encoding="utf-8", errors="replace")
        # Locked until the process ends, however it ends.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        # An accepted task survives a power cut; on macOS, fsync is not enough for that.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise ConfigurationError("the data folder was written by a newer version of a2v")
        if version < 0:
            raise sqlite3.DatabaseError(f"invalid version {version}")
        # Even if there is nothing to migrate: the write takes the lock.
        changes = "".join(_MIGRATIONS[version:])
        self._db.executescript(f"BEGIN IMMEDIATE; {changes} PRAGMA user_version = {len(_MIGRATIONS)}; COMMIT;")
        self.check(full=True)

    def check(self, *, full: bool = False) -> None:
        """Check that the database can be read and written.

        Args:
            full: Also compare the indexes with the tables.

        Raises:
            sqlite3.Error: It cannot, or it is damaged.
        """
        ((verdict,),) = self._db.execute("PRAGMA integrity_check(1)" if full else "PRAGMA quick_check(1)")
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))
        self._select_tasks("LIMIT ?", 1)
        if self._db.execute("UPDATE spending SET calls = calls").rowcount != 1:
            raise sqlite3.DatabaseError("the count of requests is missing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    @property
    def changes(self) -> int:
        """The number of rows that this process has changed: if it is unchanged, nothing has changed."""
        return self._db.total_changes

    def pending(self) -> list[str]:
        """Return the video_ids of the pending tasks, oldest first."""
        rows = self._db.execute("SELECT video_id FROM tasks WHERE status = 'pending' ORDER BY number")
        return [video_id for (video_id,) in rows if _is_video_id(video_id)]

    def add(self, job: Job, character: bytes | None = None, recording: str = "") -> Task:
        """Store a new pending task.

        Args:
            job: The job.
            character: The character that the task keeps; ``None`` if it is a built-in one.
            recording: The name of its recording, to display.
        """
        subject_id, status = job.pose_id or str(job.model_id), VideoStatus.PENDING
        key = None if character is None else hashlib.sha256(character).hexdigest()
        task = Task(
            video_id=secrets.token_hex(16),
            subject_id=subject_id,
            with_mask=job.with_mask,
            audio_url=job.audio_url or "",
            status=status,
            message=None,
            created=time.time(),
            character=key,
            recording=recording,
            options=job.options,
        )
        with self._transaction():
            if key:
                self._db.execute("INSERT OR REPLACE INTO characters VALUES (?, ?)", (key, character))
            self._db.execute(
                f"INSERT INTO tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # constant
                # Not in a local variable, which tracebacks may show: the URL may be signed.
                (
                    *(task.video_id, subject_id, task.with_mask, task.audio_url),
                    *(status.value, None, task.created, key, recording, json.dumps(dict(job.options))),
                ),
            )
        return task

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def character(self, key: str) -> bytes | None:
        """Return the character of an unfinished task; ``None`` if it is lost."""
        row = self._db.execute("SELECT content FROM characters WHERE digest = ?", (key,)).fetchone()
        content = row and row[0]
        return content if isinstance(content, bytes) and hashlib.sha256(content).hexdigest() == key else None

    def set_status(self, video_id: str, status: VideoStatus, message: str | None = None) -> None:
        """Set the status of a task."""
        ended = time.time() if status.is_terminal else None
        self._db.execute(
            "UPDATE tasks SET status = ?, message = ?, ended = ? WHERE video_id = ?",
            (status.value, message, ended, video_id),
        )
        if status.is_terminal:
            # After a crash in between, the end of the next task deletes it.
            self._db.execute(
                "DELETE FROM characters WHERE digest NOT IN (SELECT character FROM tasks "
                "WHERE status IN ('pending', 'in_progressing') AND character IS NOT NULL)"
            )

    def get(self, video_id: str) -> Task | None:
        """Return a task; ``None`` if it does not exist."""
        return next(iter(self._select_tasks("WHERE video_id = ?", video_id)), None)

    def newest(self, limit: int) -> list[Task]:
        """Return the most recently submitted tasks, newest first."""
        return self._select_tasks("ORDER BY number DESC LIMIT ?", limit)

    def pending_count(self) -> int:
        """Return the number of pending tasks."""
        (count,) = self._db.execute("SELECT count(*) FROM tasks WHERE status = 'pending'").fetchone()
        return int(count)

    def unfinished_counts(self) -> dict[str, int]:
        """Return the numbers of pending tasks and of those that are being rendered."""
        rows = self._db.execute(
            "SELECT status, count(*) FROM tasks WHERE status IN ('pending', 'in_progressing') GROUP BY status"
        )
        return {"pending": 0, "in_progressing": 0} | dict(rows)

    def recover(self) -> list[Task]:
        """Make interrupted tasks pending again, and return all unfinished tasks, oldest first. Call it once, at the start."""
        self._db.execute(
            "UPDATE tasks SET status = 'error', message = ?, ended = ? "
            "WHERE status = 'in_progressing' AND interruptions >= ?",
            (f"the engine died {MAX_INTERRUPTIONS} times during this render", time.time(), MAX_INTERRUPTIONS - 1),
        )
        self._db.execute(
            "UPDATE tasks SET status = 'pending', interruptions = interruptions + 1 WHERE status = 'in_progressing'"
        )
        tasks = self._select_tasks("WHERE status = ? ORDER BY number", VideoStatus.PENDING.value)
        for task in tasks:
            if task.status is VideoStatus.FAILED:
                self.set_status(task.video_id, VideoStatus.FAILED, task.message)
        return [task for task in tasks if task.status is VideoStatus.PENDING]

    def requeue(self, video_id: str) -> None:
        """Make a task pending again whose render was stopped; not counted as an interruption."""
        self._db.execute(
            "UPDATE tasks SET status = 'pending' WHERE video_id = ? AND status = 'in_progressing'", (video_id,)
        )

    def ended_before(self, when: float) -> list[str]:
        """Return the video_ids of the tasks that ended before a time, in seconds since 1970."""
        rows = self._db.execute("SELECT video_id FROM tasks WHERE ended < ?", (when,))
        return [video_id for (video_id,) in rows if _is_video_id(video_id)]

    def delete(self, video_id: str) -> None:
        """Delete a task."""
        self._db.execute("DELETE FROM tasks WHERE video_id = ?", (video_id,))

    def unfinished_audio_urls(self) -> list[str]:
        """Return the ``audio_url`` of each unfinished task."""
        rows = self._db.execute("SELECT audio_url FROM tasks WHERE status IN ('pending', 'in_progressing')")
        return [str(audio_url) for (audio_url,) in rows]

    def consume_quota(self, quota: int) -> bool:
        """Count a request against the quota of the data folder's lifetime; return whether it was still within it."""
        return bool(self._db.execute("UPDATE spending SET calls = calls + 1 WHERE calls < ?", (quota,)).rowcount)

    # -- uploads ----------------------------------------------------------------------------------------------------------

    def add_upload(self, sha256: str, name: str, size: int, expires: float) -> Upload:
        """Store an upload, or replace it by one of the same content."""
        self._db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?)", (sha256, name, size, expires))
        return Upload(sha256, name, size, expires)

    def keep_upload(self, sha256: str, until: float, name: str | None = None) -> Upload | None:
        """Return an upload, and let it expire later; ``None`` if there is none.

        Args:
            sha256: The hash of its content.
            until: The time of its deletion, in seconds since 1970.
            name: Its new name; ``None``: unchanged.
        """
        self._db.execute(
            "UPDATE uploads SET expires = ?, name = coalesce(?, name) WHERE sha256 = ?", (until, name, sha256)
        )
        return next(iter(self._select_uploads("WHERE sha256 = ?", sha256)), None)

    def uploads(self) -> list[Upload]:
        """Return all uploads."""
        return self._select_uploads("WHERE ?", 1)

    def uploads_size(self) -> int:
        """Return the size of all uploads in bytes."""
        (size,) = self._db.execute("SELECT coalesce(sum(size), 0) FROM uploads").fetchone()
        return int(size)

    def expired_uploads(self, now: float) -> list[str]:
        """Return the hashes of the uploads that have expired and that no unfinished task needs."""
        unused = (
            "WHERE expires < ? AND NOT EXISTS (SELECT 1 FROM tasks WHERE status IN ('pending', 'in_progressing') "
            "AND audio_url = 'upload://' || sha256)"
        )
        return [upload.sha256 for upload in self._select_uploads(unused, now)]

    def delete_upload(self, sha256: str) -> None:
        """Delete an upload."""
        self._db.execute("DELETE FROM uploads WHERE sha256 = ?", (sha256,))

    def _select_uploads(self, clause: str, value: str | float) -> list[Upload]:
        rows = self._db.execute(f"SELECT sha256, name, size, expires FROM uploads {clause}", (value,))  # noqa: S608  # constant
        # The hash becomes part of a path.
        return [
            Upload(sha256, str(name), int(size), float(expires))
            for sha256, name, size, expires in rows
            if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
        ]

    def _select_tasks(self, clause: str, value: str | int) -> list[Task]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM tasks {clause}", (value,))  # noqa: S608  # constant
        return [_task_of_row(*row) for row in rows if _is_video_id(row[0])]


def _is_video_id(video_id: object) -> bool:
    """Whether a value has the form of the ids that ``TaskStore.add`` creates."""
    return isinstance(video_id, str) and re.fullmatch("[0-9a-f]{32}", video_id) is not None


def _task_of_row(  # noqa: PLR0917  # the columns
    video_id: str,
    subject_id: object,
    with_mask: object,
    audio_url: object,
    status: object,
    message: object,
    created: object,
    character: object,
    recording: object,
    options: object,
) -> Task:
    """Return the task of a row; a failed one if the row is damaged."""
    valid_status = VideoStatus(status) if isinstance(status, str) and status in _STATUSES else VideoStatus.UNKNOWN
    valid_created = created if isinstance(created, float) and 0 <= created < _YEAR_9999 else 0.0
    valid_options = _parse_options(options)
    is_intact = isinstance(subject_id, str) and isinstance(audio_url, str) and valid_options is not None
    if not is_intact or valid_status is VideoStatus.UNKNOWN:
        valid_status, message = VideoStatus.FAILED, "the engine's record of this video is damaged"
    return Task(
        video_id=video_id,
        subject_id=str(subject_id),
        with_mask=bool(with_mask),
        audio_url=str(audio_url),
        status=valid_status,
        message=message if isinstance(message, str) else None,
        created=valid_created,
        character=None if character is None else str(character),
        recording=recording if isinstance(recording, str) else "",
        options=valid_options or {},
    )


def _parse_options(text: object) -> dict[str, Any] | None:
    try:
        value = {} if text is None else json.loads(str(text))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _explain(path: Path, error: sqlite3.Error | OSError | UnicodeError) -> str:
    if "locked" in str(error):
        return f"another engine uses the data folder {str(path.parent)!r}; stop it or choose another data_dir"
    reason = error.strerror if isinstance(error, OSError) else error if isinstance(error, sqlite3.Error) else "damaged"
    advice = "free disk space, restore it from a backup, or choose another data_dir"
    return f"the engine's database {str(path)!r} cannot be used: {reason}; {advice}"
