"""All errors of a2v, in one tree.

    A2VError
    ├── InvalidArgumentError (also ValueError)
    ├── InvalidStateError (also RuntimeError)
    ├── ConfigurationError (also ValueError)
    ├── ManifestError (also ValueError)  .faults
    ├── AmbiguousJobsError      .pairs
    ├── TransportError
    ├── APIError                .code .message .status_code
    │   ├── AuthenticationError
    │   ├── PermissionDeniedError
    │   ├── NotFoundError
    │   ├── RateLimitError      .retry_after
    │   └── ServerError         .retry_after
    ├── ProtocolError
    ├── SubmissionUnknownError  .job
    ├── VideoFailedError        .video
    ├── WaitTimeoutError (also TimeoutError)  .video_id .video .waited
    ├── DownloadError
    ├── JournalError
    ├── StagingError
    └── ClientClosedError

An error that ends a wait for a video has the ``video_id``, the last snapshot (``video``) and the seconds waited (``waited``), so
the caller can resume with ``client.videos.task(error.video_id)``. All errors can be pickled. No error holds a secret or an
object of the HTTP library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2v._values.base_errors import A2VError, InvalidArgumentError, InvalidStateError

if TYPE_CHECKING:
    from a2v._values.jobs import Job, JournalEntry
    from a2v._values.models import RowError, Video

__all__ = [
    "A2VError",
    "APIError",
    "AmbiguousJobsError",
    "AuthenticationError",
    "ClientClosedError",
    "ConfigurationError",
    "DownloadError",
    "InvalidArgumentError",
    "InvalidStateError",
    "JournalError",
    "ManifestError",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "ServerError",
    "StagingError",
    "SubmissionUnknownError",
    "TransportError",
    "VideoFailedError",
    "WaitTimeoutError",
]

# The number of errors in the message; the attribute `faults` has all.
_MAX_LISTED = 10


class ConfigurationError(A2VError, ValueError):
    """The client is misconfigured: for example an invalid token or ``base_url``, or a token over plain HTTP."""


class ManifestError(A2VError, ValueError):
    """A manifest has errors. Nothing was submitted.

    Attributes:
        faults: All errors, in the order of the rows.
    """

    def __init__(self, manifest: str, *, faults: tuple[RowError, ...]) -> None:
        listed = [f"  {fault}" for fault in faults[:_MAX_LISTED]]
        more = [f"  … and {len(faults) - _MAX_LISTED} more"] if len(faults) > _MAX_LISTED else []
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{manifest} has {count}:", *listed, *more]))
        self.faults = faults


class AmbiguousJobsError(A2VError):
    """New jobs of a batch differ from jobs in its journal only in the query of the ``audio_url``. Nothing was submitted.

    A new query can be a new signature of the same recording, or it can mean another recording. To decide, pass
    ``recordings="same"`` or ``recordings="new"`` to ``client.batch``.

    Attributes:
        pairs: For each such job, its position in the batch, from 0, and the journal entry that may be the same job.
    """

    def __init__(self, message: str, *, pairs: tuple[tuple[int, JournalEntry], ...]) -> None:
        super().__init__(message)
        self.pairs = pairs


class TransportError(A2VError):
    """The server cannot be reached, or the connection failed. Nothing was submitted."""


class APIError(A2VError):
    """The server rejected the request.

    Attributes:
        code: The code in the response's envelope; ``None`` if the response had no readable envelope.
        message: The server's message.
        status_code: The HTTP status.
    """

    def __init__(self, message: str, *, code: int | None = None, status_code: int) -> None:
        super().__init__(f"{message} (HTTP {status_code}" + (f", code {code})" if code is not None else ")"))
        self.message = message
        self.code = code
        self.status_code = status_code


class AuthenticationError(APIError):
    """The server rejected the token (HTTP 401)."""


class PermissionDeniedError(APIError):
    """The token is valid but lacks the permission (HTTP 403)."""


class NotFoundError(APIError):
    """The resource does not exist (HTTP 404, code 10001), or the server does not have the method (HTTP 404).

    Avatars, poses, voices and ``videos.list`` are part of a later revision of the service, so some servers lack them.
    The message says whether the resource or the method is missing, if the response shows that.
    """

    def __init__(self, message: str, *, code: int | None = None, status_code: int, hint: str = "") -> None:
        super().__init__(f"{hint}: {message}" if hint else message, code=code, status_code=status_code)
        self.message = message


class RateLimitError(APIError):
    """The server rejected the request for exceeding its rate limit (HTTP 429, code 1009).

    Raised after ten minutes without a successful request of the client, after a day in which other requests succeed, or
    immediately with ``max_retries=0``.

    Attributes:
        retry_after: Seconds until the server accepts requests again; ``None`` if the response does not say.
    """

    def __init__(
        self, message: str, *, code: int | None = None, status_code: int, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, status_code=status_code)
        self.retry_after = retry_after


class ServerError(APIError):
    """The server failed (HTTP 5xx or 408), after all retries.

    Attributes:
        retry_after: Seconds until the server expects to be available again, from ``Retry-After`` of an HTTP 503; otherwise
            ``None``.
    """

    retry_after: float | None = None


class ProtocolError(A2VError):
    """The response violates the protocol: not JSON, no envelope, a wrong type, a redirect."""


class SubmissionUnknownError(A2VError):
    """The server may or may not have accepted a job, which may cost money. a2v never submits it again automatically.

    The protocol has no idempotency key, so only the list of the account's videos can show whether the job was accepted.

    The same error is raised if the server may or may not have synthesized a text. Then the message says so, and no video was
    submitted. You cannot find out whether the text was synthesized; if you synthesize it again, you may pay for it twice.

    Attributes:
        job: The submitted job; ``None`` if ``voices.generate`` raised the error.
    """

    def __init__(self, message: str, *, job: Job | None) -> None:
        super().__init__(message)
        self.job = job


class VideoFailedError(A2VError):
    """The render failed: the video's status is ``error``.

    Attributes:
        video: The last snapshot of the video; ``video.raw`` may contain the reason.
    """

    video_id: str
    video: Video

    def __init__(self, message: str, *, video: Video) -> None:
        super().__init__(message)
        self.video = video  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and set only here
        self.video_id = video.video_id  # pyright: ignore[reportIncompatibleVariableOverride]


class WaitTimeoutError(A2VError, TimeoutError):
    """The timeout passed before the video reached a final status. The render continues on the server.

    Resume with ``client.videos.task(error.video_id)``.

    Attributes:
        video_id: The id of the video; if several videos were watched, one that has no final status yet.
        video: The last snapshot of that video, if there was one.
        waited: How long the call had waited, in seconds.
    """

    video_id: str
    waited: float

    def __init__(self, message: str, *, video_id: str, video: Video | None, waited: float) -> None:
        super().__init__(message)
        self.video_id = video_id  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and set only here
        self.video = video
        self.waited = waited  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and set only here


class DownloadError(A2VError):
    """A video, a mask or captions could not be downloaded or saved, or the file already exists.

    An incomplete file never has its final name.
    """


class JournalError(A2VError):
    """The journal of a batch cannot be used. Nothing was submitted."""


class StagingError(A2VError):
    """A local recording could not be uploaded, or the upload could not be deleted. No partial upload was left."""


class ClientClosedError(A2VError):
    """The client was closed before or during the call."""
