"""The errors of jobs: the state in which a failed submission leaves a job, and the errors that outcomes and journals hold."""

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


def refuses_all(error: BaseException) -> bool:
    """Return whether an error concerns the account, so that the server would refuse every other job, too."""
    about_account = (AuthenticationError, PermissionDeniedError)
    return isinstance(error, about_account) or (isinstance(error, APIError) and error.status_code == _PAYMENT_REQUIRED)


def state_after(error: BaseException, *, sent: bool) -> JobState:
    """Return the state in which a failed submission leaves its job.

    Args:
        error: The error, or the cancellation, that ended the submission.
        sent: Whether any of the request may have reached the server.
    """
    if isinstance(error, SubmissionUnknownError):
        return JobState.UNKNOWN
    if isinstance(error, APIError | ProtocolError) and not refuses_all(error):
        return JobState.REJECTED
    if isinstance(error, APIError) or not sent:
        return JobState.PENDING
    return JobState.UNKNOWN


def is_lost(error: BaseException) -> bool:
    """Return whether an error of a wait says that the server no longer knows the video.

    A 404 without the API's envelope does not: it may come from a gateway in front of the API.
    """
    return isinstance(error, NotFoundError) and error.code is not None


def as_a2v_error(error: Exception, job: Job) -> A2VError:
    """Return the error for a job's outcome. An unexpected exception, such as a bug in a custom transport, becomes its cause."""
    if isinstance(error, A2VError):
        return error
    unexpected = A2VError(_without_access(f"unexpected {type(error).__name__}: {error}", job))
    unexpected.__cause__ = error
    return unexpected


def error_record(error: BaseException, job: Job) -> ErrorRecord | None:
    """Return an error as the journal keeps it; ``None`` for exceptions of others, such as a cancellation."""
    from a2v._core.journal_rows import ErrorRecord  # noqa: PLC0415  # only batches have a journal

    if not isinstance(error, A2VError):
        return None
    if isinstance(error, APIError):
        return ErrorRecord(_without_access(error.message, job), error.code, error.status_code)
    return ErrorRecord(_without_access(str(error), job))


def restored(record: ErrorRecord) -> A2VError:
    """Return the error of a job that the server refused in an earlier run."""
    if record.status_code is None:
        return ProtocolError(record.message)
    kind = error_class(record.status_code, record.code)
    return kind(record.message, code=record.code, status_code=record.status_code)


def _without_access(text: str, job: Job) -> str:
    from a2v._core.url_signatures import without_query  # noqa: PLC0415  # only for the errors of batches

    # Servers and exceptions may quote the audio_url, whose query may be a secret.
    return text.replace(job.audio_url, without_query(job.audio_url)) if job.audio_url else text
