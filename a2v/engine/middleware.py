"""Decides before each request whether it may be answered: by Host, Origin, token and limits.

Access is denied by default. ``app.py`` names the routes that are public and the page; every other request needs the token,
whether a route exists for it or not. A request is assigned to a route by that route's own ``matches``, so this check and
the router cannot read different paths, below whatever prefix the application is mounted.
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

logger: logging.Logger = logging.getLogger("a2v.engine")
access: logging.Logger = logging.getLogger("a2v.engine.access")

NOT_JSON = b'{"code": 1009, "message": "too many requests",}'
"""The hosted service's reply to too many requests; the trailing comma makes it invalid JSON."""
BUSY_SECONDS = 10
"""When a client should try again if nothing is accepted at the moment."""
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_FORWARDED = ("forwarded", "via", "x-", "cf-", "true-client-ip", "fastly-")
"""How the names of headers begin that proxies add: such a request may come from anywhere, whatever its Host says. A browser
that opens a page sends none that begins with ``x-``."""


def error_response(
    status: int, message: str, *, code: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A reply that refuses a request; where the protocol has no code for the reason, it is the HTTP status."""
    return JSONResponse(wire.refusal(status if code is None else code, message), status, headers)


def busy_response(reason: str) -> JSONResponse:
    """Nothing was submitted, and a client should know: by the protocol a 5xx leaves that open, a 429 does not."""
    headers = {"Retry-After": str(BUSY_SECONDS), "X-Ratelimit-Reset": str(int(time.time()) + BUSY_SECONDS)}
    return error_response(429, f"{reason}; try again later", code=wire.TOO_MANY_REQUESTS, headers=headers)


def unavailable_response(reason: str) -> JSONResponse:
    """The machine lacks something just now."""
    return error_response(503, reason, headers={"Retry-After": str(BUSY_SECONDS)})


def _exhausted_response(scope: Scope, reason: str) -> JSONResponse:
    # Submitting is the last thing that a POST does: what raised an error did not submit.
    return busy_response(reason) if scope["method"] == "POST" else unavailable_response(reason)


class _Access(Enum):
    """Who may use a route."""

    PUBLIC = auto()
    PAGE = auto()
    """Browsers on this machine, and others with the token as password."""
    TOKEN = auto()


class AccessMiddleware:
    """ASGI middleware: checks Host, Origin, token and limits, and turns exceptions into replies.

    Args:
        app: The application that answers what is let through.
        settings: The token, names and limits.
        public: The routes that need no token.
        page: The route of the page, which needs no token on this machine.
        now: The clock, in seconds since 1970.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        public: Sequence[Route],
        page: Route,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._settings = settings
        self._public = public
        self._page = page
        self._budget = RequestLimiter(settings.request_limit, now) if settings.request_limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            # There are no WebSockets here.
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, start = 0, time.perf_counter()
        token, wanted = _take_token(scope), self._access(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(wanted, MutableHeaders(scope=message))
            await send(message)

        # The query stays out of the log, and so does what could break its lines.
        facts: dict[str, object] = {"method": scope["method"], "path": quote(scope["path"][:200])}
        try:
            await (self._refusal(scope, wanted, token) or self._app)(scope, receive, send_with_headers)
        except ClientDisconnect:
            logger.info("%(method)s %(path)s: the client hung up", facts, extra=facts)
            return
        except Exception as error:
            reason = exhaustion_reason(error)
            if reason is not None:
                scope["app"].state.engine.queue.resources.report(reason)
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
        facts |= {"status": status, "seconds": round(time.perf_counter() - start, 4)}
        access.info("%(method)s %(path)s %(status)s %(seconds)s s", facts, extra=facts)

    def _access(self, scope: Scope) -> _Access:
        if any(_matches(route, scope) for route in self._public):
            return _Access.PUBLIC
        return _Access.PAGE if _matches(self._page, scope) else _Access.TOKEN

    def _add_headers(self, wanted: _Access, headers: MutableHeaders) -> None:
        headers["X-Content-Type-Options"] = "nosniff"
        if wanted is not _Access.PUBLIC:
            headers["Cache-Control"] = "no-store"
        if self._budget and wanted is _Access.TOKEN:
            headers.update(self._budget.headers())

    def _refusal(self, scope: Scope, wanted: _Access, token: Secret) -> Response | None:
        headers = Headers(scope=scope)
        refusal = self._not_for_us(scope, headers)
        if refusal or wanted is _Access.PUBLIC:
            return refusal
        return self._not_allowed(scope, headers, wanted, token) or (
            self._over_limit(scope) if wanted is _Access.TOKEN else None
        )

    def _not_for_us(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_our_name(_name_in(host)):
            return error_response(
                421, f"this engine does not go by the name {host!r}; add it to allowed_hosts if it should"
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            reason = "a request must not have both Content-Length and Transfer-Encoding"
            return error_response(400, reason, headers={"Connection": "close"})
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
            return error_response(403, "web pages of other origins may not use this engine")
        return None

    def _not_allowed(self, scope: Scope, headers: Headers, wanted: _Access, token: Secret) -> Response | None:
        is_page = wanted is _Access.PAGE
        if _is_cross_site(headers, is_page=is_page):
            return error_response(403, "web pages of other sites may not use this engine")
        if (is_page and self._is_on_this_machine(scope, headers)) or self._is_authorised(token, is_page=is_page):
            return None
        reason = "the token is missing or wrong; send it as 'Authorization: Bearer <token>'"
        return error_response(401, reason, headers={"WWW-Authenticate": "Basic" if is_page else "Bearer"})

    def _over_limit(self, scope: Scope) -> Response | None:
        if self._budget and not self._budget.take():
            if self._settings.like_hosted:
                return Response(NOT_JSON, 429, media_type="application/json")
            return error_response(429, "too many requests", code=wire.TOO_MANY_REQUESTS)
        quota = self._settings.quota
        if quota is not None and not scope["app"].state.engine.store.consume_quota(quota):
            return error_response(403, f"the quota of {quota} requests is spent; there are no more to be had")
        return None

    def _is_our_name(self, name: str) -> bool:
        """Whether a request was meant for us, and is not from a foreign web page whose name was pointed here."""
        names = (*LOOPBACK, self._settings.host.lower(), *self._settings.allowed_hosts)
        return name in names or (not self._settings.is_local and _is_address(name))

    def _is_on_this_machine(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request was made on this machine: by a loopback name, over loopback, not through a proxy."""
        host, _ = scope.get("client") or ("", 0)
        direct = self._settings.is_local and _is_address(host) and ip_address(host).is_loopback
        is_forwarded = any(name.startswith(_FORWARDED) for name in headers)
        return direct and _name_in(headers["host"]) in LOOPBACK and not is_forwarded

    def _is_authorised(self, sent: Secret, *, is_page: bool) -> bool:
        scheme, _, rest = sent.value.strip().partition(" ")
        given = {"bearer": rest.strip()}
        if is_page:
            # For the page alone: a browser adds a password that it knows to whatever it requests from here.
            given["basic"] = _password(rest)
        token = Secret(given.get(scheme.lower(), "") if rest else scheme)
        return hmac.compare_digest(token.value.encode(), self._settings.token.encode())


def _take_token(scope: Scope) -> Secret:
    """What a request has in ``Authorization``, which it has no more: error reporters show ``scope`` with all its headers."""
    sent = Secret(Headers(scope=scope).get("authorization", ""))
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
    return sent


def _matches(route: Route, scope: Scope) -> bool:
    return route.matches(scope)[0] is not Match.NONE


def _name_in(host: str) -> str:
    """The name or address in a ``Host`` header; empty if the header is anything but that and a port."""
    found = _HOST.fullmatch(host)
    return (found["ipv6"] or found["name"]).lower() if found else ""


def _is_cross_site(headers: Headers, *, is_page: bool) -> bool:
    """Whether a web page of another site makes a browser request this; a link to the page may be followed."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    follows = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (is_page and follows)


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
    """So many requests in each minute of the clock, as the hosted service counts them.

    Args:
        total: How many.
        now: The clock, in seconds since 1970.
    """

    def __init__(self, total: int, now: Callable[[], float]) -> None:
        self._total = total
        self._now = now
        self._left = total
        self._reset = 0

    def take(self) -> bool:
        """Count a request; ``False`` if it is one too many."""
        self._renew()
        allowed = self._left > 0
        self._left -= allowed
        return allowed

    def headers(self) -> dict[str, str]:
        """What every reply says of it; the reset is a unix timestamp."""
        self._renew()
        facts = {"Total": self._total, "Left": self._left, "Reset": self._reset}
        return {f"X-Ratelimit-{name}": str(value) for name, value in facts.items()}

    def _renew(self) -> None:
        now = self._now()
        if now >= self._reset:
            self._left = self._total
            self._reset = (int(now) // 60 + 1) * 60
