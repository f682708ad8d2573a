"""No public object hands its secret on: not in a pickle, a copy, ``vars``, ``attrs.asdict``, ``repr``, or a traceback."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import attrs
import pytest

import a2v
from a2v import staging, testing
from a2v._core.settings import Secret
from tests.labels import label

from .conftest import CANARY, shown

JOB = a2v.Job("eva_a0008", "https://example.com/a.wav")


def blocking() -> a2v.A2V:
    return a2v.A2V(CANARY, transport=testing.Service().transport())


def client() -> a2v.AsyncA2V:
    return a2v.AsyncA2V(CANARY, transport=testing.Service().transport())


# Each object that holds a secret, and what the error says to pass instead.
HOLDERS: dict[str, tuple[Any, str]] = {
    "Secret": (lambda: Secret(CANARY), "pass it in another way"),
    "Session": (lambda: client()._session, "make another one there"),
    "AsyncA2V": (client, "make another client there"),
    "AsyncVideos": (lambda: client().videos, "make another client there"),
    "AsyncCharacters": (lambda: client().characters, "make another client there"),
    "AsyncAvatars": (lambda: client().avatars, "make another client there"),
    "AsyncVideoTask": (lambda: client().videos.task("v1"), "pass its video_id"),
    "AsyncBatch": (lambda: client().batch([JOB]), "pass its jobs"),
    "A2V": (blocking, "make another client there"),
    "Videos": (lambda: blocking().videos, "make another client there"),
    "Characters": (lambda: blocking().characters, "make another client there"),
    "Avatars": (lambda: blocking().avatars, "make another client there"),
    "VideoTask": (lambda: blocking().videos.task("v1"), "pass its video_id"),
    "Batch": (lambda: blocking().batch([JOB]), "pass its jobs"),
    "AsyncStager": (lambda: staging.AsyncStager("s3://bucket/prefix"), "make another one there"),
    "Stager": (lambda: staging.Stager("s3://bucket/prefix"), "make another one there"),
    "Stage": (lambda: staging.stage("a.wav", "s3://bucket/prefix"), "make another one there"),
}


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize(
    "travel",
    [
        *(lambda held, protocol=protocol: pickle.dumps(held, protocol) for protocol in range(6)),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_objects_with_a_secret_say_what_to_pass_instead(name, travel) -> None:
    make, instead = HOLDERS[name]
    held = make()
    for each in (held, [held], {"client": held}):
        if travel is copy.copy and each is not held:
            continue
        with pytest.raises(
            TypeError, match=f"^{name if name != 'Secret' else 'a secret'} can be neither .*: {instead}"
        ):
            travel(each)


def test_each_public_class_was_thought_of() -> None:
    """A class that is new either holds a secret and is in the table, or holds none and is one of the values."""
    values = {"Avatar", "Character", "Job", "JobState", "JournalEntry", "Outcome", "Pace", "Pose", "Progress"}
    values |= {"RowError", "Speech", "Video", "VideoStatus", "Voice", "Word"}
    classes = {name for name in a2v.__all__ if inspect.isclass(getattr(a2v, name))}
    errors = {name for name in classes if issubclass(getattr(a2v, name), a2v.A2VError)}
    assert classes - errors - values <= set(HOLDERS)
    assert {name for name in staging.__all__ if inspect.isclass(getattr(staging, name))} <= set(HOLDERS)


@pytest.mark.parametrize("name", HOLDERS)
def test_objects_with_a_secret_do_not_show_it(name) -> None:
    held = HOLDERS[name][0]()
    parts = [repr(held), str(held), f"{held!r:>5}"]
    if hasattr(held, "__dict__"):
        parts.append(str(vars(held)))
    if attrs.has(type(held)):
        parts.append(str(attrs.asdict(held)))
    assert CANARY not in "".join(parts)


@attrs.frozen
class Settings:
    token: Secret


def test_a_secret_in_a_class_of_attrs_stays_one() -> None:
    settings = Settings(Secret(CANARY))
    assert CANARY not in str(attrs.asdict(settings)) + str(attrs.astuple(settings)) + repr(settings)
    with pytest.raises(TypeError, match="a secret"):
        pickle.dumps(settings)


def test_secrets_are_equal_if_their_values_are() -> None:
    assert Secret(CANARY) == Secret(CANARY) != Secret("other")
    assert Secret(CANARY) != CANARY
    assert {Secret(CANARY): 1}[Secret(CANARY)] == 1


BAD: list[dict[str, Any]] = [
    {"base_url": "nonsense"},
    {"base_url": ""},
    {"timeout": -1},
    {"max_retries": "3"},
    {"rate_limit": 0},
    {"transport": object()},
    {"token": CANARY + "\n"},
    {"token": CANARY + "ü"},
    {"token": CANARY.encode()},
    {"token": [CANARY]},
]


@pytest.mark.parametrize("make", [a2v.AsyncA2V, a2v.A2V])
@pytest.mark.parametrize("bad", BAD, ids=label)
def test_a_client_that_cannot_be_made_shows_no_token(make, bad) -> None:
    with pytest.raises(a2v.ConfigurationError) as caught:
        make(**{"token": CANARY, **bad})
    assert CANARY not in shown(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": f"s3://user:{CANARY}@bucket/x"},
        {"to": f"s3://bucket/x?key={CANARY}"},
        {"to": "s3://bucket", "expires_in": 0},
    ],
)
def test_a_stager_whose_construction_failed_shows_no_secret(arguments) -> None:
    with pytest.raises(a2v.A2VError) as caught:
        staging.Stager(**arguments)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("kind", [staging.Stager, staging.AsyncStager])
@pytest.mark.parametrize("to", ["", "s3://", "bucket", None])
def test_a_stager_that_could_not_be_made_can_be_shown_in_a_traceback(kind: Any, to: Any) -> None:
    with pytest.raises(a2v.A2VError) as caught:
        kind(to)
    assert "not made" in shown(caught.value)


def test_so_can_a_staged_file() -> None:
    with pytest.raises(a2v.A2VError) as caught:
        staging.stage("\0", "s3://bucket/prefix")
    assert "s3://bucket" in shown(caught.value)
