"""The HTML page at ``/``: make videos of recordings, and follow them.

The script gets the list of videos from ``/page/videos`` by long polling: each response waits until the list changes. The cards of the
list are only rendered here, so one function escapes untrusted text, and the script replaces the cards that have changed. Style and script
are inline and allowed by their hashes; the page loads nothing from other origins.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from attrs import frozen

from a2v._values.models import Avatar, Pose, Video, VideoStatus
from a2v.engine.task_store import Task
from a2v.engine.video_options import ANIMATIONS, container_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STATUS_WORDS = {
    VideoStatus.PENDING: "waiting",
    VideoStatus.IN_PROGRESS: "rendering",
    VideoStatus.FINISHED: "finished",
    VideoStatus.FAILED: "failed",
}
_STYLE, _SCRIPT = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))


def _csp_hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


PAGE_HEADERS = {
    # The style and the script of the page, by their hashes, and nothing from other origins.
    "Content-Security-Policy": f"default-src 'none'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    f"style-src {_csp_hash(_STYLE)}; script-src {_csp_hash(_SCRIPT)}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@frozen
class PageVideo:
    """A video as the page shows it.

    Attributes:
        task: The task.
        video: Its snapshot.
        position: Its place in the queue, from 1, while it is pending.
    """

    task: Task
    video: Video
    position: int | None = None


class PageState(TypedDict):
    """The list of videos for the script: a card for each, a summary, and a hash of both as the version."""

    cards: list[dict[str, str]]
    summary: str
    version: str


def page_state(avatars: Sequence[Avatar], videos: Sequence[PageVideo]) -> PageState:
    """Return the list of videos for the script.

    Args:
        avatars: The avatars.
        videos: The latest videos, newest first.
    """
    faces = {avatar.avatar_id: (avatar.display_name, avatar.preview_url) for avatar in avatars}
    faces |= {
        pose.pose_id: (f"{avatar.display_name}, {pose.name}", pose.preview_url)
        for avatar in avatars
        for pose in avatar.poses
    }
    cards = [_card(item, faces) for item in videos]
    counts = {status: sum(item.task.status is status for item in videos) for status in _STATUS_WORDS}
    busy = [
        f"{counts[status]} {_STATUS_WORDS[status]}"
        for status in (VideoStatus.IN_PROGRESS, VideoStatus.PENDING)
        if counts[status]
    ]
    summary = ", ".join(busy)
    return {"cards": cards, "summary": summary, "version": _digest([cards, summary])}


def page_html(avatars: Sequence[Avatar], videos: Sequence[PageVideo], max_bytes: int = 0) -> str:
    """Return the page.

    Args:
        avatars: The avatars.
        videos: The latest videos, newest first.
        max_bytes: The largest recording that can be uploaded.
    """
    state = page_state(avatars, videos)
    cards = state["cards"]
    people = "".join(_person(avatar, is_first=not number) for number, avatar in enumerate(avatars))
    icon = f'<link rel=icon href="{escape(avatars[0].preview_url)}">' if avatars else ""
    poses = "".join(_poses(avatar) for avatar in avatars if avatar.poses)
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>a2v engine</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"{icon}<style>{_STYLE}</style></head><body>"
        "<header><h1>a2v engine</h1><p class=lead>Drop a recording, choose a character, and watch the video being rendered.</p></header>"
        "<main><p class=banner role=status hidden>The engine does not respond. Trying again…</p><div class=columns>"
        "<noscript class=panel><p>Without JavaScript, this page shows videos but cannot make them.</p></noscript>"
        f'<form id=new class=panel data-max-bytes="{max_bytes}" aria-labelledby=make hidden><h2 id=make>New video</h2>'
        "<label class=drop><strong>Drop recordings here</strong><span>or click to choose: WAV, MP3, M4A, FLAC, Ogg and others</span>"
        '<input id=file type=file multiple accept="audio/*,video/*,.flac,.opus,.amr,.caf,.w64"></label>'
        "<ul id=files class=files></ul>"
        f"<fieldset><legend>Character</legend><div class=people>{people}</div>{poses}</fieldset>"
        "<button class=make disabled>Make the video</button></form>"
        "<section aria-labelledby=videos><div class=head><h2 id=videos>Videos</h2>"
        f"<p id=summary class=soft aria-live=polite>{escape(state['summary'])}</p></div>"
        f"<p id=nothing class=nothing{' hidden' if cards else ''}>None yet. The videos of all clients of this engine appear here.</p>"
        f'<ul id=list class=grid data-version="{state["version"]}">{"".join(card["html"] for card in cards)}</ul></section></div></main>'
        "<footer class=soft>All videos are synthetic and marked as such in their metadata. "
        "API: <a href=openapi.json>openapi.json</a> · <a href=health>health</a></footer>"
        f"<script>{_SCRIPT}</script></body></html>"
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _person(avatar: Avatar, *, is_first: bool) -> str:
    name, picture, avatar_id = map(escape, (avatar.display_name, avatar.preview_url, avatar.avatar_id))
    return (
        f'<label class=person title="{avatar_id}"><input type=radio name=person id="person-{avatar_id}" '
        f'value="model_id:{avatar_id}"{" checked" if is_first else ""}><img src="{picture}" width=512 height=512 '
        f'loading=lazy alt=""><span>{name}</span></label>'
    )


def _poses(avatar: Avatar) -> str:
    avatar_id, name = map(escape, (avatar.avatar_id, avatar.display_name))
    poses = "".join(_pose(pose, avatar, is_first=not number) for number, pose in enumerate(avatar.poses))
    return f'<div class=poses data-person="person-{avatar_id}" role=group aria-label="Poses of {name}" hidden>{poses}</div>'


def _pose(pose: Pose, avatar: Avatar, *, is_first: bool) -> str:
    name, picture, pose_id, avatar_id = map(escape, (pose.name, pose.preview_url, pose.pose_id, avatar.avatar_id))
    return (
        f'<label class=pose title="{pose_id}"><input type=radio name="pose-{avatar_id}" value="pose_id:{pose_id}"'
        f'{" checked" if is_first else ""}><span><img src="{picture}" width=32 height=32 loading=lazy alt="">{name}</span></label>'
    )


def _card(item: PageVideo, faces: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    # The character of an old task may no longer exist.
    name, preview = map(escape, faces.get(item.task.subject_id, (item.task.subject_id, "")))
    recording, task_id = escape(item.task.recording or "Recording"), escape(item.task.video_id)
    picture = _picture_html(item, name, preview)
    status, word = item.task.status, _STATUS_WORDS[item.task.status]
    if item.position:
        word = "next in the queue" if item.position == 1 else f"number {item.position} in the queue"
    state = f'<p class="status {status.value}">{word}</p>'
    submitted = datetime.fromtimestamp(item.task.created, UTC)
    text = (
        f"<div class=picture>{picture}</div><div class=text><h3>{recording}</h3>"
        f"<p class=facts><span>{name}</span><span class=length hidden></span>"
        f'<time datetime="{submitted:%Y-%m-%dT%H:%M:%SZ}">{submitted:%d %b %Y, %H:%M} UTC</time></p>'
        f"{_actions(item) if item.video.video_url else state}"
        f"{_message(item.task)}"
        f"<p class=id><code>{task_id}</code></p></div>"
    )
    digest = _digest(text)
    css_class = "card" if item.video.video_url else "card small"
    html = f'<li class="{css_class}" data-id="{task_id}" data-digest="{digest}">{text}</li>'
    return {"id": item.task.video_id, "digest": digest, "html": html}


def _message(task: Task) -> str:
    if not task.message:
        return ""
    css_class = '"soft warning"' if task.status is VideoStatus.FINISHED else "soft"
    return f"<p class={css_class}>{escape(task.message)}</p>"


def _picture_html(item: PageVideo, name: str, preview: str) -> str:
    """Return the video, or the preview picture of the character if browsers cannot play it or it is not finished."""
    if item.video.video_url:
        recording, url = escape(item.task.recording or "recording"), escape(item.video.video_url)
        container = container_of(item.task)
        if container in ANIMATIONS:
            return f'<img src="{url}" width=512 height=512 loading=lazy alt="{name}: {recording}">'
        if container == "mov":  # browsers do not play ProRes
            return f'<img class=still src="{preview}" width=512 height=512 alt="">'
        return (
            f'<video controls playsinline preload=metadata poster="{preview}" src="{url}"'
            f' aria-label="{name}: {recording}"></video>'
        )
    is_rendering = item.task.status is VideoStatus.IN_PROGRESS
    bar = '<progress aria-label="Rendering"></progress>' if is_rendering else ""
    return f'<img class=still src="{preview}" width=512 height=512 alt="">{bar}'


def _actions(item: PageVideo) -> str:
    name = escape(Path(item.task.recording or item.task.video_id).stem)
    links = [
        (item.video.video_url, f"{name}.{container_of(item.task)}", "Download"),
        (item.video.mask_video_url, f"{name}.mask.mp4", "Mask"),
        (item.video.captions_url, f"{name}.vtt", "Captions"),
    ]
    shown = (f'<a href="{escape(url)}" download="{file}">{word}</a>' for url, file, word in links if url)
    return f"<p class=actions>{''.join(shown)}</p>"
