"""Which character or pose a user means."""

from __future__ import annotations

import re

import pytest

from a2v import Avatar, Character, Pose
from a2v._core.speakers import Speakers

KNOWN = Speakers.of(
    [
        Character(model_id="eva_a0008", display_name="Eva 01"),
        Character(model_id="leo_a0004", name="leo", display_name="Leo"),
        Character(model_id="leo_a0005", display_name="Leo"),
        Avatar(avatar_id="omar", poses=(Pose(pose_id="omar-front"), Pose(pose_id="omar-side"))),
    ]
)


@pytest.mark.parametrize(
    ("column", "text", "chosen"),
    [
        ("model_id", "eva_a0008", "eva_a0008"),
        ("model_id", "eva-01", "eva_a0008"),
        ("model_id", " EVA 01", "eva_a0008"),
        ("pose_id", "omar-side", "omar-side"),
        ("avatar_id", "anything", "anything"),
    ],
)
def test_an_id_or_a_unique_name_is_a_choice(column: str, text: str, chosen: str) -> None:
    assert KNOWN.resolve(column, text) == chosen


@pytest.mark.parametrize(
    ("column", "text", "problem"),
    [
        ("model_id", "eva_a0009", "there is no character 'eva_a0009'; did you mean 'eva_a0008'?"),
        ("model_id", "Eva 1", "there is no character 'Eva 1'; did you mean 'eva_a0008'?"),
        ("model_id", "leo", "2 characters are called 'leo': use one of 'leo_a0004', 'leo_a0005'"),
        ("model_id", "zoltan", "there is no character 'zoltan'; use one of 'eva_a0008', 'leo_a0004', 'leo_a0005'"),
        ("pose_id", "omar-frnt", "there is no pose 'omar-frnt'; did you mean 'omar-front'?"),
        ("pose_id", "Eva 01", "there is no pose 'Eva 01'; use one of 'omar-front', 'omar-side'"),
    ],
)
def test_the_error_about_any_other_text_helps(column: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        KNOWN.resolve(column, text)
