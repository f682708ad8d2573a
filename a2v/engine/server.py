"""Runs the engine: beside other code for as long as a block lasts, or as a program until it is told to stop."""

from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread
import uvicorn

from a2v._core.settings import Secret
from a2v.engine import sandbox
from a2v.engine.app import create_app
from a2v.engine.http_connections import KEEP_ALIVE_SECONDS, HttpConnection, accept_connections, max_connections
from a2v.engine.settings import Format, Revision, Settings
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType, TracebackType

    from starlette.applications import Starlette


class LocalEngine:
    """An engine of one's own on this machine, for the length of an ``async with`` block.

    It runs in a thread, so the block may be asyncio's or trio's:

        async with LocalEngine() as engine, AsyncA2V(engine.token, base_url=engine.base_url) as client: ...

    Args:
        data_dir: Where tasks and videos are kept. ``None``: a temporary folder, gone at the end of the block.
        token: What clients must send. ``None``: a random one.
        size: The shorter side of the videos in pixels: 512, 720 or 1080.
        format: ``"square"``, or ``"portrait"``: 16 high to 9 wide.
        fps: Frames a second: 25 or 30.
        workers: How many renders run at once. ``None``: one for each core of this machine, also with ``dask``.
        dask: The scheduler of a Dask cluster that renders in this machine's place, ``tcp://host:8786`` say.
        port: Where to listen on 127.0.0.1; 0 takes a free port.
        queue_limit: How many videos may wait before ``video.generate`` refuses more.
        allow_files: Folders (or single files) that an ``audio_url`` of the form ``file:///…`` may read.
        allow_private_urls: Whether an ``audio_url`` may point into private networks and to this machine.
        revision: Which revision of the API to speak: ``"seed"`` has three calls and no status, ``"later"`` has all.
        like_hosted: Whether to be as strict as the hosted service: 30 requests a minute and 1 minute of audio, unless
            other numbers are given, and a refusal over the limit whose body is not valid JSON.
        requests_per_minute: How many requests are answered each minute; ``None``: no limit.
        quota: How many requests are answered in the life of the data folder; ``None``: no limit.
        max_audio_seconds: The longest recording that is rendered. ``None``: 30 minutes.
        max_render_seconds: How long a render may take.
        max_render_mib: How much memory a render may take, in MiB (address space); 400 or more.
        keep_days: How long videos are kept after their render, and the tasks with them. ``None``: for ever.
        allowed_hosts: Names beside those of loopback by which clients may address the engine.

    Raises:
        ConfigurationError: A setting cannot be right; on entering: the port or the data folder is taken, or
            no Dask scheduler answers.

    Attributes:
        base_url: Where clients find it, while the block lasts.
        token: What they must send.
    """

    base_url: str

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        *,
        size: int = 512,
        format: Format = "square",
        fps: int = 25,
        workers: int | None = None,
        dask: str | None = None,
        port: int = 0,
        queue_limit: int = 1000,
        allow_files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        allow_private_urls: bool = False,
        revision: Revision = "later",
        like_hosted: bool = False,
        requests_per_minute: int | None = None,
        quota: int | None = None,
        max_audio_seconds: float | None = None,
        max_render_seconds: float = 3600.0,
        max_render_mib: int = 2048,
        keep_days: float | None = None,
        allowed_hosts: str | Iterable[str] = (),
    ) -> None:
        secret = Secret(token)
        del token  # a traceback that shows variables would show it
        self._settings = Settings(
            data_dir=data_dir,
            token=secret,
            size=size,
            format=format,
            fps=fps,
            workers=workers,
            dask=dask,
            port=port,
            queue_limit=queue_limit,
            allow_files=allow_files,
            allow_private_urls=allow_private_urls,
            revision=revision,
            like_hosted=like_hosted,
            requests_per_minute=requests_per_minute,
            quota=quota,
            max_audio_seconds=max_audio_seconds,
            max_render_seconds=max_render_seconds,
            max_render_mib=max_render_mib,
            keep_days=keep_days,
            allowed_hosts=allowed_hosts,
        )

    @property
    def token(self) -> str:
        """What clients must send."""
        return self._settings.token

    async def __aenter__(self) -> Self:
        started: Future[None] = Future()
        app = create_app(self._settings)
        sock = _listen(self._settings)
        self.base_url = _base_url(sock)
        self._server = _Server(app, self._settings, sock, partial(started.set_result, None), patience=1)
        self._thread = threading.Thread(target=_run, args=(self._server, started), name="a2v engine", daemon=True)
        self._thread.start()
        try:
            await anyio.to_thread.run_sync(started.result, abandon_on_cancel=True)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        self._server.should_exit = True
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)


def _run(server: _Server, started: Future[None]) -> None:
    try:
        anyio.run(server.work, backend="asyncio")
    except BaseException as error:
        # Before the start it belongs to whoever waits for it; after, to nobody: threading's hook shows it.
        if started.done():
            raise
        started.set_exception(error)


def serve(
    settings: Settings | None = None, *, allow_remote: bool = False, ready: Callable[[str], object] | None = None
) -> None:
    """Run an engine until the process gets SIGINT or SIGTERM; only from the main thread.

    Renders that are under way when it stops are taken up by the next engine with the same ``data_dir``.

    Args:
        settings: What the engine can be told; ``Settings()`` if ``None``.
        allow_remote: Must be set for a ``host`` that others can reach.
        ready: Is called with the engine's URL once it answers.

    Raises:
        ConfigurationError: The host is not loopback and ``allow_remote`` is not set, the port or data folder is taken, or
            no Dask scheduler answers.
    """
    settings = settings or Settings()
    if not settings.is_local and not allow_remote:
        raise ConfigurationError(f"{settings.host!r} can be reached from elsewhere; say explicitly that this is meant")
    # The processes that decode recordings are of the same user, and this one has the token in its environment.
    sandbox.hide_memory()
    app = create_app(settings)
    sock = _listen(settings)
    url = _base_url(sock)
    server = _Server(app, settings, sock, partial(ready, url) if ready else lambda: None, patience=10)
    with _stopped_by_signals(server):
        anyio.run(server.work, backend="asyncio")


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    # Uvicorn has handlers of its own while it serves; when it has stopped it raises what it got once more, for these.
    def stop(_: int, __: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Uvicorn with a socket and connections of ours.

    The application's lifespan is around it, so that its errors reach the caller.

    ``patience``: how many seconds a download may go on after the engine was told to stop.
    """

    def __init__(
        self, app: Starlette, settings: Settings, sock: socket.socket, ready: Callable[[], object], *, patience: int
    ) -> None:
        self._app = app
        self._socket = sock
        self._ready = ready
        self._patience = patience
        self._most = max_connections(settings.workers)
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

    async def work(self) -> None:
        with self._socket:
            async with self._app.router.lifespan_context(self._app), anyio.create_task_group() as self._tasks:
                await self.serve(sockets=[self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # as uvicorn has it
        # Instead of uvicorn's, which lets asyncio accept as many connections as there are.
        self.servers = []
        self.started = True
        self._accepting = anyio.CancelScope()
        self._tasks.start_soon(self._accept)
        self._ready()

    async def _accept(self) -> None:
        begin = self._app.state.engine.queue.resources.report
        make = partial(
            HttpConnection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        with self._accepting:
            await accept_connections(self._socket, make, self.server_state.connections, self._most, begin)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._lose_patience)
            await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    async def _lose_patience(self) -> None:
        # Hanging up lets every request end in order; uvicorn's own time limit would cancel them and not wait.
        await anyio.sleep(self._patience)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listen(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        sock = socket.create_server((str(address[0]), int(address[1])), family=family, backlog=1024)
    except (OSError, ValueError) as error:  # ValueError: of what can be no host's name
        where, reason = f"{settings.host}:{settings.port}", getattr(error, "strerror", None) or error
        raise ConfigurationError(f"the engine cannot listen on {where}: {reason}") from None
    # Connections inherit it. asyncio sets it only where it made the socket, and without it a reply takes 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _base_url(sock: socket.socket) -> str:
    """The URL for clients on this machine."""
    host, port = str(sock.getsockname()[0]), sock.getsockname()[1]
    # All addresses of this machine are no address to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
