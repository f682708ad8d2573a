"""What the tests of every room share."""

from __future__ import annotations

import os
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


def pytest_configure(config: pytest.Config) -> None:
    """Coverage measures the workers of pytest-xdist; in the many processes that tests start it would only cost time."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", default=None):
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS_")]:
            del os.environ[name]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that talk to an object store are extended; the code of docs/staging.md does so in the default set."""
    if {"bucket", "blobs"} & set(getattr(item, "fixturenames", ())):
        item.add_marker("extended")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine at which nobody listens."""
    with claim() as claimed:
        yield claimed.getsockname()[1]
