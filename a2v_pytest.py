"""Pytest plugin with the fixtures of ``a2v.testing``.

pytest imports it at the start of every test run in an environment with a2v. It is outside the package and imports a2v only when a
fixture is used, so that other test runs do not pay for the import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.testing import Server, Service


@pytest.fixture
def a2v_service() -> Service:
    """A scriptable service for each test; override this fixture to change its settings."""
    from a2v.testing import Service  # noqa: PLC0415  # see above

    return Service()


@pytest.fixture
def a2v_server(a2v_service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """``a2v_service`` on 127.0.0.1, with ``A2V_BASE_URL`` and ``A2V_TOKEN`` set for clients without arguments."""
    with a2v_service.server() as server:
        monkeypatch.setenv("A2V_BASE_URL", server.base_url)
        monkeypatch.setenv("A2V_TOKEN", server.token)
        yield server
