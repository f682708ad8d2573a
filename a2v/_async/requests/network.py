"""What the environment says of connections: proxies, and the certificates that are trusted."""

from __future__ import annotations

import os
import ssl
import sys
import threading
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import httpx
from attrs import frozen

from a2v import _threads
from a2v._core.proxies import choose_proxy
from a2v._core.settings import Secret, is_loopback
from a2v.errors import ConfigurationError

# How many sets of certificates are kept in memory, of about 1 MB each.
_CONTEXTS = 4


def preload() -> None:
    """Import what the libraries for networks would import when they are first used."""
    for name in ("anyio._backends._asyncio", "anyio.streams.tls", "certifi", "encodings.idna", "h11", "httpcore"):
        import_module(name)


async def proxy_for(url: str) -> Secret | None:
    """The proxy that the environment wants for a URL. Loopback never goes through one.

    Raises:
        ConfigurationError: It cannot be used.
    """
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        return None
    settings = Secret(getproxies_environment())
    if not settings.value and sys.platform in ("win32", "darwin"):  # pragma: no cover  # the settings of the system
        settings = Secret(getproxies())
        # It may ask the name server which address a host has.
        if settings.value and await _threads.run(partial(proxy_bypass, host), grace=0):
            return None
    return choose_proxy(url, settings)


def make_pool(context: ssl.SSLContext, proxy: Secret | None, *, idle: int | None) -> httpx.AsyncHTTPTransport:
    """A pool of connections that keeps at most so many of them idle; ``None``: all.

    Raises:
        ConfigurationError: The proxy cannot be used.
    """
    # A pool with a limit loses a place for good with each request that is cancelled while it is given one (httpcore #1093).
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=idle)
    try:
        return httpx.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=limits, proxy=None if proxy is None else proxy.value
        )
    except ImportError:
        reason = 'a socks5 proxy needs one more package: pip install "httpx[socks]"'
    except (ValueError, httpx.InvalidURL):
        # The library's own words may quote a part of the password.
        reason = "its address is not valid"
    raise ConfigurationError(f"the proxy that the environment asks for cannot be used: {reason}")


@frozen
class Trust:
    """Which certificates are trusted. A client notices when that changes, for a notebook may run for weeks.

    Attributes:
        file: What ``SSL_CERT_FILE`` says.
        folder: What ``SSL_CERT_DIR`` says.
        state: When the file or the folder changed.
        kind: The class of the contexts, which packages such as truststore replace.
    """

    file: str
    folder: str
    state: tuple[int, ...]
    kind: type[ssl.SSLContext]


def current_trust() -> Trust:
    """Which certificates are trusted now."""
    file, folder = os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")
    try:
        found = Path(file or folder).stat() if file or folder else None
    except (OSError, ValueError):
        found = None
    state = (found.st_mtime_ns, found.st_size, found.st_ino) if found else ()
    return Trust(file, folder, state, ssl.SSLContext)


async def ssl_context(trust: Trust | None) -> ssl.SSLContext:
    """The TLS settings for some certificates, built once for all clients; without ``trust``, settings that trust nobody.

    Raises:
        ConfigurationError: The certificates cannot be loaded.
    """
    if trust is None:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return await _threads.run(partial(_one_at_a_time, trust), grace=0)


_lock = threading.Lock()


def _renew_lock() -> None:  # pragma: no cover  # runs in forked children only
    """Give a forked child an open lock: the thread that held it stayed in the parent."""
    global _lock  # noqa: PLW0603  # nobody else has it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_renew_lock)


def _one_at_a_time(trust: Trust) -> ssl.SSLContext:
    """However many clients begin at once, in however many threads, it is built once: it takes tens of milliseconds."""
    with _lock:
        return _new_ssl_context(trust)


@lru_cache(_CONTEXTS)
def _new_ssl_context(trust: Trust) -> ssl.SSLContext:  # noqa: ARG001  # the key of the cache
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ConfigurationError(f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR name cannot be loaded: {reason}")
