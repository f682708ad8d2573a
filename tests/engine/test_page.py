"""The HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import anyio
import httpx
import pytest

from a2v import Avatar, Pose, Video, VideoStatus
from a2v.engine import LocalEngine, Settings, create_app
from a2v.engine.page import PageVideo, page_html, page_state
from a2v.engine.task_store import Task

pytestmark = pytest.mark.both_backends


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_offers_all_characters_and_shows_the_latest_videos(http, finished):
    reply = httpx.get(http.base_url)
    assert reply.headers["content-type"].startswith("text/html")
    found = Elements(reply.text).found
    avatars = http.get("/v1/a2v/avatar.list").json()["data"]
    choices = [attributes["value"] for tag, attributes in found if tag == "input" and attributes["type"] == "radio"]
    assert [choice for choice in choices if choice.startswith("model_id:")] == [
        f"model_id:{one['id']}" for one in avatars
    ]
    poses = [pose for one in avatars for pose in one["poses"]]
    assert [choice for choice in choices if choice.startswith("pose_id:")] == [
        f"pose_id:{one['pose_id']}" for one in poses
    ]
    pictures = {attributes["src"] for tag, attributes in found if tag == "img"}
    assert pictures == {one["preview_url"] for one in (*avatars, *poses)}
    assert finished["video_url"] in [attributes["src"] for tag, attributes in found if tag == "video"]
    downloads = {attributes["href"]: attributes["download"] for tag, attributes in found if "download" in attributes}
    assert re.fullmatch(r"\d+\.mp4", downloads[finished["video_url"]])  # the name of the recording
    assert "All videos are synthetic" in reply.text


def test_only_its_own_style_and_script_are_allowed(http):
    reply = httpx.get(http.base_url)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", reply.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!127\.0\.0\.1)", reply.text)


def _video(status: VideoStatus, *, subject: str = "eva_a0008", message: str | None = None, **facts: str) -> PageVideo:
    task = Task("id", subject, True, "", status, message, 0.0, recording=facts.pop("recording", ""))
    return PageVideo(task, Video(video_id="id", status=status, **facts))


def test_foreign_text_is_escaped():
    nasty = "<img src=x onerror=alert(1)>\"'"
    pose = Pose(pose_id=nasty, name=nasty, preview_url=nasty)
    avatar = Avatar(avatar_id=nasty, display_name=nasty, gender=nasty, preview_url=nasty, poses=[pose])
    videos = [
        _video(VideoStatus.FAILED, subject=nasty, message=nasty, recording=nasty),
        _video(
            VideoStatus.FINISHED,
            subject=nasty,
            video_url=nasty,
            mask_video_url=nasty,
            captions_url=nasty,
            recording=nasty,
        ),
    ]
    found = Elements(page_html([avatar], videos)).found
    assert not [attributes for _, attributes in found if "onerror" in attributes]
    assert {attributes["src"] for tag, attributes in found if tag in ("img", "video")} == {nasty}
    assert nasty in [attributes["href"] for tag, attributes in found if tag == "a"]
    assert nasty in [attributes.get("aria-label", "").partition(": ")[2] for tag, attributes in found if tag == "video"]


@pytest.mark.parametrize(
    ("status", "label"),
    [
        (VideoStatus.PENDING, "waiting"),
        (VideoStatus.IN_PROGRESS, "rendering"),
        (VideoStatus.FINISHED, "Download"),
        (VideoStatus.FAILED, "failed"),
    ],
)
def test_every_status_has_a_label(status, label):
    video_url = {"video_url": "https://engine.example/files/id.mp4"} if status is VideoStatus.FINISHED else {}
    card = page_state([], [_video(status, **video_url)])["cards"][0]["html"]
    assert {label, "eva_a0008"} <= set(re.findall(r">([^<>]+)<", card))


def test_without_videos_it_says_so():
    assert "<p id=nothing class=nothing>None yet" in page_html([], [])
    assert "<p id=nothing class=nothing hidden>" in page_html([], [_video(VideoStatus.FAILED)])


@pytest.fixture
async def visitor(quick_renders, anyio_backend):
    """A browser on this machine, without the token; the engine renders one video at a time and has a small limit."""
    async with (
        LocalEngine(workers=1, requests_per_minute=1) as engine,
        httpx.AsyncClient(base_url=engine.base_url, headers={"Origin": engine.base_url}) as client,
    ):
        yield client


async def _make(visitor: httpx.AsyncClient, said: str, name: str) -> httpx.Response:
    sent = await visitor.post("/page/uploads", params={"name": name}, content=said.encode())
    job = {"model_id": "eva_a0008", "audio_url": sent.json()["data"]["audio_url"]}
    return await visitor.post("/page/videos", json=job)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_recording_becomes_a_video_and_the_page_follows_it(visitor, child):
    assert (await _make(visitor, child.says, "first.wav")).status_code == 200
    await child.pid()
    for name in ("second.wav", "third.wav"):
        await _make(visitor, f"hello {name}", name)
    state = (await visitor.get("/page/videos")).json()["data"]
    shown = [re.sub(r"<[^>]+>", " ", card["html"]) for card in state["cards"]]
    assert re.findall(r"\w+\.wav", " ".join(shown)) == ["third.wav", "second.wav", "first.wav"]
    assert ["number 2 in the queue" in shown[0], "next in the queue" in shown[1], "rendering" in shown[2]] == [True] * 3
    assert state["summary"] == "1 rendering, 2 waiting"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_waits_for_a_change_and_counts_for_no_limit(visitor):
    version = (await visitor.get("/page/videos")).json()["data"]["version"]
    answered = anyio.Event()

    async def wait() -> None:
        state = (await visitor.get("/page/videos", params={"version": version}, timeout=30)).json()["data"]
        assert state["version"] != version
        assert "hello.wav" in state["cards"][0]["html"]
        answered.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        for _ in range(5):
            assert (await visitor.get("/")).status_code == 200
        assert not answered.is_set()
        assert (await _make(visitor, "hello", "hello.wav")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_page_that_waits_does_not_delay_the_end_of_the_engine(quick_renders):
    replies, asked = [], anyio.Event()

    async def wait(base_url: str) -> None:
        async with httpx.AsyncClient(base_url=base_url) as client:
            version = (await client.get("/page/videos")).json()["data"]["version"]
            asked.set()
            replies.append(await client.get("/page/videos", params={"version": version}, timeout=30))
            replies.append(version)

    async with anyio.create_task_group() as tasks, LocalEngine() as engine:
        tasks.start_soon(wait, engine.base_url)
        connections = engine._server.server_state.connections
        await asked.wait()
        with anyio.fail_after(20):
            while not any(one.had_request and not one.is_idle for one in list(connections)):  # noqa: ASYNC110
                await anyio.sleep(0.01)
    assert replies[0].json()["data"]["version"] == replies[1]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("audio_url", ["https://example.com/a.wav", "file:///etc/passwd", f"upload://{'0' * 64}"])
async def test_the_page_makes_videos_of_uploads_only(visitor, audio_url):
    reply = await visitor.post("/page/videos", json={"model_id": "eva_a0008", "audio_url": audio_url})
    assert reply.status_code == (404 if audio_url.startswith("upload") else 400)
    assert (
        "upload the recording again" if reply.status_code == 404 else "only make videos of uploads"
    ) in reply.json()["message"]
    assert (await visitor.get("/page/videos")).json()["data"]["cards"] == []


@pytest.mark.anyio
async def test_an_engine_open_to_others_asks_for_the_token_as_password():
    app = create_app(Settings(host="0.0.0.0", token="t"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://10.0.0.1") as client,
    ):
        refused = await client.get("/")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        wrong = base64.b64encode(b"anybody:wrong").decode()
        assert (await client.get("/", headers={"Authorization": f"Basic {wrong}"})).status_code == 401
        assert (await client.get("/", headers={"Authorization": b"Basic \xff"})).status_code == 401
        assert (await client.get("/", auth=("anybody", "t"))).status_code == 200
