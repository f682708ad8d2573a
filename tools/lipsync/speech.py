"""Generates the training data of the lip-sync network: hours of speech with the start of each phone.

    python tools/lipsync/speech.py CACHE --kokoro package/voices

Needs espeak-ng, flite, festival with its voices and the fortunes from Debian, the Python packages in requirements.txt, and the folder
``voices`` of the npm package kokoro-js. All of these are free. Existing files are kept.
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
_SHARD = 3  # minutes per file


def _make(family: str, shard: int, folder: Path, kokoro: Path) -> str:
    path = folder / f"{family}-{shard:03}.npz"
    if path.exists():
        return f"{path.name}: exists"
    began = time.monotonic()
    random = Random(f"{family} {shard}")
    make: Iterator[Speech] = voices.kokoro(random, kokoro) if family == "kokoro" else getattr(voices, family)(random)
    speeches: list[Speech] = []
    while sum(len(speech.samples) for speech in speeches) < _SHARD * 60 * RATE:
        speech = next(make)
        if 0.6 * RATE < len(speech.samples) < 14 * RATE and len(speech.segments) > 3:
            speeches.append(speech)
    write(path, speeches)
    return f"{path.name}: {len(speeches)} sentences in {time.monotonic() - began:.0f} s"


def write(path: Path, speeches: list[Speech]) -> None:
    """Write speech to a file."""
    about = [[s.voice, s.alphabet, s.text, len(s.samples), s.segments] for s in speeches]
    partial = path.with_suffix(".part.npz")
    np.savez(partial, samples=np.concatenate([s.samples for s in speeches]), about=np.array(json.dumps(about)))
    partial.rename(path)


def read(path: Path) -> Iterator[Speech]:
    """Read speech that ``write`` wrote."""
    with np.load(path) as file:
        samples, about = file["samples"], json.loads(str(file["about"]))
    at = 0
    for voice, alphabet, text, length, segments in about:
        yield Speech(voice, alphabet, text, samples[at : at + length], [(a, b, name) for a, b, name in segments])
        at += length


def main() -> None:
    """Generate the missing files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder for the speech")
    parser.add_argument("--kokoro", type=Path, required=True, help="the folder 'voices' of the npm package kokoro-js")
    parser.add_argument("--only", choices=sorted(_MINUTES), action="append", help="use only these synthesizers")
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
