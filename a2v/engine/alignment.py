"""Forced alignment, for English: finds when each word of a transcript is spoken in a recording.

The transcript becomes words in the same way as a text that a voice reads (``voices``): numbers and abbreviations are spelled out. A word
that the dictionary of the recognizer, PocketSphinx, does not have gets the pronunciation that the voice would use. A finite-state grammar
then accepts exactly these words in this order, with optional silence between them, and a Viterbi search finds their most likely times.

The time of a search grows with the number of words times the length of the recording, so long recordings are searched in windows of 30
seconds. The grammar of a window may end after any word. The words up to the last pause of the window are kept, except those in its last
three seconds, which its end may have cut; the next window begins after them. Only the grammar of the last window must end with the last word.

A Viterbi search finds a path through any recording, even one of another text, but then its score is low. The score of a word is the natural
logarithm of its acoustic likelihood. With the right transcript, the mean per frame is -0.8 to -1.2 over all words, and above -2.5 over
any four seconds of speech. With a wrong transcript, or where a sentence is missing, these are below -3.5 and -5.5.
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
_LONGEST_LAST_WINDOW = 4500  # frames
_UNSURE = 300  # frames
"""The end of a window, whose words are searched again in the next window."""
_MOST_WORDS = 200
"""More words than anybody says within a window."""
_SHORTEST_PAUSE = 15  # frames
_LONGEST_MARGIN = 20  # frames
"""The most silence after a word that is left out of the next window."""
_BLOCK = 8192  # bytes
_NOISE = 6e-5  # two steps of 16 bits
"""Added to the recording, because the recognizer does not take digital silence for silence."""
_STRETCH = 400  # frames of words
_LOWEST_MEAN = -2.3  # per frame, over all words
_LOWEST_MEAN_OF_STRETCH = -4.0  # per frame
_LARGEST_UNKNOWN_SHARE = 0.5
"""A text with more words outside the dictionary is taken for another language."""
_PHONES = {
    "\u0259": "AH", "\u0250": "AH", "\u1d4a": "AH", "\u028c": "AH", "\u026a": "IH", "\u1d7b": "IH", "i": "IY", "\u025b": "EH", "e": "EH",
    "\u00e6": "AE", "a": "AE", "\u0251": "AA", "\u0252": "AA", "\u0254": "AO", "o": "AO", "\u028a": "UH", "u": "UW", "\u025c": "ER",
    "A": "EY", "I": "AY", "O": "OW", "Q": "OW", "W": "AW", "Y": "OY",
    "b": "B", "d": "D", "f": "F", "h": "HH", "j": "Y", "k": "K", "l": "L", "m": "M", "n": "N", "p": "P", "s": "S", "t": "T", "v": "V",
    "w": "W", "z": "Z", "\u0261": "G", "\u014b": "NG", "\u0279": "R", "r": "R", "x": "K", "\u0283": "SH", "\u0292": "ZH", "\u00f0": "DH",
    "\u03b8": "TH", "\u02a4": "JH", "\u02a7": "CH", "\u027e": "D", "T": "T", "\u0294": "T",
}  # fmt: skip
"""The phones of the recognizer (ARPABET) for the phonemes of the voices (IPA)."""


class _SpokenWord(NamedTuple):
    """A word of the transcript: its text, and its key in the recognizer's dictionary."""

    text: str
    key: str


class _AlignedWord(NamedTuple):
    """A word in the recording: its frames, and the sum of their scores."""

    start: int
    end: int
    score: float


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
        RenderError: The transcript cannot be read, or the recording says something else.
    """
    import pocketsphinx  # noqa: PLC0415  # an extra

    try:
        check_characters(transcript)
    except SpeechError as error:
        problem = str(error).replace("that this voice cannot speak", "that cannot be read")
        raise RenderError(f"transcript: {problem}") from None
    decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
    parts = [part for paragraph in transcript.splitlines() for part in sentences(paragraph)]
    spoken_parts = _pronounce(decoder, parts)
    spoken = [word for part in spoken_parts for word in part]
    aligned = _align_in_windows(decoder, spoken, _UnsearchedAudio(pieces))
    rest = [
        Word(text=word.text, start=found.start / _FRAMES_PER_SECOND, end=found.end / _FRAMES_PER_SECOND)
        for word, found in zip(spoken, aligned, strict=True)
    ]
    words: list[Word] = []
    for part, spoken_part in zip(parts, spoken_parts, strict=True):
        read, rest = rest[: len(spoken_part)], rest[len(spoken_part) :]
        words += written_words(part, read)
    return words


def _pronounce(decoder: Any, parts: Iterable[str]) -> list[list[_SpokenWord]]:
    """Return the words of each part of a transcript, after adding those that it lacks to the recognizer's dictionary.

    Raises:
        RenderError: There are no words, or they are not English.
    """
    reader = Reader()
    spoken_parts: list[list[_SpokenWord]] = []
    unknown: list[str] = []
    for part in parts:
        spoken_parts.append([])
        for token in reader.tokens(part):
            key = str(token.text).lower()
            phones = " ".join(_phones(token.phonemes or ""))
            if not phones:
                continue
            if not key.isalpha() or decoder.lookup_word(key) is None:
                unknown += [token.text] if key.isalpha() else []
                key = f"{key.replace('(', '').replace(' ', '_')}:{phones.replace(' ', '_')}"
                if decoder.lookup_word(key) is None:
                    decoder.add_word(key, phones, update=False)
            spoken_parts[-1].append(_SpokenWord(str(token.text), key))
    count = sum(map(len, spoken_parts))
    if not count:
        raise RenderError("transcript: it contains nothing that can be spoken, only punctuation")
    if len(unknown) > _LARGEST_UNKNOWN_SHARE * count:
        examples = ", ".join(dict.fromkeys(unknown[:5]))
        raise RenderError(f"transcript: it must be in English; these are not English words: {examples}")
    return spoken_parts


def _phones(phonemes: str) -> Iterable[str]:
    return (_PHONES[phoneme] for phoneme in phonemes.replace("əɹ", "ɜ").replace("ɜɹ", "ɜ") if phoneme in _PHONES)


class _UnsearchedAudio:
    """The rest of a recording, which has not been searched yet.

    Attributes:
        start: Its first frame, counted from the start of the recording.
    """

    def __init__(self, pieces: Iterable[NDArray[np.float32]]) -> None:
        self.start = 0
        self._pieces = iter(pieces)
        self._samples = b""
        self._random = np.random.default_rng(0)

    def is_longer_than(self, frames: int) -> bool:
        """Tell whether it has more frames, after reading that many of the recording."""
        size = _size(frames)
        while len(self._samples) <= size:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            noise = self._random.normal(0, _NOISE, len(piece))
            self._samples += (np.clip(piece + noise, -1, 1) * 32767).astype("<i2").tobytes()
        return True

    def first(self, frames: int) -> bytes:
        """Return the samples of the first frames, 16 bits each, of those that are read."""
        return self._samples[: _size(frames)]

    def skip(self, frames: int) -> None:
        """Remove the first frames."""
        self._samples = self._samples[_size(frames) :]
        self.start += frames


def _size(frames: int) -> int:
    """Return the number of bytes in some frames."""
    return 2 * _SAMPLES_PER_FRAME * frames


def _align_in_windows(decoder: Any, spoken: Sequence[_SpokenWord], audio: _UnsearchedAudio) -> list[_AlignedWord]:
    """Align all words.

    Raises:
        RenderError: The recording says something else, or less.
    """
    aligned: list[_AlignedWord] = []
    while len(aligned) < len(spoken) and audio.is_longer_than(_LONGEST_LAST_WINDOW):
        upcoming = spoken[len(aligned) : len(aligned) + _MOST_WORDS]
        kept, frames = _without_cut_words(_align_window(decoder, upcoming, audio.first(_WINDOW), is_last=False))
        _append(aligned, kept, spoken, audio.start)
        audio.skip(frames)
    if rest := spoken[len(aligned) :]:
        samples = audio.first(_LONGEST_LAST_WINDOW)
        last = _align_window(decoder, rest, samples, is_last=True)
        if len(last) < len(rest):
            # The search has failed. Find the first words of the rest, to name the place from which they do not match.
            last = _align_window(decoder, rest, samples, is_last=False)
        _append(aligned, last, spoken, audio.start)
    if sum(word.score for word in aligned) < _LOWEST_MEAN * sum(word.end - word.start for word in aligned):
        raise _mismatch(0, spoken)
    if len(aligned) < len(spoken):
        raise _mismatch(aligned[-1].end if aligned else 0, spoken[len(aligned) :])
    return aligned


def _align_window(
    decoder: Any, words: Sequence[_SpokenWord], samples: bytes, *, is_last: bool
) -> Sequence[_AlignedWord]:
    """Align all words, or, if this is not the last window, as many as are spoken in it; none if the search fails."""
    final = len(words)
    transitions = [(state, state + 1, 1.0, word.key) for state, word in enumerate(words)]
    early_ends = [] if is_last else [(state, final, 1.0) for state in range(final)]
    decoder.add_fsg("words", decoder.create_fsg("words", 0, final, [*transitions, *early_ends]))
    decoder.activate_search("words")
    decoder.start_utt()
    # The recognizer adapts to the channel block by block. Given everything at once, it would be misled by long silence.
    for start in range(0, len(samples), _BLOCK):
        decoder.process_raw(samples[start : start + _BLOCK])
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    return [
        _AlignedWord(segment.start_frame, segment.end_frame + 1, math.log(max(segment.ascore, 1e-300)))
        for segment in decoder.seg()
        if segment.word[0] not in "<["  # silence and noise
    ]


def _without_cut_words(words: Sequence[_AlignedWord]) -> tuple[Sequence[_AlignedWord], int]:
    """Return the words of a window that are not searched again, and the number of frames before the next window."""
    kept = [word for word in words if word.end < _WINDOW - _UNSURE]
    pauses = [
        count
        for count, (word, following) in enumerate(pairwise(words), 1)
        if count <= len(kept) and word.end > _WINDOW // 2 and following.start - word.end > _SHORTEST_PAUSE
    ]
    kept = kept[: pauses[-1]] if pauses else kept
    if not kept:
        return [], _WINDOW - _UNSURE
    following_start = words[len(kept)].start if len(kept) < len(words) else kept[-1].end
    return kept, kept[-1].end + min(_LONGEST_MARGIN, (following_start - kept[-1].end) // 2)


def _append(
    aligned: list[_AlignedWord], added: Sequence[_AlignedWord], spoken: Sequence[_SpokenWord], window_start: int
) -> None:
    """Append the words of a window, and check the score of each stretch that ends with one of them.

    Raises:
        RenderError: A score is too low.
    """
    before = len(aligned)
    aligned += [_AlignedWord(window_start + word.start, window_start + word.end, word.score) for word in added]
    for end in range(before + 1, len(aligned) + 1):
        start, frames, score = end, 0, 0.0
        while start and frames < _STRETCH:
            start -= 1
            frames += aligned[start].end - aligned[start].start
            score += aligned[start].score
        if frames >= _STRETCH and score < _LOWEST_MEAN_OF_STRETCH * frames:
            raise _mismatch(aligned[start].start, spoken[start:])


def _mismatch(frame: int, words: Sequence[_SpokenWord]) -> RenderError:
    minutes, seconds = divmod(frame // _FRAMES_PER_SECOND, 60)
    text = " ".join(word.text for word in words[:5])
    return RenderError(
        f"transcript: it does not seem to be what is said in this recording from about {minutes}:{seconds:02} on, where it has "
        f"{text!r}; check that nothing is missing or added, and that it is word for word and in English"
    )
