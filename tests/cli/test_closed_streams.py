"""Standard streams that are closed: before the start, or by a reader that stops early, as ``| head -1`` does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import PROGRAM

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")


def test_a_batch_says_how_to_continue(started, service, tmp_path) -> None:
    service.slow = ["pending"]
    urls = [f"https://example.com/{number}.wav" for number in range(6)]
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\n" + "".join(f"eva_a0008,{url}\n" for url in urls))

    with started("batch", "jobs.csv", "-o", "videos") as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait() == 1

    assert "stdout was closed: " in said
    assert said.endswith("Continue with:\n  a2v batch jobs.csv -o videos\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "closed", ["2>&-", pytest.param(">&-", marks=pytest.mark.extended), pytest.param("<&-", marks=pytest.mark.extended)]
)
def test_a_batch_runs_with_a_closed_stream(environment, tmp_path, closed) -> None:
    row = "eva_a0008,https://example.com/1.wav\n"  # twice, which is worth a warning on stderr
    (tmp_path / "jobs.csv").write_text(f"model_id,audio_url\n{row}{row}")
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "batch", "jobs.csv", "-o", "videos"]

    done = subprocess.run(command, cwd=tmp_path, env=environment, input=b"", capture_output=True)

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 2


@pytest.mark.extended
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("characters --local", 0),
        ("manifest .", 2),
        ("journal none.db", 2),
        ("say - -o v.mp4 --model-id eva_a0008 --local", 2),
    ],
)
def test_exit_codes_do_not_depend_on_closed_streams(environment, tmp_path, command, code, closed) -> None:
    environment = {name: value for name, value in environment.items() if not name.startswith("A2V_")}
    program = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, *command.split()]

    done = subprocess.run(program, cwd=tmp_path, env=environment, input=b"", capture_output=True)

    assert done.returncode == code
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("say - --model-id eva_a0008", b"standard input is empty"),
        ("characters --token-file -", b"contains no token"),
    ],
)
def test_a_closed_standard_input_is_empty(environment, service, command, problem) -> None:
    program = ["sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, *command.split()]

    done = subprocess.run(program, env=environment, capture_output=True)

    assert (done.returncode, problem in done.stderr) == (2, True), done.stderr
    assert not service.calls
