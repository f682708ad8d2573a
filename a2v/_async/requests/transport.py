"""One request over httpx. Everything foreign ends here: its objects, its exceptions, its log lines.

The transports of httpx are used directly, without its client: that adds no cookies, no redirects, no credentials from the
environment, and no log line with a pre-signed URL in it.
"""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from email.utils import formatdate
from functools import cache, lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

import anyio
import httpx

from a2v._async.requests import network, telemetry
from a2v._core.responses import NoResponse
from a2v._core.wire import ApiRequest, Response
from a2v.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from a2v._async.requests.known_videos import SubmissionAttempt
    from a2v._core.settings import Secret

# What a network does. Anything else that a transport raises is a bug, such as a failed assertion in a mock, and passes.
_NETWORK = (
    httpx.HTTPError,
    OSError,  # TLS errors, and time-outs, are of this kind too
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
)
# These say by their type that nothing reached the server.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    ConnectionRefusedError,
    anyio.ConnectionFailed,
    socket.gaierror,
    ssl.SSLCertVerificationError,
)
# A connection that the server closed while it was idle ends so, and a request on it has not been read.
_CLOSED = (httpx.NetworkError, httpx.RemoteProtocolError)
# How many pieces of a body may still come when it is ended; what a connection has buffered is far less.
_UNREAD = 1000
# So much of a file must come within the time-out, in bytes: a server that drips would keep us for days.
_LEAST = 4096
_LONGEST_LABEL = 63


class _SendObserver:
    """Watches a request go out: httpx's trace tells what connection it takes and whether any of it was sent."""

    def __init__(self) -> None:
        self._watched = False
        self._connected = False
        self._started = False
        self.handed_over = False
        self._answered = False
        self._stream: Any = None
        self._handshaking = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self._watched = True
        name = event.partition(".")[2]
        if name == "connect_tcp.complete":
            self._connected, self._stream = True, info["return_value"]
        elif name in ("start_tls.started", "start_tls.complete"):
            self._handshaking = name == "start_tls.started"
        # A proxy's CONNECT goes out in the same way, but is not our request.
        elif name == "send_request_headers.started" and info["request"].method != b"CONNECT":
            self._started = True
        elif name == "receive_response_headers.complete":
            self._answered = True

    def sent(self, error: BaseException | None) -> bool:
        """Whether any of the request may have arrived. A mock transport has no trace: then the error's type decides."""
        return self._started if self._watched else self.handed_over and not isinstance(error, _NOT_SENT)

    def was_stale(self, error: Exception) -> bool:
        """Whether it looks as if the server had closed the connection that was kept from an earlier request."""
        return self._started and not self._connected and not self._answered and isinstance(error, _CLOSED)

    async def clean_up(self) -> None:
        """Close what httpcore leaves to the garbage collector when a TLS handshake is cancelled."""
        if self._handshaking:
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._stream.aclose()


# Whether what is logged in this context is about a request of ours.
_ours: ContextVar[bool] = ContextVar("a2v_request", default=False)


class _RedactingFilter(logging.Filter):
    """httpcore logs the heads of replies, and what is wrong with them: servers quote tokens there and sign URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the event, and what it is about if that is no reply."""
        if _ours.get() and isinstance(record.msg, str) and record.msg.startswith("receive_response"):
            record.msg = record.msg.partition(" ")[0]
        return True


@cache
def _install_redacting_filter() -> None:
    logging.getLogger("httpcore.http11").addFilter(_RedactingFilter())


class _RedactErrors:
    """Around a request: what it comes to is not logged, and what ends it early does not show what httpcore held."""

    def __enter__(self) -> None:
        self._before = _ours.set(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _ours.reset(self._before)
        if error and isinstance(error, Exception):
            _hide_frames(error)
        elif error:
            error.__traceback__ = None


# Error reports may show the local variables of each frame. Those of these packages hold the head of the request, or its URL.
_HOLDING = {"a2v", "httpx", "httpcore", "h11", "h2", "socksio", "anyio", "asyncio", "trio", "ssl", "_ssl"}


def _hide_frames(error: BaseException) -> None:
    """Remove our frames around a request, and those of the HTTP library, from an error and from those that led to it."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = _kept_frames(each.__traceback__)
        todo += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


def _kept_frames(traceback: TracebackType | None) -> TracebackType | None:
    frames: list[TracebackType] = []
    while traceback:
        frames.append(traceback)
        traceback = traceback.tb_next
    kept: TracebackType | None = None
    for each in reversed(frames):
        if each.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _HOLDING:
            kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept


class _Content(httpx.AsyncByteStream):
    """What is sent. In its stead httpx has a generator, which a broken connection leaves unfinished: trio complains."""

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class ResponseSink(Protocol):
    """Where a fetched file goes."""

    async def begin(self, reply: Response) -> bool:
        """Look at a reply's head; tell whether its body is wanted."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Take the next piece."""
        ...


class Transport:
    """The connections of one client in one event loop."""

    def __init__(self, custom: httpx.AsyncBaseTransport | None) -> None:
        self._custom = custom
        # By the proxy, and by the certificates that are trusted, which change with the environment.
        self._fresh: dict[tuple[Secret | None, network.Trust | None], httpx.AsyncBaseTransport] = {}
        self._kept: dict[tuple[Secret | None, network.Trust | None], httpx.AsyncBaseTransport] = {}
        self._keep_alive = False
        self._making = anyio.Lock()

    def open(self) -> Self:
        """Keep idle connections from now on, because ``aclose`` will be called."""
        self._keep_alive = True
        return self

    async def aclose(self, *, shared: bool = False) -> None:
        """Close all connections, except those of a transport that the caller gave and another event loop uses."""
        self._keep_alive = False
        given = [self._custom] if self._custom and not shared else []
        for transport in [*given, *self._fresh.values(), *self._kept.values()]:
            await transport.aclose()
        self._fresh.clear()
        self._kept.clear()

    async def exchange(
        self,
        base_url: str,
        token: Secret,
        call: ApiRequest[Any],
        timeout: float,
        attempt: SubmissionAttempt | None = None,
    ) -> Response | NoResponse:
        """Make one request of the API.

        Args:
            base_url: Where the server is.
            token: Who we are.
            call: What to ask.
            timeout: Seconds for the whole exchange.
            attempt: Is told whether any of the request may have reached the server, also if this is cancelled.

        Returns:
            What came back, or why nothing did; this does not raise for what goes wrong on the way.

        Raises:
            A2VError: The request cannot be made.
            Exception: The transport has a bug.
        """
        witness = _SendObserver()
        request = _api_request(base_url, token, call, timeout)
        error: Exception | None = None
        try:
            with _RedactErrors(), anyio.move_on_after(timeout):
                try:
                    reply = await self._ask(request, witness, fresh=call.job is not None, limit=call.max_body)
                    return Response(reply.status_code, reply.headers, token.redact(reply.body))
                except _NETWORK as caught:
                    error = caught
        finally:
            if attempt:
                attempt.sent = witness.sent(error)
        reason = f"{base_url}: " + (_describe(error) if error else f"no whole reply within {timeout:g} s")
        return NoResponse(token.redact(reason.encode(errors="replace")).decode(), witness.sent(error))

    async def _ask(self, request: httpx.Request, witness: _SendObserver, *, fresh: bool, limit: int) -> Response:
        try:
            return await self._ask_once(request, witness, fresh=fresh, limit=limit)
        except Exception as error:
            if fresh or not witness.was_stale(error):
                raise
        # Most likely it was not read; and nothing that costs anything is sent over a kept connection.
        return await self._ask_once(request, witness, fresh=True, limit=limit)

    async def _ask_once(self, request: httpx.Request, witness: _SendObserver, *, fresh: bool, limit: int) -> Response:
        async with self._send(request, witness, fresh=fresh) as (response, body):
            return Response(response.status_code, _dated(_lower(response.headers)), await _read(body, limit))

    async def fetch(
        self, url: Secret, headers: Mapping[str, str], timeout: float, sink: ResponseSink
    ) -> Response | NoResponse:
        """Get a file from wherever it is, without the token.

        Args:
            url: Where.
            headers: To be sent.
            timeout: Seconds for the reply's head, and seconds in which at least 4 KiB of the file must come.
            sink: What to do with the file; its errors pass through.

        Returns:
            The reply's head, or why there was none or its body broke off.
        """
        with telemetry.request_span(url.value) as span:
            answer = await self._fetch(url, headers, timeout, sink)
            telemetry.record_response(span, answer)
            return answer

    async def _fetch(
        self, url: Secret, headers: Mapping[str, str], timeout: float, sink: ResponseSink
    ) -> Response | NoResponse:
        with _RedactErrors():
            try:
                _check_url(url)
                # In no variable, as it shows the whole URL.
                async with self._send(
                    httpx.Request("GET", url.value, headers=_identity(headers), extensions=_timeouts(timeout)),
                    _SendObserver(),
                    fresh=True,
                    patience=timeout,
                ) as (response, body):
                    reply = Response(response.status_code, _lower(response.headers), b"")
                    if await sink.begin(reply) and not await _pour(body, sink, timeout):
                        return NoResponse(f"less than {_LEAST} bytes within {timeout:g} s", sent=True)
                    return reply
            except (*_NETWORK, httpx.InvalidURL) as error:
                return NoResponse(_describe(error), sent=True)

    @asynccontextmanager
    async def _send(
        self, request: httpx.Request, witness: _SendObserver, *, fresh: bool, patience: float | None = None
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
        """The reply, and its body as it comes."""
        transport = await self._transport(str(request.url), fresh=fresh)
        request.stream = _Content(request.content)
        request.extensions["trace"] = witness
        witness.handed_over = True
        try:
            with anyio.fail_after(patience):
                response = await transport.handle_async_request(request)
        except BaseException:
            await witness.clean_up()
            raise
        body = _body(response)
        try:
            yield response, body
        finally:
            await _finish(body)
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _transport(self, url: str, *, fresh: bool) -> httpx.AsyncBaseTransport:
        """The pool to use for a URL.

        A submission takes a fresh connection: an idle one may just be closing, and then it cannot be told whether the
        request arrived. Without ``async with`` nobody will close idle connections, so none are kept.
        """
        if self._custom:
            return self._custom
        proxy = await network.proxy_for(url)
        is_tls = url.startswith("https://") or (proxy is not None and proxy.value.lower().startswith("https://"))
        trust = network.current_trust() if is_tls else None
        pools = self._fresh if fresh or not self._keep_alive else self._kept
        if (proxy, trust) not in pools:
            async with self._making:
                context = await network.ssl_context(trust)
            # Many calls may come here at once; a second pool would be lost, and its connections left open.
            if (proxy, trust) not in pools:
                _install_redacting_filter()
                pools[proxy, trust] = network.make_pool(context, proxy, idle=0 if pools is self._fresh else None)
        return pools[proxy, trust]


def _api_request(base_url: str, token: Secret, call: ApiRequest[Any], timeout: float) -> httpx.Request:
    try:
        return httpx.Request(
            call.method,
            _url(base_url + call.path),
            params=call.params,
            json=call.json,
            # Not in a variable, which a traceback may show.
            headers=_identity({"accept": "application/json", "authorization": f"Bearer {token.value}"}),
            extensions=_timeouts(timeout),
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        reason = str(error)
    raise ConfigurationError(f"the request cannot be put into a URL: {reason}")


@lru_cache(16)
def _url(url: str) -> httpx.URL:
    """The few URLs that there are, parsed once: httpx takes a tenth of a whole call for it."""
    parsed = httpx.URL(url)
    if not _is_host(parsed):
        raise httpx.InvalidURL("each part of the host's name has 1 to 63 characters")
    return parsed


def _check_url(url: Secret) -> None:
    """Refuse a URL that the libraries below would stumble over, each in a way of its own.

    Raises:
        httpx.InvalidURL: Its host or its port cannot be right. The message does not show it.
    """
    with suppress(ValueError, httpx.InvalidURL):  # errors of encodings are of the first kind
        if urlsplit(url.value).port != 0 and _is_host(httpx.URL(url.value)):
            return
    raise httpx.InvalidURL("its host or its port is not valid")


def _is_host(url: httpx.URL) -> bool:
    """Whether the host of a URL can be looked up. What is not valid in other ways raises an error of encodings."""
    labels = url.raw_host.removesuffix(b".").split(b".")
    return bool(url.host) and all(0 < len(label) <= _LONGEST_LABEL for label in labels)


def _identity(headers: Mapping[str, str]) -> dict[str, str]:
    # A truncated gzip body would decode without complaint.
    return {"accept-encoding": "identity", "user-agent": "a2v-python", **headers}


def _timeouts(seconds: float) -> dict[str, Any]:
    return {"timeout": httpx.Timeout(seconds).as_dict()}


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _dated(headers: dict[str, str]) -> dict[str, str]:
    """Add the ``Date`` that a ``Retry-After`` is measured against if the server sent none (RFC 9110, 6.6.1)."""
    if "retry-after" in headers:
        headers.setdefault("date", formatdate(usegmt=True))
    return headers


def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes; ``response.aiter_raw`` would refuse that of a mock transport, which is there already."""
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise ConfigurationError("transport= must be an asynchronous httpx transport")
    return aiter(response.stream)


async def _finish(body: AsyncIterator[bytes]) -> None:
    """End a body that was not read to its end.

    It is a generator within generators of httpcore. Closing the outer one would leave the inner ones to the garbage
    collector, of which trio complains; a cancellation reaches the innermost, and so ends them all.
    """
    with anyio.CancelScope(shield=True) as scope, suppress(Exception):
        scope.cancel()
        # A transport of the caller may yield for ever without a checkpoint, at which the cancellation would arrive.
        for _ in range(_UNREAD):
            await anext(body)


async def _read(body: AsyncIterator[bytes], limit: int) -> bytes:
    """A whole body, or one that is cut because it is longer than ``limit``."""
    read = bytearray()
    async for chunk in body:
        read += chunk
        if len(read) > limit:
            break
    return bytes(read)


async def _pour(body: AsyncIterator[bytes], sink: ResponseSink, timeout: float) -> bool:
    """Write a body to where it goes; tell whether it came fast enough."""
    came, waited, asked = 0, 0.0, anyio.current_time()
    async for chunk in body:
        came, waited = came + len(chunk), waited + anyio.current_time() - asked
        await sink.write(chunk)
        if came >= _LEAST:
            came, waited = 0, 0.0
        elif waited > timeout:
            return False
        asked = anyio.current_time()
    return True


def _describe(error: Exception) -> str:
    kind = type(error).__name__
    # A URL in a text may be a pre-signed one.
    if isinstance(error, httpx.UnsupportedProtocol):
        return kind
    # Some have no text, but were raised because of an error that has one: TLS that fails on trio.
    reason: BaseException | None = error
    while reason and not str(reason):
        reason = reason.__cause__ or reason.__context__
    return f"{kind}: {reason}" if reason else kind
