"""Runs a batch in its own task, because users may enter it in one task and leave it in another.

A task group, like any cancel scope, must be exited in the task that entered it. Test fixtures and exit stacks may exit a context
manager in another task; if it held a task group, the wrong task would be cancelled. So the task group of a batch lives in a task
that belongs to the event loop, and ``__aexit__`` only waits for that task to end.
"""

from __future__ import annotations

import asyncio  # noqa: TID251  # anyio cannot start a task that outlives the caller
import contextvars
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# The event loop of asyncio holds only weak references to tasks.
_tasks: set[asyncio.Task[None]] = set()


def spawn(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start a task that is cancelled when the event loop ends.

    Args:
        run: Runs in the task, with the context variables of the caller. It must not raise anything except a cancellation.
    """
    if is_asyncio():
        task = asyncio.get_running_loop().create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    else:
        import trio  # noqa: PLC0415, TID251  # anyio has no equivalent; trio is installed if its event loop runs

        trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())


def is_asyncio() -> bool:
    """Return whether the running event loop is asyncio's; otherwise it is trio's."""
    return issubclass(anyio.get_cancelled_exc_class(), asyncio.CancelledError)


async def wait_for_end(ended: anyio.Event) -> None:
    """Wait for an event even if cancelled; raise the cancellation afterwards."""
    cancelled: BaseException | None = None
    while not ended.is_set():
        try:
            with anyio.CancelScope(shield=True):
                await ended.wait()
        except anyio.get_cancelled_exc_class() as error:  # asyncio's own cancellation, which ignores shields
            cancelled = error
    if cancelled:
        raise cancelled
