"""Behaviour of the sync client alone; see test_both_clients.py for the rest."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

import a2v
from a2v._sync.client import VideoTask

LIMIT = 60
AUDIO = "https://example.com/hello.wav"


def test_one_client_serves_many_threads(sync_client, service):
    service.poll_statuses = ["finished"]
    with ThreadPoolExecutor(20) as pool:
        tasks = list(pool.map(lambda _: sync_client.videos.generate(model_id="eva_a0008", audio_url=AUDIO), range(60)))
        videos = list(pool.map(VideoTask.wait, tasks))
    assert len({video.video_id for video in videos}) == 60


def test_closing_while_another_thread_waits(sync_client, service):
    asked = threading.Event()
    service.add_video("v1", "pending")
    service.reply("video.get", lambda _: asked.set(), times=None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sync_client.videos.task("v1").wait)
        assert asked.wait(LIMIT)
        sync_client.close()
        with pytest.raises(a2v.ClientClosedError):
            waiting.result(LIMIT)


def test_a_submission_that_the_client_is_closed_in_may_have_been_accepted(sync_client, service):
    sent = threading.Event()

    async def hold(_):
        sent.set()
        await anyio.sleep_forever()

    service.reply("video.generate", hold)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sync_client.videos.generate, model_id="eva_a0008", audio_url=AUDIO)
        assert sent.wait(LIMIT)
        sync_client.close()
        with pytest.raises(a2v.ClientClosedError) as caught:
            waiting.result(LIMIT)
    assert "may have accepted the render" in caught.value.__notes__[0]
