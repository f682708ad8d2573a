"""Where HTTP clients usually break. Each of these fails without the remedy that a2v has for it."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from contextlib import suppress

import anyio
import anyio.lowlevel
import httpx
import pytest

import a2v

from .conftest import CANARY
from .server import Connection

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}


def alive(kind: str) -> int:
    """How many objects of a class there are."""
    gc.collect()
    return sum(type(each).__name__ == kind for each in gc.get_objects())


@pytest.mark.anyio
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.extended)])
async def test_hundreds_of_cancellations(dial, port, count) -> None:
    """At whatever moment: no place is lost, no connection stays open, and the next request is served."""
    dice = random.Random(7)

    async def behave(conn: Connection) -> None:
        # As a busy server does: some get an answer, some wait for theirs.
        while True:
            request = await conn.head()
            if busy and dice.random() < 0.5:
                await conn.stall()
            await conn.rest(request)
            await conn.answer(request)

    port.behave = behave
    cancelled, busy = 0, True
    async with dial(max_retries=0) as client:
        while cancelled < count:
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(client.videos.get if number % 5 else _submit(client), f"v{number}")
                for _ in range(dice.randrange(200)):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            cancelled += 50
        busy = False
        with anyio.fail_after(20):
            await client.characters.list()
            await client.videos.generate(**JOB)
        # Those kept idle; whatever was cancelled in between is closed.
        await port.until(lambda: port.open <= 50)
        assert alive("AsyncHTTPConnection") <= 50
    await port.emptied()


def _submit(client: a2v.AsyncA2V):
    async def submit(_: str) -> None:
        await client.videos.generate(**JOB)

    return submit


@pytest.mark.anyio
@pytest.mark.parametrize("times", [2, pytest.param(6, marks=pytest.mark.extended)])
async def test_cancelled_downloads_take_nobodys_place(dial, port, tmp_path, times) -> None:
    """As many as httpx has connections for, and some more: as many are served next time, and a submission too.

    A pool with a limit loses a place for good with each request that is cancelled when it was just given the place of another.
    """

    async def behave(conn: Connection) -> None:
        request = await conn.request()
        await (conn.stall() if request.call == "file" else conn.answer(request))

    port.behave = behave
    async with dial(max_retries=0) as client:
        task = client.videos.task("v1")
        await task.wait()
        for moment in range(times):
            async with anyio.create_task_group() as more, anyio.create_task_group() as first:
                for number in range(100):
                    first.start_soon(task.download, tmp_path / f"{number}.mp4")
                await port.until(lambda: port.open >= 100)
                for number in range(100, 140):
                    more.start_soon(task.download, tmp_path / f"{number}.mp4")
                await port.until(lambda: sum(1 for _ in tmp_path.iterdir()) == 140)
                await anyio.wait_all_tasks_blocked()
                first.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    for _ in range(moment):
                        await anyio.lowlevel.checkpoint()
                more.cancel_scope.cancel()
        with anyio.fail_after(20):
            await client.videos.generate(**JOB)
    assert not list(tmp_path.iterdir())
    await port.emptied()


@pytest.mark.anyio
async def test_five_hundred_tasks_at_once(dial, port) -> None:
    """All are served, over not more connections than descriptors allow, even by a server that would take them all."""

    async def behave(conn: Connection) -> None:
        while True:
            request = await conn.request()
            waiting.append(request)
            in_flight.append(len(waiting))
            if len(port.requests) > 1:
                await asyncio.sleep(0 if len(waiting) > 50 else 0.3)  # more would come, if more went out at once
            waiting.remove(request)
            await conn.reply(port.body(request), "200 OK", "X-Ratelimit-Total: 100000", "X-Ratelimit-Left: 99999")

    found: list[str] = []
    waiting: list[object] = []
    in_flight: list[int] = []

    async def call(number: int) -> None:
        if number % 10:
            found.append((await client.videos.get(f"v{number}")).video_id)
        else:
            await client.videos.generate(**JOB)

    port.behave = behave
    async with dial(max_retries=0) as client, anyio.create_task_group() as group:
        for number in range(500):
            group.start_soon(call, number)
    assert sorted(found) == sorted(f"v{number}" for number in range(500) if number % 10)
    assert len(port.submitted) == 50
    assert max(in_flight) <= 50
    await port.emptied()


@pytest.mark.anyio
@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.extended)])
async def test_a_stale_connection_before_a_submission(dial, port, count) -> None:
    """The server closes connections once they are idle: no submission is in doubt, and no look fails."""

    async def once(conn: Connection) -> None:
        await conn.answer(await conn.request())

    port.behave = once
    async with dial(max_retries=0) as client:
        for number in range(count):
            assert (await client.videos.get(f"v{number}")).is_terminal
            await client.videos.generate(**JOB)
    assert len(port.submitted) == count


@pytest.mark.anyio
async def test_many_clients_make_one_tls_context(faults, monkeypatch) -> None:
    """In however many threads and event loops they begin at once: one takes tens of milliseconds."""
    from a2v._async.requests import network

    made: list[object] = []
    make = httpx.create_ssl_context

    def slowly() -> object:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(httpx, "create_ssl_context", slowly)
    network._new_ssl_context.cache_clear()
    base_url = faults.port(listening=False).url.replace("http", "https")

    def blocking() -> None:
        with a2v.A2V(CANARY, base_url=base_url, max_retries=0) as client, suppress(a2v.TransportError):
            client.characters.list()

    async def call() -> None:
        async with a2v.AsyncA2V(CANARY, base_url=base_url, max_retries=0) as client:
            with pytest.raises(a2v.TransportError):
                await client.characters.list()

    threads = [threading.Thread(target=blocking) for _ in range(10)]
    for thread in threads:
        thread.start()
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(call)
    for thread in threads:
        thread.join()
    assert len(made) == 1


@pytest.mark.anyio
async def test_memory_stays_flat(dial, port) -> None:
    """A hundred replies that break off leave nothing behind in the client."""
    import tracemalloc

    async def behave(conn: Connection) -> None:
        await conn.request()
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 50_000)
        conn.reset()

    async def fail(client: a2v.AsyncA2V, times: int) -> int:
        for _ in range(times):
            for call in (client.characters.list, lambda: client.videos.generate(**JOB)):
                with pytest.raises(a2v.A2VError):
                    await call()
        del port.requests[:]
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    port.behave = behave
    tracemalloc.start()
    try:
        async with dial(max_retries=0) as client:
            before = await fail(client, 50)
            after = await fail(client, 50)
    finally:
        tracemalloc.stop()
    # The budget remembers each request for a minute; of the replies, not even one.
    assert after - before < 50_000
