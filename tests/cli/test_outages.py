"""Outages of the server, as a command reports them."""

from __future__ import annotations

import pytest

from a2v._async.requests import outage_log


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
