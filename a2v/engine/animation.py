"""From mouths and loudness to a performance: one pose for each frame, the same for the same seed."""

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

_ROWS = 100  # rows a second
_BEATS = 25  # a second: how finely all but the mouth is planned
_LEAD = 0.045  # seconds that lips are ahead of the sound they make
_SWITCH = 1.6  # what a change of viseme costs; keeps labels from flickering
LABEL_WEIGHT = 0.35  # how much the label counts beside the probabilities; more of it opens the mouth less rightly
_COARTICULATION = 110  # ms
_TABLE = np.array([MOUTH_SHAPES[name] for name in VISEMES], np.float32)
_CLOSED, _TUCKED = VISEMES.index("A"), VISEMES.index("G")
_LEAST = 3.0  # half of the rows that a closure lasts at least: 60 ms


def animate(
    likely: NDArray[np.float32], loudness: NDArray[np.float32], *, seed: int, fps: int = 25
) -> Iterator[FacePose]:
    """A pose for each frame of the video, one after the other.

    Args:
        likely: What ``lipsync.analyse`` returned: a row of probabilities for every 10 ms.
        loudness: dB for each of these rows.
        seed: Decides about blinks, glances and sway; the same seed gives the same performance.
        fps: Frames a second. Only how often the performance is looked at depends on it.
    """
    if not len(likely):
        return
    labels = most_likely_visemes(likely)
    effort = _effort(loudness)
    frame_times = np.arange(math.ceil(len(likely) * fps / _ROWS)) / fps
    mouths = _sampled(_mouths(likely, labels, effort), _ROWS, frame_times + _LEAD)
    beat_times = np.arange(math.ceil(len(likely) * _BEATS / _ROWS)) / _BEATS
    energy = _sampled(effort[:, None], _ROWS, beat_times)[:, 0]
    silent = _sampled((labels == 0).astype(float)[:, None], _ROWS, beat_times)[:, 0] > 0.5
    life = _Life(energy, silent, np.random.default_rng(seed)).columns()
    # Both stand in the middle of their time.
    life = _sampled(life, _BEATS, frame_times + 0.5 / fps)
    for mouth, rest in zip(mouths, life, strict=True):
        yield FacePose(MouthShape(*mouth.tolist()), *rest.tolist())


def most_likely_visemes(likely: NDArray[np.float32]) -> NDArray[np.int64]:
    """The likeliest sequence of visemes when a change has its price (Viterbi)."""
    costs = np.log(likely + 1e-6)
    count, kinds = costs.shape
    best = costs[0].copy()
    came_from = np.empty((count, kinds), np.int8)
    stay = np.arange(kinds)
    for row in range(1, count):
        leader = int(best.argmax())
        jump = best[leader] - _SWITCH
        came_from[row] = np.where(best >= jump, stay, leader)
        best = np.maximum(best, jump) + costs[row]
    labels = np.empty(count, np.int64)
    labels[-1] = best.argmax()
    for row in range(count - 1, 0, -1):
        labels[row - 1] = came_from[row, labels[row]]
    return labels


def _effort(loudness: NDArray[np.float32]) -> Array:
    """How hard the speaker works, 0 to 1, against the recording's own loud passages."""
    loud = np.percentile(loudness, 92)
    return _blurred(np.clip((loudness.astype(float) - (loud - 28)) / 28, 0, 1), 13)


def _mouths(likely: NDArray[np.float32], labels: NDArray[np.int64], effort: Array) -> Array:
    """The mouth of each row: blended over a syllable, wider when louder, shut where lips must meet."""
    blend = LABEL_WEIGHT * np.eye(len(VISEMES), dtype=np.float32)[labels] + (1 - LABEL_WEIGHT) * likely
    wanted = blend @ _TABLE
    mouths = np.stack([_blurred(column, _COARTICULATION // 10) for column in wanted.T], axis=1)
    mouths[:, 0] *= 0.62 + 0.50 * effort
    for start, end, label in runs(labels):
        if label == _CLOSED and end - start >= 2:
            _force(mouths, start, end, _TABLE[_CLOSED], 1.0)
        elif label == _TUCKED and end - start >= 3:
            _force(mouths, start, end, _TABLE[_TUCKED], 0.9)
    return mouths


def _force(mouths: Array, start: int, end: int, target: Array, most: float) -> None:
    """Makes the mouth reach ``target`` between two rows, for 60 ms at least, with 40 ms on both sides to get there."""
    middle, half = (start + end) / 2, max((end - start) / 2, _LEAST)
    first, last = max(0, int(middle - half - 4)), min(len(mouths), int(middle + half + 5))
    away = np.abs(np.arange(first, last) + 0.5 - middle)
    weight = most * np.clip((half + 3.5 - away) / 4.0, 0, 1)[:, None]
    mouths[first:last] += (target - mouths[first:last]) * weight


def _blurred(values: Array, rows: int) -> Array:
    """A moving average with a Hann window."""
    window = np.hanning(rows + 2)[1:-1]
    padded = np.pad(values, (rows // 2, rows - 1 - rows // 2), mode="edge")
    return np.asarray(np.convolve(padded, window / window.sum(), "valid"), float)


def _sampled(rows: Array, rate: int, times: Array) -> Array:
    """The values at some times, in seconds, of rows of which there are ``rate`` a second."""
    known = (np.arange(len(rows)) + 0.5) / rate
    return np.stack([np.interp(times, known, column) for column in rows.T], axis=1)


class _Life:
    """All that a face does beside speaking. Each habit is one array, a value a beat, of which there are 25 a second."""

    def __init__(self, energy: Array, silent: NDArray[np.bool_], random: np.random.Generator) -> None:
        self._beats = len(energy)
        self._silent = silent
        self._random = random
        self._time = (np.arange(self._beats) + 0.5) / _BEATS
        stress = np.clip(energy - _blurred(energy, min(31, 2 * self._beats + 1)), 0, 1)
        self._stress = [(at, stress[at]) for at in _peaks(stress, 8, 0.16)]
        self._talk = _blurred((~silent).astype(float), 25)

    def columns(self) -> Array:
        """The fields of a ``FacePose`` after the mouth, a row for each beat."""
        nod, brow = self._accents()
        lively = 0.45 + 0.75 * self._talk
        yaw = (self._sway(0.16, 0.55) + self._sway(0.45, 0.14)) * lively
        roll = (self._sway(0.13, 1.5) + self._sway(0.5, 0.35)) * lively + 0.4 * nod * np.sign(yaw + 1e-3)
        pitch = self._sway(0.2, 0.30) + nod * 0.9
        breath = np.sin(2 * np.pi * 0.24 * self._time)
        blink = self._blinks()
        gaze_x, gaze_y = self._gaze()
        # The eyes stay with the viewer while the head moves.
        gaze_x = gaze_x - yaw * 0.30
        gaze_y = gaze_y - nod * 0.25 + blink * 0.3
        brow = brow + self._sway(0.18, 0.10)
        squint = 0.20 + 0.15 * self._talk
        bob = nod + breath * 0.28
        return np.stack([blink, squint, gaze_x, gaze_y, brow, yaw, pitch, roll, bob, breath], axis=1)

    def _accents(self) -> tuple[Array, Array]:
        """Nods on stressed syllables, and brows that go up with about half of them."""
        nod, brow = np.zeros(self._beats), np.zeros(self._beats)
        for at, strength in self._stress:
            _bump(nod, at + 1, 5, 9, min(1.0, strength * 2.2))
            if self._random.random() < 0.45:
                _bump(brow, at + 1, 5, 14, min(1.0, strength * 2.0))
        return nod, brow

    def _sway(self, hertz: float, size: float) -> Array:
        """A slow wander: four sines that never meet in the same way twice."""
        wander = np.zeros(self._beats)
        for i in range(4):
            pace = hertz * (0.5 + 0.45 * i) * self._random.uniform(0.85, 1.15)
            wander += np.sin(2 * np.pi * (pace * self._time + self._random.random())) / (1 + 0.7 * i)
        return size * wander / 2.2

    def _blinks(self) -> Array:
        """Lids down every three seconds or so, sometimes twice, rather in a pause than in a word."""
        blink = np.zeros(self._beats)
        lids = np.array([0.35, 0.9, 1.0, 0.72, 0.40, 0.14])
        pauses = np.flatnonzero(self._silent[1:] & ~self._silent[:-1]) + 1
        at = self._random.uniform(0.6, 2.0)
        while (beat := int(at * _BEATS)) < self._beats:
            soon = pauses[(pauses >= beat) & (pauses < beat + 12)]
            beat = int(soon[0]) if len(soon) else beat
            part = blink[beat : beat + len(lids)]
            np.maximum(part, lids[: len(part)], out=part)
            again = self._random.random() < 0.10
            wait = self._random.uniform(0.28, 0.38) if again else np.clip(self._random.lognormal(1.2, 0.45), 1.4, 7.0)
            at = beat / _BEATS + float(wait)
        return blink

    def _gaze(self) -> tuple[Array, Array]:
        """Fixations, mostly on the viewer, with a jump from one to the next."""
        x, y = np.zeros(self._beats), np.zeros(self._beats)
        beat = 0
        while beat < self._beats:
            there = self._random.random() < 0.62
            to = self._random.normal(0, 0.05, 2) if there else self._random.uniform((-0.5, -0.28), (0.5, 0.22))
            length = int(self._random.uniform(0.5, 2.2) * _BEATS)
            x[beat : beat + length], y[beat : beat + length] = to
            beat += length
        jump = np.array([0.7, 0.3])
        return tuple(np.convolve(np.pad(part, (1, 0), mode="edge"), jump, "valid") for part in (x, y))  # type: ignore[return-value]


def _peaks(values: Array, reach: int, least: float) -> list[int]:
    """Where a value is the largest for ``reach`` beats on both sides."""
    high = np.flatnonzero(values > least)
    return [int(at) for at in high if values[at] == values[max(0, at - reach) : at + reach + 1].max()]


def _bump(values: Array, at: int, rise: int, fall: int, size: float) -> None:
    """Raises the values to ``size`` at a beat, softly up and down; never lowers one."""
    first, last = max(0, at - rise), min(len(values), at + fall)
    beat = np.arange(first, last)
    share = np.where(beat < at, (beat - at + rise) / rise, 1 - (beat - at) / fall)
    np.maximum(values[first:last], size * (0.5 - 0.5 * np.cos(np.pi * share)), out=values[first:last])
