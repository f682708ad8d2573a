"""An engine with a certificate of its own."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import ExitStack

import anyio
import anyio.lowlevel
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import a2v
from a2v.engine import LocalEngine, Settings, http_connections, server, tls
from a2v.errors import ConfigurationError
from tests.certificates import HOUR, Certificate


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def certificate(tmp_path):
    return Certificate(tmp_path, "ours")


def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificate.public.decode())


def port_of(engine: LocalEngine) -> int:
    return int(engine.base_url.rpartition(":")[2])


async def is_served(engine: LocalEngine, certificate: Certificate) -> bool:
    """Whether the engine responds with the given certificate."""
    async with httpx.AsyncClient(verify=trusting(certificate)) as client:
        return (await client.get(f"{engine.base_url}/health")).status_code == 200


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    with anyio.fail_after(20):
        while text not in caplog.text:  # noqa: ASYNC110  # another thread logs it
            await anyio.sleep(0.01)


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_renders")
async def test_a_video_over_https(recordings, say, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    async with (
        LocalEngine(allow_files=recordings, tls_cert=certificate.cert, tls_key=certificate.key) as engine,
        a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client,
    ):
        assert engine.base_url.startswith("https://127.0.0.1:")
        task = await client.videos.generate(model_id="eva_a0008", audio_url=say("hello"))
        video = await task.wait()
        assert video.video_url.startswith(engine.base_url)
        assert (await task.download(tmp_path / "hello.mp4")).read_text() == "eva_a0008 --size 512: hello"
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(a2v.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            await a2v.AsyncA2V(engine.token, base_url=engine.base_url, max_retries=0).characters.list()


@pytest.mark.anyio
async def test_a_client_that_completes_no_handshake_delays_no_other(certificate, monkeypatch):
    monkeypatch.setattr(http_connections, "HEAD_SECONDS", 0.3)
    async with LocalEngine(tls_cert=certificate.both, tls_key=certificate.both) as engine:
        with ExitStack() as opened:
            silent = [opened.enter_context(socket.create_connection(("127.0.0.1", port_of(engine)))) for _ in range(20)]
            silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert await is_served(engine, certificate)
            for sock in silent:  # each is closed in the end
                sock.settimeout(20)
                while await anyio.to_thread.run_sync(sock.recv, 1024):
                    pass


@pytest.mark.anyio
async def test_handshakes_count_as_connections(certificate, monkeypatch):
    full, served = anyio.Event(), anyio.Event()
    event_loop = anyio.lowlevel.current_token().native_token
    make_room = http_connections._make_room

    def observed(*arguments):
        event_loop.call_soon_threadsafe(full.set)
        return make_room(*arguments)

    monkeypatch.setattr(http_connections, "_make_room", observed)
    monkeypatch.setattr(server, "max_connections", lambda _: 2)
    async with LocalEngine(tls_cert=certificate.cert, tls_key=certificate.key) as engine:

        async def ask() -> None:
            assert await is_served(engine, certificate)
            served.set()

        with ExitStack() as opened:
            silent = [opened.enter_context(socket.create_connection(("127.0.0.1", port_of(engine)))) for _ in range(2)]
            with anyio.fail_after(20):
                await full.wait()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    await anyio.wait_all_tasks_blocked()
                    assert not served.is_set()
                    silent[0].close()
                    await served.wait()


@pytest.mark.anyio
async def test_a_renewed_certificate_is_used_without_a_restart(certificate, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tls, "RELOAD_SECONDS", 0.01)
    caplog.set_level("INFO", "a2v.engine")
    old, new = certificate, Certificate(tmp_path, "new")
    async with LocalEngine(tls_cert=old.cert, tls_key=old.key) as engine:
        old.cert.write_bytes(new.public)
        await until_logged(caplog, "the new certificate is not used")
        assert "is not the key of" in caplog.text
        assert await is_served(engine, old)
        old.key.write_bytes(new.private)
        await until_logged(caplog, "the new certificate is in use")
        assert await is_served(engine, new)


def test_a_file_that_is_removed_while_it_is_loaded_is_reported(certificate, monkeypatch):
    read = tls._read_pem

    def read_then_remove(name, path, **options):
        content = read(name, path, **options)
        if name == "tls_key":
            path.unlink()
        return content

    monkeypatch.setattr(tls, "_read_pem", read_then_remove)
    with pytest.raises(ConfigurationError, match=r"^tls_cert, tls_key: .* cannot be read: No such file"):
        tls.load(Settings(tls_cert=certificate.cert, tls_key=certificate.key))


def _other(tmp_path, _):
    return {"tls_key": Certificate(tmp_path, "other").key}


def _made(tmp_path, **options):
    made = Certificate(tmp_path, "made", **options)
    return {"tls_cert": made.cert, "tls_key": made.key}


def _file(tmp_path, content: bytes):
    path = tmp_path / "file.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def _pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def _open_to(mode: int):
    def prepare(_, certificate):
        certificate.key.chmod(mode)
        os.chown(certificate.key, 12345 if mode == 0o640 else -1, -1)
        return {}

    return prepare


_TRADITIONAL = (serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"secret"))
UNUSABLE = {
    "key without certificate": (lambda *_: {"tls_cert": None}, "tls_key needs tls_cert (--tls-cert)"),
    "certificate without key": (lambda *_: {"tls_key": None}, "tls_cert needs tls_key (--tls-key)"),
    "another key": (_other, "is not the key of the first certificate"),
    "expired": (lambda path, _: _made(path, ends=-HOUR), "certificate has expired: renew it"),
    "not yet valid": (lambda path, _: _made(path, begins=HOUR), "not yet valid: check this machine's clock"),
    "for clients": (
        lambda path, _: _made(path, usage=x509.ExtendedKeyUsageOID.CLIENT_AUTH),
        "it must be a certificate for a server",
    ),
    "encrypted": (lambda path, _: _made(path, passphrase=b"secret"), "is encrypted, and the engine cannot ask"),
    "encrypted, traditional": (
        lambda path, ours: {"tls_key": _file(path, ours.key_as(*_TRADITIONAL))},
        "openssl pkey -in",
    ),
    "no certificate file": (lambda path, _: {"tls_cert": path / "no.pem"}, "no.pem cannot be read: No such file"),
    "no key file": (lambda path, _: {"tls_key": path / "no.pem"}, "no.pem cannot be read: No such file"),
    "a folder": (lambda path, _: {"tls_cert": path}, "is a folder"),
    "a pipe": (lambda path, _: {"tls_key": _pipe(path)}, "is not a file"),
    "DER": (lambda path, ours: {"tls_cert": _file(path, ours.der)}, "openssl x509 -inform der"),
    "swapped": (lambda _, ours: {"tls_cert": ours.key, "tls_key": ours.cert}, "pass it as tls_key"),
    "key is a certificate": (lambda _, ours: {"tls_key": _file(ours.key.parent, ours.public)}, "no private key"),
    "text": (lambda path, _: {"tls_cert": _file(path, b"hello")}, "contains no certificate in PEM format"),
    "damaged": (
        lambda path, ours: {"tls_cert": _file(path, ours.public[:90] + b"!" + ours.public[90:])},
        "cannot be used",
    ),
    "damaged key": (
        lambda path, ours: {"tls_key": _file(path, ours.private[:90] + b"!" + ours.private[90:])},
        "cannot be used",
    ),
    "key open to others": (_open_to(0o644), "run chmod 600"),
    "key of another user, open to a group": (_open_to(0o640), "run chmod 600"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", UNUSABLE)
async def test_files_that_cannot_be_used_are_refused_before_the_start(what, certificate, tmp_path):
    prepare, said = UNUSABLE[what]
    if what == "key of another user, open to a group" and os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    options = {"tls_cert": certificate.cert, "tls_key": certificate.key} | prepare(tmp_path, certificate)
    with pytest.raises(ConfigurationError) as refused:
        async with LocalEngine(data_dir=tmp_path / "data", **options):
            pass
    assert said in str(refused.value)
    assert "tls_" in str(refused.value)
    assert "cannot be read" not in str(refused.value) or "run chmod" not in said
    assert not (tmp_path / "data").exists()
    assert certificate.private.decode() not in repr(refused.value)


@pytest.mark.anyio
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs a key that root owns")
async def test_a_group_may_read_a_key_that_root_owns(certificate):
    """As with Debian's group ssl-cert, and PostgreSQL's rule."""
    certificate.key.chmod(0o640)
    async with LocalEngine(tls_cert=certificate.cert, tls_key=certificate.key) as engine:
        assert await is_served(engine, certificate)
