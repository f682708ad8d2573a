"""Video files: H.264, and AAC beside it if there is sound, in an MP4 that browsers can start at once."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from a2v.engine import audio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.container import OutputContainer
    from numpy.typing import NDArray

_X264 = {"preset": "veryfast", "tune": "animation", "crf": "20"}
_BT709, _LIMITED = 1, 1
_AUDIO_BITS = 128_000


class Film:
    """An MP4 that is being written; frames come one after the other."""

    def __init__(self, container: OutputContainer, width: int, height: int, fps: int) -> None:
        self._container = container
        self._fps = fps
        self._frames = 0
        self._video = container.add_stream("libx264", rate=fps, options=_X264)
        self._video.width, self._video.height = width, height
        self._video.pix_fmt = "yuv420p"
        self._video.gop_size = 2 * fps
        context = self._video.codec_context
        context.thread_count = 1  # one render, one core; more of them run beside each other
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._sound: av.AudioStream | None = None
        self._track: Iterator[av.AudioFrame] = iter(())

    @property
    def seconds(self) -> float:
        """How long the film is by now."""
        return self._frames / self._fps

    def add_sound(self, recording: bytes) -> None:
        """Puts the recording under the pictures; before the first of them."""
        stereo = audio.is_stereo(recording)
        self._sound = self._container.add_stream(
            "aac", rate=audio.SOUNDTRACK_RATE, bit_rate=_AUDIO_BITS, layout="stereo" if stereo else "mono"
        )
        self._track = audio.soundtrack(recording, stereo=stereo)

    def add(self, frame: av.VideoFrame) -> None:
        """Appends a picture, and the sound that goes with it, so that little of it waits in memory."""
        frame.pts = self._frames
        frame.time_base = Fraction(1, self._fps)
        self._frames += 1
        self._container.mux(self._video.encode(frame))
        self._encode_sound(self.seconds)

    def end(self) -> None:
        """Writes what is still on its way."""
        self._encode_sound(float("inf"))
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._container.mux(self._sound.encode(None))

    def _encode_sound(self, seconds: float) -> None:
        if self._sound is None:
            return
        for frame in self._track:
            self._container.mux(self._sound.encode(frame))
            if frame.time is not None and frame.time >= seconds:
                return


@contextmanager
def film(path: Path, width: int, height: int, fps: int) -> Iterator[Film]:
    """A new file at ``path``, complete when the block ends."""
    # A real file: moving the index to the front means reading back what was written.
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        film = Film(container, width, height, fps)
        yield film
        film.end()


def picture_frame(pixels: NDArray[np.uint8]) -> av.VideoFrame:
    """A painted picture as the encoder takes it."""
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
    return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def mask_frame(alpha: NDArray[np.uint8]) -> av.VideoFrame:
    """How much of each pixel is covered, as a grey picture."""
    height, width = alpha.shape
    frame = av.VideoFrame(width, height, "yuv420p")
    luma = (16 + alpha.astype(np.uint16) * 219 // 255).astype(np.uint8)
    for plane, values in zip(frame.planes, (luma, 128, 128), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = values
    return frame
