"""Avatars, poses and masks, which servers of the service's later revision have, and others do not."""

from __future__ import annotations

import json

import httpx
import pytest

import a2v

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

AUDIO = "https://example.com/hello.wav"
STANDING = {"pose_id": "p1", "name": "standing", "preview_url": "https://x/p1.png"}
SITTING = {"pose_id": "p2", "name": "sitting", "preview_url": "https://x/p2.png"}
MIA = {"id": "a1", "avatar_type": "human", "name": "mia", "display_name": "Mia", "poses": [STANDING, SITTING, STANDING]}
PAGE_404 = httpx.Response(404, text="<h1>Not Found</h1>")
PLAIN_404 = httpx.Response(404, text="Not Found")  # as Starlette answers for an unknown path
EMPTY_404 = httpx.Response(404)


def envelope(code: object, data: object = None, message: str = "as scripted", status: int = 200):
    return httpx.Response(status, json={"code": code, "message": message, "data": data})


# -- who there is -----------------------------------------------------------------------------------------------------


async def test_avatars_come_with_their_poses_each_once(service, make_client) -> None:
    service.replies["avatar.list"] = [envelope(0, [MIA])]
    async with make_client() as client:
        (mia,) = await client.avatars.list()
    assert (mia.avatar_id, mia.display_name, mia.avatar_type) == ("a1", "Mia", "human")
    assert [pose.pose_id for pose in mia.poses] == ["p1", "p2"]
    assert mia.raw == MIA


async def test_the_poses_of_one(service, make_client) -> None:
    service.replies["avatar-pose.list"] = [envelope(0, [STANDING, STANDING])]
    async with make_client() as client:
        assert await client.avatars.poses("a1") == [
            a2v.Pose(pose_id="p1", name="standing", preview_url="https://x/p1.png")
        ]
    (request,) = service.requests
    assert (request.method, request.url.params["avatar_id"]) == ("GET", "a1")


@pytest.mark.parametrize("avatar_id", ["", " ", None, 5, a2v.Avatar(avatar_id="a1")], ids=repr)
async def test_no_avatar_id(service, make_client, avatar_id) -> None:
    async with make_client() as client:
        with pytest.raises(ValueError, match="avatar_id must be the id of an avatar"):
            await client.avatars.poses(avatar_id)
    assert not service.requests


# -- a server without a call, or without a thing ----------------------------------------------------------------------

CALLS = {
    "avatar.list": lambda client: client.avatars.list(),
    "avatar-pose.list": lambda client: client.avatars.poses("a1"),
    "video.list": lambda client: client.videos.list(),
    "video.get": lambda client: client.videos.get("v"),
    "video.generate": lambda client: client.videos.generate(pose_id="p1", audio_url=AUDIO),
}


async def missing(service, make_client, check, call: str, reply: httpx.Response) -> a2v.NotFoundError:
    service.replies[call] = [reply]
    async with make_client() as client:
        with pytest.raises(a2v.NotFoundError) as caught:
            await CALLS[call](client)
    check(caught.value)
    assert len(service.requests) == 1
    return caught.value


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (PAGE_404, "not found; a web page answered, not the API: Not Found"),
        (PLAIN_404, "not found; something other than the API answered: Not Found"),
        (EMPTY_404, "not found"),
    ],
    ids=["page", "plain", "empty"],
)
async def test_a_404_that_is_not_of_the_api_means_the_call(service, make_client, check, call, *, reply, told) -> None:
    error = await missing(service, make_client, check, call, reply)
    assert str(error) == f"this server does not have the call {call}: {told} (HTTP 404)"
    assert (error.code, error.status_code) == (None, 404)


@pytest.mark.parametrize("call", ["avatar.list", "video.list"])
@pytest.mark.parametrize("code", [404, 10001])
async def test_all_there_are_cannot_be_missing_so_it_is_the_call(service, make_client, check, call, code) -> None:
    error = await missing(service, make_client, check, call, envelope(code, status=404))
    assert str(error) == f"this server does not have the call {call}: as scripted (HTTP 404, code {code})"
    assert error.message == "as scripted"


@pytest.mark.parametrize("call", ["avatar-pose.list", "video.get", "video.generate"])
async def test_code_10001_means_the_thing(service, make_client, check, call) -> None:
    error = await missing(service, make_client, check, call, envelope(10001, message="no such thing", status=404))
    assert str(error) == "no such thing (HTTP 404, code 10001)"


@pytest.mark.parametrize(
    ("call", "thing"), [("avatar-pose.list", "avatar_id"), ("video.get", "video_id"), ("video.generate", "pose_id")]
)
async def test_any_other_code_may_mean_either(service, make_client, check, call, thing) -> None:
    error = await missing(service, make_client, check, call, envelope(404, status=404))
    said = "as scripted (HTTP 404, code 404)"
    assert str(error) == f"this server does not know the {thing}, or not the call {call}: {said}"


async def test_a_missing_character_is_not_a_missing_pose(service, make_client) -> None:
    service.replies["video.generate"] = [envelope(404, status=404)]
    async with make_client() as client:
        with pytest.raises(a2v.NotFoundError, match="does not know the model_id"):
            await client.videos.generate(model_id="eva_a0008", audio_url=AUDIO)


# -- submitting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"pose_id": "p1"}, {"pose_id": "p1"}),
        ({"pose_id": "p1", "with_mask": False}, {"pose_id": "p1"}),
        ({"pose_id": "p1", "with_mask": True}, {"pose_id": "p1", "with_mask": True}),
        ({"model_id": "m"}, {"model_id": "m"}),
    ],
    ids=repr,
)
async def test_what_is_submitted(service, make_client, arguments, sent) -> None:
    async with make_client() as client:
        task = await client.videos.generate(audio_url=AUDIO, **arguments)
    assert task.video_id == "v1"
    assert json.loads(service.requests[0].content) == sent | {"audio_url": AUDIO}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "model_id must be"),
        ({"model_id": "m", "pose_id": "p1"}, "not both"),
        ({"model_id": "m", "with_mask": True}, "with_mask requires a pose_id"),
        ({"pose_id": ""}, "pose_id must be"),
        ({"pose_id": "p1", "with_mask": "yes"}, "True or False"),
    ],
    ids=repr,
)
async def test_what_cannot_be_is_not_submitted(service, make_client, arguments, words) -> None:
    async with make_client() as client:
        with pytest.raises(ValueError, match=words):
            await client.videos.generate(audio_url=AUDIO, **arguments)
    assert not service.requests


async def test_a_batch_of_poses_and_characters(service, make_client) -> None:
    jobs = [a2v.Job(pose_id="p1", audio_url=AUDIO, with_mask=True), a2v.Job("m", AUDIO)]
    async with make_client() as client, client.batch(jobs) as batch:
        assert [outcome.ok async for outcome in batch] == [True, True]
    assert list(service.jobs.values()) == [
        {"pose_id": "p1", "audio_url": AUDIO, "with_mask": True},
        {"model_id": "m", "audio_url": AUDIO},
    ]


async def test_options_are_sent_as_they_are_and_are_part_of_a_job(service, make_client, tmp_path) -> None:
    wide, plain = {"format": "landscape", "fps": 50}, a2v.Job("m", AUDIO)
    async with make_client() as client:
        await client.videos.generate(model_id="m", audio_url=AUDIO, options=wide)
        for _ in range(2):
            jobs = [a2v.Job("m", AUDIO, options=wide), plain]
            async with client.batch(jobs, journal=tmp_path / "journal.db", save_to=tmp_path, repeat=True) as batch:
                assert all([outcome.ok async for outcome in batch])
    assert [submission.options for submission in service.submissions] == [wide, wide, {}]
    entries = a2v.read_journal(tmp_path / "journal.db")
    assert [entry.job for entry in entries] == [a2v.Job("m", AUDIO, options=wide), plain]


# -- masks ------------------------------------------------------------------------------------------------------------


def finished(**urls: str) -> httpx.Response:
    return envelope(0, {"video_id": "v", "status": "finished", "video_url": "https://files.example/v.mp4"} | urls)


async def test_a_mask_is_fetched_like_a_video(service, make_client, tmp_path) -> None:
    service.replies["video.get"] = [finished(mask_video_url="https://files.example/mask.mp4?signature=s")]
    service.replies["mask.mp4"] = [httpx.Response(200, content=b"a mask")]
    async with make_client() as client:
        task = client.videos.task("v")
        path = await task.download(tmp_path / "mask.mp4", mask=True)
        assert path.read_bytes() == b"a mask"
        assert (await task.download(tmp_path / "v.mp4")).read_bytes() == b"a video"
    (request,) = service.seen("mask.mp4")
    assert "authorization" not in request.headers


async def test_an_expired_mask_is_asked_for_anew(service, make_client, tmp_path) -> None:
    service.replies["video.get"] = [
        finished(mask_video_url="https://files.example/mask.mp4?1"),
        finished(mask_video_url="https://files.example/mask.mp4?2"),
    ]
    service.replies["mask.mp4"] = [httpx.Response(403), httpx.Response(200, content=b"a mask")]
    async with make_client() as client:
        await client.videos.task("v").download(tmp_path / "mask.mp4", mask=True)
    assert [request.url.query for request in service.seen("mask.mp4")] == [b"1", b"2"]


async def test_a_video_without_a_mask(service, make_client, check, tmp_path) -> None:
    service.replies["video.get"] = [finished()]
    async with make_client() as client:
        with pytest.raises(a2v.DownloadError, match=r"video v has no mask.*with_mask=True") as caught:
            await client.videos.task("v").download(tmp_path / "mask.mp4", mask=True)
    check(caught.value)
    assert not list(tmp_path.iterdir())
