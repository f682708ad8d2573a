"""What can go wrong with a reply, and the class of error that each call documents for it.

``get`` is what ``characters.list`` and ``videos.get`` end with when they may not ask again, ``post`` what ``generate`` ends
with, ``watch`` and ``file`` what becomes of a wait and of a download that meet it on their way. ``None``: the right answer.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate

import anyio
from attrs import evolve, frozen

import a2v

from .server import Connection, Request, Toxic

Outcome = type[a2v.A2VError] | None
GET = ("character.list", "video.get")
API = (*GET, "video.generate")
ALL = (*API, "file")
OK = b"HTTP/1.1 200 OK\r\n"
JSON = "Content-Type: application/json"

UNKNOWN, TRANSPORT, PROTOCOL = a2v.SubmissionUnknownError, a2v.TransportError, a2v.ProtocolError


@frozen
class Poison:
    """One of the toxics.

    Attributes:
        toxic: What the server does.
        get: See above; so are ``post``, ``watch`` and ``file``. Several where the network decides.
        at: Where it strikes: at a ``request``, whose head was read, or at the ``connection`` before anything is read.
        calls: Which calls it makes sense for.
        stalls: Whether only the client's ``timeout`` ends it.
        expires: Whether it means that the URL of a file has expired, if that has worked before; it is exchanged then.
        holds: Whether the client has to wait a minute afterwards: too long for a test in real time.
    """

    toxic: Toxic
    get: tuple[Outcome, ...]
    post: tuple[Outcome, ...]
    watch: Outcome = None
    file: Outcome = None
    at: str = "request"
    calls: tuple[str, ...] = ALL
    stalls: bool = False
    expires: bool = False
    holds: bool = False


POISONS: dict[str, Poison] = {}
_LOST = Poison(None, get=(TRANSPORT,), post=(UNKNOWN,))  # type: ignore[arg-type]
_UNREADABLE = Poison(None, get=(PROTOCOL,), post=(UNKNOWN,), calls=API)  # type: ignore[arg-type]


def poison(like: Poison = _LOST, **more: object) -> Callable[[Toxic], Toxic]:
    def register(toxic: Toxic) -> Toxic:
        POISONS[toxic.__name__] = evolve(like, toxic=toxic, **more)
        return toxic

    return register


def says(name: str, said: bytes, like: Poison = _LOST, **more: object) -> None:
    """A server that reads the request, says this and closes."""

    async def toxic(conn: Connection, request: Request | None) -> None:
        if request:
            await conn.rest(request)
        await conn.send(said)

    POISONS[name] = evolve(like, toxic=toxic, **more)


def replies(
    name: str, change: Callable[[bytes], bytes], like: Poison = _UNREADABLE, status: str = "200 OK", **more: object
) -> None:
    """A server that sends a whole reply whose body was changed."""

    async def toxic(conn: Connection, request: Request | None) -> None:
        assert request
        await conn.rest(request)
        await conn.reply(change(conn.port.body(request)), status, JSON)

    POISONS[name] = evolve(like, toxic=toxic, **more)


def envelopes(name: str, change: Callable[[dict], object], like: Poison = _UNREADABLE, **more: object) -> None:
    """A server whose JSON is not what it should be."""
    replies(name, lambda body: json.dumps(change(json.loads(body))).encode(), like, **more)


# -- before the request ----------------------------------------------------------------------------------------------

NOT_SENT = evolve(_LOST, post=(TRANSPORT,), at="connection")
# Whether anything was sent by then is for the network to decide.
EARLY = evolve(NOT_SENT, post=(UNKNOWN, TRANSPORT))


@poison(EARLY)
async def closes_at_once(conn: Connection, _: Request | None) -> None:
    pass


@poison(EARLY)
async def resets_at_once(conn: Connection, _: Request | None) -> None:
    conn.reset()


@poison(EARLY, stalls=True, post=(UNKNOWN,))
async def never_reads(conn: Connection, _: Request | None) -> None:
    conn.writer.transport.pause_reading()
    await anyio.sleep(1.2)  # longer than the client waits


@poison(EARLY, post=(UNKNOWN,))
async def speaks_first_and_closes(conn: Connection, _: Request | None) -> None:
    await conn.send(b"SSH-2.0-OpenSSH_9.6\r\n")


@poison(EARLY)
async def closes_and_is_gone_for_a_while(conn: Connection, _: Request | None) -> None:
    await conn.port.outage(0.2)


# -- instead of a reply ----------------------------------------------------------------------------------------------


@poison()
async def closes_after_the_head(conn: Connection, request: Request | None) -> None:
    pass


@poison()
async def closes_after_the_request(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)


@poison()
async def closes_only_its_half(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    conn.writer.write_eof()
    await conn.stall()


@poison()
async def resets_after_the_request(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    conn.reset()


@poison()
async def resets_and_is_gone_for_a_while(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.port.outage(0.2)
    conn.reset()


@poison(stalls=True)
async def says_nothing(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.stall()


# -- a reply that does not come whole --------------------------------------------------------------------------------


@poison(stalls=True)
async def drips_the_head(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    for byte in OK + b"X: " + b"x" * 400:
        await conn.send(bytes([byte]))
        await anyio.sleep(0.05)


@poison(stalls=True)
async def drips_the_body(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.send(OK + b"Content-Length: 400\r\n\r\n")
    for _ in range(400):
        await conn.send(b" ")
        await anyio.sleep(0.05)


@poison(stalls=True)
async def stalls_in_the_body(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.send(OK + b"Content-Length: 100000\r\n\r\n" + conn.port.body(request))
    await conn.stall()


@poison()
async def resets_in_the_body(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.send(OK + b"Content-Length: 100000\r\n\r\n" + conn.port.body(request))
    conn.reset()


@poison(stalls=True)
async def says_100_for_ever(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    while True:
        await conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await anyio.sleep(0.01)


@poison(get=(PROTOCOL,), calls=API)
async def sends_a_body_without_end(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    await conn.send(OK + b"\r\n")
    while True:
        await conn.send(b" " * 65536)


SHORT = evolve(_LOST, get=(PROTOCOL,), calls=API)

says("short content-length", OK + b'Content-Length: 9\r\n\r\n{"code": 0, "data": []}', SHORT)
says("long content-length", OK + b'Content-Length: 2000\r\n\r\n{"code": 0, "data": []}')
says("two content-lengths", OK + b'Content-Length: 20\r\nContent-Length: 23\r\n\r\n{"code": 0, "data": []}')
says("negative content-length", OK + b"Content-Length: -5\r\n\r\n{}")
says("bad chunk", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}")
says("last chunk missing", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")

# -- what is no reply ------------------------------------------------------------------------------------------------

says("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40)
says("bare line feeds", b"\n\n\n")
says("HTTP/9", b"HTTP/9.9 200 OK\r\n\r\n", SHORT)
says("status out of range", b"HTTP/1.1 999999 WHAT\r\n\r\n")
says("200 kB of header", OK + b"X: " + b"x" * 200_000 + b"\r\n\r\n")
says("20,000 headers", OK + b"X: y\r\n" * 20_000 + b"\r\n", SHORT)
says("header with NUL", OK + b"X: a\x00b\r\n\r\n")
says("upgrade", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")


@poison()
async def echoes_the_request(conn: Connection, request: Request | None) -> None:
    await conn.send(b"\r\n".join([*_lines(request), b"", b""]))


@poison(get=(PROTOCOL,), calls=API)
async def echoes_in_headers(conn: Connection, request: Request | None) -> None:
    await conn.send(b"\r\n".join([OK.strip(), *_lines(request), b"", b""]))


@poison()
async def echoes_in_a_header_that_is_none(conn: Connection, request: Request | None) -> None:
    await conn.send(OK + request.headers.get("authorization", "nobody").encode() + b"\r\n\r\n")


def _lines(request: Request) -> Iterable[bytes]:
    return (f"{name}: {value}".encode() for name, value in request.headers.items())


# -- a reply that says something else --------------------------------------------------------------------------------

replies("empty", lambda _: b"")
replies("no content", lambda _: b"", status="204 No Content")
replies("HTML", lambda _: b"<html>Please log in</html>")
replies("truncated JSON", lambda body: body[:-3])
replies("more than JSON", lambda body: body + b"}")
replies("byte order mark", lambda body: b"\xef\xbb\xbf" + body)
replies("UTF-16", lambda body: body.decode().encode("utf-16"))
replies("bad UTF-8", lambda body: body.replace(b"success", b"succ\xff\xfess"))
replies("nested 200,000 deep", lambda body: b'{"code": 0, "data": ' + b"[" * 200_000)
replies("nested 500 deep", lambda body: body[:-1] + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}")
replies("an integer of 5,000 digits", lambda body: body[:-1] + b', "x": ' + b"9" * 5000 + b"}")
replies("NaN", lambda body: body[:-1] + b', "x": NaN}')
replies("a key twice", lambda body: b'{"code": 1009, ' + body[1:])
# Lists may be longer.
replies("longer than a mebibyte", lambda body: b" " * 2**20 + body, calls=("video.get", "video.generate"))
replies("gzip", gzip.compress)
replies("gzip bomb", lambda _: gzip.compress(b" " * 20_000_000))
replies("truncated gzip", lambda body: gzip.compress(body)[:-9])
envelopes("a list", lambda envelope: [envelope])
envelopes("no code", lambda envelope: {"data": envelope["data"]})
envelopes("code false", lambda envelope: envelope | {"code": False})
envelopes("code 0.0", lambda envelope: envelope | {"code": 0.0})
envelopes("code null", lambda envelope: envelope | {"code": None})
envelopes("data null", lambda envelope: envelope | {"data": None})
envelopes("data of a wrong type", lambda envelope: envelope | {"data": "data"})
envelopes("fields of a wrong type", lambda envelope: envelope | {"data": _numbers(envelope["data"])})
envelopes("ids of lone surrogates", lambda envelope: envelope | {"data": _surrogates(envelope["data"])})
envelopes("another's id", lambda envelope: envelope | {"data": {"video_id": "v999"}}, calls=("video.get",))

RIGHT = evolve(_LOST, get=(None,), post=(None,), calls=API)
envelopes('code "0"', lambda envelope: envelope | {"code": "0"}, RIGHT)
envelopes("more than was promised", lambda envelope: envelope | {"trace": {"id": [1, None, 2.5]}}, RIGHT)
replies("a surrogate in the message", lambda body: body.replace(b"success", rb"\udc80"), RIGHT)


def _numbers(data: object) -> object:
    if isinstance(data, list):
        return [dict.fromkeys(item, 5) for item in data]
    return dict.fromkeys(data, 5)


def _surrogates(data: object) -> object:
    if isinstance(data, list):
        return [dict.fromkeys(item, "\udc80") for item in data]
    return dict.fromkeys(data, "\udc80")


# What a gateway shows instead of the file.
says("a page", OK + b"Content-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n\r\n<html>", calls=("file",))

# -- refusals --------------------------------------------------------------------------------------------------------

FINAL = evolve(_LOST, get=(PROTOCOL,), post=(PROTOCOL,), watch=PROTOCOL, file=a2v.DownloadError)
says("redirect to nowhere", b"HTTP/1.1 302 X\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", FINAL)
says("redirect to a file", b"HTTP/1.1 307 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", FINAL)
says("redirect to itself", b"HTTP/1.1 308 X\r\nLocation: ?\r\nContent-Length: 0\r\n\r\n", FINAL, calls=API)


def _refused(name: str, status: str, error: type[a2v.A2VError], body: bytes = b"<html>", **more: object) -> None:
    like = Poison(None, get=(error,), post=(error,), watch=error, file=a2v.DownloadError)  # type: ignore[arg-type]
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    says(name, head + body, evolve(like, **more))


SERVER = {"post": (UNKNOWN,), "watch": None, "file": None}
_refused("502", "502 Bad Gateway", a2v.ServerError, **SERVER)
_refused("503 with Retry-After", "503 Busy\r\nRetry-After: 1", a2v.ServerError, **SERVER)
_refused("408", "408 Request Timeout", a2v.ServerError, **SERVER)
_refused("409", "409 Conflict", a2v.APIError, post=(UNKNOWN,))
_refused("400", "400 Bad Request", a2v.APIError, b'{"code": "5", "message": "no", "data": null}', expires=True)
# Object storage says so of a URL that has expired, and a service of a video that it does not know yet.
_refused("401", "401 Unauthorized", a2v.AuthenticationError, file=None)
_refused("403", "403 Forbidden", a2v.PermissionDeniedError, file=None)
_refused("404", "404 Not Found", a2v.NotFoundError, file=None, watch=None)


@poison(get=(a2v.APIError,), post=(a2v.APIError,), watch=a2v.APIError, calls=API)
async def quotes_the_token(conn: Connection, request: Request | None) -> None:
    await conn.rest(request)
    message = f"we do not know {request.headers['authorization']!r}"
    await conn.reply(json.dumps({"code": 5, "message": message, "data": None}).encode(), "400 Bad Request", JSON)


# -- too many requests -----------------------------------------------------------------------------------------------

LIMITED = Poison(None, get=(a2v.RateLimitError,), post=(a2v.RateLimitError,), holds=True)  # type: ignore[arg-type]
DAY = 86400


def _limits(name: str, reset: Callable[[], str], ahead: float = 0.0, **more: object) -> None:
    async def toxic(conn: Connection, request: Request | None) -> None:
        await conn.rest(request)
        headers = [f"Date: {formatdate(time.time() + ahead, usegmt=True)}", *([reset()] if reset() else [])]
        await conn.reply(b"{code: 1009}", "429 Too Many Requests", *headers)

    POISONS[f"429, {name}"] = evolve(LIMITED, toxic=toxic, **more)


_limits("a second", lambda: "X-Ratelimit-Reset: 1")
_limits("a Unix time", lambda: f"X-Ratelimit-Reset: {time.time() + 1:.0f}")
_limits("milliseconds", lambda: f"X-Ratelimit-Reset: {(time.time() + 1) * 1000:.0f}")
_limits("a clock a day ahead", lambda: f"X-Ratelimit-Reset: {time.time() + DAY + 1:.0f}", DAY)
_limits("twice", lambda: "X-Ratelimit-Reset: 1\r\nX-Ratelimit-Reset: 99999999999999")
_limits("in the past", lambda: f"X-Ratelimit-Reset: {time.time() - DAY:.0f}")
_limits("text", lambda: "X-Ratelimit-Reset: soon")
_limits("absent", lambda: "")
replies("code 1009 with 200", lambda _: b'{"code": "1009", "message": "slow down"}', LIMITED, holds=True, calls=API)
