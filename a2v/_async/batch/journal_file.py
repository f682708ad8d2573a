"""The file of a journal: its schema, how it is created, opened and checked, and how rows are stored.

The content is not trusted, because another program may have changed or damaged the file. So the file is checked when it is opened,
each row is checked when it is read, and every error becomes a ``JournalError``.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time  # noqa: TID251  # in a worker thread, to wait for another program
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from a2v._core.journal_rows import ErrorRecord, JournalRow
from a2v._core.url_signatures import map_urls, without_query
from a2v._values.jobs import Job, JobState
from a2v._values.text import escape
from a2v.errors import A2VError, JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path, PurePath

T = TypeVar("T")

_APPLICATION_ID = 0x61327662
VERSION = 3
"""The version of the schema. Version 1 had no state ``lost``, and ``run`` was the number of a run. Since version 2, ``run`` is a moment; see
``_core/reconciliation.py``. Version 3 added the column ``speech``."""
_LOCK_TIMEOUT = 30.0
"""Seconds to wait for another program, such as a database browser, that has locked the journal."""
SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    identity TEXT PRIMARY KEY,
    place INTEGER,
    job TEXT NOT NULL,
    state TEXT NOT NULL,
    run INTEGER,
    video_id TEXT UNIQUE,
    error TEXT,
    etag TEXT,
    size INTEGER,
    sha256 TEXT,
    path TEXT,
    reported INTEGER NOT NULL DEFAULT 0,
    speech TEXT
) WITHOUT ROWID;
CREATE TABLE known (video_id TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID;
"""


# -- the file ---------------------------------------------------------------------------------------------------------


def create(path: Path) -> None:
    """Create the file under another name, and rename it when it is complete. So an empty journal is always a damaged one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # not readable by others
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        _make_durable(db)
        db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    new.replace(path)


def connect(path: Path | None) -> sqlite3.Connection:
    # Only one thread at a time uses the connection, but not always the same one.
    return sqlite3.connect(path or ":memory:", timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)


def set_up(db: sqlite3.Connection, path: Path) -> None:
    # Checked first: `journal_mode = WAL` would change a database that is not a journal.
    check_file(db, path)
    _write_ahead(db)
    _make_durable(db)


def _write_ahead(db: sqlite3.Connection) -> None:
    # SQLite waits for a locked database, except in this statement. This code runs in a worker thread, so it may block, and it uses
    # the real clock, because the other program does not run in virtual time.
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _make_durable(db: sqlite3.Connection) -> None:
    """Make commits survive a power cut. The two settings about ``fullfsync`` are for macOS; other systems ignore them."""
    for setting in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
        db.execute(f"PRAGMA {setting}")
    # Overwrite deleted data, such as the URL of a speech, which may be signed.
    db.execute("PRAGMA secure_delete = ON")


def check_file(db: sqlite3.Connection, path: Path | None) -> None:
    (application,), (version,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application != _APPLICATION_ID:
        raise JournalError(f"{path} is not a journal of a2v, or its content was lost; it was not changed")
    if version > VERSION:
        raise JournalError(f"{path} was written by a newer version of a2v")
    # A view or a trigger could run any query, even an endless one.
    (foreign,) = db.execute("SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')").fetchone()
    if foreign:
        raise JournalError(f"{path} was changed by another program: it contains views or triggers")
    (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise JournalError(f"{path} is damaged ({problem}); it was not changed")


def translate_errors(path: Path | None, work: Callable[[], T]) -> T:
    """Call a function and raise the errors of SQLite, the file system and damaged rows as ``JournalError``."""
    try:
        return work()
    except A2VError:
        raise
    except sqlite3.Error as error:
        reason = str(error)
        if "is locked" in reason:
            reason += ": close the program that has it open, such as a database browser"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:
        # Reading arbitrary content may raise any exception; each of them means that the file is damaged.
        raise JournalError(f"the journal {path} is damaged: {type(error).__name__}: {error}") from error
    raise JournalError(f"the journal {path} cannot be used: {reason}")


@contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise JournalError(f"there is no journal {path}")
    uri = f"{sqlite_uri(path.absolute())}?mode=ro"
    with closing(sqlite3.connect(uri, timeout=_LOCK_TIMEOUT, uri=True, isolation_level=None)) as db:
        check_file(db, path)
        yield db


def sqlite_uri(path: PurePath) -> str:
    """Return the URI of a path for SQLite. Unlike ``Path.as_uri``, it has no host for Windows shares: SQLite accepts none."""
    text = path.as_posix()
    return "file://" + ("" if text.startswith("/") else "/") + quote(os.fsencode(text))


# -- rows -------------------------------------------------------------------------------------------------------------

_SELECT = (
    "SELECT identity, place, job, state, video_id, error, etag, size, sha256, path, reported, {speech} FROM items "
)
_WITHOUT_SPEECH = 3
"""Versions below this have no column ``speech``."""


def select_rows(db: sqlite3.Connection, rest: str = "", *values: str) -> list[Any]:
    """Return rows of a journal of any version, all at once: an abandoned query would keep the journal locked."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    speech = "NULL" if version < _WITHOUT_SPEECH else "speech"
    return db.execute(_SELECT.format(speech=speech) + rest, values).fetchall()


def write_job(job: Job) -> str:
    fields = {
        "audio_url": job.audio_url and without_query(job.audio_url),
        "text": job.text,
        "voice_name": job.voice_name,
        "model_id": job.model_id,
        "pose_id": job.pose_id,
        "name": job.name,
        "with_mask": job.with_mask,
        "options": map_urls(job.options, without_query),
    }
    return json.dumps({name: value for name, value in fields.items() if value})


def job_label(text: object, identity: str) -> str:
    """Return a label of a stored job for messages: its name, text or recording; its key if the job is damaged."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        facts = json.loads(str(text))
        return escape(str(facts.get("name") or facts.get("text") or facts["audio_url"]))
    return escape(identity)


_IDENTITY = re.compile(r"[0-9a-f]{1,128}-[0-9]{1,9}", re.ASCII)
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"')
_WITH_VIDEO = (JobState.SUBMITTED, JobState.FINISHED, JobState.DONE, JobState.FAILED, JobState.LOST)


def read_row(row: Sequence[Any]) -> JournalRow:
    """Read a row.

    Raises:
        Exception: The row is damaged; ``translate_errors`` converts the exception to a ``JournalError``.
    """
    identity, place, job, state, video_id, error, etag, size, sha256, path, reported, speech = row
    _expect(isinstance(identity, str) and _IDENTITY.fullmatch(identity), "identity", identity)
    _expect(place is None or isinstance(place, int), "place", place)
    _expect(video_id is None or isinstance(video_id, str), "video_id", video_id)
    _expect(video_id or JobState(state) not in _WITH_VIDEO, "video_id", video_id)
    _expect(error or state != JobState.REJECTED, "error", error)
    _expect(size is None or (isinstance(size, int) and size >= 0), "size", size)
    _expect(sha256 is None or isinstance(sha256, str), "sha256", sha256)
    _expect(path is None or (isinstance(path, str) and "\0" not in path), "path", path)
    _expect(speech is None or isinstance(speech, str), "speech", "…")
    return JournalRow(
        identity=identity,
        place=place,
        job=_read_job(job),
        state=JobState(state),
        video_id=video_id,
        error=_read_error(error) if error else None,
        # An earlier version stored any ETag, and some of them cannot be sent.
        etag=etag if isinstance(etag, str) and _STRONG_TAG.fullmatch(etag) else None,
        size=size,
        sha256=sha256,
        path=path,
        reported=bool(reported),
        speech=speech,
    )


def _read_job(text: str) -> Job:
    facts = json.loads(text)
    try:
        return Job(**facts)
    except ValueError:
        # An earlier version accepted names and URLs that are invalid now; such a job is only shown, never submitted.
        url = quote(facts["audio_url"], safe="/:?&=#%[]@+,;~")
        return Job(**(facts | {"name": None, "audio_url": url}))


def _read_error(text: str) -> ErrorRecord:
    # Earlier versions stored the name of the error's class too; it is not used.
    error = json.loads(text)
    message, code, status_code = error.get("message"), error.get("code"), error.get("status_code")
    _expect(isinstance(message, str), "message", message)
    _expect(isinstance(code, int | None), "code", code)
    _expect(isinstance(status_code, int | None), "status_code", status_code)
    return ErrorRecord(message, code, status_code)


def _expect(condition: object, name: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}")
