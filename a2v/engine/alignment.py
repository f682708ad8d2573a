"""Finds when each word of a transcript is spoken in a recording: forced alignment, for English.

The transcript is read as the voices read it (``voices``), so numbers and abbreviations become words. The recognizer PocketSphinx then searches
for the best path of exactly these words through the recording, with pauses between any two of them. A word that is not in its
dictionary gets the pronunciation that a voice would use.

The time of a search grows with the product of the lengths of text and recording. So a long recording is searched in windows of half a minute:
each search may end after any of the next words. Of its words, those up to the last pause are kept, but not the last few, which the end of
the window may have cut; the next window begins there. The last window must end with the last word.

The search also finds a path, a poor one, through a recording of another text. So the mean score of a frame decides: with the right
transcript it is -0.8 to -1.2 for all words, and above -2.5 in any four seconds of speech; with a wrong one, or where a sentence is missing,
it is below -3.5 and -5.5.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from a2v._values.models import Word
from a2v.engine.errors import RenderError, SpeechError
from a2v.engine.reading import check_characters, sentences
from a2v.engine.voices import Reader, written_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_FRAMES_PER_SECOND = 100
_SAMPLES_PER_FRAME = 160
_WINDOW = 3000  # frames
_LONGEST_LAST = 4500  # frames
_CUT = 300  # frames at the end of a window, whose words are searched again in the next one
_MOST_WORDS = 200
"""More words than are said in a window."""
_PAUSE = 15  # frames
_BLOCK = 8192  # bytes
_NOISE = 6e-5  # two steps of 16 bits
"""Digital silence is not what the recognizer knows as silence."""
_PART = 400  # frames of words
_WORST = -2.3
_WORST_PART = -4.0
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
    spoken = [one for part_names in names for one in part_names]
    if not spoken:
        raise RenderError("transcript: it contains nothing that can be spoken, only punctuation")
    if len(unknown) > _MOST_UNKNOWN * len(spoken):
        some = ", ".join(dict.fromkeys(unknown[:5]))
        raise RenderError(f"transcript: it must be in English; these are not English words: {some}")
    times = _search(decoder, spoken, pieces)
    return _written(parts, names, times)


def _arpabet(phonemes: str) -> Iterable[str]:
    return (_PHONES[phoneme] for phoneme in phonemes.replace("əɹ", "ɜ").replace("ɜɹ", "ɜ") if phoneme in _PHONES)


class _Sound:
    """The part of a recording that is not searched yet.

    Attributes:
        at: The frame at which it begins.
    """

    def __init__(self, pieces: Iterable[NDArray[np.float32]]) -> None:
        self.at = 0
        self._pieces = iter(pieces)
        self._samples = b""
        self._random = np.random.default_rng(0)

    def has_more_than(self, frames: int) -> bool:
        """Read what is needed to know whether it is longer."""
        size = _bytes(frames)
        while len(self._samples) <= size:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            noise = self._random.normal(0, _NOISE, len(piece))
            self._samples += (np.clip(piece + noise, -1, 1) * 32767).astype("<i2").tobytes()
        return True

    def first(self, frames: int) -> bytes:
        """Return its beginning."""
        return self._samples[: _bytes(frames)]

    def skip(self, frames: int) -> None:
        """Leave out its beginning."""
        self._samples = self._samples[_bytes(frames) :]
        self.at += frames


def _bytes(frames: int) -> int:
    return 2 * _SAMPLES_PER_FRAME * frames


class _Found(NamedTuple):
    """A word that was found: its frames, and the sum of their scores."""

    start: int
    end: int
    score: float


def _search(
    decoder: Any, spoken: Sequence[tuple[str, str]], pieces: Iterable[NDArray[np.float32]]
) -> list[tuple[float, float]]:
    """Return the times of words, which are given by their text and their name in the dictionary."""
    sound = _Sound(pieces)
    found: list[_Found] = []
    while len(found) < len(spoken) and sound.has_more_than(_LONGEST_LAST):
        following = spoken[len(found) : len(found) + _MOST_WORDS]
        kept, frames = _kept(_decode(decoder, following, sound.first(_WINDOW), is_last=False))
        found += [_Found(sound.at + one.start, sound.at + one.end, one.score) for one in kept]
        _check(found, spoken, since=len(found) - len(kept))
        sound.skip(frames)
    if rest := spoken[len(found) :]:
        last = _decode(decoder, rest, sound.first(_LONGEST_LAST), is_last=True)
        if len(last) < len(rest):
            last = _decode(decoder, rest, sound.first(_LONGEST_LAST), is_last=False)
        found += [_Found(sound.at + one.start, sound.at + one.end, one.score) for one in last]
        _check(found, spoken, since=len(found) - len(last))
    if sum(one.score for one in found) < _WORST * sum(one.end - one.start for one in found):
        raise _mismatch(0, spoken)
    if len(found) < len(spoken):
        raise _mismatch(found[-1].end if found else 0, spoken[len(found) :])
    return [(one.start / _FRAMES_PER_SECOND, one.end / _FRAMES_PER_SECOND) for one in found]


def _decode(decoder: Any, words: Sequence[tuple[str, str]], samples: bytes, *, is_last: bool) -> list[_Found]:
    """Search for all words, or for as many of the first ones as there are in a window."""
    end = len(words)
    steps = [(place, place + 1, 1.0, name) for place, (_, name) in enumerate(words)]
    ends = [] if is_last else [(place, end, 1.0) for place in range(end)]
    decoder.add_fsg("words", decoder.create_fsg("words", 0, end, [*steps, *ends]))
    decoder.activate_search("words")
    decoder.start_utt()
    # In blocks, so that the recognizer adapts to the channel by what it has heard so far. All at once, long silence would mislead it.
    for start in range(0, len(samples), _BLOCK):
        decoder.process_raw(samples[start : start + _BLOCK])
    decoder.end_utt()
    segments = [] if decoder.hyp() is None else [one for one in decoder.seg() if one.word[0] not in "<["]
    return [_Found(one.start_frame, one.end_frame + 1, math.log(max(one.ascore, 1e-300))) for one in segments]


def _kept(words: Sequence[_Found]) -> tuple[Sequence[_Found], int]:
    """Return the words of a window that are not searched again, and the number of frames that belong to them."""
    kept = [word for word in words if word.end < _WINDOW - _CUT]
    pauses = [
        count
        for count, (one, following) in enumerate(pairwise(words), 1)
        if count <= len(kept) and one.end > _WINDOW // 2 and following.start - one.end > _PAUSE
    ]
    kept = kept[: pauses[-1]] if pauses else kept
    if not kept:
        return [], _WINDOW - _CUT
    following = words[len(kept)].start if len(kept) < len(words) else kept[-1].end
    return kept, kept[-1].end + min(20, (following - kept[-1].end) // 2)


def _check(found: Sequence[_Found], spoken: Sequence[tuple[str, str]], *, since: int) -> None:
    """Check the scores of each part that ends with one of the last words.

    Raises:
        RenderError: One is too low.
    """
    for end in range(since + 1, len(found) + 1):
        start, frames, score = end, 0, 0.0
        while start and frames < _PART:
            start -= 1
            frames += found[start].end - found[start].start
            score += found[start].score
        if frames >= _PART and score < _WORST_PART * frames:
            raise _mismatch(found[start].start, spoken[start:])


def _mismatch(frame: int, words: Sequence[tuple[str, str]]) -> RenderError:
    minutes, seconds = divmod(frame // _FRAMES_PER_SECOND, 60)
    text = " ".join(text for text, _ in words[:5])
    return RenderError(
        f"transcript: it does not seem to be what is said in this recording from about {minutes}:{seconds:02} on, where it has "
        f"{text!r}; check that nothing is missing or added, and that it is word for word and in English"
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
