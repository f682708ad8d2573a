"""Fixtures: a small async client to drive, and interpreters to interrupt."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

import a2v
from a2v._sync.bridge import Bridge
from a2v.testing import Service

LIMIT = 60


class FakeClient:
    """Stands in for the async client, and logs which task runs what."""

    variable = contextvars.ContextVar("variable", default="nobody's")

    def __init__(self):
        self.log = []
        self.reached = threading.Event()

    def note(self, what):
        self.log.append((what, anyio.get_current_task().id))

    @property
    def noted(self):
        return [what for what, _ in self.log]

    async def __aenter__(self):
        self.note("client entered")
        return self

    async def __aexit__(self, *exc_info):
        self.note("client left")

    async def add(self, first, *, second):
        await anyio.lowlevel.checkpoint()
        return first + second

    async def fail(self, error):
        await anyio.lowlevel.checkpoint()
        raise error

    async def who(self):
        return self.variable.get()

    async def thread(self):
        return threading.current_thread()

    async def forever(self):
        try:
            self.reached.set()
            await anyio.sleep_forever()
        finally:
            self.note("cleaned up")

    async def count(self, to=3, *, tidy=0.0):
        self.note("opened")
        try:
            for number in range(to):
                self.note(number)
                yield number
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(tidy)
            self.note("closed")

    async def stuck(self):
        self.note("opened")
        try:
            yield "first"
            self.reached.set()
            await anyio.sleep_forever()
        finally:
            self.note("closed")


class FakeContext:
    """A context manager with a task group, which must be left in the task that entered it."""

    def __init__(self, fake, *, entering=None, leaving=None):
        self.fake = fake
        self.entering = entering
        self.leaving = leaving
        self.left_with = []

    async def __aenter__(self):
        if self.entering:
            await self.entering()
        self.fake.note("manager entered")
        self.group = anyio.create_task_group()
        await self.group.__aenter__()
        self.group.start_soon(anyio.sleep_forever)
        return self

    async def __aexit__(self, kind, error, traceback):
        self.left_with.append(kind)
        self.group.cancel_scope.cancel()
        try:
            await self.group.__aexit__(None, None, None)
        finally:
            self.fake.note("manager left")
            if self.leaving:
                await self.leaving()

    async def step(self):
        self.fake.note("step")
        return "step"

    async def last(self):
        raise StopAsyncIteration


@pytest.fixture
def fake():
    return FakeClient()


@pytest.fixture
def make_manager(fake):
    return lambda **settings: FakeContext(fake, **settings)


@pytest.fixture
def bridge(fake):
    bridge = Bridge(fake)
    yield bridge
    with contextlib.suppress(Exception):
        bridge.close()


@pytest.fixture
def ctrl_c(fake):
    """Presses Ctrl-C when the fake client has started to wait for ever."""
    threads = []

    def arm(times=1):
        def press():
            for _ in range(times):
                assert fake.reached.wait(LIMIT)
                fake.reached.clear()
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=press)
        threads.append(thread)
        thread.start()

    yield arm
    for thread in threads:
        thread.join()


class Interpreter:
    """Another Python process. After a minute, it prints its stacks and is killed."""

    def __init__(self, script):
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in `clean_up`
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "faulthandler", "-c", textwrap.dedent(script)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # Where `service` is. Not by way of the folder it runs in: the wheel's tests keep that off the path.
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        )
        self._watchdog = threading.Timer(LIMIT, self._process.send_signal, [signal.SIGABRT])
        self._watchdog.start()

    def line(self):
        return self._process.stdout.readline().strip()

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)

    def end(self):
        # Not `communicate`, which does not know of what `line` has buffered.
        out = self._process.stdout.read()
        code = self._process.wait()
        self._watchdog.cancel()
        self._stderr.seek(0)
        return code, out, self._stderr.read()

    def clean_up(self):
        self._process.kill()
        self._process.wait()
        self._watchdog.cancel()
        self._process.stdout.close()
        # For the report of a test that has failed.
        self._stderr.seek(0)
        print(self._stderr.read())  # noqa: T201
        self._stderr.close()


@pytest.fixture
def interpreter():
    started = []

    def start(script):
        started.append(Interpreter(script))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


@pytest.fixture
def service():
    """A service whose videos are pending for one poll, then finished."""
    mia = a2v.Avatar(avatar_id="a1", poses=(a2v.Pose(pose_id="p1", name="standing"),))
    return Service(
        poll_statuses=["pending", "finished"], content=b"a video", avatars=[mia], voices=[a2v.Voice(voice_name="heart")]
    )


@pytest.fixture
def sync_client(service):
    with a2v.A2V("token", base_url="http://127.0.0.1:9", rate_limit=None, transport=service.transport()) as client:
        yield client


@pytest.fixture
def video_url():
    """A service on a real socket, in the process of the tests."""
    service = Service()
    service.add_video("one")
    service.add_video("two")
    with service.server() as server:
        yield server.base_url
