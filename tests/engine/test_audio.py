from __future__ import annotations

import io
import os
import struct
import wave

import av
import numpy as np
import pytest

from a2v.engine.audio import RATE, Recording, decode
from a2v.engine.errors import AudioError, RenderError
from a2v.engine.formats import detect_format


def tone(seconds: float, rate: int = RATE, hertz: float = 220.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.repeat(samples, channels) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def format_of(data: bytes) -> str:
    return detect_format(io.BytesIO(data)).name


def encoded(samples: np.ndarray, container_format: str, codec: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", 48_000, stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return out.getvalue()


KINDS = [
    ("mp3", "libmp3lame", "mp3"),
    ("ogg", "libopus", "ogg"),
    ("flac", "flac", "flac"),
    ("mp4", "aac", "mp4"),
    ("ipod", "aac", "mp4"),
    ("adts", "aac", "aac"),
    ("webm", "libopus", "matroska"),
    ("wav", "pcm_s24le", "wav"),
    ("wav", "pcm_f32le", "wav"),
]


@pytest.mark.parametrize(("container", "codec", "kind"), KINDS)
def test_supported_formats_are_decoded(container: str, codec: str, kind: str) -> None:
    data = encoded(tone(1.5, 48_000), container, codec)
    assert format_of(data) == kind
    samples = decode(data)
    assert samples.dtype == np.float32
    assert len(samples) / RATE == pytest.approx(1.5, abs=0.12)
    middle = np.abs(np.fft.rfft(samples[4000:20000]))
    assert middle.argmax() == pytest.approx(220, abs=2)  # one bin is one hertz here


def test_wav_samples_are_unchanged() -> None:
    samples = tone(0.5)
    assert np.abs(decode(wav(samples)) - samples).max() < 1e-3


def test_mp3_without_a_tag_is_detected_by_its_frames() -> None:
    data = encoded(tone(1.0, 48_000), "mp3", "libmp3lame")
    assert data.startswith(b"ID3")
    bare = data[data.index(b"\xff\xfb") :]
    assert format_of(bare) == "mp3"
    assert len(decode(bare)) > 0.9 * RATE


def test_a_tag_does_not_hide_the_format_behind_it() -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    assert format_of(tag + encoded(tone(0.5, 48_000), "adts", "aac")) == "aac"


def test_stereo_at_another_rate_becomes_mono_at_16_khz() -> None:
    data = wav(tone(0.5, 44_100), 44_100, channels=2)
    assert len(decode(data)) == pytest.approx(RATE / 2, abs=32)
    assert Recording(data).stereo
    assert not Recording(wav(tone(0.5))).stereo


def test_the_soundtrack_keeps_channels_and_length() -> None:
    frames = list(Recording(wav(tone(1.0, 44_100), 44_100, channels=2)).soundtrack())
    assert {(frame.sample_rate, frame.layout.nb_channels) for frame in frames} == {(48_000, 2)}
    assert sum(frame.samples for frame in frames) == pytest.approx(48_000, abs=64)


def test_silence_is_accepted() -> None:
    assert not decode(wav(np.zeros(RATE))).any()


def test_nan_and_infinity_become_finite_samples() -> None:
    header = wav(np.zeros(0))[:20] + struct.pack("<HHIIHH", 3, 1, RATE, RATE * 4, 4, 32)
    samples = np.array([np.nan, np.inf, -np.inf, 0.5, 9.0] * 400, "<f4").tobytes()
    data = header + b"data" + struct.pack("<I", len(samples)) + samples
    decoded = decode(data)
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() <= 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x00" * 5000,
        b"<!doctype html><title>404</title>",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"%PDF-1.7" + bytes(100),
        bytes(range(256)) * 40,
        b"RIFF\x00\x00\x00\x00AVI " + bytes(100),
        b"\xff\xff\xff\xff" * 2000,
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(AudioError, match=r"not a supported recording|has no bytes"):
        decode(data)


@pytest.mark.parametrize("prefix", ["", "ID3\x04\x00\x00\x00\x00\x00\x00", "\ufeff"])
@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile '{path}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 45678 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD><Period><AdaptationSet><BaseURL>{path}</BaseURL></AdaptationSet></Period></MPD>',
        "[playlist]\nFile1={path}\n",
        "<smil><body><audio src='{path}'/></body></smil>",
    ],
)
def test_playlists_are_not_followed(script: str, prefix: str, tmp_path) -> None:
    # If the playlist were followed, decoding would succeed: it refers to a valid recording.
    (tmp_path / "secret.wav").write_bytes(wav(tone(1.0)))
    data = (prefix + script.format(path=tmp_path / "secret.wav")).encode()
    with pytest.raises(AudioError):
        decode(data)


@pytest.mark.parametrize(
    "head", [b"RIFF\x10\x00\x00\x00WAVE", b"OggS", b"fLaC", b"\x1aE\xdf\xa3", b"....ftypisom", b"\xff\xf1P\x80"]
)
def test_a_valid_signature_with_an_invalid_body_is_refused(head: bytes) -> None:
    with pytest.raises(AudioError):
        decode(head + b"ffconcat version 1.0\nfile /etc/passwd\n" * 50)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("flac", "flac"), ("wav", "pcm_s16le")])
def test_a_truncated_recording_is_reported_as_cut_off(container: str, codec: str) -> None:
    data = encoded(tone(6.0, 48_000), container, codec)
    with pytest.raises(AudioError, match=r"cut off|damaged"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("length", [1, 12, 20, 40])
def test_a_header_without_sound_is_refused(length: int) -> None:
    with pytest.raises(AudioError):
        decode(wav(tone(0.5))[:length])


def test_a_valid_file_without_samples_is_refused() -> None:
    with pytest.raises(AudioError, match=r"has no sound|damaged"):
        decode(wav(np.zeros(0)))


def test_a_video_without_an_audio_track_is_refused() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no audio track"):
        decode(out.getvalue())


def test_a_recording_longer_than_the_limit_is_refused() -> None:
    data = wav(tone(3.0))
    assert len(decode(data, max_seconds=3.0)) == 3 * RATE
    with pytest.raises(AudioError, match="longer than 2 seconds"):
        decode(data, max_seconds=2.0)


def test_a_small_file_with_a_long_recording_is_refused() -> None:
    data = encoded(np.zeros(48_000 * 700, np.float32), "flac", "flac")
    assert len(data) < 200_000
    with pytest.raises(AudioError, match="longer than 10 minutes"):
        decode(data, max_seconds=600)


@pytest.mark.parametrize("rate", [1, 100, 2_000_000_000])
def test_absurd_sample_rates_are_refused(rate: int) -> None:
    data = bytearray(wav(tone(1.0)))
    data[24:28] = struct.pack("<I", rate)
    with pytest.raises(AudioError):
        decode(bytes(data))


def test_an_audio_error_is_a_render_error() -> None:
    assert issubclass(AudioError, RenderError)


def test_a_path_is_decoded_like_its_content_whatever_its_name(tmp_path) -> None:
    data = wav(tone(0.5, 44_100), 44_100, channels=2)
    path = tmp_path / "list.m3u8"
    path.write_bytes(data)
    assert (decode(path) == decode(data)).all()
    assert Recording(path).stereo
    assert Recording(path).digest() == Recording(data).digest() != Recording(data + b"x").digest()
    assert sum(frame.samples for frame in Recording(path).soundtrack()) == pytest.approx(24_000, abs=64)


def test_ffmpeg_does_not_learn_the_name_of_a_file(tmp_path, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(av, "open", lambda file, *args, **options: opened.append(file) or real(file, *args, **options))
    path = tmp_path / "secret.wav"
    path.write_bytes(wav(tone(0.1)))
    real = av.container.open
    decode(path)
    (file,) = opened
    assert not isinstance(file, (str, os.PathLike))
    assert not hasattr(file, "name")
