"""Hours that take no time: a clock that jumps, and a service in memory."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import anyio
import httpx

from a2v.testing import virtual_time


def in_virtual_time(work: Callable[..., Awaitable[object]], *args: object, backend: str) -> object:
    """Like ``anyio.run``. The test kit's clock waits for threads, in which downloads open and write files."""
    name, options = virtual_time(backend)
    return anyio.run(work, *args, backend=name, backend_options=options)


Answer = Callable[[httpx.Request], object]


class Memory(httpx.AsyncBaseTransport):
    """Answers each call with what a function makes of it: a response, an exception to raise, or an awaitable of one."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        answer = self.answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    def seen(self, call: str) -> list[httpx.Request]:
        """The requests of one call, such as ``"video.get"``."""
        return [request for request in self.requests if call_of(request) == call]


def call_of(request: httpx.Request) -> str:
    return request.url.path.rpartition("/")[2]


def success(data: object) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"code": 0, "message": "", "data": data}).encode()))


def well(request: httpx.Request, **look: object) -> httpx.Response:
    """What a service answers when all is well; ``look`` is more of what ``video.get`` says."""
    call = call_of(request)
    if call == "video.generate":
        return success({"video_id": "v1"})
    if call == "video.get":
        return success({"video_id": request.url.params["video_id"], "status": "pending"} | look)
    if call == "character.list":
        return success([{"model_id": "eva_a0008"}])
    return httpx.Response(200, content=b"a video") if call.endswith(".mp4") else httpx.Response(404, content=b"")
