"""``a2v say`` and ``a2v voices``."""

from __future__ import annotations

import io
import json
import sys
from importlib.util import find_spec

import av
import pytest

import a2v
from a2v.testing import Reply

HEART = a2v.Voice(voice_name="heart", gender="female", language="English", locale="en-US", tags=("warm",))
MIKE = a2v.Voice(voice_name="mike", gender="male", preview_url="https://x/mike.wav")


@pytest.fixture
def service(service):
    service.voices = [MIKE, HEART]
    return service


def without_captions(service) -> None:
    """Let the service be one that ignores the option."""

    def answer(call):
        data = json.loads(service.default_reply(call).body)["data"]
        return Reply.success({key: value for key, value in data.items() if key != "captions_url"})

    service.reply("video.get", answer, times=None)


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
    (tmp_path / "notepad.txt").write_bytes("Grüße!\r\n".encode("utf-16"))
    assert here("say", "--text-file", "notepad.txt", "--model-id", "eva_a0008")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"From a pipe.\n")))
    assert here("say", "-", "--model-id", "eva_a0008")[0] == 0
    assert [synthesis.text for synthesis in service.syntheses] == ["Grüße!", "Grüße!", "From a pipe."]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "say needs one text"),
        (["Hello!", "--text-file", "x.txt"], "say needs one text"),
        (["--text-file", "x.txt"], "x.txt cannot be read: No such file"),
        (["--text-file", "latin.txt"], "--text-file: latin.txt, line 1, is not UTF-8: byte 0xe9"),
        (["--text-file", "marked.txt"], "--text-file: marked.txt, line 2, is not UTF-8: byte 0xe9"),
        (["--text-file", "cut.txt"], "--text-file: cut.txt, line 2, is not UTF-16: byte 0x62"),
        (["--text-file", "blank.txt"], "blank.txt is empty"),
        ([" "], "the text is empty"),
        (["Hello!", "--voice", " "], "--voice must be the name of a voice"),
        (["a\x07b"], "text must not contain"),
        (["Hello!", "--captions", "files"], "--captions files writes beside the video"),
        (["Hello!", "--captions", "files", "-o", "old.mp4"], "--captions files: old.vtt exists; add --overwrite"),
        (["Hello!", "--captions", "files", "-o", "folder.mp4"], "--captions files: folder.srt is a folder"),
        (["Hello!", "-o", "v.srt"], "videos are saved as MP4, WebM, MOV, WebP or GIF; name the file v.mp4"),
        (["Hello!", "--captions", "track,srt", "-o", "v.mp4"], "--captions: 'srt' is not one of files, track, burned"),
        (["Hello!", "-o", "v.mp4", "--local", "--base-url", "https://x"], "--local starts a server"),
        (["Hello!", "--local"], "the video is deleted when the command ends: save it with -o FILE"),
        (["Hello!", "--text-file", "long.txt"], "say needs one text"),
        (["--text-file", "long.txt"], "--text-file: long.txt is too long: more than 1 MiB"),
    ],
)
def test_what_is_refused_before_anything_is_sent(here, service, tmp_path, arguments, problem) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9"[1:])
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfa\ncaf\xe9")
    (tmp_path / "cut.txt").write_bytes("a\nb".encode("utf-16")[:-1])
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "long.txt").write_bytes(b"a" * (2**20 + 1))
    (tmp_path / "old.vtt").write_text("old")
    (tmp_path / "folder.srt").mkdir()
    code, _, err = here("say", *arguments, "--model-id", "eva_a0008")
    assert (code, problem in err) == (2, True), err
    assert not service.calls


def test_a_mask_that_would_be_deleted_is_refused(here) -> None:
    speaker = ["--pose-id", "eva_a0008_front", "--with-mask", "--local", "-o", "v.mp4"]
    for command in (["say", "Hello!"], ["generate", "https://x/a.wav"]):
        code, _, err = here(*command, *speaker)
        assert (code, "save it with --mask-output FILE" in err) == (2, True), err


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


@pytest.mark.parametrize("command", [["say", "Hello, you!"], ["generate", "https://x/a.wav"]])
def test_captions_are_saved_beside_the_video(here, service, tmp_path, command) -> None:
    command = [*command, "--model-id", "eva_a0008", "--captions", "files,track", "-o", "v.mp4", "--json"]
    code, out, err = here(*command)
    assert (code, err) == (0, "")
    assert service.submissions[0].options == {"captions": ["files", "track"]}
    assert (tmp_path / "v.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,000\ncaptions of v1\n"
    assert (tmp_path / "v.vtt").read_text() == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\ncaptions of v1\n"
    saved = json.loads(out.splitlines()[-1])
    assert saved["captions_paths"] == [str(tmp_path / "v.srt"), str(tmp_path / "v.vtt")]
    assert saved["captions_url"].endswith("/v1.vtt?signature=s3cret")


def test_a_server_without_captions(here, service, tmp_path) -> None:
    without_captions(service)
    speaker = ("--model-id", "eva_a0008")
    code, _, err = here("generate", "https://x/a.wav", *speaker, "--captions", "files", "-o", "v.mp4")
    assert code == 1
    assert "video v1 has no captions to download: a2v engines make them for videos that are submitted with" in err
    assert "The video itself was saved: v.mp4" in err
    assert (tmp_path / "v.mp4").exists()
    assert not list(tmp_path.glob("v.[sv][rt]t"))


def test_captions_that_are_missing_are_downloaded_later(here, service, tmp_path) -> None:
    service.reply("file", Reply(404, b""), times=2)  # once more with a new URL
    speaker = ("--model-id", "eva_a0008")
    code, _, err = here("generate", "https://x/a.wav", *speaker, "--captions", "files", "-o", "v.mp4")
    assert code == 1
    assert "the captions could not be fetched: HTTP 404" in err
    assert "Download the captions with:\n  a2v download v1 -o v.mp4 --captions files --overwrite" in err
    assert not (tmp_path / "v.srt").exists()
    assert here("download", "v1", "-o", "v.mp4", "--captions", "files", "--overwrite")[0] == 0
    assert (tmp_path / "v.srt").exists()


def test_a_command_that_ends_between_two_files_of_captions_can_be_resumed(here, service, tmp_path) -> None:
    service.reply("file", lambda _: Reply(404, b"") if (tmp_path / "v.srt").exists() else None, times=None)
    code, _, err = here("say", "Hello!", "--model-id", "eva_a0008", "--captions", "files", "-o", "v.mp4")
    assert code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["v.srt"]
    command = "download v1 -o v.mp4 --captions files --overwrite"
    assert f"Resume with:\n  a2v {command}\n" in err
    service.recover("file")
    assert here(*command.split())[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.mp4", "v.srt", "v.vtt"]


# -- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("hibari") is None, reason="needs the extra voices")
def test_one_word_through_the_synthesizer_and_the_renderer(here, tmp_path) -> None:
    command = ["say", "Hello!", "--model-id", "eva_a0008", "--local", "-o", "hello.mp4"]
    code, out, err = here(*command, "--captions", "files,track")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].split("\t")[1] == "saved"
    assert (tmp_path / "hello.mp4").stat().st_size > 10_000
    assert "Hello!" in (tmp_path / "hello.srt").read_text()
    with av.open(str(tmp_path / "hello.mp4")) as video:
        track = video.streams.subtitles[0]
        packets = [bytes(packet)[2:] for packet in video.demux(track) if packet.size > 2]
    assert (packets, track.language) == ([b"Hello!"], "eng")


# -- captions of recordings -------------------------------------------------------------------------------------------

SRT = "1\n00:00:00,100 --> 00:00:01,000\nHello, you!\n"
SPEAKER = ("--model-id", "eva_a0008")


def test_the_captions_of_a_recording(here, service, tmp_path) -> None:
    (tmp_path / "talk.srt").write_bytes(SRT.encode("utf-16"))
    command = ["generate", "https://example.com/a.wav", *SPEAKER, "--captions", "burned", "--captions", "track"]
    assert here(*command, "--captions-file", "talk.srt", "-o", "v.mp4")[0] == 0
    # In this order, so that a batch whose option is written differently has the same jobs.
    assert service.submissions[0].options == {"captions": ["track", "burned"], "captions_file": SRT}
    # It may be a speech of the engine, which needs no file.
    assert here(*command)[0] == 0
    assert service.submissions[1].options == {"captions": ["track", "burned"]}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--captions", "files"], "--captions needs the text of the recording: add --captions-file FILE"),
        (["--captions", "files", "--captions-file", "v.srt"], "--captions files: v.srt is a file that the video is made of"),
        (["--captions", "srt"], "--captions: 'srt' is not one of files, track, burned"),
        (["--captions-file", "talk.srt"], "--captions-file needs --captions: files, track, burned"),
        (["--captions", "track"], "--captions needs the text of the recording: add --captions-file FILE"),
        (["--captions", "track", "--captions-file", "x.srt"], "--captions-file: x.srt cannot be read: No such file"),
        (["--captions", "track", "--captions-file", "latin.srt"], "latin.srt, line 2, is not UTF-8: byte 0xe9"),
        (["--captions", "track", "--captions-file", "wrong.srt"], "--captions-file: wrong.srt: line 2: '00:01 -> 00:02' is not"),
        (["--transcript", "talk.srt"], "--transcript needs --captions: files, track, burned"),
        (["--captions", "track", "--transcript", "empty.txt"], "--transcript: empty.txt is empty"),
        (["--captions", "track", "--transcript", "talk.srt", "--captions-file", "talk.srt"], "exclude each other"),
        (["--captions", "track", "--transcript", "x.txt"], "--transcript: x.txt cannot be read: No such file"),
        (["--captions", "track", "--captions-file", "long.srt"], "long.srt is too long: more than 200,000 characters"),
    ],
)  # fmt: skip
def test_captions_that_are_refused(here, service, tmp_path, arguments, problem) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / "talk.srt").write_text(SRT)
    (tmp_path / "v.srt").write_text(SRT)
    (tmp_path / "empty.txt").write_text(" ")
    (tmp_path / "latin.srt").write_bytes(b"1\ncaf\xe9")
    (tmp_path / "wrong.srt").write_text("1\n00:01 -> 00:02\nHello!\n")
    (tmp_path / "long.srt").write_bytes(b"1" * 800_001)
    code, _, err = here("generate", "a.wav", *SPEAKER, *arguments, "--local", "-o", "v.mp4")
    assert (code, problem in err) == (2, True), err
    assert not service.calls


def test_captions_of_a_table(here, service, tmp_path) -> None:
    (tmp_path / "talk.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nHello!\n")
    table = tmp_path / "jobs.csv"
    header = "model_id,audio_url,text,voice_name,Captions file,Transcript"
    rows = [header, "leo,https://x/a.wav,,,talk.vtt,", "leo,,Hello!,heart,,", "leo,https://x/c.wav,,,,I say."]
    table.write_text("\n".join(rows))
    assert here("batch", "jobs.csv", "-o", "videos", "--captions", "track")[0] == 0
    first, second, third = sorted((one.options for one in service.submissions), key=sorted)
    assert first == {"captions": ["track"]}
    assert second == {"captions": ["track"], "captions_file": (tmp_path / "talk.vtt").read_text()}
    assert third == {"captions": ["track"], "transcript": "I say."}
    # Nothing is submitted again, but for other captions.
    assert here("batch", "jobs.csv", "-o", "videos", "--captions", "track")[0] == 0
    assert len(service.submissions) == 3
    table.write_text("\n".join([*rows, "leo,https://x/b.wav,,,,", "leo,https://x/b.wav,,,jobs.csv,"]))
    code, _, err = here("batch", "jobs.csv", "-o", "videos", "--captions", "track")
    assert code == 2
    assert "row 5, captions_file: it is missing or empty, and so is transcript; --captions needs" in err
    assert "row 6, captions_file: " in err
    assert "line 1: 'model_id,audio_url,text" in err
    assert len(service.submissions) == 3


def test_a_batch_saves_captions_beside_its_videos(here, service, tmp_path) -> None:
    """Also those that an earlier run could not download, and never in place of the captions that the user has made."""
    table = tmp_path / "jobs.csv"
    table.write_text(
        "model_id,text,voice_name,audio_url,transcript,name\nleo,Hello!,heart,,,a\nleo,,,https://x/b.wav,I say.,b\n"
    )
    command = ["batch", "jobs.csv", "-o", "videos", "--captions", "files"]
    service.reply("file", lambda call: Reply(404, b"") if "v1.vtt" in call.url else None, times=None)
    code, _, err = here(*command)
    assert (code, "the captions could not be fetched: HTTP 404" in err) == (1, True)
    files = {path.name: path for path in (tmp_path / "videos").glob("[ab].*")}
    assert sorted(files) == ["a.mp4", "b.mp4", "b.srt", "b.vtt"]
    service.recover("file")
    assert here(*command)[0] == 0
    assert (tmp_path / "videos/a.srt").read_text().endswith("captions of v1\n")
    assert (tmp_path / "videos/a.vtt").read_text().endswith("captions of v1\n")
    assert len(service.submissions) == 2
    assert here(*command)[0] == 0
    assert len(service.submissions) == 2


def test_a_batch_never_replaces_the_captions_that_it_reads(here, service, tmp_path) -> None:
    (tmp_path / "one.srt").write_text(SRT)
    (tmp_path / "jobs.csv").write_text("model_id,audio_url,captions_file,name\nleo,https://x/a.wav,one.srt,one\n")
    command = ["batch", "jobs.csv", "-o", ".", "--captions", "files"]
    code, _, err = here(*command)
    assert (code, "one.srt exists already" in err) == (2, True), err
    code, _, err = here(*command, "--overwrite")
    assert (code, "one.srt is the manifest or a recording or its text" in err) == (2, True), err
    assert (tmp_path / "one.srt").read_text() == SRT
    assert not service.submissions


def test_captions_beside_recordings(here, service, tmp_path) -> None:
    (tmp_path / "recordings").mkdir()
    for name in ("one.wav", "two.wav"):
        (tmp_path / "recordings" / name).write_bytes(name.encode())
    (tmp_path / "recordings/one.srt").write_text(SRT)
    command = ["batch", "recordings", *SPEAKER, "-o", "videos", "--captions", "burned", "--local", "--dry-run"]
    code, _, err = here(*command)
    assert code == 2
    assert "recordings/two.wav: --captions needs its text beside it: there is no two.srt, two.vtt or two.txt" in err
    (tmp_path / "recordings/two.vtt").write_text(f"WEBVTT\n\n{SRT}")
    (tmp_path / "recordings/two.txt").write_text("Not used beside two.vtt.")
    code, out, err = here(*command)
    assert (code, "2 videos" in out) == (0, True), out
    assert err == "a2v: recordings: skipped (not recordings): two.txt\n"
    (tmp_path / "recordings/two.txt").unlink()
    assert here(*command)[2] == ""
    # As a shell passes recordings/* on.
    files = [f"recordings/{path.name}" for path in (tmp_path / "recordings").iterdir()]
    assert here("batch", *files, *command[2:])[1] == out
    without = [one for one in command if one not in {"--captions", "burned"}]
    assert here(*without)[2] == "a2v: recordings: skipped (not recordings): one.srt, two.vtt\n"


@pytest.mark.parametrize("command", [["generate", "https://x/a.wav"], ["say", "Hello!"]])
def test_a_character_is_chosen_by_its_name_before_anything_is_submitted(here, service, command) -> None:
    service.characters = [
        a2v.Character(model_id="eva_a0008", display_name="Eva 01", gender="female"),
        a2v.Character(model_id="leo_a0004", display_name="Leo"),
        a2v.Character(model_id="leo_a0005", display_name="Leo"),
    ]
    for name, problem in (
        ("eva_a8", "there is no character 'eva_a8'; did you mean 'eva_a0008'?"),
        ("Leo", "2 characters are called 'Leo': use one of 'leo_a0004', 'leo_a0005'"),
    ):
        code, _, err = here(*command, "--model-id", name)
        assert (code, err) == (2, f"a2v: --model-id: {problem}\n")
    assert not service.syntheses
    assert not service.submissions

    assert here(*command, "--model-id", "eva 01")[0] == 0
    assert service.submissions[0].model_id == "eva_a0008"
