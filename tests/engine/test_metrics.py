"""``GET /metrics``."""

from __future__ import annotations

import re

import httpx
import pytest

from a2v.engine import LocalEngine


@pytest.fixture
def anyio_backend():
    return "asyncio"


def values(text: str) -> dict[str, float]:
    """The samples, in the text format of Prometheus."""
    found = {}
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) a2v_\w+ .+|a2v_\w+(\{(\w+="[^"\\]*",?)+\})? [0-9.e+-]+', line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in found
            found[name] = float(value)
    return found


@pytest.mark.anyio
async def test_renders_requests_and_uploads_are_counted(quick_renders, recordings, say, poll_until):
    async with (
        LocalEngine(token="t", allow_files=recordings, requests_per_minute=1000, quota=1000) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": "t"}) as client,
    ):
        for said, status in (("hello", "finished"), ("bad", "error")):
            job = {"model_id": "eva_a0008", "audio_url": say(said)}
            video_id = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
            await poll_until(client, video_id, status)
        await client.post("/page/uploads", content=b"hello", headers={"Origin": engine.base_url})
        await client.request("BREW", "/nothing")
        reply = await client.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "X-Ratelimit-Left" not in reply.headers
        found = values(reply.text)
    assert found['a2v_videos_total{outcome="finished"}'] == found['a2v_videos_total{outcome="error"}'] == 1
    assert found["a2v_render_seconds_count"] == found['a2v_render_seconds_bucket{le="+Inf"}'] == 1
    assert found["a2v_video_seconds_count"] == 1
    assert found["a2v_queue_length"] == found["a2v_renders_running"] == found["a2v_exhausted"] == 0
    assert found['a2v_http_requests_total{method="POST",status="200"}'] == 3
    assert found['a2v_http_requests_total{method="other",status="404"}'] == 1
    assert (found["a2v_uploads_total"], found["a2v_uploads_bytes"]) == (1, 5)
    assert 0 < found["a2v_disk_free_bytes"] < found["a2v_disk_size_bytes"]


@pytest.mark.anyio
async def test_they_need_the_token():
    async with LocalEngine(token="t") as engine, httpx.AsyncClient(base_url=engine.base_url) as stranger:
        assert (await stranger.get("/metrics")).status_code == 401
        assert (await stranger.get("/metrics", auth=("x", "t"))).status_code == 401
        assert (await stranger.get("/metrics", headers={"Authorization": "Bearer t"})).status_code == 200
