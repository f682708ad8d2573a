"""Text from elsewhere: which of its characters cannot be seen, and how to show them."""

from __future__ import annotations

import re
import unicodedata

# Control, format (bidirectional and zero-width characters are among them), surrogates, line and paragraph separators.
_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Letters and marks that show nothing: fillers, the combining grapheme joiner, tags.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e00ff]")
# They choose between forms of a letter or an emoji, and mean nothing beside ASCII.
_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_JOINERS = "\u200c\u200d"
_AROUND = 20


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
        The text around the first such character, which is escaped; ``None`` if there is none.
    """
    if text.isascii() and text.isprintable():
        return None
    for at, character in enumerate(text):
        if is_invisible(character) or _SELECTOR.match(character):
            found = not (is_name and _belongs(text, at))
        else:
            found = character.isspace() and character != " " and not (is_name and character == "\u3000")
        if found:
            before, after = text[max(0, at - _AROUND) : at], text[at + 1 : at + 1 + _AROUND]
            return "…" * (at > _AROUND) + escape(before) + _escaped(character) + escape(after)
    return None


def _shows_nothing(character: str) -> bool:
    return character.isspace() or is_invisible(character)


def _belongs(text: str, at: int) -> bool:
    """Whether an invisible character shapes the letters or emoji around it."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at] in _JOINERS:
        return not before.isascii() and not after.isascii()
    return _SELECTOR.match(text[at]) is not None and not before.isascii()


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
