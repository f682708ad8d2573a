"""What callers of the async client see. Read by type checkers, never run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import httpx
import httpx2

from a2v import (
    AsyncA2V,
    AsyncBatch,
    AsyncVideoTask,
    Avatar,
    Character,
    Job,
    Outcome,
    Pose,
    Speech,
    Video,
    Voice,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def client() -> None:
    assert_type(AsyncA2V(), AsyncA2V)
    AsyncA2V("t", base_url="https://example.com", timeout=1, max_retries=0, rate_limit=None)
    AsyncA2V(transport=httpx.MockTransport(lambda request: httpx.Response(200, request=request)))
    AsyncA2V(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, request=request)))
    AsyncA2V(transport=httpx2.AsyncHTTPTransport())
    AsyncA2V(transport=httpx.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncA2V(transport=httpx2.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with AsyncA2V() as entered:
        assert_type(entered, AsyncA2V)
    assert_type(await entered.aclose(), None)


async def characters(client: AsyncA2V) -> None:
    assert_type(await client.characters.list(), list[Character])


async def avatars(client: AsyncA2V) -> None:
    assert_type(await client.avatars.list(), list[Avatar])
    assert_type(await client.avatars.poses("a1"), list[Pose])


async def voices(client: AsyncA2V) -> None:
    assert_type(await client.voices.list(), list[Voice])
    assert_type(await client.voices.generate(text="Hello!", voice_name="heart"), Speech)
    assert_type(await client.videos.generate(model_id="m", text="Hello!", voice_name="heart"), AsyncVideoTask)
    assert_type(await client.videos.generate(pose_id="p", text="Hello!", voice_name="heart"), AsyncVideoTask)
    await client.videos.generate(model_id="m", text="Hello!")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    assert_type(Job("m", text="Hello!", voice_name="heart"), Job)
    assert_type(Job("m", "https://x/a.wav").audio_url, str | None)


async def poses(client: AsyncA2V) -> None:
    url = "https://example.com/a.wav"
    assert_type(await client.videos.generate(pose_id="p", audio_url=url, with_mask=True), AsyncVideoTask)
    # What cannot be submitted: mypy complains if one of these is no error.
    await client.videos.generate(audio_url=url)  # type: ignore[call-overload]
    await client.videos.generate(model_id="m", pose_id="p", audio_url=url)  # type: ignore[call-overload]
    await client.videos.generate(model_id="m", audio_url=url, with_mask=True)  # type: ignore[call-overload]


async def videos(client: AsyncA2V, task: AsyncVideoTask) -> None:
    assert_type(await client.videos.generate(model_id="m", audio_url="https://example.com/a.wav"), AsyncVideoTask)
    assert_type(await client.videos.get("id"), Video)
    assert_type(await client.videos.list(), list[Video])
    assert_type(client.videos.task("id"), AsyncVideoTask)
    iterator: AsyncIterator[Video] = client.videos.watch("id", task, timeout=5)
    async for video in iterator:
        assert_type(video, Video)


async def one_task(task: AsyncVideoTask) -> None:
    assert_type(task.video_id, str)
    assert_type(task.video, Video | None)
    assert_type(await task.wait(timeout=None), Video)
    assert_type(await task.refresh(), Video)
    assert_type(await task.download("a.mp4", overwrite=True), Path)
    assert_type(await task.download("a.mp4", mask=True), Path)
    async for video in task.watch():
        assert_type(video, Video)


async def batch(client: AsyncA2V) -> None:
    async with client.batch([Job("m", "https://example.com/a.wav")], save_to=Path("videos")) as batch:
        assert_type(batch, AsyncBatch)
        async for outcome in batch:
            assert_type(outcome, Outcome)


def manifests() -> None:
    assert_type(read_manifest("jobs.csv"), list[Job])
    assert_type(read_manifest(Path("jobs.csv"), resolve=str.lower), list[Job])
    assert_type(read_manifest({"model_id": "m", "n": n} for n in range(3)), list[Job])
