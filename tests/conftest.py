"""What the tests of every room share."""

from __future__ import annotations

import signal
import socket

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is, and what else it does just now, is not what is tested.
settings.register_profile("a2v", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("a2v")

# What a shell starts with `&` ignores Ctrl-C, and so would all the processes started here; many tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
