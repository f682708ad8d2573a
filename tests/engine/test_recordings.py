"""Real-world recordings: the voice is found in any format, whatever else the file contains and however it was written."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

import a2v.engine
from a2v.engine.audio import RATE, Recording, decode
from a2v.engine.errors import AudioError
from a2v.engine.formats import detect_format

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.mark import ParameterSet

CLIPS = {path.stem: path for path in sorted((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"))}


@cache
def voice(name: str = "slt", rate: int = 16_000) -> np.ndarray:
    """Return a clip as mono float32 samples."""
    with av.open(str(CLIPS[name])) as container:
        resampler = av.AudioResampler("flt", "mono", rate)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def speech(seconds: float = 2.0, rate: int = 16_000, name: str = "slt") -> np.ndarray:
    """Return the beginning of a clip."""
    return voice(name, rate)[: int(seconds * rate)]


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def wav(samples: np.ndarray, rate: int = 16_000, kind: str = "<i2", extra: bytes = b"") -> bytes:
    """Return a WAV file with a row of samples per channel, in any number format."""
    rows = np.atleast_2d(samples)
    if kind == "u1":
        numbers = np.round(rows * 127 + 128)
    else:
        full = {"<i2": 2**15 - 1, "<i4": 2**31 - 128}.get(kind, 1)
        numbers = np.clip(rows, -1, 1) * full if full != 1 else rows
    data = np.ascontiguousarray(numbers.T).astype(kind).tobytes()
    size = np.dtype(kind).itemsize
    head = struct.pack(
        "<HHIIHH", 3 if "f" in kind else 1, len(rows), rate, rate * len(rows) * size, len(rows) * size, size * 8
    )
    body = b"WAVE" + chunk(b"fmt ", head) + extra + chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encode(
    samples: np.ndarray, container: str, codec: str, rate: int = 48_000, layout: str | None = None, **options: str
) -> bytes:
    """Encode samples (16,000 per second, a row per channel) to a file."""
    out = io.BytesIO()
    rows = np.atleast_2d(samples).astype(np.float32)
    layout = layout or {1: "mono", 2: "stereo"}[len(rows)]
    with av.open(out, "w", format=container, options=options) as file:
        experimental = {"strict": "experimental"} if codec == "vorbis" else {}
        stream = file.add_stream(codec, rate=rate, layout=layout, options=experimental)
        put(file, stream, rows, layout, rate)
    return out.getvalue()


def put(file, stream, rows: np.ndarray, layout: str, rate: int, *, start: float = 0.0) -> None:
    """Encode samples into a track of an open file, ``start`` seconds after its beginning."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), format="fltp", layout=layout)
    frame.sample_rate = 16_000
    resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate, stream.frame_size or 1024)
    position = int(start * rate)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        part.pts, part.time_base = position, Fraction(1, rate)
        position += part.samples
        file.mux(stream.encode(part))
    file.mux(stream.encode(None))


def cells(names: Iterable[str], *usual: str) -> list[ParameterSet]:
    """Return parameters of a test; all but the ``usual`` ones run in the extended set only."""
    return [pytest.param(name, id=name, marks=() if name in usual else pytest.mark.extended) for name in names]


def correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the correlation of two recordings, aligned to each other."""
    size = 1 << (len(found) + len(wanted)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(wanted, size)), size)
    return float(np.abs(cross).max() / np.sqrt((found**2).sum() * (wanted**2).sum()))


def heard(source: bytes) -> np.ndarray:
    """Return the soundtrack as one loudspeaker plays it: 48,000 samples per second."""
    recording = Recording(source)
    return np.concatenate([frame.to_ndarray().mean(0) for frame in recording.soundtrack()])


def assert_is_speech(data: bytes, seconds: float = 2.0, least: float = 0.9) -> None:
    """Check that the voice is in the analysis and in the soundtrack, with about its length."""
    samples, sound = decode(data), heard(data)
    assert len(samples) / RATE == pytest.approx(seconds, abs=0.2)
    assert correlation(samples, speech(seconds)) > least
    assert correlation(sound, speech(seconds, 48_000)) > least
    assert np.abs(sound).max() > 0.1


# -- formats ----------------------------------------------------------------------------------------------------------

FORMATS = {
    "aiff": ("aiff", "pcm_s16be", 44_100),
    "aiff of 24 bits": ("aiff", "pcm_s24be", 48_000),
    "aifc little-endian": ("aiff", "pcm_s16le", 44_100),
    "aifc of floats": ("aiff", "pcm_f32be", 44_100),
    "caf": ("caf", "pcm_s16le", 44_100),
    "caf of alac": ("caf", "alac", 44_100),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "au": ("au", "pcm_s16be", 8_000),
    "au of mu-law": ("au", "pcm_mulaw", 8_000),
    "w64": ("w64", "pcm_s16le", 44_100),
    "mkv of ac-3": ("matroska", "ac3", 48_000),
    "mp2": ("mp2", "mp2", 44_100),
    "speex": ("ogg", "libspeex", 16_000),
    "ogg of flac": ("ogg", "flac", 44_100),
    "wav of ima adpcm": ("wav", "adpcm_ima_wav", 22_050),
    "wav of ms adpcm": ("wav", "adpcm_ms", 22_050),
    "wav of mu-law": ("wav", "pcm_mulaw", 8_000),
    "wav of a-law": ("wav", "pcm_alaw", 8_000),
    "wav of 64-bit floats": ("wav", "pcm_f64le", 16_000),
    "wav of mp3": ("wav", "libmp3lame", 44_100),
    "mov": ("mov", "aac", 44_100),
    "mov of pcm": ("mov", "pcm_s16be", 44_100),
    "3gp": ("3gp", "aac", 44_100),
    "mka of mp3": ("matroska", "libmp3lame", 44_100),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_that_is_promised_is_read(name: str) -> None:
    container, codec, rate = FORMATS[name]
    try:
        data = encode(speech(), container, codec, rate)
    except (ValueError, av.error.FFmpegError) as error:
        pytest.skip(f"this FFmpeg cannot write it: {error}")
    assert_is_speech(data, least=0.75 if rate == 8_000 else 0.9)


@pytest.mark.parametrize("kind", ["u1", "<i2", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 96_000])
def test_samples_of_every_size_and_rate_are_read(kind: str, rate: int) -> None:
    samples = np.repeat(speech(), 6) if rate == 96_000 else speech()[:: 16_000 // rate]
    assert_is_speech(wav(samples, rate, kind), least=0.75)


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
@pytest.mark.parametrize("size", [None, 0, 2**63 - 1, 2**64 - 73])
def test_rf64_and_bw64_are_read(name: bytes, size: int | None) -> None:
    data = (speech() * 32767).astype("<i2").tobytes()
    size = len(data) if size is None else size
    sizes = chunk(b"ds64", struct.pack("<QQQI", size + 72, size, size // 2, 0))
    head = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 16))
    everything = b"\xff\xff\xff\xff"
    assert_is_speech(name + everything + b"WAVE" + sizes + head + b"data" + everything + data)


@pytest.mark.parametrize(
    ("head", "name", "extension"),
    [
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "WMA", "wma"),
        (b"RIFF\x00\x10\x00\x00AVI LIST", "AVI", "avi"),
        (b"FLV\x01\x05\x00\x00\x00\x09", "FLV", "flv"),
        (b"wvpk\x00\x00\x00\x00", "WavPack", "wv"),
        (b"MAC \x96\x0f\x00\x00", "Monkey's Audio", "ape"),
        (b"TTA1\x01\x00\x02\x00", "TTA", "tta"),
        (b"MPCKSH\x00\x00", "Musepack", "mpc"),
        (b"\x0b\x77\x00\x00\x00\x00", "AC-3", "ac3"),
        (b"\x7f\xfe\x80\x01\x00\x00", "DTS", "dts"),
        (b"NIST_1A\n   1024\n", "NIST SPHERE", "sph"),
        (b"\x47" + bytes(187), "MPEG transport stream", "ts"),
        (b"\x00\x00\x01\xba\x44\x00", "MPEG program stream", "mpg"),
        (b"DSD \x1c\x00\x00\x00", "DSD", "dsf"),
        (b".RMF\x00\x00\x00\x12", "RealMedia", "rm"),
        (b"\x02#!SILK_V3\x0b\x00", "SILK", "silk"),
    ],
)
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)], ids=["bare", "tagged"])
def test_other_formats_are_named_with_the_way_to_convert_them(
    head: bytes, name: str, extension: str, tag: bytes
) -> None:
    with pytest.raises(AudioError) as caught:
        decode(tag + head * 20)
    assert name in str(caught.value)
    assert f"ffmpeg -i recording.{extension} recording.flac" in str(caught.value)


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"%PDF-1.7", "PDF"), (b"PK\x03\x04", "ZIP"), (b"<!DOCTYPE html>", "HTML"), (b"\x89PNG\r\n", "PNG")],
)
def test_files_without_sound_are_named_without_a_way_to_convert_them(head: bytes, name: str) -> None:
    with pytest.raises(AudioError, match=name) as caught:
        decode(head + bytes(3000))
    assert "ffmpeg" not in str(caught.value)


# -- tags -------------------------------------------------------------------------------------------------------------

BAD = b"Gr\xfc\xdfe \x83e\x83X\x83g \xff\xfe"


def synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3v2(frames: bytes) -> bytes:
    return b"ID3\x03\x00\x00" + synchsafe(len(frames)) + frames


def id3v2_frame(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">IH", len(content), 0) + content


def with_checksums(ogg: bytes) -> bytes:
    """Return a modified Ogg file with correct checksums."""
    out, at = bytearray(ogg), 0
    while at < len(out):
        count = out[at + 26]
        end = at + 27 + count + sum(out[at + 27 : at + 27 + count])
        out[at + 22 : at + 26] = bytes(4)
        sum_ = 0
        for byte in out[at:end]:
            sum_ ^= byte << 24
            for _ in range(8):
                sum_ = (sum_ << 1 ^ (0x04C11DB7 if sum_ & 0x8000_0000 else 0)) & 0xFFFF_FFFF
        out[at + 22 : at + 26] = struct.pack("<I", sum_)
        at = end
    return bytes(out)


@cache
def tagged() -> dict[str, bytes]:
    title = "title=GrueXXe " + "x" * 20
    plain = speech()
    mp3, adts, flac = (
        encode(plain, "mp3", "libmp3lame"),
        encode(plain, "adts", "aac"),
        encode(plain, "flac", "flac", 16_000),
    )
    comments = struct.pack("<I", 1) + b"x" + struct.pack("<II", 1, len(BAD) + 6) + b"TITLE=" + BAD
    picture = struct.pack(">II", 3, 10) + b"image/jpeg" + bytes(20) + struct.pack(">I", 300) + bytes(300)
    apic = id3v2_frame(b"APIC", b"\x00image/jpeg\x00\x03\x00" + bytes(5000))
    in_files = {}
    for container, codec in (
        ("mp4", "aac"),
        ("matroska", "libopus"),
        ("ogg", "libopus"),
        ("mov", "aac"),
        ("3gp", "aac"),
    ):
        out = io.BytesIO()
        with av.open(out, "w", format=container) as file:
            stream = file.add_stream(codec, rate=48_000, layout="mono")
            file.metadata["title"] = stream.metadata["handler_name"] = stream.metadata["title"] = title
            file.set_chapters(
                [{"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": title}}]
            )
            put(file, stream, plain[None], "mono", 48_000)
        changed = out.getvalue().replace(b"GrueXXe", BAD[:7])
        in_files[f"{container}: every tag"] = with_checksums(changed) if container == "ogg" else changed
    return in_files | {
        "wav: LIST/INFO": wav(plain, extra=chunk(b"LIST", b"INFO" + chunk(b"INAM", BAD + b"\0"))),
        "wav: bext": wav(plain, extra=chunk(b"bext", BAD * 50)),
        "wav: tags behind the sound": wav(plain) + chunk(b"LIST", b"INFO" + chunk(b"INAM", BAD + b"\0")),
        "mp3: ID3v1": mp3 + b"TAG" + BAD.ljust(125, b"\x20"),
        "mp3: ID3v2": id3v2(id3v2_frame(b"TIT2", b"\x03" + BAD) + id3v2_frame(b"COMM", b"\x01eng" + BAD)) + mp3,
        "mp3: ID3v2 and a picture": id3v2(apic) + mp3,
        "mp3: two tags": id3v2(apic) + id3v2(id3v2_frame(b"TIT2", b"\x00" + BAD)) + mp3[mp3.index(b"\xff\xfb") :],
        "mp3: a tag that says too much": b"ID3\x03\x00\x00" + synchsafe(1 << 27) + mp3[mp3.index(b"\xff\xfb") :],
        "mp3: ID3v2 at the end": mp3 + id3v2(id3v2_frame(b"TIT2", b"\x00" + BAD)),
        "aac: ID3v2": id3v2(id3v2_frame(b"TIT2", b"\x00" + BAD)) + adts,
        "aac: ID3v1": adts + b"TAG" + BAD.ljust(125, b"\x20"),
        "flac: comment": flac[:42] + struct.pack(">I", 0x04 << 24 | len(comments)) + comments + flac[42:],
        "flac: picture": flac[:42] + struct.pack(">I", 0x06 << 24 | len(picture)) + picture + flac[42:],
        "flac: ID3v2": id3v2(id3v2_frame(b"TIT2", b"\x00" + BAD)) + flac,
        "flac: ID3v1": flac + b"TAG" + BAD.ljust(125, b"\x20"),
        "wav: ID3v2": id3v2(id3v2_frame(b"TIT2", b"\x00" + BAD)) + wav(plain),
        "aiff: ID3 chunk": encode(plain, "aiff", "pcm_s16be", 16_000) + b"ANNO" + struct.pack(">I", len(BAD)) + BAD,
    }


def test_tags_in_any_encoding_are_ignored(subtests: pytest.Subtests) -> None:
    for name, data in tagged().items():
        with subtests.test(name):
            assert_is_speech(data)


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [0, 10**9, 2 * 10**9, 0x7FFF_F000, 0x7FFF_FFDB, 0x7FFF_FFF8, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFDB, 0xFFFF_FFFF],
    ids=hex,
)
@pytest.mark.parametrize(
    "extra",
    [b"", pytest.param(chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf")), id="tags", marks=pytest.mark.extended)],
)
def test_wav_files_with_placeholder_sizes_are_read_to_the_end(size: int, extra: bytes) -> None:
    data = bytearray(wav(speech(), extra=extra))
    at = data.index(b"data")
    data[4:8], data[at + 4 : at + 8] = struct.pack("<I", min(size + 36, 2**32 - 1)), struct.pack("<I", size)
    assert_is_speech(bytes(data))


def test_other_formats_with_placeholder_sizes_are_read_to_the_end() -> None:
    aiff, au = (
        bytearray(encode(speech(), "aiff", "pcm_s16be", 16_000)),
        bytearray(encode(speech(), "au", "pcm_s16be", 16_000)),
    )
    caf, w64 = (
        bytearray(encode(speech(), "caf", "pcm_s16le", 16_000)),
        bytearray(encode(speech(), "w64", "pcm_s16le", 16_000)),
    )
    for size in (0, 0x7FFF_FFFF, 0xFFFF_FFFF):
        au[8:12] = struct.pack(">I", size)
        assert_is_speech(bytes(au))
        common, sound = aiff.index(b"COMM"), aiff.index(b"SSND")
        aiff[common + 10 : common + 14] = aiff[sound + 4 : sound + 8] = aiff[4:8] = struct.pack(">I", size)
        if size:  # 0 means that there is no sound
            assert_is_speech(bytes(aiff))
    at = caf.index(b"data")
    caf[at + 4 : at + 12] = b"\xff" * 8
    assert_is_speech(bytes(caf))
    at = w64.index(b"data\xf3\xac\xd3\x11")
    for size in (0, 0x7FFF_FFFF_FFFF_FFFF, 2**62, 2**64 - 1):
        w64[at + 16 : at + 24] = struct.pack("<Q", size)
        assert_is_speech(bytes(w64))


@pytest.mark.parametrize("container", ["wav", "aiff", "flac", "mp4"])
def test_a_truncated_recording_is_reported_as_cut_off(container: str) -> None:
    codec = {"wav": "pcm_s16le", "aiff": "pcm_s16be", "flac": "flac", "mp4": "aac"}[container]
    data = encode(voice("june"), container, codec, 16_000)
    with pytest.raises(AudioError, match=r"cut off|damaged"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\r\n--boundary--\r\n" * 50, id="text"),
        pytest.param(b"\0" * 3000, id="zeros", marks=pytest.mark.extended),
        pytest.param(bytes(range(256)) * 20, id="bytes", marks=pytest.mark.extended),
    ],
)
@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("mp3", "libmp3lame"),
        ("adts", "aac"),
        ("mp4", "aac"),
        ("flac", "flac"),
        ("ogg", "libopus"),
        ("webm", "libopus"),
        ("aiff", "pcm_s16be"),
    ],
)
def test_garbage_behind_the_sound_is_ignored(container: str, codec: str, garbage: bytes) -> None:
    assert_is_speech(encode(speech(), container, codec) + garbage)


# -- tracks -----------------------------------------------------------------------------------------------------------


def video_file(container: str, *, picture: float, starts: float = 0.0, silent: int = 0, **options: str) -> bytes:
    """Return a video with ``picture`` seconds of picture, 2 s of speech, and ``silent`` audio tracks before that with the speech."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=options) as file:
        video = file.add_stream("libx264", rate=5, options={"preset": "ultrafast"})
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        tracks = [file.add_stream("aac", rate=48_000, layout="mono") for _ in range(silent + 1)]
        blank = av.VideoFrame(32, 32, "yuv420p")
        for number in range(int(picture * 5)):
            blank.pts, blank.time_base = number, Fraction(1, 5)
            file.mux(video.encode(blank))
        file.mux(video.encode(None))
        for track in tracks[:-1]:
            put(file, track, np.zeros((1, 32_000), np.float32), "mono", 48_000)
        put(file, tracks[-1], speech()[None], "mono", 48_000, start=starts)
    return out.getvalue()


FRAGMENTED = "frag_keyframe+empty_moov"


@pytest.mark.parametrize("container", ["mp4", "mov", "fragmented mp4", "matroska"])
@pytest.mark.parametrize(
    "what",
    [
        pytest.param({"picture": 8}, id="picture longer"),
        pytest.param({"picture": 8, "starts": 5}, id="sound later"),
        pytest.param({"picture": 2, "silent": 1}, id="first track silent"),
        pytest.param({"picture": 2, "silent": 2}, id="two tracks silent", marks=pytest.mark.extended),
    ],
)
def test_the_voice_of_a_video_is_found_on_any_track_and_at_any_time(container: str, what: dict[str, int]) -> None:
    options = {"movflags": FRAGMENTED} if container.startswith("fragmented ") else {}
    assert_is_speech(video_file(container.removeprefix("fragmented "), **what, **options))


# -- joined recordings ------------------------------------------------------------------------------------------------

STEREO = np.stack([speech(), speech() * 0.5])
JOINED = {
    "mp3: mono and stereo": ("mp3", "libmp3lame", 44_100, 44_100, True),
    "mp3: two rates": ("mp3", "libmp3lame", 22_050, 44_100, False),
    "mp3: rates and channels": ("mp3", "libmp3lame", 48_000, 24_000, True),
    "aac: mono and stereo": ("adts", "aac", 44_100, 44_100, True),
    "aac: two rates": ("adts", "aac", 16_000, 44_100, False),
    "vorbis": ("ogg", "vorbis", 48_000, 44_100, True),
    "opus": ("ogg", "libopus", 48_000, 16_000, True),
    "ogg flac": ("ogg", "flac", 16_000, 44_100, True),
    "flac": ("flac", "flac", 16_000, 16_000, False),
    "flac: mono and stereo": ("flac", "flac", 16_000, 16_000, True),
    "flac: two rates": ("flac", "flac", 16_000, 44_100, False),
    "webm": ("webm", "libopus", 48_000, 48_000, True),
}


@pytest.mark.parametrize(
    "name", cells(JOINED, "mp3: rates and channels", "aac: mono and stereo", "vorbis", "flac: two rates", "webm")
)
@pytest.mark.parametrize("order", [1, pytest.param(-1, id="the other way round", marks=pytest.mark.extended)])
def test_concatenated_recordings_of_different_formats_are_read_to_the_end(name: str, order: int) -> None:
    container, codec, one, other, stereo = JOINED[name]
    mono = STEREO if codec == "vorbis" else speech()  # FFmpeg's encoder supports nothing else
    parts = [encode(mono, container, codec, one), encode(STEREO if stereo else speech(), container, codec, other)]
    data = b"".join(parts[::order])
    samples, sound = decode(data), heard(data)
    assert len(samples) / RATE == pytest.approx(4.0, abs=0.3)
    assert len(sound) / 48_000 == pytest.approx(4.0, abs=0.3)
    for half in (samples[: 2 * RATE], samples[2 * RATE :]):
        assert correlation(half, speech()) > 0.85
    assert Recording(data).stereo is stereo


def test_a_recording_ends_before_unreadable_data_that_follows() -> None:
    assert_is_speech(encode(speech(), "ogg", "libopus") + b"OggS\x00\x02" + bytes(400))


# -- garbage before the sound -------------------------------------------------------------------------------------------


def bare(container: str) -> bytes:
    data = encode(speech(), container, {"mp3": "libmp3lame", "adts": "aac"}[container])
    return data[data.index(b"\xff\xfb") :] if container == "mp3" else data


@pytest.mark.parametrize("container", cells(["mp3", "adts"], "mp3"))
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"\0" * 417, id="a frame of zeros"),
        pytest.param(b"\0" * 2048, id="zeros"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n", id="an HTTP header"),
        pytest.param(np.random.default_rng(5).bytes(200_000), id="200 kB of garbage"),
        pytest.param(b"\xff" * 1000, id="sync bytes"),
        pytest.param(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(700), id="a tag and padding"),
    ],
)
def test_frames_are_found_behind_garbage(container: str, before: bytes) -> None:
    data = before + bare(container)
    assert detect_format(io.BytesIO(data)).name == {"mp3": "mp3", "adts": "aac"}[container]
    assert_is_speech(data)


@pytest.mark.parametrize("container", ["mp3", "adts"])
@pytest.mark.parametrize("cut", [1, 7, 100, 333])
def test_recordings_that_begin_within_a_frame_are_read(container: str, cut: int) -> None:
    assert_is_speech(bare(container)[cut:])


def test_isolated_frame_headers_are_not_taken_for_a_recording() -> None:
    with pytest.raises(AudioError, match="not a supported recording"):
        decode(b"\xff\xfb\x90\x64" + b"no frame follows " * 5000 + b"\xff\xfb\x90\x64")


# -- channels ---------------------------------------------------------------------------------------------------------


def channels(*rows: float, noise: float = 0.0) -> np.ndarray:
    """Return the voice on several channels with different gains, each with noise of its own."""
    random = np.random.default_rng(3)
    return np.stack([speech() * row + random.normal(0, noise, 32_000)[: len(speech())] for row in rows])


CHANNELS = {
    "antiphase": channels(1, -1),
    "nearly antiphase": channels(1, -0.95),
    "the left alone": channels(1, 0),
    "the right alone": channels(0, 1),
    "the right, and noise": channels(0, 0.9, noise=2e-4),
    "the fourth of six": channels(0, 0, 0, 1, 0, 0),
    "the fourth of six, and noise": channels(0, 0, 0, 1, 0, 0, noise=1e-4),
    "the third of three": channels(0, 0, 1),
    "the last of four": channels(0, 0, 0, 1),
    "the fifth of eight": channels(0, 0, 0, 0, 1, 0, 0, 0),
    "the fourth of eight": channels(0, 0, 0, 1, 0, 0, 0, 0),
    "the seventh of nine": channels(*[0] * 6, 1, 0, 0),
    "the last of sixteen": channels(*[0] * 15, 1),
    "six in pairs of antiphase": channels(1, -1, 0.5, -0.5, 0.3, -0.3),
    "antiphase at first": np.concatenate([channels(1, -1)[:, :16_000], channels(1, 1)[:, 16_000:]], axis=1),
}


@pytest.mark.parametrize(
    "name",
    cells(
        CHANNELS,
        "antiphase",
        "the left alone",
        "the right, and noise",
        "the fourth of six",
        "the fifth of eight",
        "the seventh of nine",
        "antiphase at first",
    ),
)
def test_a_voice_on_any_channel_moves_the_mouth_and_is_heard_from_one_loudspeaker(name: str) -> None:
    data = wav(CHANNELS[name])
    assert_is_speech(data, least=0.8)
    loud = np.abs(heard(data)).max()
    assert loud > 0.25 * np.abs(speech()).max()


@pytest.mark.parametrize(
    "name", ["antiphase", "the left alone", "the right alone", "the right, and noise", "the fourth of six"]
)
def test_a_voice_is_heard_from_both_loudspeakers(name: str) -> None:
    frames = [frame.to_ndarray() for frame in Recording(wav(CHANNELS[name])).soundtrack()]
    sound = np.concatenate(frames, axis=1)
    if len(sound) == 2:
        assert np.abs(sound[0]).max() == pytest.approx(np.abs(sound[1]).max(), rel=0.1)


def test_two_speakers_stay_on_their_sides() -> None:
    one = np.concatenate([speech(1.0), np.zeros(16_000, np.float32)])
    recording = Recording(wav(np.stack([one, one[::-1]])))
    assert recording.stereo
    sound = np.concatenate([frame.to_ndarray() for frame in recording.soundtrack()], axis=1)
    assert np.abs(sound[0, :40_000]).max() > 0.1
    assert np.abs(sound[1, :40_000]).max() < 0.01


def test_a_recording_that_becomes_stereo_later_is_stereo() -> None:
    data = encode(speech(), "mp3", "libmp3lame") + encode(STEREO, "mp3", "libmp3lame")
    assert Recording(data).stereo


# -- loudness and numbers ---------------------------------------------------------------------------------------------

ODD = {
    "a NaN": (100, np.nan),
    "infinity": (100, np.inf),
    "minus infinity": (100, -np.inf),
    "a number out of all range": (100, 3e38),
    "a glitch": (100, 50_000.0),
    "a denormal": (100, 1e-42),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_single_invalid_samples_do_not_affect_the_others(name: str, kind: str) -> None:
    samples = speech().astype(float)
    at, value = ODD[name]
    samples[at::4000] = value
    data = wav(samples, kind=kind)
    for frame in Recording(data).soundtrack():
        assert np.isfinite(frame.to_ndarray()).all()
    found = decode(data)
    assert np.isfinite(found).all()
    assert correlation(found, speech()) > 0.7
    assert correlation(heard(data), speech(2.0, 48_000)) > 0.7


@pytest.mark.parametrize("scale", [4.0, 128.0, 32768.0, 2.0**31])
def test_floats_beyond_full_scale_are_turned_down_and_not_clipped(scale: float) -> None:
    data = wav(speech() * scale, kind="<f4")
    assert correlation(decode(data), speech()) > 0.999
    sound = heard(data)
    assert correlation(sound, speech(2.0, 48_000)) > 0.999
    assert 0.3 < np.abs(sound).max() <= 0.94


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(np.clip(speech() * 6, -1, 1), id="clipped"),
        pytest.param(np.sign(np.sin(np.arange(32_000) / 7)), id="a square wave"),
        pytest.param(np.full(32_000, -1.0), id="the least of all numbers"),
        pytest.param(channels(1, 1, 1, 1, 1, 1) * 1.4, id="surround"),
        pytest.param(channels(1, 1, 1, 1, 1, 1, 1, 1) * 1.4, id="eight channels"),
    ],
)
@pytest.mark.parametrize("kind", ["<i2", "<i4", "<f4"])
def test_the_soundtrack_leaves_headroom_for_the_encoder(samples: np.ndarray, kind: str) -> None:
    for frame in Recording(wav(samples, kind=kind)).soundtrack():
        assert np.abs(frame.to_ndarray()).max() < 0.95


def test_ordinary_speech_keeps_its_level() -> None:
    assert np.abs(heard(wav(speech()))).max() == pytest.approx(np.abs(speech(2.0, 48_000)).max(), rel=0.02)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 159])
@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_less_than_ten_milliseconds_is_refused(count: int, kind: str) -> None:
    samples = speech()[1000 : 1000 + count]
    data = wav(samples) if kind == "wav" else encode(samples, "flac", "flac", 16_000)
    with pytest.raises(AudioError, match="too short"):
        decode(data)


def test_ten_milliseconds_is_accepted() -> None:
    assert len(decode(wav(speech()[:160]))) == 160


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("flac", "flac"),
        ("mp4", "aac"),
        ("ogg", "libopus"),
        ("mp3", "libmp3lame"),
        ("wav", "pcm_s16le"),
        ("webm", "libopus"),
        ("aiff", "pcm_s16be"),
    ],
)
def test_what_is_announced_to_be_too_long_is_refused_before_it_is_decoded(container: str, codec: str) -> None:
    data = encode(np.zeros(16_000 * 20), container, codec)
    with pytest.raises(AudioError, match="longer than 10 seconds"):
        next(Recording(data, max_seconds=10).pieces())


def test_a_wav_with_thousands_of_chunks_is_refused() -> None:
    data = wav(speech())
    with pytest.raises(AudioError, match="chunks before the sound"):
        decode(data[:12] + b"junk\0\0\0\0" * 200_000 + data[12:])


def test_chunks_behind_the_sound_of_a_wav_are_not_read() -> None:
    data = bytearray(wav(np.concatenate([speech(), np.zeros(100_000)])))
    at = data.index(b"data")
    data[at + 4 : at + 8] = bytes(4)
    assert correlation(decode(bytes(data)), speech()) > 0.9


@pytest.mark.parametrize("container", ["wav", "matroska"])
def test_decoders_that_are_not_on_the_list_do_not_run(container: str) -> None:
    if container == "wav":
        data = bytearray(encode(speech(), "wav", "adpcm_ima_wav", 16_000))
        at = data.index(b"fmt ")
        data[at + 8 : at + 10] = struct.pack("<H", 0x200)  # Creative ADPCM, which FFmpeg could decode
    else:
        data = bytearray(encode(speech(), "matroska", "tta", 48_000))
    with pytest.raises(AudioError, match=r"cannot be decoded here.*ffmpeg -i"):
        decode(bytes(data))


def test_a_track_that_cannot_be_decoded_does_not_hide_one_that_can() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as file:
        for track in [file.add_stream(codec, rate=48_000, layout="mono") for codec in ("tta", "flac")]:
            put(file, track, speech()[None], "mono", 48_000)
    assert_is_speech(out.getvalue())


def test_encrypted_recordings_are_reported_as_protected() -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with pytest.raises(AudioError, match=r"protected \(DRM\)"):
        decode(encode(speech(), "mp4", "aac", **key))


def test_the_error_for_a_file_without_packets_names_no_rate_or_demuxer() -> None:
    whole = encode(speech(), "webm", "libopus")
    head = whole[: whole.index(b"\x1f\x43\xb6\x75")]
    with pytest.raises(AudioError) as caught:
        decode(head)
    assert " 0 " not in str(caught.value)
    assert "matroska" not in str(caught.value)


# -- errors that are not about the file ---------------------------------------------------------------------------------


def test_a_bug_is_not_reported_as_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("a2v.engine.audio.Segment.add", fail)
    with pytest.raises(ValueError, match="a bug"):
        decode(wav(speech()))


def test_a_disk_error_is_not_reported_as_a_damaged_file(tmp_path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2v.engine.decoding.io.BytesIO", Broken)
        with pytest.raises(OSError, match="Input/output"):
            decode(encode(speech(), "flac", "flac", 16_000))


# -- placeholder sizes and durations ------------------------------------------------------------------------------------

BE_PCM = (speech() * 32767).astype(">i2").tobytes()
LE_PCM = (speech() * 32767).astype("<i2").tobytes()
FMT = struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
W64 = {name: name + bytes.fromhex("f3acd3118cd100c04f8edb8a") for name in (b"wave", b"fmt ", b"data")}


def rf64(long_size: int, size: int) -> bytes:
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, long_size, len(LE_PCM) // 2, 0))
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + chunk(b"fmt ", FMT) + b"data" + struct.pack("<I", size) + LE_PCM


def w64(size: int, whole: int) -> bytes:
    riff = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", whole)
    return (
        riff
        + W64[b"wave"]
        + W64[b"fmt "]
        + struct.pack("<Q", 40)
        + FMT
        + W64[b"data"]
        + struct.pack("<Q", size)
        + LE_PCM
    )


def aiff(frames: int, sound: int, form: int) -> bytes:
    common = struct.pack(">hIh", 1, frames, 16) + bytes.fromhex("400CFA00000000000000")
    chunks = b"COMM" + struct.pack(">I", len(common)) + common + b"SSND" + struct.pack(">III", sound, 0, 0) + BE_PCM
    return b"FORM" + struct.pack(">I", form) + b"AIFF" + chunks


def au(size: int) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, size, 3, RATE, 1) + BE_PCM


def caf(size: int) -> bytes:
    description = struct.pack(">d4sIIIII", RATE, b"lpcm", 0, 2, 1, 1, 16)
    head = b"caff" + struct.pack(">HH", 1, 0) + b"desc" + struct.pack(">q", 32) + description
    return head + b"data" + struct.pack(">q", size) + bytes(4) + BE_PCM


COUNT, SIZE = len(BE_PCM) // 2, len(BE_PCM)
UNKNOWN = {
    "RF64, long size 0, short one right": rf64(0, SIZE),
    "RF64, both 0": rf64(0, 0),
    "RF64, all bits": rf64(2**64 - 1, 0),
    "W64, whole 0": w64(SIZE + 24, 0),
    "W64, whole and sound 0": w64(0, 0),
    "W64, sound is its head alone": w64(24, 2**63 - 1),
    "AIFF, whole 0": aiff(COUNT, SIZE + 8, 0),
    "AIFF, all 0": aiff(0, 0, 0),
    "AIFF, sound is its head alone": aiff(0, 8, 2**32 - 1),
    "AIFF, highest bits": aiff(2**31, 2**31, 2**31),
    "AIFF, as sox writes to a pipe": aiff(0x7F00_0000, 0x7F00_0008, 0x7F00_0000),
    "AU, highest bit": au(2**31),
    "CAF, all bits but the sign": caf(2**63 - 1),
    "CAF, no sound": caf(4),
}


@pytest.mark.parametrize("name", cells(UNKNOWN, "RF64, both 0", "W64, whole 0", "AIFF, all 0", "AU, highest bit"))
def test_any_combination_of_placeholder_sizes_is_read_to_the_end(name: str) -> None:
    assert_is_speech(UNKNOWN[name])


@pytest.mark.parametrize(
    "data",
    [rf64(SIZE, 2**32 - 1), w64(SIZE + 24, 0), aiff(COUNT, SIZE + 8, 0), au(SIZE), caf(SIZE + 4)],
    ids=["RF64", "W64", "AIFF", "AU", "CAF"],
)
def test_a_plausible_size_reveals_a_truncated_recording(data: bytes) -> None:
    decode(data)
    with pytest.raises(AudioError, match="cut off"):
        decode(data[: -SIZE // 2])


def test_a_flac_with_a_placeholder_duration_is_read() -> None:
    data = bytearray(encode(speech(), "flac", "flac", 16_000))
    known = int.from_bytes(data[18:26], "big")
    data[18:26] = (known | (1 << 36) - 1).to_bytes(8, "big")
    assert_is_speech(bytes(data))


def test_sound_that_starts_late_in_a_fragmented_video_is_complete() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"movflags": "frag_keyframe+delay_moov"}) as file:
        picture, sound = file.add_stream("mpeg4", rate=10), file.add_stream("aac", rate=48_000, layout="mono")
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        for number in range(400):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(picture.encode(frame))
            if number == 100:
                put(file, sound, np.atleast_2d(speech()), "mono", 48_000, start=10)
        file.mux(picture.encode(None))
    assert_is_speech(out.getvalue())


def id3(size: bytes, content: bytes) -> bytes:
    return b"ID3\x03\0\0" + size + content


BEFORE = {
    "much that is zero": bytes(600_000),
    "head of HTTP": b"HTTP/1.1 200 OK\r\nContent-Type: audio/x\r\n\r\n",
    "part of a form": b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n',
    "line": b"\r\n",
    "tag and zeros": id3(b"\0\0\0\x20", bytes(32 + 5000)),
    "tag that is too long": id3(b"\x7f\x7f\x7f\x7f", bytes(50)),
    "tag with a length of eight bits a byte": id3(b"\0\x09\0\0", b"\xaa" * 0x9_0000),
}


@pytest.mark.parametrize("before", cells(BEFORE, "head of HTTP", "tag with a length of eight bits a byte"))
@pytest.mark.parametrize("kind", cells(("mp3", "adts", "wav", "flac", "ogg", "mp4", "aiff"), "mp3", "wav"))
def test_data_before_a_recording_is_skipped(kind: str, before: str) -> None:
    codec = {"mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac", "ogg": "libopus", "aiff": "pcm_s16be"}
    rate = 48_000 if kind == "ogg" else 16_000
    assert_is_speech(BEFORE[before] + encode(speech(), kind, codec.get(kind, "aac"), rate))


@pytest.mark.parametrize("hiss", [-60.0, -75.0])
def test_a_first_track_with_only_hiss_is_skipped(hiss: float) -> None:
    noise = np.random.default_rng(0).normal(0, 10 ** (hiss / 20), len(speech())).astype(np.float32)
    out = io.BytesIO()
    with av.open(out, "w", format="mov") as file:
        streams = [file.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for stream, samples in zip(streams, (noise, speech()), strict=True):
            put(file, stream, np.atleast_2d(samples), "mono", 16_000)
    assert_is_speech(out.getvalue())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"code": 1004, "message": "no"}', "JSON"),
        (b"\n<html lang='en'>", "HTML"),
        (b"<!-- a proxy --><html>", "HTML"),
        ("version 1: ça va".encode(), "text"),
        (b"\0\0\0\x18ftypheic" + bytes(16), "HEIF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Microsoft Office"),
        (b"\x02dss" + bytes(64), "DSS"),
        (b"RIFF\0\0\0\0RMIDdata", "MIDI"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
    ],
)
def test_documents_and_pictures_are_named(data: bytes, name: str) -> None:
    with pytest.raises(AudioError, match=f"This is an? {name}"):
        decode(data)
