"""A network that misbehaves, and what must hold whatever happens on it."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable, Iterator

import anyio
import pytest

import a2v
from tests.chains import foreign

from .server import FaultServer, Port

# Long enough for no word of any reply to contain it.
CANARY = "canary-0123456789-abcdefghij"
# What signs a URL, or opens a proxy.
SECRET = "s3cret"


def shown(error: BaseException) -> str:
    """All that an error report may show: texts, attributes, and the local variables of each frame that it went through.

    Those of the tests are left out, as they are the callers' business.
    """
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    todo, parts = [report], [repr(vars(error)), str(error)]
    while todo:
        each = todo.pop()
        todo += [other for other in (each.__cause__, each.__context__, *(each.exceptions or ())) if other]
        parts += each.format_exception_only()
        parts += [str(frame.locals) for frame in each.stack if "/tests/" not in frame.filename]
    return "\n".join(parts)


def check(error: a2v.A2VError) -> None:
    """What holds for every error: it can be pickled, copied and printed, shows no secret, and hides the libraries below."""
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(copied), str(copied), repr(vars(copied))) == (type(error), str(error), repr(vars(error)))
    assert str(error).encode()
    assert CANARY.encode() not in pickle.dumps(error)
    report = shown(error)
    assert CANARY not in report, report
    assert SECRET not in str(error)
    assert foreign(error) == []


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
