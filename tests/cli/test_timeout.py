"""`--timeout` covers everything a command does: exit code 4, and a line on what it was waiting for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import anyio
import pytest

from a2v._async.requests.dispatcher import RequestDispatcher
from a2v.engine import LocalEngine
from a2v.testing import Call, Reply, Service

URL = "https://example.com/hello.wav"
GENERATE = ["generate", URL, "--model-id", "eva_a0008"]
REFUSED = Reply(429, "error code: 1015", {"retry-after": "100"})


@pytest.fixture
def ended(here):
    """Runs a command that must end in time; gives the line it ends with, and the others."""

    def run(*arguments: str) -> tuple[str, list[str]]:
        began = time.monotonic()
        code, _, errors = here(*arguments, "--timeout", "0.5")
        assert code == 4
        assert time.monotonic() - began < 50  # and not the 100 s that the server asks for
        first, *others = errors.splitlines()
        return first, others

    return run


@pytest.fixture
def expire(monkeypatch) -> Callable[[], None]:
    """Lets the time of the command expire now, and not by the clock: half a second may be too short for what precedes.

    It may be called by the command itself and by a server in another thread.
    """
    limits: list[tuple[anyio.CancelScope, anyio.lowlevel.EventLoopToken]] = []
    thread = threading.get_ident()

    def move_on_after(seconds: float) -> anyio.CancelScope:
        assert seconds == 0.5
        limits.append((anyio.CancelScope(), anyio.lowlevel.current_token()))
        return limits[-1][0]

    def expire() -> None:
        ((scope, token),) = limits
        if threading.get_ident() == thread:
            scope.cancel()
        else:
            anyio.from_thread.run_sync(scope.cancel, token=token)

    monkeypatch.setattr("a2v.cli.tracking.anyio", SimpleNamespace(**vars(anyio) | {"move_on_after": move_on_after}))
    return expire


@pytest.fixture
def expires_at_the_limit(expire, monkeypatch) -> None:
    """The time of the command expires when it begins to wait for the 100 s, and a little more, that the server asks for."""
    sleep = RequestDispatcher._sleep_as_driver

    async def sleep_as_driver(dispatcher: RequestDispatcher, delay: float) -> None:
        if 100 <= delay < 200:
            expire()
        await sleep(dispatcher, delay)

    monkeypatch.setattr(RequestDispatcher, "_sleep_as_driver", sleep_as_driver)


def never_answer(service: Service, call: str, expire: Callable[[], None]) -> None:
    """Let the time of the command expire when it waits for the response."""

    async def answer(_: Call) -> None:
        await anyio.to_thread.run_sync(expire)
        await anyio.sleep_forever()

    service.reply(call, answer)


@pytest.mark.parametrize(
    ("arguments", "call", "words"),
    [
        (["characters"], "character.list", "waiting for the server"),
        (["avatars"], "avatar.list", "waiting for the server"),
        (["get", "v1"], "video.get", "waiting for the server"),
        (["watch", "v1"], "video.get", "waiting for video v1"),
        (["download", "v1", "-o", "v.mp4"], "video.get", "waiting for video v1"),
        (GENERATE, "video.generate", "submitting the video"),
    ],
)
@pytest.mark.usefixtures("expires_at_the_limit")
def test_waiting_for_the_rate_limit(ended, service, arguments, call, words):
    service.reply(call, REFUSED, times=None)

    line, others = ended(*arguments)

    assert line == f"a2v: --timeout expired after 0.5 s while {words} (rate limit reached)"
    assert not any("may or may not" in other for other in others)
    assert len(service.seen(call)) == 1


def test_a_server_that_does_not_answer(ended, service):
    service.delay("character.list", 60)

    line, others = ended("characters")

    assert (line, others) == ("a2v: --timeout expired after 0.5 s while waiting for the server", [])


def test_a_submission_without_a_response_may_have_been_accepted(ended, service, expire):
    never_answer(service, "video.generate", expire)

    line, others = ended(*GENERATE)

    assert line == "a2v: --timeout expired after 0.5 s while submitting the video"
    assert any("may or may not have been accepted" in other for other in others)


def test_a_video_that_is_being_rendered_can_be_picked_up(ended, service):
    service.add_video("v1", "pending")

    line, others = ended("watch", "v1")

    assert line == "a2v: --timeout expired after 0.5 s while waiting for video v1"
    assert "  a2v watch v1" in others


def test_a_file_that_does_not_come(ended, service, expire):
    service.add_video("v1", "finished")
    never_answer(service, "file", expire)

    line, others = ended("download", "v1", "-o", "v.mp4")

    assert line == "a2v: --timeout expired after 0.5 s while downloading video v1"
    assert "  a2v download v1 -o v.mp4" in others


def test_a_local_engine_that_does_not_start(ended, monkeypatch):
    async def never(_: LocalEngine) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(LocalEngine, "__aenter__", never)

    line, _ = ended("characters", "--local")

    assert line == "a2v: --timeout expired after 0.5 s while starting the engine"


@pytest.mark.usefixtures("expires_at_the_limit")
def test_a_batch(ended, service, tmp_path):
    (tmp_path / "jobs.csv").write_text(f"audio_url,model_id\n{URL},eva_a0008\n")
    service.reply("video.generate", REFUSED, times=None)

    _, others = ended("batch", "jobs.csv", "-o", "videos")

    assert others[-1] == "a2v: --timeout expired after 0.5 s"
    assert any(other.strip() == "a2v batch jobs.csv -o videos" for other in others)
