"""Plain HTTP to a private network: the token is sent only to addresses that are private at that moment."""

from __future__ import annotations

import socket

import anyio
import httpx
import pytest

import a2v
from a2v import testing

TOKEN = "canary-0123456789-abcdefghij"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://10.0.0.5:8000",
        "http://172.16.0.1",
        "http://172.31.255.254",
        "http://192.168.1.20:8000/prefix",
        "http://169.254.1.1",
        "http://[fd00::5]:8000",
        "http://[fe80::1]",
        "http://[::ffff:192.168.0.1]",
        "http://engine.lan:8000",
        "http://render-box",
        "http://localhost:8000",
        "http://127.0.0.1:8000",
        "https://example.com",
    ],
)
def test_private_addresses_and_names_are_allowed_if_asked_for(base_url) -> None:
    assert repr(a2v.AsyncA2V("token", base_url=base_url, insecure=True)) == f"<AsyncA2V {base_url}>"
    assert base_url in repr(a2v.A2V("token", base_url=base_url, insecure=True))


@pytest.mark.parametrize(
    "host",
    ["8.8.8.8", "172.32.0.1", "192.169.0.1", "100.64.0.1", "0.0.0.0", "[2001:db8::1]", "[::]", "[::ffff:8.8.8.8]"],
)
def test_public_addresses_are_refused_all_the_same(host) -> None:
    with pytest.raises(a2v.ConfigurationError, match=r"not a private address.*https://"):
        a2v.AsyncA2V("token", base_url=f"http://{host}:8000", insecure=True)


@pytest.mark.parametrize("host", ["10.0.0.5", "engine.lan"])
def test_the_refusal_names_the_option(host) -> None:
    with pytest.raises(a2v.ConfigurationError, match=r"not this machine.*insecure=True \(--insecure\)"):
        a2v.AsyncA2V("token", base_url=f"http://{host}:8000")
    with pytest.raises(a2v.ConfigurationError, match="insecure must be True or False"):
        a2v.AsyncA2V("token", base_url=f"http://{host}:8000", insecure="yes")  # type: ignore[arg-type]


@pytest.fixture
def addresses(monkeypatch) -> list[str]:
    """The addresses of engine.lan; other names have none."""
    found = ["127.0.0.1"]

    def getaddrinfo(host, port, *_, **__):
        if host in (b"engine.lan", "engine.lan") and found:
            return [(socket.AF_INET6 if ":" in one else socket.AF_INET, 1, 6, "", (one, port)) for one in found]
        if host in ("127.0.0.1", b"127.0.0.1"):
            return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


@pytest.fixture
def server():
    with testing.Service().server() as running:
        yield running


@pytest.fixture
def client(server, addresses):
    base_url = server.base_url.replace("127.0.0.1", "engine.lan")
    return a2v.AsyncA2V(TOKEN, base_url=base_url, insecure=True, max_retries=0)


@pytest.mark.anyio
async def test_a_name_is_used_if_its_addresses_are_private(client, server, addresses, monkeypatch) -> None:
    # A proxy would read the token, and look the name up again.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    addresses[:] = ["fd00::1", "127.0.0.1"]
    assert await client.characters.list()
    assert len(server.service.calls) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("also", ["8.8.8.8", "2001:db8::1"])
async def test_a_name_with_a_public_address_gets_no_token(client, server, addresses, also) -> None:
    await client.characters.list()
    addresses.append(also)
    with pytest.raises(a2v.ConfigurationError, match=f"{also}, which is not private"):
        await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
    assert len(server.service.calls) == 1


@pytest.mark.anyio
async def test_a_name_without_an_address_is_a_transport_error_and_nothing_was_sent(client, addresses) -> None:
    addresses.clear()
    with pytest.raises(a2v.TransportError, match=r"engine\.lan"):
        await client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")


@pytest.mark.anyio
async def test_an_ipv6_address_of_a_name(client, addresses) -> None:
    addresses[:] = ["::1"]
    with pytest.raises(a2v.TransportError), anyio.fail_after(20):  # the server listens on IPv4 only
        await client.characters.list()


@pytest.mark.anyio
async def test_the_server_sees_the_name(addresses, service) -> None:
    transport = httpx.MockTransport(service)
    client = a2v.AsyncA2V(TOKEN, base_url="http://engine.lan:8000/prefix", insecure=True, transport=transport)
    await client.characters.list()
    (request,) = service.requests
    assert (str(request.url), request.headers["host"]) == (
        "http://127.0.0.1:8000/prefix/v1/a2v/character.list",
        "engine.lan:8000",
    )
