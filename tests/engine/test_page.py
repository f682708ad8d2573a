"""The HTML page."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser

import httpx
import pytest

from a2v import Avatar, Pose, Video, VideoStatus
from a2v.engine import Settings, create_app
from a2v.engine.page import page_html
from a2v.engine.task_store import Task


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_shows_all_characters_and_the_latest_videos(http, finished):
    reply = httpx.get(http.base_url)
    assert reply.headers["content-type"].startswith("text/html")
    found = Elements(reply.text).found
    pictures = [attributes["src"] for tag, attributes in found if tag == "img"]
    shown = [one["preview_url"] for one in http.get("/v1/a2v/character.list").json()["data"]]
    assert [picture for picture in pictures if picture in shown] == shown
    poses = [pose["preview_url"] for one in http.get("/v1/a2v/avatar.list").json()["data"] for pose in one["poses"]]
    assert set(pictures) == {*shown, *poses}
    assert finished["video_url"] in [attributes["src"] for tag, attributes in found if tag == "video"]


def test_it_has_no_scripts(http):
    reply = httpx.get(http.base_url)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    style = reply.text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy


def test_foreign_text_is_escaped():
    nasty = "<script>alert(1)</script>\"'"
    pose = Pose(pose_id=nasty, name=nasty, preview_url=nasty)
    avatar = Avatar(avatar_id=nasty, display_name=nasty, gender=nasty, preview_url=nasty, poses=[pose])
    task = Task("id", nasty, True, nasty, VideoStatus.FAILED, nasty, 0.0)
    snapshots = [
        Video(video_id="id", status=VideoStatus.FAILED),
        Video(video_id="id", status=VideoStatus.FINISHED, video_url=nasty, mask_video_url=nasty),
    ]
    found = Elements(page_html([avatar], [(task, snapshot) for snapshot in snapshots])).found
    assert "script" not in {tag for tag, _ in found}
    assert {attributes["src"] for tag, attributes in found if tag in ("img", "video")} == {nasty}
    assert nasty in [attributes["href"] for tag, attributes in found if tag == "a"]


@pytest.mark.parametrize("status", [one for one in VideoStatus if one is not VideoStatus.UNKNOWN])
def test_every_status_has_a_label(status):
    task = Task("id", "eva_a0008", False, "", status, None, 0.0)
    assert "eva_a0008" in page_html([], [(task, Video(video_id="id", status=status))])


def test_without_videos_it_says_so():
    assert "None yet" in page_html([], [])


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
