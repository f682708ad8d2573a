"""The rows of a journal, one per job."""

from __future__ import annotations

from attrs import field, frozen

from a2v._values.jobs import Job, JobState, JournalEntry


@frozen
class ErrorRecord:
    """An error as a journal keeps it: without its class, which ``job_errors.restored`` derives from the HTTP status and code.

    Attributes:
        message: Its message, without secrets.
        code: The code in the response's envelope, if it had one.
        status_code: The HTTP status, if the error was a response.
    """

    message: str
    code: int | None = None
    status_code: int | None = None


@frozen(kw_only=True)
class JournalRow:
    """All that a journal keeps about one job.

    Attributes:
        identity: Its key: a digest of what is submitted, and a number that distinguishes equal jobs.
        place: Its place in the last run; ``None`` if that run did not have it.
        job: The job, its ``audio_url`` without query.
        state: Its state.
        video_id: Its video, if it was submitted.
        error: The error that ended it, if any.
        etag: The strong ETag of the file being downloaded, if the server sent one.
        size: The size of the file in bytes, if known.
        sha256: The digest of the complete file, once it is on disk.
        path: The file of its video, if that was saved.
        reported: Whether the caller has processed its outcome.
        speech: The URL of the speech that was made of its text, until the video is submitted; empty: the request for the speech
            is the one that is being sent or has an unknown outcome; ``None``: there is no speech.
    """

    identity: str
    place: int | None
    job: Job
    state: JobState
    video_id: str | None = None
    error: ErrorRecord | None = None
    etag: str | None = None
    size: int | None = None
    sha256: str | None = None
    path: str | None = None
    reported: bool = False
    # Usually pre-signed.
    speech: str | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """The digest in its key."""
        return self.identity.rpartition("-")[0]

    @property
    def number(self) -> int:
        """The number in its key."""
        number = self.identity.rpartition("-")[2]
        return int(number) if number.isdecimal() else 0

    @property
    def speech_url(self) -> str | None:
        """The URL of the speech that was made of its text, if there is one."""
        return self.speech or None

    @property
    def entry(self) -> JournalEntry:
        """Its public content."""
        return JournalEntry(
            job=self.job,
            state=self.state,
            video_id=self.video_id,
            path=self.path,
            error=self.error.message if self.error else None,
            place=self.place,
        )
