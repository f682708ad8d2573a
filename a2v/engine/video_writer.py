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

    from a2v.engine.drawing.rasterizer import Area

DRAWING_OPTIONS = {
    "preset": "superfast",
    "tune": "animation",
    "crf": "19",
    "x264-params": "mbtree=1:rc-lookahead=3:bframes=2:b-adapt=0:b-pyramid=none:scenecut=0:8x8dct=0:aq-mode=3:aq-strength=1.0",
}
"""How x264 is to encode a drawing that moves a little.

A short look-ahead, which this preset lacks: where most of the picture stands still it halves the file. Each frame more of it
is a frame more in memory, and so is a pyramid of B-frames. Even and dark parts get bits enough to keep the grain that keeps
gradients smooth. There are no cuts to look for, the same number of B-frames suits all of it, and small transforms suit drawings.
"""

MASK_OPTIONS = {"preset": "ultrafast", "crf": "26"}
"""How x264 is to encode white on black, which any setting does well."""

_AAC = {
    "aac_coder": "fast",
    # A constant quality, with which speech has an SNR of 50 dB and more; at a constant rate, loud syllables have less.
    "flags": "+qscale",
    "global_quality": "160",
    # These save bits that speech does not need to save: noise instead of treble, prediction, one channel instead of two.
    "aac_pns": "0",
    "aac_tns": "0",
    "aac_is": "0",
}
_AAC_TONAL = {"aac_coder": "twoloop"}
"""For what ``mixing.Meter`` calls tonal."""
_BT709, _LIMITED = 1, 1
_BITS_A_CHANNEL = 192_000
_BAND = 64  # rows; even


class VideoWriter:
    """An MP4 that is being written; frames come one after the other."""

    def __init__(self, container: OutputContainer, width: int, height: int, fps: int, x264: dict[str, str]) -> None:
        self._container = container
        self.width: int = width
        self.height: int = height
        self._fps = fps
        self._frames = 0
        self._video = container.add_stream("libx264", rate=fps, options=x264)
        self._video.width, self._video.height = width, height
        self._video.pix_fmt = "nv12"
        self._video.gop_size = 5 * fps
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

    def add_sound(self, recording: audio.Recording | audio.Source) -> None:
        """Puts the recording under the pictures; before the first of them."""
        if not isinstance(recording, audio.Recording):
            recording = audio.Recording(recording)
        self._sound = self._container.add_stream(
            "aac",
            rate=audio.SOUNDTRACK_RATE,
            options=_AAC_TONAL if recording.meter.tonal else _AAC,
            bit_rate=_BITS_A_CHANNEL * (1 + recording.stereo),
            layout="stereo" if recording.stereo else "mono",
        )
        self._track = recording.soundtrack()

    def add(self, frame: FrameBuffer) -> None:
        """Appends a picture, and the sound that goes with it, so that little of it waits in memory."""
        frame.video.pts, frame.video.time_base = self._frames, Fraction(1, self._fps)
        self._frames += 1
        self._container.mux(self._video.encode(frame.video))
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
def open_video(path: Path, width: int, height: int, fps: int, x264: dict[str, str]) -> Iterator[VideoWriter]:
    """A new file at ``path``, complete when the block ends."""
    # A real file: moving the index to the front means reading back what was written.
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        open_video = VideoWriter(container, width, height, fps, x264)
        yield open_video
        open_video.end()


class FrameBuffer:
    """A picture as the encoder takes it, written over again and again: the encoder copies what it wants to keep.

    Brightness has a plane of its own; the two values of colour stand side by side, one pair for four pixels (NV12).
    """

    def __init__(self, width: int, height: int) -> None:
        self.video: av.VideoFrame = av.VideoFrame(width, height, "nv12")
        light, colour = (
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            for plane in self.video.planes
        )
        self._light, self._colour = light[:, :width], colour.view(np.uint16)[:, : width // 2]
        self._colour[:] = 128 << 8 | 128

    def show(self, pixels: NDArray[np.uint8], area: Area) -> None:
        """Takes over a part of a picture that was painted with the colours of ``shapes.uvya``."""
        left, top, right, bottom = area
        # A band at a time: what is worked out on the way stays small, and in the cache.
        for start in range(top, bottom, _BAND):
            end = min(start + _BAND, bottom)
            part = pixels[start:end, left:right]
            self._light[start:end, left:right] = part[..., 2]
            # Four pixels share one colour.
            self._colour[start // 2 : end // 2, left // 2 : right // 2] = _means(part.view(np.uint32)[..., 0])


def _means(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The mean of the bytes of four words each: what two have in common, and half of what only one has."""
    half = np.uint32(0x7F7F7F7F)
    one, other = words[::2], words[1::2]
    pair = (one | other) - (((one ^ other) >> 1) & half)  # rounds up
    one, other = pair[:, ::2], pair[:, 1::2]
    return np.asarray((one & other) + (((one ^ other) >> 1) & half), np.uint32)  # rounds down
