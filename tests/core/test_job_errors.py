"""What an error means for its job, and what the journal keeps of it."""

from __future__ import annotations

import pytest

import a2v
from a2v._core.job_errors import error_record, rejection_from, state_after
from a2v._core.job_transitions import PREDECESSORS
from a2v._core.url_signatures import without_query
from a2v._values.jobs import JobState

AUDIO = "https://example.com/a.wav"


def job(url: str = AUDIO, **more: object) -> a2v.Job:
    return a2v.Job("eva_a0008", url, **more)


def test_a_url_without_what_may_give_access() -> None:
    assert without_query("https://me:pw@h:8/a.wav?X-Amz-Signature=s#f") == "https://h:8/a.wav"


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
def test_the_state_after_a_failed_submission(error, sent, state) -> None:
    assert state_after(error, sent=sent) is state


def test_only_the_callers_choice_leads_from_unknown_to_submitting() -> None:
    assert JobState.UNKNOWN not in PREDECESSORS[JobState.SUBMITTING]
    assert [state for state in JobState if state.is_terminal] == [JobState.DONE, JobState.FAILED, JobState.REJECTED]


@pytest.mark.parametrize(
    "error",
    [
        a2v.APIError("no such character", code=7, status_code=400),
        a2v.NotFoundError("gone", code=10001, status_code=404),
        a2v.NotFoundError("gone", code=10001, status_code=200),
        a2v.NotFoundError("no such page", status_code=404),
        a2v.PermissionDeniedError("not yours", code=3, status_code=403),
        a2v.RateLimitError("slow down", code=1009, status_code=200),
        a2v.RateLimitError("slow down", status_code=429),
        a2v.ServerError("too slow", status_code=408),
        a2v.ServerError("broken", code=5, status_code=500),
        a2v.ProtocolError("odd"),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'status_code', None)}",
)
def test_a_recorded_error_is_restored(error) -> None:
    """Its class is derived from the HTTP status and the code, as for a response."""
    again = rejection_from(error_record(error, job()))
    assert (type(again), str(again)) == (type(error), str(error))
    assert vars(again) == vars(error)


def test_secrets_are_not_recorded() -> None:
    secret = job(AUDIO + "?token=s3cret")
    record = error_record(a2v.APIError(f"cannot fetch {secret.audio_url}", status_code=400), secret)
    assert record.message == f"cannot fetch {AUDIO}"
    assert error_record(KeyboardInterrupt(), secret) is None
