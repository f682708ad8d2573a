"""Checks of users' arguments. Each returns the value, or raises an error that names the argument and shows the value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from inspect import iscoroutinefunction
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any

from a2v._values.base_errors import A2VError, InvalidArgumentError

_MAX_REPR_LENGTH = 200  # characters
_INT64_LIMIT = 2**63


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value, truncated for error messages."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # the caller's class, or an integer with thousands of digits
        text = object.__repr__(value)
    return text if len(text) <= _MAX_REPR_LENGTH else f"{text[:_MAX_REPR_LENGTH]}…"


def integer(name: str, value: Any, *, minimum: int, error: type[A2VError] = InvalidArgumentError) -> int:
    """Check an integer of at least ``minimum`` that fits into 64 bits. ``True`` and ``False`` are not accepted."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < _INT64_LIMIT:
        below = f" and less than {_INT64_LIMIT}" if isinstance(value, int) and value >= _INT64_LIMIT else ""
        raise error(f"{name} must be a whole number, {minimum} or more{below}, got {short_repr(value)}")
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a float other than NaN, or an integer in the range of floats, but not a ``bool``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not isnan(value)
    except OverflowError:
        return False


def number(name: str, value: Any, *, minimum: float = -inf, maximum: float = inf) -> float:
    """Check a finite number within bounds."""
    if not is_number(value) or not isfinite(value) or not minimum <= value <= maximum:
        bounds = (
            f" from {minimum:g} to {maximum:g}"
            if isfinite(maximum)
            else f", {minimum:g} or more"
            if isfinite(minimum)
            else ""
        )
        raise InvalidArgumentError(f"{name} must be a number{bounds}, got {short_repr(value)}")
    return float(value)


def seconds(name: str, value: Any, *, error: type[A2VError] = InvalidArgumentError) -> float:
    """Check a positive, finite number of seconds."""
    if not is_number(value) or not 0 < value < inf:
        raise error(f"{name} must be a number of seconds, more than 0, got {short_repr(value)}")
    return value  # type: ignore[no-any-return]  # checked above


def timeout(name: str, value: Any) -> float | None:
    """Check a timeout in seconds; ``None``: no limit. A timeout of 0 or less expires immediately."""
    if value is not None and not is_number(value):
        raise InvalidArgumentError(f"{name} must be a number of seconds or None, got {short_repr(value)}")
    return value  # type: ignore[no-any-return]  # checked above


def boolean(name: str, value: Any, *, error: type[A2VError] = InvalidArgumentError) -> bool:
    """Check a ``bool``. Truthy and falsy values are not accepted, because the string "no" is truthy."""
    if not isinstance(value, bool):
        raise error(f"{name} must be True or False, got {short_repr(value)}")
    return value


def text(name: str, value: Any, *, error: type[A2VError] = InvalidArgumentError) -> str:
    """Check a string."""
    if not isinstance(value, str):
        raise error(f"{name} must be a string, got {short_repr(value)}")
    return value


def identifier(name: str, value: Any, what: str) -> str:
    """Check an id: a string that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(f"{name} must be the id of {what}, got {short_repr(value)}")
    return value


def path(name: str, value: Any, *, error: type[A2VError] = InvalidArgumentError) -> Path:
    """Check the path of a file or folder, and return it as an absolute path.

    A relative path is resolved immediately, because the current directory may be different when the path is used. A leading
    ``~`` is expanded. Symbolic links are not resolved.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        reason = "it is not a string or a path object"
    elif not os.fspath(value):
        reason = "it is empty"
    else:
        try:
            reason = "it contains a NUL character" if b"\0" in os.fsencode(value) else ""
        except UnicodeEncodeError as problem:
            reason = f"it cannot be encoded: {problem.reason}"
        # Path.expanduser raises RuntimeError if there is no such home folder.
        expanded = os.path.expanduser(os.fspath(value))  # noqa: PTH111
        if expanded.startswith("~"):
            reason = "it starts with ~, and there is no such home folder; pass an absolute path"
        if not reason:
            try:
                return Path(expanded).absolute()
            except FileNotFoundError:
                reason = "the current directory does not exist any more; pass an absolute path"
    raise error(f"{name} must be the path of a file or a folder, got {short_repr(value)}: {reason}")


def callback(name: str, value: Any) -> Any:
    """Check a function or ``None``. Async functions are not accepted, because nothing would await them."""
    if value is not None and (not callable(value) or iscoroutinefunction(value)):
        raise InvalidArgumentError(f"{name} must be a function (not an async one) or None, got {short_repr(value)}")
    return value


def iterable(name: str, value: Any, of: str, *, error: type[A2VError] = InvalidArgumentError) -> Iterable[Any]:
    """Check an iterable other than a string."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise error(f"{name} must be {of}, got {short_repr(value)}")
    return value


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """Check a mapping."""
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"{name} must be a mapping, got {short_repr(value)}")
    return value
