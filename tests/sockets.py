"""What the servers on real sockets have in common: a thread with an event loop, and connections that can break the protocol."""

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
    """A port of this machine: connections to it are refused, and nobody is given it, until this socket is closed.

    Whoever knows the number can listen there beside it.
    """
    claimed = socket.socket()
    claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claimed.bind(("127.0.0.1", 0))
    return claimed


class Request:
    """What came in."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = b""

    @property
    def video_id(self) -> str:
        return parse_qs(urlsplit(self.target).query).get("video_id", [""])[0]


class Connection:
    """One connection, from the server's side.

    Args:
        requests: Where to note what arrives.
    """

    def __init__(self, requests: list[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._requests = requests
        self.reader = reader
        self.writer = writer

    async def head(self) -> Any:
        """Read a request's head; from now on it counts as arrived."""
        request = self.new_request(await self.reader.readuntil(b"\r\n\r\n"))
        self._requests.append(request)
        return request

    new_request: Callable[[bytes], Any] = Request

    async def rest(self, request: Request) -> None:
        """Read the request's body."""
        request.body = await self.reader.readexactly(int(request.headers.get("content-length", 0)))

    async def request(self) -> Any:
        """Read a whole request."""
        request = await self.head()
        await self.rest(request)
        return request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Send a whole, correct reply."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def stall(self) -> None:
        """Say nothing until the client goes away."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Close so that the client gets a RST."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def live(self, behaviour: Callable[[Self], Awaitable[None]]) -> None:
        """Behave in some way, then close."""
        # Cancelled means that the test is over; asyncio logs that of a connection as an error.
        with suppress(OSError, EOFError, asyncio.CancelledError):
            try:
                await behaviour(self)
            finally:
                self.writer.close()


class ServerThread:
    """A thread in which servers can live."""

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
        """Do something in the event loop of the servers."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _main(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stopped.wait()
