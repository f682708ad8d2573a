"""Maps phones to visemes, for each phonetic alphabet that a synthesizer uses, and corrects pauses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.face_pose import VISEMES
from a2v.engine.lipsync import mel_spectrum, runs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from voices import Segment, Speech

    Mouths = list[tuple[float, float, str]]

OPENNESS = np.array(
    [{"X": 0, "A": 0, "B": 0.3, "C": 0.65, "D": 1, "E": 0.6, "F": 0.3, "G": 0.15, "H": 0.5}[v] for v in VISEMES]
)
"""How far each viseme opens the jaw, 0 to 1."""


def _table(**mouths: str) -> dict[str, str]:
    return {phone: mouth for mouth, phones in mouths.items() for phone in phones.split()}


_ARPA = _table(
    X="sil pau h# # ssil brth",
    A="p b m em",
    G="f v",
    H="l el",
    F="w uw wh",
    E="ao er axr uh r",
    C="eh ae ah ax",
    D="aa",
    DB="ay",
    DF="aw",
    EF="ow",
    EB="oy",
    CB="ey",
)
_IPA = _table(
    A="p b m β ɸ",
    G="f v ɱ ʋ pf",
    H="l ɫ",
    F="w u ʍ ɥ y ʏ uː yː W",
    E="ɔ o ø œ ɒ ɜ ɚ ɝ ʊ ɹ ɻ oː øː ɜː ɔː ɔ̃ œ̃",
    C="ɛ æ ʌ ə ɐ e ᵊ eː ɛː ɛ̃",
    D="ɑ a ɑː aː ɑ̃",
    DB="aɪ ai aɪə",
    DF="aʊ au aʊə",
    EF="əʊ oʊ",
    EB="ɔɪ ɔʏ ɔø oi",
    CB="eɪ ei",
    CF="eu",
    BC="iə",
    EC="ʊə",
)
_MISAKI = _IPA | _table(CB="A", DB="I", EF="O Q", DF="W", EB="Y")
_SAMPA = _table(X="# pau", A="p b m", G="f v v\\", H="l", F="w u y", E="o O 7", C="e E ax @ {", D="a A", B="")
_LONGEST = 3


def mouths(speech: Speech) -> Mouths:
    """Return the visemes of a speech as start, end (in seconds) and viseme, without gaps between the first and last phone."""
    lead = _LEAD_SECONDS.get(speech.voice.split("/")[0])
    segments = speech.segments if lead is None else _with_audible_pauses(speech, lead)
    out: Mouths = []
    for start, end, phone in segments:
        names = _of(phone, speech.alphabet)
        each = (end - start) / len(names)
        out += [(start + i * each, start + (i + 1) * each, name) for i, name in enumerate(names)]
    return out


def rows(mouths: Mouths, count: int) -> NDArray[np.uint8]:
    """Return the index of the viseme in each row of 10 ms; rest before the first and after the last."""
    out = np.zeros(count, np.uint8)
    middle = (np.arange(count) + 0.5) / 100
    for start, end, name in mouths:
        first, last = np.searchsorted(middle, (start, end))
        out[first:last] = VISEMES.index(name)
    return out


def of_words(ipa: str) -> list[str]:
    """Return the visemes of each word of a sentence in IPA."""
    return [_of(word, "ipa") for word in ipa.split()]


def of_phones(phones: list[str]) -> str:
    """Return the visemes of a word in ARPAbet."""
    return re.sub(r"(.)\1+", r"\1", "".join(_of(phone, "arpa") for phone in phones))


def _of(phone: str, alphabet: str) -> str:
    """Return the visemes of a phone in order; B, the most common one, for unknown phones."""
    if alphabet == "mouths":
        return phone
    if alphabet == "arpa":
        return _ARPA.get(re.sub(r"\d", "", phone.lower()), "B")
    if alphabet == "sampa":
        plain = re.sub(r"[0-68-9:~]", "", phone)
        return _SAMPA.get(phone, _SAMPA.get(plain, _SAMPA.get(plain[:1], "B")))
    plain = re.sub(r"[ˈˌʲʰ̩͡_|%,']|\(.*\)", "", phone)
    if not plain or plain == "sil":
        return "B" if phone.startswith("(") else "X"
    return _longest_first(plain, _MISAKI if alphabet == "misaki" else _IPA)


def _longest_first(phone: str, table: dict[str, str]) -> str:
    out = ""
    at = 0
    while at < len(phone):
        size = next((n for n in range(_LONGEST, 0, -1) if phone[at : at + n] in table), 0)
        if size:
            out += table[phone[at : at + size]]
        elif phone[at] not in "ː̃":
            out += "B"
        at += size or 1
    return re.sub(r"(.)\1+", r"\1", out) or "B"


_STOPS = (*"pbtdkɡgʧʤ", "ch", "jh")
_QUIET = 32  # dB below loud speech
_PAUSE = 0.11  # seconds; shorter silences may be closures of stops


_LEAD_SECONDS = {"kokoro": 0.057, "hibari": 0.050, "piper": 0.010}
"""Seconds by which neural voices speak before their predicted durations, measured at hisses, vowels and closures."""


def _with_audible_pauses(speech: Speech, lead: float) -> list[Segment]:
    """Keep only audible pauses: neural voices predict one between any two words."""
    segments = [(max(0.0, start - lead), max(0.0, end - lead), phone) for start, end, phone in speech.segments]
    _, level = mel_spectrum((speech.samples / 32768).astype(np.float32))
    quiet = level < np.percentile(level, 90) - _QUIET
    out: list[Segment] = []
    for i, (start, end, phone) in enumerate(segments):
        if phone:
            out.append((start, end, phone))
            continue
        begins, ends = _silence(quiet, start, end, first=i == 0, last=i == len(segments) - 1)
        following = segments[i + 1][2] if i + 1 < len(segments) else ""
        if ends - begins < (0.12 if following.startswith(_STOPS) else 0.07):
            begins = ends = start if following.startswith(_STOPS) else (start + end) / 2
        if out:
            out[-1] = (out[-1][0], begins, out[-1][2])
        if ends > begins:
            out.append((begins, ends, ""))
        if i + 1 < len(segments) and segments[i + 1][2]:
            out.append((ends, end, segments[i + 1][2]))
    return with_pauses(speech.samples, _joined(out))


def with_pauses(samples: NDArray[np.int16], segments: list[Segment]) -> list[Segment]:
    """Insert silences: PocketSphinx and some voices count pauses to the neighbouring phones."""
    _, level = mel_spectrum((samples / 32768).astype(np.float32))
    out = segments
    for first, last, quiet in runs(level < np.percentile(level, 90) - _QUIET):
        start, end = first / 100, last / 100
        # The closure of a stop that follows is not part of the pause.
        if any(phone.lower().startswith(_STOPS) for a, b, phone in out if a - 0.05 <= end < b):
            end -= 0.07
        if quiet and end - start >= (_PAUSE if first and last < len(level) else 0.02):
            before = [(a, min(b, start), phone) for a, b, phone in out if a < start]
            out = [*before, (start, end, "sil"), *((max(a, end), b, phone) for a, b, phone in out if b > end)]
    return out


def _silence(quiet: NDArray[np.bool_], start: float, end: float, *, first: bool, last: bool) -> tuple[float, float]:
    """Return the longest silence within a pause; at the ends of a recording, it may extend beyond."""
    a, b = (0 if first else round(start * 100)), (len(quiet) if last else round(end * 100))
    inside = np.flatnonzero(quiet[a:b])
    if not len(inside):
        return (start + end) / 2, (start + end) / 2
    groups = np.split(inside, np.flatnonzero(np.diff(inside) > 2) + 1)
    longest = max(groups, key=len)
    return (a + int(longest[0])) / 100, (a + int(longest[-1]) + 1) / 100


def _joined(segments: list[Segment]) -> list[Segment]:
    out: list[Segment] = []
    for start, end, phone in segments:
        if out and out[-1][2] == phone and abs(out[-1][1] - start) < 1e-6:
            out[-1] = (out[-1][0], end, phone)
        elif end > start:
            out.append((start, end, phone))
    return out
