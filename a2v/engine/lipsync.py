"""Lip-sync: the probability of each viseme, every 10 ms, from the sound of a recording.

A small convolutional network, run with numpy. The input of each row is a logarithmic mel spectrum and the level. Both are relative to
the recording's own loud speech, background and average voice, so that the gain, the microphone and the speaker matter little. The
network sees 0.9 s before and after each row.

Recordings may be long, so everything is computed in blocks: spectra (as float16) and levels of the whole recording first, because
the average voice depends on all of it, and then the network. Blocks overlap by what the network sees, so their borders make no
difference. ``analyse_pieces`` also bounds the samples in memory, by analysing a minute at a time.

``tools/lipsync`` generates the training data, trains the network (``lipsync.npz``) and scores it.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.audio import RATE
from a2v.engine.face_pose import VISEMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

HOP = RATE // 100
"""Samples per row: 10 ms."""

BANDS = 40
"""Mel bands."""

FEATURES = BANDS + 2
"""Inputs of the network per row: the bands, the level relative to loud speech, and the level relative to the background."""

_WINDOW, _FFT = 400, 512  # samples; windows of 25 ms
_BLOCK = 1024  # rows per block, 10 s; even
_MIN_POWER = 1e-14  # -140 dB of full scale, far below the quietest recording; avoids log(0)
_INAUDIBLE = -75.0  # dB of full scale; a recording that never exceeds it is silent
_FLOOR = -60.0  # dB; bands this far below loud speech, and further, count the same
_TYPICAL_ROWS = 30.0  # weight of the typical voice in the average of a recording's own
_HUM_LEVEL = 22.0  # dB; hum is filtered if it is less than this below loud speech
_HUM_HERTZ, _HUM_TAPS = 76.0, 4001  # between the mains frequencies of all countries and all voices
_HUM_WINDOW = 8.0  # Kaiser's beta; it leaves hum below -85 dB, so that not even a quiet room is louder for it
_PIECE_ROWS, _CONTEXT_ROWS = 6000, 500  # a minute at a time, with 5 s of context on both sides


def analyse(samples: NDArray[np.float32]) -> Array:
    """Return the probability of each viseme, every 10 ms.

    Besides the result, this needs 84 bytes of memory per row, and one block.

    Args:
        samples: Mono sound, 16,000 samples per second, -1 to 1.

    Returns:
        A row for every 10 ms, with a column for each viseme of ``XABCDEFGH``. Each row sums to 1.
    """
    return _recognize(*mel_spectrum(samples))


def _recognize(bands: NDArray[np.float16], level: Array) -> Array:
    """Return the probability of each viseme in each row of a spectrum."""
    if not len(level) or level.max() < _INAUDIBLE:
        return np.tile(np.eye(len(VISEMES), dtype=np.float32)[0], (len(level), 1))
    return network().run(bands, level)


def analyse_pieces(pieces: Iterable[NDArray[np.float32]]) -> tuple[Array, Array]:
    """Return the visemes (``analyse``) of a recording that comes in pieces, and the level of each row (``mel_spectrum``).

    A minute is analysed at a time, with some seconds before and after it, so that no syllable is cut in two.
    """
    visemes, levels = [], []
    pending: list[NDArray[np.float32]] = []
    context = 0  # rows at the beginning of `pending` that are analysed already

    def analyse_pending(end: int | None) -> None:
        samples = np.concatenate(pending)
        bands, level = mel_spectrum(samples)
        visemes.append(_recognize(bands, level)[context:end])
        levels.append(level[context:end])
        if end is not None:
            pending[:] = [samples[(end - _CONTEXT_ROWS) * HOP :]]

    for piece in pieces:
        pending.append(piece)
        if sum(map(len, pending)) >= (context + _PIECE_ROWS + _CONTEXT_ROWS) * HOP:
            analyse_pending(context + _PIECE_ROWS)
            context = _CONTEXT_ROWS
    analyse_pending(None)
    return np.concatenate(visemes), np.concatenate(levels)


def has_hum(samples: NDArray[np.float32]) -> bool:
    """Whether a recording has a steady sound below all voices, such as an offset or mains hum, that is audible in pauses.

    The network was trained without, so it is filtered out. Other recordings are analysed unfiltered.
    """
    if not len(samples):
        return False
    low, level = (
        np.concatenate(rows)
        for rows in zip(*((_low_level(part), _db((part * part).mean(1))) for part in _windows(samples)), strict=True)
    )
    return bool(np.percentile(low, 5) > max(_loud_level(level) - _HUM_LEVEL, _INAUDIBLE))


def _low_level(part: Array) -> Array:
    """Return the level below 80 Hz of each window."""
    hann = np.hanning(_WINDOW)
    phases = np.outer(np.arange(_WINDOW) / RATE, np.arange(3) * RATE / _FFT * 2 * np.pi)
    waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) * hann[:, None] / hann.sum()
    amplitudes = part @ waves.astype(np.float32)
    return _db((amplitudes * amplitudes).sum(1))


def _loud_level(level: Array) -> float:
    """Return the level of loud speech. It is below the maximum, which may be a click."""
    peak = float(np.percentile(level, 99))
    return float(np.percentile(level[level > peak - 30], 80))


def mel_spectrum(samples: NDArray[np.float32]) -> tuple[NDArray[np.float16], Array]:
    """Return the power of each mel band in dB, with a row every 10 ms, and the level of each row in dB of full scale."""
    hann, filters = np.hanning(_WINDOW).astype(np.float32), _mel_filters()
    count = -(-len(samples) // HOP)
    bands, level = np.empty((count, BANDS), np.float16), np.empty(count, np.float32)
    at = 0
    for part in _windows(samples, filter_hum=has_hum(samples)):
        wave = np.fft.rfft(part * hann, _FFT, axis=1)
        bands[at : at + len(part)] = _db((wave.real**2 + wave.imag**2).astype(np.float32) @ filters)
        level[at : at + len(part)] = _db((part * part).mean(1))
        at += len(part)
    return bands, level


def runs(values: NDArray[np.generic]) -> list[tuple[int, int, int]]:
    """Return the runs of equal values as start, end (exclusive) and value."""
    if not len(values):
        return []
    cuts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [(a, b, int(values[a])) for a, b in pairwise(cuts)]


class VoiceProfile(NamedTuple):
    """What the input of the network is relative to."""

    loud: float
    """The level of loud speech in dB."""
    background: float
    """The level of the background in dB."""
    bands: Array
    """The average of each band during speech, in dB relative to loud speech."""


def voice_profile(bands: NDArray[np.float16], level: Array, typical: Array) -> VoiceProfile:
    """Measure a recording.

    Args:
        bands: From ``mel_spectrum``.
        level: From ``mel_spectrum``.
        typical: The average of each band over all voices. The shorter the recording, the more it counts.
    """
    loud = _loud_level(level)
    speech = np.flatnonzero(level > loud - 30)
    total = typical * _TYPICAL_ROWS
    for at in range(0, len(speech), _BLOCK):
        total = total + np.maximum(bands[speech[at : at + _BLOCK]] - np.float32(loud), _FLOOR).sum(0)
    average = np.asarray(total / (len(speech) + _TYPICAL_ROWS), np.float32)
    return VoiceProfile(loud, float(np.percentile(level, 5)), average)


def features(bands: NDArray[np.float16], level: Array, profile: VoiceProfile) -> Array:
    """Return the input of the network, ``FEATURES`` numbers around zero per row."""
    out = np.empty((len(level), FEATURES), np.float32)
    relative = np.maximum(bands - np.float32(profile.loud), _FLOOR)
    out[:, :BANDS] = (relative - profile.bands) / 15
    out[:, BANDS] = np.clip((level - profile.loud) / 20, -3.5, 1)
    out[:, BANDS + 1] = np.clip((level - max(profile.background, profile.loud - 70) - 8) / 20, -1, 3)
    return out


def _windows(samples: NDArray[np.float32], *, filter_hum: bool = False) -> Iterator[Array]:
    """Yield a window of 25 ms around the middle of each 10 ms, a block at a time."""
    before = (_WINDOW - HOP) // 2
    for first in range(0, len(samples), _BLOCK * HOP):
        count = -(-min(_BLOCK * HOP, len(samples) - first) // HOP)
        start, end = first - before, first - before + (count - 1) * HOP + _WINDOW
        first_sample, last_sample = max(start, 0), min(end, len(samples))
        if filter_hum:
            part = _without_hum(samples, first_sample, last_sample)
        else:
            part = np.asarray(samples[first_sample:last_sample], np.float32)
        part = np.pad(part, (first_sample - start, end - last_sample))
        yield np.lib.stride_tricks.sliding_window_view(part, _WINDOW)[::HOP]


def _without_hum(samples: NDArray[np.float32], start: int, end: int) -> Array:
    """Return a part of a recording minus its low frequencies (a linear-phase FIR filter, applied by FFT)."""
    side = _HUM_TAPS // 2
    first, last = max(start - side, 0), min(end + side, len(samples))
    part = np.pad(samples[first:last], (first - start + side, end + side - last), mode="symmetric")
    size = 1 << (len(part) + _HUM_TAPS).bit_length()
    low = np.fft.irfft(np.fft.rfft(part, size) * np.fft.rfft(_low_pass(), size), size)
    return np.asarray(part[side : len(part) - side] - low[2 * side : len(part)], np.float32)


@cache
def _low_pass() -> NDArray[np.float64]:
    times = np.arange(_HUM_TAPS) - _HUM_TAPS // 2
    taps = np.sinc(2 * _HUM_HERTZ / RATE * times) * np.kaiser(_HUM_TAPS, _HUM_WINDOW)
    return np.asarray(taps / taps.sum(), np.float64)


def _db(power: Array) -> Array:
    return np.asarray(10 * np.log10(np.maximum(power, _MIN_POWER)), np.float32)


@cache
def _mel_filters() -> Array:
    """Return triangular filters from 60 to 7600 Hz, normalized to a sum of 1."""
    edges = 700 * (10 ** (np.linspace(_mel(60), _mel(7600), BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)))
    return np.asarray(filters / filters.sum(0) / (_FFT * 150), np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


class Network:
    """The network: an input layer, residual layers of dilated convolutions, and an output layer.

    The input layer takes two rows at once, so all further layers run in steps of 20 ms.
    """

    def __init__(self, weights: dict[str, Array]) -> None:
        self._typical = weights["usual"]
        self._input, self._output = (weights["enter"], weights["enter_bias"]), (weights["leave"], weights["leave_bias"])
        self._layers = [
            _Layer(int(dilation), *(weights[f"{name}_{i}"] for name in _Layer._fields[1:]))
            for i, dilation in enumerate(weights["reaches"])
        ]
        # Steps before and after a row that influence it.
        self._context = 1 + sum(layer.dilation * (len(layer.taps) // 2) for layer in self._layers)

    def run(self, bands: NDArray[np.float16], level: Array) -> Array:
        """Return the probabilities of the visemes in each row."""
        profile = voice_profile(bands, level, self._typical)
        out = np.empty((len(level), len(VISEMES)), np.float32)
        for start in range(0, len(level), _BLOCK):
            end = min(start + _BLOCK, len(level))
            first, last = max(0, start - 2 * self._context), min(end + 2 * self._context, len(level))
            scores = self._scores(features(bands[first:last], level[first:last], profile))
            out[start:end] = _softmax(scores[start - first : end - first])
        return out

    def _scores(self, inputs: Array) -> Array:
        pairs = np.pad(inputs, ((0, len(inputs) % 2), (0, 0)), mode="edge").reshape(-1, 2 * FEATURES)
        weight, bias = self._input
        state = np.maximum(_with_neighbours(pairs, len(weight) // pairs.shape[1]) @ weight + bias, 0)
        for layer in self._layers:
            state = layer(state)
        weight, bias = self._output
        return np.asarray((state @ weight + bias).reshape(-1, len(VISEMES)), np.float32)


class _Layer(NamedTuple):
    """A depthwise dilated convolution, then a hidden layer that mixes the channels; added to the input (residual)."""

    dilation: int
    taps: Array
    taps_bias: Array
    mix: Array
    mix_bias: Array
    add: Array
    add_bias: Array

    def __call__(self, state: Array) -> Array:
        count, side = len(state), self.dilation * (len(self.taps) // 2)
        padded = np.pad(state, ((side, side), (0, 0)))
        convolved = padded[:count] * self.taps[0]
        for i, tap in enumerate(self.taps[1:], 1):
            convolved += padded[i * self.dilation : i * self.dilation + count] * tap
        convolved += self.taps_bias
        hidden = convolved @ self.mix
        hidden += self.mix_bias
        out: Array = np.maximum(hidden, 0, out=hidden) @ self.add
        out += self.add_bias
        out += state
        return out


def _with_neighbours(rows: Array, count: int) -> Array:
    """Return each row joined with its neighbours, ``count`` in all; zeros beyond the ends."""
    padded = np.pad(rows, ((count // 2, count // 2), (0, 0)))
    return np.concatenate([padded[i : i + len(rows)] for i in range(count)], axis=1)


def _softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True), np.float32)


@cache
def network(path: Path | None = None) -> Network:
    """Load the network, with the weights of the package or of a file."""
    with (path or resources.files("a2v.engine").joinpath("lipsync.npz")).open("rb") as file, np.load(file) as weights:
        return Network({name: weights[name].astype(np.float32) for name in weights.files})
