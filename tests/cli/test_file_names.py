"""Names with accents, which macOS writes in another way than the rest of the world: both mean the same file."""

from __future__ import annotations

import pytest

from a2v import A2V, Job

NFC, NFD = "\xe9", "e\u0301"
URL = "https://example.com/a.wav"


@pytest.mark.parametrize(("on_disk", "named"), [(NFC, NFD), (NFD, NFC)])
def test_a_recording_in_a_manifest_is_found(here, tmp_path, speech, on_disk, named) -> None:
    folder = tmp_path / f"prises {on_disk}"
    folder.mkdir()
    (folder / f"{on_disk}.flac").write_bytes(speech.read_bytes())
    (tmp_path / f"jobs {on_disk}.csv").write_text(f"model_id,audio_url\neva_a0008,prises {named}/{named}.flac\n")

    code, out, err = here("batch", f"jobs {named}.csv", "-o", "videos", "--local", "--dry-run")

    assert (code, err) == (0, "")
    assert "submit 1 video" in out


@pytest.mark.parametrize(("first", "second"), [(NFC, NFD), (NFD, NFC)])
def test_a_folder_of_videos_is_found_again(here, tmp_path, service, first, second) -> None:
    """Otherwise there would be no journal, and all would be paid for again."""
    (tmp_path / "jobs.csv").write_text(f"model_id,audio_url\neva_a0008,{URL}\n")

    assert here("batch", "jobs.csv", "-o", f"vid{first}os", "--journal", f"{first}.db")[0] == 0
    assert here("batch", "jobs.csv", "-o", f"vid{second}os", "--journal", f"{second}.db")[0] == 0

    assert len(service.seen("video.generate")) == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [f"vid{first}os"]
    assert here("journal", f"{second}.db")[0] == 0


def test_a_token_file_is_found(here, tmp_path) -> None:
    path = tmp_path / f"{NFC}.txt"
    path.write_text("canary-token-1234")
    path.chmod(0o600)
    assert here("characters", "--token-file", f"{NFD}.txt")[0] == 0


def test_what_is_too_long_for_a_path_is_no_file(here, tmp_path) -> None:
    """The fault has a row and a column, and is not the operating system's."""
    long = "a" * 300
    (tmp_path / "jobs.csv").write_text(f"model_id,audio_url\neva_a0008,{long}.wav\neva_a0008,b\\c.wav\n")

    code, _, err = here("batch", "jobs.csv", "-o", "videos", "--local", "--dry-run")

    assert code == 2
    assert "row 2, audio_url: " in err
    assert "nor a file that exists" in err
    assert "row 3, audio_url: " in err
    assert "folders are separated by /" in err
    assert here("generate", long, "--model-id", "eva_a0008", "--local", "-o", "a.mp4")[0] == 2


ROWS = [
    "eva,https://x/rec%2001.wav?signature=a",
    "eva,https://x/rec_02.wav",
    "eva,https://x/same.wav",
    "leo,https://x/same.wav",
    "eva,https://x/a%3Ab.wav",
    "eva,https://x/0003.wav",
]


def test_without_a_column_of_names_videos_are_named_after_their_recordings(here, tmp_path, service) -> None:
    table, command = tmp_path / "jobs.csv", ("batch", "jobs.csv", "-o", "videos")
    table.write_text("\n".join(["model_id,audio_url", *ROWS]))
    assert here(*command)[0] == 0
    names = ["0003", "0004", "0005", "0006", "rec 01", "rec_02"]
    assert sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4")) == names

    table.write_text("\n".join(["model_id,audio_url", *ROWS[1:]]))
    code, out, _ = here(*command)
    assert (code, out.split(" · ")[0]) == (0, "5 done")
    assert sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4")) == names
    assert len(service.submissions) == 6


def test_a_batch_whose_videos_are_numbered_continues_to_number_them(here, tmp_path, service, environment) -> None:
    jobs = [Job("eva", "https://x/one.wav"), Job("eva", "https://x/two.wav")]
    with (
        A2V(environment["A2V_TOKEN"], base_url=service.files_url) as client,
        client.batch(jobs, save_to="videos", journal="videos/a2v-batch.db") as batch,
    ):
        assert all(outcome.ok for outcome in batch)
    rows = [f"{job.model_id},{job.audio_url}" for job in (*jobs, Job("eva", "https://x/three.wav"))]
    (tmp_path / "jobs.csv").write_text("\n".join(["model_id,audio_url", *rows]))
    code, out, _ = here("batch", "jobs.csv", "-o", "videos")
    assert (code, out.splitlines()[-1].split(" · ")[0]) == (0, "3 done")
    assert sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4")) == ["0001", "0002", "0003"]
    assert len(service.submissions) == 3
