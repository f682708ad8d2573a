"""Characters that nobody sees are found and shown, and those that shape letters and emoji are left alone."""

from __future__ import annotations

import pytest

from a2v._core import text


@pytest.mark.parametrize(
    ("given", "is_name", "shown"),
    [
        ("https://example.com/a.wav", False, None),
        ("https://example.com/müller/録音.wav", False, None),
        ("a\u200b", False, "a\\u200b"),
        ("\ufeffa", False, "\\ufeffa"),
        ("a\u2060b", True, "a\\u2060b"),
        ("a\xadb", True, "a\\xadb"),
        ("a\u202eb", True, "a\\u202eb"),
        ("a\u3164", True, "a\\u3164"),
        ("a\ufe0f", True, "a\\ufe0f"),
        ("a\u200d", True, "a\\u200d"),
        ("日\u200d", True, "日\\u200d"),
        ("a\U000e0061", True, "a\\U000e0061"),
        ("a\ud800", True, "a\\ud800"),
        ("a\tb", True, "a\\x09b"),
        ("\x1b[0m", True, "\\x1b[0m"),
        ("a\xa0b", True, "a\\xa0b"),
        ("a\u3000b", False, "a\\u3000b"),
        ("x" * 30 + "\u200b" + "\u200by" * 30, False, "…" + "x" * 20 + "\\u200b" + "\\u200by" * 10),
        ("one two", True, None),
        ("録音\u30001", True, None),
        ("👩\u200d💻", True, None),
        ("❤\ufe0f\u200d🔥", True, None),
        ("نمی\u200cشود", True, None),
    ],
)
def test_what_nobody_sees_is_found_and_shown(given, is_name, shown) -> None:
    assert text.find_invisible(given, is_name=is_name) == shown


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
