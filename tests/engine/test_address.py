"""The engine's ``base_url`` works for its clients."""

from __future__ import annotations

import socket

import pytest

from a2v._core.settings import resolve_base_url
from a2v.engine import Settings, server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::"])
def test_the_base_url_can_be_connected_to_for_every_host(host) -> None:
    if ":" in host and not socket.has_ipv6:
        return
    settings = Settings(host=host, port=0)
    with server._listen(settings) as sock:
        url = server._base_url(sock, settings)
        assert resolve_base_url(url, None) == url
        name, _, port = url.removeprefix("http://").rpartition(":")
        socket.create_connection((name.strip("[]"), int(port)), timeout=5).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_an_engine_for_other_machines_is_announced_by_its_name(host) -> None:
    settings = Settings(host=host, port=0, allowed_hosts=["engine.example", "other.example"])
    with server._listen(settings) as sock:
        name = server._base_url(sock, settings).removeprefix("http://").rpartition(":")[0]
    assert name == ("engine.example" if host == "0.0.0.0" else host)
