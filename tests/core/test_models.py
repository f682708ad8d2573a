"""The values: frozen, hashable, and able to travel."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

import a2v

CHARACTER = a2v.Character(model_id="eva_a0008", display_name="Eva", raw={"new": [1, {"deep": 2}]})
VIDEO = a2v.Video(video_id="v", status=a2v.VideoStatus.UNKNOWN, raw={"status": "polishing"})
AVATAR = a2v.Avatar(avatar_id="7", display_name="Eva", poses=(a2v.Pose(pose_id="front"),), raw={"new": 1})
JOB = a2v.Job("eva_a0008", "https://example.com/hello.wav", extra={"row": "7"})
OUTCOME = a2v.Outcome(index=0, job=JOB, video=VIDEO, error=a2v.TransportError("refused"))


@pytest.mark.parametrize("value", [CHARACTER, AVATAR, VIDEO, JOB, OUTCOME], ids=lambda value: type(value).__name__)
class TestValues:
    @pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
    def test_they_travel(self, value, travel) -> None:
        arrived = travel(value)
        if value is not OUTCOME:  # errors are never equal
            assert arrived == value
            assert hash(arrived) == hash(value)
        assert repr(arrived) == repr(value)
        for kept in ("raw", "extra"):
            assert getattr(arrived, kept, None) == getattr(value, kept, None)

    def test_they_are_frozen(self, value) -> None:
        name = attrs.fields(type(value))[0].name
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, "other")


def test_what_the_server_sent_is_kept_apart() -> None:
    """It cannot be changed, and does not make two equal looks different."""
    sent = {"status": "polishing"}
    video = a2v.Video(video_id="v", status=a2v.VideoStatus.UNKNOWN, raw=sent)
    sent["status"] = "other"
    assert video.raw == {"status": "polishing"}
    with pytest.raises(TypeError):
        video.raw["status"] = "other"
    assert video == a2v.Video(video_id="v", status=a2v.VideoStatus.UNKNOWN)
    assert "polishing" not in repr(video)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://files.example/v.mp4", "https://files.example/v.mp4"),
        ("https://files.example/v.mp4?signature=s3cret&x=?", "https://files.example/v.mp4?…"),
        ("https://files.example/v.mp4#s3cret\ns3cret", "https://files.example/v.mp4#…"),
        ("https://ann:s3cret@files.example/a@b.mp4", "https://…@files.example/a@b.mp4"),
        ("https://[?s3cret", "https://[?…"),
    ],
)
def test_a_signed_url_does_not_get_into_logs(url, shown):
    video = a2v.Video(video_id="v", status=a2v.VideoStatus.FINISHED, video_url=url, mask_video_url=url)
    assert repr(video).count(repr(shown)) == 2
    assert "s3cret" not in repr(video)
    assert video.video_url == url
    if not url.startswith("https://[") and "\n" not in url:
        job = a2v.Job("eva_a0008", url)
        assert repr(shown) in repr(job)
        assert "s3cret" not in repr(a2v.Outcome(index=0, job=job, video=video))


def test_statuses_are_the_wires_words() -> None:
    assert {status.name: str(status) for status in a2v.VideoStatus} == {
        "PENDING": "pending",
        "IN_PROGRESS": "in_progressing",
        "FINISHED": "finished",
        "FAILED": "error",
        "UNKNOWN": "unknown",
    }
    assert [status.name for status in a2v.VideoStatus if status.is_terminal] == ["FINISHED", "FAILED"]


def test_finished_without_a_url_is_not_the_end() -> None:
    assert not a2v.Video(video_id="v", status=a2v.VideoStatus.FINISHED).is_terminal
    assert a2v.Video(video_id="v", status=a2v.VideoStatus.FINISHED, video_url="https://x/v").is_terminal
    assert a2v.Video(video_id="v", status=a2v.VideoStatus.FAILED).is_terminal


@pytest.mark.parametrize(
    "url", ["https://example.com/a", "HTTP://h/a?b=c#d", "file:///tmp/hello.wav", "https://ä.example/ö"]
)
def test_audio_urls(url) -> None:
    assert a2v.Job("eva_a0008", url).audio_url == url


@pytest.mark.parametrize("name", [None, "a", "ünï", "a.b", "a b", "x" * 200, "日本"])
def test_names(name) -> None:
    assert a2v.Job("eva_a0008", "https://example.com/a", name).name == name


def test_an_outcome_is_good_without_an_error() -> None:
    assert not OUTCOME.ok
    assert a2v.Outcome(index=0, job=JOB, video=VIDEO).ok


def test_a_job_for_a_pose() -> None:
    job = a2v.Job(pose_id="eva_front", audio_url="https://example.com/a", with_mask=True, extra={"row": "7"})
    assert (job.model_id, job.pose_id, job.with_mask) == (None, "eva_front", True)
    assert job == a2v.Job(pose_id="eva_front", audio_url="https://example.com/a", with_mask=True)
    assert attrs.evolve(job, name="seven").extra["row"] == "7"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"audio_url": "https://x/a"}, "model_id"),
        ({"model_id": "eva", "pose_id": "front", "audio_url": "https://x/a"}, "not both"),
        ({"pose_id": "", "audio_url": "https://x/a"}, "pose_id"),
        ({"pose_id": "front"}, "audio_url"),
        ({"model_id": "eva", "audio_url": "https://x/a", "with_mask": True}, "with_mask requires a pose_id"),
        ({"pose_id": "front", "audio_url": "https://x/a", "with_mask": 1}, "True or False"),
    ],
)
def test_a_job_that_cannot_be_right(wrong, named) -> None:
    with pytest.raises(ValueError, match=named):
        a2v.Job(**wrong)


def test_values_of_different_classes_differ() -> None:
    video = a2v.Video(video_id="v", status=a2v.VideoStatus.PENDING)
    assert video != "v"
    assert video != a2v.RowError(row=1, column=None, problem="v")
