"""What the tests of every room share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.sockets import claim

# How fast a machine is, and what else it does just now, is not what is tested.
settings.register_profile("a2v", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("a2v")

# What a shell starts with `&` ignores Ctrl-C, and so would all the processes started here; many tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine at which nobody listens."""
    with claim() as claimed:
        yield claimed.getsockname()[1]
