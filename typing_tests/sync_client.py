"""What callers of the blocking client see. Read by type checkers, never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import httpx
import httpx2

from a2v import A2V, Avatar, Batch, Character, Job, Outcome, Pose, Speech, Video, VideoStatus, VideoTask, Voice
from a2v._sync.bridge import SyncIterator
from a2v.errors import A2VError


def client() -> None:
    assert_type(A2V(), A2V)
    assert_type(A2V("t", base_url="https://example.com", timeout=1, max_retries=0, rate_limit=None), A2V)
    A2V(transport=httpx.MockTransport(lambda request: httpx.Response(200, request=request)))
    A2V(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, request=request)))
    A2V(transport=httpx2.AsyncHTTPTransport())
    with A2V() as entered:
        assert_type(entered, A2V)
    assert_type(entered.close(), None)


def characters(client: A2V) -> None:
    assert_type(client.characters.list(), list[Character])
    for character in client.characters.list():
        assert_type(character.model_id, str)


def avatars(client: A2V) -> None:
    assert_type(client.avatars.list(), list[Avatar])
    assert_type(client.avatars.poses("a1"), list[Pose])


def voices(client: A2V) -> None:
    assert_type(client.voices.list(), list[Voice])
    assert_type(client.voices.generate(text="Hello!", voice_name="heart"), Speech)
    assert_type(client.videos.generate(model_id="m", text="Hello!", voice_name="heart"), VideoTask)


def poses(client: A2V) -> None:
    url = "https://example.com/a.wav"
    assert_type(client.videos.generate(pose_id="p", audio_url=url, with_mask=True), VideoTask)
    # What cannot be submitted: mypy complains if one of these is no error.
    client.videos.generate(audio_url=url)  # type: ignore[call-overload]
    client.videos.generate(model_id="m", pose_id="p", audio_url=url)  # type: ignore[call-overload]
    client.videos.generate(model_id="m", audio_url=url, with_mask=True)  # type: ignore[call-overload]


def videos(client: A2V, task: VideoTask) -> None:
    assert_type(client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav"), VideoTask)
    assert_type(client.videos.get("id"), Video)
    assert_type(client.videos.list(), list[Video])
    assert_type(client.videos.task("id"), VideoTask)
    assert_type(client.videos.watch("id", task, timeout=5), SyncIterator[Video])
    for video in client.videos.watch(task):
        assert_type(video, Video)
        assert_type(video.status, VideoStatus)


def one_task(task: VideoTask) -> None:
    assert_type(task.video_id, str)
    assert_type(task.video, Video | None)
    assert_type(task.wait(), Video)
    assert_type(task.wait(timeout=None), Video)
    assert_type(task.refresh(), Video)
    assert_type(task.download("a.mp4", overwrite=True), Path)
    assert_type(task.download(Path("a.mp4")), Path)
    assert_type(task.download("a.mp4", mask=True), Path)
    with task.watch() as videos:
        assert_type(next(videos), Video)
    assert_type(videos.close(), None)


def batch(client: A2V) -> Outcome:
    jobs = (Job("eva_a0008", f"https://example.com/{number}.wav") for number in range(3))
    with client.batch(jobs, save_to="videos") as batch:
        assert_type(batch, Batch)
        assert_type(batch.under_way, dict[int, str])
        for outcome in batch:
            assert_type(outcome, Outcome)
            assert_type(outcome.path, Path | None)
            assert_type(outcome.error, A2VError | None)
        # A context never swallows an error, so there is nothing to return after it.
        return next(batch)
