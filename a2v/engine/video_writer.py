"""Writes videos: H.264, and AAC if there is a soundtrack, in an MP4 whose index comes first, so that browsers start at once.

Pictures and sound are encoded alternately: ``add_frame`` encodes one frame and the sound up to its end. So neither is collected in
memory, and the file is interleaved as players expect. The soundtrack is an iterator that decodes the recording as it goes.

Frames are the largest objects of a render, so there is only one: ``FrameBuffer`` is overwritten for each frame, in the area that
changed. This is safe because the encoder copies what it needs later.
"""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from a2v.engine.audio import SOUNDTRACK_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.container import OutputContainer
    from numpy.typing import NDArray

    from a2v.engine.audio import Recording
    from a2v.engine.drawing.rasterizer import Area

DRAWING_OPTIONS = {
    "preset": "superfast",
    "tune": "animation",
    "crf": "19",
    "x264-params": "mbtree=1:rc-lookahead=3:bframes=2:b-adapt=0:b-pyramid=none:scenecut=0:8x8dct=0:aq-mode=3:aq-strength=1.0",
}
"""x264 options for drawings with little movement.

A short look-ahead, which the preset lacks, halves the file where most of the picture stands still. Every frame of it costs a frame of
memory, and so does a pyramid of B-frames. Adaptive quantization spends bits on even and dark areas, to keep the grain that prevents
banding. Scene cuts do not occur, a fixed number of B-frames suits all videos, and small transforms suit drawings.
"""

MASK_OPTIONS = {"preset": "ultrafast", "crf": "26"}
"""x264 options for masks, which any setting encodes well."""

AAC_OPTIONS = {
    "aac_coder": "fast",
    # Constant quality: speech gets a signal-to-noise ratio of 50 dB and more. At a constant bit rate, loud syllables get less.
    "flags": "+qscale",
    "global_quality": "160",
    # Without the tools that save bits at the cost of quality: noise substitution, noise shaping and intensity stereo.
    "aac_pns": "0",
    "aac_tns": "0",
    "aac_is": "0",
}
"""AAC encoder options for speech."""

_TONAL_AAC_OPTIONS = {"aac_coder": "twoloop"}  # see LevelMeter.tonal
_BIT_RATE_PER_CHANNEL = 192_000
_BT709, _LIMITED_RANGE = 1, 1
_BAND_ROWS = 64  # even


class VideoWriter:
    """Encodes frames, and the sound that belongs to them, into an open container."""

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
        context.thread_count = 1  # a render uses one core; the server runs several renders
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        self._audio: av.AudioStream | None = None
        self._soundtrack: Iterator[av.AudioFrame] = iter(())

    def add_soundtrack(self, recording: Recording) -> None:
        """Use the recording as the soundtrack. Call it before the first frame."""
        self._audio = self._container.add_stream(
            "aac",
            rate=SOUNDTRACK_RATE,
            options=_TONAL_AAC_OPTIONS if recording.levels.tonal else AAC_OPTIONS,
            bit_rate=_BIT_RATE_PER_CHANNEL * (1 + recording.stereo),
            layout="stereo" if recording.stereo else "mono",
        )
        self._soundtrack = recording.soundtrack()

    def add_frame(self, buffer: FrameBuffer) -> None:
        """Encode a frame, and the sound up to its end."""
        frame = buffer.frame
        frame.pts, frame.time_base = self._frames, Fraction(1, self._fps)
        self._frames += 1
        self._container.mux(self._video.encode(frame))
        self._encode_sound(self._frames / self._fps)

    def finish(self) -> None:
        """Encode the rest of the sound, and write everything that the encoders still hold."""
        self._encode_sound(float("inf"))
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))

    def _encode_sound(self, until: float) -> None:
        if self._audio is None:
            return
        for frame in self._soundtrack:
            self._container.mux(self._audio.encode(frame))
            if frame.time is not None and frame.time >= until:
                return


@contextmanager
def open_video(path: Path, width: int, height: int, fps: int, x264: dict[str, str]) -> Iterator[VideoWriter]:
    """Create a video at ``path``; it is complete when the block ends."""
    # A real file, because moving the index to the front means reading back what was written.
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        writer = VideoWriter(container, width, height, fps, x264)
        yield writer
        writer.finish()


class FrameBuffer:
    """The current frame in the encoder's format, NV12: a plane of Y, and one of U and V pairs, one per 2 × 2 pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.frame: av.VideoFrame = av.VideoFrame(width, height, "nv12")
        luma, chroma = (
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            for plane in self.frame.planes
        )
        self._luma, self._chroma = luma[:, :width], chroma.view(np.uint16)[:, : width // 2]
        self._chroma[:] = 128 << 8 | 128  # grey

    def update(self, pixels: NDArray[np.uint8], area: Area) -> None:
        """Copy an area of a picture in the colours of ``colours.uvya``. The coordinates of the area are even."""
        left, top, right, bottom = area
        # Band by band, so that intermediate arrays are small and stay in the CPU's cache.
        for start in range(top, bottom, _BAND_ROWS):
            end = min(start + _BAND_ROWS, bottom)
            part = pixels[start:end, left:right]
            self._luma[start:end, left:right] = part[..., 2]
            self._chroma[start // 2 : end // 2, left // 2 : right // 2] = _mean_of_2x2(part.view(np.uint32)[..., 0])


def _mean_of_2x2(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the mean of each 2 × 2 words, byte by byte.

    The bytes of two words are averaged at once, without overflow: their common bits, plus half of the bits that differ. The first
    mean rounds up and the second one down, so that the errors cancel out.
    """
    half_mask = np.uint32(0x7F7F7F7F)
    one, other = words[::2], words[1::2]
    pair = (one | other) - (((one ^ other) >> 1) & half_mask)  # rounds up
    one, other = pair[:, ::2], pair[:, 1::2]
    return np.asarray((one & other) + (((one ^ other) >> 1) & half_mask), np.uint32)  # rounds down
