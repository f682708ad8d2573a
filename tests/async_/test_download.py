"""Fetching videos: whole or not at all, without our token, through whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
import threading
from pathlib import Path

import anyio
import httpx
import pytest

import a2v
from a2v._async import destination
from tests.labels import label

from .conftest import closed_meanwhile

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

VIDEO = bytes(range(256)) * 1000
HALF = len(VIDEO) // 2


class Broken(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, *pieces: bytes, then: Exception | None = None) -> None:
        self.pieces = pieces
        self.then = then or httpx.ReadError("gone")

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece
        raise self.then


def whole(*_: object, **headers: str) -> httpx.Response:
    return httpx.Response(200, content=VIDEO, headers=headers)


def broken(upto: int, start: int = 0, status: int = 200, then: Exception | None = None, **headers: str):
    """The video from ``start``, breaking off at ``upto``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, headers=named, stream=Broken(VIDEO[start:upto], then=then))


def rest(request: httpx.Request, **headers: str) -> httpx.Response:
    """What a range asks for."""
    start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    span = f"bytes {start}-{len(VIDEO) - 1}/{len(VIDEO)}"
    return httpx.Response(206, content=VIDEO[start:], headers={"content-range": span} | headers)


ETAG = {"etag": '"abc"', "content_length": str(len(VIDEO))}


@pytest.fixture
def fetch(service, make_client, tmp_path, monkeypatch):
    """Downloads from a service that answers so; nothing but the video may be left in the folder."""
    service.plan = [(0, {"status": "finished", "video_url": "https://files.example/v.mp4?signature=s3cret"})]

    async def fetch(*replies, path: Path | None = None, overwrite: bool = False, **settings) -> bytes:
        service.replies["v.mp4"] = list(replies)
        path = path or tmp_path / "v.mp4"
        async with make_client(**settings) as client:
            try:
                assert await client.videos.task("v").download(path, overwrite=overwrite) == path
                return path.read_bytes()
            finally:
                assert not list(tmp_path.glob("**/*.part"))

    return fetch


async def fails(fetch, check, tmp_path, *replies, **settings) -> a2v.DownloadError:
    with pytest.raises(a2v.DownloadError) as caught:
        await fetch(*replies, **settings)
    check(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not (tmp_path / "v.mp4").exists()
    return caught.value


# -- when all goes well -----------------------------------------------------------------------------------------------


async def test_a_video(service, fetch) -> None:
    assert await fetch(whole) == VIDEO
    (request,) = service.seen("v.mp4")
    assert str(request.url) == "https://files.example/v.mp4?signature=s3cret"
    assert not {"authorization", "cookie", "range", "if-range"} & set(request.headers)
    assert request.headers["accept-encoding"] == "identity"


async def test_it_is_waited_for(service, fetch, make_client, tmp_path) -> None:
    service.plan = [(0, {}), (900, *service.plan[0][1:])]
    assert await fetch(whole, path=tmp_path / "folders" / "that are" / "made" / "v.mp4") == VIDEO
    async with make_client() as client:
        assert await client.videos.task("v").download(os.fspath(tmp_path / "w.mp4")) == tmp_path / "w.mp4"


async def test_a_failed_render_has_no_file(service, fetch, tmp_path) -> None:
    service.plan = [(0, {"status": "error"})]
    with pytest.raises(a2v.VideoFailedError):
        await fetch(whole)
    assert not list(tmp_path.iterdir())


async def test_a_body_of_unknown_length(fetch) -> None:
    async def pieces():
        for start in range(0, len(VIDEO), 1000):
            yield VIDEO[start : start + 1000]

    assert await fetch(lambda _: httpx.Response(200, content=pieces())) == VIDEO


async def test_the_token_stays_here(service, fetch) -> None:
    """Nor do cookies travel, not even between the requests for one file."""
    moved = httpx.Response(302, headers={"location": "https://other.example/w/v.mp4", "set-cookie": "a=b"})
    refresh = httpx.Response(403, headers={"set-cookie": "c=d"})
    await fetch(moved, refresh, broken(HALF, **ETAG, set_cookie="e=f"), rest)
    hosts = [request.url.host for request in service.seen("v.mp4")]
    assert hosts == ["files.example", "other.example", "files.example", "files.example"]
    for request in service.seen("v.mp4"):
        assert not {"authorization", "cookie"} & set(request.headers)


# -- resuming ---------------------------------------------------------------------------------------------------------


async def test_it_is_taken_up_where_it_broke_off(service, fetch) -> None:
    assert await fetch(broken(HALF, **ETAG), rest) == VIDEO
    first, second = service.seen("v.mp4")
    assert "range" not in first.headers
    assert (second.headers["range"], second.headers["if-range"]) == (f"bytes={HALF}-", '"abc"')


async def test_several_times(service, fetch) -> None:
    """Each try that gets further is a success: a long file over a bad line arrives."""
    size, step = len(VIDEO), len(VIDEO) // 20

    def piece(request: httpx.Request) -> httpx.Response:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        headers = {"etag": '"abc"', "content-length": str(size)}
        if start:
            headers = {"content-range": f"bytes {start}-{size - 1}/{size}"}
        return httpx.Response(206 if start else 200, headers=headers, stream=Broken(VIDEO[start : start + step]))

    assert await fetch(*[piece] * 19, rest) == VIDEO
    assert len(service.seen("v.mp4")) == 20


@pytest.mark.parametrize(
    "headers", [{}, {"etag": 'W/"abc"'}, {"etag": ""}, {"etag": '"a" "b"'}, {"last_modified": "x"}]
)
async def test_without_a_strong_etag_it_starts_again(service, fetch, headers) -> None:
    assert await fetch(broken(HALF, content_length=str(len(VIDEO)), **headers), whole) == VIDEO
    assert "range" not in service.seen("v.mp4")[1].headers


async def test_another_file_by_now(service, fetch) -> None:
    """The server answers If-Range with the whole new file, which is shorter and has nothing of the old."""
    assert await fetch(broken(HALF, **ETAG), httpx.Response(200, content=b"new", headers={"etag": '"n"'})) == b"new"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": "bytes"},
        {"content-range": f"bytes 0-{len(VIDEO) - 1}/{len(VIDEO)}"},
        {"content-range": f"bytes {HALF + 1}-{len(VIDEO) - 1}/{len(VIDEO)}"},
        {"content-range": f"bytes {HALF}-{len(VIDEO) - 2}/{len(VIDEO)}"},
        {"content-range": f"bytes {HALF}-{len(VIDEO) - 1}/*"},
        {"content-range": f"bytes {HALF}-{len(VIDEO)}/{len(VIDEO) + 1}"},
        {"content-range": f"bytes {HALF}-{len(VIDEO) - 1}/{len(VIDEO)}", "etag": '"other"'},
    ],
    ids=label,
)
async def test_a_part_that_does_not_fit(service, fetch, headers) -> None:
    wrong = httpx.Response(206, content=VIDEO[HALF:], headers=headers)
    assert await fetch(broken(HALF, **ETAG), wrong, whole) == VIDEO
    assert "range" not in service.seen("v.mp4")[2].headers


async def test_a_rest_that_is_short(fetch) -> None:
    assert await fetch(broken(HALF, **ETAG), broken(HALF + 10, HALF, 206, content_range=_span(HALF)), rest) == VIDEO
    assert await fetch(broken(HALF, **ETAG), _short_rest, rest, overwrite=True) == VIDEO


def _span(start: int) -> str:
    return f"bytes {start}-{len(VIDEO) - 1}/{len(VIDEO)}"


def _short_rest(request: httpx.Request) -> httpx.Response:
    return httpx.Response(206, content=VIDEO[HALF:-5], headers={"content-range": _span(HALF)})


async def test_a_body_of_unknown_length_that_breaks_off(service, fetch) -> None:
    """What came so far must not pass for the whole, even if the server then sends a part that does not fit."""
    assert await fetch(broken(HALF, etag='"abc"'), rest) == VIDEO
    wrong = httpx.Response(206, content=b"xyz", headers={"content-range": "bytes 7-9/10"})
    assert await fetch(broken(HALF, etag='"abc"'), wrong, whole, overwrite=True) == VIDEO
    assert await fetch(broken(HALF), wrong, whole, overwrite=True) == VIDEO


async def test_there_is_no_such_rest(fetch) -> None:
    assert await fetch(broken(HALF, **ETAG), httpx.Response(416), whole) == VIDEO


# -- what passes, and what does not -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError(""),
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(408),
        httpx.Response(429),
        httpx.Response(206, content=VIDEO),
        httpx.Response(503, content=gzip.compress(b"sorry"), headers={"content-encoding": "gzip"}),
        broken(0),
        broken(7),
        broken(HALF, then=httpx.ReadTimeout("")),
        httpx.Response(200, content=b""),
        lambda _: httpx.Response(200, stream=httpx.ByteStream(VIDEO[:9]), headers={"content-length": "99"}),
    ],
    ids=label,
)
async def test_transient_failures_are_retried(service, fetch, check, tmp_path, failure) -> None:
    assert await fetch(failure, failure, whole) == VIDEO
    (tmp_path / "v.mp4").unlink()
    service.requests.clear()
    await fails(fetch, check, tmp_path, failure, max_retries=2)
    assert 3 <= len(service.seen("v.mp4")) <= 4


async def test_a_server_that_breaks_off_now_here_now_there(service, fetch, check, tmp_path) -> None:
    """Without an ETag each try starts anew; that must come to an end."""
    await fails(fetch, check, tmp_path, *[broken(HALF), broken(10)] * 500, max_retries=3)
    assert len(service.seen("v.mp4")) < 10


@pytest.mark.parametrize("status", [204, 400, 405, 418, 451])
async def test_final_errors_are_not_retried(service, fetch, check, tmp_path, status) -> None:
    error = await fails(fetch, check, tmp_path, httpx.Response(status))
    assert str(status) in str(error)
    assert len(service.seen("v.mp4")) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_expired_url_is_renewed_once(service, fetch, check, tmp_path, status) -> None:
    plans = iter(["https://files.example/v.mp4?1", "https://files.example/v.mp4?2", "https://files.example/v.mp4?3"])

    def look(_: httpx.Request) -> httpx.Response:
        data = {"video_id": "v", "status": "finished", "video_url": next(plans)}
        return httpx.Response(200, json={"code": 0, "data": data})

    service.replies["video.get"] = [look]
    expired = httpx.Response(status, content=gzip.compress(b"<Error>"), headers={"content-encoding": "gzip"})
    assert await fetch(expired, whole) == VIDEO
    assert [request.url.query for request in service.seen("v.mp4")] == [b"1", b"2"]
    plans = iter(["https://files.example/v.mp4?1", "https://files.example/v.mp4?2"])
    (tmp_path / "v.mp4").unlink()
    await fails(fetch, check, tmp_path, expired)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_url_that_expires_half_way(service, fetch, status) -> None:
    assert await fetch(broken(HALF, **ETAG), httpx.Response(status), rest) == VIDEO
    assert service.seen("v.mp4")[2].headers["range"] == f"bytes={HALF}-"


async def test_no_fresh_url_to_be_had(service, fetch) -> None:
    finished = httpx.Response(
        200, json={"code": 0, "data": {"video_id": "v", "video_url": "https://files.example/v.mp4"}}
    )
    service.replies["video.get"] = [finished, httpx.Response(200, json={"code": 0, "data": {"video_id": "v"}})]
    with pytest.raises(a2v.ProtocolError, match="no URL"):
        await fetch(httpx.Response(403))
    service.replies["video.get"] = [finished, httpx.Response(401)]
    with pytest.raises(a2v.AuthenticationError):
        await fetch(httpx.Response(403))


# -- redirects --------------------------------------------------------------------------------------------------------


def to(location: str, status: int = 302) -> httpx.Response:
    return httpx.Response(status, headers={"location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(service, fetch, status) -> None:
    assert await fetch(to("/w/v.mp4", status), to("https://other.example/v.mp4?x=y"), whole) == VIDEO
    assert [str(request.url) for request in service.seen("v.mp4")[1:]] == [
        "https://files.example/w/v.mp4",
        "https://other.example/v.mp4?x=y",
    ]


async def test_redirects_without_end(service, fetch, check, tmp_path) -> None:
    error = await fails(fetch, check, tmp_path, to("https://files.example/v.mp4"))
    assert "redirects" in str(error)
    assert len(service.seen("v.mp4")) == 6


@pytest.mark.parametrize(
    "location", ["http://files.example/v.mp4", "file:///etc/passwd", "ftp://x/", "data:,x", "http://[::1", "//[::1"]
)
async def test_redirects_to_unsupported_urls_are_refused(service, fetch, check, tmp_path, location) -> None:
    await fails(fetch, check, tmp_path, to(location))
    assert len(service.seen("v.mp4")) == 1


async def test_plain_http_redirects_to_plain_http(service, fetch) -> None:
    service.plan = [(0, {"video_url": "http://files.example/v.mp4"})]
    assert await fetch(to("http://other.example/v.mp4"), whole) == VIDEO


@pytest.mark.parametrize("url", ["v.mp4", "https://h\x00st/v.mp4", "https://[::1/v.mp4", "https://h:port/v.mp4"])
async def test_urls_that_are_none(make_client, service, check, tmp_path, url) -> None:
    """Asked without the service in between, whose transport takes any URL."""
    looks = service.plan = [(0, {"video_url": url})]
    async with make_client() as client:
        video = await client.videos.get("v")
    assert video.video_url == looks[0][1]["video_url"]

    class Direct(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            if request.url.path.startswith("/v1/"):
                return await service(request)
            return await super().handle_async_request(request)

    async with make_client(transport=Direct(), max_retries=0) as client:
        with pytest.raises(a2v.DownloadError, match="could not be fetched") as caught:
            await client.videos.task("v").download(tmp_path / "v.mp4")
    check(caught.value)
    assert not list(tmp_path.iterdir())


# -- the disk ---------------------------------------------------------------------------------------------------------


async def test_an_existing_file_is_overwritten_only_on_request(service, fetch, tmp_path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"precious")
    with pytest.raises(a2v.DownloadError, match="overwrite=True"):
        await fetch(whole)
    assert not service.requests  # told before anything is waited for
    assert (tmp_path / "v.mp4").read_bytes() == b"precious"
    assert await fetch(whole, overwrite=True) == VIDEO


async def test_a_file_that_appears_meanwhile_is_not_overwritten(fetch, tmp_path) -> None:
    def appear(_: httpx.Request) -> httpx.Response:
        (tmp_path / "v.mp4").write_bytes(b"precious")
        return whole()

    with pytest.raises(a2v.DownloadError, match="appeared meanwhile"):
        await fetch(appear)
    assert (tmp_path / "v.mp4").read_bytes() == b"precious"
    assert await fetch(appear, overwrite=True) == VIDEO


async def test_the_final_name_never_holds_a_part(fetch, tmp_path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"precious")
    with pytest.raises(a2v.DownloadError):
        await fetch(broken(HALF), overwrite=True, max_retries=0)
    assert (tmp_path / "v.mp4").read_bytes() == b"precious"


async def test_a_folder_is_no_file(service, fetch, tmp_path) -> None:
    with pytest.raises(a2v.DownloadError, match="is a folder"):
        await fetch(whole, path=tmp_path)
    assert not service.requests


async def test_a_file_is_no_folder(service, fetch, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(a2v.DownloadError, match="could not be stored"):
        await fetch(whole, path=tmp_path / "file" / "v.mp4")
    assert not service.requests


async def test_a_name_that_is_too_long(service, fetch, tmp_path) -> None:
    with pytest.raises(a2v.DownloadError, match="too long"):
        await fetch(whole, path=tmp_path / ("x" * 300))
    assert not service.requests


async def test_a_folder_that_cannot_be_written(service, fetch, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(a2v.DownloadError, match="not writable"):
        await fetch(whole)
    assert not service.requests


async def test_a_folder_that_disappears(fetch, tmp_path) -> None:
    folder = tmp_path / "gone"

    def remove(_: httpx.Request) -> httpx.Response:
        for path in [*folder.iterdir(), folder]:
            path.rmdir() if path.is_dir() else path.unlink()
        return whole()

    with pytest.raises(a2v.DownloadError, match="could not be stored"):
        await fetch(remove, path=folder / "v.mp4")


async def test_a_full_disk(fetch, check, tmp_path) -> None:
    """No more than half of the file fits."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(_: httpx.Request) -> httpx.Response:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))
        return whole()

    try:
        error = await fails(fetch, check, tmp_path, limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be stored: File too large" in str(error)


async def test_a_disk_that_is_full_at_the_very_end(fetch, check, tmp_path) -> None:
    """What did not fit is still in the buffer when the file is closed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(_: httpx.Request) -> httpx.Response:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        return httpx.Response(200, content=b"x" * 100)

    try:
        error = await fails(fetch, check, tmp_path, limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be stored" in str(error)


async def test_it_is_on_the_disk_before_it_has_its_name(fetch, tmp_path, monkeypatch) -> None:
    """The file is synced under its other name, then the folder that holds the final one."""
    synced = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        synced.append((Path(f"/proc/self/fd/{fd}").readlink().suffix, (tmp_path / "v.mp4").exists()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)
    assert await fetch(whole) == VIDEO
    assert synced == [(".part", False), ("", True)]


async def test_where_a_folder_cannot_be_opened(fetch, monkeypatch) -> None:
    class Elsewhere:
        """The module ``os`` of a system that is not POSIX."""

        name = "nt"

        def open(self, path: str, *args: int) -> int:
            assert not Path(path).is_dir()
            return os.open(path, *args)

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

    monkeypatch.setattr(destination, "os", Elsewhere())
    assert await fetch(whole) == VIDEO


# -- cancelled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_cancelled_while_a_slow_disk_opens_the_file(service, make_client, tmp_path, monkeypatch, moment) -> None:
    """Asyncio's own cancellation, such as that of a time-out, leaves the thread at work: nothing of it stays."""
    begun, go, through = threading.Event(), threading.Event(), threading.Event()
    really = destination.PartialFile.open

    def slowly(*args) -> object:
        begun.set()
        try:
            if moment == "before":
                go.wait(1)
            return really(*args)
        finally:
            if moment == "after":
                go.wait(1)
            through.set()

    monkeypatch.setattr(destination.PartialFile, "open", slowly)

    async def main() -> None:
        async with make_client() as client:
            fetching = asyncio.create_task(client.videos.task("v1").download(tmp_path / "v.mp4"))
            while not begun.is_set():  # noqa: ASYNC110  # no event reaches over from the other thread
                await asyncio.sleep(0.001)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            go.set()
            assert through.wait(20)

    service.plan = [(0, {"status": "finished", "video_url": "https://files.example/v.mp4"})]
    asyncio.run(main())
    assert not list(tmp_path.iterdir())


async def test_cancelled_in_the_middle(service, make_client, tmp_path) -> None:
    service.plan = [(0, {"video_url": "https://files.example/v.mp4"})]

    class Stalling(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield VIDEO[:HALF]
            assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
            await anyio.sleep_forever()

    service.replies["v.mp4"] = [lambda _: httpx.Response(200, stream=Stalling())]
    async with make_client() as client:
        with anyio.move_on_after(10) as scope:
            await client.videos.task("v").download(tmp_path / "v.mp4")
        assert scope.cancelled_caught
        assert not list(tmp_path.iterdir())
        service.replies["v.mp4"] = [whole]
        await client.videos.task("v").download(tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == VIDEO


async def test_the_client_is_closed_in_the_middle(service, make_client, tmp_path, check) -> None:
    service.plan = [(0, {"video_url": "https://files.example/v.mp4"})]
    service.replies["v.mp4"] = [lambda _: anyio.sleep_forever()]
    async with make_client() as client, closed_meanwhile(client):
        with pytest.raises(a2v.ClientClosedError) as caught:
            await client.videos.task("v").download(tmp_path / "v.mp4")
    check(caught.value)
    assert not list(tmp_path.iterdir())
