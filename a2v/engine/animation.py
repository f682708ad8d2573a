"""Turns visemes and loudness into animation: a ``FacePose`` per frame. The same input and seed give the same animation.

The mouth is computed from the speech, in rows of 10 ms:

1. ``most_likely_visemes`` labels each row: a Viterbi search in which each change of viseme has a cost, so that labels do not flicker
   where two visemes are about equally likely. The probabilities are smoothed over 90 ms first, except for closed lips, which may be
   shorter.
2. The shape of each row is the mean shape of all visemes, weighted by their probabilities; the shape of the label is less accurate. It is
   smoothed over 110 ms, because lips move towards the next sound before it begins (coarticulation).
3. Smoothing would leave the lips open in a short p, b or m, and the teeth off the lip in f and v. So closures and tucked lips are enforced
   afterwards, for at least 60 ms; the mouth then takes 70 ms to leave them.
4. The speed of the opening is limited, as in real mouths: where it would change faster, the mouth opens less wide. Closures stay closed.

``acting`` animates everything else, such as postures, nods and glances, with 25 values per second. Both are interpolated at the times of
the frames, so the animation does not depend on the frame rate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.acting import TICK_RATE, Acting, smooth
from a2v.engine.face_pose import MOUTH_SHAPES, VISEMES, FacePose, MouthShape
from a2v.engine.lipsync import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from a2v.engine.face_pose import Mood

    Array = NDArray[np.float64]

_ROW_RATE = 100  # per second
_LEAD_SECONDS = 0.045  # lips move before the sound
_CHANGE_COST = 1.0  # of a change of viseme, in log probability
_LABEL_ROWS = 9  # the window that smooths the probabilities for the labels
_COARTICULATION_ROWS = 11  # the window that smooths the shapes
_SMILE_ROWS = 41  # the window that smooths the corners of the mouth
_MIN_CLOSURE_ROWS = 6.0
_CLOSING_ROWS, _OPENING_ROWS = 4.0, 7.0  # the transitions before and after a closure
_MAX_OPENING_SPEED = 0.12  # the maximum change of ``MouthShape.open`` per row
_SHAPES = np.array([MOUTH_SHAPES[viseme] for viseme in VISEMES], np.float32)
_OPEN, _ROUND, _SMILE = (MouthShape._fields.index(name) for name in ("open", "round", "smile"))
_REST, _CLOSED, _TUCKED = (VISEMES.index(viseme) for viseme in "XAG")
_SHORTEST_SPEECH_ROWS = 5  # shorter than any syllable


def animate(
    probabilities: NDArray[np.float32],
    loudness: NDArray[np.float32],
    *,
    seed: int,
    fps: int = 25,
    mood: Mood | None = None,
    pitch: Array | None = None,
) -> Iterator[FacePose]:
    """Yield a pose for each frame of the video.

    Args:
        probabilities: The result of ``lipsync.analyse``: for every 10 ms, a row with the probability of each viseme.
        loudness: The level of each of these rows in dB.
        seed: The seed of everything that the voice does not determine, such as glances.
        fps: Frames per second.
        mood: The expression; ``None``: the voice determines it.
        pitch: The pitch in each row in semitones relative to the voice's usual pitch; ``None``: it is unknown.
    """
    if not len(probabilities):
        return
    labels = most_likely_visemes(probabilities)
    effort = _vocal_effort(loudness)
    frame_times = np.arange(math.ceil(len(probabilities) * fps / _ROW_RATE)) / fps
    mouths = _interpolate(_mouth_shapes(probabilities, labels, effort), _ROW_RATE, frame_times + _LEAD_SECONDS)
    tick_times = np.arange(math.ceil(len(probabilities) * TICK_RATE / _ROW_RATE)) / TICK_RATE
    tick_effort = _interpolate(effort[:, None], _ROW_RATE, tick_times)[:, 0]
    silent = _interpolate((labels == _REST).astype(float)[:, None], _ROW_RATE, tick_times)[:, 0] > 0.5
    tick_pitch = None if pitch is None else _interpolate(pitch[:, None], _ROW_RATE, tick_times)[:, 0]
    acting = Acting(tick_effort, silent, np.random.default_rng(seed), mood, tick_pitch).columns()
    # A frame shows the motion in the middle of its duration.
    acting = _interpolate(acting, TICK_RATE, frame_times + 0.5 / fps)
    # Rounded lips do not smile.
    mouths[:, _SMILE] = np.clip(mouths[:, _SMILE] + acting[:, -1] * (1 - np.clip(mouths[:, _ROUND], 0, 1)), -0.2, 1.25)
    for mouth, others in zip(mouths, acting[:, :-1], strict=True):
        yield FacePose(MouthShape(*mouth.tolist()), *others.tolist())


# -- mouth ------------------------------------------------------------------------------------------------------------


def has_speech(probabilities: NDArray[np.float32]) -> bool:
    """Whether the mouth opens for as long as a syllable takes."""
    likeliest = probabilities.argmax(1)
    is_open = (likeliest != _REST) & (likeliest != _CLOSED)
    return int(np.count_nonzero(is_open)) >= _SHORTEST_SPEECH_ROWS


def most_likely_visemes(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the most likely sequence of visemes if each change has a cost (Viterbi)."""
    scores = np.empty_like(probabilities)
    for viseme, column in enumerate(probabilities.T):
        scores[:, viseme] = np.log((column if viseme == _CLOSED else smooth(column, _LABEL_ROWS)) + 1e-6)
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
    """Return the vocal effort in each row: 1 is as loud as the loud passages of the recording, 0 is 28 dB below them or less."""
    loud = np.percentile(loudness, 92)
    return smooth(np.clip((loudness.astype(float) - (loud - 28)) / 28, 0, 1), 13)


def _mouth_shapes(probabilities: NDArray[np.float32], labels: NDArray[np.int64], effort: Array) -> Array:
    """Return the fields of a ``MouthShape`` for each row."""
    shapes = probabilities @ _SHAPES
    mouths = np.stack([smooth(column, _COARTICULATION_ROWS) for column in shapes.T], axis=1)
    # The corners of the mouth are slower than the lips.
    mouths[:, _SMILE] = smooth(shapes[:, _SMILE].astype(float), _SMILE_ROWS)
    mouths[:, _OPEN] *= 0.62 + 0.50 * effort
    for start, end, label in runs(labels):
        if label == _CLOSED and end - start >= 2:
            _enforce_shape(mouths, start, end, _SHAPES[_CLOSED], 1.0)
        elif label == _TUCKED and end - start >= 3:
            _enforce_shape(mouths, start, end, _SHAPES[_TUCKED], 0.9)
    mouths[:, _OPEN] = _limit_speed(mouths[:, _OPEN])
    return mouths


def _limit_speed(opening: Array) -> Array:
    """Limit the speed of the mouth: return the largest curve that never exceeds ``opening`` and obeys ``_MAX_OPENING_SPEED``."""
    slope = _MAX_OPENING_SPEED * np.arange(len(opening))
    rising = np.minimum.accumulate(opening - slope) + slope
    return np.asarray(np.minimum.accumulate((rising + slope)[::-1])[::-1] - slope, float)


def _enforce_shape(mouths: Array, start: int, end: int, shape: Array, strength: float) -> None:
    """Blend a shape into the rows from ``start`` to ``end``, 60 ms or more, with transitions before and after; ``strength`` is 0 to 1."""
    middle, half = (start + end) / 2, max((end - start) / 2, _MIN_CLOSURE_ROWS / 2)
    first, last = max(0, int(middle - half - _CLOSING_ROWS)), min(len(mouths), int(middle + half + _OPENING_ROWS + 1))
    row_middles = np.arange(first, last) + 0.5
    before = (middle - half - 0.5 - row_middles) / _CLOSING_ROWS
    after = (row_middles - middle - half + 0.5) / _OPENING_ROWS
    weight = strength * np.clip(1 - np.maximum(before, after), 0, 1)[:, None]
    # The smile stays.
    mouths[first:last, :_SMILE] += (shape[:_SMILE] - mouths[first:last, :_SMILE]) * weight


# -- arrays -----------------------------------------------------------------------------------------------------------


def _interpolate(rows: Array, rate: int, times: Array) -> Array:
    """Interpolate rows, ``rate`` per second, at the given times in seconds."""
    row_times = (np.arange(len(rows)) + 0.5) / rate
    return np.stack([np.interp(times, row_times, column) for column in rows.T], axis=1)
