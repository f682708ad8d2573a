"""Following many slow videos with thirty requests a minute, under virtual time.

``python benchmarks/polling.py`` measures this client on a fake service, and on the same service pollers that poll each
video on its own, at the intervals of other SDKs. It prints both, and exits with 1 when a figure misses its bound.
With ``--pure`` only the rate limiter and the poll scheduler run, without async code and HTTP, which is faster.
"""

# ruff: noqa: D102  # the methods are short

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import anyio
import trio
import trio.testing
from _world import (
    LATENCY,
    LIMIT,
    WINDOW,
    Reply,
    World,
    WorldService,
    fixed_window,
    local,
    minute,
    sliding_window,
    snapshots,
    token_bucket,
)
from attrs import Factory, define, evolve, frozen

import a2v
from a2v._core.poll_scheduler import PollScheduler, ScheduledRequest
from a2v._core.rate_limiter import RateLimiter, RequestKind
from a2v._values.models import Video
from a2v.errors import NotFoundError, ServerError
from a2v.testing import SharedBudget

SEEDS = 5

# -- virtual time -----------------------------------------------------------------------------------------------------


@define
class Run:
    """The result of a batch: the service, and when the end of each video was noticed."""

    service: WorldService
    noticed: dict[str, float]


class Simulation(Run):
    """A discrete-event simulation of a service and its clients."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(WorldService(world, seed), {})
        self.now = 0.0
        self._count = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def run(self, videos: int, limit: float = 100_000.0) -> None:
        while len(self.noticed) < videos and self.now < limit:
            self.now, _, what = heapq.heappop(self._events)
            what()

    def send(self, kind: RequestKind, video_id: str | None, then: Callable[[Reply], None]) -> None:
        def arrive() -> None:
            reply = self.service.arrive(self.now, kind, video_id)
            self.at(self.now + LATENCY / 2, lambda: then(reply))

        self.at(self.now + LATENCY / 2, arrive)

    def notice(self, video: Video) -> None:
        if video.is_terminal:
            self.noticed.setdefault(video.video_id, self.now)


class Ours:
    """Drives a rate limiter and a poll scheduler as the async dispatcher does."""

    def __init__(self, simulation: Simulation, jobs: int, seed: int) -> None:
        self.simulation, self.jobs = simulation, jobs
        self.limiter = RateLimiter(jitter=Random(seed).random)
        self.scheduler = PollScheduler()
        self._wakes_at = math.inf
        simulation.at(0.0, self.pump)

    def pump(self) -> None:
        now = self.simulation.now
        self._wakes_at = math.inf
        while (scheduled := self.next(now)) and scheduled.at <= now:
            self.begin(scheduled)
        if scheduled and math.isfinite(scheduled.at):
            self.wake(scheduled.at)

    def next(self, now: float) -> ScheduledRequest | None:
        return self.scheduler.next(now, self.limiter, submits=self.jobs)

    def wake(self, when: float) -> None:
        def wake() -> None:
            if self._wakes_at == when:
                self.pump()

        self._wakes_at = when
        self.simulation.at(when, wake)

    def begin(self, scheduled: ScheduledRequest) -> None:
        now = self.simulation.now
        self.jobs -= scheduled.kind is RequestKind.SUBMIT
        self.scheduler.start(scheduled, now)
        reservation = self.limiter.acquire(now)
        self.simulation.send(
            scheduled.kind, scheduled.video_id, lambda reply: self.finish(scheduled, reservation, reply)
        )

    def finish(self, scheduled: ScheduledRequest, reservation: int, reply: Reply) -> None:
        now = self.simulation.now
        if reply.status_code == 429:
            self.limiter.throttled(reservation, now, reply.headers)
            self.jobs += scheduled.kind is RequestKind.SUBMIT
            self.scheduler.abandoned(scheduled)
        else:
            self.limiter.release(reservation, now, reply.headers, good=reply.status_code == 200)
            self.process(scheduled, reply, now)
        self.pump()

    def process(self, scheduled: ScheduledRequest, reply: Reply, now: float) -> None:
        if reply.status_code == 404:
            self.scheduler.failed(scheduled, NotFoundError("not found", status_code=404), now, final=True)
        elif reply.status_code != 200:
            self.scheduler.failed(scheduled, ServerError("failed", status_code=reply.status_code), now, final=False)
        elif isinstance(reply.data, str):
            self.scheduler.add(reply.data, now, since=now - LATENCY)
        else:
            for _, event in self.scheduler.observe(snapshots(reply.data), now, scheduled):
                assert isinstance(event, Video), event
                self.simulation.notice(event)


class Oracle(Ours):
    """Submits like the client, and polls each video once, when it has ended: the minimum of requests."""

    def __init__(self, simulation: Simulation, jobs: int, seed: int) -> None:
        super().__init__(simulation, jobs, seed)
        self.ends: list[tuple[float, str]] = []
        self.unknown: dict[str, None] = {}  # ordered, unlike a set

    def begin(self, scheduled: ScheduledRequest) -> None:
        if scheduled.kind is RequestKind.GET:
            heapq.heappop(self.ends)
        super().begin(scheduled)

    def next(self, now: float) -> ScheduledRequest | None:
        self.simulation.service.advance(now)
        for video_id in list(self.unknown):
            self.place(video_id)
        when = now + self.limiter.delay(now)
        submit = ScheduledRequest(RequestKind.SUBMIT, when) if self.jobs else None
        get = ScheduledRequest(RequestKind.GET, max(when, self.ends[0][0]), self.ends[0][1]) if self.ends else None
        return min(
            (scheduled for scheduled in (submit, get) if scheduled), key=lambda scheduled: scheduled.at, default=None
        )

    def place(self, video_id: str) -> None:
        ends = self.simulation.service.videos[video_id].ends
        if math.isfinite(ends):
            heapq.heappush(self.ends, (ends, video_id))
            self.unknown.pop(video_id, None)
        else:
            self.unknown[video_id] = None

    def process(self, scheduled: ScheduledRequest, reply: Reply, now: float) -> None:
        if isinstance(reply.data, str):
            self.place(reply.data)
        elif isinstance(reply.data, Video):
            self.simulation.notice(reply.data)
        elif scheduled.video_id:
            heapq.heappush(self.ends, (now, scheduled.video_id))


class Pollers:
    """One independent poller for each video, as in other SDKs. After a 429 they wait 0.5 s, doubled up to 8 s.

    Those SDKs give up after a few 429s. These pollers never do, which is the best that users of the SDKs can achieve.
    """

    def __init__(self, simulation: Simulation, jobs: int, _: int, *, intervals: Callable[[], Iterator[float]]) -> None:
        self.simulation, self.intervals = simulation, intervals
        for _job in range(jobs):
            simulation.at(0.0, partial(self.send, RequestKind.SUBMIT, None, intervals(), 0))

    def send(self, kind: RequestKind, video_id: str | None, intervals: Iterator[float], throttled: int) -> None:
        self.simulation.send(kind, video_id, lambda reply: self.finish(kind, video_id, intervals, throttled, reply))

    def finish(
        self, kind: RequestKind, video_id: str | None, intervals: Iterator[float], throttled: int, reply: Reply
    ) -> None:
        if isinstance(reply.data, str):
            kind, video_id, intervals = RequestKind.GET, reply.data, self.intervals()
        pause = next(intervals)
        if reply.status_code == 429:
            pause = max(pause, min(0.5 * 2**throttled, 8.0))
            throttled += 1
        else:
            throttled = 0
        if isinstance(reply.data, Video):
            self.simulation.notice(reply.data)
        if video_id not in self.simulation.noticed:
            self.simulation.at(self.simulation.now + pause, partial(self.send, kind, video_id, intervals, throttled))


def growing(first: float, last: float, factor: float, polls: int = 1) -> Iterator[float]:
    """Yield intervals from ``first``, multiplied by ``factor`` before every ``polls``-th one, up to ``last``."""
    interval = first
    for number in itertools.count(1):
        yield interval
        if (number + 1) % polls == 0:
            interval = min(interval * factor, last)


class ThroughClient:
    """The real client, from its public methods down to HTTP, with a virtual clock.

    Args:
        scenario: The scenario.
        seed: The service's seed.
        calls: How many calls to make meanwhile, about one per minute.
    """

    def __init__(self, scenario: Scenario, seed: int, calls: int = 0) -> None:
        self.scenario, self.calls, self.random = scenario, calls, Random(seed)
        self.run = Run(WorldService(scenario.world, seed), {})
        self.waits: list[float] = []
        self.started = 0.0
        self.budget = SharedBudget() if scenario.shares_budget else None
        trio.run(self.main, clock=trio.testing.MockClock(autojump_threshold=0))

    async def main(self) -> None:
        self.started = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for videos in shares(self.scenario):
                tasks.start_soon(self.batch, videos)

    async def batch(self, videos: int) -> None:
        transport = self.run.service.transport()
        client = a2v.AsyncA2V("benchmark", base_url="https://a2v.example", transport=transport, budget=self.budget)
        async with client, anyio.create_task_group() as tasks:
            for _ in range(videos):
                tasks.start_soon(self.make, client)
            for _ in range(self.calls):
                tasks.start_soon(self.call, client, self.random.uniform(0, 60 * self.calls))

    async def make(self, client: a2v.AsyncA2V) -> None:
        task = await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/hello.wav")
        await task.wait()
        self.run.noticed[task.video_id] = anyio.current_time() - self.started

    async def call(self, client: a2v.AsyncA2V, delay: float) -> None:
        await anyio.sleep(delay)
        before = anyio.current_time()
        await client.characters.list()
        self.waits.append(anyio.current_time() - before - LATENCY)


# -- what is measured -------------------------------------------------------------------------------------------------


@frozen
class Scenario:
    """A batch on a service, with the upper bounds of the figures that `measure` returns.

    Attributes:
        name: What is printed.
        videos: The number of videos, divided among the clients.
        world: The service.
        bounds: The upper bounds.
        clients: The number of clients, each with connections of its own, as processes have.
        seeds: The number of runs.
        shares_budget: Whether the clients share a budget.
    """

    name: str
    videos: int
    world: World
    bounds: dict[str, float] = Factory(dict)
    clients: int = 1
    seeds: int = SEEDS
    shares_budget: bool = False


def shares(scenario: Scenario) -> list[int]:
    """Return how many videos each client has."""
    each, more = divmod(scenario.videos, scenario.clients)
    return [each + (number < more) for number in range(scenario.clients)]


ALONE: dict[str, float] = {"refused": 0, "most": LIMIT}
"""The bounds of whoever knows of every request of the account."""

SCENARIOS = [
    Scenario(
        "1 local render of 2 s",
        1,
        World(local, limiter=None),
        {"requests": 8, "delay": 0.8, "p95": 1.2},
    ),
    Scenario(
        "50 local renders of 2 s",
        50,
        World(local, limiter=None),
        {"requests": 8, "delay": 0.8, "p95": 1.2},
    ),
    Scenario("N = 1", 1, World(), {"requests": 125, "delay": 15, "late": 2}),
    Scenario("N = 30", 30, World(), {"requests": 27, "delay": 24, "p95": 60}),
    Scenario("N = 100", 100, World(), {"requests": 11, "delay": 72, "p95": 190, "turnaround": 1.12}),
    Scenario("N = 1000", 1000, World(), {"requests": 2.3, "turnaround": 1.1, "makespan": 1.1, "first": 900}),
    Scenario(
        "4 renderers x 60 s, N = 100",
        100,
        World(minute, renderers=4),
        {"requests": 8, "delay": 22, "p95": 110, "turnaround": 1.04},
    ),
    Scenario("list, N = 100", 100, World(listing=True), {"requests": 3.5, "delay": 15, "p95": 30}),
    Scenario("list, N = 1000", 1000, World(listing=True), {"requests": 1.5, "delay": 25, "p95": 60, "seconds": 2300}),
    Scenario("N = 100, 5 % of polls fail", 100, World(failing=0.05), {"requests": 11, "delay": 85, "p95": 220}),
    Scenario(
        "N = 100, server clock 90 s late",
        100,
        World(behind=90),
        {"requests": 11, "delay": 72, "p95": 190, "turnaround": 1.12},
    ),
    Scenario(
        "N = 100, no statuses",
        100,
        World(statuses=False),
        {"requests": 11, "delay": 72, "p95": 190, "turnaround": 1.12},
    ),
    Scenario(
        "2 processes, one token, 50 each",
        100,
        World(),
        {"requests": 12, "delay": 80, "p95": 200, "refused": 0.02},
        clients=2,
    ),
    Scenario(
        "the same, sliding window",
        100,
        World(limiter=sliding_window),
        {"requests": 12, "delay": 80, "p95": 200, "refused": 0.02},
        clients=2,
        seeds=15,  # the p95 delays are between 182 and 212 s, on average 194 s
    ),
    Scenario(
        "the same, token bucket",
        100,
        World(limiter=token_bucket),
        {"requests": 12, "delay": 80, "p95": 200, "refused": 0.02},
        clients=2,
    ),
    # Clients that share a budget, as if they were one.
    *(
        Scenario(name, 100, World(limiter=limiter), bounds | ALONE, clients=clients, shares_budget=True)
        for name, clients, limiter, bounds in [
            ("8 processes, one budget", 8, fixed_window, {"delay": 80}),
            ("the same, sliding window", 8, sliding_window, {"delay": 80}),
            ("the same, token bucket", 8, token_bucket, {"delay": 80}),
            ("16 processes, one budget", 16, fixed_window, {"requests": 10, "delay": 65}),
        ]
    ),
    Scenario(
        "16 processes, one budget, list",
        100,
        World(listing=True),
        {"requests": 3.5, "delay": 15} | ALONE,
        clients=16,
        shares_budget=True,
    ),
    Scenario(
        "64 processes, one budget, N = 1000",
        1000,
        World(),
        {"slower": 1.02} | ALONE,
        clients=64,
        seeds=1,
        shares_budget=True,
    ),
    # Clients that know of each other by the headers of responses only. At most 64 of them raise no error.
    Scenario("8 processes, one token", 100, World(), {"refused": 0.08, "delay": 80}, clients=8),
    Scenario("the same, sliding window", 100, World(limiter=sliding_window), {"refused": 0.12, "delay": 80}, clients=8),
    Scenario("the same, token bucket", 100, World(limiter=token_bucket), {"refused": 0.03, "delay": 80}, clients=8),
    Scenario("16 processes", 100, World(), {"requests": 12.5, "refused": 0.15, "delay": 80}, clients=16),
    Scenario("16 processes, list", 100, World(listing=True), {"requests": 10, "delay": 16}, clients=16, seeds=15),
    Scenario("64 processes, N = 1000", 1000, World(), {"end": 6500}, clients=64, seeds=1),
    Scenario("N = 100, sliding window", 100, World(limiter=sliding_window), {"requests": 11, "delay": 72, "p95": 190}),
    Scenario("N = 100, token bucket", 100, World(limiter=token_bucket), {"requests": 11, "delay": 72, "p95": 190}),
    # Servers that start with the newest, or with any: every third poll goes to the video polled least recently, so
    # none is unpolled for longer than 3 N polls of 2 s.
    Scenario("4 renderers, newest first", 100, World(minute, renderers=4, following=lambda n: n - 1), {"longest": 600}),
    Scenario(
        "4 renderers, any order",
        100,
        World(minute, renderers=4, following=lambda n: n * 7 % 3 * n // 3),
        {"longest": 600},
    ),
]

# The intervals that other SDKs use by default. OpenAI shut its video API down on 2026-09-24.
PEERS: dict[str, Callable[[], Iterator[float]]] = {
    "openai, every 1 s": partial(itertools.repeat, 1.0),
    "replicate, every 0.5 s": partial(itertools.repeat, 0.5),
    "fal, every 0.1 s": partial(itertools.repeat, 0.1),
    "runway, every 6 s": partial(itertools.repeat, 6.0),
    "comfy, 0.5 to 5 s": partial(growing, 0.5, 5.0, 1.5),
    "dashscope, 1 to 5 s": partial(growing, 1.0, 5.0, 2.0, polls=3),
}


Runner = Callable[["Scenario", int], Run]
Client = Callable[[Simulation, int, int], object]


def simulated(client: Client) -> Runner:
    """Return a function that runs a scenario with a seed."""

    def run(scenario: Scenario, seed: int) -> Run:
        simulation = Simulation(scenario.world, seed)
        for number, videos in enumerate(shares(scenario)):
            client(simulation, videos, seed * 100 + number)
        simulation.run(scenario.videos)
        return simulation

    return run


def through_client(scenario: Scenario, seed: int) -> Run:
    """Run a scenario with the real client."""
    return ThroughClient(scenario, seed).run


def figures(run: Run) -> dict[str, float]:
    """Return what a run cost, and how late its results were noticed."""
    service, noticed = run.service, run.noticed
    delays = sorted(noticed[video_id] - video.ends for video_id, video in service.videos.items())
    refused = sum(status == 429 for _, _, _, status in service.log)
    return {
        "requests": len(service.log) / len(delays),
        "delay": statistics.mean(delays),
        "p95": delays[min(len(delays) - 1, int(0.95 * len(delays)))],
        "longest": delays[-1],
        # How much later than the poll interval allows: it is sqrt(T / 2) after a render of T seconds.
        "late": max(noticed[key] - video.ends - math.sqrt(video.seconds / 2) for key, video in service.videos.items()),
        "seconds": statistics.mean(noticed.values()),
        "end": max(noticed.values()),
        "first": min(noticed.values()),
        "refused": refused / len(service.log),
        "most": most_in_a_window(service),
    }


def most_in_a_window(service: WorldService) -> int:
    """Return the highest number of requests in any minute, wherever the server's windows start."""
    times = [now for now, *_ in service.log]
    first, most = 0, 0
    for index, now in enumerate(times):
        while times[first] <= now - WINDOW:
            first += 1
        most = max(most, index - first + 1)
    return most


def measure(scenario: Scenario, runner: Runner) -> dict[str, float]:
    """Return the means over several seeds, and the maxima of figures with strict bounds."""
    runs = [figures(runner(scenario, seed)) for seed in range(scenario.seeds)]
    means = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    return means | {name: max(run[name] for run in runs) for name in ("longest", "late", "most")}


def measure_beside_oracle(scenario: Scenario, runner: Runner) -> dict[str, float]:
    """Return `measure`, with the turnaround and makespan as multiples of the oracle's, or of a single client's."""
    ours = measure(scenario, runner)
    if "slower" in scenario.bounds:
        return ours | {"slower": ours["end"] / measure(evolve(scenario, clients=1, shares_budget=False), runner)["end"]}
    if not {"turnaround", "makespan"} & scenario.bounds.keys():
        return ours
    oracle = measure(scenario, simulated(Oracle))
    return ours | {"turnaround": ours["seconds"] / oracle["seconds"], "makespan": ours["end"] / oracle["end"]}


# -- what is printed --------------------------------------------------------------------------------------------------

WORDS = {
    "requests": "requests/video",
    "delay": "mean delay s",
    "p95": "p95 delay s",
    "turnaround": "x oracle's turnaround",
    "makespan": "x oracle's makespan",
    "seconds": "turnaround s",
    "end": "makespan s",
    "slower": "x makespan of 1 process",
    "first": "first result s",
    "late": "delay - sqrt(T/2) s",
    "longest": "longest delay s",
    "refused": "of 429",
    "most": "in one minute",
}


def rows(runner: Runner) -> Iterator[bool]:
    """Measure and print one scenario after the other, and yield whether its bounds are met."""
    for scenario in SCENARIOS:
        if scenario.shares_budget and runner is not through_client:
            continue  # a shared budget needs the client
        reached = measure_beside_oracle(scenario, runner)
        bounds = dict(scenario.bounds)
        if scenario.clients == 1 and scenario.world.limiter:
            bounds |= ALONE
        cells = [
            f"{'' if reached[name] <= bound else 'MISSED '}{reached[name]:.3g} {WORDS[name]} (<= {bound:g})"
            for name, bound in bounds.items()
        ]
        print(f"{scenario.name:36}{'; '.join(cells)}", flush=True)
        yield all(reached[name] <= bound for name, bound in bounds.items())


def is_repeatable() -> bool:
    """Whether the same seed gives the same requests at the same times. Without trio, which shuffles on purpose."""
    runner = simulated(Ours)
    small = [scenario for scenario in SCENARIOS if scenario.videos < 1000 and not scenario.shares_budget]
    same = all(runner(scenario, 7).service.log == runner(scenario, 7).service.log for scenario in small)
    print(f"{'the same seed, twice':36}{'the same log' if same else 'MISSED: another log'}")
    return same


def calls_stay_quick() -> bool:
    """Whether calls wait for seconds, not minutes, during a batch of a thousand jobs."""
    worlds = [World(), World(listing=True)]
    waits = [wait for world in worlds for wait in ThroughClient(Scenario("", 1000, world), 0, calls=50).waits]
    met = max(waits) <= 10
    print(
        f"{'characters.list() during N = 1000':34}{'' if met else 'MISSED '}{statistics.mean(waits):.2g} s mean wait, "
        f"{max(waits):.2g} s longest (<= 10)"
    )
    return met


def compare(ours: Runner) -> None:
    """Print the same batches, followed by this client and by pollers with the intervals of other SDKs."""
    print(f"\n{'':28}{'requests/video':>16}{'429s':>10}{'mean delay s':>16}{'p95 delay s':>14}{'turnaround s':>15}")
    rivals = [("this client", World(), ours), ("this client, video.list", World(listing=True), ours)]
    for name, intervals in PEERS.items():
        rivals.append((name, World(), simulated(partial(Pollers, intervals=intervals))))
    for videos in (1, 10, 100):
        print(f"N = {videos}")
        for name, world, runner in rivals:
            reached = measure(Scenario(name, videos, world), runner)
            refused = reached["refused"] * reached["requests"] * videos
            print(
                f"  {name:26}{reached['requests']:16.1f}{refused:10,.0f}{reached['delay']:16.1f}"
                f"{reached['p95']:14.1f}{reached['seconds']:15.0f}",
                flush=True,
            )


def main() -> int:
    """Print both tables.

    Returns:
        1 if a bound was missed.
    """
    parser = argparse.ArgumentParser(description="Follow slow videos with thirty requests a minute, in virtual time.")
    parser.add_argument(
        "--pure", action="store_true", help="the rate limiter and the poll scheduler alone, without the client"
    )
    runner = simulated(Ours) if parser.parse_args().pure else through_client
    started = time.perf_counter()
    print("Virtual time, 0.2 s latency, mean of 5 seeds; delay = finished to noticed; requests include submits.\n")
    met = [*rows(runner), is_repeatable(), calls_stay_quick()]
    compare(runner)
    print(f"\n{time.perf_counter() - started:.0f} s of real time; bounds missed: {met.count(False)}")
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
