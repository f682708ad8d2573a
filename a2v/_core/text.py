"""Text from elsewhere, made harmless for logs, error messages and terminals."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional and zero-width ones are among them), surrogates, line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Letters and marks that show nothing.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


def escape(text: str) -> str:
    r"""Replace invisible and control characters by their escapes, such as ``\x1b`` or ``\u200b``."""
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character not in _BLANK and unicodedata.category(character) not in _INVISIBLE:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
