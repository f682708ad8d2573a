"""Makes the speech that the lip-sync net learns from: hours of sound, and when each phone begins.

    python tools/lipsync/speech.py CACHE --kokoro package/voices

Needs Debian's espeak-ng, flite, festival with its voices, and the fortunes; the Python packages of requirements.txt beside this
file; and of the npm package kokoro-js the folder ``voices``. All of it is free. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import voices
from voices import RATE, Speech

if TYPE_CHECKING:
    from collections.abc import Iterator

_MINUTES = {"kokoro": 60, "espeak": 180, "hibari": 30, "festival": 60, "flite": 40, "piper": 20}
_SHARD = 3  # minutes a file


def _make(family: str, shard: int, folder: Path, kokoro: Path) -> str:
    path = folder / f"{family}-{shard:03}.npz"
    if path.exists():
        return f"{path.name}: there"
    began = time.monotonic()
    random = Random(f"{family} {shard}")
    make: Iterator[Speech] = voices.kokoro(random, kokoro) if family == "kokoro" else getattr(voices, family)(random)
    said: list[Speech] = []
    while sum(len(speech.samples) for speech in said) < _SHARD * 60 * RATE:
        speech = next(make)
        if 0.6 * RATE < len(speech.samples) < 14 * RATE and len(speech.segments) > 3:
            said.append(speech)
    write(path, said)
    return f"{path.name}: {len(said)} sentences in {time.monotonic() - began:.0f} s"


def write(path: Path, said: list[Speech]) -> None:
    """Puts speech into a file."""
    about = [[s.voice, s.alphabet, s.text, len(s.samples), s.segments] for s in said]
    there = path.with_suffix(".part.npz")
    np.savez(there, samples=np.concatenate([s.samples for s in said]), about=np.array(json.dumps(about)))
    there.rename(path)


def read(path: Path) -> Iterator[Speech]:
    """What ``write`` put there."""
    with np.load(path) as file:
        samples, about = file["samples"], json.loads(str(file["about"]))
    at = 0
    for voice, alphabet, text, length, segments in about:
        yield Speech(voice, alphabet, text, samples[at : at + length], [(a, b, name) for a, b, name in segments])
        at += length


def main() -> None:
    """Makes what is missing in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="where the speech goes")
    parser.add_argument("--kokoro", type=Path, required=True, help="the folder 'voices' of the npm package kokoro-js")
    parser.add_argument("--only", choices=sorted(_MINUTES), action="append", help="these synthesisers only")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(given.processes) as pool:
        jobs = [
            pool.submit(_make, family, shard, given.cache, given.kokoro)
            for family, minutes in _MINUTES.items()
            if family in (given.only or _MINUTES)
            for shard in range(minutes // _SHARD)
        ]
        for job in jobs:
            print(job.result(), flush=True)


if __name__ == "__main__":
    main()
