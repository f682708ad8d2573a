"""The public interface of staging: one file for a block, or many files, with and without async.

Several stagers of a process may use the same object. ``_objects`` counts the users of each, so an object is removed only when the
last of them is done, and only if this process uploaded it. It is bounded by the number of objects that are in use or to be
removed, not by the number of files ever staged.
"""

from __future__ import annotations

import inspect
import math
import os
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from attrs import define, field

from a2v._core.settings import HoldsSecret, Secret
from a2v._values import arguments
from a2v.errors import ConfigurationError, StagingError
from a2v.staging.recording import inspect_file, open_file
from a2v.staging.store import ObjectStore
from a2v.staging.threads import CancelToken, run_async, run_blocking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

StrPath = str | os.PathLike[str]
DAY = 86400.0
# The maximum of S3 and Google Cloud Storage.
_MAX_EXPIRY = 7 * DAY


def stage(path: StrPath, to: str | Uploader, *, expires_in: float = DAY, remove: bool = False) -> Stage:
    """Stage one file for the duration of a block, which may be ``async with`` or ``with``.

    Args:
        path: The recording.
        to: The target: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``; or the client of a server
            that is a2v's engine, which keeps uploads for a day after their last use and has no other options.
        expires_in: Seconds until the URL expires: a day by default, seven days at most. The URL must outlive the queue: a server
            may download the recording of a pending video much later.
        remove: Whether to remove the object at the end of the block; ``False`` by default. It stays if the block ends with an
            error, because a submitted render may still need it. It also stays if it existed before, or if another block in this
            process stages the same recording. Other processes are not considered: if several remove objects, give each its own
            prefix.

    Returns:
        A context manager that yields the URL.

    Raises:
        ConfigurationError: ``to`` or ``expires_in`` is invalid.
        InvalidArgumentError: An argument has the wrong type.
        StagingError: On entering: the file cannot be read or uploaded. On leaving: the object cannot be removed.
    """
    return Stage(_staging(to, expires_in, remove=remove), path)


async def preview_url(path: StrPath, to: str) -> str:
    """Return the URL that staging a file would give, apart from its signature. Nothing is uploaded.

    Raises:
        ConfigurationError: ``to`` is invalid.
        StagingError: The file cannot be read, or no URL can be signed.
    """
    return await run_async(partial(_Staging(to, DAY, remove=False).sign, path))


class Uploader(Protocol):
    """A client of a server that is a2v's engine: ``A2V`` or ``AsyncA2V``."""

    @property
    def upload(self) -> Callable[[StrPath], str | Awaitable[str]]:
        """Upload a file unless the server has it, and return its URL."""
        ...


class _Engine:
    """Uploads to a server that is a2v's engine, through its client."""

    def __init__(self, client: Uploader) -> None:
        self._client = client
        self._is_async = bool(inspect.iscoroutinefunction(client.upload))

    def blocking_url(self, path: StrPath) -> str:
        if self._is_async:
            raise ConfigurationError("an AsyncA2V stages in asynchronous code: use async with and await, or an A2V")
        found = self._client.upload(path)
        assert isinstance(found, str)  # noqa: S101  # for type checkers
        return found

    async def async_url(self, path: StrPath) -> str:
        if not self._is_async:
            raise ConfigurationError("an A2V would block the event loop: stage with an AsyncA2V")
        found = self._client.upload(path)
        assert not isinstance(found, str)  # noqa: S101  # for type checkers
        return await found

    @staticmethod
    def close(*, keep: bool) -> bool:  # noqa: ARG004  # nothing is ever removed
        return False

    def remove(self, cancel: CancelToken) -> None:
        """Do nothing."""

    def __str__(self) -> str:
        return f"to {self._client!r}"


def _staging(to: Any, expires_in: float, *, remove: bool) -> _Staging | _Engine:
    if not hasattr(to, "upload"):
        return _Staging(to, expires_in, remove=remove)
    if remove or expires_in != DAY:
        raise ConfigurationError(
            "an engine deletes uploads a day after their last use: leave expires_in and remove out"
        )
    return _Engine(to)


class _SyncExit(HoldsSecret):
    """Ends a ``with`` block."""

    _staging: _Staging | _Engine

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._staging.close(keep=error is not None):
            run_blocking(self._staging.remove)


class _AsyncExit(HoldsSecret):
    """Ends an ``async with`` block."""

    _staging: _Staging | _Engine

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._staging.close(keep=error is not None):
            await run_async(self._staging.remove)


class Stager(_SyncExit):
    """Stages many files, for code without an event loop. Several threads may use it.

    Args:
        to: As for ``stage``.
        expires_in: As for ``stage``, from each call of ``url``.
        remove: As for ``stage``; objects are removed when the stager is closed.

    Raises:
        ConfigurationError: ``to`` or ``expires_in`` is invalid.
        InvalidArgumentError: An argument has the wrong type.
    """

    def __init__(self, to: str | Uploader, *, expires_in: float = DAY, remove: bool = False) -> None:
        self._staging = _staging(to, expires_in, remove=remove)

    def url(self, path: StrPath) -> str:
        """Upload a file unless the store has it, and return a new URL for it.

        Args:
            path: The recording.

        Returns:
            A presigned URL, or that of an upload to an engine.

        Raises:
            StagingError: The file cannot be read or uploaded.
        """
        return self._staging.blocking_url(path)

    def close(self) -> None:
        """Remove the objects if ``remove`` is set; the end of a ``with`` block does this.

        Raises:
            StagingError: An object cannot be removed.
        """
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<a2v.staging.Stager {_shown(self)}>"


class AsyncStager(_AsyncExit):
    """Stages many files, a few at a time. Several event loops may use it.

    Args:
        to: As for ``stage``.
        expires_in: As for ``stage``, from each call of ``url``.
        remove: As for ``stage``; objects are removed when the stager is closed.

    Raises:
        ConfigurationError: ``to`` or ``expires_in`` is invalid.
        InvalidArgumentError: An argument has the wrong type.
    """

    def __init__(self, to: str | Uploader, *, expires_in: float = DAY, remove: bool = False) -> None:
        self._staging = _staging(to, expires_in, remove=remove)

    async def url(self, path: StrPath) -> str:
        """Upload a file unless the store has it, and return a new URL for it.

        Cancellation aborts the upload and leaves nothing in the store.

        Args:
            path: The recording.

        Returns:
            A presigned URL, or that of an upload to an engine.

        Raises:
            StagingError: The file cannot be read or uploaded.
        """
        return await self._staging.async_url(path)

    async def aclose(self) -> None:
        """Remove the objects if ``remove`` is set; the end of an ``async with`` block does this.

        Raises:
            StagingError: An object cannot be removed.
        """
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<a2v.staging.AsyncStager {_shown(self)}>"


class Stage(_SyncExit, _AsyncExit):
    """A staged file; returned by ``stage``."""

    def __init__(self, staging: _Staging | _Engine, path: StrPath) -> None:
        self._staging = staging
        self._path = arguments.path("path", path)

    def __enter__(self) -> str:
        return self._staging.blocking_url(self._path)

    async def __aenter__(self) -> str:
        return await self._staging.async_url(self._path)

    def __repr__(self) -> str:
        return f"<a2v.staging.Stage {str(getattr(self, '_path', ''))!r} {_shown(self)}>"


def _shown(one: Stager | AsyncStager | Stage) -> str:
    # An error report may show an object whose construction failed.
    return str(getattr(one, "_staging", "not made"))


@define(eq=False)
class _StagedObject:
    """An object in a store that stagers of this process use.

    Attributes:
        lock: Held while the object is uploaded or removed.
        uses: The number of stagers that use it or are about to.
        uploaded_here: Whether this process uploaded it.
        keep: Whether a stager wants it to stay.
    """

    lock: threading.Lock = field(factory=threading.Lock)
    uses: int = 0
    uploaded_here: bool = False
    keep: bool = False


_objects: dict[object, _StagedObject] = {}
_objects_lock = threading.Lock()


def _forget_objects() -> None:
    """Forget everything in a forked child: threads that hold one of the locks exist in the parent only."""
    global _objects_lock  # noqa: PLW0603  # used in this module only
    _objects_lock = threading.Lock()
    _objects.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_objects)


class _Staging:
    """The implementation of all stagers; its methods block."""

    def __init__(self, to: str, expires_in: float, *, remove: bool) -> None:
        self._store = ObjectStore(arguments.text("to", to))
        self._expires_in = _check_expiry(expires_in)
        self._removes = arguments.boolean("remove", remove)
        self._closed = False
        self._used: dict[str, _StagedObject] = {}

    def url(self, path: StrPath, cancel: CancelToken) -> str:
        """Upload a file unless the store has it, and sign a URL for it."""
        if self._closed:
            raise StagingError("this stager is closed")
        source = arguments.path("path", path)
        with open_file(source) as file:
            recording = inspect_file(file, source, cancel)
            # Signed first: without a URL an upload is useless.
            url = Secret(self._store.sign(recording.name, self._expires_in))
            staged = self._claim(recording.name)
            succeeded = False
            try:
                # Other stagers of the same recording in this process wait until it is uploaded.
                with staged.lock:
                    cancel.check()
                    staged.uploaded_here |= self._store.put(file, recording, cancel)
                    succeeded = True
            finally:
                self._finish_claim(recording.name, staged, succeeded=succeeded)
        return url.value  # type: ignore[no-any-return]  # a string

    def sign(self, path: StrPath, cancel: CancelToken) -> str:
        """Sign a URL for a file, whether the store has it or not."""
        source = arguments.path("path", path)
        with open_file(source) as file:
            return self._store.sign(inspect_file(file, source, cancel).name, self._expires_in)

    def blocking_url(self, path: StrPath) -> str:
        """Like ``url``, in a thread that Ctrl-C can abandon."""
        return run_blocking(partial(self.url, path))

    async def async_url(self, path: StrPath) -> str:
        """Like ``url``, in a thread that a cancellation can abandon."""
        return await run_async(partial(self.url, path))

    def _claim(self, name: str) -> _StagedObject:
        with _objects_lock:
            staged = _objects.setdefault(self._store.object_key(name), _StagedObject())
            staged.uses += 1
        return staged

    def _finish_claim(self, name: str, staged: _StagedObject, *, succeeded: bool) -> None:
        """Keep the claim if the object is to be removed; otherwise release it, because a stager may live for months."""
        with _objects_lock:
            if succeeded and self._removes and not self._closed and name not in self._used:
                self._used[name] = staged
                return
            staged.keep |= succeeded and not self._removes
            self._release(name, staged)

    def _release(self, name: str, staged: _StagedObject) -> None:
        """Release a claim, with the lock held, and forget an object that is neither in use nor to be removed."""
        staged.uses -= 1
        if not staged.uses and (staged.keep or not staged.uploaded_here):
            _objects.pop(self._store.object_key(name), None)

    def close(self, *, keep: bool) -> bool:
        """Refuse further files; return whether there are objects to remove.

        Args:
            keep: Leave all objects in the store, and let no other stager of this process remove them.
        """
        with _objects_lock:
            self._closed = True
            while keep and self._used:
                name, staged = self._used.popitem()
                staged.keep = True
                self._release(name, staged)
        return bool(self._used)

    def remove(self, cancel: CancelToken) -> None:
        """Remove the objects that only this stager uses; raise the first error at the end."""
        errors = []
        while self._used:
            cancel.check()
            name, staged = self._used.popitem()
            with staged.lock:
                try:
                    if staged.uploaded_here and not staged.keep and staged.uses == 1:
                        self._store.remove(name)
                        staged.uploaded_here = False
                except StagingError as error:
                    errors.append(error)
                with _objects_lock:
                    self._release(name, staged)
        if errors:
            raise errors[0]

    def __str__(self) -> str:
        return f"to {str(self._store)!r}"


def _check_expiry(seconds: Any) -> timedelta:
    if type(seconds) not in (int, float) or not 1 <= seconds <= _MAX_EXPIRY:
        raise ConfigurationError(f"expires_in must be 1 to {_MAX_EXPIRY:.0f} seconds (seven days), got {seconds!r}")
    return timedelta(seconds=math.floor(seconds))
