"""A client that shares a budget, as a program: reads actions, a JSON array a line, and writes what came out.

After SIGUSR1 it writes to stderr what each thread and task waits for, and what the client knows about the account.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
import time
from contextlib import suppress

import anyio

import a2v


async def calls(client: a2v.AsyncA2V, count: int) -> list[float]:
    """Make calls at once; return how long each took."""
    seconds: list[float] = []

    async def call() -> None:
        began = time.monotonic()
        await client.characters.list()
        seconds.append(time.monotonic() - began)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)
    return seconds


async def latencies(client: a2v.AsyncA2V, count: int) -> list[float]:
    """Make calls one after another; return how long each took."""
    return [(await calls(client, 1))[0] for _ in range(count)]


async def left(client: a2v.AsyncA2V) -> int | None:
    return (await client.pace()).left


async def wait(client: a2v.AsyncA2V, video_id: str) -> str:
    return (await client.videos.task(video_id).wait()).status.value


async def make(client: a2v.AsyncA2V, count: int) -> list[str]:
    """Make videos at once; return their ids."""
    made: list[str] = []

    async def one(number: int) -> None:
        url = f"https://example.com/{os.getpid()}-{number}.wav"
        task = await client.videos.generate(model_id="eva_a0008", audio_url=url)
        made.append((await task.wait()).video_id)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return made


def describe(client: a2v.AsyncA2V) -> None:
    """Write what is needed to find out why nothing happens."""
    faulthandler.dump_traceback()
    account = client._session._loop_state.dispatcher._account
    known = [account.__dict__, account.log.__dict__, account.log.limiter.__dict__, *account.log._members.items()]
    sys.stderr.write("\n".join(map(str, known)))
    with suppress(RuntimeError):  # trio
        for task in asyncio.all_tasks():
            task.print_stack()


async def main(order: dict[str, str]) -> None:
    actions = {action.__name__: action for action in (calls, latencies, left, wait, make)}
    client = a2v.AsyncA2V("token-0123456789", base_url=order["base_url"], budget=order["budget"] or None)
    signal.signal(signal.SIGUSR1, lambda *_: describe(client))
    async with client:
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            action, *arguments = json.loads(line)
            if action == "block":
                time.sleep(arguments[0])  # noqa: ASYNC251  # as an application might
                result: object = None
            else:
                result = await actions[action](client, *arguments)
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    anyio.run(main, settings, backend=settings["backend"])
