"""The page that people see at ``GET /``: who can speak, and what was made last."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from a2v._core.models import Character, VideoStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from a2v.engine.store import Task

# Nothing on the page runs, and nothing on it comes from elsewhere.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_WORDS = {
    VideoStatus.PENDING: "waits in line",
    VideoStatus.IN_PROGRESS: "is being rendered",
    VideoStatus.FINISHED: "finished",
    VideoStatus.FAILED: "failed",
}
_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
p { margin: .25rem 0; } .faint { opacity: .7; font-size: .875rem; overflow-wrap: anywhere; }
ul { list-style: none; padding: 0; display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
li { border: 1px solid var(--line); border-radius: .75rem; overflow: hidden; background: var(--soft); }
li > div { padding: .6rem .8rem .8rem; }
img, video, .empty { display: block; width: 100%; aspect-ratio: 1; background: #8882; }
.empty { display: grid; place-items: center; text-align: center; }
"""


def page(characters: Iterable[Character], videos: Iterable[tuple[Task, str | None]]) -> str:
    """The HTML.

    Args:
        characters: Who can speak.
        videos: The latest tasks, each with its ``video_url`` once finished.
    """
    cards = "".join(map(_character, characters))
    latest = "".join(_video(task, url) for task, url in videos)
    shown = (
        f"<ul>{latest}</ul>" if latest else "<p class=faint>None yet. Reload this page once you have submitted one.</p>"
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>a2v engine</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>a2v engine</h1>"
        "<p class=faint>A character and a speech recording become a video of that character speaking.</p>"
        f"<h2>Characters</h2><ul>{cards}</ul><h2>Latest videos</h2>{shown}</body></html>"
    )


def _character(character: Character) -> str:
    name, picture, model_id = map(escape, (character.display_name, character.preview_url, character.model_id))
    return (
        f'<li><img src="{picture}" alt="{name}"><div><p>{name}</p>'
        f"<p class=faint><code>{model_id}</code> · {escape(character.gender)}</p></div></li>"
    )


def _video(task: Task, url: str | None) -> str:
    word = _WORDS[task.status]
    shown = (
        f'<video controls preload=metadata src="{escape(url)}"></video>' if url else f"<div class=empty>{word}</div>"
    )
    why = f"<p>{escape(task.message)}</p>" if task.message else ""
    facts = f"<p><code>{escape(task.model_id)}</code> · {word}</p>{why}<p class=faint>{task.video_id}</p>"
    return f"<li>{shown}<div>{facts}</div></li>"
