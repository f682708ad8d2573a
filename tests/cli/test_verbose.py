"""The log of a command: ``-v``, ``-vv`` and ``A2V_LOG``."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from a2v.cli.logs import log_command
from tests.sets import one_by_default
from tests.terminal import on_terminal

GENERATE = ["generate", "https://example.com/a.wav?signature=secret-audio", "--model-id", "m", "-o", "x.mp4"]
SUBMITTED = "INFO a2v.client: video v1: submitted for m"


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_v_logs_what_the_client_does(a2v, option) -> None:
    ran = a2v(*GENERATE, option)

    assert ran.returncode == 0
    assert ran.stderr.count(SUBMITTED) == 1
    assert "INFO a2v.client: video v1: saved" in ran.stderr
    assert "DEBUG" not in ran.stderr
    assert "submitted for" not in ran.stdout


def test_without_v_nothing_is_logged(a2v) -> None:
    assert a2v(*GENERATE).stderr == ""


def test_vv_logs_the_http_events_without_secrets(a2v, service) -> None:
    service.add_video("v0", "finished")

    ran = a2v("download", "v0", "-o", "x.mp4", "-vv")

    assert ran.returncode == 0
    assert "DEBUG httpcore.connection: connect_tcp.started host='127.0.0.1'" in ran.stderr
    assert "DEBUG httpcore.http11: receive_response_headers.complete\n" in ran.stderr
    assert "INFO a2v.client: video v0: saved" in ran.stderr
    assert "canary-token" not in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["characters"],
        ["avatars"],
        ["get", "v0"],
        ["watch", "v0"],
        ["download", "v0", "-o", "x.mp4"],
        ["doctor"],
        ["batch", "jobs.csv", "-o", "videos"],
        ["batch", "jobs.csv", "-o", "videos", "--dry-run"],
    ],
    ids=" ".join,
)
def test_every_command_takes_it(a2v, service, tmp_path, arguments) -> None:
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\nm,https://example.com/a.wav\n")
    service.add_video("v0", "finished")

    before = len(service.calls)
    ran = a2v(*arguments, "-vv")

    assert "Unknown option" not in ran.stderr
    assert ("send_request_headers.started" in ran.stderr) == (len(service.calls) > before)


def test_a_journal_takes_it(a2v, tmp_path) -> None:
    (tmp_path / "jobs.csv").write_text("model_id,audio_url\nm,https://example.com/a.wav\n")
    assert a2v("batch", "jobs.csv", "-o", "videos").returncode == 0

    assert a2v("journal", "videos/a2v-batch.db", "-v").returncode == 0


@pytest.mark.parametrize(
    ("level", "options", "is_logged"),
    one_by_default(("info", [], True), ("error", [], False), ("error", ["-v"], True), ("INFO", ["-v"], True)),
    ids=["info", "error", "v wins", "both"],
)
def test_the_environment_variable(a2v, environment, level, options, is_logged) -> None:
    environment["A2V_LOG"] = level

    ran = a2v("generate", "https://example.com/a.wav", "--model-id", "m", *options, process=True)

    assert ran.returncode == 0
    assert ran.stderr.count(SUBMITTED) == is_logged
    assert ran.stderr.count("submitted for") == is_logged, "no line is printed by two handlers"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_log_lines_do_not_break_the_display(service, environment, tmp_path) -> None:
    code, got = on_terminal(*GENERATE, environment={**environment, "A2V_LOG": "info"}, cwd=tmp_path)

    assert code == 0
    # The line begins where the display has been erased, or not been drawn yet, and ends before it is drawn again.
    (before,) = re.findall(r"(.{5})\d{4}-\d\d-\d\d [\d:,]+ INFO a2v.client: video v1: submitted for m\r\n", got)
    assert before.endswith(("\x1b[2K", "[?25l"))


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_the_log_can_be_redirected_to_a_file(service, environment, tmp_path) -> None:
    with (tmp_path / "log.txt").open("w") as log:
        code, got = on_terminal(*GENERATE, "-v", environment=environment, cwd=tmp_path, stderr=log)

    assert code == 0
    assert SUBMITTED in (tmp_path / "log.txt").read_text()
    assert "submitted for" not in got
    assert "rendering" in got, "the display is still on the terminal"


def test_the_log_of_an_engine_has_each_request_with_v(started) -> None:
    with started("serve", "--port", "0", "--workers", "1", "-v") as process:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        import httpx

        httpx.get(f"{url}/")
        lines = []
        while not lines or "GET" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], "the engine has ended"


def test_vv_shows_no_response_of_a_request_of_the_engine(restored, capsys) -> None:
    """The client redacts its own requests; a local engine in the same process fetches recordings from signed URLs."""
    log_command(2)

    logging.getLogger("httpcore.http11").debug("receive_response_headers.complete return_value=(b'location: secret')")

    assert "receive_response_headers.complete" in (shown := capsys.readouterr().err)
    assert "secret" not in shown
