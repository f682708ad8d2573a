"""Transcripts: the times of words in real speech, and the errors of texts that do not fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

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
        (AWB, "transcript: it does not seem to be what is said in this recording"),
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
        ({"captions": "track", "transcript": " "}, "transcript must be what is said in the recording; got ' '"),
        ({"captions": "track", "transcript": 7}, "transcript must be what is said in the recording; got 7"),
        ({"captions": "track", "transcript": SLT, "captions_file": "x"}, "transcript and captions_file exclude each other"),
        ({"captions": "track", "transcript": "a" * 200_001}, "transcript has 200,001 characters, and 200,000 are allowed"),
    ],
)  # fmt: skip
def test_options_that_are_refused(options, problem) -> None:
    with pytest.raises(ValueError) as caught:  # the message is compared
        read_options(options, Settings(), with_mask=False)
    assert problem in str(caught.value)
