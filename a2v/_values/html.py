"""The HTML representation of values in notebooks: static and escaped, without scripts.

Strings from a server are always text, never markup, and only its http and https URLs become links and pictures. The browser
fetches those without the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from attrs import field, frozen

_ROWS = 100
"""The maximum number of rows: thousands of pictures would overload the browser."""

_SMALL, _LARGE = 48, 160
"""The width of pictures in pixels, in a table and in a card."""

_COLOURS = {"finished": "#2e7d32", "failed": "#c62828", "under way": "#1565c0"}
_REST = "#9e9e9e"
_CELL = "text-align:left;vertical-align:middle;padding:2px 12px 2px 0"


@frozen
class HtmlView:
    """The visible facts of a value.

    Attributes:
        name: Its name for people.
        facts: Other facts by their names in the API; empty ones are left out.
        picture: The URL of its picture.
        player: The URL of its video.
        links: URLs by the text of the link.
        parts: The views of its parts.
    """

    name: str
    facts: Mapping[str, str]
    picture: str = ""
    player: str = ""
    links: Mapping[str, str] = field(factory=dict)
    parts: Sequence[HtmlView] = ()


def card(view: HtmlView) -> str:
    """Render one value as a card: its picture or a player above its facts."""
    player = _player(view.player)
    facts = "".join(f"<div>{_fact(key, value)}</div>" for key, value in view.facts.items() if value)
    links = "".join(f"<div>{link}</div>" for link in _links(view.links))
    parts = "".join(card(part) for part in view.parts)
    name = f"<div><strong>{escape(view.name)}</strong></div>" if view.name else ""
    own = f"{_picture(view.picture, view.name, _LARGE)}{player}{name}{facts}{links}"
    beside = f'<div style="display:flex;flex-wrap:wrap">{parts}</div>' if parts else ""
    return f'<div style="display:inline-block;vertical-align:top;margin:4px 12px 4px 0">{own}{beside}</div>'


def table(rows: Sequence[HtmlView]) -> str:
    """Render values as a table, one per row."""
    if not rows:
        return "<em>none</em>"
    names = list(dict.fromkeys(key for row in rows for key, value in row.facts.items() if value))
    heads = ["", "name", *names, ""]
    cells = [
        [_small_picture(row), escape(row.name), *(_value(row, name) for name in names), _extras(row)]
        for row in rows[:_ROWS]
    ]
    kept = [place for place in range(len(heads)) if any(row[place] for row in cells)]
    head = "".join(f'<th style="{_CELL}">{escape(heads[place])}</th>' for place in kept)
    body = "".join(f"<tr>{''.join(_cell(row[place]) for place in kept)}</tr>" for row in cells)
    more = f"<p>… and {len(rows) - _ROWS} more</p>" if len(rows) > _ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def progress(counts: Mapping[str, int]) -> str:
    """Render progress as a bar, and in words.

    Args:
        counts: The number of items of each kind, such as ``{"finished": 3, "failed": 1, "under way": 4, "waiting": 9}``,
            in the order in which they are shown.
    """
    total = sum(counts.values())
    pieces = "".join(
        f'<div style="width:{100 * count / total:.2f}%;background:{_COLOURS.get(kind, _REST)}"></div>'
        for kind, count in counts.items()
        if count
    )
    words = ", ".join(f"{count} {escape(kind)}" for kind, count in counts.items() if count) or "nothing to do"
    bar = f'<div style="display:flex;height:10px;max-width:480px;border-radius:5px;overflow:hidden">{pieces}</div>'
    return f"<div>{bar}<div>{words} of {total}</div></div>" if total else f"<div>{words}</div>"


def _web(url: str) -> str:
    """Return a URL escaped for an attribute; empty if it is not http or https, which could run code or read files."""
    return escape(url) if url.lower().startswith(("https://", "http://")) else ""


def _picture(url: str, name: str, width: int) -> str:
    safe = _web(url)
    if not safe:
        return ""
    return (
        f'<img src="{safe}" alt="{escape(name)}" width="{width}" loading="lazy" referrerpolicy="no-referrer" '
        f'style="border-radius:4px;max-width:none;margin:0">'
    )


def _player(url: str) -> str:
    safe = _web(url)
    return (
        f'<video src="{safe}" controls preload="metadata" style="max-width:100%;width:320px"></video>' if safe else ""
    )


def _links(links: Mapping[str, str]) -> list[str]:
    """Render links that reveal nothing about the notebook to their targets."""
    return [
        f'<a href="{safe}" target="_blank" rel="noopener noreferrer">{escape(what)}</a>'
        for what, url in links.items()
        if (safe := _web(url))
    ]


def _fact(key: str, value: str) -> str:
    return f"{escape(key)}: <code>{escape(value)}</code>"


def _value(row: HtmlView, name: str) -> str:
    value = row.facts.get(name)
    return f"<code>{escape(value)}</code>" if value else ""


def _cell(html: str) -> str:
    return f'<td style="{_CELL}">{html}</td>'


def _small_picture(row: HtmlView) -> str:
    return _picture(row.picture, row.name, _SMALL)


def _extras(row: HtmlView) -> str:
    parts = [
        " ".join(filter(None, [_small_picture(part), *(_value(part, name) for name in part.facts)]))
        for part in row.parts
    ]
    return "<br>".join([*parts, *_links(row.links)])
