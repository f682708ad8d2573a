"""The acting of a character: everything that a face and a body do apart from the mouth, as columns with a value per tick.

People prepare what they say with their body. Each phrase has a *posture*, a place for the head and the torso. The eyes go there
first, the head follows 150 ms later, and the torso after it; then the posture is held until the next phrase. A phrase begins after a
pause, and a long one has several parts, which begin where the voice is weakest. Eyes look away when a phrase begins and are back on
the viewer before it ends. The chest rises before the first word and before each phrase after a pause; after the last word everything
settles.

Postures and the things that follow them (torso, hair) move on damped springs, so nothing starts or stops suddenly. Nods and raised
brows mark stressed syllables, which are peaks of the vocal effort. Blinks and a slow sway keep the character alive meanwhile.

The *expression* is a slow track of its own: a smile that grows while the speaker pauses and where the voice is lively, with cheeks, lower
lids and brows. A ``Mood`` replaces the level around which it moves. Where the pitch rises, as in a question, the brows go up, the eyes
open and the chin rises; where it falls, the brows come down.

A tick is 1/25 s whatever the frame rate is. All random draws are made in a fixed order, so a seed determines the acting.
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
_MIN_PAUSE = 6  # ticks; shorter ones are within a phrase
_MIN_PHRASE = 3
_LONGEST, _SHORTEST_PART = 70, 32  # ticks of the parts of a phrase
_GAZE_LEAD = 4  # ticks from the eyes to the head
_ANTICIPATION = 3  # ticks from the head to the voice
_LONG_PAUSE = 15  # ticks; after one, a speaker breathes in
_HIGH = 6.0  # semitones above the usual pitch of the voice: as high as the brows go
_LIDS = np.array([0.45, 1.0, 0.92, 0.52, 0.22, 0.06])


class _Posture(NamedTuple):
    """Where head and torso are; the fields are those of a ``FacePose``."""

    yaw: float
    roll: float
    pitch: float
    lean: float


class _Expression(NamedTuple):
    """The level of each part of an expression; ``smile`` is added to that of the mouth."""

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
        pitch: By how many semitones the voice is above its usual pitch at each tick; ``None``: it is unknown.
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
        self._pitch = smooth(np.clip((np.zeros(len(effort)) if pitch is None else pitch) / _HIGH, -1, 1), 9)
        self._effort = effort
        self._silent = silent
        self._expression = _EXPRESSIONS[mood]
        self._random = random
        self._time = (np.arange(self._ticks) + 0.5) / TICK_RATE
        stress = np.clip(effort - smooth(effort, min(31, 2 * self._ticks + 1)), 0, 1)
        self._stressed = [(tick, stress[tick]) for tick in _peaks(stress, 8, 0.16)]
        self._talking = smooth((~silent).astype(float), 25)
        self._phrases = _find_phrases(silent)
        self._parts = [part for phrase in self._phrases for part in _split(*phrase, effort)]

    def columns(self) -> Array:
        """Return the fields of ``FacePose`` after the mouth, and what the expression adds to the smile, with a row per tick."""
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
        smile, cheeks, inner_brow = self._emotion()
        brow = np.maximum(brow, 0.8 * high) - 0.20 * low + self._sway(0.18, 0.10) + self._expression.brow
        squint = 0.20 + 0.15 * self._talking + self._expression.squint - 0.25 * high
        bob = nod * 1.2 - breath * 0.28
        # Hair hangs behind where the head has gone, and swings.
        moved = 1.7 * lean + yaw + 0.25 * roll
        swing = moved - spring(moved, 1.7, 0.30)
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

    def _emotion(self) -> tuple[Array, Array, Array]:
        """Return the track of the expression: what it adds to the smile, the cheeks and the inner brows."""
        level = self._expression
        listening = 1 - self._talking
        # A voice is lively if it is loud or changes its pitch.
        melody = np.abs(self._pitch - smooth(self._pitch, min(51, 2 * self._ticks + 1)))
        lively = smooth(self._effort + melody, min(51, 2 * self._ticks + 1)) - 0.5
        # Slow: a second from one level to the other.
        joy = smooth(
            0.30 * listening + 0.3 * lively * self._talking + self._sway(0.12, 0.12), min(31, 2 * self._ticks + 1)
        )
        share = 0.5 if level.smile < -0.2 else 1.0  # a serious face smiles less
        inner_brow = level.inner_brow * (0.85 + 0.15 * self._talking) + 0.05 * joy
        return level.smile + share * joy, np.clip(level.cheeks + share * joy, 0, 1), inner_brow

    # -- posture ------------------------------------------------------------------------------------------------------

    def _postures(self) -> Array:
        """Return the posture that head and torso are moving to at each tick."""
        random = self._random
        side = 1 if random.random() < 0.5 else -1
        targets = np.empty((self._ticks, 4))
        targets[:] = self._draw_posture(-side, 0.6)
        starts, ends = {start for start, _ in self._phrases}, {end for _, end in self._phrases}
        for number, (start, end) in enumerate(self._parts):
            begins_phrase = start in starts
            if number and random.random() < (0.8 if begins_phrase else 0.65):
                side = -side
            targets[max(0, start - _ANTICIPATION) :] = self._draw_posture(side, 1.0 if begins_phrase else 0.8)
            if end in ends:
                # While nobody speaks, the head comes back to the viewer, and to a tilt of attention.
                targets[end + 8 :] = targets[max(0, start - _ANTICIPATION)] * (0.35, 0.7, 0.4, 0.55)
        return targets

    def _draw_posture(self, side: float, strength: float) -> _Posture:
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
        """Breathe slowly, and in before a phrase."""
        breath = 0.8 * np.sin(2 * np.pi * 0.24 * self._time)
        inhaled = np.zeros(self._ticks)
        last_end = -_LONG_PAUSE
        for start, end in self._phrases:
            if start - last_end >= _LONG_PAUSE:
                _add_pulse(inhaled, start - 2, 14, 26, 1.0)
            last_end = end
        return breath * (1 - 0.6 * inhaled) + inhaled

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

    # -- eyes ---------------------------------------------------------------------------------------------------------

    def _blinks(self) -> Array:
        """Blink about every three seconds, sometimes twice, and preferably at the beginning of a pause."""
        blink = np.zeros(self._ticks)
        pauses = np.flatnonzero(self._silent[1:] & ~self._silent[:-1]) + 1
        time = self._random.uniform(0.6, 2.0)
        while (tick := int(time * TICK_RATE)) < self._ticks:
            next_pauses = pauses[(pauses >= tick) & (pauses < tick + 12)]
            tick = int(next_pauses[0]) if len(next_pauses) else tick
            part = blink[tick : tick + len(_LIDS)]
            np.maximum(part, _LIDS[: len(part)], out=part)
            twice = self._random.random() < 0.10
            wait = self._random.uniform(0.28, 0.38) if twice else np.clip(self._random.lognormal(1.2, 0.45), 1.4, 7.0)
            time = tick / TICK_RATE + float(wait)
        return blink

    def _gaze(self, turns: Array) -> tuple[Array, Array]:
        """Fixate one point after the other, with a quick jump (saccade) in between.

        Args:
            turns: The yaw that the head is moving to at each tick, with which the eyes begin.
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
            first = max(0, start - _ANTICIPATION - _GAZE_LEAD)
            away = random.random() < 0.8
            length, x, y = (
                int(random.uniform(0.45, 0.9) * TICK_RATE),
                random.uniform(0.35, 0.6),
                random.uniform(-0.3, 0.12),
            )
            side = math.copysign(1, turns[min(start, self._ticks - 1)])
            if away:
                points[first : min(first + length, (start + end) // 2 + 1)] = side * x, y
            # Back on the viewer for the end of the phrase.
            points[max(start, end - 14) : end + 12] = 0
        saccade = np.array([0.7, 0.3])
        gaze_x, gaze_y = (np.convolve(np.pad(part, (1, 0), mode="edge"), saccade, "valid") for part in points.T)
        return gaze_x, gaze_y


# -- phrases ----------------------------------------------------------------------------------------------------------


def _find_phrases(silent: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first tick of each phrase, and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], silent, [True]]).astype(np.int8)))
    phrases: list[tuple[int, int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if phrases and start - phrases[-1][1] < _MIN_PAUSE:
            phrases[-1] = (phrases[-1][0], end)
        else:
            phrases.append((start, end))
    return [(start, end) for start, end in phrases if end - start >= _MIN_PHRASE]


def _split(start: int, end: int, effort: Array) -> list[tuple[int, int]]:
    """Split a long phrase into parts, where the voice is weakest."""
    parts = []
    while end - start > _LONGEST:
        first, last = start + _SHORTEST_PART, min(start + _LONGEST, end - _SHORTEST_PART) + 1
        middle = first + int(effort[first:last].argmin())
        parts.append((start, middle))
        start = middle
    return [*parts, (start, end)]


# -- curves -----------------------------------------------------------------------------------------------------------


def spring(targets: Array, hertz: float, damping: float) -> Array:
    """Return what follows the targets on a spring, starting at rest at the first one.

    Args:
        targets: A value per tick.
        hertz: How often it would swing per second without damping.
        damping: Relative to that at which it no longer overshoots; below 1.
    """
    # The exact solution of the equation of motion for a target that is constant for a tick.
    omega, tick = 2 * math.pi * hertz, 1 / TICK_RATE
    swing = omega * math.sqrt(1 - damping**2)
    decay, cos, sin = math.exp(-damping * omega * tick), math.cos(swing * tick), math.sin(swing * tick)
    share = damping * omega / swing
    followed = np.empty_like(targets)
    place, speed = (float(targets[0]), 0.0) if len(targets) else (0.0, 0.0)
    for number, target in enumerate(targets.tolist()):
        away = place - target
        place = target + decay * (away * (cos + share * sin) + speed * sin / swing)
        speed = decay * (speed * (cos - share * sin) - away * omega**2 / swing * sin)
        followed[number] = place
    return followed


def smooth(values: Array, size: int) -> Array:
    """Return the moving average with a Hann window."""
    window = np.hanning(size + 2)[1:-1]
    padded = np.pad(values, (size // 2, size - 1 - size // 2), mode="edge")
    return np.asarray(np.convolve(padded, window / window.sum(), "valid"), float)


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
