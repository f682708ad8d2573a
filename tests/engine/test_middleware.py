"""The rate limit, with a fake clock."""

from __future__ import annotations

from a2v.engine.middleware import RequestLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_030.0

    def __call__(self) -> float:
        return self.now


def test_requests_over_the_limit_are_refused():
    limiter = RequestLimiter(2, Clock())
    assert [limiter.acquire() for _ in range(3)] == [True, True, False]
    assert limiter.headers() == {
        "X-Ratelimit-Total": "2",
        "X-Ratelimit-Left": "0",
        "X-Ratelimit-Reset": "1000000080",
    }


def test_the_window_restarts_at_the_reset():
    clock = Clock()
    limiter = RequestLimiter(2, clock)
    limiter.acquire()
    clock.now = 1_000_000_079.9
    assert limiter.headers()["X-Ratelimit-Left"] == "1"
    clock.now = 1_000_000_080.0
    assert limiter.headers() == {
        "X-Ratelimit-Total": "2",
        "X-Ratelimit-Left": "2",
        "X-Ratelimit-Reset": "1000000140",
    }
