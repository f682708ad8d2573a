"""The data that is held out from training, for score.py."""

from __future__ import annotations

import zlib

SYNTHESISERS = ("piper", "flite")
"""Whole synthesizers: a neural one, and one that concatenates parts of real recordings."""

VOICES = (
    *(f"kokoro/{name}" for name in ("af_nova", "am_puck", "bf_lily", "bm_fable", "ef_dora", "im_nicola", "zm_yunxi")),
    *(f"espeak/{name}" for name in ("f3", "m4", "f2", "linda", "Michael", "m7", "shelby", "Mario")),
    *(f"festival/{name}" for name in ("cmu_us_slt_arctic_hts", "pc_diphone", "czech_krb", "hy_fi_mv_diphone")),
    *(f"real/librispeech-{name}" for name in (367, 533, 1688, 1998, 2033, 2414, 2609, 3005, 3080, 3331)),
    "real/librivox",
    "real/cards",
    "real/goforward",
    "real/arctic",
)
"""Voices of the other synthesizers, and recordings of real speakers."""


def is_for_validation(voice: str) -> bool:
    """Whether a reader of LibriSpeech is held out from training to choose the bias for closed lips: one in ten is."""
    name = voice.removeprefix("real/librispeech-")
    return name.isdecimal() and int(name) % 10 == 0 and voice not in VOICES


def is_held_out(voice: str, text: str, without: list[str]) -> bool:
    """Whether a sentence is held out, because of its voice, synthesizer or text."""
    family, names = voice.split("/")
    whole = family in SYNTHESISERS or family in without
    people = any(f"{family}/{name}" in (*VOICES, *without) for name in names.split("+"))
    return whole or people or is_for_validation(voice) or is_test_text(text)


def is_test_text(text: str) -> bool:
    """Whether a text is held out for all voices: one in twenty is."""
    return zlib.crc32(text.encode()) % 20 == 0
