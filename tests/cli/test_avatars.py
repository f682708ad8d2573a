"""Avatars, poses and masks on the command line."""

from __future__ import annotations

import json

import pytest

from a2v import Avatar, Pose
from a2v.testing import Submission

AUDIO = "https://example.com/hello.wav"
STANDING = {"pose_id": "p1", "name": "standing", "preview_url": "http://p1"}
SITTING = {"pose_id": "p2", "name": "sitting", "preview_url": ""}
MIA = {"avatar_type": "human", "name": "mia", "gender": "female", "display_name": "Mia", "preview_url": "http://mia"}


@pytest.fixture
def service(service):
    """It is of the later revision, and Mia can speak."""
    service.avatars = [Avatar(avatar_id="a1", poses=(Pose(**STANDING), Pose(**SITTING)), **MIA)]
    return service


def test_avatars(here, service):
    code, out, err = here("avatars")

    assert (code, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == [
        ["p1", "Mia", "standing", "female", "http://p1"],
        ["p2", "Mia", "sitting", "female", "http://mia"],
    ]
    assert json.loads(here("avatars", "--json")[1]) == [{"id": "a1", "poses": [STANDING, SITTING], **MIA}]


def test_a_server_without_avatars(here, service):
    service.avatars = None

    code, _, err = here("avatars")

    assert code == 1
    assert "this server does not have the call avatar.list" in err


def test_a_video_of_a_pose_and_its_mask(here, service, tmp_path):
    code, out, err = here("generate", AUDIO, "--pose-id", "p1", "-o", "a.mp4", "--mask-output", "masks/a.mp4")

    assert (code, err) == (0, "")
    (submit,) = service.submissions
    assert submit == Submission(at=submit.at, video_id="v1", pose_id="p1", audio_url=AUDIO, with_mask=True)
    assert (tmp_path / "a.mp4").read_bytes() == b"video of v1"
    assert (tmp_path / "masks/a.mp4").read_bytes() == b"video of v1-mask"
    last = out.splitlines()[-1].split("\t")
    assert last == ["v1", "saved", str(tmp_path / "a.mp4"), str(tmp_path / "masks/a.mp4")]


def test_with_mask_and_no_file_gives_both_urls(here, service):
    code, out, _ = here("generate", AUDIO, "--pose-id", "p1", "--with-mask", "--json")

    assert code == 0
    assert service.submissions[0].with_mask is True
    last = json.loads(out.splitlines()[-1])
    assert last["video_url"].startswith(f"{service.files_url}/files/v1.mp4?")
    assert last["mask_video_url"].startswith(f"{service.files_url}/files/v1-mask.mp4?")


def test_a_mask_is_downloaded_later(here, service, tmp_path):
    service.add_video("v1", with_mask=True)

    code, out, _ = here("download", "v1", "-o", "a.mp4", "--mask-output", "m.mp4", "--json")

    assert code == 0
    assert json.loads(out.splitlines()[-1])["mask_path"] == str(tmp_path / "m.mp4")
    assert (tmp_path / "m.mp4").read_bytes() == b"video of v1-mask"


def test_a_video_without_a_mask_is_saved_all_the_same(here, service, tmp_path):
    service.add_video("v1")

    code, _, err = here("download", "v1", "-o", "a.mp4", "--mask-output", "m.mp4")

    assert code == 1
    assert "video v1 has no mask; videos get one if they are submitted with" in err
    assert "--with-mask" in err
    assert "The video itself was saved: a.mp4" in err
    assert "a2v download" not in err
    assert (tmp_path / "a.mp4").read_bytes() == b"video of v1"
    assert not (tmp_path / "m.mp4").exists()


def test_a_mask_that_cannot_be_fetched_and_how_to_get_it(here, service, tmp_path):
    service.add_video("v1", with_mask=True)
    service.refuse("file", 410, times=2)  # the mask, once more with a new URL; then the video

    code, _, err = here("download", "v1", "-o", "a.mp4", "--mask-output", "m.mp4")

    assert code == 1
    assert (tmp_path / "a.mp4").read_bytes() == b"video of v1"
    (again,) = [line.split() for line in err.splitlines() if line.startswith("  a2v download")]
    assert here(*again[1:])[0] == 0
    assert (tmp_path / "m.mp4").read_bytes() == b"video of v1-mask"


def test_a_mask_that_would_be_lost_is_refused(here):
    """With the engine of --local, which forgets what it made."""
    arguments = ["generate", AUDIO, "--pose-id", "eva_a0008", "--with-mask", "-o", "a.mp4", "--local"]

    code, _, err = here(*arguments)

    assert code == 2
    assert "--mask-output FILE" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model-id"),
        (["--model-id", "m", "--pose-id", "p"], "not both"),
        (["--model-id", "m", "--with-mask"], "--with-mask requires a --pose-id"),
        (["--model-id", "m", "--mask-output", "m.mp4"], "--with-mask requires a --pose-id"),
        (["--pose-id", "p", "--mask-output", "there.mp4"], "--mask-output: there.mp4 exists;"),
        (["--pose-id", "p", "--mask-output", "."], "--mask-output: . is a folder"),
        (
            ["--pose-id", "p", "--mask-output", "a.mp4", "-o", "./a.mp4"],
            "--mask-output: a.mp4 is the file of the video",
        ),
    ],
)
def test_what_is_refused_before_anything_is_paid_for(here, service, tmp_path, arguments, words):
    (tmp_path / "there.mp4").touch()

    code, _, err = here("generate", AUDIO, *arguments)

    assert code == 2
    assert words in err
    assert not service.submissions
