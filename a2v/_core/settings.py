"""What a client is told about itself, checked before anything is sent."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NoReturn, SupportsIndex
from urllib.parse import urlsplit

from a2v.errors import ConfigurationError

HOSTED = "https://openapi.surreal-ai.com"
"""Where the hosted service is."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
# A shorter token may be part of other words, and is hardly a secret.
_SHORTEST_SECRET = 8


class Secret:
    """A value that is shown nowhere: in no ``repr``, pickle or copy, and in no traceback that shows local variables.

    Args:
        value: The value; it may be of any type until it has been checked.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def value(self) -> Any:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret()"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce_ex__(self, _: SupportsIndex, /) -> NoReturn:
        raise TypeError("a secret can be neither pickled nor copied: pass it in another way, such as a variable")

    def redact(self, said: bytes) -> bytes:
        """What somebody said, without this: servers quote it, and what they say ends up in errors and logs."""
        secret = (self.value or "").encode()
        if len(secret) < _SHORTEST_SECRET:
            return re.sub(rb"(?i)\b(bearer\s+)%s(?![\w-])" % re.escape(secret), rb"\1[token]", said) if secret else said
        said = said.replace(secret, b"[token]")
        return _escaped(secret).sub(b"[token]", said) if b"\\" in said else said


class HoldsSecret:
    """What holds a token or the like, and so can be neither pickled nor copied. Each kind says what to pass instead."""

    __slots__ = ()
    _instead = "make another one there"

    def __reduce_ex__(self, _: SupportsIndex, /) -> NoReturn:
        raise TypeError(f"{type(self).__name__} can be neither pickled nor copied: {self._instead}")


@lru_cache(16)
def _escaped(secret: bytes) -> re.Pattern[bytes]:
    r"""Finds it also as writers of JSON escape it: ``\/`` and ``\u002f`` for a slash."""
    either = (rb"(?:\\?%s|\\u(?i:%04x))" % (re.escape(bytes([byte])), byte) for byte in secret)
    return re.compile(b"".join(either))


def resolve_token(given: Secret, otherwise: Secret) -> Secret:
    """The token given, or that of ``A2V_TOKEN``.

    Raises:
        ConfigurationError: There is none, or it cannot be one. The message does not show it.
    """
    found = otherwise if given.value is None else given
    if not found.value:
        raise ConfigurationError("no token: pass token=… or set the environment variable A2V_TOKEN")
    # Checked here because the HTTP library would print a token it cannot send.
    if not isinstance(found.value, str) or not _TOKEN.fullmatch(found.value):
        raise ConfigurationError("the token must be 1 to 512 printable ASCII characters without spaces")
    return found


def resolve_base_url(given: str | None, otherwise: str | None) -> str:
    """The server's URL given, or that of ``A2V_BASE_URL``, or the hosted service's; without a slash at its end.

    Raises:
        ConfigurationError: It is no URL of a server, or the token would travel unencrypted to another machine.
    """
    # An empty variable counts as not set, as usual; an empty argument is a mistake.
    found = (otherwise or HOSTED) if given is None else given
    if not isinstance(found, str):
        raise ConfigurationError(f"base_url must be a string, got {type(found).__name__}")
    try:
        parts = urlsplit(found)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\x00-\x20\x7f]", found):
        raise ConfigurationError("base_url must look like https://host or http://127.0.0.1:8000")
    # An empty query or fragment too: what is appended would become part of it.
    if parts.username is not None or "?" in found or "#" in found:
        raise ConfigurationError("base_url must have no user name, query or fragment; the token is passed as token=…")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(f"base_url is http:// and {host} is not this machine: the token would travel in clear")
    return found.rstrip("/")


@lru_cache(16)
def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
