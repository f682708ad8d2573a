"""Recordings as the engine uses them: samples for the analysis, and a soundtrack for the video.

The stages, each in a module of its own:

* ``formats`` detects the container format by the content, and rejects other files; ``container_headers`` corrects sizes in headers
  that were unknown when the header was written;
* ``decoding`` chooses the track and decodes it with FFmpeg, which must not open any other file;
* ``mixing`` resamples, and mixes the channels down to one or two;
* ``levels`` measures by how much a recording must be turned down for the AAC encoder;
* this module combines them.

A recording is decoded twice, because keeping the samples would take hundreds of megabytes: first for the analysis
(``Recording.pieces``), which also measures the levels, and then for the soundtrack, while the video is written.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from a2v.engine.decoding import Decoder, open_source
from a2v.engine.errors import AudioError
from a2v.engine.levels import LevelMeter
from a2v.engine.mixing import Segment, sanitized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from a2v.engine.decoding import DecodeTimeLimit, Source

    Samples = NDArray[np.float32]

RATE = 16_000
"""Samples per second for the analysis."""
SOUNDTRACK_RATE = 48_000
"""Samples per second in the video."""
MAX_SECONDS = 1800.0
"""The longest recording by default."""
MIN_SECONDS = 0.01
"""The shortest recording: one row of the analysis."""


def decode(source: Source, *, max_seconds: float = MAX_SECONDS) -> Samples:
    """Decode a whole recording to mono float32 samples, 16,000 per second, for the analysis.

    Args:
        source: The content of a file, or its path: WAV, MP3, AAC, M4A or MP4, Ogg, FLAC, WebM or MKV, AIFF, CAF, AU, AMR.
        max_seconds: The longest recording to accept.

    Raises:
        AudioError: The recording cannot be used; see ``decoding``.
        OSError: The file cannot be read.
    """
    return np.concatenate(list(Recording(source, max_seconds=max_seconds).pieces()))


class Recording:
    """A recording to render: first its samples for the analysis, then its soundtrack.

    Args:
        source: The content of a file, or its path.
        max_seconds: The longest recording to accept.
    """

    def __init__(self, source: Source, *, max_seconds: float = MAX_SECONDS) -> None:
        self._source = source
        self._max_seconds = max_seconds
        self._decoder = Decoder(source, max_seconds)
        self._levels: LevelMeter | None = None  # complete once all of the recording is measured

    @property
    def time_limit(self) -> DecodeTimeLimit:
        """The limit of the CPU time for decoding."""
        return self._decoder.time_limit

    @property
    def levels(self) -> LevelMeter:
        """The levels of the recording, which is decoded if they are not known yet."""
        while self._levels is None:
            for _ in self.pieces():
                continue
        return self._levels

    @property
    def stereo(self) -> bool:
        """Whether the soundtrack has two channels. A recording with sound on one side only becomes mono, so that both sides play it."""
        return self.levels.channels > 1 and self.levels.side is None

    def digest(self) -> bytes:
        """Return the SHA-256 of the file."""
        with open_source(self._source) as file:
            return hashlib.file_digest(file, "sha256").digest()

    def pieces(self) -> Iterator[Samples]:
        """Yield mono samples for the analysis, 16,000 per second, -1 to 1.

        Raises:
            AudioError: The recording cannot be used.
            OSError: The file cannot be read.
        """
        levels, max_samples, total = LevelMeter(), int(self._max_seconds * RATE), 0
        for block in self._mix(RATE, 1, levels):
            total += block.shape[1]
            if total > max_samples:
                raise self._decoder.too_long()
            yield sanitized(sanitized(block[0]) * np.float32(self._decoder.scale), 1.0)
        if not total:
            raise AudioError("The recording is empty: it has no sound.")
        if total < MIN_SECONDS * RATE:
            raise AudioError(f"The recording is too short: {total / RATE * 1000:.2g} ms, and the minimum is 10 ms.")
        self._levels = levels

    def soundtrack(self) -> Iterator[av.AudioFrame]:
        """Yield frames for an AAC encoder: 48,000 samples per second, finite, and within the encoder's headroom."""
        stereo = self.stereo
        gain, position = np.float32(self.levels.gain), 0
        for block in self._mix(SOUNDTRACK_RATE, 1 + stereo):
            samples = np.ascontiguousarray(sanitized(sanitized(block) * gain, LevelMeter.CEILING))
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo" if stereo else "mono")
            frame.sample_rate = SOUNDTRACK_RATE
            frame.pts, frame.time_base = position, Fraction(1, SOUNDTRACK_RATE)
            position += frame.samples
            yield frame

    def _mix(self, rate: int, out_channels: int, meter: LevelMeter | None = None) -> Iterator[Samples]:
        """Yield the recording resampled and mixed: for the analysis with a ``meter`` to fill, else for the soundtrack."""
        segment: Segment | None = None
        for frame in self._decoder.frames():
            if meter is not None:
                meter.add(frame)
            if segment is None or not segment.fits(frame):
                if segment is not None:
                    yield from segment.add(None)
                side = self.levels.side if meter is None else None
                segment = Segment(frame, rate, out_channels, loudspeakers=meter is None, only_side=side)
            yield from segment.add(frame)
        if segment is not None:
            yield from segment.add(None)
