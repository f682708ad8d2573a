"""Render docs/talking.webp, the animation at the top of the README: two characters of the local engine, side by side.

Usage: ``python tools/readme_video.py``.
"""

from __future__ import annotations

import asyncio
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import a2v
from a2v.engine import SAMPLE_RECORDING, LocalEngine

TARGET = Path(__file__).parents[1] / "docs" / "talking.webp"
# GIF and WebP have no sound, so the two do not disturb each other.
SPEAKERS = {"eva_a0008": "slt", "omar_a0012": "awb"}
WIDTH = 360
EVERY = 2  # of 25 frames per second


async def render(folder: Path) -> list[Path]:
    """Render a video of each speaker, and return the paths."""
    recordings = SAMPLE_RECORDING.parent
    jobs = [a2v.Job(who, (recordings / f"{clip}.flac").as_uri(), who) for who, clip in SPEAKERS.items()]
    paths = {}
    async with (
        LocalEngine(allow_files=[recordings]) as engine,
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


def main() -> None:
    """Render, combine, and write the animation."""
    with tempfile.TemporaryDirectory() as folder:
        films = [frames(path) for path in asyncio.run(render(Path(folder)))]
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
