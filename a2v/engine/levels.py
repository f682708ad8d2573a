"""How loud a recording is: what an AAC encoder must be spared, and whether only one side has sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.mixing import HUGE, StereoDownmix, cleaned, format_of, samples_of

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_ONE_SIDED = 10**2.4  # power of one side against that of the other
_WINDOW = 1024 / 48_000  # seconds that the encoder works on at once


class LevelMeter:
    """Measures a recording: what an AAC encoder must be spared, and whether it is one-sided.

    FFmpeg's encoder turns each window down whose peak exceeds 0.95, which pumps. Its ``fast`` way of coding also cuts
    off spectral lines whose amplitude exceeds 0.45, which distorts whistles, beeps and the loudest vowels. So a whole recording
    is turned down, if it must be: by its peak, and by up to 3 dB for its strongest line. Stronger lines need the other
    way of coding (``tonal``), which is slower and worse for speech.
    """

    CEILING = 0.94
    """The largest sample that is given to the encoder."""

    _LOUD = 0.85  # peaks above it may exceed the ceiling when they are resampled
    _LINE, _STRONG_LINE = 0.45, 0.64
    _GLITCH = 8.0  # times what is usual around it

    def __init__(self) -> None:
        self.channels: int = 0
        self._peak = 0.0
        self._strongest = 0.0  # amplitude of the strongest line
        self._power = np.zeros(2)
        self._windows: dict[int, Samples] = {}
        self._format: object = None
        self._downmix = StereoDownmix(1)
        self._waiting: list[Samples] = []
        self._rate = 1

    def add(self, frame: av.AudioFrame) -> None:
        """Take a frame as it was decoded."""
        if format_of(frame) != self._format:
            self._look()
            self._format, self._downmix = format_of(frame), StereoDownmix(frame.sample_rate)
        channels = frame.layout.nb_channels
        self.channels = max(self.channels, channels)
        parts = self._downmix.add(frame) if channels > 2 else [samples_of(frame)]
        if not self._downmix.is_known:
            parts = [cleaned(samples_of(frame), HUGE).mean(axis=0, keepdims=True)]
        self._waiting += parts
        self._rate = frame.sample_rate
        if len(self._waiting) * frame.samples >= self._rate // 2:
            self._look()

    def _look(self) -> None:
        """Measure what has come in the last half second."""
        samples = cleaned(np.concatenate(self._waiting or [np.zeros((1, 0), np.float32)], axis=1), HUGE)
        self._waiting = []
        if not samples.size:
            return
        peak = float(np.abs(samples).max())
        if peak > 1 and (usual := self._without_glitch(samples)) * self._GLITCH < peak:
            peak = max(usual, 1.0)
            samples = np.clip(samples, -peak, peak)
        self._peak = max(self._peak, peak)
        # No line is larger than that of a square wave, 4/pi times the peak.
        if peak > self._LINE * 0.78:
            self._strongest = max(self._strongest, self._line(samples, self._rate))
        if len(samples) == 2:
            self._power += np.square(samples, dtype=np.float64).sum(axis=1)

    def _line(self, samples: Samples, rate: int) -> float:
        """The amplitude of the strongest sine, by windows as long as the encoder's."""
        size = max(64, int(rate * _WINDOW) // 2 * 2)
        count = max(1, samples.shape[1] // size)
        padded = np.pad(samples[:, : count * size], ((0, 0), (0, max(0, count * size - samples.shape[1]))))
        parts = padded.reshape(-1, size)
        loud = parts[np.abs(parts).max(axis=1) > self._LINE * 0.78]
        window = self._windows.setdefault(size, np.hanning(size).astype(np.float32))
        spectrum = np.fft.rfft(loud * window, 2 * size, axis=1)  # twice as fine: a line may lie between
        return float(np.abs(spectrum).max(initial=0.0) * 4 / size)

    @staticmethod
    def _without_glitch(samples: Samples) -> float:
        """What less than one sample in a hundred exceeds."""
        count = samples.size // 100 + 1
        return float(np.partition(np.abs(samples).ravel(), -count)[-count])

    @property
    def peak(self) -> float:
        """The largest sample, but for single glitches of floating-point files."""
        self._look()
        return self._peak

    def _levels(self) -> tuple[float, float]:
        """What the recording is multiplied with, and the strongest line afterwards."""
        peak = self.peak
        gain = self.CEILING / peak if peak > self._LOUD else 1.0
        line = self._strongest * gain
        if self._LINE < line <= self._STRONG_LINE:
            return gain * self._LINE / line, self._LINE
        return gain, line

    @property
    def gain(self) -> float:
        """What the soundtrack is multiplied with; 1 for most."""
        return self._levels()[0]

    @property
    def tonal(self) -> bool:
        """Whether there are lines that are too strong for the encoder's fast way."""
        return self._levels()[1] > self._LINE

    @property
    def side(self) -> int | None:
        """The row that alone has sound, if the other is 24 dB or more below it throughout."""
        left, right = self._power
        if max(left, right) == 0 or _ONE_SIDED * min(left, right) > max(left, right):
            return None
        return int(right > left)
