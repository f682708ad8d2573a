"""The front door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from a2v._async.avatars import AsyncAvatars
from a2v._async.batch.batch import AsyncBatch
from a2v._async.characters import AsyncCharacters
from a2v._async.requests.session import Session
from a2v._async.videos import AsyncVideos
from a2v._core.batch_options import BatchOptions
from a2v._core.settings import HoldsSecret, Secret
from a2v._values.models import DEFAULT_RENDER_TIMEOUT

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable
    from types import TracebackType

    import httpx

    from a2v._values.jobs import Job


class AsyncA2V(HoldsSecret):
    """A client of one account on one server.

    It is cheap to make, does nothing until it is used, and works with or without ``async with`` (within it, connections
    are kept for reuse). The same object may be used in several event loops, one after another or at once. They share one
    budget of requests, and a context that is left in one of them closes the client there, and goes on in the others.

    Args:
        token: The account's token; that of the environment variable ``A2V_TOKEN`` if ``None``.
        base_url: The server; that of ``A2V_BASE_URL`` if ``None``, and the hosted service if that is not set or empty.
        timeout: Seconds for one exchange with the server, 30 by default. Waits for videos have time-outs of their own.
        max_retries: How often a request is repeated that may be, 3 by default. A submission that may have arrived never is.
        rate_limit: Upper bound of the requests per minute; responses may lower it, and never raise it. ``"auto"`` (the
            default): what responses say, and 30 until the first one. ``None``: what responses say, and no limit until
            the first one.
        max_download_bytes: The largest file that is downloaded, in bytes; 2 GiB by default. ``None``: no limit.
        transport: An httpx transport to send through, for tests and special networks. It is closed with the client.

    Raises:
        ConfigurationError: The token or another argument cannot be right.
    """

    _instead = "make another client there, which takes its token from A2V_TOKEN or token=…"

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        rate_limit: int | Literal["auto"] | None = "auto",
        max_download_bytes: int | None = 2 * 1024**3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        secret = Secret(token)
        del token  # lest a traceback that shows local variables shows it
        self._session = Session(
            token=secret,
            base_url=base_url,
            timeout=timeout,
            max_retries=max_retries,
            rate_limit=rate_limit,
            max_download_bytes=max_download_bytes,
            transport=transport,
        )

    def __repr__(self) -> str:
        # An error report may show a client that could not be made.
        session = getattr(self, "_session", None)
        return f"<{type(self).__name__} {session.base_url if session else 'not made'}>"

    async def __aenter__(self) -> Self:
        self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.leave()

    async def aclose(self) -> None:
        """Close the client: calls under way end with ``ClientClosedError``, in all its event loops; later ones are refused.

        Leaving an ``async with`` does the same for its event loop alone. Renders go on at the server.
        """
        await self._session.aclose()

    @property
    def characters(self) -> AsyncCharacters:
        """The characters of the service."""
        return AsyncCharacters(self._session)

    @property
    def avatars(self) -> AsyncAvatars:
        """The avatars of the service, each with its poses. Servers of the first revision do not have them."""
        return AsyncAvatars(self._session)

    @property
    def videos(self) -> AsyncVideos:
        """The videos of the account."""
        return AsyncVideos(self._session)

    def batch(
        self,
        jobs: Iterable[Job],
        *,
        save_to: str | os.PathLike[str] | None = None,
        journal: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        max_in_flight: int | None = None,
        limit: int | None = None,
        quota: int | None = None,
        resubmit_unknown: bool | Collection[int] = False,
        resubmit_failed: bool = False,
        repeat: bool = False,
        new_token: bool = False,
        render_timeout: float | None = DEFAULT_RENDER_TIMEOUT,
        recordings: Literal["same", "new"] | None = None,
    ) -> AsyncBatch:
        """Make many videos: ``async with client.batch(jobs) as batch: async for outcome in batch: …``.

        Jobs are submitted one after another, their outcomes come as they complete, and one failure never stops the others.
        Leaving the context early stops the submitting and the waiting, not what was submitted. A submission that is on its
        way then has three seconds to be answered.

        With a ``journal`` the batch survives everything: run the same batch with the same journal again, and it goes on
        where it was. Nothing is submitted twice, what goes on at the server is followed, and files that broke off are
        completed. Jobs may be added, removed and put in another order. Over all runs there is one outcome for each job
        that ended; a run that is killed while its caller deals with an outcome is told that one again.

        A job is identified by its character or pose, its mask and its whole ``audio_url``; the signature of a known object
        store does not count. Jobs that are equal in this are told apart by ``name`` first, then by order.

        Args:
            jobs: What to make. Equal jobs are several videos.
            save_to: A folder to save the videos in, made if need be; ``None``: nothing is saved. A file is named by its
                job's ``name``, otherwise by the job's place, ``0001.mp4`` being the first. A mask goes beside its video:
                ``0001.mask.mp4``.
            journal: The file that remembers how far each job is, made if need be; ``None``: nothing outlives the run.
            overwrite: Whether files that are there already may be replaced. Without it, a job whose recording has changed
                while its name stayed ends with a ``DownloadError`` and is not submitted; with it, that job alone is rendered
                again, which is paid for.
            max_in_flight: How many videos may be under way at once; ``None``: all. A submission in doubt counts as one until
                it was looked for.
            limit: How many jobs may be submitted in this run; the others wait for a later one. ``None``: all.
            quota: How many submissions the account has left: if there are more to make, none is made. ``None``: not known.
            resubmit_unknown: Submit jobs again of which an earlier run could not tell whether they were accepted: all
                (``True``), or those at these places in the batch. You may pay for them twice.
            resubmit_failed: Submit jobs again whose render failed in an earlier run, which the server refused, or whose video
                it no longer knows.
            repeat: Whether outcomes are told again that an earlier run has told already.
            new_token: Whether the account's token is another one than when the journal was last used.
            render_timeout: Seconds to wait in this run for each submitted video to finish, 24 hours by default; ``None``:
                no limit. When it expires, the outcome is a ``WaitTimeoutError`` with the ``video_id``; the render goes on
                at the server, and the next run with the same journal waits for it again.
            recordings: What new jobs are that differ only in the query of the ``audio_url`` from jobs that the journal has
                and the batch has not: the ``"same"`` recordings with new signatures, which are not submitted again, or
                ``"new"`` recordings. ``None``: a batch with such jobs does not begin.

        Returns:
            The batch, which starts when its context is entered. It raises there ``JournalError`` if the journal cannot be
            used or is another account's, ``AmbiguousJobsError`` if ``recordings`` is needed, ``DownloadError`` if a video
            could not be saved, and ``ConfigurationError`` if the quota does not suffice; nothing was submitted then.

        Raises:
            ManifestError: Two files would be saved under one name.
            InvalidArgumentError: Another argument cannot be right.
        """
        options = BatchOptions(
            save_to=save_to,
            journal=journal,
            overwrite=overwrite,
            max_in_flight=max_in_flight,
            limit=limit,
            quota=quota,
            resubmit_unknown=resubmit_unknown,
            resubmit_failed=resubmit_failed,
            repeat=repeat,
            new_token=new_token,
            render_timeout=render_timeout,
            recordings=recordings,
        )
        return AsyncBatch(self._session, jobs, options)
