"""Scores the lip-sync on voices, synthesizers and recordings that were held out from training, and prints a table.

    python tools/lipsync/score.py CACHE [--weights FILE]

±40 ms: rows with the right viseme within 40 ms. openness: correlation of the opening of the mouth as it is animated, averaged over a
syllable. p/b/m: recall of closures within 40 ms, and their precision in brackets. silence: F1 of rest within 40 ms.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from held_out import SYNTHESISERS, VOICES, is_for_validation, is_held_out, is_test_text
from phones import OPENNESS, mouths, rows
from speech import read

from a2v.engine import lipsync
from a2v.engine.animation import most_likely_visemes
from a2v.engine.audio import RATE
from a2v.engine.face_pose import VISEMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from voices import Speech

    Labels = NDArray[np.integer]

_NEAR = 4  # rows, 40 ms
_PAUSE = 4800  # samples, 0.3 s
SYLLABLE = np.hanning(13)[1:-1] / np.hanning(13).sum()


READERS = "readers for validation"
"""The group of real speakers by which train.py chooses the bias for closed lips."""


class Counts(NamedTuple):
    """The counts of one recording, which are summed per group."""

    rows: int
    right: int
    openness: NDArray[np.float64]
    """Per row, the animated and the true openness."""
    closures: int
    closed: int
    closings: int
    meant: int
    rests: int
    rested: int
    resting: int
    rightly: int


def compare(probabilities: NDArray[np.float32], right: Labels) -> Counts:
    """Count for one recording, given the probabilities and the true viseme of each row."""
    labels = most_likely_visemes(probabilities)
    near_truth = np.stack([_about(right == v) for v in range(len(VISEMES))], axis=1)
    rest, closed = VISEMES.index("X"), VISEMES.index("A")
    closures = [(a, b) for a, b, v in lipsync.runs(right) if v == closed and b - a > 1]
    closings = [(a, b) for a, b, v in lipsync.runs(labels) if v == closed and b - a > 1]
    openness = [np.convolve(values, SYLLABLE, "same") for values in (probabilities @ OPENNESS, OPENNESS[right])]
    return Counts(
        len(right),
        int(near_truth[np.arange(len(right)), labels].sum()),
        np.stack(openness, axis=1),
        len(closures),
        sum(bool((labels[max(0, a - _NEAR) : b + _NEAR] == closed).any()) for a, b in closures),
        len(closings),
        sum(bool((right[max(0, a - _NEAR) : b + _NEAR] == closed).any()) for a, b in closings),
        int((right == rest).sum()),
        int((_about(labels == rest) & (right == rest)).sum()),
        int((labels == rest).sum()),
        int((near_truth[:, rest] & (labels == rest)).sum()),
    )


def _about(where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.convolve(where, np.ones(2 * _NEAR + 1), "same")[: len(where)] > 0.5


def line(name: str, counts: list[Counts]) -> str:
    """Return the row of a group in the table."""
    total = {field: sum(getattr(c, field) for c in counts) for field in Counts._fields if field != "openness"}
    drawn, wanted = np.concatenate([c.openness for c in counts]).T
    share = {
        "near": total["right"] / max(1, total["rows"]),
        "recall": total["closed"] / max(1, total["closures"]),
        "precision": total["meant"] / max(1, total["closings"]),
    }
    recall, precision = total["rested"] / max(1, total["rests"]), total["rightly"] / max(1, total["resting"])
    silence = 2 * recall * precision / max(1e-9, recall + precision)
    openness = float(np.corrcoef(drawn, wanted)[0, 1])
    return (
        f"{name:32} {total['rows'] / 100:6.0f} s  {share['near']:6.1%}  {openness:5.3f}  "
        f"{share['recall']:6.1%} ({share['precision']:.0%} of {total['closings']})  {silence:6.1%}"
    )


def group(speech: Speech, without: list[str]) -> str | None:
    """Return the group of a speech; ``None`` if it was used for training."""
    family, names = speech.voice.split("/")
    if not is_held_out(speech.voice, speech.text, without):
        return None
    if is_for_validation(speech.voice):
        return READERS
    if family == "real":
        return speech.voice if speech.voice in (*VOICES, *without) or family in without else "known speaker, new words"
    if family in SYNTHESISERS or family in without:
        return f"{family}, all voices held out"
    if any(f"{family}/{name}" in (*VOICES, *without) for name in names.split("+")):
        return f"{family}, voices held out"
    return f"{family}, known voices, new words" if is_test_text(speech.text) else None


def spoken(cache: Path, without: list[str], most: float) -> Iterator[tuple[str, Speech]]:
    """Yield held-out speech and its group, at most ``most`` seconds per group."""
    heard: dict[str, float] = {}
    for path in sorted(cache.glob("*-[0-9]*.npz")):
        for speech in read(path):
            name = group(speech, without)
            if name and heard.get(name, 0) < most:
                heard[name] = heard.get(name, 0) + len(speech.samples) / RATE
                yield name, speech


def padded(speech: Speech) -> NDArray[np.float32]:
    """Return the sound with a pause and faint hiss on both sides."""
    out = np.random.default_rng(len(speech.samples)).normal(0, 1e-4, len(speech.samples) + 2 * _PAUSE)
    out[_PAUSE:-_PAUSE] += speech.samples / 32768
    return out.astype(np.float32)


def truth(speech: Speech, count: int) -> Labels:
    """Return the true viseme of each row of the padded sound."""
    pause = _PAUSE / RATE
    return rows([(start + pause, end + pause, viseme) for start, end, viseme in mouths(speech)], count)


def main() -> None:
    """Score, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder with the speech")
    parser.add_argument("--weights", type=Path, help="weights instead of those of the package")
    parser.add_argument(
        "--without", action="append", default=[], help="a synthesizer or voice that train.py left out in addition"
    )
    parser.add_argument("--seconds", type=float, default=300, help="seconds of speech per group")
    given = parser.parse_args()
    network = lipsync.network(given.weights)
    groups: dict[str, list[Counts]] = {}
    seconds = cpu = 0.0
    for name, speech in spoken(given.cache, given.without, given.seconds):
        samples = padded(speech)
        began = time.process_time()
        probabilities = network.run(*lipsync.mel_spectrum(samples))
        cpu, seconds = cpu + time.process_time() - began, seconds + len(samples) / RATE
        groups.setdefault(name, []).append(compare(probabilities, truth(speech, len(probabilities))))
    print(f"{'':32} {'':8}  {'±40 ms':>6}  {'open':>5}  {'p/b/m':>6}{'':16}  {'silence':>6}")
    for name in sorted(groups):
        print(line(name, groups[name]))
    known = {name for name in groups if "new words" in name or name == READERS}
    held_out = [c for name, counts in groups.items() if name not in known for c in counts]
    real = {name: counts for name, counts in groups.items() if name.startswith("real/")}
    spoken_by = [c for counts in real.values() for c in counts]
    for name, counts in (("all that is held out", held_out), (f"real speakers, held out ({len(real)})", spoken_by)):
        if counts:
            print(line(name, counts))
    print(f"{seconds / cpu:.0f} × real time (CPU seconds)")


if __name__ == "__main__":
    main()
