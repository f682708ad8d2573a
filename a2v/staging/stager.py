"""Who stages: one file for a block, or many, with and without async; and what this process has staged so far."""

from __future__ import annotations

import math
import os
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field

from a2v._core.settings import HoldsSecret, Secret
from a2v._values import arguments
from a2v.errors import ConfigurationError, StagingError
from a2v.staging.recording import look, open_file
from a2v.staging.store import Place
from a2v.staging.work import Stop, in_thread, wait_for

if TYPE_CHECKING:
    from types import TracebackType

StrPath = str | os.PathLike[str]
DAY = 86400.0
# What S3 and Google Cloud Storage allow at most.
_LONGEST = 7 * DAY


def stage(path: StrPath, to: str, *, expires_in: float = DAY, remove: bool = False) -> Stage:
    """Stage one file for the length of a block, which may be an ``async with`` or a ``with``.

    Args:
        path: The recording.
        to: Where to: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.
        expires_in: For how many seconds the URL is good: a day if left out, seven days at most. A render that waits in line
            fetches the recording late, so be generous.
        remove: Whether to remove the object at the end of the block. If the block ends with an error, it stays: a render
            that was paid for may still need it. It also stays if it was there before, or if something else in this process
            stages the same recording. Other processes are not seen: give each that removes a prefix of its own.

    Returns:
        What to enter; as a context it gives the URL.

    Raises:
        ConfigurationError: ``to`` or ``expires_in`` cannot be right.
        InvalidArgumentError: An argument is not of the right type.
        StagingError: On entering: the file cannot be read, or the store does not take it. On leaving: it cannot be removed.
    """
    return Stage(_Staging(to, expires_in, remove=remove), path)


async def foresee(path: StrPath, to: str) -> str:
    """The URL that staging a file would give, but for its signature. Nothing is uploaded.

    Raises:
        ConfigurationError: ``to`` cannot be right.
        StagingError: The file cannot be read, or no URL can be signed.
    """
    return await in_thread(partial(_Staging(to, DAY, remove=False).sign, path))


class _Leaving(HoldsSecret):
    """How a ``with`` block ends."""

    _staging: _Staging

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._staging.close(keep=error is not None):
            wait_for(self._staging.remove)


class _AsyncLeaving(HoldsSecret):
    """How an ``async with`` block ends."""

    _staging: _Staging

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._staging.close(keep=error is not None):
            await in_thread(self._staging.remove)


class Stager(_Leaving):
    """Stages many files, for programs without an event loop. Several threads may use it.

    Args:
        to: As for ``stage``.
        expires_in: As for ``stage``; it counts from each call of ``url``.
        remove: As for ``stage``; objects are removed when the stager is closed.

    Raises:
        ConfigurationError: ``to`` or ``expires_in`` cannot be right.
        InvalidArgumentError: An argument is not of the right type.
    """

    def __init__(self, to: str, *, expires_in: float = DAY, remove: bool = False) -> None:
        self._staging = _Staging(to, expires_in, remove=remove)

    def url(self, path: StrPath) -> str:
        """Upload a file unless the store has it, and make a fresh URL for it.

        Args:
            path: The recording.

        Returns:
            A presigned URL.

        Raises:
            StagingError: The file cannot be read, or the store does not take it.
        """
        return wait_for(partial(self._staging.url, path))

    def close(self) -> None:
        """Remove what was staged, if that was asked for; with a ``with`` block this comes by itself.

        Raises:
            StagingError: Something cannot be removed.
        """
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<a2v.staging.Stager {_shown(self)}>"


class AsyncStager(_AsyncLeaving):
    """Stages many files, a few at once; batches use it. Several event loops may use it.

    Args:
        to: As for ``stage``.
        expires_in: As for ``stage``; it counts from each call of ``url``.
        remove: As for ``stage``; objects are removed when the stager is closed.

    Raises:
        ConfigurationError: ``to`` or ``expires_in`` cannot be right.
        InvalidArgumentError: An argument is not of the right type.
    """

    def __init__(self, to: str, *, expires_in: float = DAY, remove: bool = False) -> None:
        self._staging = _Staging(to, expires_in, remove=remove)

    async def url(self, path: StrPath) -> str:
        """Upload a file unless the store has it, and make a fresh URL for it.

        When it is cancelled, the upload is broken off and nothing of it stays in the store.

        Args:
            path: The recording.

        Returns:
            A presigned URL.

        Raises:
            StagingError: The file cannot be read, or the store does not take it.
        """
        return await in_thread(partial(self._staging.url, path))

    async def aclose(self) -> None:
        """Remove what was staged, if that was asked for; with an ``async with`` block this comes by itself.

        Raises:
            StagingError: Something cannot be removed.
        """
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<a2v.staging.AsyncStager {_shown(self)}>"


class Stage(_Leaving, _AsyncLeaving):
    """One staged file; made by ``stage``."""

    def __init__(self, staging: _Staging, path: StrPath) -> None:
        self._staging = staging
        self._path = arguments.path("path", path)

    def __enter__(self) -> str:
        return wait_for(partial(self._staging.url, self._path))

    async def __aenter__(self) -> str:
        return await in_thread(partial(self._staging.url, self._path))

    def __repr__(self) -> str:
        return f"<a2v.staging.Stage {str(getattr(self, '_path', ''))!r} {_shown(self)}>"


def _shown(one: Stager | AsyncStager | Stage) -> str:
    # An error report may show one that could not be made.
    return str(getattr(one, "_staging", "not made"))


@define(eq=False)
class _Object:
    """An object in a store that some stager of this process uses, so that removing it takes it from nobody.

    Attributes:
        lock: Held while it is uploaded or removed.
        uses: How many stagers use it, or are about to.
        is_ours: Whether this process uploaded it.
        is_kept: Whether a stager wants it to stay.
    """

    lock: threading.Lock = field(factory=threading.Lock)
    uses: int = 0
    is_ours: bool = False
    is_kept: bool = False


_objects: dict[object, _Object] = {}
_objects_lock = threading.Lock()


def _forget_objects() -> None:
    """Start afresh in a forked child: a thread that holds one of the locks stayed in the parent."""
    global _objects_lock  # noqa: PLW0603  # nobody else has it
    _objects_lock = threading.Lock()
    _objects.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_objects)


class _Staging:
    """What a stager does, in whatever thread."""

    def __init__(self, to: str, expires_in: float, *, remove: bool) -> None:
        self._place = Place(arguments.text("to", to))
        self._expires_in = _check_expiry(expires_in)
        self._removes = arguments.boolean("remove", remove)
        self._closed = False
        self._used: dict[str, _Object] = {}

    def url(self, path: StrPath, stop: Stop) -> str:
        """See to it that the store has a file, and sign a URL for it."""
        if self._closed:
            raise StagingError("this stager is closed")
        source = arguments.path("path", path)
        with open_file(source) as file:
            recording = look(file, source, stop)
            # First, for where no URL can be signed there is no use in an upload.
            url = Secret(self._place.sign(recording.name, self._expires_in))
            known = self._claim(recording.name)
            is_there = False
            try:
                # Whoever else in this process stages the same recording waits until it is there.
                with known.lock:
                    stop.check()
                    known.is_ours |= self._place.put(file, recording, stop)
                    is_there = True
            finally:
                self._settle(recording.name, known, is_there=is_there)
        return url.value  # type: ignore[no-any-return]  # a string

    def sign(self, path: StrPath, stop: Stop) -> str:
        """Sign a URL for a file, whether the store has it or not."""
        source = arguments.path("path", path)
        with open_file(source) as file:
            return self._place.sign(look(file, source, stop).name, self._expires_in)

    def _claim(self, name: str) -> _Object:
        with _objects_lock:
            known = _objects.setdefault(self._place.identity(name), _Object())
            known.uses += 1
        return known

    def _settle(self, name: str, known: _Object, *, is_there: bool) -> None:
        """Remember what is to be removed, and nothing else: a stager may live as long as a server."""
        with _objects_lock:
            if is_there and self._removes and not self._closed and name not in self._used:
                self._used[name] = known
                return
            known.is_kept |= is_there and not self._removes
            self._drop(name, known)

    def _drop(self, name: str, known: _Object) -> None:
        """Give up a claim, with the lock held; what nobody uses and nobody may remove is forgotten."""
        known.uses -= 1
        if not known.uses and (known.is_kept or not known.is_ours):
            _objects.pop(self._place.identity(name), None)

    def close(self, *, keep: bool) -> bool:
        """Be of no more use; tells whether something is to be removed.

        Args:
            keep: Leave all in the store, and let nothing else in this process remove it.
        """
        with _objects_lock:
            self._closed = True
            while keep and self._used:
                name, known = self._used.popitem()
                known.is_kept = True
                self._drop(name, known)
        return bool(self._used)

    def remove(self, stop: Stop) -> None:
        """Remove what was uploaded for this stager alone; the first error is raised when all had their turn."""
        errors = []
        while self._used:
            stop.check()
            name, known = self._used.popitem()
            with known.lock:
                try:
                    if known.is_ours and not known.is_kept and known.uses == 1:
                        self._place.remove(name)
                        known.is_ours = False
                except StagingError as error:
                    errors.append(error)
                with _objects_lock:
                    self._drop(name, known)
        if errors:
            raise errors[0]

    def __str__(self) -> str:
        return f"to {str(self._place)!r}"


def _check_expiry(seconds: Any) -> timedelta:
    if type(seconds) not in (int, float) or not 1 <= seconds <= _LONGEST:
        raise ConfigurationError(f"expires_in must be 1 to {_LONGEST:.0f} seconds (seven days), got {seconds!r}")
    return timedelta(seconds=math.floor(seconds))
