"""A server that can break the protocol: raw sockets on any number of ports, in one thread with one event loop.

A port serves the API correctly, except that ``poison`` makes the next request (or connection) of a kind fail, once. Requests
are recorded, so that tests can check what was sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import anyio

from tests import sockets

VIDEO = bytes(range(256)) * 256
VIDEO_ID = "v1"


class Request(sockets.Request):
    """What came in."""

    @property
    def call(self) -> str:
        """``character.list``, ``video.generate``, ``video.get``, or ``file``."""
        path = urlsplit(self.target).path
        return "file" if path.startswith("/files/") else path.rpartition("/")[2]


class Connection(sockets.Connection):
    """One connection, from the server's side."""

    def __init__(self, port: Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(port.requests, reader, writer)
        self.port = port

    new_request = Request

    async def answer(self, request: Request) -> None:
        """Answer a request correctly."""
        if request.call == "file":
            await self._send_file(request)
        else:
            kept = "keep-alive" if self.port.keeps else "close"
            await self.reply(self.port.body(request), "200 OK", "Content-Type: application/json", f"Connection: {kept}")

    async def _send_file(self, request: Request) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        span = f"Content-Range: bytes {start}-{len(VIDEO) - 1}/{len(VIDEO)}"
        more = ("206 Partial Content", span) if start else ("200 OK",)
        await self.reply(VIDEO[start:], *more, 'ETag: "abc"', "Content-Type: video/mp4")

    async def serve(self) -> None:
        """Answer every request correctly, except for those that are poisoned."""
        if toxic := self.port.take("connection"):
            await toxic(self, None)
            return
        while True:
            request = await self.head()
            if toxic := self.port.take(request.call):
                await toxic(self, request)
                return
            await self.rest(request)
            await self.answer(request)
            if not self.port.keeps:
                return


Behaviour = Callable[[Connection], Awaitable[None]]
Toxic = Callable[[Connection, Request | None], Awaitable[None]]


class Port:
    """A port of the server.

    Attributes:
        behave: What is done with each connection, which is closed when that returns.
        poll_answers: The ``data`` of successive ``video.get`` responses; the last one stays.
        keeps: Whether connections are kept after a good reply.
        connections: How many there were; ``open``: how many there are.
        most: The most that were open at once.
        requests: What came in, in order.
    """

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self.behave: Behaviour = Connection.serve
        self.poll_answers: list[dict[str, object]] = [{"status": "finished"}]
        self.keeps = True
        self.connections = self.open = self.most = 0
        self.requests: list[Request] = []
        self._poison: dict[str, Toxic] = {}
        self._claimed = sockets.claim()
        self.number: int = self._claimed.getsockname()[1]
        self._listening: asyncio.Server | None = None
        self._back: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    @property
    def submitted(self) -> list[bytes]:
        """The submissions that arrived, by the heads or as far as they got."""
        return [request.body for request in self.requests if request.method == "POST"]

    def poison(self, what: str, toxic: Toxic) -> None:
        """Let the next request of a call go wrong, or the next ``"connection"``."""
        self._poison[what] = toxic

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._listening is not None

    @property
    def poisoned(self) -> bool:
        """Whether what was to go wrong has not yet."""
        return bool(self._poison)

    def take(self, what: str) -> Toxic | None:
        return self._poison.pop(what, None)

    def body(self, request: Request) -> bytes:
        """The right answer."""
        return json.dumps({"code": 0, "message": "success", "data": self._data(request)}).encode()

    def _data(self, request: Request) -> object:
        if request.call == "video.generate":
            return {"video_id": VIDEO_ID}
        if request.call != "video.get":
            return [{"model_id": "eva_a0008"}] if request.call == "character.list" else []
        fields = self.poll_answers.pop(0) if len(self.poll_answers) > 1 else self.poll_answers[0]
        return {"video_id": request.video_id, "video_url": f"{self.url}/files/v.mp4?signature=s3cret"} | fields

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, in the client's event loop, for something to happen here."""
        with anyio.fail_after(20):
            while not condition():  # noqa: ASYNC110  # no event reaches over from the other thread
                await anyio.sleep(0.005)

    async def emptied(self) -> None:
        """Wait until all connections are closed; fails if one is left open."""
        await self.until(lambda: not self.open)

    def shut(self) -> None:
        """Refuse connections from now on."""
        self._server.do(self._shut())

    def listen(self) -> None:
        """Accept connections, after ``shut`` again at the same port."""
        self._server.do(self._listen())

    def close(self) -> None:
        """Refuse connections, and give the number back."""
        self.shut()
        self._claimed.close()

    async def outage(self, seconds: float) -> None:
        """Refuse connections for so long; for behaviours."""
        await self._shut()
        loop = asyncio.get_running_loop()
        self._back = loop.call_later(seconds, lambda: loop.create_task(self._listen()))

    async def _shut(self) -> None:
        if self._back:
            self._back.cancel()
        if self._listening:
            self._listening.close()
        self._listening = None

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", self.number, limit=2**20)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await Connection(self, reader, writer).live(self.behave)
        finally:
            self.open -= 1


class FaultServer(sockets.ServerThread):
    """The thread. ``port()`` opens another port."""

    def __init__(self) -> None:
        super().__init__()
        self._ports: list[Port] = []

    def port(self, behave: Behaviour = Connection.serve, *, listening: bool = True) -> Port:
        port = Port(self)
        port.behave = behave
        port.listen()
        if not listening:
            port.shut()
        self._ports.append(port)
        return port

    def stop(self) -> None:
        for port in self._ports:
            port.close()
        super().stop()
