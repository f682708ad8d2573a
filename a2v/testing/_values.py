"""What a test sees and says, in plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal, Self

from attrs import field, frozen

from a2v._core import wire
from a2v._values import arguments
from a2v.errors import InvalidArgumentError

_LEAST_STATUS, _LARGEST_STATUS = 100, 999

CallName = Literal[
    "character.list", "video.generate", "video.get", "video.list", "avatar.list", "avatar-pose.list", "file"
]
"""A call of the API, by the last part of its path; ``"file"`` is the fetching of a video, a mask or a picture."""


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    given = arguments.mapping("headers", headers)
    for part in chain.from_iterable(given.items()):
        arguments.text("headers", part)
    return MappingProxyType({name.lower(): value for name, value in given.items()})


@frozen(kw_only=True)
class Call:
    """A request that arrived.

    Attributes:
        at: When, in seconds since the service's first request.
        name: Which call of the API it is; the last part of its path if it is none.
        video_id: Which video it is about, if any; of a submission, the id that was given to it.
        status: The HTTP status of the answer; ``None``: there is none (yet).
        method: ``GET`` or ``POST``.
        url: The whole URL.
        headers: What was sent along, names in lower case.
        body: What was sent, if anything.
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
class Submit:
    """A submission that was accepted, so one that costs money, whether or not its sender was told.

    Attributes:
        at: When, in seconds since the service's first request.
        video_id: The id that was given to it.
        model_id: Which character speaks; ``None`` if it has a ``pose_id``.
        audio_url: What is spoken.
        pose_id: Which pose of an avatar speaks, in the service's later revision.
        with_mask: Whether a mask was asked for.
    """

    at: float
    video_id: str
    model_id: str | None = None
    audio_url: str = ""
    pose_id: str | None = None
    with_mask: bool = False


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    try:
        return (body if isinstance(body, str) else json.dumps(body)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    raise InvalidArgumentError(
        f"body must be bytes, a string or what JSON can say, got {arguments.short_repr(body)} ({reason})"
    )


def _check_status(_: object, __: object, value: Any) -> None:
    if not _LEAST_STATUS <= arguments.integer("status", value, minimum=0) <= _LARGEST_STATUS:
        raise InvalidArgumentError(
            f"status must be an HTTP status from {_LEAST_STATUS} to {_LARGEST_STATUS}, got {value}"
        )


def _check_breaks_after(_: object, __: object, value: Any) -> None:
    if value is not None:
        arguments.integer("breaks_after", value, minimum=0)


@frozen
class Reply:
    """An answer in plain values.

    Attributes:
        status: The HTTP status, 200 by default.
        body: Bytes and strings are sent as they are, everything else as JSON.
        headers: To be sent along; the length of the body is added.
        breaks_after: After how many bytes of the body the connection breaks; ``None``: not at all.
    """

    status: int = field(default=200, validator=_check_status)
    body: bytes = field(default=b"", converter=_as_bytes)
    headers: Mapping[str, str] = field(factory=dict, converter=_lower)
    breaks_after: int | None = field(default=None, validator=_check_breaks_after)

    @classmethod
    def success(cls, data: object) -> Self:
        """What the API answers when all is well: ``data`` in its envelope."""
        return cls(200, wire.success(data))

    @classmethod
    def refusal(cls, status: int, message: str, code: int | None = None) -> Self:
        """What the API answers when it says no.

        Args:
            status: The HTTP status. The service has been seen to refuse with 200 too.
            message: Why.
            code: The code in the envelope; ``None``: that of the status.
        """
        return cls(status, wire.refusal(status if code is None else code, message))
