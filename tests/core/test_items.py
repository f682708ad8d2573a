"""The states of an item, what may be concluded about one in doubt, and what may be written down of it."""

from __future__ import annotations

import pytest

import a2v
from a2v._core.job_errors import error_record, restored, state_after
from a2v._core.job_transitions import PREDECESSORS
from a2v._core.reconciliation import match_unknown
from a2v._core.url_signatures import without_query
from a2v._values.jobs import JobState

AUDIO = "https://example.com/a.wav"


def job(url: str = AUDIO, **more: object) -> a2v.Job:
    return a2v.Job("eva_a0008", url, **more)


def test_a_url_as_it_may_be_written_down() -> None:
    assert without_query("https://me:pw@h:8/a.wav?X-Amz-Signature=s#f") == "https://h:8/a.wav"


# -- what is in doubt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unknown", "known", "listed", "found"),
    [
        pytest.param({"a": 1}, {}, {"new"}, {"a": "new"}, id="the only new one"),
        pytest.param({"a": 1}, {"old": 1}, {"old", "new"}, {"a": "new"}, id="beside an older one"),
        pytest.param({"a": 1}, {"own": 0}, {"own"}, {}, id="ours are not in doubt"),
        pytest.param({"a": 1}, {"old": 1}, {"old"}, {}, id="it did not arrive"),
        pytest.param({"a": 1}, {}, {"one", "other"}, {}, id="it could be either"),
        pytest.param({"a": 1, "b": 1}, {}, {"new"}, {}, id="it could be for either"),
        pytest.param({"a": 1, "b": 2}, {"x": 2}, {"x"}, {"a": "x"}, id="there before the second run, so of the first"),
        pytest.param({"a": 1, "b": 2}, {"x": 2}, {"x", "y"}, {}, id="the first could be either"),
        pytest.param({"a": 1}, {"x": 3}, {"x"}, {"a": "x"}, id="seen since, by a later run"),
        pytest.param({}, {}, {"new"}, {}, id="nothing in doubt"),
        pytest.param({"a": 1}, {}, set(), {}, id="nothing there"),
    ],
)
def test_only_what_cannot_be_anything_else_is_adopted(unknown, known, listed, found) -> None:
    assert match_unknown(unknown, known, listed) == found


ERRORS = [
    (a2v.SubmissionUnknownError("?", job=job()), True, JobState.UNKNOWN),
    (a2v.AuthenticationError("no", status_code=401), True, JobState.PENDING),
    (a2v.PermissionDeniedError("no", status_code=403), True, JobState.PENDING),
    (a2v.APIError("no money", status_code=402), True, JobState.PENDING),
    (a2v.APIError("no such character", status_code=400, code=7), True, JobState.REJECTED),
    (a2v.ProtocolError("a redirect"), True, JobState.REJECTED),
    (a2v.ClientClosedError("closed"), True, JobState.UNKNOWN),
    (a2v.ClientClosedError("closed"), False, JobState.PENDING),
    (KeyboardInterrupt(), True, JobState.UNKNOWN),
    (KeyboardInterrupt(), False, JobState.PENDING),
]


@pytest.mark.parametrize(("error", "sent", "state"), ERRORS, ids=lambda value: type(value).__name__)
def test_what_a_try_leaves_behind(error, sent, state) -> None:
    assert state_after(error, sent=sent) is state


def test_nothing_leads_from_doubt_to_submitting_but_a_choice() -> None:
    assert JobState.UNKNOWN not in PREDECESSORS[JobState.SUBMITTING]
    assert [state for state in JobState if state.is_terminal] == [JobState.DONE, JobState.FAILED, JobState.REJECTED]


@pytest.mark.parametrize("error", [a2v.NotFoundError("gone", code=10001, status_code=404), a2v.ProtocolError("odd")])
def test_an_error_comes_back_as_it_was(error) -> None:
    again = restored(error_record(error, job()))
    assert (type(again), str(again)) == (type(error), str(error))
    assert vars(again) == vars(error)


def test_what_gives_access_is_not_written_down() -> None:
    secret = job(AUDIO + "?token=s3cret")
    facts = error_record(a2v.APIError(f"cannot fetch {secret.audio_url}", status_code=400), secret)
    assert facts["message"] == f"cannot fetch {AUDIO}"
    assert error_record(KeyboardInterrupt(), secret) is None
