"""Choose the proxy for a URL, by curl's rules for ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from a2v._core.settings import Secret
from a2v.errors import ConfigurationError

_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535


def bypasses_proxy(url: str, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` matches the host of a URL.

    Entries are separated by commas or spaces. Case and a trailing dot are ignored:

    * ``*``, as the only entry: every host;
    * ``example.com``, ``.example.com`` or ``*.example.com``: the host and its subdomains;
    * ``192.0.2.1``, ``[2001:db8::1]`` or ``192.0.2.0/24``: an address or a network.

    An entry may have a port, which must equal the URL's, and a scheme, which is ignored.
    """
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)
    entries = re.split(r"[\s,]+", no_proxy.strip().lower())
    return entries == ["*"] or any(_matches(entry, host, port) for entry in entries)


def _matches(entry: str, host: str, port: int | None) -> bool:
    entry = entry.partition("://")[2] or entry
    address = _address(host)
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?:/(\d+))?(?::(\d+))?/?", entry)
    # The colons of an IPv6 address without brackets are not those of a port.
    name, size, wanted = found.groups() if found and found[1] else (entry, None, None)
    if wanted is not None and int(wanted) != port:
        return False
    name = name.strip("[]")
    if size is None:
        name, _, size = name.partition("/")
    if address is not None:
        return _is_within(address, f"{name}/{size}" if size else name)
    name = name.removeprefix("*").lstrip(".").rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_within(address: IPv4Address | IPv6Address, network: str) -> bool:
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False


def choose_proxy(url: str, settings: Secret) -> Secret | None:
    """Return the URL of the proxy for a URL, which may contain a password, or ``None``.

    Args:
        url: The URL.
        settings: Maps schemes and ``"all"`` to proxies, and ``"no"`` to the value of ``NO_PROXY``.

    Raises:
        ConfigurationError: The proxy's URL is invalid. The message shows no part of it.
    """
    scheme = urlsplit(url).scheme
    found = Secret(settings.value.get(scheme) or settings.value.get("all") or None)
    if found.value is None or bypasses_proxy(url, settings.value.get("no", "")):
        return None
    if "://" not in found.value:
        found = Secret(f"http://{found.value}")
    if not _is_proxy(found):
        name = scheme if settings.value.get(scheme) else "all"
        raise ConfigurationError(
            f"the proxy in the environment variable {name.upper()}_PROXY cannot be used: it must look like "
            "http://host:port or http://user:password@host:port, with schemes http, https, socks5 or socks5h; in a user "
            "name or password, characters such as # / ? @ : and spaces must be percent-encoded (%23 %2F %3F %40 %3A %20)"
        )
    return found


# Nothing may follow the port: text after a "/", "?" or "#" is usually the rest of a password.
_PROXY = re.compile(
    r"(?i:https?|socks5h?)://(?:[^\s/?#]*@)?(?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\%]+)(?::0*(?P<port>[1-9][0-9]{0,4}))?/?",
    re.IGNORECASE,
)


def _is_proxy(proxy: Secret) -> bool:
    found = _PROXY.fullmatch(proxy.value)
    return found is not None and int(found["port"] or 0) <= _MAX_PORT
