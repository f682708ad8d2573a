"""Guesses the encoding of text that is not UTF-8: files that Excel saved as plain CSV, and older files of a Mac.

Such a file does not name its encoding, and most bytes are valid in most of them. So the text is decoded in each, and the most
plausible result is taken. Mistakes show in the characters that are not ASCII: symbols and capital letters inside words, letters
of two scripts in one word, and long runs of accented letters (Cyrillic text read as Windows-1252).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

# Each with its handicap: the more common encoding wins unless the text is clearly in another one.
_CODE_PAGES = {
    "cp1252": ("Windows-1252 (Western European)", 0.0),
    "cp1250": ("Windows-1250 (Central European)", 0.75),
    "cp1251": ("Windows-1251 (Cyrillic)", 2.5),
    "mac_roman": ("Mac OS Roman", 0.5),
    "gb18030": ("GB18030 (Chinese)", 0.0),
    "cp932": ("Windows-932 (Japanese)", 0.0),
}
# In a large file, the first of such lines tell enough.
_MOST_SCORED = 20_000
_WORD = re.compile(r"[^\W\d_]+")
_COMMON = frozenset("äöüßéèêàâçñáíóúåøæëïîôûùãõìòąćęłńśźżčďěňřšťůžőű")
_UNUSUAL = frozenset("ŸšžŠŽœŒþðƒ")
_OPENING = frozenset("“”„‘’‚«»¿¡–")  # noqa: RUF001  # quotes
# Few languages have these.
_RARE_CYRILLIC = frozenset("ЂЃѓЉЊЌЋЏђљњќћџЎўЈјҐґЅѕ")
_PUNCTUATION = frozenset("“”„‘’‚–—…«»€£©®°·•§¿¡×")  # noqa: RUF001  # quotes
# The 3755 most frequent Chinese characters have these first bytes in GB2312.
_FREQUENT = range(0xB0, 0xD8)


def decode(data: bytes) -> tuple[str, str] | None:
    """Decode text that is not UTF-8.

    Args:
        data: The text.

    Returns:
        The text, and the name of its presumed encoding; ``None`` if it is damaged UTF-8, or no text.
    """
    if b"\0" in data:
        return None
    # ASCII is the same in all of them, and no other character contains a line break.
    scored = b"\n".join(line for line in data.splitlines() if not line.isascii())
    best = None
    best_score = _plausibility_of_utf8(scored)
    for encoding, (name, handicap) in _CODE_PAGES.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        score = _plausibility(scored.decode(encoding)[:_MOST_SCORED]) - handicap
        if score > best_score:
            best, best_score = (text, name), score
    return best


def _plausibility_of_utf8(data: bytes) -> float:
    """Return how plausible it is that the text is UTF-8 in which some bytes are wrong."""
    text = data.decode("utf-8", "surrogateescape")[:_MOST_SCORED]
    wrong = sum("\udc80" <= character <= "\udcff" for character in text)
    # In other encodings, few bytes happen to be valid sequences.
    valid = sum(not character.isascii() for character in text) - wrong
    return _plausibility("".join(one for one in text if not "\udc80" <= one <= "\udcff")) + 2.0 * (valid - wrong)


def _plausibility(text: str) -> float:
    score = 0.0
    for before, one, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        if not one.isascii() and not one.isalpha():
            score += _of_symbol(one, before, after)
    return score + sum(map(_of_word, _WORD.findall(text)))


def _of_symbol(character: str, before: str, after: str) -> float:
    if unicodedata.category(character) in ("Cc", "Cn", "Co"):
        return -5
    if _script(character) == "CJK":
        return 0
    if character not in _PUNCTUATION or (after.isalpha() and character not in _OPENING):
        return -1
    return 0 if before.isalpha() and after.isalpha() else 1


def _of_word(word: str) -> float:
    if word.isascii():
        return 0
    scripts = {_script(character) for character in word}
    if scripts <= {"CJK", "HIRAGANA", "KATAKANA"}:
        # Two bytes each, so that other code pages see two letters.
        return sum(2 if _is_frequent(character) else -1 for character in word)
    score = -2.0 * (len(scripts) - 1)
    score -= sum(2 for one, next_one in pairwise(word) if one.islower() and next_one.isupper())
    if scripts == {"LATIN"}:
        score += sum(map(_of_letter, filter(lambda one: not one.isascii(), word)))
        if len(word) == 1:
            return score / 4
        score -= sum(len(run) - 1 for run in re.findall(r"[^\x00-\x7f]{2,}", word))
        return score
    if "HALFWIDTH" in scripts:
        return -len(word)
    # Case is part of how likely a reading is: of Cyrillic in the wrong code page, every second letter is a capital.
    return (
        score
        + sum(character not in _RARE_CYRILLIC for character in word if not character.isascii())
        - 2 * (not _is_cased_like_a_word(word))
    )


def _of_letter(letter: str) -> float:
    if letter in _UNUSUAL:
        return 0
    return 1 if letter.lower() in _COMMON else 0.5


def _is_cased_like_a_word(word: str) -> bool:
    return word.islower() or word.isupper() or word.istitle()


def _is_frequent(character: str) -> bool:
    if _script(character) != "CJK":
        return True
    try:
        return character.encode("gb2312")[0] in _FREQUENT
    except UnicodeEncodeError:
        return False


def _script(character: str) -> str:
    name = unicodedata.name(character, "")
    return "CJK" if name.startswith(("CJK", "FULLWIDTH", "IDEOGRAPHIC")) else name.partition(" ")[0]
