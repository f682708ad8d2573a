"""Audio to video: a character plus the URL of a speech recording becomes a video of that character speaking."""

from a2v._async.batch import AsyncBatch
from a2v._async.client import AsyncA2V
from a2v._async.task import AsyncVideoTask
from a2v._core.models import Character, Job, Outcome, Video, VideoStatus
from a2v.errors import (
    A2VError,
    APIError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DownloadError,
    JournalError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    SubmissionUnknownError,
    TransportError,
    VideoFailedError,
    WaitTimeoutError,
)

__version__ = "0.1.0"

__all__ = [
    "A2VError",
    "APIError",
    "AsyncA2V",
    "AsyncBatch",
    "AsyncVideoTask",
    "AuthenticationError",
    "Character",
    "ClientClosedError",
    "ConfigurationError",
    "DownloadError",
    "Job",
    "JournalError",
    "NotFoundError",
    "Outcome",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "ServerError",
    "SubmissionUnknownError",
    "TransportError",
    "Video",
    "VideoFailedError",
    "VideoStatus",
    "WaitTimeoutError",
    "__version__",
]
