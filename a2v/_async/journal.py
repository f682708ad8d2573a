"""What a batch remembers: how far each of its jobs is, in SQLite, so that a crash loses nothing and pays for nothing twice.

One process at a time writes a journal; a lock on the file beside it sees to that, and goes when the process does. Any
number may read it meanwhile. Without a path the same memory is kept for the length of the run only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import anyio

from a2v import _threads
from a2v._async.sidefile import SideFile
from a2v._core import arguments
from a2v._core.items import BEFORE, JobState, JournalEntry, Row, without_query
from a2v._core.models import Job
from a2v._core.settings import is_loopback
from a2v._core.text import escape
from a2v.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from a2v._core.planning import Match
    from a2v._core.settings import Secret

T = TypeVar("T")

_APPLICATION = 0x61327662
_VERSION = 1
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
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
    reported INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE known (video_id TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID;
"""


class Journal:
    """The memory of one batch.

    Args:
        path: The file, made if it is not there; ``None``: only for the length of the run.
        base_url: The server that the batch is for.
        token: The account's token. Only a keyed fingerprint of it is kept.
        new_token: Whether the account has another token than it had before.

    Raises:
        JournalError: The file is damaged, of another batch's server or account, or in use.
    """

    def __init__(self, path: Path | None, *, base_url: str, token: Secret, new_token: bool = False) -> None:
        self.path = path
        self._turn = anyio.Lock()
        # asyncio's own cancellation, such as that of Ctrl-C, leaves a thread at work behind, whatever shields it.
        self._working = threading.Lock()
        with ExitStack() as stack:
            self._side = stack.enter_context(SideFile(path)) if path else None
            if path and not path.exists():
                _create(path)
            self._db = stack.enter_context(closing(_connect(path)))
            if path:
                _set_up(self._db, path)
            self._check(base_url, token, new_token=new_token)
            self.run_number = self._begin()
            self._stack = stack.pop_all()

    @classmethod
    async def open(cls, path: Path | None, **of: Any) -> Self:
        """Open a journal off the event loop."""
        if path is None:
            return cls(None, **of)
        return await _threads.run(partial(_explained, path, partial(cls, path, **of)))

    async def aclose(self) -> None:
        """Let go of the file. What was written is safe without it."""
        await self.do(self._close)

    async def do(self, work: Callable[[], T]) -> T:
        """Read or write, one at a time and off the event loop. A cancellation waits until it is done.

        Raises:
            JournalError: It cannot be done.
        """
        if self.path is None:
            return work()
        with anyio.CancelScope(shield=True):
            async with self._turn:
                return await _threads.run(partial(_explained, self.path, partial(self._alone, work)))
        raise AssertionError  # pragma: no cover  # for the type checkers: a shielded scope is not cancelled

    def _alone(self, work: Callable[[], T]) -> T:
        with self._working:
            return work()

    # -- at the beginning ---------------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """All that is known, also of jobs that the batch does not have."""
        return [_read_row(row) for row in self._db.execute(_ROWS)]

    def take(self, matches: Iterable[Match]) -> None:
        """Note which jobs the batch has, in their order, each under the identity that it has from now on."""
        matches = list(matches)
        rows = [(match.identity, match.row.identity) for match in matches if match.row]
        renamed = [(new, old) for new, old in rows if new != old]
        jobs = [(match.identity, match.index, _write_job(match.job)) for match in matches]
        with self._transaction():
            self._db.execute("UPDATE items SET place = NULL")
            self._db.executemany("UPDATE items SET identity = ? WHERE identity = ?", renamed)
            self._db.executemany(
                "INSERT INTO items (identity, place, job, state) VALUES (?, ?, ?, 'pending') "
                "ON CONFLICT (identity) DO UPDATE SET place = excluded.place, job = excluded.job",
                jobs,
            )

    def learn(self, video_ids: Iterable[str], run: int) -> None:
        """Remember that videos are there since a run, or 0 for those of this batch."""
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", [(v, run) for v in video_ids])

    def doubts(self) -> tuple[dict[str, int], dict[str, int]]:
        """In which run each of the items in doubt was submitted, and since which run each video is known."""
        unknown = self._db.execute("SELECT identity, run FROM items WHERE state = 'unknown'")
        return dict(unknown.fetchall()), dict(self._db.execute("SELECT video_id, run FROM known").fetchall())

    # -- later --------------------------------------------------------------------------------------------------------

    def move(self, identity: str, state: JobState, **facts: Any) -> None:
        """Note that an item has got further. The next thing to happen may rely on its being on disk.

        Args:
            identity: Which item.
            state: Where it is now.
            **facts: Columns that change with it.

        Raises:
            JournalError: It was somewhere else than the batch thought.
        """
        error = facts.get("error")
        facts = {"run": self.run_number, "error": None, "reported": 0} | facts
        if error:
            facts["error"] = json.dumps(error)
        before = BEFORE[state]
        columns = "".join(f", {name} = ?" for name in facts)
        places = ", ".join("?" * len(before))
        with self._transaction():
            changed = self._db.execute(
                f"UPDATE items SET state = ?{columns} WHERE identity = ? AND state IN ({places})",  # noqa: S608  # ours
                (state, *facts.values(), identity, *before),
            )
            if changed.rowcount != 1:
                raise JournalError(f"{self.path}: item {identity} cannot become {state} now; was the journal changed?")
            if video_id := facts.get("video_id"):
                self._db.execute("INSERT OR REPLACE INTO known VALUES (?, 0)", (video_id,))

    def submitted(self, identity: str, video_id: str) -> None:
        """Note the id under which the server knows an item, before anything else happens.

        Raises:
            JournalError: It cannot be noted in the journal. It is in the side file then, if that can be written.
        """
        try:
            self.move(identity, JobState.SUBMITTED, video_id=video_id)
        except (sqlite3.Error, OSError) as error:
            reason = str(error)
        else:
            return
        kept = self._side is not None and self._side.note({"identity": identity, "video_id": video_id})
        where = f"it is noted in {self._side.path} and taken from there next time" if self._side and kept else "note it"
        problem = JournalError(
            f"{self.path} cannot be written ({reason}); video {escape(video_id)} was submitted: {where}"
        )
        problem.video_id = video_id
        raise problem

    def keep(self, identity: str, **facts: Any) -> None:
        """Note facts of an item that stays where it is."""
        columns = ", ".join(f"{name} = ?" for name in facts)
        with self._transaction():
            self._db.execute(f"UPDATE items SET {columns} WHERE identity = ?", (*facts.values(), identity))  # noqa: S608

    def row(self, identity: str) -> Row:
        """What is known of an item."""
        return _read_row(self._db.execute(f"{_ROWS} WHERE identity = ?", (identity,)).fetchone())

    # -- within -------------------------------------------------------------------------------------------------------

    def _check(self, base_url: str, token: Secret, *, new_token: bool) -> None:
        if self.path is None:
            self._db.executescript(_SCHEMA)
        _check_file(self._db, self.path)
        facts = dict(self._db.execute("SELECT name, value FROM facts"))
        self.salt = salt = facts.get("salt") or secrets.token_hex(16)
        mine = {"salt": salt, "base_url": base_url, "account": _fingerprint(salt, token)}
        if _server(facts.get("base_url", base_url)) != _server(base_url):
            raise JournalError(f"{self.path} is about another server: {facts['base_url']}, not {base_url}")
        if facts.get("account", mine["account"]) != mine["account"] and not new_token:
            raise JournalError(
                f"{self.path} was written with another token. If the account is the same and has a new token, say so "
                "with new_token=True; with another account's token its videos could not be found"
            )
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", mine.items())

    def _begin(self) -> int:
        """What the last run left in the middle of a submission is in doubt, but for an id that was noted elsewhere."""
        note = self._side.read() if self._side else None
        with self._transaction():
            if note:
                self._db.execute(
                    "UPDATE items SET state = 'submitted', video_id = ? WHERE identity = ? AND state = 'submitting'",
                    (note["video_id"], note["identity"]),
                )
                self._db.execute("INSERT OR REPLACE INTO known VALUES (?, 0)", (note["video_id"],))
            self._db.execute("UPDATE items SET state = 'unknown' WHERE state = 'submitting'")
            (run,) = self._db.execute("SELECT coalesce(max(value), 0) + 1 FROM facts WHERE name = 'run'").fetchone()
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('run', ?)", (run,))
        if note and self._side:
            self._side.clear()
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
            # One plain file, if nobody reads it just now; else it stays as it is, which is as safe.
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._stack.close()


def read_journal(path: str | os.PathLike[str]) -> list[JournalEntry]:
    """Read the journal of a batch, also while another process works on it.

    Args:
        path: The journal's file.

    Returns:
        What is known of each job: first those of the last run, in its order, then those that it did not have.

    Raises:
        InvalidArgumentError: ``path`` is not a path.
        JournalError: There is no such file, it is no journal, or it is damaged.
    """
    return [row.entry for row in read_rows(arguments.path("path", path))]


def read_rows(path: Path) -> list[Row]:
    """As ``read_journal``, with all that the journal keeps."""
    return _explained(path, partial(_read_file, path))


def _read_file(path: Path) -> list[Row]:
    if not path.is_file():
        raise JournalError(f"there is no journal {path}")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        _check_file(db, path)
        return [_read_row(row) for row in db.execute(f"{_ROWS} ORDER BY place IS NULL, place")]


# -- the file ---------------------------------------------------------------------------------------------------------


def _create(path: Path) -> None:
    """Under its name when it is whole, so that an empty file is always one that was damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # others do not read it
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    new.replace(path)


def _connect(path: Path | None) -> sqlite3.Connection:
    # Always one thread at a time, but not always the same one.
    return sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    # In this order, or a file that is no database would only be told of later.
    _check_file(db, path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")


def _check_file(db: sqlite3.Connection, path: Path | None) -> None:
    (application,), (version,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application != _APPLICATION:
        raise JournalError(f"{path} is not a journal of a2v, or what was in it is lost; it is left as it is")
    if version > _VERSION:
        raise JournalError(f"{path} was written by a newer version of a2v")
    (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise JournalError(f"{path} is damaged ({problem}); it is left as it is")


def _explained(path: Path | None, work: Callable[[], T]) -> T:
    """The one place where what SQLite and the file system say becomes an error of ours."""
    try:
        return work()
    except sqlite3.Error as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    raise JournalError(f"the journal {path} cannot be used: {reason}")


def _server(base_url: str) -> str:
    """What tells a server from others. On this machine the port does not: an engine may get another one each time."""
    host = urlsplit(base_url).hostname or ""
    return "this machine" if is_loopback(host) else base_url


def _fingerprint(salt: str, token: Secret) -> str:
    return hmac.new(bytes.fromhex(salt), token.value.encode(), hashlib.sha256).hexdigest()


# -- rows -------------------------------------------------------------------------------------------------------------

_ROWS = "SELECT identity, place, job, state, video_id, error, etag, size, sha256, path, reported FROM items"


def _write_job(job: Job) -> str:
    kept = {"model_id": job.model_id, "pose_id": job.pose_id, "name": job.name, "with_mask": job.with_mask}
    return json.dumps({"audio_url": without_query(job.audio_url)} | {name: v for name, v in kept.items() if v})


def _read_row(row: Sequence[Any]) -> Row:
    identity, place, job, state, video_id, error, etag, size, sha256, path, reported = row
    return Row(
        identity=identity,
        place=place,
        job=Job(**json.loads(job)),
        state=JobState(state),
        video_id=video_id,
        error=json.loads(error) if error else None,
        etag=etag,
        size=size,
        sha256=sha256,
        path=path,
        reported=bool(reported),
    )
