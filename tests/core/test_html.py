"""What a notebook shows of the values. How it looks was looked at; here is what must hold whatever a server sends."""

from __future__ import annotations

import copy
import pickle
from html.parser import HTMLParser

import pytest

from a2v import Avatar, Character, Pose, Video, VideoStatus
from a2v._values import html
from a2v._values.models import ResultList

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
NOT_WEB = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    " https://x/p",
    "//x/p",
]
EVA = Character(
    model_id="eva", name="Eva 01", display_name="Eva", gender="female", preview_url="https://x/eva.png?a=1&b=2"
)
POSES = (Pose(pose_id="p1", name="standing", preview_url="https://x/p1.png"), Pose(pose_id="p2", name="sitting"))
MIA = Avatar(avatar_id="a1", display_name="Mia", preview_url="https://x/mia.png", poses=POSES)
DONE = Video(
    video_id="v1", status=VideoStatus.FINISHED, video_url="https://x/v.mp4?sig=1", mask_video_url="https://x/m.mp4"
)


class Page(HTMLParser):
    """What a browser would make of it: the elements, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page(value) -> Page:
    return Page(value._repr_html_())


def test_a_character_shows_its_portrait():
    shown = page(EVA)
    (picture,) = shown.all("img")
    assert (picture["src"], picture["alt"]) == ("https://x/eva.png?a=1&b=2", "Eva")
    assert picture["referrerpolicy"] == "no-referrer"
    assert all(word in shown.text for word in ("Eva", "eva", "female"))


def test_an_avatar_shows_its_poses():
    shown = page(MIA)
    assert [picture["src"] for picture in shown.all("img")] == ["https://x/mia.png", "https://x/p1.png"]
    assert all(word in shown.text for word in ("Mia", "a1", "standing", "p1", "sitting", "p2"))


def test_a_finished_video_shows_a_player():
    shown = page(DONE)
    (player,) = shown.all("video")
    assert player["src"] == "https://x/v.mp4?sig=1"
    assert "controls" in player
    assert [(link["href"], link["rel"]) for link in shown.all("a")] == [
        ("https://x/v.mp4?sig=1", "noopener noreferrer"),
        ("https://x/m.mp4", "noopener noreferrer"),
    ]


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (Video(video_id="v", status=VideoStatus.PENDING), ["v", "pending"]),
        (Video(video_id="v", status=VideoStatus.UNKNOWN, raw={"status": "queueing"}), ["queueing"]),
        (Video(video_id="v", status=VideoStatus.FAILED, raw={"message": "too silent"}), ["error", "too silent"]),
        (Video(video_id="v", status=VideoStatus.FAILED, raw={"message": 5}), ["error"]),
    ],
    ids=repr,
)
def test_a_video_without_a_film_says_where_it_is(video, words):
    shown = page(video)
    assert not shown.all("video")
    assert all(word in shown.text for word in words)


def values(text: str, url: str) -> list[object]:
    return [
        Character(model_id=text, name=text, gender=text, preview_url=url),
        Avatar(avatar_id=text, name=text, preview_url=url, poses=(Pose(pose_id=text, name=text, preview_url=url),)),
        Pose(pose_id=text, name=text, preview_url=url),
        Video(video_id=text, status=VideoStatus.FINISHED, video_url=url, mask_video_url=url),
        Video(video_id=text, status=VideoStatus.UNKNOWN, raw={"status": text, "message": text}),
    ]


@pytest.mark.parametrize("value", values(EVIL, "https://x/p?" + EVIL), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: ResultList([value])], ids=["card", "table"])
def test_nothing_of_a_server_becomes_markup(value, wrap):
    shown = page(wrap(value))
    assert EVIL in shown.text
    assert not shown.all("script")
    for tag, attributes in shown.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert tag not in ("img", "video") or attributes["src"] == "https://x/p?" + EVIL
        assert tag != "a" or attributes["href"] == "https://x/p?" + EVIL


@pytest.mark.parametrize("url", NOT_WEB)
def test_only_web_urls_are_fetched_or_followed(url):
    for value in values("x", url):
        for shown in (page(value), page(ResultList([value]))):
            assert not [tag for tag, _ in shown.tags if tag in ("img", "video", "a")]


def test_a_list_is_a_table_and_still_a_list():
    characters = ResultList([EVA, Character(model_id="leo", name="Leo")])
    assert characters == [EVA, Character(model_id="leo", name="Leo")]
    assert isinstance(characters, list)
    for twin in (pickle.loads(pickle.dumps(characters)), copy.copy(characters)):
        assert (twin, type(twin)) == (characters, ResultList)
    shown = page(characters)
    assert len(shown.all("tr")) == 3
    assert [picture["src"] for picture in shown.all("img")] == ["https://x/eva.png?a=1&b=2"]
    assert all(word in shown.text for word in ("model_id", "gender", "Eva", "Leo"))


def test_columns_that_say_nothing_are_left_out():
    shown = page(ResultList([Video(video_id="v", status=VideoStatus.PENDING)]))
    assert len(shown.all("th")) == 2  # video_id and status


def test_a_table_of_avatars_and_of_videos():
    avatars = page(ResultList([MIA]))
    assert [picture["src"] for picture in avatars.all("img")] == ["https://x/mia.png", "https://x/p1.png"]
    assert "p2" in avatars.text
    videos = page(ResultList([DONE, Video(video_id="v2", status=VideoStatus.PENDING)]))
    assert not videos.all("video")
    assert [link["href"] for link in videos.all("a")] == ["https://x/v.mp4?sig=1", "https://x/m.mp4"]


def test_a_long_list_is_cut_off():
    shown = page(ResultList([EVA] * 130))
    assert len(shown.all("tr")) == 101
    assert "and 30 more" in shown.text


def test_an_empty_list_and_one_with_something_else_in_it():
    assert page(ResultList()).text == "none"
    assert ResultList([EVA, "something else"])._repr_html_() is None


def test_progress():
    shown = Page(html.progress({"finished": 3, "failed": 1, "under way": 0, "wait<b>ing": 4}))
    assert shown.text == "3 finished, 1 failed, 4 wait<b>ing of 8"
    widths = [
        attributes["style"].partition(";")[0]
        for attributes in shown.all("div")
        if "width" in attributes.get("style", "")
    ]
    assert [width for width in widths if width.startswith("width")] == ["width:37.50%", "width:12.50%", "width:50.00%"]
    assert Page(html.progress({"waiting": 0})).text == "nothing to do"
