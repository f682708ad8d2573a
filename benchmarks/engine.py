"""What a render costs, stage by stage, beside the encoding that nobody can do without.

A minute of speech at 512 and at 720 pixels. The baseline, called the floor, is measured in the same process, in turns with
the render, frame by frame: decoding the recording, encoding the same pictures with x264 as it is mostly used (``veryfast``,
crf 20) and the sound with FFmpeg's AAC encoder as it comes. Then whole workers, as the server starts them: one, one with a
mask, two at once, and one with half an hour of speech.

    python benchmarks/engine.py [--minutes 30]

Times are CPU seconds, but for two at once. Exits with 1 when a bound is missed: a render of 2.0 floors at 512 pixels and 1.6 at
720; 200 MB in a worker, and 50 MB more for half an hour than for a minute; two at once in 1.15 times what one takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine import animation, audio, characters, render, video_writer
from a2v.engine.drawing.bust import backdrop, bust
from a2v.engine.drawing.colours import uvya
from a2v.engine.drawing.rasterizer import Rasterizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.engine.face_pose import FacePose

CLIPS = Path(render.__file__).parents[1] / "cli" / "clips"
MODEL_ID = "eva_a0008"
FPS = 25
BOUNDS = {512: 2.0, 720: 1.6}
MOST_MB, MORE_MB, TWO = 200, 50, 1.15
USUAL_X264 = {"preset": "veryfast", "tune": "animation", "crf": "20"}
STAGES = ("decode", "analyse", "animate", "draw", "convert", "encode", "sound")


def write_speech(path: Path, minutes: int) -> Path:
    """A WAV file with so much of the package's own recordings, over and over."""
    samples = np.concatenate([audio.decode(clip) for clip in sorted(CLIPS.glob("*.flac"))])
    minute = (np.resize(samples, 60 * audio.RATE) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(audio.RATE)
        for _ in range(minutes):
            file.writeframes(minute)
    return path


class Stages:
    """CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        start = time.thread_time()
        yield
        self.seconds[stage] += time.thread_time() - start  # type: ignore[assignment]  # a Counter of seconds


@contextmanager
def usual_sound() -> Iterator[None]:
    """Sound that is added inside is encoded as anybody would."""
    ours = video_writer._AAC  # noqa: SLF001
    video_writer._AAC = {}  # noqa: SLF001
    yield
    video_writer._AAC = ours  # noqa: SLF001


def measure_stages(recording: Path, size: int) -> dict[str, float]:
    """What each stage of a render takes, and the floor."""
    stages = Stages()
    with stages.of("decode"):
        pieces = list(audio.pieces(recording))
    with stages.of("analyse"):
        likely, loudness = render._hear(pieces)  # noqa: SLF001
    with stages.of("animate"):
        frames = list(animation.animate(likely, loudness, seed=1, fps=FPS))
    with tempfile.TemporaryDirectory() as folder:
        film_frames(stages, frames, size, Path(folder))
        with stages.of("sound"):
            film_sound(recording, Path(folder))
        with usual_sound(), stages.of("floor"):
            film_sound(recording, Path(folder))
    seconds = dict(stages.seconds)
    return {**seconds, "floor": seconds["floor"] + seconds["decode"]}


def film_frames(stages: Stages, animation_frames: list[FacePose], size: int, folder: Path) -> None:
    """Draw each frame, and encode it twice."""
    pose = characters.get_camera_pose(MODEL_ID)
    rasterizer = Rasterizer(size, size, pose.framings["square"], uvya)
    frame = video_writer.FrameBuffer(size, size)
    rasterizer.paint(backdrop(pose.character))
    rasterizer.set_backdrop(render._grained(rasterizer.pixels, 1))  # noqa: SLF001
    with ExitStack() as ours_open, ExitStack() as theirs_open:
        ours = ours_open.enter_context(
            video_writer.open_video(folder / "ours.mp4", size, size, FPS, video_writer.DRAWING_OPTIONS)
        )
        theirs = theirs_open.enter_context(video_writer.open_video(folder / "usual.mp4", size, size, FPS, USUAL_X264))
        for face in animation_frames:
            with stages.of("draw"):
                area = rasterizer.paint(bust(pose.character, face))
            with stages.of("convert"):
                frame.show(rasterizer.pixels, area)
            with stages.of("encode"):
                ours.add(frame)
            with stages.of("floor"):
                theirs.add(frame)
        with stages.of("encode"):
            ours_open.close()
        with stages.of("floor"):
            theirs_open.close()
    stages.seconds["bytes"] = (folder / "ours.mp4").stat().st_size
    stages.seconds["usual bytes"] = (folder / "usual.mp4").stat().st_size


def film_sound(recording: Path, folder: Path) -> None:
    """Encode the sound, under one small picture."""
    with video_writer.open_video(folder / "sound.mp4", 16, 16, FPS, video_writer.DRAWING_OPTIONS) as sound:
        sound.add_sound(recording)
        sound.add(video_writer.FrameBuffer(16, 16))


class Worker(NamedTuple):
    """What a worker took."""

    cpu: float
    wall: float
    megabytes: float


def run_workers(recording: Path, size: int, *options: str, count: int = 1) -> Worker:
    """Renders in so many workers at once; the most that one of them took."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        children = []
        for number in range(count):
            command = [sys.executable, "-m", "a2v.engine.worker", str(recording), MODEL_ID, f"{folder}/{number}.mp4"]
            extra = [option.format(folder=folder) for option in options]
            command += ["--size", str(size), "--max-seconds", "7200", *extra]
            children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        ends = [os.wait4(child.pid, 0) for child in children]
        wall = time.monotonic() - start
    for child, (_, status, _) in zip(children, ends, strict=True):
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"a worker ended with {child.returncode}")
    kilo = 1 if sys.platform == "darwin" else 1024
    used = [usage for _, _, usage in ends]
    return Worker(
        max(use.ru_utime + use.ru_stime for use in used), wall, max(use.ru_maxrss for use in used) * kilo / 1e6
    )


def judge(name: str, value: float, bound: float, unit: str = "") -> bool:
    """Print a figure with its bound; whether it is kept."""
    print(f"{'  ' if value <= bound else '! '}{name:44} {value:7.2f}{unit} (bound {bound:g}{unit})")
    return value <= bound


def compare_stages(recording: Path, size: int) -> bool:
    """Print a render's stages beside the floor."""
    # A process of its own for each size, so that none inherits what the one before it warmed up.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds = pool.apply(measure_stages, (recording, size))
    total = sum(seconds[stage] for stage in STAGES)
    print(f"\na minute at {size} pixels: {total:.2f} s   floor {seconds['floor']:.2f} s")
    print("  " + "   ".join(f"{stage} {seconds[stage]:.2f}" for stage in STAGES))
    print(f"  file {seconds['bytes'] / 1e3:.0f} kB of pictures; the floor's {seconds['usual bytes'] / 1e3:.0f} kB")
    return judge("render / floor", total / seconds["floor"], BOUNDS[size])


def compare_workers(minute: Path, long: Path, minutes: int) -> list[bool]:
    """Print what whole workers take."""
    print("\nworkers at 512 pixels, a minute of speech")
    one = min(run_workers(minute, 512) for _ in range(3))
    masked = run_workers(minute, 512, "--mask", "{folder}/mask.mp4")
    two = min((run_workers(minute, 512, count=2) for _ in range(3)), key=lambda worker: worker.wall)
    print(
        f"  one {one.cpu:.2f} s CPU, {one.wall:.2f} s; with a mask {masked.cpu:.2f} s CPU; two at once {two.wall:.2f} s"
    )
    large = run_workers(minute, 720)
    largest = run_workers(minute, 1080, "--format", "portrait", "--mask", "{folder}/mask.mp4")
    longest = run_workers(long, 512)
    print(
        f"  one at 720 {large.cpu:.2f} s CPU, at 1080 × 1920 with a mask {largest.cpu:.2f} s; {minutes} minutes {longest.cpu:.1f} s CPU"
    )
    return [
        judge("memory", one.megabytes, MOST_MB, " MB"),
        judge("memory, with a mask", masked.megabytes, MOST_MB, " MB"),
        judge("memory at 720 pixels", large.megabytes, MOST_MB, " MB"),
        judge("memory at 1080 × 1920 pixels, with a mask", largest.megabytes, MOST_MB, " MB"),
        judge(f"memory, {minutes} minutes", longest.megabytes, MOST_MB, " MB"),
        judge(f"more of it than for one minute, {minutes} minutes", longest.megabytes - one.megabytes, MORE_MB, " MB"),
        judge("two at once / one (time of the clock)", two.wall / one.wall, TWO),
    ]


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="What a render costs.")
    parser.add_argument("--minutes", type=int, default=30, help="length of the long recording")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        minute = write_speech(Path(folder) / "minute.wav", 1)
        long = write_speech(Path(folder) / "long.wav", minutes)
        kept = [compare_stages(minute, size) for size in BOUNDS]
        kept += compare_workers(minute, long, minutes)
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
