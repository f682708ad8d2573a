"""From sound to mouths: how likely each viseme is, every 10 ms.

A small convolutional net, run with numpy. It hears logarithmic mel bands against the recording's own loudness and its own
average voice, and looks 0.9 s back and ahead. ``tools/lipsync`` makes the speech it learned from, trains it and scores it.
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
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

HOP = RATE // 100
"""Samples from one row to the next: 10 ms."""

BANDS = 40
"""Mel bands that the net hears."""

FEATURES = BANDS + 2
"""Numbers a row that go into the net: the bands, and the level against loud speech and against the background."""

_WINDOW, _FFT = 400, 512
_BLOCK = 1024  # rows, an even number, that are worked on at once: 10 s
_EMPTY = 1e-14  # power of nothing: -140 dB of full scale, far below what the quietest recording has
_INAUDIBLE = -75.0  # dB of full scale; a recording without anything louder is one of silence
_FLOOR = -60.0  # dB below loud speech, under which nothing is heard
_SHRINK = 30.0  # rows of usual speech that an own average counts in addition
_HUM = 22.0  # dB below loud speech, above which a hum is taken for sound
_HUM_HERTZ, _HUM_TAPS = 76.0, 2001  # below all voices, above the mains of all countries


def analyse(samples: NDArray[np.float32]) -> Array:
    """How likely each mouth is at each moment.

    Works through the recording in blocks: beyond the rows it returns, it holds 84 bytes for each 10 ms.

    Args:
        samples: Mono sound, 16,000 samples a second, -1 to 1.

    Returns:
        One row for every 10 ms, one column for each viseme of ``XABCDEFGH``; each row sums to 1.
    """
    bands, level = spectrum(samples)
    if not len(level) or level.max() < _INAUDIBLE:
        return np.tile(np.eye(len(VISEMES), dtype=np.float32)[0], (len(level), 1))
    return network().run(bands, level)


def loudness(samples: NDArray[np.float32]) -> Array:
    """The level of each 10 ms in dB of full scale, over a window of 25 ms."""
    parts = _frames(samples, hum=has_hum(samples))
    return np.concatenate([np.zeros(0, np.float32), *(_db((part * part).mean(1)) for part in parts)])


def has_hum(samples: NDArray[np.float32]) -> bool:
    """Whether there is something steady below all voices, a constant offset or mains hum, that counts as sound in pauses.

    The net knows neither, so they are filtered out; all other recordings are left as they are.
    """
    if not len(samples):
        return False
    low, level = (
        np.concatenate(rows)
        for rows in zip(*((_low_level(part), _db((part * part).mean(1))) for part in _frames(samples)), strict=True)
    )
    return bool(np.percentile(low, 5) > max(_loud(level) - _HUM, _INAUDIBLE))


def _low_level(part: Array) -> Array:
    """The level of what is below 80 Hz in each window."""
    shape = np.hanning(_WINDOW)
    turns = np.outer(np.arange(_WINDOW) / RATE, np.arange(3) * RATE / _FFT * 2 * np.pi)
    waves = np.concatenate([np.cos(turns), np.sin(turns)], axis=1) * shape[:, None] / shape.sum()
    found = part @ waves.astype(np.float32)
    return _db((found * found).sum(1))


def _loud(level: Array) -> float:
    """The level of loud speech: not the very loudest, which may be a click."""
    peak = float(np.percentile(level, 99))
    return float(np.percentile(level[level > peak - 30], 80))


def spectrum(samples: NDArray[np.float32]) -> tuple[NDArray[np.float16], Array]:
    """Power of each mel band in dB, a row for each 10 ms, and the level of each row."""
    shape, filters = np.hanning(_WINDOW).astype(np.float32), _mel_filters()
    count = -(-len(samples) // HOP)
    bands, level = np.empty((count, BANDS), np.float16), np.empty(count, np.float32)
    at = 0
    for part in _frames(samples, hum=has_hum(samples)):
        wave = np.fft.rfft(part * shape, _FFT, axis=1)
        bands[at : at + len(part)] = _db((wave.real**2 + wave.imag**2).astype(np.float32) @ filters)
        level[at : at + len(part)] = _db((part * part).mean(1))
        at += len(part)
    return bands, level


def runs(values: NDArray[np.generic]) -> list[tuple[int, int, int]]:
    """Stretches of equal values: start, end (after the last), value."""
    if not len(values):
        return []
    cuts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [(a, b, int(values[a])) for a, b in pairwise(cuts)]


class Voice(NamedTuple):
    """What a recording is measured against."""

    loud: float
    """Level of loud speech, dB."""
    floor: float
    """Level of the background, dB."""
    middle: Array
    """The average of each band while somebody speaks, dB against loud speech."""


def voice(bands: NDArray[np.float16], level: Array, usual: Array) -> Voice:
    """Measures a recording.

    Args:
        bands: From ``spectrum``.
        level: From ``spectrum``.
        usual: The average of each band in all speech, to which that of a short recording is drawn.
    """
    loud = _loud(level)
    spoken = np.flatnonzero(level > loud - 30)
    total = usual * _SHRINK
    for at in range(0, len(spoken), _BLOCK):
        total = total + np.maximum(bands[spoken[at : at + _BLOCK]] - np.float32(loud), _FLOOR).sum(0)
    return Voice(loud, float(np.percentile(level, 5)), np.asarray(total / (len(spoken) + _SHRINK), np.float32))


def features(bands: NDArray[np.float16], level: Array, voice: Voice) -> Array:
    """What the net hears: ``FEATURES`` numbers a row, around zero."""
    out = np.empty((len(level), FEATURES), np.float32)
    heard = np.maximum(bands - np.float32(voice.loud), _FLOOR)
    out[:, :BANDS] = (heard - voice.middle) / 15
    out[:, BANDS] = np.clip((level - voice.loud) / 20, -3.5, 1)
    out[:, BANDS + 1] = np.clip((level - max(voice.floor, voice.loud - 70) - 8) / 20, -1, 3)
    return out


def _frames(samples: NDArray[np.float32], *, hum: bool = False) -> Iterator[Array]:
    """Windows of 25 ms around the middle of each 10 ms, a block of them at a time; without their hum, if they have one."""
    before = (_WINDOW - HOP) // 2
    for first in range(0, len(samples), _BLOCK * HOP):
        count = -(-min(_BLOCK * HOP, len(samples) - first) // HOP)
        start, end = first - before, first - before + (count - 1) * HOP + _WINDOW
        here, there = max(start, 0), min(end, len(samples))
        part = _without_hum(samples, here, there) if hum else np.asarray(samples[here:there], np.float32)
        part = np.pad(part, (here - start, end - there))
        yield np.lib.stride_tricks.sliding_window_view(part, _WINDOW)[::HOP]


def _without_hum(samples: NDArray[np.float32], start: int, end: int) -> Array:
    """A part of the recording, less what a low-pass filter leaves of it."""
    side = _HUM_TAPS // 2
    here, there = max(start - side, 0), min(end + side, len(samples))
    part = np.pad(samples[here:there], (here - start + side, end + side - there), mode="symmetric")
    size = 1 << (len(part) + _HUM_TAPS).bit_length()
    low = np.fft.irfft(np.fft.rfft(part, size) * np.fft.rfft(_low_pass(), size), size)
    return np.asarray(part[side : len(part) - side] - low[2 * side : len(part)], np.float32)


@cache
def _low_pass() -> NDArray[np.float64]:
    times = np.arange(_HUM_TAPS) - _HUM_TAPS // 2
    taps = np.sinc(2 * _HUM_HERTZ / RATE * times) * np.hamming(_HUM_TAPS)
    return np.asarray(taps / taps.sum(), np.float64)


def _db(power: Array) -> Array:
    return np.asarray(10 * np.log10(np.maximum(power, _EMPTY)), np.float32)


@cache
def _mel_filters() -> Array:
    """Triangles over the spectrum, from 60 to 7600 Hz; each adds up to 1."""
    edges = 700 * (10 ** (np.linspace(_mel(60), _mel(7600), BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)))
    return np.asarray(filters / filters.sum(0) / (_FFT * 150), np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


class Network:
    """Weights, and what is done with them: two rows at once, so everything inside moves in steps of 20 ms."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._usual = weights["usual"]
        self._enter, self._leave = (weights["enter"], weights["enter_bias"]), (weights["leave"], weights["leave_bias"])
        self._layers = [
            _Layer(int(reach), *(weights[f"{name}_{i}"] for name in _Layer._fields[1:]))
            for i, reach in enumerate(weights["reaches"])
        ]
        self._around = 1 + sum(layer.reach * (len(layer.taps) // 2) for layer in self._layers)

    def run(self, bands: NDArray[np.float16], level: Array) -> Array:
        """Probabilities of the visemes in each row."""
        own = voice(bands, level, self._usual)
        out = np.empty((len(level), len(VISEMES)), np.float32)
        for start in range(0, len(level), _BLOCK):
            end = min(start + _BLOCK, len(level))
            first, last = max(0, start - 2 * self._around), min(end + 2 * self._around, len(level))
            scores = self._scores(features(bands[first:last], level[first:last], own))
            out[start:end] = _softmax(scores[start - first : end - first])
        return out

    def _scores(self, heard: Array) -> Array:
        pairs = np.pad(heard, ((0, len(heard) % 2), (0, 0)), mode="edge").reshape(-1, 2 * FEATURES)
        weight, bias = self._enter
        state = np.maximum(_shifted(pairs, 1, len(weight) // pairs.shape[1]) @ weight + bias, 0)
        for layer in self._layers:
            state = layer(state)
        weight, bias = self._leave
        return np.asarray((state @ weight + bias).reshape(-1, len(VISEMES)), np.float32)


class _Layer(NamedTuple):
    """Each channel looks at its own past and future; then the channels are mixed and added to what was there."""

    reach: int
    taps: Array
    taps_bias: Array
    mix: Array
    mix_bias: Array
    add: Array
    add_bias: Array

    def __call__(self, state: Array) -> Array:
        count, side = len(state), self.reach * (len(self.taps) // 2)
        padded = np.pad(state, ((side, side), (0, 0)))
        seen = padded[:count] * self.taps[0]
        for i, tap in enumerate(self.taps[1:], 1):
            seen += padded[i * self.reach : i * self.reach + count] * tap
        seen += self.taps_bias
        mixed = seen @ self.mix
        mixed += self.mix_bias
        out: Array = np.maximum(mixed, 0, out=mixed) @ self.add
        out += self.add_bias
        out += state
        return out


def _shifted(rows: Array, step: int, count: int) -> Array:
    """Each row together with its neighbours; nothing lies beyond the ends."""
    side = step * (count // 2)
    padded = np.pad(rows, ((side, side), (0, 0)))
    return np.concatenate([padded[i * step : i * step + len(rows)] for i in range(count)], axis=1)


def _softmax(scores: Array) -> Array:
    likely = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(likely / likely.sum(1, keepdims=True), np.float32)


@cache
def network(path: Path | None = None) -> Network:
    """The net with the weights that come with the package, or with those of a file."""
    with (path or resources.files("a2v.engine").joinpath("lipsync.npz")).open("rb") as file, np.load(file) as weights:
        return Network({name: weights[name].astype(np.float32) for name in weights.files})
