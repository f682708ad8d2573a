"""Ctrl-C and SIGTERM: the command says what continues on the server, and prints the commands that resume it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from tests.sets import one_by_default

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

GENERATE = ["generate", "https://example.com/hello.wav", "--model-id", "eva_a0008", "-o", "my video.mp4"]


def interrupt(process, number=signal.SIGINT):
    process.send_signal(number)
    rest, errors = process.communicate(timeout=30)
    return rest, errors.splitlines()


@pytest.mark.parametrize("number", one_by_default(signal.SIGINT, signal.SIGTERM))
def test_generate_prints_how_to_resume(started, service, number):
    service.poll_statuses = ["pending"]

    with started(*GENERATE) as process:
        assert process.stdout.readline() == "v1\tpending\n"
        _, errors = interrupt(process, number)

    assert process.returncode == 130
    assert errors == [
        "a2v: interrupted",
        "Unfinished renders continue on the server. Resume with:",
        "  a2v watch v1",
        "  a2v download v1 -o 'my video.mp4'",
    ]
    assert len(service.submissions) == 1


def test_a_batch_is_interrupted_while_it_asks_for_the_characters(started, service, tmp_path):
    asked = threading.Event()

    async def hold(_):
        asked.set()
        await anyio.sleep_forever()

    service.reply("character.list", hold)
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\neva,https://example.com/hello.wav\n")

    with started("batch", "jobs.csv", "-o", "videos") as process:
        assert asked.wait(30)
        output, errors = interrupt(process)

    assert (process.returncode, output, errors) == (130, "", ["a2v: interrupted before the batch began"])
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]


def test_an_interrupted_submission_may_have_been_accepted(started, service):
    arrived = threading.Event()

    async def hold(_):
        arrived.set()
        await anyio.sleep_forever()

    service.reply("video.generate", hold)

    with started(*GENERATE) as process:
        assert arrived.wait(30)
        output, errors = interrupt(process)

    assert (process.returncode, output) == (130, "")
    assert errors[0] == "a2v: interrupted"
    assert "may or may not have been accepted" in errors[1]


def test_only_unfinished_videos_are_named(started, service):
    service.add_video("v1", "finished")
    service.add_video("v2", "pending")
    service.add_video("v3", "pending")

    with started("watch", "v1", "v2", "v3", "--json") as process:
        for _ in range(3):
            process.stdout.readline()
        _, errors = interrupt(process)

    assert errors[-1] == "  a2v watch v2 v3 --json"


def test_an_interrupted_local_render_is_gone_and_leaves_no_process(started, tmp_path, speech):
    with started("generate", speech, "--model-id", "eva_a0008", "--local", "-o", "hello.mp4") as process:
        assert process.stdout.readline().endswith("\tpending\n")
        # As a terminal does: to every process of the command.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert errors.splitlines() == [
        "a2v: interrupted",
        "The local engine stopped with this command, and its renders with it.",
    ]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_kept_local_render_continues_with_the_next_command(started, a2v, tmp_path, speech):
    local = ["--local", "--data-dir", "kept"]
    (tmp_path / "mine.flac").write_bytes(speech.read_bytes())
    with started("generate", "mine.flac", "--model-id", "eva_a0008", *local, "-o", "hello.mp4") as process:
        video_id = process.stdout.readline().split("\t")[0]
        assert process.stdout.readline() == f"{video_id}\tin_progressing\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert "  a2v download " + video_id + " -o hello.mp4 --local --data-dir kept" in errors.splitlines()
    # The engine must not depend on a file of the user's that it may not read any more.
    (tmp_path / "mine.flac").unlink()
    assert a2v("download", video_id, "-o", "hello.mp4", *local).returncode == 0
    assert (tmp_path / "hello.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("options", "left"),
    one_by_default(
        (("--data-dir", "kept"), "unfinished renders continue when it starts again with the same --data-dir"),
        ((), "its videos are deleted"),
    ),
)
def test_serve_ends_orderly(started, environment, options, left):
    del environment["A2V_TOKEN"]

    with started("serve", "--port", "0", *options) as process:
        assert process.stdout.readline().startswith("The engine is ready at http://127.0.0.1:")
        told = [process.stdout.readline() for _ in range(3 if options else 4)]
        _, errors = interrupt(process)

    assert (process.returncode, errors) == (0, [f"a2v: the engine has stopped; {left}"])
    assert any("A2V_TOKEN=" in line for line in told)


@pytest.mark.parametrize(("token", "warned"), [("x" * 15, True), ("x" * 16, False)])
def test_serve_warns_of_a_short_token(started, environment, token, warned):
    environment["A2V_TOKEN"] = token
    with started("serve", "--port", "0") as process:
        process.stdout.readline()
        _, errors = interrupt(process)
    assert any("the token is short enough to be guessed" in line for line in errors) == warned
    assert token not in "".join(errors)


def wait_until_blocked(process):
    state = Path(f"/proc/{process.pid}/stat")
    end = time.monotonic() + 30
    while state.read_text().rpartition(") ")[2][0] != "S":
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    "command",
    one_by_default(
        ["batch", "pipe.csv", "-o", "videos"],
        ["say", "--text-file", "pipe.csv", "--model-id", "eva_a0008"],
        ["characters", "--token-file", "pipe.csv"],
    ),
)
@pytest.mark.parametrize("number", one_by_default(signal.SIGINT, signal.SIGTERM))
def test_a_command_is_interrupted_while_it_reads_a_pipe(started, service, tmp_path, command, number):
    os.mkfifo(tmp_path / "pipe.csv", 0o600)

    with started(*command) as process, (tmp_path / "pipe.csv").open("wb", buffering=0) as pipe:
        # More than a pipe holds: once it is written, the command is reading.
        pipe.write(b"a" * 100_000)
        wait_until_blocked(process)
        _, errors = interrupt(process, number)

    assert (process.returncode, errors) == (130, [])
    assert not service.submissions
