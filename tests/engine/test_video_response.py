"""Downloads of videos: in ranges, and while they are deleted."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import httpx
import pytest

from a2v.engine import LocalEngine


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-4", 206, slice(0, 5)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-3", 206, slice(-3, None)),
        ("bytes=-9999", 206, slice(0, None)),
        ("bytes=3-9999", 206, slice(3, None)),
        ("BYTES=0-0", 206, slice(0, 1)),
        ("bytes=9999-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
        # Invalid ranges are ignored, as HTTP demands, and so are multiple ranges.
        ("bytes=4-2", 200, slice(0, None)),
        ("bytes=", 200, slice(0, None)),
        ("bytes=-", 200, slice(0, None)),
        ("bytes=a-b", 200, slice(0, None)),
        ("bytes=1-" + "9" * 5000, 200, slice(0, None)),
        ("seconds=0-4", 200, slice(0, None)),
        ("bytes=0-1,4-5", 200, slice(0, None)),
        ("bytes=" + "0-1," * 6000, 200, slice(0, None)),
    ],
)
def test_ranges(finished, asked, status, part):
    whole = httpx.get(finished["video_url"]).content
    start = time.process_time()
    for method in ("GET", "HEAD"):
        reply = httpx.request(method, finished["video_url"], headers={"Range": asked})
        assert (reply.status_code, reply.content) == (status, whole[part] if method == "GET" else b"")
        assert reply.headers["Content-Length"] == str(len(whole[part]))
    assert time.process_time() - start < 1
    if status == 206:
        first = range(len(whole))[part][0]
        assert reply.headers["Content-Range"] == f"bytes {first}-{first + len(whole[part]) - 1}/{len(whole)}"


def test_a_range_of_another_version_gets_the_whole_video(finished):
    url = finished["video_url"]
    whole = httpx.get(url)
    for name in ("etag", "last-modified"):
        reply = httpx.get(url, headers={"Range": "bytes=5-", "If-Range": whole.headers[name]})
        assert (reply.status_code, reply.content) == (206, whole.content[5:])
    assert httpx.get(url, headers={"Range": "bytes=5-", "If-Range": '"other"'}).status_code == 200


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_renders")
async def test_a_video_deleted_meanwhile_is_sent_completely_or_not_found(recordings, say, poll_until, data_dir, caplog):
    """Neither truncated nor logged as an error."""
    async with (
        LocalEngine(data_dir=data_dir, token="t", allow_files=recordings, keep_days=1000) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as client,
    ):
        job = {"model_id": "eva_a0008", "audio_url": say("hello")}
        video_id = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
        url = (await poll_until(client, video_id, "finished"))["video_url"]
        path = data_dir / "videos" / f"{video_id}.mp4"
        content = path.read_bytes()
        seen = set()

        async def fetch() -> None:
            for _ in range(60):
                reply = await client.get(url)
                seen.add(reply.status_code)
                assert reply.status_code == 404 or reply.content == content

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch)
            for _ in range(60):
                path.unlink()
                await anyio.lowlevel.checkpoint()
                path.with_suffix(".new").write_bytes(content)
                path.with_suffix(".new").replace(path)
                await anyio.sleep(0.001)
    assert seen <= {200, 404}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
