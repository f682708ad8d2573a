from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from a2v.engine import render as render_module
from a2v.engine.errors import AudioError, RenderError
from a2v.engine.render import render

RATE = 16_000


def vowel(seconds: float) -> np.ndarray:
    """A loud, wide open aa."""
    time = np.arange(int(seconds * RATE)) / RATE
    parts = [
        np.sin(2 * np.pi * h * time) / (1 + (min(abs(h - 800), abs(h - 1200)) / 90) ** 2) for h in range(120, 4000, 120)
    ]
    voice = np.sum(parts, axis=0)
    return 0.5 * voice / np.abs(voice).max()


def wav(samples: np.ndarray, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.repeat(samples, channels) * 32767).astype("<i2").tobytes())
    return out.getvalue()


# A second of silence, a second of voice, a second of silence.
SPEECH = wav(np.concatenate([np.zeros(RATE), vowel(1.0), np.zeros(RATE)]))
SHORT = wav(vowel(0.3))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "eva.mp4"
    render(SPEECH, "eva_a0008", path, size=256)
    return path


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_the_video_is_h264_and_aac_at_25_frames_a_second(video: Path) -> None:
    with av.open(str(video)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert picture.codec_context.name == "h264"
        assert sound.codec_context.name == "aac"
        assert picture.average_rate == 25
        assert (picture.width, picture.height) == (256, 256)
        assert picture.codec_context.pix_fmt == "yuv420p"
        assert picture.codec_context.colorspace == 1  # BT.709
        assert sound.rate == 48_000


def test_picture_and_sound_are_as_long_as_the_recording(video: Path) -> None:
    assert len(frames(video)) == 75
    with av.open(str(video)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48_000 == pytest.approx(3.0, abs=0.05)


def test_the_sound_is_the_recording(video: Path) -> None:
    with av.open(str(video)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    seconds = [sound[i * 48_000 : (i + 1) * 48_000] for i in range(3)]
    assert np.abs(seconds[1]).mean() > 0.02
    assert np.abs(seconds[0][:-2000]).mean() < 1e-3
    assert np.abs(seconds[2][2000:]).mean() < 1e-3


def test_the_index_comes_first_so_that_browsers_can_start_at_once(video: Path) -> None:
    data = video.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_mouth_is_shut_in_silence_and_open_in_the_vowel(video: Path) -> None:
    pictures = frames(video)

    def dark(number: int) -> int:
        mouth = pictures[number][136:170, 108:148]
        red, green = mouth[..., 0], mouth[..., 1]
        return int(((green < 45) & (red - green > 25) & (red < 125)).sum())

    silent = [dark(number) for number in (*range(2, 22), *range(55, 75))]
    spoken = [dark(number) for number in range(30, 47)]
    assert max(silent) < 40
    assert min(spoken) > 120


def test_the_same_request_gives_the_same_video(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        render(SHORT, "omar_a0012", tmp_path / name, size=128)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_another_character_is_another_video(tmp_path: Path) -> None:
    for name in ("omar_a0012", "ruth_a0021"):
        render(SHORT, name, tmp_path / name, size=128)
    assert np.abs(frames(tmp_path / "omar_a0012")[2] - frames(tmp_path / "ruth_a0021")[2]).mean() > 10


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    render(wav(vowel(0.3), channels=2), "eva_a0008", tmp_path / "stereo.mp4", size=128)
    with av.open(str(tmp_path / "stereo.mp4")) as container:
        assert container.streams.audio[0].layout.nb_channels == 2


def test_a_recording_of_one_sample_is_one_frame(tmp_path: Path) -> None:
    render(wav(np.zeros(1)), "eva_a0008", tmp_path / "tiny.mp4", size=128)
    assert len(frames(tmp_path / "tiny.mp4")) == 1


def test_silence_is_rendered_as_somebody_who_says_nothing(tmp_path: Path) -> None:
    render(wav(np.zeros(RATE)), "eva_a0008", tmp_path / "silent.mp4", size=128)
    assert len(frames(tmp_path / "silent.mp4")) == 25


@pytest.mark.parametrize(
    ("recording", "model_id", "error"),
    [(b"hello", "eva_a0008", AudioError), (SHORT, "bob", RenderError), (SHORT[:30], "eva_a0008", AudioError)],
)
def test_a_failed_render_leaves_nothing_behind(recording, model_id, error, tmp_path: Path) -> None:
    with pytest.raises(error):
        render(recording, model_id, tmp_path / "out.mp4", size=128)
    assert list(tmp_path.iterdir()) == []


def test_a_render_that_breaks_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    def broken(person, pose):
        if next(drawn) == 60 and list(tmp_path.iterdir()):
            raise OSError("the disk is full")
        return draw(person, pose)

    drawn, draw = itertools.count(), render_module.bust
    monkeypatch.setattr(render_module, "bust", broken)
    with pytest.raises(OSError, match="disk is full"):
        render(SPEECH, "eva_a0008", tmp_path / "out.mp4", size=128)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_too_long_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="longer than 1 second"):
        render(SPEECH, "eva_a0008", tmp_path / "out.mp4", size=128, max_seconds=1)
    assert list(tmp_path.iterdir()) == []


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        render(SHORT, "eva_a0008", tmp_path / "out.mp4", size=127)


def test_what_stood_at_the_destination_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    render(SHORT, "eva_a0008", tmp_path / "out.mp4", size=128)
    assert len(frames(tmp_path / "out.mp4")) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def work(recording: bytes, model_id: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    source, destination = folder / "recording", folder / "video.mp4"
    source.write_bytes(recording)
    command = [sys.executable, "-m", "a2v.engine.worker", str(source), model_id, str(destination), "--size", "128"]
    # From another folder, as the server may be anywhere; the package under test must still be the one found.
    package = Path(__file__).parents[2] if (Path(__file__).parents[2] / "a2v").is_dir() else None
    env = {**os.environ, **({"PYTHONPATH": str(package)} if package else {})}
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return subprocess.run(
        command, capture_output=True, text=True, cwd=elsewhere, env=env, timeout=60, check=False
    ), destination


def test_the_worker_makes_a_video_and_says_so_in_one_line(tmp_path: Path) -> None:
    done, destination = work(SHORT, "eva_a0008", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == '{"ok": true}\n'
    assert len(frames(destination)) == 8


@pytest.mark.parametrize(
    ("recording", "model_id", "message"),
    [
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "eva_a0008", "not a recording"),
        (b"OggS" + b"x" * 500, "eva_a0008", "damaged"),
        (SHORT, "bob", "no character 'bob'"),
    ],
)
def test_the_worker_tells_what_is_wrong_with_a_request(recording, model_id, message, tmp_path: Path) -> None:
    done, destination = work(recording, model_id, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert message in answer["message"]
    assert done.stdout.count("\n") == 1
    assert not destination.exists()
