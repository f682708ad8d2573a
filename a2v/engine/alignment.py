"""Finds when each word of a transcript is spoken in a recording: forced alignment, for English.

The transcript is read as the voices read it (``voices``), so numbers and abbreviations become words. The recognizer PocketSphinx then searches
for the best path of exactly these words through the recording, with pauses between any two of them. A word that is not in its
dictionary gets the pronunciation that a voice would use.

The search also finds a path, a poor one, through many recordings of another text. So the mean score of a frame decides: in
recordings with their own transcripts it is -0.8 to -1.2, with those of others below -3.5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from a2v._values.models import Word
from a2v.engine.errors import RenderError, SpeechError
from a2v.engine.reading import check_characters, sentences
from a2v.engine.voices import Reader, written_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_FRAMES_PER_SECOND = 100
_WORST = -2.3
_MOST_UNKNOWN = 0.5
"""The share of words that are not in the dictionary from which a text does not seem to be English."""
_PHONES = {
    "\u0259": "AH", "\u0250": "AH", "\u1d4a": "AH", "\u028c": "AH", "\u026a": "IH", "\u1d7b": "IH", "i": "IY", "\u025b": "EH", "e": "EH",
    "\u00e6": "AE", "a": "AE", "\u0251": "AA", "\u0252": "AA", "\u0254": "AO", "o": "AO", "\u028a": "UH", "u": "UW", "\u025c": "ER",
    "A": "EY", "I": "AY", "O": "OW", "Q": "OW", "W": "AW", "Y": "OY",
    "b": "B", "d": "D", "f": "F", "h": "HH", "j": "Y", "k": "K", "l": "L", "m": "M", "n": "N", "p": "P", "s": "S", "t": "T", "v": "V",
    "w": "W", "z": "Z", "\u0261": "G", "\u014b": "NG", "\u0279": "R", "r": "R", "x": "K", "\u0283": "SH", "\u0292": "ZH", "\u00f0": "DH",
    "\u03b8": "TH", "\u02a4": "JH", "\u02a7": "CH", "\u027e": "D", "T": "T", "\u0294": "T",
}  # fmt: skip
"""The phones of the recognizer, by the phonemes of the voices."""


def check_installed() -> None:
    """Check that the extra ``transcripts`` is installed.

    Raises:
        ImportError: It is not.
    """
    try:
        import hibari  # noqa: F401, PLC0415  # an extra
        import pocketsphinx  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        reason = f'transcripts need another package ({error.name}): pip install "a2v[transcripts]"'
        raise ImportError(reason, name=error.name) from None


def align(transcript: str, pieces: Iterable[NDArray[np.float32]]) -> list[Word]:
    """Return the words of a transcript as they are written, with their times.

    Args:
        transcript: What is said in the recording, in English.
        pieces: The samples of the recording, 16,000 per second.

    Raises:
        RenderError: The transcript cannot be read, or is not that of the recording.
    """
    import pocketsphinx  # noqa: PLC0415  # an extra

    try:
        check_characters(transcript)
    except SpeechError as error:
        problem = str(error).replace("that this voice cannot speak", "that cannot be read")
        raise RenderError(f"transcript: {problem}") from None
    reader = Reader()
    decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
    parts = [part for paragraph in transcript.splitlines() for part in sentences(paragraph)]
    names: list[list[tuple[str, str]]] = []
    unknown: list[str] = []
    for part in parts:
        names.append([])
        for token in reader.tokens(part):
            name = str(token.text).lower()
            phones = " ".join(_arpabet(token.phonemes or ""))
            if not phones:
                continue
            if not name.isalpha() or decoder.lookup_word(name) is None:
                unknown += [token.text] if name.isalpha() else []
                name = f"{name.replace('(', '').replace(' ', '_')}:{phones.replace(' ', '_')}"
                if decoder.lookup_word(name) is None:
                    decoder.add_word(name, phones, update=False)
            names[-1].append((str(token.text), name))
    spoken = [name for part_names in names for _, name in part_names]
    if not spoken:
        raise RenderError("transcript: it contains nothing that can be spoken, only punctuation")
    if len(unknown) > _MOST_UNKNOWN * len(spoken):
        some = ", ".join(dict.fromkeys(unknown[:5]))
        raise RenderError(f"transcript: it must be in English; these are not English words: {some}")
    times = _search(decoder, spoken, pieces)
    return _written(parts, names, times)


def _arpabet(phonemes: str) -> Iterable[str]:
    return (_PHONES[phoneme] for phoneme in phonemes.replace("əɹ", "ɜ").replace("ɜɹ", "ɜ") if phoneme in _PHONES)


def _search(decoder: Any, spoken: list[str], pieces: Iterable[NDArray[np.float32]]) -> list[tuple[float, float]]:
    decoder.set_align_text(" ".join(spoken))
    decoder.start_utt()
    samples = b"".join((np.clip(piece, -1, 1) * 32767).astype("<i2").tobytes() for piece in pieces)
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    found = [] if decoder.hyp() is None else [one for one in decoder.seg() if one.word[0] not in "<["]
    if len(found) == len(spoken):
        frames = sum(one.end_frame - one.start_frame + 1 for one in found)
        if sum(math.log(max(one.ascore, 1e-300)) for one in found) / frames > _WORST:
            return [(one.start_frame / _FRAMES_PER_SECOND, (one.end_frame + 1) / _FRAMES_PER_SECOND) for one in found]
    raise RenderError(
        "transcript: it does not seem to be what is said in this recording; check that it is complete, word for word and in English"
    )


def _written(parts: list[str], names: list[list[tuple[str, str]]], times: list[tuple[float, float]]) -> list[Word]:
    out: list[Word] = []
    at = 0
    for part, part_names in zip(parts, names, strict=True):
        read = [
            Word(text=text, start=start, end=end)
            for (text, _), (start, end) in zip(part_names, times[at : at + len(part_names)], strict=True)
        ]
        at += len(part_names)
        out += written_words(part, read)
    return out
