"""``a2v say`` and ``a2v voices``."""

from __future__ import annotations

import io
import itertools
import json
import sys
from importlib.util import find_spec

import pytest

import a2v
from a2v.cli import connection
from a2v.cli.captions import cues, to_srt, to_vtt
from a2v.testing import Reply

HEART = a2v.Voice(voice_name="heart", gender="female", language="English", locale="en-US", tags=("warm",))
MIKE = a2v.Voice(voice_name="mike", gender="male", preview_url="https://x/mike.wav")
WORDS = [{"text": "Hello,", "start": 0.25, "end": 0.5}, {"text": "you!", "start": 0.5, "end": 1.0}]


@pytest.fixture
def service(service):
    service.voices = [MIKE, HEART]
    return service


def with_words(service) -> None:
    def answer(call):
        reply = json.loads(service.default_reply(call).body)
        return Reply.success(reply["data"] | {"words": WORDS})

    service.reply("voice.generate", answer)


def test_voices(here, service) -> None:
    code, out, err = here("voices")
    assert (code, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == [
        ["mike", "male", "", "", "https://x/mike.wav"],
        ["heart", "female", "en-US", "warm"],
    ]
    listed = json.loads(here("voices", "--json")[1])
    assert listed[1]["tags"] == ["warm"]
    service.voices = None
    code, _, err = here("voices")
    assert (code, "this server does not have the call voice.list" in err) == (1, True)


def test_a_text_becomes_a_video_with_a_voice_of_the_same_gender(here, service, tmp_path) -> None:
    code, _, err = here("say", "Hello, you!", "--model-id", "eva_a0008", "-o", "hello.mp4")
    assert (code, err) == (0, "")
    assert (tmp_path / "hello.mp4").read_bytes() == b"video of v1"
    (synthesis,) = service.syntheses
    assert (synthesis.text, synthesis.voice_name) == ("Hello, you!", "heart")
    assert service.submissions[0].audio_url == synthesis.url
    assert here("say", "Bye!", "--model-id", "eva_a0008", "--voice", "mike", "--json")[0] == 0
    assert service.syntheses[1].voice_name == "mike"
    assert len(service.seen("voice.list")) == 1


def test_a_pose_speaks_with_a_voice_of_its_gender(here, service) -> None:
    pose = a2v.Pose(pose_id="p1")
    service.avatars = [a2v.Avatar(avatar_id="a1", gender="male", poses=(pose,))]
    assert here("say", "Hello!", "--pose-id", "p1")[0] == 0
    assert service.syntheses[0].voice_name == "mike"


def test_a_text_from_a_file_or_standard_input(here, service, tmp_path, monkeypatch) -> None:
    (tmp_path / "speech.txt").write_bytes("\ufeffGrüße!\n".encode())
    assert here("say", "--text-file", "speech.txt", "--model-id", "eva_a0008")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"From a pipe.\n")))
    assert here("say", "-", "--model-id", "eva_a0008")[0] == 0
    assert [synthesis.text for synthesis in service.syntheses] == ["Grüße!", "From a pipe."]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "say needs one text"),
        (["Hello!", "--text-file", "x.txt"], "say needs one text"),
        (["--text-file", "x.txt"], "x.txt cannot be read: No such file"),
        (["--text-file", "latin.txt"], "latin.txt is not UTF-8: byte 3 is 0xe9"),
        (["--text-file", "blank.txt"], "blank.txt is empty"),
        ([" "], "the text is empty"),
        (["Hello!", "--voice", " "], "--voice must be the name of a voice"),
        (["a\x07b"], "text must not contain"),
        (["Hello!", "--captions"], "--captions writes files beside the video"),
        (["Hello!", "--captions", "-o", "old.mp4"], "old.vtt exists; add --overwrite"),
        (["Hello!", "-o", "v.mp4", "--local", "--base-url", "https://x"], "--local starts a server"),
        (["Hello!", "--local"], "the video is deleted when the command ends: save it with -o FILE"),
        (["Hello!", "--text-file", "long.txt"], "say needs one text"),
        (["--text-file", "long.txt"], "long.txt is too long for a text"),
    ],
)
def test_what_is_refused_before_anything_is_sent(here, service, tmp_path, arguments, problem) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9"[1:])
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "long.txt").write_bytes(b"a" * (2**20 + 1))
    (tmp_path / "old.vtt").write_text("old")
    code, _, err = here("say", *arguments, "--model-id", "eva_a0008")
    assert (code, problem in err) == (2, True), err
    assert not service.calls


def test_a_mask_that_would_be_deleted_is_refused(here) -> None:
    speaker = ["--pose-id", "eva_a0008_front", "--with-mask", "--local", "-o", "v.mp4"]
    for command in (["say", "Hello!"], ["generate", "https://x/a.wav"]):
        code, _, err = here(*command, *speaker)
        assert (code, "save it with --mask-output FILE" in err) == (2, True), err


def test_closed_standard_input(here, service, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(connection, "_read_stdin", connection._read_stdin.__wrapped__)  # without its cache
    for command, problem in (
        (["say", "-", "--model-id", "eva_a0008"], "standard input is empty"),
        (["characters", "--token-file", "-"], "contains no token"),
    ):
        code, _, err = here(*command)
        assert (code, problem in err) == (2, True), err
    assert not service.calls


def test_nobody_speaks(here, service) -> None:
    code, _, err = here("say", "Hello!")
    assert (code, "choose who speaks" in err) == (2, True)


def test_a_speech_is_not_lost_if_the_video_is_refused(here, service) -> None:
    service.refuse("video.generate", 400, "no such character")
    code, _, err = here("say", "Hello!", "--model-id", "eva_a0008")
    assert code == 1
    assert f" generate '{service.syntheses[0].url}' --model-id eva_a0008" in err


def test_an_unknown_synthesis(here, service) -> None:
    service.lose_reply("voice.generate")
    code, _, err = here("say", "Hello!", "--model-id", "eva_a0008")
    assert (code, "may or may not have synthesized" in err) == (3, True)
    assert (len(service.syntheses), len(service.submissions)) == (1, 0)


def test_captions(here, service, tmp_path) -> None:
    with_words(service)
    command = ["say", "Hello, you!", "--model-id", "eva_a0008", "--captions", "-o", "v.mp4"]
    assert here(*command)[0] == 0
    assert (tmp_path / "v.srt").read_text() == "1\n00:00:00,250 --> 00:00:02,000\nHello, you!\n"
    assert (tmp_path / "v.vtt").read_text() == "WEBVTT\n\n00:00:00.250 --> 00:00:02.000\nHello, you!\n"
    code, _, err = here(*command, "--overwrite")
    assert (code, "no captions were written" in err) == (1, True)


# -- captions ---------------------------------------------------------------------------------------------------------


def spoken(text: str, pause_after: str = "") -> list[a2v.Word]:
    words, at = [], 0.0
    for word in text.split():
        words.append(a2v.Word(text=word, start=at, end=at + 0.3))
        at += 2.0 if word == pause_after else 0.6 if word.rstrip("\u201d")[-1] in ".!" else 0.4
    return words


def test_cues_end_with_sentences_and_pauses() -> None:
    text = "One two three. Four five six seven eight nine. \u201cNow we are ten!\u201d and on we go"
    shown = cues(spoken(text, pause_after="six"))
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
    assert [" ".join(cue.lines) for cue in cues(spoken(text, pause_after))] == shown


def test_no_word_is_left_alone_because_the_others_fit() -> None:
    words = "word " * 16
    for text in (words + "Smith.", words.replace("word word ", "word word, ") + "word, Smith."):
        shown = cues(spoken(text))
        assert len(shown) == 2
        assert min(cue.end - cue.start for cue in shown) > 2


def test_an_abbreviation_does_not_end_a_cue() -> None:
    words = [a2v.Word(text=word, start=at, end=at + 0.95) for at, word in enumerate(["Call", "Dr.", "Smith."])]
    assert [cue.lines for cue in cues(words)] == [["Call Dr. Smith."]]


def test_lines_are_short_and_nothing_is_lost() -> None:
    text = (
        "This is a rather long sentence, with a comma or two, that cannot be shown at once and is split. " * 3
        + "x" * 90
    )
    shown = cues(spoken(text))
    assert " ".join(" ".join(cue.lines) for cue in shown) == " ".join(text.split())
    assert all(len(cue.lines) <= 2 for cue in shown)
    assert all(len(line) <= 42 for cue in shown[:-1] for line in cue.lines)
    assert shown[0].lines[-1].endswith("two,")
    assert cues([]) == []


def test_captions_escape_markup_and_write_long_times() -> None:
    word = a2v.Word(text="a<b>&c", start=3661.5, end=3661.5)
    assert to_vtt([word]) == "WEBVTT\n\n01:01:01.500 --> 01:01:02.500\na&lt;b&gt;&amp;c\n"
    assert to_srt([word]).splitlines()[2] == "a<b>&c"


# -- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("hibari") is None, reason="needs the extra voices")
def test_one_word_through_the_synthesizer_and_the_renderer(here, tmp_path) -> None:
    code, out, err = here("say", "Hello!", "--model-id", "eva_a0008", "--local", "-o", "hello.mp4", "--captions")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].split("\t")[1] == "saved"
    assert (tmp_path / "hello.mp4").stat().st_size > 10_000
    assert "Hello!" in (tmp_path / "hello.srt").read_text()
