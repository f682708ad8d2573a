"""Fetch a finished video: streamed, resumed where it broke off, and under its final name only when it is whole.

Nothing that a server says is trusted further than it can be checked. What the body is, its first bytes tell
(``a2v._core.filetype``). Whether it is whole, its announced length and the size of the file on disk tell. How much is
stored is limited, whatever length is announced.
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
from a2v._async.destination import Destination, PartialFile
from a2v._async.requests.session import Session
from a2v._core.filetype import NotAVideoError, VideoReader, content_coding, is_cut_mp4
from a2v._core.rate_limiter import file_pause
from a2v._core.responses import NoResponse, Retry
from a2v._core.settings import Secret
from a2v._core.wire import Response
from a2v.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_REDIRECT = {301, 302, 303, 307, 308}
_REDIRECTS = 5
# A proxy that changed something about the response says 203.
_WHOLE = {200, 203}
# A try that brought at least so many bytes got further; with less, a server that drips would be asked for days.
_FURTHER = 4096
# What object storage answers to a pre-signed URL that has expired.
_EXPIRED = {401, 403, 404, 410}


class ResumeStore(Protocol):
    """Remembers a download, so that another process can go on with it.

    Attributes:
        etag: Of which version of the file a part is on disk, if that is known for sure.
        size: How long the whole file is, if that is known.
    """

    etag: str | None
    size: int | None

    async def start(self, etag: str | None, size: int | None) -> None:
        """A file is about to be stored, from its first byte."""
        ...

    async def complete(self, size: int, sha256: str) -> None:
        """All of it is on disk, and only its name is missing."""
        ...


async def download(
    session: Session,
    url: Secret,
    destination: Destination,
    fresh_url: Callable[[], Awaitable[Secret]],
    resume_store: ResumeStore | None = None,
) -> Path:
    """Fetch a file and save it.

    Args:
        session: Whose connections and patience to use; its token stays here.
        url: The file's URL. It is a secret: whoever has it can fetch the file.
        destination: Where to save it.
        fresh_url: Asks for a new URL when this one has expired.
        resume_store: Remembers the progress, so that the partial file of a download that fails is kept for a later one. Without
            it the partial file is removed.

    Returns:
        The path of the whole file.

    Raises:
        DownloadError: The file cannot be had or stored.
        A2VError: As ``fresh_url`` or ``resume_store`` raises.
    """
    part = PartialFile(destination.part, keep=resume_store is not None)
    fetch = _Fetch(session, url, fresh_url, resume_store, part)
    try:
        await _fill(destination, fetch)
        await in_thread(destination.complete)
    except BaseException:
        if fetch.part.owned and not fetch.resumable:
            with anyio.CancelScope(shield=True), suppress(OSError):
                await _threads.run(lambda: destination.part.unlink(missing_ok=True))
        raise
    return destination.path


async def _fill(destination: Destination, fetch: _Fetch) -> None:
    try:
        await in_thread(fetch.part.open)
        await fetch.run()
        if fetch.resume_store:
            digest = await in_thread(lambda: sha256_of(destination.part))
            await fetch.resume_store.complete(fetch.size, digest)
    finally:
        fetch.part.close()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@define(eq=False)
class _Fetch:
    """One file on its way, over as many requests as it takes.

    A try that breaks off is followed by another one, which asks for the rest only where a strong ETag makes sure that it
    is the rest of the same file. Only tries without progress are counted: after ``max_retries`` of them in a row the
    download has failed. Each try exchanges a URL that has expired for a new one.

    Attributes:
        etag: Of which version of the file ``size`` bytes are stored; ``None``: a next try starts from the first byte.
        coding: The ``Content-Encoding`` of that version.
        size: How many bytes are stored.
        whole: How many there are in all, if that is known.
    """

    session: Session
    url: Secret
    fresh_url: Callable[[], Awaitable[Secret]]
    resume_store: ResumeStore | None
    part: PartialFile
    etag: str | None = None
    coding: str | None = None
    size: int = 0
    whole: int | None = None
    broken: bool = False
    # Of the request under way: its reply if that is wanted, the reader of one that brings the whole file, and whether any
    # of that is stored.
    reply: Response | None = None
    reader: VideoReader | None = None
    begun: bool = False
    # The last response, which may ask to wait.
    answer: Response | None = None

    @property
    def resumable(self) -> bool:
        """Whether another process can go on with what is stored."""
        return bool(self.resume_store and self.resume_store.etag) and not self.broken

    async def run(self) -> None:
        """Ask until the file is whole and on the disk."""
        if self.resume_store and (etag := strong_etag(self.resume_store.etag)):
            # Go on where another process broke off.
            self.size = await in_thread(lambda: self.part.file.seek(0, os.SEEK_END))
            self.etag, self.whole = (etag, self.resume_store.size) if self.size else (None, None)
        if not self.size or self.size != self.whole:
            await self._ask()
        await self._settle()

    async def _ask(self) -> None:
        attempt, furthest = 0, self.size
        while isinstance(outcome := await self._attempt(), Retry):
            # Further than ever, or a server that breaks off now here, now there would be asked for good.
            attempt, furthest = (0 if self.size >= furthest + _FURTHER else attempt), max(furthest, self.size)
            if attempt == self.session.max_retries:
                raise outcome.error
            asked = file_pause(self.answer.status_code, self.answer.headers, attempt) if self.answer else 0.0
            await self.session.pause(attempt, asked)
            attempt += 1

    async def _attempt(self) -> Retry | None:
        redirects, refreshed = 0, False
        while True:
            self.reply, self.reader, self.begun, self.answer = None, None, False, None
            try:
                with self.session.in_use() as state:
                    answer = await state.transport.fetch(self.url, self._wanted(), self.session.timeout, self)
                if isinstance(answer, NoResponse):
                    return Retry(DownloadError(f"the video could not be fetched: {answer.reason}"))
                self.answer = answer
                await self._end()
            except NotAVideoError as error:
                return Retry(DownloadError(str(error)))
            if answer.status_code in _REDIRECT:
                redirects += 1
                self._redirect(answer, redirects)
            elif not refreshed and self._is_expired(answer.status_code):
                redirects, refreshed, self.url = 0, True, await self.fresh_url()
            else:
                return await self._judge(answer.status_code)

    def _is_expired(self, status: int) -> bool:
        # Google's storage answers 400; but a URL that never worked is wrong in another way then.
        return status in _EXPIRED or (status == 400 and self.size > 0)

    def _wanted(self) -> dict[str, str]:
        if not self.size or not self.etag:
            return {}
        return {"range": f"bytes={self.size}-", "if-range": self.etag}

    async def begin(self, reply: Response) -> bool:
        """Look at a reply's head; tell whether its body is wanted."""
        if reply.status_code in _WHOLE or _all_of(reply):
            self._limit(_length(reply) or 0)
            self.reply, self.reader = reply, VideoReader(reply.headers)
        elif reply.status_code == 206 and self._continues(reply):
            self.reply = reply
        return self.reply is not None

    async def write(self, chunk: bytes) -> None:
        """Store what came."""
        await self._store(self.reader.read(chunk) if self.reader else (chunk,))

    async def _end(self) -> None:
        """Learn that a body has come to its end."""
        if self.reader:
            await self._store(self.reader.end())

    async def _store(self, pieces: Iterable[bytes]) -> None:
        for piece in filter(None, pieces):
            # Not before these are known to be bytes of a video: what is stored already may be worth keeping.
            if self.reader and not self.begun:
                await self._restart(self.reader)
            self._limit(self.size + len(piece))
            await in_thread(partial(self.part.file.write, piece))
            self.size += len(piece)

    async def _restart(self, reader: VideoReader) -> None:
        """Begin the file anew with the reply that is being read."""
        headers: Mapping[str, str] = self.reply.headers if self.reply else {}
        self.begun, self.etag, self.whole, self.coding = True, None, None, headers.get("content-encoding")
        await in_thread(lambda: (self.part.file.seek(0), self.part.file.truncate()))
        self.size = 0
        if not reader.is_compressed:  # otherwise both are about other bytes than those that are stored
            self.etag, self.whole = strong_etag(headers.get("etag")), _length(self.reply)
        if self.resume_store:
            # The old part is off the disk before the new one's tag is on it, or the two could be taken for one file.
            await self._settle()
            await self.resume_store.start(self.etag, self.whole)

    def _continues(self, reply: Response) -> bool:
        """Whether a partial reply is all that is missing; otherwise the next try starts from the first byte."""
        headers = reply.headers
        span = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", headers.get("content-range", ""))
        same_coding = content_coding(headers) is None or headers.get("content-encoding") == self.coding
        if span and self.size and self.etag and headers.get("etag", self.etag) == self.etag and same_coding:
            start, end, whole = map(int, span.groups())
            if (start, end + 1) == (self.size, whole) and self.whole in (None, whole):
                self.whole = whole
                self._limit(whole)
                return True
        self.etag = None
        return False

    def _redirect(self, reply: Response, redirects: int) -> None:
        try:
            target = Secret(urljoin(self.url.value, reply.headers.get("location", "")))
        except ValueError:
            target = Secret("")
        schemes = ("https://", "http://") if self.url.value.startswith("http://") else ("https://",)
        if redirects > _REDIRECTS or not target.value.startswith(schemes):
            raise DownloadError("the video's URL redirects too often or to something that is not fetched")
        self.url = target

    async def _judge(self, status: int) -> Retry | None:
        if status in _WHOLE or status == 206:
            return await self._judge_body()
        if status == 416:
            self.etag = None  # there is no such rest: anew
        error = DownloadError(f"the video could not be fetched: HTTP {status}")
        if status in (408, 416, 429) or status >= 500:
            return Retry(error)
        raise error

    async def _judge_body(self) -> Retry | None:
        if self.reply is None:
            return Retry(DownloadError("the video could not be fetched: the server sent a part that does not fit"))
        if self.whole is not None:
            is_whole = self.size == self.whole
        else:  # the body has ended with the connection, which may have broken
            is_whole = self.size > 0 and not await in_thread(self._is_cut)
        if is_whole and (self.reader is None or (self.begun and self.reader.is_whole)):
            return None
        if self.whole is not None and self.size > self.whole:
            self.etag = None
        return Retry(DownloadError(f"the video broke off after {self.size} of {self.whole or 'unknown'} bytes"))

    def _is_cut(self) -> bool:
        try:
            return is_cut_mp4(self.part.file)
        finally:
            self.part.file.seek(0, os.SEEK_END)

    def _limit(self, size: int) -> None:
        limit = self.session.max_download_bytes
        if limit is not None and size > limit:
            self.broken = True
            raise DownloadError(
                f"the video is larger than {limit} bytes, the limit of this client; pass a larger max_download_bytes to it"
            )

    async def _settle(self) -> None:
        try:
            await in_thread(partial(self.part.settle, self.size))
        except DownloadError:
            self.broken = True
            raise


def strong_etag(etag: str | None) -> str | None:
    """An ETag that may be sent in ``If-Range``: a strong one of ASCII characters. Others tell no version of a file."""
    return etag if etag and re.fullmatch(r'"[\x21\x23-\x7e]{1,1000}"', etag) else None


def _all_of(reply: Response) -> int | None:
    """The length of the file if a partial reply brings all of it, as some servers answer a request for no range."""
    span = re.fullmatch(r"bytes 0-([0-9]{1,18})/([0-9]{1,18})", reply.headers.get("content-range", ""))
    if reply.status_code == 206 and span and int(span[1]) + 1 == int(span[2]):
        return int(span[2])
    return None


def _length(reply: Response | None) -> int | None:
    """How long the file is that a reply brings from its first byte, if it tells."""
    if reply and (whole := _all_of(reply)):
        return whole
    length = reply.headers.get("content-length", "") if reply else ""
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


async def in_thread(work: Callable[[], T]) -> T:
    """Do something with files, off the event loop.

    Raises:
        DownloadError: It failed: a full disk, a folder that cannot be written, …
    """
    try:
        return await _threads.run(work)
    except OSError as error:
        reason = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    raise DownloadError(f"the video could not be stored: {reason}")
