"""The test kit's service, with what the benchmarks draw at random: the same seed gives the same renders."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from attrs import frozen

from a2v._core.rate_limiter import RequestKind
from a2v._values.jobs import Job
from a2v._values.models import Video
from a2v.testing import FixedWindow, RateLimit, Service, SlidingWindow, TokenBucket
from a2v.testing._account import Render, Value

LIMIT, WINDOW = 30, 60.0
LATENCY = 0.2
_JOB = Job("eva_a0008", "https://example.com/hello.wav")
_CALLS = {
    RequestKind.CALL: "character.list",
    RequestKind.SUBMIT: "video.generate",
    RequestKind.GET: "video.get",
    RequestKind.LIST: "video.list",
}


def fixed_window(random: Random) -> RateLimit:
    """So many in each window of a minute; the windows begin whenever they do."""
    return FixedWindow(LIMIT, WINDOW, offset=random.uniform(0, WINDOW))


def sliding_window(_: Random) -> RateLimit:
    """So many in the minute before each arrival."""
    return SlidingWindow(LIMIT, WINDOW)


def token_bucket(_: Random) -> RateLimit:
    """A bucket of tokens that fills at an even rate."""
    return TokenBucket(LIMIT, WINDOW)


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
    limiter: Callable[[Random], RateLimit] | None = fixed_window
    listing: bool = False
    statuses: bool = True
    renderers: int | None = None
    following: Callable[[int], int] = lambda _: 0
    failing: float = 0.0
    behind: float = 0.0


@frozen
class Reply:
    """A service's answer; ``data`` are values, which only HTTP makes into JSON."""

    status_code: int
    headers: dict[str, str]
    data: Value | None = None


class WorldService(Service):
    """A world's service; with `arrive` it can be asked without HTTP and without an event loop."""

    def __init__(self, world: World, seed: int) -> None:
        random = Random(seed)
        # One generator for the videos: the same seed gives the same renders, whoever asks and however often.
        renders = Random(seed + 1)
        super().__init__(
            render_seconds=lambda _: world.render(renders),
            renderers=world.renderers,
            statuses=world.statuses,
            lists_videos=world.listing,
            limit=world.limiter(random) if world.limiter else None,
            latency=LATENCY,
            error_rate=world.failing,
            clock_skew=-world.behind,
            random=random,
        )
        self._following = world.following
        self._arrivals: list[tuple[float, str, str | None, int | None]] = []

    @property
    def log(self) -> list[tuple[float, str, str | None, int | None]]:
        """Every request: when it arrived, which call it was, about which video, and its status."""
        return self._arrivals or [(call.at, call.name, call.video_id, call.status) for call in self.calls]

    @property
    def videos(self) -> dict[str, Render]:
        """What was submitted."""
        return self._renders

    def arrive(self, now: float, kind: RequestKind, video_id: str | None = None) -> Reply:
        """Answer a request that arrives now."""
        self.advance(now)
        headers, refusal = self.admit(now)
        answer = refusal or self.answer(now, _CALLS[kind], video_id, _JOB if kind is RequestKind.SUBMIT else None)
        self._arrivals.append((now, _CALLS[kind], video_id, answer.status))
        return Reply(answer.status, headers, answer.value)

    def advance(self, now: float) -> None:
        """Let renderers that have become free begin with what waits."""
        self._advance(now)

    def _choose(self, waiting: int) -> int:
        return self._following(waiting)


def looks(data: Value | None) -> list[Video]:
    """The videos that a reply tells about."""
    return [each for each in (data if isinstance(data, list) else [data]) if isinstance(each, Video)]
