"""Decodes untrusted pictures: JPEG, PNG and WebP.

FFmpeg's decoders are used without its demuxers: the format is known by the first bytes, and the whole file is one packet for the decoder
of that format. So a file cannot make FFmpeg open others. The size is read from the file's header before anything is decoded. The
picture is scaled down while it is converted to RGB, so that a large one is in memory only once, and then turned as its Exif
orientation says.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import av
import numpy as np
from av.error import FFmpegError

from a2v.engine.characters.portraits import MAX_PICTURE
from a2v.engine.errors import PortraitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDES = range(200, 8001)
"""The allowed lengths of a picture's sides in pixels."""
_WORKING_SIDE = 2400
"""Longer pictures are scaled down to this: more than a video shows."""
_NO_PICTURE = "The portrait is not a JPEG, PNG or WebP picture. Save it as one of these."


class Photo(NamedTuple):
    """A decoded picture."""

    rgb: NDArray[np.uint8]
    """Height × width × 3."""
    alpha: NDArray[np.uint8] | None
    """Height × width; ``None`` if the picture is opaque."""
    scale: float
    """Pixels of the file per pixel of this picture."""


class _Header(NamedTuple):
    decoder: str
    width: int
    height: int
    exif: bytes
    inverted: bool = False
    """Whether the colours are CMYK; Adobe's programs store the complements."""


def read_photo(content: bytes) -> Photo:
    """Decode a picture, upright.

    Raises:
        PortraitError: It cannot be used; the message says why and what to do.
    """
    if len(content) > MAX_PICTURE:
        raise PortraitError(
            f"The file of the portrait is larger than {MAX_PICTURE >> 20} MiB. Save the picture smaller."
        )
    try:
        header = _read_header(content)
    except (struct.error, IndexError):
        raise PortraitError("The portrait is cut off: its header is incomplete. Copy the file again.") from None
    shorter, longer = sorted((header.width, header.height))
    if shorter < SIDES.start:
        raise PortraitError(
            f"The portrait has {header.width} × {header.height} pixels; each side must have {SIDES.start} or more. "
            "Use a larger picture."
        )
    if longer >= SIDES.stop:
        raise PortraitError(
            f"The portrait has {header.width} × {header.height} pixels; a side may have at most {SIDES.stop - 1:,}. "
            "Make it smaller."
        )
    frame = _decode(content, header.decoder)
    scale = max(1.0, max(frame.width, frame.height) / _WORKING_SIDE)
    size = {"width": round(frame.width / scale), "height": round(frame.height / scale)}
    pixels = _to_rgba(frame, header, size)
    pixels = _upright(pixels, _orientation(header.exif))
    opaque = bool((pixels[..., 3] == 255).all())
    return Photo(np.ascontiguousarray(pixels[..., :3]), None if opaque else pixels[..., 3].copy(), scale)


def _decode(content: bytes, decoder: str) -> av.VideoFrame:
    try:
        context = cast("av.VideoCodecContext", av.CodecContext.create(decoder, "r"))  # the stubs omit the override
        context.thread_count = 1
        packet = av.Packet(content)
        frames = [*context.decode(packet), *context.decode(None)]
    except FFmpegError:
        frames = []
    if not frames:
        raise PortraitError(
            "The portrait cannot be decoded: the file is damaged, or an animation. Save the picture again."
        )
    return frames[0]


def _to_rgba(frame: av.VideoFrame, header: _Header, size: dict[str, int]) -> NDArray[np.uint8]:
    if header.inverted:
        # FFmpeg passes on the four components under the names of others: G, B, R, A are M, Y, C, K.
        components = frame.reformat(**size, format="gbrap", interpolation="AREA").to_ndarray(format="gbrap")
        kept = components.astype(np.uint16)
        rgb = (kept[..., :3] * kept[..., 3:] // 255).astype(np.uint8)
        return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    small = frame.reformat(**size, format="rgba", interpolation="AREA")
    return np.asarray(small.to_ndarray(format="rgba"), np.uint8)


# -- headers ----------------------------------------------------------------------------------------------------------


def _read_header(content: bytes) -> _Header:
    if content.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _read_webp(content)
    raise PortraitError(_NO_PICTURE)


def _read_jpeg(content: bytes) -> _Header:
    at, exif = 2, b""
    while True:
        while content[at] == 0xFF and content[at + 1] == 0xFF:
            at += 1  # fill bytes
        marker, length = struct.unpack_from(">HH", content, at)
        if marker == 0xFFE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            exif = content[at + 10 : at + 2 + length]
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", content, at + 5)
            return _Header("mjpeg", width, height, exif, inverted=content[at + 9] == 4)
        if marker >> 8 != 0xFF or length < 2:
            raise IndexError(at)
        at += 2 + length


def _read_png(content: bytes) -> _Header:
    width, height = struct.unpack_from(">II", content, 16)
    at, exif = 8, b""
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"eXIf":
            exif = content[at + 8 : at + 8 + length]
        at += 12 + length
    return _Header("png", width, height, exif)


def _read_webp(content: bytes) -> _Header:
    at, exif, size = 12, b"", (0, 0)
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        body = at + 8
        if kind == b"VP8X":
            size = _three_bytes(content, body + 4) + 1, _three_bytes(content, body + 7) + 1
        elif kind == b"VP8 " and not size[0]:
            width, height = struct.unpack_from("<HH", content, body + 6)
            size = width & 0x3FFF, height & 0x3FFF
        elif kind == b"VP8L" and not size[0]:
            (bits,) = struct.unpack_from("<I", content, body + 1)
            size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            exif = content[body : body + length].removeprefix(b"Exif\0\0")
        at = body + length + length % 2
    if not size[0]:
        raise IndexError(at)
    return _Header("webp", *size, exif)


def _three_bytes(content: bytes, at: int) -> int:
    low, high = struct.unpack_from("<HB", content, at)
    return int(low | high << 16)


# -- orientation ------------------------------------------------------------------------------------------------------


def _orientation(exif: bytes) -> int:
    """Return the Exif orientation, 1 to 8; 1 if there is none or it cannot be read."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * i)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    turned: Any = pixels
    if orientation in (5, 6, 7, 8):
        turned = turned.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)
