"""A task of its own, for work that one task begins and another one may end.

A task group, and any other cancel scope, must be left in the task that entered it. A context manager that holds one breaks
that rule as soon as its user leaves it elsewhere, as test fixtures and exit stacks do: the wrong task is cancelled. So the
group of a batch is entered and left in a task that belongs to the event loop, and ``__aexit__`` only waits for its end.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# An event loop of asyncio keeps weak references only.
_tasks: set[asyncio.Task[None]] = set()


def spawn(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something in a task of its own, which is cancelled when the event loop ends.

    Args:
        run: It sees the context variables of the caller, and raises nothing but a cancellation.
    """
    if is_asyncio():
        task = asyncio.get_running_loop().create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    else:
        import trio  # noqa: PLC0415  # anyio has no call for this; it is there, for this event loop is trio's

        trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())


def is_asyncio() -> bool:
    """Whether the running event loop is asyncio's; otherwise it is trio's."""
    return issubclass(anyio.get_cancelled_exc_class(), asyncio.CancelledError)


async def wait_for_end(ended: anyio.Event) -> None:
    """Wait for an event even if cancelled meanwhile; the cancellation is raised afterwards."""
    cancelled: BaseException | None = None
    while not ended.is_set():
        try:
            with anyio.CancelScope(shield=True):
                await ended.wait()
        except anyio.get_cancelled_exc_class() as error:  # by asyncio itself, which no scope can hold off
            cancelled = error
    if cancelled:
        raise cancelled
