"""Everything that can go wrong, in one tree.

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

An error that ends a wait for a video also carries ``video_id``, the last ``video`` seen and the time ``waited``, so that
the caller can pick the task up again with ``client.videos.task(error.video_id)``. Every error can be pickled; none holds
an object of the HTTP library or a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2v._core.items import JournalEntry
    from a2v._core.models import Job, RowError, Video

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

# What still fits a screen; `faults` has them all.
_SHOWN_FAULTS = 10


def _restore(kind: type[A2VError], args: tuple[Any, ...], facts: dict[str, Any]) -> A2VError:
    error = kind.__new__(kind)
    # Set by hand, as `OSError.__new__`, which a time-out inherits, drops them.
    error.args = args
    error.__dict__.update(facts)
    return error


class A2VError(Exception):
    """The base of every error that a2v raises.

    Attributes:
        video_id: The task a wait was about when it ended with this error, otherwise ``None``.
        video: The last look at that task, if there was one.
        waited: How long the wait had lasted, in seconds.
    """

    video_id: str | None = None
    video: Video | None = None
    waited: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args` alone, which fails for errors that take keyword-only facts.
        return _restore, (type(self), self.args, self.__dict__)


class InvalidArgumentError(A2VError, ValueError):
    """An argument has a wrong type or value; the message names both. Nothing was sent."""


class InvalidStateError(A2VError, RuntimeError):
    """The object cannot be used in this way at this time, such as a batch outside its ``async with`` block."""


class ConfigurationError(A2VError, ValueError):
    """The client cannot work as it was set up: a bad token, a bad ``base_url``, a token over plain HTTP."""


class ManifestError(A2VError, ValueError):
    """The jobs of a batch cannot be read as they are written. Nothing was submitted.

    Attributes:
        faults: All that is wrong, in the order of the rows.
    """

    def __init__(self, manifest: str, *, faults: tuple[RowError, ...]) -> None:
        shown = [f"  {fault}" for fault in faults[:_SHOWN_FAULTS]]
        more = [f"  … and {len(faults) - _SHOWN_FAULTS} more"] if len(faults) > _SHOWN_FAULTS else []
        counted = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{manifest} has {counted}:", *shown, *more]))
        self.faults = faults


class AmbiguousJobsError(A2VError):
    """New jobs of a batch may be jobs of its journal: only the query of the ``audio_url`` differs. Nothing was submitted.

    A new query can be a new signature of the same recording, or another recording. ``client.batch(recordings="same")``
    or ``recordings="new"`` says which.

    Attributes:
        pairs: For each such job its place in the batch, from 0, and the entry of the journal that it may be.
    """

    def __init__(self, message: str, *, pairs: tuple[tuple[int, JournalEntry], ...]) -> None:
        super().__init__(message)
        self.pairs = pairs


class TransportError(A2VError):
    """The server could not be talked to. Nothing was submitted."""


class APIError(A2VError):
    """The server said no.

    Attributes:
        code: The code in the reply's envelope; ``None`` if the reply had no readable envelope.
        message: What the server said.
        status_code: The HTTP status.
    """

    def __init__(self, message: str, *, code: int | None = None, status_code: int) -> None:
        super().__init__(f"{message} (HTTP {status_code}" + (f", code {code})" if code is not None else ")"))
        self.message = message
        self.code = code
        self.status_code = status_code


class AuthenticationError(APIError):
    """The server does not accept the token (HTTP 401)."""


class PermissionDeniedError(APIError):
    """The token is good, but not for this (HTTP 403)."""


class NotFoundError(APIError):
    """The server knows no such thing (HTTP 404, code 10001), or does not have the call at all (HTTP 404).

    Not all servers have all calls: those for avatars, poses and ``videos.list`` came with the service's later revision.
    The error's text tells which of the two it is, as far as the reply does.
    """

    def __init__(self, message: str, *, code: int | None = None, status_code: int, hint: str = "") -> None:
        super().__init__(f"{hint}: {message}" if hint else message, code=code, status_code=status_code)
        self.message = message


class RateLimitError(APIError):
    """Too many requests for longer than we were willing to wait (HTTP 429, code 1009).

    Attributes:
        retry_after: Seconds until the server accepts requests again; ``None`` if it did not say.
    """

    def __init__(
        self, message: str, *, code: int | None = None, status_code: int, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, status_code=status_code)
        self.retry_after = retry_after


class ServerError(APIError):
    """The server failed (HTTP 5xx or 408) and went on failing when asked again.

    Attributes:
        retry_after: Seconds until the server expects to be available again, if it was unavailable (HTTP 503) and said so.
    """

    retry_after: float | None = None


class ProtocolError(A2VError):
    """The reply is not what the protocol promises: not JSON, no envelope, a wrong type, a redirect."""


class SubmissionUnknownError(A2VError):
    """A render may or may not have been accepted, and may cost money; it is never submitted again by itself.

    The protocol has no idempotency key, so nothing short of looking at the account's videos can tell.

    Attributes:
        job: What was submitted.
    """

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job


class VideoFailedError(A2VError):
    """The render ended in ``error``.

    Attributes:
        video: The video as the server last showed it; ``video.raw`` may say why.
    """

    video_id: str
    video: Video

    def __init__(self, message: str, *, video: Video) -> None:
        super().__init__(message)
        self.video = video  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and set only here
        self.video_id = video.video_id  # pyright: ignore[reportIncompatibleVariableOverride]


class WaitTimeoutError(A2VError, TimeoutError):
    """Our patience ended. The task goes on at the server; pick it up with ``client.videos.task(error.video_id)``.

    Attributes:
        video_id: The task waited for; with several, one that had not ended.
        video: The last look at it, if there was one.
        waited: How long the wait lasted, in seconds.
    """

    video_id: str
    waited: float

    def __init__(self, message: str, *, video_id: str, video: Video | None, waited: float) -> None:
        super().__init__(message)
        self.video_id = video_id  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and set only here
        self.video = video
        self.waited = waited  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower, and set only here


class DownloadError(A2VError):
    """A finished video could not be fetched or stored whole. Nothing is left under the final name."""


class JournalError(A2VError):
    """A batch's journal cannot be used, so nothing is submitted."""


class StagingError(A2VError):
    """A local recording could not be uploaded for the server, or not be removed afterwards. Nothing half is left there."""


class ClientClosedError(A2VError):
    """The client was closed before or during the call."""
