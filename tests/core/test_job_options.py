"""The options of a job: fields of its request that the protocol does not have."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import a2v
from a2v._async.batch.journal_file import write_job
from a2v._core import wire
from a2v._core.batch_plan import _describe_change
from a2v._core.file_names import assign_paths, default_paths, extension
from a2v._core.job_matching import job_digest, match_jobs
from a2v.errors import ManifestError

URL = "https://example.com/a.wav"
SIGNED = "https://example.com/bg.png?token=canary"


def job(options: object = None, **more: object) -> a2v.Job:
    return a2v.Job("eva", URL, options=options or {}, **more)


def test_they_are_part_of_the_request_and_of_the_job() -> None:
    wide = job({"format": "landscape", "fps": 50, "nested": {"list": [1, 0.5, None, True]}})
    sent = wire.video_generate(wide).json
    assert sent == {"model_id": "eva", "audio_url": URL, **wide.options}
    assert wire.read_job(json.dumps(sent).encode()) == wide
    assert wide != job()
    assert hash(wide) == hash(job())
    assert pickle.loads(pickle.dumps(wide)) == wide  # our own
    assert a2v.Job.from_dict(json.loads(json.dumps(wide.to_dict()))) == wide
    with pytest.raises(TypeError):
        wide.options["fps"] = 25
    assert wire.video_generate(job()).json == {"model_id": "eva", "audio_url": URL}


def test_fields_that_are_null_are_not_options() -> None:
    assert wire.read_job(json.dumps({"model_id": "eva", "audio_url": URL, "fps": None, "text": "x"}).encode()) == job()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["fps"], "options must be a mapping"),
        ({1: 2}, "the name of an option must be text, got 1"),
        ({" ": 2}, "the name of an option must be text"),
        ({"model_id": "leo"}, "options must not contain model_id: pass it as a separate argument"),
        ({"fps": {1, 2}}, "the option 'fps' cannot be written as JSON"),
        ({"fps": float("nan")}, "the option 'fps' cannot be written as JSON: nan"),
        ({"a": [{1: 2}]}, "the option 'a' cannot be written as JSON"),
        ({"a": ["\ud800"]}, "the option 'a' contains"),
        ({"a": {"\ud800": 1}}, "contains"),
    ],
)
def test_what_cannot_be_sent_is_refused(options, problem) -> None:
    with pytest.raises(a2v.InvalidArgumentError, match=problem):
        job(options)


def test_a_signature_in_them_is_not_shown_stored_or_part_of_the_identity() -> None:
    signed = job({"background": SIGNED, "others": [SIGNED]})
    assert "canary" not in repr(signed)
    assert "bg.png" in repr(signed)
    stored = write_job(signed)
    assert "canary" not in stored
    assert json.loads(stored)["options"]["others"] == ["https://example.com/bg.png"]
    s3 = "https://bucket.example/bg.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Date={}&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Signature=b"
    one, other = (job({"background": s3.format(date)}) for date in ("20260101T000000Z", "20260102T000000Z"))
    assert job_digest(one) == job_digest(other) != job_digest(job())
    assert job_digest(job({"fps": 30})) != job_digest(job({"fps": 25}))


def test_jobs_with_other_options_are_other_jobs() -> None:
    matching = match_jobs([job({"fps": 30}), job()], [], [None, None])
    assert len({match.identity for match in matching.matches}) == 2
    text = _describe_change(job({"fps": 30}), job(), "a", Path("a.mp4"))
    assert text.startswith("the character, pose, mask or options of 'a' has changed")


@pytest.mark.parametrize("container", ["webm", "mov", "webp", "gif", "mp4"])
def test_the_container_is_the_extension(container) -> None:
    jobs = [job({"container": container}, name="a"), job({"container": container}), job()]
    assert extension(jobs[0]) == f".{container}"
    paths = default_paths(jobs, Path("out"))
    assert [path.name for path in paths] == [f"a.{container}", f"0002.{container}", "0003.mp4"]
    assert list(assign_paths(jobs, paths, {}, [])) == paths


@pytest.mark.parametrize("container", ["../x", "avi", 1, None, ["webm"]])
def test_other_containers_do_not_become_part_of_paths(container) -> None:
    assert extension(job({"container": container})) == ".mp4"


def test_they_may_be_a_column_of_a_manifest() -> None:
    rows = [
        {"model_id": "eva", "audio_url": URL, "options": '{"fps": 30}'},
        {"model_id": "eva", "audio_url": URL, "options": {"fps": 30}},
        {"model_id": "eva", "audio_url": URL, "options": ""},
    ]
    assert a2v.read_manifest(rows) == [job({"fps": 30}), job({"fps": 30}), job()]


@pytest.mark.parametrize("cell", ["fps=30", "[1]", "{", '{"model_id": "x"}', "[" * 100_000, 3])
def test_a_cell_that_is_no_json_object_is_reported(cell) -> None:
    with pytest.raises(ManifestError) as caught:
        a2v.read_manifest([{"model_id": "eva", "audio_url": URL, "options": cell}])
    (fault,) = caught.value.faults
    assert (fault.row, fault.column) == (1, "options")
