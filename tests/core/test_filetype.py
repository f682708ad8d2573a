"""The first bytes of a body decide whether it is a video; the headers decide only if the bytes do not."""

from __future__ import annotations

import gzip
import io
import random
import zlib

import pytest

import a2v
from a2v._core.filetype import FileReader, WrongFileError, is_cut_mp4

NOISE = random.Random(7).randbytes(20_000)
MP4 = b"\0\0\0\x20ftypisom" + NOISE
VIDEOS = {
    "MP4": MP4,
    "QuickTime": b"\0\0\0\x08wide" + NOISE,
    "WebM": b"\x1a\x45\xdf\xa3" + NOISE,
    "WebP": b"RIFF\0\0\0\0WEBP" + NOISE,
    "AVI": b"RIFF\0\0\0\0AVI " + NOISE,
    "GIF": b"GIF89a" + NOISE,
    "PNG": b"\x89PNG\r\n\x1a\n" + NOISE,
    "MPEG-TS": (b"\x47" + bytes(187)) * 5,
}
DOCUMENTS = {
    "HTML": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "HTML, bare": b"<html>login</html>",
    "HTML, capitals": b"\r\n\t <HTML><HEAD>",
    "HTML, long": b"<html>" + b"x" * 10_000,
    "HTML, a comment first": b"<!-- error --><html></html>",
    "HTML, with a BOM": b"\xef\xbb\xbf<html></html>",
    "HTML, Latin-1": "<html><title>Zugriff verweigert für Sie</title>".encode("latin-1"),
    "HTML, UTF-16": "<html><title>x</title></html>".encode("utf-16"),
    "HTML, UTF-16 without BOM": "<html><title>x</title></html>".encode("utf-16-be"),
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "XML, bare": b"<Error/>",
    "JSON": b'{"code": 5, "message": "no such file"}',
    "JSON, compact": b'{"code":5}',
    "JSON, spread": b'{\n  "error": {}\n}',
    "JSON, empty": b"{}",
    "JSON, a list": b'[{"error": 1}]',
    "white space": b" \n" * 300,
}
PLAIN = ["", "aws-chunked", "AWS-Chunked", "utf-8", "UTF-8", "binary", "none", "identity", "Identity", "identity, aws-chunked", "8bit"]  # fmt: skip
COMPRESSED = ["gzip", "x-gzip", "GZIP", "gzip, aws-chunked", "aws-chunked,gzip", "identity, gzip", "br", "zstd", "deflate", "compress"]  # fmt: skip


def read(body: bytes, step: int = 700, **headers: str) -> bytes:
    """What a body comes to, which arrives in pieces."""
    reader = FileReader({name.replace("_", "-"): value for name, value in headers.items()})
    pieces = [piece for at in range(0, len(body), step) for piece in reader.read(body[at : at + step])]
    pieces += reader.end()
    assert reader.is_complete
    return b"".join(pieces)


@pytest.mark.parametrize("step", [1, 13, 511, 512, 513, 10**6])
def test_in_pieces_of_any_size(step: int) -> None:
    assert read(MP4, step) == MP4
    assert read(gzip.compress(MP4), step) == MP4
    assert read(b"short", step) == b"short"
    assert read(b"", step) == b""
    with pytest.raises(WrongFileError):
        read(DOCUMENTS["HTML"], step, content_type="video/mp4")


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize("content_type", ["", "video/mp4", "text/html", "TEXT/HTML; charset=utf-8", "application/json", "nonsense"])  # fmt: skip
@pytest.mark.parametrize("encoding", ["", "aws-chunked", "gzip", "br"])
def test_a_video_is_one_whatever_the_headers_say(kind: str, content_type: str, encoding: str) -> None:
    assert read(VIDEOS[kind], content_type=content_type, content_encoding=encoding) == VIDEOS[kind]


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("content_type", ["", "video/mp4", "application/octet-stream", "text/html", "Application/JSON"])
def test_a_document_is_none_whatever_the_headers_say(kind: str, content_type: str) -> None:
    with pytest.raises(WrongFileError, match="document"):
        read(DOCUMENTS[kind], content_type=content_type)
    with pytest.raises(WrongFileError, match="document"):
        read(gzip.compress(DOCUMENTS[kind]), content_type=content_type, content_encoding="gzip")


@pytest.mark.parametrize("content_type", ["", "video/mp4", "Video/WebM", "application/octet-stream", "binary/octet-stream; x=y", "image/webp"])  # fmt: skip
def test_unknown_bytes_are_taken_if_the_type_allows_it(content_type: str) -> None:
    assert read(NOISE, content_type=content_type) == NOISE


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML", "text/plain", "application/json", "application/xml", "application/xhtml+xml", "application/problem+json", "nonsense"])  # fmt: skip
def test_unknown_bytes_are_refused_otherwise(content_type: str) -> None:
    with pytest.raises(WrongFileError):
        read(b"Access denied", content_type=content_type)


@pytest.mark.parametrize("encoding", PLAIN)
def test_encodings_that_change_nothing(encoding: str) -> None:
    assert read(NOISE, content_encoding=encoding) == NOISE


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZip", "gzip, aws-chunked", "aws-chunked,gzip", ""])
def test_gzip(encoding: str) -> None:
    assert read(gzip.compress(MP4), content_encoding=encoding) == MP4
    assert read(gzip.compress(MP4[:5000]) + gzip.compress(MP4[5000:]), content_encoding=encoding) == MP4


def test_deflate_with_and_without_a_header() -> None:
    bare = zlib.compressobj(wbits=-15)
    assert read(zlib.compress(MP4), content_encoding="deflate") == MP4
    assert read(bare.compress(MP4) + bare.flush(), content_encoding="Deflate") == MP4


def test_much_from_little() -> None:
    """Decompressed a mebibyte at a time, so that whoever limits the size need not hold all of it."""
    bomb = gzip.compress(MP4 + bytes(20_000_000))
    reader = FileReader({"content-encoding": "gzip"})
    pieces = list(reader.read(bomb))
    assert max(map(len, pieces)) <= 1 << 20
    assert sum(map(len, pieces)) == len(MP4) + 20_000_000


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_compressed_and_nothing_that_can_be_decompressed(encoding: str) -> None:
    with pytest.raises(a2v.DownloadError, match="video_url") as caught:
        read(NOISE, content_encoding=encoding)
    assert not isinstance(caught.value, WrongFileError)


def test_zstd_without_a_header() -> None:
    with pytest.raises(a2v.DownloadError, match="zstd"):
        read(b"\x28\xb5\x2f\xfd" + NOISE)


@pytest.mark.parametrize("cut", [1, 8, 100, 15_000])
def test_a_compressed_body_that_is_cut(cut: int) -> None:
    reader = FileReader({"content-encoding": "gzip"})
    list(reader.read(gzip.compress(MP4)[:-cut]))
    list(reader.end())
    assert not reader.is_complete


def box(kind: bytes, content: bytes = b"", *, wide: bool = False) -> bytes:
    if wide:
        return (1).to_bytes(4) + kind + (16 + len(content)).to_bytes(8) + content
    return (8 + len(content)).to_bytes(4) + kind + content


FAST = box(b"ftyp", b"isom") + box(b"moov", bytes(300)) + box(b"mdat", NOISE)
SLOW = box(b"ftyp", b"isom") + box(b"free") + box(b"mdat", NOISE, wide=True) + box(b"moov", bytes(300))
PIECES = box(b"ftyp", b"iso5") + (box(b"moof", bytes(50)) + box(b"mdat", NOISE[:900])) * 5


@pytest.mark.parametrize("video", [FAST, SLOW, PIECES], ids=["index first", "index last", "fragments"])
def test_an_mp4_that_breaks_off(video: bytes) -> None:
    assert not is_cut_mp4(io.BytesIO(video))
    for size in (len(video) // 2, len(video) - 100, len(video) - 1):
        assert is_cut_mp4(io.BytesIO(video[:size]))


def test_an_mp4_that_ends_with_something_else() -> None:
    assert not is_cut_mp4(io.BytesIO(FAST + b"\xff\xff\xff\xffjunk"))
    assert not is_cut_mp4(io.BytesIO(FAST + b"\0\0\0\x02mdat"))
    assert not is_cut_mp4(io.BytesIO(box(b"ftyp") + box(b"moov") + b"\0\0\0\0mdat" + NOISE))  # "up to the end"


def test_other_formats_are_not_checked_for_completeness() -> None:
    for content in (b"", b"x", NOISE, VIDEOS["WebM"], MP4):
        assert not is_cut_mp4(io.BytesIO(content))
