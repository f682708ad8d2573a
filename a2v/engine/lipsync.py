"""From sound to mouths: how likely each viseme is, every 10 ms.

No training and no model: loudness, and where in the spectrum it lies, measured against the recording's own voice. Good
enough to look right; bilabials are told from other stops by the little high-frequency sound around them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.audio import RATE
from a2v.engine.pose import VISEMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.floating]

HOP = RATE // 100
"""Samples from one row to the next: 10 ms."""

_WINDOW, _FFT = 400, 512
_BLOCK = 2000  # rows whose spectra are held at once
_FREQUENCIES = np.fft.rfftfreq(_FFT, 1 / RATE)
_EMPTY_DB = -100.0


def analyse(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely each mouth is at each moment.

    Args:
        samples: Mono sound, 16,000 samples a second, -1 to 1.

    Returns:
        One row for every 10 ms, one column for each viseme of ``XABCDEFGH``; each row sums to 1.
    """
    count = -(-len(samples) // HOP)
    if not count:
        return np.zeros((0, len(VISEMES)), np.float32)
    bands = _bands(np.asarray(samples, np.float32), count)
    level = _db(bands[:, 0])
    silence = _silence(level)
    if silence.min() > 0.5:
        return np.tile(np.eye(len(VISEMES), dtype=np.float32)[0], (count, 1))
    scores = _scores(bands, level, silence)
    scores -= scores.max(1, keepdims=True)
    likely = np.exp(scores)
    return np.asarray(likely / likely.sum(1, keepdims=True), np.float32)


def loudness(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The level of each 10 ms in dB of full scale, over a window of 25 ms."""
    count = -(-len(samples) // HOP)
    padded = np.pad(samples.astype(np.float64), (_WINDOW // 2, _WINDOW))
    energy = np.concatenate([[0.0], np.cumsum(padded * padded)])
    start = np.arange(count) * HOP + HOP // 2
    return _db((energy[start + _WINDOW] - energy[start]) / _WINDOW)


# Columns of the table that `_bands` makes.
_ALL, _VOICE, _F2, _HIGH, _HISS, _F1_AT, _F2_AT = range(7)


def _bands(samples: Array, count: int) -> Array:
    """Power in the bands that tell mouths apart, and where the first two formants lie, for each row."""
    padded = np.pad(samples, (_WINDOW // 2 - HOP // 2, _WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:count]
    shape = np.hanning(_WINDOW).astype(np.float32)
    rows = [_measure(windows[i : i + _BLOCK] * shape) for i in range(0, count, _BLOCK)]
    return np.concatenate(rows)


def _measure(frames: Array) -> Array:
    power = np.square(np.abs(np.fft.rfft(frames, _FFT, axis=1))).astype(np.float32) / _FFT
    edges = ((60, 7800), (80, 400), (900, 2600), (2600, 7800), (3800, 7800))
    columns = [power[:, _between(low, high)].sum(1) for low, high in edges]
    return np.stack([*columns, _centre(power, 230, 1050), _centre(power, 800, 2700)], axis=1)


def _between(low: float, high: float) -> slice:
    first, last = np.searchsorted(_FREQUENCIES, (low, high))
    return slice(int(first), int(last))


def _centre(power: Array, low: float, high: float) -> Array:
    """The middle of a band's energy in Hz."""
    part = _between(low, high)
    # Voices fall by 6 dB an octave and more; without lifting, the lowest harmonic would always win.
    weight = (power[:, part] + 1e-9) * _FREQUENCIES[part].astype(np.float32)
    return np.asarray((weight @ _FREQUENCIES[part].astype(np.float32)) / weight.sum(1))


def _db(power: NDArray[np.floating]) -> Array:
    return np.asarray(10 * np.log10(np.maximum(power, 1e-10)), np.float32)


def _silence(level: Array) -> Array:
    """1 where nobody speaks, 0 where somebody does, for each row.

    The gate lies between the recording's own noise and its own loud speech, so that neither a quiet voice nor a noisy
    room moves it much. Gaps shorter than a closure are left to the closures.
    """
    floor, peak = np.percentile(level, (4, 96))
    if peak < -62 or peak - floor < 4:
        # Nothing at all; or one unbroken sound, which is speech only if it is loud.
        return np.full(len(level), 1.0 if peak < -45 else 0.0, np.float32)
    gate = max(min(floor + 9, peak - 14), peak - 38)
    quiet = _smooth(level, 3) < gate
    return _open_close(quiet, shortest_gap=13, shortest_sound=4).astype(np.float32)


def _open_close(quiet: NDArray[np.bool_], *, shortest_gap: int, shortest_sound: int) -> NDArray[np.bool_]:
    quiet = quiet.copy()
    for start, end, value in runs(quiet):
        inside = start > 0 and end < len(quiet)
        if inside and end - start < (shortest_gap if value else shortest_sound):
            quiet[start:end] = not value
    return quiet


def runs(values: NDArray[np.generic]) -> list[tuple[int, int, int]]:
    """Stretches of equal values: start, end (after the last), value."""
    if not len(values):
        return []
    cuts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [(a, b, int(values[a])) for a, b in pairwise(cuts)]


def _smooth(values: Array, width: int) -> Array:
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width, np.float32), "valid")


def _near(values: Array, first: int, last: int) -> Array:
    """The largest value among the rows from ``first`` to ``last`` after each row."""
    out = np.full(len(values), -np.inf, np.float32)
    for step in range(first, last + 1):
        a, b = max(0, step), min(len(values), len(values) + step)
        if a < b:
            out[a - step : b - step] = np.maximum(out[a - step : b - step], values[a:b])
    return out


def _scores(bands: Array, level: Array, silence: Array) -> Array:
    """The logarithm of how well each viseme fits, up to a constant in each row."""
    whole = bands[:, _ALL] + 1e-9
    hiss, high = bands[:, _HISS] / whole, bands[:, _HIGH] / whole
    voiced = bands[:, _VOICE] / whole
    vowel = (silence < 0.5) & (hiss < 0.25) & (level > _loud(level) - 22)
    f1 = _against(_smooth(bands[:, _F1_AT], 3), vowel, (490, 135))
    f2 = _against(_smooth(bands[:, _F2_AT], 3), vowel, (1580, 480))
    # A vowel that is hardly heard is not wide open, whatever the noise below it looks like.
    strength = np.clip((level - _loud(level)) / 12 + 1.0, -2.0, 0.3)
    scores = np.full((len(bands), len(VISEMES)), -4.0, np.float32)
    for name, (at1, at2, lift) in _VOWELS.items():
        distance = ((f1 - at1) / 0.75) ** 2 + ((f2 - at2) / 0.85) ** 2
        scores[:, VISEMES.index(name)] = lift - 0.8 * distance + (2.0 if name in "CD" else 0.3) * strength
    # Teeth for what hisses; and for what is hardly heard within speech, as most consonants are spoken with them.
    weak = _ramp(-level, 12 - _loud(level), 22 - _loud(level))
    teeth = np.maximum(_ramp(high, 0.10, 0.45) * 5 - 2.0, 1.4 * weak - 1.0)
    scores[:, VISEMES.index("B")] = np.maximum(scores[:, VISEMES.index("B")], teeth)
    scores[:, VISEMES.index("G")] = _labiodental(hiss, high, voiced, level)
    scores[:, VISEMES.index("A")] = _closure(level, bands, f2)
    scores[silence > 0.5] = -4.0
    # Breath and echo beside a pause belong to the pause.
    fading = (_near(silence, -10, 10) > 0) * _ramp(-level, -_loud(level) + 20, -_loud(level) + 30)
    scores[:, VISEMES.index("X")] = np.where(silence > 0.5, 6.0, 6.0 * fading - 4.0)
    return scores


#            first formant, second formant (in deviations from the speaker's own mean), and how common
_VOWELS = {
    "B": (-0.7, 1.0, -0.1),
    "C": (0.5, 0.4, 0.3),
    "D": (1.2, -0.3, 0.0),
    "E": (0.2, -1.0, 0.0),
    "F": (-1.0, -1.1, 0.5),
    "H": (-0.4, -0.5, -0.5),
}


def _against(values: Array, where: NDArray[np.bool_], usual: tuple[float, float]) -> Array:
    """The values as deviations from this speaker's middle: a child's formants lie a third above a man's.

    ``usual`` is middle and spread of people as such, which count half: a short recording may have two vowels only.
    """
    known = values[where] if where.sum() > 10 else values
    low, own, high = np.percentile(known, (16, 50, 84))
    middle, spread = (own + usual[0]) / 2, (max((high - low) / 2, 0.6 * usual[1]) + usual[1]) / 2
    # No further than the furthest vowel: beyond it is more of the same.
    return np.asarray(np.clip((values - middle) / spread, -1.6, 1.6), np.float32)


def _loud(level: Array) -> float:
    """The level of the recording's loud passages."""
    return float(np.percentile(level, 95))


def _ramp(values: Array, low: float, high: float) -> Array:
    """0 up to ``low``, 1 from ``high`` on."""
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0))


def _labiodental(hiss: Array, high: Array, voiced: Array, level: Array) -> Array:
    """The sounds f and v: noise that is weak and spread wide, where s is loud and high."""
    loud = _loud(level)
    weak = _ramp(-level, 10 - loud, 20 - loud) * _ramp(level, loud - 34, loud - 28)
    narrow = _ramp(hiss / (high + 1e-6), 0.7, 0.9)
    return np.asarray(_ramp(high, 0.10, 0.35) * (weak * 4.6 + 1.0) - 2.0 - 3.0 * narrow - 2.5 * voiced)


def _closure(level: Array, bands: Array, f2: Array) -> Array:
    """The sounds p, b and m: a dip between two stretches of voice, dull where that of t, k, s is bright.

    On both sides of it the second formant is low, for lips that close make the mouth a longer tube.
    """
    around = np.minimum(_near(level, -12, -3), _near(level, 3, 12))
    low, mid, high = (_db(bands[:, band]) for band in (_VOICE, _F2, _HIGH))
    # As bright as this voice gets; an s is, if there is one.
    brightest = max(float(np.percentile(high, 97)), _loud(level) - 16)
    dull = _ramp(-_near(high, -3, 4), 8 - brightest, 18 - brightest)
    # m: voice goes on below 400 Hz while all above it is gone.
    murmur = _ramp(low - mid, 14, 26) * _ramp(np.minimum(_near(mid, -12, -3), _near(mid, 3, 12)) - mid, 7, 15)
    fit = np.maximum(_ramp(around - level, 7, 16), murmur)
    weight = np.sqrt(bands[:, _ALL])
    rounded = _ramp(-_smooth(f2 * weight, 15) / (_smooth(weight, 15) + 1e-6), -0.9, 0.5)
    return np.asarray(fit * (1.6 + 3.2 * dull + 2.6 * rounded) - 4.6)
