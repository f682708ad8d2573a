"""Captions: words become cues, and SubRip and WebVTT are written and read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import a2v
from a2v._core.captions import Cue, read_captions, rewrap, segment, to_srt, to_vtt


def spoken(text: str, pause_after: str = "") -> list[a2v.Word]:
    words, at = [], 0.0
    for word in text.split():
        words.append(a2v.Word(text=word, start=at, end=at + 0.3))
        at += 2.0 if word == pause_after else 0.6 if word.rstrip("\u201d")[-1] in ".!" else 0.4
    return words


def test_cues_end_with_sentences_and_pauses() -> None:
    text = "One two three. Four five six seven eight nine. \u201cNow we are ten!\u201d and on we go"
    shown = segment(spoken(text, pause_after="six"))
    assert [cue.lines for cue in shown] == [
        ["One two three."],
        ["Four five six"],
        ["seven eight nine."],
        ["\u201cNow we are ten!\u201d"],
        ["and on we go"],
    ]
    assert [(cue.start, cue.end) for cue in shown][1] == (pytest.approx(1.4), pytest.approx(3.5))
    assert all(one.end <= other.start for one, other in itertools.pairwise(shown))


@pytest.mark.parametrize(
    ("text", "pause_after", "shown"),
    [
        ("Hello! Nice to meet you.", "", ["Hello! Nice to meet you."]),
        ("See you all tomorrow. Thanks. And goodbye!", "", ["See you all tomorrow.", "Thanks. And goodbye!"]),
        ("See you all tomorrow. Bye!", "", ["See you all tomorrow. Bye!"]),
        ("Hello! Nice to meet you.", "Hello!", ["Hello!", "Nice to meet you."]),
        ("See you all tomorrow. Bye!", "tomorrow.", ["See you all tomorrow.", "Bye!"]),
        ("Hello!", "", ["Hello!"]),
    ],
)
def test_short_captions_are_joined_with_others_but_not_across_a_pause(text, pause_after, shown) -> None:
    assert [" ".join(cue.lines) for cue in segment(spoken(text, pause_after))] == shown


def test_no_word_is_left_alone_because_the_others_fit() -> None:
    words = "word " * 16
    for text in (words + "Smith.", words.replace("word word ", "word word, ") + "word, Smith."):
        shown = segment(spoken(text))
        assert len(shown) == 2
        assert min(cue.end - cue.start for cue in shown) > 2


def test_an_abbreviation_does_not_end_a_cue() -> None:
    words = [a2v.Word(text=word, start=at, end=at + 0.95) for at, word in enumerate(["Call", "Dr.", "Smith."])]
    assert [cue.lines for cue in segment(words)] == [["Call Dr. Smith."]]


def test_lines_are_short_and_nothing_is_lost() -> None:
    text = (
        "This is a rather long sentence, with a comma or two, that cannot be shown at once and is split. " * 3
        + "x" * 90
    )
    shown = segment(spoken(text))
    assert " ".join(" ".join(cue.lines) for cue in shown) == " ".join(text.split())
    assert all(len(cue.lines) <= 2 for cue in shown)
    assert all(len(line) <= 42 for cue in shown[:-1] for line in cue.lines)
    assert shown[0].lines[-1].endswith("two,")
    assert segment([]) == []


def test_captions_escape_markup_and_write_long_times() -> None:
    word = a2v.Word(text="a<b>&c", start=3661.5, end=3661.5)
    shown = segment([word])
    assert to_vtt(shown) == "WEBVTT\n\n01:01:01.500 --> 01:01:02.500\na&lt;b&gt;&amp;c\n"
    assert to_srt(shown).splitlines()[2] == "a<b>&c"


def test_shorter_lines_for_small_pictures() -> None:
    shown = segment(spoken("This is a rather long sentence that is shown in a small picture."), max_line_length=20)
    assert all(len(line) <= 20 for cue in shown for line in cue.lines)
    assert len(shown) == 2


def test_a_caption_that_does_not_fit_is_shown_in_parts() -> None:
    short = Cue(0.0, 1.0, ["Hello,", "you!"])
    long = Cue(1.0, 5.0, ["Three lines", "of a caption", "that is long"])
    shown = rewrap([short, long], 12)
    assert shown[0] is short
    assert [cue.lines for cue in shown[1:]] == [["Three lines", "of a caption"], ["that is long"]]
    assert (shown[1].start, shown[1].end, shown[2].end) == (1.0, pytest.approx(3.667, abs=0.01), pytest.approx(5.0))


# -- reading ----------------------------------------------------------------------------------------------------------


SRT = """1
00:00:01,500 --> 00:00:04,000
Hello, <i>you</i>!
Second {\\an8}line

2
00:00:05.000 --> 00:00:06,000 X1:10 X2:20
a < b
"""
VTT = """WEBVTT - a title
Kind: captions

NOTE
of nobody

STYLE
::cue { color: red }

intro
00:01.500 --> 00:04.000 align:start position:0%
<v Bob>Hello, <00:00:02.000><c.x>you</c>!
Second line

100:00:05.000 --> 100:00:06.000
a &lt; b
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_both_formats_are_read(newline) -> None:
    first = Cue(1.5, 4.0, ["Hello, you!", "Second line"])
    assert read_captions("\ufeff" + SRT.replace("\\\\", "\\").replace("\n", newline)) == [
        first,
        Cue(5.0, 6.0, ["a < b"]),
    ]
    assert read_captions(VTT.replace("\n", newline)) == [first, Cue(360_005.0, 360_006.0, ["a < b"])]


def test_captions_without_text_are_left_out_and_overlaps_are_cut() -> None:
    text = "00:01,000 --> 00:03,000\none\n\n00:02,000 --> 00:04,000\n<b></b>\n\n7\n00:02,500 --> 00:05,000\ntwo"
    assert read_captions(text) == [Cue(1.0, 2.5, ["one"]), Cue(2.5, 5.0, ["two"])]


TIME = "00:01,000 --> 00:03,000\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (7, "it must be the text of a SubRip or WebVTT file, got int"),
        ("", "it has no captions: SubRip (.srt) or WebVTT (.vtt) is expected"),
        ("WEBVTT\n\n", "it has no captions"),
        ("\n\nHello!\n", "line 3: 'Hello!' is not the time of a caption, such as '00:00:01,500 --> 00:00:04,000'"),
        ("1\n00:01 -> 00:02\nHello!", "line 2: '00:01 -> 00:02' is not the time of a caption"),
        ("1\n0:1 --> 00:02\nHello!", "line 2: '0:1' is not a time, such as '00:00:01,500'"),
        ("1\n00:01,000 -->\nHello!", "line 2: '' is not a time"),
        ("1\n00:99,000 --> 00:02,000\nHello!", "line 2: '00:99,000' is not a time"),
        ("1\n00:02,000 --> 00:02,000\nHello!", "line 2: the caption ends before it is shown"),
        (f"{TIME}a\n\n{TIME}b", "line 4: this caption begins at the same time as the one above it"),
        (f"{TIME}a\n\n00:00,500 --> 00:01,000\nb", "line 4: this caption begins before the one above it"),
        (f"{TIME}a\n00:04,000 --> 00:05,000\nb", "line 3: a blank line is missing before this caption"),
        (f"{TIME}a\x07b", "line 2 contains"),
        (f"{TIME}{'a' * 501}", "line 1: the caption has more than 500 characters"),
        ("x" * 60, f"line 1: '{'x' * 40}…' is not the time"),
        ("a" * 200_001, "it has 200,001 characters, and 200,000 are allowed"),
    ],
)
def test_errors_name_the_line(text, problem) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        read_captions(text)
    assert problem in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_is_read_or_refused(text) -> None:
    for content in (text, f"WEBVTT\n\n{text}", f"{TIME}{text}"):
        try:
            shown = read_captions(content)
        except ValueError:
            continue
        for written in (to_srt(shown), to_vtt(shown)):
            assert read_captions(written)


def test_what_is_written_is_read_again() -> None:
    shown = segment(spoken("Hello & <welcome> to you! This is the second sentence, and it is longer than one line."))
    for written in (to_srt(shown[1:]), to_vtt(shown)):
        read = read_captions(written)
        assert [cue.lines for cue in read] == [
            cue.lines for cue in (shown if written.startswith("WEBVTT") else shown[1:])
        ]
