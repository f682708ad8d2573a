"""Avatars, poses and masks on the command line."""

from __future__ import annotations

import json

import pytest

AUDIO = "https://example.com/hello.wav"
MIA = {
    "id": "a1",
    "avatar_type": "human",
    "name": "mia",
    "gender": "female",
    "display_name": "Mia",
    "preview_url": "http://mia",
    "poses": [
        {"pose_id": "p1", "name": "standing", "preview_url": "http://p1"},
        {"pose_id": "p2", "name": "sitting", "preview_url": ""},
    ],
}


def test_avatars(here, service):
    service.avatars = [MIA]

    code, out, err = here("avatars")

    assert (code, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == [
        ["p1", "Mia", "standing", "female", "http://p1"],
        ["p2", "Mia", "sitting", "female", "http://mia"],
    ]
    assert json.loads(here("avatars", "--json")[1]) == [MIA]


def test_a_server_without_avatars(here):
    code, _, err = here("avatars")

    assert code == 1
    assert "this server does not have the call avatar.list" in err


def test_a_video_of_a_pose_and_its_mask(here, service, tmp_path):
    service.video("v1", "pending", "finished")
    service.files["/files/mask.mp4"] = b"a mask"
    service.videos["v1"][-1]["mask_video_url"] = f"{service.url}/files/mask.mp4"

    code, out, err = here("generate", AUDIO, "--pose-id", "p1", "-o", "a.mp4", "--mask-output", "masks/a.mp4")

    assert (code, err) == (0, "")
    assert service.submits == [{"pose_id": "p1", "audio_url": AUDIO, "with_mask": True}]
    assert (tmp_path / "a.mp4").read_bytes() == b"video of v1"
    assert (tmp_path / "masks/a.mp4").read_bytes() == b"a mask"
    last = out.splitlines()[-1].split("\t")
    assert last == ["v1", "saved", str(tmp_path / "a.mp4"), str(tmp_path / "masks/a.mp4")]


def test_with_mask_and_no_file_gives_both_urls(here, service):
    service.video("v1", "finished", mask_video_url="http://mask")

    code, out, _ = here("generate", AUDIO, "--pose-id", "p1", "--with-mask", "--json")

    assert code == 0
    assert service.submits[0]["with_mask"] is True
    assert json.loads(out.splitlines()[-1])["mask_video_url"] == "http://mask"


def test_a_mask_is_downloaded_later(here, service, tmp_path):
    service.video("v1", "finished", mask_video_url=f"{service.url}/files/v1.mp4")

    code, out, _ = here("download", "v1", "-o", "a.mp4", "--mask-output", "m.mp4", "--json")

    assert code == 0
    assert json.loads(out.splitlines()[-1])["mask_path"] == str(tmp_path / "m.mp4")
    assert (tmp_path / "m.mp4").read_bytes() == b"video of v1"


def test_a_video_without_a_mask_and_how_to_pick_it_up(here, service):
    service.video("v1", "finished")

    code, _, err = here("download", "v1", "-o", "a.mp4", "--mask-output", "m.mp4")

    assert code == 1
    assert "video v1 has no mask" in err
    assert "a2v download v1 -o a.mp4 --mask-output m.mp4" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model-id"),
        (["--model-id", "m", "--pose-id", "p"], "not both"),
        (["--model-id", "m", "--with-mask"], "with_mask goes with a pose_id"),
        (["--model-id", "m", "--mask-output", "m.mp4"], "with_mask goes with a pose_id"),
        (["--pose-id", "p", "--mask-output", "there.mp4"], "--mask-output: there.mp4 is there already"),
        (["--pose-id", "p", "--mask-output", "."], "--mask-output: . is a folder"),
    ],
)
def test_what_is_refused_before_anything_is_paid_for(here, service, tmp_path, arguments, words):
    (tmp_path / "there.mp4").touch()

    code, _, err = here("generate", AUDIO, *arguments)

    assert code == 2
    assert words in err
    assert not service.submits
