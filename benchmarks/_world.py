"""The test kit's service with random renders: the same seed gives the same renders."""

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
    """A limit per window of a minute. The windows start at a random offset."""
    return FixedWindow(LIMIT, WINDOW, offset=random.uniform(0, WINDOW))


def sliding_window(_: Random) -> RateLimit:
    """A limit for the minute before each request."""
    return SlidingWindow(LIMIT, WINDOW)


def token_bucket(_: Random) -> RateLimit:
    """A bucket of tokens that fills at a constant rate."""
    return TokenBucket(LIMIT, WINDOW)


def minutes_15(random: Random) -> float:
    """A render of the hosted service: lognormal, with a median of a quarter of an hour."""
    return random.lognormvariate(math.log(900), 0.4)


def minute(_: Random) -> float:
    """A render on a small service."""
    return 60.0


def local(_: Random) -> float:
    """A render on the same machine."""
    return 2.0


@frozen
class World:
    """The behaviour of a service.

    Attributes:
        render: Returns the duration of a render.
        limiter: The rate limit; ``None``: no limit, and no headers about it.
        listing: Whether it has ``video.list``.
        statuses: Whether it reports statuses.
        renderers: How many videos it renders at a time; ``None``: all.
        following: Chooses the next of the waiting videos: returns a position for their number.
        failing: The share of polls that fail.
        behind: Seconds by which its clock is slow.
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
    """A response with values as ``data``, before they become JSON."""

    status_code: int
    headers: dict[str, str]
    data: Value | None = None


class WorldService(Service):
    """The service of a world. `arrive` needs neither HTTP nor an event loop."""

    def __init__(self, world: World, seed: int) -> None:
        random = Random(seed)
        # A separate generator, so that the renders do not depend on the requests.
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
        """All requests: time of arrival, method, video id and status."""
        return self._arrivals or [(call.at, call.name, call.video_id, call.status) for call in self.calls]

    @property
    def videos(self) -> dict[str, Render]:
        """The submitted videos."""
        return self._renders

    def arrive(self, now: float, kind: RequestKind, video_id: str | None = None) -> Reply:
        """Return the response to a request that arrives now."""
        self.advance(now)
        headers, refusal = self.admit(now)
        answer = refusal or self.answer(now, _CALLS[kind], video_id, _JOB if kind is RequestKind.SUBMIT else None)
        self._arrivals.append((now, _CALLS[kind], video_id, answer.status))
        return Reply(answer.status, headers, answer.value)

    def advance(self, now: float) -> None:
        """Start waiting renders on free renderers."""
        self._advance(now)

    def _choose(self, waiting: int) -> int:
        return self._following(waiting)


def snapshots(data: Value | None) -> list[Video]:
    """Return the videos in a response."""
    return [each for each in (data if isinstance(data, list) else [data]) if isinstance(each, Video)]
