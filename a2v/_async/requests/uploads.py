"""Uploads local recordings to an a2v engine.

``add`` hashes a file and returns its ``audio_url``, which consists of the hash. ``send`` is called before each
submission. It does nothing for other URLs, or if the upload was sent or confirmed less than half of its lifetime ago.
Otherwise, it asks the server for the upload, which extends its lifetime, and sends the file if the server does not have it. So a
recording is transferred when the first video needs it, and only once for any number of videos; and again if a batch runs for days.

These requests do not count towards the engine's rate limit, so they bypass the rate limiter. The request that asks whether the
server accepts uploads does not, because the server may not be an engine.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TypeVar

import anyio
import httpx
from attrs import define, field

from a2v._async.requests import telemetry
from a2v._core import wire
from a2v._core.responses import Retry, classify
from a2v._core.settings import HOSTED
from a2v._unicode_paths import find_existing
from a2v.errors import NotFoundError, StagingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2v._async.requests.session import LoopState, Session
    from a2v._core.wire import ApiRequest

T = TypeVar("T")

_CHUNK_SIZE = 256 * 1024  # bytes


@define(eq=False)
class _Recording:
    path: Path
    sha256: str
    size: int
    # Until when the server certainly has the upload, by the session's clock.
    fresh_until: float = field(default=float("-inf"), init=False)


@define(eq=False)
class Uploads:
    """The recordings that a client uploads on demand.

    Attributes:
        limits: The server's limits; ``None`` if it accepts no uploads, or was not asked yet.
    """

    limits: wire.UploadLimits | None = None
    _was_asked: bool = False
    _recordings: dict[str, _Recording] = field(factory=dict)

    async def accepted_by(self, session: Session) -> bool:
        """Return whether the server accepts uploads. Only the first call asks the server.

        Raises:
            A2VError: The server could not be asked.
        """
        if session.base_url != HOSTED:
            with session.in_use() as state:
                # Concurrent callers wait for the same response.
                async with state.uploading.setdefault(wire.UPLOADS, anyio.Lock()):
                    self.limits = self.limits if self._was_asked else await _ask(session)
                    self._was_asked = True
        return self.limits is not None

    async def add(self, session: Session, path: Path) -> str:
        """Register a file for upload, and return its URL.

        Raises:
            StagingError: The file cannot be read, is empty or too large, or the server accepts no uploads.
            A2VError: The server could not be asked.
        """
        if not await self.accepted_by(session) or self.limits is None:
            raise StagingError(
                f"{path} is a file on this machine, and {session.base_url} accepts no uploads: upload it to a bucket with "
                "a2v.staging, and pass its URL"
            )
        recording = await _in_thread(partial(_inspect, path, self.limits.max_bytes))
        audio_url = audio_url_of(recording.sha256)
        known = self._recordings.setdefault(audio_url, recording)
        known.path = recording.path  # of several files with this content, the latest is most likely to still exist
        return audio_url

    async def send(self, session: Session, state: LoopState, audio_url: str) -> Retry | None:
        """Upload the recording of a job, if it is a registered file that the server does not have.

        Returns:
            ``Retry`` if the upload failed and may be retried.

        Raises:
            A2VError: The recording cannot be uploaded.
        """
        recording = self._recordings.get(audio_url)
        if recording is None:
            return None
        async with state.uploading.setdefault(audio_url, anyio.Lock()):
            now = session.now()
            if now < recording.fresh_until or self.limits is None:
                return None
            failed = await self._send(session, state, recording, self.limits)
            if failed is None:
                recording.fresh_until = now + self.limits.keep_seconds / 2
            return failed

    def forget(self, audio_url: str) -> bool:
        """Record that the server no longer has an upload, so that the next ``send`` repeats it; return whether it is registered."""
        recording = self._recordings.get(audio_url)
        if recording:
            recording.fresh_until = float("-inf")
        return recording is not None

    async def _send(
        self, session: Session, state: LoopState, recording: _Recording, limits: wire.UploadLimits
    ) -> Retry | None:
        name = recording.path.name.encode(errors="replace").decode()
        try:
            return await _exchange(session, state, wire.upload_get(recording.sha256, name))
        except NotFoundError as error:
            if error.code != wire.NOT_FOUND:
                raise
        telemetry.logger.info("uploading a recording of %d bytes", recording.size)
        with ExitStack() as stack:
            file = await _in_thread(partial(_open, recording.path))
            stack.callback(file.close)
            body = UploadBody(file, recording.path, recording.size, limits.max_seconds)
            return await _exchange(session, state, wire.upload_put(recording.sha256, name), body)


def audio_url_of(sha256: str) -> str:
    """Return the URL of an upload with this SHA-256, in hexadecimal."""
    return f"{wire.UPLOAD}{sha256}"


def upload_url(path: Path) -> str:
    """Return the URL that a file will have after its upload. Sends nothing.

    Raises:
        StagingError: The file cannot be read.
    """
    return audio_url_of(_inspect(path, None).sha256)


async def _in_thread(function: Callable[[], T]) -> T:
    from a2v import _threads  # noqa: PLC0415  # with asyncio, which not every process that imports the client needs

    return await _threads.run(function)


async def _ask(session: Session) -> wire.UploadLimits | None:
    try:
        return await session.call(wire.upload_limits())
    except NotFoundError:
        return None


async def _exchange(
    session: Session, state: LoopState, request: ApiRequest[T], body: UploadBody | None = None
) -> T | Retry:
    with telemetry.observe_request(session.base_url, request) as observed:
        response = await state.transport.exchange(session.base_url, session.token, request, session.options, body=body)
        observed.record(response)
    return classify(request, response)


class UploadBody(httpx.AsyncByteStream):
    """Streams a file as the body of a request. Not a generator; see ``httpcore_workarounds``.

    Args:
        file: The open file.
        path: The path of the file, for messages.
        size: The announced size in bytes.
        max_seconds: Maximum duration of the upload, in seconds.
    """

    def __init__(self, file: BinaryIO, path: Path, size: int, max_seconds: float) -> None:
        self.size: int = size
        self.max_seconds: float = max_seconds
        self._file = file
        self._path = path
        self._sent = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await _in_thread(partial(self._file.read, _CHUNK_SIZE))
        except OSError as error:
            reason = error.strerror or error
        else:
            self._sent += len(chunk)
            if self._sent > self.size or (not chunk and self._sent < self.size):
                raise StagingError(f"{self._path} was changed while it was uploaded")
            if not chunk:
                raise StopAsyncIteration
            return chunk
        raise StagingError(f"{self._path} cannot be read: {reason}")


def _open(path: Path) -> BinaryIO:
    try:
        # O_NONBLOCK, because opening a pipe would block.
        descriptor = os.open(
            find_existing(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        file = os.fdopen(descriptor, "rb", buffering=0)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return file
        file.close()
        what = "is not a file"
    except IsADirectoryError:
        what = "is a folder; give a file in it"
    except FileNotFoundError:
        what = "does not exist"
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"
    raise StagingError(f"{path} {what}")


def _inspect(path: Path, max_bytes: int | None) -> _Recording:
    with closing(_open(path)) as file:
        size, sha256 = _hash(file, path)
    if not size:
        raise StagingError(f"{path} is empty")
    if max_bytes is not None and size > max_bytes:
        raise StagingError(
            f"{path} has {size / 2**20:.0f} MiB, and the server accepts {max_bytes / 2**20:.0f}: convert it to a compressed "
            "format, such as FLAC or MP3"
        )
    return _Recording(path, sha256, size)


def _hash(file: BinaryIO, path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        while chunk := file.read(_CHUNK_SIZE):
            size += len(chunk)
            digest.update(chunk)
    except OSError as error:
        reason = error.strerror or error
    else:
        return size, digest.hexdigest()
    raise StagingError(f"{path} cannot be read: {reason}")
