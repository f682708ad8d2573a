"""The rate limit, with a clock of its own."""

from __future__ import annotations

from a2v.engine.middleware import RequestLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_030.0

    def __call__(self) -> float:
        return self.now


def test_so_many_in_a_minute_and_then_no_more():
    budget = RequestLimiter(2, Clock())
    assert [budget.take() for _ in range(3)] == [True, True, False]
    assert budget.headers() == {
        "X-Ratelimit-Total": "2",
        "X-Ratelimit-Left": "0",
        "X-Ratelimit-Reset": "1000000080",
    }


def test_the_reset_is_kept():
    clock = Clock()
    budget = RequestLimiter(2, clock)
    budget.take()
    clock.now = 1_000_000_079.9
    assert budget.headers()["X-Ratelimit-Left"] == "1"
    clock.now = 1_000_000_080.0
    assert budget.headers() == {
        "X-Ratelimit-Total": "2",
        "X-Ratelimit-Left": "2",
        "X-Ratelimit-Reset": "1000000140",
    }
