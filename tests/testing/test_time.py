"""Virtual time, and what must not be jumped over."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import anyio
import anyio.to_thread
import pytest

import a2v
from a2v.testing import FixedWindow, Service, VirtualTimeLoop, run_in_virtual_time, virtual_time

pytestmark = pytest.mark.both_backends

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_sleep_takes_no_time(backend) -> None:
    async def main(seconds: float) -> float:
        begun = anyio.current_time()
        await anyio.sleep(seconds)
        return anyio.current_time() - begun

    assert run_in_virtual_time(main, 10 * 86400.0, backend=backend) == pytest.approx(864000)


@BACKENDS
def test_a_days_worth_of_a_hundred_videos(backend) -> None:
    """Twenty-five hours of rendering, within the hosted service's limit."""
    service = Service(render_seconds=900, limit=FixedWindow(30))

    async def main() -> int:
        jobs = [a2v.Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(100)]
        client = a2v.AsyncA2V("token", transport=service.transport())
        async with client, client.batch(jobs) as batch:
            return sum([outcome.ok async for outcome in batch])

    assert run_in_virtual_time(main, backend=backend) == 100
    assert len(service.submissions) == 100
    assert {call.status for call in service.calls} == {200}
    assert service.calls[-1].at >= 900


@BACKENDS
def test_the_clock_waits_for_threads(backend) -> None:
    async def main() -> float:
        await anyio.sleep(1)
        begun = anyio.current_time()
        with anyio.fail_after(3600):
            await anyio.to_thread.run_sync(time.sleep, 0.02)
        return anyio.current_time() - begun

    assert run_in_virtual_time(main, backend=backend) == 0


@BACKENDS
def test_the_clock_waits_for_a_slow_disk(backend, tmp_path, monkeypatch) -> None:
    """If it did not, the next timer would be the end of the download's timeout."""
    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(1.2))
    service = Service(poll_statuses=["finished"])
    service.add_video("v")

    async def main() -> float:
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            begun = anyio.current_time()
            await client.videos.task("v").download(tmp_path / "v.mp4")
            return anyio.current_time() - begun

    assert run_in_virtual_time(main, backend=backend) < 10


@BACKENDS
def test_but_not_for_a_thread_that_waits_for_the_clock(backend) -> None:
    async def main() -> float:
        begun = anyio.current_time()
        await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 3600)
        return anyio.current_time() - begun

    assert run_in_virtual_time(main, backend=backend) == 3600


def test_the_loop_alone() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == 4600


def test_another_backend() -> None:
    with pytest.raises(ValueError, match="'asyncio' or 'trio', got 'curio'"):
        virtual_time("curio")


def test_without_trio_the_kit_is_there_and_says_what_to_install() -> None:
    code = """
import sys
sys.modules["trio"] = None
from a2v.testing import virtual_time
virtual_time("asyncio")
try:
    virtual_time("trio")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("virtual time on trio needs trio: pip install trio\n", "")
