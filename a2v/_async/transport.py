"""One request over httpx. Everything foreign ends here: its objects, its exceptions, its log lines.

The transports of httpx are used directly, without its client: that adds no cookies, no redirects, no credentials from the
environment, and no log line with a pre-signed URL in it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.to_thread
import httpx

from a2v._async import telemetry
from a2v._core.retry import Failure
from a2v._core.settings import is_loopback
from a2v._core.wire import MAX_BODY, Call, Reply
from a2v.errors import A2VError, ConfigurationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

# These say by their type that nothing reached the server. PoolTimeout cannot happen: our pools have no limit.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


class _Witness:
    """Watches a request go out: httpx's trace tells whether any of it was sent."""

    def __init__(self) -> None:
        self._watched = False
        self._started = False
        self.handed_over = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self._watched = True
        # A proxy's CONNECT goes out in the same way, but is not our request.
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self._started = True

    def sent(self, error: BaseException | None) -> bool:
        """Whether any of the request may have arrived. A mock transport has no trace: then the error's type decides."""
        return self._started if self._watched else self.handed_over and not isinstance(error, _NOT_SENT)


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


class Sink(Protocol):
    """Where a fetched file goes."""

    async def begin(self, reply: Reply) -> bool:
        """Look at a reply's head; tell whether its body is wanted."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Take the next piece."""
        ...


class Transport:
    """The connections of one client in one event loop."""

    def __init__(self, custom: httpx.AsyncBaseTransport | None) -> None:
        self._custom = custom
        self._fresh: dict[str | None, httpx.AsyncBaseTransport] = {}
        self._kept: dict[str | None, httpx.AsyncBaseTransport] = {}
        self._keep_alive = False
        self._making = anyio.Lock()

    def open(self) -> Self:
        """Keep idle connections from now on, because ``aclose`` will be called."""
        self._keep_alive = True
        return self

    async def aclose(self) -> None:
        """Close all connections."""
        self._keep_alive = False
        given = [self._custom] if self._custom else []
        for transport in [*given, *self._fresh.values(), *self._kept.values()]:
            await transport.aclose()
        self._fresh.clear()
        self._kept.clear()

    async def exchange(self, base_url: str, token: str, call: Call[Any], timeout: float) -> Reply | Failure:
        """Make one request of the API.

        Args:
            base_url: Where the server is.
            token: Who we are.
            call: What to ask.
            timeout: Seconds for the whole exchange.

        Returns:
            What came back, or why nothing did; this does not raise for what goes wrong on the way.
        """
        witness = _Witness()
        request = _api_request(base_url, token, call, timeout)
        if call.job:
            request.extensions["trace"] = witness
        error: Exception | None = None
        try:
            with anyio.move_on_after(timeout):
                try:
                    async with self._send(request, witness, fresh=call.job is not None) as (response, body):
                        said = _without(token.encode(), await _read(body))
                        return Reply(response.status_code, _lower(response.headers), said)
                except A2VError:
                    raise
                except Exception as caught:  # noqa: BLE001  # whatever a transport raises, it means one thing here
                    error = caught
        finally:
            if call.sending:
                call.sending.sent = witness.sent(error)
        reason = f"{base_url}: " + (_describe(error) if error else f"no whole reply within {timeout:g} s")
        return Failure(_without(token.encode(), reason.encode(errors="replace")).decode(), witness.sent(error))

    async def fetch(self, url: str, headers: Mapping[str, str], timeout: float, sink: Sink) -> Reply | Failure:
        """Get a file from wherever it is, without the token.

        Args:
            url: Where.
            headers: To be sent.
            timeout: Seconds without a byte before the connection counts as lost.
            sink: What to do with the file; its errors pass through.

        Returns:
            The reply's head, or why there was none or its body broke off.
        """
        with telemetry.request_span(url) as span:
            answer = await self._fetch(url, headers, timeout, sink)
            telemetry.tell_reply(span, answer)
            return answer

    async def _fetch(self, url: str, headers: Mapping[str, str], timeout: float, sink: Sink) -> Reply | Failure:
        try:
            request = httpx.Request("GET", url, headers=_identity(headers), extensions=_timeouts(timeout))
            async with self._send(request, _Witness(), fresh=True) as (response, body):
                reply = Reply(response.status_code, _lower(response.headers), b"")
                if await sink.begin(reply):
                    async for chunk in body:
                        await sink.write(chunk)
                return reply
        except A2VError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            return Failure(_describe(error), sent=True)

    @asynccontextmanager
    async def _send(
        self, request: httpx.Request, witness: _Witness, *, fresh: bool
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
        """The reply, and its body as it comes."""
        transport = await self._transport(str(request.url), fresh=fresh)
        request.stream = _Content(request.content)
        witness.handed_over = True
        response = await transport.handle_async_request(request)
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
        proxy = _proxy(url)
        pools = self._fresh if fresh or not self._keep_alive else self._kept
        if proxy not in pools:
            async with self._making:
                context = await anyio.to_thread.run_sync(_ssl_context)
            # Many calls may come here at once; a second pool would be lost, and its connections left open.
            if proxy not in pools:
                pools[proxy] = _pool(context, proxy, idle=0 if pools is self._fresh else None)
        return pools[proxy]


def _pool(context: ssl.SSLContext, proxy: str | None, *, idle: int | None) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=idle)
    try:
        return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, proxy=proxy)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        reason = str(error)
    raise ConfigurationError(f"the proxy that the environment asks for cannot be used: {reason}")


@cache
def _ssl_context() -> ssl.SSLContext:
    """Built once and when first needed: it takes tens of milliseconds, and a bad SSL_CERT_FILE makes it fail."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        reason = str(error)
    raise ConfigurationError(f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR name cannot be loaded: {reason}")


def _proxy(url: str) -> str | None:
    """The proxy that the environment wants for a URL. Loopback never goes through one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _api_request(base_url: str, token: str, call: Call[Any], timeout: float) -> httpx.Request:
    headers = _identity({"accept": "application/json", "authorization": f"Bearer {token}"})
    extensions = _timeouts(timeout)
    try:
        url = _url(base_url + call.path)
        return httpx.Request(
            call.method, url, params=call.params, json=call.json, headers=headers, extensions=extensions
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        reason = str(error)
    raise ConfigurationError(f"the request cannot be put into a URL: {reason}")


@lru_cache(16)
def _url(url: str) -> httpx.URL:
    """The few URLs that there are, parsed once: httpx takes a tenth of a whole call for it."""
    return httpx.URL(url)


def _identity(headers: Mapping[str, str]) -> dict[str, str]:
    # A truncated gzip body would decode without complaint.
    return {"accept-encoding": "identity", "user-agent": "a2v-python", **headers}


def _timeouts(seconds: float) -> dict[str, Any]:
    return {"timeout": httpx.Timeout(seconds).as_dict()}


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes; ``response.aiter_raw`` would refuse that of a mock transport, which is there already."""
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("transport= must be an asynchronous httpx transport")
    return aiter(response.stream)


async def _finish(body: AsyncIterator[bytes]) -> None:
    """End a body that was not read to its end.

    It is a generator within generators of httpcore. Closing the outer one would leave the inner ones to the garbage
    collector, of which trio complains; a cancellation reaches the innermost, and so ends them all.
    """
    with anyio.CancelScope(shield=True) as scope, suppress(Exception):
        scope.cancel()
        async for _ in body:
            pass


async def _read(body: AsyncIterator[bytes]) -> bytes:
    read = bytearray()
    async for chunk in body:
        read += chunk
        if len(read) > MAX_BODY:
            break
    return bytes(read)


def _without(token: bytes, said: bytes) -> bytes:
    """What came back, if need be without the token: servers quote it, and what they say ends up in errors and logs."""
    return said.replace(token, b"[token]") if len(token) >= 16 else said  # a shorter one may be part of other words


def _describe(error: Exception) -> str:
    kind = type(error).__name__
    # Some of these have no text, and a URL in a text may be a pre-signed one.
    text = "" if isinstance(error, httpx.UnsupportedProtocol) else str(error)
    return f"{kind}: {text}" if text else kind
