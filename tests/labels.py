"""Names for parameters of tests."""

from __future__ import annotations

import re


def label(value: object) -> str:
    """``str(value)`` without addresses: the workers of pytest-xdist must agree on the names of tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
