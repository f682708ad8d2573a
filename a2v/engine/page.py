"""The HTML page at ``GET /``: the latest videos and the characters. It has no scripts and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from a2v._values.models import Avatar, Pose, Video, VideoStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2v.engine.task_store import Task

_WORDS = {
    VideoStatus.PENDING: "pending",
    VideoStatus.IN_PROGRESS: "rendering",
    VideoStatus.FINISHED: "finished",
    VideoStatus.FAILED: "failed",
}
_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f5f2; --card: #fff; --ink: #1d1f24; --soft: #62666f; --line: #e3e1db; --accent: #b3452c; --accent-2: #7a4bb0;
  --good: #1f7a4d; --bad: #b3261e; --shadow: 0 1px 2px #1d1f2414, 0 8px 24px #1d1f2412;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131417; --card: #1d1f24; --ink: #f0eee9; --soft: #a3a7b0; --line: #30333a; --accent: #ff9478; --accent-2: #c6a2f5;
    --good: #74d3a2; --bad: #ff9d94; --shadow: 0 1px 2px #0006, 0 8px 24px #0004;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, sans-serif; }
header, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2.5rem); }
header { padding-top: clamp(2rem, 6vw, 4rem); }
h1 { margin: 0; font-size: clamp(2rem, 5vw, 3rem); line-height: 1.1; letter-spacing: -.03em; width: fit-content;
  color: var(--accent); }
@supports (background-clip: text) {
  h1 { background: linear-gradient(100deg, var(--accent), var(--accent-2)); background-clip: text; color: transparent; }
}
h2 { margin: 3rem 0 1rem; font-size: 1.25rem; letter-spacing: -.01em; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .25rem 0; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--accent-2); outline-offset: 2px; border-radius: .25rem; }
code { font: .8125rem/1.4 ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
.lead { max-width: 42rem; color: var(--soft); font-size: 1.0625rem; }
.soft { color: var(--soft); font-size: .875rem; }
.grid { list-style: none; margin: 0; padding: 0; display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 1rem; overflow: hidden;
  box-shadow: var(--shadow); display: flex; flex-direction: column; }
.card > div { padding: .9rem 1rem 1rem; }
.people { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.card > img, .card > video { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: cover;
  background: var(--line); }
.card > video { object-fit: contain; background: #000; }
.still { opacity: .35; filter: grayscale(1); }
.poses { list-style: none; margin: .75rem 0 0; padding: .75rem 0 0; border-top: 1px solid var(--line); display: grid; gap: .5rem; }
.card .soft + .soft { margin-top: .1rem; }
.poses li { display: grid; grid-template-columns: 2.5rem 1fr; gap: .65rem; align-items: center; line-height: 1.3; }
.poses img { width: 2.5rem; height: 2.5rem; border-radius: .6rem; object-fit: cover; background: var(--line); display: block; }
.poses span { font-size: .875rem; }
.status { font-size: .875rem; font-weight: 600; }
.finished { color: var(--good); } .error { color: var(--bad); } .pending, .in_progressing { color: var(--soft); }
.nothing { border: 2px dashed var(--line); border-radius: 1rem; padding: 2rem; text-align: center; color: var(--soft); }
footer { padding-top: 3rem; padding-bottom: 3rem; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS = {
    # No scripts, nothing from other origins, and only the style above, by its hash.
    "Content-Security-Policy": f"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'sha256-{_HASH}'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page_html(avatars: Sequence[Avatar], videos: Sequence[tuple[Task, Video]]) -> str:
    """Return the page.

    Args:
        avatars: The avatars.
        videos: The latest tasks, each with its snapshot.
    """
    faces = {avatar.avatar_id: (avatar.display_name, avatar.preview_url) for avatar in avatars}
    faces |= {
        pose.pose_id: (f"{avatar.display_name}, {pose.name}", pose.preview_url)
        for avatar in avatars
        for pose in avatar.poses
    }
    # An old task may have a character that no longer exists.
    latest = "".join(_video(task, video, *faces.get(task.subject_id, (task.subject_id, ""))) for task, video in videos)
    nothing = "<p class=nothing>None yet. Submit one with <code>video.generate</code>, then reload the page.</p>"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>a2v engine</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        "<header><h1>a2v engine</h1><p class=lead>A character and a speech recording become a video of that character "
        "speaking. This engine renders them on its own machine.</p></header>"
        f"<main><section aria-labelledby=videos><h2 id=videos>Latest videos</h2>"
        f"{f'<ul class=grid>{latest}</ul>' if latest else nothing}</section>"
        "<section aria-labelledby=characters><h2 id=characters>Characters</h2>"
        f'<ul class="grid people">{"".join(map(_avatar, avatars))}</ul></section></main>'
        "<footer class=soft>API: <a href=openapi.json>openapi.json</a> · <a href=health>health</a></footer>"
        "</body></html>"
    )


def _avatar(avatar: Avatar) -> str:
    shown = (avatar.display_name, avatar.preview_url, avatar.avatar_id, avatar.gender)
    name, picture, avatar_id, gender = map(escape, shown)
    poses = "".join(map(_pose, avatar.poses))
    return (
        f'<li class=card><img src="{picture}" width=512 height=512 alt="{name}"><div><h3>{name}</h3>'
        f"<p class=soft><code>{avatar_id}</code> · {gender}</p>"
        f'{f"""<ul class=poses aria-label="Poses of {name}">{poses}</ul>""" if poses else ""}</div></li>'
    )


def _pose(pose: Pose) -> str:
    name, picture, pose_id = map(escape, (pose.name, pose.preview_url, pose.pose_id))
    return (
        f'<li><img src="{picture}" width=40 height=40 loading=lazy alt="">'
        f"<span>{name}<br><code class=soft>{pose_id}</code></span></li>"
    )


def _video(task: Task, video: Video, name: str, picture: str) -> str:
    name, picture, video_id, word = escape(name), escape(picture), escape(task.video_id), _WORDS[task.status]
    shown = (
        f'<video controls playsinline preload=metadata poster="{picture}" src="{escape(video.video_url)}"'
        f' aria-label="{name} speaking"></video>'
        if video.video_url
        else f'<img class=still src="{picture}" width=512 height=512 alt="">'
    )
    submitted = datetime.fromtimestamp(task.created, UTC)
    mask = f' · <a href="{escape(video.mask_video_url)}">mask</a>' if video.mask_video_url else ""
    return (
        f'<li class=card>{shown}<div><h3>{name}</h3><p><span class="status {task.status.value}">{word}</span>{mask}</p>'
        f"{f'<p class=soft>{escape(task.message)}</p>' if task.message else ''}"
        f'<p class=soft><time datetime="{submitted:%Y-%m-%dT%H:%M:%SZ}">{submitted:%d %b %Y, %H:%M} UTC</time></p>'
        f"<p class=soft><code>{video_id}</code></p></div></li>"
    )
