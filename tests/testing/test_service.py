"""The service: its default behaviour, its scripting, and its records."""

from __future__ import annotations

import anyio
import httpx
import pytest

import a2v
from a2v.testing import Call, FixedWindow, Reply, Service, SlidingWindow, Submission, Synthesis, TokenBucket

pytestmark = pytest.mark.anyio

JOB = {"model_id": "eva_a0008", "audio_url": "https://example.com/hello.wav"}
POST = {"headers": {"authorization": "Bearer t"}}
API = "https://a2v.example/v1/a2v"


async def words(task: a2v.AsyncVideoTask) -> list[str]:
    return [video.status.value async for video in task.watch()]


def raw(service: Service) -> httpx.AsyncClient:
    """For what no client of ours would send."""
    return httpx.AsyncClient(transport=service.transport(), **POST)


# -- what it does -----------------------------------------------------------------------------------------------------


async def test_a_video_from_its_submission_to_its_file(client, tmp_path) -> None:
    service = Service(render_seconds=900, pending_seconds=60)
    async with client(service) as a2v_client:
        task = await a2v_client.videos.generate(**JOB)
        assert await words(task) == ["pending", "in_progressing", "finished"]
        path = await task.download(tmp_path / "v.mp4")
    assert path.read_bytes() == b"video of v1"
    assert service.submissions == (Submission(at=0.0, video_id="v1", **JOB),)
    assert 960 <= service.polls[-1].at < 1000
    assert {call.name for call in service.calls} == {"video.generate", "video.get", "file"}
    assert {call.video_id for call in service.calls} == {"v1"}
    assert {call.status for call in service.calls} == {200}
    assert "authorization" not in service.seen("file")[0].headers


async def test_by_default_a_render_takes_no_time_and_eva_speaks(client) -> None:
    service = Service()
    async with client(service) as a2v_client:
        (eva,) = await a2v_client.characters.list()
        task = await a2v_client.videos.generate(model_id=eva.model_id, audio_url=JOB["audio_url"])
        assert await words(task) == ["finished"]
    assert repr(service) == "<Service 1 submissions, 3 calls>"


async def test_each_render_takes_its_own_time(client) -> None:
    service = Service(render_seconds=lambda submit: 10 if submit.model_id == "quick" else 5000)
    async with client(service) as a2v_client:
        slow, quick = [a2v.Job(name, JOB["audio_url"]) for name in ("slow", "quick")]
        async with a2v_client.batch([slow, quick]) as batch:
            assert [outcome.job async for outcome in batch] == [quick, slow]


async def test_renderers_work_on_so_many_at_a_time(client) -> None:
    service = Service(render_seconds=600, renderers=2)
    async with client(service) as a2v_client, a2v_client.batch([a2v.Job(**JOB)] * 5) as batch:
        assert len([outcome async for outcome in batch]) == 5
    assert 1800 <= service.calls[-1].at < 1900


async def test_poll_statuses_replace_seconds(client) -> None:
    service = Service(poll_statuses=["pending", "polishing", "in_progressing", "finished"])
    async with client(service) as a2v_client:
        assert await words(await a2v_client.videos.generate(**JOB)) == [
            "pending",
            "unknown",
            "in_progressing",
            "finished",
        ]


async def test_the_first_revision_of_the_service(client) -> None:
    service = Service(render_seconds=90, statuses=False, lists_videos=False)
    async with client(service) as a2v_client:
        task = await a2v_client.videos.generate(**JOB)
        assert await words(task) == ["in_progressing", "finished"]
        assert "status" not in task.video.raw
        with pytest.raises(a2v.NotFoundError, match=r"video\.list"):
            await a2v_client.videos.list()


async def test_avatars_poses_and_masks() -> None:
    pose = a2v.Pose(pose_id="p1", name="standing")
    service = Service(avatars=[a2v.Avatar(avatar_id="a1", display_name="Ada", poses=(pose,))])
    async with raw(service) as http:
        (avatar,) = (await http.get(f"{API}/avatar.list")).json()["data"]
        assert (avatar["id"], avatar["poses"][0]["pose_id"]) == ("a1", "p1")
        assert (await http.get(f"{API}/avatar-pose.list?avatar_id=a1")).json()["data"] == avatar["poses"]
        assert (await http.get(f"{API}/avatar-pose.list?avatar_id=a2")).json()["code"] == 10001
        body = {"pose_id": "p1", "audio_url": JOB["audio_url"], "with_mask": True}
        assert (await http.post(f"{API}/video.generate", json=body | {"pose_id": "p2"})).status_code == 400
        assert (await http.post(f"{API}/video.generate", json=body)).json()["data"]["video_id"] == "v1"
        video = (await http.get(f"{API}/video.get?video_id=v1")).json()["data"]
        assert (await http.get(video["mask_video_url"])).content == b"video of v1-mask"
        assert "captions_url" not in video
    assert (service.submissions[0].pose_id, service.submissions[0].with_mask) == ("p1", True)


async def test_voices_speak_texts(client) -> None:
    service = Service(voices=[a2v.Voice(voice_name="heart", tags=("warm",))], url_seconds=60)
    async with client(service) as a2v_client, raw(service) as web:
        assert await a2v_client.voices.list() == list(service.voices)
        speech = await a2v_client.voices.generate(text="Hello!", voice_name="heart")
        assert (await web.get(speech.url)).content == b"recording of speech1"
        assert (await web.get(speech.url.replace("speech1", "speech2"))).status_code == 404
        await a2v_client.videos.generate(model_id="eva_a0008", text="Bye!", voice_name="heart")
        tts = API.replace("a2v/v1", "tts/v1").replace("/v1/a2v", "/v1/tts")
        assert (await web.get(f"{tts}/voice.generate", **POST)).status_code == 405
        assert (await web.post(f"{tts}/voice.generate", json=["Hello!"], **POST)).status_code == 400
        assert (await web.post(f"{tts}/voice.generate", json={"text": "Hello!"}, **POST)).status_code == 400
        await anyio.sleep(100)
        assert (await web.get(speech.url)).status_code == 403
    first, second = service.syntheses
    assert first == Synthesis(at=0.0, text="Hello!", voice_name="heart", url=speech.url)
    assert service.submissions[0].audio_url == second.url
    assert len(service.seen("voice.generate")) == 5


async def test_without_avatars_there_are_none_of_their_calls() -> None:
    async with raw(Service()) as http:
        assert (await http.get(f"{API}/avatar.list")).status_code == 404
        body = {"pose_id": "p1", "audio_url": JOB["audio_url"]}
        assert (await http.post(f"{API}/video.generate", json=body)).status_code == 400


async def test_only_the_given_characters_exist(client) -> None:
    service = Service(characters=[a2v.Character(model_id="ada")])
    async with client(service) as a2v_client:
        assert [one.model_id for one in await a2v_client.characters.list()] == ["ada"]
        with pytest.raises(a2v.APIError, match="no character 'eva_a0008'"):
            await a2v_client.videos.generate(**JOB)
    assert service.submissions == ()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "video.generate", 405),
        ("POST", "video.generate", 400),
        ("GET", "video.get", 400),
        ("GET", "video.get?video_id=v9", 404),
        ("GET", "voice.list", 404),
    ],
)
async def test_requests_that_are_wrong(method, path, status) -> None:
    async with raw(Service()) as http:
        reply = await http.request(method, f"{API}/{path}")
        assert (reply.status_code, reply.json()["data"]) == (status, None)


async def test_tokens(client) -> None:
    service = Service(token="secret")
    async with client(service) as a2v_client:
        with pytest.raises(a2v.AuthenticationError):
            await a2v_client.characters.list()
    async with a2v.AsyncA2V("secret", transport=service.transport()) as a2v_client:
        assert await a2v_client.characters.list()
    assert [call.status for call in service.calls] == [401, 200]


async def test_a_client_closes_its_transport(client) -> None:
    transport = Service().transport()
    async with a2v.AsyncA2V("token", transport=transport):
        assert not transport.closed
    assert transport.closed


def test_time_continues_in_the_next_event_loop(anyio_backend_name) -> None:
    service = Service(render_seconds=100)

    async def look() -> str:
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            await anyio.sleep(60)
            return (await client.videos.get("v1")).status.value

    async def submit() -> None:
        async with a2v.AsyncA2V("token", transport=service.transport()) as client:
            await client.videos.generate(**JOB)
            assert (await client.videos.get("v1")).status is a2v.VideoStatus.IN_PROGRESS
            await anyio.sleep(110)
            await client.characters.list()

    from a2v.testing import run_in_virtual_time

    run_in_virtual_time(submit, backend=anyio_backend_name)
    assert run_in_virtual_time(look, backend=anyio_backend_name) == "finished"
    assert service.calls[-1].at >= 110


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow, TokenBucket])
@pytest.mark.parametrize("reset", ["seconds", "milliseconds", "delta"])
async def test_a_client_keeps_within_an_announced_limit(client, kind, reset) -> None:
    service = Service(limit=kind(10, reset=reset))
    async with client(service, rate_limit=10) as a2v_client:
        for _ in range(25):
            await a2v_client.characters.list()
    assert {call.status for call in service.calls} == {200}
    assert service.calls[-1].at > 60


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow, TokenBucket])
async def test_one_too_many(kind) -> None:
    service = Service(limit=kind(2, per=10))
    async with raw(service) as http:
        replies = [await http.get(f"{API}/character.list") for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert [reply.headers["x-ratelimit-left"] for reply in replies] == ["1", "0", "0"]
        assert replies[2].json()["code"] == 1009
        assert 5 <= int(replies[2].headers["x-ratelimit-reset"]) - 1_700_000_000 <= 10
        await anyio.sleep(10)
        assert (await http.get(f"{API}/character.list")).status_code == 200


async def test_a_limit_that_replies_do_not_speak_of(client) -> None:
    service = Service(limit=FixedWindow(1, reset=None))
    async with client(service, max_retries=0) as a2v_client:
        await a2v_client.characters.list()
        with pytest.raises(a2v.RateLimitError):
            await a2v_client.characters.list()


async def test_a_quota(client) -> None:
    service = Service(quota=2)
    async with client(service) as a2v_client:
        await a2v_client.characters.list()
        await a2v_client.videos.generate(**JOB)
        with pytest.raises(a2v.PermissionDeniedError, match="quota of 2 calls"):
            await a2v_client.videos.generate(**JOB)
    assert len(service.submissions) == 1


async def test_a_share_of_errors_is_outlived(client) -> None:
    service = Service(render_seconds=3000, error_rate=0.3)
    async with client(service) as a2v_client:
        await (await a2v_client.videos.generate(**JOB)).wait()
    assert {call.status for call in service.polls} == {200, 500}
    assert service.seen("video.generate")[0].status == 200


# -- scripting --------------------------------------------------------------------------------------------------------


async def test_renders_that_fail(client) -> None:
    service = Service(render_seconds=600)
    service.fail("no speech", nth=2, times=2)
    async with client(service) as a2v_client, a2v_client.batch([a2v.Job(**JOB)] * 5) as batch:
        outcomes = sorted([outcome async for outcome in batch], key=lambda outcome: outcome.index)
    assert [outcome.ok for outcome in outcomes] == [True, False, False, True, True]
    assert "no speech" in str(outcomes[1].error)


@pytest.mark.parametrize("script", [Service.lose_reply, Service.hang], ids=lambda script: script.__name__)
async def test_a_lost_reply_of_a_submission(client, script) -> None:
    service = Service()
    script(service, nth=2)
    async with client(service) as a2v_client:
        await a2v_client.videos.generate(**JOB)
        with pytest.raises(a2v.SubmissionUnknownError):
            await a2v_client.videos.generate(**JOB)
        await a2v_client.videos.generate(**JOB)
    assert [submit.video_id for submit in service.submissions] == ["v1", "v2", "v3"]
    assert [call.status for call in service.calls] == [200, None, 200]
    assert [call.video_id for call in service.calls] == ["v1", "v2", "v3"]


async def test_a_request_that_did_not_arrive_is_sent_again(client) -> None:
    service = Service()
    service.unreachable("video.generate", times=2)
    async with client(service) as a2v_client:
        await a2v_client.videos.generate(**JOB)
    assert len(service.submissions) == 1
    assert len(service.seen("video.generate")) == 3


async def test_calls_that_are_refused(client) -> None:
    service = Service()
    service.refuse("video.generate", 400, "no such recording")
    service.refuse("character.list", 200, "in the envelope alone", code=7, nth=2)
    async with client(service) as a2v_client:
        with pytest.raises(a2v.APIError, match="no such recording"):
            await a2v_client.videos.generate(**JOB)
        await a2v_client.characters.list()
        with pytest.raises(a2v.APIError, match="in the envelope alone") as caught:
            await a2v_client.characters.list()
    assert (caught.value.status_code, caught.value.code, service.submissions) == (200, 7, ())


async def test_rules_apply_in_order_until_they_are_removed(client) -> None:
    service = Service()
    service.refuse("video.get", 500)
    service.refuse("video.get", 502, nth=3)
    service.reply("video.get", Reply(503, "<html>"))
    service.refuse("video.get", 504, nth=4, times=None)
    async with raw(service) as http:
        for _ in range(6):
            await http.get(f"{API}/video.get?video_id=v1")
        service.recover("video.get")
        service.fail()
        service.recover()
        await http.get(f"{API}/video.get?video_id=v1")
        await http.post(f"{API}/video.generate", json=JOB)
        assert (await http.get(f"{API}/video.get?video_id=v1")).json()["data"]["status"] == "finished"
    assert [call.status for call in service.polls] == [500, 503, 502, 504, 504, 504, 404, 200]


async def test_a_function_that_answers(client) -> None:
    service = Service(render_seconds=100)
    asked: list[Call] = []

    async def answer(call: Call) -> Reply | None:
        asked.append(call)
        await anyio.sleep(1)
        return None if len(asked) > 1 else Reply.success({"video_id": "v1", "status": "dreaming"})

    service.reply("video.get", answer, times=None)
    async with client(service) as a2v_client:
        assert await words(await a2v_client.videos.generate(**JOB)) == ["unknown", "in_progressing", "finished"]
    assert [call.at for call in asked] == [call.at for call in service.polls]


async def test_a_delay(client) -> None:
    service = Service(latency=2)
    service.delay("character.list", 10)
    async with client(service) as a2v_client:
        begun = anyio.current_time()
        await a2v_client.characters.list()
        assert anyio.current_time() - begun == pytest.approx(12, abs=0.01)
        await a2v_client.characters.list()
        assert anyio.current_time() - begun == pytest.approx(14, abs=0.01)


async def test_a_video_submitted_earlier(client) -> None:
    service = Service()
    service.add_video("old", with_mask=True)
    service.add_video("silent", "pending", "finished", message="nobody speaks")
    service.add_video("v1", "pending", "error", message="no speech")
    with pytest.raises(ValueError, match="already"):
        service.add_video("v1")
    async with client(service) as a2v_client:
        old = await a2v_client.videos.task("old").wait()
        assert old.mask_video_url.startswith("https://files.example/files/old-mask.mp4")
        with pytest.raises(a2v.VideoFailedError, match="no speech"):
            await a2v_client.videos.task("v1").wait()
        silent = [video.message async for video in a2v_client.videos.task("silent").watch()]
        assert silent == [None, "nobody speaks"]
        assert (await a2v_client.videos.generate(**JOB)).video_id == "v2"
    assert [submit.video_id for submit in service.submissions] == ["v2"]


# -- files ------------------------------------------------------------------------------------------------------------


async def test_an_interrupted_download_is_resumed(client, tmp_path) -> None:
    content = bytes(range(256)) * 8
    service = Service(content=content)
    service.break_off(1000)
    service.break_off(50)
    async with client(service) as a2v_client:
        task = await a2v_client.videos.generate(**JOB)
        path = await task.download(tmp_path / "v.mp4")
    assert path.read_bytes() == content
    assert [call.status for call in service.seen("file")] == [200, 206, 206]
    assert [call.headers.get("range") for call in service.seen("file")] == [None, "bytes=1000-", "bytes=1050-"]


async def test_a_download_that_breaks_off_at_once_begins_again(client, tmp_path) -> None:
    """Nothing is stored before the first 512 bytes tell that it is a video."""
    service = Service(content=bytes(range(256)))
    service.break_off(100)
    service.break_off(0)
    async with client(service) as a2v_client:
        task = await a2v_client.videos.generate(**JOB)
        path = await task.download(tmp_path / "v.mp4")
    assert path.read_bytes() == bytes(range(256))
    assert [call.status for call in service.seen("file")] == [200, 200, 200]
    assert [call.headers.get("range") for call in service.seen("file")] == [None, None, None]


async def test_an_expired_url_is_renewed(client, tmp_path) -> None:
    service = Service(url_seconds=60)
    async with client(service) as a2v_client:
        task = await a2v_client.videos.generate(**JOB)
        await task.wait()
        await anyio.sleep(100)
        await task.download(tmp_path / "v.mp4")
    assert [call.status for call in service.seen("file")] == [403, 200]


async def test_parts_of_files() -> None:
    service = Service(render_seconds=100, content=b"0123456789")
    async with raw(service) as http:
        await http.post(f"{API}/video.generate", json=JOB)
        assert (await http.get("https://files.example/files/v1.mp4")).status_code == 404
        await anyio.sleep(100)
        whole = await http.get("https://files.example/files/v1.mp4")
        part = await http.get("https://files.example/files/v1.mp4", headers={"range": "bytes=2-4"})
        other = await http.get(
            "https://files.example/files/v1.mp4", headers={"range": "bytes=2-", "if-range": '"other"'}
        )
        beyond = await http.get("https://files.example/files/v1.mp4", headers={"range": "bytes=10-"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert part.headers["etag"] == whole.headers["etag"]
    assert (other.status_code, other.content) == (200, b"0123456789")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")


# -- what cannot be right ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"render_seconds": -1},
        {"render_seconds": "long"},
        {"pending_seconds": None},
        {"url_seconds": float("nan")},
        {"poll_statuses": "finished"},
        {"poll_statuses": []},
        {"renderers": 0},
        {"quota": -1},
        {"limit": 30},
        {"error_rate": 2},
    ],
    ids=str,
)
def test_settings_that_cannot_be_right(settings) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        Service(**settings)
    if name != "renderers":
        with pytest.raises(ValueError, match=name):
            setattr(Service(), name, settings[name])


def test_calls_that_there_are_not() -> None:
    service = Service()
    for use in (service.seen, service.refuse, service.recover):
        with pytest.raises(ValueError, match=r"no call 'video\.got', only character\.list"):
            use("video.got")
    with pytest.raises(ValueError, match="nth must be"):
        service.fail(nth=0)
    with pytest.raises(ValueError, match="times must be"):
        service.hang(times=0)
    for bad in ({"requests": 0}, {"per": 0}, {"reset": "minutes"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            FixedWindow(**bad)
