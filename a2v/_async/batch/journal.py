"""What a batch remembers: how far each of its jobs is, in SQLite, so that a crash loses nothing and pays for nothing twice.

One process at a time writes a journal; a lock on the file beside it sees to that, and goes when the process does. Any
number may read it meanwhile. Without a path the same memory is kept for the length of the run only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import anyio

from a2v import _threads
from a2v._async.batch.lock_file import LockFile
from a2v._core.job_transitions import PREDECESSORS
from a2v._core.journal_rows import JournalRow
from a2v._core.settings import is_loopback
from a2v._core.url_signatures import without_query
from a2v._values import arguments
from a2v._values.jobs import Job, JobState, JournalEntry
from a2v._values.text import escape
from a2v.errors import A2VError, JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path, PurePath

    from a2v._core.job_matching import Match
    from a2v._core.settings import Secret

T = TypeVar("T")

_APPLICATION = 0x61327662
_VERSION = 2
"""1: the state 'lost' was unknown, and ``run`` was the number of a run. 2: ``run`` is a moment; see ``finder.py``."""
_LOCKED_SECONDS = 30.0
"""How long to wait while another program, such as a database browser, has locked the journal."""
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
            # Beside the file itself, so that two links to one journal have one lock.
            self._side = stack.enter_context(LockFile(path.resolve())) if path else None
            if path and not path.exists():
                _create(path)
            if path and not path.is_file():
                raise JournalError(f"the journal {path} is not a regular file")
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
            return _explained(None, work)
        with anyio.CancelScope(shield=True):
            async with self._turn:
                return await _threads.run(partial(_explained, self.path, partial(self._alone, work)))
        raise AssertionError  # pragma: no cover  # for the type checkers: a shielded scope is not cancelled

    def _alone(self, work: Callable[[], T]) -> T:
        with self._working:
            return work()

    # -- at the beginning ---------------------------------------------------------------------------------------------

    def rows(self) -> list[JournalRow]:
        """All that is known, also of jobs that the batch does not have."""
        # Fetched at once: a query that is left half read, for a row that is damaged, would keep the journal locked.
        return [_read_row(row) for row in self._db.execute(_ROWS).fetchall()]

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

    def learn(self, seen: Iterable[tuple[str, int]]) -> None:
        """Remember when videos were first seen, or 0 for those that are accounted for; ``finder.py`` explains it."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO known VALUES (?, ?) ON CONFLICT (video_id) DO UPDATE SET run = min(run, excluded.run)",
                seen,
            )

    def doubts(self) -> tuple[dict[str, int | None], dict[str, int]]:
        """When each of the items in doubt was submitted, and when each video was first seen."""
        unknown = self._db.execute(
            "SELECT identity, iif(typeof(run) = 'integer', run, NULL) FROM items WHERE state = 'unknown'"
        )
        known = self._db.execute("SELECT video_id, iif(typeof(run) = 'integer', run, 0) FROM known")
        return dict(unknown.fetchall()), dict(known.fetchall())

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
        facts = {"error": None, "reported": 0} | facts
        if error:
            facts["error"] = json.dumps(error)
        before = PREDECESSORS[state]
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

    def row(self, identity: str) -> JournalRow:
        """What is known of an item."""
        return _read_row(self._db.execute(f"{_ROWS} WHERE identity = ?", (identity,)).fetchone())

    # -- within -------------------------------------------------------------------------------------------------------

    def _check(self, base_url: str, token: Secret, *, new_token: bool) -> None:
        if self.path is None:
            self._db.executescript(_SCHEMA)
        _check_file(self._db, self.path)
        facts = dict(self._db.execute("SELECT name, value FROM facts").fetchall())
        self.salt = salt = facts.get("salt") or secrets.token_hex(16)
        mine = {"salt": salt, "base_url": base_url, "account": _fingerprint(salt, token)}
        _check_account(self.path, facts, base_url, mine["account"], new_token=new_token)
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", mine.items())
            self._migrate()

    def _migrate(self) -> None:
        """Bring a journal of an earlier version up to date. A reader does not need that."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version < 2:
            # Unless a run has seen a video of its beginning, nothing tells that it was able to list them.
            self._db.execute(
                "UPDATE items SET run = NULL WHERE state IN ('submitting', 'unknown') "
                "AND run NOT IN (SELECT run FROM known)"
            )
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

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
        if not 0 < int(run) < 2**30:
            raise JournalError(f"{self.path} is damaged: it says that this is run {run}")
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


def read_rows(path: Path) -> list[JournalRow]:
    """As ``read_journal``, with all that the journal keeps."""
    return _explained(path, partial(_read_file, path))


def check_account(path: Path, *, base_url: str, token: Secret, new_token: bool) -> None:
    """Check that a run with this server and token could use a journal, which is only read.

    Raises:
        JournalError: It could not.
    """

    def check() -> None:
        with _reading(path) as db:
            facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
        account = _fingerprint(facts["salt"], token) if "salt" in facts else ""
        _check_account(path, facts, base_url, account, new_token=new_token)

    _explained(path, check)


def _read_file(path: Path) -> list[JournalRow]:
    with _reading(path) as db:
        return [_read_row(row) for row in db.execute(f"{_ROWS} ORDER BY place IS NULL, place").fetchall()]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise JournalError(f"there is no journal {path}")
    uri = f"{sqlite_uri(path.absolute())}?mode=ro"
    with closing(sqlite3.connect(uri, timeout=_LOCKED_SECONDS, uri=True, isolation_level=None)) as db:
        _check_file(db, path)
        yield db


def _check_account(
    path: Path | None, facts: Mapping[str, str], base_url: str, account: str, *, new_token: bool
) -> None:
    if _server(facts.get("base_url", base_url)) != _server(base_url):
        raise JournalError(f"{path} is about another server: {facts['base_url']}, not {base_url}")
    if facts.get("account", account) != account and not new_token:
        raise JournalError(
            f"{path} was written with another token. If the account is the same and has a new token, say so "
            "with new_token=True; with another account's token its videos could not be found"
        )


def sqlite_uri(path: PurePath) -> str:
    """A path as SQLite reads it in a URI, which differs from ``as_uri`` for Windows shares: it accepts no host."""
    text = path.as_posix()
    return "file://" + ("" if text.startswith("/") else "/") + quote(os.fsencode(text))


# -- the file ---------------------------------------------------------------------------------------------------------


def _create(path: Path) -> None:
    """Under its name when it is whole, so that an empty file is always one that was damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # others do not read it
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        _make_durable(db)
        db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    new.replace(path)


def _connect(path: Path | None) -> sqlite3.Connection:
    # Always one thread at a time, but not always the same one.
    return sqlite3.connect(path or ":memory:", timeout=_LOCKED_SECONDS, isolation_level=None, check_same_thread=False)


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    # In this order, or a file that is no database would only be told of later.
    _check_file(db, path)
    _write_ahead(db)
    _make_durable(db)


def _write_ahead(db: sqlite3.Connection) -> None:
    # SQLite waits for a locked database everywhere but here.
    deadline = time.monotonic() + _LOCKED_SECONDS
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
    """Have what is committed survive a power cut. On macOS that takes more than fsync, which other systems ignore."""
    for setting in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
        db.execute(f"PRAGMA {setting}")


def _check_file(db: sqlite3.Connection, path: Path | None) -> None:
    (application,), (version,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application != _APPLICATION:
        raise JournalError(f"{path} is not a journal of a2v, or what was in it is lost; it is left as it is")
    if version > _VERSION:
        raise JournalError(f"{path} was written by a newer version of a2v")
    # A view or a trigger could do anything, such as never end.
    (foreign,) = db.execute("SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')").fetchone()
    if foreign:
        raise JournalError(f"{path} was changed by another program: it contains views or triggers")
    (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise JournalError(f"{path} is damaged ({problem}); it is left as it is")


def _explained(path: Path | None, work: Callable[[], T]) -> T:
    """The one place where what SQLite and the file system say becomes an error of ours."""
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
        # What is in the file may be anything; what cannot be read as a journal's content is damage.
        raise JournalError(f"the journal {path} is damaged: {type(error).__name__}: {error}") from error
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


_IDENTITY = re.compile(r"[0-9a-f]{1,128}-[0-9]{1,9}", re.ASCII)
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"')
_WITH_VIDEO = (JobState.SUBMITTED, JobState.FINISHED, JobState.DONE, JobState.FAILED, JobState.LOST)


def _read_row(row: Sequence[Any]) -> JournalRow:
    """Read a row.

    Raises:
        Exception: Another program, or a bug, has written something else there. ``_explained`` says so.
    """
    identity, place, job, state, video_id, error, etag, size, sha256, path, reported = row
    _expect(isinstance(identity, str) and _IDENTITY.fullmatch(identity), "identity", identity)
    _expect(place is None or isinstance(place, int), "place", place)
    _expect(video_id is None or isinstance(video_id, str), "video_id", video_id)
    _expect(video_id or JobState(state) not in _WITH_VIDEO, "video_id", video_id)
    _expect(error or state != JobState.REJECTED, "error", error)
    _expect(size is None or (isinstance(size, int) and size >= 0), "size", size)
    _expect(sha256 is None or isinstance(sha256, str), "sha256", sha256)
    _expect(path is None or (isinstance(path, str) and "\0" not in path), "path", path)
    return JournalRow(
        identity=identity,
        place=place,
        job=_read_job(job),
        state=JobState(state),
        video_id=video_id,
        error=_read_error(error) if error else None,
        # An early version kept any tag, and some cannot be sent.
        etag=etag if isinstance(etag, str) and _STRONG_TAG.fullmatch(etag) else None,
        size=size,
        sha256=sha256,
        path=path,
        reported=bool(reported),
    )


def _read_job(text: str) -> Job:
    facts = json.loads(text)
    try:
        return Job(**facts)
    except ValueError:
        # An earlier version accepted names and URLs that this one refuses; such a job is only shown, never submitted.
        return Job(**(facts | {"name": None, "audio_url": quote(facts["audio_url"], safe="/:?&=#%[]@+,;~")}))


def _read_error(text: str) -> Mapping[str, Any]:
    error = json.loads(text)
    for name, kinds in (("kind", str), ("message", str), ("code", int | None), ("status_code", int | None)):
        _expect(isinstance(error.get(name), kinds), name, error.get(name))
    return dict(error)


def _expect(found: object, name: str, value: object) -> None:
    if not found:
        raise ValueError(f"{name} is {value!r}")
