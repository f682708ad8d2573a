"""The JSON, from the side of a server; the client's side is tested through the client."""

from __future__ import annotations

import json
import re

import pytest

from a2v._core import wire
from a2v._values.jobs import Job
from a2v._values.models import Avatar, Character, Pose, Speech, Video, VideoStatus, Word
from a2v.errors import InvalidArgumentError, ProtocolError


def test_a_client_reads_every_value_that_a_server_writes() -> None:
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


@pytest.mark.parametrize("with_mask", [True, False])
def test_a_job_for_a_pose(with_mask) -> None:
    job = Job(pose_id="front", audio_url="https://example.com/hello.wav", with_mask=with_mask)
    sent = wire.video_generate(job).json
    assert sent == {"pose_id": "front", "audio_url": "https://example.com/hello.wav"} | (
        {"with_mask": True} if with_mask else {}
    )
    assert wire.read_job(json.dumps(sent).encode()) == job


def test_avatars() -> None:
    front, side = (Pose(pose_id=name, name=name, preview_url=f"https://x/{name}") for name in ("front", "side"))
    eva = Avatar(
        avatar_id="7", avatar_type="human", name="eva", display_name="Eva", gender="female", poses=(front, side)
    )
    sent = [wire.avatar_data(eva)]
    assert sent[0]["id"] == "7"
    assert wire.avatar_list().read(sent) == [eva]
    assert wire.avatar_pose_list("7").read([wire.pose_data(pose) for pose in eva.poses]) == [front, side]


def test_a_pose_that_stands_twice_is_one() -> None:
    twice = [{"pose_id": "front", "name": "a"}, {"pose_id": "side"}, {"pose_id": "front", "name": "b"}]
    seen = wire.avatar_list().read([{"id": "7", "poses": twice}])[0].poses
    assert [(pose.pose_id, pose.name) for pose in seen] == [("front", "a"), ("side", "")]
    assert wire.avatar_pose_list("7").read(twice) == list(seen)


@pytest.mark.parametrize(
    "data", [{}, [{"name": "no id"}], [{"id": 7}], [{"id": "7", "poses": {}}], [{"id": "7", "poses": [5]}]]
)
def test_an_invalid_list_of_avatars(data) -> None:
    with pytest.raises(ProtocolError):
        wire.avatar_list().read(data)


@pytest.mark.parametrize("read", [wire.read_job, wire.read_speech])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"[]", "it is another kind of value"),
        (b"null", "it is another kind of value"),
        (b"5", "it is another kind of value"),
        (b'{"model_id": NaN}', "NaN is not JSON"),
        (b'{"model_id": "a", "model_id": "b"}', "a key occurs twice"),
        (b'{"model_id":\n "a",}', "the mistake is in line 2, column "),
        (b'{"model_id": "\xff"}', "it is not UTF-8 text (byte 15)"),
        (b'{"a": ' + b"[" * 100_000, "it is nested too deep"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "it is nested too deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number has too many digits"),
    ],
)
def test_a_body_that_is_no_object_is_explained_in_the_words_of_json(read, body, reason) -> None:
    """Clients may be written in any language."""
    with pytest.raises(ProtocolError, match=f"^the body must be a JSON object: {re.escape(reason)}") as caught:
        read(body)
    for word in ("codec", "char ", "sys.", "delimiter", "response"):
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({}, "^model_id is missing"),
        ({"model_id": None, "audio_url": "https://x/a"}, "^model_id is missing"),
        ({"model_id": 5, "audio_url": "https://x/a"}, "model_id"),
        ({"model_id": "eva_a0008"}, "^audio_url is missing"),
        ({"pose_id": "front", "audio_url": None}, "^audio_url is missing"),
        ({"model_id": "eva_a0008", "pose_id": "front", "audio_url": "https://x/a"}, "not both"),
        ({"model_id": "eva_a0008", "audio_url": "https://x/a", "with_mask": True}, "pose_id"),
        ({"pose_id": "front", "audio_url": "https://x/a", "with_mask": "yes"}, "must be true or false"),
        ({"model_id": "eva_a0008", "audio_url": ["https://x/a"]}, "audio_url"),
    ],
)
def test_a_job_that_cannot_be_right(sent, named) -> None:
    with pytest.raises(ValueError, match=named):
        wire.read_job(json.dumps(sent).encode())


def test_only_a_submission_has_a_body() -> None:
    assert wire.video_get("v").json is None
    assert wire.video_get("v").params == {"video_id": "v"}


def test_speeches() -> None:
    call = wire.voice_generate("Hello!", "heart")
    assert wire.read_speech(json.dumps(call.json).encode()) == ("Hello!", "heart")
    assert (call.name, call.about, call.costs, wire.voice_list().costs) == ("voice.generate", "voice_name", True, False)
    for sent, missing in (({"voice_name": "heart"}, "text"), ({"text": "Hello!"}, "voice_name")):
        with pytest.raises(InvalidArgumentError, match=f"^{missing} is missing"):
            wire.read_speech(json.dumps(sent).encode())


def test_a_speech_has_its_words_if_they_are_known() -> None:
    speech = Speech(url="https://a2v.example/1.wav", text="Hello!", voice_name="heart")
    assert wire.speech_data(speech) == {"url": speech.url}
    with_words = Speech(
        url=speech.url, text="Hello!", voice_name="heart", words=(Word(text="Hello!", start=0.50049, end=1.0),)
    )
    assert wire.speech_data(with_words)["words"] == [{"text": "Hello!", "start": 0.5, "end": 1.0}]
