"""``a2v doctor``, and the shell's completion."""

from __future__ import annotations

import json
import os
import re
from importlib import metadata
from pathlib import Path

import attrs
import pytest

import a2v.engine.characters
from a2v._core.wire import Response
from a2v._diagnostics import _clock, _rate_limit
from a2v.testing import FixedWindow

TOKEN = "canary-token-1234"


@pytest.fixture
def doctor(here):
    """Its exit code, its checks by name, and what it says at the end."""

    def doctor(*arguments):
        code, out, err = here("doctor", "--json", *arguments)
        assert TOKEN not in out + err
        found = json.loads(out)
        assert found["ok"] is (code == 0)
        return code, {check["name"]: (check["state"], check["words"]) for check in found["checks"]}, err

    return doctor


def test_all_is_well(doctor, service):
    service.limit = FixedWindow(per=42, reset="delta")

    code, checks, err = doctor()

    assert (code, err) == (0, "")
    assert {state for state, _ in checks.values()} <= {"ok", "note"}
    assert checks["token"] == ("ok", "found in A2V_TOKEN")
    assert checks["base_url"] == ("ok", f"{service.files_url} (from A2V_BASE_URL)")
    assert "accepts the token and has 4 characters;" in checks["server"][1]
    assert checks["clock"][0] == "ok"
    assert checks["budget"] == ("ok", "29 of 30 requests left; resets in 42 s")
    assert "libavcodec" in checks["ffmpeg"][1]
    assert "cyclopts" in checks["extra cli"][1]


def test_plain_words(a2v):
    done = a2v("doctor")

    assert done.returncode == 0
    states = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()]
    assert set(states) <= {"ok", "note"}
    assert TOKEN not in done.stdout


def test_no_token_and_no_server(doctor, monkeypatch, closed_port):
    code, checks, err = doctor("--base-url", f"http://127.0.0.1:{closed_port}")
    assert (code, checks["server"][0]) == (1, "problem")
    assert "cannot be reached" in checks["server"][1]
    assert "checks found a problem: server" in err

    monkeypatch.delenv("A2V_TOKEN")
    monkeypatch.setenv("A2V_BASE_URL", "http://example.com")
    code, checks, err = doctor()
    assert (code, checks["token"][0], checks["base_url"][0]) == (1, "problem", "problem")
    assert "set A2V_TOKEN" in checks["token"][1]
    assert "unencrypted" in checks["base_url"][1]
    assert "server" not in checks


def test_without_a_server_it_checks_this_machine(doctor, service, monkeypatch):
    """After ``a2v demo`` there is no token, and nothing is wrong."""
    code, checks, err = doctor("--local")
    assert (code, err) == (0, "")
    assert checks["engine"][0] == "ok"
    assert re.match(r"rendered a test video in [\d.]+ s; has \d+ characters", checks["engine"][1])
    assert not {"token", "base_url", "server"} & checks.keys()

    monkeypatch.delenv("A2V_TOKEN")
    monkeypatch.delenv("A2V_BASE_URL")
    code, checks, _ = doctor()
    assert (code, checks["engine"][0], checks["token"][0]) == (0, "ok", "note")
    assert "--local needs none" in checks["token"][1]
    assert "server" not in checks
    assert service.calls == ()


def test_a_machine_that_cannot_render(doctor, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    code, checks, _ = doctor("--local")
    assert (code, checks["engine"][0]) == (1, "problem")
    assert "this machine cannot render: " in checks["engine"][1]


def test_this_machine_and_a_server(here):
    code, _, err = here("doctor", "--local", "--base-url", "https://example.com")
    assert (code, "--local checks this machine" in err) == (2, True)


def test_this_machine_and_a_budget(here):
    code, _, err = here("doctor", "--local", "--budget", "a2v.budget")
    assert (code, "remove --budget" in err) == (2, True)


def test_a_token_that_cannot_be_one(doctor, monkeypatch):
    monkeypatch.setenv("A2V_TOKEN", "two words")
    _, checks, _ = doctor()
    assert checks["token"][0] == "problem"
    assert "two words" not in checks["token"][1]


def test_the_hosted_service_is_named(doctor, monkeypatch):
    monkeypatch.setenv("A2V_TOKEN", "two words")
    monkeypatch.delenv("A2V_BASE_URL")
    _, checks, _ = doctor()
    assert checks["base_url"][1].endswith("(the hosted service)")


def test_a_server_that_says_no(doctor, service):
    service.refuse("character.list", 401, "bad token")
    service.limit = FixedWindow(1)

    code, checks, _ = doctor()

    assert code == 1
    assert checks["server"] == ("problem", "rejected the request: bad token (HTTP 401, code 401)")
    assert checks["clock"][0] == "ok"
    assert checks["budget"][0] == "note"


def test_a_server_that_cannot_be_asked(doctor, monkeypatch):
    monkeypatch.setenv("A2V_BASE_URL", "https://example.com")
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")

    code, checks, _ = doctor()

    assert (code, checks["server"][0]) == (1, "problem")
    assert "the proxy in the environment variable HTTPS_PROXY cannot be used" in checks["server"][1]


def test_a_server_that_fails(doctor, service):
    service.refuse("character.list", 503, "down for a while", times=None)
    _, checks, _ = doctor()
    assert checks["server"] == ("problem", "rejected the request: down for a while (HTTP 503, code 503)")


@pytest.mark.parametrize(("skew", "way"), [(3600, "behind"), (-3600, "ahead of")])
def test_a_clock_that_is_wrong(doctor, service, skew, way):
    service.clock_skew = skew

    code, checks, _ = doctor()

    assert code == 1
    assert checks["clock"][0] == "problem"
    assert f"s {way} the server" in checks["clock"][1]


def test_a_server_that_sends_neither_its_time_nor_the_rate_limit(doctor, service):
    service.reply(
        "character.list", lambda call: attrs.evolve(service.default_reply(call), headers={"date": "yesterday"})
    )

    code, checks, _ = doctor()

    assert code == 0
    assert (checks["clock"][0], checks["budget"][0]) == ("note", "note")


def test_a_missing_extra_says_what_to_install(doctor, monkeypatch):
    version = metadata.version

    def without_av(package):
        if package in ("av", "numpy"):
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", without_av)

    code, checks, _ = doctor()

    assert code == 0
    assert checks["extra engine"] == ("note", 'not installed: pip install "a2v[engine]" (missing: av, numpy)')
    assert "ffmpeg" not in checks


def test_broken_ffmpeg_libraries(doctor, monkeypatch):
    import av

    def broken(*_):
        raise OSError("no such codec")

    monkeypatch.setattr(av, "Codec", broken)

    code, checks, _ = doctor()

    assert (code, checks["ffmpeg"][0]) == (1, "problem")
    assert "no such codec" in checks["ffmpeg"][1]


def test_the_completion_of_the_shell_can_be_installed(a2v, environment, tmp_path):
    home = {**environment, "HOME": str(tmp_path), "SHELL": "/bin/bash"}

    done = a2v("--install-completion", "--shell", "bash", env=home)

    assert done.returncode == 0, done.stderr
    installed = [path for path in tmp_path.rglob("*") if path.is_file() and "doctor" in path.read_text()]
    assert installed
    assert any(os.fspath(path) in (tmp_path / ".bashrc").read_text() for path in installed)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-ratelimit-left", "9" * 5000),
        ("x-ratelimit-left", "²"),
        ("x-ratelimit-left", "-1"),
        ("x-ratelimit-total", "9" * 5000),
        ("x-ratelimit-reset", "9" * 5000),
        ("x-ratelimit-reset", "1e308"),
        ("date", "Mon, 01 Jan 0001 00:00:00 -2359"),
        ("date", "Mon, 99 Jan 99999999 00:00:00 GMT"),
        ("date", "Fri, 31 Dec 9999 23:59:59 -2359"),
        ("date", "9" * 5000),
        ("date", "\x1b[31m"),
    ],
)
def test_absurd_headers_are_taken_for_none(header, value) -> None:
    headers = {"date": "Tue, 14 Nov 2023 22:13:20 GMT", "x-ratelimit-left": "3", "x-ratelimit-total": "30"}
    reply = Response(200, headers | {header: value}, b"")

    checks = [*_clock(reply), *_rate_limit(reply)]

    assert [check.name for check in checks] == ["clock", "budget"]
    assert all(len(check.words) < 500 for check in checks)


def test_the_files_of_a_folder_of_characters(doctor, tmp_path):
    folder = tmp_path / "characters"
    folder.mkdir()
    assert doctor("--characters", str(folder))[1]["characters"] == ("ok", f"none in {folder}")
    eva = Path(a2v.engine.characters.__file__).with_name("eva_a0008.toml").read_text(encoding="utf-8")
    (folder / "ada.toml").write_text(eva, encoding="utf-8")
    assert doctor("--characters", str(folder))[1]["characters"] == ("ok", f"1 valid in {folder}: ada")
    (folder / "bad.toml").write_text(eva.replace("eyes = 0.8", "eyes = 8"), encoding="utf-8")
    code, checks, _ = doctor("--characters", str(folder))
    assert (code, checks["characters"]) == (1, ("problem", "bad.toml: features.eyes must be between 0 and 1, got 8"))
    checks = doctor("--characters", str(tmp_path / "nowhere"))[1]
    assert checks["characters"] == ("problem", f"{tmp_path / 'nowhere'} cannot be read: No such file or directory")


def test_a_shared_budget_in_a_file(doctor, monkeypatch, tmp_path):
    assert "shared budget" not in doctor()[1]
    path = tmp_path / "a2v.budget"
    monkeypatch.setenv("A2V_BUDGET", str(path))
    code, checks, _ = doctor()
    assert (code, checks["shared budget"]) == (
        0, ("ok", f"{path} can be read and written by the processes of this machine"),
    )  # fmt: skip
    (log,) = tmp_path.glob("a2v.budget-*")  # of the account; that of the check is removed

    log.chmod(0o666)
    code, checks, _ = doctor()
    assert (code, checks["shared budget"][0]) == (1, "problem")
    assert "other users can write it; run chmod 600 on it" in checks["shared budget"][1]
    log.write_text("my notes")
    log.chmod(0o600)
    state, words = doctor()[1]["shared budget"]
    assert (state, "is not a budget of a2v; choose another path" in words) == ("problem", True)

    code, checks, _ = doctor("--budget", str(tmp_path / "nowhere" / "a2v.budget"))
    assert (code, checks["shared budget"]) == (
        1, ("problem", f"--budget: there is no folder {tmp_path / 'nowhere'}; create it first"),
    )  # fmt: skip


def test_a_shared_budget_on_a_network_file_system(doctor, monkeypatch, tmp_path):
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "my share"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    mounts.write_text(
        f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 22 0:30 / {escaped} rw shared:1 - nfs4 host:/a rw\nnothing\n"
    )
    monkeypatch.setattr("a2v._diagnostics._MOUNTS", str(mounts))
    code, checks, _ = doctor("--budget", str(folder / "a2v.budget"))
    assert (code, checks["shared budget"][0]) == (0, "note")
    assert "is on a network file system (nfs4): use a path on this machine, or Redis" in checks["shared budget"][1]
    assert doctor("--budget", str(tmp_path / "a2v.budget"))[1]["shared budget"][0] == "ok"


def test_a_shared_budget_in_a_redis_that_is_not_there(doctor, closed_port):
    pytest.importorskip("redis")
    code, checks, err = doctor("--budget", f"redis://me:s3cret-word@127.0.0.1:{closed_port}/0")
    state, words = checks["shared budget"]
    assert (code, state) == (1, "problem")
    assert f"redis://127.0.0.1:{closed_port}/0 cannot be used" in words
    assert "check that the server runs at this address" in words
    assert "s3cret-word" not in words + err
