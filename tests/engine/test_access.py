"""Access to every route: below every kind of prefix, under every host name, with and without the token."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from a2v.engine import Settings, create_app

pytestmark = pytest.mark.anyio

TOKEN = "t0k3n"
PREFIXES = ["plain", "mounted", "mounted twice", "below a parameter", "root path", "mounted below a root path"]
WRONG = {
    "no token": {},
    "wrong token": {"Authorization": "Bearer wrong"},
    "password": {"Authorization": f"Basic {base64.b64encode(f':{TOKEN}'.encode()).decode()}"},
}
PUBLIC = {
    "/files/{name:path}",
    "/masks/{video_id:path}.mp4",
    "/previews/{subject_id:path}.png",
    "/speeches/{speech_id:path}.wav",
    "/voices/{voice_name:path}.wav",
    "/health",
    "/openapi.json",
}


@asynccontextmanager
async def client_of(settings: Settings, kind: str, peer: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    """A client of a mounted engine, with the engine's base URL."""
    app = inner = create_app(settings)
    prefix = {"plain": "", "mounted": "/engine", "mounted twice": "/a/b", "below a parameter": "/acme"}.get(
        kind, "/a2v"
    )
    if kind == "mounted":
        app = Starlette(routes=[Mount("/engine", inner)])
    elif kind == "mounted twice":
        app = Starlette(routes=[Mount("/a", routes=[Mount("/b", inner)])])
    elif kind == "below a parameter":
        app = Starlette(routes=[Mount("/{tenant}", inner)])
    elif kind == "mounted below a root path":
        app, prefix = Starlette(routes=[Mount("/engine", inner)]), "/a2v/engine"
    root = "/a2v" if "root path" in kind else ""
    transport = httpx.ASGITransport(app, root_path=root, client=(peer, 1))
    async with inner.router.lifespan_context(inner), httpx.AsyncClient(transport=transport) as client:
        client.base_url = f"http://localhost{prefix}"
        yield client


def private_routes(settings: Settings) -> list[tuple[str, str]]:
    routes = [route for route in create_app(settings).routes if isinstance(route, Route)]
    assert {route.path for route in routes} >= PUBLIC
    return [(method, route.path) for route in routes if route.path not in PUBLIC for method in sorted(route.methods)]


@pytest.mark.usefixtures("same_minute")
@pytest.mark.parametrize("sent", WRONG)
@pytest.mark.parametrize("kind", PREFIXES)
async def test_every_route_but_the_public_ones_needs_the_token(kind, sent):
    """Refused requests do not count against the limits, and responses are not cacheable."""
    settings = Settings(token=TOKEN, host="0.0.0.0", requests_per_minute=2, quota=1)
    odd = [("GET", path) for path in ("/v1/a2v/nothing", "/v1/a2v/video.list/", "//v1/a2v/video.list", "/nothing")]
    asked = private_routes(settings) + odd + [("DELETE", "/v1/a2v/video.get"), ("OPTIONS", "/v1/a2v/video.generate")]
    async with client_of(settings, kind) as client:
        for method, path in asked:
            if sent == "password" and (path == "/" or path.startswith("/page/")):
                continue
            reply = await client.request(method, path, headers=WRONG[sent])
            assert (reply.status_code, reply.headers["Cache-Control"]) == (401, "no-store"), (method, path)
        right = {"Authorization": TOKEN}
        for status in (200, 403):
            assert (await client.get("/v1/a2v/video.list", headers=right)).status_code == status
        assert (await client.get("/v1/a2v/video.list", headers=right)).status_code == 429


@pytest.mark.usefixtures("same_minute")
@pytest.mark.parametrize("kind", PREFIXES)
async def test_limits_hold_below_every_prefix(kind):
    async with client_of(Settings(token=TOKEN, requests_per_minute=2, quota=1), kind) as client:
        replies = [await client.get("/v1/a2v/character.list", headers={"Authorization": TOKEN}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 403, 429]
    assert replies[-1].headers["X-Ratelimit-Left"] == "0"


@pytest.mark.parametrize("kind", PREFIXES)
async def test_public_routes_need_no_token_below_every_prefix(kind):
    async with client_of(Settings(token=TOKEN, quota=1), kind) as client:
        for path, status in (("/health", 200), ("/openapi.json", 200), ("/files/0.mp4", 404), ("/masks/0.mp4", 404)):
            reply = await client.get(path)
            assert reply.status_code == status, path
        assert (await client.get("/openapi.json")).json()["servers"][0]["url"] == str(client.base_url).rstrip("/")


@pytest.mark.parametrize("path", ["/v1/%00", "/v1/%1B[31m", "/%7F", "/%C2%85", "/%ED%A0%80"])
async def test_a_response_that_quotes_a_path_has_no_control_characters(path):
    async with client_of(Settings(token=TOKEN), "plain") as client:
        reply = await client.get(path, headers={"Authorization": TOKEN})
    assert reply.status_code == 404
    assert reply.json()["message"].isprintable()


async def test_a_websocket_is_refused():
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    app = create_app(Settings(token=TOKEN))
    headers = [(b"host", b"localhost"), (b"authorization", TOKEN.encode())]
    scope = {
        "type": "websocket",
        "path": "/v1/a2v/video.list",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    assert sent == ["websocket.close"]


# -- the page ---------------------------------------------------------------------------------------------------------

PROXIED = Settings(token=TOKEN, allowed_hosts="engine.example")
PASSWORD = WRONG["password"]


@pytest.mark.parametrize("kind", PREFIXES)
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
async def test_the_page_needs_no_token_under_loopback_names(kind, host):
    async with client_of(PROXIED, kind) as client:
        assert (await client.get("/", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("kind", PREFIXES)
async def test_the_page_behind_a_proxy_needs_the_password(kind):
    """The engine listens on loopback, and others reach it through a proxy."""
    async with client_of(PROXIED, kind) as client:
        reply = await client.get("/", headers={"Host": "engine.example"})
        assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Basic")
        for right in (PASSWORD, {"Authorization": f"Bearer {TOKEN}"}):
            assert (await client.get("/", headers={"Host": "engine.example"} | right)).status_code == 200
        wrong = {"Authorization": f"Basic {base64.b64encode(b':wrong').decode()}"}
        assert (await client.get("/", headers={"Host": "engine.example"} | wrong)).status_code == 401


PROXIES = ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "X-Forwarded-Port", "X-Client-IP"]


@pytest.mark.parametrize(
    "header", [*PROXIES, "X-Original-URL", "X-Amzn-Trace-Id", "CF-Connecting-IP", "True-Client-IP"]
)
async def test_a_proxy_that_sends_host_localhost_does_not_open_the_page(header):
    async with client_of(PROXIED, "plain") as client:
        assert (await client.get("/", headers={header: "203.0.113.9"})).status_code == 401


@pytest.mark.parametrize(("host", "peer"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")])
async def test_a_remote_client_with_host_localhost_does_not_get_the_page(host, peer):
    async with client_of(Settings(token=TOKEN, host=host), "plain", peer) as client:
        assert (await client.get("/", headers={"Host": "localhost"})).status_code == 401


@pytest.mark.parametrize(
    "host", ["localhost.", "localhost#@evil.example", "localhost/", "a@localhost", "localhost:99999999"]
)
async def test_a_host_header_that_is_more_than_a_name_is_refused(host):
    async with client_of(Settings(token=TOKEN), "plain") as client:
        for path in ("/", "/health", "/v1/a2v/video.list"):
            reply = await client.get(path, headers={"Host": host, "Authorization": TOKEN})
            assert reply.status_code == 421, path


@pytest.mark.parametrize("path", ["/page/uploads", "/page/videos"])
async def test_only_the_page_itself_may_upload_and_submit_without_the_token(path):
    """A page of another site, or a program that was tricked into sending a request, cannot have the engine's own origin."""
    own = {"Origin": "http://localhost"}
    async with client_of(Settings(token=TOKEN), "plain") as client:
        for headers in ({}, {"Origin": "null"}, {"Origin": "http://localhost:81"}, {"Origin": "https://evil.example"}):
            assert (await client.post(path, headers=headers, content=b"{}")).status_code == 403
        for site in ("cross-site", "same-site"):
            headers = own | {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
            assert (await client.post(path, headers=headers, content=b"{}")).status_code == 403
        assert (await client.post(path, headers=own, content=b"{}")).status_code in (200, 400)
    async with client_of(Settings(token=TOKEN, host="0.0.0.0"), "plain") as client:
        assert (await client.post(path, headers=own, content=b"{}")).status_code == 401
        assert (await client.post(path, headers=own | PASSWORD, content=b"{}")).status_code in (200, 400)


# -- other sites ------------------------------------------------------------------------------------------------------


async def test_the_password_of_the_page_does_not_work_for_calls():
    async with client_of(Settings(token=TOKEN, quota=1), "plain") as client:
        for _ in range(2):
            assert (await client.get("/v1/a2v/video.list", headers=PASSWORD)).status_code == 401
        assert (await client.get("/v1/a2v/video.list", headers={"Authorization": TOKEN})).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_requests_caused_by_other_sites_are_refused(site):
    async with client_of(Settings(token=TOKEN, quota=1), "plain") as client:
        for path in ("/v1/a2v/video.list", "/"):
            for sent in (PASSWORD, {"Authorization": TOKEN}):
                assert (await client.get(path, headers=sent | {"Sec-Fetch-Site": site})).status_code == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await client.get("/", headers=link)).status_code == 200
        assert (await client.get("/v1/a2v/video.list", headers=link | {"Authorization": TOKEN})).status_code == 403
        assert (await client.get("/files/0.mp4", headers={"Sec-Fetch-Site": site})).status_code == 404
        own = {"Authorization": TOKEN, "Sec-Fetch-Site": "same-origin"}
        assert (await client.get("/v1/a2v/video.list", headers=own)).status_code == 200


# -- odd requests -----------------------------------------------------------------------------------------------------


async def test_content_length_with_chunked_encoding_is_refused_and_closes_the_connection(engine):
    """A proxy in between might believe the other length (request smuggling)."""
    host, port = engine.base_url.removeprefix("http://").split(":")
    request = (
        f"POST /v1/a2v/video.generate HTTP/1.1\r\nHost: {host}\r\nAuthorization: {engine.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    with anyio.fail_after(20):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(request.encode())
            received = b""
            try:
                while True:
                    received += await stream.receive()
            except anyio.EndOfStream:
                pass
    assert received.startswith(b"HTTP/1.1 400")
