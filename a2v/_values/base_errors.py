"""The base of all errors, and those that the values below ``a2v.errors`` raise.

They are in a module of their own because ``a2v.errors``, which has the whole tree, needs the values.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from a2v._values.serialization import without_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from a2v._values.models import Speech, Video


def _restore(kind: type[A2VError], args: tuple[Any, ...], facts: dict[str, Any]) -> A2VError:
    error = kind.__new__(kind)
    # OSError.__new__, which timeouts inherit, drops them.
    error.args = args
    error.__dict__.update(facts)
    return error


_FACTS = ("code", "status_code", "retry_after", "video_id", "waited", "request_id")


def _subclasses(kind: type[A2VError]) -> Iterator[type[A2VError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


class A2VError(Exception):
    """Base of all errors that a2v raises.

    Attributes:
        video_id: The id of the video that the call was about, if any.
        video: The last snapshot of that video, if there was one.
        waited: How long the call had waited, in seconds.
        speech: The speech of the text, if ``videos.generate`` failed after the synthesis. Pass its ``url`` as ``audio_url``, so
            that you do not pay for it again.
        request_id: The server's id of the failed request, if the response has one. Quote it when you ask the server's operators.
        headers: The headers of the response that are not secret: request ids, ``date``, ``retry-after`` and the rate limit.
            Empty if there was no response.
        body: The beginning of the response's body, without URLs; ``None`` if there was no response.
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
            urls: Whether to include URLs in the message. Without them, each becomes ``…``.

        Returns:
            The name of its class as ``type``, its ``message``, and those of its attributes that are numbers or strings.
        """
        facts = {name: fact for name in _FACTS if (fact := getattr(self, name, None)) is not None}
        return {"type": type(self).__name__, "message": str(self) if urls else without_urls(str(self)), **facts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> A2VError:
        """Make an error from the result of ``to_dict``.

        Args:
            data: What ``to_dict`` returned.

        Returns:
            An error of the class that it names, or an ``A2VError`` if this version has no such class.

        Raises:
            ValueError: It is not the result of ``to_dict``.
        """
        if "message" not in data:
            raise ValueError(f"an error must be made from a mapping with a message, got {data!r}")
        named: list[type[A2VError]] = [kind for kind in _subclasses(A2VError) if kind.__name__ == data.get("type")]
        facts = {name: data[name] for name in _FACTS if data.get(name) is not None}
        if "status_code" in facts:
            facts["message"] = data["message"]
        return _restore(named[0] if named else A2VError, (data["message"],), facts)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default passes only `args` to the class, which fails for errors with keyword-only arguments.
        return _restore, (type(self), self.args, self.__dict__)


class InvalidArgumentError(A2VError, ValueError):
    """An argument has the wrong type or value; the message names both. Nothing was sent."""


class InvalidStateError(A2VError, RuntimeError):
    """An object is used at the wrong time, such as a batch outside its ``async with`` block."""
