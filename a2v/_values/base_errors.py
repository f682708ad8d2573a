"""The base class of all errors, and the errors that values raise.

They are not in ``a2v.errors``, because that module imports the values.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from a2v._values.serialization import without_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from a2v._values.models import Speech, Video


def _restore(kind: type[A2VError], args: tuple[Any, ...], attributes: dict[str, Any]) -> A2VError:
    error = kind.__new__(kind)
    # Set again, because OSError.__new__, which timeouts inherit, drops them.
    error.args = args
    error.__dict__.update(attributes)
    return error


_SERIALIZED = ("code", "status_code", "retry_after", "video_id", "waited", "request_id")


def _subclasses(kind: type[A2VError]) -> Iterator[type[A2VError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


class A2VError(Exception):
    """Base class of all errors that a2v raises.

    Attributes:
        video_id: The id of the video that the call was about, if any.
        video: The last snapshot of that video, if there was one.
        waited: How long the call had waited, in seconds; ``None`` if it was not a wait.
        speech: The speech, if ``videos.generate`` failed after the synthesis. Pass its ``url`` as ``audio_url``, so
            that you do not pay for the synthesis again.
        request_id: The server's id of the failed request, if the response has one. Quote it when you contact the operators.
        headers: The headers of the response that hold no secrets: request ids, ``date``, ``retry-after`` and the rate limit.
            Empty if there was no response.
        body: The beginning of the response's text, at most 500 characters, without the token, markup and the queries of URLs;
            ``None`` if there was no response.
    """

    video_id: str | None = None
    video: Video | None = None
    waited: float | None = None
    speech: Speech | None = None
    request_id: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    body: str | None = None

    def to_dict(self, *, urls: bool = True) -> dict[str, Any]:
        """Return the error as a dictionary that can be written as JSON.

        Args:
            urls: Whether to include the URLs in the message, the default. Otherwise, each becomes ``…``.

        Returns:
            The name of the class as ``type``, the ``message``, and the attributes that are set among ``code``, ``status_code``,
            ``retry_after``, ``video_id``, ``waited`` and ``request_id``.
        """
        attributes = {name: value for name in _SERIALIZED if (value := getattr(self, name, None)) is not None}
        return {"type": type(self).__name__, "message": str(self) if urls else without_urls(str(self)), **attributes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> A2VError:
        """Make an error from the result of ``to_dict``.

        Args:
            data: The result of ``to_dict``.

        Returns:
            An error of the class in ``type``, or an ``A2VError`` if this version has no such class.

        Raises:
            ValueError: ``data`` has no ``message``.
        """
        if "message" not in data:
            raise ValueError(f"an error must be made from a mapping with a message, got {data!r}")
        named: list[type[A2VError]] = [kind for kind in _subclasses(A2VError) if kind.__name__ == data.get("type")]
        attributes = {name: data[name] for name in _SERIALIZED if data.get(name) is not None}
        if "status_code" in attributes:
            attributes["message"] = data["message"]
        return _restore(named[0] if named else A2VError, (data["message"],), attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default passes only `args` to the class, which fails for errors with keyword-only arguments.
        return _restore, (type(self), self.args, self.__dict__)


class InvalidArgumentError(A2VError, ValueError):
    """An argument has the wrong type or value; the message names both. Nothing was sent."""


class InvalidStateError(A2VError, RuntimeError):
    """An object is used at the wrong time, such as a batch outside its ``async with`` block."""
