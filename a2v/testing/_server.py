"""An HTTP server on a loopback port, for ``Service``."""

from __future__ import annotations

import time
from contextlib import ExitStack, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin

import anyio
import httpx
from anyio.abc import SocketAttribute
from anyio.from_thread import start_blocking_portal
from anyio.streams.buffered import BufferedByteReceiveStream

from a2v._values import arguments
from a2v.errors import InvalidArgumentError
from a2v.testing._values import Handler, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from anyio.abc import SocketStream


_MAX_HEAD = 65536
_MAX_PORT = 65535
_DISCONNECTED = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead)


class LoopbackServer:
    """Base of ``Server``, which documents it."""

    base_url: str

    def __init__(self, service: Handler, port: int = 0) -> None:
        if arguments.integer("port", port, minimum=0) > _MAX_PORT:
            raise InvalidArgumentError(f"port must be 0 (any free one) to {_MAX_PORT}, got {port}")
        self._service = service
        self.token: str = "token" if service.token is None else service.token
        self._port = port
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio", name="a2v testing"))
            port = stack.enter_context(portal.wrap_async_context_manager(self._listening()))
            self.base_url = f"http://127.0.0.1:{port}"
            for name in ("files_url", "epoch"):
                stack.callback(setattr, self._service, name, getattr(self._service, name))
            self._service.files_url = self.base_url
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[int]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            yield listener.extra(SocketAttribute.local_port)  # noqa: S610  # not Django's
            tasks.cancel_scope.cancel()

    async def _serve(self, stream: SocketStream) -> None:
        """Answer the requests of a connection, one after another."""
        requests = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while await self._exchange(requests, stream):
                    pass
            except _DISCONNECTED:
                pass

    async def _exchange(self, requests: BufferedByteReceiveStream, stream: SocketStream) -> bool:
        """Answer a request; return whether to keep the connection."""
        head = (await requests.receive_until(b"\r\n\r\n", _MAX_HEAD)).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await requests.receive_exactly(int(headers.get("content-length", 0)))
        self._service.epoch = time.time() - self._service.now()
        try:
            reply = await self._service.handle(method, urljoin(self.base_url, target), headers, body)
        except httpx.TransportError:
            return False
        except Exception as error:  # noqa: BLE001  # shows mistakes in the test's script
            reply = Reply.refusal(500, f"{type(error).__name__}: {error}")
        await anyio.sleep(self._service.latency)
        await stream.send(_head(reply) + reply.body[: reply.breaks_after])
        return reply.breaks_after is None and headers.get("connection", "").lower() != "close"


def _head(reply: Reply) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {**reply.headers, "content-length": str(len(reply.body))}
    lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
