"""The items of a batch: their states, which state may follow which, and what the journal keeps of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from attrs import frozen

from a2v import errors
from a2v._values.jobs import Job, JobState, JournalEntry
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
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

_PAYMENT_REQUIRED = 402


BEFORE: Mapping[JobState, tuple[JobState, ...]] = {
    # Withdrawn, as nothing was sent or it was provably refused; or submitted again by explicit choice.
    JobState.PENDING: (JobState.SUBMITTING, JobState.UNKNOWN, JobState.FAILED, JobState.REJECTED, JobState.LOST),
    JobState.SUBMITTING: (JobState.PENDING,),
    JobState.UNKNOWN: (JobState.SUBMITTING,),
    JobState.SUBMITTED: (JobState.SUBMITTING, JobState.UNKNOWN),
    JobState.FINISHED: (JobState.SUBMITTED, JobState.DONE, JobState.LOST),
    JobState.DONE: (JobState.FINISHED,),
    # A file that went missing may be found to have expired at the server, too.
    JobState.FAILED: (JobState.SUBMITTED, JobState.FINISHED, JobState.LOST),
    JobState.REJECTED: (JobState.SUBMITTING,),
    JobState.LOST: (JobState.SUBMITTED, JobState.FINISHED),
}
"""For each state those that it may follow."""


@frozen(kw_only=True)
class JournalRow:
    """All that a journal knows of one job.

    Attributes:
        identity: Its key: a digest of what is submitted, and a number that tells equal jobs apart.
        place: Its place in the last run; ``None``: that run did not have it.
        job: The job, its ``audio_url`` without query.
        state: How far it is.
        video_id: Its video, if it was submitted.
        error: What went wrong, if something did.
        etag: Which version of the file is being downloaded, if that is known for sure.
        size: How many bytes the file has, if that is known.
        sha256: The digest of the whole file, once it was on disk.
        path: Where the video was saved, if it was.
        reported: Whether its outcome was dealt with.
    """

    identity: str
    place: int | None
    job: Job
    state: JobState
    video_id: str | None = None
    error: Mapping[str, Any] | None = None
    etag: str | None = None
    size: int | None = None
    sha256: str | None = None
    path: str | None = None
    reported: bool = False

    @property
    def recording(self) -> str:
        """The digest in its key."""
        return self.identity.rpartition("-")[0]

    @property
    def number(self) -> int:
        """The number in its key."""
        number = self.identity.rpartition("-")[2]
        return int(number) if number.isdecimal() else 0

    @property
    def entry(self) -> JournalEntry:
        """What of it is public."""
        return JournalEntry(
            job=self.job,
            state=self.state,
            video_id=self.video_id,
            path=self.path,
            error=self.error["message"] if self.error else None,
            place=self.place,
        )


@frozen(kw_only=True)
class Progress:
    """How many jobs of a batch are how far. The numbers below ``total`` add up to it.

    Attributes:
        total: All of them.
        waiting: Not submitted yet.
        under_way: Being submitted, rendered or saved.
        done: Rendered, and saved if they were to be.
        failed: Ended with an error.
        unknown: May or may not have been accepted.
        lost: Submitted, and the server no longer knows the video.
    """

    total: int
    waiting: int
    under_way: int
    done: int
    failed: int
    unknown: int
    lost: int = 0


def without_query(url: str) -> str:
    """A URL as it may be written down: what gives access stands in the query, or before the host."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


RUN = 2**32
"""The number at which a journal's second run begins; see ``adoptable``."""


def adoptable(
    unknown: Mapping[str, int | None],
    known: Mapping[str, int],
    listed: AbstractSet[str],
    elsewhere: Sequence[int] = (),
) -> dict[str, str]:
    """Which of the account's videos must be those whose submission is in doubt.

    Times are numbers: that of a run times ``RUN``, plus how many submissions the run had begun; the videos that are there
    when a run begins are first seen at its beginning. A video that was first seen after a submission may be its result.

    Args:
        unknown: When each item in doubt was submitted; ``None`` if nobody knows which videos are older.
        known: When each video was first seen, or 0 if it is accounted for. A video that is missing was never seen before.
        listed: The account's videos now.
        elsewhere: When other submissions of the client began whose result is not known.

    Returns:
        For each item that is found again its ``video_id``.
    """
    claims = [*(number or 0 for number in unknown.values()), *elsewhere]

    def claimed(seen: float) -> int:
        return sum(seen > claim for claim in claims)

    possible = {video_id: seen for video_id in listed if (seen := known.get(video_id, inf)) > min(claims, default=inf)}
    strangers = [seen for seen in known.values() if seen and not claimed(seen)]
    found = {}
    for item, number in unknown.items():
        if number is None:
            continue
        videos = [video_id for video_id, seen in possible.items() if seen > number]
        if len(videos) != 1 or claimed(possible[videos[0]]) != 1:
            continue
        # Somebody else has submitted in this run, so it may be theirs. (The first version kept the run's number alone.)
        began = number if number < RUN else number // RUN * RUN
        if not any(began < seen <= number for seen in strangers):
            found[item] = videos[0]
    return found


# -- errors ------------------------------------------------------------------------------------------------------------


def refuses_all(error: BaseException) -> bool:
    """Whether a refusal is about the account, and so will be repeated for every job."""
    about = (AuthenticationError, PermissionDeniedError)
    return isinstance(error, about) or (isinstance(error, APIError) and error.status_code == _PAYMENT_REQUIRED)


def state_after(error: BaseException, *, sent: bool) -> JobState:
    """What a try to submit leaves behind that ended with an error.

    Args:
        error: What ended it.
        sent: Whether any of it may have reached the server.
    """
    if isinstance(error, SubmissionUnknownError):
        return JobState.UNKNOWN
    if isinstance(error, APIError | ProtocolError) and not refuses_all(error):
        return JobState.REJECTED
    if isinstance(error, APIError) or not sent:
        return JobState.PENDING
    return JobState.UNKNOWN


def is_lost(error: BaseException) -> bool:
    """Whether an error that ended the wait for a submitted video says that the server no longer knows that video.

    A 404 without the API's envelope does not say so: a gateway may have answered in the API's place.
    """
    return isinstance(error, NotFoundError) and error.code is not None


def submission_unknown(job: Job, reason: str) -> SubmissionUnknownError:
    """The error of a job of which nobody knows whether it was accepted."""
    return SubmissionUnknownError(
        f"the server may or may not have accepted this render, so it is not submitted again: {reason}", job=job
    )


def as_a2v_error(error: Exception, job: Job) -> A2VError:
    """The error of a job's outcome. What nobody foresaw, such as a bug in a transport of the caller's, is its cause."""
    if isinstance(error, A2VError):
        return error
    unexpected = A2VError(_without_access(f"unexpected {type(error).__name__}: {error}", job))
    unexpected.__cause__ = error
    return unexpected


def error_record(error: BaseException, job: Job) -> dict[str, Any] | None:
    """An error as the journal keeps it."""
    if not isinstance(error, A2VError):
        return None
    message = error.message if isinstance(error, APIError) else str(error)
    facts = {"kind": type(error).__name__, "message": _without_access(message, job)}
    return facts | ({"code": error.code, "status_code": error.status_code} if isinstance(error, APIError) else {})


def _without_access(text: str, job: Job) -> str:
    # A server, or an error, may quote what it was given, and that may be a URL that gives access.
    return text.replace(job.audio_url, without_query(job.audio_url))


def restored(facts: Mapping[str, Any]) -> A2VError:
    """The error of which ``error_record`` told: that of a job that the server refused."""
    kind = getattr(errors, facts["kind"], None)
    if isinstance(kind, type) and issubclass(kind, APIError) and facts.get("status_code") is not None:
        return kind(facts["message"], code=facts.get("code"), status_code=facts["status_code"])
    return ProtocolError(facts["message"])
