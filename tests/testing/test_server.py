"""The service on a socket."""

from __future__ import annotations

import socket
import time
from email.utils import parsedate_to_datetime

import httpx
import pytest

import a2v
from a2v.testing import FixedWindow, Service

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}


@pytest.fixture
def service() -> Service:
    return Service(poll_statuses=["finished"])


@pytest.fixture
def server(service):
    with service.server() as server:
        yield server


@pytest.fixture
def client(server):
    with a2v.A2V(server.token, base_url=server.base_url, rate_limit=None, timeout=20) as client:
        yield client


def test_a_video_from_its_submission_to_its_file(service, server, client, tmp_path) -> None:
    task = client.videos.generate(**JOB)
    video = task.wait()
    assert video.video_url.startswith(server.base_url)
    assert task.download(tmp_path / "v.mp4").read_bytes() == b"video of v1"
    assert [submit.video_id for submit in service.submissions] == ["v1"]


def test_its_clock_is_right_by_default(service, server) -> None:
    service.limit = FixedWindow(per=60)
    before = time.time()
    for skew in (0, 3600):
        service.clock_skew = skew
        url = f"{server.base_url}/v1/a2v/character.list"
        headers = httpx.get(url, headers={"authorization": server.token}, trust_env=False).headers
        now = parsedate_to_datetime(headers["date"]).timestamp() - skew
        assert before - 1 <= now <= time.time()
        assert now < float(headers["x-ratelimit-reset"]) - skew <= time.time() + 61


def test_a_reply_that_is_lost(service, client) -> None:
    service.lose_reply()
    with pytest.raises(a2v.SubmissionUnknownError):
        client.videos.generate(**JOB)
    assert len(service.submissions) == 1
    assert client.videos.generate(**JOB).video_id == "v2"


def test_a_reply_that_never_comes_ends_with_the_server(service) -> None:
    service.hang("character.list", times=None)
    with (
        service.server() as server,
        a2v.A2V("token", base_url=server.base_url, timeout=0.3, max_retries=0) as client,
        pytest.raises(a2v.TransportError, match=r"within 0\.3 s"),
    ):
        client.characters.list()
    assert service.calls[0].status is None


def test_a_file_that_breaks_off(service, client, tmp_path) -> None:
    service.content = b"x" * 100_000
    service.break_off(1000)
    assert len(client.videos.generate(**JOB).download(tmp_path / "v.mp4").read_bytes()) == 100_000
    assert [call.status for call in service.seen("file")] == [200, 206]


def test_a_mistake_in_a_script_is_seen(service, server) -> None:
    def answer(_):
        raise KeyError("oops")

    service.reply("character.list", answer)
    reply = httpx.get(f"{server.base_url}/v1/a2v/character.list", headers={"authorization": "token"}, trust_env=False)
    assert (reply.status_code, reply.json()["message"]) == (500, "KeyError: 'oops'")


def test_it_is_gone_after_its_block(service) -> None:
    before = service.files_url
    with service.server() as server:
        port = int(server.base_url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()
    assert service.files_url == before
    with service.server(port) as again:
        assert again.base_url == server.base_url
