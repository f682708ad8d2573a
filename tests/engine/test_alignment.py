"""Transcripts: the times of words in real speech, and the errors of texts that do not fit."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest

from a2v._values.models import Word
from a2v.engine.alignment import align
from a2v.engine.audio import Recording
from a2v.engine.captions import Captions
from a2v.engine.errors import RenderError
from a2v.engine.settings import Settings
from a2v.engine.video_options import read_options
from a2v.engine.voices import synthesize

pytest.importorskip("hibari", reason="needs the extra voices")
pytest.importorskip("pocketsphinx", reason="needs the extra transcripts")

SAMPLES = Path(__file__).parents[2] / "a2v/engine/recordings"
SLT = "He turned sharply, and faced Gregson across the table."
AWB = "And you always want to see it in the superlative degree."


def pieces(name: str):
    return Recording(SAMPLES / f"{name}.flac").pieces()


def test_the_times_of_words_in_real_speech() -> None:
    """Compared with the pauses and the loud parts that can be seen in the waveform."""
    words = align(SLT, pieces("slt"))
    assert [word.text for word in words] == SLT.split()
    assert all(one.start < one.end <= other.start + 0.001 for one, other in itertools.pairwise(words))
    times = {word.text: (word.start, word.end) for word in words}
    assert times["He"] == pytest.approx((0.13, 0.29), abs=0.06)
    assert times["sharply,"] == pytest.approx((0.59, 1.11), abs=0.08)
    assert times["table."] == pytest.approx((2.49, 3.09), abs=0.08)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            AWB,
            "transcript: it does not seem to be what is said in this recording from about 0:00 on, where it has 'And you always",
        ),
        pytest.param(
            "Was wir heute sagen, ist nicht gehört worden.", "it must be in English", marks=pytest.mark.extended
        ),
        ("日本", "transcript: the text contains characters that cannot be read: '日'"),
        pytest.param("... !", "it contains nothing that can be spoken", marks=pytest.mark.extended),
    ],
)
def test_texts_that_do_not_fit(text, problem) -> None:
    with pytest.raises(RenderError) as caught:
        align(text, pieces("slt"))
    assert problem in str(caught.value)


@pytest.mark.extended
def test_the_transcript_of_another_speaker() -> None:
    assert align(AWB, pieces("awb"))[-1].end == pytest.approx(3.49, abs=0.1)
    with pytest.raises(RenderError):
        align(SLT, pieces("awb"))


@pytest.fixture
def short_windows(monkeypatch) -> None:
    """Windows of three seconds, which end within words."""
    for name, frames in {"_WINDOW": 300, "_LONGEST_LAST_WINDOW": 400, "_UNSURE": 50, "_STRETCH": 200}.items():
        monkeypatch.setattr(f"a2v.engine.alignment.{name}", frames)


def two_recordings() -> list[np.ndarray]:
    return [*pieces("slt"), np.zeros(24_000, np.float32), *pieces("awb")]


@pytest.mark.usefixtures("short_windows")
def test_a_recording_is_searched_in_windows() -> None:
    words = align(f"{SLT} {AWB}", two_recordings())
    assert [word.text for word in words] == [*SLT.split(), *AWB.split()]
    times = {word.text: (word.start, word.end) for word in words}
    assert times["sharply,"] == pytest.approx((0.59, 1.11), abs=0.08)
    length = sum(map(len, pieces("slt"))) / 16_000 + 1.5
    assert times["degree."][1] == pytest.approx(length + 3.49, abs=0.1)


@pytest.mark.extended
@pytest.mark.usefixtures("short_windows")
def test_a_window_without_a_match_names_the_place() -> None:
    whole = two_recordings()
    # The text of the second recording is missing, which is no error: it could be music.
    assert align(SLT, whole)[-1].end == pytest.approx(3.09, abs=0.15)
    for wrong, place in (
        (AWB, "from about 0:0. on, where it has "),
        (f"{SLT} It is a third sentence that nobody has said. {AWB}", "from about 0:0. on, where it has "),
        (f"{SLT} {AWB} {SLT} {AWB}", "from about 0:0. on, where it has "),
    ):
        with pytest.raises(RenderError, match=place):
            align(wrong, whole)


@pytest.fixture(scope="module")
def talk():
    """Eleven minutes of speech in paragraphs, and the words with their times."""
    from tests.engine.test_voice_quality import resampled

    nouns = [
        "engineer",
        "captain",
        "teacher",
        "doctor",
        "farmer",
        "pilot",
        "painter",
        "lawyer",
        "sailor",
        "student",
        "baker",
    ]
    verbs = [
        "carried",
        "opened",
        "counted",
        "painted",
        "followed",
        "repaired",
        "visited",
        "described",
        "measured",
        "forgot",
    ]
    things = [
        "box",
        "bridge",
        "window",
        "letter",
        "clock",
        "harbor",
        "river",
        "garden",
        "basket",
        "mountain",
        "machine",
        "lamp",
    ]
    ends = [
        "before midnight",
        "after the long winter",
        "near the old station",
        "for $11",
        "in 1984",
        "while the rain kept falling",
    ]
    choose = random.Random(1).choice
    texts, sound, words, at = [], [], [], 0.0
    for _ in range(28):
        texts.append(
            " ".join(
                f"The {choose(nouns)} {choose(verbs)} the {choose(things)} {choose(ends)}, and nobody {choose(verbs)} it."
                for _ in range(6)
            )
        )
        spoken = synthesize(texts[-1], "heart")
        samples = np.append(resampled(spoken.samples, spoken.rate), np.zeros(8_000, np.float32)).astype(np.float32)
        words += [Word(text=word.text, start=word.start + at, end=word.end + at) for word in spoken.words]
        sound.append(samples)
        at += len(samples) / 16_000
    return texts, sound, words


@pytest.mark.extended
def test_a_long_recording(talk) -> None:
    texts, sound, spoken = talk
    assert spoken[-1].end > 600
    for gap in (0, 50):  # seconds of silence
        middle = sum(len(text.split()) for text in texts[:14])
        words = align("\n".join(texts), [*sound[:14], np.zeros(16_000 * gap, np.float32), *sound[14:]])
        assert [word.text for word in words] == [word.text for word in spoken]
        errors = [
            abs(one.start - other.start - (gap if place >= middle else 0))
            for place, (one, other) in enumerate(zip(words, spoken, strict=True))
        ]
        assert np.median(errors) < 0.05
        assert max(errors) < 0.5


@pytest.mark.extended
@pytest.mark.parametrize(
    "wrong", ["paragraph missing", "sentence missing", "paragraph added", "sentence added", "other end"]
)
def test_a_transcript_with_a_mistake_names_the_place(talk, wrong) -> None:
    texts, sound, spoken = talk
    other = "A gentle singer promised to clean every single candle of the village without a single word."
    changed = {
        "paragraph missing": [*texts[:5], *texts[6:]],
        "sentence missing": [*texts[:5], texts[5].partition(". ")[2], *texts[6:]],
        "paragraph added": [*texts[:5], " ".join([other] * 6), *texts[5:]],
        "sentence added": [*texts[:5], other, *texts[5:]],
        "other end": [*texts[:10], other],
    }[wrong]
    with pytest.raises(RenderError, match="from about") as caught:
        align("\n".join(changed), sound[:10])
    minutes, seconds = re.search(r"about (\d+):(\d+) on", str(caught.value)).groups()
    place = sum(len(text.split()) for text in texts[: 10 if wrong == "other end" else 5])
    assert int(minutes) * 60 + int(seconds) == pytest.approx(spoken[place].start, abs=15)


@pytest.mark.extended
def test_the_times_are_those_of_the_synthesizer() -> None:
    """With numbers, abbreviations, and names that are in no dictionary."""
    text = "Dr. Zyrqovich sold 1,250 tickets on May 3, 1984.\nIt costs $3.50, and Mrs. Wongalee is happy!"
    spoken = synthesize(text, "heart")
    from tests.engine.test_voice_quality import resampled

    words = align(text, [resampled(spoken.samples, spoken.rate)])
    assert [word.text for word in words] == text.split()
    errors = [abs(one.start - other.start) for one, other in zip(words, spoken.words, strict=True)]
    assert np.median(errors) < 0.06
    assert max(errors) < 0.35


def test_captions_of_a_transcript() -> None:
    options = read_options({"captions": "track", "transcript": SLT}, Settings(), with_mask=False)
    captions = Captions.load(Captions(ways=options.captions, transcript=options.transcript).dump())
    shown = captions.aligned(lambda: pieces("slt")).of_video(3.1, is_wide=False)
    assert shown.track is not None
    assert [cue.lines for cue in shown.track] == [["He turned sharply, and faced", "Gregson across the table."]]
    assert (shown.track[0].start, shown.track[0].end, shown.language) == (pytest.approx(0.13, abs=0.06), 3.1, "eng")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"transcript": SLT}, "transcript needs captions: 'files', 'track' or 'burned'"),
        ({"captions": "track", "transcript": " "}, "transcript must be the text that is spoken in the recording; got ' '"),
        ({"captions": "track", "transcript": 7}, "transcript must be the text that is spoken in the recording; got 7"),
        ({"captions": "track", "transcript": SLT, "captions_file": "x"}, "transcript and captions_file exclude each other"),
        ({"captions": "track", "transcript": "a" * 200_001}, "transcript has 200,001 characters, and 200,000 are allowed"),
    ],
)  # fmt: skip
def test_options_that_are_refused(options, problem) -> None:
    with pytest.raises(ValueError) as caught:  # the message is compared
        read_options(options, Settings(), with_mask=False)
    assert problem in str(caught.value)
