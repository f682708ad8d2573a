"""Text from elsewhere: which of its characters cannot be seen, and how to show it without what should stay secret."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# Control, format (bidirectional and zero-width characters are among them), surrogates, line and paragraph separators.
_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Letters and marks that show nothing: fillers, the combining grapheme joiner, an empty braille cell, tags.
_BLANK = re.compile(
    "[\u2800\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e00ff]"
)
# They choose between forms of a letter or an emoji, and mean nothing beside ASCII.
_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_JOINERS = "\u200c\u200d"
_KEYCAP = "\u20e3"
# What gives access to a URL stands before the host, or in the query.
_ACCESS = re.compile(r"(?<=//)[^/?#]*(?=@)|(?<=[?#]).+", re.DOTALL)


def is_invisible(character: str) -> bool:
    """Whether a character shows nothing, and is not a space."""
    return unicodedata.category(character) in _CATEGORIES or _BLANK.match(character) is not None


def escape(text: str) -> str:
    r"""Text with its invisible characters written as ``\x1b`` or ``\u200b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if is_invisible(character) else character for character in text)


def strip(text: str) -> str:
    """Text without the spaces and invisible characters at its ends, such as a byte-order mark."""
    text = text.strip()
    if text.isascii():
        return text
    start, end = 0, len(text)
    while start < end and _shows_nothing(text[start]):
        start += 1
    while end > start and _shows_nothing(text[end - 1]):
        end -= 1
    return text[start:end]


def find_invisible(text: str, *, is_name: bool = False) -> str | None:
    """Find a character that cannot be seen, or that looks like an ordinary space and is another one.

    Args:
        text: The text.
        is_name: Whether the text is for people, who join letters and emoji, and write wide spaces.

    Returns:
        A description of the first such character. It does not quote the text, which may be a URL that gives access.
        ``None`` if there is none.
    """
    if text.isascii() and text.isprintable():
        return None
    for at, character in enumerate(text):
        if is_invisible(character) or _SELECTOR.match(character):
            found = not (is_name and _belongs(text, at))
        else:
            found = character.isspace() and character != " " and not (is_name and character == "\u3000")
        if found:
            return describe(text, at)
    return None


def find_unwritable(text: str) -> str | None:
    """Find half a character, or a control character that is no white space: a file of text should hold neither.

    Returns:
        A description of the first such character; ``None`` if there is none.
    """
    if text.isprintable():
        return None
    for at, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            return describe(text, at)
    return None


def describe(text: str, at: int) -> str:
    """A character of a text: how it is escaped, what it is called, and where it stands."""
    character = text[at]
    shown = " " if character == " " else _escaped(character)
    name = unicodedata.name(character, "")
    place = f"(U+{ord(character):04X}{name and f' {name}'}, character {at + 1})"
    if unicodedata.category(character) == "Cs":
        return f"half of a character, {shown}, which cannot be written as UTF-8 {place}"
    return f"'{shown}' {place}"


def hide_access(text: str) -> str:
    """A text without what gives access to a URL in it, or to the last of several."""
    return _ACCESS.sub("…", text)


def discreet(value: Any) -> str:
    """A value in an error message or a ``repr``, which ends up in logs: of a URL no more than tells which one it is."""
    if isinstance(value, str):
        return repr(hide_access(value))
    is_plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if is_plain else f"a value of type {type(value).__name__}"


def _shows_nothing(character: str) -> bool:
    return character.isspace() or is_invisible(character)


def _belongs(text: str, at: int) -> bool:
    """Whether an invisible character shapes the letters or emoji around it."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at] in _JOINERS:
        return not before.isascii() and not after.isascii()
    is_keycap = before in "0123456789#*" and after == _KEYCAP
    return _SELECTOR.match(text[at]) is not None and (is_keycap or not before.isascii())


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
