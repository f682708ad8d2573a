"""Fetching recordings, and refusing to fetch anything else."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from a2v.engine import Settings, recording_fetcher
from a2v.engine.errors import AudioError
from a2v.engine.recording_fetcher import is_public
from tests.sets import one_by_default

pytestmark = pytest.mark.anyio

SAID = b"RIFF this is a recording" * 1000


class Recordings(BaseHTTPRequestHandler):
    """A server of recordings, with paths for redirects and failures."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"]))
        self.server.cookies.append(self.headers["Cookie"])
        kind, _, rest = self.path[1:].partition("/")
        getattr(self, f"send_{kind}")(rest)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_ok(self, _: str) -> None:
        self.reply(200, SAID)

    def send_status(self, status: str) -> None:
        self.reply(int(status))

    def send_packed(self, _: str) -> None:
        self.reply(200, SAID, Content_Encoding="gzip")

    def send_short(self, _: str) -> None:
        self.reply(200, SAID, Content_Length=str(len(SAID) + 1))
        self.close_connection = True

    def send_to(self, url: str) -> None:
        self.reply(302, Location=url)

    def send_corpus(self, number: str) -> None:
        """Redirect to a URL that cannot be part of a path, after some redirects to this server."""
        hops, _, number = number.partition("/")
        again = f"http://127.0.0.2:{self.server.port}/corpus/{int(hops) - 1}/{number}"
        url = again if int(hops) else self.server.corpus[int(number)]
        self.reply(302, Location=url.encode().decode("latin-1"))

    def send_cookie(self, url: str) -> None:
        self.reply(302, Location=url, Set_Cookie="session=1; Path=/")

    def send_endless(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        except OSError:
            self.close_connection = True

    def send_never(self, _: str) -> None:
        self.rfile.read(1)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, context: ssl.SSLContext | None = None) -> None:
        super().__init__((address, 0), Recordings)
        self.seen: list[tuple[str, str]] = []
        self.cookies: list[str | None] = []
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """Ignore disconnects, which some tests cause."""

    @property
    def port(self) -> int:
        return self.server_address[1]


@contextmanager
def running(server: Server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with running(Server("127.0.0.1")) as one:
        yield one


@pytest.fixture
def public(monkeypatch):
    """A server on an address that counts as public during the test; no other address does."""
    if sys.platform != "linux":
        pytest.skip("needs the whole of 127.0.0.0/8")
    monkeypatch.setattr(recording_fetcher, "is_public", lambda address: address == "127.0.0.2")
    with running(Server("127.0.0.2")) as one:
        yield one


@pytest.fixture
def names(monkeypatch):
    """Fake host names with their addresses, and a list of the queries."""
    book: dict[str, list[str]] = {}
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object):
        asked.append(host)
        if host not in book:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in book[host]]

    monkeypatch.setattr(recording_fetcher.anyio, "getaddrinfo", getaddrinfo)
    return book, asked


@pytest.fixture
def target(tmp_path):
    return tmp_path / "audio"


OPEN = Settings(allow_private_urls=True)


async def refused(url: str, target, settings: Settings = OPEN) -> str:
    with pytest.raises(AudioError) as caught:
        await recording_fetcher.fetch_recording(url, target, settings)
    return str(caught.value)


# -- what can be had --------------------------------------------------------------------------------------------------


async def test_a_recording(server, target):
    await recording_fetcher.fetch_recording(f"http://localhost:{server.port}/ok", target, OPEN)
    assert target.read_bytes() == SAID
    assert server.seen == [("/ok", f"localhost:{server.port}")]


async def test_proxies_of_the_environment_are_not_used(server, target, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await recording_fetcher.fetch_recording(f"http://127.0.0.1:{server.port}/ok", target, OPEN)
    assert target.read_bytes() == SAID


async def test_redirects_are_followed(server, target):
    await recording_fetcher.fetch_recording(f"http://127.0.0.1:{server.port}/to//to//ok", target, OPEN)
    assert target.read_bytes() == SAID
    assert [path for path, _ in server.seen] == ["/to//to//ok", "/to//ok", "/ok"]


async def test_the_next_address_is_tried(public, target, names, monkeypatch):
    monkeypatch.setattr(recording_fetcher, "is_public", lambda _: True)
    names[0]["public.example"] = ["127.0.0.3", "127.0.0.2"]
    await recording_fetcher.fetch_recording(f"http://public.example:{public.port}/ok", target, Settings())
    assert target.read_bytes() == SAID


# -- what cannot ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("status/404", "HTTP 404"),
        ("status/500", "HTTP 500"),
        ("status/204", "HTTP 204"),
        ("packed", "compressed"),
        ("short", "could not be fetched"),
        ("to/ftp://example.com/a", "not http"),
        ("to/file:///etc/passwd", "not http"),
        ("to/http://a:b/", "not a URL"),
    ],
)
async def test_bad_responses(server, target, path, said):
    assert said in await refused(f"http://127.0.0.1:{server.port}/{path}", target)


async def test_redirects_are_limited(server, target):
    url = f"http://127.0.0.1:{server.port}/" + "to//" * 6 + "ok"
    assert "redirected more than 5 times" in await refused(url, target)
    assert len(server.seen) == 6


async def test_size_is_limited(server, target, monkeypatch):
    monkeypatch.setattr(recording_fetcher, "MAX_BYTES", 1024 * 1024)
    assert "1 MiB" in await refused(f"http://127.0.0.1:{server.port}/endless", target)
    assert target.stat().st_size < 2 * 1024 * 1024


async def test_time_is_limited(server, target, monkeypatch):
    monkeypatch.setattr(recording_fetcher, "MAX_SECONDS", 0.2)
    assert "within 0 s" in await refused(f"http://127.0.0.1:{server.port}/never", target)


async def test_a_server_that_does_not_respond(server, target, monkeypatch):
    monkeypatch.setattr(recording_fetcher, "_TIMEOUT", httpx.Timeout(0.2))
    assert "does not respond" in await refused(f"http://127.0.0.1:{server.port}/never", target)


async def test_a_refused_connection(target):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    assert "could not be fetched" in await refused(f"http://127.0.0.1:{port}/a", target)


async def test_no_such_host(target, names):
    assert "no host 'nowhere.invalid'" in await refused("http://nowhere.invalid/a", target)


async def test_signed_queries_stay_out_of_messages_and_of_the_log(server, target, caplog):
    caplog.set_level(logging.INFO)
    assert "canary" not in await refused(f"http://127.0.0.1:{server.port}/status/403?signature=canary", target)
    await recording_fetcher.fetch_recording(f"http://127.0.0.1:{server.port}/ok/?signature=canary", target, OPEN)
    assert "canary" not in caplog.text


async def test_no_cookie_is_sent_to_the_next_server(server, target):
    await recording_fetcher.fetch_recording(
        f"http://127.0.0.1:{server.port}/cookie/http://127.0.0.1:{server.port}/ok", target, OPEN
    )
    assert server.cookies == [None, None]


# -- what must not ----------------------------------------------------------------------------------------------------

# Spellings of addresses that are not public; as text, which is easier to review.
IPV4 = """
127.0.0.1 127.1 127.0.1 127.000.000.001 127.255.255.254 2130706433 017700000001 0x7f000001 0x7F.0x0.0x0.0x1 0x7f.1
0177.0.0.1 0177.0x0.0.1 00000177.0.0.1 0 0.0.0.0 0.0.0.1 4294967295 255.255.255.255 10.0.0.1 10.255.255.255 012.0.0.1
0xa.0.0.1 167772161 172.16.0.1 172.31.255.255 2886729729 192.168.0.1 3232235777 0xc0a80101 0300.0250.1.1 100.64.0.1
100.127.255.254 100.100.100.200 169.254.0.1 169.254.169.254 169.254.170.2 2852039166 0xa9fea9fe 0251.0376.0251.0376
168.63.129.16 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250
240.0.0.1
""".split()  # noqa: SIM905  # a page of strings would be harder to read
IPV6 = """
:: ::1 0:0:0:0:0:0:0:1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 ::127.0.0.1
fe80::1 fe80::1%25lo fe80::1%lo fc00::1 fd00:ec2::254 fec0::1 ff02::1 ff0e::1 64:ff9b::7f00:1 64:ff9b::10.0.0.1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe:: 2001:0:4136:e378:8000:63bf:3fff:fdd2
2001:db8::1 2001:10::1 2001:20::1 3fff::1 5f00::1 100::1
""".split()  # noqa: SIM905  # a page of strings would be harder to read
NAMES = {
    "localhost": ["127.0.0.1"],
    "LOCALHOST": ["127.0.0.1"],
    "localhost.": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "any.localhost": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "private.example": ["10.0.0.1"],
    "mixed.example": ["8.8.8.8", "10.0.0.1"],
    "mixed-the-other-way.example": ["127.0.0.1", "8.8.8.8"],
    "mapped.example": ["::ffff:127.0.0.1"],
}
TRICKS = """
http://public.example@127.0.0.1:{port}/ok http://public.example:80@127.0.0.1:{port}/ok http://127.0.0.1:{port}#@public.example/
http://127.0.0.1:{port}?@public.example/ http://127.0.0.1:{port}\\@public.example/ http://public.example\\@127.0.0.1:{port}/ok
http://public.example%40127.0.0.1:{port}/ http://127。0。0。1:{port}/ok http://127．0．0．1:{port}/ok http://①②⑦.⓪.⓪.①:{port}/ok
http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/ok http://127%2e0%2e0%2e1:{port}/ok http://127.0.0.1%00.public.example:{port}/ok
http:127.0.0.1:{port}/ok http:/127.0.0.1:{port}/ok http:///127.0.0.1:{port}/ok //127.0.0.1:{port}/ok http://[::1]:{port}/ok
http://[::1 http://[127.0.0.1]:{port}/ok HTTP://127.0.0.1:{port}/ok https://127.0.0.1:{port}/ok
http://public.example:25/ http://public.example:22/ http://public.example:0/ http://public.example:65536/
http://public.example:-1/ http://public.example:{port}:80/ file:///etc/passwd FILE:///etc/passwd file://127.0.0.1/etc/passwd
file:/etc/passwd ftp://127.0.0.1:{port}/ok gopher://127.0.0.1:{port}/_GET dict://127.0.0.1:{port}/ ldap://127.0.0.1:{port}/
jar:http://127.0.0.1:{port}/ok!/ data:audio/wav;base64,UklGRg== concat:http://127.0.0.1:{port}/ok unix:///run/docker.sock
""".split()  # noqa: RUF001, SIM905  # the dots are foreign on purpose


def corpus(port: int) -> list[str]:
    """URLs that must never be reached, in every spelling; a server listens on that port of this machine."""
    hosts = [*IPV4, *(f"[{address}]" for address in IPV6), *NAMES]
    return [f"http://{host}:{port}/ok" for host in hosts] + [trick.format(port=port) for trick in TRICKS]


@pytest.fixture
def no_connection(monkeypatch):
    async def connect(*_: object):
        raise AssertionError("a connection was made")

    monkeypatch.setattr(recording_fetcher, "_connect", connect)


def test_the_corpus_is_large():
    assert len(set(corpus(9))) >= 120


@pytest.mark.parametrize("url", corpus(9))
async def test_private_addresses_are_refused(url, target, names, no_connection):
    names[0].update(NAMES | {"public.example": ["8.8.8.8"]})
    message = await refused(url, target, Settings())
    assert message.startswith("audio_url")
    assert not target.exists()


@pytest.fixture
def partly_public(public, monkeypatch):
    """Like ``public``, in addition to really public addresses."""
    monkeypatch.setattr(recording_fetcher, "is_public", lambda address: address == "127.0.0.2" or is_public(address))
    return public


@pytest.mark.parametrize("hops", one_by_default(1, 0, 4))
async def test_private_addresses_are_refused_at_each_redirect(server, partly_public, target, names, hops):
    """From an allowed server, with a server listening on each forbidden address."""
    public = partly_public
    names[0].update(NAMES | {"public.example": ["192.0.2.1"]})
    public.corpus = corpus(server.port)
    for number, url in enumerate(public.corpus):
        await refused(f"http://127.0.0.2:{public.port}/corpus/{hops}/{number}", target, Settings())
        assert server.seen == [], url
        assert not target.exists(), url
    assert len(public.seen) >= len(public.corpus) * (hops + 1)


async def test_a_name_that_changes_its_address_is_resolved_once(server, public, target, names, monkeypatch):
    """The connection goes to the checked address, even if the name has another address by then."""
    asked = names[1]
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])
    monkeypatch.setattr(recording_fetcher.anyio, "getaddrinfo", _changing(answers, asked))
    await recording_fetcher.fetch_recording(f"http://rebinding.example:{public.port}/ok", target, Settings())
    assert (target.read_bytes(), asked) == (SAID, ["rebinding.example"])
    # The next request resolves the name again.
    assert "public internet" in await refused(f"http://rebinding.example:{server.port}/ok", target, Settings())
    assert server.seen == []


async def test_a_name_that_changes_between_redirects_is_checked_again(public, target, names, monkeypatch):
    asked = names[1]
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])
    monkeypatch.setattr(recording_fetcher.anyio, "getaddrinfo", _changing(answers, asked))
    again = f"http://rebinding.example:{public.port}/ok"
    message = await refused(f"http://rebinding.example:{public.port}/to/{again}", target, Settings())
    assert "public internet" in message
    assert asked == ["rebinding.example"] * 2
    assert [path for path, _ in public.seen] == [f"/to/{again}"]


def _changing(answers, asked):
    async def getaddrinfo(host: str, port: int, **_: object):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    return getaddrinfo


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_are_public(address):
    assert recording_fetcher.is_public(address)


async def test_one_private_address_among_public_ones_is_enough(target, names, no_connection):
    names[0]["mixed.example"] = ["8.8.8.8", "10.0.0.1"]
    assert "public internet" in await refused("http://mixed.example/a", target, Settings())


async def test_a_redirect_into_the_private_network_is_refused(server, public, target):
    secret = f"http://127.0.0.1:{server.port}/ok"
    assert "public internet" in await refused(f"http://127.0.0.2:{public.port}/to/{secret}", target, Settings())
    assert server.seen == []
    assert not target.exists()


async def test_a_name_is_resolved_once_and_kept(public, target, names):
    book, asked = names
    book["public.example"] = ["127.0.0.2"]
    await recording_fetcher.fetch_recording(f"http://public.example:{public.port}/ok", target, Settings())
    assert asked == ["public.example"]
    assert public.seen == [("/ok", f"public.example:{public.port}")]


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
async def test_tls_checks_the_name_not_the_address(target, names, monkeypatch, tmp_path):
    key, certificate = _certificate(tmp_path, "public.example")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(recording_fetcher, "_tls_context", lambda: trusting)
    names[0].update({name: ["127.0.0.1"] for name in ("public.example", "other.example")})
    with running(Server("127.0.0.1", serving)) as server:
        await recording_fetcher.fetch_recording(f"https://public.example:{server.port}/ok", target, OPEN)
        assert target.read_bytes() == SAID
        message = await refused(f"https://other.example:{server.port}/ok", target)
    assert "could not be fetched" in message
    assert len(server.seen) == 1


def _certificate(folder, name: str):
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    what = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    whose = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    where = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *what, *whose, *where], check=True, capture_output=True)
    return key, certificate


# -- file:// ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "allowed and spaced"
    path.mkdir()
    (path / "hello.wav").write_bytes(SAID)
    return path


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(b"secret")
    return path


async def test_an_allowed_file(folder, target):
    await recording_fetcher.fetch_recording((folder / "hello.wav").as_uri(), target, Settings(allow_files=folder))
    assert target.read_bytes() == SAID


async def test_a_single_file_can_be_allowed(folder, target):
    (folder / "other.wav").write_bytes(SAID)
    settings = Settings(allow_files=[str(folder / "hello.wav")])
    await recording_fetcher.fetch_recording((folder / "hello.wav").as_uri(), target, settings)
    assert "may not read" in await refused((folder / "other.wav").as_uri(), target, settings)


async def test_no_file_may_be_read_by_default(folder, target):
    assert "may not read" in await refused((folder / "hello.wav").as_uri(), target)


@pytest.mark.parametrize(
    "way", ["{}/../secret.wav", "{}/%2e%2e/secret.wav", "{}/link.wav", "{}/loop/secret.wav", "{}/../no"]
)
async def test_paths_out_of_the_allowed_folder_are_refused(folder, secret, target, way):
    (folder / "link.wav").symlink_to(secret)
    (folder / "loop").symlink_to(folder.parent)
    url = way.format(folder.as_uri())
    assert "may not read" in await refused(url, target, Settings(allow_files=folder))
    assert not target.exists()


async def test_the_allowed_folder_may_be_a_link(folder, tmp_path, target):
    (tmp_path / "link").symlink_to(folder)
    await recording_fetcher.fetch_recording(
        (folder / "hello.wav").as_uri(), target, Settings(allow_files=tmp_path / "link")
    )
    assert target.read_bytes() == (folder / "hello.wav").read_bytes()


@pytest.mark.parametrize(
    ("path", "said"), [("nothing.wav", "No such file"), ("", "not a file"), ("%00", "cannot be read")]
)
async def test_folders_and_missing_files_are_refused(folder, target, path, said):
    message = await refused(f"{folder.as_uri()}/{path}", target, Settings(allow_files=folder))
    assert said in message or "Is a directory" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
async def test_a_pipe_does_not_block(folder, target):
    os.mkfifo(folder / "pipe")
    assert "not a file" in await refused((folder / "pipe").as_uri(), target, Settings(allow_files=folder))


async def test_files_of_other_machines(folder, target):
    url = f"file://elsewhere{folder.as_posix()}/hello.wav"
    assert "on the engine's machine" in await refused(url, target, Settings(allow_files=folder))


async def test_the_size_of_files_is_limited(folder, target, monkeypatch):
    monkeypatch.setattr(recording_fetcher, "MAX_BYTES", 100)
    assert "MiB" in await refused((folder / "hello.wav").as_uri(), target, Settings(allow_files=folder))
