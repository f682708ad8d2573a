"""The HTML representation of values in notebooks: static, escaped, and without scripts.

Strings from a server are always treated as text, never as markup. Only ``http`` and ``https`` URLs become links and pictures, which
the browser fetches without the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from attrs import field, frozen

_MAX_ROWS = 100
"""Maximum number of rows in a table: thousands of pictures would overload the browser."""

_TABLE_WIDTH, _CARD_WIDTH = 48, 160
"""The widths of pictures in tables and cards, in pixels."""

_COLOURS = {"finished": "#2e7d32", "failed": "#c62828", "under way": "#1565c0"}
_DEFAULT_COLOUR = "#9e9e9e"
_CELL_STYLE = "text-align:left;vertical-align:middle;padding:2px 12px 2px 0"


@frozen
class HtmlView:
    """The displayed parts of a value. Empty ones are omitted.

    Attributes:
        name: The display name.
        facts: Other strings, by their names in the API.
        picture: The URL of a picture.
        player: The URL of a video to play.
        links: URLs, by the text of the link.
        parts: The views of nested values, such as the poses of an avatar.
    """

    name: str
    facts: Mapping[str, str]
    picture: str = ""
    player: str = ""
    links: Mapping[str, str] = field(factory=dict)
    parts: Sequence[HtmlView] = ()


def card(view: HtmlView) -> str:
    """Render one value as a card: the picture or the player above the facts."""
    player = _player(view.player)
    facts = "".join(f"<div>{_fact(key, value)}</div>" for key, value in view.facts.items() if value)
    links = "".join(f"<div>{link}</div>" for link in _links(view.links))
    parts = "".join(card(part) for part in view.parts)
    name = f"<div><strong>{escape(view.name)}</strong></div>" if view.name else ""
    content = f"{_picture(view.picture, view.name, _CARD_WIDTH)}{player}{name}{facts}{links}"
    nested = f'<div style="display:flex;flex-wrap:wrap">{parts}</div>' if parts else ""
    return f'<div style="display:inline-block;vertical-align:top;margin:4px 12px 4px 0">{content}{nested}</div>'


def table(rows: Sequence[HtmlView]) -> str:
    """Render values as a table, one per row."""
    if not rows:
        return "<em>none</em>"
    names = list(dict.fromkeys(key for row in rows for key, value in row.facts.items() if value))
    heads = ["", "name", *names, ""]
    cells = [
        [_small_picture(row), escape(row.name), *(_value(row, name) for name in names), _extras(row)]
        for row in rows[:_MAX_ROWS]
    ]
    columns = [column for column in range(len(heads)) if any(row[column] for row in cells)]
    head = "".join(f'<th style="{_CELL_STYLE}">{escape(heads[column])}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cell(row[column]) for column in columns)}</tr>" for row in cells)
    more = f"<p>… and {len(rows) - _MAX_ROWS} more</p>" if len(rows) > _MAX_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def progress(counts: Mapping[str, int]) -> str:
    """Render progress as a bar and as text.

    Args:
        counts: The number of items of each kind, such as ``{"finished": 3, "failed": 1, "under way": 4, "waiting": 9}``,
            in the order in which they are shown.
    """
    total = sum(counts.values())
    pieces = "".join(
        f'<div style="width:{100 * count / total:.2f}%;background:{_COLOURS.get(kind, _DEFAULT_COLOUR)}"></div>'
        for kind, count in counts.items()
        if count
    )
    words = ", ".join(f"{count} {escape(kind)}" for kind, count in counts.items() if count) or "nothing to do"
    bar = f'<div style="display:flex;height:10px;max-width:480px;border-radius:5px;overflow:hidden">{pieces}</div>'
    return f"<div>{bar}<div>{words} of {total}</div></div>" if total else f"<div>{words}</div>"


def _safe_url(url: str) -> str:
    """Return a URL escaped for an attribute; empty if it is not http or https: other schemes could run code or read files."""
    return escape(url) if url.lower().startswith(("https://", "http://")) else ""


def _picture(url: str, name: str, width: int) -> str:
    safe = _safe_url(url)
    if not safe:
        return ""
    return (
        f'<img src="{safe}" alt="{escape(name)}" width="{width}" loading="lazy" referrerpolicy="no-referrer" '
        f'style="border-radius:4px;max-width:none;margin:0">'
    )


def _player(url: str) -> str:
    safe = _safe_url(url)
    return (
        f'<video src="{safe}" controls preload="metadata" style="max-width:100%;width:320px"></video>' if safe else ""
    )


def _links(links: Mapping[str, str]) -> list[str]:
    """Render links that do not send the URL of the notebook to their targets."""
    return [
        f'<a href="{safe}" target="_blank" rel="noopener noreferrer">{escape(what)}</a>'
        for what, url in links.items()
        if (safe := _safe_url(url))
    ]


def _fact(key: str, value: str) -> str:
    return f"{escape(key)}: <code>{escape(value)}</code>"


def _value(row: HtmlView, name: str) -> str:
    value = row.facts.get(name)
    return f"<code>{escape(value)}</code>" if value else ""


def _cell(html: str) -> str:
    return f'<td style="{_CELL_STYLE}">{html}</td>'


def _small_picture(row: HtmlView) -> str:
    return _picture(row.picture, row.name, _TABLE_WIDTH)


def _extras(row: HtmlView) -> str:
    parts = [
        " ".join(filter(None, [_small_picture(part), *(_value(part, name) for name in part.facts)]))
        for part in row.parts
    ]
    return "<br>".join([*parts, *_links(row.links)])
