"""A renderer that runs renders on the workers of a Dask cluster (extra ``dask``).

A render is one Dask task. The recording and the character are its arguments and the video is its result, as bytes through the
scheduler: the machines share no disk, and the engine only needs to reach the scheduler. On the worker, the render runs in the same child
process as without Dask. Dask runs the task again if its worker is lost.

Cancelling needs two steps, because Dask does not stop a task that is already running:

* Each render has its own connection to the scheduler (20 ms). The scheduler forgets the tasks of a client that has
  disconnected, however that happened, so a killed engine is covered too.
* The task on the worker polls the worker's state, which costs no request. Once the scheduler has forgotten the task, or the
  worker is closing, it cancels the render and with it the child process.
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
    _NEEDS = 'renders on a Dask cluster need another package (distributed): pip install "a2v[dask]"'
    raise ImportError(_NEEDS, name=_missing.name) from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dask.typing import Key
    from distributed import Worker

logger: logging.Logger = logging.getLogger("a2v.engine")

CONNECT_SECONDS = 10.0
"""The timeout for connecting to the scheduler."""
RETRY_SECONDS = 5.0
"""The pause between attempts to connect to the scheduler."""
POLL_SECONDS = 0.5
"""How often a render on a worker checks whether it has been cancelled."""
CLOSE_SECONDS = 5.0
"""The timeout for closing a connection."""

_INPUTS = ("audio", "character", "picture", "captions")
"""The attributes of a request that are paths of files to read."""
Inputs = dict[str, bytes]
"""The contents of these files, by the name of the attribute."""
WorkerResult = dict[str, Any]
"""The result of the Dask task: ``video``, ``mask``, ``vtt`` and ``warning``, or one of ``refused``, ``crashed`` and ``exhausted``.

A plain dict, so that Dask can serialise it without classes of this package."""


@frozen
class DaskRenderer:
    """A renderer that uses a Dask cluster. Requires asyncio.

    Attributes:
        address: The scheduler's address: ``tcp://host:8786``, or ``tls://…`` with the keys in Dask's configuration.
    """

    address: str

    async def check(self, workers: int) -> None:
        """Check that the scheduler responds, and log the size of the cluster.

        Args:
            workers: The number of renders that the engine runs at a time.

        Raises:
            ConfigurationError: The scheduler does not respond, or the event loop is not asyncio's.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("Dask needs asyncio") from None
        async with self._connected() as client:
            threads = await client.nthreads()
        size = f"{len(threads)} workers with {sum(threads.values())} threads"
        logger.info(
            "the Dask cluster at %s has %s; up to %d renders are sent to it at a time", self.address, size, workers
        )

    async def __call__(self, request: RenderRequest) -> str | None:
        """Render on a worker; wait while there is no scheduler or no worker.

        Returns:
            A warning about the video; ``None`` if there is none.

        Raises:
            RenderError: As for ``render_in_child``.
            ResourceExhaustedError: This machine or the worker's has run out of a resource.
            RenderCrashedError: As for ``render_in_child``; also if the scheduler was lost, or Dask gave up.
        """
        inputs = await anyio.to_thread.run_sync(_read_inputs, request)
        async with self._connected(retry=True) as client:
            result = await _submit(client, inputs, request)
        if "refused" in result:
            raise RenderError(result["refused"])
        if "crashed" in result:
            raise RenderCrashedError(result["crashed"])
        if "exhausted" in result:
            raise ResourceExhaustedError(result["exhausted"])
        for path, name in ((request.mask, "mask"), (request.vtt, "vtt")):
            if path:
                await anyio.to_thread.run_sync(_write_atomically, path, result[name])
        await anyio.to_thread.run_sync(_write_atomically, request.destination, result["video"])
        # A worker with an earlier version of a2v sends none.
        warning: str | None = result.get("warning")
        return warning

    @asynccontextmanager
    async def _connected(self, *, retry: bool = False) -> AsyncIterator[Client]:
        client = await (self._connect_with_retries() if retry else self._connect())
        try:
            yield client
        finally:
            await _close(client)

    async def _connect_with_retries(self) -> Client:
        # A restart of the scheduler must not fail the tasks that wait for it.
        while True:
            try:
                return await self._connect()
            except ConfigurationError as error:
                logger.warning("%s; retrying", error)
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
                # There are many kinds: malformed addresses, timeouts, and protocol errors if another program listens there.
                reason = str(error) or f"no response within {CONNECT_SECONDS:g} s"
                raise ConfigurationError(f"no Dask scheduler responds at {self.address!r}: {reason}") from None
            raise
        return client


async def _close(client: Client) -> None:
    # An error while closing must not lose the video that was received.
    with anyio.move_on_after(CLOSE_SECONDS, shield=True), suppress(OSError):
        await client.close()  # pyright: ignore[reportGeneralTypeIssues]  # None only for synchronous clients


def _read_inputs(request: RenderRequest) -> Inputs:
    return {name: path.read_bytes() for name in _INPUTS if (path := getattr(request, name))}


async def _submit(client: Client, inputs: Inputs, request: RenderRequest) -> WorkerResult:
    # The inputs are arguments rather than scattered, so that the scheduler can run the task again elsewhere.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        future = client.submit(render_on_worker, inputs, request, key=f"a2v-{uuid.uuid4().hex}", pure=False)
    try:
        result: WorkerResult = await future
    except Exception as error:
        if reason := exhaustion_reason(error):
            raise ResourceExhaustedError(reason) from None
        # An error in the task or in Dask: the scheduler was lost, or this render killed several workers in a row.
        logger.error("Dask gave up a render: %s: %s", type(error).__name__, error)  # noqa: TRY400  # the traceback is Dask's
        raise RenderCrashedError("the Dask cluster lost the render") from error
    return result


def _write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: it appears when it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# -- on a worker ------------------------------------------------------------------------------------------------------


def render_on_worker(inputs: Inputs, request: RenderRequest) -> WorkerResult:
    """Render; runs in a thread of a Dask worker.

    Raises:
        Reschedule: The worker is closing, or the render was cancelled.
    """
    worker = get_worker()
    return anyio.run(_render, worker, worker.get_current_task(), inputs, request)


async def _render(worker: Worker, key: Key, inputs: Inputs, request: RenderRequest) -> WorkerResult:
    with tempfile.TemporaryDirectory(dir=worker.local_directory, ignore_cleanup_errors=True) as folder:
        request = _relocated(request, Path(folder))
        for name, content in inputs.items():
            getattr(request, name).write_bytes(content)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_forgotten, tasks.cancel_scope, worker, key)
            result = await _render_to_result(request)
            tasks.cancel_scope.cancel()
            return result
    raise Reschedule


def _relocated(request: RenderRequest, folder: Path) -> RenderRequest:
    """Return the same request with all its files in a folder."""
    mask, vtt = folder / "mask.mp4" if request.mask else None, folder / "captions.vtt" if request.vtt else None
    inputs: dict[str, Any] = {name: folder / name for name in _INPUTS if getattr(request, name)}
    return attrs.evolve(request, destination=folder / request.destination.name, mask=mask, vtt=vtt, **inputs)


async def _cancel_when_forgotten(scope: anyio.CancelScope, worker: Worker, key: Key) -> None:
    """Cancel a render that the scheduler has forgotten, or whose worker is closing."""
    while worker.status not in (Status.closing, Status.closed, Status.failed):
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            break
        await anyio.sleep(POLL_SECONDS)
    scope.cancel()


async def _render_to_result(request: RenderRequest) -> WorkerResult:
    try:
        warning = await render_in_child(request)
    except RenderError as error:
        return {"refused": str(error)}
    except RenderCrashedError as error:
        log_crash(error)
        return {"crashed": str(error)}
    except ResourceExhaustedError as error:
        return {"exhausted": str(error)}
    mask, vtt = (path.read_bytes() if path else None for path in (request.mask, request.vtt))
    return {"video": request.destination.read_bytes(), "mask": mask, "vtt": vtt, "warning": warning}
