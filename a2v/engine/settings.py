"""The settings of an engine: defined and checked here, once, and passed around as one value."""

from __future__ import annotations

import os
import re
import secrets
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypedDict, TypeVar, get_args

from attrs import Attribute, field, frozen
from attrs.validators import optional

from a2v._core.settings import Secret
from a2v._values import arguments
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SIZES = (512, 720, 1080)
"""Allowed lengths of a video's shorter side, in pixels."""
FRAME_RATES = (24, 25, 30, 50, 60)
MIN_RENDER_MIB = 400
"""The smallest memory limit of a render in MiB: its libraries cannot be loaded with less."""
Format = Literal["square", "portrait", "landscape"]
"""The shape of a video: 1:1, 9:16 or 16:9."""
Revision = Literal["seed", "later"]
"""The revision of the API: the first three calls only, or also statuses, `video.list`, avatars with poses, masks and voices."""


class SettingsOptions(TypedDict, total=False):
    """The settings that ``LocalEngine`` also takes by keyword: all but ``host``, ``data_dir`` and ``token``."""

    port: int
    size: int
    format: Format
    fps: int
    workers: int | None
    dask: str | None
    characters: str | os.PathLike[str] | None
    queue_limit: int
    allow_files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    allow_private_urls: bool
    revision: Revision
    like_hosted: bool
    requests_per_minute: int | None
    quota: int | None
    max_audio_seconds: float | None
    max_render_seconds: float
    max_render_mib: int
    keep_days: float | None
    max_uploads_mib: int
    allowed_hosts: str | Iterable[str]
    tls_cert: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None


def _data_dir(value: str | os.PathLike[str] | None) -> Path | None:
    return _path("data_dir", value)


def _characters(value: str | os.PathLike[str] | None) -> Path | None:
    return _path("characters", value)


def _tls_cert(value: str | os.PathLike[str] | None) -> Path | None:
    return _path("tls_cert", value)


def _tls_key(value: str | os.PathLike[str] | None) -> Path | None:
    return _path("tls_key", value)


def _path(name: str, value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else arguments.path(name, value, error=ConfigurationError)


def _paths(value: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[Path, ...]:
    if isinstance(value, (str, os.PathLike)):
        value = (value,)
    paths = arguments.iterable("allow_files", value, "paths", error=ConfigurationError)
    return tuple(arguments.path("allow_files", path, error=ConfigurationError) for path in paths)


def _hosts(value: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    return tuple(map(_host, arguments.iterable("allowed_hosts", value, "host names", error=ConfigurationError)))


def _host(value: Any) -> str:
    name = arguments.text("allowed_hosts", value, error=ConfigurationError)
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*", name) or re.fullmatch(
        r"\w+:\d+", name
    ):
        rule = "without port, scheme or path, and with xn--… for non-ASCII letters"
        raise ConfigurationError(f"allowed_hosts must be names such as engine.example, {rule}; got {name!r}")
    return name.strip("[]").lower()


def _token(value: str | Secret | None) -> str:
    # The plain token is never a local variable, which a traceback could show, and never part of the message: it may be
    # a mistyped secret.
    secret = value if isinstance(value, Secret) else Secret(value)
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


def _check_count(_: object, attribute: Attribute[Any], value: Any, minimum: int = 1) -> None:
    if type(value) is not int or value < minimum:
        raise ConfigurationError(f"{attribute.name} must be a whole number of at least {minimum}, got {value!r}")


def _check_amount(_: object, attribute: Attribute[Any], value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 < value < float("inf")):
        raise ConfigurationError(f"{attribute.name} must be a number above 0, got {value!r}")


def _check_memory(_: object, attribute: Attribute[Any], value: Any) -> None:
    _check_count(_, attribute, value, MIN_RENDER_MIB)


def _check_revision(_: object, __: Attribute[Any], value: Any) -> None:
    if value not in get_args(Revision):
        raise ConfigurationError(f"revision must be one of {', '.join(get_args(Revision))}, got {value!r}")


def _check_address(_: object, __: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"dask must be the address of a scheduler, such as tcp://host:8786; got {value!r}")


def _check_files(_: object, __: Attribute[Any], value: tuple[Path, ...]) -> None:
    for path in value:
        if not os.path.exists(path):  # noqa: PTH110  # `Path.exists` raises for a name that is too long
            raise ConfigurationError(f"allow_files: there is no {str(path)!r}")


def _check_tls(settings: Settings, _: Attribute[Any], tls_key: Path | None) -> None:
    if (settings.tls_cert is None) != (tls_key is None):
        given, missing = ("tls_cert", "tls_key") if tls_key is None else ("tls_key", "tls_cert")
        raise ConfigurationError(
            f"{given} needs {missing} (--{missing.replace('_', '-')}); if one file has both, pass it twice"
        )


def _check_folder(_: object, attribute: Attribute[Any], value: Path) -> None:
    if not os.path.isdir(value):  # noqa: PTH112  # as above
        what = "is not a folder" if os.path.exists(value) else "does not exist"  # noqa: PTH110
        raise ConfigurationError(f"{attribute.name}: {str(value)!r} {what}")


def _wrap_token(options: dict[str, Any]) -> None:
    """Replace the token among keyword arguments by a ``Secret``, so that tracebacks with local variables do not show it."""
    if "token" in options and not isinstance(options["token"], Secret):
        options["token"] = Secret(options["token"])


T = TypeVar("T")


def _safe_in_tracebacks(cls: type[T]) -> type[T]:
    """Wrap the token before any check can fail, and give an instance whose ``__init__`` failed a ``repr``."""
    init, represent = cls.__init__, cls.__repr__

    @wraps(init)
    def safe_init(self: T, **options: Any) -> None:
        _wrap_token(options)
        init(self, **options)

    @wraps(represent)
    def safe_repr(self: T) -> str:
        try:
            return represent(self)
        except AttributeError:
            return f"<{type(self).__name__}, not initialised>"

    # The signatures are the same.
    cls.__init__, cls.__repr__ = safe_init, safe_repr  # type: ignore[assignment, method-assign]
    return cls


@_safe_in_tracebacks
@frozen(kw_only=True)
class Settings:
    """The settings of an engine. All are optional.

    Attributes:
        data_dir: The folder that keeps tasks and videos across restarts. ``None``: a temporary folder, deleted when the
            engine stops.
        host: The address to listen on. Anything but loopback is reachable from other machines.
        port: The port to listen on; 0 picks a free one.
        token: The token that clients must send. ``None``: a random one; read it from this attribute.
        size: The shorter side of the videos, in pixels: 512, 720 or 1080.
        format: ``"square"``, ``"portrait"`` for 9:16 (720 × 1280, for example), or ``"landscape"`` for 16:9.
        fps: Frames per second: 24, 25, 30, 50 or 60.
        workers: The number of renders at a time. ``None``: the number of cores of this machine, also with ``dask``.
        dask: The address of the scheduler of a Dask cluster that renders instead of this machine: ``tcp://host:8786``.
        characters: A folder of your own characters: files ``NAME.toml``, and portraits, ``NAME.png``, ``.jpg``, ``.jpeg`` or
            ``.webp``. It is read on each request, so you can change it while the engine runs.
        queue_limit: The maximum number of videos in the queue, 1000 by default; ``video.generate`` rejects others.
        allow_files: Folders or single files that an ``audio_url`` of the form ``file:///…`` may read; none by default.
        allow_private_urls: Whether an ``audio_url`` may point into private networks and to this machine.
        revision: The revision of the API to serve: ``"seed"`` has three calls and no status, ``"later"`` has everything.
        like_hosted: Whether to behave like the hosted service: 30 requests per minute and 1 minute of audio, unless you set other
            limits, texts of 500 instead of 5,000 characters, and 429 responses whose body is not valid JSON.
        requests_per_minute: The number of requests allowed per minute; ``None``: no limit.
        quota: The number of requests allowed over the lifetime of the data folder; ``None``: no limit.
        max_audio_seconds: The length of the longest recording to render. ``None``: 30 minutes, or 1 minute with ``like_hosted``.
        max_render_seconds: The time limit of a render, an hour by default.
        max_render_mib: The memory limit of a render, in MiB of address space; 2048 by default, at least 400.
        keep_days: The number of days after which a finished video and its task are deleted. ``None``: never.
        max_uploads_mib: The space that uploaded recordings may use together, in MiB; 10 GiB by default. Each is deleted a day
            after its last use.
        allowed_hosts: Names that requests may have in their ``Host`` header, besides ``host`` and the names of loopback.
        tls_cert: The certificate for ``https://``, followed by its issuers' certificates, in PEM format. ``None``: plain HTTP.
            ``create_app`` ignores it: the server that runs the application has its own setting.
        tls_key: The private key of ``tls_cert``, in PEM format and without a passphrase.

    Raises:
        ConfigurationError: A setting is invalid; the message says which one and why.
    """

    data_dir: Path | None = field(default=None, converter=_data_dir)
    host: str = field(default="127.0.0.1", validator=_check_text)
    port: int = field(default=0, validator=_check_port)
    token: str = field(default=None, converter=_token, repr=False)
    size: int = field(default=512, validator=_check_size)
    format: Format = field(default="square", validator=_check_format)
    fps: int = field(default=25, validator=_check_fps)
    workers: int = field(default=None, converter=_workers, validator=_check_count)
    dask: str | None = field(default=None, validator=optional(_check_address))
    characters: Path | None = field(default=None, converter=_characters, validator=optional(_check_folder))
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
    max_uploads_mib: int = field(default=10_240, validator=_check_count)
    allowed_hosts: tuple[str, ...] = field(default=(), converter=_hosts)
    tls_cert: Path | None = field(default=None, converter=_tls_cert)
    tls_key: Path | None = field(default=None, converter=_tls_key, validator=_check_tls)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: the pickle would contain the token."""
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
        """The number of requests allowed per minute, with ``like_hosted`` taken into account."""
        return 30 if self.requests_per_minute is None and self.like_hosted else self.requests_per_minute

    @property
    def audio_limit(self) -> float:
        """The longest recording to render in seconds, with ``like_hosted`` taken into account."""
        return self.max_audio_seconds or (60.0 if self.like_hosted else 1800.0)

    @property
    def text_limit(self) -> int:
        """The longest text to synthesize in characters, with ``like_hosted`` taken into account: some five minutes of speech."""
        return 500 if self.like_hosted else 5000
