"""Audio to video: a character plus the URL of a speech recording becomes a video of that character speaking."""

from a2v._async.batch import AsyncBatch
from a2v._async.client import AsyncA2V
from a2v._async.task import AsyncVideoTask
from a2v._core.models import Character, Job, Outcome, Video, VideoStatus
from a2v._sync.client import A2V, Batch, VideoTask
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
    "A2V",
    "A2VError",
    "APIError",
    "AsyncA2V",
    "AsyncBatch",
    "AsyncVideoTask",
    "AuthenticationError",
    "Batch",
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
    "VideoTask",
    "WaitTimeoutError",
    "__version__",
]

for _name in __all__:
    _public = globals()[_name]
    if isinstance(_public, type):
        _public.__module__ = __name__  # what people import is what they see in reprs and tracebacks
