"""Errors travel: between processes, into logs, through copies."""

from __future__ import annotations

import copy
import pickle

import pytest

import a2v
from a2v import errors

JOB = a2v.Job("eva_a0008", "https://example.com/hello.wav", "hello")
VIDEO = a2v.Video(video_id="v", status=a2v.VideoStatus.FAILED, video_url="https://x/v", raw={"message": "silence"})

EXAMPLES = [
    a2v.A2VError("something"),
    a2v.InvalidArgumentError("timeout must be a number"),
    a2v.InvalidStateError("a batch can only be entered once"),
    a2v.ConfigurationError("no token"),
    a2v.ManifestError("jobs.csv", faults=(a2v.RowError(3, "audio_url", "it is missing or empty"),)),
    a2v.AmbiguousJobsError("which?", pairs=((0, a2v.JournalEntry(job=JOB, state=a2v.JobState.DONE)),)),
    a2v.TransportError("refused"),
    a2v.APIError("no", code=7, status_code=400),
    a2v.AuthenticationError("who?", status_code=401),
    a2v.PermissionDeniedError("no", code=403, status_code=403),
    a2v.NotFoundError("where?", code=10001, status_code=200),
    a2v.RateLimitError("slower", code=1009, status_code=429, retry_after=7.5),
    a2v.ServerError("oops", status_code=502),
    a2v.ProtocolError("what?"),
    a2v.SubmissionUnknownError("perhaps", job=JOB),
    a2v.VideoFailedError("silence", video=VIDEO),
    a2v.WaitTimeoutError("patience", video_id="v", video=VIDEO, waited=7200.5),
    a2v.DownloadError("gone"),
    a2v.JournalError("corrupt"),
    a2v.StagingError("no such bucket"),
    a2v.ClientClosedError("closed"),
]


def test_there_is_an_example_of_each() -> None:
    assert {type(error).__name__ for error in EXAMPLES} == set(errors.__all__)
    assert set(errors.__all__) <= set(a2v.__all__)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "travel",
    [
        *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_nothing_is_lost_on_the_way(error, travel) -> None:
    error.video_id, error.video, error.waited = "v", VIDEO, 3.5  # what a wait that it ends adds
    error.add_note("said by the way")
    arrived = travel(error)
    assert arrived is not error
    assert type(arrived) is type(error)
    assert (str(arrived), repr(arrived), arrived.args) == (str(error), repr(error), error.args)
    assert vars(arrived) == vars(error)
    if arrived.video:
        assert arrived.video.raw == VIDEO.raw


def test_an_error_of_no_wait_has_no_facts_of_one() -> None:
    error = a2v.TransportError("refused")
    assert (error.video_id, error.video, error.waited) == (None, None, None)


def test_what_an_api_error_says() -> None:
    assert str(a2v.APIError("no", status_code=400)) == "no (HTTP 400)"
    assert str(a2v.APIError("no", code=0, status_code=400)) == "no (HTTP 400, code 0)"


def test_the_tree() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert all(issubclass(kind, a2v.A2VError) for kind in kinds)
    assert issubclass(a2v.ConfigurationError, ValueError)
    assert issubclass(a2v.ManifestError, ValueError)
    assert issubclass(a2v.WaitTimeoutError, TimeoutError)
    drawn = [line.split("──")[1].split()[0] for line in errors.__doc__.splitlines() if "──" in line]
    assert {"A2VError", *drawn} == set(errors.__all__)
    api = {kind.__name__ for kind in kinds if issubclass(kind, a2v.APIError)} - {"APIError"}
    assert {line.split("──")[1].split()[0] for line in errors.__doc__.splitlines() if "│   " in line} == api
