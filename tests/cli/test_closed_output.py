"""A reader of the output that stops early, as ``| head -1`` does: what continues at the server is told on stderr."""

from __future__ import annotations

import sys

import pytest

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
