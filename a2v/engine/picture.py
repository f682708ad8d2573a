"""Decodes the picture of a background, which is untrusted. Runs in the worker process, within its limits."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError
from av.filter import Graph

from a2v.engine.drawing.colours import BLUE, GREEN, RED, U_RANGE, V_RANGE, bgra, uvy
from a2v.engine.errors import RenderError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from a2v.engine.drawing.colours import ColourBytes

_FORMATS = {b"\xff\xd8\xff": "jpeg_pipe", b"\x89PNG\r\n\x1a\n": "png_pipe", b"RIFF": "webp_pipe"}
_MAX_SIDE = 8000
_NAME = "background: the picture"


def load_picture(path: Path, width: int, height: int, colour: Callable[[str], ColourBytes] = bgra) -> NDArray[np.uint8]:
    """Return a picture that covers the whole frame: scaled, and cropped around its middle.

    Args:
        path: A JPEG, PNG or WebP of at most 8000 × 8000 pixels. Where it is transparent, it becomes white.
        width: Of the frame.
        height: Of the frame.
        colour: How the pixels represent colours: ``colours.bgra`` or ``colours.uvya``.

    Raises:
        RenderError: It is no such picture.
    """
    frame = _decode(path)
    scaled = _cover(frame, width, height).to_ndarray(format="bgra").astype(np.float32)
    alpha = scaled[..., 3:] / 255
    opaque = scaled[..., :3] * alpha + 255 * (1 - alpha)
    pixels = np.full((height, width, 4), 255, np.uint8)
    if colour is bgra:
        pixels[..., :3] = np.rint(opaque)
        return pixels
    blue, green, red = (opaque[..., channel] for channel in range(3))
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


def _decode(path: Path) -> av.VideoFrame:
    with path.open("rb") as file:
        head = file.read(16)
    kind = next((name for magic, name in _FORMATS.items() if head.startswith(magic)), None)
    if kind is None or (kind == "webp_pipe" and head[8:12] != b"WEBP"):
        raise RenderError(f"{_NAME} must be a JPEG, PNG or WebP")
    try:
        with av.open(path, format=kind, options={"max_pixels": str(_MAX_SIDE**2)}) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if max(stream.width, stream.height) > _MAX_SIDE:
                raise RenderError(
                    f"{_NAME} has {stream.width} × {stream.height} pixels; {_MAX_SIDE} × {_MAX_SIDE} are allowed"
                )
            return next(container.decode(video=0))
    except (FFmpegError, StopIteration, IndexError, ValueError):
        raise RenderError(f"{_NAME} is damaged, or of a kind that cannot be decoded") from None


def _cover(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    turns = round(frame.rotation / 90) % 4  # as its EXIF data says
    shown = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    factor = max(width / shown[0], height / shown[1])
    size = [max(least, round(side * factor)) for side, least in zip(shown, (width, height), strict=True)]
    steps = [("transpose", "cclock")] * turns
    steps += [("scale", f"{size[0]}:{size[1]}:flags=area"), ("format", "bgra"), ("crop", f"{width}:{height}")]
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)),
        *(graph.add(name, arguments) for name, arguments in steps),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    result = graph.pull()
    assert isinstance(result, av.VideoFrame)  # noqa: S101  # for type checkers
    return result
