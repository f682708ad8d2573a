"""The terminal is closed (SIGHUP), or the batch is started a second time."""

from __future__ import annotations

import signal
import sys
import threading

import anyio
import pytest

from a2v import read_journal
from tests.sets import one_by_default

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

BATCH = ("batch", "jobs.csv", "-o", "videos")


@pytest.fixture
def submitting(service, tmp_path):
    """A manifest of two, and a server that takes its time to answer a submission."""
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\neva,https://x/1.wav\neva,https://x/2.wav\n")
    arrived = threading.Event()

    async def slow(call):
        arrived.set()
        await anyio.sleep(0.6)
        return service.default_reply(call)

    service.lists_videos = False
    service.poll_statuses = ["pending"]
    service.reply("video.generate", slow)
    return arrived


@pytest.mark.parametrize("times", one_by_default(2, 1))
def test_a_hang_up_waits_for_the_answer_to_a_submission(started, submitting, service, tmp_path, times) -> None:
    """It may come twice, from the terminal and from the shell."""
    with started(*BATCH) as process:
        assert submitting.wait(30)
        for _ in range(times):
            process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    states = [entry.state.value for entry in read_journal(tmp_path / "videos" / "a2v-batch.db")]
    assert states == ["submitted", "pending"]
    assert "  a2v batch jobs.csv -o videos" in errors.splitlines()
    assert len(service.submissions) == 1


def test_generate_prints_how_to_resume_after_a_hangup(started, service) -> None:
    service.poll_statuses = ["pending"]
    with started("generate", "https://x/1.wav", "--model-id", "eva", "-o", "one.mp4") as process:
        assert process.stdout.readline() == "v1\tpending\n"
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "  a2v watch v1" in errors.splitlines()


def test_serve_ends_orderly_after_a_hang_up(started, environment) -> None:
    del environment["A2V_TOKEN"]
    with started("serve", "--port", "0") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_nohup_is_heeded(started, service) -> None:
    service.poll_statuses = ["pending", "finished"]
    service.delay("video.get", 0.5)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits it
    try:
        with started("generate", "https://x/1.wav", "--model-id", "eva", "-o", "one.mp4") as process:
            process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 0


@pytest.mark.parametrize("local", [(), ("--local",)], ids=["server", "local"])
def test_a_batch_that_is_already_running_is_refused(a2v, tmp_path, local, submitting) -> None:
    from a2v._async.batch.lock_file import LockFile

    (tmp_path / "videos").mkdir()
    with LockFile(tmp_path / "videos" / "a2v-batch.db"):
        ran = a2v(*BATCH, *local)
    assert ran.returncode == 2
    assert ran.stderr.startswith("a2v: this batch is already running: another process is using videos/a2v-batch.db")
