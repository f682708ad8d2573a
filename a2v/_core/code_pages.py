"""Guesses the encoding of text that is not UTF-8, such as CSV files from Excel and from old Mac software.

Such a file does not declare its encoding, and most bytes are valid in most encodings. So the text is decoded with each candidate
and scored, and the highest score wins. Only characters outside ASCII count. A wrong encoding shows as symbols or capital letters
inside words, words that mix two scripts, and long runs of accented letters, as when Cyrillic is decoded as Windows-1252.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

# The candidates, with their names and a penalty on the score: a common encoding wins unless another one is clearly better.
_CANDIDATES = {
    "cp1252": ("Windows-1252 (Western European)", 0.0),
    "cp1250": ("Windows-1250 (Central European)", 0.75),
    "cp1251": ("Windows-1251 (Cyrillic)", 2.5),
    "mac_roman": ("Mac OS Roman", 0.5),
    "gb18030": ("GB18030 (Chinese)", 0.0),
    "cp932": ("Windows-932 (Japanese)", 0.0),
}
# Characters to score: of a large file, the beginning is enough.
_MAX_SCORED = 20_000
_WORD = re.compile(r"[^\W\d_]+")
_COMMON_LETTERS = frozenset("äöüßéèêàâçñáíóúåøæëïîôûùãõìòąćęłńśźżčďěňřšťůžőű")
_RARE_LETTERS = frozenset("ŸšžŠŽœŒþðƒ")
_BEFORE_WORDS = frozenset("“”„‘’‚«»¿¡–")  # noqa: RUF001  # quotes
# Letters of few languages.
_RARE_CYRILLIC = frozenset("ЂЃѓЉЊЌЋЏђљњќћџЎўЈјҐґЅѕ")
_PUNCTUATION = frozenset("“”„‘’‚–—…«»€£©®°·•§¿¡×")  # noqa: RUF001  # quotes
# The first bytes, in GB2312, of the 3,755 most frequent Chinese characters.
_FREQUENT_CHINESE = range(0xB0, 0xD8)


def decode(data: bytes) -> tuple[str, str] | None:
    """Decode text that is not UTF-8.

    Args:
        data: The text.

    Returns:
        The text, and the name of the guessed encoding; ``None`` if the data is damaged UTF-8, or not text.
    """
    if b"\0" in data:
        return None
    # Skip ASCII lines: they are the same in each encoding. No multi-byte character contains a line break.
    scored = b"\n".join(line for line in data.splitlines() if not line.isascii())
    best = None
    best_score = _score_damaged_utf8(scored)
    for encoding, (name, penalty) in _CANDIDATES.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        score = _score(scored.decode(encoding)[:_MAX_SCORED]) - penalty
        if score > best_score:
            best, best_score = (text, name), score
    return best


def _score_damaged_utf8(data: bytes) -> float:
    """Score the assumption that the data is UTF-8 with some invalid bytes."""
    text = data.decode("utf-8", "surrogateescape")[:_MAX_SCORED]
    valid = "".join(character for character in text if not "\udc80" <= character <= "\udcff")
    invalid_count = len(text) - len(valid)
    # In other encodings, few bytes happen to form valid sequences.
    valid_count = sum(not character.isascii() for character in valid)
    return _score(valid) + 2.0 * (valid_count - invalid_count)


def _score(text: str) -> float:
    score = 0.0
    for before, character, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        if not character.isascii() and not character.isalpha():
            score += _score_symbol(character, before, after)
    return score + sum(map(_score_word, _WORD.findall(text)))


def _score_symbol(character: str, before: str, after: str) -> float:
    if unicodedata.category(character) in ("Cc", "Cn", "Co"):
        return -5
    if _script(character) == "CJK":
        return 0
    if character not in _PUNCTUATION or (after.isalpha() and character not in _BEFORE_WORDS):
        return -1
    return 0 if before.isalpha() and after.isalpha() else 1


def _score_word(word: str) -> float:
    if word.isascii():
        return 0
    scripts = {_script(character) for character in word}
    if scripts <= {"CJK", "HIRAGANA", "KATAKANA"}:
        # Each has two bytes, which a single-byte encoding decodes as two letters.
        return sum(2 if _is_frequent(character) else -1 for character in word)
    score = -2.0 * (len(scripts) - 1)
    score -= sum(2 for before, after in pairwise(word) if before.islower() and after.isupper())
    if scripts == {"LATIN"}:
        score += sum(_score_letter(letter) for letter in word if not letter.isascii())
        if len(word) == 1:
            return score / 4
        score -= sum(len(run) - 1 for run in re.findall(r"[^\x00-\x7f]{2,}", word))
        return score
    if "HALFWIDTH" in scripts:
        return -len(word)
    # In Cyrillic that is decoded with the wrong code page, about every second letter is a capital.
    return (
        score
        + sum(character not in _RARE_CYRILLIC for character in word if not character.isascii())
        - 2 * (not _is_cased_like_a_word(word))
    )


def _score_letter(letter: str) -> float:
    if letter in _RARE_LETTERS:
        return 0
    return 1 if letter.lower() in _COMMON_LETTERS else 0.5


def _is_cased_like_a_word(word: str) -> bool:
    return word.islower() or word.isupper() or word.istitle()


def _is_frequent(character: str) -> bool:
    if _script(character) != "CJK":
        return True
    try:
        return character.encode("gb2312")[0] in _FREQUENT_CHINESE
    except UnicodeEncodeError:
        return False


def _script(character: str) -> str:
    name = unicodedata.name(character, "")
    return "CJK" if name.startswith(("CJK", "FULLWIDTH", "IDEOGRAPHIC")) else name.partition(" ")[0]
