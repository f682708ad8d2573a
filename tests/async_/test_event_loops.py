"""One client in several event loops: they share a rate limiter, and closing one does not affect the others."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import httpx
import pytest

import a2v
from a2v import testing
from a2v._async.requests.session import LoopState
from a2v._async.requests.shared_limiter import LoopRateLimiter, SharedRateLimiter
from a2v._core.rate_limiter import RateLimiter

pytestmark = pytest.mark.both_backends

BACKENDS = ["asyncio", "trio"]
JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/a.wav"}


class Elsewhere:
    """An event loop in its own thread, until ``stop``."""

    def __init__(self, work: Callable[[Elsewhere], Awaitable[None]], backend: str = "asyncio") -> None:
        self.begun, self.stopping = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(work, backend))
        self._thread.start()

    def _run(self, work: Callable[[Elsewhere], Awaitable[None]], backend: str) -> None:
        try:
            anyio.run(work, self, backend=backend)
        except Exception as error:  # noqa: BLE001  # the test reports it
            self.error = error

    async def stopped(self) -> None:
        self.begun.set()
        await anyio.to_thread.run_sync(self.stopping.wait)

    def stop(self) -> None:
        self.stopping.set()
        self.join()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


# -- one rate limiter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_one_after_another_share_the_servers_window(backend) -> None:
    service = testing.Service(limit=testing.FixedWindow(30))
    client = a2v.AsyncA2V("token", transport=service.transport(), max_retries=0)

    async def ten_calls() -> float:
        service.now()  # its clock starts here
        began = anyio.current_time()
        for _ in range(10):
            await client.characters.list()
        return anyio.current_time() - began

    took = [testing.run_in_virtual_time(ten_calls, backend=backend) for _ in range(7)]
    assert [call.status for call in service.calls] == [200] * 70
    assert took[:3] == pytest.approx([0, 0, 0], abs=1)
    assert sum(took) == pytest.approx(121, abs=3)


def test_loops_at_once_share_the_servers_window() -> None:
    service = testing.Service(limit=testing.FixedWindow(30))

    async def ten_calls(there: Elsewhere) -> None:
        for _ in range(10):
            await client.characters.list()
        await there.stopped()

    async def left() -> int | None:
        await client.characters.list()
        return (await client.batch([]).pace()).left

    with service.server() as server:
        client = a2v.AsyncA2V(server.token, base_url=server.base_url)
        loops = [Elsewhere(ten_calls, backend) for backend in BACKENDS]
        for each in loops:
            assert each.begun.wait(20)
        assert anyio.run(left) == 9
        for each in loops:
            each.stop()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_request_in_another_loop_counts_while_it_is_in_flight(backend) -> None:
    """Until the limit is known, requests are sent one at a time, whichever loop they come from."""
    happened: list[str] = []
    arrived, waited = threading.Event(), threading.Event()

    async def answer(_: httpx.Request) -> httpx.Response:
        happened.append("sent")
        if not arrived.is_set():
            arrived.set()
            await anyio.to_thread.run_sync(waited.wait)
        happened.append("answered")
        return httpx.Response(200, json={"code": 0, "message": "", "data": []})

    client = a2v.AsyncA2V("token", transport=httpx.MockTransport(answer))

    async def first(_: Elsewhere) -> None:
        await client.characters.list()

    async def second() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.characters.list)
            await anyio.sleep(0.05)
            waited.set()

    there = Elsewhere(first)
    assert arrived.wait(20)
    anyio.run(second, backend=backend)
    there.join()
    assert happened == ["sent", "answered", "sent", "answered"]


def test_a_request_lost_with_its_loop_does_not_count_forever() -> None:
    limiter = RateLimiter(abandon_after=90)
    lost = limiter.acquire(0.0)
    assert limiter.delay(89.0) > 60
    assert limiter.delay(91.0) == 0
    assert limiter.in_flight == 0
    limiter.release(lost, 201.0, {})  # late
    assert limiter.throttled(limiter.acquire(202.0), 203.0, {}) > 0


def test_a_clock_that_jumps_in_another_loop_delays_nothing() -> None:
    service = testing.Service()
    client = a2v.AsyncA2V("token", transport=service.transport())

    async def jump() -> None:
        await client.characters.list()
        await anyio.sleep(50_000)
        await client.characters.list()

    async def main() -> None:
        await client.characters.list()
        with anyio.fail_after(20):
            await anyio.to_thread.run_sync(testing.run_in_virtual_time, jump)
            for _ in range(20):
                await client.characters.list()

    anyio.run(main)
    assert [call.status for call in service.calls] == [200] * 23


def test_the_limiters_clock_never_goes_back() -> None:
    shared = SharedRateLimiter(RateLimiter())

    async def main() -> None:
        loop = LoopRateLimiter(shared)
        before = loop.now()
        shared.now = before + 0.5  # another loop's clock is a little ahead
        assert loop.now() == before + 0.5
        shared.now = before + 1000
        assert loop.now() == before + 1000
        await anyio.sleep(0.01)
        assert before + 1000 < loop.now() < before + 1010

    anyio.run(main)


def test_a_forked_process_has_its_own_limiter(monkeypatch) -> None:
    """The parent's may be locked by a thread that does not exist in the child."""
    service = testing.Service()
    with service.server() as server:
        client = a2v.AsyncA2V(server.token, base_url=server.base_url)
        asyncio.run(client.characters.list())
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        with client._session._state.limiter.lock:
            asyncio.run(client.characters.list())
    assert [call.status for call in service.calls] == [200, 200]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finished_loop_is_not_kept_alive(backend) -> None:
    service = testing.Service(render_seconds=0.1)
    client = a2v.AsyncA2V("token", transport=service.transport())

    async def main() -> weakref.ref[object]:
        async with client:
            task = await client.videos.generate(**JOB)
            await task.wait()
        return weakref.ref(anyio.lowlevel.current_token().native_token)

    loop = anyio.run(main, backend=backend)
    gc.collect()
    assert loop() is None
    assert client._session._state.loop_states == []


# -- closing one of several loops -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("enters", [True, False])
def test_leaving_a_context_in_one_loop_does_not_affect_another(backend, enters) -> None:
    with testing.Service().server() as server:
        client = a2v.AsyncA2V(server.token, base_url=server.base_url)

        async def long(there: Elsewhere) -> None:
            if enters:
                await client.__aenter__()
            await client.characters.list()
            await there.stopped()
            await client.characters.list()
            if enters:
                await client.__aexit__(None, None, None)

        async def short() -> None:
            async with client:
                await client.characters.list()
            with pytest.raises(a2v.ClientClosedError):
                await client.characters.list()

        there = Elsewhere(long, backend)
        assert there.begun.wait(20)
        anyio.run(short)
        there.stop()
        assert there.error is None


def test_a_custom_transport_is_closed_with_the_last_context() -> None:
    closed: list[str] = []

    class Transport(httpx.MockTransport):
        async def aclose(self) -> None:
            closed.append("closed")

    client = a2v.AsyncA2V("token", transport=Transport(lambda _: httpx.Response(200, json={"code": 0, "data": []})))

    async def long(there: Elsewhere) -> None:
        async with client:
            await there.stopped()

    async def short() -> None:
        async with client:
            await client.characters.list()

    there = Elsewhere(long)
    assert there.begun.wait(20)
    anyio.run(short)
    assert closed == []
    there.stop()
    assert closed == ["closed"]


@pytest.mark.anyio
async def test_the_last_of_two_contexts_in_one_loop_closes_the_client(service, make_client) -> None:
    client = make_client()
    async with client:
        async with client:
            await client.characters.list()
        await client.characters.list()
    with pytest.raises(a2v.ClientClosedError):
        await client.characters.list()
    async with client:
        await client.characters.list()


@pytest.mark.anyio
async def test_leaving_the_context_ends_everything_that_waits_in_its_loop(service, make_client) -> None:
    errors = []

    async def wait(task: a2v.AsyncVideoTask) -> None:
        with pytest.raises(a2v.ClientClosedError) as caught:
            await task.wait()
        errors.append(caught.value)

    async with anyio.create_task_group() as group, make_client() as client:
        group.start_soon(wait, client.videos.task("v"))
        await anyio.sleep(0.05)
    assert errors[0].video_id == "v"


@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_the_client_ends_everything_that_waits_in_other_loops(backend) -> None:
    service = testing.Service(render_seconds=3600)
    client = a2v.AsyncA2V("token", transport=service.transport())

    async def wait(there: Elsewhere) -> None:
        task = await client.videos.generate(**JOB)
        async with anyio.create_task_group() as group:
            group.start_soon(there.stopped)
            with pytest.raises(a2v.ClientClosedError):
                await task.wait()
            there.stopping.set()
        with pytest.raises(a2v.ClientClosedError):
            await client.characters.list()

    there = Elsewhere(wait, backend)
    assert there.begun.wait(20)
    anyio.run(client.aclose)
    there.join()
    assert there.error is None


def test_closing_the_client_ignores_loops_that_have_ended() -> None:
    client = a2v.AsyncA2V("token", transport=testing.Service().transport())
    closed = asyncio.new_event_loop()
    closed.run_until_complete(client.characters.list())
    closed.close()

    async def run() -> LoopState:
        await client.characters.list()
        return client._session._loop_state

    kept = asyncio.run(run())
    gc.collect()
    assert kept._loop() is None
    asyncio.run(client.aclose())
    with pytest.raises(a2v.ClientClosedError):
        asyncio.run(client.characters.list())


def test_a_task_from_one_loop_can_be_watched_in_another() -> None:
    service = testing.Service(render_seconds=5, limit=testing.FixedWindow(30))
    client = a2v.AsyncA2V("token", transport=service.transport())

    async def submit() -> a2v.AsyncVideoTask:
        return await client.videos.generate(**JOB)

    async def watch(task: a2v.AsyncVideoTask) -> int:
        before = len(service.polls)
        async with aclosing(task.watch()) as videos:
            assert [video.status async for video in videos][-1] is a2v.VideoStatus.FINISHED
        return len(service.polls) - before

    task = testing.run_in_virtual_time(submit)
    assert testing.run_in_virtual_time(watch, task, backend="trio") <= 8
