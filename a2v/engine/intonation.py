"""Estimates the pitch (fundamental frequency) of a voice every 10 ms, relative to its median.

The sound is decimated to 4,000 samples per second. In each window of 40 ms, the period of the voice is the lag of the first high peak of the
autocorrelation, which is computed by FFT; a parabola through the peak refines it. Rows without a clear peak are unvoiced: consonants, noise
or silence. Short gaps between voiced rows are interpolated; in long ones the pitch returns to the median.

That is accurate enough for an expression, and takes a thousandth of the duration of the recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_DECIMATION = 4
_RATE = 4000  # samples per second, after decimation
_HOP, _WINDOW, _FFT_SIZE = 40, 160, 256  # samples
_PADDING = (_WINDOW - _HOP) // 2  # samples before the first row, which centre each window on its row
_LAGS = range(10, 58)  # samples: 400 to 70 Hz
_MIN_VOICED_CORRELATION = 0.5
# A peak this high, relative to the highest, at a shorter lag is the pitch; the highest is then an octave too low.
_MIN_PEAK_RATIO = 0.85
_VOICED_RANGE_DB = 30.0  # below loud speech; quieter rows are unvoiced
_MIN_VOICED_ROWS = 20  # with fewer, the median is meaningless
_MAX_SEMITONES = 12.0  # from the median; beyond it, the estimate is wrong
_GAP_ROWS = 12  # the pitch is interpolated this far from a voiced row, and fades to the median over as many more rows
_BLOCK_ROWS = 400  # measured at a time


class Intonation:
    """Measures the pitch of a recording that passes through ``listen``."""

    def __init__(self) -> None:
        self._samples = 0
        self._pending = np.zeros(_PADDING, np.float32)
        self._measured: list[NDArray[np.float32]] = []

    def listen(self, pieces: Iterable[Array]) -> Iterator[Array]:
        """Yield the pieces of a recording, 16,000 samples per second, unchanged."""
        rest = np.zeros(0, np.float32)
        for piece in pieces:
            self._samples += len(piece)
            joined = np.concatenate([rest, piece])
            whole = len(joined) // _DECIMATION * _DECIMATION
            rest = joined[whole:]
            self._add(joined[:whole].reshape(-1, _DECIMATION).mean(1))
            yield piece
        self._add(np.zeros(_WINDOW, np.float32))
        self._measure()

    def semitones(self) -> NDArray[np.float64]:
        """Return the pitch in each row of 10 ms, in semitones relative to the median; zeros if there is hardly any voice."""
        count = -(-self._samples // (_HOP * _DECIMATION))
        rows = np.concatenate([np.zeros((0, 3), np.float32), *self._measured])[:count]
        hertz, correlation, level = (column.astype(np.float64) for column in rows.T)
        voiced = np.zeros(0, bool)
        if count:
            voiced = (correlation > _MIN_VOICED_CORRELATION) & (level > np.percentile(level, 95) - _VOICED_RANGE_DB)
        if np.count_nonzero(voiced) < _MIN_VOICED_ROWS:
            return np.zeros(count)
        pitch = 12 * np.log2(np.maximum(hertz, 1))
        pitch -= np.median(pitch[voiced])
        voiced &= np.abs(pitch) < _MAX_SEMITONES
        voiced_rows = np.flatnonzero(voiced)
        row = np.arange(count)
        after = np.searchsorted(voiced_rows, row).clip(0, len(voiced_rows) - 1)
        before = np.maximum(after - 1, 0)
        distance = np.minimum(np.abs(voiced_rows[after] - row), np.abs(voiced_rows[before] - row))
        fade = np.clip(2 - distance / _GAP_ROWS, 0, 1)
        return np.asarray(np.interp(row, voiced_rows, pitch[voiced_rows]) * fade, float)

    def _add(self, samples: Array) -> None:
        self._pending = np.concatenate([self._pending, samples])
        if len(self._pending) >= _BLOCK_ROWS * _HOP + _WINDOW:
            self._measure()

    def _measure(self) -> None:
        """Measure all complete windows."""
        count = (len(self._pending) - _WINDOW) // _HOP + 1
        if count < 1:
            return
        windows = np.lib.stride_tricks.sliding_window_view(self._pending, _WINDOW)[: count * _HOP : _HOP]
        self._measured.append(_measure_windows(windows))
        self._pending = self._pending[count * _HOP :]


def _measure_windows(windows: Array) -> Array:
    """Return a row per window: the pitch in Hz, the autocorrelation at its peak (0 if there is none, about 1 at most), and the level in dB."""
    sound = windows - windows.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(sound, _FFT_SIZE, axis=1)) ** 2
    lags = np.arange(_LAGS.start - 1, _LAGS.stop + 1)
    autocorrelation = np.fft.irfft(power, axis=1)
    energy = autocorrelation[:, :1] + 1e-9
    # Normalized for the number of samples that overlap, which is smaller at longer lags.
    correlation = autocorrelation[:, lags] / energy * (_WINDOW / (_WINDOW - lags))
    inner = correlation[:, 1:-1]
    is_peak = (inner >= correlation[:, :-2]) & (inner >= correlation[:, 2:])
    is_peak &= inner >= _MIN_PEAK_RATIO * np.where(is_peak, inner, 0).max(1, keepdims=True)
    first_peak = is_peak.argmax(1)
    row = np.arange(len(first_peak))
    before, peak, after = (correlation[row, first_peak + offset] for offset in range(3))
    # Parabolic interpolation: the vertex of the parabola through the three lags.
    curvature = before - 2 * peak + after
    is_concave = curvature < 0
    shift = np.where(is_concave, 0.5 * (before - after) / np.where(is_concave, curvature, 1), 0).clip(-0.5, 0.5)
    level = 10 * np.log10(energy[:, 0] / _WINDOW)
    peak = np.where(is_peak.any(1), peak, 0)
    return np.stack([_RATE / (lags[first_peak + 1] + shift), peak, level], axis=1).astype(np.float32)
