"""Run the engine: ``LocalEngine`` for the duration of a block, ``serve`` until the process is asked to stop.

Both run uvicorn on asyncio with the socket, the connections and the shutdown of this module:

* ``LocalEngine`` runs it in a thread of its own, so that the block may run on asyncio or trio.
* The application's lifespan surrounds the server instead of running inside it: an error while starting, such as a data
  folder in use, reaches the caller as the exception it is, where uvicorn would log it and exit.
* Connections come from ``http_connections.accept_connections``, which bounds their number. With a certificate (``tls.py``)
  they are TLS connections, which uvicorn need not know about.
* At shutdown, uvicorn waits for the responses in progress. After ``grace_seconds`` the remaining connections are closed,
  so every request can still clean up; uvicorn's own timeout would cancel the requests and not wait for them.
"""

from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self, Unpack

import anyio
import anyio.to_thread
import uvicorn

from a2v._core.settings import Secret
from a2v._values import arguments
from a2v.engine import sandbox, tls
from a2v.engine.app import create_app
from a2v.engine.http_connections import KEEP_ALIVE_SECONDS, HttpConnection, accept_connections, max_connections
from a2v.engine.settings import Settings, SettingsOptions
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from starlette.applications import Starlette


class LocalEngine:
    """An engine on this machine for the duration of a ``with`` or ``async with`` block.

    It runs in a thread of its own, so the block may be synchronous, or run on asyncio or trio:

        with LocalEngine() as engine, A2V(engine.token, base_url=engine.base_url) as client: ...

        async with LocalEngine() as engine, AsyncA2V(engine.token, base_url=engine.base_url) as client: ...

    The other keyword arguments are the other settings: all of ``Settings`` except ``host``.

    Args:
        data_dir: The folder of the engine's data; ``None``: a temporary one, deleted at the end.
        token: The token that clients must send; ``None``: a random one.
        settings: All settings as a value, with a loopback ``host``, instead of the other arguments.

    Raises:
        ConfigurationError: A setting is invalid; on entering: the port or the data folder is in use, the certificate cannot be
            used, or the Dask scheduler does not respond.
        TypeError: Both ``settings`` and ``options`` are given, or an option is unknown.

    Attributes:
        base_url: The engine's URL, valid within the block.
        token: The token that clients must send.
    """

    base_url: str

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        *,
        settings: Settings | None = None,
        **options: Unpack[SettingsOptions],
    ) -> None:
        given = [name for name, value in (("data_dir", data_dir), ("token", token)) if value is not None]
        secret = None if token is None else Secret(token)
        del token  # error reports may show local variables
        if settings is None:
            settings = Settings(data_dir=data_dir, token=secret, **options)
        elif not isinstance(settings, Settings):
            raise ConfigurationError(
                f"settings must be a2v.engine.Settings, got {arguments.short_repr(settings)}; pass single settings by keyword"
            )
        elif given or options:
            raise TypeError(
                f"pass {', '.join([*given, *options])} as part of settings: LocalEngine takes one or the other"
            )
        if not settings.is_local:
            raise ConfigurationError(
                f"LocalEngine listens on loopback only, not on host={settings.host!r}; use serve(..., allow_remote=True)"
            )
        self._settings = settings

    @property
    def token(self) -> str:
        """The token that clients must send."""
        return self._settings.token

    def __enter__(self) -> Self:
        started = self._start()
        try:
            started.result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    async def __aenter__(self) -> Self:
        started = self._start()
        try:
            await anyio.to_thread.run_sync(started.result, abandon_on_cancel=True)
        except BaseException:
            await self._stop_in_thread()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop_in_thread()

    def _start(self) -> Future[None]:
        """Start the engine's thread; return a future that is done once the engine accepts requests."""
        started: Future[None] = Future()
        certificate = tls.load(self._settings)
        app = create_app(self._settings)
        sock = _listen(self._settings)
        self.base_url = _base_url(sock, self._settings)
        ready = partial(started.set_result, None)
        self._server = _Server(app, self._settings, sock, ready, certificate, grace_seconds=1)
        self._thread = threading.Thread(target=_run, args=(self._server, started), name="a2v engine", daemon=True)
        self._thread.start()
        return started

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _stop_in_thread(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._stop)


def _run(server: _Server, started: Future[None]) -> None:
    try:
        anyio.run(server.run_app, backend="asyncio")
    except BaseException as error:
        # Before the start, `__aenter__` raises it; later, `threading.excepthook` reports it.
        if started.done():
            raise
        started.set_exception(error)


def serve(
    settings: Settings | None = None, *, allow_remote: bool = False, ready: Callable[[str], object] | None = None
) -> None:
    """Run an engine until the process receives SIGINT or SIGTERM. Call it in the main thread.

    Renders that are in progress when it stops are repeated by the next engine with the same ``data_dir``.

    Args:
        settings: The settings. ``None``: ``Settings()``.
        allow_remote: Required for a ``host`` that other machines can reach.
        ready: Called with the engine's URL once it accepts requests.

    Raises:
        ConfigurationError: The host is not loopback and ``allow_remote`` is not set, the port or the data folder is in
            use, the certificate cannot be used, or the Dask scheduler does not respond.
    """
    settings = settings or Settings()
    if not settings.is_local and not allow_remote:
        raise ConfigurationError(
            f"host {settings.host!r} can be reached from other machines; pass allow_remote=True (--allow-remote) to confirm"
        )
    # The token may be in this process's environment, and the processes that decode recordings run as the same user.
    sandbox.hide_memory()
    certificate = tls.load(settings)
    app = create_app(settings)
    sock = _listen(settings)
    url = _base_url(sock, settings)
    announce = partial(ready, url) if ready else lambda: None
    server = _Server(app, settings, sock, announce, certificate, grace_seconds=10)
    with _stopped_by_signals(server):
        anyio.run(server.run_app, backend="asyncio")


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    # Uvicorn installs its own handlers while it serves. Once stopped, it raises the captured signals again, for these.
    def stop(_: int, __: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Uvicorn with this module's socket, connections and shutdown.

    Args:
        app: The application.
        settings: The settings.
        sock: The listening socket; closed at the end.
        ready: Called when requests are accepted.
        certificate: The certificate; ``None``: plain HTTP.
        grace_seconds: How long responses in progress may continue after the server was asked to stop.
    """

    def __init__(
        self,
        app: Starlette,
        settings: Settings,
        sock: socket.socket,
        ready: Callable[[], object],
        certificate: tls.CertificateFiles | None,
        *,
        grace_seconds: int,
    ) -> None:
        self._app = app
        self._socket = sock
        self._ready = ready
        self._certificate = certificate
        self._grace_seconds = grace_seconds
        self._max_connections = max_connections(settings.workers)
        config = uvicorn.Config(
            self._app,
            http=HttpConnection,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)

    async def run_app(self) -> None:
        with self._socket:
            async with self._app.router.lifespan_context(self._app), anyio.create_task_group() as self._tasks:
                await self.serve(sockets=[self._socket])
                # Uvicorn 0.34 calls no `shutdown` if it was asked to stop before it had started.
                self._accepting.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # uvicorn's signature
        # Replaces uvicorn's method, which lets asyncio accept any number of connections.
        self.servers = []
        self.started = True
        self._accepting = anyio.CancelScope()
        self._tasks.start_soon(self._accept)
        self._ready()

    async def _accept(self) -> None:
        report = self._app.state.engine.queue.resources.report
        make = partial(
            HttpConnection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        accept = partial(
            accept_connections,
            self._socket,
            make,
            self.server_state.connections,
            self._max_connections,
            report_exhausted=report,
        )
        with self._accepting:
            if self._certificate is None:
                await accept()
                return
            certificate = self._certificate
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(certificate.reload_when_changed)
                await accept(tls_context=lambda: certificate.context)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        self._app.state.engine.stopping.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._abort_after_grace)
            await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    async def _abort_after_grace(self) -> None:
        await anyio.sleep(self._grace_seconds)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listen(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        sock = socket.create_server((str(address[0]), int(address[1])), family=family, backlog=1024)
    except (OSError, ValueError) as error:  # ValueError: not a valid host name
        where, reason = f"{settings.host}:{settings.port}", getattr(error, "strerror", None) or error
        raise ConfigurationError(f"the engine cannot listen on {where}: {reason}") from None
    # Accepted connections inherit it. asyncio only sets it on sockets it creates; without it, a response takes 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _base_url(sock: socket.socket, settings: Settings) -> str:
    """Return the URL for clients. An engine that listens on all addresses is known by its first allowed name, or else by loopback."""
    scheme = "http" if settings.tls_cert is None else "https"
    host, port = str(sock.getsockname()[0]), sock.getsockname()[1]
    # The wildcard addresses cannot be connected to.
    if loopback := {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host):  # noqa: S104
        host = next(iter(settings.allowed_hosts), loopback)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
