"""Recordings: from bytes that nobody vouched for to samples.

FFmpeg opens whatever a file tells it to open: a playlist that is named ``.mp3`` makes it read other files and sockets, also
when it is given bytes. So its guessing is never used. The kind is told by the first bytes, FFmpeg is held to it, may
decode audio only, and is refused every further file it asks for.
"""

from __future__ import annotations

import hashlib
import io
import struct
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import av
import numpy as np
from av.error import FFmpegError

from a2v.engine.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from numpy.typing import NDArray

RATE = 16_000
"""Samples a second for the analysis."""
SOUNDTRACK_RATE = 48_000
"""Samples a second in the video."""
MAX_SECONDS = 1800.0
"""The longest recording, unless a caller says otherwise."""
Source = bytes | Path
"""A whole file, or where it is. FFmpeg is given bytes in both cases."""
_File = io.BytesIO | io.BufferedReader

_KINDS = "WAV, MP3, AAC/M4A/MP4, OGG (Opus or Vorbis), FLAC or WebM"
_RATES = range(4_000, 384_001)
_MAX_CHANNELS = 16
_EXACT = {"flac", "mp4"}  # containers that say truly how long they are
_CODECS = (
    "aac,aac_fixed,aac_latm,alac,flac,mp2,mp2float,mp3,mp3float,opus,libopus,vorbis,libvorbis,pcm_alaw,pcm_f32le,pcm_f64le,"
    "pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24le,pcm_s32le,pcm_u8,adpcm_ima_wav,adpcm_ms"
)


def decode(source: Source, *, max_seconds: float = MAX_SECONDS) -> NDArray[np.float32]:
    """The recording as mono float32 samples, 16,000 a second, for the analysis.

    Args:
        source: A whole file, or where it is: WAV, MP3, AAC, M4A or MP4, Ogg (Opus, Vorbis), FLAC, or WebM.
        max_seconds: The longest recording to accept.

    Raises:
        AudioError: This is not such a file, is damaged, holds no sound, or is too long.
        OSError: The file cannot be read.
    """
    return np.concatenate(list(pieces(source, max_seconds=max_seconds)))


def pieces(source: Source, *, max_seconds: float = MAX_SECONDS) -> Iterator[NDArray[np.float32]]:
    """What ``decode`` returns, a piece at a time, so that little of a long recording is in memory."""
    limit = int(max_seconds * RATE)
    total = 0
    for frame in _frames(source, "flt", "mono", RATE):
        piece = frame.to_ndarray()[0]
        total += len(piece)
        if total > limit:
            raise AudioError(f"The recording is longer than {_spoken(max_seconds)}, the longest that is rendered here.")
        # Floating-point files may hold anything; what follows wants numbers that are.
        finite = np.nan_to_num(piece, nan=0.0, posinf=0.0, neginf=0.0)
        yield np.asarray(np.clip(finite, -1.0, 1.0), np.float32)
    if not total:
        raise AudioError("The recording is empty: it holds no sound at all.")


def digest(source: Source) -> bytes:
    """What no other recording shares with this one (SHA-256)."""
    with _reading(source) as file:
        return hashlib.file_digest(file, "sha256").digest()


def soundtrack(source: Source, *, stereo: bool) -> Iterator[av.AudioFrame]:
    """The recording as frames for an AAC encoder, 48,000 samples a second; for a recording that ``decode`` has accepted."""
    position = 0
    for frame in _frames(source, "fltp", "stereo" if stereo else "mono", SOUNDTRACK_RATE):
        frame.pts, frame.time_base = position, Fraction(1, SOUNDTRACK_RATE)
        position += frame.samples
        yield frame


def is_stereo(source: Source) -> bool:
    """Whether the recording has more than one channel."""
    with _reading(source) as file, _opened(file, sniff(source)) as container:
        return container.streams.audio[0].codec_context.channels > 1


def sniff(source: Source) -> str:
    """What kind of file the first bytes announce, as FFmpeg calls it.

    Raises:
        AudioError: None that is accepted here.
    """
    with _reading(source) as file:
        start = file.read(16)
        file.seek(_id3_length(start))
        head = file.read(16)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mp4"
    for magic, kind in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"\x1aE\xdf\xa3", "matroska")):
        if head.startswith(magic):
            return kind
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    if start[:3] == b"ID3" or (len(head) > 2 and _is_mpeg_frame(head)):
        return "mp3"
    if not start:
        raise AudioError("The recording is empty: the file has no bytes.")
    raise AudioError(f"This is not a recording of a known kind. {_KINDS} can be rendered.")


@contextmanager
def _reading(source: Source) -> Iterator[_File]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file


def _id3_length(start: bytes) -> int:
    """How many bytes of ID3 tag stand before the sound; the length is written in seven bits a byte."""
    if start[:3] != b"ID3" or len(start) < 10:
        return 0
    a, b, c, d = (byte & 0x7F for byte in start[6:10])
    return 10 + (a << 21 | b << 14 | c << 7 | d)


def _is_mpeg_frame(head: bytes) -> bool:
    """Eleven bits of sync, then a version, a layer, a bit rate and a sample rate that exist."""
    sync = head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return (
        sync
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] >> 4 not in (0, 15)
        and head[2] & 0x0C != 0x0C
    )


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("a recording has no business opening other files")


class _Nameless:
    """A file of which FFmpeg learns nothing but its bytes: PyAV would tell it the name."""

    def __init__(self, file: _File) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def _opened(file: _File, kind: str) -> Iterator[InputContainer]:
    """The file as FFmpeg sees it, of this kind and no other, with nothing but its own bytes in reach."""
    options = {"protocol_whitelist": "pipe", "format_whitelist": kind, "codec_whitelist": _CODECS}
    try:
        with av.open(_Nameless(file), "r", format=kind, container_options=options, io_open=_refuse) as container:
            if not container.streams.audio:
                raise AudioError("The file holds no audio track.")
            _check_track(container.streams.audio[0])
            yield container
    except (FFmpegError, PermissionError, ValueError) as error:
        raise AudioError(
            f"The recording cannot be decoded: the {kind} file is damaged or not what it claims to be."
        ) from error


def _check_track(track: av.AudioStream) -> None:
    context = track.codec_context
    if context is None:
        raise AudioError("The audio track is of a kind that cannot be decoded here.")
    if context.sample_rate not in _RATES or not 1 <= context.channels <= _MAX_CHANNELS:
        # A file of a few kilobytes at one sample a second would become hours of sound.
        raise AudioError(f"A recording of {context.channels} channels at {context.sample_rate} Hz cannot be rendered.")


def _frames(source: Source, format: str, layout: str, rate: int) -> Iterator[av.AudioFrame]:
    """The first audio track, decoded and resampled."""
    kind = sniff(source)
    with _reading(source) as file:
        if kind == "wav":
            _check_chunks(file)
        with _opened(file, kind) as container:
            resampler = av.AudioResampler(format, layout, rate)
            heard = 0.0
            for frame in _decoded(container):
                heard += frame.samples / frame.sample_rate
                yield from resampler.resample(frame)
            _check_whole(container, kind, heard)
            yield from resampler.resample(None)


def _decoded(container: InputContainer) -> Iterator[av.AudioFrame]:
    """All frames that can be decoded; players skip a damaged one, and so does this, but not when most are."""
    good = bad = 0
    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except FFmpegError:
            bad += 1
            continue
        good += len(frames)
        yield from frames
    if bad > good:
        raise AudioError("The recording is too damaged to be decoded.")


def _check_whole(container: InputContainer, kind: str, heard: float) -> None:
    announced = (container.duration or 0) / av.time_base
    if kind in _EXACT and heard < 0.9 * announced - 0.5:
        raise AudioError(f"The recording is cut off: it announces {announced:.1f} seconds and holds {heard:.1f}.")


def _check_chunks(file: _File) -> None:
    """FFmpeg takes a WAV file for as long as what is there; how long it should be is written before the samples."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    kind, at = file.read(4), 12
    while at + 8 <= length:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        there = length - at - 8
        # A program that wrote without knowing the end left zero or the largest number.
        if name == b"data" and kind == b"RIFF" and size < 0x7FFF_FFFF and there < 0.9 * size:
            raise AudioError(f"The recording is cut off: it announces {size} bytes of sound and holds {there}.")
        at += 8 + size + size % 2
    file.seek(0)


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds > 90 else f"{seconds:g} second{'s' * (seconds != 1)}"
