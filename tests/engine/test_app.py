"""The API over real HTTP."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from a2v import APIError, AsyncA2V, VideoStatus
from a2v._core import wire
from a2v.engine import LocalEngine, Settings, create_app
from a2v.engine.task_store import Task

GENERATE = "/v1/a2v/video.generate"
GET = "/v1/a2v/video.get"
CHARACTERS = "/v1/a2v/character.list"


# -- the seed's calls -------------------------------------------------------------------------------------------------


def test_character_list(http, engine):
    reply = http.get("/v1/a2v/character.list")
    assert reply.status_code == 200
    assert list(reply.json()) == ["code", "data", "message"]
    eva = next(one for one in reply.json()["data"] if one["model_id"] == "eva_a0008")
    assert eva == {
        "model_id": "eva_a0008",
        "name": "Eva 01",
        "display_name": "Eva 01",
        "gender": "female",
        "preview_url": f"{engine.base_url}/previews/eva_a0008.png",
    }
    assert wire.character_list().read(reply.json()["data"])[0].preview_url.startswith(engine.base_url)


def test_preview(http):
    pytest.importorskip("a2v.engine.preview")
    reply = http.get("/previews/eva_a0008.png", headers={"Authorization": ""})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "image/png"
    assert reply.content.startswith(b"\x89PNG")


def test_video_generate(http, say, model_id):
    reply = http.post(GENERATE, json={"model_id": model_id, "audio_url": say("hello")})
    assert reply.status_code == 200
    video_id = reply.json()["data"]["video_id"]
    assert re.fullmatch("[0-9a-f]{32}", video_id)
    assert reply.json() == {"code": 0, "data": {"video_id": video_id, "status": "pending"}, "message": "success"}


def test_video_get(http, engine, finished):
    reply = http.get(GET, params={"video_id": finished["video_id"]}).json()
    video_id = finished["video_id"]
    data = {
        "video_id": video_id,
        "status": "finished",
        "video_url": f"{engine.base_url}/files/{video_id}.mp4",
    }
    assert reply == {"code": 0, "data": data, "message": "success"}


def test_each_render_is_its_own_video(http, say, model_id, wait_for):
    job = {"model_id": model_id, "audio_url": say("hello")}
    first, second = (http.post(GENERATE, json=job).json()["data"]["video_id"] for _ in range(2))
    assert first != second
    assert wait_for(http, first)["video_url"] != wait_for(http, second)["video_url"]


def test_an_unfinished_video_has_no_url(http, say, model_id):
    video_id = http.post(GENERATE, json={"model_id": model_id, "audio_url": say("sleep")}).json()["data"]["video_id"]
    data = http.get(GET, params={"video_id": video_id}).json()["data"]
    assert data["status"] in ("pending", "in_progressing")
    assert data["video_url"] is None


def test_video_list_shows_what_video_get_shows_newest_first(http, say, model_id, wait_for):
    job = {"model_id": model_id, "audio_url": say("hello")}
    ids = [http.post(GENERATE, json=job).json()["data"]["video_id"] for _ in range(2)]
    videos = [wait_for(http, one) for one in ids]
    assert http.get("/v1/a2v/video.list").json()["data"][:2] == videos[::-1]


def test_a_failed_video_says_why(http, say, model_id, wait_for):
    video_id = http.post(GENERATE, json={"model_id": model_id, "audio_url": say("bad")}).json()["data"]["video_id"]
    assert wait_for(http, video_id) == {
        "video_id": video_id,
        "status": "error",
        "video_url": None,
        "message": "this is no recording",
    }


def test_a_finished_video_may_have_a_warning(http, say, model_id, wait_for):
    job = {"model_id": model_id, "audio_url": say("silence")}
    video = wait_for(http, http.post(GENERATE, json=job).json()["data"]["video_id"])
    assert (video["status"], video["message"]) == ("finished", "no speech")
    assert '<p class="soft warning">no speech</p>' in httpx.get(http.base_url).text


# -- the later revision's ----------------------------------------------------------------------------------------------


def test_avatar_list(http, engine):
    avatars = http.get("/v1/a2v/avatar.list").json()["data"]
    eva = next(one for one in avatars if one["id"] == "eva_a0008")
    assert list(eva) == ["id", "avatar_type", "name", "gender", "display_name", "preview_url", "poses"]
    assert (eva["avatar_type"], eva["display_name"], eva["gender"]) == ("cg_human", "Eva 01", "female")
    front = {"pose_id": "eva_a0008_front", "name": "Front"}
    assert eva["poses"][0] == front | {"preview_url": f"{engine.base_url}/previews/eva_a0008_front.png"}
    assert eva["poses"] == http.get("/v1/a2v/avatar-pose.list", params={"avatar_id": "eva_a0008"}).json()["data"]
    assert [one["id"] for one in avatars] == [one["model_id"] for one in http.get(CHARACTERS).json()["data"]]
    for pose in wire.avatar_list().read(avatars)[0].poses:
        assert httpx.get(pose.preview_url).content.startswith(b"\x89PNG")


@pytest.mark.parametrize(("query", "status", "code"), [({}, 400, 400), ({"avatar_id": "nobody"}, 404, 10001)])
def test_poses_of_an_unknown_avatar(http, query, status, code):
    reply = http.get("/v1/a2v/avatar-pose.list", params=query)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_a_pose_with_a_mask(http, engine, say, wait_for):
    job = {"pose_id": "eva_a0008_closeup", "audio_url": say("hello"), "with_mask": True}
    video_id = http.post(GENERATE, json=job).json()["data"]["video_id"]
    data = wait_for(http, video_id)
    assert data["mask_video_url"] == f"{engine.base_url}/masks/{video_id}.mp4"
    assert httpx.get(data["video_url"]).text == "eva_a0008_closeup --size 512: hello"
    assert httpx.get(data["mask_video_url"]).text == "mask of hello"
    assert http.get("/v1/a2v/video.list").json()["data"][0] == data


def test_without_a_mask_there_is_none(http, engine, finished):
    assert "mask_video_url" not in finished
    assert httpx.get(f"{engine.base_url}/masks/{finished['video_id']}.mp4").status_code == 404


def test_a_long_list_is_cut_to_fit_a_response(http, engine, monkeypatch):
    # Each entry has the maximum length: a message of four-byte characters.
    task = Task("f" * 32, "eva_a0008", False, "", VideoStatus.FAILED, "\U0001d504" * 300, 0.0)
    monkeypatch.setattr("a2v.engine.task_store.TaskStore.newest", lambda _, limit: [task] * limit)
    reply = http.get("/v1/a2v/video.list")
    assert 0.9 * wire.MAX_BODY < len(reply.content) <= wire.MAX_BODY
    assert wire.read_envelope(reply.content).code == 0


@pytest.mark.anyio
async def test_revision_seed(quick_renders, recordings, say, model_id):
    async with (
        LocalEngine(revision="seed", allow_files=recordings) as engine,
        _client(engine) as client,
    ):
        for path in ("video.list", "avatar.list", "avatar-pose.list?avatar_id=eva_a0008"):
            assert (await client.get(f"/v1/a2v/{path}")).status_code == 404
        job = {"model_id": model_id, "audio_url": say("hello")}
        sent = (await client.post(GENERATE, json=job)).json()["data"]
        assert list(sent) == ["video_id"]
        looks = []
        with anyio.fail_after(20):
            while not looks or looks[-1]["video_url"] is None:
                looks.append((await client.get(GET, params=sent)).json()["data"])
                await anyio.sleep(0.02)
        assert looks[0] == sent | {"video_url": None}
        assert looks[-1] == sent | {"video_url": f"{engine.base_url}/files/{sent['video_id']}.mp4"}
        refused = await client.post(GENERATE, json={"pose_id": "eva_a0008_front", "audio_url": say("hello")})
        assert (refused.status_code, refused.json()["code"]) == (400, 400)
        assert "model_id" in refused.json()["message"]


@pytest.mark.anyio
async def test_revision_seed_reports_a_failed_render_as_an_error(quick_renders, recordings, say, model_id):
    async with (
        LocalEngine(revision="seed", allow_files=recordings) as engine,
        AsyncA2V(engine.token, base_url=engine.base_url) as client,
    ):
        task = await client.videos.generate(model_id=model_id, audio_url=say("bad"))
        with anyio.fail_after(20), pytest.raises(APIError, match="this is no recording"):
            await task.wait()
        good = await client.videos.generate(model_id=model_id, audio_url=say("hello"))
        assert (await good.wait()).status is VideoStatus.FINISHED


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"model_id": "nobody", "audio_url": "https://example.com/a"},
            "no character 'nobody'; model_id must be one of: amara_a0033, eva_a0008",
        ),
        (
            {"model_id": "eva_a08", "audio_url": "https://example.com/a"},
            "no character 'eva_a08'; did you mean 'eva_a0008'?",
        ),
        ({"pose_id": "eva_front", "audio_url": "https://example.com/a"}, "did you mean 'eva_a0008_front'?"),
        ({"audio_url": "https://example.com/a"}, "model_id"),
        ({"model_id": "eva_a0008"}, "audio_url"),
        ({"model_id": "eva_a0008", "audio_url": "hello.wav"}, "audio_url"),
        ({"model_id": "eva_a0008", "audio_url": "https://example.com/\ud800"}, "audio_url"),
        ({"model_id": 7, "audio_url": "https://example.com/a"}, "model_id"),
        ({"model_id": "eva_a0008", "audio_url": ["https://example.com/a"]}, "audio_url"),
        (["eva_a0008"], "object"),
        ({"pose_id": "nobody", "audio_url": "https://example.com/a"}, "eva_a0008_front"),
        ({"pose_id": 7, "audio_url": "https://example.com/a"}, "pose_id"),
        ({"pose_id": "eva_a0008_front", "model_id": "eva_a0008", "audio_url": "https://example.com/a"}, "not both"),
        ({"pose_id": "eva_a0008_front", "audio_url": "https://example.com/a", "with_mask": 0}, "with_mask"),
        ({"model_id": "eva_a0008", "audio_url": "https://example.com/a", "with_mask": True}, "pose_id"),
    ],
)
def test_a_bad_job_is_refused_at_once(http, body, said):
    headers = {"Content-Type": "application/json"}
    reply = http.post(GENERATE, content=json.dumps(body), headers=headers)
    assert (reply.status_code, reply.json()["code"], reply.json()["data"]) == (400, 400, None)
    assert said in reply.json()["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 60_000], ids=range(5))
def test_a_body_that_is_not_json_is_refused(http, body):
    reply = http.post(GENERATE, content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (400, 400)
    assert "JSON" in reply.json()["message"]


def test_another_content_type_is_refused(http):
    reply = http.post(GENERATE, data={"model_id": "eva_a0008"})
    assert (reply.status_code, reply.json()["code"]) == (415, 415)
    # What `curl -d` sends without a header.
    assert "-H 'Content-Type: application/json'" in reply.json()["message"]


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 4_000_000])
def test_a_long_body_is_refused(http, size):
    reply = http.post(GENERATE, content=b" " * size, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, 413)


def test_a_long_body_in_chunks_is_refused(http):
    blocks = (b" " * 1024 for _ in range(1025))
    reply = http.post(GENERATE, content=blocks, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413


def test_an_unknown_video(http):
    reply = http.get(GET, params={"video_id": "00" * 16})
    assert reply.status_code == 404
    assert reply.json() == {"code": 10001, "data": None, "message": f"there is no video '{'00' * 16}'"}


def test_a_video_without_a_name(http):
    assert http.get(GET).status_code == 400
    assert "video_id" in http.get(GET).json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/a2v/nothing", 404),
        ("GET", "/v1/a2v/character.list/", 404),
        ("GET", "/favicon.ico", 404),
        ("GET", "/files/" + "0" * 32 + ".mp4", 404),
        ("GET", "/files/..%2Ftasks.sqlite3", 404),
        ("GET", "/files/%2e%2e%2ftasks.sqlite3.mp4", 404),
        ("GET", "/previews/nobody.png", 404),
        ("GET", GENERATE, 405),
        ("POST", GET, 405),
        ("DELETE", "/v1/a2v/video.list", 405),
    ],
)
def test_every_refusal_has_an_envelope(http, method, path, status):
    reply = http.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()) == {"code", "data", "message"}
    assert reply.json()["code"] != 0


def test_a_crash_has_an_envelope_and_a_log(http, monkeypatch, caplog):
    def crash(*_: object) -> None:
        raise RuntimeError("secret details")

    monkeypatch.setattr("a2v.engine.task_store.TaskStore.newest", crash)
    reply = http.get("/v1/a2v/video.list")
    assert (reply.status_code, reply.json()["code"]) == (500, 500)
    assert "secret details" not in reply.text
    assert "secret details" in caplog.text
    assert http.get("/health").status_code == 200


# -- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "Bearer  {}"])
def test_both_forms_of_the_token(engine, form):
    headers = {"Authorization": form.format(engine.token)}
    assert httpx.get(f"{engine.base_url}/v1/a2v/character.list", headers=headers).status_code == 200


@pytest.mark.parametrize("sent", [None, "", "Bearer", "wrong", "Bearer wrong", "Bearer \xe9", "Digest {}", "{}x"])
def test_a_wrong_token(engine, sent):
    headers = {} if sent is None else {"Authorization": sent.format(engine.token).encode("latin-1")}
    for path in ("/v1/a2v/character.list", GET, GENERATE, "/v1/a2v/nothing"):
        reply = httpx.get(engine.base_url + path, headers=headers)
        assert (reply.status_code, reply.json()["code"], reply.json()["data"]) == (401, 401, None)
        assert engine.token not in reply.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"])
def test_loopback_names_are_accepted(http, host):
    reply = http.get("/v1/a2v/character.list", headers={"Host": host})
    assert reply.status_code == 200
    assert reply.json()["data"][0]["preview_url"].lower().startswith(f"http://{host.lower()}/")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[", ""]
)
@pytest.mark.parametrize("path", ["/v1/a2v/character.list", "/", "/health"])
def test_unknown_host_names_are_refused(http, host, path):
    assert http.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.anyio
async def test_a_name_can_be_allowed(tmp_path):
    settings = Settings(host="0.0.0.0", allowed_hosts="Engine.Example", token="t", data_dir=tmp_path)
    async with _in_process(settings) as client:
        for host in ("engine.example:8000", "10.0.0.1", "localhost"):
            assert (await client.get("/health", headers={"Host": host})).status_code == 200
        assert (await client.get("/health", headers={"Host": "other.example"})).status_code == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_requests_from_pages_of_other_origins_are_refused(http, origin):
    reply = http.get("/v1/a2v/character.list", headers={"Origin": origin})
    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_requests_from_pages_of_the_engine_are_allowed(http, engine):
    assert http.get("/v1/a2v/character.list", headers={"Origin": engine.base_url}).status_code == 200


def test_no_cors(http, engine):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = http.options(GENERATE, headers=headers)
    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control-")]


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.usefixtures("same_minute")
async def test_rate_limit():
    async with _in_process(Settings(requests_per_minute=3, token="t")) as client:
        allowed = [await client.get("/v1/a2v/character.list") for _ in range(3)]
        assert [reply.headers["X-Ratelimit-Left"] for reply in allowed] == ["2", "1", "0"]
        refused = await client.get("/v1/a2v/character.list")
        assert (refused.status_code, refused.json()["code"]) == (429, 1009)
        assert refused.headers["X-Ratelimit-Total"] == "3"
        unknown = await client.get("/v1/a2v/character.list", headers={"Authorization": "x"})
        assert (unknown.status_code, unknown.headers["X-Ratelimit-Left"]) == (401, "0")
        assert "X-Ratelimit-Left" not in (await client.get("/health")).headers


@pytest.mark.anyio
@pytest.mark.usefixtures("same_minute")
async def test_as_strict_as_the_hosted_service():
    settings = Settings(like_hosted=True, token="t")
    assert settings.audio_limit == 60
    async with _in_process(settings) as client:
        with anyio.fail_after(20):
            while (refused := await client.get(CHARACTERS)).status_code == 200:
                assert refused.headers["X-Ratelimit-Total"] == "30"
        assert refused.status_code == 429
        with pytest.raises(json.JSONDecodeError):
            refused.json()
        assert (refused.headers["X-Ratelimit-Left"], refused.headers["Content-Type"]) == ("0", "application/json")
        assert int(refused.headers["X-Ratelimit-Reset"]) % 60 == 0


@pytest.mark.anyio
async def test_a_quota(data_dir):
    for left in (2, 0):
        async with _in_process(Settings(quota=2, token="t", data_dir=data_dir)) as client:
            assert (await client.get(CHARACTERS, headers={"Authorization": "x"})).status_code == 401
            for _ in range(left):
                assert (await client.get(CHARACTERS)).status_code == 200
            refused = await client.get(CHARACTERS)
            assert (refused.status_code, refused.json()["code"]) == (403, 403)
            assert "quota of 2" in refused.json()["message"]
            assert (await client.get("/health")).status_code == 200


def test_there_is_no_rate_limit_by_default(http):
    assert "X-Ratelimit-Left" not in http.get("/v1/a2v/character.list").headers


@pytest.mark.anyio
async def test_a_full_queue_refuses_with_a_status_that_means_nothing_was_submitted(
    quick_renders, recordings, say, model_id, poll_until
):
    job = {"model_id": model_id, "audio_url": say("sleep")}
    async with (
        LocalEngine(workers=1, queue_limit=1, allow_files=recordings) as engine,
        _client(engine) as client,
    ):
        rendering = (await client.post(GENERATE, json=job)).json()["data"]["video_id"]
        await poll_until(client, rendering, "in_progressing")
        waiting = (await client.post(GENERATE, json=job)).json()["data"]["video_id"]
        refused = await client.post(GENERATE, json=job)
        listed = (await client.get("/v1/a2v/video.list")).json()["data"]
    assert (refused.status_code, refused.json()["code"]) == (429, 1009)
    assert "queue" in refused.json()["message"]
    assert int(refused.headers["Retry-After"]) > 0
    assert int(refused.headers["X-Ratelimit-Reset"]) > 0
    assert [video["video_id"] for video in listed] == [waiting, rendering]


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_video_is_served_to_anyone_with_the_url(finished):
    reply = httpx.get(finished["video_url"])
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.text == "eva_a0008 --size 512: hello"


def test_the_renderer_gets_no_secrets(monkeypatch, http, say, model_id, wait_for):
    monkeypatch.setenv("A2V_TOKEN", "canary")
    video_id = http.post(GENERATE, json={"model_id": model_id, "audio_url": say("hi")}).json()["data"]["video_id"]
    assert "canary" not in httpx.get(wait_for(http, video_id)["video_url"]).text


def test_a_video_can_be_fetched_in_ranges(finished):
    url = finished["video_url"]
    whole = httpx.get(url)
    head = httpx.head(url)
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["accept-ranges"] == "bytes"
    assert not head.headers["etag"].startswith("W/")
    headers = {"Range": "bytes=5-", "If-Range": head.headers["etag"]}
    part = httpx.get(url, headers=headers)
    assert (part.status_code, part.content) == (206, whole.content[5:])
    changed = httpx.get(url, headers=headers | {"If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    assert httpx.get(url, headers={"Range": "bytes=9999-"}).status_code == 416


def test_a_file_is_served_only_by_the_name_of_a_finished_video(http, engine, say, model_id, wait_for):
    failed = http.post(GENERATE, json={"model_id": model_id, "audio_url": say("bad")}).json()["data"]["video_id"]
    wait_for(http, failed)
    for kind in ("files", "masks"):
        for name in (failed, "0" * 32, "..%2f..%2ftasks", "%2e%2e%2f" + failed, failed + "%00"):
            assert httpx.get(f"{engine.base_url}/{kind}/{name}.mp4").status_code == 404


def test_the_log_has_no_secrets(http, engine, say, caplog):
    caplog.set_level(logging.DEBUG, "a2v")
    http.post(GENERATE, json={"model_id": "eva_a0008", "audio_url": "http://127.0.0.1:9/a?signature=canary-1"})
    http.get(GET, params={"video_id": "canary-2"})
    httpx.get(f"{engine.base_url}{GET}", headers={"Authorization": "Bearer canary-3"})
    httpx.get(f"{engine.base_url}/a%0d%0aINJECTED")
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith(f"GET {GET} 404") for line in lines)
    assert not [line for line in lines if "canary" in line or "\n" in line or engine.token in line]
    asked = next(record for record in caplog.records if record.name == "a2v.engine.access" and record.status == 401)
    assert (asked.method, asked.path) == ("GET", GET)
    assert asked.seconds >= 0


def test_health(engine):
    reply = httpx.get(f"{engine.base_url}/health")
    assert reply.json() == {"code": 0, "data": {"status": "ok"}, "message": "success"}


# -- other people's clients -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_with_a_bare_token(engine, say, model_id):
    job = json.dumps({"model_id": model_id, "audio_url": say("hello")})
    auth = ["-H", f"Authorization: {engine.token}"]
    command = ["curl", "-sS", "-X", "POST", engine.base_url + GENERATE, *auth]
    sent = subprocess.run(
        [*command, "-H", "Content-Type: application/json", "-d", job], check=True, capture_output=True
    )
    reply = json.loads(sent.stdout)
    assert (reply["code"], reply["message"]) == (0, "success")
    look = f"{engine.base_url}{GET}?video_id={reply['data']['video_id']}"
    got = subprocess.run(["curl", "-sS", look, *auth], check=True, capture_output=True)
    assert json.loads(got.stdout)["data"]["video_id"] == reply["data"]["video_id"]


NODE = """
const [base, token, audio_url] = process.argv.slice(1);
const headers = {"Authorization": token, "Content-Type": "application/json"};
const body = JSON.stringify({model_id: "eva_a0008", audio_url});
const sent = await (await fetch(base + "/v1/a2v/video.generate", {method: "POST", headers, body})).json();
const look = base + "/v1/a2v/video.get?video_id=" + sent.data.video_id;
const got = await (await fetch(look, {headers: {"Authorization": token}})).json();
console.log(JSON.stringify([sent, got]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
def test_node_fetch_with_a_bare_token(engine, say):
    command = ["node", "--input-type=module", "-e", NODE, engine.base_url, engine.token, say("hello")]
    ran = subprocess.run(command, check=True, capture_output=True)
    sent, got = json.loads(ran.stdout)
    assert sent["data"] == {"video_id": got["data"]["video_id"], "status": "pending"}
    assert got["code"] == 0


def test_an_incomplete_request_does_no_harm(http, engine, caplog):
    host, port = engine.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        head = (
            f"POST {GENERATE} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {engine.token}\r\nContent-Length: 99\r\n\r\n{{"
        )
        sock.sendall(head.encode())
    assert http.get("/health").status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- as an application ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_application_runs_in_the_callers_own_loop(quick_renders, recordings, say, model_id, poll_until):
    async with _in_process(Settings(token="t", allow_files=recordings)) as client:
        reply = await client.post(GENERATE, json={"model_id": model_id, "audio_url": say("hello")})
        data = await poll_until(client, reply.json()["data"]["video_id"], "finished")
        assert (await client.get(data["video_url"])).text == "eva_a0008 --size 512: hello"


@asynccontextmanager
async def _in_process(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the application directly, without a server."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": settings.token}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client,
    ):
        yield client


def _client(engine: LocalEngine) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=engine.base_url, headers={"Authorization": engine.token})


@pytest.mark.anyio
async def test_many_at_once(quick_renders, recordings, say, model_id, poll_until):
    async with LocalEngine(workers=4, allow_files=recordings) as engine, _client(engine) as client:
        job = {"model_id": model_id, "audio_url": say("hello")}
        ids = [(await client.post(GENERATE, json=job)).json()["data"]["video_id"] for _ in range(12)]
        assert len(set(ids)) == 12
        async with anyio.create_task_group() as tasks:
            for video_id in ids:
                tasks.start_soon(poll_until, client, video_id, "finished")
