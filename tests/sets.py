"""Which cases of a test belong to the default set, and which to the extended one."""

from __future__ import annotations

import pytest


def one_by_default(first: object, *others: object) -> list[object]:
    """The first case for the default set, the others for the extended one.

    Args:
        first: A value of the parameter, or a tuple of values for several parameters.
        others: The same for the other cases.
    """
    return [first, *(pytest.param(*_values(other), marks=pytest.mark.extended) for other in others)]


def _values(case: object) -> tuple[object, ...]:
    return case if isinstance(case, tuple) else (case,)
