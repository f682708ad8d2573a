from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import a2v.engine
from a2v.engine import lipsync
from a2v.engine.animation import animate
from a2v.engine.audio import decode
from a2v.engine.face_pose import VISEMES
from a2v.engine.lipsync import analyse, analyse_pieces

RATE = 16_000
SPEECH = Path(__file__).parent / "speech"
"""Voices that were held out from training, with their visemes; see the README.md there."""

CLIPS = Path(a2v.engine.__file__).parent / "recordings"


def vowel(seconds: float, first: float, second: float, pitch: float = 120.0, level: float = 0.3) -> np.ndarray:
    """Return a voice with formants at two frequencies."""
    time = np.arange(int(seconds * RATE)) / RATE
    out = np.zeros(len(time))
    for hertz in np.arange(pitch, 5000, pitch):
        gain = sum(share / (1 + ((hertz - at) / 60) ** 2) for at, share in ((first, 1.0), (second, 0.3), (2700, 0.03)))
        out += gain * np.sin(2 * np.pi * hertz * time + hertz)
    return (level * out / np.abs(out).max()).astype(np.float32)


def hiss(seconds: float, level: float = 0.15) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 1, int(seconds * RATE))
    return (level * np.diff(np.diff(noise, prepend=0), prepend=0) / 5).astype(np.float32)


def quiet(seconds: float) -> np.ndarray:
    return np.random.default_rng(4).normal(0, 1e-4, int(seconds * RATE)).astype(np.float32)


def murmur(seconds: float) -> np.ndarray:
    """Return the sound of m: a voice behind closed lips."""
    return (0.03 * np.sin(2 * np.pi * 120 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def aa(seconds: float) -> np.ndarray:
    return vowel(seconds, 800, 1200)


def ee(seconds: float) -> np.ndarray:
    return vowel(seconds, 300, 2300)


def uu(seconds: float) -> np.ndarray:
    return vowel(seconds, 310, 800)


def share(rows: np.ndarray, start: float, end: float, names: str) -> float:
    """Return the mean probability of some visemes together, between two times."""
    return float(rows[int(start * 100) : int(end * 100), [VISEMES.index(name) for name in names]].sum(1).mean())


def test_there_is_a_row_of_probabilities_for_every_10_ms() -> None:
    rows = analyse(np.concatenate([quiet(0.3), aa(0.5), quiet(0.2)]))
    assert rows.shape == (100, 9)
    assert rows.dtype == np.float32
    assert np.allclose(rows.sum(1), 1, atol=1e-5)
    assert rows.min() >= 0


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, 700])
def test_recordings_of_any_length_are_analysed(length: int) -> None:
    rows = analyse(np.full(length, 0.1, np.float32))
    assert rows.shape == (-(-length // 160), 9)
    assert len(loudness(np.full(length, 0.1, np.float32))) == len(rows)


@pytest.mark.parametrize("sound", [np.zeros(RATE, np.float32), quiet(1.0), quiet(1.0) * 5])
def test_the_mouth_rests_in_silence(sound: np.ndarray) -> None:
    assert share(analyse(sound), 0, 1, "X") > 0.95


def test_the_mouth_rests_in_pauses_and_moves_in_between() -> None:
    rows = analyse(np.concatenate([quiet(0.5), aa(0.6), quiet(0.5), ee(0.6), quiet(0.5)]))
    for start, end in ((0.05, 0.4), (1.2, 1.5), (2.3, 2.65)):
        assert share(rows, start, end, "X") > 0.9
    for start, end in ((0.55, 1.05), (1.65, 2.15)):
        assert share(rows, start, end, "X") < 0.1


def test_vowels_are_distinguished() -> None:
    rows = analyse(np.concatenate([quiet(0.3), aa(0.4), ee(0.4), uu(0.4), aa(0.4), ee(0.4), uu(0.4), quiet(0.3)]))
    for start in (0.35, 1.55):
        assert share(rows, start, start + 0.3, "CD") > 0.5
        assert share(rows, start + 0.4, start + 0.7, "B") > 0.5
        assert share(rows, start + 0.8, start + 1.1, "EF") > 0.4


@pytest.mark.parametrize("gain", [0.02, 0.2, 3.0])
def test_the_gain_of_a_recording_does_not_matter(gain: float) -> None:
    sound = np.concatenate([quiet(0.4), aa(0.4), ee(0.4), uu(0.4), quiet(0.4)])
    assert (analyse(sound).argmax(1) == analyse(sound * np.float32(gain)).argmax(1)).mean() > 0.95


@pytest.mark.parametrize("noise", [3e-4, 3e-3])
def test_a_noisy_room_is_not_speech(noise: float) -> None:
    sound = np.concatenate([quiet(0.8), aa(0.8), quiet(0.8)])
    sound += np.random.default_rng(0).normal(0, noise, len(sound)).astype(np.float32)
    rows = analyse(sound)
    assert share(rows, 0.1, 0.7, "X") > 0.9
    assert share(rows, 0.9, 1.5, "X") < 0.10


def test_hissing_shows_the_teeth() -> None:
    rows = analyse(np.concatenate([quiet(0.3), aa(0.3), hiss(0.2), aa(0.3), quiet(0.3)]))
    assert share(rows, 0.64, 0.76, "B") > 0.6


def test_lips_close_between_voices() -> None:
    rows = analyse(np.concatenate([quiet(0.3), aa(0.3), murmur(0.09), aa(0.3), quiet(0.3)]))
    assert share(rows, 0.62, 0.67, "A") > 0.5
    assert share(rows, 0.40, 0.55, "A") < 0.1


def loudness(samples: np.ndarray) -> np.ndarray:
    return analyse_pieces([samples])[1]


def test_loudness_is_in_decibels_of_full_scale() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    assert loudness(tone)[20:80] == pytest.approx(-3.0, abs=0.2)
    assert loudness(tone * np.float32(0.1))[20:80] == pytest.approx(-23.0, abs=0.2)


def held_out() -> dict[str, np.ndarray]:
    """Return the true visemes, a number per row, by the name of the clip."""
    lines = (SPEECH / "mouths.txt").read_text().splitlines()
    scripts = {name: script.split() for name, _, script in (line.partition(":") for line in lines)}
    return {
        name: np.concatenate([np.full(int(part[1:]), VISEMES.index(part[0])) for part in script])
        for name, script in scripts.items()
    }


def clip(name: str) -> np.ndarray:
    path = SPEECH / f"{name}.flac"
    return decode((path if path.exists() else CLIPS / f"{name}.flac").read_bytes())


def near(values: np.ndarray, rows: int = 4) -> np.ndarray:
    """Return where a value is true within 40 ms."""
    return np.convolve(values, np.ones(2 * rows + 1), "same") > 0.5


def test_held_out_voices_are_recognized() -> None:
    right, total, closed, closures = 0, 0, 0, 0
    for name, truth in held_out().items():
        found = analyse(clip(name)).argmax(1)
        assert len(found) == len(truth)
        correct = sum(int((near(truth == viseme) & (found == viseme)).sum()) for viseme in range(9))
        assert correct / len(truth) > 0.7, name
        right, total = right + correct, total + len(truth)
        for start, end, viseme in lipsync.runs(truth):
            if viseme == VISEMES.index("A"):
                closures += 1
                closed += bool((found[max(0, start - 4) : end + 4] == viseme).any())
    assert right / total > 0.84
    assert closed / closures > 0.8


@pytest.mark.parametrize("gain", [0.03, 1.0])
def test_a_real_voice_is_recognized_at_any_gain(gain: float) -> None:
    """A real voice says "He turned sharply, and faced Gregson across the table"."""
    rows = analyse(clip("slt") * np.float32(gain))
    pauses, p, f, b = ((0, 0.12), (3.02, 3.1)), (0.84, 0.93), (1.29, 1.40), (2.69, 2.77)
    for start, end in pauses:
        assert share(rows, start, end, "X") > 0.9
    assert rows[int(p[0] * 100) : int(p[1] * 100), VISEMES.index("A")].max() > 0.5
    assert rows[int(f[0] * 100) : int(f[1] * 100), VISEMES.index("G")].max() > 0.5
    assert rows[int(b[0] * 100) : int(b[1] * 100), VISEMES.index("A")].max() > 0.5


def test_the_block_size_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.concatenate([clip(name) for name in held_out()] * 3)[: 30 * RATE + 77]
    monkeypatch.setattr(lipsync, "_BLOCK", 10_000)
    whole = analyse(sound)
    monkeypatch.setattr(lipsync, "_BLOCK", 500)
    assert np.abs(analyse(sound) - whole).max() < 1e-3


@pytest.mark.extended
def test_a_long_recording_takes_little_memory() -> None:
    sound = np.tile(clip("slt"), 80)
    seconds = len(sound) / RATE
    tracemalloc.start()
    try:
        analyse(sound)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Per row (100 per second), 36 bytes for the result and 84 bytes while it is computed; and one block.
    assert peak < seconds * 100 * 130 + 25e6


def test_samples_may_be_a_memory_map(tmp_path: Path) -> None:
    sound = clip("slt")
    sound.tofile(tmp_path / "samples")
    mapped = np.memmap(tmp_path / "samples", np.float32, "r")
    assert np.array_equal(analyse(mapped), analyse(sound))


# -- hum and offsets ----------------------------------------------------------------------------------------------------


def in_a_quiet_room(name: str) -> np.ndarray:
    samples = decode(CLIPS / f"{name}.flac")
    # Followed by a second of a quiet room.
    room = np.random.default_rng(0).normal(0, 1e-4, RATE).astype(np.float32)
    return np.concatenate([samples * 0.6 / np.abs(samples).max(), room])


def opening(samples: np.ndarray) -> np.ndarray:
    return np.array([pose.mouth.open for pose in animate(*analyse_pieces([samples]), seed=1)])


def hum(hertz: float, decibels: float, count: int) -> np.ndarray:
    return 10 ** (decibels / 20) * np.sin(2 * np.pi * hertz * np.arange(count) / RATE)


@pytest.mark.parametrize(
    "name", ["slt", *(pytest.param(one, marks=pytest.mark.extended) for one in ("awb", "june", "carlo"))]
)
@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(lambda _: 0.1, id="DC 0.1"),
        pytest.param(lambda _: -0.3, id="DC -0.3"),
        pytest.param(lambda count: hum(50, -20, count), id="50 Hz"),
        pytest.param(lambda count: hum(60, -20, count), id="60 Hz"),
        pytest.param(lambda count: hum(50, -20, count) - 0.05, id="50 Hz and DC"),
        pytest.param(lambda count: hum(20, -15, count), id="20 Hz"),
    ],
)
def test_an_offset_and_hum_do_not_open_the_mouth(name: str, noise) -> None:
    samples = in_a_quiet_room(name)
    clean = opening(samples)
    noisy = opening((samples + noise(len(samples))).astype(np.float32))
    at_rest = clean < 0.05
    assert at_rest.sum() > 20
    assert (noisy[at_rest] > 0.15).mean() < 0.02
    assert np.corrcoef(clean, noisy)[0, 1] > 0.99


def test_an_offset_alone_is_silence() -> None:
    samples = np.full(2 * RATE, 0.3, np.float32)
    assert opening(samples).max() < 0.05


@pytest.mark.parametrize("count", [1, 100, 160, 400, 1000])
def test_short_recordings_with_an_offset_are_analysed(count: int) -> None:
    assert np.isfinite(loudness(np.full(count, 0.3, np.float32))).all()
    assert len(lipsync.analyse(np.full(count, 0.3, np.float32))) == -(-count // lipsync.HOP)


def test_recordings_without_hum_are_not_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = in_a_quiet_room("june")
    found = lipsync.analyse(samples)
    monkeypatch.setattr(lipsync, "has_hum", lambda _: False)
    assert (lipsync.analyse(samples) == found).all()
