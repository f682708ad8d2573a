"""The machine runs out of something for a while: no task fails because of it, and everything continues without a restart."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import anyio
import httpx
import pytest

from a2v.engine import LocalEngine
from a2v.engine.errors import RenderCrashedError, RenderError
from a2v.engine.exhaustion import LogThrottle, exhaustion_reason

resource = pytest.importorskip("resource", reason="takes resources away the POSIX way")
pytestmark = pytest.mark.usefixtures("quick_renders", "short_pauses")

GENERATE = "/v1/a2v/video.generate"
LISTED = "/v1/a2v/video.list"


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr("a2v.engine.exhaustion.INITIAL_BACKOFF", 0.05)
    monkeypatch.setattr("a2v.engine.exhaustion.MAX_BACKOFF", 0.1)


# -- which errors are the machine's -----------------------------------------------------------------------------------


def caused_by(cause: BaseException) -> Exception:
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = cause
    return error


def while_handling(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        finally:
            raise KeyError("video")
    except KeyError as error:
        return error


NUMBERS = ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EAGAIN", "ENOSPC", "EDQUOT", "EIO", "EROFS"]


@pytest.mark.parametrize("wrap", [lambda error: error, caused_by, while_handling, lambda e: ExceptionGroup("", [e])])
@pytest.mark.parametrize("number", NUMBERS)
def test_exhaustion_is_recognised_however_the_error_is_wrapped(number, wrap):
    code = getattr(errno, number)
    reason = exhaustion_reason(wrap(OSError(code, os.strerror(code), "/data/secret.wav")))
    assert os.strerror(code) in reason
    assert "secret" not in reason


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("database is locked"),
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.DatabaseError("database disk image is malformed"),
    ],
)
def test_errors_without_a_number(error):
    assert exhaustion_reason(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "permission denied"),
        ConnectionResetError(errno.ECONNRESET, "connection reset"),
        # The same numbers, with another meaning: those of getaddrinfo.
        socket.gaierror(errno.ENOSPC, "name unknown"),
        sqlite3.ProgrammingError("closed"),
        RuntimeError("a bug"),
        RenderError("this is no recording"),
        RenderCrashedError("the renderer crashed"),
        caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
    ],
)
def test_other_errors_are_not_exhaustion(error):
    assert exhaustion_reason(error) is None


def test_one_log_record_a_minute():
    now = 0.0
    log = LogThrottle(lambda: now)
    assert [log.is_due(), log.is_due()] == [True, False]
    now = 59.9
    assert not log.is_due()
    now = 60.0
    assert [log.is_due(), log.is_due()] == [True, False]


# -- each resource taken away from a whole engine ---------------------------------------------------------------------


@contextmanager
def limited(name: str, soft: int):
    """Set a limit of this process to what it already uses."""
    number = getattr(resource, name)
    before, hard = resource.getrlimit(number)
    resource.setrlimit(number, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(number, (before, hard))


@contextmanager
def no_descriptors():
    with limited("RLIMIT_NOFILE", 3):
        yield


@contextmanager
def no_disk():
    """Nothing can be written, also by children. The error is EFBIG, unlike on a full disk."""
    with limited("RLIMIT_FSIZE", 0):
        yield


@contextmanager
def no_processes():
    """Like ``RLIMIT_NPROC``, which does not apply to root."""

    async def refuse(*_: object, **__: object):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyio.open_process", refuse)
        yield


SHORTAGES = {"descriptors": no_descriptors, "disk": no_disk, "processes": no_processes}


class Engine:
    """A client of a running engine, with one connection that is already open."""

    def __init__(self, client: httpx.AsyncClient, say) -> None:
        self.client = client
        self.say = say

    async def submit(self, what: str = "hello") -> httpx.Response:
        return await self.client.post(GENERATE, json={"model_id": "eva_a0008", "audio_url": self.say(what)})

    async def accepted(self, what: str = "hello") -> str:
        reply = await self.submit(what)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]["video_id"]

    async def health(self) -> httpx.Response:
        return await self.client.get("/health")

    async def until_health(self, status: int) -> httpx.Response:
        with anyio.fail_after(20):
            while (reply := await self.health()).status_code != status:  # noqa: ASYNC110  # polls, as an operator does
                await anyio.sleep(0.01)
        return reply

    async def statuses(self) -> dict[str, str]:
        videos = (await self.client.get(LISTED)).json()["data"]
        return {video["video_id"]: video["status"] for video in videos}

    async def until_all_ended(self) -> set[str]:
        with anyio.fail_after(30):
            while not (seen := set((await self.statuses()).values())) <= {"finished", "error"}:  # noqa: ASYNC110  # likewise
                await anyio.sleep(0.02)
        return seen


@pytest.fixture
async def engine(recordings, say, data_dir):
    limits = httpx.Limits(max_connections=1)
    async with (
        LocalEngine(data_dir=data_dir, workers=2, allow_files=recordings) as local,
        httpx.AsyncClient(
            base_url=local.base_url, headers={"Authorization": local.token}, limits=limits, timeout=30
        ) as client,
    ):
        running = Engine(client, say)
        say("hello")
        await running.health()
        yield running


@pytest.mark.anyio
@pytest.mark.parametrize("what", SHORTAGES)
async def test_no_task_fails_and_all_continue_without_a_restart(engine, what, caplog):
    accepted = [await engine.accepted() for _ in range(4)]
    with SHORTAGES[what](), anyio.fail_after(20):
        while (refused := await engine.submit()).status_code == 200:
            accepted.append(refused.json()["data"]["video_id"])
        unwell = await engine.health()
        statuses = await engine.statuses()
        for _ in range(20):
            assert (await engine.health()).status_code == 503
    assert "error" not in statuses.values()
    assert (refused.status_code, refused.json()["code"]) == (429, 1009)
    assert int(refused.headers["Retry-After"]) > 0
    assert (unwell.status_code, unwell.json()["code"], unwell.json()["data"]) == (503, 503, None)
    assert "(" in unwell.json()["message"]  # the reason, with the system's message
    await engine.until_health(200)
    accepted.append(await engine.accepted())
    assert await engine.until_all_ended() == {"finished"}
    assert set(await engine.statuses()) == set(accepted)
    troubles = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage().partition(";")[2] for record in troubles] == [
        " no video is started or accepted until this is over"
    ]
    assert not troubles[0].exc_info


# -- a disk that is full in earnest -----------------------------------------------------------------------------------

ON_A_SMALL_DISK = """
import os, sys, time
from pathlib import Path
import anyio, httpx
from a2v.engine import LocalEngine, exhaustion, renderer
renderer.WORKER = tuple(sys.argv[2:])
exhaustion.INITIAL_BACKOFF, exhaustion.MAX_BACKOFF = 0.05, 0.1
disk, recording = Path(sys.argv[1]), Path(sys.argv[1]) / "recording"
recording.write_text("hello")

async def main():
    async with (
        LocalEngine(data_dir=disk / "data", token="t", workers=2, allow_files=recording) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as client,
    ):
        async def submit():
            job = {"model_id": "eva_a0008", "audio_url": recording.as_uri()}
            return (await client.post("/v1/a2v/video.generate", json=job)).status_code
        async def statuses():
            return [one["status"] for one in (await client.get("/v1/a2v/video.list")).json()["data"]]
        assert [await submit() for _ in range(4)] == [200] * 4
        hog = os.open(disk / "hog", os.O_WRONLY | os.O_CREAT)
        for size in (65536, 512, 1):
            try:
                while True:
                    os.write(hog, b"x" * size)
            except OSError:
                pass
        with anyio.fail_after(30):
            while await submit() != 429:
                await anyio.sleep(0.01)
            for _ in range(50):
                assert (await client.get("/health")).status_code == 503
                await anyio.sleep(0.01)
        assert "error" not in await statuses()
        os.truncate(disk / "hog", 0)
        with anyio.fail_after(30):
            while set(await statuses()) != {"finished"}:
                await anyio.sleep(0.02)
            assert (await client.get("/health")).status_code == 200
            assert await submit() == 200
        print(set(await statuses()))

anyio.run(main)
"""
IN_A_NAMESPACE = 'mount -t tmpfs -o size=8m none /mnt && exec "$@"'


@pytest.mark.extended
@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode,
    reason="needs Linux's user namespaces",
)
def test_a_full_disk(stand_in):
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        IN_A_NAMESPACE,
        "sh",
        sys.executable,
        "-c",
        ON_A_SMALL_DISK,
        "/mnt",
        *stand_in,
    ]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
