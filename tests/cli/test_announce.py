"""What `a2v serve` tells people to use is something that a2v itself accepts."""

from __future__ import annotations

import re

import pytest

import a2v
from a2v._core.settings import Secret, resolve_base_url
from a2v.cli.events import EngineReady
from a2v.cli.renderers import PlainRenderer


@pytest.mark.parametrize(
    ("url", "needs_insecure"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://[::1]:8000", False),
        ("http://localhost:8000", False),
        ("https://10.0.0.5:8000", False),
        ("http://10.0.0.5:8000", True),
        ("http://[fe80::1]:8000", True),
    ],
)
def test_the_url_to_export(capsys, url, needs_insecure) -> None:
    PlainRenderer().render(EngineReady(url, Secret("canary-token-1234"), is_secret=False, is_kept=True))
    said = capsys.readouterr().out

    assert url in said
    (exported,) = re.findall(r"export A2V_BASE_URL=(\S+) A2V_TOKEN=canary-token-1234", said)
    assert exported == url
    assert ("a2v characters --insecure" in said) == needs_insecure
    assert ("--tls-cert" in said) == needs_insecure
    assert resolve_base_url(url, None, insecure=needs_insecure) == url
    if needs_insecure:
        with pytest.raises(a2v.ConfigurationError, match="--insecure"):
            resolve_base_url(url, None)
