"""Decodes untrusted pictures: JPEG, PNG and WebP, for backgrounds and portraits. Runs in child processes, within their limits.

FFmpeg's decoders are used without its demuxers: the first bytes decide the format, and the whole file is one packet for its decoder. So a
file cannot make FFmpeg open other files. The size is read from the file's header before anything is decoded. The picture is scaled while it
is converted to RGB, so that a large one is in memory only once, and then turned according to its Exif orientation.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import av
import numpy as np
from av.error import FFmpegError

from a2v.engine.characters.portraits import MAX_PICTURE
from a2v.engine.drawing.colours import BLUE, GREEN, RED, U_RANGE, V_RANGE, bgra, uvy
from a2v.engine.errors import RenderError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from a2v.engine.drawing.colours import ColourBytes

_MAX_SIDE = 8000  # pixels
_TRANSPOSED = (5, 6, 7, 8)
"""The Exif orientations of pictures whose rows are stored as columns."""


class _Header(NamedTuple):
    decoder: str
    width: int
    height: int
    exif: bytes
    inverted: bool = False
    """Whether the colours are inverted CMYK, as Adobe's programs write it."""


def load_picture(path: Path, width: int, height: int, colour: Callable[[str], ColourBytes] = bgra) -> NDArray[np.uint8]:
    """Return a picture as a frame: scaled to cover it, and cropped around the middle.

    Args:
        path: A JPEG, PNG or WebP of at most 8000 × 8000 pixels. Transparent parts become white.
        width: The width of the frame in pixels.
        height: Its height.
        colour: How the pixels represent colours: ``colours.bgra`` or ``colours.uvya``.

    Raises:
        RenderError: The picture cannot be used; the message says why and what to do.
    """

    def cover(columns: int, rows: int) -> tuple[int, int]:
        factor = max(width / columns, height / rows)
        return max(width, round(columns * factor)), max(height, round(rows * factor))

    with path.open("rb") as file:
        content = file.read(MAX_PICTURE + 1)
    scaled = read_picture(content, "background: the picture", cover)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    shown = scaled[top : top + height, left : left + width].astype(np.float32)
    alpha = shown[..., 3:] / 255
    opaque = shown[..., :3] * alpha + 255 * (1 - alpha)
    pixels = np.full((height, width, 4), 255, np.uint8)
    if colour is bgra:
        pixels[..., :3] = np.rint(opaque[..., ::-1])
        return pixels
    red, green, blue = (opaque[..., channel] for channel in range(3))
    u, v, y = uvy(red, green, blue)
    for channel, value in enumerate((128 + u, 128 + v, 16 + y)):
        pixels[..., channel] = np.rint(value)
    return pixels


def to_bgra(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return blue, green and red of pixels in the colours of ``colours.uvya``; the inverse of that conversion."""
    u, v, y = ((pixels[..., channel] - offset) for channel, offset in ((0, 128), (1, 128), (2, 16)))
    luma = y * (255 / 219)
    blue, red = luma + u * (U_RANGE * 255 / 224), luma + v * (V_RANGE * 255 / 224)
    green = (luma - RED * red - BLUE * blue) / GREEN
    return np.stack([blue, green, red], -1).clip(0, 255)


def read_picture(
    content: bytes, name: str, fit: Callable[[int, int], tuple[int, int]], *, min_side: int = 1
) -> NDArray[np.uint8]:
    """Decode a picture; return it upright: height × width × red, green, blue and alpha.

    Args:
        content: The file.
        name: What the picture is, for messages: ``"The portrait"``.
        fit: Returns the width and height to scale the picture to, given its own.
        min_side: The smallest width and height that are allowed.

    Raises:
        RenderError: It cannot be used; the message says why and what to do.
    """
    if len(content) > MAX_PICTURE:
        raise RenderError(f"{name} is larger than {MAX_PICTURE >> 20} MiB. Save it smaller.")
    damaged = RenderError(f"{name} is cut off or damaged: its header is incomplete. Copy the file again.")
    try:
        header = _read_header(content)
    except (struct.error, IndexError):
        raise damaged from None
    if header is None:
        raise RenderError(f"{name} must be a JPEG, PNG or WebP file. Save it as one of these.")
    if not header.width or not header.height:
        raise damaged
    shorter, longer = sorted((header.width, header.height))
    if shorter < min_side:
        raise RenderError(
            f"{name} has {header.width} × {header.height} pixels; each side must have {min_side} or more. "
            "Use a larger picture."
        )
    if longer > _MAX_SIDE:
        raise RenderError(
            f"{name} has {header.width} × {header.height} pixels; a side may have at most {_MAX_SIDE:,}. Make it smaller."
        )
    frame = _decode(content, header.decoder)
    if frame is None:
        raise RenderError(
            f"{name} cannot be decoded: the file is cut off, damaged, or an animation. Save the picture again."
        )
    orientation = _orientation(header.exif)
    if orientation in _TRANSPOSED:
        height, width = fit(frame.height, frame.width)
    else:
        width, height = fit(frame.width, frame.height)
    return _upright(_to_rgba(frame, header, {"width": width, "height": height}), orientation)


def _decode(content: bytes, decoder: str) -> av.VideoFrame | None:
    try:
        context = cast("av.VideoCodecContext", av.CodecContext.create(decoder, "r"))  # the stubs omit the override
        context.thread_count = 1
        # Otherwise, the missing part of a JPEG that is cut off would become grey.
        context.options = {"err_detect": "explode"}
        packet = av.Packet(content)
        frames = [*context.decode(packet), *context.decode(None)]
    except FFmpegError:
        return None
    return frames[0] if frames else None


def _to_rgba(frame: av.VideoFrame, header: _Header, size: dict[str, int]) -> NDArray[np.uint8]:
    if header.inverted:
        # FFmpeg returns the components M, Y, C and K in the planes G, B, R and A.
        components = frame.reformat(**size, format="gbrap", interpolation="AREA").to_ndarray(format="gbrap")
        inks = components.astype(np.uint16)
        rgb = (inks[..., :3] * inks[..., 3:] // 255).astype(np.uint8)
        return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    small = frame.reformat(**size, format="rgba", interpolation="AREA")
    return np.asarray(small.to_ndarray(format="rgba"), np.uint8)


# -- headers ----------------------------------------------------------------------------------------------------------


def _read_header(content: bytes) -> _Header | None:
    if content.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _read_webp(content)
    return None


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
            size = _read_uint24(content, body + 4) + 1, _read_uint24(content, body + 7) + 1
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


def _read_uint24(content: bytes, at: int) -> int:
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
    if orientation in _TRANSPOSED:
        turned = turned.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)
