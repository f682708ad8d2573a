"""Many videos: submitted one after another, their outcomes as they complete."""

from __future__ import annotations

from collections import Counter
from copy import copy
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
from attrs import evolve

from a2v._async import telemetry
from a2v._async.download import Destination
from a2v._async.task import AsyncVideoTask
from a2v._core import html, wire
from a2v._core.models import Job, Outcome
from a2v.errors import A2VError, AuthenticationError, PermissionDeniedError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import TracebackType

    from a2v._async.session import Session


class AsyncBatch:
    """Many videos, made by ``client.batch``: a context in which to iterate over the outcomes."""

    def __init__(
        self,
        session: Session,
        jobs: Iterable[Job],
        *,
        save_to: str | os.PathLike[str] | None,
        overwrite: bool,
        max_in_flight: int | None,
    ) -> None:
        self._session = session
        self._jobs = list(jobs)
        for job in self._jobs:
            if not isinstance(job, Job):
                raise TypeError(f"a batch is made of a2v.Job values, got {job!r}")
        self._paths = _paths(self._jobs, None if save_to is None else Path(save_to))
        self._overwrite = overwrite
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, got {max_in_flight}")
        self._max_in_flight = max_in_flight or max(1, len(self._jobs))
        self._under_way: dict[int, str] = {}
        self._ended = {"finished": 0, "failed": 0}
        self._missing = len(self._jobs)
        self._refused: A2VError | None = None
        self._entered = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a batch runs once: entered again, it would submit and pay for everything again")
        for path in self._paths:
            if path:
                await Destination.check(path, overwrite=self._overwrite)
        self._room = anyio.Semaphore(self._max_in_flight)
        self._send, self._outcomes = anyio.create_memory_object_stream[Outcome](inf)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._entered = True
        self._span = telemetry.start("a2v.batch", {"a2v.jobs": len(self._jobs)})
        with self._span.active():
            self._group.start_soon(self._submit_all)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        self._missing = 0
        try:
            # The group is not told of the body's error, which would come out of it wrapped in a group of errors.
            await self._group.__aexit__(None, None, None)
        finally:
            self._send.close()
            self._outcomes.close()
            self._span.end()

    def _repr_html_(self) -> str:
        """How far it has come, for notebooks."""
        under_way = len(self._under_way)
        waiting = len(self._jobs) - sum(self._ended.values()) - under_way
        return html.progress({**self._ended, "under way": under_way, "waiting": waiting})

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome, in the order in which they complete."""
        if not self._entered:
            raise RuntimeError("a batch starts with its context: async with client.batch(…) as batch: …")
        if not self._missing:
            raise StopAsyncIteration
        outcome = await self._outcomes.receive()
        self._missing -= 1
        return outcome

    @property
    def under_way(self) -> dict[int, str]:
        """The ``video_id`` of each video that was submitted and has no outcome yet, by its job's place in the batch."""
        return dict(self._under_way)

    async def _submit_all(self) -> None:
        # One at a time: at thirty requests a minute that costs nothing, and at most one submission can be in doubt.
        for index, job in enumerate(self._jobs):
            await self._room.acquire()
            try:
                video_id = await self._submit(job)
            except A2VError as error:
                self._end(Outcome(index=index, job=job, error=error))
            else:
                self._under_way[index] = video_id
                self._group.start_soon(self._finish, Outcome(index=index, job=job), video_id)

    async def _submit(self, job: Job) -> str:
        if self._refused:
            raise copy(self._refused)  # each job's own, or one traceback would grow with every job
        try:
            return await self._session.call(wire.video_generate(job))
        except (AuthenticationError, PermissionDeniedError) as error:
            self._refused = error  # so will be the next ones
            raise

    async def _finish(self, outcome: Outcome, video_id: str) -> None:
        task = AsyncVideoTask(self._session, video_id, submitted_at=anyio.current_time())
        path = self._paths[outcome.index]
        try:
            await task.wait(timeout=None)
            if path:
                path = await task.download(path, overwrite=self._overwrite)
            self._end(evolve(outcome, video=task.video, path=path))
        except A2VError as error:
            self._end(evolve(outcome, video=task.video, error=error))

    def _end(self, outcome: Outcome) -> None:
        self._under_way.pop(outcome.index, None)
        self._ended["finished" if outcome.ok else "failed"] += 1
        self._send.send_nowait(outcome)
        self._room.release()


def _paths(jobs: list[Job], folder: Path | None) -> list[Path | None]:
    """Where each job's video goes.

    Raises:
        ValueError: Two would go to one place.
    """
    if folder is None:
        return [None] * len(jobs)
    names = [job.name or f"{index + 1:04d}" for index, job in enumerate(jobs)]
    # Many file systems do not tell upper from lower case.
    twice = sorted(name for name, count in Counter(map(str.casefold, names)).items() if count > 1)
    if twice:
        raise ValueError(f"each job needs a name of its own to be saved under; used more than once: {', '.join(twice)}")
    return [folder / f"{name}.mp4" for name in names]
