"""The base of all errors, and those that the values below ``a2v.errors`` raise.

They are in a module of their own because ``a2v.errors``, which has the whole tree, needs the values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2v._values.models import Video


def _restore(kind: type[A2VError], args: tuple[Any, ...], facts: dict[str, Any]) -> A2VError:
    error = kind.__new__(kind)
    # OSError.__new__, which timeouts inherit, drops them.
    error.args = args
    error.__dict__.update(facts)
    return error


class A2VError(Exception):
    """Base of all errors that a2v raises.

    Attributes:
        video_id: The id of the video that the call was about, if any.
        video: The last snapshot of that video, if there was one.
        waited: How long the call had waited, in seconds.
    """

    video_id: str | None = None
    video: Video | None = None
    waited: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # The default passes only `args` to the class, which fails for errors with keyword-only arguments.
        return _restore, (type(self), self.args, self.__dict__)


class InvalidArgumentError(A2VError, ValueError):
    """An argument has the wrong type or value; the message names both. Nothing was sent."""


class InvalidStateError(A2VError, RuntimeError):
    """An object is used at the wrong time, such as a batch outside its ``async with`` block."""
