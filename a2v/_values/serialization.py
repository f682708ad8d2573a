"""Converts values to JSON and back, and describes them to pydantic and FastAPI.

``to_dict`` converts a value to a dictionary of its fields: nested values become dictionaries, enumerations their values, paths
strings, and errors their type and message. ``from_dict`` converts it back, according to the types of the fields. It ignores unknown
keys, so it can read the output of newer versions.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from inspect import Parameter, signature
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Self, Union, cast, get_args, get_origin, get_type_hints

from attrs import fields, fields_dict

_URL = re.compile(r"[a-z][a-z0-9+.-]*:/+\S+", re.IGNORECASE)
_JSON_NAMES: Mapping[Any, str] = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


class ReadOnlyDict(dict[str, Any]):
    """An immutable dictionary. Unlike a mapping proxy, it can be pickled and written as JSON."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this dictionary is part of a value and cannot be changed; change a copy of it: dict(…)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]  # they all refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadOnlyDict, (dict(self),)


class Value:
    """Base class of the public values, which are attrs classes.

    It implements comparison, hashing and ``repr``. If attrs generated these methods for each class, ``import a2v`` would take more
    than twice as long.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        key = _key(type(self))
        return bool(key(self) == key(other))

    def __hash__(self) -> int:
        return hash((type(self), _hash_key(type(self))(self)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={show(getattr(self, name))}" for name, show in _shown(type(self)))
        return f"{type(self).__name__}({shown})"

    def to_dict(self, *, urls: bool = True) -> dict[str, Any]:
        """Return the value as a dictionary that can be written as JSON.

        Args:
            urls: Whether to include URLs, the default. URLs are often pre-signed, so anyone who has one can download the file.
                Otherwise, fields and items that are URLs are omitted, also within ``raw`` and ``extra``, and URLs in other
                strings become ``…``.

        Returns:
            The fields by name.
        """
        return cast("dict[str, Any]", _to_json(vars(self), urls=urls))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a value from the result of ``to_dict``.

        Args:
            data: The fields by name. Unknown keys are ignored.

        Returns:
            The value.

        Raises:
            ValueError: A field is missing or has the wrong type.
        """
        types = _types(cls)
        if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # users may pass anything
            raise ValueError(f"{cls.__name__} must be made from a mapping, got {data!r}")  # noqa: TRY004  # as documented
        missing = [name for name in _required(cls) if name not in data]
        if missing:
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)}")
        return cls(**{n: _from_json(types[n], data[n], f"{cls.__name__}.{n}") for n in types if n in data})

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        """Return the schema of the value for pydantic."""
        from pydantic_core import core_schema  # noqa: PLC0415  # pydantic is the caller, so it is installed

        fields = {
            name: core_schema.typed_dict_field(
                handler.generate_schema(_json_type(kind)), required=name in _required(cls)
            )
            for name, kind in _types(cls).items()
        }
        plain = core_schema.typed_dict_schema(fields, extra_behavior="ignore", cls_name=cls.__name__)
        read = core_schema.chain_schema([plain, core_schema.no_info_plain_validator_function(cls.from_dict)])
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.to_dict),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        """Return the JSON schema of the value for pydantic; the same for input and output."""
        return handler(schema["json_schema"]["steps"][0])

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # read only
        # For vars(): FastAPI uses it to encode the results of handlers without a return type, and debuggers to show fields.
        return {name: getattr(self, name) for name in _types(type(self))}


def _read_types(cls: Any) -> Mapping[str, Any]:
    types = get_type_hints(cls)
    return {name: types[name] for name in fields_dict(cls)}


def _read_required(cls: Any) -> Sequence[str]:
    return [name for name, parameter in signature(cls).parameters.items() if parameter.default is Parameter.empty]


def _read_key(cls: Any) -> Callable[[Any], Any]:
    return attrgetter(*(each.name for each in fields(cls) if each.eq))


def _read_hash_key(cls: Any) -> Callable[[Any], Any]:
    return attrgetter(*(each.name for each in fields(cls) if each.eq and each.hash is not False))


def _read_shown(cls: Any) -> Sequence[tuple[str, Callable[..., object]]]:
    return [(each.name, each.repr if callable(each.repr) else repr) for each in fields(cls) if each.repr]


# For each class: functions that return the compared fields and the hashed fields; and the fields in its repr with their formatters.
_key: Callable[[Any], Callable[[Any], Any]] = cache(_read_key)
_hash_key: Callable[[Any], Callable[[Any], Any]] = cache(_read_hash_key)
_shown: Callable[[Any], Sequence[tuple[str, Callable[..., object]]]] = cache(_read_shown)
# For each class: the types of its fields, by name; and the names of the fields without a default.
_types: Callable[[Any], Mapping[str, Any]] = cache(_read_types)
_required: Callable[[Any], Sequence[str]] = cache(_read_required)


def _json_type(kind: Any) -> Any:
    """Return the JSON type of a field. Values and enumerations have their own pydantic schemas."""
    if get_origin(kind) is UnionType:
        return Union[tuple(_json_type(each) for each in get_args(kind))]  # noqa: UP007  # of types known at run time only
    plain = get_origin(kind) or kind
    if issubclass(plain, Path):
        return str
    return dict[str, Any] if issubclass(plain, BaseException | Mapping) else kind


def _to_json(value: Any, *, urls: bool) -> Any:  # noqa: PLR0911  # one for each kind of JSON
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value if urls else without_urls(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
        return {str(key): _to_json(each, urls=urls) for key, each in items if urls or not _is_url(each)}
    if isinstance(value, list | tuple):
        return [_to_json(each, urls=urls) for each in cast("Sequence[Any]", value) if urls or not _is_url(each)]
    if hasattr(value, "to_dict"):
        return value.to_dict(urls=urls)
    return _to_json(str(value), urls=urls)  # a path, or a date in a cell of a workbook


def without_urls(text: str) -> str:
    """Return a text with ``…`` in place of each URL."""
    return _URL.sub("…", text)


def _is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.fullmatch(value.strip()) is not None


def _from_json(kind: Any, data: Any, where: str) -> Any:  # noqa: PLR0911  # one for each kind of type
    if get_origin(kind) is UnionType:
        kinds = get_args(kind)
        return None if data is None and NoneType in kinds else _from_json(kinds[0], data, where)
    if get_origin(kind) is tuple and isinstance(data, list | tuple):
        return tuple(_from_json(get_args(kind)[0], each, where) for each in cast("Sequence[Any]", data))
    plain: Any = get_origin(kind) or kind
    if isinstance(data, plain) and isinstance(data, bool) is (plain is bool):
        return data
    if hasattr(plain, "from_dict"):
        return plain.from_dict(data)
    if issubclass(plain, Path) and isinstance(data, str):
        return Path(data)
    if plain is float and type(data) is int:
        return float(data)
    if issubclass(plain, Enum):
        try:
            return plain(data)
        except ValueError:
            pass
    raise ValueError(f"{where} must be {_JSON_NAMES.get(plain, plain.__name__)}, got {data!r}")
