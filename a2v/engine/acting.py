"""Animates everything but the mouth: the posture of head and torso, gaze, blinks, breath and expression.

People move before they speak. Each phrase has a *posture*, a target for the head and the torso. The eyes move there first, the head
follows 150 ms later, and the torso after it; the posture is then held until the next phrase. A phrase begins after a pause. A long one is
split into parts where the voice is weakest, and each part has a posture of its own. The eyes look away when a phrase begins, and return to
the viewer before it ends. The chest rises before the first word, and before each phrase after a long pause.

Head, torso and hair follow their targets on damped springs, so they never start or stop suddenly. Nods and raised brows mark stressed
syllables, which are peaks of the vocal effort. Blinks and a slow sway fill the time between.

The *expression* is a slow curve: a smile that grows in pauses and where the voice is lively, together with the cheeks and the brows.
A ``Mood`` shifts the level around which it moves. Where the pitch rises, as in a question, the brows go up, the eyes open and the chin
rises; where it falls, the brows come down.

The result has a row per *tick* of 1/25 s, whatever the frame rate is. All random numbers are drawn in a fixed order, so a seed
determines the acting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from a2v.engine.face_pose import Mood

    Array = NDArray[np.float64]

TICK_RATE = 25
"""Ticks per second."""
_MIN_PAUSE_TICKS = 6  # between phrases
_MIN_PHRASE_TICKS = 3
_MAX_PART_TICKS, _MIN_PART_TICKS = 70, 32
_GAZE_LEAD_TICKS = 4  # the eyes move this long before the head
_HEAD_LEAD_TICKS = 3  # the head moves this long before the voice
_LONG_PAUSE_TICKS = 15  # the speaker breathes in afterwards
_FULL_PITCH_SEMITONES = 6.0  # above or below the usual pitch; the brows move no further beyond that
_BLINK = np.array([0.45, 1.0, 0.92, 0.52, 0.22, 0.06])  # how far the eyes are closed in each tick of a blink


class _Posture(NamedTuple):
    """A target for the head and the torso, in the units of ``FacePose``."""

    yaw: float
    roll: float
    pitch: float
    lean: float


class _Expression(NamedTuple):
    """The levels around which an expression moves, in the units of ``FacePose``. ``smile`` is an offset to the smile of the mouth."""

    smile: float
    cheeks: float
    inner_brow: float
    brow: float
    squint: float


_EXPRESSIONS: dict[Mood | None, _Expression] = {
    None: _Expression(0.0, 0.2, 0.0, 0.0, 0.0),
    "warm": _Expression(0.32, 0.75, 0.1, 0.1, 0.05),
    "concerned": _Expression(-0.55, 0.0, 0.75, 0.0, 0.0),
    "surprised": _Expression(-0.1, 0.0, 0.15, 0.8, -0.55),
    "thoughtful": _Expression(-0.4, 0.0, -0.4, -0.15, 0.45),
}


class Acting:
    """The acting of a recording.

    Args:
        effort: The vocal effort at each tick, 0 to 1. Its peaks are stressed syllables.
        silent: Whether the mouth rests at each tick.
        random: The source of everything that the voice does not determine.
        mood: The expression; ``None``: a friendly one that the voice determines.
        pitch: The pitch at each tick in semitones relative to the voice's usual pitch; ``None``: it is unknown.
    """

    def __init__(
        self,
        effort: Array,
        silent: NDArray[np.bool_],
        random: np.random.Generator,
        mood: Mood | None = None,
        pitch: Array | None = None,
    ) -> None:
        self._ticks = len(effort)
        self._pitch = smooth(
            np.clip((np.zeros(len(effort)) if pitch is None else pitch) / _FULL_PITCH_SEMITONES, -1, 1), 9
        )
        self._effort = effort
        self._silent = silent
        self._expression = _EXPRESSIONS[mood]
        self._random = random
        self._time = (np.arange(self._ticks) + 0.5) / TICK_RATE
        stress = np.clip(effort - smooth(effort, min(31, 2 * self._ticks + 1)), 0, 1)
        self._stressed = [(tick, stress[tick]) for tick in _peaks(stress, 8, 0.16)]
        self._talking = smooth((~silent).astype(float), 25)
        self._phrases = _find_phrases(silent)
        self._parts = [part for phrase in self._phrases for part in _split_phrase(*phrase, effort)]

    def columns(self) -> Array:
        """Return a row per tick: the fields of ``FacePose`` after ``mouth``, in order, and the offset to the smile of the mouth."""
        nod, brow = self._accents()
        targets = self._postures()
        yaw, roll, pitch = (spring(targets[:, i], 1.15, 0.86) for i in range(3))
        lean = spring(targets[:, 3], 0.85, 0.9)
        liveliness = 0.5 + 0.6 * self._talking
        yaw = yaw + (self._sway(0.16, 0.22) + self._sway(0.45, 0.09)) * liveliness
        roll = roll + (self._sway(0.13, 0.7) + self._sway(0.5, 0.25)) * liveliness + 0.5 * nod * np.sign(yaw + 1e-3)
        high, low = np.maximum(self._pitch, 0), np.maximum(-self._pitch, 0)
        pitch = pitch + self._sway(0.2, 0.25) + nod * 1.0 - 0.35 * high + 0.15 * low
        breath = self._breath()
        blink = self._blinks()
        gaze_x, gaze_y = self._gaze(targets[:, 0])
        # The eyes stay on the viewer while the head moves.
        gaze_x = np.clip(gaze_x - yaw * 0.40, -1.1, 1.1)
        gaze_y = gaze_y - nod * 0.25 - pitch * 0.06 + blink * 0.3
        smile, cheeks, inner_brow = self._expression_curves()
        brow = np.maximum(brow, 0.8 * high) - 0.20 * low + self._sway(0.18, 0.10) + self._expression.brow
        squint = 0.20 + 0.15 * self._talking + self._expression.squint - 0.25 * high
        bob = nod * 1.2 - breath * 0.28
        # Hair lags behind the head, then overshoots.
        head_motion = 1.7 * lean + yaw + 0.25 * roll
        swing = head_motion - spring(head_motion, 1.7, 0.30)
        columns = [
            blink,
            squint,
            gaze_x,
            gaze_y,
            brow,
            yaw,
            pitch,
            roll,
            bob,
            breath,
            lean,
            swing,
            cheeks,
            inner_brow,
            smile,
        ]
        return np.stack(columns, axis=1)

    def _expression_curves(self) -> tuple[Array, Array, Array]:
        """Return the curves of the expression: the offset to the smile, the cheeks and the inner brows."""
        level = self._expression
        listening = 1 - self._talking
        # A voice is lively if it is loud or its pitch changes.
        melody = np.abs(self._pitch - smooth(self._pitch, min(51, 2 * self._ticks + 1)))
        lively = smooth(self._effort + melody, min(51, 2 * self._ticks + 1)) - 0.5
        # Smoothed over 31 ticks, more than a second.
        joy = smooth(
            0.30 * listening + 0.3 * lively * self._talking + self._sway(0.12, 0.12), min(31, 2 * self._ticks + 1)
        )
        strength = 0.5 if level.smile < -0.2 else 1.0  # a serious face smiles less
        inner_brow = level.inner_brow * (0.85 + 0.15 * self._talking) + 0.05 * joy
        return level.smile + strength * joy, np.clip(level.cheeks + strength * joy, 0, 1), inner_brow

    # -- posture ------------------------------------------------------------------------------------------------------

    def _postures(self) -> Array:
        """Return the target of head and torso at each tick, a ``_Posture`` per row."""
        random = self._random
        side = 1 if random.random() < 0.5 else -1
        targets = np.empty((self._ticks, 4))
        targets[:] = self._random_posture(-side, 0.6)
        starts, ends = {start for start, _ in self._phrases}, {end for _, end in self._phrases}
        for number, (start, end) in enumerate(self._parts):
            begins_phrase = start in starts
            if number and random.random() < (0.8 if begins_phrase else 0.65):
                side = -side
            targets[max(0, start - _HEAD_LEAD_TICKS) :] = self._random_posture(side, 1.0 if begins_phrase else 0.8)
            if end in ends:
                # In a pause, the head turns back most of the way to the viewer, and keeps much of its tilt.
                targets[end + 8 :] = targets[max(0, start - _HEAD_LEAD_TICKS)] * (0.35, 0.7, 0.4, 0.55)
        return targets

    def _random_posture(self, side: float, strength: float) -> _Posture:
        random = self._random
        size = strength * random.uniform(0.65, 1.0)
        tilt = side if random.random() < 0.7 else -side
        return _Posture(
            yaw=side * size * random.uniform(0.55, 0.95),
            roll=tilt * size * random.uniform(0.5, 2.0),
            pitch=random.uniform(-0.45, 0.30) * strength,
            lean=side * size * random.uniform(0.85, 1.15),
        )

    def _breath(self) -> Array:
        """Return the breath: slow breathing, with an inhalation before each phrase that follows a long pause."""
        breath = 0.8 * np.sin(2 * np.pi * 0.24 * self._time)
        inhaled = np.zeros(self._ticks)
        last_end = -_LONG_PAUSE_TICKS
        for start, end in self._phrases:
            if start - last_end >= _LONG_PAUSE_TICKS:
                _add_pulse(inhaled, start - 2, 14, 26, 1.0)
            last_end = end
        return breath * (1 - 0.6 * inhaled) + inhaled

    def _accents(self) -> tuple[Array, Array]:
        """Return the nods, one per stressed syllable, and the raised brows, on about half of these syllables."""
        nod, brow = np.zeros(self._ticks), np.zeros(self._ticks)
        for tick, strength in self._stressed:
            _add_pulse(nod, tick + 1, 5, 9, min(1.0, strength * 2.2))
            if self._random.random() < 0.45:
                _add_pulse(brow, tick + 1, 5, 14, min(1.0, strength * 2.0))
        return nod, brow

    def _sway(self, hertz: float, amplitude: float) -> Array:
        """Return a slow, aperiodic sway: the sum of four sines of unrelated frequencies."""
        sum_ = np.zeros(self._ticks)
        for i in range(4):
            frequency = hertz * (0.5 + 0.45 * i) * self._random.uniform(0.85, 1.15)
            sum_ += np.sin(2 * np.pi * (frequency * self._time + self._random.random())) / (1 + 0.7 * i)
        return amplitude * sum_ / 2.2

    # -- eyes ---------------------------------------------------------------------------------------------------------

    def _blinks(self) -> Array:
        """Return the blinks: about one every three seconds, sometimes two in a row, preferably at the beginning of a pause."""
        blink = np.zeros(self._ticks)
        pauses = np.flatnonzero(self._silent[1:] & ~self._silent[:-1]) + 1
        time = self._random.uniform(0.6, 2.0)
        while (tick := int(time * TICK_RATE)) < self._ticks:
            next_pauses = pauses[(pauses >= tick) & (pauses < tick + 12)]
            tick = int(next_pauses[0]) if len(next_pauses) else tick
            part = blink[tick : tick + len(_BLINK)]
            np.maximum(part, _BLINK[: len(part)], out=part)
            twice = self._random.random() < 0.10
            wait = self._random.uniform(0.28, 0.38) if twice else np.clip(self._random.lognormal(1.2, 0.45), 1.4, 7.0)
            time = tick / TICK_RATE + float(wait)
        return blink

    def _gaze(self, target_yaw: Array) -> tuple[Array, Array]:
        """Return the gaze: fixations of a point each, with a quick jump (saccade) between them.

        Args:
            target_yaw: The target of the head's yaw at each tick; at the start of a phrase, the eyes move to the same side.
        """
        random = self._random
        points = np.zeros((self._ticks, 2))
        # Small movements around the viewer, and a glance elsewhere now and then.
        tick = 0
        while tick < self._ticks:
            at_viewer = random.random() < 0.85
            point = random.normal(0, 0.05, 2) if at_viewer else random.uniform((-0.4, -0.2), (0.4, 0.15))
            length = int(random.uniform(0.5, 2.2) * TICK_RATE)
            points[tick : tick + length] = point
            tick += length
        for start, end in self._parts:
            first = max(0, start - _HEAD_LEAD_TICKS - _GAZE_LEAD_TICKS)
            away = random.random() < 0.8
            length = int(random.uniform(0.45, 0.9) * TICK_RATE)
            x, y = random.uniform(0.35, 0.6), random.uniform(-0.3, 0.12)
            side = math.copysign(1, target_yaw[min(start, self._ticks - 1)])
            if away:
                points[first : min(first + length, (start + end) // 2 + 1)] = side * x, y
            # Back on the viewer for the end of the phrase.
            points[max(start, end - 14) : end + 12] = 0
        saccade = np.array([0.7, 0.3])
        gaze_x, gaze_y = (np.convolve(np.pad(part, (1, 0), mode="edge"), saccade, "valid") for part in points.T)
        return gaze_x, gaze_y


# -- phrases ----------------------------------------------------------------------------------------------------------


def _find_phrases(silent: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first tick of each phrase, and the tick after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], silent, [True]]).astype(np.int8)))
    phrases: list[tuple[int, int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if phrases and start - phrases[-1][1] < _MIN_PAUSE_TICKS:
            phrases[-1] = (phrases[-1][0], end)
        else:
            phrases.append((start, end))
    return [(start, end) for start, end in phrases if end - start >= _MIN_PHRASE_TICKS]


def _split_phrase(start: int, end: int, effort: Array) -> list[tuple[int, int]]:
    """Split a long phrase into parts, where the voice is weakest."""
    parts = []
    while end - start > _MAX_PART_TICKS:
        first, last = start + _MIN_PART_TICKS, min(start + _MAX_PART_TICKS, end - _MIN_PART_TICKS) + 1
        middle = first + int(effort[first:last].argmin())
        parts.append((start, middle))
        start = middle
    return [*parts, (start, end)]


# -- curves -----------------------------------------------------------------------------------------------------------


def spring(targets: Array, hertz: float, damping: float) -> Array:
    """Return the positions of a damped harmonic oscillator that follows the targets, starting at rest at the first one.

    Args:
        targets: A value per tick.
        hertz: The undamped natural frequency.
        damping: The damping ratio; below 1, so it overshoots.
    """
    # The exact solution of the equation of motion for a target that is constant for a tick.
    omega, tick = 2 * math.pi * hertz, 1 / TICK_RATE
    damped = omega * math.sqrt(1 - damping**2)
    decay, cos, sin = math.exp(-damping * omega * tick), math.cos(damped * tick), math.sin(damped * tick)
    ratio = damping * omega / damped
    positions = np.empty_like(targets)
    position, speed = (float(targets[0]), 0.0) if len(targets) else (0.0, 0.0)
    for number, target in enumerate(targets.tolist()):
        offset = position - target
        position = target + decay * (offset * (cos + ratio * sin) + speed * sin / damped)
        speed = decay * (speed * (cos - ratio * sin) - offset * omega**2 / damped * sin)
        positions[number] = position
    return positions


def smooth(values: Array, size: int) -> Array:
    """Return the moving average with a Hann window."""
    window = np.hanning(size + 2)[1:-1]
    padded = np.pad(values, (size // 2, size - 1 - size // 2), mode="edge")
    return np.asarray(np.convolve(padded, window / window.sum(), "valid"), float)


def _peaks(values: Array, distance: int, threshold: float) -> list[int]:
    """Return the ticks whose value exceeds the threshold and is the maximum within ``distance`` ticks on both sides."""
    high = np.flatnonzero(values > threshold)
    return [int(tick) for tick in high if values[tick] == values[max(0, tick - distance) : tick + distance + 1].max()]


def _add_pulse(values: Array, peak: int, rise: int, fall: int, height: float) -> None:
    """Add a pulse in the shape of a raised cosine, ``rise`` ticks before and ``fall`` after its peak. Overlapping pulses do not add up."""
    first, last = max(0, peak - rise), min(len(values), peak + fall)
    tick = np.arange(first, last)
    phase = np.where(tick < peak, (tick - peak + rise) / rise, 1 - (tick - peak) / fall)
    np.maximum(values[first:last], height * (0.5 - 0.5 * np.cos(np.pi * phase)), out=values[first:last])
