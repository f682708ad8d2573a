"""Access control of the engine: an ASGI middleware that decides whether a request reaches the application.

Checks, in this order; the first that fails is the response:

1. ``Host`` is a name of this engine (else 421). A web page can point its own domain at 127.0.0.1 (DNS rebinding), and then
   is same-origin with the engine; its requests still carry the foreign name.
2. ``Origin`` is absent or the engine's own, and ``Sec-Fetch-Site`` does not say cross-site (else 403).
3. The token (else 401), unless the route is public, or is the page and the request comes from this machine. The page may send
   anything but a GET only with its own ``Origin`` (else 403).
4. The rate limit (else 429) and the quota (else 403), unless the route is public, belongs to the page, or does not count.

Access is denied by default: ``app.py`` lists the public routes, and every other request needs the token, whether or not a
route exists for it. A request is matched by the routes' own ``matches``, so this module and the router cannot disagree about
a path, below whatever prefix the application is mounted.

The middleware also logs requests, and turns exceptions into responses: here, outside the router, it knows whether the
response has begun, and it can remove the token from ``scope``, which error reporters show.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
import time
from enum import Enum, auto
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from a2v._core import wire
from a2v._core.settings import Secret
from a2v.engine.exhaustion import exhaustion_reason
from a2v.engine.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from a2v.engine.exhaustion import ResourceMonitor
    from a2v.engine.task_store import TaskStore

logger: logging.Logger = logging.getLogger("a2v.engine")
access_logger: logging.Logger = logging.getLogger("a2v.engine.access")

NOT_JSON = b'{"code": 1009, "message": "too many requests",}'
"""The hosted service's response to too many requests; the trailing comma makes it invalid JSON."""
BUSY_SECONDS = 10
"""The ``Retry-After`` of temporary rejections, in seconds."""
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_FORWARDED = ("forwarded", "via", "x-", "cf-", "true-client-ip", "fastly-")
"""Prefixes of the headers that proxies add. A request with one may come from anywhere, whatever its Host says. Browsers
opening a page send no header that begins with ``x-``."""


def error_response(
    status: int, message: str, *, code: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error in the protocol's envelope. ``code`` defaults to the HTTP status, for errors the protocol has no code for."""
    return JSONResponse(wire.refusal(status if code is None else code, message), status, headers)


def busy_response(reason: str) -> JSONResponse:
    """Return the response that rejects a submission: a 429 tells the client that nothing was submitted, which a 5xx would leave open."""
    headers = {"Retry-After": str(BUSY_SECONDS), "X-Ratelimit-Reset": str(int(time.time()) + BUSY_SECONDS)}
    return error_response(429, f"{reason}; try again later", code=wire.TOO_MANY_REQUESTS, headers=headers)


def unavailable_response(reason: str) -> JSONResponse:
    """Return the response to a GET while the machine has run out of a resource."""
    return error_response(503, reason, headers={"Retry-After": str(BUSY_SECONDS)})


def _exhausted_response(scope: Scope, reason: str) -> JSONResponse:
    # Storing the task is the last step of a POST, so a POST that raised submitted nothing.
    return busy_response(reason) if scope["method"] == "POST" else unavailable_response(reason)


class _Access(Enum):
    """Who may use a route."""

    PUBLIC = auto()
    PAGE = auto()
    """Everyone on this machine; others with the token as password."""
    TOKEN = auto()
    UNCOUNTED = auto()
    """As ``TOKEN``, but requests do not count towards the rate limit and the quota."""


class AccessMiddleware:
    """ASGI middleware: checks access, logs requests, and turns exceptions into responses.

    Args:
        app: The application.
        settings: The token, the names of the engine, and the limits.
        public: The routes that need no token.
        uncounted: The routes that need the token, and do not count as requests.
        page: The routes of the page, which need no token on this machine.
        now: The clock, in seconds since 1970.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        public: Sequence[Route],
        uncounted: Sequence[Route],
        page: Sequence[Route],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._settings = settings
        self._public = public
        self._uncounted = uncounted
        self._page = page
        self._limiter = RequestLimiter(settings.request_limit, now) if settings.request_limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it to the application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._handle(scope, receive, send)
        else:
            # The engine has no WebSockets.
            await send({"type": "websocket.close", "code": 1008})

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, start = 0, time.perf_counter()
        token, access = _take_token(scope), self._access(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(access, MutableHeaders(scope=message))
            await send(message)

        # Without the query, which may hold secrets, and quoted, so that a path cannot break lines.
        facts: dict[str, object] = {"method": scope["method"], "path": quote(scope["path"][:200])}
        try:
            await (self._refusal(scope, access, token) or self._app)(scope, receive, send_with_headers)
        except ClientDisconnect:
            logger.info("%(method)s %(path)s: the client disconnected", facts, extra=facts)
            return
        except Exception as error:
            reason = exhaustion_reason(error)
            if reason is not None:
                _resources(scope).report(reason)
            else:
                logger.exception("%(method)s %(path)s failed", facts, extra=facts)
            if status:
                raise
            failed = (
                error_response(500, "internal error; see the engine's log")
                if reason is None
                else _exhausted_response(scope, reason)
            )
            await failed(scope, receive, send_with_headers)
        scope["app"].state.engine.queue.metrics.count_request(scope["method"], status)
        facts |= {"status": status, "seconds": round(time.perf_counter() - start, 4)}
        access_logger.info("%(method)s %(path)s %(status)s %(seconds)s s", facts, extra=facts)

    def _access(self, scope: Scope) -> _Access:
        if any(_matches(route, scope) for route in self._public):
            return _Access.PUBLIC
        if any(_matches(route, scope) for route in self._uncounted):
            return _Access.UNCOUNTED
        return _Access.PAGE if any(_matches(route, scope) for route in self._page) else _Access.TOKEN

    def _add_headers(self, access: _Access, headers: MutableHeaders) -> None:
        headers["X-Content-Type-Options"] = "nosniff"
        if access is not _Access.PUBLIC:
            headers["Cache-Control"] = "no-store"
        if self._limiter and access is _Access.TOKEN:
            headers.update(self._limiter.headers())

    def _refusal(self, scope: Scope, access: _Access, token: Secret) -> Response | None:
        """Return the response that rejects a request; ``None`` if the request is allowed."""
        headers = Headers(scope=scope)
        refusal = self._check_target(scope, headers)
        if refusal or access is _Access.PUBLIC:
            return refusal
        return self._check_sender(scope, headers, access, token) or (
            self._check_limits(scope) if access is _Access.TOKEN else None
        )

    def _check_target(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_own_name(_host_name(host)):
            return error_response(
                421, f"{host!r} is not a name of this engine; add it to allowed_hosts if it should be"
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            reason = "a request must not have both Content-Length and Transfer-Encoding"
            return error_response(400, reason, headers={"Connection": "close"})
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
            return error_response(403, "web pages of other origins may not use this engine")
        return None

    def _check_sender(self, scope: Scope, headers: Headers, access: _Access, token: Secret) -> Response | None:
        is_page = access is _Access.PAGE
        if _is_cross_site(headers, is_page=is_page):
            return error_response(403, "web pages of other sites may not use this engine")
        if (is_page and self._is_on_this_machine(scope, headers)) or self._is_authorised(token, is_page=is_page):
            # Browsers send an Origin with every such request, and `_check_target` rejected all but the engine's own.
            if is_page and scope["method"] not in ("GET", "HEAD") and "origin" not in headers:
                return error_response(403, "only the engine's page may send this request")
            return None
        reason = "the token is missing or wrong; send it as 'Authorization: Bearer <token>'"
        return error_response(401, reason, headers={"WWW-Authenticate": "Basic" if is_page else "Bearer"})

    def _check_limits(self, scope: Scope) -> Response | None:
        if self._limiter and not self._limiter.acquire():
            if self._settings.like_hosted:
                return Response(NOT_JSON, 429, media_type="application/json")
            return error_response(429, "too many requests", code=wire.TOO_MANY_REQUESTS)
        quota = self._settings.quota
        if quota is not None and not _store(scope).consume_quota(quota):
            return error_response(403, f"the quota of {quota} requests is used up")
        return None

    def _is_own_name(self, name: str) -> bool:
        """Whether the engine answers to a name. One that others can reach also answers to any IP address."""
        names = (*LOOPBACK, self._settings.host.lower(), *self._settings.allowed_hosts)
        return name in names or (not self._settings.is_local and _is_address(name))

    def _is_on_this_machine(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request comes from this machine: over loopback, to a loopback name, not through a proxy."""
        host, _ = scope.get("client") or ("", 0)
        direct = self._settings.is_local and _is_address(host) and ip_address(host).is_loopback
        is_forwarded = any(name.startswith(_FORWARDED) for name in headers)
        return direct and _host_name(headers["host"]) in LOOPBACK and not is_forwarded

    def _is_authorised(self, sent: Secret, *, is_page: bool) -> bool:
        scheme, _, rest = sent.value.strip().partition(" ")
        given = {"bearer": rest.strip()}
        if is_page:
            # Only for the page: a browser adds the password to every later request to this origin, also to those that
            # other sites cause.
            given["basic"] = _password(rest)
        token = Secret(given.get(scheme.lower(), "") if rest else scheme)
        return hmac.compare_digest(token.value.encode(), self._settings.token.encode())


def _resources(scope: Scope) -> ResourceMonitor:
    resources: ResourceMonitor = scope["app"].state.engine.queue.resources
    return resources


def _store(scope: Scope) -> TaskStore:
    store: TaskStore = scope["app"].state.engine.store
    return store


def _take_token(scope: Scope) -> Secret:
    """Remove ``Authorization`` from the request and return it: error reporters show ``scope`` with all its headers."""
    sent = Secret(Headers(scope=scope).get("authorization", ""))
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
    return sent


def _matches(route: Route, scope: Scope) -> bool:
    return route.matches(scope)[0] is not Match.NONE


def _host_name(host: str) -> str:
    """Return the name or address in a ``Host`` header; empty if the header is malformed."""
    found = _HOST.fullmatch(host)
    return (found["ipv6"] or found["name"]).lower() if found else ""


def _is_cross_site(headers: Headers, *, is_page: bool) -> bool:
    """Whether a page of another site made the browser send this request. Following a link to the engine's page is allowed."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    follows = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (is_page and follows and "origin" not in headers)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except ValueError:
        return ""


class RequestLimiter:
    """Fixed-window limit on requests per minute of the clock, as in the hosted service.

    Args:
        total: The number of requests allowed per minute.
        now: The clock, in seconds since 1970.
    """

    def __init__(self, total: int, now: Callable[[], float]) -> None:
        self._total = total
        self._now = now
        self._left = total
        self._reset = 0

    def acquire(self) -> bool:
        """Count a request; return whether it is within the limit."""
        self._start_window()
        allowed = self._left > 0
        self._left -= allowed
        return allowed

    def headers(self) -> dict[str, str]:
        """Return the ``X-Ratelimit-*`` headers of a response; the reset is a Unix timestamp."""
        self._start_window()
        facts = {"Total": self._total, "Left": self._left, "Reset": self._reset}
        return {f"X-Ratelimit-{name}": str(value) for name, value in facts.items()}

    def _start_window(self) -> None:
        now = self._now()
        if now >= self._reset:
            self._left = self._total
            self._reset = (int(now) // 60 + 1) * 60
