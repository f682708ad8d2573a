from __future__ import annotations

import io
import itertools
import json
import os
import select
import subprocess
import sys
import wave
from pathlib import Path
from typing import get_args

import anyio
import anyio.lowlevel
import av
import numpy as np
import pytest

from a2v.engine import lipsync, renderer
from a2v.engine import render as render_module
from a2v.engine.audio import Recording
from a2v.engine.errors import AudioError, RenderError
from a2v.engine.face_pose import VISEMES, Mood
from a2v.engine.render import picture_size, render
from a2v.engine.settings import Settings
from a2v.engine.video_options import Container
from a2v.errors import ConfigurationError

RATE = 16_000


def vowel(seconds: float) -> np.ndarray:
    """Return a loud, wide open aa."""
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
    render(Recording(SPEECH), "eva_a0008", path, size=256)
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
    # The seam of closed lips is dark too.
    assert max(silent) * 3 < min(spoken)
    assert min(spoken) > 120


@pytest.mark.parametrize("fps", [25, 30])
def test_frames_have_the_requested_rate_and_end_with_the_sound(fps: int, tmp_path: Path) -> None:
    render(Recording(SPEECH), "eva_a0008", tmp_path / "video.mp4", size=128, fps=fps)
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert container.streams.video[0].average_rate == fps
        assert container.duration == pytest.approx(3 * av.time_base, rel=0.02)
    assert len(frames(tmp_path / "video.mp4")) == 3 * fps


@pytest.mark.parametrize("fps", [25, 30])
def test_the_mouth_opens_with_the_voice_at_any_rate(fps: int, tmp_path: Path) -> None:
    render(Recording(SPEECH), "eva_a0008", tmp_path / "video.mp4", size=256, fps=fps)
    pictures = frames(tmp_path / "video.mp4")
    mouths = [picture[136:170, 108:148, 1] for picture in pictures]
    changed = [np.abs(mouth - mouths[fps // 2]).mean() for mouth in mouths]
    # In the middle of the voiced second, against that of the first silent one.
    assert min(changed[fps + fps // 3 : 2 * fps - fps // 3]) > 3 * max(changed[fps // 4 : fps * 3 // 4])


@pytest.mark.anyio
async def test_a_worker_renders_the_mood_of_the_request(tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(SHORT)
    moods: list[Mood | None] = [None, "concerned"]
    for mood in moods:
        render(Recording(SHORT), "eva_a0008", tmp_path / f"{mood}.mp4", size=128, mood=mood)
    request = renderer.RenderRequest(
        audio=tmp_path / "speech.wav",
        subject_id="eva_a0008",
        destination=tmp_path / "worker.mp4",
        size=128,
        mood="concerned",
    )
    await renderer.render_in_child(request)
    expected, different = (frames(tmp_path / name)[5] for name in ("concerned.mp4", "None.mp4"))
    found = frames(tmp_path / "worker.mp4")[5]
    assert (found == expected).all()
    assert (found != different).any()


@pytest.mark.parametrize(("wrong", "said"), [({"format": "wide"}, "square, portrait"), ({"fps": 29}, "24, 25, 30")])
def test_settings_refuse_unsupported_formats_and_frame_rates(wrong, said) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Settings(**wrong)


@pytest.mark.parametrize(("size", "height"), [(512, 910), (720, 1280), (1080, 1920)])
def test_a_portrait_is_sixteen_to_nine(size: int, height: int) -> None:
    assert picture_size(size, "portrait") == (size, height)
    assert picture_size(size, "square") == (size, size)


def test_in_a_portrait_the_person_reaches_the_lower_edge(tmp_path: Path) -> None:
    render(
        Recording(SHORT), "eva_a0008", tmp_path / "video.mp4", mask=tmp_path / "mask.mp4", size=90, format="portrait"
    )
    (first, *_) = frames(tmp_path / "video.mp4")
    assert first.shape == (160, 90, 3)
    (mask, *_) = frames(tmp_path / "mask.mp4")
    assert mask[-1, 20:70].min() > 200
    assert mask[:8].max() < 60


def test_a_mask_is_white_where_the_person_is_and_as_long_as_the_video(tmp_path: Path) -> None:
    render(Recording(SPEECH), "omar_a0012", tmp_path / "video.mp4", mask=tmp_path / "mask.mp4", size=256)
    with av.open(str(tmp_path / "mask.mp4")) as container:
        assert not container.streams.audio
        assert container.streams.video[0].average_rate == 25
    video, mask = frames(tmp_path / "video.mp4"), frames(tmp_path / "mask.mp4")
    assert len(mask) == len(video) == 75
    for picture, cover in zip(video[::10], mask[::10], strict=True):
        assert np.isin(cover[..., 0] // 64, (0, 3)).mean() > 0.98  # black or white except at the edges
        assert cover[120, 128].min() > 240  # the nose
        assert cover[250, 40:216].min() > 240  # the chest
        assert cover[:20].max() < 16
        # The uncovered area is the backdrop, which only the compression changes.
        outside = cover.max(-1) < 32
        assert np.abs(picture - video[0])[outside & (mask[0].max(-1) < 32)].mean() < 1.5


def test_a_video_is_the_same_with_and_without_a_mask(tmp_path: Path) -> None:
    render(Recording(SHORT), "eva_a0008", tmp_path / "one.mp4", size=128)
    render(Recording(SHORT), "eva_a0008", tmp_path / "two.mp4", mask=tmp_path / "mask.mp4", size=128)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_a_close_up_is_closer(tmp_path: Path) -> None:
    covered = []
    for pose in ("eva_a0008_front", "eva_a0008_closeup"):
        render(Recording(SHORT), pose, tmp_path / "video.mp4", mask=tmp_path / "mask.mp4", size=128)
        covered.append((frames(tmp_path / "mask.mp4")[0] > 128).mean())
    assert covered[1] > covered[0] * 1.2


def test_a_model_id_selects_the_default_pose(tmp_path: Path) -> None:
    for who in ("eva_a0008", "eva_a0008_front"):
        render(Recording(SHORT), who, tmp_path / who, size=128)
    assert (tmp_path / "eva_a0008").read_bytes() == (tmp_path / "eva_a0008_front").read_bytes()


def test_a_recording_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "recording").write_bytes(SHORT)
    render(Recording(SHORT), "eva_a0008", tmp_path / "one.mp4", size=128)
    render(Recording(tmp_path / "recording"), "eva_a0008", tmp_path / "two.mp4", size=128)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


@pytest.mark.parametrize("seconds", [64.99, 65.0, 130.01])
def test_a_long_recording_is_analysed_in_pieces_without_a_seam(seconds: float) -> None:
    # Alternately two seconds of voice and of silence. Pieces end at 60 and at 120 seconds.
    samples = np.resize(np.concatenate([vowel(2.0), np.zeros(2 * RATE)]), int(seconds * RATE)).astype(np.float32)
    likely, loudness = lipsync.analyse_pieces(np.array_split(samples, 200))
    assert len(likely) == len(loudness) == -(-len(samples) // lipsync.HOP)
    silent = likely.argmax(1) == VISEMES.index("X")
    for start in range(0, int(seconds) - 1, 2):
        inside = slice(start * 100 + 30, start * 100 + 170)
        assert silent[inside].mean() == pytest.approx(start // 2 % 2, abs=0.05), start
        assert (loudness[inside].mean() > -40) == (start // 2 % 2 == 0)


@pytest.mark.parametrize("container", get_args(Container))
def test_the_same_request_gives_the_same_video(tmp_path: Path, container: Container) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        render(Recording(SHORT), "omar_a0012", path, size=128, container=container)
    assert first.read_bytes() == second.read_bytes()


def test_another_character_is_another_video(tmp_path: Path) -> None:
    for name in ("omar_a0012", "ruth_a0021"):
        render(Recording(SHORT), name, tmp_path / name, size=128)
    assert np.abs(frames(tmp_path / "omar_a0012")[2] - frames(tmp_path / "ruth_a0021")[2]).mean() > 10


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    warning = render(Recording(wav(vowel(0.3), channels=2)), "eva_a0008", tmp_path / "stereo.mp4", size=128)
    assert warning is None
    with av.open(str(tmp_path / "stereo.mp4")) as container:
        assert container.streams.audio[0].layout.nb_channels == 2


def test_the_shortest_recording_is_one_frame(tmp_path: Path) -> None:
    render(Recording(wav(np.zeros(160))), "eva_a0008", tmp_path / "tiny.mp4", size=128)
    assert len(frames(tmp_path / "tiny.mp4")) == 1


def test_silence_is_rendered(tmp_path: Path) -> None:
    warning = render(Recording(wav(np.zeros(RATE))), "eva_a0008", tmp_path / "silent.mp4", size=128)
    assert warning == "no speech was found in the recording, so the mouth stays closed"
    assert len(frames(tmp_path / "silent.mp4")) == 25


@pytest.mark.parametrize(
    ("recording", "model_id", "error"),
    [(b"hello", "eva_a0008", AudioError), (SHORT, "bob", RenderError), (SHORT[:30], "eva_a0008", AudioError)],
)
def test_a_failed_render_leaves_no_files(recording, model_id, error, tmp_path: Path) -> None:
    with pytest.raises(error):
        render(Recording(recording), model_id, tmp_path / "out.mp4", size=128)
    assert list(tmp_path.iterdir()) == []


def test_a_render_that_fails_halfway_leaves_no_files(tmp_path: Path, monkeypatch) -> None:
    def broken(person, pose):
        if next(drawn) == 60 and list(tmp_path.iterdir()):
            raise OSError("the disk is full")
        return draw(person, pose)

    drawn, draw = itertools.count(), render_module.bust
    monkeypatch.setattr(render_module, "bust", broken)
    with pytest.raises(OSError, match="disk is full"):
        render(Recording(SPEECH), "eva_a0008", tmp_path / "out.mp4", mask=tmp_path / "mask.mp4", size=128)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_too_long_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="longer than 1 second"):
        render(Recording(SPEECH, max_seconds=1), "eva_a0008", tmp_path / "out.mp4", size=128)
    assert list(tmp_path.iterdir()) == []


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        render(Recording(SHORT), "eva_a0008", tmp_path / "out.mp4", size=127)


def test_an_existing_file_at_the_destination_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    render(Recording(SHORT), "eva_a0008", tmp_path / "out.mp4", size=128)
    assert len(frames(tmp_path / "out.mp4")) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def environment() -> dict[str, str]:
    """Return the environment in which child processes import the package under test."""
    package = Path(__file__).parents[2] if (Path(__file__).parents[2] / "a2v").is_dir() else None
    return {**os.environ, **({"PYTHONPATH": str(package)} if package else {})}


def work(recording: bytes, model_id: str, folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    source, destination = folder / "recording", folder / "video.mp4"
    source.write_bytes(recording)
    command = [
        sys.executable,
        "-m",
        "a2v.engine.worker",
        str(source),
        model_id,
        str(destination),
        "--size",
        "128",
        *options,
    ]
    # In another working directory, because the server may run anywhere.
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return subprocess.run(
        command, capture_output=True, text=True, cwd=elsewhere, env=environment(), timeout=60, check=False
    ), destination


def test_the_worker_reports_a_finished_video_in_one_line(tmp_path: Path) -> None:
    done, destination = work(SHORT, "eva_a0008", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == '{"ok": true}\n'
    assert len(frames(destination)) == 8


def test_the_worker_warns_of_a_recording_without_speech(tmp_path: Path) -> None:
    done, _ = work(wav(np.zeros(1600)), "eva_a0008", tmp_path)
    assert json.loads(done.stdout) == {"ok": True, "warning": render_module.NO_SPEECH}


@pytest.mark.parametrize(
    ("recording", "model_id", "message"),
    [
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "eva_a0008", "not a supported recording"),
        (b"OggS" + b"x" * 500, "eva_a0008", "damaged"),
        (SHORT, "bob", "no character 'bob'"),
    ],
)
def test_the_worker_reports_the_fault_of_a_request(recording, model_id, message, tmp_path: Path) -> None:
    done, destination = work(recording, model_id, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert message in answer["message"]
    assert done.stdout.count("\n") == 1
    assert not destination.exists()


def test_the_worker_follows_its_options(tmp_path: Path) -> None:
    options = ("--format", "portrait", "--fps", "30", "--mask", str(tmp_path / "mask.mp4"))
    done, destination = work(SHORT, "ruth_a0021_closeup", tmp_path, *options)
    assert (done.stdout, done.stderr) == ('{"ok": true}\n', "")
    for path in (destination, tmp_path / "mask.mp4"):
        assert len(frames(path)) == 9
        assert frames(path)[0].shape == (228, 128, 3)


SERVER = """
import sys
from pathlib import Path
import anyio
from a2v.engine import renderer

async def main(audio, video):
    async def open_process(*args, **options):
        child = await started(*args, **options)
        print(child.pid, flush=True)
        return child

    started, anyio.open_process = anyio.open_process, open_process
    request = renderer.RenderRequest(audio=Path(audio), subject_id="eva_a0008", destination=Path(video), size=1080)
    await renderer.render_in_child(request)

anyio.run(main, *sys.argv[1:], backend={backend!r})
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open, which tells of a process that is no child")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_renderer_ends_when_its_server_is_killed(backend: str, tmp_path) -> None:
    audio, video = tmp_path / "audio", tmp_path / "video.mp4"
    with wave.open(str(audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * RATE * 300))  # minutes of work
    command = [sys.executable, "-c", SERVER.format(backend=backend), str(audio), str(video)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        renderer = os.pidfd_open(int(server.stdout.readline()))
        try:
            while not (tmp_path / ".video.mp4.part").exists():  # until it renders
                assert not select.select([renderer], [], [], 0.05)[0]
            server.kill()
            assert select.select([renderer], [], [], 20)[0]
        finally:
            os.close(renderer)
    assert not video.exists()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_process_is_left_behind_whenever_a_render_is_cancelled(backend: str, monkeypatch) -> None:
    """Not even if the event loop ends while the process starts."""
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            started.append(self)

    async def main(steps: int) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(renderer.render_in_child, request)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    monkeypatch.setattr(renderer, "WORKER", (sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(subprocess, "Popen", Popen)
    request = renderer.RenderRequest(audio=Path("audio"), subject_id="eva_a0008", destination=Path("video"), size=96)
    for steps in range(0, 10, 2):
        anyio.run(main, steps, backend=backend)
    assert started
    assert [process for process in started if process.returncode is None] == []
