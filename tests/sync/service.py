"""For the interpreters that tests start: a client of a service that is scripted by what it is asked for."""

from __future__ import annotations

import sys
import threading

import anyio

import a2v  # noqa: F401  # for the scripts, which import all of this
from a2v import testing
from a2v._sync import bridge, loop
from a2v._sync.client import A2V

# Code that waits for nothing would wait for this long, and the test kills the interpreter well before. So the tests need
# no clock to tell promptly from late.
bridge.CLEANUP_TIMEOUT = loop.CLEANUP_TIMEOUT = 600.0

# Set when something got to where it stays for ever.
reached = threading.Event()
# Set when the clean-up of a stubborn call may end.
finish = threading.Event()


def say(*words):
    print(*words, flush=True)  # noqa: T201


class Service(testing.Transport):
    """Carries to the kit's service; a video's id says what becomes of it, and ``stuck`` ones never get an answer."""

    def __init__(self):
        self.left = []
        service = testing.Service(lists_videos=False)
        service.add_video("one")
        service.add_video("two")
        service.add_video("slow", "pending")
        service.reply("video.generate", self._generate, times=None)
        service.reply("video.get", self._get, times=None)
        super().__init__(service)

    async def _generate(self, call):
        if b"stuck" in call.body:
            await self._never("generate")
        return testing.Reply.success({"video_id": "slow"}) if b"slow" in call.body else None

    async def _get(self, call):
        if call.video_id == "stuck":
            await self._never("get")
        if call.video_id == "stubborn":
            await self._never_and_slowly()

    async def _never(self, what):
        say("ready")
        reached.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.left.append(what)

    async def _never_and_slowly(self):
        try:
            await self._never("get")
        finally:
            with anyio.CancelScope(shield=True):
                say("cleaning up")
                while not finish.is_set():  # noqa: ASYNC110  # set by another thread
                    await anyio.sleep(0.01)

    async def aclose(self):
        self.left.append("closed")
        sys.stdout.flush()


def client():
    return A2V("t", base_url="http://127.0.0.1:9", rate_limit=None, transport=Service())
