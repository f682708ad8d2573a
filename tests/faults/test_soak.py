"""A day in the life of a batch: a thousand jobs, and everything that happens to a service in a day."""

from __future__ import annotations

import gc
import json
import random
from collections import Counter, deque

import anyio
import httpx
import pytest
from attrs import define, field

import a2v
from tests.sets import one_by_default

from .virtual import Memory, call_of, in_virtual_time, success

HOUR = 3600.0
JOBS = 1000
LIMIT = 30
# In which hours the service refuses connections, answers 502, or accepts jobs and then breaks off; and for how many seconds.
OUTAGES = [(2.0, 300, "refused"), (5.0, 420, "502"), (8.0, 600, "breaks"), (9.5, 15, "refused"), (15.0, 240, "502")]
# Somebody else uses the account's budget in these hours.
BUSY = (3.0, 4.0)
# From when on the first token is refused.
EXPIRY = 11.0
WORKERS, RENDER = 24, (10 * 60.0, 45 * 60.0)


@define
class Day:
    """The service: so many renders at once, thirty requests in any minute, and its troubles.

    Attributes:
        renders: When each job began and ends, in the order of submission, by its place there.
        submissions: How often each recording was accepted.
        answered: The times of the requests of the last minute, and of all: how many were refused.
    """

    began: float
    dice: random.Random = field(factory=lambda: random.Random(3))
    ends: list[float] = field(factory=list)
    free: list[float] = field(factory=lambda: [0.0] * WORKERS)
    submissions: Counter[str] = field(factory=Counter)
    minute: deque[float] = field(factory=deque)
    others: float = 0.0
    counts: Counter[str] = field(factory=Counter)

    def answer(self, request: httpx.Request) -> httpx.Response | Exception:
        now = anyio.current_time() - self.began
        trouble = next((kind for hour, lasts, kind in OUTAGES if hour * HOUR <= now < hour * HOUR + lasts), None)
        if trouble == "refused":
            return httpx.ConnectError("refused")
        self.counts["requests"] += 1
        self._others(now)
        while self.minute and self.minute[0] <= now - 60:
            self.minute.popleft()
        if len(self.minute) >= LIMIT:
            self.counts["429"] += 1
            return self._limited(httpx.Response(429, content=b"{code: 1009}"), now)
        self.minute.append(now)
        if trouble == "502":
            return httpx.Response(502, content=b"<html>")
        if now >= EXPIRY * HOUR and request.headers["authorization"] == "Bearer first":
            return self._limited(httpx.Response(401, content=b""), now)
        reply = self._limited(self._do(request, now), now)
        return httpx.ReadError("gone") if trouble == "breaks" and request.method == "POST" else reply

    def _others(self, now: float) -> None:
        """Fifteen requests a minute."""
        if BUSY[0] * HOUR <= now < BUSY[1] * HOUR and now - self.others >= 4:
            self.others = now
            self.minute.append(now)

    def _limited(self, reply: httpx.Response, now: float) -> httpx.Response:
        reset = self.minute[0] + 60 - now if self.minute else 0
        reply.headers["x-ratelimit-total"] = str(LIMIT)
        reply.headers["x-ratelimit-left"] = str(LIMIT - len(self.minute))
        reply.headers["x-ratelimit-reset"] = f"{max(reset, 0):.0f}"
        return reply

    def _do(self, request: httpx.Request, now: float) -> httpx.Response:
        call = call_of(request)
        if call == "video.generate":
            self.submissions[json.loads(request.content)["audio_url"]] += 1
            begins = max(now, min(self.free))
            self.free[self.free.index(min(self.free))] = begins + self.dice.uniform(*RENDER)
            self.ends.append(begins + self.dice.uniform(*RENDER))
            return success({"video_id": f"v{len(self.ends) - 1}"})
        if call == "video.get":
            return success(self._look(request.url.params["video_id"], now))
        return httpx.Response(404, content=b"")

    def _look(self, video_id: str, now: float) -> dict[str, object]:
        number = int(video_id[1:])
        if now < self.ends[number]:
            return {"video_id": video_id, "status": "in_progressing"}
        if number % 50 == 7:
            return {"video_id": video_id, "status": "error"}
        return {"video_id": video_id, "status": "finished", "video_url": f"https://files.example/{video_id}.mp4"}


@define
class Ledger:
    """What is known of each job in the end."""

    ended: dict[int, str] = field(factory=dict)
    alive: list[int] = field(factory=list)


async def work_through(day: Day, jobs: list[a2v.Job]) -> Ledger:
    ledger = Ledger()
    async with a2v.AsyncA2V("first", transport=Memory(day.answer)) as client:
        left, watched = await run_batch(client, list(enumerate(jobs)), ledger)
    # The token is refused by now. Nothing is lost: what was submitted is picked up by its id, the rest is submitted.
    async with a2v.AsyncA2V("second", transport=Memory(day.answer)) as client, anyio.create_task_group() as group:
        group.start_soon(run_batch, client, [(index, jobs[index]) for index in left], ledger)
        async for video in client.videos.watch(*watched):
            if video.is_terminal:
                ledger.ended[watched[video.video_id]] = video.status.value
    return ledger


async def run_batch(
    client: a2v.AsyncA2V, jobs: list[tuple[int, a2v.Job]], ledger: Ledger
) -> tuple[list[int], dict[str, int]]:
    """What the token's end left: jobs that were not submitted, and videos that go on."""
    left, watched = [], {}
    client._session._custom_transport.requests = deque(maxlen=100)
    async with client.batch([job for _, job in jobs], max_in_flight=60) as batch:
        async for outcome in batch:
            index = jobs[outcome.index][0]
            match outcome.error:
                case None:
                    ledger.ended[index] = "finished"
                case a2v.VideoFailedError():
                    ledger.ended[index] = "error"
                case a2v.SubmissionUnknownError():
                    ledger.ended[index] = "unknown"
                case a2v.AuthenticationError(video_id=None):
                    left.append(index)
                case a2v.AuthenticationError(video_id=video_id):
                    watched[video_id] = index
                case error:
                    raise error
            if len(ledger.ended) % 100 == 50 and len(ledger.ended) // 100 == len(ledger.alive):
                gc.collect()
                ledger.alive.append(sum(str(type(each).__module__).startswith("a2v") for each in gc.get_objects()))
    return left, watched


@pytest.mark.parametrize(
    ("backend", "number"), one_by_default(("asyncio", JOBS // 10), ("trio", JOBS // 10), ("asyncio", JOBS))
)
def test_a_day(backend, number) -> None:
    jobs = [a2v.Job("eva_a0008", f"https://example.com/{index}.wav") for index in range(number)]
    days: list[Day] = []

    async def main() -> Ledger:
        days.append(Day(anyio.current_time()))
        return await work_through(days[0], jobs)

    ledger = in_virtual_time(main, backend=backend)
    (day,) = days
    # Every job has ended, and none was paid for twice.
    assert sorted(ledger.ended) == list(range(number))
    assert set(day.submissions.values()) == {1}
    # What was not accepted is in doubt, and it says so: the service broke off, or said 502, for 24 minutes of the day.
    accepted = {index for index, job in enumerate(jobs) if job.audio_url in day.submissions}
    assert {index for index in range(number) if index not in accepted} <= {
        index for index, end in ledger.ended.items() if end == "unknown"
    }
    told = Counter(ledger.ended.values())
    assert told["unknown"] <= number // 100
    assert told["error"] >= number // 100
    assert told["finished"] == number - told["error"] - told["unknown"]
    # Whoever shares the budget in the fourth hour is found out by being refused.
    assert day.counts["429"] <= 10
    # After 150 jobs, after 250 and so on, no more objects are alive than after 50.
    assert max(ledger.alive) < ledger.alive[0] * 1.1
