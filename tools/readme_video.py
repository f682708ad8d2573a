"""Render docs/talking.webp, the animation at the top of the README: a drawn character next to a portrait, the *Mona Lisa*.

It also writes docs/mona-lisa-frames.jpg, five frames of the portrait for the page about characters.

Usage: ``python tools/readme_video.py``.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import a2v
from a2v.engine import SAMPLE_RECORDING, LocalEngine

DOCS = Path(__file__).parents[1] / "docs"
TARGET, STILLS = DOCS / "talking.webp", DOCS / "mona-lisa-frames.jpg"
PORTRAIT = DOCS / "mona-lisa.jpg"
# GIF and WebP have no sound, so the two do not disturb each other.
SPEAKERS = {"omar_a0012_front": "awb", "mona-lisa_closeup": "slt"}
STILL_COUNT, STILL_WIDTH = 5, 240
WIDTH = 360
EVERY = 2  # of 25 frames per second


async def render(folder: Path) -> list[Path]:
    """Render a video of each speaker, and return the paths."""
    recordings = SAMPLE_RECORDING.parent
    jobs = [
        a2v.Job(pose_id=pose_id, audio_url=(recordings / f"{clip}.flac").as_uri(), name=pose_id)
        for pose_id, clip in SPEAKERS.items()
    ]
    characters = folder / "characters"
    characters.mkdir()
    shutil.copy(PORTRAIT, characters)
    paths = {}
    async with (
        LocalEngine(characters=characters, allow_files=[recordings]) as engine,
        a2v.AsyncA2V(engine.token, base_url=engine.base_url) as client,
        client.batch(jobs, save_to=folder) as batch,
    ):
        async for outcome in batch:
            if outcome.error:
                raise outcome.error
            paths[outcome.index] = outcome.path
    return [path for _, path in sorted(paths.items()) if path]


def frames(path: Path) -> list[np.ndarray]:
    """Read every second frame of a video, made smaller."""
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))[::EVERY]
        return [frame.reformat(WIDTH, WIDTH, "rgb24", interpolation="LANCZOS").to_ndarray() for frame in shown]


def write_stills(film: list[np.ndarray]) -> None:
    """Write some frames side by side: the first one, and those that differ most from it."""
    first, others = film[0].astype(int), film[1:]
    parts = [others[i * len(others) // (STILL_COUNT - 1) :] for i in range(STILL_COUNT - 1)]
    length = len(others) // (STILL_COUNT - 1)
    chosen = [film[0], *(max(part[:length], key=lambda frame: int(np.abs(frame - first).sum())) for part in parts)]
    row = av.VideoFrame.from_ndarray(np.hstack(chosen), "rgb24")
    row = row.reformat(STILL_WIDTH * len(chosen), STILL_WIDTH, "yuvj420p", interpolation="LANCZOS")
    with av.open(str(STILLS), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=1, options={"qmin": "2", "qmax": "4"})
        stream.width, stream.height, stream.pix_fmt = row.width, row.height, "yuvj420p"
        container.mux(stream.encode(row))
        container.mux(stream.encode())
    print(f"{STILLS}: {STILLS.stat().st_size:,} bytes")


def main() -> None:
    """Render, combine, and write the animation and the frames."""
    with tempfile.TemporaryDirectory() as folder:
        films = [frames(path) for path in asyncio.run(render(Path(folder)))]
    write_stills(films[-1])
    length = max(map(len, films))
    padded = [film + [film[-1]] * (length - len(film)) for film in films]
    with av.open(str(TARGET), "w", format="webp", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=Fraction(25, EVERY), options={"quality": "80"})
        stream.width, stream.height, stream.pix_fmt = WIDTH * len(films), WIDTH, "yuv420p"
        for pictures in zip(*padded, strict=True):
            frame = av.VideoFrame.from_ndarray(np.hstack(pictures), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
