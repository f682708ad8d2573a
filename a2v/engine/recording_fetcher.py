"""Fetches the recording of an ``audio_url`` into the data folder, from the web or from an allowed folder.

The client chooses the URL and the engine sends the request, so without checks a client could read whatever the engine can
reach: cloud metadata, services on this machine, files (SSRF). Checking the host name is not enough, because it may resolve
to another address when the connection is made (DNS rebinding). Therefore, for ``http(s)://``:

* each name is resolved once, all its addresses must be public, and the connection goes to a checked address, with the name
  in ``Host`` and SNI;
* each redirect is a new URL and gets the same checks;
* proxies from the environment are ignored, because a proxy would resolve the name again.

For ``file://`` a path check alone would race with someone who replaces a folder by a symbolic link, so the file is opened
component by component, without following links.

A hostile server can also waste resources: size, total time, redirects and the rate of progress are limited, and compressed
responses, whose size is known only after decompression, are rejected.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import anyio
import anyio.to_thread
import httpx

from a2v.engine.errors import FetchError, ResourceExhaustedError
from a2v.engine.exhaustion import exhaustion_reason

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from a2v.engine.settings import Settings

MAX_BYTES = 100 * 1024 * 1024
MAX_SECONDS = 120.0
MAX_REDIRECTS = 5
PROGRESS_SECONDS = 30.0
MIN_PROGRESS_BYTES = 4 * 1024
"""The minimum that a server must send in ``PROGRESS_SECONDS``."""
_HOST = r"[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9._\-]+(:(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
HTTP_URL = _HOST + r"([/?#][\x21-\x7e]*)?"
"""The documented form of an ``audio_url``. ``check_audio_url`` also accepts unencoded non-ASCII characters in the path, and
IPv6 addresses."""
UPLOAD_URL = r"upload://[0-9a-f]{64}"
_NAMED_URL = _HOST + r"([/?#][^\x00-\x20\x7f]*)?"
_IPV6_URL = r"[Hh][Tt][Tt][Pp][Ss]?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?([/?#][^\x00-\x20\x7f]*)?"

# `is_global` is true for these, but they are not public hosts: protocol assignments, the 6to4 relay, Azure's platform service.
_NOT_PUBLIC_V4 = [ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")]
# The IPv6 range assigned to hosts, without tunnels (Teredo, 6to4), which lead to unchecked IPv4 addresses.
_PUBLIC_V6 = ip_network("2000::/3")
_NOT_PUBLIC_V6 = [ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_NAT64 = ip_network("64:ff9b::/96")


def check_audio_url(audio_url: str) -> None:
    """Check the form of an ``audio_url``.

    Raises:
        FetchError: It can never be fetched; the message says why.
    """
    try:
        parts = urlsplit(audio_url)
    except ValueError as error:
        raise FetchError(f" is not a URL: {error}") from None
    scheme = parts.scheme.lower()
    if scheme == "upload" and not re.fullmatch(UPLOAD_URL, audio_url):
        raise FetchError(": an upload has the form upload://SHA256, with 64 hexadecimal digits in lower case")
    if scheme in ("file", "upload"):
        return
    if "@" in parts.netloc:
        raise FetchError(" must not contain a user name or a password")
    if not re.fullmatch(_NAMED_URL, audio_url) and not re.fullmatch(_IPV6_URL, audio_url):
        rule = "its host may have letters a–z, digits, dots and hyphens (xn--… for other letters)"
        raise FetchError(f" must be an http(s):// URL; {rule}")


async def fetch_recording(audio_url: str, destination: Path, settings: Settings) -> None:
    """Fetch a recording into a file.

    Args:
        audio_url: ``http(s)://`` or ``file://``.
        destination: The file to write; may be left incomplete after an error.
        settings: Which folders and networks are allowed.

    Raises:
        FetchError: The recording does not exist, is not allowed, is larger than 100 MiB, or its server is too slow (more
            than 2 minutes in total, or less than 4 KiB in 30 s).
        ResourceExhaustedError: The machine has run out of a resource.
        OSError: Likewise, or the destination cannot be written.
    """
    check_audio_url(audio_url)
    try:
        with anyio.fail_after(MAX_SECONDS):
            if urlsplit(audio_url).scheme.lower() == "file":
                await anyio.to_thread.run_sync(_copy_file, audio_url, destination, settings.allow_files)
            else:
                await _download(audio_url, destination, allow_private=settings.allow_private_urls)
    except TimeoutError:
        raise FetchError(f" could not be fetched within {MAX_SECONDS:.0f} s") from None


# -- file:// ----------------------------------------------------------------------------------------------------------


def _copy_file(audio_url: str, destination: Path, allowed: tuple[Path, ...]) -> None:
    parts = urlsplit(audio_url)
    if parts.netloc not in ("", "localhost"):
        raise FetchError(": a file:// URL must name a file on the engine's machine (file:///…)")
    with _translated_errors():
        source = _open_allowed(Path(url2pathname(parts.path)), allowed)
    with source, _create_file(destination) as target:
        while block := _read_block(source):
            target.write(block)
            _check_size(target.tell())


def _open_allowed(path: Path, allowed: tuple[Path, ...]) -> BinaryIO:
    """Open a file in an allowed folder, even if someone replaces a folder by a link at the same time."""
    path = path.resolve()
    folders = [folder.resolve() for folder in allowed]
    inside = next((folder for folder in folders if path.is_relative_to(folder)), None)
    if inside is None:
        raise FetchError(": the engine may not read that file; allow its folder with allow_files (--allow-files)")
    descriptor = _open_without_links(inside, path.relative_to(inside).parts)
    try:
        _check_file(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _open_without_links(folder: Path, names: tuple[str, ...]) -> int:
    """Open a file below a folder component by component, following no link."""
    # O_NONBLOCK: opening a pipe would block.
    plain = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.open not in os.supports_dir_fd:  # Windows
        return os.open(folder.joinpath(*names), plain)
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    for name in names:
        parent = descriptor
        try:
            descriptor = os.open(name, plain, dir_fd=parent)
        finally:
            os.close(parent)
    return descriptor


def _read_block(source: BinaryIO) -> bytes:
    with _translated_errors():
        return source.read(1024 * 1024)


def _create_file(destination: Path) -> BinaryIO:
    return os.fdopen(
        os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600), "wb"
    )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links, before Python 3.13
        if exhaustion_reason(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise FetchError(f": the file cannot be read: {reason}") from None


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FetchError(" is not a file")


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise FetchError(f": the file is longer than {MAX_BYTES // 1024 // 1024} MiB")


# -- http(s):// -------------------------------------------------------------------------------------------------------


async def _download(audio_url: str, destination: Path, *, allow_private: bool) -> None:
    try:
        context = await anyio.to_thread.run_sync(_tls_context)
        # A bare transport, because httpx's client logs URLs, which may be signed.
        async with httpx.AsyncHTTPTransport(verify=context, trust_env=False) as transport:
            url = httpx.URL(audio_url)
            for _ in range(MAX_REDIRECTS + 1):
                location = await _send(transport, url, destination, allow_private=allow_private)
                if location is None:
                    return
                url = location
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise _fetch_error(error) from None
    raise FetchError(f" was redirected more than {MAX_REDIRECTS} times")


def _fetch_error(error: Exception) -> FetchError | ResourceExhaustedError:
    if reason := exhaustion_reason(error):
        return ResourceExhaustedError(reason)
    if isinstance(error, httpx.TimeoutException):
        return FetchError(": its server does not respond")
    if isinstance(error, httpx.HTTPError):
        return FetchError(f" could not be fetched: {str(error) or 'the connection failed'}")
    # urlsplit and idna raise ValueError for some malformed redirects.
    return FetchError(" redirects to something that is not a URL")


_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "a2v-engine"}
_TIMEOUT = httpx.Timeout(30, connect=10)
_WEB_PORTS = (80, 443)
"""The only allowed ports below 1024: services such as mail servers could take a crafted HTTP request for their own protocol."""


@cache
def _tls_context() -> ssl.SSLContext:
    """Load the trusted certificates once: that takes tens of milliseconds."""
    return httpx.create_ssl_context()


async def _send(
    transport: httpx.AsyncHTTPTransport, url: httpx.URL, destination: Path, *, allow_private: bool
) -> httpx.URL | None:
    """Send one request; save the response's body, or return the target of a redirect."""
    if url.scheme not in ("http", "https") or not url.host:
        raise FetchError(" redirects to something that is not http(s)")
    _check_port(url.port, allow_private=allow_private)
    response = None
    # A deadline for the whole head: the transport's own timeout restarts with each byte.
    with anyio.move_on_after(PROGRESS_SECONDS):
        response = await _connect(transport, url, await _resolve(url, allow_private=allow_private))
    if response is None:
        raise FetchError(": its server does not respond")
    try:
        if response.has_redirect_location:
            return url.join(response.headers["location"])
        await _save(response, destination)
    finally:
        await response.aclose()
    return None


def _check_port(port: int | None, *, allow_private: bool) -> None:
    if port is not None and not 0 < port < 65536:
        raise FetchError(f": there is no port {port}")
    if not (allow_private or port is None or port in _WEB_PORTS or port >= 1024):
        raise FetchError(f": port {port} is not allowed; below 1024, only 80 and 443 are")


async def _connect(transport: httpx.AsyncHTTPTransport, url: httpx.URL, addresses: list[str]) -> httpx.Response:
    """Send the request to the first reachable address, under the host name of the URL."""
    extensions = {"sni_hostname": url.raw_host.decode("ascii"), "timeout": _TIMEOUT.as_dict()}
    headers = _HEADERS | {"Host": url.netloc.decode("ascii")}
    for last, address in enumerate(addresses, start=1 - len(addresses)):
        request = httpx.Request("GET", url.copy_with(host=address), headers=headers, extensions=extensions)
        try:
            return await transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if last == 0:
                raise
    raise FetchError(": its host has no address")


async def _save(response: httpx.Response, destination: Path) -> None:
    if response.status_code != 200:
        raise FetchError(f" could not be fetched: its server answered HTTP {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchError(" could not be fetched: its server sent it compressed although identity was requested")
    size, milestone = 0, MIN_PROGRESS_BYTES
    async with anyio.wrap_file(await anyio.to_thread.run_sync(_create_file, destination)) as file:
        # Breaking out of the loop would leave httpx's generators to the garbage collector, while cancelling a read unwinds
        # them. So the loop ends by cancellation only, and only reads can be cancelled.
        with anyio.move_on_after(PROGRESS_SECONDS) as reading:
            async for block in response.aiter_raw():
                size += len(block)
                if size > MAX_BYTES:
                    reading.cancel()
                    continue
                if size >= milestone:
                    milestone = size + MIN_PROGRESS_BYTES
                    reading.deadline = anyio.current_time() + PROGRESS_SECONDS
                with anyio.CancelScope(shield=True):
                    await file.write(block)
    _check_size(size)
    if reading.cancelled_caught:
        raise FetchError(f": its server sent less than {MIN_PROGRESS_BYTES // 1024} KiB in {PROGRESS_SECONDS:.0f} s")


async def _resolve(url: httpx.URL, *, allow_private: bool) -> list[str]:
    """Resolve the host of a URL; reject it unless all its addresses are public."""
    host = url.raw_host.decode("ascii").strip("[]")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if reason := exhaustion_reason(error):
            raise ResourceExhaustedError(reason) from None
        # The resolver also reports an unknown name when it cannot open a file or a socket.
        await anyio.to_thread.run_sync(_check_descriptors)
        raise FetchError(f": there is no host {host!r}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(is_public(address) for address in addresses):
        raise FetchError(
            f": {host!r} is not on the public internet; allow_private_urls (--allow-private-urls) allows other hosts"
        )
    return addresses


def _check_descriptors() -> None:
    with ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(closing(socket.socket()))


def is_public(address: str) -> bool:
    """Whether an address belongs to a host on the public internet. For an IPv6 address that embeds an IPv4 address, the latter counts."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC_V4)
    embedded = _embedded_ipv4(ip)
    if embedded is not None:
        return is_public(str(embedded))
    return ip.scope_id is None and ip in _PUBLIC_V6 and not any(ip in network for network in _NOT_PUBLIC_V6)


def _embedded_ipv4(ip: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped
