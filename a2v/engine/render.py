"""One render: a recording and a character in, a video out, and its mask if wanted."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from a2v.engine import audio, cast, lipsync
from a2v.engine.animate import poses
from a2v.engine.drawing.bust import backdrop, bust
from a2v.engine.drawing.painter import Painter
from a2v.engine.film import film, mask_frame, picture_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from a2v.engine.pose import Pose
    from a2v.engine.settings import Format


def picture_size(size: int, format: Format) -> tuple[int, int]:
    """Width and height in pixels of a video whose shorter side is ``size``.

    Raises:
        ValueError: The size is not an even number.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size must be an even number of pixels, got {size}")
    return size, size if format == "square" else round(size * 16 / 9 / 2) * 2


def render(
    recording: bytes,
    who: str,
    destination: Path,
    *,
    mask: Path | None = None,
    size: int = 512,
    format: Format = "square",
    fps: int = 25,
    max_seconds: float = audio.MAX_SECONDS,
) -> None:
    """Makes the video of a character that speaks the recording: H.264 and AAC in an MP4.

    The same arguments give the same video. ``destination`` and ``mask`` appear when they are complete; until then the work
    is in files beside them, which are removed if the render fails.

    Args:
        recording: A whole audio file; see ``audio.decode``.
        who: A ``pose_id``, or a ``model_id`` for a character's usual pose.
        destination: Where the video goes; what is there is replaced.
        mask: Where a second video goes, of the same size and length and without sound: the person white on black.
        size: The shorter side of the video in pixels; an even number.
        format: The shape of the video: ``"square"``, or ``"portrait"``, 16 high to 9 wide.
        fps: Frames a second.
        max_seconds: The longest recording to accept.

    Raises:
        AudioError: The recording cannot be used.
        RenderError: There is no such pose or character.
        ValueError: The size is not an even number.
        OSError: A video cannot be written.
    """
    width, height = picture_size(size, format)
    stance = cast.pose(who)
    performance = _perform(recording, stance.model_id, fps, max_seconds)
    painter = Painter(width, height, stance.views[format])
    person = cast.look(stance.model_id)
    with ExitStack() as stack:
        video = stack.enter_context(film(stack.enter_context(_partial(destination)), width, height, fps))
        video.add_sound(recording)
        cover = stack.enter_context(film(stack.enter_context(_partial(mask)), width, height, fps)) if mask else None
        behind = _grain(painter.paint(backdrop(person)))
        for pose in performance:
            pixels = painter.paint(bust(person, pose))
            if cover:
                cover.add(mask_frame(pixels[..., 3]))
            video.add(picture_frame(_over(pixels, behind)))


def _over(pixels, behind):
    alpha = 255 - pixels[..., 3:].astype(np.uint16)
    return (pixels + (behind * alpha + 127) // 255).astype(np.uint8)


@contextmanager
def _partial(destination: Path) -> Iterator[Path]:
    """A file beside ``destination``, which takes its place if the block ends well and vanishes otherwise."""
    partial = destination.with_name(f".{destination.name}.part")
    try:
        yield partial
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def _perform(recording: bytes, model_id: str, fps: int, max_seconds: float) -> Iterator[Pose]:
    samples = audio.decode(recording, max_seconds=max_seconds)
    seed = hashlib.sha256(hashlib.sha256(recording).digest() + model_id.encode()).digest()
    return poses(lipsync.analyse(samples), lipsync.loudness(samples), seed=int.from_bytes(seed[:8], "big"), fps=fps)


def _grain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with noise of ±1, which keeps gradients from turning into bands when they are compressed."""
    noise = np.random.default_rng(0).integers(-1, 2, (*pixels.shape[:2], 1))
    grainy = pixels.copy()
    grainy[..., :3] = np.clip(pixels[..., :3].astype(int) + noise, 0, 255)
    return grainy
