"""Commands that bring their own engine and really render."""

from __future__ import annotations

import json
import urllib.request
import wave

import av
import pytest


def seconds(path):
    with av.open(path) as video:
        assert {stream.type for stream in video.streams} == {"video", "audio"}
        return video.duration / 1e6


def test_generate_renders_a_file_of_this_machine(a2v, environment, service, tmp_path, speech):
    (tmp_path / "my speech.flac").write_bytes(speech.read_bytes())
    del environment["A2V_TOKEN"]

    done = a2v("generate", "my speech.flac", "--model-id", "eva_a0008", "--local", "-o", "hello.mp4")

    assert (done.returncode, done.stderr) == (0, "")
    assert seconds(tmp_path / "hello.mp4") == pytest.approx(3.1, abs=0.2)
    assert service.calls == ()


def test_a_recording_without_speech_causes_a_warning(a2v, service, tmp_path):
    with wave.open(str(tmp_path / "silent.wav"), "wb") as recording:
        recording.setparams((1, 2, 16000, 0, "NONE", ""))
        recording.writeframes(bytes(3200))
    said = "no speech was found in the recording, so the mouth stays closed"
    assert (
        f"a2v: silent: {said}\n" in a2v("batch", "silent.wav", "--model-id", "eva_a0008", "-o", "v", "--local").stderr
    )

    service.add_video("silent", "pending", "finished", message=said)
    assert a2v("download", "silent", "-o", "silent.mp4").stderr == f"a2v: silent.mp4: {said}\n"
    for command in ("watch", "get"):
        assert a2v(command, "silent").stderr == f"a2v: video silent: {said}\n"
    service.add_video("failed", "error", message="the reason")
    assert a2v("get", "failed").stderr == ""


def test_a_recording_that_is_none(a2v, tmp_path):
    (tmp_path / "notes.wav").write_text("not a recording\x1b[31m")

    done = a2v("generate", "notes.wav", "--model-id", "eva_a0008", "--local", "-o", "hello.mp4")

    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.wav"]


def test_local_keeps_videos_only_with_a_data_folder(a2v):
    done = a2v("get", "v1", "--local")

    assert done.returncode == 1
    assert "with --data-dir DIR it keeps its videos" in done.stderr
    # Nothing of an earlier command is missing here.
    done = a2v("say", "Hello!", "--model-id", "eva_a0008", "--local", "-o", "hello.mp4", "--voice", "nobody")
    assert (done.returncode, "--data-dir" in done.stderr) == (1, False)


def test_local_characters(a2v):
    ids = [character["model_id"] for character in json.loads(a2v("characters", "--local", "--json").stdout)]

    assert "eva_a0008" in ids
    assert len(set(ids)) >= 4


def test_the_budget_of_an_account_elsewhere_is_not_used(here, monkeypatch):
    monkeypatch.setenv("A2V_BUDGET", "/no/such/folder/a2v.budget")

    assert here("characters", "--local")[0] == 0
    assert here("doctor", "--local")[0] == 0


def test_serve_serves_what_the_other_commands_ask_for(a2v, started, environment, tmp_path, speech):
    with started("serve", "--port", "0", "--json", "--allow-files", speech.parent) as process:
        ready = json.loads(process.stdout.readline())
        # The token was the user's own: no need to print it.
        assert ready["token"] is None
        with urllib.request.urlopen(ready["base_url"]) as page:
            assert page.status == 200
        done = a2v(
            "generate", speech.as_uri(), "--model-id", "eva_a0008", "-o", "v.mp4", "--base-url", ready["base_url"]
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert seconds(tmp_path / "v.mp4") > 3


def test_demo(a2v, environment, tmp_path):
    for name in ("A2V_TOKEN", "A2V_BASE_URL"):
        del environment[name]
    (tmp_path / "a2v-demo").mkdir()
    (tmp_path / "a2v-demo" / "eva_a0008-june.mp4").write_text("of an earlier demo")

    done = a2v("demo")

    assert (done.returncode, done.stderr) == (0, "")
    videos = sorted((tmp_path / "a2v-demo").iterdir())
    assert len(videos) >= 4
    assert len({path.name.split("-")[0] for path in videos}) == len(videos), "each character speaks once"
    for path in videos:
        assert seconds(path) > 3
        assert f"\tsaved\t{path}\n" in done.stdout
    # All are in line before the first is done.
    words = [line.split("\t")[1] for line in done.stdout.splitlines() if "\t" in line]
    assert words[: len(videos)] == ["pending"] * len(videos)


def test_demo_needs_a_folder(a2v, tmp_path):
    (tmp_path / "taken").touch()

    assert a2v("demo", "-o", "taken").returncode == 2


def test_the_clips_come_with_their_licence():
    from a2v.cli.demo import CLIPS, FOLDER

    licence = (FOLDER / "LICENSE.md").read_text()

    assert {path.name for path in FOLDER.iterdir()} == {clip.path.name for clip in CLIPS} | {"LICENSE.md"}
    assert all(f"`{clip.path.name}`" in licence for clip in CLIPS)
    assert {clip.gender for clip in CLIPS} == {"female", "male"}
