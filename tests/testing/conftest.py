"""Clients of the kit's service, in virtual time."""

from __future__ import annotations

import pytest

import a2v
from a2v.testing import Service, virtual_time


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_time(request.param)


@pytest.fixture
def client():
    """Makes a client of a service; it has no pace of its own unless asked for."""

    def make(service: Service, **settings) -> a2v.AsyncA2V:
        return a2v.AsyncA2V("token", **{"rate_limit": None, "transport": service.transport(), **settings})

    return make
