"""Imported by the interpreters that tests start: a client whose service is scripted by the ids in its requests."""

from __future__ import annotations

import sys
import threading

import anyio

import a2v  # noqa: F401  # for the scripts, which import all of this
from a2v import testing
from a2v._sync import bridge, loop
from a2v._sync.client import A2V

# A needless wait takes this long, and the test kills the interpreter well before: no clock is needed to notice one.
bridge.CLEANUP_TIMEOUT = loop.CLEANUP_TIMEOUT = 600.0

# Set when a call has started to wait for ever.
reached = threading.Event()
# Set when the clean-up of a stubborn call may end.
finish = threading.Event()


def say(*words):
    print(*words, flush=True)  # noqa: T201


class Service(testing.Transport):
    """Passes requests to the kit's service; the video id selects the behaviour, and ``stuck`` ones never get a response."""

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
