"""Settings of a client: the token and the server's URL, validated before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, NoReturn, SupportsIndex
from urllib.parse import urlsplit

from attrs import field, frozen

from a2v.errors import ConfigurationError

HOSTED = "https://openapi.surreal-ai.com"
"""The URL of the hosted service."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
# A shorter token may be part of ordinary words, so it is redacted only after ``Bearer``.
_MIN_SECRET = 8


class Secret:
    """Wraps a value so that no ``repr``, pickle, copy or traceback with local variables shows it.

    Args:
        value: The value, of any type until it has been validated.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def value(self) -> Any:
        """The wrapped value."""
        return self._value

    def __repr__(self) -> str:
        return "Secret()"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce_ex__(self, _: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            "a secret can be neither pickled nor copied: pass it in another way, such as an environment variable"
        )

    def redact(self, text: bytes) -> bytes:
        """Replace the secret in a text by ``[token]``. Servers may quote it in responses, which end up in errors and logs."""
        secret = (self.value or "").encode()
        if len(secret) < _MIN_SECRET and secret.lower() not in text.lower():
            return text
        if len(secret) < _MIN_SECRET:
            return re.sub(rb"(?i)\b(bearer\s+)%s(?![\w-])" % re.escape(secret), rb"\1[token]", text) if secret else text
        text = text.replace(secret, b"[token]")
        return _json_escaped(secret).sub(b"[token]", text) if b"\\" in text else text


class HoldsSecret:
    """Base of objects that hold a secret and cannot be pickled or copied. Subclasses say in ``_instead`` what to do."""

    __slots__ = ()
    _instead = "make another one there"

    def __reduce_ex__(self, _: SupportsIndex, /) -> NoReturn:
        raise TypeError(f"{type(self).__name__} can be neither pickled nor copied: {self._instead}")


@frozen
class RequestOptions:
    """How requests are sent.

    Attributes:
        timeout: Seconds for one exchange.
        max_retries: How often a failed request is repeated.
        headers: Additional headers, a mapping. A secret, because gateways take keys in headers.
    """

    timeout: float
    max_retries: int
    headers: Secret = field(factory=lambda: Secret({}))


# The client sets these, or they would break its requests.
_RESERVED_HEADERS = {
    "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "transfer-encoding",
}  # fmt: skip
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")


def check_headers(name: str, given: Secret) -> Secret:
    """Return headers with their names in lower case, as a secret dictionary.

    Args:
        name: The argument's name, for error messages.
        given: A mapping of names to values, or ``None``.

    Raises:
        ConfigurationError: It is not a mapping of strings, a name or a value is invalid, or the client sets the header itself.
            The message shows no value.
    """
    if given.value is None:
        return Secret({})
    # Raised here, because the local variables of the function below hold the values.
    if problem := _header_problem(given.value):
        raise ConfigurationError(f"{name} {problem}")
    return Secret({header.lower(): value for header, value in given.value.items()})


def _header_problem(given: Any) -> str | None:
    if not isinstance(given, Mapping):
        return f"must be a mapping of names to values, got a value of type {type(given).__name__}"
    for number, (header, value) in enumerate(given.items(), start=1):
        # The name is not shown: it may contain the value, as in "x-key: 1234".
        if not isinstance(header, str) or not _HEADER_NAME.fullmatch(header):
            return f"has an invalid name for header {number}: names consist of ASCII letters, digits and hyphens"
        if header.lower() in _RESERVED_HEADERS:
            return f"must not contain {header}: the client sets this header"
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            return f"must have strings of printable ASCII characters as values; that of {header} is not"
    return None


@lru_cache(16)
def _json_escaped(secret: bytes) -> re.Pattern[bytes]:
    r"""Return a pattern for the secret in JSON, where a slash may be written as ``\/`` or ``\u002f``."""
    either = (rb"(?:\\?%s|\\u(?i:%04x))" % (re.escape(bytes([byte])), byte) for byte in secret)
    return re.compile(b"".join(either))


def resolve_token(given: Secret, default: Secret) -> Secret:
    """Return the token.

    Args:
        given: The argument of the client.
        default: The value of ``A2V_TOKEN``.

    Raises:
        ConfigurationError: There is none, or it is invalid. The message does not show it.
    """
    found = default if given.value is None else given
    if not found.value:
        raise ConfigurationError("no token: pass token=… or set the environment variable A2V_TOKEN")
    # The HTTP library's error would show a token that cannot be sent.
    if not isinstance(found.value, str) or not _TOKEN.fullmatch(found.value):
        raise ConfigurationError("the token must be 1 to 512 printable ASCII characters without spaces")
    return found


def resolve_base_url(given: str | None, default: str | None, *, insecure: bool = False) -> str:
    """Return the server's URL, without a trailing slash.

    Args:
        given: The argument of the client.
        default: The value of ``A2V_BASE_URL``; if it is empty or not set, the hosted service is used.
        insecure: Whether the token may be sent unencrypted to private addresses. A host name is allowed here; before each
            request ``choose_private_address`` checks its addresses.

    Raises:
        ConfigurationError: It is not a valid URL, or the token would be sent unencrypted to another machine.
    """
    # An empty environment variable counts as not set; an empty argument is a mistake.
    found = (default or HOSTED) if given is None else given
    if not isinstance(found, str):
        raise ConfigurationError(f"base_url must be a string, got {type(found).__name__}")
    try:
        parts = urlsplit(found)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\x00-\x20\x7f]", found):
        raise ConfigurationError("base_url must look like https://host or http://127.0.0.1:8000")
    # Even an empty query or fragment: the path appended to it would become part of it.
    if parts.username is not None or "?" in found or "#" in found:
        raise ConfigurationError("base_url must have no user name, query or fragment; the token is passed as token=…")
    if parts.scheme == "http" and (problem := _why_unsafe(host, insecure=insecure)):
        raise ConfigurationError(f"base_url is http://, so the token would be sent unencrypted: {problem}")
    return found.rstrip("/")


def _why_unsafe(host: str, *, insecure: bool) -> str | None:
    """Return why the token must not be sent to a host unencrypted, and what to do; ``None`` if it may."""
    if is_loopback(host):
        return None
    if is_address(host) and not is_private(host):
        only = "insecure=True allows only private addresses; " if insecure else ""
        return f"{host} is not a private address; {only}use https://"
    if not insecure:
        return f"{host} is not this machine; use https://, or, in a network that you trust, insecure=True (--insecure)"
    return None


@lru_cache(16)
def is_loopback(host: str) -> bool:
    """Whether the host of a URL is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


_PRIVATE_NETWORKS = [
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
]


def is_private(address: str) -> bool:
    """Whether an IP address belongs to a private network, or to this machine."""
    ip = ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or any(ip.version == network.version and ip in network for network in _PRIVATE_NETWORKS)


def choose_private_address(host: str, addresses: Iterable[str]) -> str:
    """Return the address of a host to which the token is sent unencrypted, IPv4 if there is one.

    Raises:
        ConfigurationError: One of its addresses is not private. Which of them a library connects to is up to chance.
    """
    found = list(addresses)
    for address in found:
        if not is_private(address):
            raise ConfigurationError(
                f"base_url is http://, and {host} has the address {address}, which is not private: the token is not sent "
                "there unencrypted; use https://"
            )
    return min(found, key=lambda address: ":" in address)


@lru_cache(16)
def is_address(host: str) -> bool:
    """Whether the host of a URL is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
