"""Arguments that cannot be right are refused with code 2 and one line, before anything is done."""

from __future__ import annotations

import openpyxl
import pytest

URL = "https://example.com/a.wav"
LONG = "a" * 300


@pytest.fixture(autouse=True)
def manifest(tmp_path):
    (tmp_path / "jobs.csv").write_text(f"model_id,audio_url\neva_a0008,{URL}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", "jobs.csv", "-o", ""],
        ["batch", "jobs.csv", "--output="],
        ["batch", "jobs.csv", "-o", "videos", "--journal", ""],
        ["batch", "jobs.csv", "-o", "videos", "--report="],
        ["characters", "--base-url", ""],
        ["characters", "--local", "--data-dir", ""],
        ["characters", "--token-file", ""],
        ["generate", URL, "--model-id", "eva_a0008", "-o", ""],
        ["serve", "--host", ""],
        ["get", ""],
        [""],
    ],
)
def test_an_empty_argument(here, service, tmp_path, arguments) -> None:
    """It comes of a variable that is not set, and would mean the current folder or a default."""
    code, out, err = here(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("a2v: empty argument after ")
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]
    assert not service.calls


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["batch", "jobs.csv", "-o", "videos", "--journal", "."], "is a folder"),
        (["batch", "jobs.csv", "-o", "videos", "--journal", LONG], "long"),
        (["batch", "jobs.csv", "-o", LONG], "long"),
        (["batch", f"{LONG}.csv", "-o", "videos"], "long"),
        (["characters", "--local", "--data-dir", LONG], "long"),
        (["generate", URL, "--model-id", "eva_a0008", "-o", LONG], "long"),
        (["generate", LONG, "--model-id", "eva_a0008", "-o", "a.mp4", "--local"], "nor a file"),
        (["journal", LONG], ""),
        (["generate", URL, "--model-id", "eva_a0008", "--size", "0"], "size"),
        (["generate", URL, "--model-id", "eva_a0008", "--fps", "29"], "fps"),
        (["characters", "--characters", "."], "no engine to configure: add --local, or remove --characters\n"),
        (["characters", "--local", "--insecure"], "with its own token: remove --insecure\n"),
        (
            ["get", "v1", "--local", "--base-url", URL, "--insecure", "--budget", "b"],
            "remove --base-url, --insecure and --budget\n",
        ),
        (["batch", "jobs.csv", "-o", "v", "--local", "--remove-staged"], "of this machine: remove --remove-staged\n"),
        (["doctor", "--local", "--token-file", "t"], "--local checks this machine: remove --token-file\n"),
    ],
)
def test_paths_and_numbers_that_cannot_be(here, service, arguments, named) -> None:
    code, out, err = here(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("a2v: ")
    assert named in err
    assert not service.calls


def test_hidden_rows_are_reported(here, service, tmp_path) -> None:
    book = openpyxl.Workbook()
    for row in [["model_id", "audio_url"], ["eva_a0008", URL], ["eva_a0008", f"{URL}?2"]]:
        book.active.append(row)
    book.active.row_dimensions[3].hidden = True
    book.save(tmp_path / "jobs.xlsx")

    code, out, err = here("batch", "jobs.xlsx", "-o", "videos", "--dry-run")

    assert code == 0
    assert err == "a2v: jobs.xlsx: hidden rows were skipped: 3\n"
    assert "submit 1 video" in out

    book.active.row_dimensions[2].hidden = True
    book.save(tmp_path / "jobs.xlsx")
    assert "no job in it, except in hidden rows, which are skipped: 2, 3" in here("batch", "jobs.xlsx", "-o", "v")[2]
