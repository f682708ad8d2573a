"""The fidelity of soundtracks: the signal-to-noise ratio (SNR) of the video against the recording."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest

import a2v.engine
from a2v.engine.audio import Recording
from a2v.engine.decoding import _IGNORE_TAGS
from a2v.engine.render import render
from a2v.engine.video_writer import FrameBuffer, open_video

CLIPS = {path.stem: path for path in sorted((Path(a2v.engine.__file__).parent / "recordings").glob("*.flac"))}
RATE = 48_000


def decoded(source, layout: str = "mono") -> np.ndarray:
    """Decode a file with FFmpeg: a row per channel, 48,000 samples per second."""
    with av.open(source, **_IGNORE_TAGS) as container:
        resampler = av.AudioResampler("fltp", layout, RATE)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray((np.clip(samples, -1, 1) * 32767).T).astype("<i2").tobytes())
    return out.getvalue()


def encoded(recording: bytes | Recording, path: Path, layout: str = "mono") -> np.ndarray:
    """Return the soundtrack of a recording after encoding, from a video of one small frame."""
    with open_video(path, 16, 16, 25) as writer:
        writer.add_soundtrack(recording if isinstance(recording, Recording) else Recording(recording))
        writer.add_frame(FrameBuffer(16, 16).frame)
    return decoded(str(path), layout)


def snr(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Return the signal-to-noise ratio and the gain in dB, after aligning the two signals."""
    size = 1 << (len(found) + len(wanted)).bit_length()
    lag = int(np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(wanted, size)), size)[:4096].argmax())
    count = min(len(found) - lag, len(wanted)) - 4096
    a, b = found[lag + 2048 : lag + count].astype(float), wanted[2048:count].astype(float)
    gain = a @ b / (b @ b)
    noise = a - gain * b
    return 10 * float(np.log10(gain**2 * (b @ b) / (noise @ noise))), 20 * float(np.log10(abs(gain)))


def speech(name: str = "slt", seconds: float = 3.0) -> np.ndarray:
    return decoded(str(CLIPS[name]))[:, : int(seconds * RATE)]


@pytest.mark.parametrize("name", CLIPS)
def test_ordinary_speech_has_50_db(name: str, tmp_path: Path) -> None:
    noise, louder = snr(encoded(wav(speech(name)), tmp_path / "video.mp4")[0], speech(name)[0])
    assert noise > 50
    assert abs(louder) < 0.2


@pytest.mark.parametrize("peak", [0.8, 0.99])
def test_normalized_speech_has_50_db(peak: float, tmp_path: Path) -> None:
    loud = speech() / np.abs(speech()).max() * peak
    noise, louder = snr(encoded(wav(loud), tmp_path / "video.mp4")[0], loud[0])
    assert noise > 50
    assert -3 < louder < 0.1


@pytest.mark.parametrize("times", [6, *(pytest.param(one, marks=pytest.mark.extended) for one in (3, 20))])
def test_clipped_speech_has_20_db(times: float, tmp_path: Path) -> None:
    clipped = np.clip(speech() * times, -1, 1)
    noise, louder = snr(encoded(wav(clipped), tmp_path / "video.mp4")[0], clipped[0])
    assert noise > 20
    assert -3.5 < louder < 0.1


@pytest.mark.parametrize("loud", [0.3, 0.9])
def test_a_surround_downmix_has_35_db(loud: float, tmp_path: Path) -> None:
    names = ["slt", "awb", "june", "carlo", "slt", "june"]
    rows = np.concatenate([np.roll(speech(name), 7000 * number) for number, name in enumerate(names)])
    data = wav(rows * loud / np.abs(rows).max())
    wanted = decoded(io.BytesIO(data), "stereo")
    found = encoded(data, tmp_path / "video.mp4", "stereo")
    for side in (0, 1):
        assert snr(found[side], wanted[side])[0] > 35


@pytest.mark.parametrize(
    "hertz", [1000, *(pytest.param(one, marks=pytest.mark.extended) for one in (60, 220, 440, 3000, 8000))]
)
@pytest.mark.parametrize("peak", [1.0, 0.7, 0.5, 0.25])
def test_pure_tones_are_not_distorted(hertz: int, peak: float, tmp_path: Path) -> None:
    tone = peak * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)[None]
    noise, louder = snr(encoded(wav(tone), tmp_path / "video.mp4")[0], tone[0])
    assert noise > 40
    assert abs(louder) < 1


def test_a_beep_does_not_distort_the_speech_around_it(tmp_path: Path) -> None:
    samples = speech().copy()
    samples[0, RATE : RATE + RATE // 2] = 0.9 * np.sin(2 * np.pi * 1000 * np.arange(RATE // 2) / RATE)
    assert snr(encoded(wav(samples), tmp_path / "video.mp4")[0], samples[0])[0] > 35


# -- rendered ---------------------------------------------------------------------------------------------------------


def floats(samples: np.ndarray) -> bytes:
    """Return a WAV file of floating-point samples."""
    data = samples.astype("<f4").T.tobytes()
    head = bytearray(wav(np.zeros((len(samples), 1)))[:44])
    channels = len(samples)
    head[20:22], head[28:36] = b"\x03\0", (RATE * 4 * channels).to_bytes(4, "little") + bytes([4 * channels, 0, 32, 0])
    head[4:8], head[40:44] = (len(data) + 36).to_bytes(4, "little"), len(data).to_bytes(4, "little")
    return bytes(head) + data


def mouths(path: Path) -> np.ndarray:
    """Return the number of dark pixels of the mouth in each frame; an open mouth is dark."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    parts = [picture[68:85, 54:74] for picture in pictures]
    return np.array([(part.sum(2) < 150).sum() for part in parts])


@pytest.mark.parametrize(
    "what",
    [
        "NaN",
        "antiphase",
        "one of six",
        *(pytest.param(one, marks=pytest.mark.extended) for one in ("infinity", "one side", "scaled as integers")),
    ],
)
def test_unusual_recordings_are_rendered_with_their_voice(what: str, tmp_path: Path) -> None:
    voice = speech(seconds=1.2)
    silence = np.zeros_like(voice)
    odd = voice.copy()
    odd[0, ::9001] = {"NaN": np.nan, "infinity": -np.inf}.get(what, 0)
    data = {
        "antiphase": wav(np.concatenate([voice, -voice])),
        "one side": wav(np.concatenate([silence, voice])),
        "one of six": wav(np.concatenate([*[silence] * 3, voice, silence, silence])),
        "scaled as integers": floats(voice * 32768),
    }.get(what, floats(odd))
    path = tmp_path / "video.mp4"
    render(Recording(data), "eva_a0008", path, size=128)
    sound = decoded(str(path))[0]
    assert np.abs(sound).max() > 0.3
    assert snr(sound, voice[0])[0] > (15 if what in ("NaN", "infinity") else 35)
    assert np.ptp(mouths(path)) > 10


def test_a_recording_is_opened_once_for_the_analysis_and_once_for_the_soundtrack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = av.open, []
    monkeypatch.setattr(
        "a2v.engine.decoding.av.open",
        lambda file, *rest, **options: opened.append(file) or real(file, *rest, **options),
    )
    recording = Recording(wav(speech()))
    for _ in recording.pieces():
        continue
    encoded(recording, tmp_path / "video.mp4")
    assert len([file for file in opened if not isinstance(file, (str, Path))]) == 2
