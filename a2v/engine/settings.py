"""What an engine can be told."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import Attribute, field, frozen
from attrs.validators import optional

from a2v._core import arguments
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
    names = arguments.iterable("allowed_hosts", value, "host names", error=ConfigurationError)
    return tuple(arguments.text("allowed_hosts", name, error=ConfigurationError).lower() for name in names)


def _token(value: str | None) -> str:
    return secrets.token_urlsafe(24) if value is None else value


def _workers(value: int | None) -> int:
    return value if value is not None else os.cpu_count() or 1


def _check_token(_: object, __: Attribute[str], value: Any) -> None:
    # The value stays out of the message: it may be a secret with a typing error.
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]{1,512}", value):
        raise ConfigurationError("token must be 1 to 512 printable ASCII characters without spaces")


def _check_text(_: object, attribute: Attribute[str], value: Any) -> None:
    arguments.text(attribute.name, value, error=ConfigurationError)


def _check_size(_: object, __: Attribute[int], value: int) -> None:
    if value not in SIZES:
        raise ConfigurationError(f"size must be one of {', '.join(map(str, SIZES))} (pixels), got {value!r}")


def _check_format(_: object, __: Attribute[Format], value: Format) -> None:
    if value not in get_args(Format):
        raise ConfigurationError(f"format must be one of {', '.join(get_args(Format))}, got {value!r}")


def _check_fps(_: object, __: Attribute[int], value: int) -> None:
    if value not in FRAME_RATES:
        raise ConfigurationError(f"fps must be one of {', '.join(map(str, FRAME_RATES))}, got {value!r}")


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
    token: str = field(default=None, converter=_token, validator=_check_token, repr=False)
    size: int = field(default=512, validator=_check_size)
    format: Format = field(default="square", validator=_check_format)
    fps: int = field(default=25, validator=_check_fps)
    workers: int = field(default=None, converter=_workers, validator=_check_count)
    dask: str | None = field(default=None, validator=optional(_check_address))
    queue_limit: int = field(default=1000, validator=_check_count)
    allow_files: tuple[Path, ...] = field(default=(), converter=_paths, validator=_check_files)
    allow_private_urls: bool = False
    revision: Revision = field(default="later", validator=_check_revision)
    like_hosted: bool = False
    requests_per_minute: int | None = field(default=None, validator=optional(_check_count))
    quota: int | None = field(default=None, validator=optional(_check_count))
    max_audio_seconds: float | None = field(default=None, validator=optional(_check_amount))
    max_render_seconds: float = field(default=3600.0, validator=_check_amount)
    max_render_mib: int = field(default=2048, validator=_check_memory)
    keep_days: float | None = field(default=None, validator=optional(_check_amount))
    allowed_hosts: tuple[str, ...] = field(default=(), converter=_names)

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
