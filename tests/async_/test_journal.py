"""A batch with a journal continues in the next run, whatever interrupted it, and never guesses."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest

import a2v
from a2v._async.batch import files
from a2v._async.batch.journal import Journal
from a2v._async.batch.lock_file import LockFile, RecoveryRecord
from a2v._async.destination import Destination

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

AUDIO = "https://example.com/hello.wav"
LOST = httpx.ReadError("lost")


def jobs(*names: str) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"https://example.com/{name}.wav", name) for name in names]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "some" / "batch.db"


@pytest.fixture
def go(make_client, journal, tmp_path):
    """Run a batch; return its outcomes by job name."""

    async def go(todo, *, of=None, **more):
        settings = {"journal": journal, "save_to": tmp_path / "videos"} | more
        async with of or make_client() as client, client.batch(todo, **settings) as batch:
            seen = [outcome async for outcome in batch]
            go.progress, go.gone = batch.progress, batch.gone
        assert len(seen) == len({outcome.index for outcome in seen})
        return {outcome.job.name: outcome for outcome in seen}

    return go


def states(journal: Path) -> dict[str, str]:
    return {entry.job.name: entry.state.value for entry in a2v.read_journal(journal)}


def at_most_once(service) -> None:
    assert max(Counter(job["audio_url"] for job in service.jobs.values()).values()) == 1


def lost(service, nth=1):
    """Lose the response to a submission that has arrived."""
    answers = [service.well] * (nth - 1)

    def lose(request):
        service.well(request)
        raise LOST

    service.replies["video.generate"] = [*answers, lose, service.well]


# -- later runs -------------------------------------------------------------------------------------------------------


async def test_a_second_run_has_nothing_to_do(service, go, tmp_path) -> None:
    first = await go(jobs("a", "b"))
    assert {name: outcome.path.name for name, outcome in first.items()} == {"a": "a.mp4", "b": "b.mp4"}
    requests = len(service.requests)
    assert await go(jobs("a", "b")) == {}
    assert len(service.requests) == requests
    again = await go(jobs("a", "b"), repeat=True)
    assert {name: (outcome.ok, outcome.path) for name, outcome in again.items()} == {
        name: (True, tmp_path / "videos" / f"{name}.mp4") for name in "ab"
    }
    assert {outcome.video.video_id for outcome in again.values()} == {"v1", "v2"}
    assert len(service.requests) == requests
    assert go.progress == a2v.Progress(total=2, waiting=0, under_way=0, done=2, failed=0, unknown=0)


async def test_a_changed_batch_adds_new_jobs_and_lists_those_that_are_gone(service, go) -> None:
    await go(jobs("a", "b", "c"))
    seen = await go(jobs("d", "c", "a"))
    assert list(seen) == ["d"]
    assert service.posts == 4
    (gone,) = go.gone
    assert (gone.job.name, gone.state, gone.video_id) == ("b", a2v.JobState.DONE, "v2")
    await go(jobs("a", "b", "c", "d"))
    assert (service.posts, go.gone) == (4, ())


async def test_equal_jobs_are_rendered_once_each(service, go) -> None:
    job = a2v.Job("eva_a0008", AUDIO)
    assert len((await go([job, job, job], save_to=None)).values()) == 1  # by name: all three are called the same
    assert service.posts == 3
    assert await go([job, job, job], save_to=None) == {}
    await go([job] * 5, save_to=None)
    assert service.posts == 5


async def test_a_batch_left_early_continues_in_the_next_run(service, make_client, journal, go, tmp_path) -> None:
    """Submitted jobs are followed, the others are submitted, and each outcome is reported once."""
    service.plans = {"v2": [(0, {"status": "pending"}), (5000, service.plan[-1][1])]}
    reported = []
    async with make_client() as client:
        async with client.batch(
            jobs(*"abcdef"), journal=journal, save_to=tmp_path / "videos", max_in_flight=2
        ) as batch:
            async for outcome in batch:
                reported.append(outcome.job.name)
                if len(reported) == 3:
                    break
        counted = Counter(states(journal).values())
    assert counted["done"] >= 3
    rest = await go(jobs(*"abcdef"))
    assert sorted([*reported, *rest]) == list("abcdef")
    assert service.posts == 6
    at_most_once(service)


async def test_an_outcome_that_was_not_processed_is_reported_again(make_client, journal, go) -> None:
    async def fail(client):
        async with client.batch(jobs("a", "b"), journal=journal) as batch:
            first = (await anext(batch)).job.name
            await anext(batch)  # asking for the next one means that the first one was processed
            raise LookupError(first)

    async with make_client() as client:
        with pytest.raises(LookupError) as caught:
            await fail(client)
    assert set(await go(jobs("a", "b"), save_to=None)) == {"a", "b"} - {str(caught.value)}


async def test_failed_jobs_are_submitted_again_only_by_choice(service, go, check) -> None:
    refused = httpx.Response(400, json={"code": 7, "message": f"cannot fetch {AUDIO}?b", "data": None})
    service.replies["video.generate"] = [service.well, refused, service.well]
    service.plans = {"v1": [(0, {"status": "error", "message": "silence"})]}
    await go(jobs("a", "b", "c"))
    assert go.progress == a2v.Progress(total=3, waiting=0, under_way=0, done=1, failed=2, unknown=0)
    assert await go(jobs("a", "b", "c")) == {}
    again = await go(jobs("a", "b", "c"), repeat=True)
    assert isinstance(again["a"].error, a2v.VideoFailedError)
    assert "silence" in str(again["a"].error)
    assert again["a"].video.status is a2v.VideoStatus.FAILED
    assert (type(again["b"].error), again["b"].error.status_code, again["b"].error.code) == (a2v.APIError, 400, 7)
    for name in "ab":
        check(again[name].error)
    assert service.posts == 3
    made = await go(jobs("a", "b", "c"), resubmit_failed=True)
    assert {name: outcome.ok for name, outcome in made.items()} == {"a": True, "b": True}
    assert service.posts == 5


async def test_videos_may_be_saved_by_a_later_run(service, go, tmp_path) -> None:
    """Videos rendered without a folder are saved when there is one, and not rendered again."""
    assert (await go(jobs("a"), save_to=None))["a"].path is None
    assert (await go(jobs("a")))["a"].path == tmp_path / "videos" / "a.mp4"
    assert service.posts == 1


async def test_a_missing_file_is_downloaded_again(service, go, tmp_path) -> None:
    await go(jobs("a", "b"))
    (tmp_path / "videos" / "a.mp4").unlink()
    (tmp_path / "videos" / "b.mp4").write_bytes(b"cut")
    seen = await go(jobs("a", "b"))
    assert seen["a"].ok
    assert "b.mp4 exists already" in str(seen["b"].error)
    (tmp_path / "videos" / "b.mp4").unlink()
    seen = await go(jobs("a", "b"))
    assert sorted(seen) == ["b"]
    assert {path.read_bytes() for path in (tmp_path / "videos").iterdir()} == {b"a video"}
    assert service.posts == 2


async def test_files_named_by_place_keep_their_names(service, go, tmp_path) -> None:
    """Jobs without a name may be reordered: nothing is downloaded again, and no file is confused with another."""
    service.content = None
    x, y, z = (a2v.Job("eva_a0008", f"{AUDIO}?{n}") for n in "xyz")
    sizes = iter(range(1000, 2000))
    service.replies["v.mp4"] = [lambda _: httpx.Response(200, content=bytes(next(sizes)))]
    await go([x], repeat=True)
    await go([y, x])
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["0001.mp4", "0003.mp4"]
    fetched = len(service.seen("v.mp4"))
    await go([z, y, x])
    assert len(service.seen("v.mp4")) == fetched + 1
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["0001.mp4", "0003.mp4", "0004.mp4"]
    assert service.posts == 3


async def test_masks_are_saved_beside_their_videos(service, go, tmp_path) -> None:
    pose = [a2v.Job(pose_id="p1", audio_url=f"{AUDIO}?{name}", name=name, with_mask=True) for name in "ab"]
    service.plan[-1][1]["mask_video_url"] = "https://files.example/m.mp4"
    seen = await go(pose)
    assert {outcome.mask_path for outcome in seen.values()} == {tmp_path / "videos" / f"{n}.mask.mp4" for n in "ab"}
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert names == ["a.mask.mp4", "a.mp4", "b.mask.mp4", "b.mp4"]
    assert await go(pose) == {}
    (tmp_path / "videos" / "a.mp4").unlink()
    assert (await go(pose))["a"].ok
    with pytest.raises(ValueError, match=r"more than once: a\.mask"):
        await go([*pose, *jobs("a.mask")])


async def test_limits_and_quota(service, go, make_client, journal) -> None:
    with pytest.raises(a2v.ConfigurationError, match=r"would submit 5 videos, and the quota is 3"):
        await go(jobs(*"abcde"), quota=3)
    assert service.posts == 0
    assert not journal.parent.exists()
    assert sorted(await go(jobs(*"abcde"), limit=2, quota=3)) == ["a", "b"]
    assert go.progress.waiting == 3
    assert sorted(await go(jobs(*"abcde"), quota=3)) == ["c", "d", "e"]
    assert service.posts == 5
    for setting in ("limit", "quota"):
        with pytest.raises(ValueError, match=setting):
            make_client().batch([], **{setting: -1})


# -- server and account -----------------------------------------------------------------------------------------------


async def test_a_journal_of_another_server_or_account_is_refused(service, go, make_client) -> None:
    await go(jobs("a"))
    requests = len(service.requests)
    transport = httpx.MockTransport(service)
    elsewhere = a2v.AsyncA2V("canary-0123456789-abcdefghij", base_url="https://elsewhere.example", transport=transport)
    with pytest.raises(a2v.JournalError, match=r"another server: https://openapi"):
        await go(jobs("a", "b"), of=elsewhere)
    other = partial(a2v.AsyncA2V, "another-token-of-somebody", transport=transport)
    with pytest.raises(a2v.JournalError, match="another token") as caught:
        await go(jobs("a", "b"), of=other())
    assert "another-token-of-somebody" not in str(caught.value)
    assert len(service.requests) == requests
    assert list(await go(jobs("a", "b"), of=other(), new_token=True)) == ["b"]
    assert await go(jobs("a", "b"), of=other()) == {}


async def test_one_writer_and_any_number_of_readers(service, make_client, journal) -> None:
    async with make_client() as client:
        async with client.batch(jobs("a", "b"), journal=journal) as batch:
            with pytest.raises(a2v.JournalError, match="another process is using"):
                async with client.batch(jobs("a", "b"), journal=journal):
                    pytest.fail("entered")
            assert set(states(journal)) == {"a", "b"}
            await anext(batch)
            assert "done" in states(journal).values()
            await anext(batch)
        assert {path.name for path in journal.parent.iterdir()} == {"batch.db", "batch.db.lock"}
        async with client.batch(jobs("a", "b"), journal=journal):
            pass
    assert service.posts == 2


async def test_a_journal_contains_no_secrets(service, go, journal) -> None:
    lost(service, nth=2)
    service.replies["video.get"] = [service.well]
    secret = [a2v.Job("eva_a0008", f"https://user:pw@example.com/{n}.wav?X-Amz-Signature=s3cret", n) for n in "ab"]
    await go(secret)
    files = [path for path in journal.parent.iterdir() if path.is_file()]
    for path in files:
        kept = path.read_bytes()
        for word in (b"canary", b"s3cret", b"signature", b"Signature", b"pw@"):
            assert word not in kept, path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {entry.job.audio_url for entry in a2v.read_journal(journal)} == {
        f"https://example.com/{n}.wav" for n in "ab"
    }


def _truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


def _damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE precious (x)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    "harm",
    [
        partial(_truncate, size=0),
        partial(_truncate, size=100),
        partial(_truncate, size=4096),
        partial(_truncate, size=9000),
        _damage,
        _foreign,
        _newer,
        lambda path: path.write_text("a,b,c\n"),
    ],
    ids=["empty", "cut in the head", "cut after a page", "cut", "damaged", "foreign", "newer", "text"],
)
async def test_a_file_that_is_no_journal_is_refused_and_left_unchanged(service, go, journal, harm) -> None:
    await go(jobs("a", "b"))
    requests = len(service.requests)
    harm(journal)
    before = journal.read_bytes()
    with pytest.raises(a2v.JournalError, match=r"batch\.db"):
        await go(jobs("a", "b", "c"))
    with pytest.raises(a2v.JournalError, match=r"batch\.db"):
        a2v.read_journal(journal)
    assert journal.read_bytes() == before
    assert len(service.requests) == requests


async def test_a_missing_journal_is_refused_if_its_videos_exist(service, go, journal) -> None:
    await go(jobs("a", "b"))
    journal.unlink()
    with pytest.raises(a2v.JournalError, match=r"no journal .*, but 2 of this batch's videos exist"):
        await go(jobs("a", "b"))
    assert service.posts == 2
    assert not journal.exists()
    with pytest.raises(a2v.JournalError, match="there is no journal"):
        a2v.read_journal(journal)
    assert len(await go(jobs("a", "b"), overwrite=True)) == 2


async def test_a_journal_that_cannot_be_created(service, make_client, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(a2v.JournalError, match="cannot be used"):
        async with make_client().batch(jobs("a"), journal=tmp_path / "file" / "batch.db"):
            pytest.fail("entered")
    assert not service.requests


# -- unknown submissions ----------------------------------------------------------------------------------------------


async def test_the_video_of_an_unknown_submission_is_found(service, go, journal) -> None:
    service.lists_videos = True
    lost(service, nth=2)
    seen = await go(jobs("a", "b", "c"))
    assert {name: outcome.ok for name, outcome in seen.items()} == dict.fromkeys("abc", True)
    assert service.posts == 3
    assert {entry.job.name: entry.video_id for entry in a2v.read_journal(journal)} == {"a": "v1", "b": "v2", "c": "v3"}


async def test_a_submission_that_did_not_arrive_stays_unknown(service, go, journal, check) -> None:
    """Its absence from the list proves nothing, so it is not submitted again."""
    service.lists_videos = True
    service.replies["video.generate"] = [service.well, LOST, service.well]
    seen = await go(jobs("a", "b", "c"))
    assert isinstance(seen["b"].error, a2v.SubmissionUnknownError)
    check(seen["b"].error)
    assert go.progress.unknown == 1
    for _ in range(2):  # each run reports it
        assert list(await go(jobs("a", "b", "c"))) == ["b"]
    assert service.posts == 3
    assert states(journal)["b"] == "unknown"


async def test_two_unknown_submissions_are_not_guessed_at(service, go) -> None:
    service.lists_videos = True

    def lose(request):
        service.well(request)
        raise LOST

    service.replies["video.generate"] = [lose, lose, service.well]
    seen = await go(jobs("a", "b", "c"))
    assert {name: outcome.ok for name, outcome in seen.items()} == {"a": False, "b": False, "c": True}


async def test_a_video_of_another_program_is_not_matched(service, go) -> None:
    service.lists_videos = True
    service.plans = {"theirs": service.plan}  # it existed before the run
    service.replies["video.generate"] = [LOST]
    seen = await go(jobs("a"))
    assert isinstance(seen["a"].error, a2v.SubmissionUnknownError)


async def test_video_list_may_fail_during_reconciliation(service, go) -> None:
    service.lists_videos = True
    lost(service)
    service.replies["video.list"] = [service.well, service.well, httpx.Response(403)]
    seen = await go(jobs("a"))
    assert isinstance(seen["a"].error, a2v.SubmissionUnknownError)
    service.replies.clear()
    assert (await go(jobs("a")))["a"].ok
    assert service.posts == 1


async def test_an_unknown_submission_without_video_list_stays_unknown(service, go) -> None:
    lost(service)
    seen = await go(jobs("a", "b"))
    assert isinstance(seen["a"].error, a2v.SubmissionUnknownError)
    assert list(await go(jobs("a", "b"))) == ["a"]
    assert service.posts == 2


@pytest.mark.parametrize(("choice", "made"), [(True, {"a", "c"}), ([2], {"c"}), ([0, 1, 7], {"a"})])
async def test_an_unknown_job_is_submitted_again_only_by_choice(service, go, choice, made) -> None:
    def lose(request):
        service.well(request)
        raise LOST

    service.replies["video.generate"] = [lose, service.well, lose, service.well]
    await go(jobs("a", "b", "c"))
    seen = await go(jobs("a", "b", "c"), resubmit_unknown=choice)
    assert {name for name, outcome in seen.items() if outcome.ok} == made
    assert service.posts == 3 + len(made)


async def test_an_id_that_belongs_to_another_job_is_not_believed(service, go, journal) -> None:
    """A server that returns one id for two submissions cannot be trusted about the second."""
    service.replies["video.generate"] = [httpx.Response(200, json={"code": 0, "data": {"video_id": "v1"}})]
    seen = await go(jobs("a", "b"))
    assert seen["a"].ok
    assert isinstance(seen["b"].error, a2v.SubmissionUnknownError)
    assert "another job's" in str(seen["b"].error)
    assert states(journal) == {"a": "done", "b": "unknown"}


async def test_a_job_cancelled_while_it_waits_for_the_rate_limit_stays_pending(service, make_client, journal) -> None:
    """Nothing was sent, so no outcome is unknown."""
    service.replies["video.generate"] = [httpx.Response(429)]
    async with make_client() as client:
        with anyio.move_on_after(1):
            async with client.batch(jobs("a"), journal=journal):
                await anyio.sleep_forever()
    assert service.posts == 1
    assert states(journal) == {"a": "pending"}


async def test_a_server_that_is_rate_limited_leaves_no_unknown_submission(service, go, journal) -> None:
    service.replies["video.generate"] = [service.well, httpx.Response(401)]
    seen = await go(jobs("a", "b", "c"))
    assert [type(seen[name].error) for name in "abc"] == [type(None)] + [a2v.AuthenticationError] * 2
    assert states(journal) == {"a": "done", "b": "pending", "c": "pending"}
    service.replies.clear()
    assert sorted(await go(jobs("a", "b", "c"))) == ["b", "c"]
    at_most_once(service)


async def test_an_account_without_money_leaves_jobs_pending(service, go, journal) -> None:
    service.replies["video.generate"] = [service.well, httpx.Response(402, json={"code": 8, "message": "pay first"})]
    seen = await go(jobs("a", "b", "c"))
    assert {seen[name].error.status_code for name in "bc"} == {402}
    assert service.posts == 2
    assert states(journal) == {"a": "done", "b": "pending", "c": "pending"}


@pytest.mark.parametrize("lists", [True, False])
async def test_closing_the_client_during_a_submission(service, make_client, journal, lists) -> None:
    service.lists_videos = lists
    sent = anyio.Event()

    async def hang(request):
        sent.set()
        await anyio.sleep_forever()

    service.replies["video.generate"] = [hang]
    async with make_client() as client, client.batch(jobs("a", "b"), journal=journal) as batch:
        await sent.wait()
        await client.aclose()
        seen = {outcome.job.name: outcome.error async for outcome in batch}
    assert isinstance(seen["a"], a2v.SubmissionUnknownError)
    assert isinstance(seen["b"], a2v.ClientClosedError)
    assert states(journal) == {"a": "unknown", "b": "pending"}


# -- a full or failing disk -------------------------------------------------------------------------------------------


class Disk:
    """Makes a transition of the journal fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full_at: str | None = None
        real = Journal._set_state

        def move(journal, identity, state, *args, **columns):
            if state == self.full_at:
                raise sqlite3.OperationalError("database or disk is full")
            return real(journal, identity, state, *args, **columns)

        monkeypatch.setattr(Journal, "_set_state", move)


@pytest.fixture
def disk(monkeypatch) -> Disk:
    return Disk(monkeypatch)


async def test_a_full_disk_before_a_submission(service, go, disk, journal, check) -> None:
    """A submission that cannot be recorded is not sent."""
    disk.full_at = "submitting"
    seen = await go(jobs("a", "b"))
    assert {type(outcome.error) for outcome in seen.values()} == {a2v.JournalError}
    assert "disk is full" in str(seen["a"].error)
    check(seen["a"].error)
    assert service.posts == 0
    disk.full_at = None
    assert all(outcome.ok for outcome in (await go(jobs("a", "b"))).values())
    at_most_once(service)


async def test_a_full_disk_when_the_response_arrives(service, go, disk, journal) -> None:
    """The error and the recovery record have the id; nothing else is submitted, and the next run follows the video."""
    disk.full_at = "submitted"
    seen = await go(jobs("a", "b"))
    assert seen["a"].error.video_id == "v1"
    assert "video v1 was submitted" in str(seen["a"].error)
    assert service.posts == 1
    assert states(journal) == {"a": "submitting", "b": "pending"}
    disk.full_at = None
    assert {name: outcome.video.video_id for name, outcome in (await go(jobs("a", "b"))).items()} == {
        "a": "v1",
        "b": "v2",
    }
    assert await go(jobs("a", "b")) == {}
    at_most_once(service)


async def test_a_disk_that_cannot_store_the_recovery_record_either(service, go, disk, journal, monkeypatch) -> None:
    """Only the error has the id then; the next run reports the submission as unknown."""
    disk.full_at = "submitted"
    monkeypatch.setattr(LockFile, "write_record", lambda *_: False)
    seen = await go(jobs("a"))
    assert "video v1 was submitted: write its id down; a2v could not" in str(seen["a"].error)
    seen = await go(jobs("a"))
    assert isinstance(seen["a"].error, a2v.SubmissionUnknownError)
    assert service.posts == 1


def test_a_lock_file_that_cannot_be_created(tmp_path, monkeypatch) -> None:
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"), LockFile(tmp_path / "batch.db"):
        pytest.fail("entered")


def test_a_recovery_record_on_a_file_system_that_cannot_sync(tmp_path, monkeypatch) -> None:
    def fail(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    with LockFile(tmp_path / "batch.db") as lock_file:
        assert lock_file.write_record(RecoveryRecord("i", "v"))
        assert lock_file.read_record() == RecoveryRecord("i", "v")


def test_a_recovery_record_on_a_failing_disk(tmp_path, monkeypatch) -> None:
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with LockFile(tmp_path / "batch.db") as side:
        assert side.write_record(RecoveryRecord("i", "v"))
        assert side.read_record() == RecoveryRecord("i", "v")
        monkeypatch.setattr(os, "fsync", fail)
        assert not side.write_record(RecoveryRecord("i", "v"))


async def test_a_recovery_record_that_cannot_be_read(go, disk, journal) -> None:
    disk.full_at = "submitted"
    await go(jobs("a"))
    note = journal.with_name("batch.db.lock")
    note.write_bytes(note.read_bytes().replace(b"video_id", b"nonsense"))
    with pytest.raises(a2v.JournalError, match=r"batch\.db\.lock is damaged: it should name a video"):
        await go(jobs("a"))


async def test_a_full_disk_when_an_unknown_submission_is_reconciled(service, go, disk, journal) -> None:
    """Its video is found, but cannot be recorded in the journal; the next run follows it."""
    service.lists_videos = True
    lost(service, nth=1)
    disk.full_at = "submitted"
    seen = await go(jobs("a"))
    assert isinstance(seen["a"].error, a2v.SubmissionUnknownError)
    assert states(journal) == {"a": "unknown"}
    disk.full_at = None
    assert (await go(jobs("a")))["a"].ok
    assert states(journal) == {"a": "done"}
    assert service.posts == 1


@pytest.mark.parametrize("state", ["finished", "done", "failed"])
async def test_a_full_disk_after_the_submission(service, go, disk, journal, state) -> None:
    """A change that could not be recorded is seen again by the next run."""
    if state == "failed":
        service.plan = [(0, {"status": "error"})]
    disk.full_at = state
    seen = await go(jobs("a"))
    assert isinstance(seen["a"].error, a2v.JournalError)
    disk.full_at = None
    seen = await go(jobs("a"))
    assert seen["a"].ok is (state != "failed")
    assert service.posts == 1


async def test_a_full_disk_when_an_outcome_was_processed(make_client, journal, monkeypatch) -> None:
    def fail(*_, **__):
        raise sqlite3.OperationalError("disk I/O error")

    async def deal_with_one(client):
        async with client.batch(jobs("a"), journal=journal) as batch:
            await anext(batch)
            monkeypatch.setattr(Journal, "_update", fail)

    async with make_client() as client:
        with pytest.raises(a2v.JournalError, match="disk I/O error"):
            await deal_with_one(client)


async def test_an_error_of_a_journal_of_an_earlier_version(service, go, journal) -> None:
    """It has the name of the error's class, which does not matter: the error is classified again."""
    service.replies["video.generate"] = [httpx.Response(400, json={"code": 10001, "message": "no such character"})]
    refused = (await go(jobs("a")))["a"].error
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("""UPDATE items SET error = json_set(error, '$.kind', 'RenamedError')""")
    again = (await go(jobs("a"), repeat=True))["a"].error
    assert (type(again), str(again)) == (type(refused), str(refused)) == (a2v.NotFoundError, str(refused))
    assert service.posts == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "UPDATE items SET state = 'rejected'",
            "the job a has the state rejected, not the expected submitted or done or lost: did another program change",
        ),
        ("DELETE FROM items", "has the state missing"),
    ],
)
async def test_a_journal_changed_by_another_program_during_a_run(journal, make_client, change, message) -> None:
    async with make_client() as client, client.batch(jobs("a"), journal=journal) as batch:
        await anyio.sleep(30)
        with closing(sqlite3.connect(journal, isolation_level=None)) as db:
            db.execute(change)
        (outcome,) = [outcome async for outcome in batch]
    assert isinstance(outcome.error, a2v.JournalError)
    assert message in str(outcome.error)


# -- interrupted downloads --------------------------------------------------------------------------------------------


def cut(service, after: int):
    """Break each connection in the middle of the file."""
    whole = bytes(range(256)) * 400
    tag = {"etag": '"strong"', "accept-ranges": "bytes"}

    async def broken():
        yield whole[:after]
        raise httpx.ReadError("cut")

    def answer(request):
        first = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if answer.breaks:
            return httpx.Response(200, headers=tag | {"content-length": str(len(whole))}, content=broken())
        if not first:
            return httpx.Response(200, headers=tag, content=whole)
        answer.resumed.append(first)
        assert request.headers["if-range"] == tag["etag"]
        span = {"content-range": f"bytes {first}-{len(whole) - 1}/{len(whole)}"}
        return httpx.Response(206, headers=tag | span, content=whole[first:])

    answer.breaks, answer.resumed, answer.whole, answer.tag = True, [], whole, tag
    service.replies["v.mp4"] = [answer]
    return answer


def part_of(path: Path, journal: Path) -> Path:
    """The partial file of the only video in a journal."""
    with closing(sqlite3.connect(journal)) as db:
        (salt,) = db.execute("SELECT value FROM facts WHERE name = 'salt'").fetchone()
        (video_id,) = db.execute("SELECT video_id FROM items").fetchone()
    return Destination(path, overwrite=False, key=files.part_key(salt, video_id)).part


async def test_another_run_resumes_a_download(service, go, tmp_path) -> None:
    files = cut(service, after=5000)
    seen = await go(jobs("a"))
    assert isinstance(seen["a"].error, a2v.DownloadError)
    assert [path.suffix for path in (tmp_path / "videos").iterdir()] == [".part"]
    files.breaks = False
    assert (await go(jobs("a")))["a"].ok
    assert files.resumed == [5000]
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == files.whole
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["a.mp4"]


async def test_a_download_without_a_strong_etag_starts_again(service, go, tmp_path) -> None:
    files = cut(service, after=5000)
    files.tag["etag"] = 'W/"weak"'
    await go(jobs("a"))
    assert list((tmp_path / "videos").iterdir()) == []
    files.breaks = False
    assert (await go(jobs("a")))["a"].ok
    assert files.resumed == []
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == files.whole


@pytest.mark.parametrize("instant", ["all bytes are there", "all is noted", "it has its name"])
async def test_a_complete_partial_file_is_not_downloaded_again(service, go, journal, tmp_path, instant) -> None:
    files = cut(service, after=5000)
    files.breaks = False
    await go(jobs("a"))
    path = tmp_path / "videos" / "a.mp4"
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        forget = ", sha256 = NULL" if instant == "all bytes are there" else ""
        db.execute(f"UPDATE items SET state = 'finished', path = NULL{forget}")
    if instant != "it has its name":
        path.rename(part_of(path, journal))
    fetched = len(service.seen("v.mp4"))
    assert (await go(jobs("a")))["a"].ok
    assert len(service.seen("v.mp4")) == fetched
    assert [each.name for each in path.parent.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == files.whole


async def test_a_changed_partial_file_is_not_used(service, go, journal, tmp_path) -> None:
    files = cut(service, after=5000)
    files.breaks = False
    await go(jobs("a"))
    path = tmp_path / "videos" / "a.mp4"
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("UPDATE items SET state = 'finished', path = NULL, etag = NULL")
    path.unlink()
    part_of(path, journal).write_bytes(b"x" * len(files.whole))
    assert (await go(jobs("a")))["a"].ok
    assert path.read_bytes() == files.whole


# -- new names --------------------------------------------------------------------------------------------------------


async def test_a_new_name_needs_no_second_download(service, go, journal, tmp_path) -> None:
    """The server may have deleted the video."""
    folder = tmp_path / "videos"
    (job,) = jobs("a")
    renamed = a2v.Job(job.model_id, job.audio_url, "b")
    await go([job])
    requests = len(service.requests)
    outcome = (await go([renamed]))["b"]
    assert outcome.path == folder / "b.mp4"
    assert outcome.error is None
    assert [entry.path for entry in a2v.read_journal(journal)] == [str(folder / "b.mp4")]
    assert await go([job]) == {}
    assert [entry.path for entry in a2v.read_journal(journal)] == [str(folder / "a.mp4")]
    moved = tmp_path / "moved"
    assert (await go([job], save_to=moved))["a"].path == moved / "a.mp4"
    assert {path.read_bytes() for path in (*folder.iterdir(), *moved.iterdir())} == {b"a video"}
    assert len(list(folder.iterdir())) == 2
    assert len(service.requests) == requests


async def test_exchanged_names(service, go, tmp_path) -> None:
    folder = tmp_path / "videos"
    contents = {"a": b"video of a", "b": b"video of b"}
    for name, content in contents.items():
        service.content = content
        await go(jobs("a", "b")[: 1 if name == "a" else 2])
    one, two = jobs("a", "b")
    swapped = [a2v.Job(one.model_id, one.audio_url, "b"), a2v.Job(two.model_id, two.audio_url, "a")]
    requests = len(service.requests)
    refused = await go(swapped)
    assert "Remove" not in str(refused["a"].error)
    assert states(folder.parent / "some" / "batch.db") == {"a": "done", "b": "done"}
    assert await go([one, two]) == {}
    assert all(outcome.error is None for outcome in (await go(swapped, overwrite=True)).values())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.mp4": b"video of b",
        "b.mp4": b"video of a",
    }
    assert len(service.requests) == requests


async def test_a_new_name_with_a_mask(service, go, tmp_path, monkeypatch) -> None:
    """On a file system without hard links."""

    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links")

    folder = tmp_path / "videos"
    service.plan = [
        (0, {"status": "finished", "video_url": "https://e.com/v.mp4", "mask_video_url": "https://e.com/m.mp4"})
    ]
    make = partial(a2v.Job, pose_id="p1", audio_url=AUDIO, with_mask=True)
    await go([make(name="a")])
    requests = len(service.requests)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    outcome = (await go([make(name="b")]))["b"]
    assert outcome.mask_path == folder / "b.mask.mp4"
    assert {path.name for path in folder.iterdir()} == {"a.mp4", "a.mask.mp4", "b.mp4", "b.mask.mp4"}
    (folder / "a.mp4").unlink()
    (folder / "a.mask.mp4").unlink()
    (folder / "b.mask.mp4").unlink()
    assert (await go([make(name="a")]))["a"].path == folder / "a.mp4"
    assert len(service.requests) == requests


@pytest.mark.parametrize("step", ["copy", "complete"])
async def test_a_mask_is_not_left_behind_without_its_video(service, go, tmp_path, monkeypatch, step) -> None:
    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    folder = tmp_path / "videos"
    service.plan = [
        (0, {"status": "finished", "video_url": "https://e.com/v.mp4", "mask_video_url": "https://e.com/m.mp4"})
    ]
    make = partial(a2v.Job, pose_id="p1", audio_url=AUDIO, with_mask=True)
    await go([make(name="a")])
    copy, complete = shutil.copyfile, Destination.complete
    with monkeypatch.context() as patch:
        if step == "copy":
            patch.setattr(Path, "hardlink_to", refuse)
            patch.setattr(files.shutil, "copyfile", lambda old, new: (copy if "mask" in old.name else refuse)(old, new))
        else:
            patch.setattr(Destination, "complete", lambda one: (refuse if "mask" in one.path.name else complete)(one))
        assert "no space left" in str((await go([make(name="b")]))["b"].error)
    assert {path.name for path in folder.iterdir()} == {"a.mp4", "a.mask.mp4"}
    assert (await go([make(name="b")]))["b"].mask_path == folder / "b.mask.mp4"


@pytest.mark.parametrize("step", ["copyfile", "complete"])
async def test_a_file_that_cannot_be_copied_to_its_new_name(go, journal, tmp_path, monkeypatch, step) -> None:
    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    (job,) = jobs("a")
    renamed = a2v.Job(job.model_id, job.audio_url, "b")
    await go([job])
    with monkeypatch.context() as patch:
        if step == "copyfile":
            patch.setattr(Path, "hardlink_to", refuse)
            patch.setattr(files.shutil, "copyfile", refuse)
        else:
            patch.setattr(Destination, "complete", refuse)
        outcome = (await go([renamed]))["b"]
    assert "no space left" in str(outcome.error)
    assert outcome.error.video_id
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["a.mp4"]
    assert states(journal) == {"b": "done"}
    assert (await go([renamed]))["b"].error is None


async def test_a_file_that_has_changed_is_not_copied_to_a_new_name(go, tmp_path) -> None:
    (job,) = jobs("a")
    await go([job])
    (tmp_path / "videos" / "a.mp4").write_bytes(b"another")
    await go([a2v.Job(job.model_id, job.audio_url, "b")])
    assert (tmp_path / "videos" / "b.mp4").read_bytes() == b"a video"
