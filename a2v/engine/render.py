"""Renders a video: a recording and a character in, an MP4 out, and a mask if requested.

1. The recording is decoded and analysed: probabilities of visemes and loudness, every 10 ms (``lipsync``).
2. ``animation`` makes a ``FacePose`` per frame of it.
3. For each frame, ``drawing`` makes a display list of the pose and rasterizes it, or ``portrait`` moves a photograph, and
   ``video_writer`` encodes it, together with the sound. Frames are drawn when they are encoded, so only one is in memory.

A mask is a second video of the same animation. It is rendered after the first one: two encoders at once would need twice the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from a2v.engine.animation import animate
from a2v.engine.characters import get_camera_pose
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.drawing.bust import backdrop, black_backdrop, bust, silhouette
from a2v.engine.drawing.colours import uvya
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.lipsync import analyse_pieces
from a2v.engine.video_writer import DRAWING_OPTIONS, MASK_OPTIONS, PORTRAIT_OPTIONS, FrameBuffer, open_video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from a2v.engine.audio import Recording
    from a2v.engine.characters import Character, CharacterSpec, Framing
    from a2v.engine.drawing.display_list import Item
    from a2v.engine.drawing.rasterizer import Area
    from a2v.engine.face_pose import FacePose
    from a2v.engine.settings import Format
    from a2v.engine.video_writer import VideoWriter


def picture_size(size: int, format: Format) -> tuple[int, int]:
    """Return the width and height in pixels of a video whose shorter side is ``size``.

    Raises:
        ValueError: The size is not an even number.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size must be an even number of pixels, got {size}")
    return size, size if format == "square" else round(size * 16 / 9 / 2) * 2


def render(
    recording: Recording,
    subject_id: str,
    destination: Path,
    *,
    character: Character | None = None,
    mask: Path | None = None,
    size: int = 512,
    format: Format = "square",
    fps: int = 25,
) -> None:
    """Render the video of a character that speaks a recording.

    The same arguments give the same video, byte for byte. ``destination`` and ``mask`` appear when both are complete. Until then,
    the data is in files beside them, which are removed if the render fails.

    Args:
        recording: The recording.
        subject_id: A ``pose_id``, or a ``model_id`` for the default pose of a character.
        destination: The path of the video; an existing file is replaced.
        character: The character; ``None`` if it is a built-in one.
        mask: The path of a second video of the same size and length, without sound: the person in white on black.
        size: The shorter side of the video in pixels; even.
        format: The shape of the video: ``"square"``, or ``"portrait"``, 9:16.
        fps: Frames per second.

    Raises:
        AudioError: The recording cannot be used.
        RenderError: There is no such pose or character.
        ValueError: The size is not an even number.
        OSError: A video cannot be written.
    """
    width, height = picture_size(size, format)
    pose = get_camera_pose(subject_id, character)
    if isinstance(pose.character, PortraitSpec):
        pictures = _portrait_pictures(pose.character, width, height, close_up=pose.close_up)
        options = PORTRAIT_OPTIONS
    else:
        pictures, options = _drawn_pictures(pose.character, pose.framings[format], width, height), DRAWING_OPTIONS
    animation = _animate_recording(recording, pose.character.model_id, fps)
    with _replace_when_complete(destination, *([mask] if mask else [])) as paths:
        _render_frames(open_video(paths[0], width, height, fps, options), animation(), pictures[0], recording)
        for path in paths[1:]:
            _render_frames(open_video(path, width, height, fps, MASK_OPTIONS), animation(), pictures[1])


class Picture(Protocol):
    """A picture of the size of a video, which shows one pose after the other."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture, in the colours of ``colours.uvya``."""

    def paint(self, pose: FacePose, /) -> Area:
        """Show a pose; return the area that may have changed, which is all of the picture the first time."""


PictureMaker = Callable[[], Picture]
"""Makes a picture when it is needed: that of the mask after the first video."""


def _drawn_pictures(
    character: CharacterSpec, framing: Framing, width: int, height: int
) -> tuple[PictureMaker, PictureMaker]:
    drawing = partial(_Drawing, framing, width, height)
    return (
        partial(drawing, backdrop(character), partial(bust, character), grain=1),
        partial(drawing, black_backdrop(), partial(silhouette, character)),
    )


def _portrait_pictures(
    portrait: PortraitSpec, width: int, height: int, *, close_up: bool
) -> tuple[PictureMaker, PictureMaker]:
    # Imported late: drawn characters do not need it.
    from a2v.engine.portrait.painter import Silhouette  # noqa: PLC0415
    from a2v.engine.portrait.studio import open_studio  # noqa: PLC0415

    painter = partial(open_studio(portrait).painter, close_up=close_up, width=width, height=height)
    return painter, lambda: Silhouette(painter(cut_out=True))


class _Drawing:
    """The picture of a drawn character."""

    def __init__(
        self,
        framing: Framing,
        width: int,
        height: int,
        backdrop: list[Item],
        draw: Callable[[FacePose], list[Item]],
        *,
        grain: int = 0,
    ) -> None:
        self._draw = draw
        self._rasterizer = Rasterizer(width, height, framing, uvya)
        self._rasterizer.paint(backdrop)
        self._rasterizer.set_backdrop(add_grain(self._rasterizer.pixels, grain))

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self._rasterizer.pixels

    def paint(self, pose: FacePose) -> Area:
        return self._rasterizer.paint(self._draw(pose))


def _animate_recording(recording: Recording, model_id: str, fps: int) -> Callable[[], Iterator[FacePose]]:
    """Analyse a recording; return a function that starts its animation from the beginning."""
    probabilities, loudness = analyse_pieces(recording.pieces())
    seed = hashlib.sha256(recording.digest() + model_id.encode()).digest()
    return partial(animate, probabilities, loudness, seed=int.from_bytes(seed[:8], "big"), fps=fps)


def _render_frames(
    video: AbstractContextManager[VideoWriter],
    animation: Iterator[FacePose],
    make_picture: PictureMaker,
    soundtrack: Recording | None = None,
) -> None:
    # The video is opened here, so that its encoder is freed before the caller opens the next one.
    with video as writer:
        if soundtrack is not None:
            writer.add_soundtrack(soundtrack)
        buffer = FrameBuffer(writer.width, writer.height)
        picture = make_picture()
        for pose in animation:
            area = picture.paint(pose)
            buffer.update(picture.pixels, area)
            writer.add_frame(buffer)


def add_grain(pixels: NDArray[np.uint8], amount: int) -> NDArray[np.uint8]:
    """Return a picture in UVYA with noise of up to ``amount`` in Y, which prevents banding of gradients in the compressed video."""
    noise = np.random.default_rng(0).integers(-amount, amount + 1, pixels.shape[:2], np.int8)
    grainy = pixels.copy()
    grainy[..., 2] = np.clip(pixels[..., 2] + noise, 16, 235)
    return grainy


@contextmanager
def _replace_when_complete(*destinations: Path) -> Iterator[list[Path]]:
    """Provide temporary paths, which replace the destinations if the block succeeds and are removed otherwise."""
    paths = [path.with_name(f".{path.name}.part") for path in destinations]
    try:
        yield paths
        for path, destination in zip(paths, destinations, strict=True):
            path.replace(destination)
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
