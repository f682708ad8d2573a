"""Connections of the engine's server, with limits on their number and on the time each may take.

Uvicorn only closes connections that are idle after a response. Without further limits a client could hold any number of
connections open at no cost, until the engine runs out of file descriptors. ``HttpConnection`` also closes a connection

* that has not sent a complete request head within ``HEAD_SECONDS`` of being opened or, later, of the first byte of the head;
* that has not sent the complete body within ``BODY_SECONDS`` of the head, unless the application allows more for an upload;
* that has received nothing of its response for ``STALLED_SECONDS``; a slow download may continue.

Each deadline belongs to a phase of a request and is set once, so sending a byte now and then does not extend it.

``accept_connections`` replaces asyncio's accept loop, which takes every connection. At the maximum number, the connection
that has been idle longest makes room, though not within its first ``GRACE_SECONDS``, when its request is probably on the way.
If all connections are busy, new ones wait in the backlog of the socket. (Uvicorn's ``limit_concurrency`` would respond with 503
instead, and would count idle connections as busy.) A TLS handshake counts as busy. It runs in its own task and fails after
``HEAD_SECONDS``, so a client that does not complete it delays no other client.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from a2v.engine.exhaustion import LogThrottle, exhaustion_reason
from a2v.engine.render_queue import MAX_PREFETCHED

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Collection

    from starlette.types import Scope

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
STALLED_SECONDS = 300.0
KEEP_ALIVE_SECONDS = 60
"""How long uvicorn keeps an idle connection open after a response."""
MAX_CONNECTIONS = 1000
SHUTDOWN_SECONDS = 5.0
"""How long closing a TLS connection waits for the client."""
GRACE_SECONDS = 0.5
"""How long a connection counts as busy after it was opened or answered."""
RETRY_SECONDS = 1.0
"""The pause after a failed accept."""
_FULL_POLL_SECONDS = 0.05
"""How often a full server checks whether a connection can make room."""
_EXTENSION = "a2v.extend_body_deadline"
"""The name of the ASGI extension with which the application extends the deadline."""
_FILES_OF_THE_SERVER, _FILES_PER_RENDER, _FILES_PER_FETCH = 50, 6, 2


def extend_body_deadline(scope: Scope, seconds: float) -> None:
    """Give the client more time to send the body of an upload. Does nothing if another server runs the application."""
    extend = scope.get("extensions", {}).get(_EXTENSION)
    if extend is not None:
        # Longer than the application's own limit, because the application can respond with the reason.
        extend(seconds + BODY_SECONDS)


class _InvalidHttpFilter(logging.Filter):
    """Passes only uvicorn's log records about invalid HTTP, and only one per minute.

    Clients can cause uvicorn's records about connections at any rate. The others repeat what the middleware logs, or recommend a
    library for WebSockets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._log = LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.getMessage().startswith("Invalid HTTP") and self._log.is_due()


_logger = logging.getLogger("a2v.engine.connections")
_logger.addFilter(_InvalidHttpFilter())


def max_connections(workers: int) -> int:
    """Return the maximum number of connections, given the limit of open files.

    Each connection may need two files, its socket and a video. Renders and fetches need some too.

    Args:
        workers: The number of renders at a time.
    """
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return MAX_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    reserved = _FILES_OF_THE_SERVER + _FILES_PER_RENDER * workers + _FILES_PER_FETCH * MAX_PREFETCHED
    return max(8, min(MAX_CONNECTIONS, (files - reserved) // 2))


class HttpConnection(H11Protocol):
    """A client's connection with deadlines."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger: logging.Logger = _logger
        self.idle_since: float = self.loop.time()
        """The time since which no request is in progress."""
        self._phase: tuple[object, ...] | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress."""
        return not self.had_request or self.cycle.response_complete

    @property
    def had_request(self) -> bool:
        """Whether the connection has sent a request at all."""
        return cast("object", self.cycle) is not None  # initially None, contrary to uvicorn's annotation

    def close_now(self) -> None:
        """Close the connection at once; unsent data is lost."""
        self.connections.discard(self)
        self.transport.abort()

    # -- callbacks of asyncio and uvicorn ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        """Start the deadline of the first head."""
        super().connection_made(transport)
        self._update_deadline()

    def data_received(self, data: bytes) -> None:
        """Update the deadline to the phase of the request."""
        super().data_received(data)
        if self.had_request and not self.is_idle:
            # Before the application runs, which is in a task of its own.
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions.setdefault(_EXTENSION, partial(self._extend_body_deadline, self.cycle))
        self._update_deadline()

    def on_response_complete(self) -> None:
        """Update the deadline: the next request may have begun already."""
        self.idle_since = self.loop.time()
        super().on_response_complete()
        self._update_deadline()

    def pause_writing(self) -> None:
        """Start the deadline for receiving the response."""
        super().pause_writing()
        self._watch_progress()

    def resume_writing(self) -> None:
        """Stop that deadline: the client has received enough."""
        super().resume_writing()
        self._cancel(self._stall_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all deadlines."""
        self._cancel(self._deadline_timer)
        self._cancel(self._stall_timer)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    # -- deadlines --------------------------------------------------------------------------------------------------------

    def _update_deadline(self) -> None:
        """Restart the timer if the request has entered another phase."""
        phase, seconds = self._current_phase()
        if phase == self._phase:
            return
        self._phase = phase
        self._cancel(self._deadline_timer)
        if phase and not self.transport.is_closing():
            self._deadline_timer = self.loop.call_later(seconds, self.close_now)

    def _extend_body_deadline(self, cycle: object, seconds: float) -> None:
        if self._phase == ("body", cycle) and not self.transport.is_closing():
            self._cancel(self._deadline_timer)
            self._deadline_timer = self.loop.call_later(seconds, self.close_now)

    def _current_phase(self) -> tuple[tuple[object, ...] | None, float]:
        if self.conn.their_state is h11.SEND_BODY:
            return ("body", self.cycle), BODY_SECONDS
        received, _ = self.conn.trailing_data
        if self.conn.their_state is h11.IDLE and (received or not self.had_request):
            return ("head", self.cycle), HEAD_SECONDS
        return None, 0

    def _watch_progress(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._cancel(self._stall_timer)
        self._stall_timer = self.loop.call_later(STALLED_SECONDS, self._check_progress, unsent)

    def _check_progress(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() < unsent:
            self._watch_progress()
        else:
            self.close_now()

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer:
            timer.cancel()


async def accept_connections(
    sock: socket.socket,
    make: Callable[[], HttpConnection],
    connections: Collection[Any],
    maximum: int,
    *,
    report_exhausted: Callable[[str], None],
    tls_context: Callable[[], ssl.SSLContext] | None = None,
) -> None:
    """Accept connections until cancelled.

    Args:
        sock: The listening socket.
        make: Creates the protocol of a connection.
        connections: The open connections.
        maximum: The maximum number of open connections.
        report_exhausted: Called with the reason if the machine has run out of a resource.
        tls_context: Returns the TLS settings of the next connection. ``None``: plain connections.
    """
    await anyio.lowlevel.checkpoint()
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    handshakes: set[socket.socket] = set()

    async def shake_hands(accepted: socket.socket, context: ssl.SSLContext) -> None:
        try:
            # Any client can make it fail, so this is not logged.
            with suppress(OSError):
                await _connect(loop, accepted, make, context)
        finally:
            handshakes.discard(accepted)

    async with anyio.create_task_group() as tasks:
        while True:
            now, busy = loop.time(), len(connections) + len(handshakes)
            if busy >= maximum and not _make_room(cast("Collection[HttpConnection]", connections), now):
                await anyio.sleep(_FULL_POLL_SECONDS)
                continue
            try:
                accepted, _ = await loop.sock_accept(sock)
                if tls_context is None:
                    await _connect(loop, accepted, make)
                else:
                    handshakes.add(accepted)
                    tasks.start_soon(shake_hands, accepted, tls_context())
            except OSError as error:
                # Without a reason, the client disconnected before it was accepted.
                if reason := exhaustion_reason(error):
                    report_exhausted(reason)
                await anyio.sleep(RETRY_SECONDS if reason else 0)


async def _connect(
    loop: asyncio.AbstractEventLoop,
    accepted: socket.socket,
    make: Callable[[], HttpConnection],
    context: ssl.SSLContext | None = None,
) -> None:
    deadlines = {"ssl_handshake_timeout": HEAD_SECONDS, "ssl_shutdown_timeout": SHUTDOWN_SECONDS} if context else {}
    try:
        await loop.connect_accepted_socket(make, accepted, ssl=context, **deadlines)
    except BaseException:
        accepted.close()
        raise


def _make_room(connections: Collection[HttpConnection], now: float) -> bool:
    """Close the connection that has been idle longest, preferably among those that never sent a request.

    Returns:
        Whether there was an idle connection.
    """
    idle = [
        connection for connection in connections if connection.is_idle and now - connection.idle_since >= GRACE_SECONDS
    ]
    if not idle:
        return False
    min(idle, key=lambda connection: (connection.had_request, connection.idle_since)).close_now()
    return True
