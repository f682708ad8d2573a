"""What a large batch needs: ten thousand jobs with a journal on disk, in virtual time, and what it holds in memory.

The service is the test kit's, in the same process, with the limit of the hosted one; its memory is measured by a run without
a batch and told apart. Beside it stands the same work without a journal, so that the figures show what the journal costs.

It has no ``video.list``: that tells of all videos in one reply, so most of the time would go by in writing and reading
ten thousand of them, a thousand times. `polling.py` measures what the list saves.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from _world import minutes_15

import a2v
from a2v.testing import FixedWindow, Service, run_in_virtual_time

JOBS = 10_000
LARGEST_MB = 200
MOST_REQUESTS = 3.0


async def work(journal: Path | None) -> float:
    """A batch from its beginning to its end, each outcome dealt with and let go; requests for each video."""
    random = Random(0)
    service = Service(render_seconds=lambda _: minutes_15(random), lists_videos=False, limit=FixedWindow())
    jobs = (a2v.Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(JOBS))
    async with (
        a2v.AsyncA2V("token", transport=service.transport()) as client,
        client.batch(jobs, journal=journal, max_in_flight=500) as batch,
    ):
        ended = 0
        async for outcome in batch:
            assert outcome.ok, outcome.error
            ended += 1
    assert (ended, len(service.submissions)) == (JOBS, JOBS)
    return len(service.calls) / JOBS


def measure(kind: str) -> None:
    """One kind, in a process of its own: CPU seconds, megabytes at most, requests for each video."""
    requests = 0.0
    with tempfile.TemporaryDirectory() as folder:
        if kind != "nothing":
            requests = run_in_virtual_time(work, Path(folder, "batch.db") if kind == "journal" else None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, requests)


def main() -> None:
    """Print the table, and exit with 1 if the batch needs more memory or requests than it may."""
    print(f"{JOBS:,} jobs, virtual time\n{'':>12}{'CPU s':>9}{'MB':>7}{'requests a video':>18}")
    figures: dict[str, list[float]] = {}
    for kind in ("nothing", "memory", "journal"):
        done = subprocess.run([sys.executable, __file__, kind], check=True, stdout=subprocess.PIPE, text=True)
        figures[kind] = [float(number) for number in done.stdout.split()]
        print(f"{kind:>12}{figures[kind][0]:9.1f}{figures[kind][1]:7.0f}{figures[kind][2]:18.2f}", flush=True)
    (_, base, _), (memory, *_), (journal, megabytes, requests) = figures.values()
    print(f"the journal costs {(journal - memory) / JOBS * 1000:.2f} ms of CPU a job")
    print(f"a job costs {(megabytes - base) / JOBS * 1000:.1f} kB of memory, the service's share included")
    if megabytes > LARGEST_MB:
        sys.exit(f"a batch of {JOBS:,} needs {megabytes:.0f} MB, and {LARGEST_MB} is the bound")
    if requests > MOST_REQUESTS:
        sys.exit(f"a video of a batch takes {requests:.2f} requests, and {MOST_REQUESTS} is the bound")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
