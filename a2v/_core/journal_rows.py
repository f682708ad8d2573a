"""The rows of a journal, one per job."""

from __future__ import annotations

from attrs import field, frozen

from a2v._values.jobs import Job, JobState, JournalEntry


@frozen
class ErrorRecord:
    """An error as a journal stores it, without its class: ``job_errors.rejection_from`` derives it from the HTTP status and code.

    Attributes:
        message: The message, without secrets.
        code: The code in the response's envelope; ``None`` if there was none.
        status_code: The HTTP status; ``None`` if there was no response.
    """

    message: str
    code: int | None = None
    status_code: int | None = None


@frozen(kw_only=True)
class JournalRow:
    """The journal's record of one job.

    Attributes:
        identity: The key of the row, ``DIGEST-NUMBER``: the digest of the submitted values, and a number that distinguishes equal
            jobs.
        place: The position of the job in the last run, from 0; ``None`` if that run did not include the job.
        job: The job; its ``audio_url`` has no query.
        state: The state of the job.
        video_id: The id of the video; ``None`` before the submission.
        error: The error that ended the job, if any.
        etag: The strong ETag of the file being downloaded, if the server sent one.
        size: The size of the file in bytes, if known.
        sha256: The SHA-256 of the complete file, in hexadecimal; ``None`` until the file is on disk.
        path: The path of the saved video, if it was saved.
        reported: Whether the caller has processed the outcome.
        speech: The URL of the speech made from the job's text, until the video is submitted. Empty: the request for the speech is
            in flight or has an unknown outcome. ``None``: there is no speech.
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
        """The digest in the key."""
        return self.identity.rpartition("-")[0]

    @property
    def number(self) -> int:
        """The number in the key, from 0."""
        number = self.identity.rpartition("-")[2]
        return int(number) if number.isdecimal() else 0

    @property
    def speech_url(self) -> str | None:
        """The URL of the speech made from the job's text, if there is one."""
        return self.speech or None

    @property
    def entry(self) -> JournalEntry:
        """The public part of the row."""
        return JournalEntry(
            job=self.job,
            state=self.state,
            video_id=self.video_id,
            path=self.path,
            error=self.error.message if self.error else None,
            place=self.place,
        )
