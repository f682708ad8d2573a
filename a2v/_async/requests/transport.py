"""Sends one HTTP request with httpx, or httpx2 for a transport of that, and translates every outcome.

This is the boundary to the HTTP libraries. ``Transport.exchange`` (API requests) and ``Transport.fetch`` (files) return a
``Response``, or a ``NoResponse`` that says why there is none and whether any of the request was sent; none of the libraries'
objects or exceptions gets past them. Exceptions that are not about the network are bugs, for example of a mock, and pass through.

``video.generate`` costs money each time it arrives, so it matters whether a failed request was sent. The exceptions do not
always tell. ``_SendObserver`` follows the libraries' trace events instead; without a trace (mock transports) the type of the exception
decides.

There are two pools for each proxy and set of trusted certificates. Submissions and files always use a fresh connection: a
server may close an idle connection at the very moment a request is sent on it, and then it is unknown whether it arrived.
Other requests reuse connections, and are repeated once on a fresh one if the reused one turns out to be closed.

The transports of httpx are used without its client, which would add cookies, redirects, credentials from the environment, and
log lines with pre-signed URLs.
"""

from __future__ import annotations

import platform
import socket
import ssl
import sys
from collections.abc import AsyncIterable
from contextlib import nullcontext, suppress
from email.utils import formatdate
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

import anyio
import httpx

from a2v._async.requests import httpcore_workarounds, network, telemetry
from a2v._async.requests.http_libraries import AsyncTransport, errors_named, library_of
from a2v._async.requests.redaction import RedactErrors, install_redacting_filter
from a2v._core.responses import NoResponse
from a2v._core.settings import choose_private_address, is_address, is_loopback
from a2v._core.wire import ApiRequest, Response
from a2v._version import __version__
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import ModuleType

    from a2v._async.requests.known_videos import SubmissionAttempt
    from a2v._async.requests.uploads import UploadBody
    from a2v._core.settings import RequestOptions, Secret

_NETWORK_ERRORS = (
    OSError,  # includes TLS errors and time-outs
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
)
# Their type says that nothing reached the server.
_NOT_SENT_ERRORS = (ConnectionRefusedError, anyio.ConnectionFailed, socket.gaierror, ssl.SSLCertVerificationError)
# The same in the HTTP libraries.
_NOT_SENT_NAMES = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
# A request on a connection that the server has closed while it was idle ends in one of these.
_DISCONNECTED_NAMES = ("NetworkError", "RemoteProtocolError")
# The minimum progress of a file within the time-out, in bytes; a server that sends less could keep a download busy for days.
_MIN_PROGRESS = 4096
_MAX_LABEL = 63


class ResponseSink(Protocol):
    """Receives a file while it is fetched."""

    async def start(self, response: Response) -> bool:
        """Inspect the response's head and return whether to read its body."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Take the next part of the body."""
        ...


class Transport:
    """The connections of one client in one event loop.

    Args:
        custom: The caller's transport, of httpx or httpx2, which is used for everything.
    """

    def __init__(self, custom: AsyncTransport | None) -> None:
        install_redacting_filter()
        self._custom = custom
        self._library = httpx if custom is None else library_of(custom)
        # Keyed by the proxy and the trusted certificates, which may both change with the environment.
        self._fresh: dict[tuple[Secret | None, network.Trust | None], AsyncTransport] = {}
        self._kept: dict[tuple[Secret | None, network.Trust | None], AsyncTransport] = {}
        self._keep_alive = False
        self._creating = anyio.Lock()

    def open(self) -> Self:
        """Keep idle connections from now on, because ``aclose`` is going to be called."""
        self._keep_alive = True
        return self

    async def aclose(self, *, shared: bool = False) -> None:
        """Close all connections.

        Args:
            shared: Leave the caller's transport open, because another event loop uses it.
        """
        self._keep_alive = False
        custom = [] if self._custom is None or shared else [self._custom]
        for transport in [*custom, *self._fresh.values(), *self._kept.values()]:
            await transport.aclose()
        self._fresh.clear()
        self._kept.clear()

    async def exchange(
        self,
        base_url: str,
        token: Secret,
        call: ApiRequest[Any],
        options: RequestOptions,
        attempt: SubmissionAttempt | None = None,
        *,
        body: UploadBody | None = None,
    ) -> Response | NoResponse:
        """Send an API request and read its response.

        Args:
            base_url: The server's URL.
            token: The token; it is redacted from the response and from error texts.
            call: The request.
            options: The timeout for the whole exchange, and additional headers.
            attempt: Its ``sent`` is updated, even if this is cancelled.
            body: A file to send as the body, which takes time of its own.

        Returns:
            The response, or why there is none.

        Raises:
            A2VError: The request cannot be built or the proxy settings are invalid.
            Exception: The custom transport has a bug.
        """
        observer = _SendObserver()
        timeout = options.timeout + (body.max_seconds if body else 0)
        error: Exception | None = None
        try:
            with RedactErrors(), anyio.move_on_after(timeout):
                try:
                    target = await _checked_target(base_url)
                    request = _build_request(self._library, target, token, call, options, body)
                    response = await self._send_and_read(request, observer, call, body)
                    return _redacted(response, token)
                except errors_named("HTTPError", others=_NETWORK_ERRORS) as caught:
                    error = caught
        finally:
            if attempt:
                attempt.sent = observer.sent(error)
        reason = f"{base_url}: " + (_describe(error) if error else f"no complete response within {timeout:g} s")
        return NoResponse(token.redact(reason.encode(errors="replace")).decode(), observer.sent(error))

    async def _send_and_read(
        self, request: httpx.Request, observer: _SendObserver, call: ApiRequest[Any], upload: UploadBody | None
    ) -> Response:
        # A file cannot be sent again from its middle.
        fresh = call.costs or upload is not None
        while True:
            try:
                # Plain HTTP carries the token, so it goes to the address that was checked, not to a proxy.
                direct = request.url.scheme == "http"
                response, body = await self._send(request, observer, fresh=fresh, direct=direct, upload=upload)
                try:
                    content = await _read(body, call.max_body)
                finally:
                    await _close(response, body)
                return Response(response.status_code, _with_date(_lower_case(response.headers)), content)
            except Exception as error:
                if fresh or not observer.is_stale_connection(error):
                    raise
            fresh = True

    async def fetch(
        self, url: Secret, headers: Mapping[str, str], timeout: float, sink: ResponseSink
    ) -> Response | NoResponse:
        """Fetch a file, without the token.

        Args:
            url: The file's URL; a secret, because it may be pre-signed.
            headers: Headers to send.
            timeout: Seconds for the response's head, and for each 4 KiB of the body.
            sink: Receives the body; its exceptions pass through.

        Returns:
            The response's head, or why there is none or its body is incomplete.
        """
        answer: Response | NoResponse
        with telemetry.observe_request(url.value) as observed:
            with RedactErrors():
                try:
                    _check_url(url)
                    # The request is in no variable, because a traceback would show its URL.
                    response, body = await self._send(
                        self._library.Request(
                            "GET", url.value, headers=_with_defaults(headers), extensions=_timeouts(timeout)
                        ),
                        _SendObserver(),
                        fresh=True,
                        timeout=timeout,
                    )
                    try:
                        answer = Response(response.status_code, _lower_case(response.headers), b"")
                        if await sink.start(answer) and not await _copy_body(body, sink, timeout):
                            answer = NoResponse(f"less than {_MIN_PROGRESS} bytes within {timeout:g} s", sent=True)
                    finally:
                        await _close(response, body)
                except errors_named("HTTPError", "InvalidURL", others=_NETWORK_ERRORS) as error:
                    answer = NoResponse(_describe(error), sent=True)
            observed.record(answer)
            return answer

    async def _send(
        self,
        request: httpx.Request,
        observer: _SendObserver,
        *,
        fresh: bool,
        direct: bool = False,
        upload: UploadBody | None = None,
        timeout: float | None = None,
    ) -> tuple[httpx.Response, AsyncIterator[bytes]]:
        """Send a request; return the response and its body, which is not read yet. The caller passes both to ``_close``.

        Args:
            request: The request.
            observer: Follows it.
            fresh: Whether it needs a new connection.
            direct: Whether to ignore the proxies of the environment.
            upload: The body, if it is a file.
            timeout: Seconds for the response's head; ``None``: no limit.
        """
        transport = await self._pool(str(request.url), fresh=fresh, direct=direct)
        httpcore_workarounds.replace_body(request, upload)
        request.extensions["trace"] = observer
        observer.handed_over = True
        try:
            # A scope costs time, and the caller has one unless this is a file.
            with nullcontext() if timeout is None else anyio.fail_after(timeout):
                response = await transport.handle_async_request(request)
        except BaseException:
            await observer.close_handshake()
            raise
        return response, _response_body(response)

    async def _pool(self, url: str, *, fresh: bool, direct: bool) -> AsyncTransport:
        """Return the connection pool for a URL.

        Outside ``async with`` nothing closes idle connections, so none are kept.
        """
        if self._custom is not None:
            return self._custom
        proxy = None if direct else await network.proxy_for(url)
        is_tls = url.startswith("https://") or (proxy is not None and proxy.value.lower().startswith("https://"))
        trust = network.current_trust() if is_tls else None
        pools = self._fresh if fresh or not self._keep_alive else self._kept
        if (proxy, trust) not in pools:
            async with self._creating:
                context = await network.ssl_context(trust)
            # Another task may have made the pool meanwhile; the connections of a second one would never be closed.
            if (proxy, trust) not in pools:
                pools[proxy, trust] = network.make_pool(context, proxy, idle=0 if pools is self._fresh else None)
        return pools[proxy, trust]


# -- requests ---------------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """The URL to connect to, and the ``Host`` header if it is not that of the URL."""

    url: str
    headers: dict[str, str]


async def _checked_target(base_url: str) -> _Target:
    """Return where to send the requests for a base URL.

    For ``http://`` and a name that is not this machine's, it is the URL of a private address of that name: the token must not
    be sent to any other, and a later look-up may give another.

    Raises:
        ConfigurationError: The name has an address that is not private.
        OSError: There is no such name.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme == "https" or is_loopback(host) or is_address(host):
        return _Target(base_url, {})
    found = await anyio.getaddrinfo(host, parts.port or 80, type=socket.SOCK_STREAM)
    address = choose_private_address(host, (str(entry[4][0]) for entry in found))
    port = "" if parts.port is None else f":{parts.port}"
    netloc = f"[{address}]{port}" if ":" in address else f"{address}{port}"
    return _Target(parts._replace(netloc=netloc).geturl(), {"host": parts.netloc})


def _build_request(  # noqa: PLR0917  # private
    library: ModuleType,
    target: _Target,
    token: Secret,
    call: ApiRequest[Any],
    options: RequestOptions,
    body: UploadBody | None,
) -> httpx.Request:
    length = {"content-length": str(body.size), "content-type": "application/octet-stream"} if body else {}
    try:
        request: httpx.Request = library.Request(
            call.method,
            _parse_url(library, target.url + call.path),
            params=call.params,
            json=call.json,
            content=body,
            # The headers are in no variable, because a traceback would show them.
            headers=_with_defaults(
                {
                    "accept": "application/json",
                    **options.headers.value,
                    **target.headers,
                    **length,
                    "authorization": f"Bearer {token.value}",
                }
            ),
            extensions=_timeouts(options.timeout),
        )
    except errors_named("InvalidURL", others=(UnicodeError,)) as error:
        reason = str(error)
    else:
        return request
    raise ConfigurationError(f"the request cannot be put into a URL: {reason}")


@lru_cache(16)
def _parse_url(library: ModuleType, url: str) -> httpx.URL:
    """Parse the URL of an API method. Cached, because parsing takes a tenth of the time of a whole request."""
    parsed: httpx.URL = library.URL(url)
    if not _has_valid_host(parsed):
        raise httpx.InvalidURL("each part of the host's name has 1 to 63 characters")
    return parsed


def _check_url(url: Secret) -> None:
    """Refuse a URL that the HTTP libraries would reject with exceptions of various types.

    Raises:
        httpx.InvalidURL: Its host or port is invalid. The message does not show the URL.
    """
    with suppress(ValueError, httpx.InvalidURL):  # includes errors of IDNA encoding
        if urlsplit(url.value).port != 0 and _has_valid_host(httpx.URL(url.value)):
            return
    raise httpx.InvalidURL("its host or its port is not valid")


def _has_valid_host(url: httpx.URL) -> bool:
    """Whether the labels of the host name have valid lengths. Other mistakes raise errors of IDNA encoding."""
    labels = url.raw_host.removesuffix(b".").split(b".")
    return bool(url.host) and all(0 < len(label) <= _MAX_LABEL for label in labels)


def _with_defaults(headers: Mapping[str, str]) -> dict[str, str]:
    # Without compression: a truncated gzip body would be decoded without an error.
    return {"accept-encoding": "identity", "user-agent": _user_agent(), **headers}


@cache
def _user_agent() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return f"a2v-python/{__version__} {sys.implementation.name}/{python} {platform.system() or 'unknown'}"


def _timeouts(seconds: float) -> dict[str, Any]:
    return {"timeout": httpx.Timeout(seconds).as_dict()}


# -- responses --------------------------------------------------------------------------------------------------------


async def _close(response: httpx.Response, body: AsyncIterator[bytes]) -> None:
    await httpcore_workarounds.end_body(body)
    with anyio.CancelScope(shield=True):
        await response.aclose()


def _redacted(response: Response, token: Secret) -> Response:
    """Redact the token, which servers and gateways may echo."""
    headers = {name: token.redact(value.encode()).decode() for name, value in response.headers.items()}
    return Response(response.status_code, headers, token.redact(response.body))


def _lower_case(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _with_date(headers: dict[str, str]) -> dict[str, str]:
    """Add the ``Date`` that ``Retry-After`` is relative to if the server sent none (RFC 9110, 6.6.1)."""
    if "retry-after" in headers:
        headers.setdefault("date", formatdate(usegmt=True))
    return headers


def _response_body(response: httpx.Response) -> AsyncIterator[bytes]:
    """Return the undecoded body. ``response.aiter_raw`` would refuse the body of a mock transport, which is loaded already."""
    if not isinstance(response.stream, AsyncIterable):
        raise ConfigurationError(
            "transport= must be an asynchronous httpx transport or one of httpx2: "
            f"the stream of its response is a {type(response.stream).__name__}"
        )
    return aiter(response.stream)


async def _read(body: AsyncIterator[bytes], limit: int) -> bytes:
    """Read a body; stop once it is longer than ``limit`` bytes."""
    data = bytearray()
    async for chunk in body:
        data += chunk
        if len(data) > limit:
            break
    return bytes(data)


async def _copy_body(body: AsyncIterator[bytes], sink: ResponseSink, timeout: float) -> bool:
    """Write a body to a sink; return False if it is too slow. The time that the sink takes does not count."""
    received, waited, since = 0, 0.0, anyio.current_time()
    async for chunk in body:
        received, waited = received + len(chunk), waited + anyio.current_time() - since
        await sink.write(chunk)
        if received >= _MIN_PROGRESS:
            received, waited = 0, 0.0
        elif waited > timeout:
            return False
        since = anyio.current_time()
    return True


def _describe(error: Exception) -> str:
    kind = type(error).__name__
    # The text quotes the URL, which may be pre-signed.
    if isinstance(error, errors_named("UnsupportedProtocol")):
        return kind
    # Some errors have no text, but a cause that has one, for example TLS errors on trio.
    reason: BaseException | None = error
    while reason and not str(reason):
        reason = reason.__cause__ or reason.__context__
    text = f"{kind}: {reason}" if reason else kind
    if "CERTIFICATE_VERIFY_FAILED" in text:
        text += ". If you trust the issuer of the certificate, set SSL_CERT_FILE to the issuer's own certificate"
    return text


# -- trace events -----------------------------------------------------------------------------------------------------


class _SendObserver:
    """Follows a request through the trace events of httpcore and httpcore2: which connection it uses, and whether any of it was sent."""

    def __init__(self) -> None:
        self.handed_over = False
        self._has_trace = False
        self._connected = False
        self._started = False
        self._answered = False
        self._is_in_handshake = False
        self._stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self._has_trace = True
        name = event.partition(".")[2]
        if name == "connect_tcp.complete":
            self._connected, self._stream = True, info["return_value"]
        elif name in ("start_tls.started", "start_tls.complete"):
            self._is_in_handshake = name == "start_tls.started"
        # CONNECT is addressed to a proxy.
        elif name == "send_request_headers.started" and info["request"].method != b"CONNECT":
            self._started = True
        elif name == "receive_response_headers.complete":
            self._answered = True

    def sent(self, error: BaseException | None) -> bool:
        """Whether any of the request may have arrived. Mock transports have no trace: the error's type decides."""
        if self._has_trace:
            return self._started
        not_sent = error is not None and isinstance(error, errors_named(*_NOT_SENT_NAMES, others=_NOT_SENT_ERRORS))
        return self.handed_over and not not_sent

    def is_stale_connection(self, error: Exception) -> bool:
        """Whether a reused connection was most likely closed by the server before the request was sent."""
        is_reused = self._started and not self._connected and not self._answered
        return is_reused and isinstance(error, errors_named(*_DISCONNECTED_NAMES))

    async def close_handshake(self) -> None:
        """Close the socket of a TLS handshake that was cancelled."""
        if self._is_in_handshake:
            await httpcore_workarounds.close_handshake(self._stream)
