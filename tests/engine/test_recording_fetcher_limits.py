"""Slow servers, invalid hosts, and files that become links."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from contextlib import contextmanager

import anyio
import httpx
import pytest

from a2v.engine import LocalEngine, Settings, recording_fetcher
from a2v.engine.errors import AudioError, ResourceExhaustedError

pytestmark = pytest.mark.anyio
OPEN = Settings(allow_private_urls=True)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@contextmanager
def answering(*answers: bytes, every: float = 0.02):
    """A server that sends the given parts to each client, and then one byte per interval."""
    ended = threading.Event()

    def answer(sock: socket.socket) -> None:
        with sock:
            try:
                sock.recv(65536)
                for block in answers:
                    sock.sendall(block)
                while not ended.wait(every):
                    sock.sendall(b"x")
            except OSError:
                pass

    def accept() -> None:
        while not ended.is_set():
            sock, _ = listening.accept()
            thread = threading.Thread(target=answer, args=(sock,))
            threads.append(thread)
            thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.wav"
        finally:
            ended.set()
            socket.create_connection(listening.getsockname()).close()
            for thread in threads:
                thread.join()


async def refused(url: str, tmp_path, settings: Settings = OPEN) -> str:
    with anyio.fail_after(20), pytest.raises(AudioError) as caught:
        await recording_fetcher.fetch_recording(url, tmp_path / "audio", settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((), "does not respond"),
        ((b"HTTP/1.1 200 OK\r\nX-Slow: ",), "does not respond"),
        ((HEAD,), "less than 4 KiB in"),
        ((HEAD, b"x" * 50_000), "less than 4 KiB in"),
    ],
    ids=["nothing", "half a head", "a head", "half a body"],
)
async def test_a_server_that_sends_too_slowly_is_given_up(answers, said, tmp_path, monkeypatch):
    monkeypatch.setattr(recording_fetcher, "PROGRESS_SECONDS", 0.3)
    with answering(*answers) as url:
        assert said in await refused(url, tmp_path)


async def test_a_slow_server_is_waited_for(tmp_path, monkeypatch):
    """As long as it sends enough in each interval."""
    monkeypatch.setattr(recording_fetcher, "PROGRESS_SECONDS", 0.5)
    monkeypatch.setattr(recording_fetcher, "MIN_PROGRESS_BYTES", 4)
    with answering(HEAD.replace(b"100000", b"60")) as url, anyio.fail_after(20):
        await recording_fetcher.fetch_recording(url, tmp_path / "audio", OPEN)
    assert (tmp_path / "audio").read_bytes() == b"x" * 60


@pytest.mark.usefixtures("quick_renders")
async def test_ten_slow_servers_do_not_delay_a_good_recording(recordings, say, model_id, poll_until, monkeypatch):
    with answering(HEAD) as url:
        async with (
            LocalEngine(workers=1, allow_files=recordings, allow_private_urls=True) as engine,
            httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token}) as client,
        ):
            for audio_url in [url] * 10 + [say("hello")]:
                job = {"model_id": model_id, "audio_url": audio_url}
                last = (await client.post("/v1/a2v/video.generate", json=job)).json()["data"]["video_id"]
            assert (await poll_until(client, last, "finished"))["video_id"] == last


ODD_URLS = ["http://xn--a/", "http://xn--/", "http://a..b/", "http://" + "a" * 300 + "/", "http://xn--zz--zz/"]


@pytest.mark.parametrize("url", ODD_URLS)
async def test_an_invalid_host_is_an_error_of_the_url(url, tmp_path):
    assert (await refused(url, tmp_path)).startswith("audio_url")


ODD_REDIRECTS = [
    "https://://[\uff0e",
    "//[",
    "http://xn--a/",
    "http://[::1",
    "http://a\x7fb/",
    "http://\uff11.2/",
    "\\[",
]


@pytest.mark.parametrize("to", ODD_REDIRECTS)
async def test_an_invalid_host_in_a_redirect_is_an_error_of_the_url(to, tmp_path):
    location = f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
    with answering(location, every=60) as url:
        assert (await refused(url, tmp_path)).startswith("audio_url")


# -- file:// ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="makes links the POSIX way")
async def test_links_in_a_loop(folder, tmp_path):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    for name in ("a", "a/file.wav"):
        message = await refused((folder / name).as_uri(), tmp_path, Settings(allow_files=folder))
        assert message.startswith("audio_url: the file cannot be read")


@pytest.mark.skipif(sys.platform == "win32", reason="makes links the POSIX way")
@pytest.mark.parametrize("deep", [1, 3])
async def test_a_folder_that_becomes_a_link_while_it_is_opened_does_not_lead_out(folder, tmp_path, monkeypatch, deep):
    """Between resolving the path and opening it."""
    inner = folder.joinpath(*["inner"] * deep)
    inner.mkdir(parents=True)
    (inner / "file.wav").write_text("allowed")
    outside = tmp_path.joinpath("outside", *["inner"] * (deep - 1))
    outside.mkdir(parents=True)
    (outside / "file.wav").write_text("secret")
    resolve = recording_fetcher.Path.resolve

    def resolve_and_swap(path, **options):
        found = resolve(path, **options)
        if path.name == "file.wav":
            (folder / "inner").rename(folder / "was inner")
            (folder / "inner").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(recording_fetcher.Path, "resolve", resolve_and_swap)
    assert "cannot be read" in await refused((inner / "file.wav").as_uri(), tmp_path, Settings(allow_files=folder))
    assert not (tmp_path / "audio").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="makes links the POSIX way")
async def test_links_inside_an_allowed_folder_are_followed(folder, tmp_path):
    (folder / "real").mkdir()
    (folder / "real" / "file.wav").write_text("allowed")
    (folder / "link").symlink_to(folder / "real")
    for settings in (Settings(allow_files=folder), Settings(allow_files=folder / "real" / "file.wav")):
        await recording_fetcher.fetch_recording((folder / "link" / "file.wav").as_uri(), tmp_path / "audio", settings)
        assert (tmp_path / "audio").read_text() == "allowed"


# -- resource exhaustion -----------------------------------------------------------------------------------------------


@contextmanager
def no_descriptors():
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://localhost:9/", "http://no-such-host.invalid/", "file"])
async def test_running_out_of_descriptors_is_not_an_error_of_the_url(url, folder, tmp_path):
    (folder / "file.wav").write_text("allowed")
    url = (folder / "file.wav").as_uri() if url == "file" else url
    with no_descriptors(), pytest.raises((ResourceExhaustedError, OSError)) as caught:
        await recording_fetcher.fetch_recording(
            url, tmp_path / "audio", Settings(allow_private_urls=True, allow_files=folder)
        )
    assert isinstance(caught.value, ResourceExhaustedError) or caught.value.errno == errno.EMFILE
