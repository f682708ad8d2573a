"""The values that tests exchange with the service: recorded requests and replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal, Protocol, Self

from attrs import field, frozen

from a2v._core import wire
from a2v._values import arguments
from a2v.errors import InvalidArgumentError

_MIN_STATUS, _MAX_STATUS = 100, 999

CallName = Literal[
    "character.list",
    "video.generate",
    "video.get",
    "video.list",
    "avatar.list",
    "avatar-pose.list",
    "voice.list",
    "voice.generate",
    "file",
]
"""A call of the API, by the last part of its path; ``"file"`` is a download of a video, mask, picture or speech."""


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    given = arguments.mapping("headers", headers)
    for part in chain.from_iterable(given.items()):
        arguments.text("headers", part)
    return MappingProxyType({name.lower(): value for name, value in given.items()})


@frozen(kw_only=True)
class Call:
    """A recorded request.

    Attributes:
        at: Time of arrival, in seconds since the service's first request.
        name: The call; the last part of the path if the API has no such call.
        video_id: The id of the video, if any; for a submission, the id that it was given.
        status: The HTTP status of the reply; ``None``: no reply (yet).
        method: ``GET`` or ``POST``.
        url: The full URL.
        headers: The headers, with names in lower case.
        body: The body.
    """

    at: float
    name: str
    video_id: str | None = None
    status: int | None = None
    method: str = "GET"
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(factory=dict, converter=_lower, repr=False)
    body: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class Submission:
    """An accepted submission: it costs money, even if its reply was lost.

    Attributes:
        at: Time of arrival, in seconds since the service's first request.
        video_id: The id that it was given.
        model_id: The character; ``None`` if there is a ``pose_id``.
        audio_url: The URL of the recording.
        pose_id: The pose of an avatar, in the service's later revision.
        with_mask: Whether a mask was requested.
        options: The fields of the request that the protocol does not have.
    """

    at: float
    video_id: str
    model_id: str | None = None
    audio_url: str = ""
    pose_id: str | None = None
    with_mask: bool = False
    options: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class Synthesis:
    """A text that was synthesized: it may cost money, even if its reply was lost.

    Attributes:
        at: Time of arrival, in seconds since the service's first request.
        text: The text.
        voice_name: The voice.
        url: The URL of the recording.
    """

    at: float
    text: str
    voice_name: str
    url: str


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    try:
        return (body if isinstance(body, str) else json.dumps(body)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    raise InvalidArgumentError(
        f"body must be bytes, a string or a JSON value, got {arguments.short_repr(body)} ({reason})"
    )


def _check_status(_: object, __: object, value: Any) -> None:
    if not _MIN_STATUS <= arguments.integer("status", value, minimum=0) <= _MAX_STATUS:
        raise InvalidArgumentError(f"status must be an HTTP status from {_MIN_STATUS} to {_MAX_STATUS}, got {value}")


def _check_breaks_after(_: object, __: object, value: Any) -> None:
    if value is not None:
        arguments.integer("breaks_after", value, minimum=0)


@frozen
class Reply:
    """A reply to a call.

    Attributes:
        status: The HTTP status, 200 by default.
        body: Bytes and strings are sent as they are, everything else as JSON.
        headers: The headers; ``Content-Length`` is added.
        breaks_after: The number of bytes of the body after which the connection is closed; ``None``: it is not.
    """

    status: int = field(default=200, validator=_check_status)
    body: bytes = field(default=b"", converter=_as_bytes)
    headers: Mapping[str, str] = field(factory=dict, converter=_lower)
    breaks_after: int | None = field(default=None, validator=_check_breaks_after)

    @classmethod
    def success(cls, data: object) -> Self:
        """Return a successful reply: ``data`` in the API's envelope."""
        return cls(200, wire.success(data))

    @classmethod
    def refusal(cls, status: int, message: str, code: int | None = None) -> Self:
        """Return a refusal.

        Args:
            status: The HTTP status. The hosted service sometimes refuses with 200.
            message: The reason.
            code: The code in the envelope; ``None``: that of the status.
        """
        return cls(status, wire.refusal(status if code is None else code, message))


class Handler(Protocol):
    """What a transport or a server needs of a ``Service``."""

    files_url: str
    epoch: float
    latency: float
    token: str | None

    @property
    def calls(self) -> tuple[Call, ...]:
        """All requests."""
        ...

    def now(self) -> float:
        """Return the seconds since the first request."""
        ...

    async def handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request that arrives now."""
        ...
