"""Certificates: which are trusted, when a change of that is noticed, and that it does not matter where there is no TLS."""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anyio
import pytest

import a2v
from a2v import testing
from a2v._async.requests import network
from tests.certificates import Certificate
from tests.faults.conftest import CANARY

pytestmark = pytest.mark.both_backends

CHARACTERS = {"code": 0, "message": "success", "data": [{"model_id": "eva_a0008"}]}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(CHARACTERS).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(HTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # a client that does not trust us


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def certificate(tmp_path):
    return Certificate(tmp_path, "ours")


@pytest.fixture
def server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.both)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def works(client: a2v.AsyncA2V) -> bool:
    try:
        return len(await client.characters.list()) == 1
    except a2v.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error) or "set SSL_CERT_FILE" not in str(error):
            raise
        return False


@pytest.mark.anyio
@pytest.mark.parametrize("kept", [False, True], ids=["without context", "within its context"])
async def test_a_change_of_ssl_cert_file_is_noticed(server, certificate, tmp_path, monkeypatch, *, kept) -> None:
    trusted = tmp_path / "trusted.pem"
    client = a2v.AsyncA2V(CANARY, base_url=server, max_retries=0)
    if kept:
        await client.__aenter__()
    assert not await works(client)
    trusted.write_bytes(certificate.public)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert await works(client)
    assert await works(a2v.AsyncA2V(CANARY, base_url=server, max_retries=0))
    trusted.write_bytes(Certificate(tmp_path, "another").public + b"\n")
    assert not await works(a2v.AsyncA2V(CANARY, base_url=server, max_retries=0))
    monkeypatch.delenv("SSL_CERT_FILE")
    assert not await works(client)
    await client.aclose()


def test_a_package_that_replaces_the_class_of_tls_settings_is_noticed(monkeypatch) -> None:
    """As truststore does: what it injects counts from the next connection on."""
    before = network.current_trust()
    assert network.current_trust() == before
    monkeypatch.setattr(ssl, "SSLContext", type("SSLContext", (ssl.SSLContext,), {}))
    assert network.current_trust() != before


def test_a_change_of_ssl_cert_dir_is_noticed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    before = network.current_trust()
    (tmp_path / "0123abcd.0").touch()
    os.utime(tmp_path, (1, 1))
    assert network.current_trust() != before


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("value", ["/opt/conda/ssl/cacert.pem", "bad.pem", "\udcff"], ids=["missing", "damaged", "odd"])
def test_bad_certificates_do_not_matter_without_tls(tmp_path, monkeypatch, variable, value) -> None:
    (tmp_path / "bad.pem").write_text("this is no certificate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    with (
        testing.Service(poll_statuses=["finished"]).server() as server,
        a2v.A2V(CANARY, base_url=server.base_url) as client,
    ):
        task = client.videos.generate(model_id="eva_a0008", audio_url="https://example.com/a.wav")
        assert task.download(tmp_path / "video.mp4").read_bytes() == b"video of v1"


@pytest.mark.anyio
async def test_bad_certificates_are_named(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(a2v.ConfigurationError, match="SSL_CERT_FILE"):
        await a2v.AsyncA2V(CANARY, base_url=server).characters.list()


def test_the_tls_context_for_plain_http_trusts_no_certificate() -> None:
    """If they were ever used for TLS, nothing could be connected to."""
    context = anyio.run(network.ssl_context, None)
    assert (context.verify_mode, context.check_hostname, context.get_ca_certs()) == (ssl.CERT_REQUIRED, True, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of a fork while there are threads")
def test_a_child_that_is_forked_while_certificates_are_loaded(server, monkeypatch) -> None:
    """The lock that a thread of the parent holds is not the child's."""
    loading, go = threading.Event(), threading.Event()
    load = network._new_ssl_context

    def slowly(trust: network.Trust) -> ssl.SSLContext:
        loading.set()
        go.wait(30)
        return load(trust)

    monkeypatch.setattr(network, "_new_ssl_context", slowly)

    def call() -> None:
        with a2v.A2V(CANARY, base_url=server, max_retries=0) as client:
            try:
                client.characters.list()
            except a2v.TransportError:
                return
        os._exit(1)

    thread = threading.Thread(target=call)
    thread.start()
    assert loading.wait(30)
    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, [1]).start()
        go.set()
        call()
        os._exit(0)
    go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
