"""``a2v batch`` and ``a2v journal``, in real processes: interrupted, killed, continued, and what each prints and writes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import anyio
import httpx
import pytest

from a2v import read_journal
from a2v.testing import Reply
from tests.sets import one_by_default

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

HEAD = "model_id,audio_url,name,customer\n"


def rows_of(count: int) -> str:
    return HEAD + "".join(f"eva,https://example.com/{number}.wav,,c{number}\n" for number in range(1, count + 1))


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


@pytest.fixture
def manifest(tmp_path):
    """Write the manifest ``jobs.csv``."""

    def write(content, name="jobs.csv"):
        (tmp_path / name).write_text(content)

    write(rows_of(3))
    return write


def arrived(service) -> list[dict]:
    """What was submitted, whether or not it was accepted."""
    return [json.loads(call.body) for call in service.seen("video.generate")]


@pytest.fixture
def rendering(service):
    """A service that renders: by what stands in the name of the recording, or at once."""
    service.lists_videos = False
    service.slow = ["pending"]

    def generate(_):
        submit = arrived(service)[-1]
        first = arrived(service).count(submit) == 1
        if "refused" in submit["audio_url"]:
            return Reply.refusal(400, "\x1b[31mnot a recording of ours")
        if "lost" in submit["audio_url"] and first:
            raise httpx.RemoteProtocolError("gone")
        if "silent" in submit["audio_url"] and first:
            service.fail("=no speech\u202e")
        service.poll_statuses = service.slow if "slow" in submit["audio_url"] else ["finished"]
        return None

    service.reply("video.generate", generate, times=None)
    return service


def finish(service) -> None:
    """Let all that is under way come to its end."""
    service.slow[:] = ["finished"]


BATCH = ["batch", "jobs.csv", "-o", "videos"]


@pytest.fixture
def ran(here):
    """Run a command in this process, which is much faster."""

    def ran(*arguments):
        return SimpleNamespace(**dict(zip(("returncode", "stdout", "stderr"), here(*arguments), strict=True)))

    return ran


class TestOutcomes:
    def test_all_are_saved_and_the_same_again_does_nothing(self, ran, rendering, manifest, tmp_path) -> None:
        first, second = ran(*BATCH), ran(*BATCH)

        assert (first.returncode, first.stderr) == (0, "")
        videos = tmp_path / "videos"
        saved = [[str(n + 1), f"{n:04d}", "done", f"v{n}", str(videos / f"{n:04d}.mp4")] for n in (1, 2, 3)]
        assert sorted(lines(first.stdout)[:-1]) == saved
        assert first.stdout.splitlines()[-1].split(" · ")[0] == "3 done"
        assert [submit["audio_url"][-5:] for submit in arrived(rendering)] == ["1.wav", "2.wav", "3.wav"]
        assert (videos / "0002.mp4").read_bytes() == b"video of v2"
        assert (second.returncode, second.stderr) == (0, "")
        assert re.fullmatch(r"3 done · 3 of them by earlier runs · \d+ s · videos in videos\n", second.stdout)
        repeated = ran(*BATCH, "--repeat")
        assert sorted(lines(repeated.stdout)[:-1]) == saved
        assert len(arrived(rendering)) == 3

    def test_failed_jobs_are_listed_with_their_reason_and_can_be_resubmitted(self, ran, rendering, manifest) -> None:
        manifest(HEAD + "eva,https://x/1.wav,one,\neva,https://x/silent.wav,two,\neva,https://x/refused.wav,three,\n")

        done = ran(*BATCH)

        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].split(" · ")[0] == "1 done, 2 failed"
        told = done.stderr.splitlines()
        assert told[0] == "a2v: 2 of 3 jobs are not done:"
        assert told[1].startswith("  row 3 (two)  failed  video v2 failed: ")
        assert told[1].endswith("=no speech\\u202e")
        assert told[2].startswith("  row 4 (three)  rejected  \\x1b[31mnot a recording of ours")
        assert told[3:] == [
            "Correct what the reasons above name, then submit the failed and rejected jobs again:",
            "  a2v batch jobs.csv -o videos --resubmit-failed",
        ]
        # The same again neither pays again nor forgets.
        assert (ran(*BATCH).returncode, len(arrived(rendering))) == (1, 3)
        again = ran(*BATCH, "--resubmit-failed")
        assert (again.returncode, again.stdout.splitlines()[-1].split(" · ")[0]) == (1, "2 done, 1 failed")

    @pytest.mark.parametrize(
        ("recordings", "told"),
        [
            ("silent", "a2v: 1 of 1 job is not done:"),
            ("one silent", "a2v: 1 of 2 jobs is not done:"),
            ("one silent refused", "a2v: 2 of 3 jobs are not done:"),
            ("lost", "a2v: 1 of 1 job may or may not have been accepted:"),
            ("lost silent", "a2v: 1 of 2 jobs may or may not have been accepted, 1 more is not done:"),
            ("lost silent refused", "a2v: 1 of 3 jobs may or may not have been accepted, 2 more are not done:"),
        ],
    )
    def test_messages_use_singular_and_plural(self, ran, rendering, manifest, recordings, told) -> None:
        manifest(HEAD + "".join(f"eva,https://x/{name}.wav,,\n" for name in recordings.split()))

        assert ran(*BATCH).stderr.splitlines()[0] == told

    def test_what_may_have_been_accepted_is_unknown_until_the_user_decides(self, ran, rendering, manifest) -> None:
        manifest(HEAD + "eva,https://x/1.wav,,\neva,https://x/lost.wav,,\neva,https://x/3.wav,,\n")

        done = ran(*BATCH)

        assert done.returncode == 3
        assert done.stdout.splitlines()[-1].split(" · ")[0] == "2 done, 1 unknown"
        told = done.stderr.splitlines()
        assert told[0] == "a2v: 1 of 3 jobs may or may not have been accepted:"
        assert told[1].startswith("  row 3 (0002)  unknown  ")
        assert told[2:] == [
            "To submit one again, although it may be paid for twice, name its row:",
            "  a2v batch jobs.csv -o videos --resubmit-unknown ROW",
        ]
        assert ran(*BATCH).returncode == 3
        assert ran(*BATCH, "--resubmit-unknown", "1").returncode == 2
        assert len(arrived(rendering)) == 3
        assert ran(*BATCH, "--resubmit-unknown", "2,3").returncode == 0
        assert len(arrived(rendering)) == 4

    def test_all_that_is_unknown_at_once(self, ran, rendering, manifest) -> None:
        manifest(HEAD + "eva,https://x/lost.wav,,\n")
        assert ran(*BATCH).returncode == 3
        assert ran(*BATCH, "--resubmit-unknown", "all").returncode == 0

    def test_json(self, ran, rendering, manifest) -> None:
        manifest(HEAD + "eva,https://x/1.wav?signature=secret,one,acme\n")

        done = ran(*BATCH, "--json")

        (one,) = map(json.loads, done.stdout.splitlines())
        path = one.pop("path")
        assert path.endswith("one.mp4")
        assert one == {
            "row": 2,
            "name": "one",
            "state": "done",
            "video_id": "v1",
            "error": None,
            "model_id": "eva",
            "pose_id": None,
            "audio_url": "https://x/1.wav",
            "with_mask": False,
            "extra": {"customer": "acme"},
        }

    def test_identical_rows_are_warned_about(self, ran, rendering, manifest) -> None:
        row = "eva,https://x/1.wav,{},\n"
        manifest(HEAD + row.format("a") + row.format("b") + row.format("c"))

        done = ran(*BATCH)

        assert done.returncode == 0
        assert done.stderr == "a2v: rows 2, 3 and 4 are identical: 3 videos, each paid for\n"
        assert len(arrived(rendering)) == 3

    def test_a_changed_manifest_adds_new_jobs_and_reports_removed_ones(self, ran, rendering, manifest) -> None:
        ran(*BATCH)
        manifest(HEAD + "eva,https://example.com/2.wav,0002,\nleo,https://example.com/9.wav,new,\n")

        done = ran(*BATCH)

        assert done.returncode == 0
        told, _, named = done.stderr.strip().rpartition(": ")
        assert told == "a2v: in the journal but no longer in the manifest: 2 jobs, left unchanged"
        assert sorted(named.split(", ")) == ["0001", "0003"]
        assert [submit["model_id"] for submit in arrived(rendering)] == ["eva"] * 3 + ["leo"]


class TestBeforeTheFirstRequest:
    def test_recordings_that_cannot_be_kept_for_the_engine(self, ran, manifest, tmp_path, speech) -> None:
        (tmp_path / "videos/a2v-engine").mkdir(parents=True)
        (tmp_path / "videos/a2v-engine/recordings").write_text("in the way")
        manifest(HEAD + f"eva_a0008,{speech},,\n")

        done = ran(*BATCH, "--local")

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"a2v: {speech} cannot be copied to ")

    def test_all_faults_of_a_manifest(self, ran, service, manifest, tmp_path) -> None:
        manifest("model_id,audio_url\n" + "eva,\n" * 12 + "eva,missing.wav\n")

        done = ran(*BATCH)

        told = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (2, "")
        assert told[0] == "a2v: the manifest jobs.csv has 13 faults:"
        assert told[12] == "  row 13, audio_url: it is missing or empty"
        assert told[13].startswith("  row 14, audio_url: '")
        assert "is neither a URL (https://…) nor a file that exists" in told[13]
        assert told[14:] == [f"Paths in the table are relative to its folder, {tmp_path}"]
        assert service.submissions == ()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["batch", "missing.csv", "-o", "v"], "the manifest missing.csv cannot be read: No such file"),
            (["batch", "jobs.csv"], "--output"),
            ([*BATCH, "--report", "report.txt"], "must end in .csv or .json"),
            ([*BATCH, "--report", "nowhere/report.csv"], "not a file in an existing folder"),
            ([*BATCH, "--max-in-flight", "0"], "max-in-flight"),
            ([*BATCH, "--quota", "2"], "--limit 2"),
            ([*BATCH, "--dry-run", "--quota", "2"], "would submit 3 videos, and the quota is 2"),
            ([*BATCH, "--journal", "jobs.csv"], "jobs.csv"),
            (["journal", "missing.db"], "missing.db"),
            (["journal", "jobs.csv"], "jobs.csv"),
        ],
    )
    def test_invalid_arguments_are_refused(self, ran, service, manifest, arguments, told) -> None:
        done = ran(*arguments)

        assert done.returncode == 2
        assert told in done.stderr
        assert service.submissions == ()

    def test_a_dry_run_sends_and_leaves_nothing(self, ran, rendering, manifest, tmp_path) -> None:
        done = ran(*BATCH, "--dry-run", "--limit", "2")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["3 jobs: 0 done, 3 not submitted", "A run would submit 2 videos."]
        assert [call.name for call in rendering.calls] == ["character.list"]
        assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]

    def test_a_dry_run_knows_what_the_journal_knows(self, ran, rendering, manifest) -> None:
        good = "eva,https://x/1.wav?a=b,one,\neva,https://x/silent.wav,two,\n"
        manifest(HEAD + good + "eva,https://x/lost.wav,three,\n")
        ran(*BATCH)
        manifest(HEAD + good + "eva,https://x/new.wav,new,\neva,https://x/lost.wav,three,\n")

        told = "4 jobs: 1 done, 1 failed, 1 unknown, 1 not submitted"
        for options, submits in [
            ([], "1 video"),
            (["--resubmit-failed"], "2 videos"),
            (["--resubmit-unknown", "5"], "2 videos"),
            (["--resubmit-unknown", "2"], "1 video"),
            (["--resubmit-unknown", "all", "--resubmit-failed", "--quota", "3"], "3 videos"),
        ]:
            done = ran(*BATCH, "--dry-run", *options)
            assert done.stdout.splitlines() == [told, f"A run would submit {submits}."]
        assert len(arrived(rendering)) == 3

    def test_a_limit_leaves_the_rest_for_later(self, ran, rendering, manifest) -> None:
        done = ran(*BATCH, "--limit", "2", "--quota", "2")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1].split(" · ")[0] == "2 done, 1 not submitted"
        assert ran(*BATCH).stdout.splitlines()[-1].split(" · ")[0] == "3 done"
        assert len(arrived(rendering)) == 3

    def test_a_new_token_must_be_said_to_be_one(self, ran, rendering, manifest, monkeypatch) -> None:
        ran(*BATCH, "--limit", "1")
        monkeypatch.setenv("A2V_TOKEN", "another-token")

        done = ran(*BATCH)

        assert done.returncode == 2
        assert "--new-token" in done.stderr
        assert len(arrived(rendering)) == 1
        assert ran(*BATCH, "--new-token").returncode == 0


class TestReports:
    @pytest.fixture
    def mixed(self, rendering, manifest) -> None:
        manifest(
            "model_id,audio_url,name,=x,state,balance\n"
            "eva,https://x/1.wav?signature=secret,one,=1+1,+49 30,-5.5\n"
            "eva,https://x/silent.wav,two,@cmd,plain,+3\n"
        )

    def test_csv(self, ran, mixed, tmp_path) -> None:
        assert ran(*BATCH, "--report", "report.csv").returncode == 1

        data = (tmp_path / "report.csv").read_bytes()
        assert data.startswith(b"\xef\xbb\xbfrow,name,state,")
        one, two = csv.DictReader(data.decode("utf-8-sig").splitlines())
        assert one == {
            "row": "2",
            "name": "one",
            "state": "done",
            "video_id": "v1",
            "path": str(tmp_path / "videos" / "one.mp4"),
            "error": "",
            "model_id": "eva",
            "pose_id": "",
            "audio_url": "https://x/1.wav",
            "with_mask": "False",
            # A spreadsheet would run these; the numbers are harmless.
            "'=x": "'=1+1",
            "state (manifest)": "'+49 30",
            "balance": "-5.5",
        }
        assert (two["state"], two["'=x"], two["balance"]) == ("failed", "'@cmd", "+3")
        assert two["error"].endswith("=no speech\\u202e")

    def test_json(self, ran, mixed, tmp_path) -> None:
        ran(*BATCH, "--report", "report.json")

        one, two = json.loads((tmp_path / "report.json").read_text())
        assert (one["state"], one["extra"]) == ("done", {"=x": "=1+1", "state": "+49 30", "balance": "-5.5"})
        assert two["error"].endswith("=no speech\\u202e")

    def test_a_report_that_cannot_be_written_is_reported_with_the_other_problems(
        self, ran, rendering, manifest, tmp_path
    ) -> None:
        (tmp_path / "reports").mkdir()
        rendering.reply("video.get", lambda _: (tmp_path / "reports").rmdir())

        done = ran(*BATCH, "--report", "reports/report.csv")

        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].split(" · ")[0] == "3 done"
        assert "the report reports/report.csv cannot be written: No such file or directory" in done.stderr


class TestJournals:
    def test_is_read_while_a_batch_works(self, a2v, started, rendering, manifest) -> None:
        manifest(HEAD + "eva,https://x/1.wav,one,\neva,https://x/slow.wav?signature=secret,,\n")
        with started(*BATCH) as process:
            assert process.stdout.readline().startswith("2\tone\tdone\t")
            until(lambda: len(arrived(rendering)) == 2)
            plain, machine = a2v("journal", "videos/a2v-batch.db"), a2v("journal", "videos/a2v-batch.db", "--json")

        assert (plain.returncode, machine.returncode) == (0, 0)
        one, two = lines(plain.stdout)
        assert one[:3] == ["one", "done", "v1"]
        assert one[3].endswith("videos/one.mp4")
        assert two[0] == "https://x/slow.wav"
        assert two[1] in ("submitting", "submitted")
        assert plain.stderr.startswith("2 jobs: 1 done, 1 ")
        assert [entry["state"] for entry in json.loads(machine.stdout)] == ["done", two[1]]

    def test_has_one_writer(self, a2v, started, rendering, manifest) -> None:
        manifest(HEAD + "eva,https://x/slow.wav,two,\n")
        with started(*BATCH):
            until(lambda: arrived(rendering))
            second = a2v(*BATCH)

        assert second.returncode == 2
        assert "a2v-batch.db" in second.stderr
        assert len(arrived(rendering)) == 1


def states(folder) -> list[str]:
    return [str(entry.state) for entry in read_journal(folder / "videos" / "a2v-batch.db")]


def until(condition) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@posix
class TestInterruptions:
    @pytest.fixture
    def slow(self, rendering, manifest):
        manifest(HEAD + "eva,https://x/1.wav,,\neva,https://x/slow2.wav,,\neva,https://x/3.wav,,\n")
        return rendering

    @pytest.mark.parametrize("number", one_by_default(signal.SIGINT, signal.SIGTERM))
    def test_ctrl_c_prints_the_command_that_continues_and_it_does(self, a2v, started, slow, number, tmp_path) -> None:
        command = [*BATCH, "--max-in-flight", "1", "--report", "report.json"]
        with started(*command) as process:
            assert process.stdout.readline().startswith("2\t0001\tdone\t")
            until(lambda: len(slow.submissions) == 2)
            until(lambda: states(tmp_path)[1] == "submitted")
            process.send_signal(number)
            output, errors = process.communicate(timeout=30)

        assert (process.returncode, output) == (130, "")
        assert errors.splitlines() == [
            "a2v: interrupted: 1 done, 1 in progress, 1 not submitted",
            "Unfinished renders continue on the server.",
            "The state of each job is saved in videos/a2v-batch.db. Continue with:",
            "  a2v batch jobs.csv -o videos --max-in-flight 1 --report report.json",
        ]
        assert [one["state"] for one in json.loads((tmp_path / "report.json").read_text())] == [
            "done",
            "submitted",
            "pending",
        ]
        finish(slow)
        assert a2v(*command).returncode == 0
        assert len(arrived(slow)) == 3

    def test_a_second_ctrl_c_ends_it_at_once_and_loses_nothing(self, a2v, started, slow) -> None:
        with started(*BATCH) as process:
            process.stdout.readline()
            until(lambda: len(slow.submissions) == 3)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)

        assert process.returncode == 130
        finish(slow)
        # The last one may have been interrupted before its answer came.
        assert a2v(*BATCH).returncode in (0, 3)
        assert len(arrived(slow)) == 3

    def test_ctrl_c_during_a_submission(self, a2v, started, service, manifest) -> None:
        held = threading.Event()

        async def hold(_):
            held.set()
            await anyio.sleep_forever()

        service.reply("video.generate", hold)
        with started(*BATCH) as process:
            assert held.wait(30)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)

        assert process.returncode == 130
        assert errors.splitlines()[:2] == [
            "a2v: interrupted: 0 done, 1 unknown, 2 not submitted",
            "The unknown submission was in flight: it may or may not have been accepted.",
        ]
        assert len(arrived(service)) == 1

    def test_the_same_command_continues_after_kill_9(self, a2v, started, slow, tmp_path) -> None:
        with started(*BATCH) as process:
            process.stdout.readline()
            until(lambda: len(slow.submissions) == 3)
            until(lambda: states(tmp_path) == ["done", "submitted", "done"])
            process.kill()
            process.communicate()

        finish(slow)
        assert a2v(*BATCH).returncode == 0
        assert len(arrived(slow)) == 3
        assert len(list((tmp_path / "videos").glob("*.mp4"))) == 3


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (5400, "1 h 30 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_spans_of_time(seconds, shown) -> None:
    from a2v.cli.terminal import duration

    assert duration(seconds) == shown


class TestLocal:
    def test_recordings_beside_the_manifest_are_rendered_and_an_interruption_costs_nothing(
        self, a2v, started, environment, tmp_path, speech
    ) -> None:
        del environment["A2V_TOKEN"]
        table = tmp_path / "table"
        table.mkdir()
        (table / "my speech.flac").write_bytes(speech.read_bytes())
        (table / "jobs.csv").write_text(
            "model_id;audio_url;name\neva_a0008;my speech.flac;eva\nleo_a0047;my speech.flac;leo\n"
        )
        command = ["batch", "table/jobs.csv", "-o", "videos", "--local", "--max-in-flight", "1"]

        with started(*command) as process:
            assert process.stdout.readline().startswith("2\teva\tdone\t")
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)

        told = errors.splitlines()
        assert process.returncode == 130
        assert told[0].startswith("a2v: interrupted: 1 done, 1 ")
        assert told[-1] == "  a2v batch table/jobs.csv -o videos --max-in-flight 1 --local"
        done = a2v(*command)
        assert done.returncode == 0, done.stderr
        assert [path.stem for path in sorted((tmp_path / "videos").glob("*.mp4"))] == ["eva", "leo"]
        assert all(path.read_bytes()[4:8] == b"ftyp" for path in (tmp_path / "videos").glob("*.mp4"))


def test_a_video_that_the_server_no_longer_has_is_lost(a2v, service, tmp_path) -> None:
    (tmp_path / "jobs.csv").write_text(HEAD + "eva,https://x/1.wav,one,\n")
    service.poll_statuses = ["pending"]
    assert a2v(*BATCH, "--render-timeout", "0.2").returncode == 1
    with closing(sqlite3.connect(tmp_path / "videos" / "a2v-batch.db", isolation_level=None)) as db:
        db.execute("UPDATE items SET state = 'lost'")  # as after two minutes without it
    service.reply("video.get", Reply(404, b'{"code": 10001, "message": "file not found", "data": null}'), times=None)

    ran = a2v(*BATCH)

    assert ran.returncode == 1
    assert ran.stdout.splitlines()[0].split("\t")[:4] == ["2", "one", "lost", "v1"]
    assert ran.stdout.splitlines()[-1].split(" · ")[0] == "0 done, 1 lost"
    assert "To submit the jobs again whose video the server no longer has:" in ran.stderr
    shown = a2v("journal", "videos/a2v-batch.db")
    assert lines(shown.stdout)[0][:3] == ["one", "lost", "v1"]
    assert len(service.submissions) == 1


def test_a_video_that_takes_too_long_is_still_in_progress(a2v, service, tmp_path) -> None:
    (tmp_path / "jobs.csv").write_text(HEAD + "eva,https://x/1.wav,one,\n")
    service.poll_statuses = statuses = ["pending"]

    ran = a2v(*BATCH, "--render-timeout", "0.2")

    assert ran.returncode == 1
    assert ran.stdout.splitlines()[0].split("\t")[:4] == ["2", "one", "submitted", "v1"]
    assert ran.stdout.splitlines()[-1].split(" · ")[0] == "0 done, 1 in progress"
    assert "  a2v batch jobs.csv -o videos --render-timeout 0.2" in ran.stderr.splitlines()
    statuses[:] = ["finished"]  # of the same video
    assert a2v(*BATCH, "--render-timeout", "none").returncode == 0
    assert len(service.submissions) == 1


def test_a_changed_recording_is_reported_with_the_option_that_helps(a2v, service, tmp_path) -> None:
    (tmp_path / "jobs.csv").write_text(HEAD + "eva,https://x/1.wav,one,\n")
    assert a2v(*BATCH).returncode == 0
    (tmp_path / "jobs.csv").write_text(HEAD + "eva,https://x/changed.wav,one,\neva,https://x/2.wav,two,\n")

    ran = a2v(*BATCH)

    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-2:] == [
        "To replace the files named above (changed jobs are rendered again and paid for):",
        "  a2v batch jobs.csv -o videos --overwrite",
    ]
    assert a2v(*BATCH, "--overwrite").returncode == 0
    assert len(service.submissions) == 3
