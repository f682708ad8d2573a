"""Stands before the engine's calls: who may ask, by what name, and how often."""

from __future__ import annotations

import base64
import hmac
import logging
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from a2v._core import wire
from a2v.engine.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger: logging.Logger = logging.getLogger("a2v.engine")
access: logging.Logger = logging.getLogger("a2v.engine.access")

NOT_JSON = b'{"code": 1009, "message": "too many requests",}'
"""What the hosted service says when there were too many requests; the comma makes it something else than JSON."""


def refuse(
    status: int, message: str, *, code: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A reply that says no; where the protocol has no code for the reason, it is the HTTP status."""
    return JSONResponse(wire.refusal(status if code is None else code, message), status, headers)


class Guard:
    """ASGI middleware: checks Host and Origin, for ``/v1/`` also the token and the limits, and turns crashes into replies.

    Args:
        app: What is guarded.
        settings: Whom to let through.
        now: The clock, in seconds since 1970.
    """

    def __init__(self, app: ASGIApp, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._app = app
        self._settings = settings
        self._budget = Budget(settings.request_limit, now) if settings.request_limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 0, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(scope, MutableHeaders(scope=message))
            await send(message)

        # The query stays out of the log, and so does what could break its lines.
        facts: dict[str, object] = {"method": scope["method"], "path": quote(scope["path"][:200])}
        try:
            await (self._refusal(scope) or self._app)(scope, receive, send_with_headers)
        except ClientDisconnect:
            logger.info("%(method)s %(path)s: the client hung up", facts, extra=facts)
            return
        except Exception:
            logger.exception("%(method)s %(path)s failed", facts, extra=facts)
            if status:
                raise
            await refuse(500, "the engine failed; its log says why")(scope, receive, send_with_headers)
        facts |= {"status": status, "seconds": round(time.perf_counter() - start, 4)}
        access.info("%(method)s %(path)s %(status)s %(seconds)s s", facts, extra=facts)

    def _add_headers(self, scope: Scope, headers: MutableHeaders) -> None:
        headers["X-Content-Type-Options"] = "nosniff"
        if _is_call(scope):
            headers["Cache-Control"] = "no-store"
        if self._budget and _is_call(scope):
            headers.update(self._budget.headers())

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_our_name(host):
            return refuse(421, f"this engine does not go by the name {host!r}; add it to allowed_hosts if it should")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
            return refuse(403, "web pages of other origins may not use this engine")
        if self._is_private(scope) and not self._is_authorised(headers.get("authorization", "")):
            wanted = "Bearer" if _is_call(scope) else "Basic"
            reason = "the token is missing or wrong; send it as 'Authorization: Bearer <token>'"
            return refuse(401, reason, headers={"WWW-Authenticate": wanted})
        return self._over_limit(scope) if _is_call(scope) else None

    def _over_limit(self, scope: Scope) -> Response | None:
        if self._budget and not self._budget.take():
            if self._settings.like_hosted:
                return Response(NOT_JSON, 429, media_type="application/json")
            return refuse(429, "too many requests", code=wire.TOO_MANY_REQUESTS)
        quota = self._settings.quota
        if quota is not None and not scope["app"].state.engine.store.spend(quota):
            return refuse(403, f"the quota of {quota} requests is spent; there are no more to be had")
        return None

    def _is_our_name(self, host: str) -> bool:
        """Whether a request was meant for us, and is not a foreign web page's whose name was pointed here."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        names = (*LOOPBACK, self._settings.host.lower(), *self._settings.allowed_hosts)
        return name in names or (not self._settings.is_local and _is_address(name or ""))

    def _is_private(self, scope: Scope) -> bool:
        """Calls need the token; the page, which lists videos, does so too (as a password) where others can reach it."""
        return _is_call(scope) or (scope["path"] == "/" and not self._settings.is_local)

    def _is_authorised(self, sent: str) -> bool:
        scheme, _, rest = sent.strip().partition(" ")
        token = {"bearer": rest.strip(), "basic": _password(rest)}.get(scheme.lower(), "") if rest else scheme
        return hmac.compare_digest(token.encode(), self._settings.token.encode())


def _is_call(scope: Scope) -> bool:
    return bool(scope["path"].startswith("/v1/"))


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


class Budget:
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
