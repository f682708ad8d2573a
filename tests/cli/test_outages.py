"""Outages of the server, as a command reports them."""

from __future__ import annotations

import sys

import pytest

from a2v._async.requests import outage_log
from tests.terminal import on_terminal


@pytest.mark.parametrize("options", [[], ["--json"], ["-v"]], ids=["plain", "json", "v"])
def test_an_outage_and_its_end_are_reported_once_each(a2v, service, monkeypatch, options) -> None:
    monkeypatch.setattr(outage_log, "_WARN_AFTER", 0.0)
    service.add_video("v0", "finished")
    service.refuse("video.get", 503, times=2)

    ran = a2v("watch", "v0", *options)

    assert ran.returncode == 0
    assert ran.stderr.count("no request has succeeded for") == 1
    assert ran.stderr.count("requests succeed again, after") == 1
    assert "succe" not in ran.stdout
    if "-v" not in options:
        assert [line.split()[0] for line in ran.stderr.splitlines()] == ["a2v:", "a2v:"]


@pytest.mark.extended  # it waits until the outage has lasted for five seconds
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_the_display_of_a_video_shows_an_outage(service, environment, tmp_path) -> None:
    service.add_video("v0", "pending", "finished")
    service.refuse("video.get", 503, nth=2, times=None)

    def recover(got: str) -> None:
        if "no request has succeeded for" in got and "retrying" in got:
            service.recover()

    code, got = on_terminal("watch", "v0", environment=environment, cwd=tmp_path, on_output=recover)

    assert code == 0
    assert "queued" in got
