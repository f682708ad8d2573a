"""Where commands save files: what is refused before anything is paid for, and what no video ever replaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from a2v import engine

AUDIO = "https://example.com/hello.wav"
VOICE = next((Path(engine.__file__).parent / "recordings").glob("*.flac"))
GENERATE = ["generate", AUDIO, "--model-id", "eva_a0008"]


@pytest.mark.parametrize("command", [["generate", AUDIO, "--model-id", "m"], ["download", "v1"]])
@pytest.mark.parametrize("option", ["-o", "--mask-output"])
@pytest.mark.parametrize("kind", ["pipe", "link to a device", "loop"])
def test_devices_pipes_and_sockets_are_not_replaced(here, service, tmp_path, command, option, kind) -> None:  # noqa: PLR0917
    target = tmp_path / "there"
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/null" if kind == "link to a device" else target)
    before = (target.lstat().st_mode, target.lstat().st_ino)
    more = ["-o", "v.mp4"] if option == "--mask-output" else []
    if command[0] == "generate" and more:
        command = [*command[:2], "--pose-id", "p"]

    for overwrite in ([], ["--overwrite"]):
        code, _, err = here(*command, *more, option, "there", *overwrite)
        assert code == 2
        assert "there" in err
        assert "--overwrite" not in err
    assert (target.lstat().st_mode, target.lstat().st_ino) == before
    assert not service.submissions


def test_a_link_stays_and_its_file_is_written(here, service, tmp_path) -> None:
    service.add_video("v1")
    (tmp_path / "real.mp4").write_text("old")
    (tmp_path / "v.mp4").symlink_to("real.mp4")

    assert here("download", "v1", "-o", "v.mp4")[0] == 2
    assert here("download", "v1", "-o", "v.mp4", "--overwrite")[0] == 0

    assert (tmp_path / "v.mp4").is_symlink()
    assert (tmp_path / "real.mp4").read_bytes() == b"video of v1"


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *((option, name) for option in ("-o", "--mask-output") for name in ("q.avi", "q.WAV", "take 1.mp3")),
        *(("--mask-output", name) for name in ("q.mov", "q.webm", "q.gif", "q.webp")),
    ],
)
def test_endings_of_other_formats(here, service, option, name) -> None:
    code, _, err = here("generate", AUDIO, "--pose-id", "p1", option, name)

    assert code == 2
    assert f"name the file {Path(name).stem}.mp4, not {name}" in err
    assert not service.submissions


@pytest.mark.parametrize("name", ["q.webm", "q.MOV", "q.webp", "q.gif", "q.mp4"])
def test_the_extension_chooses_the_container(here, service, name) -> None:
    options = ["--size", "720", "--format", "landscape", "--fps", "50", "--background", "#203040", "--mood", "warm"]
    assert here("generate", AUDIO, "--model-id", "eva_a0008", "-o", name, *options)[0] == 0

    container = Path(name).suffix[1:].lower()
    (submission,) = service.submissions
    expected = {
        "size": 720,
        "format": "landscape",
        "fps": 50,
        "background": "#203040",
        "mood": "warm",
        "container": container,
    }
    if container == "mp4":  # the default, which other servers need not know
        del expected["container"]
    assert submission.options == expected


def test_a_background_is_not_a_file_of_this_machine_for_a_server_elsewhere(here, service, tmp_path) -> None:
    (tmp_path / "picture.png").touch()
    for background, words in (("picture.png", "is a file on this machine"), ("blue", "is neither a colour such as")):
        code, _, err = here("generate", AUDIO, "--model-id", "eva_a0008", "-o", "q.mp4", "--background", background)
        assert code == 2
        assert f"--background: '{background}' {words}" in err
    assert not service.submissions


@pytest.mark.parametrize("name", ["v.mp4", "V.MP4", "video", "Lesson 1. Greetings", "v.m4v", "语" * 83 + ".mp4"])
def test_other_names_are_left_to_the_user(here, service, tmp_path, name) -> None:
    service.add_video("v1")

    assert here("download", "v1", "-o", name)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long(here, service) -> None:
    code, _, err = here(*GENERATE, "-o", "语" * 84 + ".mp4")

    assert code == 2
    assert "File name too long" in err
    assert not service.submissions


@pytest.mark.parametrize("spelling", ["itself", "another spelling", "link", "hard link", "URL"])
@pytest.mark.parametrize("option", ["-o", "--mask-output"])
def test_the_recording_is_never_replaced(here, tmp_path, spelling, option) -> None:
    recording = tmp_path / "voice.mp4"
    recording.write_bytes(VOICE.read_bytes())
    (tmp_path / "folder").mkdir()
    audio, target = "voice.mp4", "voice.mp4"
    if spelling == "another spelling":
        target = "folder/../voice.mp4"
    elif spelling == "URL":
        audio = recording.as_uri()
    elif spelling != "itself":
        target = "v.mp4"
        (Path(target).symlink_to if spelling == "link" else Path(target).hardlink_to)(recording)
    other = ["-o", "o.mp4"] if option == "--mask-output" else []

    for server in (["--local"], ["--local", "--data-dir", "kept"]):
        code, _, err = here("generate", audio, "--pose-id", "p", *other, option, target, "--overwrite", *server)
        assert code == 2
        assert "is the recording" in err
    assert recording.read_bytes() == VOICE.read_bytes()


@pytest.mark.parametrize("needed", ["manifest", "recording"])
@pytest.mark.parametrize("kind", ["link", "hard link"])
@pytest.mark.parametrize("name", ["one.mp4", "one.mask.mp4"])
def test_a_batch_never_replaces_its_recordings_or_journal(here, tmp_path, needed, kind, name) -> None:
    recording, manifest, folder = tmp_path / "voice.flac", tmp_path / "jobs.csv", tmp_path / "videos"
    recording.write_bytes(VOICE.read_bytes())
    manifest.write_text("audio_url,model_id,name\nvoice.flac,eva_a0008,one\n")
    folder.mkdir()
    there = manifest if needed == "manifest" else recording
    before = there.read_bytes()
    ((folder / name).symlink_to if kind == "link" else (folder / name).hardlink_to)(there)

    code, _, err = here("batch", "jobs.csv", "-o", "videos", "--local", "--overwrite")

    assert code == 2
    assert "is the manifest or a recording" in err
    assert there.read_bytes() == before


def test_a_tilde_is_expanded_as_in_python(here, service, tmp_path, monkeypatch) -> None:
    service.add_video("v1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert here("download", "v1", "--output=~/sub/v.mp4")[0] == 0
    assert (tmp_path / "home" / "sub" / "v.mp4").read_bytes() == b"video of v1"
    for arguments in (["download", "v1", "--output=~nobody-of-this-name/v.mp4"], ["journal", "~nobody-of-this-name/j"]):
        code, _, err = here(*arguments)
        assert code == 2
        assert "no such home folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
