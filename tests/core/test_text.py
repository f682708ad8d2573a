"""Invisible characters are found and escaped, unless they join letters or emoji."""

from __future__ import annotations

import pytest

from a2v._values import text


@pytest.mark.parametrize(
    ("given", "is_name", "found"),
    [
        ("https://example.com/a.wav", False, None),
        ("https://example.com/müller/録音.wav", False, None),
        ("a\u200b", False, "'\\u200b' (U+200B ZERO WIDTH SPACE, character 2)"),
        ("\ufeffa", False, "'\\ufeff' (U+FEFF ZERO WIDTH NO-BREAK SPACE, character 1)"),
        ("a\u2060b", True, "'\\u2060' (U+2060 WORD JOINER, character 2)"),
        ("a\xadb", True, "'\\xad' (U+00AD SOFT HYPHEN, character 2)"),
        ("a\u202eb", True, "'\\u202e' (U+202E RIGHT-TO-LEFT OVERRIDE, character 2)"),
        ("a\u3164", True, "'\\u3164' (U+3164 HANGUL FILLER, character 2)"),
        ("a\ufe0f", True, "'\\ufe0f' (U+FE0F VARIATION SELECTOR-16, character 2)"),
        ("a\u200d", True, "'\\u200d' (U+200D ZERO WIDTH JOINER, character 2)"),
        ("日\u200d", True, "'\\u200d' (U+200D ZERO WIDTH JOINER, character 2)"),
        ("a\U000e0061", True, "'\\U000e0061' (U+E0061 TAG LATIN SMALL LETTER A, character 2)"),
        ("a\ud800", True, "half of a character, \\ud800, which cannot be written as UTF-8 (U+D800, character 2)"),
        ("a\tb", True, "'\\x09' (U+0009, character 2)"),
        ("\x1b[0m", True, "'\\x1b' (U+001B, character 1)"),
        ("a\xa0b", True, "'\\xa0' (U+00A0 NO-BREAK SPACE, character 2)"),
        ("a\u3000b", False, "'\\u3000' (U+3000 IDEOGRAPHIC SPACE, character 2)"),
        ("x" * 30 + "\u200b" + "\u200by" * 30, False, "'\\u200b' (U+200B ZERO WIDTH SPACE, character 31)"),
        ("one two", True, None),
        ("録音\u30001", True, None),
        ("👩\u200d💻", True, None),
        ("❤\ufe0f\u200d🔥", True, None),
        ("1\ufe0f\u20e3", True, None),
        ("نمی\u200cشود", True, None),
    ],
)
def test_invisible_characters_are_found_and_described(given, is_name, found) -> None:
    assert text.find_invisible(given, is_name=is_name) == found


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" a ", "a"),
        ("\ufeffa", "a"),
        ("\u200b ü\u2060\xa0", "ü"),
        ("\u200b\ufeff", ""),
        ("", ""),
        ("a\u200bb", "a\u200bb"),
    ],
)
def test_strip(given, kept) -> None:
    assert text.strip(given) == kept


def test_escape() -> None:
    assert text.escape("plain") == "plain"
    assert text.escape("é\u200b\n\U000e0061") == "é\\u200b\\x0a\\U000e0061"
