"""The service as an httpx transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from a2v.testing._service import Service
    from a2v.testing._values import Reply


class Transport(httpx.AsyncBaseTransport):
    """Carries requests to a service in the same process: no socket, no thread, no time but that of the event loop.

    Args:
        service: Where they go.

    Attributes:
        closed: Whether the client that used it was closed.
    """

    def __init__(self, service: Service) -> None:
        self.closed: bool = False
        self._service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and get its response."""
        service = self._service
        body = await request.aread()
        service.now()  # the service's time begins when the first request leaves, not when it arrives
        await anyio.sleep(service.latency / 2)
        reply = await service.handle(request.method, str(request.url), request.headers, body)
        # What arrived in one instant is answered in the order of its arrival, for nothing is quite at once.
        await anyio.sleep(service.latency and service.latency / 2 + len(service.calls) * 1e-6)
        headers = {**reply.headers, "content-length": str(len(reply.body))}
        return httpx.Response(reply.status, headers=headers, stream=_Body(reply))

    async def aclose(self) -> None:
        """Note that the client was closed."""
        self.closed = True


class _Body(httpx.AsyncByteStream):
    """The body of a reply, or as much of it as comes."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await anyio.lowlevel.checkpoint()
        if body := self._reply.body[: self._reply.breaks_after]:
            yield body
        if self._reply.breaks_after is not None:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
