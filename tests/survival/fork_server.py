"""A fork server: runs batches, each in its own process, and ends them at a named instant.

It is a program that imports a2v once, and forks a child for each line of JSON on its standard input. It writes the result of
the child to standard output. So a kill costs a fork, not a start of Python.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from errno import EIO, ENOSPC
from functools import wraps
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

import a2v
from a2v._async.batch import journal_file, outage, reconciler, runner
from a2v._async.batch.files import _JournalResumeStore
from a2v._async.batch.journal import Journal
from a2v._async.download import Destination, _Download
from a2v.testing import Service

# Shorter than for users, so that the tests do not wait for seconds.
reconciler._LIST_DELAY = reconciler._LIST_INTERVAL = 0.05
outage.RETRY_INTERVAL = runner._FIRST_PAUSE = 0.05


class Trouble:
    """What happens at a named instant, once."""

    def __init__(self, instant: str, kind: str) -> None:
        self.instant, self.kind = instant, kind
        self.scope: anyio.CancelScope | None = None

    def at(self, instant: str, failure: Callable[[], Exception]) -> None:
        if instant != self.instant:
            return
        self.instant = ""
        if self.kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "SIGINT":
            os.kill(os.getpid(), signal.SIGINT)
        elif self.kind == "cancel" and self.scope:
            # From a worker thread too: what is scheduled is done when the thread is through.
            anyio.from_thread.run_sync(self.scope.cancel) if _in_thread() else self.scope.cancel()
        elif self.kind in ("ENOSPC", "EIO"):
            raise failure()


def _in_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


def plant(trouble: Trouble) -> None:
    """Put the named instants where they belong."""
    number = {"ENOSPC": ENOSPC, "EIO": EIO}.get(trouble.kind, EIO)
    words = {"ENOSPC": "database or disk is full"}.get(trouble.kind, "disk I/O error")

    def database() -> Exception:
        return sqlite3.OperationalError(words)

    def disk() -> Exception:
        return OSError(number, os.strerror(number))

    def around(owner: Any, name: str, instant: Callable[..., str], failure: Callable[[], Exception]) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def wrapped(*args: Any, **more: Any) -> Any:
            which = instant(*args, **more)
            trouble.at(f"before {which}", failure)
            done = real(*args, **more)
            trouble.at(f"after {which}", failure)
            return done

        setattr(owner, name, wrapped)

    def around_async(owner: Any, name: str, instant: str) -> None:
        real = getattr(owner, name)

        @wraps(real)
        async def wrapped(*args: Any, **more: Any) -> Any:
            trouble.at(f"before {instant}", disk)
            done = await real(*args, **more)
            trouble.at(f"after {instant}", disk)
            return done

        setattr(owner, name, wrapped)

    around(journal_file, "create", lambda path: "creating", database)
    around(Journal, "sync_jobs", lambda self, jobs: "inserting", database)
    around(Journal, "_set_state", lambda self, identity, state, *args, **columns: state.value, database)
    around(
        Journal, "_update", lambda self, identity, **facts: "reporting" if "reported" in facts else "keeping", database
    )
    around_async(_Download, "write", "a piece")
    around_async(_JournalResumeStore, "complete", "whole")
    around(Destination, "complete", lambda *_: "naming", disk)


async def run(order: dict[str, Any], trouble: Trouble) -> dict[str, Any]:
    """Run a batch as a user would; each outcome is written to disk before the next one is requested."""
    folder = Path(order["folder"])
    urls = order.get("urls") or {name: f"https://example.com/{name}.wav" for name in order["jobs"]}
    if order.get("texts"):
        jobs = [a2v.Job("eva_a0008", text=name, voice_name="heart", name=name) for name in order["jobs"]]
    else:
        jobs = [a2v.Job("eva_a0008", urls[name], name) for name in order["jobs"]]
    reported = (folder / "reported").open("a", buffering=1)
    with reported, anyio.CancelScope() as trouble.scope:
        async with a2v.AsyncA2V(
            order.get("token", "token"), base_url=order["base_url"], rate_limit=None, budget=order.get("budget")
        ) as a2v_client:
            settings = {"journal": folder / "batch.db", "save_to": folder / "videos"}
            async with a2v_client.batch(jobs, **settings) as made:
                async for outcome in made:
                    reported.write(f"{outcome.job.name} {type(outcome.error).__name__}\n")
    return {"ended": "done"}


def child(order: dict[str, Any]) -> dict[str, Any]:
    trouble = Trouble(*order.get("trouble", ("", "")))
    plant(trouble)
    try:
        return anyio.run(run, order, trouble, backend=order.get("backend", "asyncio"))
    except KeyboardInterrupt:
        return {"ended": "KeyboardInterrupt"}
    except (a2v.A2VError, OSError) as error:
        return {"ended": type(error).__name__, "error": str(error)}


def report(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def import_all() -> None:
    """Import whatever a batch imports. A child would need a second for that, and be killed before its batch begins."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        with TemporaryDirectory() as folder, Service(render_seconds=0).server() as server:
            child({"folder": folder, "base_url": server.base_url, "jobs": ["first"], "budget": f"{folder}/budget"})
        with os.fdopen(writing, "w") as answer:
            json.dump(sorted(sys.modules), answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        names = json.load(answer)
    os.waitpid(pid, 0)
    for name in names:
        with suppress(ImportError):
            import_module(name)


def serve() -> None:
    """Fork a child for each order, wait for it, and report how it ended."""
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with suppress(BrokenPipeError), os.fdopen(writing, "w") as answer:
                json.dump(child(order), answer)
            os._exit(0)
        os.close(writing)
        # Killed by its parent, which has not reaped it yet, so no other process can have its id.
        if "kill_after" in order and not select.select([reading], [], [], order["kill_after"])[0]:
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading) as answer:
            said = answer.read()
        _, status = os.waitpid(pid, 0)
        signals = {signal.SIGKILL: "killed", signal.SIGINT: "KeyboardInterrupt"}
        ended = json.loads(said) if said else {"ended": signals.get(os.WTERMSIG(status), "died")}
        report(ended)


if __name__ == "__main__":
    import_all()
    serve()
