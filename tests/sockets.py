"""Base classes of the test servers on real sockets: a thread with an event loop, and connections that can break the protocol."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


def claim() -> socket.socket:
    """Reserve a port: until this socket is closed, connections to it are refused and the system does not assign it again.

    A server can listen on it nevertheless.
    """
    claimed = socket.socket()
    claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claimed.bind(("127.0.0.1", 0))
    return claimed


class Request:
    """A received request."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = b""

    @property
    def video_id(self) -> str:
        return parse_qs(urlsplit(self.target).query).get("video_id", [""])[0]


class Connection:
    """The server's side of a connection.

    Args:
        requests: The list to which received requests are added.
    """

    def __init__(self, requests: list[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._requests = requests
        self.reader = reader
        self.writer = writer

    async def head(self) -> Any:
        """Read the head of a request, and record the request."""
        request = self.new_request(await self.reader.readuntil(b"\r\n\r\n"))
        self._requests.append(request)
        return request

    new_request: Callable[[bytes], Any] = Request

    async def rest(self, request: Request) -> None:
        """Read the body of a request."""
        request.body = await self.reader.readexactly(int(request.headers.get("content-length", 0)))

    async def request(self) -> Any:
        """Read a request."""
        request = await self.head()
        await self.rest(request)
        return request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Send a correct response."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def stall(self) -> None:
        """Send nothing until the client disconnects."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Reset the connection."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def live(self, behaviour: Callable[[Self], Awaitable[None]]) -> None:
        """Run a behaviour, then close the connection."""
        # Cancelled at the end of a test; asyncio would log that as an error.
        with suppress(OSError, EOFError, asyncio.CancelledError):
            try:
                await behaviour(self)
            finally:
                self.writer.close()


class ServerThread:
    """A thread with an event loop for servers."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=[self._main()])

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def do(self, work: Awaitable[None]) -> None:
        """Run a coroutine in the servers' event loop."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _main(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stopped.wait()
