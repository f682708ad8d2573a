"""Follows the pitch of a voice: how far above or below its usual pitch it is, every 10 ms.

The pitch of a window of 40 ms is the shortest lag at which the sound, at 4,000 samples per second, resembles itself (autocorrelation by
FFT). Rows without a clear pitch, which are consonants, noise or silence, are bridged if they are short; otherwise they count as the usual
pitch. That is enough for an expression, and costs a thousandth of the duration of the recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

_DECIMATION = 4
_RATE = 4000
_HOP, _WINDOW, _FFT = 40, 160, 256  # samples
_BEFORE = (_WINDOW - _HOP) // 2  # from the beginning of a window to that of its row
_LAGS = range(10, 58)  # 400 to 70 Hz
_CLEAR = 0.5  # the correlation of a voice
_NEAR_MAXIMUM = 0.85  # a shorter lag whose correlation is as high: the maximum is an octave below the pitch
_QUIET = 30.0  # dB below loud speech
_MIN_VOICED_ROWS = 20
_OCTAVE = 12.0  # semitones; farther from the usual pitch are mistakes
_BRIDGED_ROWS = 12
_BLOCK_ROWS = 400


class Intonation:
    """Measures the pitch of a recording that passes through ``listen``."""

    def __init__(self) -> None:
        self._samples = 0
        self._pending = np.zeros(_BEFORE, np.float32)
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
        self._measure(0)

    def semitones(self) -> NDArray[np.float64]:
        """Return by how many semitones the voice is above its usual pitch, which is the median, in each row of 10 ms."""
        count = -(-self._samples // (_HOP * _DECIMATION))
        rows = np.concatenate([np.zeros((0, 3), np.float32), *self._measured])[:count]
        hertz, clear, level = (column.astype(np.float64) for column in rows.T)
        voiced = (clear > _CLEAR) & (level > np.percentile(level, 95) - _QUIET) if count else np.zeros(0, bool)
        if np.count_nonzero(voiced) < _MIN_VOICED_ROWS:
            return np.zeros(count)
        pitch = 12 * np.log2(np.maximum(hertz, 1))
        pitch -= np.median(pitch[voiced])
        voiced &= np.abs(pitch) < _OCTAVE
        places = np.flatnonzero(voiced)
        row = np.arange(count)
        after = np.searchsorted(places, row).clip(0, len(places) - 1)
        distance = np.minimum(np.abs(places[after] - row), np.abs(places[np.maximum(after - 1, 0)] - row))
        bridged = np.clip(2 - distance / _BRIDGED_ROWS, 0, 1)
        return np.asarray(np.interp(row, places, pitch[places]) * bridged, float)

    def _add(self, samples: Array) -> None:
        self._pending = np.concatenate([self._pending, samples])
        if len(self._pending) >= _BLOCK_ROWS * _HOP + _WINDOW:
            self._measure(_WINDOW)

    def _measure(self, least: int) -> None:
        """Measure all windows that are pending."""
        count = (len(self._pending) - max(least, _WINDOW)) // _HOP + 1
        if count < 1:
            return
        windows = np.lib.stride_tricks.sliding_window_view(self._pending, _WINDOW)[: count * _HOP : _HOP]
        self._measured.append(_pitch_of(windows))
        self._pending = self._pending[count * _HOP :]


def _pitch_of(windows: Array) -> Array:
    """Return the pitch of each window in Hz, how clear it is (0 to 1), and the level in dB."""
    sound = windows - windows.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(sound, _FFT, axis=1)) ** 2
    lags = np.arange(_LAGS.start - 1, _LAGS.stop + 1)
    correlation = np.fft.irfft(power, axis=1)
    energy = correlation[:, :1] + 1e-9
    # Fewer samples overlap at longer lags.
    alike = correlation[:, lags] / energy * (_WINDOW / (_WINDOW - lags))
    inner = alike[:, 1:-1]
    peak = (inner >= alike[:, :-2]) & (inner >= alike[:, 2:])
    peak &= inner >= _NEAR_MAXIMUM * np.where(peak, inner, 0).max(1, keepdims=True)
    place = peak.argmax(1)
    row = np.arange(len(place))
    before, at, after = (alike[row, place + shift] for shift in range(3))
    # The peak of the parabola through three lags.
    bend = before - 2 * at + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0).clip(-0.5, 0.5)
    clear = np.where(peak.any(1), at, 0)
    level = 10 * np.log10(energy[:, 0] / _WINDOW)
    return np.stack([_RATE / (lags[place + 1] + shift), clear, level], axis=1).astype(np.float32)
