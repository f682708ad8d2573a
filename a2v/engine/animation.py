"""Turns visemes and loudness into animation: a ``FacePose`` per frame. The same input and seed give the same animation.

The mouth follows the speech, in rows of 10 ms:

1. ``most_likely_visemes`` labels each row. It is a Viterbi search in which a change of viseme has a cost, so that labels do not
   flicker where two visemes are about equally likely.
2. The shape of each row is a weighted mean of the shapes of its label and of its probabilities, then smoothed over 110 ms, as lips
   move towards the next sound before it begins (coarticulation).
3. Smoothing would leave lips open in a short p, b or m, and teeth off the lip in f and v, so these are enforced afterwards, for at
   least 60 ms.

Everything else, such as blinks, nods and glances, is idle motion (``_IdleMotion``). It is planned in ticks, 25 per second whatever
the frame rate is, and both are interpolated at the times of the frames. So a video at another frame rate shows the same animation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.face_pose import MOUTH_SHAPES, VISEMES, FacePose, MouthShape
from a2v.engine.lipsync import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LABEL_WEIGHT = 0.35
"""Weight of the label against the probabilities. A higher one makes the opening of the mouth less accurate."""

_ROW_RATE = 100  # per second
_TICK_RATE = 25  # per second
_LEAD_SECONDS = 0.045  # lips move before the sound
_CHANGE_COST = 1.6  # of a change of viseme, in the logarithm of its probability
_COARTICULATION_ROWS = 11
_MIN_CLOSURE_ROWS = 6.0
_SHAPES = np.array([MOUTH_SHAPES[viseme] for viseme in VISEMES], np.float32)
_REST, _CLOSED, _TUCKED = (VISEMES.index(viseme) for viseme in "XAG")
_SHORTEST_SPEECH_ROWS = 5  # shorter than any syllable


def animate(
    probabilities: NDArray[np.float32], loudness: NDArray[np.float32], *, seed: int, fps: int = 25
) -> Iterator[FacePose]:
    """Yield a pose for each frame of the video.

    Args:
        probabilities: The result of ``lipsync.analyse``: for every 10 ms, a row with the probability of each viseme.
        loudness: The level of each of these rows in dB.
        seed: Of the random idle motion.
        fps: Frames per second.
    """
    if not len(probabilities):
        return
    labels = most_likely_visemes(probabilities)
    effort = _vocal_effort(loudness)
    frame_times = np.arange(math.ceil(len(probabilities) * fps / _ROW_RATE)) / fps
    mouths = _resample(_mouth_shapes(probabilities, labels, effort), _ROW_RATE, frame_times + _LEAD_SECONDS)
    tick_times = np.arange(math.ceil(len(probabilities) * _TICK_RATE / _ROW_RATE)) / _TICK_RATE
    tick_effort = _resample(effort[:, None], _ROW_RATE, tick_times)[:, 0]
    silent = _resample((labels == _REST).astype(float)[:, None], _ROW_RATE, tick_times)[:, 0] > 0.5
    idle = _IdleMotion(tick_effort, silent, np.random.default_rng(seed)).columns()
    # A frame shows the motion in the middle of its duration.
    idle = _resample(idle, _TICK_RATE, frame_times + 0.5 / fps)
    for mouth, others in zip(mouths, idle, strict=True):
        yield FacePose(MouthShape(*mouth.tolist()), *others.tolist())


# -- mouth ------------------------------------------------------------------------------------------------------------


def has_speech(probabilities: NDArray[np.float32]) -> bool:
    """Whether the mouth opens for as long as a syllable takes."""
    likeliest = probabilities.argmax(1)
    is_open = (likeliest != _REST) & (likeliest != _CLOSED)
    return int(np.count_nonzero(is_open)) >= _SHORTEST_SPEECH_ROWS


def most_likely_visemes(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the most likely sequence of visemes if each change has a cost (Viterbi)."""
    scores = np.log(probabilities + 1e-6)
    count, visemes = scores.shape
    best = scores[0].copy()
    previous = np.empty((count, visemes), np.int8)
    same = np.arange(visemes)
    for row in range(1, count):
        leader = int(best.argmax())
        changed = best[leader] - _CHANGE_COST
        previous[row] = np.where(best >= changed, same, leader)
        best = np.maximum(best, changed) + scores[row]
    labels = np.empty(count, np.int64)
    labels[-1] = best.argmax()
    for row in range(count - 1, 0, -1):
        labels[row - 1] = previous[row, labels[row]]
    return labels


def _vocal_effort(loudness: NDArray[np.float32]) -> Array:
    """Return the effort of the speaker in each row, 0 to 1, relative to the recording's own loud passages."""
    loud = np.percentile(loudness, 92)
    return _smooth(np.clip((loudness.astype(float) - (loud - 28)) / 28, 0, 1), 13)


def _mouth_shapes(probabilities: NDArray[np.float32], labels: NDArray[np.int64], effort: Array) -> Array:
    """Return the fields of a ``MouthShape`` for each row."""
    weights = LABEL_WEIGHT * np.eye(len(VISEMES), dtype=np.float32)[labels] + (1 - LABEL_WEIGHT) * probabilities
    shapes = weights @ _SHAPES
    mouths = np.stack([_smooth(column, _COARTICULATION_ROWS) for column in shapes.T], axis=1)
    mouths[:, 0] *= 0.62 + 0.50 * effort
    for start, end, label in runs(labels):
        if label == _CLOSED and end - start >= 2:
            _enforce(mouths, start, end, _SHAPES[_CLOSED], 1.0)
        elif label == _TUCKED and end - start >= 3:
            _enforce(mouths, start, end, _SHAPES[_TUCKED], 0.9)
    return mouths


def _enforce(mouths: Array, start: int, end: int, shape: Array, strength: float) -> None:
    """Move the mouth to a shape between two rows, for at least 60 ms, with transitions of 40 ms before and after."""
    middle, half = (start + end) / 2, max((end - start) / 2, _MIN_CLOSURE_ROWS / 2)
    first, last = max(0, int(middle - half - 4)), min(len(mouths), int(middle + half + 5))
    distance = np.abs(np.arange(first, last) + 0.5 - middle)
    weight = strength * np.clip((half + 3.5 - distance) / 4.0, 0, 1)[:, None]
    mouths[first:last] += (shape - mouths[first:last]) * weight


# -- idle motion ------------------------------------------------------------------------------------------------------


class _IdleMotion:
    """The motion of a face apart from its mouth. Each motion is an array with a value per tick.

    Args:
        effort: The vocal effort at each tick, 0 to 1. Its peaks are stressed syllables.
        silent: Whether the mouth rests at each tick.
        random: Draws are made in a fixed order, so a seed determines the motion.
    """

    def __init__(self, effort: Array, silent: NDArray[np.bool_], random: np.random.Generator) -> None:
        self._ticks = len(effort)
        self._silent = silent
        self._random = random
        self._time = (np.arange(self._ticks) + 0.5) / _TICK_RATE
        stress = np.clip(effort - _smooth(effort, min(31, 2 * self._ticks + 1)), 0, 1)
        self._stressed = [(tick, stress[tick]) for tick in _peaks(stress, 8, 0.16)]
        self._talking = _smooth((~silent).astype(float), 25)

    def columns(self) -> Array:
        """Return the fields of ``FacePose`` after the mouth, with a row per tick."""
        nod, brow = self._accents()
        liveliness = 0.45 + 0.75 * self._talking
        yaw = (self._sway(0.16, 0.55) + self._sway(0.45, 0.14)) * liveliness
        roll = (self._sway(0.13, 1.5) + self._sway(0.5, 0.35)) * liveliness + 0.4 * nod * np.sign(yaw + 1e-3)
        pitch = self._sway(0.2, 0.30) + nod * 0.9
        breath = np.sin(2 * np.pi * 0.24 * self._time)
        blink = self._blinks()
        gaze_x, gaze_y = self._gaze()
        # The eyes stay on the viewer while the head moves.
        gaze_x = gaze_x - yaw * 0.30
        gaze_y = gaze_y - nod * 0.25 + blink * 0.3
        brow = brow + self._sway(0.18, 0.10)
        squint = 0.20 + 0.15 * self._talking
        bob = nod + breath * 0.28
        return np.stack([blink, squint, gaze_x, gaze_y, brow, yaw, pitch, roll, bob, breath], axis=1)

    def _accents(self) -> tuple[Array, Array]:
        """Nod on stressed syllables, and raise the brows on about half of them."""
        nod, brow = np.zeros(self._ticks), np.zeros(self._ticks)
        for tick, strength in self._stressed:
            _add_pulse(nod, tick + 1, 5, 9, min(1.0, strength * 2.2))
            if self._random.random() < 0.45:
                _add_pulse(brow, tick + 1, 5, 14, min(1.0, strength * 2.0))
        return nod, brow

    def _sway(self, hertz: float, amplitude: float) -> Array:
        """Wander slowly: four sines whose frequencies have no common period."""
        sum_ = np.zeros(self._ticks)
        for i in range(4):
            frequency = hertz * (0.5 + 0.45 * i) * self._random.uniform(0.85, 1.15)
            sum_ += np.sin(2 * np.pi * (frequency * self._time + self._random.random())) / (1 + 0.7 * i)
        return amplitude * sum_ / 2.2

    def _blinks(self) -> Array:
        """Blink about every three seconds, sometimes twice, and preferably at the beginning of a pause."""
        blink = np.zeros(self._ticks)
        lids = np.array([0.35, 0.9, 1.0, 0.72, 0.40, 0.14])
        pauses = np.flatnonzero(self._silent[1:] & ~self._silent[:-1]) + 1
        time = self._random.uniform(0.6, 2.0)
        while (tick := int(time * _TICK_RATE)) < self._ticks:
            next_pauses = pauses[(pauses >= tick) & (pauses < tick + 12)]
            tick = int(next_pauses[0]) if len(next_pauses) else tick
            part = blink[tick : tick + len(lids)]
            np.maximum(part, lids[: len(part)], out=part)
            twice = self._random.random() < 0.10
            wait = self._random.uniform(0.28, 0.38) if twice else np.clip(self._random.lognormal(1.2, 0.45), 1.4, 7.0)
            time = tick / _TICK_RATE + float(wait)
        return blink

    def _gaze(self) -> tuple[Array, Array]:
        """Fixate one point after the other, mostly the viewer, with a quick jump (saccade) in between."""
        x, y = np.zeros(self._ticks), np.zeros(self._ticks)
        tick = 0
        while tick < self._ticks:
            at_viewer = self._random.random() < 0.62
            point = self._random.normal(0, 0.05, 2) if at_viewer else self._random.uniform((-0.5, -0.28), (0.5, 0.22))
            length = int(self._random.uniform(0.5, 2.2) * _TICK_RATE)
            x[tick : tick + length], y[tick : tick + length] = point
            tick += length
        saccade = np.array([0.7, 0.3])
        return tuple(np.convolve(np.pad(part, (1, 0), mode="edge"), saccade, "valid") for part in (x, y))  # type: ignore[return-value]  # mypy sees a tuple of any length


def _peaks(values: Array, distance: int, threshold: float) -> list[int]:
    """Return where a value exceeds the threshold and is the maximum within ``distance`` ticks on both sides."""
    high = np.flatnonzero(values > threshold)
    return [int(at) for at in high if values[at] == values[max(0, at - distance) : at + distance + 1].max()]


def _add_pulse(values: Array, at: int, rise: int, fall: int, height: float) -> None:
    """Add a smooth pulse that peaks at a tick; where pulses overlap, the higher value counts."""
    first, last = max(0, at - rise), min(len(values), at + fall)
    tick = np.arange(first, last)
    phase = np.where(tick < at, (tick - at + rise) / rise, 1 - (tick - at) / fall)
    np.maximum(values[first:last], height * (0.5 - 0.5 * np.cos(np.pi * phase)), out=values[first:last])


# -- arrays -----------------------------------------------------------------------------------------------------------


def _smooth(values: Array, size: int) -> Array:
    """Return the moving average with a Hann window."""
    window = np.hanning(size + 2)[1:-1]
    padded = np.pad(values, (size // 2, size - 1 - size // 2), mode="edge")
    return np.asarray(np.convolve(padded, window / window.sum(), "valid"), float)


def _resample(rows: Array, rate: int, times: Array) -> Array:
    """Interpolate rows, of which there are ``rate`` per second, at some times in seconds."""
    row_times = (np.arange(len(rows)) + 0.5) / rate
    return np.stack([np.interp(times, row_times, column) for column in rows.T], axis=1)
