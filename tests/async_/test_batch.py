"""Batches: each job has an outcome, whatever happens to the others."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import anyio
import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

VIDEO = b"\0\0\0\x20ftypisom" + bytes(5000)
AUDIO = "https://example.com/hello.wav"
REFUSED = httpx.Response(400, json={"code": 7, "message": "no such character", "data": None})


def jobs(*names: str | None) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"{AUDIO}?{n}", name) for n, name in enumerate(names)]


async def outcomes(batch) -> list[a2v.Outcome]:
    return [outcome async for outcome in batch]


async def test_outcomes_come_as_they_complete(service, make_client) -> None:
    done = {"status": "finished", "video_url": "https://files.example/v.mp4"}
    service.plans = {"v1": [(0, {}), (900, done)], "v2": [(0, {}), (100, done)], "v3": [(0, {}), (500, done)]}
    todo = jobs(None, None, None)
    async with make_client() as client, client.batch(todo) as batch:
        seen = [(outcome.index, outcome.video.video_id, outcome.ok) async for outcome in batch]
        assert batch.under_way == {}
        assert await outcomes(batch) == []  # the iterator stays exhausted
    assert seen == [(1, "v2", True), (2, "v3", True), (0, "v1", True)]
    assert [service.jobs[f"v{n}"]["audio_url"] for n in (1, 2, 3)] == [job.audio_url for job in todo]


async def test_its_repr_tells_the_progress(service, make_client) -> None:
    async with make_client() as client, client.batch(jobs("a", "b")) as batch:
        url = repr(client).removeprefix("<AsyncA2V ")
        assert repr(batch) == f"<AsyncBatch 0 of 2 done {url}"
        await outcomes(batch)
        assert repr(batch) == f"<AsyncBatch 2 of 2 done {url}"
    assert repr(a2v.AsyncBatch.__new__(a2v.AsyncBatch)) == "<AsyncBatch not initialized>"


async def test_an_empty_batch(service, make_client) -> None:
    async with make_client() as client, client.batch([]) as batch:
        assert await outcomes(batch) == []
    assert not service.requests


async def test_a_failure_does_not_stop_other_jobs(service, make_client, check) -> None:
    service.replies["video.generate"] = [service.well, REFUSED, httpx.Response(502), service.well]
    service.plans = {"v1": [(0, {"status": "error", "message": "silence"})]}
    todo = jobs(*"abcd")
    async with make_client() as client, client.batch(iter(todo)) as batch:
        seen = sorted(await outcomes(batch), key=lambda outcome: outcome.index)
        assert batch.progress == a2v.Progress(total=4, waiting=0, under_way=0, done=1, failed=2, unknown=1)
    assert [outcome.job for outcome in seen] == todo
    assert [type(outcome.error) for outcome in seen] == [
        a2v.VideoFailedError,
        a2v.APIError,
        a2v.SubmissionUnknownError,
        type(None),
    ]
    assert [outcome.ok for outcome in seen] == [False] * 3 + [True]
    assert seen[0].video.status is a2v.VideoStatus.FAILED
    assert seen[2].error.job == todo[2]
    assert seen[3].video.is_terminal
    for outcome in seen[:3]:
        check(outcome.error)
    assert service.posts == 4


@pytest.mark.simulation
async def test_a_batch_waits_for_an_unreachable_server(service, make_client) -> None:
    """Eight minutes without a connection cost time, but no job."""
    began = anyio.current_time()

    def down(request):
        if 200 < anyio.current_time() - began < 700:
            raise httpx.ConnectError("down")
        return service.well(request)

    service.replies["video.generate"] = [down]
    async with make_client() as client, client.batch(jobs(*"abcdefgh"), max_in_flight=2) as batch:
        assert [outcome.ok for outcome in await outcomes(batch)] == [True] * 8
    assert len(service.jobs) == 8
    assert service.posts > 20


@pytest.mark.parametrize("max_retries", [0, 3])
@pytest.mark.parametrize(
    ("failure", "kind"), [(httpx.ConnectError("down"), a2v.TransportError), (httpx.Response(429), a2v.RateLimitError)]
)
async def test_a_long_outage_fails_the_remaining_jobs_at_once(
    service, make_client, check, *, failure, kind, max_retries
) -> None:
    """After the longest outage that a batch waits for, the other jobs do not wait as long again; their errors say why."""
    service.replies["video.generate"] = [failure]
    began = anyio.current_time()
    async with make_client(max_retries=max_retries) as client, client.batch(jobs(*"abcdef")) as batch:
        seen = await outcomes(batch)
    assert {type(outcome.error) for outcome in seen} == {kind}
    assert 590 < anyio.current_time() - began < 1200
    assert batch.progress.failed == 6
    check(seen[0].error)


async def test_an_outage_leaves_one_unknown_submission(service, make_client) -> None:
    """After an unreadable response, nothing is submitted until another request succeeds."""
    began = anyio.current_time()

    def down(request):
        return httpx.Response(502) if 200 < anyio.current_time() - began < 700 else service.well(request)

    service.replies["video.generate"] = service.replies["character.list"] = [down]
    async with make_client() as client, client.batch(jobs(*"abcdefgh"), max_in_flight=2) as batch:
        seen = await outcomes(batch)
    unknown = [outcome for outcome in seen if not outcome.ok]
    assert [type(outcome.error) for outcome in unknown] == [a2v.SubmissionUnknownError]
    assert service.posts == 8


@pytest.mark.simulation
async def test_unknown_submissions_in_a_row_slow_submitting_down(service, make_client) -> None:
    """Only submissions fail: few are tried in half an hour, and all later ones succeed."""
    began = anyio.current_time()

    def breaks(request):
        if anyio.current_time() - began < 1800:
            raise httpx.ReadError("gone")
        return service.well(request)

    service.replies["video.generate"] = [breaks]
    async with make_client() as client, client.batch(jobs(*[None] * 30)) as batch:
        seen = await outcomes(batch)
    doubts = [outcome for outcome in seen if isinstance(outcome.error, a2v.SubmissionUnknownError)]
    assert 5 <= len(doubts) <= 12
    assert sum(outcome.ok for outcome in seen) == 30 - len(doubts)


@pytest.mark.parametrize(("status", "kind"), [(401, a2v.AuthenticationError), (403, a2v.PermissionDeniedError)])
async def test_a_refused_token_stops_the_submitting(service, make_client, status, kind) -> None:
    service.replies["video.generate"] = [service.well, httpx.Response(status)]
    async with make_client() as client, client.batch(jobs(*"abcdefgh")) as batch:
        seen = sorted(await outcomes(batch), key=lambda outcome: outcome.index)
    assert seen[0].ok  # submitted jobs are followed to their end
    assert [type(outcome.error) for outcome in seen[1:]] == [kind] * 7
    assert (
        len({id(outcome.error) for outcome in seen}) == 8
    )  # an error for each, so that no traceback grows with the batch
    assert service.posts == 2


async def test_jobs_are_submitted_one_at_a_time(service, make_client) -> None:
    under_way = 0

    async def slowly(request):
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await anyio.sleep(5)
        under_way -= 1
        return service.well(request)

    service.replies["video.generate"] = [slowly]
    async with make_client() as client, client.batch(jobs(*"abcdef")) as batch:
        assert len(await outcomes(batch)) == 6


@pytest.mark.simulation
@pytest.mark.parametrize("most", [1, 2, 5, 100])
async def test_max_in_flight_limits_the_videos_in_progress(service, make_client, most) -> None:
    finished: set[str] = set()  # as the client has seen
    under_way: list[int] = []

    def submit(request):
        under_way.append(service.posts - len(finished))
        return service.well(request)

    def look(request):
        reply = service.well(request)
        if reply.json()["data"]["status"] == "finished":
            finished.add(request.url.params["video_id"])
        return reply

    service.replies |= {"video.generate": [submit], "video.get": [look]}
    async with make_client() as client, client.batch(jobs(*"abcdefgh"), max_in_flight=most) as batch:
        assert all(outcome.ok for outcome in await outcomes(batch))
    assert (len(finished), max(under_way)) == (8, min(most, 8))


@pytest.mark.parametrize("most", [0, -1])
async def test_an_invalid_max_in_flight_is_refused(make_client, most) -> None:
    with pytest.raises(ValueError, match="max_in_flight"):
        make_client().batch(jobs("a"), max_in_flight=most)


@pytest.mark.parametrize("job", [{"model_id": "eva_a0008", "audio_url": AUDIO}, "eva_a0008", None])
async def test_a_value_that_is_not_a_job_is_refused(make_client, job) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match=r"a2v\.Job"):
        make_client().batch([*jobs("a"), job])


async def test_a_batch_starts_with_its_context(service, make_client) -> None:
    batch = make_client().batch(jobs("a"))
    with pytest.raises(RuntimeError, match="async with"):
        await anext(batch)
    assert not service.requests
    assert (batch.progress.total, batch.progress.waiting, batch.under_way, batch.gone) == (1, 1, {}, ())


async def test_a_batch_runs_once(service, make_client) -> None:
    async with make_client() as client:
        batch = client.batch(jobs("a"))
        async with batch:
            await outcomes(batch)
        with pytest.raises(RuntimeError, match="pay"):
            async with batch:
                pass
        assert await outcomes(batch) == []
    assert service.posts == 1


# -- leaving early ----------------------------------------------------------------------------------------------------


async def test_leaving_early_stops_submitting_and_waiting(service, make_client) -> None:
    service.plans = {"v2": [(0, {}), (900, service.plan[-1][1])]}
    async with make_client() as client:
        async with client.batch(jobs(*"abcdef"), max_in_flight=2) as batch:
            async for outcome in batch:
                assert outcome.ok
                break
            left = batch.under_way
        asked = len(service.requests)
        await anyio.sleep(1000)
        assert len(service.requests) == asked
        assert left
        # The renders continue, and can be waited for again.
        for video_id in left.values():
            assert (await client.videos.task(video_id).wait()).is_terminal


async def test_an_error_in_the_context_is_raised_unchanged(service, make_client) -> None:
    boom = LookupError("mine")
    async with make_client() as client:
        for outcomes_first in (0, 1, 2):
            with pytest.raises(LookupError) as caught:
                await _raise_within(client.batch(jobs("a", "b")), outcomes_first, boom)
            assert caught.value is boom
        await anyio.sleep(1)  # the task is no longer cancelled
    gc.collect()


async def _raise_within(batch: a2v.AsyncBatch, outcomes_first: int, error: Exception) -> None:
    async with batch:
        for _ in range(outcomes_first):
            await anext(batch)
        raise error


async def test_a_batch_cancelled_from_outside_stops(service, make_client) -> None:
    async with make_client() as client:
        with anyio.move_on_after(30) as scope:
            async with client.batch(jobs("a", "b")) as batch:
                await outcomes(batch)
        assert scope.cancelled_caught
        await anyio.sleep(1)
        with anyio.move_on_after(30) as scope:
            async with client.batch(jobs("a", "b")):
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert service.posts == 4
    gc.collect()


async def test_leaving_while_the_body_is_cancelled_within(service, make_client) -> None:
    async with make_client() as client, client.batch(jobs("a", "b")) as batch:
        with anyio.move_on_after(10):
            await outcomes(batch)
        assert len(await outcomes(batch)) == 2  # no outcome was lost


def test_cancelled_by_asyncio_itself(service, make_client) -> None:
    async def work(client: a2v.AsyncA2V) -> None:
        async with client.batch(jobs("a", "b")) as batch:
            await outcomes(batch)

    async def main() -> None:
        async with make_client() as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(work(client), 0.05)
            task = asyncio.create_task(work(client))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.characters.list()

    asyncio.run(main())
    gc.collect()


async def test_closing_the_client_ends_each_job_with_an_error(service, make_client, check) -> None:
    async with make_client() as client, client.batch(jobs("a", "b", "c"), max_in_flight=2) as batch:
        await anyio.sleep(10)
        assert batch.under_way == {0: "v1", 1: "v2"}
        await client.aclose()
        seen = await outcomes(batch)
    assert {type(outcome.error) for outcome in seen} == {a2v.ClientClosedError}
    assert sorted(outcome.index for outcome in seen) == [0, 1, 2]
    for outcome in seen:
        check(outcome.error)


# -- saving -----------------------------------------------------------------------------------------------------------


async def test_videos_are_saved(service, make_client, tmp_path) -> None:
    folder = tmp_path / "some" / "where"
    async with make_client() as client, client.batch(jobs("hello", None, "ünï"), save_to=folder) as batch:
        seen = {outcome.index: outcome async for outcome in batch}
    assert {index: outcome.path.name for index, outcome in seen.items()} == {
        0: "hello.mp4",
        1: "0002.mp4",
        2: "ünï.mp4",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["0002.mp4", "hello.mp4", "ünï.mp4"]
    assert {path.read_bytes() for path in folder.iterdir()} == {b"a video"}


async def test_without_a_folder_nothing_is_saved(service, make_client) -> None:
    async with make_client() as client, client.batch(jobs("same", "same")) as batch:
        assert [outcome.path for outcome in await outcomes(batch)] == [None, None]
    assert not service.seen("v.mp4")


async def test_a_failed_download_is_the_outcome_of_its_job(service, make_client, tmp_path, check) -> None:
    service.replies["v.mp4"] = [httpx.Response(400)]
    async with make_client() as client, client.batch(jobs("a"), save_to=tmp_path) as batch:
        (outcome,) = await outcomes(batch)
    assert type(outcome.error) is a2v.DownloadError
    assert outcome.video.is_terminal
    assert outcome.path is None
    check(outcome.error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("a", "A"), ("0002", None), ("straße", "STRASSE")])
async def test_names_that_collide(make_client, tmp_path, names) -> None:
    with pytest.raises(ValueError, match="more than once"):
        make_client().batch(jobs(*names), save_to=tmp_path)


async def test_existing_files_are_refused_before_anything_is_sent(service, make_client, tmp_path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"precious")
    async with make_client() as client:
        with pytest.raises(a2v.DownloadError, match=r"b\.mp4"):
            async with client.batch(jobs("a", "b"), save_to=tmp_path):
                pytest.fail("entered")
        assert not service.requests
        async with client.batch(jobs("a", "b"), save_to=tmp_path, overwrite=True) as batch:
            assert all(outcome.ok for outcome in await outcomes(batch))
    assert (tmp_path / "b.mp4").read_bytes() == b"a video"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "../a", ".hidden", "a:b", "a ", " a", "a.", "x" * 201, "a\x00", 'a"', 5]
)
def test_invalid_names_are_refused(name) -> None:
    with pytest.raises(ValueError, match="name must be"):
        a2v.Job("eva_a0008", AUDIO, name)


@pytest.mark.simulation
async def test_a_hundred_jobs(service, make_client) -> None:
    service.lists_videos = True
    async with make_client(rate_limit=30) as client, client.batch(jobs(*[None] * 100)) as batch:
        seen = await outcomes(batch)
    assert sorted(outcome.index for outcome in seen) == list(range(100))
    assert all(outcome.ok for outcome in seen)
    assert service.posts == 100


@pytest.mark.parametrize(("answer_after", "stage"), [(4, "under_way"), (60, "unknown")])
async def test_leaving_waits_briefly_for_the_response_to_a_submission(
    service, make_client, answer_after, stage
) -> None:
    """So Ctrl-C leaves no unknown submission if the server is about to confirm it; nothing else is submitted."""

    async def slow(request):
        await anyio.sleep(answer_after)
        return service.well(request)

    service.replies["video.generate"] = [slow]
    began = anyio.current_time()
    async with make_client() as client:
        batch = client.batch(jobs("a", "b"))
        with anyio.move_on_after(2):
            async with batch:
                await outcomes(batch)
    assert anyio.current_time() - began == pytest.approx(min(answer_after, 2 + 3), abs=0.1)
    assert (batch.progress.waiting, getattr(batch.progress, stage)) == (1, 1)
    assert service.posts == 1


async def test_leaving_early_waits_for_that_response_too(service, make_client) -> None:
    async def slow(request):
        await anyio.sleep(3)
        return service.well(request)

    service.replies["video.generate"] = [slow]
    began = anyio.current_time()
    async with make_client() as client:
        async with client.batch(jobs("a", "b")) as batch:
            await anyio.sleep(1)
        assert anyio.current_time() - began == pytest.approx(3, abs=0.1)
    assert (batch.progress.under_way, batch.progress.waiting) == (1, 1)


async def test_leaving_does_not_wait_for_the_rate_limit(service, make_client) -> None:
    later = httpx.Response(429, json={"code": 1009, "message": "slower", "data": None})
    service.replies["video.generate"] = [service.well, later]
    async with make_client() as client:
        async with client.batch(jobs("a", "b")) as batch:
            await anyio.sleep(10)
            left = anyio.current_time()
        assert anyio.current_time() - left < 0.1
    assert (batch.progress.under_way, batch.progress.waiting) == (1, 1)


@pytest.mark.simulation
async def test_pace_shows_the_rate_limit(service, make_client) -> None:
    async with make_client(rate_limit="auto") as client, client.batch(jobs(*[None] * 40)) as batch:
        before = await batch.pace()
        assert (before.limit, before.left) == (30, 30)
        await anyio.sleep(1)
        pace = await batch.pace()
        # A server that sends no limit has none.
        assert (pace.limit, pace.left) == (None, None)
        assert 0 <= pace.next_in < 60
        await outcomes(batch)
        assert (await batch.pace()).next_in is None
        await client.aclose()
        with pytest.raises(a2v.ClientClosedError):
            await batch.pace()


class Stop(BaseException):
    """Like Ctrl-C on trio, which any running task may raise."""


async def test_an_exception_raised_in_the_batchs_task_is_raised_unchanged(service, make_client) -> None:
    def stop(request):
        raise Stop

    service.replies["video.get"] = [stop]
    async with make_client() as client:
        with pytest.raises(Stop):
            async with client.batch(jobs("a")) as batch:
                await anext(batch)
        with pytest.raises(Stop):
            async with client.batch(jobs("a")):
                await anyio.sleep(10)
    gc.collect()


async def test_an_outage_after_an_unknown_submission_is_reported_by_the_next_one(service, make_client) -> None:
    """After an unknown submission a free request is sent; if it never succeeds, the next submission reports the outage."""
    service.replies["video.generate"] = [httpx.Response(502), httpx.ConnectError("down")]
    service.replies["character.list"] = [httpx.ConnectError("down")]
    async with make_client() as client, client.batch(jobs("a", "b")) as batch:
        seen = {outcome.job.name: type(outcome.error) for outcome in await outcomes(batch)}
    assert seen == {"a": a2v.SubmissionUnknownError, "b": a2v.TransportError}


async def test_the_downloads_of_a_batch_at_this_moment(service, make_client, tmp_path) -> None:
    seen: list[dict[Path, tuple[int, int | None]]] = []

    class Halves(httpx.AsyncByteStream):
        async def __aiter__(self):
            seen.append(batch.downloads)
            yield VIDEO[:1000]
            seen.append(batch.downloads)
            yield VIDEO[1000:]

    headers = {"content-length": str(len(VIDEO))}
    service.replies["v1.mp4"] = [lambda _: httpx.Response(200, headers=headers, stream=Halves())]
    service.replies["v2.mp4"] = [httpx.Response(404)] * 20
    for number in (1, 2):
        done = {"status": "finished", "video_url": f"https://files.example/v{number}.mp4"}
        service.plans[f"v{number}"] = [(0, done)]
    async with make_client() as client:
        batch = client.batch(jobs("a", "b"), save_to=tmp_path)
        assert batch.downloads == {}
        async with batch:
            assert [outcome.ok for outcome in sorted(await outcomes(batch), key=lambda outcome: outcome.index)] == [
                True,
                False,
            ]
            assert batch.downloads == {}, "those that failed have ended, too"
    path = tmp_path / "a.mp4"
    assert [downloads[path] for downloads in seen] == [(0, None), (1000, len(VIDEO))]
