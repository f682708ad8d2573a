"""An engine behind the proxies of docs/team.md, with the configurations that are shown there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

import a2v
from a2v.engine import LocalEngine
from tests.certificates import Certificate

PAGE = (Path(__file__).parents[2] / "docs/team.md").read_text()
PROGRAMS = {"Caddyfile": shutil.which("caddy"), "nginx.conf": shutil.which("nginx") or shutil.which("/usr/sbin/nginx")}
NAME = "engine.example"
MIB = 1024 * 1024

pytestmark = [
    pytest.mark.extended,
    pytest.mark.parametrize(
        "proxy",
        [
            pytest.param(name, marks=pytest.mark.skipif(not program, reason=f"needs {name.partition('.')[0].lower()}"))
            for name, program in PROGRAMS.items()
        ],
        indirect=True,
    ),
]


def shown(title: str) -> str:
    """A configuration of the page."""
    return re.search(rf'^```text title="{title}"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE)[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def caddy(folder: Path, certificate: Certificate, port: int) -> tuple[str, list[str]]:
    config = shown("Caddyfile").replace(
        "engine.example.com {", f"https://{NAME}:{port} {{\n    tls {certificate.cert} {certificate.key}"
    )
    return "{\n    admin off\n    auto_https off\n}\n" + config, ["run", "--adapter", "caddyfile", "--config"]


def nginx(folder: Path, certificate: Certificate, port: int) -> tuple[str, list[str]]:
    config = shown("nginx.conf").replace("listen 443", f"listen 127.0.0.1:{port}").replace("engine.example.com", NAME)
    config = config.replace("fullchain.pem", str(certificate.cert)).replace("privkey.pem", str(certificate.key))
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = f"daemon off;\npid {folder}/pid;\nerror_log {folder}/log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{config}}}\n"
    return config, ["-e", f"{folder}/log", "-c"]


@contextmanager
def running(name: str, folder: Path, certificate: Certificate, upstream: int):
    port = free_port()
    config, arguments = {"Caddyfile": caddy, "nginx.conf": nginx}[name](folder, certificate, port)
    (folder / name).write_text(config.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}"))
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "output").open("wb") as output:
        command = [PROGRAMS[name], *arguments, str(folder / name)]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert process.poll() is None, (folder / "output").read_text()
        yield port
    finally:
        process.terminate()
        process.wait()


class Resolved:
    """A transport that finds the name of the engine on this machine."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate

    def getaddrinfo(self, host, port, *others, **options):
        host = "127.0.0.1" if host in (NAME, NAME.encode()) else host
        return ORIGINAL(host, port, *others, **options)


ORIGINAL = socket.getaddrinfo


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def engine(quick_renders, recordings, data_dir):
    async with LocalEngine(
        data_dir=data_dir, token="team-token", allow_files=recordings, allowed_hosts=[NAME]
    ) as running:
        yield running


@pytest.fixture
def proxy(request, engine, tmp_path, monkeypatch):
    """The URL of the proxy in front of the engine."""
    certificate = Certificate(tmp_path, "ours")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    monkeypatch.setattr(socket, "getaddrinfo", Resolved(certificate).getaddrinfo)
    folder = tmp_path / "proxy"
    folder.mkdir()
    with running(request.param, folder, certificate, int(engine.base_url.rpartition(":")[2])) as port:
        yield f"https://{NAME}:{port}"


@pytest.fixture
async def client(proxy):
    async with a2v.AsyncA2V("team-token", base_url=proxy) as client:
        yield client


def browser(proxy: str) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    return httpx.AsyncClient(base_url=proxy, verify=context, trust_env=False)


@pytest.mark.anyio
async def test_videos_are_made_and_saved(client, proxy, say, tmp_path):
    assert (await client.characters.list())[0].preview_url.startswith(f"{proxy}/previews/")
    task = await client.videos.generate(model_id="eva_a0008", audio_url=say("hello"))
    video = await task.wait()
    assert video.video_url == f"{proxy}/files/{video.video_id}.mp4"
    assert (await task.download(tmp_path / "video.mp4")).read_text() == "eva_a0008 --size 512: hello"


@pytest.mark.anyio
async def test_parts_of_long_videos(client, proxy, say, data_dir, tmp_path):
    task = await client.videos.generate(model_id="eva_a0008", audio_url=say("hello"))
    video = await task.wait()
    with (data_dir / "videos" / f"{video.video_id}.mp4").open("wb") as file:
        file.write(b"\0\0\0\x20ftypisom")
        file.seek(300 * MIB)
        file.write(b"the end")
    async with browser(proxy) as http:
        part = await http.get(video.video_url, headers={"Range": "bytes=-7"})
        assert (part.status_code, part.content) == (206, b"the end")
        assert part.headers["content-range"] == f"bytes {300 * MIB}-{300 * MIB + 6}/{300 * MIB + 7}"
    path = await task.download(tmp_path / "video.mp4")
    assert path.stat().st_size == 300 * MIB + 7


@pytest.mark.anyio
async def test_the_page_asks_for_the_token_whatever_the_browser_claims(proxy):
    async with browser(proxy) as http:
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}):
            assert (await http.get("/", headers=headers)).status_code == 401
        assert (await http.get("/", auth=("anyone", "team-token"))).status_code == 200
        other = await http.get("/", auth=("anyone", "team-token"), headers={"Host": "other.example"})
        # nginx passes every name on, Caddy has nothing at that of others.
        assert other.status_code == 421 or other.content == b""


@pytest.mark.anyio
async def test_large_recordings_are_uploaded(client, proxy, tmp_path, data_dir):
    recording = tmp_path / "long.wav"
    with recording.open("wb") as file:
        file.truncate(100 * MIB)
    audio_url = await client.upload(recording)
    (stored,) = (data_dir / "uploads").iterdir()
    assert (audio_url, stored.stat().st_size) == (f"upload://{stored.name}", 100 * MIB)
    # The page's own upload, too, with the password of the browser.
    async with browser(proxy) as http:
        sent = await http.post("/page/uploads", content=b"hello", auth=("", "team-token"), headers={"Origin": proxy})
        assert sent.status_code == 200


@pytest.mark.anyio
async def test_the_page_follows_changes_at_once(client, proxy, say):
    async with browser(proxy) as http:
        http.auth = ("", "team-token")
        version = (await http.get("/page/videos")).json()["data"]["version"]
        states = []

        async def wait() -> None:
            states.append((await http.get("/page/videos", params={"version": version}, timeout=60)).json()["data"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await client.videos.generate(model_id="eva_a0008", audio_url=say("hello"))
    assert len(states[0]["cards"]) == 1
