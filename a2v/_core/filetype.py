"""Detects from its first bytes whether a response body is a video, or captions, and decompresses it.

Headers are not reliable: object stores and web servers label videos as ``text/html``, uncompressed files as compressed, and
error documents as ``video/mp4``. So a body with the signature of a video format is a video, and one that starts like an HTML, XML
or JSON document is not. For anything else, ``Content-Type`` decides, by a list of accepted types. Captions must start with the
signature of WebVTT.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, BinaryIO

from a2v.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Bytes to inspect before any are passed on.
_HEAD_SIZE = 512
# Maximum bytes per decompression step: a small body may decompress to a very large one.
_INFLATE_SIZE = 1 << 20

_VIDEO_SIGNATURE = re.compile(
    rb"....(?:ftyp|styp|moov|moof|mdat|sidx|free|skip|wide|pnot)"  # MP4 and QuickTime
    rb"|\x1a\x45\xdf\xa3"  # WebM and Matroska
    rb"|RIFF....(?:AVI |WEBP)"
    rb"|GIF8[79]a"
    rb"|\x89PNG\r\n\x1a\n"
    rb"|FLV\x01"
    rb"|OggS\0"
    rb"|\x00\x00\x01[\xb3\xba]"  # MPEG-1 and MPEG-2
    rb"|\x47.{187}\x47"  # MPEG transport stream
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    re.DOTALL,
)
_MP4_BOX = re.compile(rb"ftyp|styp|moov|moof|mdat|mfra|sidx|free|skip|wide|uuid|meta|emsg|pdin|udta")
_DOCUMENT_START = re.compile(rb'<[!?/a-z]|[{\[]\s*["{}\[\]\-0-9tfn]', re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_UTF16_STARTS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_COMPRESSION_SIGNATURES = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_COMPRESSIONS = {"gzip", "deflate", "br", "zstd", "compress"}
# Besides video/* and image/*: types with which servers label files that they know nothing about.
_GENERIC_TYPES = {
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "application/mp4",
    "application/binary",
    "application/download",
    "application/force-download",
    "application/x-download",
}


class WrongFileError(DownloadError):
    """The body is a document, such as an error page. A retry may return the file."""


class FileReader:
    """Extracts the bytes of a file from the body of a response, and decompresses them if necessary.

    Args:
        headers: The response's headers, with names in lower case.
        captions: Whether the file must be WebVTT captions rather than a video; ``False`` by default.
    """

    def __init__(self, headers: Mapping[str, str], *, captions: bool = False) -> None:
        self._headers = headers
        self._captions = captions
        self._name = "captions" if captions else "video"
        self._started = False
        self._body = bytearray()
        self._head: bytearray | None = bytearray()
        self._inflater: _Inflater | None = None

    @property
    def is_compressed(self) -> bool:
        """Whether the body is compressed, so that offsets in it are not offsets in the file."""
        return self._inflater is not None

    @property
    def is_complete(self) -> bool:
        """Whether the compressed data is complete; True for an uncompressed body."""
        return self._inflater is None or self._inflater.ended

    def read(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next chunk of the body.

        Yields:
            Bytes of the file. Nothing is yielded before the first 512 bytes have arrived.

        Raises:
            WrongFileError: The body is a document.
            DownloadError: The compression is not supported, or the compressed data is invalid.
        """
        if self._started:
            yield from self._decoded(chunk)
            return
        self._body += chunk
        if len(self._body) >= _HEAD_SIZE:
            yield from self._start()

    def end(self) -> Iterator[bytes]:
        """Finish the body; yields and raises as ``read`` does."""
        if not self._started:
            yield from self._start()
        if self._head:
            yield self._checked_head()

    def _start(self) -> Iterator[bytes]:
        self._started = True
        head, self._body = bytes(self._body), bytearray()
        coding = None if _VIDEO_SIGNATURE.match(head) else _coding(head, self._headers)
        if coding:
            self._inflater = _Inflater(coding, head, self._name)
        yield from self._decoded(head)

    def _decoded(self, chunk: bytes) -> Iterator[bytes]:
        for piece in self._inflater.inflate(chunk) if self._inflater else (chunk,):
            if self._head is None:
                yield piece
                continue
            self._head += piece
            if len(self._head) >= _HEAD_SIZE:
                yield self._checked_head()

    def _checked_head(self) -> bytes:
        head, self._head = bytes(self._head or b""), None
        if not (is_vtt(head) if self._captions else is_video(head, self._headers.get("content-type", ""))):
            raise WrongFileError(f"the server sent a document, such as an error page, instead of the {self._name}")
        return head


class _Inflater:
    """Decompresses gzip and deflate incrementally."""

    def __init__(self, coding: str, head: bytes, name: str) -> None:
        self._name, self._url = name, f"{name}_url"
        if coding not in ("gzip", "deflate"):
            raise DownloadError(
                f"the {name} is compressed with {coding}, which a2v does not decode; fetch its {self._url} with a program "
                "that does, such as curl --compressed"
            )
        self._coding = coding
        # "deflate" means zlib's format, but some servers omit its header.
        with_header = coding == "deflate" and len(head) > 1 and int.from_bytes(head[:2]) % 31 == 0
        self._window = 31 if coding == "gzip" else 15 if with_header else -15
        self._stream = zlib.decompressobj(self._window)

    @property
    def ended(self) -> bool:
        """Whether the compressed data is complete and its checksum matches."""
        return self._stream.eof

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next chunk."""
        try:
            while data:
                if self._stream.eof:  # a gzip file may have several members
                    self._stream = zlib.decompressobj(self._window)
                yield self._stream.decompress(data, _INFLATE_SIZE)
                data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        except zlib.error:
            problem = f"the response with the {self._name} is labelled as compressed ({self._coding}) and cannot be decompressed"
        else:
            return
        raise DownloadError(f"{problem}; fetch its {self._url} with another program")


def is_cut_mp4(file: BinaryIO) -> bool:
    """Whether a file is an MP4 that ends in the middle of a box. Other formats are not checked.

    Detects truncated downloads if the response had no length, so that a lost connection looks like the end of the file.
    """
    end, position, boxes = file.seek(0, os.SEEK_END), 0, 0
    while position < end:
        file.seek(position)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4]), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:])
        if (not position and kind != b"ftyp") or not _MP4_BOX.fullmatch(kind) or 0 < size < 8:
            return False  # not an MP4, or other data appended to one
        boxes, position = boxes + 1, position + size if size else end
    return position > end and boxes > 1


def is_vtt(head: bytes) -> bool:
    """Whether a file is WebVTT.

    Args:
        head: Its first bytes.
    """
    return re.match(rb"(?:\xef\xbb\xbf)?WEBVTT(?:\s|$)", head) is not None


def is_video(head: bytes, content_type: str) -> bool:
    """Whether a file may be a video.

    Args:
        head: Its first 512 bytes, or all of a shorter file.
        content_type: The response's ``Content-Type``.
    """
    if _VIDEO_SIGNATURE.match(head):
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return not _is_document(head) and (kind in _GENERIC_TYPES or kind.startswith(("video/", "image/")))


def content_coding(headers: Mapping[str, str]) -> str | None:
    """Return the compression in ``Content-Encoding``. Other tokens, such as ``aws-chunked`` or ``utf-8``, are ignored."""
    tokens = [token.strip().lower().removeprefix("x-") for token in headers.get("content-encoding", "").split(",")]
    found = [token for token in tokens if token in _COMPRESSIONS]
    return found[-1] if found else None


def _coding(head: bytes, headers: Mapping[str, str]) -> str | None:
    detected = [coding for signature, coding in _COMPRESSION_SIGNATURES.items() if head.startswith(signature)]
    return detected[0] if detected else content_coding(headers)


def _is_document(head: bytes) -> bool:
    """Whether a file starts like an HTML, XML or JSON document."""
    if coding := _UTF16_STARTS.get(head[:2]):
        head = head.decode(coding, errors="replace").lstrip("\ufeff").encode(errors="replace")
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # Binary data may start with the same characters, but usually has a control character soon after.
    return not head or (bool(_DOCUMENT_START.match(head)) and not _CONTROL.search(head[:64]))
