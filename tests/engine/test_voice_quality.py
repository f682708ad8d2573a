"""How well the synthesizer is understood: by a speech recognizer, and by the engine's own lip-sync. Extended: it takes a minute."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from a2v.engine import lipsync, voices
from a2v.engine.reading import readable
from a2v.engine.voices import synthesize

pytestmark = pytest.mark.extended
pytest.importorskip("hibari", reason="needs the extra voices")

# As written, and as a listener would write it down; numbers, dates, times, money, abbreviations and names.
SENTENCES = [
    ("On November 17th, we sold 1,250 tickets.", "on november seventeenth we sold one thousand two hundred fifty tickets"),
    ("The meeting with Dr. Smith is at 5:30 pm.", "the meeting with doctor smith is at five thirty pm"),
    ("It costs $3.50 a month, or $35 a year.", "it costs three dollars and fifty cents a month or thirty five dollars a year"),
    ("Mr. Johnson lives at 221 Baker Street in London.", "mister johnson lives at two hundred twenty one baker street in london"),
    ("About 50% of the people voted in 1984.", "about fifty percent of the people voted in nineteen eighty four"),
    ("Thank you for calling. Please hold the line.", "thank you for calling please hold the line"),
    ("The temperature will rise to 20°C on Monday.", "the temperature will rise to twenty degrees celsius on monday"),
    ("Our office in New York opens at 9 am.", "our office in new york opens at nine am"),
    ("The 2nd chapter begins on page 47.", "the second chapter begins on page forty seven"),
    ("Susan bought 12 eggs and 3 apples.", "susan bought twelve eggs and three apples"),
    ("In 2008, the company had 300 employees.", "in two thousand eight the company had three hundred employees"),
    ("Call Mrs. Miller before 10:15 tomorrow.", "call misses miller before ten fifteen tomorrow"),
    ("The train from Chicago to Boston takes 22 hours.", "the train from chicago to boston takes twenty two hours"),
    ("We need fruit, e.g. oranges or bananas.", "we need fruit for example oranges or bananas"),
    ("The price fell from €60 to €45.", "the price fell from sixty euros to forty five euros"),
    ("President Clinton was born on August 19, 1946.", "president clinton was born on august nineteenth nineteen forty six"),
    ("The house is 120 years old.", "the house is one hundred twenty years old"),
    ("Turn left after 3 miles, then drive 500 feet.", "turn left after three miles then drive five hundred feet"),
    ("My brother David works for the government in Washington.", "my brother david works for the government in washington"),
    ("Can you hear me? I am speaking to you.", "can you hear me i am speaking to you"),
    ("The 1990s were good years for California.", "the nineteen nineties were good years for california"),
    ("They won by 3 to 1 in the final game.", "they won by three to one in the final game"),
    ("1/2 of the money goes to the school.", "one half of the money goes to the school"),
    ("Winter is -5 degrees cold in Canada.", "winter is minus five degrees cold in canada"),
    ("Elizabeth married Robert on 3 May 2001.", "elizabeth married robert on the third of may two thousand one"),
    ("The book has 416 pages and costs $20.", "the book has four hundred sixteen pages and costs twenty dollars"),
    ("Speed is limited to 55 mph.", "speed is limited to fifty five miles per hour"),
    ("There are 24 hours in a day.", "there are twenty four hours in a day"),
    ("The university of Texas has 50,000 students.", "the university of texas has fifty thousand students"),
    ("Good morning, and welcome to the program.", "good morning and welcome to the program"),
]  # fmt: skip
VARIANTS = {"dr": "doctor", "mr": "mister", "mrs": "misses", "a.m.": "am", "p.m.": "pm", "okay": "ok"}


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """The samples of a speech at 16 kHz, as the lip-sync and recognizers take them."""
    resampler = av.AudioResampler("flt", "mono", 16_000)
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "flt", "mono")
    frame.sample_rate = rate
    return np.concatenate([part.to_ndarray()[0] for part in [*resampler.resample(frame), *resampler.resample(None)]])


def heard_words(text: str) -> list[str]:
    words = [VARIANTS.get(word, word) for word in re.findall(r"[a-z'.]+", text.lower().replace("-", " "))]
    # American and British readings of numbers.
    return [word for at, word in enumerate(words) if not (word == "and" and at and words[at - 1] == "hundred")]


def errors(wanted: list[str], heard: list[str]) -> int:
    """The number of words that were replaced, left out or added."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


def test_a_recognizer_understands_numbers_and_names() -> None:
    """At most 12 % of the words are wrong, of which some are the recognizer's own mistakes."""
    pocketsphinx = pytest.importorskip("pocketsphinx")
    decoder = pocketsphinx.Decoder(loglevel="FATAL", beam=1e-80, wbeam=1e-60)
    wrong = total = 0
    mistakes = []
    for written, spoken in SENTENCES:
        utterance = synthesize(written, "heart")
        sound = (resampled(utterance.samples, utterance.rate) * 26_000).astype("<i2").tobytes()
        decoder.start_utt()
        decoder.process_raw(sound, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        heard = heard_words(hypothesis.hypstr if hypothesis else "")
        found = errors(heard_words(spoken), heard)
        wrong, total = wrong + found, total + len(heard_words(spoken))
        mistakes += [(spoken, " ".join(heard))] if found else []
    assert len(SENTENCES) == 30
    assert wrong / total <= 0.12, mistakes


def test_lips_follow_the_phones_of_the_synthesizer(monkeypatch) -> None:
    """The sound alone gives 95 % of the visemes within 40 ms, by the measure of tools/lipsync, so no phones are passed on."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools" / "lipsync"))
    for name in ("soxr", "torch"):  # of other synthesizers, and of the training
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    import score
    from voices import Speech

    counts = []
    for written, _ in SENTENCES:
        text = readable(written)
        samples, segments = _with_phones(text)
        sound = (resampled(samples, 24_000) * 32767).astype(np.int16)
        speech = Speech("hibari/heart", "misaki", text, sound, segments)
        padded = score.padded(speech)
        probabilities = lipsync.network().run(*lipsync.mel_spectrum(padded))
        counts.append(score.compare(probabilities, score.truth(speech, len(probabilities))))
    # Without the pauses that `padded` adds at both ends, which are easy.
    pauses = len(counts) * 2 * score._PAUSE / 160
    right, rows = sum(c.right for c in counts) - pauses, sum(c.rows for c in counts) - pauses
    assert right / rows >= 0.93, score.line("30 sentences", counts)


def _with_phones(text: str) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """The sound of a sentence, and its phones as the synthesizer places them."""
    from hibari.g2p.normalize import normalize

    synthesizer = voices._load_synthesizer("heart")
    vocabulary = synthesizer._hibari.vocab
    spoken = [each for each in synthesizer._hibari.g2p(normalize(text)) if each in vocabulary]
    inputs = {"ids": np.array([[0, *map(vocabulary.get, spoken), 0]], np.int64), "speed": np.ones(1, np.float32)}
    *spectrum, lengths = synthesizer._session.run(None, inputs)
    samples = synthesizer._dsp.synth(*(part[0] for part in spectrum), np.random.default_rng(0))
    segments: list[tuple[float, float, str]] = []
    at, begun = 0.0, None
    for phone, length in zip(["", *spoken, ""], np.ravel(lengths) * voices._SECONDS_PER_FRAME, strict=True):
        end = at + float(length)
        if phone in "ˈˌ" and phone:  # belongs to the vowel after it
            begun = at if begun is None else begun
        elif phone == "\u02d0":
            segments[-1] = (segments[-1][0], end, segments[-1][2])
        elif phone.isalpha() or phone == "ᵊ":
            segments.append((at if begun is None else begun, end, phone))
            begun = None
        elif segments and not segments[-1][2]:
            segments[-1] = (segments[-1][0], end, "")
        else:
            segments.append((at, end, ""))
        at = end
    return samples, segments
