"""What a notebook shows of the values: plain HTML, escaped, without a script.

A server's words are text and never markup, and of its URLs only those of http and https become links and pictures. The
browser fetches them by itself, so without the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from attrs import field, frozen

_ROWS = 100
"""A longer list is cut off: a browser has enough of some thousand pictures, and a reader long before."""

_SMALL, _LARGE = 48, 160
"""How wide a picture is, in pixels, in a table and by itself."""

_COLOURS = {"finished": "#2e7d32", "failed": "#c62828", "under way": "#1565c0"}
_REST = "#9e9e9e"
_CELL = "text-align:left;vertical-align:middle;padding:2px 12px 2px 0"


@frozen
class HtmlView:
    """What is to be seen of a value.

    Attributes:
        name: What people call it.
        facts: What else is known of it, by its name in the API; what is empty is left out.
        picture: The URL of a picture of it.
        player: The URL of a film.
        links: URLs by what is there.
        parts: What it has, in the same way.
    """

    name: str
    facts: Mapping[str, str]
    picture: str = ""
    player: str = ""
    links: Mapping[str, str] = field(factory=dict)
    parts: Sequence[HtmlView] = ()


def card(shown: HtmlView) -> str:
    """A value by itself: a portrait or a player, and below it what is known."""
    film = _player(shown.player)
    facts = "".join(f"<div>{_fact(key, value)}</div>" for key, value in shown.facts.items() if value)
    links = "".join(f"<div>{link}</div>" for link in _links(shown.links))
    parts = "".join(card(part) for part in shown.parts)
    name = f"<div><strong>{escape(shown.name)}</strong></div>" if shown.name else ""
    own = f"{_picture(shown.picture, shown.name, _LARGE)}{film}{name}{facts}{links}"
    beside = f'<div style="display:flex;flex-wrap:wrap">{parts}</div>' if parts else ""
    return f'<div style="display:inline-block;vertical-align:top;margin:4px 12px 4px 0">{own}{beside}</div>'


def table(rows: Sequence[HtmlView]) -> str:
    """Many values, one below the other."""
    if not rows:
        return "<em>none</em>"
    names = list(dict.fromkeys(key for row in rows for key, value in row.facts.items() if value))
    heads = ["", "name", *names, ""]
    cells = [
        [_looks(row), escape(row.name), *(_value(row, name) for name in names), _extras(row)] for row in rows[:_ROWS]
    ]
    kept = [place for place in range(len(heads)) if any(row[place] for row in cells)]
    head = "".join(f'<th style="{_CELL}">{escape(heads[place])}</th>' for place in kept)
    body = "".join(f"<tr>{''.join(_cell(row[place]) for place in kept)}</tr>" for row in cells)
    more = f"<p>… and {len(rows) - _ROWS} more</p>" if len(rows) > _ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def progress(counts: Mapping[str, int]) -> str:
    """How far many things have come: a bar, and the same in words.

    Args:
        counts: How many there are of each kind, such as ``{"finished": 3, "failed": 1, "under way": 4, "waiting": 9}``,
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
    """A URL fit for an attribute, or nothing: what is not http or https could run or read something."""
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
    """Nothing of the notebook goes along to where they lead."""
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


def _looks(row: HtmlView) -> str:
    return _picture(row.picture, row.name, _SMALL)


def _extras(row: HtmlView) -> str:
    parts = [" ".join(filter(None, [_looks(part), *(_value(part, name) for name in part.facts)])) for part in row.parts]
    return "<br>".join([*parts, *_links(row.links)])
