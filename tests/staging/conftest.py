"""Servers that do what an S3 server seldom does, in the way of a real one."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest


@pytest.fixture
def recording(tmp_path):
    """Make a file: ``recording("hello.wav", b"hello")``."""

    def make(name: str = "speech.wav", content: bytes = b"speech"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def refuse(bucket, monkeypatch) -> Iterator[Callable[..., None]]:
    """Let the store be one that refuses: ``refuse(403, "AccessDenied")``; without a code it takes what it does not show."""
    said = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>%b</Code><StringToSign>canary</StringToSign></Error>" % said["code"].encode()
            self.answer(body, said["status"] if said["code"] else 200)

        def do_HEAD(self):
            self.answer(b"", said["status"])

        def answer(self, body, status):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield lambda status, code: said.update(status=status, code=code)
        server.shutdown()
        thread.join()


class Blobs(ThreadingHTTPServer):
    """Keeps what is put: what all stores have in common."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BlobHandler)
        self.objects: dict[str, bytes] = {}
        self.guarded: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class BlobHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Blobs

    def do_PUT(self):
        self.server.objects[self.name] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201)

    def do_GET(self):
        body = self.server.objects.get(self.name)
        self.answer(404 if body is None else 200, body or b"")

    def do_HEAD(self):
        self.do_GET()

    def do_DELETE(self):
        if self.name in self.server.guarded:
            return self.answer(403)
        return self.answer(404 if self.server.objects.pop(self.name, None) is None else 202)

    def do_POST(self):
        """What Azure calls a batch: requests in the parts of a request, answered alike."""
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = []
        for path in re.findall(r"^DELETE (\S+) HTTP", asked, re.MULTILINE):
            found = self.server.objects.pop(unquote(urlsplit(path).path), None)
            head = f"--b\r\nContent-Type: application/http\r\nContent-ID: {len(parts)}\r\n\r\n"
            parts.append(f"{head}HTTP/1.1 {'404 Not Found' if found is None else '202 Accepted'}\r\n\r\n")
        self.answer(202, "".join([*parts, "--b--\r\n"]).encode(), "multipart/mixed; boundary=b")

    @property
    def name(self):
        return unquote(urlsplit(self.path).path)

    def answer(self, status, body=b"", kind="audio/x-wav"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Tue, 24 Nov 2026 09:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def blobs(bucket) -> Iterator[Blobs]:
    with Blobs() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Gate:
    """Stands before a server. Of what it lets through it stops after so many bytes, until it is opened."""

    def __init__(self, server: str, room: int) -> None:
        self._server = urlsplit(server)
        self._room = room
        self._lock = threading.Lock()
        self.is_full = threading.Event()
        self.opened = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._server.hostname, self._server.port))
                threading.Thread(target=self._pump, args=(client, server, self._pass), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, lambda _: None), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, count: Callable[[int], None]) -> None:
        with suppress(OSError), source:
            while data := source.recv(1 << 16):
                count(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _pass(self, size: int) -> None:
        with self._lock:
            self._room -= size
            full = self._room < 0
        if full:
            self.is_full.set()
            self.opened.wait(60)

    def close(self) -> None:
        self.opened.set()
        self._listener.close()


@pytest.fixture
def gate(bucket, monkeypatch) -> Iterator[Gate]:
    """The bucket's server takes 10 MiB, and then nothing until the gate is opened."""
    gate = Gate(bucket.endpoint, 10 << 20)
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    yield gate
    gate.close()
