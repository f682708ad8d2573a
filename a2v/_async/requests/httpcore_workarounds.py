"""Workarounds for defects of httpcore 1.0.9, the network layer of httpx, with their state in httpcore2 2.16, that of httpx2.

| defect | workaround | httpcore2 |
| --- | --- | --- |
| A pool with a maximum loses a connection for good if a request is cancelled as it gets one (#1093) | ``MAX_CONNECTIONS`` | fixed |
| The generator of a request body stays unfinished if the connection breaks meanwhile | ``replace_body`` | fixed |
| The generators of a response body stay unfinished if it is not read to its end | ``end_body`` | fixed, but not in httpx2 |
| The socket of a cancelled TLS handshake stays open | ``close_handshake`` | remains |

Trio reports unfinished generators when they are garbage-collected.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_CONNECTIONS = None
"""The maximum number of connections of a pool: none."""

# Maximum number of chunks to read from an abandoned body; the buffers of a connection hold far fewer.
_MAX_UNREAD_CHUNKS = 1000


def replace_body(request: Any, body: httpx.AsyncByteStream | None = None) -> None:
    """Give a request of httpx a body that is not a generator. A request of httpx2 stays as it is.

    Args:
        request: The request.
        body: The new body; ``None``: the content of the request.
    """
    if isinstance(request, httpx.Request):
        request.stream = body or _Body(request.content)


class _Body(httpx.AsyncByteStream):
    """A request body. Not a generator, so there is nothing to finalize."""

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def end_body(body: AsyncIterator[bytes]) -> None:
    """End a response body that was not read to its end.

    The body is an async generator that iterates over nested generators. Closing the outer one would leave the inner ones to the
    garbage collector. A cancellation is raised in the innermost one, and so ends all of them.
    """
    if getattr(body, "ag_frame", body) is None:  # an async generator that has ended, as after almost every request
        return
    with anyio.CancelScope(shield=True) as scope, suppress(Exception):
        scope.cancel()
        # A custom transport may yield for ever without a checkpoint at which the cancellation could be raised.
        for _ in range(_MAX_UNREAD_CHUNKS):
            await anext(body)


async def close_handshake(stream: Any) -> None:
    """Close the stream of a TLS handshake that was cancelled."""
    with anyio.CancelScope(shield=True), suppress(Exception):
        await stream.aclose()
