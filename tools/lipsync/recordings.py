"""Makes training and test data from real recordings with known text, by finding the start of each phone (forced alignment).

    python tools/lipsync/recordings.py CACHE [--weights FILE] [--librispeech FOLDER]... [--texts FILE]...

English recordings are aligned by PocketSphinx; Spanish, French, Italian and Russian ones by the lip-sync network itself, which must be
trained without them first. It gets espeak-ng's transcription, and only determines the timing.

Needs Debian's asterisk-core-sounds-LANGUAGE and -LANGUAGE-g722 (prompts of a telephone exchange; CC BY-SA 3.0, Italian CC BY 3.0)
and pocketsphinx-testdata, and the Python package pocketsphinx. ``--librispeech`` adds readers of audio books; ``held_out.py`` tells
which of them are for the test. With ``--weights``, the network aligns what PocketSphinx could not, but only for training.
"""

from __future__ import annotations

import argparse
import gzip
import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pocketsphinx
from held_out import VOICES
from phones import of_phones, of_words, with_pauses
from speech import read, write
from voices import RATE, Speech, espeak_ipa

from a2v.engine import lipsync
from a2v.engine.face_pose import VISEMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from voices import Segment

_VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
_PROMPTS = Path("/usr/share/asterisk/sounds")
_ESPEAK = {"es": "es-419", "fr": "fr-fr", "it": "it", "ru": "ru"}
_SPHINX = Path("/usr/share/pocketsphinx/test/data")
_CLIPS = Path(__file__).parents[2] / "a2v" / "engine" / "recordings"
_ARCTIC = {
    "slt": "he turned sharply and faced gregson across the table",
    "awb": "and you always want to see it in the superlative degree",
}
_DIGITS = dict(
    zip("0123456789", ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], strict=True)
)
_ABBREVIATIONS = {"mr.": "mister", "mrs.": "missus", "dr.": "doctor", "st.": "saint", "&": " and "}
_ENGLISH = (
    "p=P b=B t=T d=D k=K ɡ=G f=F v=V θ=TH ð=DH s=S z=Z ʃ=SH ʒ=ZH h=HH tʃ=CH dʒ=JH m=M n=N ŋ=NG l=L ɫ=L ɹ=R r=R j=Y w=W ɾ=D "
    "ʔ=T i=IY iə=IY_AH ɪ=IH ᵻ=IH ɛ=EH e=EH eɪ=EY æ=AE a=AE aɪ=AY aɪə=AY_ER aɪɚ=AY_ER aʊ=AW ɑ=AA ɑɹ=AA_R ɐ=AH ʌ=AH ə=AH "
    "əl=AH_L ɔ=AO ɔɹ=AO_R o=OW oʊ=OW oɹ=AO_R ɔɪ=OY u=UW ʊ=UH ʊɹ=UH_R ɜ=ER ɚ=ER ɛɹ=EH_R ɪɹ=IH_R"
)
_SPHINX_PHONES = {
    ipa: phones.replace("_", " ") for ipa, _, phones in (pair.partition("=") for pair in _ENGLISH.split())
}
"""PocketSphinx's phones for those of espeak-ng."""

_FRAME_OFFSET = 0.008
"""Half of PocketSphinx's window of 26 ms, minus half a row: its frame 0 describes the sound at 13 ms."""


_MIN_SCORE = -1.1
"""Alignments with a lower mean log probability are discarded: the text does not match the sound."""


def sound(path: Path) -> NDArray[np.int16]:
    """Decode a recording to 16-bit samples at 16 kHz."""
    if path.suffix == ".raw":
        return np.fromfile(path, np.int16)
    with av.open(str(path), format="g722" if path.suffix == ".g722" else None) as file:
        resampler = av.AudioResampler("s16", "mono", RATE)
        frames = [f for frame in [*file.decode(audio=0), None] for f in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames])


@cache
def _decoder() -> Any:
    return pocketsphinx.Decoder(lm=None, loglevel="FATAL")


def align(samples: NDArray[np.int16], text: str) -> list[Segment] | None:
    """Align a text by PocketSphinx; ``None`` if a word is unknown or does not match the sound."""
    known = _dictionary_words(text)
    if not known:
        return None
    decoder = _decoder()
    try:
        decoder.set_align_text(" ".join(known))
        _process(decoder, samples)
        if decoder.hyp() is None:
            return None
        decoder.set_alignment()
        _process(decoder, samples)
        alignment = decoder.get_alignment()  # keep a reference: its phones do not
        phones = [(phone.start, phone.name) for word in alignment for phone in word]
    except RuntimeError:
        return None
    starts = [0.0, *(start / 100 + _FRAME_OFFSET for start, _ in phones[1:])]
    ends = [*starts[1:], len(samples) / RATE]
    return with_pauses(samples, [(a, b, name) for a, b, (_, name) in zip(starts, ends, phones, strict=True)])


def _dictionary_words(text: str) -> list[str] | None:
    """Return the words of a text, which are added to the dictionary; ``None`` if one cannot be pronounced."""
    words = "".join(f" {_DIGITS[letter]} " if letter in _DIGITS else letter for letter in text.lower())
    for written, spoken in _ABBREVIATIONS.items():
        words = words.replace(written, spoken)
    known = re.findall(r"[a-z']+", words.replace("’", "'"))
    return known if all(_decoder().lookup_word(word) or _add_word(_decoder(), word) for word in known) else None


def _add_word(decoder: Any, word: str) -> bool:
    """Add a word to PocketSphinx's dictionary, as espeak-ng pronounces it; return whether that is possible."""
    ipa = re.sub(r"[ˈˌː̩ ]", "", espeak_ipa(word, "en-us"))
    phones = re.findall("|".join(sorted(_SPHINX_PHONES, key=len, reverse=True)), ipa)
    if not phones or "".join(phones) != ipa:
        return False
    decoder.add_word(word, " ".join(_SPHINX_PHONES[phone] for phone in phones), True)
    return True


def _process(decoder: Any, samples: NDArray[np.int16]) -> None:
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()


def align_by_network(samples: NDArray[np.int16], words: list[str], network: lipsync.Network) -> list[Segment] | None:
    """Align the visemes of each word by the lip-sync network; ``None`` if the text does not match the sound."""
    likely = np.log(network.run(*lipsync.mel_spectrum((samples / 32768).astype(np.float32))) + 1e-4)
    states, optional = [0], [False]
    for word in words:
        states += [VISEMES.index(name) for name in word] + [0]
        optional += [False] * len(word) + [True]
    if not words or len(likely) < 2 * len(states):
        return None
    path = _path(likely[:, states], np.array(optional))
    if likely[np.arange(len(path)), np.array(states)[path]].mean() < _MIN_SCORE:
        return None
    return [(a / 100, b / 100, VISEMES[states[state]]) for a, b, state in lipsync.runs(path)]


def _english_words(text: str) -> list[str]:
    """Return the visemes of each word, as PocketSphinx's dictionary or espeak-ng pronounces it."""
    found = _dictionary_words(text)
    return [of_phones(str(_decoder().lookup_word(word)).split()) for word in found] if found else []


def _path(scores: NDArray[np.float32], optional: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the best path through the states in order; optional states may be skipped (Viterbi)."""
    count, states = scores.shape
    best = np.full(states, -np.inf)
    best[0] = 0
    came = np.zeros((count, states), np.int64)
    over = np.concatenate([[False, False], optional[1:-1]])
    for row in range(count):
        ways = np.stack(
            [best, np.concatenate([[-np.inf], best[:-1]]) - 1, np.concatenate([[-np.inf] * 2, best[:-2]]) - 1]
        )
        ways[2, ~over] = -np.inf
        came[row] = ways.argmax(0)
        best = ways.max(0) + scores[row]
    path = np.empty(count, np.int64)
    path[-1] = states - 1
    for row in range(count - 1, 0, -1):
        path[row - 1] = path[row] - came[row, path[row]]
    return path


def _prompts(language: str) -> Iterator[tuple[str, Path, str]]:
    folder, texts = _VOICES[language], Path(f"/usr/share/doc/asterisk-core-sounds-{language}")
    for line in gzip.decompress((texts / f"core-sounds-{language}.txt.gz").read_bytes()).decode().splitlines():
        name, _, text = line.partition(":")
        path = _PROMPTS / folder / f"{name}.g722"
        if path.exists() and text and not set("[(<") & set(text):
            yield f"real/{folder.rpartition('_')[2].lower()}-{language}", path, text.strip()


def _tests() -> Iterator[tuple[str, Path, str]]:
    for folder, file in (("librivox", "transcription"), ("cards", "cards.transcription")):
        for line in (_SPHINX / folder / file).read_text().splitlines():
            if found := re.match(r"<s>(.*)</s> \((.*)\)", line):
                yield f"real/{folder}", _SPHINX / folder / f"{found[2]}.wav", found[1]
    yield "real/goforward", _SPHINX / "goforward.raw", "go forward ten meters"
    for name, text in _ARCTIC.items():
        yield "real/arctic", _CLIPS / f"{name}.flac", text


def _librispeech(folders: list[Path], tables: list[Path]) -> list[tuple[str, Path, str]]:
    """Return the recordings in folders, with their texts from LibriSpeech's own files, and from tables (name, tab, text)."""
    texts = dict(line.split("\t")[:2] for table in tables for line in table.read_text().splitlines())
    found: list[Path] = []
    for folder in folders:
        for file in folder.rglob("[0-9]*.trans.txt"):
            texts |= dict(line.split(" ", 1) for line in file.read_text().splitlines())
        found += [path for path in sorted(folder.rglob("*.flac")) if path.stem in texts]
    return [(f"real/librispeech-{path.stem.partition('-')[0]}", path, texts[path.stem]) for path in found]


def _by_sphinx(recordings: Iterable[tuple[str, Path, str]]) -> Iterator[Speech]:
    for voice, path, text in recordings:
        samples = sound(path)
        segments = align(samples, text)
        if segments:
            yield Speech(voice, "arpa", text, samples, segments)


def _by_network(
    recordings: Iterable[tuple[str, Path, str]], words: Callable[[str], list[str]], network: lipsync.Network
) -> Iterator[Speech]:
    for voice, path, text in recordings:
        samples = sound(path)
        segments = align_by_network(samples, words(text), network)
        if segments:
            yield Speech(voice, "mouths", text, samples, segments)


def _foreign_words(language: str, text: str) -> list[str]:
    return of_words(espeak_ipa(text, _ESPEAK[language]))


def _left(readers: list[tuple[str, Path, str]], cache: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield the recordings for training that PocketSphinx could not align."""
    done = {(speech.voice, speech.text) for speech in read(cache / "real-006.npz")}
    for voice, path, text in readers:
        if (voice, text) not in done and voice not in VOICES:
            yield voice, path, text


def main() -> None:
    """Write a file for the test, and one per language for training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder for the speech")
    parser.add_argument("--weights", type=Path, help="weights of the network; without them, English only")
    parser.add_argument(
        "--librispeech", type=Path, action="append", default=[], help="a folder of LibriSpeech (CC BY 4.0)"
    )
    parser.add_argument(
        "--texts",
        type=Path,
        action="append",
        default=[],
        help="texts of recordings: a name, a tab and the text per line",
    )
    given = parser.parse_args()
    readers = _librispeech(given.librispeech, given.texts)
    made = {"000": _by_sphinx(_tests()), "001": _by_sphinx(_prompts("en")), "006": _by_sphinx(readers)}
    if given.weights:
        network = lipsync.network(given.weights)
        for i, language in enumerate(_ESPEAK, 2):
            made[f"{i:03}"] = _by_network(_prompts(language), partial(_foreign_words, language), network)
        made["007"] = _by_network(_left(readers, given.cache), _english_words, network)
    for name, speeches in made.items():
        done = list(speeches)
        if not done:
            continue
        write(given.cache / f"real-{name}.npz", done)
        print(f"real-{name}: {len(done)} recordings, {sum(len(s.samples) for s in done) / RATE / 60:.1f} minutes")


if __name__ == "__main__":
    main()
