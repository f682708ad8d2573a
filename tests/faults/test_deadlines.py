"""Time: nothing takes longer than it may, and after a refusal nothing is sent before it may be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import httpx
import pytest

import a2v

from .conftest import CANARY, check
from .server import VIDEO, VIDEO_ID, Connection, Request
from .toxics import POISONS
from .virtual import Memory, call_of, in_virtual_time, well

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}


def client_of(answer: Callable[[httpx.Request], object], **settings: object) -> a2v.AsyncA2V:
    return a2v.AsyncA2V(CANARY, **{"rate_limit": None, "transport": Memory(answer), **settings})


class Drip(httpx.AsyncByteStream):
    """A byte each second."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(1)
            yield b" "


async def slowly(request: httpx.Request) -> httpx.Response:
    await anyio.sleep(20)
    return httpx.Response(200, stream=Drip())


@pytest.fixture(params=["asyncio", "trio"])
def virtually(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Runs something in virtual time."""
    return lambda work, *args: in_virtual_time(work, *args, backend=request.param)


# -- a time-out bounds the whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [slowly, lambda _: anyio.sleep(1000)], ids=["drips", "stalls"])
@pytest.mark.parametrize("call", ["list", "generate"])
def test_the_time_out_bounds_the_whole_exchange(virtually, answer, call) -> None:
    async def main() -> float:
        async with client_of(answer, timeout=30, max_retries=0) as client:
            began = anyio.current_time()
            with pytest.raises((a2v.TransportError, a2v.SubmissionUnknownError), match="within 30 s"):
                await (client.characters.list() if call == "list" else client.videos.generate(**JOB))
            return anyio.current_time() - began

    assert virtually(main) == pytest.approx(30)


STATES: dict[str, Callable[[httpx.Request], object]] = {
    "pending": well,
    "not answering": lambda request: anyio.sleep(1000),
    "dripping": slowly,
    "refusing connections": lambda request: httpx.ConnectError("refused"),
    "out of order": lambda request: httpx.Response(502, content=b""),
    "busy": lambda request: httpx.Response(429, headers={"x-ratelimit-reset": "50"}, content=b""),
    "talking nonsense": lambda request: httpx.Response(200, content=b"nonsense"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("seconds", [0.3, 7, 100])
def test_a_wait_ends_in_time_whatever_the_server_does(virtually, state, seconds) -> None:
    async def main() -> tuple[float, a2v.WaitTimeoutError]:
        async with client_of(STATES[state]) as client:
            began = anyio.current_time()
            with pytest.raises(a2v.WaitTimeoutError) as caught:
                await client.videos.task(VIDEO_ID).wait(timeout=seconds)
            return anyio.current_time() - began, caught.value

    took, error = virtually(main)
    assert seconds - 1e-6 <= took <= seconds + 1
    assert (error.video_id, isinstance(error, TimeoutError)) == (VIDEO_ID, True)
    assert error.waited == pytest.approx(took)
    check(error)


# -- after a refusal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["list", "generate", "wait"])
@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"x-ratelimit-reset": "7"}, 7),
        ({"x-ratelimit-reset": "1700000030", "date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 30),
        ({"x-ratelimit-reset": "1700000030000", "date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 30),
        ({"x-ratelimit-reset": "1700086430", "date": "Wed, 15 Nov 2023 22:13:20 GMT"}, 30),
        ({"x-ratelimit-reset": "1699999999", "date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 2),
        ({"x-ratelimit-reset": "soon"}, 2),
        ({}, 2),
    ],
    ids=["seconds", "Unix time", "milliseconds", "clock a day ahead", "past", "text", "absent"],
)
def test_a_rate_limit_is_waited_out(virtually, call, headers, least) -> None:
    """By all calls of the client, and the refused one then gets its answer: it had not been accepted."""
    refusals = [httpx.Response(429, headers=headers, content=b"{code: 1009}")]

    def answer(request: httpx.Request) -> httpx.Response:
        return refusals.pop() if refusals else well(request, status="finished", video_url="https://files.example/v.mp4")

    async def main() -> tuple[float, int]:
        async with client_of(answer) as client:
            began = anyio.current_time()
            work = {"list": client.characters.list, "wait": client.videos.task(VIDEO_ID).wait}
            await work.get(call, lambda: client.videos.generate(**JOB))()
            return anyio.current_time() - began, len(client._session._custom_transport.requests)

    took, requests = virtually(main)
    # Whoever shares the token must not come back at the same moment, nor all be at once in a window that slides.
    assert least <= took <= max(least * 1.2 + 2, 12)
    assert requests == 2


# -- closing ---------------------------------------------------------------------------------------------------------


async def half_a_file(conn: Connection, _: Request | None) -> None:
    await conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(VIDEO)}\r\n\r\n".encode() + VIDEO[:30_000])
    await conn.stall()


@pytest.mark.anyio
async def test_closing_ends_everything_on_the_wire(dial, port, tmp_path) -> None:
    """A call, a submission, a wait, a download and a batch: each gets its error, and at once."""
    errors: list[a2v.A2VError] = []
    port.poll_answers = [{"status": "finished"}, {"status": "pending", "video_url": None}]

    async def ends(work: Awaitable[object]) -> None:
        with pytest.raises(a2v.ClientClosedError) as caught:
            await work
        errors.append(caught.value)

    async def batch() -> None:
        async with client.batch([a2v.Job(**JOB)]) as outcomes:
            errors.extend([outcome.error async for outcome in outcomes])

    client = dial(timeout=600)
    async with client:
        task = client.videos.task(VIDEO_ID)
        await task.refresh()
        port.poison("file", half_a_file)
        port.poison("character.list", POISONS["says_nothing"].toxic)
        port.poison("video.generate", POISONS["stalls_in_the_body"].toxic)
        async with anyio.create_task_group() as group:
            group.start_soon(ends, task.download(tmp_path / "v.mp4"))
            group.start_soon(ends, client.characters.list())
            group.start_soon(ends, client.videos.generate(**JOB))
            await port.until(lambda: not port.poisoned)
            group.start_soon(ends, client.videos.task("w").wait())
            group.start_soon(batch)
            await port.until(lambda: sum(request.call == "video.get" for request in port.requests) >= 3)
            with anyio.fail_after(5):
                await client.aclose()
    assert [type(error) for error in errors] == [a2v.ClientClosedError] * 5
    for error in errors:
        check(error)
    assert not list(tmp_path.iterdir())
    await port.emptied()


@pytest.mark.parametrize("call", ["list", "generate", "wait", "download"])
def test_closing_between_two_tries(virtually, call, tmp_path) -> None:
    def answer(request: httpx.Request) -> httpx.Response | Exception:
        if call_of(request) == "video.get" and call == "download":
            return well(request, status="finished", video_url="https://files.example/v.mp4")
        return httpx.ConnectError("refused")

    async def main() -> float:
        client = client_of(answer, max_retries=50)
        task = client.videos.task(VIDEO_ID)
        work = {
            "list": client.characters.list,
            "generate": lambda: client.videos.generate(**JOB),
            "wait": task.wait,
            "download": lambda: task.download(tmp_path / "v.mp4"),
        }

        async def ends() -> None:
            with pytest.raises(a2v.ClientClosedError) as caught:
                await work[call]()
            check(caught.value)

        async with anyio.create_task_group() as group:
            group.start_soon(ends)
            await anyio.sleep(60)
            closed = anyio.current_time()
            await client.aclose()
        return anyio.current_time() - closed

    assert virtually(main) < 1
