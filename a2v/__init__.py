"""Audio to video: a character plus the URL of a speech recording becomes a video of that character speaking."""

import warnings
from importlib import import_module
from logging import Formatter, NullHandler, StreamHandler, getLogger
from os import environ
from typing import TYPE_CHECKING, Any

from a2v._core.outcomes import Outcome, Progress
from a2v._core.rate_limiter import Pace
from a2v._values.jobs import Job, JobState, JournalEntry
from a2v._values.models import Avatar, Character, Pose, RowError, Speech, Video, VideoStatus, Voice, Word
from a2v._version import __version__
from a2v.errors import (
    A2VError,
    AmbiguousJobsError,
    APIError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    DownloadError,
    InvalidArgumentError,
    InvalidStateError,
    JournalError,
    ManifestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StagingError,
    SubmissionUnknownError,
    TransportError,
    VideoFailedError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from a2v._async.batch.batch import AsyncBatch
    from a2v._async.batch.journal import read_journal
    from a2v._async.client import AsyncA2V
    from a2v._async.task import AsyncVideoTask
    from a2v._sync.client import A2V, Batch, VideoTask
    from a2v.manifest import read_manifest

__all__ = [
    "A2V",
    "A2VError",
    "APIError",
    "AmbiguousJobsError",
    "AsyncA2V",
    "AsyncBatch",
    "AsyncVideoTask",
    "AuthenticationError",
    "Avatar",
    "Batch",
    "Character",
    "ClientClosedError",
    "ConfigurationError",
    "DownloadError",
    "InvalidArgumentError",
    "InvalidStateError",
    "Job",
    "JobState",
    "JournalEntry",
    "JournalError",
    "ManifestError",
    "NotFoundError",
    "Outcome",
    "Pace",
    "PermissionDeniedError",
    "Pose",
    "Progress",
    "ProtocolError",
    "RateLimitError",
    "RowError",
    "ServerError",
    "Speech",
    "StagingError",
    "SubmissionUnknownError",
    "TransportError",
    "Video",
    "VideoFailedError",
    "VideoStatus",
    "VideoTask",
    "Voice",
    "WaitTimeoutError",
    "Word",
    "__version__",
    "read_journal",
    "read_manifest",
]

# Imported on first use: they import the HTTP library or SQLite, which render processes and `a2v --help` do not need.
_LAZY_IMPORTS = {
    "A2V": "a2v._sync.client",
    "AsyncA2V": "a2v._async.client",
    "AsyncBatch": "a2v._async.batch.batch",
    "AsyncVideoTask": "a2v._async.task",
    "Batch": "a2v._sync.client",
    "VideoTask": "a2v._sync.client",
    "read_journal": "a2v._async.batch.journal",
    "read_manifest": "a2v.manifest",
}


# Log nothing until logging is configured. Without a handler, Python would print warnings to standard error.
getLogger("a2v").addHandler(NullHandler())


def _log_to_stderr(level: str) -> None:
    """Log to standard error at the level of the environment variable A2V_LOG."""
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        warnings.warn(f"A2V_LOG must be debug, info, warning or error, got {level!r}", stacklevel=2)
        return
    handler = StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    getLogger("a2v").addHandler(handler)
    getLogger("a2v").setLevel(level.upper())


if environ.get("A2V_LOG"):
    _log_to_stderr(environ["A2V_LOG"])


def _publish(name: str, public: Any) -> Any:
    """Add an object to this module, so that reprs and tracebacks show the public name."""
    if hasattr(public, "__module__"):
        public.__module__ = __name__
    globals()[name] = public
    return public


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _publish(name, getattr(import_module(_LAZY_IMPORTS[name]), name))


def __dir__() -> list[str]:
    return __all__


for _name in set(__all__) - set(_LAZY_IMPORTS):
    _publish(_name, globals()[_name])
