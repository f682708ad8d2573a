"""``a2v batch`` with a folder, files or a pattern, ``a2v manifest``, and the characters that a batch asks the server for."""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys

import pytest

from a2v import Job, read_manifest
from a2v.cli.batch_run import _problem
from a2v.cli.job_status import JobStatus
from a2v.testing import Reply

EVA = ("--model-id", "eva_a0008")


@pytest.fixture
def folder(tmp_path):
    """Recordings, and what lies around beside them."""
    (tmp_path / "recordings" / "old").mkdir(parents=True)
    for name in ("rec_02.wav", "Grüße.FLAC", "Lektion 1.mp3", ".hidden.wav", "notes.txt"):
        (tmp_path / "recordings" / name).write_bytes(b"sound of " + name.encode())
    return tmp_path / "recordings"


NAMES = ["Grüße", "Lektion 1", "rec_02"]


class TestWhatIsABatch:
    @pytest.mark.parametrize(
        "sources",
        [
            ["recordings"],
            ["recordings/*.[wfmFWM]*"],
            ["recordings/rec_02.wav", "recordings"],
            ["recordings/Grüße.FLAC", "recordings/Lektion 1.mp3", "recordings/rec_02.wav"],
        ],
    )
    def test_names_come_from_the_files(self, here, folder, sources) -> None:
        code, out, err = here("batch", *sources, *EVA, "-o", "v", "--local", "--dry-run")
        assert (code, out.splitlines()[-1]) == (0, "A run would submit 3 videos.")
        told = "a2v: recordings: skipped (not recordings): notes.txt, old/\n"
        assert err == (told if "recordings" in sources else "")
        assert not (folder.parent / "v").exists()

    def test_is_rendered_and_continued(self, here, tmp_path, speech) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "my speech.flac").write_bytes(speech.read_bytes())
        command = ("batch", "in", "--model-id", "Eva 01", "-o", "out", "--local")
        code, out, err = here(*command)
        assert (code, err) == (0, "")
        assert out.splitlines()[0].split("\t")[:3] == ["-", "my speech", "done"]
        assert (tmp_path / "out" / "my speech.mp4").read_bytes()[4:8] == b"ftyp"
        # No second copies of videos and recordings.
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "a2v-batch.db",
            "a2v-batch.db.lock",
            "my speech.mp4",
        ]
        (tmp_path / "in" / "new.flac").write_bytes(speech.read_bytes())
        _, out, _ = here(*command, "--dry-run")
        assert out.splitlines() == ["2 jobs: 1 done, 1 not submitted", "A run would submit 1 video."]
        assert "the recordings my speech and new are identical" in here(*command, "--dry-run")[2]

    def test_recordings_of_a_pose(self, here, folder) -> None:
        pose = ("--pose-id", "eva_a0008_close", "--with-mask")
        code, _, err = here("batch", "recordings", *pose, "-o", "v", "--local", "--dry-run")
        assert code == 2
        assert err.splitlines()[0].startswith(
            "a2v: --pose-id: there is no pose 'eva_a0008_close'; did you mean 'eva_a0008"
        )
        pose = ("--pose-id", re.search(r"did you mean '(.*?)'", err)[1])
        assert here("batch", "recordings", *pose, "--with-mask", "-o", "v", "--local", "--dry-run")[0] == 0

    def test_unknown_characters_are_reported_without_an_engine(self, here, folder, monkeypatch) -> None:
        monkeypatch.setattr("a2v.engine.server.LocalEngine._start", None)
        code, _, err = here("batch", "recordings", "--model-id", "Evi 01", "-o", "v", "--local")
        assert (code, "did you mean 'eva_a0008'?" in err) == (2, True)
        assert here("batch", "recordings", "--model-id", "Eva 01", "-o", "v", "--local", "--dry-run")[0] == 0
        code, _, err = here("batch", "recordings", *EVA, "-o", "v", "--local", "--characters", "nowhere")
        assert (code, "nowhere" in err) == (2, True)
        assert not (folder.parent / "v").exists()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ((), "batch needs a table (.csv, .jsonl, .json or .xlsx), or a folder or files of recordings"),
            (("recordings",), "choose who speaks 3 recordings: add --model-id"),
            (("recordings/old", *EVA), "there are no recordings in recordings/old; subfolders are not searched"),
            (("nowhere", *EVA), "there is no file or folder nowhere"),
            (("re\\x", *EVA), "folders are separated by / on this machine"),
            (("*.wav", *EVA), "no file matches the pattern *.wav"),
            (("https://x/1.wav", *EVA), "is a URL; list URLs in a table"),
            (("jobs.csv", *EVA), "the rows of a table say who speaks: remove --model-id eva_a0008"),
            (("jobs.csv", "recordings"), "a batch is one table or any number of recordings"),
            (
                ("recordings", "--model-id", "Evi 01"),
                "--model-id: there is no character 'Evi 01'; did you mean 'eva_a0008'?",
            ),
        ],
    )
    def test_what_is_none(self, here, folder, arguments, told) -> None:
        code, out, err = here("batch", *arguments, "-o", "v", "--local")
        assert (code, out) == (2, "")
        assert told in err
        assert not (folder.parent / "v").exists()

    def test_the_videos_do_not_become_recordings(self, here, folder) -> None:
        code, _, err = here("batch", "recordings", *EVA, "-o", "recordings/../recordings", "--local")
        assert (code, "--output: recordings" in err, "choose another folder" in err) == (2, True, True)

    def test_two_recordings_of_one_name(self, here, folder) -> None:
        (folder / "Rec_02.mp3").touch()
        code, _, err = here("batch", "recordings", *EVA, "-o", "v", "--local")
        assert code == 2
        assert err.splitlines()[:2] == [
            "a2v: the batch has 1 fault:",
            "  recordings/rec_02.wav: it has the same name as recordings/Rec_02.mp3, and so would their videos: rename one",
        ]

    def test_files_that_the_server_cannot_reach(self, here, folder, monkeypatch) -> None:
        """The hosted service, which is not asked: there is no token."""
        for name in ("A2V_BASE_URL", "A2V_TOKEN"):
            monkeypatch.delenv(name)
        code, _, err = here("batch", "recordings", *EVA, "-o", "v")
        lines = err.splitlines()
        assert (code, len(lines)) == (2, 5)
        assert lines[1] == "  recordings/Grüße.FLAC: it is a file on this machine, and the server can only fetch URLs"
        assert lines[-1].startswith("Add --local to render on this machine, or --stage-to s3://BUCKET/PREFIX")

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--quota", "2"], "would submit 3 videos, and the quota is 2"),
            (["--same-recordings", "--new-recordings"], "exclude each other"),
        ],
    )
    def test_a_batch_that_does_not_begin_leaves_nothing(self, here, folder, options, told) -> None:
        picture = folder / "sky.png"
        picture.touch()
        looks = ("--background", str(picture))
        code, _, err = here("batch", "recordings", *EVA, "-o", "v", "--local", *looks, *options)
        assert (code, told in err) == (2, True)
        assert not (folder.parent / "v").exists()

    def test_an_unknown_recording_is_named(self) -> None:
        """It has no row."""
        job = JobStatus(row=None, name="take 1", state="unknown", job=Job("m", "https://x/a"), source="")
        problem = _problem([job], "  a2v batch in")
        assert str(problem) == "1 of 1 job may or may not have been accepted:"
        assert problem.__notes__[1:] == [
            "To submit one again, although it may be paid for twice, give its name:",
            "  a2v batch in --resubmit-unknown NAME",
        ]

    def test_an_unknown_job_is_resubmitted_by_name(self, here, folder) -> None:
        command = ("batch", "recordings", *EVA, "-o", "v", "--local", "--dry-run", "--resubmit-unknown")
        assert here(*command, "Lektion 1,Grüße")[0] == 0
        code, _, err = here(*command, "Lektion 2")
        assert (code, "--resubmit-unknown: Lektion, 2 is no row and no name" in err) == (2, True)

    @pytest.mark.skipif(sys.platform == "win32", reason="no such names on Windows")
    def test_a_name_that_no_video_can_have_is_reported_once(self, here, folder) -> None:
        for name in ("two\nlines.wav", "zero\u200bwidth.wav", "non\xa0breaking.wav"):
            (folder / name).write_bytes(b"sound of " + name.encode())
        code, _, err = here("batch", "recordings", *EVA, "-o", "v", "--local")
        assert (code, err.splitlines()[:-1]) == (
            2,
            [
                "a2v: the batch has 3 faults:",
                "  recordings/non\xa0breaking.wav: it contains '\\xa0' (U+00A0 NO-BREAK SPACE, character 15): rename it",
                "  recordings/two\\x0alines.wav: it contains '\\x0a' (U+000A, character 15): rename it",
            ],
        )


class TestTables:
    def test_round_trip(self, a2v, folder, tmp_path) -> None:
        done = a2v("manifest", "recordings", *EVA, process=True)
        assert done.returncode == 0
        # For Excel, because there is an umlaut in it.
        assert done.stdout.startswith("\ufeffaudio_url,model_id,name")
        (tmp_path / "jobs.csv").write_text(done.stdout, newline="")
        jobs = read_manifest(tmp_path / "jobs.csv", resolve=lambda cell: (tmp_path / cell).as_uri())
        assert [(job.name, job.model_id) for job in jobs] == [(name, "eva_a0008") for name in NAMES]
        dry = a2v("batch", "jobs.csv", "-o", "v", "--local", "--dry-run")
        assert (dry.returncode, dry.stdout.splitlines()[-1]) == (0, "A run would submit 3 videos.")

    def test_a_file_elsewhere(self, here, folder, tmp_path) -> None:
        (folder / "=1+1.wav").touch()
        (tmp_path / "tables").mkdir()
        assert here("manifest", "recordings", "-o", "tables/jobs.csv")[0] == 0
        data = (tmp_path / "tables" / "jobs.csv").read_bytes()
        assert data.startswith(codecs.BOM_UTF8)
        rows = list(csv.DictReader(data.decode("utf-8-sig").splitlines()))
        assert rows[0] == {"audio_url": "../recordings/=1+1.wav", "model_id": "", "name": "=1+1"}
        code, _, err = here("manifest", "recordings", "-o", "tables/jobs.csv")
        assert (code, "add --overwrite" in err) == (2, True)
        assert here("manifest", "recordings/=*", "-o", "recordings/jobs.csv", "--pose-id", "p")[0] == 0
        assert (folder / "jobs.csv").read_text() == "audio_url,pose_id,name\n./=1+1.wav,p,=1+1\n"

    def test_json(self, a2v, folder) -> None:
        done = a2v("manifest", "recordings", "--json", process=True)
        assert [row["name"] for row in json.loads(done.stdout)] == NAMES
        assert done.stderr == "a2v: recordings: skipped (not recordings): notes.txt, old/\n"

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ((), "manifest needs a folder or files"),
            (("jobs.csv",), "jobs.csv is a table already"),
            (("recordings", "-o", "jobs.xlsx"), "must end in .csv"),
            (("recordings", "-o", "jobs.csv", "--json"), "must end in .json"),
            (("recordings", "-o", "nowhere/jobs.csv"), "cannot be written: No such file or directory"),
        ],
    )
    def test_what_cannot_be_written(self, here, folder, arguments, told) -> None:
        code, out, err = here("manifest", *arguments)
        assert (code, out) == (2, "")
        assert told in err


def test_a_misspelled_header_is_noticed(here, service, tmp_path) -> None:
    (tmp_path / "jobs.csv").write_text("naem,customer,file,character\none,acme,https://x/1.wav,leo\n")
    code, out, err = here("batch", "jobs.csv", "-o", "v", "--dry-run", "--json")
    assert (code, err) == (0, "a2v: jobs.csv: a2v does not use the column 'naem'; did you mean 'name'?\n")
    assert json.loads(out) == {"jobs": {"not submitted": 1}, "submissions": 1, "speeches": 0, "refusals": []}


class TestCharacters:
    TABLE = "file,character,name\nhttps://x/1.wav,{},one\n,leo,two\n"

    def test_unknown_characters_are_reported_with_the_other_errors(self, here, service, tmp_path) -> None:
        (tmp_path / "jobs.csv").write_text(self.TABLE.format("lea"))
        for options in ([], ["--dry-run"]):
            code, _, err = here("batch", "jobs.csv", "-o", "v", *options)
            assert code == 2
            assert err.splitlines()[1:] == [
                "  row 2, character: there is no character 'lea'; did you mean 'leo'?",
                "  row 3, file: it is missing or empty",
            ]
        assert service.submissions == ()

    def test_those_that_the_server_accepted_are_not_asked_for(self, here, service, tmp_path) -> None:
        service.poll_statuses = ["finished"]
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,leo\n")
        assert here("batch", "jobs.csv", "-o", "v")[0] == 0
        asked = len(service.seen("character.list"))
        service.refuse("character.list", 503, "down", times=None)
        assert here("batch", "jobs.csv", "-o", "v")[0] == 0
        assert (asked, len(service.seen("character.list"))) == (1, 1)

    def test_a_server_that_cannot_be_asked(self, here, service, tmp_path, monkeypatch) -> None:
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,nobody\n")
        service.refuse("character.list", 401, "bad token", times=None)
        code, _, err = here("batch", "jobs.csv", "-o", "v")
        assert (code, "bad token" in err) == (1, True)
        code, _, err = here("batch", "jobs.csv", "-o", "v", "--dry-run")
        assert (code, err.startswith("a2v: the characters were not checked: bad token")) == (0, True)
        monkeypatch.delenv("A2V_TOKEN")
        code, _, err = here("batch", "jobs.csv", "-o", "v", "--dry-run")
        assert (code, err.startswith("a2v: the characters were not checked: no token")) == (0, True)
        code, _, err = here("batch", "jobs.csv", "-o", "v")
        assert (code, err.startswith("a2v: no token")) == (2, True)
        assert service.submissions == ()

    def test_the_token_on_standard_input_is_read_once(self, a2v, service, tmp_path) -> None:
        service.poll_statuses = ["finished"]
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,leo\n")
        for options in (["--dry-run"], []):
            done = a2v("batch", "jobs.csv", "-o", "v", "--token-file", "-", *options, input="from-stdin\n")
            assert done.returncode == 0
        assert {call.headers["authorization"] for call in service.seen("character.list")} == {"Bearer from-stdin"}

    def test_a_server_without_the_method(self, here, service, tmp_path) -> None:
        service.poll_statuses = ["finished"]
        service.characters = None  # any character is accepted
        service.reply("character.list", Reply(404, b"{}"), times=None)
        (tmp_path / "jobs.csv").write_text("file,character\nhttps://x/1.wav,nobody\n")
        assert here("batch", "jobs.csv", "-o", "v")[0] == 0
