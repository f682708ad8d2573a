"""How the pitch of a voice is measured, and what it does to the face."""

from __future__ import annotations

import numpy as np
import pytest

from a2v.engine.animation import animate
from a2v.engine.intonation import Intonation
from tests.engine.test_animation import levels, rows

RATE = 16_000


def voice(hertz: np.ndarray) -> np.ndarray:
    """Return a sound with harmonics, given its pitch at each sample."""
    phase = np.cumsum(2 * np.pi * hertz / RATE)
    return 0.1 * np.sum([np.sin(number * phase) / number for number in range(1, 9)], axis=0).astype(np.float32)


def semitones(samples: np.ndarray, piece: int = 5000) -> np.ndarray:
    intonation = Intonation()
    heard = list(intonation.listen(np.split(samples, range(piece, len(samples), piece))))
    assert (np.concatenate(heard) == samples).all()
    return intonation.semitones()


@pytest.mark.parametrize("middle", [95, 130, 220, 300])
def test_the_pitch_is_measured_relative_to_the_usual_one(middle: int) -> None:
    rising = np.linspace(-4, 4, 2 * RATE)
    measured = semitones(voice(middle * 2 ** (rising / 12)))
    assert len(measured) == 200
    assert np.abs(measured - rising[80::160])[4:-4].max() < 0.4


def test_pieces_do_not_matter() -> None:
    samples = voice(150 * 2 ** (np.sin(np.arange(6 * RATE) / 4000) / 4))[: 6 * RATE - 77]
    assert (semitones(samples, 999) == semitones(samples, RATE)).all()


@pytest.mark.parametrize(
    "samples",
    [np.zeros(RATE), np.random.default_rng(1).normal(0, 0.1, RATE), np.zeros(7)],
    ids=["silence", "noise", "short"],
)
def test_without_a_voice_the_pitch_is_the_usual_one(samples: np.ndarray) -> None:
    measured = semitones(samples.astype(np.float32))
    assert len(measured) == -(-len(samples) // 160)
    assert not measured.any()


def test_short_consonants_are_bridged_and_silence_is_not() -> None:
    quiet = np.zeros(RATE // 20)
    samples = [
        voice(np.full(RATE, 120.0)),
        voice(np.full(RATE // 2, 170.0)),
        quiet,
        voice(np.full(RATE // 2, 170.0)),
        np.zeros(RATE),
    ]
    measured = semitones(np.concatenate(samples).astype(np.float32))
    assert measured[20:90].max() < 0.5 or measured[20:90].min() > -0.5
    assert measured[150:155] == pytest.approx(measured[140], abs=1)
    assert not measured[-60:].any()


def test_brows_eyes_and_chin_rise_with_the_pitch() -> None:
    script = "X" * 50 + "DBCEA" * 60
    pitch = np.where(np.arange(len(script)) > 200, 5.0, 0.0)

    def mean_after(second: float, **options: np.ndarray) -> np.ndarray:
        poses = list(animate(rows(script), levels(script), seed=2, **options))[int(second * 25) :]
        return np.mean([(pose.brow, pose.squint, pose.pitch, pose.yaw) for pose in poses], axis=0)

    brow, squint, chin, yaw = mean_after(2.5, pitch=pitch) - mean_after(2.5)
    assert brow > 0.2
    assert squint < -0.1
    assert chin < -0.1
    assert yaw == pytest.approx(0)
