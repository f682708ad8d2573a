"""The errors of a batch's jobs: which state an error leads to, and how the journal stores errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._core.responses import error_class
from a2v._values.jobs import JobState
from a2v.errors import (
    A2VError,
    APIError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    SubmissionUnknownError,
)

if TYPE_CHECKING:
    from a2v._core.journal_rows import ErrorRecord
    from a2v._values.jobs import Job

_PAYMENT_REQUIRED = 402


def rejects_account(error: BaseException) -> bool:
    """Return whether the server rejected the account (HTTP 401, 402 or 403), so that it would reject every other job too."""
    about_account = (AuthenticationError, PermissionDeniedError)
    return isinstance(error, about_account) or (isinstance(error, APIError) and error.status_code == _PAYMENT_REQUIRED)


def state_after(error: BaseException, *, sent: bool) -> JobState:
    """Return the state of a job after its submission failed.

    Args:
        error: The error or the cancellation that ended the submission.
        sent: Whether any of the request may have reached the server.

    Returns:
        ``REJECTED``, ``PENDING`` (nothing was accepted, so it may be submitted again) or ``UNKNOWN``.
    """
    if isinstance(error, SubmissionUnknownError):
        return JobState.UNKNOWN
    if isinstance(error, APIError | ProtocolError) and not rejects_account(error):
        return JobState.REJECTED
    if isinstance(error, APIError) or not sent:
        return JobState.PENDING
    return JobState.UNKNOWN


def is_lost(error: BaseException) -> bool:
    """Return whether an error of a wait means that the server no longer knows the video.

    A 404 without the API's envelope does not mean that: it may come from a gateway in front of the API.
    """
    return isinstance(error, NotFoundError) and error.code is not None


def as_a2v_error(error: Exception, job: Job) -> A2VError:
    """Return the error for a job's outcome. An unexpected exception, such as a bug of a transport, becomes its ``__cause__``."""
    if isinstance(error, A2VError):
        return error
    unexpected = A2VError(_without_signature(f"unexpected {type(error).__name__}: {error}", job))
    unexpected.__cause__ = error
    return unexpected


def error_record(error: BaseException, job: Job) -> ErrorRecord | None:
    """Return an error as the journal stores it; ``None`` for exceptions that are not a2v's, such as a cancellation."""
    from a2v._core.journal_rows import ErrorRecord  # noqa: PLC0415  # only batches have a journal

    if not isinstance(error, A2VError):
        return None
    if isinstance(error, APIError):
        return ErrorRecord(_without_signature(error.message, job), error.code, error.status_code)
    return ErrorRecord(_without_signature(str(error), job))


def rejection_from(record: ErrorRecord) -> A2VError:
    """Return the error of a job that the server rejected in an earlier run."""
    if record.status_code is None:
        return ProtocolError(record.message)
    kind = error_class(record.status_code, record.code)
    return kind(record.message, code=record.code, status_code=record.status_code)


def _without_signature(text: str, job: Job) -> str:
    """Remove the query of the job's ``audio_url``, which may be a signature, from a text that quotes it."""
    from a2v._core.url_signatures import without_query  # noqa: PLC0415  # only for the errors of batches

    return text.replace(job.audio_url, without_query(job.audio_url)) if job.audio_url else text
