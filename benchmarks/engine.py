"""Measures the cost of a render, stage by stage, relative to the cost of encoding alone.

For a minute of speech at 512 and at 720 pixels, the baseline is measured in the same process, alternating with the render frame by
frame: decoding the recording, encoding the same frames with common x264 settings (``veryfast``, crf 20), and encoding the sound with
the default settings of FFmpeg's AAC encoder. Then whole workers are measured as the server starts them: one, one with a mask, two at
once, and one with half an hour of speech; and those of a portrait. At last, a sentence of ten seconds becomes a video: a client has it
synthesized, rendered and downloaded by an engine that has done so before.

    python benchmarks/engine.py [--minutes 30] [--only text]

Times are CPU seconds, except for two workers at once. Exits with 1 if a limit is exceeded: 2.0 times the baseline at 512 pixels, 1.6
times at 720; 200 MB per worker, and 50 MB more for half an hour than for a minute; two at once in 1.15 times the time of one; for a minute
of a portrait 15 s at 512 pixels and 25 s at 720, in 250 MB; 3.5 s for the sentence.
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
from attrs import evolve

from a2v import A2V
from a2v.engine import LocalEngine, render, video_writer
from a2v.engine.animation import animate
from a2v.engine.audio import RATE, Recording, decode
from a2v.engine.characters import dump_character, get_camera_pose, get_character
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.drawing.bust import bust
from a2v.engine.drawing.colours import uvya
from a2v.engine.drawing.dithering import ENCODED, dither
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.drawing.scenery import backdrop
from a2v.engine.intonation import Intonation
from a2v.engine.lipsync import analyse_pieces
from a2v.engine.video_writer import MP4, FrameBuffer, open_video

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.engine.face_pose import FacePose

CLIPS = Path(render.__file__).with_name("recordings")
MODEL_ID = "eva_a0008"
FPS = 25
LIMITS = {512: 2.0, 720: 1.6}
PORTRAIT = Path(__file__).parents[1] / "tests/engine/portraits/collins.jpg"
PORTRAIT_LIMITS = {512: 15.0, 720: 25.0}
MAX_PORTRAIT_MB = 250
SENTENCE = (
    "On Monday morning the ferry leaves the old harbor at half past eight, crosses the bay in forty minutes, "
    "and returns with the mail, the newspapers and fresh bread for the whole island."
)
# With half a second until the client asks again, this is 4 s, even if nothing happens at the same time.
MAX_TEXT_SECONDS = 3.5
MAX_MB, MAX_EXTRA_MB, MAX_TWO_AT_ONCE = 200, 50, 1.15
COMMON_X264_OPTIONS = {"preset": "veryfast", "tune": "animation", "crf": "20"}
STAGES = ("decode", "analyse", "animate", "draw", "convert", "encode", "sound")


def write_speech(path: Path, minutes: int) -> Path:
    """Write a WAV file that repeats the recordings of the package."""
    samples = np.concatenate([decode(clip) for clip in sorted(CLIPS.glob("*.flac"))])
    minute = (np.resize(samples, 60 * RATE) * 32767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for _ in range(minutes):
            file.writeframes(minute)
    return path


class Stages:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the CPU time of the block to a stage."""
        start = time.thread_time()
        yield
        self.seconds[stage] += time.thread_time() - start  # type: ignore[assignment]  # a Counter of seconds


@contextmanager
def default_aac_options() -> Iterator[None]:
    """Encode soundtracks with FFmpeg's default settings inside the block."""
    options = video_writer.AAC_OPTIONS
    video_writer.AAC_OPTIONS = {}
    yield
    video_writer.AAC_OPTIONS = options


def measure_stages(recording: Path, size: int) -> dict[str, float]:
    """Measure each stage of a render, and the baseline."""
    stages = Stages()
    with stages.measure("decode"):
        pieces = list(Recording(recording).pieces())
    with stages.measure("analyse"):
        intonation = Intonation()
        probabilities, loudness = analyse_pieces(intonation.listen(pieces))
        pitch = intonation.semitones()
    with stages.measure("animate"):
        animation = list(animate(probabilities, loudness, seed=1, fps=FPS, pitch=pitch))
    with tempfile.TemporaryDirectory() as folder:
        encode_frames(stages, animation, size, Path(folder))
        with stages.measure("sound"):
            encode_sound(recording, Path(folder))
        with default_aac_options(), stages.measure("baseline"):
            encode_sound(recording, Path(folder))
    seconds = dict(stages.seconds)
    return {**seconds, "baseline": seconds["baseline"] + seconds["decode"]}


def encode_frames(stages: Stages, animation: list[FacePose], size: int, folder: Path) -> None:
    """Draw each frame, and encode it with the engine's settings and with those of the baseline."""
    pose, character = get_camera_pose(MODEL_ID), get_character(MODEL_ID)
    rasterizer, buffer = Rasterizer(size, size, pose.framings["square"], uvya), FrameBuffer(size, size)
    rasterizer.paint(backdrop(character))
    rasterizer.set_backdrop(dither(rasterizer.pixels, ENCODED))
    engine_path, baseline_path = folder / "engine.mp4", folder / "baseline.mp4"
    with ExitStack() as engine_stack, ExitStack() as baseline_stack:
        engine = engine_stack.enter_context(open_video(engine_path, size, size, FPS))
        baseline = baseline_stack.enter_context(
            open_video(baseline_path, size, size, FPS, evolve(MP4, options=COMMON_X264_OPTIONS))
        )
        for face in animation:
            with stages.measure("draw"):
                area = rasterizer.paint(bust(character, face))
            with stages.measure("convert"):
                buffer.update(rasterizer.pixels, area)
            with stages.measure("encode"):
                engine.add_frame(buffer.frame)
            with stages.measure("baseline"):
                baseline.add_frame(buffer.frame)
        with stages.measure("encode"):
            engine_stack.close()
        with stages.measure("baseline"):
            baseline_stack.close()
    stages.seconds["bytes"] = engine_path.stat().st_size
    stages.seconds["baseline bytes"] = baseline_path.stat().st_size


def encode_sound(recording: Path, folder: Path) -> None:
    """Encode the soundtrack in a video of one small frame."""
    with open_video(folder / "sound.mp4", 16, 16, FPS) as writer:
        writer.add_soundtrack(Recording(recording))
        writer.add_frame(FrameBuffer(16, 16).frame)


class Usage(NamedTuple):
    """The resources that a worker used."""

    cpu: float
    wall: float
    megabytes: float


def run_workers(recording: Path, size: int, *options: str, count: int = 1) -> Usage:
    """Run ``count`` workers at once; return the highest usage."""
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
            raise SystemExit(f"a worker exited with {child.returncode}")
    kilo = 1 if sys.platform == "darwin" else 1024
    used = [usage for _, _, usage in ends]
    return Usage(
        max(use.ru_utime + use.ru_stime for use in used), wall, max(use.ru_maxrss for use in used) * kilo / 1e6
    )


def check(name: str, value: float, limit: float, unit: str = "") -> bool:
    """Print a value with its limit; return whether it is within it."""
    print(f"{'  ' if value <= limit else '! '}{name:44} {value:7.2f}{unit} (limit {limit:g}{unit})")
    return value <= limit


def compare_stages(recording: Path, size: int) -> bool:
    """Print the stages of a render and the baseline."""
    # In a fresh process for each size, so that none profits from caches that an earlier one has filled.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds = pool.apply(measure_stages, (recording, size))
    total = sum(seconds[stage] for stage in STAGES)
    print(f"\na minute at {size} pixels: {total:.2f} s   baseline {seconds['baseline']:.2f} s")
    print("  " + "   ".join(f"{stage} {seconds[stage]:.2f}" for stage in STAGES))
    print(f"  pictures {seconds['bytes'] / 1e3:.0f} kB; those of the baseline {seconds['baseline bytes'] / 1e3:.0f} kB")
    return check("render / baseline", total / seconds["baseline"], LIMITS[size])


def compare_workers(minute: Path, long: Path, minutes: int) -> list[bool]:
    """Print the usage of whole workers."""
    print("\nworkers at 512 pixels, a minute of speech")
    one = min(run_workers(minute, 512) for _ in range(3))
    masked = run_workers(minute, 512, "--mask", "{folder}/mask.mp4")
    two = min((run_workers(minute, 512, count=2) for _ in range(3)), key=lambda usage: usage.wall)
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
        check("memory", one.megabytes, MAX_MB, " MB"),
        check("memory, with a mask", masked.megabytes, MAX_MB, " MB"),
        check("memory at 720 pixels", large.megabytes, MAX_MB, " MB"),
        check("memory at 1080 × 1920 pixels, with a mask", largest.megabytes, MAX_MB, " MB"),
        check(f"memory, {minutes} minutes", longest.megabytes, MAX_MB, " MB"),
        check(
            f"more memory for {minutes} minutes than for one", longest.megabytes - one.megabytes, MAX_EXTRA_MB, " MB"
        ),
        check("two at once / one (wall time)", two.wall / one.wall, MAX_TWO_AT_ONCE),
    ]


def check_portraits(minute: Path, folder: Path) -> list[bool]:
    """Print the usage of workers that render a portrait."""
    print("\nportraits, a minute of speech")
    character = folder / "portrait"
    portrait = PortraitSpec(model_id=MODEL_ID, display_name="Portrait", picture=PORTRAIT.read_bytes())
    character.write_bytes(dump_character(portrait))
    results = []
    for size, limit in PORTRAIT_LIMITS.items():
        used = min(run_workers(minute, size, "--character", str(character)) for _ in range(2))
        results += [
            check(f"CPU time at {size} pixels", used.cpu, limit, " s"),
            check(f"memory at {size} pixels", used.megabytes, MAX_PORTRAIT_MB, " MB"),
        ]
    masked = run_workers(minute, 512, "--character", str(character), "--mask", "{folder}/mask.mp4")
    return [*results, check("memory at 512 pixels, with a mask", masked.megabytes, MAX_PORTRAIT_MB, " MB")]


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def check_text() -> bool:
    """Print the time from a text to its video."""
    print("\na sentence at 512 pixels, from its text to the saved video")
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalEngine(size=512) as engine,
        A2V(engine.token, base_url=engine.base_url) as client,
    ):
        seconds, cpu, spoken = [], [], 0.0
        for number in range(4):
            # Other words each time, because an engine could recognize the text.
            text = SENTENCE.replace("eight", ("nine", "six", "ten", "five")[number])
            start, used = time.monotonic(), cpu_seconds()
            speech = client.voices.generate(text=text, voice_name="heart")
            task = client.videos.generate(model_id=MODEL_ID, audio_url=speech.url)
            task.download(f"{folder}/{number}.mp4")
            seconds.append(time.monotonic() - start)
            cpu.append(cpu_seconds() - used)
            spoken = speech.words[-1].end
    print(f"  {spoken:.1f} s of speech; wall time {min(seconds[1:]):.2f} s, the first time {seconds[0]:.2f} s")
    return check("CPU time", min(cpu[1:]), MAX_TEXT_SECONDS, " s")


def main() -> int:
    """Measure, print and check everything."""
    parser = argparse.ArgumentParser(description="Measure the cost of a render.")
    parser.add_argument("--minutes", type=int, default=30, help="length of the long recording")
    parser.add_argument("--only", choices=["text"], help="measure this alone")
    arguments = parser.parse_args()
    if arguments.only:
        return int(not check_text())
    minutes = arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        minute = write_speech(Path(folder) / "minute.wav", 1)
        long = write_speech(Path(folder) / "long.wav", minutes)
        passed = [compare_stages(minute, size) for size in LIMITS]
        passed += compare_workers(minute, long, minutes)
        passed += check_portraits(minute, Path(folder))
    passed.append(check_text())
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
