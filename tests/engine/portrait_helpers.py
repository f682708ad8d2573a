"""Pictures for the tests of portraits."""

from __future__ import annotations

import struct
import wave
import zlib
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.portrait.studio import Studio, open_studio

FOLDER = Path(__file__).with_name("portraits")
HOPPER, COLLINS, CMYK = ((FOLDER / f"{name}.jpg").read_bytes() for name in ("hopper", "collins", "cmyk"))


@cache
def studio(name: str) -> Studio:
    """Return a decoded picture with its face."""
    picture = (FOLDER / f"{name}.jpg").read_bytes()
    opened = open_studio(PortraitSpec(model_id="p", display_name="P", picture=picture))
    opened.photo.rgb.flags.writeable = opened.face.points.flags.writeable = False
    return opened


def pixels(name: str) -> np.ndarray:
    """Return a picture as RGB."""
    return studio(name).photo.rgb


def face_points(name: str) -> np.ndarray:
    """Return the landmarks of a picture."""
    return studio(name).face.points


def write_speech(path: Path, seconds: float = 1 / 3) -> Path:
    """Write a piece of speech as WAV; return the path."""
    with av.open(str(Path(__file__).parent / "speech/espeak-f3.flac")) as file:
        rate = file.streams.audio[0].rate
        resampler = av.AudioResampler("s16", "mono", rate)
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(samples[rate // 4 :][: int(rate * seconds)].tobytes())
    return path


def png(rgb: np.ndarray, exif: bytes = b"") -> bytes:
    """Return a picture as PNG: grey, RGB or RGBA."""
    height, width = rgb.shape[:2]
    channels = 1 if rgb.ndim == 2 else rgb.shape[2]
    lines = rgb.reshape(height, width * channels).astype(np.uint8)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], 1).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    extra = chunk(b"eXIf", exif) if exif else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(raw, 1))
        + chunk(b"IEND", b"")
    )


def encode(rgb: np.ndarray, codec: str) -> bytes:
    """Return a picture as a file of another format: ``libwebp`` or ``mjpeg``."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    encoder = av.VideoCodecContext.create(codec, "w")
    encoder.width, encoder.height = frame.width, frame.height
    encoder.pix_fmt = {"libwebp": "yuv420p", "mjpeg": "yuvj420p"}[codec]
    encoder.time_base = Fraction(1, 25)
    return b"".join(
        bytes(packet) for packet in [*encoder.encode(frame.reformat(format=encoder.pix_fmt)), *encoder.encode(None)]
    )


def exif(orientation: int, order: str = "<") -> bytes:
    """Return Exif data with an orientation."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def with_exif(jpeg: bytes, data: bytes) -> bytes:
    """Insert Exif data into a JPEG."""
    body = b"Exif\0\0" + data
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def resize(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a picture in another size."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return frame.reformat(width, height, interpolation="AREA").to_ndarray(format="rgb24")
