"""A video service of our own, under virtual time: what it does to a request depends on nothing but when it arrives."""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from random import Random
from typing import Protocol

import anyio
import httpx
from attrs import define, frozen

from a2v._core import wire
from a2v._core.budget import Kind
from a2v._core.models import Video, VideoStatus

LIMIT, WINDOW = 30, 60.0
LATENCY = 0.2
_EPOCH = 1_700_000_000.0


class Limiter(Protocol):
    """Counts arrivals as some server does."""

    def arrive(self, now: float) -> tuple[bool, int, float]:
        """Whether it may pass, how many are left, and when the server says that it resets."""


class FixedWindow:
    """So many in each window of a minute; the windows begin whenever they do."""

    def __init__(self, random: Random) -> None:
        self._phase = random.uniform(0, WINDOW)
        self._window, self._count = -1, 0

    def arrive(self, now: float) -> tuple[bool, int, float]:
        window = math.floor((now + self._phase) / WINDOW)
        if window != self._window:
            self._window, self._count = window, 0
        self._count += 1
        return self._count <= LIMIT, max(0, LIMIT - self._count), (window + 1) * WINDOW - self._phase


class SlidingWindow:
    """So many in the minute before each arrival."""

    def __init__(self, _: Random) -> None:
        self._log: deque[float] = deque()

    def arrive(self, now: float) -> tuple[bool, int, float]:
        while self._log and self._log[0] <= now - WINDOW:
            self._log.popleft()
        if passes := len(self._log) < LIMIT:
            self._log.append(now)
        return passes, LIMIT - len(self._log), self._log[0] + WINDOW


class TokenBucket:
    """A bucket of tokens that fills at an even rate."""

    def __init__(self, _: Random) -> None:
        self._tokens, self._seen = float(LIMIT), 0.0

    def arrive(self, now: float) -> tuple[bool, int, float]:
        self._tokens = min(LIMIT, self._tokens + (now - self._seen) * LIMIT / WINDOW)
        self._seen = now
        if passes := self._tokens >= 1:
            self._tokens -= 1
        return passes, int(self._tokens), now + (LIMIT - self._tokens) * WINDOW / LIMIT


def minutes_15(random: Random) -> float:
    """A hosted render: lognormal, a quarter of an hour in the median."""
    return random.lognormvariate(math.log(900), 0.4)


def minute(_: Random) -> float:
    """A render on a small service."""
    return 60.0


def local(_: Random) -> float:
    """A render on the same machine."""
    return 2.0


@frozen
class World:
    """How a service behaves.

    Attributes:
        render: Draws how long a video takes.
        limiter: How it counts requests; ``None`` for a service without limits, and without headers about them.
        listing: Whether it has ``video.list``.
        statuses: Whether it says in words where a video is.
        renderers: How many videos it works on at a time; ``None`` for all.
        following: Which of the waiting videos is next: their number becomes a place in the line.
        failing: The share of looks that fail.
        behind: How many seconds its clock is late.
    """

    render: Callable[[Random], float] = minutes_15
    limiter: Callable[[Random], Limiter] | None = FixedWindow
    listing: bool = False
    statuses: bool = True
    renderers: int | None = None
    following: Callable[[int], int] = lambda _: 0
    failing: float = 0.0
    behind: float = 0.0


@define
class Rendering:
    """When a video starts and ends, and how it looks before, between and after."""

    seconds: float
    looks: tuple[Video, Video, Video]
    starts: float = math.inf
    ends: float = math.inf

    def start(self, now: float) -> None:
        self.starts, self.ends = now, now + self.seconds

    def look(self, now: float) -> Video:
        return self.looks[(now >= self.starts) + (now >= self.ends)]


@frozen
class Reply:
    """A service's answer; ``data`` are values, which only the HTTP face makes into JSON."""

    status_code: int
    headers: dict[str, str]
    data: str | Video | list[Video] | None = None


class FakeService:
    """A video service without a clock: every request comes with the time of its arrival."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.log: list[tuple[float, Kind, str | None, int]] = []
        self.videos: dict[str, Rendering] = {}
        self._random = Random(seed)
        self._limiter = world.limiter(self._random) if world.limiter else None
        # One generator for the videos: the same seed gives the same renders, whoever asks and however often.
        self._renders = Random(seed + 1)
        self._free_at = [0.0] * (world.renderers or 0)
        self._waiting: list[Rendering] = []

    def handle(self, now: float, kind: Kind, video_id: str | None = None) -> Reply:
        """Answer a request that arrives now."""
        self.advance(now)
        reply = self._handle(now, kind, video_id)
        self.log.append((now, kind, video_id, reply.status_code))
        return reply

    def _handle(self, now: float, kind: Kind, video_id: str | None) -> Reply:
        headers = {"date": formatdate(math.floor(_EPOCH + now - self.world.behind), usegmt=True)}
        if self._limiter:
            passes, left, resets = self._limiter.arrive(now)
            headers["x-ratelimit-total"] = str(LIMIT)
            headers["x-ratelimit-left"] = str(left)
            headers["x-ratelimit-reset"] = str(math.ceil(_EPOCH + resets - self.world.behind))
            if not passes:
                return Reply(429, headers)
        if kind in (Kind.GET, Kind.LIST) and self._random.random() < self.world.failing:
            return Reply(500, headers)
        data = self._answer(now, kind, video_id)
        return Reply(404 if data is None else 200, headers, data)

    def _answer(self, now: float, kind: Kind, video_id: str | None) -> str | Video | list[Video] | None:
        if kind is Kind.SUBMIT:
            return self._submit(now)
        if kind is Kind.LIST:
            return [video.look(now) for video in self.videos.values()] if self.world.listing else None
        if kind is Kind.GET:
            return self.videos[video_id].look(now) if video_id in self.videos else None
        return []

    def _submit(self, now: float) -> str:
        video_id = f"video-{len(self.videos):05}"
        waiting = VideoStatus.PENDING if self.world.statuses else VideoStatus.IN_PROGRESS
        looks = (
            Video(video_id=video_id, status=waiting),
            Video(video_id=video_id, status=VideoStatus.IN_PROGRESS),
            Video(video_id=video_id, status=VideoStatus.FINISHED, video_url=f"https://cdn.example/{video_id}.mp4"),
        )
        self.videos[video_id] = rendering = Rendering(self.world.render(self._renders), looks)
        if not self.world.renderers:
            rendering.start(now)
        else:
            if not self._waiting and self._free_at[0] < now:
                heapq.heapreplace(self._free_at, now)
            self._waiting.append(rendering)
            self.advance(now)
        return video_id

    def advance(self, now: float) -> None:
        """Let renderers that have become free begin with what waits."""
        while self._waiting and self._free_at[0] <= now:
            rendering = self._waiting.pop(self.world.following(len(self._waiting)))
            rendering.start(self._free_at[0])
            heapq.heapreplace(self._free_at, rendering.ends)


class ServiceTransport(httpx.AsyncBaseTransport):
    """The service's HTTP face, for the real client under virtual time."""

    def __init__(self, service: FakeService, started: float) -> None:
        self.service, self._started = service, started

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(LATENCY / 2)
        kinds = {wire.VIDEO_GENERATE: Kind.SUBMIT, wire.VIDEO_GET: Kind.GET, wire.VIDEO_LIST: Kind.LIST}
        kind = kinds.get(request.url.path, Kind.CALL)
        reply = self.service.handle(anyio.current_time() - self._started, kind, request.url.params.get("video_id"))
        # What arrived in one instant is answered in the order of its arrival, for nothing is quite at once.
        await anyio.sleep(LATENCY / 2 + len(self.service.log) * 1e-6)
        body = wire.success(self._data(reply)) if reply.status_code == 200 else wire.refusal(reply.status_code, "no")
        return httpx.Response(reply.status_code, headers=reply.headers, content=json.dumps(body))

    def _data(self, reply: Reply) -> object:
        if isinstance(reply.data, str):
            return {"video_id": reply.data}
        videos = reply.data if isinstance(reply.data, list) else [reply.data] if reply.data else []
        data = [wire.video_data(video) for video in videos]
        if not self.service.world.statuses:
            for video in data:
                del video["status"]
        return data if isinstance(reply.data, list) else data[0] if data else None
