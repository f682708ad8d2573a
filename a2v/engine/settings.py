"""What an engine can be told."""

from __future__ import annotations

import os
import re
import secrets
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, get_args

from attrs import Attribute, field, frozen
from attrs.validators import optional

from a2v._core.settings import Secret
from a2v._values import arguments
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SIZES = (512, 720, 1080)
"""The shorter side of a video in pixels."""
FRAME_RATES = (25, 30)
LEAST_MIB = 400
"""Of memory for a render: with less, not even its libraries can be loaded."""
Format = Literal["square", "portrait"]
"""The shape of a video: as high as wide, or 16 high to 9 wide, as telephones are held."""
Revision = Literal["seed", "later"]
"""Of the API: the first three calls, or also statuses, `video.list`, avatars with poses, and masks."""


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else arguments.path("data_dir", value, error=ConfigurationError)


def _paths(value: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[Path, ...]:
    if isinstance(value, (str, os.PathLike)):
        value = (value,)
    paths = arguments.iterable("allow_files", value, "paths", error=ConfigurationError)
    return tuple(arguments.path("allow_files", path, error=ConfigurationError) for path in paths)


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    return tuple(map(_name, arguments.iterable("allowed_hosts", value, "host names", error=ConfigurationError)))


def _name(value: Any) -> str:
    name = arguments.text("allowed_hosts", value, error=ConfigurationError)
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*", name) or re.fullmatch(
        r"\w+:\d+", name
    ):
        reason = "without port, scheme or path, and with xn--… for other letters"
        raise ConfigurationError(f"allowed_hosts must be names such as engine.example, {reason}; got {name!r}")
    return name.strip("[]").lower()


def _token(given: str | Secret | None) -> str:
    # Never a variable of its own: a traceback with variables would show it. Nor a part of the message: it may be a secret
    # with a typing error.
    secret = given if isinstance(given, Secret) else Secret(given)
    if secret.value is None:
        return secrets.token_urlsafe(24)
    if not isinstance(secret.value, str) or not re.fullmatch(r"[\x21-\x7e]{1,512}", secret.value):
        raise ConfigurationError("token must be 1 to 512 printable ASCII characters without spaces")
    return secret.value


def _workers(value: int | None) -> int:
    return value if value is not None else os.cpu_count() or 1


def _check_text(_: object, attribute: Attribute[str], value: Any) -> None:
    arguments.text(attribute.name, value, error=ConfigurationError)


def _check_size(_: object, __: Attribute[int], value: int) -> None:
    if type(value) is not int or value not in SIZES:
        raise ConfigurationError(f"size must be one of {', '.join(map(str, SIZES))} (pixels), got {value!r}")


def _check_format(_: object, __: Attribute[Format], value: Format) -> None:
    if value not in get_args(Format):
        raise ConfigurationError(f"format must be one of {', '.join(get_args(Format))}, got {value!r}")


def _check_fps(_: object, __: Attribute[int], value: int) -> None:
    if type(value) is not int or value not in FRAME_RATES:
        raise ConfigurationError(f"fps must be one of {', '.join(map(str, FRAME_RATES))}, got {value!r}")


def _check_flag(_: object, attribute: Attribute[bool], value: Any) -> None:
    if not isinstance(value, bool):  # the string "no" would count as true
        raise ConfigurationError(f"{attribute.name} must be True or False, got {arguments.short_repr(value)}")


def _check_port(_: object, __: Attribute[int], value: int) -> None:
    if type(value) is not int or not 0 <= value <= 65535:
        raise ConfigurationError(f"port must be 0 (any free one) to 65535, got {value!r}")


def _check_count(_: object, attribute: Attribute[Any], value: Any, least: int = 1) -> None:
    if type(value) is not int or value < least:
        raise ConfigurationError(f"{attribute.name} must be a whole number of at least {least}, got {value!r}")


def _check_amount(_: object, attribute: Attribute[Any], value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value < float("inf")):
        raise ConfigurationError(f"{attribute.name} must be a number above 0, got {value!r}")


def _check_memory(_: object, attribute: Attribute[Any], value: Any) -> None:
    _check_count(_, attribute, value, LEAST_MIB)


def _check_revision(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in get_args(Revision):
        raise ConfigurationError(f"revision must be one of {', '.join(get_args(Revision))}, got {value!r}")


def _check_address(_: object, __: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"dask must be the address of a scheduler, tcp://host:8786 say; got {value!r}")


def _check_files(_: object, __: Attribute[Any], value: tuple[Path, ...]) -> None:
    for path in value:
        if not os.path.exists(path):  # noqa: PTH110  # `Path.exists` raises for a name that is too long
            raise ConfigurationError(f"allow_files: there is no {str(path)!r}")


T = TypeVar("T")


def _careful(settings: type[T]) -> type[T]:
    """For tracebacks that show variables: the token is wrapped before anything can fail, and what was refused has a ``repr``."""
    make, show = settings.__init__, settings.__repr__

    @wraps(make)
    def init(self: T, **given: Any) -> None:
        if "token" in given and not isinstance(given["token"], Secret):
            given["token"] = Secret(given["token"])
        make(self, **given)

    @wraps(show)
    def represent(self: T) -> str:
        try:
            return show(self)
        except AttributeError:
            return f"<{type(self).__name__}, refused>"

    # With the same signatures.
    settings.__init__, settings.__repr__ = init, represent  # type: ignore[assignment, method-assign]
    return settings


@_careful
@frozen(kw_only=True)
class Settings:
    """What an engine can be told; all of it can be left out.

    Attributes:
        data_dir: Where tasks and videos are kept over restarts. ``None``: a temporary folder, gone when the engine stops.
        host: The address to listen on. Anything but loopback is open to others.
        port: The port to listen on; 0 takes a free one.
        token: What clients must send. ``None``: a random one, to be read here.
        size: The shorter side of the videos in pixels: 512, 720 or 1080.
        format: ``"square"``, or ``"portrait"``: 16 high to 9 wide (720 × 1280, say).
        fps: Frames a second: 25 or 30.
        workers: How many renders run at once. ``None``: one for each core of this machine, also with ``dask``.
        dask: The scheduler of a Dask cluster that renders in this machine's place, ``tcp://host:8786`` say.
        queue_limit: How many videos may wait before ``video.generate`` refuses more.
        allow_files: Folders (or single files) that an ``audio_url`` of the form ``file:///…`` may read; none by default.
        allow_private_urls: Whether an ``audio_url`` may point into private networks and to this machine.
        revision: Which revision of the API to speak: ``"seed"`` has three calls and no status, ``"later"`` has all.
        like_hosted: Whether to be as strict as the hosted service: 30 requests a minute and 1 minute of audio, unless
            other numbers are given, and a refusal over the limit whose body is not valid JSON.
        requests_per_minute: How many requests are answered each minute; ``None``: no limit.
        quota: How many requests are answered in the life of the data folder; ``None``: no limit.
        max_audio_seconds: The longest recording that is rendered. ``None``: 30 minutes.
        max_render_seconds: How long a render may take.
        max_render_mib: How much memory a render may take, in MiB (address space); 400 or more.
        keep_days: How long videos are kept after their render, and the tasks with them. ``None``: for ever.
        allowed_hosts: Names beside ``host`` and those of loopback by which clients may address the engine.

    Raises:
        ConfigurationError: A setting cannot be right; the message says which and why.
    """

    data_dir: Path | None = field(default=None, converter=_path)
    host: str = field(default="127.0.0.1", validator=_check_text)
    port: int = field(default=0, validator=_check_port)
    token: str = field(default=None, converter=_token, repr=False)
    size: int = field(default=512, validator=_check_size)
    format: Format = field(default="square", validator=_check_format)
    fps: int = field(default=25, validator=_check_fps)
    workers: int = field(default=None, converter=_workers, validator=_check_count)
    dask: str | None = field(default=None, validator=optional(_check_address))
    queue_limit: int = field(default=1000, validator=_check_count)
    allow_files: tuple[Path, ...] = field(default=(), converter=_paths, validator=_check_files)
    allow_private_urls: bool = field(default=False, validator=_check_flag)
    revision: Revision = field(default="later", validator=_check_revision)
    like_hosted: bool = field(default=False, validator=_check_flag)
    requests_per_minute: int | None = field(default=None, validator=optional(_check_count))
    quota: int | None = field(default=None, validator=optional(_check_count))
    max_audio_seconds: float | None = field(default=None, validator=optional(_check_amount))
    max_render_seconds: float = field(default=3600.0, validator=_check_amount)
    max_render_mib: int = field(default=2048, validator=_check_memory)
    keep_days: float | None = field(default=None, validator=optional(_check_amount))
    allowed_hosts: tuple[str, ...] = field(default=(), converter=_names)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: whoever got the pickle would have the token."""
        raise TypeError("Settings cannot be pickled, because they hold the token; make new ones where they are needed")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the engine."""
        return self.host in LOOPBACK

    @property
    def request_limit(self) -> int | None:
        """How many requests are answered each minute, all told."""
        return 30 if self.requests_per_minute is None and self.like_hosted else self.requests_per_minute

    @property
    def audio_limit(self) -> float:
        """The longest recording that is rendered in seconds, all told."""
        return self.max_audio_seconds or (60.0 if self.like_hosted else 1800.0)
