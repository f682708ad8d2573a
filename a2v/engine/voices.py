"""The voices of the engine: an offline speech synthesizer. ``synthesize`` turns a text into samples and words with times.

The synthesizer is hibari-tts (extra ``voices``), whose wheel contains a model and a pronunciation dictionary. A text is split into
sentences (``reading``), each sentence is converted to phonemes, and the model turns these into sound. The model also computes the duration
of each phoneme but does not return it, so an output is added to the model when it is loaded. No library is needed for that: the model is a
protocol buffer, and two concatenated messages are merged.

The durations give the times of the words that were spoken. The words as they are written may differ: "1984" is one written word and two
spoken ones. So ``written_words`` aligns both sequences.

The same text always gives the same samples.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterable, Sequence
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

_DURATIONS = "/Clip_output_0"
"""The name of the value in the model that holds the duration of each phoneme, in frames."""
_SECONDS_PER_FRAME = 600 / 24_000
_MAX_PHONEMES = 400
"""The longest input of the model."""
_ONSET_LEAD_SECONDS = 0.05
"""A phoneme is heard this long before the time that the durations give."""
_PARAGRAPH_PAUSE_SECONDS = 0.2
"""The silence between paragraphs, in addition to the silence that the model generates."""
_CLAUSE_ENDS = frozenset(",;:—.!?…")


@frozen(eq=False)
class Utterance:
    """A spoken text.

    Attributes:
        samples: Mono sound, -1 to 1.
        rate: Samples per second.
        words: The words as they are written, with their times.
    """

    samples: Samples
    rate: int
    words: Sequence[Word]


def all_voices() -> dict[str, Voice]:
    """Return the voices by name: those in the synthesizer's package, and others of it that are already on this machine.

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
        for name, facts in _installed_voices().items()
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
    if voice_name not in _installed_voices():
        raise SpeechError(f"there is no voice {voice_name!r}, only {', '.join(_installed_voices())}")
    check_characters(text)
    synthesizer = _load_synthesizer(voice_name)
    parts: list[Samples] = []
    words: list[Word] = []
    length = 0
    paragraphs = [paragraph for paragraph in text.splitlines() if paragraph.strip()]
    for number, paragraph in enumerate(paragraphs):
        for sentence in sentences(paragraph):
            samples, spoken = synthesizer.speak(sentence)
            words += _delayed(spoken, length / synthesizer.rate)
            parts.append(samples)
            length += len(samples)
            if length > max_seconds * synthesizer.rate:
                raise SpeechError(
                    f"the speech would be longer than {max_seconds:g} s: split the text into several texts"
                )
        if number + 1 < len(paragraphs):
            parts.append(np.zeros(round(_PARAGRAPH_PAUSE_SECONDS * synthesizer.rate), np.float32))
            length += len(parts[-1])
    if not words:
        raise SpeechError("the text contains nothing that can be spoken, only punctuation")
    return Utterance(np.concatenate(parts), synthesizer.rate, words)


@cache
def _installed_voices() -> dict[str, dict[str, Any]]:
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
def _load_synthesizer(voice_name: str) -> _Synthesizer:
    return _Synthesizer(voice_name)


def _delayed(words: Iterable[Word], seconds: float) -> list[Word]:
    """Return words that begin and end later."""
    return [Word(text=word.text, start=word.start + seconds, end=word.end + seconds) for word in words]


class Reader:
    """Converts the words of English texts to phonemes."""

    def __init__(self, g2p: Any = None) -> None:
        from hibari.g2p import G2P  # noqa: PLC0415  # an extra
        from hibari.g2p.normalize import normalize  # noqa: PLC0415

        self._g2p = g2p or G2P()
        self._normalize = normalize
        lexicon: Any = self._g2p.lexicon
        self._known = ChainMap[str, Any](lexicon.golds, lexicon.silvers)

    def tokens(self, sentence: str) -> Sequence[Any]:
        """Return the words of a sentence as they are spoken, with their phonemes."""
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
        model = _with_output(Path(self._hibari.model_path).read_bytes(), _DURATIONS)
        # Any, because onnxruntime's annotations do not say that the results are arrays.
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def speak(self, sentence: str) -> tuple[Samples, list[Word]]:
        """Return the sound of a sentence, and its words as they are written."""
        tokens = self._reader.tokens(sentence)
        parts: list[Samples] = []
        spoken: list[Word] = []
        length = 0
        for chunk in _chunks(tokens):
            samples, words = self._speak_tokens(chunk)
            spoken += _delayed(words, length / self.rate)
            parts.append(samples)
            length += len(samples)
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        return samples, written_words(sentence, spoken)

    def _speak_tokens(self, tokens: Sequence[Any]) -> tuple[Samples, list[Word]]:
        vocabulary: dict[str, int] = self._hibari.vocab
        ids, token_numbers = [], []
        for number, token in enumerate(tokens):
            phonemes = (token.phonemes or "") + (" " if token.whitespace and number + 1 < len(tokens) else "")
            for phoneme in phonemes:
                if phoneme in vocabulary:
                    ids.append(vocabulary[phoneme])
                    token_numbers.append(None if phoneme in _CLAUSE_ENDS or phoneme == " " else number)
        if not ids:
            return np.zeros(0, np.float32), []
        inputs = {"ids": np.array([[0, *ids, 0]], np.int64), "speed": np.ones(1, np.float32)}
        *spectrum, durations = self._session.run(None, inputs)
        samples = self._dsp.synth(*(part[0] for part in spectrum), np.random.default_rng(0))
        ends = np.maximum(np.cumsum(np.ravel(durations)) * _SECONDS_PER_FRAME - _ONSET_LEAD_SECONDS, 0)
        words: list[Word] = []
        for number, token in enumerate(tokens):
            places = [place for place, token_number in enumerate(token_numbers) if token_number == number]
            if places:
                # The durations begin with the silence before the first phoneme, so phoneme i lasts from ends[i] to ends[i + 1].
                words.append(Word(text=token.text, start=float(ends[places[0]]), end=float(ends[places[-1] + 1])))
        return np.asarray(samples, np.float32), words


def _chunks(tokens: Sequence[Any]) -> list[Sequence[Any]]:
    """Split tokens into chunks that fit into the input of the model, after a punctuation mark if possible."""
    chunks: list[Sequence[Any]] = []
    first = size = 0  # the first token of the chunk, and the number of its phonemes
    mark = None  # the token after the last punctuation mark
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


def written_words(sentence: str, spoken: Sequence[Word]) -> list[Word]:
    """Return the words of a sentence as they are written, with the times at which they are spoken.

    Words that are equal in both sequences are anchors. Between two anchors, the written words share the time of the spoken words in
    proportion to their lengths.
    """
    written = sentence.split()
    if not written or not spoken:
        return []
    plain = [_letters(word) for word in written], [_letters(word.text) for word in spoken]
    equal = [
        (block.a + i, block.b + i)
        for block in SequenceMatcher(None, *plain, autojunk=False).get_matching_blocks()
        for i in range(block.size)
    ]
    anchors = [(-1, -1), *[(a, b) for a, b in equal if plain[0][a]], (len(written), len(spoken))]
    out: list[Word] = []
    for (a, b), (next_a, next_b) in pairwise(anchors):
        if a >= 0:
            out.append(Word(text=written[a], start=spoken[b].start, end=spoken[b].end))
        start = spoken[b + 1].start if b + 1 < next_b else out[-1].end if out else spoken[0].start
        end = spoken[next_b - 1].end if b + 1 < next_b else start
        out += _share_time(written[a + 1 : next_a], start, end)
    return out


def _share_time(words: Sequence[str], start: float, end: float) -> list[Word]:
    """Return words that share a period of time in proportion to their lengths."""
    total = sum(map(len, words)) or 1
    out, word_start = [], start
    for word in words:
        word_end = word_start + (end - start) * len(word) / total
        out.append(Word(text=word, start=word_start, end=word_end))
        word_start = word_end
    return out


def _letters(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())


# -- the model --------------------------------------------------------------------------------------------------------


def _with_output(model: bytes, name: str) -> bytes:
    """Return a model in the ONNX format in which a value that it computes is also an output."""
    element_type = _bytes_field(1, b"\x08\x01")  # TypeProto.tensor_type, whose elem_type is FLOAT
    output = _bytes_field(12, _bytes_field(1, name.encode()) + _bytes_field(2, element_type))  # GraphProto.output
    return model + _bytes_field(7, output)  # ModelProto.graph


def _bytes_field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
