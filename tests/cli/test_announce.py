"""What `a2v serve` tells people to use is something that a2v itself accepts."""

from __future__ import annotations

import re

import pytest

import a2v
from a2v._core.settings import Secret, resolve_base_url
from a2v.cli.events import EngineReady
from a2v.cli.renderers import PlainRenderer


@pytest.mark.parametrize(
    ("url", "is_usable"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("http://localhost:8000", True),
        ("http://10.0.0.5:8000", False),
        ("http://[fe80::1]:8000", False),
    ],
)
def test_the_url_to_export(capsys, url, is_usable) -> None:
    PlainRenderer().render(EngineReady(url, Secret("canary-token-1234"), is_secret=False, is_kept=True))
    said = capsys.readouterr().out

    assert url in said
    (exported,) = re.findall(r"export A2V_BASE_URL=(\S+) A2V_TOKEN=canary-token-1234", said)
    if is_usable:
        assert resolve_base_url(exported, None) == url
    else:
        with pytest.raises(a2v.ConfigurationError):
            resolve_base_url(url, None)
        assert exported == "https://…"
        assert "Put a TLS proxy in front" in said
