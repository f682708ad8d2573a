"""One render: a recording and a character in, a video out."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from a2v.engine import audio, lipsync
from a2v.engine.animate import FPS, poses
from a2v.engine.cast import look
from a2v.engine.drawing.bust import backdrop, bust
from a2v.engine.drawing.painter import Painter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.container import OutputContainer
    from numpy.typing import NDArray

    from a2v.engine.cast import Look
    from a2v.engine.pose import Pose

_X264 = {"preset": "veryfast", "tune": "animation", "crf": "20"}
_BT709, _LIMITED = 1, 1
_AUDIO_BITS = 128_000


def render(
    recording: bytes, model_id: str, destination: Path, *, size: int = 512, max_seconds: float = audio.MAX_SECONDS
) -> None:
    """Makes the video of a character that speaks the recording: H.264 and AAC in an MP4, 25 frames a second.

    The same recording, character and size give the same video. ``destination`` appears when it is complete; until then the
    work is in a file beside it, which is removed if the render fails.

    Args:
        recording: A whole audio file; see ``audio.decode``.
        model_id: The character.
        destination: Where the video goes; what is there is replaced.
        size: The side of the square video in pixels; an even number.
        max_seconds: The longest recording to accept.

    Raises:
        AudioError: The recording cannot be used.
        RenderError: There is no such character.
        ValueError: The size is not an even number.
        OSError: The video cannot be written.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size must be an even number of pixels, got {size}")
    person = look(model_id)
    performance = _perform(recording, model_id, max_seconds)
    partial = destination.with_name(f".{destination.name}.part")
    try:
        _write(partial, recording, _pictures(person, performance, size), size)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def _perform(recording: bytes, model_id: str, max_seconds: float) -> list[Pose]:
    samples = audio.decode(recording, max_seconds=max_seconds)
    seed = hashlib.sha256(hashlib.sha256(recording).digest() + model_id.encode()).digest()
    return poses(lipsync.analyse(samples), lipsync.loudness(samples), seed=int.from_bytes(seed[:8], "big"))


def _pictures(person: Look, performance: list[Pose], size: int) -> Iterator[NDArray[np.uint8]]:
    """The frames; each is drawn over the last, in the same memory."""
    painter = Painter(size)
    painter.set_backdrop(_grain(painter.paint(backdrop(person))))
    for pose in performance:
        yield painter.paint(bust(person, pose))


def _grain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with noise of ±1, which keeps gradients from turning into bands when they are compressed."""
    noise = np.random.default_rng(0).integers(-1, 2, (*pixels.shape[:2], 1))
    grainy = pixels.copy()
    grainy[..., :3] = np.clip(pixels[..., :3].astype(int) + noise, 0, 255)
    return grainy


def _write(path: Path, recording: bytes, pictures: Iterator[NDArray[np.uint8]], size: int) -> None:
    """Encodes pictures and sound, side by side in time."""
    # A real file: moving the index to the front means reading back what was written.
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        video = _video_stream(container, size)
        stereo = audio.is_stereo(recording)
        sound = container.add_stream(
            "aac", rate=audio.SOUNDTRACK_RATE, bit_rate=_AUDIO_BITS, layout="stereo" if stereo else "mono"
        )
        track = audio.soundtrack(recording, stereo=stereo)
        for number, pixels in enumerate(pictures):
            container.mux(video.encode(_video_frame(pixels, number)))
            _encode_until(container, sound, track, (number + 1) / FPS)
        _encode_until(container, sound, track, float("inf"))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def _video_stream(container: OutputContainer, size: int) -> av.VideoStream:
    video = container.add_stream("libx264", rate=FPS, options=_X264)
    video.width = video.height = size
    video.pix_fmt = "yuv420p"
    video.gop_size = 2 * FPS
    context = video.codec_context
    context.thread_count = 1  # one render, one core; more of them run beside each other
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return video


def _video_frame(pixels: NDArray[np.uint8], number: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.pts = number
    frame.time_base = Fraction(1, FPS)
    return frame


def _encode_until(
    container: OutputContainer, stream: av.AudioStream, track: Iterator[av.AudioFrame], seconds: float
) -> None:
    """Encodes the soundtrack up to a time, so that the file is written in order and little waits in memory."""
    for frame in track:
        container.mux(stream.encode(frame))
        if frame.time is not None and frame.time >= seconds:
            return
