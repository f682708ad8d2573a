"""The asynchronous client."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from a2v._async.avatars import AsyncAvatars
from a2v._async.characters import AsyncCharacters
from a2v._async.requests.session import Session
from a2v._async.videos import AsyncVideos
from a2v._async.voices import AsyncVoices
from a2v._core.settings import HoldsSecret, Secret
from a2v._values import arguments
from a2v._values.models import DEFAULT_RENDER_TIMEOUT

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping
    from types import TracebackType

    from a2v._async.batch.batch import AsyncBatch
    from a2v._async.requests.http_libraries import AsyncTransport
    from a2v._budget.memory_store import SharedBudget
    from a2v._core.rate_limiter import Pace
    from a2v._values.jobs import Job


class AsyncA2V(HoldsSecret):
    """A client of one account on one server.

    Creating a client is cheap and does no I/O. It works with or without ``async with``; within the block, connections are kept for
    reuse. One client can be used in several event loops, one after another or at the same time; they share one rate limit.
    Leaving the block closes the client in that event loop only.

    Args:
        token: The account's token; ``None``: the environment variable ``A2V_TOKEN``.
        base_url: The URL of the server; ``None``: the environment variable ``A2V_BASE_URL``, or the hosted service if it is not
            set or empty.
        timeout: Seconds for one exchange with the server, 30 by default. Waits for videos have their own timeouts.
        max_retries: How many times a failed request is retried, 3 by default. A submission that may have arrived is never
            retried. Requests rejected with HTTP 429 do not count: unless this is 0, they are retried until no request of the
            client has succeeded for ten minutes.
        rate_limit: Upper bound of the requests per minute; responses may lower it but never raise it. ``"auto"`` (the
            default): the limit in the responses, and 30 until the first one. ``None``: the limit in the responses, and no
            limit until the first one.
        max_download_bytes: The largest file to download, in bytes; 2 GiB by default. ``None``: no limit.
        default_headers: Headers to add to every API request, such as the key of a gateway; none by default. They are not sent to
            the hosts that store videos.
        propagate_trace: Whether API requests carry the trace context of OpenTelemetry (``traceparent``), so that the server can
            add its spans to the trace. Off by default, because it tells another company's server the ids of your traces, and
            with some propagators the baggage. Never sent to the hosts that store videos.
        insecure: Whether the token may be sent unencrypted, over ``http://``, to private addresses (10.0.0.0/8, 172.16.0.0/12,
            192.168.0.0/16, 169.254.0.0/16, fc00::/7, fe80::/10); ``False`` by default. All addresses of a host name are
            checked before each request. These requests bypass proxies. The certificates of ``https://`` servers are always
            verified.
        transport: An asynchronous transport of httpx or httpx2, for tests and special networks; ``None``: connection pools of
            the client's own. It is closed with the client.
        budget: Where this client shares one rate limit and one poll schedule with all clients of the account that have the same
            ``budget``: a path such as ``"/run/app/a2v.budget"`` for the processes of one machine (not on Windows), or
            ``"redis://host:6379/0"`` (also ``rediss://``, also Valkey) for several machines, with the extra ``redis``. If it
            cannot be reached, the client logs a warning and continues with its share of the limit. The lowest ``rate_limit``
            of the clients applies to all. ``None``: the environment variable ``A2V_BUDGET``; if it is not set or empty, the
            client has its own rate limit.

    Raises:
        ConfigurationError: The token or another argument is missing or invalid.
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
        default_headers: Mapping[str, str] | None = None,
        propagate_trace: bool = False,
        insecure: bool = False,
        transport: AsyncTransport | None = None,
        budget: str | os.PathLike[str] | SharedBudget | None = None,
    ) -> None:
        secret, headers, shared = Secret(token), Secret(default_headers), Secret(budget)
        del token, default_headers, budget  # error reports may show local variables
        self._session = Session(
            token=secret,
            base_url=base_url,
            timeout=timeout,
            max_retries=max_retries,
            rate_limit=rate_limit,
            max_download_bytes=max_download_bytes,
            default_headers=headers,
            propagate_trace=propagate_trace,
            insecure=insecure,
            transport=transport,
            budget=shared,
        )

    def __repr__(self) -> str:
        # An error report may show a client whose constructor failed.
        session = getattr(self, "_session", None)
        return f"<{type(self).__name__} {session.base_url if session else 'not initialized'}>"

    async def __aenter__(self) -> Self:
        self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.leave()

    async def aclose(self) -> None:
        """Close the client in all its event loops: pending and later calls raise ``ClientClosedError``.

        Leaving an ``async with`` block does the same, but only for its event loop. Renders continue on the server.
        """
        await self._session.aclose()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncA2V:
        """Return a client with other request options that shares connections, rate limit and lifetime with this one.

        Polls of watched videos serve all these clients, and use the options of the original one.

        Args:
            timeout: Seconds for one exchange with the server; ``None``: the timeout of this client.
            max_retries: How many times a failed request is retried; ``None``: the value of this client.
            headers: Headers to add to this client's headers; none by default.

        Returns:
            The client. Closing either closes both.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        secret = Secret(headers)
        del headers  # error reports may show local variables
        client = object.__new__(type(self))
        client._session = self._session.with_options(timeout=timeout, max_retries=max_retries, headers=secret)
        return client

    async def pace(self) -> Pace:
        """Return the rate limit, how much of it is left, and when the next request is sent.

        Returns:
            The values at this moment.

        Raises:
            ClientClosedError: The client is closed.
        """
        with self._session.in_use() as state:
            return await state.dispatcher.pace()

    @property
    def characters(self) -> AsyncCharacters:
        """The characters that the service can render."""
        return AsyncCharacters(self._session)

    @property
    def avatars(self) -> AsyncAvatars:
        """The avatars that the service can render, each in several poses. Servers of the first revision do not have them."""
        return AsyncAvatars(self._session)

    @property
    def voices(self) -> AsyncVoices:
        """The voices that can speak a text. Servers of the first revision do not have them."""
        return AsyncVoices(self._session)

    @property
    def videos(self) -> AsyncVideos:
        """The videos of the account."""
        return AsyncVideos(self._session)

    async def accepts_uploads(self) -> bool:
        """Return whether the server is an a2v engine, which accepts uploads. Only the first call sends a request.

        Raises:
            A2VError: The server could not be asked.
        """
        return await self._session.uploads.accepted_by(self._session)

    async def upload(self, path: str | os.PathLike[str], *, later: bool = False) -> str:
        """Upload a local recording to an a2v engine, and return its ``audio_url``.

        The URL depends on the content only, so the same recording is the same job in every run. A recording that the
        server already has is not sent again. The server keeps a recording for a day after its last use; if you submit a video
        after that, this client uploads the recording again.

        Args:
            path: The path of the recording.
            later: Whether to upload the recording only when a video with this URL is submitted; ``False`` by default. A batch
                that continues an earlier run then uploads nothing for jobs that are done.

        Returns:
            A URL that only this server accepts.

        Raises:
            StagingError: The file cannot be read, is empty or too large, or the server accepts no uploads.
            APIError: The server rejected the file, for example because its space for uploads is full.
            TransportError: The server could not be reached.
        """
        source = arguments.path("path", path)
        audio_url = await self._session.uploads.add(self._session, source)
        if not later:
            await self._session.retry("uploads", partial(self._session.upload, audio_url))
        return audio_url

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
        """Render many videos: ``async with client.batch(jobs) as batch: async for outcome in batch: …``.

        Jobs are submitted one after another, outcomes are yielded as they complete, and one failure does not stop the
        others. Leaving the context early stops submitting and waiting; submitted renders continue. A submission in
        flight then has three seconds to get its response.

        With a ``journal``, the batch survives interruptions: run it again with the same journal, and it continues where it
        stopped. Nothing is submitted twice, a2v waits for submitted videos, and partial downloads are resumed. You may add,
        remove and reorder jobs. Each job that has ended has one outcome over all runs; but if a run is killed
        while you process an outcome, the next run yields it again.

        A job is identified by its character or pose, its mask, its options, and either its complete ``audio_url``, without the
        signature of a known object store, or its text and voice. Jobs that are equal in all of these are matched by ``name``
        first, then by order.

        A job with a text needs two requests, each sent once: the journal records the speech before the video is submitted.

        Args:
            jobs: The jobs. Equal jobs are rendered as several videos.
            save_to: The folder to save the videos in, created if missing; ``None``: nothing is saved. The name of a file is its
                job's ``name``, or else the job's position: ``0001.mp4`` is the first. A mask is saved beside its video, as
                ``0001.mask.mp4``, and captions as ``0001.srt`` and ``0001.vtt``.
            journal: The file that records the state of each job, created if missing; ``None``: the state is lost when the
                run ends.
            overwrite: Whether existing files may be replaced; ``False`` by default. Without it, a job with a new recording under
                an existing name ends with a ``DownloadError`` and is not submitted. With it, only that job is rendered again,
                which costs money.
            max_in_flight: Maximum number of videos in progress at the same time; ``None``: no limit. An unknown submission counts
                until the search for its video has ended.
            limit: Maximum number of jobs to submit in this run; the others are left for a later run. ``None``: no limit.
            quota: The number of submissions that the account has left; if the run needs more, it does not start. A job with a
                text needs two, for the speech and the video. ``None``: unknown.
            resubmit_unknown: Which jobs to resubmit if an earlier submission has an unknown outcome: none (``False``, the
                default), all (``True``), or the jobs at these positions in the batch, from 0. You may pay for them twice.
            resubmit_failed: Whether to resubmit jobs whose render failed in an earlier run, that the server rejected, or whose
                video the server no longer has; ``False`` by default.
            repeat: Whether to yield the outcomes of earlier runs again; ``False`` by default.
            new_token: Whether to accept a token other than the one of the journal's last run; ``False`` by default.
            render_timeout: Seconds to wait in this run for each submitted video, 24 hours by default; ``None``: no limit.
                When it expires, the outcome is a ``WaitTimeoutError`` with the ``video_id``. The render continues, and the
                next run with the same journal waits for it again.
            recordings: How to treat a new job that differs only in the query of the ``audio_url`` from a job of the journal that
                is no longer in the batch: as the ``"same"`` recording with a new signature, which is not submitted again, or as a
                ``"new"`` recording. ``None``: a batch with such jobs does not start.

        Returns:
            The batch, which starts when its context is entered. Entering raises ``JournalError`` if the journal cannot be
            used or belongs to another account, ``AmbiguousJobsError`` if ``recordings`` is needed, ``DownloadError`` if a
            video could not be saved, and ``ConfigurationError`` if the quota is too low. Nothing has been submitted then.

        Raises:
            ManifestError: Two files would have the same name.
            InvalidArgumentError: Another argument is invalid.
        """
        # Imported on demand: half of the client's code, and sqlite3, which single videos do not need.
        from a2v._async.batch.batch import AsyncBatch  # noqa: PLC0415
        from a2v._core.batch_options import BatchOptions  # noqa: PLC0415

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
