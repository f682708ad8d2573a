"""The default set and the extended set of tests."""

from __future__ import annotations

import pytest


def one_by_default(first: object, *others: object) -> list[object]:
    """Return cases for ``pytest.mark.parametrize``, all of which but the first belong to the extended set.

    Args:
        first: The value of the parameter, or a tuple of values if there are several parameters.
        others: The same for the other cases.
    """
    return [first, *(pytest.param(*_values(other), marks=pytest.mark.extended) for other in others)]


def _values(case: object) -> tuple[object, ...]:
    return case if isinstance(case, tuple) else (case,)
