"""Checks of arguments that users pass. Each returns the value, or raises an error that names the argument and the value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any

from a2v._values.base_errors import A2VError, InvalidArgumentError

_SHOWN = 200
_TOO_LARGE = 2**63


def short_repr(value: object) -> str:
    """The ``repr`` of a value, cut to a length that fits an error message."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # of a class of the caller's, or of an integer with thousands of digits
        text = object.__repr__(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def integer(name: str, value: Any, *, minimum: int, error: type[A2VError] = InvalidArgumentError) -> int:
    """A whole number that is not too small, and fits into 64 bits. ``True`` and ``False`` are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < _TOO_LARGE:
        below = f" and less than {_TOO_LARGE}" if isinstance(value, int) and value >= _TOO_LARGE else ""
        raise error(f"{name} must be a whole number, {minimum} or more{below}, got {short_repr(value)}")
    return value


def is_number(value: Any) -> bool:
    """Whether a value is an integer that fits into a float, or a float, but neither a truth value nor NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not isnan(value)
    except OverflowError:
        return False


def number(name: str, value: Any, *, minimum: float = -inf, maximum: float = inf) -> float:
    """A finite number within bounds."""
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
    """A positive, finite number of seconds."""
    if not is_number(value) or not 0 < value < inf:
        raise error(f"{name} must be a number of seconds, more than 0, got {short_repr(value)}")
    return value  # type: ignore[no-any-return]  # checked above


def timeout(name: str, value: Any) -> float | None:
    """Seconds to wait, or ``None`` for no limit. A limit of 0 or less has passed already."""
    if value is not None and not is_number(value):
        raise InvalidArgumentError(f"{name} must be a number of seconds or None, got {short_repr(value)}")
    return value  # type: ignore[no-any-return]  # checked above


def boolean(name: str, value: Any) -> bool:
    """``True`` or ``False`` and nothing else: the string "no" would count as true."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be True or False, got {short_repr(value)}")
    return value


def text(name: str, value: Any, *, error: type[A2VError] = InvalidArgumentError) -> str:
    """A string."""
    if not isinstance(value, str):
        raise error(f"{name} must be a string, got {short_repr(value)}")
    return value


def identifier(name: str, value: Any, what: str) -> str:
    """An id, such as that of a video: a string that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(f"{name} must be the id of {what}, got {short_repr(value)}")
    return value


def path(name: str, value: Any, *, error: type[A2VError] = InvalidArgumentError) -> Path:
    """The absolute path of a file or a folder, given as a string or a path object that the file system can take.

    A relative path is resolved against the current directory of now, which may be another one when the path is used, and a
    leading ``~`` is expanded as a shell does. Symbolic links stay.
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
        # Path.expanduser raises RuntimeError where there is no such home folder.
        expanded = os.path.expanduser(os.fspath(value))  # noqa: PTH111
        if expanded.startswith("~"):
            reason = "it starts with ~, and there is no such home folder; pass an absolute path"
        if not reason:
            try:
                return Path(expanded).absolute()
            except FileNotFoundError:
                reason = "the current directory does not exist any more; pass an absolute path"
    raise error(f"{name} must be the path of a file or a folder, got {short_repr(value)}: {reason}")


def iterable(name: str, value: Any, of: str, *, error: type[A2VError] = InvalidArgumentError) -> Iterable[Any]:
    """Something to iterate over, which a single string is not meant to be."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise error(f"{name} must be {of}, got {short_repr(value)}")
    return value


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """A mapping."""
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"{name} must be a mapping, got {short_repr(value)}")
    return value
