"""Files, the journal and TLS settings use threads of a2v's own, so the application's threads may all be busy."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import deque
from functools import partial
from types import SimpleNamespace

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

import a2v
from a2v import _threads, testing

pytestmark = [pytest.mark.both_backends, pytest.mark.anyio]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "a2v worker"]


@pytest.fixture
async def no_threads(anyio_backend):
    """All the threads that anyio has for this event loop are busy for the length of the test."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    await limiter.acquire_on_behalf_of(object())
    yield
    limiter.total_tokens = before


def jobs(count: int) -> list[a2v.Job]:
    return [a2v.Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(count)]


@pytest.mark.virtual_time
@pytest.mark.usefixtures("no_threads")
async def test_downloads_and_journals_do_not_wait_for_the_applications_threads(tmp_path) -> None:
    service = testing.Service(poll_statuses=["finished"])
    async with a2v.AsyncA2V("token", transport=service.transport()) as client:
        with anyio.fail_after(3600):
            task = await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
            await task.download(tmp_path / "a" / "one.mp4")
            async with client.batch(jobs(3), save_to=tmp_path, journal=tmp_path / "batch.db") as batch:
                assert [outcome.ok async for outcome in batch] == [True] * 3


@pytest.mark.usefixtures("no_threads")
async def test_tls_settings_do_not_wait_for_the_applications_threads(closed_port) -> None:
    client = a2v.AsyncA2V("token", base_url=f"https://127.0.0.1:{closed_port}", timeout=20, max_retries=0)
    with pytest.raises(a2v.TransportError, match="ConnectError"):
        await client.characters.list()


async def test_a_function_of_each_thread_may_wait_for_us(tmp_path) -> None:
    """What plain ``def`` endpoints of a web framework do: each holds a thread while the event loop works for it."""
    service = testing.Service(poll_statuses=["finished"])
    client = a2v.AsyncA2V("token", transport=service.transport(), rate_limit=None)

    async def handle(number: int) -> None:
        await client.videos.task("v").download(tmp_path / f"{number}.mp4")

    service.add_video("v")
    limiter = anyio.CapacityLimiter(3)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(
                    lambda number=number: anyio.to_thread.run_sync(
                        anyio.from_thread.run, handle, number, limiter=limiter
                    )
                )
    assert len(list(tmp_path.iterdir())) == 6


async def test_the_result_and_the_exception_of_a_function() -> None:
    assert await _threads.run(lambda: 5) == 5
    error = LookupError("no")

    def fail() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        await _threads.run(fail)
    assert caught.value is error


async def test_no_more_threads_than_jobs_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(_threads.run, work)
    assert 1 <= most <= 8
    before = set(workers())
    for _ in range(40):
        await _threads.run(lambda: None)
    assert set(workers()) <= before


async def test_idle_threads_end() -> None:
    await _threads.run(lambda: None)
    with anyio.fail_after(30):
        while workers():  # noqa: ASYNC110  # the end of a thread sets no event
            await anyio.sleep(0.05)
    assert not _threads._idle


async def test_a_cancellation_waits_for_the_file(tmp_path) -> None:
    begun, go, over = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        go.wait(30)
        over.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(_threads.run, work)
        await anyio.to_thread.run_sync(begun.wait)
        group.cancel_scope.cancel()
        go.set()
    assert over


async def test_a_cancellation_abandons_work_without_grace() -> None:
    go, stopped = threading.Event(), []
    with anyio.move_on_after(0.01):
        await _threads.run(lambda: go.wait(30), grace=0, on_cancel=lambda: stopped.append(True))
    assert stopped
    go.set()


def test_a_thread_that_outlives_its_event_loop_ends_in_peace(anyio_backend_name) -> None:
    go, began = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(30)

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await _threads.run(work, grace=0)

    anyio.run(main, backend=anyio_backend_name)
    assert began.wait(30)
    go.set()
    for thread in workers():
        thread.join(30)
    gc.collect()


async def test_a_system_without_threads_is_an_error_of_the_system(monkeypatch) -> None:
    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads, "_idle", type(_threads._idle)())
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="can't start new thread"):
        await _threads.run(lambda: None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of a fork while there are threads")
def test_a_forked_child_has_threads_of_its_own(anyio_backend_name) -> None:
    async def main() -> int:
        return await _threads.run(lambda: 5)

    assert anyio.run(main, backend=anyio_backend_name) == 5
    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, [1]).start()
        os._exit(0 if anyio.run(main, backend=anyio_backend_name) == 5 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.virtual_time
async def test_the_virtual_clock_waits_for_our_threads() -> None:
    begun = anyio.current_time()
    with anyio.fail_after(3600):
        await _threads.run(lambda: time.sleep(0.02))
    assert anyio.current_time() == begun


def test_a_job_is_done_once_although_its_thread_is_about_to_end(monkeypatch) -> None:
    """A thread gives up waiting at the very moment at which a job is handed to it."""

    class Handed:
        """The lock on which a thread waits: its wait ends without a job while the next one is on its way."""

        def __init__(self) -> None:
            self.lock, self.waits = threading.Lock(), 0

        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is None:
                return self.lock.acquire()
            self.waits += 1
            if self.waits == 2:
                waiting.set()
                assert taken.wait(60)
                return False
            return self.lock.acquire(timeout=timeout)

        def release(self) -> None:
            if waiting.is_set() and not taken.is_set():
                taken.set()  # the thread goes on before the job is handed over
                hurried.wait(0.2)
            self.lock.release()

    before = set(workers())
    waiting, taken, hurried = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(_threads, "_idle", deque())
    monkeypatch.setattr(_threads, "threading", SimpleNamespace(Lock=Handed, Thread=threading.Thread))
    done = []

    def hand_over(number: int) -> None:
        ended = threading.Event()
        _threads.start(partial(done.append, number), ended.set)
        assert ended.wait(60)

    hand_over(1)
    assert waiting.wait(60)
    for number in (2, 3, 4):
        hand_over(number)
    assert done == [1, 2, 3, 4]
    for thread in set(workers()) - before:
        thread.join(60)
