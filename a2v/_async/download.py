"""Fetching a finished video: streamed, taken up again where it broke off, and under its name only when whole."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, Self, TypeVar
from urllib.parse import urljoin

import anyio
from attrs import define, field, frozen

from a2v import _threads
from a2v._async.session import Session
from a2v._core.retry import Again, Failure
from a2v._core.settings import Secret
from a2v.errors import DownloadError

if TYPE_CHECKING:
    from a2v._core.wire import Reply

T = TypeVar("T")

_REDIRECT = {301, 302, 303, 307, 308}
_REDIRECTS = 5
# A try that brought at least so many bytes got further; with less, a server that drips would be asked for days.
_FURTHER = 4096
# What object storage answers to a pre-signed URL that has expired.
_EXPIRED = {401, 403, 404, 410}


@frozen
class Destination:
    """Where a file shall be."""

    path: Path
    overwrite: bool

    @property
    def part(self) -> Path:
        """Where it grows, if somebody remembers how far it is."""
        return self.path.with_name(f"{self.path.name}.part")

    @classmethod
    async def check(cls, path: Path, *, overwrite: bool) -> Self:
        """Find out before anything is waited for or paid whether a file can be stored there.

        Raises:
            DownloadError: It cannot.
        """
        destination = cls(path, overwrite)
        await on_disk(destination.prepare)
        return destination

    def prepare(self) -> None:
        """Make the folders on the way, refuse what stands in it."""
        if self.path.is_dir():
            raise DownloadError(f"{self.path} is a folder; give the name of a file in it")
        if self.path.exists() and not self.overwrite:
            raise DownloadError(f"{self.path} exists already; pass overwrite=True to replace it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path.parent, os.W_OK):
            raise DownloadError(f"the folder {self.path.parent} is not writable")

    def complete(self, part: Path) -> None:
        """Give the whole file its name, durably."""
        if self.path.exists() and not self.overwrite:
            raise DownloadError(f"{self.path} appeared meanwhile; pass overwrite=True to replace it")
        part.replace(self.path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class Keeper(Protocol):
    """Remembers a download, so that another process can go on with it.

    Attributes:
        etag: Of which version of the file a part is on disk, if that is known for sure.
        size: How long the whole file is, if that is known.
    """

    etag: str | None
    size: int | None

    async def began(self, etag: str | None, size: int | None) -> None:
        """A file is about to be stored, from its first byte."""
        ...

    async def whole(self, size: int, sha256: str) -> None:
        """All of it is on disk, and only its name is missing."""
        ...


async def download(
    session: Session,
    url: Secret,
    destination: Destination,
    fresh_url: Callable[[], Awaitable[Secret]],
    keeper: Keeper | None = None,
) -> Path:
    """Fetch a file.

    Args:
        session: Whose connections and patience to use; its token stays here.
        url: Where the file is: whoever has it can fetch, so it is not shown by error reports.
        destination: Where it goes.
        fresh_url: Asks for another URL, used once if the first has expired.
        keeper: Who remembers how far it is, and so can use what stays of a file that broke off. Otherwise nothing stays.

    Returns:
        The path of the whole file.

    Raises:
        DownloadError: The file cannot be had or stored.
        A2VError: As ``fresh_url`` or ``keeper`` raises.
    """
    path = destination.path
    part = destination.part if keeper else path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        await _fill(part, _Fetch(session, url, fresh_url, keeper))
        await on_disk(lambda: destination.complete(part))
    except BaseException:
        if not (keeper and keeper.etag):
            with anyio.CancelScope(shield=True), suppress(OSError):
                await _threads.run(lambda: part.unlink(missing_ok=True))
        raise
    return path


async def _fill(part: Path, fetch: _Fetch) -> None:
    keeper = fetch.keeper
    opened = _Opened()
    try:
        await fetch.run(await on_disk(lambda: opened.open(part, "ab" if keeper else "xb")))
        if keeper:
            digest = await on_disk(lambda: digest_of(part))
            await keeper.whole(fetch.size, digest)
    finally:
        opened.close()


class _Opened:
    """A file that is opened in a thread, and closed even if that thread is left at work: asyncio's own cancellation does so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._over = False

    def open(self, path: Path, mode: Literal["ab", "xb"]) -> BinaryIO:
        with self._lock:
            if self._over:
                raise InterruptedError
            self._file = path.open(mode)
            return self._file

    def close(self) -> None:
        with self._lock:
            self._over = True
            # On a full disk closing fails too, for the buffer cannot be written; what is wanted was flushed by then.
            with suppress(OSError):
                if self._file:
                    self._file.close()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@define(eq=False)
class _Fetch:
    """One file on its way, over as many requests as it takes."""

    session: Session
    url: Secret
    fresh_url: Callable[[], Awaitable[Secret]]
    keeper: Keeper | None
    file: BinaryIO = field(init=False)
    etag: str | None = None
    size: int = 0
    whole: int | None = None
    redirects: int = 0
    refreshed: bool = False
    taken: bool = False

    async def run(self, file: BinaryIO) -> None:
        """Ask until the file is whole; a try that got further does not count as failed."""
        self.file = file
        if self.keeper and self.keeper.etag:
            # Go on where another process broke off.
            self.etag, self.whole = self.keeper.etag, self.keeper.size
            self.size = await on_disk(lambda: file.seek(0, os.SEEK_END))
            if self.size and self.size == self.whole:
                return
        attempt, furthest = 0, self.size
        while isinstance(outcome := await self._attempt(), Again):
            # Further than ever, or a server that breaks off now here, now there would be asked for good.
            attempt, furthest = (0 if self.size >= furthest + _FURTHER else attempt), max(furthest, self.size)
            if attempt == self.session.max_retries:
                raise outcome.error
            await self.session.pause(attempt)
            attempt += 1
        await on_disk(self._settle)

    async def _attempt(self) -> Again | None:
        while True:
            with self.session.in_use() as run:
                answer = await run.transport.fetch(self.url, self._wanted(), self.session.timeout, self)
            if isinstance(answer, Failure):
                return Again(DownloadError(f"the video could not be fetched: {answer.reason}"))
            if answer.status_code in _REDIRECT:
                self._redirect(answer)
            elif answer.status_code in _EXPIRED and not self.refreshed:
                self.refreshed, self.url = True, await self.fresh_url()
            else:
                return self._judge(answer.status_code)

    def _wanted(self) -> dict[str, str]:
        """Ask for the rest only where a strong ETag makes sure that it is the rest of the same file."""
        if not self.size or not self.etag:
            return {}
        return {"range": f"bytes={self.size}-", "if-range": self.etag}

    async def begin(self, reply: Reply) -> bool:
        """Look at a reply's head; tell whether its body is wanted."""
        self.taken = reply.status_code == 200 or (reply.status_code == 206 and self._continues(reply))
        if self.taken and reply.headers.get("content-encoding", "identity") != "identity":
            raise DownloadError("the video came compressed, which was not asked for")
        if reply.headers.get("content-type", "").startswith("text/html"):
            # A page that stands in the way: of a gateway that wants a login, or that is out of order.
            self.taken = False
        if reply.status_code == 200:
            await self._restart(reply)
        return self.taken

    async def write(self, chunk: bytes) -> None:
        """Store what came."""
        await on_disk(lambda: self.file.write(chunk))
        self.size += len(chunk)

    async def _restart(self, reply: Reply) -> None:
        await on_disk(lambda: (self.file.seek(0), self.file.truncate()))
        etag, length = reply.headers.get("etag", ""), reply.headers.get("content-length", "")
        self.etag = etag if re.fullmatch(r'"[^"]*"', etag) else None
        self.size, self.whole = 0, int(length) if length.isdecimal() else None
        if self.keeper:
            # The old part is off the disk before the new one's tag is on it, or the two could be taken for one file.
            await on_disk(self._settle)
            await self.keeper.began(self.etag, self.whole)

    def _continues(self, reply: Reply) -> bool:
        """Whether a partial reply is all that is missing; otherwise the next try starts anew."""
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers.get("content-range", ""))
        if span and self.etag and reply.headers.get("etag", self.etag) == self.etag:
            start, end, whole = map(int, span.groups())
            if (start, end + 1) == (self.size, whole) and self.whole in (None, whole):
                self.whole = whole
                return True
        self.etag = None
        return False

    def _redirect(self, reply: Reply) -> None:
        self.redirects += 1
        try:
            target = Secret(urljoin(self.url.value, reply.headers.get("location", "")))
        except ValueError:
            target = Secret("")
        schemes = ("https://", "http://") if self.url.value.startswith("http://") else ("https://",)
        if self.redirects > _REDIRECTS or not target.value.startswith(schemes):
            raise DownloadError("the video's URL redirects too often or to something that is not fetched")
        self.url = target

    def _judge(self, status: int) -> Again | None:
        if self.taken and self.size and self.size == (self.whole or self.size):
            return None
        if status in (200, 206) and not self.taken:
            return Again(DownloadError("the video could not be fetched: something else came in its place"))
        if status in (200, 206):
            return Again(DownloadError(f"the video broke off after {self.size} of {self.whole or 'unknown'} bytes"))
        if status == 416:
            self.etag = None  # there is no such rest: anew
        error = DownloadError(f"the video could not be fetched: HTTP {status}")
        if status in (408, 416, 429) or status >= 500:
            return Again(error)
        raise error

    def _settle(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


async def on_disk(work: Callable[[], T]) -> T:
    """Do something with files, off the event loop.

    Raises:
        DownloadError: It failed: a full disk, a folder that cannot be written, …
    """
    try:
        return await _threads.run(work)
    except OSError as error:
        reason = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    raise DownloadError(f"the video could not be stored: {reason}")
