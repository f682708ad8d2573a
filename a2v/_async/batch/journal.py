"""The journal of a batch: the state of each job, in SQLite, so that a crash loses nothing and nothing is paid for twice.

Invariants:

* A job is *submitting* on disk before any of its request is sent, and its ``video_id`` is on disk before anything else
  happens. So after a crash, the *submitting* jobs are exactly those whose outcome is unknown, and opening the journal
  makes them *unknown*. If the disk is full when a ``video_id`` arrives, it is stored in the recovery record of the lock file,
  whose space is allocated in advance. Opening the journal copies it from there.
* A transition is one transaction. It lists the states that it may start from (``job_transitions.py``) and fails if the row is
  in another state. So if another program has changed the journal, that is reported, and nothing is overwritten.
* Committed transactions survive a power cut.
* Only one process at a time writes. The lock file ensures that; its lock is released however the process ends.
  Any number of processes can read at the same time, because the database is in WAL mode. Closing the journal turns WAL mode off, so
  that a closed journal is a single file.

Rewriting a text file, or a log format of our own, would need the same care for atomic and durable writes on each platform,
which SQLite already takes. Without a path, the database is in memory, so a batch has only one code path.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import anyio
from attrs import asdict

from a2v import _threads
from a2v._async.batch import journal_file
from a2v._async.batch.lock_file import LockFile, RecoveryRecord, read_recovery_record
from a2v._core.job_transitions import PREDECESSORS
from a2v._core.reconciliation import ORIGIN_KNOWN
from a2v._core.settings import is_loopback
from a2v._values import arguments
from a2v._values.jobs import JobState, JournalEntry
from a2v._values.text import escape
from a2v.errors import JournalError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from a2v._core.job_matching import Match
    from a2v._core.journal_rows import ErrorRecord, JournalRow
    from a2v._core.settings import Secret

T = TypeVar("T")

_ADD_OWN_VIDEO = "INSERT OR REPLACE INTO known VALUES (?, ?)"
_NO_DOWNLOAD: Mapping[str, None] = {"etag": None, "size": None, "sha256": None}


class Journal:
    """The journal of one batch.

    Its methods block and may raise ``sqlite3.Error``; call them through ``run``. Each method for a transition returns the
    job's new state.

    Args:
        path: The file, which is created if it does not exist; ``None``: in memory.
        base_url: The server of the batch.
        token: The account's token. Only a keyed fingerprint of it is stored.
        new_token: Whether to accept a token other than the last run's; ``False`` by default.

    Attributes:
        path: The file; ``None``: in memory.
        salt: 32 random hexadecimal digits, the key of the token's fingerprint and of the names of partial files.
        run_number: The number of this run, from 1.

    Raises:
        JournalError: The file is damaged, belongs to another server or account, or is in use.
    """

    def __init__(self, path: Path | None, *, base_url: str, token: Secret, new_token: bool = False) -> None:
        self.path = path
        self._lock = anyio.Lock()
        # asyncio's own cancellation (Ctrl-C) ignores the shield and returns while the thread still works. The next call waits here.
        self._thread_lock = threading.Lock()
        with ExitStack() as stack:
            # Resolved, so that two links to one journal have the same lock.
            self._lock_file = stack.enter_context(LockFile(path.resolve())) if path else None
            if path and not path.exists():
                journal_file.create(path)
            if path and not path.is_file():
                raise JournalError(f"the journal {path} is not a regular file")
            self._db = stack.enter_context(closing(journal_file.connect(path)))
            if path:
                journal_file.set_up(self._db, path)
            self._check_and_update(base_url, token, new_token=new_token)
            self.run_number = self._begin_run()
            self._stack = stack.pop_all()

    @classmethod
    async def open(cls, path: Path | None, **options: Any) -> Self:
        """Open a journal in a worker thread. The arguments are those of the class."""
        if path is None:
            return cls(None, **options)
        return await _threads.run(partial(journal_file.translate_errors, path, partial(cls, path, **options)))

    async def aclose(self) -> None:
        """Close the file. Everything is already on disk."""
        await self.run(self._close)

    async def run(self, work: Callable[[], T]) -> T:
        """Call one of the methods below in a worker thread, one at a time. A cancellation waits until it returns.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        if self.path is None:
            return journal_file.translate_errors(None, work)
        with anyio.CancelScope(shield=True):
            async with self._lock:
                return await _threads.run(
                    partial(journal_file.translate_errors, self.path, partial(self._exclusively, work))
                )
        raise AssertionError  # pragma: no cover  # for the type checkers: a shielded scope is not cancelled

    def _exclusively(self, work: Callable[[], T]) -> T:
        with self._thread_lock:
            return work()

    # -- all rows -----------------------------------------------------------------------------------------------------

    def rows(self) -> list[JournalRow]:
        """Return all rows, including those whose jobs are not in the batch."""
        return [journal_file.read_row(row) for row in journal_file.select_rows(self._db)]

    def row(self, identity: str) -> JournalRow:
        """Return the row of a job."""
        (row,) = journal_file.select_rows(self._db, "WHERE identity = ?", identity)
        return journal_file.read_row(row)

    def sync_jobs(self, matches: Iterable[Match]) -> None:
        """Store the jobs of the batch and their positions, and change the keys of rows whose jobs have a new identity."""
        matches = list(matches)
        rows = [(match.identity, match.row.identity) for match in matches if match.row]
        renamed = [(new, old) for new, old in rows if new != old]
        jobs = [(match.identity, match.index, journal_file.write_job(match.job)) for match in matches]
        with self._transaction():
            self._db.execute("UPDATE items SET place = NULL")
            self._db.executemany("UPDATE items SET identity = ? WHERE identity = ?", renamed)
            self._db.executemany(
                "INSERT INTO items (identity, place, job, state) VALUES (?, ?, ?, 'pending') "
                "ON CONFLICT (identity) DO UPDATE SET place = excluded.place, job = excluded.job",
                jobs,
            )

    # -- reconciliation -----------------------------------------------------------------------------------------------

    def add_known_videos(self, seen: Iterable[tuple[str, int]]) -> None:
        """Store the moment at which each video was first listed, or ``ORIGIN_KNOWN``. The earliest value wins."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO known VALUES (?, ?) ON CONFLICT (video_id) DO UPDATE SET run = min(run, excluded.run)",
                seen,
            )

    def read_unknown_and_known(self) -> tuple[dict[str, int | None], dict[str, int]]:
        """Return the moments of unknown submissions, and those at which videos were first listed; see ``_core/reconciliation.py``."""
        unknown = self._db.execute(
            "SELECT identity, iif(typeof(run) = 'integer', run, NULL) FROM items "
            "WHERE state = 'unknown' AND coalesce(speech, '-') <> ''"  # without unknown syntheses, which submitted no video
        )
        known = self._db.execute("SELECT video_id, iif(typeof(run) = 'integer', run, 0) FROM known")
        return dict(unknown.fetchall()), dict(known.fetchall())

    # -- transitions --------------------------------------------------------------------------------------------------

    def resubmit(self, identity: str) -> JobState:
        """Make a job pending again because the caller asked for it. Its video and its file are forgotten."""
        return self._set_state(identity, JobState.PENDING, video_id=None, **_NO_DOWNLOAD)

    def synthesizing(self, identity: str) -> JobState:
        """Record that the request for the job's speech is about to be sent."""
        return self._set_state(identity, JobState.SUBMITTING, run=None, speech="")

    def synthesized(self, identity: str, url: str) -> JobState:
        """Record the speech of a job, which is pending again until its video is submitted.

        Raises:
            JournalError: The journal cannot be written. The URL is stored in the lock file instead, if possible.
        """
        try:
            return self._set_state(identity, JobState.PENDING, speech=url)
        except (sqlite3.Error, OSError) as error:
            reason = str(error)
        advice = "the speech is lost"
        if self._lock_file and self._lock_file.write_record(RecoveryRecord(identity, url, is_speech=True)):
            advice = f"its URL is noted in {self._lock_file.path} and taken from there next time"
        raise JournalError(f"{self.path} cannot be written ({reason}); a text was synthesized: {advice}")

    def speech_gone(self, identity: str) -> None:
        """Record that the speech of a pending job can no longer be downloaded."""
        self._update(identity, speech=None)

    def submitting(self, identity: str, moment: int | None) -> JobState:
        """Record that the request is about to be sent.

        Args:
            identity: The job.
            moment: The moment of the submission; ``None`` if the account's videos were not listed before it.
        """
        return self._set_state(identity, JobState.SUBMITTING, run=moment)

    def withdrawn(self, identity: str, error: ErrorRecord | None = None) -> JobState:
        """Record that nothing was sent, or that the server rejected the request for a reason other than the job."""
        return self._set_state(identity, JobState.PENDING, error=error)

    def rejected(self, identity: str, error: ErrorRecord | None) -> JobState:
        """Record that the server rejected the job."""
        return self._set_state(identity, JobState.REJECTED, error=error)

    def unknown(self, identity: str, error: ErrorRecord | None) -> JobState:
        """Record that the server may or may not have accepted the job."""
        return self._set_state(identity, JobState.UNKNOWN, error=error)

    def submitted(self, identity: str, video_id: str) -> JobState:
        """Record that the server has accepted the job as this video.

        Raises:
            JournalError: The journal cannot be written. The ``video_id`` is stored in the lock file instead, if possible.
        """
        try:
            return self._set_state(identity, JobState.SUBMITTED, video_id=video_id, speech=None)
        except (sqlite3.Error, OSError) as error:
            reason = str(error)
        advice = "write its id down; a2v could not"
        if self._lock_file and self._lock_file.write_record(RecoveryRecord(identity, video_id)):
            advice = f"it is noted in {self._lock_file.path} and taken from there next time"
        problem = JournalError(
            f"{self.path} cannot be written ({reason}); video {escape(video_id)} was submitted: {advice}"
        )
        problem.video_id = video_id
        raise problem

    def finished(self, identity: str) -> JobState:
        """Record that the video is rendered."""
        return self._set_state(identity, JobState.FINISHED)

    def file_missing(self, identity: str) -> JobState:
        """Record that the file of a done job is missing, so that its video is downloaded again."""
        return self._set_state(identity, JobState.FINISHED, path=None, **_NO_DOWNLOAD)

    def done(self, identity: str, path: str | None) -> JobState:
        """Record that the job is done: its video is saved, if the batch saves videos."""
        return self._set_state(identity, JobState.DONE, path=path)

    def failed(self, identity: str, error: ErrorRecord | None) -> JobState:
        """Record that the render failed."""
        return self._set_state(identity, JobState.FAILED, error=error)

    def lost(self, identity: str, error: ErrorRecord | None) -> JobState:
        """Record that the server no longer knows the video."""
        return self._set_state(identity, JobState.LOST, error=error)

    def _set_state(self, identity: str, state: JobState, error: ErrorRecord | None = None, **columns: Any) -> JobState:
        """Change the state and other columns of a row. It is on disk when this returns.

        Raises:
            JournalError: The row is in a state from which this transition is not allowed.
        """
        changes = {"state": state, "error": json.dumps(asdict(error)) if error else None, "reported": 0} | columns
        assignments = ", ".join(f"{name} = ?" for name in changes)
        if state is JobState.PENDING and "speech" not in columns:
            assignments += ", speech = nullif(speech, '')"  # no request for a speech is in flight any more
        predecessors = PREDECESSORS[state]
        allowed = ", ".join("?" * len(predecessors))
        with self._transaction():
            updated = self._db.execute(
                f"UPDATE items SET {assignments} WHERE identity = ? AND state IN ({allowed})",  # noqa: S608  # ours
                (*changes.values(), identity, *predecessors),
            )
            if updated.rowcount != 1:
                raise self._unexpected_state(identity, predecessors)
            if video_id := columns.get("video_id"):
                self._db.execute(_ADD_OWN_VIDEO, (video_id, ORIGIN_KNOWN))
        return state

    def _unexpected_state(self, identity: str, expected: Sequence[JobState]) -> JournalError:
        query = "SELECT job, state FROM items WHERE identity = ?"
        job, state = self._db.execute(query, (identity,)).fetchone() or ("", "missing")
        return JournalError(
            f"{self.path}: the job {journal_file.job_label(job, identity)} has the state {escape(str(state))}, "
            f"not the expected {' or '.join(expected)}: did another program change the journal?"
        )

    # -- changes without a transition ---------------------------------------------------------------------------------

    def reported(self, identity: str) -> None:
        """Record that the caller has processed the outcome of a job."""
        self._update(identity, reported=1)

    def download_started(self, identity: str, etag: str | None, size: int | None) -> None:
        """Record that the download of a file starts at its first byte."""
        self._update(identity, etag=etag, size=size, sha256=None)

    def download_completed(self, identity: str, size: int, sha256: str) -> None:
        """Record that the partial file is complete and only has to be renamed."""
        self._update(identity, size=size, sha256=sha256)

    def copied(self, identity: str, path: str) -> None:
        """Record the new path of a done job, whose saved file was copied there."""
        self._update(identity, path=path)

    def _update(self, identity: str, **columns: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._transaction():
            self._db.execute(f"UPDATE items SET {assignments} WHERE identity = ?", (*columns.values(), identity))  # noqa: S608

    # -- opening and closing ------------------------------------------------------------------------------------------

    def _check_and_update(self, base_url: str, token: Secret, *, new_token: bool) -> None:
        if self.path is None:
            self._db.executescript(journal_file.SCHEMA)
        journal_file.check_file(self._db, self.path)
        facts = dict(self._db.execute("SELECT name, value FROM facts").fetchall())
        self.salt = salt = facts.get("salt") or secrets.token_hex(16)
        current = {"salt": salt, "base_url": base_url, "account": _fingerprint(salt, token)}
        _check_account(self.path, facts, base_url, current["account"], new_token=new_token)
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", current.items())
            _migrate(self._db)

    def _begin_run(self) -> int:
        """Settle interrupted submissions, and return the number of this run."""
        record = self._lock_file.read_record() if self._lock_file else None
        with self._transaction():
            _settle_interrupted(self._db, record)
            (run,) = self._db.execute("SELECT coalesce(max(value), 0) + 1 FROM facts WHERE name = 'run'").fetchone()
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('run', ?)", (run,))
        if record and self._lock_file:
            self._lock_file.clear_record()
        if not 0 < int(run) < 2**30:
            raise JournalError(f"{self.path} is damaged: the number of the run is {run}")
        return int(run)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self.path:
            # Turn WAL mode off, so that a single file remains. If a reader prevents that, WAL mode stays on, which is just as safe.
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._stack.close()


def read_journal(path: str | os.PathLike[str]) -> list[JournalEntry]:
    """Read the journal of a batch. Another process may be writing it.

    Args:
        path: The journal's file.

    Returns:
        An entry for each job: first the jobs of the last run, in its order, then those that are only in earlier runs.

    Raises:
        InvalidArgumentError: ``path`` is not a path.
        JournalError: The file does not exist, is not a journal, or is damaged.
    """
    return [row.entry for row in read_rows(arguments.path("path", path))]


def read_rows(path: Path) -> list[JournalRow]:
    """Return the rows of a journal in the order of ``read_journal``."""
    return journal_file.translate_errors(path, partial(_read_file, path))


def read_recovered_rows(path: Path) -> list[JournalRow]:
    """Return the rows as they would be after opening the journal for a run. Only a copy in memory is changed."""
    record = read_recovery_record(path)

    def read() -> list[JournalRow]:
        with journal_file.open_for_reading(path) as db, closing(journal_file.connect(None)) as copy:
            db.backup(copy)
            _migrate(copy)
            _settle_interrupted(copy, record)
            return _read_ordered(copy)

    return journal_file.translate_errors(path, read)


def check_account(path: Path, *, base_url: str, token: Secret, new_token: bool) -> None:
    """Check that a run with this server and token can use a journal. The journal is not changed.

    Raises:
        JournalError: The journal belongs to another server or account, or cannot be read.
    """

    def check() -> None:
        with journal_file.open_for_reading(path) as db:
            facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
        account = _fingerprint(facts["salt"], token) if "salt" in facts else ""
        _check_account(path, facts, base_url, account, new_token=new_token)

    journal_file.translate_errors(path, check)


def _read_file(path: Path) -> list[JournalRow]:
    with journal_file.open_for_reading(path) as db:
        return _read_ordered(db)


def _read_ordered(db: sqlite3.Connection) -> list[JournalRow]:
    return [journal_file.read_row(row) for row in journal_file.select_rows(db, "ORDER BY place IS NULL, place")]


def _migrate(db: sqlite3.Connection) -> None:
    """Update a journal of an earlier version. Readers can use it as it is."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < 2:
        # If no video was listed in run N, the account may not have been listable then, so the moment is worthless.
        db.execute(
            "UPDATE items SET run = NULL WHERE state IN ('submitting', 'unknown') AND run NOT IN (SELECT run FROM known)"
        )
    if version < 3:
        db.execute("ALTER TABLE items ADD COLUMN speech TEXT")
    db.execute(f"PRAGMA user_version = {journal_file.VERSION}")


def _settle_interrupted(db: sqlite3.Connection, record: RecoveryRecord | None) -> None:
    """Apply the recovery record, if there is one, to the interrupted submission; others become *unknown*."""
    if record:
        change = (
            "state = 'pending', speech = ?" if record.is_speech else "state = 'submitted', video_id = ?, speech = NULL"
        )
        db.execute(
            f"UPDATE items SET {change} WHERE identity = ? AND state IN ('submitting', 'unknown')",  # noqa: S608  # ours
            (record.result, record.identity),
        )
        if not record.is_speech:
            db.execute(_ADD_OWN_VIDEO, (record.result, ORIGIN_KNOWN))
    db.execute("UPDATE items SET state = 'unknown' WHERE state = 'submitting'")


def _check_account(
    path: Path | None, facts: Mapping[str, str], base_url: str, account: str, *, new_token: bool
) -> None:
    if _server(facts.get("base_url", base_url)) != _server(base_url):
        raise JournalError(f"{path} belongs to another server: {facts['base_url']}, not {base_url}")
    if facts.get("account", account) != account and not new_token:
        raise JournalError(
            f"{path} was written with another token. If the account is the same and has a new token, say so "
            "with new_token=True; another account cannot see these videos"
        )


def _server(base_url: str) -> str:
    """Return a key for a server. All ports of this machine have the same key, because a local engine may get another port in each run."""
    host = urlsplit(base_url).hostname or ""
    return "this machine" if is_loopback(host) else base_url


def _fingerprint(salt: str, token: Secret) -> str:
    return hmac.new(bytes.fromhex(salt), token.value.encode(), hashlib.sha256).hexdigest()
