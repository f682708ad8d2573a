"""Text that does not name its encoding."""

from __future__ import annotations

import pytest

from a2v._core.code_pages import decode

WORDS = {
    "cp1252": ["München", "Straße", "café", "10 €", "Lektion – 1", "Ísland", "Bjørn", "§ 5"],
    "cp1250": ["Łódź", "święto", "žluťoučký kůň"],
    "cp1251": ["Привет", "Запись 1"],
    "mac_roman": ["München", "Grüße", "Éva", "Änderung"],
    "gb18030": ["你好", "录音一", "丂丄 产品介绍"],
    "cp932": ["こんにちは", "録音", "株式会社"],
}


@pytest.mark.parametrize(
    ("encoding", "word"), [(encoding, word) for encoding, words in WORDS.items() for word in words]
)
def test_what_excel_saved_is_read(encoding, word) -> None:
    text = f"model_id,audio_url,name\neva,{word}.wav,{word}\n"
    decoded, name = decode(text.encode(encoding))
    assert decoded == text
    assert name


def test_the_first_letter_may_come_late() -> None:
    text = (
        "model_id,audio_url,name\n"
        + "eva,https://example.com/a.wav,a\n" * 1000
        + "eva,https://example.com/b.wav,Müller\n"
    )
    decoded, name = decode(text.encode("cp1252"))
    assert decoded == text
    assert name.startswith("Windows-1252")


@pytest.mark.parametrize("data", ["ü,é,x".encode() + b"\xff", b"\xfca\0", "Grüße, Café".encode() + b"\xfc"])
def test_damaged_text_is_not_guessed(data) -> None:
    assert decode(data) is None
