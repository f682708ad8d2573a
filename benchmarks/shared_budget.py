"""What a shared budget adds to a request, in a file and in Redis or Valkey.

``characters.list()`` of a client without a budget, of one with a budget in a file, and of one with a budget in Redis are called
alternately on the same loopback server in the same run. The difference to the first is what the budget adds. For comparison,
bare exchanges are timed in between: a ``PING`` of the server through redis-py, and an append of 200 bytes to a file.

    python benchmarks/shared_budget.py

Exits with 1 when a request takes more than 1.6 times as long (file), or 2.6 times (Redis). Without redis-server or valkey-server,
Redis is left out.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from overhead import run_server

import a2v

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS, CALLS = 100, 10
BOUNDS = {"file": 1.6, "Redis": 2.6}
"""How much longer than without a budget a request may take. On an idle machine, a request takes about half a millisecond."""


@contextmanager
def redis_server() -> Iterator[str | None]:
    """Start a server, and yield its URL; ``None`` if none is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if not program:
        yield None
        return
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(1000):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def quick(times: list[float]) -> float:
    """Return the first decile: rounds that other programs have disturbed do not count."""
    return statistics.quantiles(times, n=10)[0]


def timed(action: Callable[[], object]) -> float:
    """Return the mean duration of an action in milliseconds."""
    start = time.perf_counter()
    for _ in range(CALLS):
        action()
    return (time.perf_counter() - start) / CALLS * 1000


async def measure(base_url: str, budgets: dict[str, str | None]) -> dict[str, list[float]]:
    """Return the milliseconds per call in each round, with each of several budgets."""
    times: dict[str, list[float]] = {name: [] for name in budgets}
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                a2v.AsyncA2V("token", base_url=base_url, rate_limit=None, budget=budget)
            )
            for name, budget in budgets.items()
        }
        for _ in range(ROUNDS):
            for name, client in clients.items():
                start = time.perf_counter()
                for _ in range(CALLS):
                    await client.characters.list()
                times[name].append((time.perf_counter() - start) / CALLS * 1000)
    return times


def measure_bare(folder: Path, url: str | None) -> dict[str, float]:
    """Return the milliseconds of a bare exchange with each store."""
    path = folder / "bare"

    def append() -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(file, b"x" * 200, os.fstat(file).st_size)
        os.close(file)

    bare = {"file": quick([timed(append) for _ in range(ROUNDS)])}
    if url:
        import redis  # noqa: PLC0415  # an extra

        with closing(redis.Redis.from_url(url)) as client:
            bare["Redis"] = quick([timed(client.ping) for _ in range(ROUNDS)])
    return bare


def main() -> int:
    """Measure, print the results, and return 1 if a bound is missed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_server, args=(theirs,), daemon=True)
    process.start()
    try:
        with tempfile.TemporaryDirectory() as name, redis_server() as url:
            budgets = {"none": None, "file": str(Path(name) / "a2v.budget")} | ({"Redis": url} if url else {})
            times = asyncio.run(measure(f"http://127.0.0.1:{ours.recv()}", budgets))
            bare = measure_bare(Path(name), url)
    finally:
        process.kill()
    alone = quick(times["none"])
    print(f"a request without a budget: {alone:.2f} ms")
    missed = False
    for name, each in bare.items():
        with_budget = quick(times[name])
        ratio = with_budget / alone
        missed |= ratio > BOUNDS[name]
        print(
            f"{'MISSED ' if ratio > BOUNDS[name] else ''}{name}: {ratio:.2f} x that (bound {BOUNDS[name]}), "
            f"{with_budget - alone:+.2f} ms; a bare exchange takes {each:.3f} ms"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
