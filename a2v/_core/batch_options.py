"""The options of a batch, as one validated value that the client, the planner and the runner share."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import Attribute, field, frozen

from a2v._values import arguments
from a2v._values.models import DEFAULT_RENDER_TIMEOUT
from a2v.errors import InvalidArgumentError

if TYPE_CHECKING:
    import os

Recordings: TypeAlias = Literal["same", "new"]

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _to_save_path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else _to_storable_path("save_to", value)


def _to_journal_path(value: str | os.PathLike[str] | None) -> Path | None:
    if value is None:
        return None
    path = _to_storable_path("journal", value)
    if not path.name:
        raise InvalidArgumentError(f"journal must be the path of a file, got {arguments.short_repr(value)}")
    return path


def _to_storable_path(name: str, value: Any) -> Path:
    """Check a path that the journal stores and messages show, and make it absolute, so that ``os.chdir`` has no effect."""
    path = arguments.path(name, value).absolute()
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{name} must be a path in valid UTF-8, got {arguments.short_repr(text)}") from None
    if _CONTROL_CHARACTER.search(text):
        raise InvalidArgumentError(f"{name} must not contain control characters, got {arguments.short_repr(text)}")
    return path


def _to_resubmit_unknown(value: Any) -> bool | frozenset[int]:
    if isinstance(value, bool):
        return value
    if isinstance(value, Collection) and all(type(place) is int for place in value):
        return frozenset(value)
    raise InvalidArgumentError(
        f"resubmit_unknown must be True, False or positions of jobs in the batch, got {arguments.short_repr(value)}"
    )


def _check_boolean(_: object, attribute: Attribute[Any], value: object) -> None:
    arguments.boolean(attribute.name, value)


def _check_count(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        arguments.integer(attribute.name, value, minimum=0)


def _check_positive(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        arguments.integer(attribute.name, value, minimum=1)


def _check_seconds(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        arguments.seconds(attribute.name, value)


def _check_recordings(_: object, attribute: Attribute[Any], value: object) -> None:
    if value not in (None, "same", "new"):
        raise InvalidArgumentError(f'{attribute.name} must be "same", "new" or None, got {value!r}')


@frozen(kw_only=True)
class BatchOptions:
    """The options of a batch. ``AsyncA2V.batch`` describes them; each attribute has the name of its keyword.

    ``save_to`` and ``journal`` are absolute paths here.

    Raises:
        InvalidArgumentError: An option has a wrong type or value.
    """

    save_to: Path | None = field(default=None, converter=_to_save_path)
    journal: Path | None = field(default=None, converter=_to_journal_path)
    overwrite: bool = field(default=False, validator=_check_boolean)
    max_in_flight: int | None = field(default=None, validator=_check_positive)
    limit: int | None = field(default=None, validator=_check_count)
    quota: int | None = field(default=None, validator=_check_count)
    resubmit_unknown: bool | frozenset[int] = field(default=False, converter=_to_resubmit_unknown)
    resubmit_failed: bool = field(default=False, validator=_check_boolean)
    repeat: bool = field(default=False, validator=_check_boolean)
    new_token: bool = field(default=False, validator=_check_boolean)
    render_timeout: float | None = field(default=DEFAULT_RENDER_TIMEOUT, validator=_check_seconds)
    recordings: Recordings | None = field(default=None, validator=_check_recordings)
