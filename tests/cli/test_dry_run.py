"""``a2v batch --dry-run`` predicts the run: the same jobs, the same submissions, the same errors."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

import a2v
from a2v.testing import Reply

EXTENDED = pytest.mark.extended
HEAD = "model_id,audio_url,name\n"
SIGNED = "https://x/1.wav?AWSAccessKeyId=k&Expires={0}&Signature=s{0}"


@pytest.fixture
def batch(here, service, tmp_path):
    """Write a manifest and run it, first dry: how many videos were foretold and submitted, and what both said."""
    service.lists_videos = False
    service.poll_statuses = ["finished"]

    def generate(_):
        url = service.seen("video.generate")[-1].body.decode()
        return Reply.refusal(400, "no") if "refused" in url else None

    service.reply("video.generate", generate, times=None)

    def batch(rows, *options):
        lines = [f"eva,{row}" + ("" if "," in row else ",") for row in rows]
        (tmp_path / "jobs.csv").write_text(HEAD + "\n".join(lines) + "\n")
        command = ["batch", "jobs.csv", "-o", "videos", *options]
        if not (tmp_path / "videos").exists():
            return here(*command)
        calls, files = len(service.calls), sorted(tmp_path.rglob("*"))
        code, out, err = here(*command, "--dry-run")
        sent = {call.name for call in service.calls[calls:]}
        assert (sent - {"character.list"}, sorted(tmp_path.rglob("*"))) == (set(), files)
        foretold = int(re.search(r"A run would submit (\d+) video", out)[1])
        before = len(service.seen("video.generate"))
        run = here(*command)
        return foretold, len(service.seen("video.generate")) - before, (code, out, err), run

    return batch


def test_texts(here, service, tmp_path) -> None:
    """Their speeches are counted, and a run makes each once."""
    service.voices = [a2v.Voice(voice_name="heart")]
    service.poll_statuses = ["finished"]
    (tmp_path / "jobs.csv").write_text("model_id,text,voice_name,audio_url\neva,One.,heart,\neva,,,https://x/a\n")
    command = ["batch", "jobs.csv", "-o", "videos", "--report", "report.json"]
    _, out, _ = here(*command, "--dry-run")
    assert "A run would submit 2 videos and have 1 text synthesized." in out
    code, _, err = here(*command, "--quota", "2")
    assert (code, "--limit 1 to submit" in err) == (2, True)
    assert not service.syntheses
    assert here(*command)[0] == 0
    assert [synthesis.text for synthesis in service.syntheses] == ["One."]
    first, second = json.loads((tmp_path / "report.json").read_text())
    assert (first["text"], first["voice_name"], first["audio_url"]) == ("One.", "heart", None)
    assert (second.get("text"), second["audio_url"]) == (None, "https://x/a")
    assert "A run would submit 0 videos." in here(*command, "--dry-run")[1]
    _, out, _ = here("journal", "videos/a2v-batch.db")
    assert "One." in out or "0001" in out


@pytest.mark.parametrize(
    ("first", "then", "options"),
    [
        (["https://x/a?t=1", "https://x/a?t=2"], ["https://x/a?t=2", "https://x/a?t=1"], []),
        pytest.param(["https://x/a?t=1"], ["https://x/a?t=1", "https://x/a?t=2"], [], marks=EXTENDED),
        (["https://x/a?t=1"], ["https://x/a?t=2"], ["--new-recordings"]),
        (["https://x/a?t=1"], ["https://x/a?t=2"], ["--same-recordings"]),
        pytest.param(["https://x/a?t=1&sv=de"], ["https://x/a?t=1&sv=en"], ["--new-recordings"], marks=EXTENDED),
        ([SIGNED.format(1)], [SIGNED.format(2), "https://x/1.wav"], []),
        (["https://x/2,two", "https://x/3,three"], ["https://x/2,one", "https://x/2,two", "https://x/3,three"], []),
        (["file:///srv/1.wav"], ["file:///srv/1.wav", "file:///srv/2.wav"], []),
        pytest.param(["https://x/refused"], ["https://x/refused"], [], marks=EXTENDED),
        pytest.param(["https://x/refused"], ["https://x/refused"], ["--resubmit-failed"], marks=EXTENDED),
        (["https://x/1"], ["https://x/1", "https://x/2", "https://x/3"], ["--limit", "1", "--quota", "1"]),
        (["https://x/1,zero", "https://x/2,one"], ["https://x/3,zero", "https://x/2,one", "https://x/4,new"], []),
        (["https://x/1,zero", "https://x/2,one"], ["https://x/3,zero", "https://x/2,one"], ["--overwrite"]),
    ],
)
def test_it_counts_what_the_run_submits(batch, first, then, options) -> None:
    batch(first)
    foretold, submitted, dry, _ = batch(then, *options)
    assert (foretold, dry[0]) == (submitted, 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-o", "taken"], "--output: taken is not a folder"),
        (["-o", "taken/videos"], "--output: taken/videos is not a folder"),
        (["-o", "videos", "--local", "--data-dir", "taken/engine"], "--data-dir: taken/engine is not a folder"),
        (
            ["-o", "videos", "--local", "--data-dir", "project"],
            "--data-dir: 'project' has 'work', not made by an engine",
        ),
        (["-o", "videos", "--journal", "."], "--journal: . is a folder"),
        (["-o", "videos", "--journal", "taken/a2v.db"], "--journal: taken is not a folder"),
        (["-o", "videos", "--report", "taken/report.csv"], "--report: taken/report.csv is not a file in an existing"),
        (["-o", "videos", "--local", "--characters", "nowhere"], "--characters: there is no folder nowhere"),
        (["-o", "videos", "--local", "--characters", "taken"], "--characters: there is no folder taken"),
        (["-o", "videos", "--local", "--background", "taken/sky.png"], "--background: 'taken/sky.png' is neither"),
        (["-o", "videos", "--budget", "nowhere/budget"], "--budget: there is no folder "),
        (["-o", "videos", "--budget", "https://x"], "--budget must be a path"),
        (["-o", "videos", "--base-url", "x"], "base_url"),
        (["-o", "videos", "--token-file", "nowhere"], "--token-file: nowhere cannot be read"),
    ],
)
@pytest.mark.parametrize("earlier", [False, True], ids=["first run", "later run"])
def test_it_rejects_values_that_the_run_rejects(here, service, tmp_path, options, told, earlier) -> None:  # noqa: PLR0917
    service.poll_statuses = ["finished"]
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "project" / "work").mkdir(parents=True)
    (tmp_path / "jobs.csv").write_text(HEAD + "eva_a0008,https://x/1,\n")
    if earlier:
        # Whose characters a later run does not ask for.
        assert here("batch", "jobs.csv", "-o", "videos")[0] == 0
    files = sorted(tmp_path.rglob("*"))
    dry, run = (here("batch", "jobs.csv", *options, *more) for more in (["--dry-run"], []))
    assert (dry[0], dry[2]) == (run[0], run[2])
    assert (dry[0], told in dry[2]) == (2, True)
    assert sorted(tmp_path.rglob("*")) == files


def test_each_option_with_a_place_is_tested() -> None:
    from a2v.cli.commands import app

    (mark,) = (one for one in test_it_rejects_values_that_the_run_rejects.pytestmark if "told" in one.args[0])
    tested = {word for options, _ in mark.args[1] for word in options}
    arguments = app["batch"].assemble_argument_collection()
    places = [one for one in arguments if re.search("FILE|DIR|PATH|URL", str(one.parameter.metavar))]
    # That of a bucket is not used without files to upload.
    assert [one.name for one in places if tested.isdisjoint(one.names) and one.name != "--stage-to"] == []


@pytest.mark.parametrize(
    ("then", "options", "told"),
    [
        (["https://x/a?t=2"], [], "--same-recordings"),
        (["https://x/2", "https://x/3"], ["--quota", "1"], "--limit 1"),
        (["https://x/9,theirs"], [], "theirs.mp4"),
        (["https://x/1"], ["--journal", "other.db"], "there is no journal other.db"),
    ],
)
def test_it_refuses_what_the_run_refuses(batch, tmp_path, then, options, told) -> None:
    batch(["https://x/a?t=1"])
    (tmp_path / "videos" / "theirs.mp4").write_text("mine")
    foretold, submitted, dry, run = batch(then, *options)
    assert (foretold, submitted) == (0, 0)
    assert (dry[0], run[0]) == (2, 2)
    assert dry[2] == run[2]
    assert told in dry[2]


def test_a_folder_that_is_not_there_yet_stays_so(here, service, tmp_path) -> None:
    (tmp_path / "jobs.csv").write_text(HEAD + "eva,https://x/1,one\n")
    code, out, err = here("batch", "jobs.csv", "-o", "new/videos", "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "A run would submit 1 video."
    assert not (tmp_path / "new").exists()
    assert [call.name for call in service.calls] == ["character.list"]


def test_ambiguous_rows_are_named(batch) -> None:
    batch(["https://x/a?secret=1,hello", "https://x/a?secret=2"])
    _, _, dry, _ = batch(["https://x/a?secret=3,hello", "https://x/a?secret=4"])
    told = dry[2]
    assert "row 2 (hello) may be hello (job 1 of the last run, done, video v1): https://x/a\n" in told
    assert "row 3 (0002) may be 0002 (job 2 of the last run, done, video v2): https://x/a\n" in told
    assert "Pass --same-recordings if" in told
    assert "Pass --new-recordings if" in told
    assert "secret" not in told


def test_a_changed_recording_is_reported_with_its_row(batch) -> None:
    batch(["https://x/1,zero", "https://x/2,one"])
    _, _, dry, run = batch(["https://x/3,zero", "https://x/2,one"])
    assert "A run would reject row 2 (zero): the recording of 'zero' has changed" in dry[1]
    assert "Pass --overwrite to render it again, for which you pay, and replace the file" in dry[1]
    assert run[0] == 1
    assert "row 2 (zero)  pending  the recording of 'zero' has changed" in run[2]
    assert "Pass --overwrite" in run[2]


def test_rows_that_differ_only_in_signatures_are_warned_about(batch) -> None:
    batch(["https://x/2"])
    _, _, dry, run = batch([SIGNED.format(1), SIGNED.format(2), "https://x/2"])
    assert dry[2] == run[2] == "a2v: rows 2 and 3 are identical: 2 videos, each paid for\n"


def test_a_submission_that_a_crash_broke_off_is_uncertain(here, batch, tmp_path) -> None:
    import sqlite3
    from contextlib import closing

    batch(["https://x/1,one"])
    with closing(sqlite3.connect(tmp_path / "videos" / "a2v-batch.db")) as db, db:
        db.execute("UPDATE items SET state = 'submitting', video_id = NULL")
    (tmp_path / "videos" / "one.mp4").unlink()
    code, out, _ = here("batch", "jobs.csv", "-o", "videos", "--dry-run")
    assert (code, out.splitlines()) == (0, ["1 job: 0 done, 1 unknown", "A run would submit 0 videos."])
    again = ["batch", "jobs.csv", "-o", "videos", "--dry-run", "--resubmit-unknown", "2"]
    assert here(*again)[1].splitlines()[-1] == "A run would submit 1 video."
    # Its id was noted beside a journal that could not be written.
    side = tmp_path / "videos" / "a2v-batch.db.lock"
    with closing(sqlite3.connect(tmp_path / "videos" / "a2v-batch.db")) as db:
        ((identity,),) = db.execute("SELECT identity FROM items").fetchall()
    side.write_text(json.dumps({"identity": identity, "video_id": "v1"}))
    assert here(*again)[1].splitlines() == ["1 job: 0 done, 1 in progress", "A run would submit 0 videos."]
    side.write_text("?")
    code, out, err = here(*again)
    assert (code, out) == (2, "A run would submit 0 videos.\n")
    assert "is damaged" in err
    side.unlink()
    side.symlink_to("nowhere")
    assert "cannot be read" in here(*again)[2]


def test_it_knows_whose_journal_it_is(here, batch, monkeypatch) -> None:
    batch(["https://x/1"])
    command = ["batch", "jobs.csv", "-o", "videos"]
    for name, value, told in [
        ("A2V_TOKEN", "another-token", "--new-token"),
        ("A2V_BASE_URL", "https://other.example", "belongs to another server"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            code, out, err = here(*command, "--dry-run")
            assert (code, out) == (2, "A run would submit 0 videos.\n")
            assert told in err
            assert here(*command)[2] == err
    monkeypatch.setenv("A2V_TOKEN", "another-token")
    assert here(*command, "--dry-run", "--new-token")[0] == 0
    monkeypatch.delenv("A2V_TOKEN")
    assert here(*command, "--dry-run")[0] == 0  # it needs none


def test_the_recordings_are_the_same_or_new(here, batch) -> None:
    batch(["https://x/1"])
    code, _, err = here("batch", "jobs.csv", "-o", "videos", "--same-recordings", "--new-recordings")
    assert code == 2
    assert "--same-recordings and --new-recordings exclude each other" in err


class TestFilesOfThisMachine:
    """A dry run knows the URL under which the run submits a file, without a copy or an upload."""

    @pytest.fixture
    def folder(self, tmp_path, speech):
        for name in ("take 1.flac", "table/take 2.flac"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(speech.read_bytes() + name.encode())
        url = (tmp_path / "take 1.flac").as_uri()
        (tmp_path / "table" / "jobs.csv").write_text(HEAD + f"eva_a0008,{url},one\neva_a0008,take 2.flac,\n")
        return tmp_path

    @staticmethod
    def submitted(service, folder, url_of) -> None:
        """As if the run had been made."""
        service.poll_statuses = ["finished"]
        jobs = [
            a2v.Job("eva_a0008", url_of(folder / name), title)
            for name, title in (("take 1.flac", "one"), ("table/take 2.flac", None))
        ]
        videos = folder / "videos"
        with (
            a2v.A2V("token-1234", transport=service.transport()) as client,
            client.batch(jobs, save_to=videos, journal=videos / "a2v-batch.db") as batch,
        ):
            assert all(outcome.ok for outcome in batch)

    @staticmethod
    def check(here, folder, *options) -> None:
        before = sorted(folder.rglob("*"))
        for spelling in ("videos", "./videos/", "table/../videos", str(folder / "videos")):
            code, out, err = here("batch", "table/jobs.csv", "-o", spelling, "--quota", "0", "--dry-run", *options)
            assert (code, err) == (0, "")
            assert out.splitlines() == ["2 jobs: 2 done", "A run would submit 0 videos."]
        assert sorted(folder.rglob("*")) == before
        (folder / "table" / "take 2.flac").write_bytes(b"another take")
        _, out, _ = here("batch", "table/jobs.csv", "-o", "videos", "--dry-run", *options)
        assert out.splitlines() == ["2 jobs: 1 done, 1 not submitted", "A run would submit 1 video."]

    def test_local(self, here, service, folder) -> None:
        from a2v.cli.recordings import copied_path

        recordings = folder / "videos" / "a2v-engine" / "recordings"
        self.submitted(service, folder, lambda path: copied_path(path, recordings).as_uri())
        self.check(here, folder, "--local")

    def test_staged(self, here, service, folder, monkeypatch) -> None:
        store = pytest.importorskip("a2v.staging.store", exc_type=ImportError)
        from datetime import timedelta

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")

        def url_of(path):
            name = hashlib.sha256(path.read_bytes()).hexdigest() + ".flac"
            return store.ObjectStore("s3://bucket/prefix").sign(name, timedelta(seconds=60))

        self.submitted(service, folder, url_of)
        self.check(here, folder, "--stage-to", "s3://bucket/prefix", "--new-token")

    def test_a_file_that_cannot_be_read(self, here, service, folder) -> None:
        (folder / "table" / "take 2.flac").unlink()
        code, _, err = here("batch", "table/jobs.csv", "-o", "videos", "--local", "--dry-run")
        assert code == 2
        assert "take 2.flac" in err

    @pytest.mark.extended
    def test_after_a_run(self, here, folder) -> None:
        assert here("batch", "table/jobs.csv", "-o", "videos", "--local")[0] == 0
        self.check(here, folder, "--local")
