"""An httpx transport for ``Service``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from a2v.testing._values import Handler, Reply


class Transport(httpx.AsyncBaseTransport):
    """Passes requests to a service in the same process: without sockets or threads, and by the event loop's clock.

    Args:
        service: The service.

    Attributes:
        closed: Whether the client that uses it was closed.
    """

    def __init__(self, service: Handler) -> None:
        self.closed: bool = False
        self._service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response."""
        service = self._service
        body = await request.aread()
        service.now()  # the service's time starts when the first request is sent, not when it arrives
        await anyio.sleep(service.latency / 2)
        reply = await service.handle(request.method, str(request.url), request.headers, body)
        # Requests that arrive at the same time get their replies in that order, a microsecond apart.
        await anyio.sleep(service.latency and service.latency / 2 + len(service.calls) * 1e-6)
        headers = {**reply.headers, "content-length": str(len(reply.body))}
        return httpx.Response(reply.status, headers=headers, stream=_Body(reply))

    async def aclose(self) -> None:
        """Record that the client was closed."""
        self.closed = True


class _Body(httpx.AsyncByteStream):
    """The body of a reply, possibly incomplete."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await anyio.lowlevel.checkpoint()
        if body := self._reply.body[: self._reply.breaks_after]:
            yield body
        if self._reply.breaks_after is not None:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
