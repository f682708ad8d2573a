"""Values as JSON, and what pydantic and FastAPI make of them."""

from __future__ import annotations

import copy
import datetime as dt
import inspect
import json
import pickle
from pathlib import Path
from typing import Annotated, Any

import attrs
import httpx
import pydantic
import pytest
from fastapi import Body, FastAPI

import a2v

SIGNED = "https://storage.example.com/v.mp4?signature=secret"
VIDEO = a2v.Video(
    video_id="7f3a",
    status=a2v.VideoStatus.FINISHED,
    video_url=SIGNED,
    raw={"video_id": "7f3a", "video_url": SIGNED, "message": f"stored at {SIGNED}", "parts": [SIGNED, 1.5, None, True]},
)
JOB = a2v.Job("eva_a0008", SIGNED, "hello", extra={"customer": "ACME", "due": "2026-11-30"})
POSE = a2v.Pose(pose_id="p1", preview_url=SIGNED, raw={"pose_id": "p1"})
VALUES = [
    a2v.Character(model_id="eva_a0008", preview_url=SIGNED, raw={"nested": {"preview_url": SIGNED}}),
    POSE,
    a2v.Avatar(avatar_id="a1", poses=(POSE, POSE)),
    VIDEO,
    JOB,
    a2v.Job(pose_id="p1", audio_url=SIGNED, with_mask=True),
    a2v.Job("eva_a0008", text="Hello!", voice_name="heart"),
    a2v.Voice(voice_name="heart", preview_url=SIGNED, tags=("warm", "calm")),
    a2v.Word(text="Hello!", start=0.5, end=1.0),
    a2v.Speech(url=SIGNED, text="Hello!", voice_name="heart", words=(a2v.Word(text="Hello!", start=0.5, end=1.0),)),
    a2v.Outcome(index=3, job=JOB, video=VIDEO, path=Path("/videos/hello.mp4")),
    a2v.RowError(row=3, column="audio_url", problem="it is missing"),
    a2v.JournalEntry(job=JOB, state=a2v.JobState.DONE, video_id="7f3a", path="/videos/hello.mp4", place=0),
    a2v.Progress(total=3, waiting=1, under_way=1, done=1, failed=0, unknown=0),
    a2v.Pace(limit=30, left=12, next_in=1.5),
]
ids = [type(value).__name__ for value in VALUES]


def test_every_public_value_is_among_them() -> None:
    public = [getattr(a2v, name) for name in a2v.__all__]
    assert {kind for kind in public if inspect.isclass(kind) and attrs.has(kind)} == {type(value) for value in VALUES}


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_it_becomes_json_and_comes_back(value: Any) -> None:
    again = type(value).from_dict(json.loads(json.dumps(value.to_dict())))
    assert again == value
    assert again.to_dict() == value.to_dict()
    assert type(value).from_dict(value.to_dict() | {"new_in_a_later_version": 1}) == value


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_without_urls_it_holds_none(value: Any) -> None:
    assert "://" not in json.dumps(value.to_dict(urls=False))


def test_without_urls_the_rest_stays() -> None:
    raw = {"video_id": "7f3a", "message": "stored at …", "parts": [1.5, None, True]}
    rest = {"video_id": "7f3a", "status": "finished", "mask_video_url": None, "captions_url": None, "raw": raw}
    assert VIDEO.to_dict(urls=False) == rest


def test_what_json_lacks_becomes_text() -> None:
    job = a2v.Job("eva_a0008", SIGNED, extra={"due": dt.date(2026, 11, 30), "seen": ("a", dt.time(12))})
    assert job.to_dict()["extra"] == {"due": "2026-11-30", "seen": ["a", "12:00:00"]}


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_it_can_be_pickled_and_copied(value: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert twin == value
        assert twin.to_dict() == value.to_dict()


def test_raw_is_a_dictionary_that_cannot_be_changed() -> None:
    assert json.loads(json.dumps(VIDEO.raw)) == dict(VIDEO.raw)
    for change in (lambda raw: raw.update(a=1), lambda raw: raw.pop("message"), lambda raw: raw.clear()):
        with pytest.raises(TypeError, match="cannot be changed"):
            change(VIDEO.raw)


def test_raw_is_a_mapping() -> None:
    with pytest.raises(TypeError, match="raw must be a mapping, got a value of type list"):
        a2v.Video(video_id="a", status=a2v.VideoStatus.PENDING, raw=[])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (a2v.Video, {}, "Video needs video_id, status"),
        (a2v.Video, {"video_id": 5, "status": "finished"}, "Video.video_id must be a string, got 5"),
        (a2v.Video, {"video_id": "a", "status": "done"}, "Video.status must be VideoStatus, got 'done'"),
        (a2v.Video, ["video_id"], "Video must be made from a mapping"),
        (a2v.Job, {"model_id": "eva_a0008", "audio_url": "a.wav"}, "audio_url must be a URL"),
        (a2v.Pace, {"limit": True, "left": 1, "next_in": 1}, "Pace.limit must be a whole number, got True"),
        (a2v.Pace, {"limit": 1, "left": 1, "next_in": "1"}, "Pace.next_in must be a number, got '1'"),
        (a2v.Outcome, {"index": 0, "job": JOB, "path": 5}, "Outcome.path must be Path, got 5"),
        (a2v.Outcome, {"index": 0, "job": JOB, "error": {}}, "an error must be made from a mapping with a message"),
        (
            a2v.Outcome,
            {"index": 0, "job": JOB, "video": None, "ok": 1, "mask_path": []},
            "Outcome.mask_path must be Path",
        ),
        (a2v.Avatar, {"avatar_id": "a", "poses": "p1"}, "Avatar.poses must be tuple"),
    ],
)
def test_what_is_wrong_is_named(kind: Any, data: Any, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        kind.from_dict(data)


def test_whole_numbers_are_numbers() -> None:
    assert a2v.Pace.from_dict({"limit": None, "left": None, "next_in": 2}) == a2v.Pace(limit=None, left=None, next_in=2)


def outcome_with(error: a2v.A2VError) -> a2v.Outcome:
    outcome = a2v.Outcome(index=0, job=JOB, video=VIDEO, error=error)
    return a2v.Outcome.from_dict(json.loads(json.dumps(outcome.to_dict())))


def test_the_error_of_an_outcome_comes_back_with_its_facts() -> None:
    error = outcome_with(a2v.RateLimitError("slow down", code=1009, status_code=429, retry_after=3.5)).error
    assert type(error) is a2v.RateLimitError
    assert str(error) == "slow down (HTTP 429, code 1009)"
    assert (error.code, error.status_code, error.retry_after, error.video) == (1009, 429, 3.5, VIDEO)
    error = outcome_with(a2v.SubmissionUnknownError("no answer", job=JOB)).error
    assert isinstance(error, a2v.SubmissionUnknownError)
    assert error.job == JOB
    error = outcome_with(a2v.WaitTimeoutError("too long", video_id="7f3a", video=VIDEO, waited=60.0)).error
    assert isinstance(error, TimeoutError)
    assert (error.video_id, error.waited) == ("7f3a", 60.0)


def test_an_error_of_a_later_version_stays_an_error() -> None:
    error = a2v.A2VError.from_dict({"type": "BrandNewError", "message": "hm"})
    assert type(error) is a2v.A2VError
    assert error.to_dict() == {"type": "A2VError", "message": "hm"}
    assert a2v.DownloadError(f"{SIGNED} is gone").to_dict(urls=False)["message"] == "… is gone"


@pytest.mark.parametrize("value", VALUES, ids=ids)
def test_pydantic_reads_and_writes_it(value: Any) -> None:
    model: Any = pydantic.create_model("Model", value=(type(value), ...), values=(list[type(value)], []))
    one = model(value=value, values=[value])
    assert one.value is value
    assert model.model_validate_json(one.model_dump_json()) == one
    assert model.model_validate(one.model_dump()) == one
    assert one.model_dump()["value"] == value.to_dict()
    for mode in ("validation", "serialization"):
        assert set(attrs.fields_dict(type(value))) <= set(str(model.model_json_schema(mode=mode)).split("'"))


def test_pydantic_says_what_is_wrong() -> None:
    adapter = pydantic.TypeAdapter(a2v.Job)
    with pytest.raises(pydantic.ValidationError, match="audio_url must be a URL that the server can download"):
        adapter.validate_python({"model_id": "eva_a0008", "audio_url": "a.wav"})
    with pytest.raises(pydantic.ValidationError, match="status"):
        pydantic.TypeAdapter(a2v.Video).validate_json('{"video_id": "a"}')


@pytest.mark.anyio
async def test_handlers_of_fastapi_take_and_return_them() -> None:
    app = FastAPI()

    @app.get("/annotated")
    def annotated() -> a2v.Video:
        return VIDEO

    @app.get("/list")
    def several() -> list[a2v.Outcome]:
        return [a2v.Outcome(index=0, job=JOB, error=a2v.DownloadError("gone"))]

    @app.get("/plain")
    def plain():  # the case in question
        return VIDEO

    @app.post("/jobs")
    def jobs(job: Annotated[a2v.Job, Body()]) -> a2v.Job:
        return job

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/annotated")).json() == VIDEO.to_dict()
        assert (await client.get("/plain")).json() == VIDEO.to_dict()
        (outcome,) = (await client.get("/list")).json()
        assert outcome["error"] == {"type": "DownloadError", "message": "gone"}
        assert (await client.post("/jobs", json=JOB.to_dict())).json() == JOB.to_dict()
        refused = await client.post("/jobs", json={"model_id": "eva_a0008", "audio_url": "a.wav"})
        assert refused.status_code == 422
        assert "audio_url must be a URL" in refused.text
        schema = (await client.get("/openapi.json")).json()["paths"]["/annotated"]["get"]
        assert "video_id" in str(schema)
