"""The files of a journal: whatever they contain, only errors of a2v are raised."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import httpx
import pytest

import a2v
from a2v._async.batch import lock_file
from a2v._async.batch.journal_file import sqlite_uri

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

posix = pytest.mark.skipif(sys.platform == "win32", reason="fork, links and pipes of POSIX")

DEEP = "[" * 100_000
TAMPERED = [
    f"UPDATE items SET {column} = {value}"
    for column in ("identity", "place", "job", "state", "run", "video_id", "error", "etag", "size", "sha256", "path")
    for value in ("x'ff00'", "'\u0130 '", "-1", "9223372036854775807", "1.5", "'{}'", "NULL", "''")
    if not (value == "NULL" and column in ("identity", "job", "state"))
]
TAMPERED += [
    *(f"UPDATE items SET error = '{error}'" for error in ("[]", "{", '{"message": 3}', '{"kind": "A2VError"}')),
    *(
        f"UPDATE items SET job = '{job}'"
        for job in ("[]", '{"model_id": 3}', '{"a": 1}', '{"audio_url": 3, "model_id": "m"}')
    ),
    "UPDATE items SET error = printf('%s', replace(hex(zeroblob(60000)), '00', '['))",
    "UPDATE items SET identity = printf('%s-%s', hex(zeroblob(32)), replace(hex(zeroblob(5000)), '00', '9'))",
    "UPDATE items SET path = '/tmp/a' || char(0) || 'b'",
    "UPDATE facts SET value = 'no hex'",
    "UPDATE facts SET value = x'ff'",
    "UPDATE facts SET value = '99999999999999999999999999'",
    "DELETE FROM facts",
    "DROP TABLE facts",
    "DROP TABLE known",
    "DROP TABLE items",
    "ALTER TABLE items RENAME COLUMN state TO status",
    "ALTER TABLE items RENAME TO others",
    "UPDATE known SET run = 'x'",
    "UPDATE known SET run = 9223372036854775807",
    "CREATE TRIGGER t BEFORE UPDATE ON items BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE VIEW v AS SELECT 1",
]


def jobs(*names: str) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"https://example.com/{name}.wav", name) for name in names]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "batch.db"


@pytest.fixture
def run(make_client, journal):
    async def run(*names: str, **more):
        async with (
            make_client() as client,
            client.batch(jobs(*names), journal=journal, render_timeout=500, **more) as batch,
        ):
            return {outcome.job.name: outcome async for outcome in batch}

    return run


async def make_journal(service, run) -> None:
    """Make a journal with a job in each state that outlasts a run."""
    service.lists_videos = True
    refused = httpx.Response(400, json={"code": 7, "message": "no such character", "data": None})
    service.replies["video.generate"] = [service.well, refused, service.well, httpx.ReadError("lost"), service.well]
    service.plans = {"v2": [(0, {"status": "error", "message": "silence"})], "v3": [(0, {"status": "pending"})]}
    await run(*"abcde")


async def read_and_run(journal: Path, run) -> list[BaseException]:
    """Read a journal and run its batch; return the errors."""
    errors: list[BaseException] = []
    try:
        a2v.read_journal(journal)
    except Exception as error:  # noqa: BLE001  # checked by the caller
        errors.append(error)
    try:
        await run(*"abcde", repeat=True)
    except Exception as error:  # noqa: BLE001
        errors.append(error)
    return errors


def assert_all_blame(journal: Path, errors: list[BaseException]) -> None:
    # A changed key looks like that of another recording with the same URL, about which a2v asks.
    blames = [error for error in errors if not isinstance(error, a2v.AmbiguousJobsError)]
    assert {type(error) for error in blames} == {a2v.JournalError}
    assert all(journal.name in str(error) for error in blames), errors


async def _tamper(service, run, journal: Path, changes: list[str]) -> list[BaseException]:
    await make_journal(service, run)
    errors: list[BaseException] = []
    good, made = journal.with_name("good"), service.posts
    shutil.copy(journal, good)
    for change in changes:
        _replace(journal, good.read_bytes())
        with closing(sqlite3.connect(journal, isolation_level=None)) as db, suppress(sqlite3.IntegrityError):
            db.execute(change)
        errors += await read_and_run(journal, run)
    assert service.posts - made <= len(changes)
    return errors


async def test_a_tampered_journal_raises_errors_of_a2v_only(service, run, journal, anyio_backend_name) -> None:
    assert_all_blame(journal, await _tamper(service, run, journal, TAMPERED[anyio_backend_name == "trio" :: 8]))


@pytest.mark.extended
@pytest.mark.parametrize("part", range(8))
async def test_every_tampered_journal_raises_errors_of_a2v_only(service, run, journal, part) -> None:
    assert_all_blame(journal, await _tamper(service, run, journal, TAMPERED[part::8]))


def _content(journal: Path) -> bytes:
    return journal.read_bytes()


def _replace(journal: Path, content: bytes) -> None:
    for name in ("-wal", "-shm"):
        journal.with_name(journal.name + name).unlink(missing_ok=True)
    journal.write_bytes(content)


async def _flip(service, run, journal: Path, times: int) -> list[BaseException]:
    await make_journal(service, run)
    errors: list[BaseException] = []
    good, draw = _content(journal), random.Random("flip")
    for _ in range(times):
        bad = bytearray(good)
        for _ in range(draw.choice([1, 1, 3, 30])):
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        _replace(journal, bytes(bad))
        errors += await read_and_run(journal, run)
    return errors


async def test_flipped_bits_raise_errors_of_a2v_only(service, run, journal) -> None:
    assert_all_blame(journal, await _flip(service, run, journal, 8))


@pytest.mark.extended
async def test_many_flipped_bits_raise_errors_of_a2v_only(service, run, journal) -> None:
    assert_all_blame(journal, await _flip(service, run, journal, 400))


@pytest.mark.parametrize(
    "note",
    [
        b"\xff" * 9,
        b"{",
        b"[]",
        b"null",
        b"3",
        DEEP.encode(),
        b'{"identity": 1, "video_id": "v"}',
        b'{"identity": "i", "video_id": ["v"]}',
        b'{"identity": "i", "video_id": "\\ud800"}',
        b"\0" * 4096,
    ],
    ids=lambda note: repr(note[:20]),
)
async def test_a_damaged_recovery_record_is_refused(service, run, journal, note) -> None:
    await run("a")
    journal.with_name("batch.db.lock").write_bytes(note.ljust(4096))
    with pytest.raises(a2v.JournalError, match=r"batch\.db\.lock is damaged"):
        await run("a", "b")
    assert service.posts == 1


@posix
async def test_a_planted_link_is_not_followed(service, run, journal, tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    journal.with_name("batch.db.lock").symlink_to(precious)
    with pytest.raises(a2v.JournalError, match="is a symbolic link"):
        await run("a")
    assert precious.read_text() == "mine"
    assert service.posts == 0


@posix
@pytest.mark.parametrize("name", ["batch.db.lock", "batch.db"])
async def test_a_planted_pipe_does_not_block(service, run, journal, name) -> None:
    os.mkfifo(journal.with_name(name))
    with pytest.raises(a2v.JournalError, match="regular file"):
        await run("a")
    with pytest.raises(a2v.JournalError, match="no journal"):
        a2v.read_journal(journal)
    assert service.posts == 0


@posix
async def test_two_links_to_one_journal_have_one_lock(make_client, run, journal, tmp_path) -> None:
    await run("a")
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / "link.db"
    link.symlink_to(journal)
    async with make_client() as client, client.batch(jobs("a"), journal=journal):
        with pytest.raises(a2v.JournalError, match="already running"):
            await _enter(client, link)


async def _enter(client, journal: Path) -> None:
    async with client.batch(jobs("a"), journal=journal):
        pytest.fail("entered")


@posix
async def test_a_forked_child_does_not_keep_the_lock(make_client, run, journal) -> None:
    """Even if it outlives its parent's batch."""
    ends, began = os.pipe()
    async with make_client() as client, client.batch(jobs("a"), journal=journal):
        child = os.fork()
        if not child:
            os.close(began)
            os.read(ends, 1)
            os._exit(0)
    try:
        await run("a")
        assert not lock_file.is_in_use(journal)
    finally:
        os.close(began)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it exits at once
        os.close(ends)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK, errno.EACCES])
async def test_a_file_system_without_locks_is_refused(service, run, monkeypatch, code) -> None:
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_file, "_lock", refuse)
    with pytest.raises(a2v.JournalError, match=r"does not support locks.*journal=PATH") as caught:
        await run("a")
    assert "running" not in str(caught.value)
    assert service.posts == 0


async def test_is_in_use_reports_a_running_batch(make_client, journal) -> None:
    assert not lock_file.is_in_use(journal)
    async with make_client() as client, client.batch(jobs("a"), journal=journal):
        assert lock_file.is_in_use(journal)
    assert not lock_file.is_in_use(journal)


async def test_a_batch_waits_for_a_journal_locked_by_another_program(service, run, journal) -> None:
    await run("a")
    db = sqlite3.connect(journal, isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: db.execute("ROLLBACK"))
    timer.start()
    assert (await run("a", "b"))["b"].ok
    timer.join()
    db.close()


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/home/me/a b?#%.db"), "file:///home/me/a%20b%3F%23%25.db"),
        (PureWindowsPath(r"C:\videos\batch.db"), "file:///C%3A/videos/batch.db"),
        (PureWindowsPath(r"\\server\share\videos\batch.db"), "file:////server/share/videos/batch.db"),
    ],
)
def test_the_uri_of_a_path_for_sqlite(path, uri) -> None:
    assert sqlite_uri(path) == uri


def test_a_journal_on_a_network_share_can_be_read(tmp_path) -> None:
    with closing(sqlite3.connect(tmp_path / "a b.db")) as db:
        db.execute("CREATE TABLE t (x)")
        db.commit()
    as_share = PureWindowsPath("//" + str(tmp_path / "a b.db").lstrip("/").replace("/", "\\"))
    with closing(sqlite3.connect(sqlite_uri(as_share), uri=True)) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_a_journal_of_version_1_is_migrated(service, run, journal) -> None:
    """Its jobs continue, and the earlier version refuses it from then on."""
    service.plans = {"v1": [(0, {"status": "pending"})]}
    await run("a", "b")
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 1")
        db.execute("ALTER TABLE items DROP COLUMN speech")
        db.execute("UPDATE items SET etag = '\"caf\u00e9\"'")
    assert [entry.state.value for entry in a2v.read_journal(journal)] == ["submitted", "done"]
    service.plans.clear()
    assert {name: outcome.ok for name, outcome in (await run("a", "b")).items()} == {"a": True}
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    assert service.posts == 2


async def test_a_job_that_an_earlier_version_accepted_is_still_read(run, journal) -> None:
    await run("a")
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("UPDATE items SET job = replace(job, '\"a\"', '\"a/b\"')")
    (entry,) = a2v.read_journal(journal)
    assert (entry.job.name, entry.job.audio_url) == (None, "https://example.com/a.wav")


@posix
@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb"])
async def test_a_folder_name_that_is_not_utf8_is_refused(service, make_client, tmp_path, name) -> None:
    """Its videos would be paid for, and could not be recorded."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    folder.mkdir()  # noqa: ASYNC240  # takes no time
    for settings in ({"save_to": folder}, {"journal": folder / "j.db"}, {"save_to": folder / "videos"}):
        with pytest.raises(a2v.InvalidArgumentError, match=next(iter(settings))):
            make_client().batch(jobs("a"), **settings)
    assert service.posts == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("CREATE VIEW v AS SELECT 1", "changed by another program"),
        ("UPDATE facts SET value = 1 << 40 WHERE name = 'run'", "damaged: the number of the run is"),
    ],
)
async def test_an_inconsistent_journal_is_refused(service, run, journal, change, message) -> None:
    await run("a")
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute(change)
    with pytest.raises(a2v.JournalError, match=message):
        await run("a", "b")
    assert service.posts == 1


@pytest.mark.parametrize("held", [["BEGIN EXCLUSIVE"], ["BEGIN", "SELECT * FROM items"]], ids=["written", "read"])
async def test_a_journal_that_stays_locked_says_what_to_close(service, run, journal, monkeypatch, held) -> None:
    await run("a")
    monkeypatch.setattr("a2v._async.batch.journal_file._LOCK_TIMEOUT", 0.05)
    with closing(sqlite3.connect(journal, isolation_level=None)) as browser:
        cursors = [browser.execute(statement) for statement in held]
        assert len(cursors[-1].fetchmany(1)) == (len(held) > 1)
        with pytest.raises(a2v.JournalError, match="close the program that has it open"):
            await run("a", "b")
    assert service.posts == 1


async def test_without_a_lock_file_there_is_no_recovery_record(run, journal) -> None:
    assert lock_file.read_recovery_record(journal) is None
    await run("a")
    journal.with_name("batch.db.lock").unlink()
    assert lock_file.read_recovery_record(journal) is None
    assert [entry.state for entry in a2v.read_journal(journal)] == ["done"]


async def test_a_folder_in_the_place_of_the_lock_file_is_refused(service, run, journal) -> None:
    journal.with_name("batch.db.lock").mkdir()
    with pytest.raises(a2v.JournalError, match=r"batch\.db"):
        await run("a")
    with pytest.raises(a2v.JournalError, match="cannot be read"):
        lock_file.read_recovery_record(journal)
    assert service.posts == 0


def test_a_lock_file_that_is_closed_twice_stays_closed(journal) -> None:
    with lock_file.LockFile(journal) as side:
        side.close()
        assert not lock_file.is_in_use(journal)
