"""The voices of the engine: an offline synthesizer behind one function, ``synthesize``, from a text to samples and words with times.

The synthesizer is hibari-tts (extra ``voices``), whose wheel contains a model and a pronunciation dictionary. A text is split into
sentences (``reading``), each is read as a sequence of phonemes, and the model makes its sound. The model also computes the length of
each phoneme, but does not return it: an output is added to the model when it is loaded. Protocol buffers allow that without a
library, because two concatenated messages are merged. From these lengths follow the times of the words that were read, and from
those, by comparison, the times of the words as they are written: "1984" is one written word and two words that are read.

The same text always gives the same samples.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

try:
    import numpy as np
except ImportError as _missing:
    reason = 'voices need other packages (numpy, hibari-tts): pip install "a2v[voices]"'
    raise ImportError(reason, name=_missing.name) from None

from a2v._values.models import Voice, Word
from a2v.engine.errors import SpeechError
from a2v.engine.reading import check_characters, readable, sentences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_LENGTHS = "/Clip_output_0"
"""The value in the model that is the length of each phoneme."""
_SECONDS_PER_LENGTH = 600 / 24_000
_MAX_PHONEMES = 400
"""As many as the model is made for."""
_EARLY = 0.05
"""Seconds by which the sound of a phoneme begins before the time that its length gives."""
_PAUSE = 0.2
"""Seconds of silence after a paragraph's end, besides those that the model makes."""
_CLAUSE_ENDS = frozenset(",;:—.!?…")


@frozen(eq=False)
class Utterance:
    """A text that was spoken.

    Attributes:
        samples: Mono sound, -1 to 1.
        rate: Samples per second.
        words: The words as they are written, with their times.
    """

    samples: Samples
    rate: int
    words: Sequence[Word]


def all_voices() -> dict[str, Voice]:
    """Return the voices by name: those of the package, and others of the synthesizer that are on this machine already.

    Raises:
        ImportError: The extra ``voices`` is not installed.
    """
    return {
        name: Voice(
            voice_name=name,
            gender=facts["gender"],
            language="English",
            locale=facts["language"],
            tags=(facts["accent"], "offline"),
        )
        for name, facts in _installed().items()
    }


def synthesize(text: str, voice_name: str, *, max_seconds: float = 1800.0) -> Utterance:
    """Let a voice speak a text.

    Args:
        text: The text.
        voice_name: The voice.
        max_seconds: The longest speech to make.

    Raises:
        SpeechError: The text cannot be spoken, or there is no such voice.
        ImportError: The extra ``voices`` is not installed.
    """
    if voice_name not in _installed():
        raise SpeechError(f"there is no voice {voice_name!r}, only {', '.join(_installed())}")
    check_characters(text)
    synthesizer = _synthesizer(voice_name)
    parts: list[Samples] = []
    words: list[Word] = []
    length = 0
    paragraphs = [paragraph for paragraph in text.splitlines() if paragraph.strip()]
    for number, paragraph in enumerate(paragraphs):
        for sentence in sentences(paragraph):
            samples, spoken = synthesizer.speak(sentence)
            start = length / synthesizer.rate
            words += [Word(text=word.text, start=word.start + start, end=word.end + start) for word in spoken]
            parts.append(samples)
            length += len(samples)
            if length > max_seconds * synthesizer.rate:
                raise SpeechError(
                    f"the speech would be longer than {max_seconds:g} s: split the text into several ones"
                )
        if number + 1 < len(paragraphs):
            parts.append(np.zeros(round(_PAUSE * synthesizer.rate), np.float32))
            length += len(parts[-1])
    if not words:
        raise SpeechError("the text contains nothing that can be spoken, only punctuation")
    return Utterance(np.concatenate(parts), synthesizer.rate, words)


@cache
def _installed() -> dict[str, dict[str, Any]]:
    """Return the synthesizer's description of each voice whose model is on this machine. Nothing is downloaded."""
    try:
        from hibari import voices  # noqa: PLC0415  # an extra
    except ImportError as error:
        reason = 'voices need another package (hibari-tts): pip install "a2v[voices]"'
        raise ImportError(reason, name=error.name) from None
    known: dict[str, dict[str, Any]] = voices.VOICES
    folder = Path(voices.cache_dir())
    return {name: facts for name, facts in known.items() if facts.get("bundled") or (folder / facts["file"]).is_file()}


@cache
def _synthesizer(voice_name: str) -> _Synthesizer:
    return _Synthesizer(voice_name)


class Reader:
    """Reads English texts: words become phonemes."""

    def __init__(self, g2p: Any = None) -> None:
        from hibari.g2p import G2P  # noqa: PLC0415  # an extra
        from hibari.g2p.normalize import normalize  # noqa: PLC0415

        self._g2p = g2p or G2P()
        self._normalize = normalize
        lexicon: Any = self._g2p.lexicon
        self._known = ChainMap[str, Any](lexicon.golds, lexicon.silvers)

    def tokens(self, sentence: str) -> Sequence[Any]:
        """Return the words of a sentence as they are read, with their phonemes."""
        g2p = self._g2p
        tokens: Sequence[Any] = g2p.phonemize_tokens(g2p.tokenize(self._normalize(readable(sentence, self._known))))
        return tokens


class _Synthesizer:
    """A loaded voice."""

    def __init__(self, voice_name: str) -> None:
        import onnxruntime  # noqa: PLC0415  # an extra
        from hibari import SAMPLE_RATE, Hibari, dsp  # noqa: PLC0415  # an extra

        self.rate: int = SAMPLE_RATE
        self._hibari = Hibari(voice=voice_name)
        self._dsp: Any = dsp
        self._reader = Reader(self._hibari.g2p)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = min(2, os.cpu_count() or 1)
        options.log_severity_level = 3
        model = _with_output(Path(self._hibari.model_path).read_bytes(), _LENGTHS)
        # Without a type: its results are arrays, which the types of onnxruntime do not say.
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def speak(self, sentence: str) -> tuple[Samples, list[Word]]:
        """Return the sound of a sentence, and its words as they are written."""
        tokens = self._reader.tokens(sentence)
        parts: list[Samples] = []
        read: list[Word] = []
        length = 0
        for chunk in _chunks(tokens):
            samples, words = self._speak_tokens(chunk)
            start = length / self.rate
            read += [Word(text=word.text, start=word.start + start, end=word.end + start) for word in words]
            parts.append(samples)
            length += len(samples)
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        return samples, written_words(sentence, read)

    def _speak_tokens(self, tokens: Sequence[Any]) -> tuple[Samples, list[Word]]:
        vocabulary: dict[str, int] = self._hibari.vocab
        ids, of_word = [], []
        for number, token in enumerate(tokens):
            spoken = (token.phonemes or "") + (" " if token.whitespace and number + 1 < len(tokens) else "")
            for phoneme in spoken:
                if phoneme in vocabulary:
                    ids.append(vocabulary[phoneme])
                    of_word.append(None if phoneme in _CLAUSE_ENDS or phoneme == " " else number)
        if not ids:
            return np.zeros(0, np.float32), []
        inputs = {"ids": np.array([[0, *ids, 0]], np.int64), "speed": np.ones(1, np.float32)}
        *spectrum, lengths = self._session.run(None, inputs)
        samples = self._dsp.synth(*(part[0] for part in spectrum), np.random.default_rng(0))
        ends = np.maximum(np.cumsum(np.ravel(lengths)) * _SECONDS_PER_LENGTH - _EARLY, 0)
        words: list[Word] = []
        for number, token in enumerate(tokens):
            places = [place for place, word in enumerate(of_word) if word == number]
            if places:
                # The first phoneme, at 0, is the silence before.
                words.append(Word(text=token.text, start=float(ends[places[0]]), end=float(ends[places[-1] + 1])))
        return np.asarray(samples, np.float32), words


def _chunks(tokens: Sequence[Any]) -> list[Sequence[Any]]:
    """Split tokens into parts that the model can speak at once, after a punctuation mark if possible."""
    chunks: list[Sequence[Any]] = []
    first = size = 0
    mark = None
    for number, token in enumerate(tokens):
        size += len(token.phonemes or "") + 1
        if size > _MAX_PHONEMES and number > first:
            end = mark if mark is not None and mark > first else number
            chunks.append(tokens[first:end])
            first, mark = end, None
            size = sum(len(each.phonemes or "") + 1 for each in tokens[first : number + 1])
        if token.phonemes and token.phonemes[-1] in _CLAUSE_ENDS:
            mark = number + 1
    return [*chunks, tokens[first:]]


def written_words(sentence: str, read: Sequence[Word]) -> list[Word]:
    """Return the words of a sentence as they are written, with the times of the words that were read for them.

    Words that are equal are found first. What is between two of them was read for what is written there; several written words
    share its time by their lengths.
    """
    written = sentence.split()
    if not written or not read:
        return []
    plain = [_letters(word) for word in written], [_letters(word.text) for word in read]
    equal = [
        (block.a + i, block.b + i)
        for block in SequenceMatcher(None, *plain, autojunk=False).get_matching_blocks()
        for i in range(block.size)
    ]
    anchors = [(-1, -1), *[(a, b) for a, b in equal if plain[0][a]], (len(written), len(read))]
    out: list[Word] = []
    for (a, b), (next_a, next_b) in pairwise(anchors):
        if a >= 0:
            out.append(Word(text=written[a], start=read[b].start, end=read[b].end))
        start = read[b + 1].start if b + 1 < next_b else out[-1].end if out else read[0].start
        end = read[next_b - 1].end if b + 1 < next_b else start
        out += _share(written[a + 1 : next_a], start, end)
    return out


def _share(words: Sequence[str], start: float, end: float) -> list[Word]:
    total = sum(map(len, words)) or 1
    out, at = [], start
    for word in words:
        until = at + (end - start) * len(word) / total
        out.append(Word(text=word, start=at, end=until))
        at = until
    return out


def _letters(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())


# -- the model --------------------------------------------------------------------------------------------------------


def _with_output(model: bytes, name: str) -> bytes:
    """Return a model in the ONNX format with one more output: a value that it computes anyway."""
    element_type = _field(1, b"\x08\x01")  # TypeProto.tensor_type, whose elem_type is FLOAT
    output = _field(12, _field(1, name.encode()) + _field(2, element_type))  # GraphProto.output
    return model + _field(7, output)  # ModelProto.graph


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
