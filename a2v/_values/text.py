"""Untrusted text: find and escape invisible characters, and redact the secret parts of URLs."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# Control, format (bidirectional and zero-width characters are among them), surrogates, line and paragraph separators.
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Letters and marks without a glyph: fillers, the combining grapheme joiner, the empty braille cell, tags.
_NO_GLYPH = re.compile(
    "[\u2800\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e00ff]"
)
# Variation selectors choose a variant of the preceding letter or emoji; after ASCII, they have no effect.
_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_JOINERS = "\u200c\u200d"
_KEYCAP = "\u20e3"
# The parts of a URL that may give access: the user information before the host, and the query or fragment.
_SECRET_URL_PARTS = re.compile(r"(?<=//)[^/?#]*(?=@)|(?<=[?#]).+", re.DOTALL)


def is_invisible(character: str) -> bool:
    """Whether a character is invisible and not a space."""
    return unicodedata.category(character) in _INVISIBLE_CATEGORIES or _NO_GLYPH.match(character) is not None


def escape(text: str) -> str:
    r"""Escape invisible characters, as ``\x1b`` or ``\u200b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if is_invisible(character) else character for character in text)


def strip(text: str) -> str:
    """Strip spaces and invisible characters, such as a byte-order mark, from both ends."""
    text = text.strip()
    if text.isascii():
        return text
    start, end = 0, len(text)
    while start < end and _is_blank(text[start]):
        start += 1
    while end > start and _is_blank(text[end - 1]):
        end -= 1
    return text[start:end]


def find_invisible(text: str, *, is_name: bool = False) -> str | None:
    """Find an invisible character, or a space other than U+0020.

    Args:
        text: The text.
        is_name: Whether to accept ideographic spaces, and invisible characters that join letters or emoji; ``False`` by default.

    Returns:
        A description of the first such character, or ``None``. It does not quote the text, which may be a pre-signed URL.
    """
    if text.isascii() and text.isprintable():
        return None
    for index, character in enumerate(text):
        if is_invisible(character) or _SELECTOR.match(character):
            found = not (is_name and _affects_neighbours(text, index))
        else:
            found = character.isspace() and character != " " and not (is_name and character == "\u3000")
        if found:
            return describe(text, index)
    return None


def find_unwritable(text: str) -> str | None:
    """Find a lone surrogate, or a control character other than white space. A text file should contain neither.

    Returns:
        A description of the first such character, or ``None``.
    """
    if text.isprintable():
        return None
    for index, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            return describe(text, index)
    return None


def describe(text: str, index: int) -> str:
    """Describe a character of a text: its escape, name and position."""
    character = text[index]
    escaped = " " if character == " " else _escaped(character)
    name = unicodedata.name(character, "")
    place = f"(U+{ord(character):04X}{name and f' {name}'}, character {index + 1})"
    if unicodedata.category(character) == "Cs":
        return f"half of a character, {escaped}, which cannot be written as UTF-8 {place}"
    return f"'{escaped}' {place}"


def redact_url(text: str) -> str:
    """Redact the user information, query and fragment of the URL in a text; of the last URL, if there are several."""
    return _SECRET_URL_PARTS.sub("…", text)


def redacted_repr(value: Any) -> str:
    """Return the ``repr`` of a value for messages and logs, with URLs redacted."""
    if isinstance(value, str):
        return repr(redact_url(value))
    is_plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if is_plain else f"a value of type {type(value).__name__}"


def _is_blank(character: str) -> bool:
    return character.isspace() or is_invisible(character)


def _affects_neighbours(text: str, index: int) -> bool:
    """Whether an invisible character affects the letters or emoji around it."""
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if text[index] in _JOINERS:
        return not before.isascii() and not after.isascii()
    is_keycap = before in "0123456789#*" and after == _KEYCAP
    return _SELECTOR.match(text[index]) is not None and (is_keycap or not before.isascii())


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
