"""Renders on other machines: hands orders to the workers of a Dask cluster (extra ``dask``).

Recordings and videos travel as bytes through Dask's scheduler, so the machines share no disk and a server needs to reach
nothing but the scheduler. On a worker a render runs as it does here, in a child process with its limits. What Dask promises,
it does: a render whose worker is lost is run again by another one.

Each render has a connection of its own (20 ms). When that ends, however it does, the scheduler forgets the render; the
worker's copy of it sees that it is not wanted any more, and kills its child. So nothing goes on rendering for a call that was
cancelled, nor for a server that was killed.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import uuid
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import attrs
from attrs import frozen

from a2v.engine.errors import RenderCrashedError, RenderError, ResourceExhaustedError
from a2v.engine.exhaustion import exhaustion_reason
from a2v.engine.renderer import RenderRequest, log_crash, render_in_child
from a2v.errors import ConfigurationError

try:
    import dask.config
    from distributed import Client, Reschedule, Status, get_worker
except ImportError as _missing:
    _NEEDS = 'renders on other machines need one more package (distributed): pip install "a2v[dask]"'
    raise ImportError(_NEEDS, name=_missing.name) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dask.typing import Key
    from distributed import Worker

logger: logging.Logger = logging.getLogger("a2v.engine")

CONNECT_SECONDS = 10.0
RETRY_SECONDS = 5.0
"""After that long a scheduler that did not answer is asked again."""
POLL_SECONDS = 0.5
"""How often a render on a worker looks whether it is still wanted; that costs no request."""
CLOSE_SECONDS = 5.0

WorkerResult = dict[str, Any]
"""What comes back from a worker, in types that need no class of ours: ``video`` and ``mask``, or ``refused``, ``crashed`` or ``lacking``."""


@frozen
class DaskRenderer:
    """A renderer that hands its orders to a Dask cluster. Needs asyncio.

    Attributes:
        address: Of the scheduler: ``tcp://host:8786``, or ``tls://…`` with the keys in Dask's own configuration.
    """

    address: str

    async def check(self, workers: int) -> None:
        """Find out whether the scheduler answers, and tell the log what it has.

        Args:
            workers: How many renders will run at once.

        Raises:
            ConfigurationError: It does not answer, or this is not asyncio.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("Dask works on asyncio alone") from None
        async with self._connected() as client:
            threads = await client.nthreads()
        there = f"{len(threads)} workers with {sum(threads.values())} threads"
        logger.info("the Dask cluster of %s has %s; up to %d renders are sent to it", self.address, there, workers)

    async def __call__(self, request: RenderRequest) -> None:
        """Render on some worker; waits as long as there is no scheduler or no worker.

        Raises:
            RenderError: As ``render_in_child`` does.
            ResourceExhaustedError: This machine or the worker's lacks something just now.
            RenderCrashedError: As ``render_in_child`` does; and if the scheduler was lost meanwhile, or Dask gave up.
        """
        recording = await anyio.to_thread.run_sync(request.audio.read_bytes)
        async with self._connected(patient=True) as client:
            made = await _submit(client, recording, request)
        if "refused" in made:
            raise RenderError(made["refused"])
        if "crashed" in made:
            raise RenderCrashedError(made["crashed"])
        if "exhausted" in made:
            raise ResourceExhaustedError(made["exhausted"])
        if request.mask:
            await anyio.to_thread.run_sync(_write, request.mask, made["mask"])
        await anyio.to_thread.run_sync(_write, request.destination, made["video"])

    @asynccontextmanager
    async def _connected(self, *, patient: bool = False) -> AsyncIterator[Client]:
        client = await (self._keep_trying() if patient else self._connect())
        try:
            yield client
        finally:
            await _close(client)

    async def _keep_trying(self) -> Client:
        """A scheduler that is being restarted is no reason to fail all that wait for it."""
        while True:
            try:
                return await self._connect()
            except ConfigurationError as error:
                logger.warning("%s; it is asked again", error)
                await anyio.sleep(RETRY_SECONDS)

    async def _connect(self) -> Client:
        client = None
        try:
            with anyio.fail_after(CONNECT_SECONDS + 1):
                client = Client(self.address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS)
                await client
        except BaseException as error:
            if client:
                await _close(client)
            if isinstance(error, Exception):
                # Of any kind: what is no address, what does not answer, and whatever another program's answer looks like.
                reason = str(error) or f"nothing was heard within {CONNECT_SECONDS:g} s"
                raise ConfigurationError(f"no Dask scheduler answers at {self.address!r}: {reason}") from None
            raise
        return client


async def _close(client: Client) -> None:
    # What a connection has to complain of at its end must not cost the video that came through it.
    with anyio.move_on_after(CLOSE_SECONDS, shield=True), suppress(OSError):
        await client.close()  # pyright: ignore[reportGeneralTypeIssues]  # it is None only where nobody can await it


async def _submit(client: Client, recording: bytes, request: RenderRequest) -> WorkerResult:
    # With the task and not scattered: then the scheduler can give it to another worker when one is lost.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        future = client.submit(render_on_worker, recording, request, key=f"a2v-{uuid.uuid4().hex}", pure=False)
    try:
        made: WorkerResult = await future
    except Exception as error:
        if reason := exhaustion_reason(error):
            raise ResourceExhaustedError(reason) from None
        # What was raised there, or what befell Dask: the scheduler is gone, or worker after worker died of this render.
        logger.error("Dask gave a render up: %s: %s", type(error).__name__, error)  # noqa: TRY400  # the traceback is Dask's
        raise RenderCrashedError("the Dask cluster lost the render") from error
    return made


def _write(path: Path, content: bytes) -> None:
    """It appears when it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# -- on a worker ------------------------------------------------------------------------------------------------------


def render_on_worker(recording: bytes, request: RenderRequest) -> WorkerResult:
    """Runs in a thread of a Dask worker.

    Raises:
        Reschedule: The worker is being closed, or nobody wants the render any more.
    """
    worker = get_worker()
    return anyio.run(_render, worker, worker.get_current_task(), recording, request)


async def _render(worker: Worker, key: Key, recording: bytes, request: RenderRequest) -> WorkerResult:
    with tempfile.TemporaryDirectory(dir=worker.local_directory, ignore_cleanup_errors=True) as folder:
        request = _relocated(request, Path(folder))
        request.audio.write_bytes(recording)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_forgotten, tasks.cancel_scope, worker, key)
            made = await _result(request)
            tasks.cancel_scope.cancel()
            return made
    raise Reschedule


def _relocated(request: RenderRequest, folder: Path) -> RenderRequest:
    mask = folder / "mask.mp4" if request.mask else None
    return attrs.evolve(request, audio=folder / "recording", destination=folder / "video.mp4", mask=mask)


async def _cancel_when_forgotten(scope: anyio.CancelScope, worker: Worker, key: Key) -> None:
    """Dask does not stop what runs already, but the worker knows what is not wanted any more."""
    while worker.status not in (Status.closing, Status.closed, Status.failed):
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            break
        await anyio.sleep(POLL_SECONDS)
    scope.cancel()


async def _result(request: RenderRequest) -> WorkerResult:
    try:
        await render_in_child(request)
    except RenderError as error:
        return {"refused": str(error)}
    except RenderCrashedError as error:
        log_crash(error)
        return {"crashed": str(error)}
    except ResourceExhaustedError as error:
        return {"exhausted": str(error)}
    return {"video": request.destination.read_bytes(), "mask": request.mask.read_bytes() if request.mask else None}
