"""What a large batch needs: ten thousand jobs with a journal on disk, in virtual time, and what it holds in memory.

The service is the test kit's, in the same process; its memory is measured by a run without a batch and told apart. Beside
it stands the same work without a journal, so that the figures show what the journal costs.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import a2v
from a2v.testing import Service, run_in_virtual_time

JOBS = 10_000
LARGEST_MB = 200


async def work(journal: Path | None) -> None:
    """A batch from its beginning to its end, each outcome dealt with and let go."""
    service = Service(render_seconds=900)
    jobs = (a2v.Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(JOBS))
    async with (
        a2v.AsyncA2V("token", transport=service.transport(), rate_limit=None) as client,
        client.batch(jobs, journal=journal, max_in_flight=500) as batch,
    ):
        ended = 0
        async for outcome in batch:
            assert outcome.ok, outcome.error
            ended += 1
    assert (ended, len(service.submits)) == (JOBS, JOBS)


def measure(kind: str) -> None:
    """One kind, in a process of its own: seconds, CPU seconds, megabytes at most."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if kind != "nothing":
            run_in_virtual_time(work, Path(folder, "batch.db") if kind == "journal" else None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def main() -> None:
    """Print the table, and exit with 1 if the batch needs more memory than it may."""
    print(f"{JOBS:,} jobs, virtual time\n{'':>12}{'wall s':>9}{'CPU s':>9}{'MB':>7}")
    figures: dict[str, list[float]] = {}
    for kind in ("nothing", "memory", "journal"):
        done = subprocess.run([sys.executable, __file__, kind], check=True, capture_output=True, text=True)
        figures[kind] = [float(number) for number in done.stdout.split()]
        print(f"{kind:>12}{figures[kind][0]:9.1f}{figures[kind][1]:9.1f}{figures[kind][2]:7.0f}")
    memory, journal = figures["memory"], figures["journal"]
    print(f"the journal costs {(journal[1] - memory[1]) / JOBS * 1000:.2f} ms of CPU a job")
    if journal[2] > LARGEST_MB:
        sys.exit(f"a batch of {JOBS:,} needs {journal[2]:.0f} MB, and {LARGEST_MB} is the bound")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
