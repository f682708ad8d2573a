"""Sends HTTP requests with httpx, or with httpx2 if the caller's transport belongs to it, and translates every outcome.

This is the boundary to the HTTP libraries. ``Transport.exchange`` (API requests) and ``Transport.fetch`` (files) return a
``Response``, or a ``NoResponse`` that says why there is none and whether any of the request was sent. No object or exception of the
libraries crosses this boundary. Exceptions that are not network errors, such as a bug in a mock, pass through.

``video.generate`` costs money each time it arrives, so it matters whether a failed request was sent. Exceptions do not
always show that. So ``_SendObserver`` follows the trace events of the libraries; without a trace (mock transports), the type of the
exception decides.

There are two pools for each proxy and set of trusted certificates. Submissions and files always use a fresh connection: a
server may close an idle connection at the moment when a request is sent on it, and then it is unknown whether the request arrived.
Other requests reuse connections, and are repeated once on a fresh connection if the reused one turns out to be closed.

httpx's transports are used without its client, which would add cookies, redirects, credentials from the environment, and
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
# Errors whose type shows that nothing reached the server.
_NOT_SENT_ERRORS = (ConnectionRefusedError, anyio.ConnectionFailed, socket.gaierror, ssl.SSLCertVerificationError)
# The same, by name, in the HTTP libraries.
_NOT_SENT_NAMES = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
# The errors of a request on an idle connection that the server has closed.
_DISCONNECTED_NAMES = ("NetworkError", "RemoteProtocolError")
# Minimum bytes of a file per timeout. Otherwise, a slow server could occupy a download for days.
_MIN_PROGRESS = 4096
_MAX_LABEL_LENGTH = 63  # characters between two dots of a host name


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
        custom: The caller's transport, of httpx or httpx2, used for all requests; ``None``: connection pools of httpx.
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
        """Keep idle connections from now on. Requires a later ``aclose``."""
        self._keep_alive = True
        return self

    async def aclose(self, *, shared: bool = False) -> None:
        """Close all connections.

        Args:
            shared: Leave the caller's transport open, because another event loop uses it; ``False`` by default.
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
            attempt: Its ``sent`` is set, even if the exchange is cancelled.
            body: A file to send as the body. Its ``max_seconds`` are added to the timeout.

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
        # An upload cannot be repeated: part of the file may have been read.
        fresh = call.costs or upload is not None
        while True:
            try:
                # Over plain HTTP the token is unencrypted, so send it to the checked address, not through a proxy.
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
                    # Do not store the request in a variable: a traceback would show its URL.
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
            observer: Receives the trace events.
            fresh: Whether to use a new connection.
            direct: Whether to ignore the environment's proxies.
            upload: The body, if it is a file.
            timeout: Seconds for the response's head; ``None``: no limit.
        """
        transport = await self._pool(str(request.url), fresh=fresh, direct=direct)
        httpcore_workarounds.replace_body(request, upload)
        request.extensions["trace"] = observer
        observer.handed_over = True
        try:
            # Avoid the cost of a second scope: API requests are within the caller's.
            with nullcontext() if timeout is None else anyio.fail_after(timeout):
                response = await transport.handle_async_request(request)
        except BaseException:
            await observer.close_handshake()
            raise
        return response, _response_body(response)

    async def _pool(self, url: str, *, fresh: bool, direct: bool) -> AsyncTransport:
        """Return the connection pool for a URL.

        Outside ``async with``, nothing would close idle connections, so none are kept.
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
            # Another task may have made the pool in the meantime; it must not be replaced, or its connections would never be
            # closed.
            if (proxy, trust) not in pools:
                pools[proxy, trust] = network.make_pool(context, proxy, idle=0 if pools is self._fresh else None)
        return pools[proxy, trust]


# -- requests ---------------------------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """The URL to connect to, and a ``Host`` header if it differs from the URL's host."""

    url: str
    headers: dict[str, str]


async def _checked_target(base_url: str) -> _Target:
    """Return the target of requests to a base URL.

    For ``http://`` and the name of another machine, the host is replaced by a private address of that name. The token must not
    be sent to any other address, and a later lookup may return a different one.

    Raises:
        ConfigurationError: The name has an address that is not private.
        OSError: The name cannot be resolved.
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
            # Do not store the headers in a variable: a traceback would show them.
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
    """Check a URL before the HTTP libraries do, which would raise exceptions of various types.

    Raises:
        httpx.InvalidURL: The host or the port is invalid. The message does not show the URL.
    """
    with suppress(ValueError, httpx.InvalidURL):  # includes IDNA errors
        if urlsplit(url.value).port != 0 and _has_valid_host(httpx.URL(url.value)):
            return
    raise httpx.InvalidURL("its host or its port is not valid")


def _has_valid_host(url: httpx.URL) -> bool:
    """Whether the labels of the host name have valid lengths. Other mistakes raise IDNA errors."""
    labels = url.raw_host.removesuffix(b".").split(b".")
    return bool(url.host) and all(0 < len(label) <= _MAX_LABEL_LENGTH for label in labels)


def _with_defaults(headers: Mapping[str, str]) -> dict[str, str]:
    # No compression: a truncated gzip body would be decoded without an error.
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
    """Return the undecoded body. ``response.aiter_raw`` would fail for mock transports, whose body is already loaded."""
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
    """Write a body to a sink; return False if the body arrives too slowly. The time that the sink takes does not count."""
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
    # The text of this error quotes the URL, which may be pre-signed.
    if isinstance(error, errors_named("UnsupportedProtocol")):
        return kind
    # Some errors have no text but a cause with one, for example TLS errors on trio.
    reason: BaseException | None = error
    while reason and not str(reason):
        reason = reason.__cause__ or reason.__context__
    text = f"{kind}: {reason}" if reason else kind
    if "CERTIFICATE_VERIFY_FAILED" in text:
        text += ". If you trust the issuer of the certificate, set SSL_CERT_FILE to the issuer's own certificate"
    return text


# -- trace events -----------------------------------------------------------------------------------------------------


class _SendObserver:
    """Follows the trace events of httpcore and httpcore2 to find out whether a request uses a new connection and was sent."""

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
        # A CONNECT request goes to a proxy, not to the server.
        elif name == "send_request_headers.started" and info["request"].method != b"CONNECT":
            self._started = True
        elif name == "receive_response_headers.complete":
            self._answered = True

    def sent(self, error: BaseException | None) -> bool:
        """Whether any of the request may have arrived. For mock transports, which have no trace, the type of the error decides."""
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
