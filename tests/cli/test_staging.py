"""Files of this machine for a server elsewhere."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import av
import pytest
from anyio.from_thread import start_blocking_portal


@pytest.fixture
def store(bucket, environment):
    """The program finds the bucket."""
    for name in [name for name in environment if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        del environment[name]
    environment.update(bucket.environment)
    return bucket


@pytest.fixture
def elsewhere(environment):
    """The program finds a server elsewhere that really renders; it may fetch from this machine."""
    from a2v.engine import LocalEngine

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(LocalEngine(allow_private_urls=True)) as engine,
    ):
        environment |= {"A2V_TOKEN": engine.token, "A2V_BASE_URL": engine.base_url}
        yield


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as reply:
        return reply.read()


def test_generate_renders_what_it_staged(a2v, elsewhere, store, tmp_path, speech):
    (tmp_path / "my speech.flac").write_bytes(speech.read_bytes())
    arguments = ["generate", "my speech.flac", "--model-id", "eva_a0008", "--stage-to", store.place, "-o", "hello.mp4"]

    done = a2v(*arguments, "--remove-staged")

    assert (done.returncode, done.stderr) == (0, "")
    with av.open(tmp_path / "hello.mp4") as video:
        assert video.duration / 1e6 == pytest.approx(3.1, abs=0.2)
    assert store.keys == []


def test_the_place_of_the_environment(a2v, environment, service, store, speech):
    environment["A2V_STAGE_TO"] = store.place

    for audio in (speech, speech.as_uri()):
        assert a2v("generate", audio, "--model-id", "eva_a0008").returncode == 0

    assert [fetch(submit.audio_url) for submit in service.submissions] == [speech.read_bytes()] * 2
    assert len(store.keys) == len(store.requests("PUT")) == 1


def test_a_url_passes_as_it_is(a2v, service, store):

    a2v("generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "--stage-to", store.place)

    assert [submit.audio_url for submit in service.submissions] == ["https://example.com/hello.wav"]
    assert store.keys == []


def test_it_stays_where_a_render_may_need_it(a2v, service, store, speech):
    service.poll_statuses = ["pending"]
    options = ["--stage-to", store.place, "--remove-staged", "--timeout", "3"]

    done = a2v("generate", speech, "--model-id", "eva_a0008", *options)

    assert done.returncode == 4
    assert len(store.keys) == 1


def test_the_local_engine_needs_no_place(a2v, environment, speech):
    environment["A2V_STAGE_TO"] = "nonsense"

    done = a2v("generate", speech, "--model-id", "nobody", "--local", "-o", "hello.mp4")

    assert "nonsense" not in done.stderr
    assert "nobody" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stage-to", "s3://bucket", "--local", "-o", "x.mp4"], "--local reads the files of this machine"),
        (["--remove-staged"], "--remove-staged deletes what --stage-to uploads"),
        (["--stage-to", "ftp://canary"], "must be one of s3://bucket/prefix (S3, MinIO, OSS and others), gs://"),
        (["--stage-to", "s3://bucket/?canary"], "the prefix of the staging target must be plain names"),
    ],
)
def test_options_that_cannot_be_right(here, service, speech, options, said):
    code, _, error = here("generate", str(speech), "--model-id", "eva_a0008", *options)

    assert code == 2
    assert said in error
    assert "canary" not in error
    assert service.calls == ()


def test_nothing_is_submitted_when_it_cannot_be_staged(a2v, service, store, speech):
    done = a2v("generate", speech, "--model-id", "eva_a0008", "--stage-to", "s3://nowhere/x")

    assert done.returncode == 1
    assert done.stderr == f"a2v: {speech} cannot be staged to s3://nowhere/x: there is no such bucket\n"
    assert [call.name for call in service.calls] == ["character.list"]


def test_a_file_that_is_none(a2v, service, store):
    done = a2v("generate", "nowhere.wav", "--model-id", "eva_a0008", "--stage-to", store.place)

    assert (done.returncode, service.calls) == (2, ())


def test_what_to_do_with_a_file(here, tmp_path):
    Path("hello.wav").write_bytes(b"RIFF")

    code, _, error = here("generate", "hello.wav", "--model-id", "eva_a0008")

    assert code == 2
    assert "--stage-to s3://BUCKET/PREFIX" in error
    assert "Add --local" in error


def test_without_the_extra(here, speech, monkeypatch):
    for name in ("a2v.staging", "a2v.staging.stager", "a2v.staging.store"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)

    code, _, error = here("generate", str(speech), "--model-id", "eva_a0008", "--stage-to", "s3://bucket")

    assert code == 2
    assert 'pip install "a2v[staging]"' in error


def test_a_batch_stages_what_stands_beside_its_manifest(a2v, elsewhere, store, tmp_path, speech):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "my speech.flac").write_bytes(speech.read_bytes())
    rows = "".join(f"{model_id},my speech.flac,{model_id}\n" for model_id in ("eva_a0008", "leo_a0047"))
    (tmp_path / "table" / "jobs.csv").write_text(f"model_id,audio_url,name\n{rows}")
    command = ["batch", "table/jobs.csv", "-o", "videos", "--stage-to", store.place, "--report", "report.csv"]

    done = a2v(*command, "--limit", "1")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(store.keys) == 1
    assert "signature" not in (tmp_path / "report.csv").read_text().lower()
    assert b"signature" not in (tmp_path / "videos" / "a2v-batch.db").read_bytes().lower()
    # The same recording under another signature is the same job.
    again = a2v(*command, "--remove-staged")
    assert (again.returncode, again.stdout.splitlines()[-1].split(" · ")[0]) == (0, "2 done")
    assert sorted(path.name for path in (tmp_path / "videos").glob("*.mp4")) == ["eva_a0008.mp4", "leo_a0047.mp4"]


def test_a_batch_that_is_not_done_keeps_what_it_staged(a2v, service, store, tmp_path, speech):
    (tmp_path / "speech.flac").write_bytes(speech.read_bytes())
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\nm,speech.flac\n")
    service.lists_videos = False
    service.lose_reply()
    command = ["batch", "jobs.csv", "-o", "videos", "--stage-to", store.place, "--remove-staged"]

    done = a2v(*command)

    assert done.returncode == 3
    assert (
        f"  a2v batch jobs.csv -o videos --stage-to {store.place} --remove-staged --resubmit-unknown ROW" in done.stderr
    )
    assert len(store.keys) == 1


def test_a_batch_whose_recordings_cannot_be_staged_submits_nothing(a2v, service, store, tmp_path, speech):
    (tmp_path / "speech.flac").write_bytes(speech.read_bytes())
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\nm,speech.flac\nm,https://example.com/a.wav\n")

    done = a2v("batch", "jobs.csv", "-o", "videos", "--stage-to", "s3://no-such-bucket/here")

    assert done.returncode == 1
    assert "no-such-bucket" in done.stderr
    assert {call.name for call in service.calls} <= {"character.list"}
