"""Downloads a finished video, its mask or its captions: streams the file, resumes after failures, and renames the complete file.

A download is a loop of attempts. If a strong ETag identifies the version of the partial file, an attempt requests the rest with
``Range`` and ``If-Range``; otherwise it starts from the first byte. Only attempts without
progress count towards ``max_retries``. An expired URL is replaced by a new one, at most once per attempt.

The server is not trusted. The first bytes of a body show whether it is a video or, for example, an error page
(``a2v._core.filetype``); until then, the partial file is not overwritten. The file is complete if its size on disk equals the
announced length. The number of bytes stored is limited, regardless of the announced length.

Captions arrive as WebVTT. If they are saved as SubRip, the partial file is converted before it is renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urljoin

import anyio
from attrs import define

from a2v import _threads
from a2v._async.destination import Destination, PartialFile, sync
from a2v._async.requests import telemetry
from a2v._async.requests.session import Session
from a2v._core.captions import read_captions, to_srt
from a2v._core.filetype import FileReader, WrongFileError, content_coding, is_cut_mp4
from a2v._core.rate_limiter import file_pause
from a2v._core.responses import NoResponse, Retry
from a2v._core.settings import Secret
from a2v._core.wire import Response
from a2v.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

    from a2v._core.file_names import FileKind  # noqa: TC004  # attrs does not evaluate annotations

T = TypeVar("T")
OnProgress = Callable[[int, int | None], object]

_REDIRECT = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 5
# 203 is a 200 that a proxy has modified.
_COMPLETE = {200, 203}
# Minimum progress of an attempt in bytes, to count as progress. Otherwise, a server that sends a few bytes at a time would be
# retried for days.
_MIN_PROGRESS = 4096
# Maximum size of captions in bytes: far more than hours of speech need.
_MAX_CAPTIONS_SIZE = 16 << 20
# The statuses of object stores for an expired pre-signed URL.
_EXPIRED = {401, 403, 404, 410}


class ResumeStore(Protocol):
    """Stores the progress of a download, so that another process can resume it.

    Attributes:
        etag: The version of the partial file; ``None`` if it is unknown, so that the file cannot be resumed.
        size: The size of the complete file in bytes, if known.
    """

    etag: str | None
    size: int | None

    async def start(self, etag: str | None, size: int | None) -> None:
        """Record that the file will be stored from its first byte."""
        ...

    async def complete(self, size: int, sha256: str) -> None:
        """Record that the whole file is on disk, and will be renamed."""
        ...


async def download(
    session: Session,
    url: Secret,
    destination: Destination,
    fresh_url: Callable[[], Awaitable[Secret]],
    resume_store: ResumeStore | None = None,
    *,
    kind: FileKind = "video",
    on_progress: OnProgress | None = None,
) -> Path:
    """Download a file.

    Args:
        session: The session, for connections and the retry policy. Its token is not sent.
        url: The file's URL, which may be pre-signed.
        destination: Where to save the file.
        fresh_url: Returns a new URL if the old one has expired.
        resume_store: Stores the progress, so that a later download can resume the partial file. ``None``: if the download fails,
            the partial file is removed.
        kind: The kind of the file; a video by default.
        on_progress: Called with the number of bytes stored and the size of the file, if known.

    Returns:
        The path of the file.

    Raises:
        DownloadError: The file cannot be fetched or stored.
        A2VError: An error of ``fresh_url`` or ``resume_store``.
    """
    part = PartialFile(destination.part, keep=resume_store is not None)
    fetch = _Download(session, url, fresh_url, resume_store, part, kind, on_progress)
    try:
        await _fetch(destination, fetch)
        if kind == "captions" and destination.path.suffix.lower() == ".srt":
            await in_thread(partial(_convert_to_srt, destination.part))
        await in_thread(destination.complete)
    except BaseException as error:
        if isinstance(error, Exception):  # a cancellation is not a failure
            telemetry.count_download(None)
        if fetch.part.owned and not fetch.resumable:
            with anyio.CancelScope(shield=True), suppress(OSError):
                await _threads.run(lambda: destination.part.unlink(missing_ok=True))
        raise
    telemetry.count_download(fetch.size)
    return destination.path


async def _fetch(destination: Destination, fetch: _Download) -> None:
    try:
        await in_thread(fetch.part.open)
        await fetch.run()
        if fetch.resume_store:
            digest = await in_thread(lambda: sha256_of(destination.part))
            await fetch.resume_store.complete(fetch.size, digest)
    finally:
        fetch.part.close()


def _convert_to_srt(path: Path) -> None:
    """Convert a caption file from WebVTT to SubRip, in place.

    Raises:
        DownloadError: The captions are invalid.
    """
    try:
        converted = to_srt(read_captions(path.read_bytes().decode(), limited=False))
    except ValueError as error:  # also of the decoder
        raise DownloadError(f"the captions that the server sent are not valid WebVTT: {error}") from None
    with path.open("r+b") as file:
        file.truncate()
        file.write(converted.encode())
        file.flush()
        sync(file.fileno())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@define(eq=False)
class _Download:
    """One download, with the state that is kept between its attempts. It is the ``ResponseSink`` of the responses.

    Attributes:
        kind: The kind of the file.
        etag: The version of the stored bytes; ``None``: the next attempt starts from the first byte.
        coding: The ``Content-Encoding`` of that version.
        size: The number of bytes stored.
        total: The size of the complete file in bytes, if known.
        unusable: Whether the partial file must not be resumed.
        response: The response whose body is being read; ``None`` if the body is not read.
        reader: Decodes a body that contains the file from its first byte; ``None`` for the rest of a file.
        overwriting: Whether bytes from ``reader`` have been stored.
        last_response: The head of the attempt's last response, which may ask the client to wait.
        callback_error: The exception that ``on_progress`` raised, if any.
    """

    session: Session
    url: Secret
    fresh_url: Callable[[], Awaitable[Secret]]
    resume_store: ResumeStore | None
    part: PartialFile
    kind: FileKind = "video"
    on_progress: OnProgress | None = None
    etag: str | None = None
    coding: str | None = None
    size: int = 0
    total: int | None = None
    unusable: bool = False
    response: Response | None = None
    reader: FileReader | None = None
    overwriting: bool = False
    last_response: Response | None = None
    callback_error: Exception | None = None

    @property
    def _name(self) -> str:
        return "captions" if self.kind == "captions" else "video"

    @property
    def resumable(self) -> bool:
        """Whether another process can resume the download."""
        return bool(self.resume_store and self.resume_store.etag) and not self.unusable

    async def run(self) -> None:
        """Make attempts until the file is complete and on disk."""
        if self.resume_store and (etag := strong_etag(self.resume_store.etag)):
            self.size = await in_thread(lambda: self.part.file.seek(0, os.SEEK_END))
            self.etag, self.total = (etag, self.resume_store.size) if self.size else (None, None)
        if not self.size or self.size != self.total:
            await self._retry()
        await self._sync()

    async def _retry(self) -> None:
        attempt, furthest = 0, self.size
        while isinstance(outcome := await self._attempt(), Retry):
            # Compare with the furthest point: a server that restarts and breaks off again and again would otherwise be retried for
            # ever.
            attempt, furthest = (0 if self.size >= furthest + _MIN_PROGRESS else attempt), max(furthest, self.size)
            if attempt == self.session.options.max_retries:
                raise outcome.error
            response = self.last_response
            await self.session.pause(
                attempt, file_pause(response.status_code, response.headers, attempt) if response else 0.0
            )
            attempt += 1

    async def _attempt(self) -> Retry | None:
        redirects, refreshed = 0, False
        while True:
            self.response, self.reader, self.overwriting, self.last_response = None, None, False, None
            try:
                with self.session.in_use() as state:
                    response = await state.transport.fetch(
                        self.url, self._range_headers(), self.session.options.timeout, self
                    )
                # An OSError of the callback was handled like a network error.
                if self.callback_error:
                    raise self.callback_error
                if isinstance(response, NoResponse):
                    return Retry(DownloadError(f"the {self._name} could not be fetched: {response.reason}"))
                self.last_response = response
                await self._end()
            except WrongFileError as error:
                return Retry(DownloadError(str(error)))
            if response.status_code in _REDIRECT:
                redirects += 1
                self._redirect(response, redirects)
            elif not refreshed and self._has_expired(response.status_code):
                redirects, refreshed, self.url = 0, True, await self.fresh_url()
            else:
                return await self._result(response.status_code)

    def _has_expired(self, status: int) -> bool:
        # Google Cloud Storage responds with 400, but also to URLs that never worked, so some bytes must have arrived before.
        return status in _EXPIRED or (status == 400 and self.size > 0)

    def _range_headers(self) -> dict[str, str]:
        if not self.size or not self.etag:
            return {}
        return {"range": f"bytes={self.size}-", "if-range": self.etag}

    # The body of a response

    async def start(self, response: Response) -> bool:
        """Inspect the response's head and return whether to read its body."""
        if response.status_code in _COMPLETE or _size_of_full_range(response):
            self._check_limit(_content_length(response) or 0)
            self.response, self.reader = response, FileReader(response.headers, captions=self.kind == "captions")
        elif response.status_code == 206 and self._continues(response):
            self.response = response
        return self.response is not None

    async def write(self, chunk: bytes) -> None:
        """Store the next part of the body."""
        await self._store(self.reader.read(chunk) if self.reader else (chunk,))
        if self.on_progress:
            try:
                self.on_progress(self.size, self.total)
            except Exception as error:
                self.callback_error = error
                raise

    async def _end(self) -> None:
        """Store the rest of the reader's buffer."""
        if self.reader:
            await self._store(self.reader.end())

    async def _store(self, pieces: Iterable[bytes]) -> None:
        for piece in filter(None, pieces):
            # The reader has recognized the file, so these bytes may replace the stored ones.
            if self.reader and not self.overwriting:
                await self._restart(self.reader)
            self._check_limit(self.size + len(piece))
            await in_thread(partial(self.part.file.write, piece))
            self.size += len(piece)

    async def _restart(self, reader: FileReader) -> None:
        """Restart the file from its first byte, with the response that is being read."""
        headers: Mapping[str, str] = self.response.headers if self.response else {}
        self.overwriting, self.etag, self.total, self.coding = True, None, None, headers.get("content-encoding")
        await in_thread(lambda: (self.part.file.seek(0), self.part.file.truncate()))
        self.size = 0
        if not reader.is_compressed:  # otherwise, the ETag and the length describe the compressed bytes
            self.etag, self.total = strong_etag(headers.get("etag")), _content_length(self.response)
        if self.resume_store:
            # Remove the old bytes from the disk before storing the new ETag, or a later run could take them for the new version.
            await self._sync()
            await self.resume_store.start(self.etag, self.total)

    def _continues(self, response: Response) -> bool:
        """Whether a partial response contains exactly the missing bytes; if not, the next attempt starts from the first byte."""
        headers = response.headers
        content_range = re.fullmatch(
            r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", headers.get("content-range", "")
        )
        same_coding = content_coding(headers) is None or headers.get("content-encoding") == self.coding
        if content_range and self.size and self.etag and headers.get("etag", self.etag) == self.etag and same_coding:
            start, end, total = map(int, content_range.groups())
            if (start, end + 1) == (self.size, total) and self.total in (None, total):
                self.total = total
                self._check_limit(total)
                return True
        self.etag = None
        return False

    # The end of an attempt

    def _redirect(self, response: Response, redirects: int) -> None:
        try:
            target = Secret(urljoin(self.url.value, response.headers.get("location", "")))
        except ValueError:
            target = Secret("")
        schemes = ("https://", "http://") if self.url.value.startswith("http://") else ("https://",)
        if redirects > _MAX_REDIRECTS or not target.value.startswith(schemes):
            raise DownloadError(f"the URL of the {self._name} redirects too often or to something that is not fetched")
        self.url = target

    async def _result(self, status: int) -> Retry | None:
        if status in _COMPLETE or status == 206:
            return await self._check_body()
        if status == 416:
            self.etag = None  # the file is shorter than the stored bytes, so start again
        error = DownloadError(f"the {self._name} could not be fetched: HTTP {status}")
        if status in (408, 416, 429) or status >= 500:
            return Retry(error)
        raise error

    async def _check_body(self) -> Retry | None:
        if self.response is None:
            return Retry(
                DownloadError(f"the {self._name} could not be fetched: the server sent a part that does not fit")
            )
        if self.total is not None:
            is_complete = self.size == self.total
        else:  # the body ended with the connection, which may have been lost
            is_complete = self.size > 0 and not await in_thread(self._is_cut)
        if is_complete and (self.reader is None or (self.overwriting and self.reader.is_complete)):
            return None
        if self.total is not None and self.size > self.total:
            self.etag = None
        return Retry(DownloadError(f"the {self._name} broke off after {self.size} of {self.total or 'unknown'} bytes"))

    def _is_cut(self) -> bool:
        try:
            return is_cut_mp4(self.part.file)
        finally:
            self.part.file.seek(0, os.SEEK_END)

    def _check_limit(self, size: int) -> None:
        if self.kind == "captions" and size > _MAX_CAPTIONS_SIZE:
            raise DownloadError(f"the captions are larger than {_MAX_CAPTIONS_SIZE >> 20} MiB")
        limit = self.session.max_download_bytes
        if limit is not None and size > limit:
            self.unusable = True
            raise DownloadError(
                f"the video is larger than {limit} bytes, the limit of this client; pass a larger max_download_bytes to it"
            )

    async def _sync(self) -> None:
        try:
            await in_thread(partial(self.part.sync, self.size))
        except DownloadError:
            self.unusable = True
            raise


def strong_etag(etag: str | None) -> str | None:
    """Return an ETag if it is strong and ASCII, as ``If-Range`` requires; otherwise ``None``. A weak one does not identify a version."""
    return etag if etag and re.fullmatch(r'"[\x21\x23-\x7e]{1,1000}"', etag) else None


def _size_of_full_range(response: Response) -> int | None:
    """Return the file's size if a 206 response contains the whole file. Some servers send one without a ``Range`` header."""
    content_range = re.fullmatch(r"bytes 0-([0-9]{1,18})/([0-9]{1,18})", response.headers.get("content-range", ""))
    if response.status_code == 206 and content_range and int(content_range[1]) + 1 == int(content_range[2]):
        return int(content_range[2])
    return None


def _content_length(response: Response | None) -> int | None:
    """Return the announced size of the file in a response that contains it from the first byte."""
    if response and (total := _size_of_full_range(response)):
        return total
    length = response.headers.get("content-length", "") if response else ""
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


async def in_thread(work: Callable[[], T]) -> T:
    """Run file operations in a thread.

    Raises:
        DownloadError: An operation failed, for example because the disk is full or the folder is read-only.
    """
    try:
        return await _threads.run(work)
    except OSError as error:
        reason = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    raise DownloadError(f"the video could not be stored: {reason}")
