"""The client's overhead compared with bare httpx, and whether many concurrent waits all complete.

``characters.list()`` is compared with ``httpx.AsyncClient.get`` plus ``json`` (the baseline), and that of the sync client with
``httpx.Client.get`` plus ``json``, alternately on the same loopback server in the same run. Then 200 tasks are awaited at once
on a server whose renders take two seconds.

The sync client is measured twice: with the client's process on one core and the server's on another, which shows the cost of
the client itself; and without affinity, because on a small virtual machine, waking a thread on another core costs as much
again. The bounds apply to the former.

The CPU time of ``from a2v import AsyncA2V`` is compared with that of ``import httpx``, each in processes of their own.

    python benchmarks/overhead.py

Exits with 1 when a bound is missed: ratios of 1.1, 2.2 and 1.4 (imports), 250 µs between the sync client and the baseline, a task that does not finish.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx

import a2v

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

ROUNDS, CALLS, TASKS, RENDER = 40, 50, 200, 2.0
BOUND, SYNC_BOUND, SYNC_EXTRA = 1.1, 2.2, 250
IMPORTS, IMPORT_BOUND = 20, 1.4
CHARACTERS = [
    {
        "model_id": f"m{i}",
        "name": f"M {i}",
        "display_name": f"M {i}",
        "gender": "female",
        "preview_url": "https://e.com/p",
    }
    for i in range(4)
]


class Server:
    """The first revision's methods in plain asyncio, to keep the server's own cost low."""

    def __init__(self) -> None:
        self.born: dict[str, float] = {}

    def data(self, target: str) -> object:
        """Return the data for a request; ``None`` if there is no such method."""
        url = urlsplit(target)
        if url.path.endswith("character.list"):
            return CHARACTERS
        if url.path.endswith("video.generate"):
            video_id = f"v{len(self.born)}"
            self.born[video_id] = time.monotonic()
            return {"video_id": video_id}
        if not url.path.endswith("video.get"):
            return None
        video_id = parse_qs(url.query)["video_id"][0]
        done = time.monotonic() - self.born[video_id] >= RENDER
        return {"video_id": video_id, "video_url": "https://e.com/v.mp4" if done else ""}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                data = self.data(head.split(" ")[1])
                body = json.dumps({"code": 0, "data": data, "message": "success"}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\n" if data else b"HTTP/1.1 404 Not Found\r\n")
                writer.write(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def run_server(port: Connection) -> None:
    """Serve until killed, in a separate process."""

    async def main() -> None:
        server = await asyncio.start_server(Server().serve, "127.0.0.1", 0, backlog=1024)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def measure_calls(base_url: str) -> float:
    """Return the async client's median ratio to its baseline. Both alternate in rounds."""
    ratios: list[float] = []
    times: tuple[list[float], list[float]] = ([], [])
    async with httpx.AsyncClient() as bare, a2v.AsyncA2V("token", base_url=base_url, rate_limit=None) as client:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(CALLS):
                await client.characters.list()
            middle = time.perf_counter()
            for _ in range(CALLS):
                (await bare.get(base_url + "/v1/a2v/character.list")).json()
            note(times, ratios, start, middle)
    report("AsyncA2V.characters.list()", "httpx.AsyncClient.get + json", times)
    return statistics.median(ratios[2:])


def measure_sync_calls(base_url: str) -> tuple[float, float]:
    """Return the sync client's median ratio to its baseline, and the difference in microseconds."""
    ratios: list[float] = []
    times: tuple[list[float], list[float]] = ([], [])
    with httpx.Client() as bare, a2v.A2V("token", base_url=base_url, rate_limit=None) as client:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(CALLS):
                client.characters.list()
            middle = time.perf_counter()
            for _ in range(CALLS):
                bare.get(base_url + "/v1/a2v/character.list").json()
            note(times, ratios, start, middle)
    report("A2V.characters.list()", "httpx.Client.get + json", times)
    extra = statistics.median(ours - theirs for ours, theirs in zip(*times, strict=True))
    return statistics.median(ratios[2:]), extra


@contextmanager
def one_core_each(server: int | None) -> Iterator[None]:
    """Pin this process and the server's to different cores, if the system can."""
    if sys.platform != "linux" or server is None or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        yield
        return
    os.sched_setaffinity(server, cores[1:2])
    os.sched_setaffinity(0, cores[:1])
    yield
    os.sched_setaffinity(server, cores)
    os.sched_setaffinity(0, cores)


def note(times: tuple[list[float], list[float]], ratios: list[float], start: float, middle: float) -> None:
    """Record a round that ends now: the client's part until the middle, then the baseline's."""
    end = time.perf_counter()
    ratios.append((middle - start) / (end - middle))
    times[0].append((middle - start) / CALLS * 1e6)
    times[1].append((end - middle) / CALLS * 1e6)


def report(ours: str, theirs: str, times: tuple[list[float], list[float]]) -> None:
    """Print the median times of one call."""
    for name, each in ((theirs, times[1]), (ours, times[0])):
        print(f"{name:30} {statistics.median(each):6.0f} µs")


async def measure_tasks(base_url: str) -> int:
    """Return how many of the concurrently awaited tasks finish."""
    async with a2v.AsyncA2V("token", base_url=base_url, rate_limit=None) as client:
        start = time.perf_counter()
        tasks = [client.videos.generate(model_id="m0", audio_url="https://e.com/a.wav") for _ in range(TASKS)]
        videos = await asyncio.gather(*[task.wait() for task in await asyncio.gather(*tasks)])
        print(f"{TASKS} tasks of {RENDER:g} s at once    {time.perf_counter() - start:6.2f} s")
    return sum(video.status is a2v.VideoStatus.FINISHED for video in videos)


def measure_imports() -> float:
    """Return the ratio of the median CPU times of importing the client and of importing httpx."""
    times: dict[str, list[float]] = {"from a2v import AsyncA2V": [], "import httpx": []}
    for _ in range(IMPORTS):
        for statement, measured in times.items():
            code = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
            measured.append(float(subprocess.check_output([sys.executable, "-c", code])))
    ours, theirs = (statistics.median(measured[1:]) for measured in times.values())  # the first may compile
    return ours / theirs


def main() -> int:
    """Measure, print the results, and return 1 if a bound is missed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_server, args=(theirs,), daemon=True)
    process.start()
    imports = measure_imports()
    base_url = f"http://127.0.0.1:{ours.recv()}"
    try:
        ratio = asyncio.run(measure_calls(base_url))
        free = measure_sync_calls(base_url)
        with one_core_each(process.pid):
            sync_ratio, extra = measure_sync_calls(base_url)
        finished = asyncio.run(measure_tasks(base_url))
    finally:
        process.kill()
    print(f"async {ratio:.2f} x its baseline (bound {BOUND}); finished {finished} of {TASKS}")
    print(f"sync {sync_ratio:.2f} x its baseline (bound {SYNC_BOUND}), {extra:+.0f} µs (bound {SYNC_EXTRA:+})")
    print(f"import of AsyncA2V {imports:.2f} x that of httpx (bound {IMPORT_BOUND})")
    print(f"sync {free[0]:.2f} x its baseline, {free[1]:+.0f} µs without affinity")
    return int(
        imports > IMPORT_BOUND or ratio > BOUND or sync_ratio > SYNC_BOUND or extra > SYNC_EXTRA or finished < TASKS
    )


if __name__ == "__main__":
    sys.exit(main())
