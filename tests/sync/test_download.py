"""Downloads through the sync client: the same limits, paths and errors."""

from __future__ import annotations

import pytest

import a2v
from a2v import testing


def test_a_download_has_a_timeout(tmp_path) -> None:
    service = testing.Service(poll_statuses=["pending"])
    with a2v.A2V("token", transport=service.transport()) as client:
        task = client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
        with pytest.raises(a2v.WaitTimeoutError) as caught:
            task.download(tmp_path / "v.mp4", timeout=0.05)
    assert caught.value.video_id == task.video_id
    assert not list(tmp_path.iterdir())


def test_a_download_has_a_limit(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    service = testing.Service(content=b"x" * 1000)
    service.add_video("v1")
    for limit in (999, 1000):
        with a2v.A2V("token", transport=service.transport(), max_download_bytes=limit) as client:
            if limit < 1000:
                with pytest.raises(a2v.DownloadError, match="larger than 999 bytes"):
                    client.videos.task("v1").download("v.mp4")
                assert not list(tmp_path.iterdir())
            else:
                assert client.videos.task("v1").download("v.mp4") == tmp_path / "v.mp4"


def test_the_recording_is_never_replaced(tmp_path) -> None:
    recording = tmp_path / "speech.mp4"
    recording.write_bytes(b"precious")
    service = testing.Service()
    with a2v.A2V("token", transport=service.transport()) as client:
        task = client.videos.generate(model_id="eva_a0008", audio_url=recording.as_uri())
        with pytest.raises(a2v.DownloadError, match="recording"):
            task.download(recording, overwrite=True)
    assert recording.read_bytes() == b"precious"
