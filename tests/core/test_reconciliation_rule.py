"""Which video must be the result of a submission with an unknown outcome."""

from __future__ import annotations

import pytest

from a2v._core.reconciliation import match_unknown


@pytest.mark.parametrize(
    ("unknown", "known", "listed", "found"),
    [
        pytest.param({"a": 1}, {}, {"new"}, {"a": "new"}, id="the only new one"),
        pytest.param({"a": 1}, {"old": 1}, {"old", "new"}, {"a": "new"}, id="beside an older one"),
        pytest.param({"a": 1}, {"own": 0}, {"own"}, {}, id="our own are not matched"),
        pytest.param({"a": 1}, {"old": 1}, {"old"}, {}, id="it did not arrive"),
        pytest.param({"a": 1}, {}, {"one", "other"}, {}, id="it could be either"),
        pytest.param({"a": 1, "b": 1}, {}, {"new"}, {}, id="it could be for either"),
        pytest.param({"a": 1, "b": 2}, {"x": 2}, {"x"}, {"a": "x"}, id="there before the second run, so of the first"),
        pytest.param({"a": 1, "b": 2}, {"x": 2}, {"x", "y"}, {}, id="the first could be either"),
        pytest.param({"a": 1}, {"x": 3}, {"x"}, {"a": "x"}, id="seen since, by a later run"),
        pytest.param({}, {}, {"new"}, {}, id="nothing unknown"),
        pytest.param({"a": 1}, {}, set(), {}, id="nothing there"),
    ],
)
def test_only_a_video_without_another_possible_origin_is_matched(unknown, known, listed, found) -> None:
    assert match_unknown(unknown, known, listed) == found
