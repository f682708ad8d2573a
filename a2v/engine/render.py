"""One render: a recording and a character in, a video out, and its mask if wanted."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from a2v.engine import audio, characters, lipsync
from a2v.engine.animation import animate
from a2v.engine.drawing.bust import backdrop, black_backdrop, bust, silhouette
from a2v.engine.drawing.colours import uvya
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.video_writer import DRAWING_OPTIONS, MASK_OPTIONS, FrameBuffer, VideoWriter, open_video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from a2v.engine.characters import Framing
    from a2v.engine.drawing.display_list import Item
    from a2v.engine.face_pose import FacePose
    from a2v.engine.settings import Format

_MINUTE = 6000  # rows that are listened to at once
_CONTEXT = 500  # rows before and after them, so that nothing is cut in two


def picture_size(size: int, format: Format) -> tuple[int, int]:
    """Width and height in pixels of a video whose shorter side is ``size``.

    Raises:
        ValueError: The size is not an even number.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size must be an even number of pixels, got {size}")
    return size, size if format == "square" else round(size * 16 / 9 / 2) * 2


def render(
    recording: audio.Recording | audio.Source,
    subject_id: str,
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
        recording: A whole audio file, or where it is; see ``audio.decode``. Or an ``audio.Recording``, with a limit of its own.
        subject_id: A ``pose_id``, or a ``model_id`` for a character's usual pose.
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
    pose = characters.get_camera_pose(subject_id)
    character, framing = pose.character, pose.framings[format]
    if not isinstance(recording, audio.Recording):
        recording = audio.Recording(recording, max_seconds=max_seconds)
    performance = _perform(recording, character.model_id, fps)
    with _partials(destination, *([mask] if mask else [])) as partials:
        video = open_video(partials[0], width, height, fps, DRAWING_OPTIONS)
        _shoot(video, performance(), framing, backdrop(character), partial(bust, character), grain=1, sound=recording)
        # The mask comes after it: two encoders at once would need the memory of two.
        for path in partials[1:]:
            cover = open_video(path, width, height, fps, MASK_OPTIONS)
            _shoot(cover, performance(), framing, black_backdrop(), partial(silhouette, character))


def _shoot(
    empty: AbstractContextManager[VideoWriter],
    performance: Iterable[FacePose],
    framing: Framing,
    behind: list[Item],
    draw: Callable[[FacePose], list[Item]],
    *,
    grain: int = 0,
    sound: audio.Recording | None = None,
) -> None:
    """Makes a film of a performance: each pose, drawn, is a frame."""
    # Entered here, so that its encoder is gone when this returns.
    with empty as video:
        if sound is not None:
            video.add_sound(sound)
        frame = FrameBuffer(video.width, video.height)
        painter = Rasterizer(video.width, video.height, framing, uvya)
        painter.paint(behind)
        painter.set_backdrop(_grained(painter.pixels, grain))
        for pose in performance:
            frame.show(painter.pixels, painter.paint(draw(pose)))
            video.add(frame)


@contextmanager
def _partials(*destinations: Path) -> Iterator[list[Path]]:
    """Files beside the destinations, which take their places if the block ends well and vanish otherwise."""
    partials = [path.with_name(f".{path.name}.part") for path in destinations]
    try:
        yield partials
        for path, destination in zip(partials, destinations, strict=True):
            path.replace(destination)
    finally:
        for path in partials:
            path.unlink(missing_ok=True)


def _perform(recording: audio.Recording, model_id: str, fps: int) -> Callable[[], Iterator[FacePose]]:
    """What plays the recording, from its start each time it is called."""
    likely, loudness = _hear(recording.pieces())
    seed = hashlib.sha256(audio.digest(recording.source) + model_id.encode()).digest()
    return partial(animate, likely, loudness, seed=int.from_bytes(seed[:8], "big"), fps=fps)


def _hear(pieces: Iterable[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mouths and the loudness of a recording, listened to by the minute: an hour needs no more memory for it."""
    likely, loudness = [], []
    waiting: list[NDArray[np.float32]] = []
    heard = 0

    def listen(first: int, last: int | None) -> None:
        samples = np.concatenate(waiting)
        likely.append(lipsync.analyse(samples)[first:last])
        loudness.append(lipsync.loudness(samples)[first:last])
        if last is not None:
            waiting[:] = [samples[(last - _CONTEXT) * lipsync.HOP :]]

    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= (heard + _MINUTE + _CONTEXT) * lipsync.HOP:
            listen(heard, heard + _MINUTE)
            heard = _CONTEXT
    listen(heard, None)
    return np.concatenate(likely), np.concatenate(loudness)


def _grained(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture with a little noise, which keeps gradients from turning into bands when they are compressed."""
    noise = np.random.default_rng(0).integers(-size, size + 1, pixels.shape[:2], np.int8)
    grainy = pixels.copy()
    grainy[..., 2] = np.clip(pixels[..., 2] + noise, 16, 235)
    return grainy
