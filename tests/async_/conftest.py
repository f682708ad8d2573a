"""Fixtures: a service in memory, a server on a real socket, and virtual time."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

import a2v
from a2v import testing
from tests import sockets
from tests.chains import chain, foreign

CANARY = "canary-0123456789-abcdefghij"


# -- virtual time -----------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: sleeps of any length take no time")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    virtual = request.node.get_closest_marker("virtual_time")
    return testing.virtual_time(request.param) if virtual else request.param


@pytest.fixture
def run(anyio_backend_name: str) -> Callable[..., object]:
    """Like ``anyio.run``, for tests that need several event loops."""
    return lambda work, *args: anyio.run(work, *args, backend=anyio_backend_name)


# -- a service in memory ----------------------------------------------------------------------------------------------

Reply = httpx.Response | Exception | Callable[[httpx.Request], object]
Plan = list[tuple[float, dict[str, object]]]

PENDING, RENDERING, FAILED = {"status": "pending"}, {"status": "in_progressing"}, {"status": "error"}
FINISHED = {"status": "finished", "video_url": "https://files.example/v.mp4?signature=s3cret"}


class Service(testing.Service):
    """The test kit's service behind ``httpx.MockTransport``, so that tests can answer with any httpx response or exception.

    Attributes:
        replies: The next answers to a call, by the last part of its path: a response, an exception to raise or a function of
            the request. The last one stays.
        plan: The course of a video: pairs of seconds since its submission, and the fields of ``video.get`` from then on.
        plans: The courses of particular videos, by id. Every id is that of a video.
    """

    def __init__(self) -> None:
        mia = a2v.Avatar(avatar_id="a1", poses=(a2v.Pose(pose_id="p1"),))
        super().__init__(lists_videos=False, content=b"a video", avatars=[mia])
        self.requests: list[httpx.Request] = []
        self.replies: dict[str, list[Reply]] = {}
        self.plan: Plan = [(0, PENDING), (60, RENDERING), (300, FINISHED)]
        self.plans: dict[str, Plan] = {}
        self._first_seen: dict[str, float] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        replies = self.replies.get(request.url.path.rpartition("/")[2])
        if not replies:
            return self.well(request)
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, httpx.Response):  # a new one each time, as each can be read once
            return httpx.Response(
                reply.status_code, headers=reply.headers, stream=httpx.ByteStream(b"".join(reply.stream))
            )
        answer = reply(request)
        return await answer if isinstance(answer, Awaitable) else answer

    @property
    def posts(self) -> int:
        """The number of submissions received."""
        return sum(request.method == "POST" for request in self.requests)

    @property
    def jobs(self) -> dict[str, dict[str, object]]:
        """The submitted jobs, by video id."""
        fields = ("model_id", "pose_id", "audio_url", "with_mask")
        return {
            submit.video_id: {name: getattr(submit, name) for name in fields if getattr(submit, name)}
            for submit in self.submissions
        }

    def seen(self, call: str) -> list[httpx.Request]:
        """The requests of one call, such as ``"video.get"``, or for one file."""
        return [request for request in self.requests if request.url.path.endswith("/" + call)]

    def well(self, request: httpx.Request) -> httpx.Response:
        """The default answer; for functions in ``replies``."""
        name = request.url.path.rpartition("/")[2]
        call = testing.Call(
            at=self.now(),
            name="file" if name.endswith((".mp4", ".wav")) else name,
            video_id=request.url.params.get("video_id"),
            method=request.method,
            body=request.content,
        )
        reply = self.default_reply(call)
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)

    def default_reply(self, call: testing.Call) -> testing.Reply:
        if call.name == "video.get":
            return testing.Reply.success(self._planned(call.video_id))
        if call.name == "video.list" and self.lists_videos:
            return testing.Reply.success([self._planned(video_id) for video_id in [*self.jobs, *self.plans]])
        return testing.Reply(200, self.content) if call.name == "file" else super().default_reply(call)

    def _planned(self, video_id: str) -> dict[str, object]:
        now = self.now()
        submitted = {submit.video_id: submit.at for submit in self.submissions}
        began = submitted[video_id] if video_id in submitted else self._first_seen.setdefault(video_id, now)
        latest = [fields for since, fields in self.plans.get(video_id, self.plan) if since <= now - began][-1]
        return {"video_id": video_id} | latest


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def make_client(service: Service) -> Callable[..., a2v.AsyncA2V]:
    """Makes clients of the service in memory, without a rate limit by default."""

    def make(**settings: object) -> a2v.AsyncA2V:
        return a2v.AsyncA2V(CANARY, **{"rate_limit": None, "transport": httpx.MockTransport(service), **settings})

    return make


@asynccontextmanager
async def closed_meanwhile(client: a2v.AsyncA2V) -> AsyncIterator[None]:
    """Close a client 5 s after the block began."""

    async def close() -> None:
        await anyio.sleep(5)
        await client.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        yield


# -- a server on a real socket ----------------------------------------------------------------------------------------


class Connection(sockets.Connection):
    """One connection, from the server's side."""

    def __init__(self, server: Loopback, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(server.requests, reader, writer)
        self.server = server

    async def answer(self, data: object) -> None:
        """Send a successful response."""
        await self.reply(json.dumps({"code": 0, "message": "success", "data": data}).encode())

    async def serve(self) -> None:
        """Answer every request correctly."""
        while True:
            request = await self.request()
            video = {"video_id": request.video_id, "status": "finished", "video_url": self.server.url + "/files/v.mp4"}
            if request.target.startswith("/files/"):
                await self.reply(b"a video")
            elif request.method == "POST":
                await self.answer({"video_id": f"v{self.server.posts}"})
            else:
                await self.answer(video if request.video_id else [])


Behaviour = Callable[[Connection], Awaitable[None]]


class Loopback(sockets.ServerThread):
    """A server on 127.0.0.1 in a thread with an event loop of its own.

    ``behaviours`` are functions for successive connections; the last one stays. A connection is closed when its function returns.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.port = port
        self.behaviours: deque[Behaviour] = deque([Connection.serve])
        self.connections = 0
        self.requests: list[sockets.Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> int:
        """The number of submissions received."""
        return sum(request.method == "POST" for request in self.requests)

    async def arrived(self, count: int) -> None:
        """Wait, in the client's event loop, until ``count`` requests have been received."""
        with anyio.fail_after(20):
            while len(self.requests) < count:  # noqa: ASYNC110  # no event reaches over from the other thread
                await anyio.sleep(0.002)

    def script(self, *behaviours: Behaviour) -> None:
        self.behaviours = deque(behaviours)

    def start(self) -> None:
        super().start()
        self.do(self._listen())

    def stop(self) -> None:
        self.do(self._shut())
        super().stop()

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**20)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._listening.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        behaviour = self.behaviours.popleft() if len(self.behaviours) > 1 else self.behaviours[0]
        await Connection(self, reader, writer).live(behaviour)


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    server = Loopback()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def dial(loopback: Loopback) -> Callable[..., a2v.AsyncA2V]:
    """Makes clients of the server on a real socket."""

    def make(**settings: object) -> a2v.AsyncA2V:
        return a2v.AsyncA2V(CANARY, **{"base_url": loopback.url, "rate_limit": None, **settings})

    return make


# -- errors -----------------------------------------------------------------------------------------------------------


def _check(error: a2v.A2VError) -> None:
    assert isinstance(error, a2v.A2VError)
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(copied) is type(error)
        assert (str(copied), copied.args) == (str(error), error.args)
        assert repr(vars(copied)) == repr(vars(error))
    assert CANARY.encode() not in pickle.dumps(error)
    assert foreign(error) == []
    for each in chain(error):
        shown = [str(each), repr(each), repr(vars(each)), *traceback.format_exception(each, chain=False)]
        assert not any(CANARY in text for text in shown), shown


@pytest.fixture
def check() -> Callable[[a2v.A2VError], None]:
    """Checks that an error can be pickled and copied, and contains neither a secret nor an object of another library."""
    return _check


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes proxies and settings of the machine from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "A2V_TOKEN", "A2V_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
