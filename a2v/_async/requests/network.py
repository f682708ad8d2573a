"""Connection settings from the environment: proxies and trusted certificates.

Both are read for each request, because a client in a notebook may live for weeks. Everything here that may block runs in a
thread.
"""

from __future__ import annotations

import os
import ssl
import sys
import threading
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import httpx

from a2v._async.requests.httpcore_workarounds import MAX_CONNECTIONS
from a2v._core.proxies import choose_proxy
from a2v._core.settings import Secret, is_loopback
from a2v.errors import ConfigurationError

# Number of cached TLS contexts, of about 1 MB each.
_MAX_CONTEXTS = 4


def preload() -> None:
    """Import the modules that this client and the network libraries would import on first use."""
    for name in (
        *("anyio._backends._asyncio", "anyio.streams.tls", "certifi", "encodings.idna", "h11", "httpcore"),
        *("a2v._async.batch.batch", "cattrs.gen"),  # the former with downloads and threads
    ):
        import_module(name)


async def proxy_for(url: str) -> Secret | None:
    """Return the proxy that the environment sets for a URL; ``None`` for loopback addresses.

    Raises:
        ConfigurationError: The proxy's URL is invalid.
    """
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        return None
    settings = Secret(getproxies_environment())
    if not settings.value and sys.platform in ("win32", "darwin"):  # pragma: no cover  # system settings
        settings = Secret(getproxies())
        from a2v import _threads  # noqa: PLC0415  # see ssl_context

        # May resolve the host name.
        if settings.value and await _threads.run(partial(proxy_bypass, host), grace=0):
            return None
    return choose_proxy(url, settings)


def make_pool(context: ssl.SSLContext, proxy: Secret | None, *, idle: int | None) -> httpx.AsyncHTTPTransport:
    """Make a connection pool.

    Args:
        context: TLS settings.
        proxy: The proxy's URL, if there is one.
        idle: The maximum number of idle connections to keep; ``None``: no limit.

    Raises:
        ConfigurationError: The proxy cannot be used.
    """
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=idle)
    try:
        return httpx.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=limits, proxy=None if proxy is None else proxy.value
        )
    except ImportError:
        reason = 'a socks5 proxy needs one more package: pip install "httpx[socks]"'
    except (ValueError, httpx.InvalidURL):
        # The library's own message may quote part of the password.
        reason = "its address is not valid"
    raise ConfigurationError(f"the proxy set in the environment cannot be used: {reason}")


class Trust(NamedTuple):
    """The identity of a set of trusted certificates: if the certificates may have changed, it differs.

    Attributes:
        file: The value of ``SSL_CERT_FILE``.
        folder: The value of ``SSL_CERT_DIR``.
        state: Modification time, size and inode of the file or folder.
        kind: The class of TLS contexts, which packages such as truststore replace.
    """

    file: str
    folder: str
    state: tuple[int, ...]
    kind: type[ssl.SSLContext]


def current_trust() -> Trust:
    """Return the identity of the certificates that are trusted now."""
    file, folder = os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")
    try:
        found = Path(file or folder).stat() if file or folder else None
    except (OSError, ValueError):
        found = None
    state = (found.st_mtime_ns, found.st_size, found.st_ino) if found else ()
    return Trust(file, folder, state, ssl.SSLContext)


async def ssl_context(trust: Trust | None) -> ssl.SSLContext:
    """Return the TLS context for a set of certificates, shared by all clients.

    Args:
        trust: The identity of the certificates; ``None``: a context that trusts none.

    Raises:
        ConfigurationError: The certificates cannot be loaded.
    """
    if trust is None:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    from a2v import _threads  # noqa: PLC0415  # with asyncio, which not every process that imports the client needs

    return await _threads.run(partial(_build_ssl_context, trust), grace=0)


_lock = threading.Lock()


def _renew_lock() -> None:  # pragma: no cover  # runs in forked children only
    """Replace the lock in a forked child: the thread that holds it may exist in the parent only."""
    global _lock  # noqa: PLW0603  # used in this module only
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_renew_lock)


def _build_ssl_context(trust: Trust) -> ssl.SSLContext:
    """Build the context, which takes tens of milliseconds; only once, even if many clients start at the same time in several threads."""
    with _lock:
        return _new_ssl_context(trust)


@lru_cache(_MAX_CONTEXTS)
def _new_ssl_context(trust: Trust) -> ssl.SSLContext:  # noqa: ARG001  # the key of the cache
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ConfigurationError(f"the certificates in SSL_CERT_FILE or SSL_CERT_DIR cannot be loaded: {reason}")
