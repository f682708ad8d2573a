"""The JSON, from the side of a server; the client's side is tested through the client."""

from __future__ import annotations

import json

import pytest

from a2v._core import wire
from a2v._core.models import Character, Job, Video, VideoStatus
from a2v.errors import ProtocolError


def test_what_a_server_writes_a_client_reads() -> None:
    eva = Character(model_id="eva_a0008", name="Eva 01", display_name="Eva", gender="female", preview_url="https://x/p")
    body = json.dumps(wire.success([wire.character_data(eva)])).encode()
    assert wire.character_list().read(wire.read_envelope(body).data) == [eva]


@pytest.mark.parametrize(
    "video",
    [
        Video(video_id="v", status=VideoStatus.PENDING),
        Video(video_id="v", status=VideoStatus.FINISHED, video_url="https://x/v", mask_video_url="https://x/m"),
    ],
)
def test_videos(video) -> None:
    assert wire.video_get("v").read(wire.video_data(video)) == video
    assert wire.video_list().read([wire.video_data(video)]) == [video]


def test_why_a_video_failed() -> None:
    failed = Video(video_id="v", status=VideoStatus.FAILED)
    assert wire.video_data(failed, "silence")["message"] == "silence"
    assert set(wire.video_data(failed)) == {"video_id", "status", "video_url"}


def test_a_refusal() -> None:
    envelope = wire.read_envelope(json.dumps(wire.refusal(wire.NOT_FOUND, "file not found")).encode())
    assert (envelope.code, envelope.message, envelope.data) == (10001, "file not found", None)


def test_a_job() -> None:
    job = Job("eva_a0008", "https://example.com/hello.wav")
    call = wire.video_generate(job)
    assert wire.read_job(json.dumps(call.json).encode()) == job
    assert call.read({"video_id": "v", "status": "pending"}) == "v"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"5", b'{"model_id": NaN}', b'{"model_id": "a", "model_id": "b"}']
)
def test_what_is_no_job_at_all(body) -> None:
    with pytest.raises(ProtocolError):
        wire.read_job(body)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({}, "model_id"),
        ({"model_id": 5, "audio_url": "https://x/a"}, "model_id"),
        ({"model_id": "eva_a0008"}, "audio_url"),
        ({"model_id": "eva_a0008", "audio_url": ["https://x/a"]}, "audio_url"),
    ],
)
def test_a_job_that_cannot_be_right(sent, named) -> None:
    with pytest.raises(ValueError, match=named):
        wire.read_job(json.dumps(sent).encode())


def test_only_a_submission_has_a_body() -> None:
    assert wire.video_get("v").json is None
    assert wire.video_get("v").params == {"video_id": "v"}
