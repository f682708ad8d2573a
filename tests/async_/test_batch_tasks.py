"""Which tasks may use a batch, and what an unexpected error does to it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import anyio
import httpx
import pytest

import a2v
from a2v._async.batch import background
from a2v._async.batch.files import BatchFiles
from a2v._async.requests import transport

pytestmark = [pytest.mark.both_backends, pytest.mark.anyio, pytest.mark.virtual_time]


def jobs(*names: str) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"https://example.com/{name}.wav", name) for name in names]


async def test_a_batch_is_left_in_another_task_than_the_one_that_entered_it(service, make_client, tmp_path) -> None:
    """Test fixtures and exit stacks do that. No task is cancelled, and the journal can be opened again."""
    stack = AsyncExitStack()
    async with make_client() as client, anyio.create_task_group() as group:
        batch = await stack.enter_async_context(client.batch(jobs("a", "b"), journal=tmp_path / "j.db"))
        await anext(batch)
        group.start_soon(stack.aclose)
        await anyio.sleep(5)
        async with client.batch(jobs("a", "b"), journal=tmp_path / "j.db") as again:
            assert [outcome.job.name async for outcome in again] == ["b"]
    assert service.posts == 2


async def test_each_step_may_run_in_another_task(make_client) -> None:
    seen = []

    async def in_a_task(step) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(step)

    async def take() -> None:
        seen.append(await anext(batch))

    async with make_client() as client:
        batch = client.batch(jobs("a", "b"))
        await in_a_task(batch.__aenter__)
        await in_a_task(take)
        await in_a_task(take)
        await in_a_task(lambda: batch.__aexit__(None, None, None))
    assert {outcome.job.name for outcome in seen} == {"a", "b"}


async def test_only_one_task_at_a_time_may_wait_for_an_outcome(make_client) -> None:
    """The second one is refused; the first one gets all outcomes."""
    seen, errors = [], []

    async def consume() -> None:
        try:
            seen.extend([outcome.index async for outcome in batch])
        except a2v.A2VError as error:
            errors.append(error)

    async with make_client() as client, client.batch(jobs(*"abcdef")) as batch:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            group.start_soon(consume)
        assert [outcome async for outcome in batch] == []
    assert sorted(seen) == list(range(6))
    (error,) = errors
    assert isinstance(error, a2v.InvalidStateError)
    assert "another task" in str(error)


async def test_a_cancelled_wait_does_not_count_as_a_second_consumer(make_client) -> None:
    async with make_client() as client, client.batch(jobs("a")) as batch:
        with anyio.move_on_after(1):
            await anext(batch)
        assert (await anext(batch)).ok


async def test_leaving_ends_the_wait_of_another_task(make_client) -> None:
    async with make_client() as client, anyio.create_task_group() as group, client.batch(jobs("a")) as batch:

        async def consume() -> None:
            assert [outcome async for outcome in batch] == []

        group.start_soon(consume)
        await anyio.sleep(1)


async def test_ctrl_c_raised_in_the_batchs_task_reaches_the_main_task(make_client, service, anyio_backend_name) -> None:
    """trio raises it in whichever task runs, which may be one of the batch."""
    if anyio_backend_name != "trio":
        pytest.skip("asyncio raises it elsewhere")

    def interrupt(request):
        raise KeyboardInterrupt

    service.replies["video.get"] = [interrupt]
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        async with make_client() as client, client.batch(jobs("a")) as batch:
            with pytest.raises(KeyboardInterrupt):
                await anext(batch)
            await batch.__aexit__(KeyboardInterrupt, None, None)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed


def test_a_batch_ends_with_its_event_loop(service, make_client, tmp_path) -> None:
    """A batch that was never left closes its journal; asking it for outcomes later is refused."""
    client = make_client()
    batch = client.batch(jobs("a", "b"), journal=tmp_path / "j.db")

    async def begin() -> None:
        await batch.__aenter__()
        await asyncio.sleep(0.1)

    async def go_on() -> None:
        with pytest.raises(a2v.InvalidStateError, match="event loop"):
            await anext(batch)
        await batch.__aexit__(None, None, None)
        async with client.batch(jobs("a", "b"), journal=tmp_path / "j.db"):
            pass

    asyncio.run(begin())
    asyncio.run(go_on())


class OddError(LookupError):
    """An exception that a2v does not expect."""


@pytest.mark.parametrize("kept", [True, False], ids=["journal", "no journal"])
async def test_an_unexpected_error_is_the_outcome_of_one_job(make_client, tmp_path, monkeypatch, check, kept) -> None:
    real = BatchFiles.save

    async def save(saver, task, *args):
        if task.video_id == "v2":
            raise OddError("https://example.com/b.wav?")
        return await real(saver, task, *args)

    monkeypatch.setattr(BatchFiles, "save", save)
    settings = {"save_to": tmp_path / "videos", "journal": tmp_path / "j.db" if kept else None}
    async with make_client() as client, client.batch(jobs("a", "b", "c"), **settings) as batch:
        seen = {outcome.job.name: outcome async for outcome in batch}
    assert {name: outcome.ok for name, outcome in seen.items()} == {"a": True, "b": False, "c": True}
    error = seen["b"].error
    assert (error.video_id, str(error)) == ("v2", "unexpected OddError: https://example.com/b.wav?")
    assert isinstance(error.__cause__, OddError)
    assert "save" in [frame.name for frame in _frames(error.__cause__)]
    check(error)
    monkeypatch.undo()
    if kept:
        async with make_client() as client, client.batch(jobs("a", "b", "c"), **settings) as batch:
            assert [(outcome.ok, outcome.video.video_id) async for outcome in batch] == [(True, "v2")]


def _frames(error: BaseException):
    import traceback

    return traceback.extract_tb(error.__traceback__)


async def test_an_unexpected_error_before_sending_leaves_no_unknown_submission(
    make_client, service, monkeypatch
) -> None:
    """Nothing was sent, so its outcome is not unknown, and the next job is submitted."""
    real = transport._build_request

    def build_request(library, base_url, token, call, *others):
        if call.job and call.job.name == "b":
            raise OddError("b")
        return real(library, base_url, token, call, *others)

    async with make_client() as client, client.batch(jobs("a", "b", "c")) as batch:
        monkeypatch.setattr(transport, "_build_request", build_request)
        seen = {outcome.job.name: outcome async for outcome in batch}
        assert (batch.progress.done, batch.progress.failed, batch.progress.unknown) == (2, 1, 0)
    assert isinstance(seen["b"].error.__cause__, OddError)
    assert service.posts == 2


async def test_an_unexpected_error_of_a_transport_after_sending_is_unknown(make_client, service) -> None:
    """The outcome is unknown, the other jobs are submitted after a pause, and each error has the exception as its cause."""

    def fail(request):
        service.well(request)
        raise OddError("a bug")

    service.replies["video.generate"] = [fail, service.well]
    began = anyio.current_time()
    async with make_client() as client, client.batch(jobs("a", "b")) as batch:
        first = await anext(batch)
        assert anyio.current_time() - began < 5
        assert isinstance(first.error, a2v.SubmissionUnknownError)
        assert (await anext(batch)).ok
    assert service.posts == 2


async def test_an_a2v_error_of_a_transport_after_sending_is_unknown(make_client, service) -> None:
    """The outcome is unknown, so the job is not submitted again, unlike one whose request could not be sent."""

    def fail(request):
        service.well(request)
        raise a2v.TransportError("the proxy is gone")

    service.replies["video.generate"] = [fail, service.well]
    async with make_client() as client, client.batch(jobs("a", "b")) as batch:
        first = await anext(batch)
        assert isinstance(first.error, a2v.SubmissionUnknownError)
        assert "the proxy is gone" in str(first.error)
        assert (await anext(batch)).ok
    assert service.posts == 2


async def test_a_video_the_server_no_longer_knows_is_lost(service, make_client, tmp_path, check) -> None:
    """Each run polls it again; it is submitted again only by choice."""
    service.plans = {"v1": [(0, {"status": "pending"})]}
    settings = {"journal": tmp_path / "j.db", "render_timeout": 600}

    async def run(**more):
        async with make_client() as client, client.batch(jobs("a"), **settings, **more) as batch:
            (outcome,) = [outcome async for outcome in batch]
            run.progress = batch.progress
        return outcome

    def state():
        return a2v.read_journal(tmp_path / "j.db")[0].state

    await run()
    gone = httpx.Response(404, json={"code": 10001, "message": "file not found", "data": None})
    service.replies["video.get"] = [gone]
    for _ in range(2):
        error = (await run()).error
        assert isinstance(error, a2v.NotFoundError)
        assert error.video_id == "v1"
        check(error)
        assert state() is a2v.JobState.LOST
        assert run.progress == a2v.Progress(total=1, waiting=0, under_way=0, done=0, failed=0, unknown=0, lost=1)
        assert "not found" in a2v.read_journal(tmp_path / "j.db")[0].error
    assert service.posts == 1
    service.replies.clear()
    service.plans = {"v1": service.plan}
    assert (await run()).ok  # it has reappeared


@pytest.mark.parametrize("gone", [(404, 10001), (404, 7), (200, 10001)])
async def test_a_lost_job_is_submitted_again_by_choice(service, make_client, tmp_path, gone) -> None:
    status, code = gone
    missing = httpx.Response(status, json={"code": code, "message": "no such video", "data": None})
    settings = {"journal": tmp_path / "j.db", "save_to": tmp_path / "videos"}
    seen = []
    for again in (False, True):
        service.replies["video.get"] = [service.well] if again else [missing]
        async with make_client() as client, client.batch(jobs("a"), **settings, resubmit_failed=again) as batch:
            seen += [outcome async for outcome in batch]
            await anyio.sleep(200)
    assert isinstance(seen[0].error, a2v.NotFoundError)
    assert seen[1].ok
    assert list(service.jobs) == ["v1", "v2"]


async def test_a_404_of_a_gateway_does_not_mean_lost(service, make_client, tmp_path) -> None:
    """The gateway's page says nothing about the video."""
    service.replies["video.get"] = [httpx.Response(404, html="<h1>Not Found</h1>")]
    async with make_client() as client, client.batch(jobs("a"), journal=tmp_path / "j.db") as batch:
        outcome = await anext(batch)
    assert isinstance(outcome.error, a2v.NotFoundError)
    assert a2v.read_journal(tmp_path / "j.db")[0].state is a2v.JobState.SUBMITTED


async def test_a_server_that_lost_its_data_may_reuse_an_id(service, make_client, tmp_path) -> None:
    service.plans = {"v1": [(0, {"status": "pending"})]}
    async with make_client() as client:
        async with client.batch(jobs("a"), journal=tmp_path / "j.db"):
            await anyio.sleep(60)
        gone = httpx.Response(404, json={"code": 10001, "message": "file not found", "data": None})
        service.replies["video.get"] = [gone]
        async with client.batch(jobs("a"), journal=tmp_path / "j.db") as batch:
            assert isinstance((await anext(batch)).error, a2v.NotFoundError)
        service.replies.clear()
        service.plans.clear()
        same = httpx.Response(200, json={"code": 0, "message": "success", "data": {"video_id": "v1"}})
        service.replies["video.generate"] = [same]
        async with client.batch(jobs("a"), journal=tmp_path / "j.db", resubmit_failed=True) as batch:
            assert (await anext(batch)).ok


async def test_waiting_for_the_end_delays_a_cancellation_by_asyncio(anyio_backend_name) -> None:
    if anyio_backend_name != "asyncio":
        return
    ended = anyio.Event()
    waiting = asyncio.ensure_future(background.wait_for_end(ended))
    await asyncio.sleep(0)
    waiting.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
