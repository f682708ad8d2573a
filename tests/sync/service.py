"""For the interpreters that tests start: a client of a service that is scripted by what it is asked for."""

from __future__ import annotations

import sys
import threading
from urllib.parse import parse_qs

import anyio
import httpx

import a2v  # noqa: F401  # for the scripts, which import all of this
from a2v._sync.client import A2V

# Set when something got to where it stays for ever.
reached = threading.Event()


def say(*words):
    print(*words, flush=True)  # noqa: T201


class Service(httpx.AsyncBaseTransport):
    """Answers for videos whose id says what becomes of them; ``stuck`` ones never get an answer."""

    def __init__(self):
        self.left = []
        self.number = 0

    async def handle_async_request(self, request):
        path = request.url.path.rpartition("/")[2]
        if path == "character.list":
            return self._reply([{"model_id": "eva_a0008", "display_name": "Eva"}])
        if path == "video.generate":
            if b"stuck" in request.content:
                await self._never("generate")
            self.number += 1
            return self._reply({"video_id": "slow" if b"slow" in request.content else f"video{self.number}"})
        (video_id,) = parse_qs(request.url.query.decode())["video_id"]
        if video_id == "stuck":
            await self._never("get")
        if video_id == "stubborn":
            await self._never_and_slowly()
        if video_id == "slow":
            return self._reply({"video_id": video_id, "status": "pending"})
        return self._reply({"video_id": video_id, "status": "finished", "video_url": "https://example.com/v.mp4"})

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
                await anyio.sleep(4)

    def _reply(self, data):
        return httpx.Response(200, json={"code": 0, "message": "ok", "data": data})

    async def aclose(self):
        self.left.append("closed")
        sys.stdout.flush()


def client():
    return A2V("t", base_url="http://127.0.0.1:9", rate_limit=None, transport=Service())
