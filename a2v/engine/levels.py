"""Measures the levels of a recording: how far it must be turned down for the AAC encoder, and whether one side is silent.

FFmpeg's AAC encoder turns down each window whose peak exceeds 0.95, which is heard as pumping. Its ``fast`` coder also clips
spectral lines whose amplitude exceeds 0.45, which distorts whistles, beeps and the loudest vowels. So a whole recording is
turned down if necessary: by its peak, and by up to 3 dB for its strongest line. Stronger lines need the ``twoloop`` coder
(``LevelMeter.tonal``), which is slower and worse for speech.

The meter sees frames as they were decoded, before ``Segment`` resamples them, in blocks of half a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.mixing import StereoDownmix, format_of, samples_of, sanitized

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_WINDOW_SECONDS = 1024 / 48_000  # the encoder's window
_RESAMPLED_PEAK = 0.85  # peaks above it may exceed the ceiling after resampling
_CLIPPED_LINE, _STRONG_LINE = 0.45, 0.64  # amplitudes of spectral lines; see above
_SQUARE_WAVE = 0.78  # the largest possible line is that of a square wave, with an amplitude of 4/pi times the peak
_GLITCH = 8.0  # the ratio of a glitch to the usual peak of its block
_ONE_SIDED = 10**2.4  # the ratio of the powers of both sides: 24 dB


class LevelMeter:
    """Measures a recording frame by frame. The results are final after the last frame."""

    CEILING = 0.94
    """The largest sample to give to the encoder."""

    def __init__(self) -> None:
        self.channels: int = 0
        """The most channels of any part of the recording."""
        self._peak = 0.0
        self._strongest_line = 0.0  # amplitude
        self._power = np.zeros(2)  # of the two sides
        self._windows: dict[int, Samples] = {}  # Hann windows by size
        self._format: object = None
        self._downmix = StereoDownmix(1)
        self._block: list[Samples] = []
        self._rate = 1

    def add(self, frame: av.AudioFrame) -> None:
        """Measure a decoded frame."""
        if format_of(frame) != self._format:
            self._measure_block()
            self._format, self._downmix = format_of(frame), StereoDownmix(frame.sample_rate)
        channels = frame.layout.nb_channels
        self.channels = max(self.channels, channels)
        parts = self._downmix.add(frame) if channels > 2 else [samples_of(frame)]
        if not self._downmix.is_possible:
            parts = [sanitized(samples_of(frame)).mean(axis=0, keepdims=True)]
        self._block += parts
        self._rate = frame.sample_rate
        if len(self._block) * frame.samples >= self._rate // 2:
            self._measure_block()

    @property
    def peak(self) -> float:
        """The largest sample, except for isolated glitches of floating-point files."""
        self._measure_block()
        return self._peak

    @property
    def gain(self) -> float:
        """The factor for the soundtrack; 1 for most recordings."""
        return self._gain_and_line()[0]

    @property
    def tonal(self) -> bool:
        """Whether some spectral lines are too strong for the encoder's fast coder."""
        return self._gain_and_line()[1] > _CLIPPED_LINE

    @property
    def side(self) -> int | None:
        """The only channel with sound, if the other one is 24 dB or more below it throughout."""
        left, right = self._power
        if max(left, right) == 0 or _ONE_SIDED * min(left, right) > max(left, right):
            return None
        return int(right > left)

    def _gain_and_line(self) -> tuple[float, float]:
        """Return the gain, and the amplitude of the strongest line after it."""
        peak = self.peak
        gain = self.CEILING / peak if peak > _RESAMPLED_PEAK else 1.0
        line = self._strongest_line * gain
        if _CLIPPED_LINE < line <= _STRONG_LINE:
            return gain * _CLIPPED_LINE / line, _CLIPPED_LINE
        return gain, line

    def _measure_block(self) -> None:
        samples = sanitized(np.concatenate(self._block or [np.zeros((1, 0), np.float32)], axis=1))
        self._block = []
        if not samples.size:
            return
        peak = float(np.abs(samples).max())
        if peak > 1 and (usual := _peak_without_glitches(samples)) * _GLITCH < peak:
            peak = max(usual, 1.0)
            samples = np.clip(samples, -peak, peak)
        self._peak = max(self._peak, peak)
        if peak > _CLIPPED_LINE * _SQUARE_WAVE:
            self._strongest_line = max(self._strongest_line, self._measure_line(samples, self._rate))
        if len(samples) == 2:
            self._power += np.square(samples, dtype=np.float64).sum(axis=1)

    def _measure_line(self, samples: Samples, rate: int) -> float:
        """Return the amplitude of the strongest sine, in windows as long as the encoder's."""
        size = max(64, int(rate * _WINDOW_SECONDS) // 2 * 2)
        count = max(1, samples.shape[1] // size)
        padded = np.pad(samples[:, : count * size], ((0, 0), (0, max(0, count * size - samples.shape[1]))))
        parts = padded.reshape(-1, size)
        loud = parts[np.abs(parts).max(axis=1) > _CLIPPED_LINE * _SQUARE_WAVE]
        window = self._windows.setdefault(size, np.hanning(size).astype(np.float32))
        spectrum = np.fft.rfft(loud * window, 2 * size, axis=1)  # twice the resolution: a line may lie between two bins
        return float(np.abs(spectrum).max(initial=0.0) * 4 / size)


def _peak_without_glitches(samples: Samples) -> float:
    """Return the level that fewer than one sample in a hundred exceed."""
    count = samples.size // 100 + 1
    return float(np.partition(np.abs(samples).ravel(), -count)[-count])
