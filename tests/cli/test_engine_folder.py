"""What the local engine of a batch keeps: only what unfinished jobs need."""

from __future__ import annotations

import wave

import pytest

from a2v import Job, JobState, JournalEntry
from a2v.cli.engine_folder import remove_copies

ENDED, OPEN = [JobState.DONE, JobState.FAILED, JobState.REJECTED], [JobState.SUBMITTED, JobState.LOST, JobState.UNKNOWN]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a2v-engine"


@pytest.fixture
def entries(folder):
    """Make the entries of a journal, with a recording and a task each."""
    from a2v.engine.task_store import TaskStore

    def make(*states, prefix="take"):
        for name in ("recordings", "videos"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        found = []
        with TaskStore(folder / "tasks.sqlite3") as store:
            for number, state in enumerate(states):
                path = folder / "recordings" / f"{prefix} {number}.wav"
                path.touch()
                job = Job("eva_a0008", path.as_uri())
                video_id = store.add(job).video_id
                (folder / "videos" / f"{video_id}.mp4").touch()
                (folder / "videos" / f"{video_id}.mask.mp4").touch()
                (folder / "videos" / f"{video_id}.vtt").touch()
                found.append(JournalEntry(job=job, state=state, video_id=video_id))
        return found

    return make


def test_the_folder_is_removed_with_the_last_job(folder, entries) -> None:
    remove_copies(folder, entries(*ENDED))
    assert not folder.exists()
    remove_copies(folder, [])


def test_files_of_others_are_left_alone(folder, entries) -> None:
    found = entries(*ENDED)
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").touch()
    remove_copies(folder, found)
    assert [path.name for path in folder.rglob("*")] == ["notes", "a.txt"]


def test_unfinished_jobs_keep_what_they_need(folder, entries) -> None:
    found = entries(*ENDED, *OPEN)
    remove_copies(folder, found)
    assert sorted(path.name for path in (folder / "recordings").iterdir()) == ["take 3.wav", "take 4.wav", "take 5.wav"]
    kept = {path.name.partition(".")[0] for path in (folder / "videos").iterdir()}
    assert kept == {entry.video_id for entry in found[3:]}


def test_other_journals_keep_theirs(folder, entries) -> None:
    """Several batches may have one folder."""
    mine, theirs = entries(*ENDED), entries(*ENDED, prefix="other")
    remove_copies(folder, mine)
    assert len(list((folder / "recordings").iterdir())) == len(theirs)
    remove_copies(folder, theirs)
    assert not folder.exists()


def test_an_engine_that_runs_is_left_alone(folder, entries) -> None:
    from a2v.engine.task_store import TaskStore

    found = entries(*ENDED)
    with TaskStore(folder / "tasks.sqlite3"):
        remove_copies(folder, found)
    assert len(list((folder / "recordings").iterdir())) == 3


def test_jobs_that_share_a_recording_over_several_runs(here, tmp_path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(6400))
    (tmp_path / "b.wav").write_bytes(b"no recording")
    rows = ["a.wav,eva_a0008,one", "b.wav,eva_a0008,two", "a.wav,leo_a0047,three", "a.wav,eva_a0008,four"]
    (tmp_path / "jobs.csv").write_text("\n".join(["file,character,name", *rows]))
    command = ("batch", "jobs.csv", "-o", "v", "--local")
    for limit, counts in (
        (1, "1 done, 3 not submitted"),
        (2, "2 done, 1 failed, 1 not submitted"),
        (9, "3 done, 1 failed"),
    ):
        assert here(*command, "--limit", str(limit))[1].splitlines()[-1].split(" · ")[0] == counts
        assert not (tmp_path / "v" / "a2v-engine").exists()
    (tmp_path / "v" / "one.mp4").unlink()
    _, out, err = here(*command)
    assert out.splitlines()[-1].split(" · ")[0] == "2 done, 1 failed, 1 lost"
    assert "--resubmit-failed" in err
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    assert here(*command, "--resubmit-failed")[1].splitlines()[-1].split(" · ")[0] == "4 done"
    assert sorted(path.name for path in (tmp_path / "v").glob("*.mp4")) == [
        "four.mp4",
        "one.mp4",
        "three.mp4",
        "two.mp4",
    ]


def test_a_new_name_for_a_done_job_and_back(here, tmp_path) -> None:
    """The engine has deleted its copy of the video."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(6400))
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"file,character,name\na.wav,eva_a0008,{name}\n")
    for name in ("one", "two", "one"):
        command = ("batch", f"{name}.csv", "-o", "v", "--local")
        if name == "two":
            assert here(*command, "--dry-run")[1].startswith("1 job: 1 done")
        assert here(*command)[1].splitlines()[-1].startswith("1 done")
    assert (tmp_path / "v" / "two.mp4").read_bytes() == (tmp_path / "v" / "one.mp4").read_bytes()
