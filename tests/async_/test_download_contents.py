"""Downloads trust bytes rather than headers, continue as long as they make progress, and respect the size limit."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

VIDEO = b"\0\0\0\x20ftypisom" + random.Random(7).randbytes(200_000)
SIZE, HALF = len(VIDEO), len(VIDEO) // 2
TAGGED = {"etag": '"abc"', "content-length": str(SIZE)}
PAGE = httpx.Response(200, content=b"<html>log in</html>", headers={"content-type": "text/html"})


class Cut(httpx.AsyncByteStream):
    """A body after which the connection breaks."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self):
        yield self.body
        raise httpx.ReadError("gone")


def cut(upto: int, **headers: str):
    return lambda _: httpx.Response(200, headers=TAGGED | headers, stream=Cut(VIDEO[:upto]))


def rest(request: httpx.Request, upto: int = SIZE, **headers: str) -> httpx.Response:
    """What a range asks for, or as much of it as comes."""
    start = int(request.headers["range"][6:-1])
    span = {"etag": '"abc"', "content-range": f"bytes {start}-{SIZE - 1}/{SIZE}"}
    stream = httpx.ByteStream(VIDEO[start:]) if upto == SIZE else Cut(VIDEO[start:upto])
    return httpx.Response(206, headers=span | headers, stream=stream)


def whole(*_: object) -> httpx.Response:
    return httpx.Response(200, content=VIDEO, headers=TAGGED)


@pytest.fixture
def fetch(service, make_client, tmp_path):
    """Download a finished video from a service that answers so. Nothing is left in the folder but the video."""
    service.plan = [(0, {"status": "finished", "video_url": "https://files.example/v.mp4?signature=s3cret"})]

    async def fetch(*replies: object, **settings: object) -> bytes:
        service.replies["v.mp4"] = list(replies)
        path = tmp_path / "v.mp4"
        async with make_client(**settings) as client:
            try:
                await client.videos.task("v").download(path, overwrite=True)
                return path.read_bytes()
            finally:
                assert {each.name for each in tmp_path.iterdir()} <= {"v.mp4"}

    return fetch


def ranges(service) -> list[str | None]:
    return [request.headers.get("range") for request in service.seen("v.mp4")]


# -- what comes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["aws-chunked", "", "UTF-8", "binary", "none", "Identity", "identity, aws-chunked"]
)
async def test_odd_encodings_of_plain_bytes(service, fetch, encoding) -> None:
    """Also of the rest, after the connection broke."""
    odd = {"content-encoding": encoding}
    assert await fetch(cut(HALF, **odd), lambda request: rest(request, **odd)) == VIDEO
    assert ranges(service) == [None, f"bytes={HALF}-"]


async def test_plain_bytes_that_are_labelled_as_compressed(service, fetch) -> None:
    odd = {"content-encoding": "gzip"}
    assert await fetch(cut(HALF, **odd), lambda request: rest(request, **odd)) == VIDEO
    assert ranges(service) == [None, f"bytes={HALF}-"]


async def test_a_rest_that_is_compressed_is_no_rest(service, fetch) -> None:
    assert await fetch(cut(HALF), lambda request: rest(request, **{"content-encoding": "gzip"}), whole) == VIDEO
    assert ranges(service) == [None, f"bytes={HALF}-", None]


async def test_a_compressed_video_is_decompressed(service, fetch) -> None:
    """It is not resumed, as a place in the video is none in the compressed body."""
    packed = gzip.compress(VIDEO)
    headers = {"content-encoding": "gzip", "etag": '"z"', "content-length": str(len(packed))}
    broken = lambda _: httpx.Response(200, headers=headers, stream=Cut(packed[:HALF]))  # noqa: E731
    assert await fetch(broken, httpx.Response(200, headers=headers, content=packed)) == VIDEO
    assert ranges(service) == [None, None]


async def test_a_compressed_video_that_is_cut_without_a_word(fetch, tmp_path) -> None:
    packed = httpx.Response(200, headers={"content-encoding": "gzip"}, content=gzip.compress(VIDEO)[:-20])
    with pytest.raises(a2v.DownloadError, match="broke off"):
        await fetch(packed, max_retries=1)
    assert not list(tmp_path.iterdir())


async def test_an_unsupported_compression_error_names_the_url_field(service, fetch, check) -> None:
    with pytest.raises(a2v.DownloadError, match=r"compressed with br.*video_url.*curl") as caught:
        await fetch(httpx.Response(200, headers={"content-encoding": "br"}, content=VIDEO[50:]))
    check(caught.value)
    assert len(service.seen("v.mp4")) == 1


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML", "application/json", "text/plain"])
async def test_a_video_with_the_wrong_type(fetch, content_type) -> None:
    assert await fetch(httpx.Response(200, headers={"content-type": content_type}, content=VIDEO)) == VIDEO


@pytest.mark.parametrize("content_type", ["video/mp4", "application/octet-stream", "TEXT/HTML", "application/json", ""])
@pytest.mark.parametrize("body", [b"<html>log in</html>", b"<Error/>", b'{"code": 5}', b"<html>" + b"x" * 9000])
async def test_a_document_is_not_saved(fetch, check, tmp_path, content_type, body) -> None:
    page = httpx.Response(200, headers={"content-type": content_type}, content=body)
    assert await fetch(page, whole) == VIDEO
    (tmp_path / "v.mp4").unlink()
    with pytest.raises(a2v.DownloadError, match="document") as caught:
        await fetch(page, max_retries=1)
    check(caught.value)
    assert type(caught.value) is a2v.DownloadError
    assert not list(tmp_path.iterdir())


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"<html>" + b"x" * 9000, b"", b'{"code": 5}'])
async def test_an_error_page_keeps_the_partial_file(service, fetch, body) -> None:
    page = httpx.Response(200, content=body, headers={"content-type": "text/html", "etag": '"page"'})
    assert await fetch(cut(HALF), page, page, rest) == VIDEO
    assert ranges(service) == [None, *[f"bytes={HALF}-"] * 3]


async def test_a_response_that_breaks_within_its_first_bytes(service, fetch) -> None:
    broken = lambda _: httpx.Response(200, headers={"etag": '"abc"'}, stream=Cut(VIDEO[:100]))  # noqa: E731
    assert await fetch(cut(HALF), broken, rest) == VIDEO
    assert ranges(service) == [None, *[f"bytes={HALF}-"] * 2]


async def test_a_url_may_expire_as_often_as_it_likes(service, fetch) -> None:
    """As long as the download gets further; each try may ask for a new URL once."""
    step, replies = SIZE // 8, [cut(SIZE // 8)]
    for turn in range(2, 9):
        upto = SIZE if turn == 8 else turn * step
        replies += [httpx.Response(403), lambda request, upto=upto: rest(request, upto)]
    assert await fetch(*replies, max_retries=1) == VIDEO
    assert len(service.seen("video.get")) == 8


async def test_redirects_do_not_add_up(service, fetch) -> None:
    """Each fresh URL redirects to the store, in a download that breaks off often."""
    step, replies = SIZE // 8, [httpx.Response(302, headers={"location": "/w/v.mp4"}), cut(SIZE // 8)]
    for turn in range(2, 9):
        upto = SIZE if turn == 8 else turn * step
        replies += [httpx.Response(403), httpx.Response(302, headers={"location": "/w/v.mp4"})]
        replies += [lambda request, upto=upto: rest(request, upto)]
    assert await fetch(*replies, max_retries=1) == VIDEO


async def test_a_url_that_stays_expired_is_given_up(service, fetch, tmp_path) -> None:
    with pytest.raises(a2v.DownloadError, match="HTTP 403"):
        await fetch(cut(HALF), httpx.Response(403))
    assert len(service.seen("video.get")) == 2
    assert not list(tmp_path.iterdir())


ODD_TAGS = ['"caf\xe9"', '"a b"', '"a\x01b"', '"\u20ac"', 'W/"abc"', '"a" "b"', "abc", '""', f'"{"x" * 5000}"']


@pytest.mark.parametrize("tag", ODD_TAGS, ids=ascii)
async def test_odd_etags_are_not_sent(service, fetch, tag) -> None:
    headers = [(b"etag", tag.encode()), (b"content-length", str(SIZE).encode())]
    assert await fetch(lambda _: httpx.Response(200, headers=headers, stream=Cut(VIDEO[:HALF])), whole) == VIDEO
    assert ranges(service) == [None, None]


# -- lengths ----------------------------------------------------------------------------------------------------------


async def test_a_file_longer_than_announced_is_fetched_again(service, fetch) -> None:
    longer = httpx.Response(200, headers=TAGGED, stream=httpx.ByteStream(VIDEO + b"more"))
    assert await fetch(lambda _: longer, whole) == VIDEO
    assert ranges(service) == [None, None]


@pytest.mark.parametrize("length", ["", "abc", "-5", "9" * 5000, "\u0665"])
async def test_lengths_that_are_none(fetch, length) -> None:
    headers = [(b"content-length", length.encode())]
    assert await fetch(lambda _: httpx.Response(200, headers=headers, stream=httpx.ByteStream(VIDEO))) == VIDEO


async def test_a_connection_that_ends_early_without_a_word(service, fetch, tmp_path) -> None:
    """There is no length, so the end of the connection is that of the file; the boxes of an MP4 tell."""
    mp4 = b"\0\0\0\x0cftypisom" + b"\0\0\0\x08moov" + (8 + SIZE).to_bytes(4) + b"mdat" + VIDEO

    def ended(upto: int):
        return lambda _: httpx.Response(200, headers={"etag": '"m"'}, stream=httpx.ByteStream(mp4[:upto]))

    span = {"content-range": f"bytes {HALF}-{len(mp4) - 1}/{len(mp4)}"}
    assert await fetch(ended(HALF), ended(len(mp4))) == mp4
    assert await fetch(ended(HALF), httpx.Response(206, headers=span, content=mp4[HALF:])) == mp4
    (tmp_path / "v.mp4").unlink()
    with pytest.raises(a2v.DownloadError, match="broke off"):
        await fetch(ended(HALF), max_retries=1)


async def test_a_length_beyond_the_limit_is_refused_at_once(service, fetch, check, tmp_path) -> None:
    class Untouched(httpx.AsyncByteStream):
        async def __aiter__(self):
            raise AssertionError("the body was read")
            yield b""

    large = lambda _: httpx.Response(200, headers={"content-length": str(2 * 1024**3 + 1)}, stream=Untouched())  # noqa: E731
    with pytest.raises(a2v.DownloadError, match=r"larger than 2147483648 bytes.*max_download_bytes") as caught:
        await fetch(large)
    check(caught.value)
    assert len(service.seen("v.mp4")) == 1
    assert not list(tmp_path.iterdir())


async def test_a_body_without_end(service, fetch, tmp_path) -> None:
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 65_536
            yield b"\0\0\0\x20ftyp" + bytes(65_528)
            await anyio.lowlevel.checkpoint()

    with pytest.raises(a2v.DownloadError, match="larger than 1000000 bytes"):
        await fetch(lambda _: httpx.Response(200, content=endless()), max_download_bytes=1_000_000)
    assert sent < 1_200_000
    assert not list(tmp_path.iterdir())


def test_a_body_without_end_or_checkpoint(service, make_client, tmp_path) -> None:
    """Of a transport that never lets a cancellation in."""

    async def endless():
        while True:
            yield bytes(10_000)

    async def main() -> None:
        async with make_client(max_download_bytes=100_000) as client:
            await client.videos.task("v").download(tmp_path / "v.mp4")

    service.plan = [(0, {"status": "finished", "video_url": "https://files.example/v.mp4"})]
    service.replies["v.mp4"] = [lambda _: httpx.Response(200, content=endless())]
    with pytest.raises(a2v.DownloadError, match="larger than 100000 bytes"):
        anyio.run(main)
    assert not list(tmp_path.iterdir())


async def test_much_from_a_small_body(fetch, tmp_path) -> None:
    bomb = gzip.compress(VIDEO + bytes(50_000_000))
    with pytest.raises(a2v.DownloadError, match="larger than"):
        await fetch(httpx.Response(200, content=bomb), max_download_bytes=1_000_000)
    assert not list(tmp_path.iterdir())


async def test_a_file_of_exactly_the_limit_is_saved(fetch) -> None:
    assert await fetch(whole, max_download_bytes=SIZE) == VIDEO
    assert await fetch(whole, max_download_bytes=None) == VIDEO
    with pytest.raises(a2v.DownloadError, match="larger than"):
        await fetch(whole, max_download_bytes=SIZE - 1)


async def test_a_rest_beyond_the_limit(fetch) -> None:
    """The length was not known before."""
    first = lambda _: httpx.Response(200, headers={"etag": '"abc"'}, stream=Cut(VIDEO[:HALF]))  # noqa: E731
    with pytest.raises(a2v.DownloadError, match="larger than"):
        await fetch(first, rest, max_download_bytes=SIZE - 1)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2 GiB"])
async def test_limits_that_are_none(make_client, limit) -> None:
    with pytest.raises(a2v.ConfigurationError, match="max_download_bytes"):
        make_client(max_download_bytes=limit)


# -- time -------------------------------------------------------------------------------------------------------------


async def test_the_timeout_covers_the_wait(service, make_client, tmp_path, check) -> None:
    async def slowly(request):
        await anyio.sleep(40_000)
        return service.well(request)

    service.plan = [(0, {"status": "pending"})]
    async with make_client(timeout=50_000) as client:
        for options, least in (({"timeout": 100}, 100), ({}, 86_400)):
            # Half a day for each answer, so a day takes few of them.
            service.replies["video.get"] = [slowly if least == 86_400 else service.well]
            started = anyio.current_time()
            with pytest.raises(a2v.WaitTimeoutError, match="v has not ended after") as caught:
                await client.videos.task("v").download(tmp_path / "v.mp4", **options)
            check(caught.value)
            assert least <= anyio.current_time() - started < least + 1
            assert (caught.value.video_id, caught.value.video.status) == ("v", a2v.VideoStatus.PENDING)
            assert caught.value.waited == pytest.approx(least, abs=1)


async def test_the_timeout_covers_the_transfer(service, make_client, tmp_path) -> None:
    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield bytes(5000)
                await anyio.sleep(10)

    service.plan = [
        (0, {"status": "pending"}),
        (50, {"status": "finished", "video_url": "https://files.example/v.mp4"}),
    ]
    service.replies["v.mp4"] = [lambda _: httpx.Response(200, stream=Slow())]
    async with make_client() as client:
        started = anyio.current_time()
        with pytest.raises(a2v.WaitTimeoutError, match="v was not downloaded after 100 s") as caught:
            await client.videos.task("v").download(tmp_path / "v.mp4", timeout=100)
        assert anyio.current_time() - started == pytest.approx(100, abs=1)
        assert caught.value.video.is_terminal
        assert not list(tmp_path.iterdir())


async def test_without_a_timeout_it_takes_as_long_as_it_takes(service, make_client, tmp_path: Path) -> None:
    late = {"status": "finished", "video_url": "https://files.example/v.mp4"}
    service.plan = [(0, {"status": "pending"}), (90_000, late)]

    async def slowly(request):
        await anyio.sleep(40_000)
        return service.well(request)

    service.replies["video.get"] = [slowly]
    async with make_client(timeout=50_000) as client:
        path = await client.videos.task("v").download(tmp_path / "v.mp4", timeout=None)
    assert path.read_bytes() == b"a video"


@pytest.mark.parametrize(
    ("status", "headers", "least", "most"),
    [
        (429, {"retry-after": "7"}, 7, 9),
        (429, {"retry-after": "500"}, 120, 130),
        (429, {}, 2, 4),
        (429, {"retry-after": "3", "x-ratelimit-reset": "20"}, 20, 24),
        (503, {"retry-after": "Fri, 31 Dec 1999 23:59:30 GMT", "date": "Fri, 31 Dec 1999 23:59:00 GMT"}, 30, 34),
        (503, {"retry-after": "9"}, 9, 12),
        (503, {}, 0, 1),
        (500, {"retry-after": "9"}, 0, 1),
    ],
)
async def test_storage_is_asked_again_when_it_says(fetch, status, headers, least, most) -> None:
    began = anyio.current_time()
    assert await fetch(httpx.Response(status, headers=headers), whole) == VIDEO
    assert least <= anyio.current_time() - began <= most


@pytest.mark.parametrize(
    ("status", "headers"), [(203, {}), (206, {"content-range": f"bytes 0-{SIZE - 1}/{SIZE}", "etag": '"abc"'})]
)
async def test_other_statuses_that_bring_the_whole_file(fetch, status, headers) -> None:
    assert await fetch(httpx.Response(status, headers=headers, content=VIDEO)) == VIDEO
    assert await fetch(cut(HALF), httpx.Response(status, headers=headers, content=VIDEO)) == VIDEO


@pytest.mark.virtual_time
async def test_a_body_that_drips_is_given_up(service, fetch) -> None:
    """Less than 4 KiB in the time-out of the client: the server may be alive, and the download would take for ever."""

    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await anyio.sleep(7)
                yield b"x"

    def drips(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-length": str(SIZE), "content-type": "video/mp4"}, stream=Drip())

    with pytest.raises(a2v.DownloadError, match="less than 4096 bytes within 30 s"):
        await fetch(drips, timeout=30, max_retries=0)
