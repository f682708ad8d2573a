"""How long to wait before a retry."""

from __future__ import annotations

import pytest

from a2v._core.responses import backoff


@pytest.mark.parametrize("attempt", [*range(50), 5000])
def test_the_backoff_grows_to_a_maximum(attempt) -> None:
    least, most = backoff(attempt, 0.0), backoff(attempt, 0.999)
    assert 0.25 <= least < most <= 8
    assert least <= backoff(attempt + 1, 0.0)


def test_siblings_do_not_come_back_together() -> None:
    assert len({backoff(0, n / 10) for n in range(10)}) == 10
