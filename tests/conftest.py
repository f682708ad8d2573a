"""Settings and fixtures shared by all tests."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from a2v._async.requests.redaction import RedactingFilter
from tests.sockets import claim

# How fast a machine is, and what else it does just now, is not what is tested.
settings.register_profile("long", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=200)
settings.register_profile("default set", settings.get_profile("long"), max_examples=25)
settings.load_profile("default set")

# As in render workers: threads of OpenBLAS, which is loaded later, would burn CPU time while they wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Processes started here inherit ignored signals, and many tests send them one. A shell's `&` ignores SIGINT, nohup SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    # A handler, unlike SIG_IGN, is not inherited; so the run itself still survives the end of the terminal.
    signal.signal(signal.SIGHUP, lambda *_: None)


LOGGERS = (
    "a2v",
    "a2v.client.outage",
    "a2v.engine.access",
    "asyncio",
    "distributed",
    "httpcore",
    "httpcore.http11",
    "uvicorn",
)


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    """Commands that run in this process set up its log; the next test must not inherit that."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(each, each.level, list(each.handlers), list(each.filters)) for each in loggers]
    yield
    for logger, level, logger.handlers, filters in before:
        logger.setLevel(level)
        # The client adds its own filter once for the whole process.
        logger.filters = [each for each in logger.filters if each in filters or isinstance(each, RedactingFilter)]


def pytest_configure(config: pytest.Config) -> None:
    """Coverage measures the workers of pytest-xdist; in the many processes that tests start it would only cost time."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", default=None):
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS_")]:
            del os.environ[name]


def pytest_collection_finish() -> None:
    """Exempt what has been loaded and collected from garbage collection, which some tests request."""
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep long bytes out of the names of tests: those of a workbook hold the time, and workers must agree on the names."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what belongs to the extended set by its kind.

    Tests that talk to an object store; the code of docs/staging.md does so in the default set. And tests on trio, unless they
    are marked ``both_backends``; simulations, which are about the limit of requests and not about the backend, even then.
    """
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    on_trio = any(isinstance(value, str) and value == "trio" for value in parameters.values())
    needs_trio = item.get_closest_marker("both_backends") and not item.get_closest_marker("simulation")
    if {"bucket", "blobs"} & set(getattr(item, "fixturenames", ())) or (on_trio and not needs_trio):
        item.add_marker("extended")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port without a listener."""
    with claim() as claimed:
        yield claimed.getsockname()[1]
