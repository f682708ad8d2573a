"""Bounds what strangers can hold: the time that a connection may take, and the number of connections.

Uvicorn closes a connection that was answered and then is idle. ``HttpConnection`` also closes one

* whose request has no complete head within ``HEAD_SECONDS``, counted from when it was opened or, later, from the first byte;
* whose request has no complete body within ``BODY_SECONDS`` after that;
* that takes nothing of its reply for ``STALLED_SECONDS``; a slow download goes on.

``accept_connections`` opens connections one by one, and no more than ``max_connections``. If there are that many, the one that has been
without a request for longest makes room, after ``GRACE_SECONDS`` at the earliest. If all are busy, new ones wait in the
backlog of the socket.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from a2v.engine.exhaustion import LogThrottle, exhaustion_reason
from a2v.engine.render_queue import MAX_PREFETCHED

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
STALLED_SECONDS = 300.0
KEEP_ALIVE_SECONDS = 60
MAX_CONNECTIONS = 1000
GRACE_SECONDS = 0.5
"""A client that has just connected is about to send its request."""
RETRY_SECONDS = 1.0
"""When to accept again after a failure to."""
_FULL_SECONDS = 0.05
_OTHER_FILES, _FILES_OF_A_RENDER, _FILES_OF_A_FETCH = 50, 6, 2


class _ThrottledNotHttpFilter(logging.Filter):
    """Of what uvicorn logs about connections, passes only that a request was not HTTP, and that once a minute.

    The rest is what the guard has logged already, and advice about WebSockets. A stranger can cause either as often as he likes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._log = LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.getMessage().startswith("Invalid HTTP") and self._log.is_due()


_logger = logging.getLogger("a2v.engine.connections")
_logger.addFilter(_ThrottledNotHttpFilter())


def max_connections(workers: int) -> int:
    """How many connections there may be: each may need two files, and renders and fetches need some.

    Args:
        workers: How many renders run at once.
    """
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return MAX_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    others = _OTHER_FILES + _FILES_OF_A_RENDER * workers + _FILES_OF_A_FETCH * MAX_PREFETCHED
    return max(8, min(MAX_CONNECTIONS, (files - others) // 2))


class HttpConnection(H11Protocol):
    """One connection of a client."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger: logging.Logger = _logger
        self.waiting_since: float = self.loop.time()
        """Since when there is no request."""
        self._phase: tuple[object, ...] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return not self.was_answered or self.cycle.response_complete

    @property
    def was_answered(self) -> bool:
        """Whether there was a request at all."""
        return cast("object", self.cycle) is not None  # uvicorn begins with None, and does not say so

    def hang_up(self) -> None:
        """Close it now; what was sent and not taken is lost."""
        self.connections.discard(self)
        self.transport.abort()

    # -- what asyncio and uvicorn call ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Go on with a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, or go on with one that is here already."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Give the client time to take what was sent."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """It has taken it."""
        super().resume_writing()
        self._stop(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._stop(self._deadline)
        self._stop(self._stalled)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    # -- deadlines --------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """A deadline belongs to a phase of a request; more bytes in the same phase do not move it."""
        phase, seconds = self._current_phase()
        if phase == self._phase:
            return
        self._phase = phase
        self._stop(self._deadline)
        if phase and not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self.hang_up)

    def _current_phase(self) -> tuple[tuple[object, ...] | None, float]:
        if self.conn.their_state is h11.SEND_BODY:
            return ("body", self.cycle), BODY_SECONDS
        has_begun, _ = self.conn.trailing_data
        if self.conn.their_state is h11.IDLE and (has_begun or not self.was_answered):
            return ("head", self.cycle), HEAD_SECONDS
        return None, 0

    def _watch_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stop(self._stalled)
        self._stalled = self.loop.call_later(STALLED_SECONDS, self._judge_reading, left)

    def _judge_reading(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._watch_reading()
        else:
            self.hang_up()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer:
            timer.cancel()


async def accept_connections(
    sock: socket.socket,
    make: Callable[[], HttpConnection],
    connections: Collection[Any],
    most: int,
    begin_shortage: Callable[[str], None],
) -> None:
    """Open connections until cancelled.

    Args:
        sock: Listens.
        make: Makes the protocol of a connection.
        connections: Those that are open.
        most: How many there may be.
        begin_shortage: Is told why a connection cannot be accepted, if the machine lacks something.
    """
    await anyio.lowlevel.checkpoint()
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    while True:
        if len(connections) >= most and not _make_room(cast("Collection[HttpConnection]", connections), loop.time()):
            await anyio.sleep(_FULL_SECONDS)
            continue
        try:
            await _accept_one(loop, sock, make)
        except OSError as error:
            # Without a reason the client was gone before it was accepted.
            if reason := exhaustion_reason(error):
                begin_shortage(reason)
            await anyio.sleep(RETRY_SECONDS if reason else 0)


async def _accept_one(loop: asyncio.AbstractEventLoop, sock: socket.socket, make: Callable[[], HttpConnection]) -> None:
    accepted, _ = await loop.sock_accept(sock)
    try:
        await loop.connect_accepted_socket(make, accepted)
    except BaseException:
        accepted.close()
        raise


def _make_room(connections: Collection[HttpConnection], now: float) -> bool:
    """Close the connection that has waited for longest, those first that never asked for anything."""
    waiting = [one for one in connections if one.is_waiting and now - one.waiting_since >= GRACE_SECONDS]
    if not waiting:
        return False
    min(waiting, key=lambda one: (one.was_answered, one.waiting_since)).hang_up()
    return True
