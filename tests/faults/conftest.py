"""A network that misbehaves, and what must hold whatever happens on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio
import pytest

import a2v

from .server import FaultServer, Port

# Long enough for no word of any reply to contain it.
CANARY = "canary-0123456789-abcdefghij"


@pytest.fixture(scope="package")
def faults() -> Iterator[FaultServer]:
    server = FaultServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def port(faults: FaultServer) -> Port:
    """A port of its own for a test."""
    return faults.port()


@pytest.fixture
def dial(port: Port) -> Callable[..., a2v.AsyncA2V]:
    """Makes clients of the port."""
    return lambda **settings: a2v.AsyncA2V(CANARY, **{"base_url": port.url, "rate_limit": None, **settings})


@pytest.fixture
def run(anyio_backend_name: str) -> Callable[..., object]:
    """Like ``anyio.run``, for tests that need several event loops."""
    return lambda work, *args: anyio.run(work, *args, backend=anyio_backend_name)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxies and no settings from the machine the tests run on."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "A2V_TOKEN", "A2V_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
