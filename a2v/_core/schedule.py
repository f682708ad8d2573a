"""When to look at a video again."""

from __future__ import annotations

from math import sqrt


def gap(age: float) -> float:
    """Seconds until a video is looked at again that has been in its present state for ``age`` seconds.

    Half a second for a local render of two, 5 s at 50 s, 21 s at a quarter of an hour, never more than a minute.
    """
    return max(0.5, min(age / 3, sqrt(age / 2), 60.0))
