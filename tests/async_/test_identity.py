"""A batch run again with other URLs, names and recordings pays for nothing twice, and confuses no videos."""

from __future__ import annotations

import anyio
import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

SPEECH = "https://tts.example/say"


def job(query: str, name: str | None = None) -> a2v.Job:
    return a2v.Job("eva_a0008", f"{SPEECH}?{query}", name)


def take(number: int, name: str | None = None) -> a2v.Job:
    return a2v.Job("eva_a0008", f"https://example.com/{number}.wav", name)


@pytest.fixture
def run(make_client, service, tmp_path):
    """Run a batch with a journal; return the content of each file by job name, and keep the errors."""
    for number in range(1, 10):
        # All of the same size, so that only their content distinguishes them.
        service.replies[f"v{number}.mp4"] = [httpx.Response(200, content=f"video {number}".encode())]
        url = f"https://files.example/v{number}.mp4"
        service.plans[f"v{number}"] = [(0, {"status": "pending"}), (300, {"status": "finished", "video_url": url})]

    async def run(*jobs, **options):
        settings = {"save_to": tmp_path, "journal": tmp_path / "j.db"} | options
        async with make_client() as client, client.batch(jobs, **settings) as batch:
            run.errors = {one.job.name: one.error async for one in batch if one.error}
            run.progress = batch.progress
        return {path.stem: path.read_text() for path in tmp_path.glob("*.mp4")}

    return run


async def test_jobs_that_differ_only_in_the_query_are_ambiguous(service, run, tmp_path, check) -> None:
    await run(job("text=one", "one"), job("text=two", "two"))
    before = (tmp_path / "j.db").read_bytes()
    with pytest.raises(a2v.AmbiguousJobsError) as caught:
        await run(job("text=1", "one"), job("text=2", "two"))
    check(caught.value)
    assert [(place, entry.job.name) for place, entry in caught.value.pairs] == [(0, "one"), (1, "two")]
    assert "text" not in str(caught.value)
    assert service.posts == 2
    assert [entry.place for entry in a2v.read_journal(tmp_path / "j.db")] == [0, 1]
    assert len((tmp_path / "j.db").read_bytes()) == len(before)


async def test_the_same_recordings_are_not_submitted_again(service, run) -> None:
    first = await run(job("token=1", "one"), job("token=2", "two"))
    assert await run(job("token=4", "two"), job("token=3", "one"), recordings="same") == first
    assert await run(job("token=3", "one"), job("token=4", "two")) == first  # identified by these URLs from now on
    assert service.posts == 2


async def test_new_recordings_are_submitted(service, run) -> None:
    await run(job("text=one", "one"))
    assert await run(job("text=two", "two"), recordings="new") == {"one": "video 1", "two": "video 2"}
    assert await run(job("text=two", "two")) == {"one": "video 1", "two": "video 2"}
    assert service.posts == 2


async def test_a_submitted_job_with_another_query_is_ambiguous_too(service, run, make_client, tmp_path) -> None:
    service.plans["v1"] = [(0, {"status": "pending"}), (9000, service.plans["v1"][-1][1])]
    async with (
        make_client() as client,
        client.batch([job("token=1")], save_to=tmp_path, journal=tmp_path / "j.db") as one,
    ):
        await anyio.sleep(60)
        assert one.under_way
    with pytest.raises(a2v.AmbiguousJobsError, match=r"job 1 may be job 1 of the last run \(submitted, video v1\)"):
        await run(job("token=2"))
    files = await run(job("token=2"), recordings="same")
    assert (run.errors, files) == ({}, {"0001": "video 1"})
    assert service.posts == 1

    await anyio.sleep(0.1)


@pytest.mark.parametrize("recordings", ["old", True, ["same"], {}])
def test_an_invalid_value_of_recordings_is_refused(make_client, recordings) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match='recordings must be "same", "new" or None'):
        make_client().batch([], recordings=recordings)


async def test_a_second_take_above_the_first_is_another_video(service, run) -> None:
    await run(take(2, "two"), take(3, "three"))
    files = await run(take(2, "one"), take(2, "two"), take(3, "three"))
    assert files == {"two": "video 1", "three": "video 2", "one": "video 3"}
    assert (run.errors, service.posts) == ({}, 3)


async def test_a_changed_recording_stops_only_its_own_job(service, run, check) -> None:
    await run(take(1, "zero"), take(2, "one"))
    again = (take(3, "zero"), take(2, "one"), take(4, "new"))
    assert await run(*again) == {"zero": "video 1", "one": "video 2", "new": "video 3"}
    assert list(run.errors) == ["zero"]
    assert "the recording of 'zero' has changed" in str(run.errors["zero"])
    check(run.errors["zero"])
    assert run.progress == a2v.Progress(total=3, waiting=0, under_way=0, done=2, failed=1, unknown=0)
    assert await run(*again) == {"zero": "video 1", "one": "video 2", "new": "video 3"}
    assert list(run.errors) == ["zero"]  # in each run, until the conflict is resolved
    assert service.posts == 3
    assert await run(*again, overwrite=True) == {"zero": "video 4", "one": "video 2", "new": "video 3"}
    assert await run(*again) == {"zero": "video 4", "one": "video 2", "new": "video 3"}
    assert (run.errors, service.posts) == ({}, 4)


async def test_returning_to_the_first_recording_pays_for_nothing(service, run) -> None:
    await run(take(1, "zero"))
    await run(take(2, "zero"), overwrite=True)
    assert await run(take(1, "zero")) == {"zero": "video 2"}
    assert "exists already" in str(run.errors["zero"])
    assert run.errors["zero"].video_id == "v1"
    assert await run(take(1, "zero"), overwrite=True) == {"zero": "video 1"}  # downloaded again, not rendered again
    assert service.posts == 2


async def test_jobs_may_exchange_their_names(service, run) -> None:
    await run(take(1, "a"), take(2, "b"))
    assert await run(take(2, "a"), take(1, "b")) == {"a": "video 1", "b": "video 2"}
    assert set(run.errors) == {"a", "b"}
    assert await run(take(2, "a"), take(1, "b"), overwrite=True) == {"a": "video 2", "b": "video 1"}
    assert service.posts == 2


async def test_an_unknown_job_with_a_file_in_its_way_is_refused(service, run, tmp_path) -> None:
    def lose(request):
        service.well(request)
        raise httpx.ReadError("lost")

    service.replies["video.generate"] = [lose]
    service.replies["video.list"] = [httpx.Response(404, json={"code": 404, "message": "no such call", "data": None})]
    await run(take(1, "a"))
    (tmp_path / "a.mp4").write_text("mine")
    assert await run(take(1, "a")) == {"a": "mine"}
    assert isinstance(run.errors["a"], a2v.DownloadError)
    assert [entry.state for entry in a2v.read_journal(tmp_path / "j.db")] == ["unknown"]
    assert service.posts == 1


async def test_a_batch_that_does_not_begin_leaves_its_journal_unchanged(service, run, tmp_path) -> None:
    await run(take(1, "a"), take(2, "b"))
    before = a2v.read_journal(tmp_path / "j.db")
    (tmp_path / "c.mp4").write_text("mine")
    with pytest.raises(a2v.DownloadError, match=r"c\.mp4 exists already"):
        await run(take(3, "c"), take(2, "b"))
    with pytest.raises(a2v.ConfigurationError, match="quota"):
        await run(take(4, "d"), take(2, "b"), quota=0)
    assert a2v.read_journal(tmp_path / "j.db") == before
    assert service.posts == 2


async def test_the_folder_may_be_spelled_in_another_way(service, run, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    jobs = (take(1, "a"), take(2), take(3))
    await run(*jobs, save_to=tmp_path / "real")
    for folder in ("link", "link/../real", "real/"):
        await run(take(4, "a"), take(3), take(2), save_to=tmp_path / folder)
        assert list(run.errors) == ["a"]
        assert "the recording of 'a' has changed" in str(run.errors["a"])
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["0002.mp4", "0003.mp4", "a.mp4"]
    assert service.posts == 3


async def test_the_folder_may_be_moved(service, run, tmp_path) -> None:
    jobs = (take(1, "a"), take(2))
    await run(*jobs, save_to=tmp_path / "old", journal=tmp_path / "old" / "j.db")
    fetched = len(service.requests)
    (tmp_path / "old").rename(tmp_path / "new")
    await run(*jobs, save_to=tmp_path / "new", journal=tmp_path / "new" / "j.db")
    assert (run.errors, len(service.requests)) == ({}, fetched)
