"""Excerpts of responses for error messages, without secrets: of the API's, a gateway's web page, or another API's JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from a2v._values.text import escape

if TYPE_CHECKING:
    from a2v._core.wire import Response

_MAX_READ = 16384  # bytes of a body
_MAX_SHOWN = 200  # characters of its text
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)|<[^>]*(>|\Z)")
# Possible secrets: the user information and query of URLs, and values whose name suggests a secret. Both may be percent-encoded, or
# part of a JSON string, in which a slash may be `\/` and a quote `\"`. To keep matching linear, no pattern starts with an unbounded
# part.
_URL = re.compile(
    r"""(?ix) (:(?:\\*/){2} | %3a%2f%2f)
    ((?:(?!%[23]f|%23) [^\s/?\#"'<>])* (?:@|%40))?
    ((?:(?!%3f|%23) [^\s?\#"'<>])*)
    ((?:[?\#]|%3f|%23) [^\s"'<>]*)?"""
)
_SENSITIVE_NAME = (
    r"(?:token|secret|passw(?:or)?d|passphrase|signature|credential|authorization|cookie|(?:api|access|account|private)[_-]?key"
    r"|session[_-]?id|(?<![a-z])(?:sig|pwd|jwt)(?![a-z]))[\w.-]{0,40}"
)
_NAMED_SECRET = re.compile(
    rf"""(?ix) ({_SENSITIVE_NAME} (?:\\*["'])? \s? (?:[:=]|%3d|%3a) \s?)
    (?: \\*(["']) (?:\\.|(?!\2).)*
    | (?:(?:bearer|basic|token)\s)? [^\s"'&,;}}<>]+ (?:;\s?[\w.-]+=[^\s"'&,;}}<>]*)* )"""
)
_NAMED_XML_ELEMENT = re.compile(rf"(?i)(<[\w:.-]{{0,40}}{_SENSITIVE_NAME}[^<>]{{0,200}}>)[^<]*")


def describe(response: Response) -> str:
    """Describe the response of something other than the API.

    Returns:
        One line with the kind of response and the beginning of its text, without secrets; empty if the response is empty.
    """
    page, text = _is_page(response), excerpt(response, _MAX_SHOWN)
    if page:
        return f"a web page answered, not the API: {text}" if text else "a web page answered, not the API"
    return f"something other than the API answered: {text}" if text else ""


def excerpt(response: Response, limit: int) -> str:
    """Return the beginning of a response's text in one line, without markup and secrets.

    Args:
        response: The response.
        limit: Maximum number of characters.
    """
    text = response.body[:_MAX_READ].decode(errors="replace")
    if _is_page(response):
        from html import unescape  # noqa: PLC0415  # loads large tables, for error pages only

        text = unescape(_MARKUP.sub(" ", _NAMED_XML_ELEMENT.sub(r"\1…", text)))
    text = _URL.sub(
        lambda url: f"{url[1]}{'…@' if url[2] else ''}{url[3]}{'?…' if url[4] else ''}", " ".join(text.split())
    )
    text = escape(_NAMED_SECRET.sub(r"\1\2…", text)).strip()
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def _is_page(response: Response) -> bool:
    text = response.body[:_MAX_READ].decode(errors="replace").lstrip("\ufeff \t\r\n")
    return "html" in response.headers.get("content-type", "").lower() or text.startswith("<")
