"""Prepares an English text for a voice: text normalization, and the segmentation into sentences.

The synthesizer has rules of its own that read most numbers, dates, times and amounts. The rules here run first. They normalize characters,
and expand what the synthesizer would misread or leave out, such as negative numbers, telephone numbers, addresses and Latin abbreviations.
They are applied in order, because later rules rely on earlier ones.

The synthesizer silently skips unknown characters. A listener would not notice that a word is missing, so a text with such characters is
rejected, and the message names them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from a2v._values.text import describe, is_invisible
from a2v.engine.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

MAX_SENTENCE = 300
"""The longest part of a text that is synthesized at once, in characters."""

# Letters that do not decompose into an English letter and an accent.
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
    | {"ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ı": "i", "ſ": "s", "ŋ": "ng"}
)
_SIGNS = {
    "\u00a0": " ", "\u2007": " ", "\u2009": " ", "\u202f": " ",
    "‘": "'", "’": "'", "‚": ",", "‛": "'", "`": "'", "´": "'", "′": "'",
    "„": '"', "“": '"', "”": '"', "‟": '"', "«": '"', "»": '"', "‹": '"', "›": '"', "″": '"',
    "‐": "-", "‑": "-", "‒": "–", "―": "—", "−": "-", "⁄": "/",
    "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⅛": " 1/8",
    "²": " squared", "³": " cubed", "№": "number ", "×": " times ", "÷": " divided by ", "±": " plus or minus ",
    "≈": " about ", "≤": " at most ", "≥": " at least ", "≠": " is not ", "∞": " infinity ", "→": " to ", "∼": " about ",
    "™": "", "®": "", "©": " copyright ", "•": ", ", "·": " ", "§": " section ", "¶": "", "†": "", "‡": "",
    "¡": "", "¿": "", "µ": "micro", "º": "", "ª": "", "Ω": " ohms ",
}  # fmt: skip
_SPOKEN_SIGNS = frozenset("–—…€£¥¢₹₩°")
"""The signs outside ASCII that the synthesizer reads."""
_UNITS = {
    "km/h": "kilometers per hour", "mph": "miles per hour", "m/s": "meters per second", "kB": "kilobytes", "MB": "megabytes",
    "GB": "gigabytes", "TB": "terabytes", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "kW": "kilowatts", "kWh": "kilowatt hours", "kcal": "kilocalories", "ms": "milliseconds", "fps": "frames per second",
}  # fmt: skip
_WORDS = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "viz.": "namely", "a.k.a.": "also known as",
    "P.S.": "P S", "Ph.D.": "P H D", "vs.": "versus", "cf.": "compare", "ca.": "about", "c/o": "care of", "and/or": "and or",
    "incl.": "including", "excl.": "excluding", "tel.": "telephone", "Tel.": "Telephone", "min.": "minimum", "max.": "maximum",
}  # fmt: skip
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PUNCTUATION = {".": "dot", "@": "at", "/": "slash", "-": "dash", "_": "underscore", ":": "colon", "#": "hash"}

_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _spell_digits(found: re.Match[str]) -> str:
    """Spell out digits one by one, with a comma, which is a short pause, between groups."""
    groups = re.findall(r"\d+", found[0])
    plus = "plus " if found[0].startswith("+") else ""
    return plus + ", ".join(" ".join(_DIGITS[int(digit)] for digit in group) for group in groups)


def _spell_address(found: re.Match[str]) -> str:
    """Spell out the punctuation of a web or mail address."""
    address, end = found[0], ""
    while address[-1] in ".,;:!?)":
        address, end = address[:-1], address[-1] + end
    address = re.sub(r"^(https?://)?(www\.)?|/$", "", address, flags=re.IGNORECASE)
    return re.sub(r"[^\w\s]|_", lambda sign: f" {_PUNCTUATION.get(sign[0], '')} ", address) + end


_RULES: tuple[_Rule, ...] = (
    # The signs of Markdown.
    (re.compile(r"^\s*(#{1,6}|[-*+]|>)\s+", re.MULTILINE), ""),
    (re.compile(r"(?<!\w)(\*{1,3}|_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)"), r"\2"),
    # Addresses, before anything else takes their dots and slashes for something else.
    (re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+|\bhttps?://\S+|\bwww\.\S+", re.IGNORECASE), _spell_address),
    (re.compile(r"\b(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|ai|dev)\b(?:/\S*)?", re.IGNORECASE), _spell_address),
    # 1 000 000
    (re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3}){2,}(?![\d,])"), lambda m: m[0].replace(" ", ",")),
    # Telephone numbers, and numbers with leading zeros.
    (re.compile(r"\+\d[\d ()./-]{5,}\d|\(\d{3}\) ?\d{3}[- ]\d{4}"), _spell_digits),
    (re.compile(r"(?<![\w.,:/-])0\d{2,}(?![\w:/]|[.,]\d)"), _spell_digits),
    # 30.11.2026
    (re.compile(r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\d)"), lambda m: f"{m[3]}-{int(m[2]):02}-{int(m[1]):02}"),
    # 20 €, US$5
    (re.compile(r"\b(?:US|U\.S\.) ?\$(?=\d)"), "$"),
    (re.compile(r"(?<![\w.,€£$])(\d[\d,]*(?:\.\d+)?) ?([€£$])(?!\d)"), r"\2\1"),
    (re.compile(rf"(?<=\d) ?({_alternatives(_UNITS)})(?!\w)"), lambda m: f" {_UNITS[m[1]]}"),
    (re.compile(r"(?<=\d) (?=1/[248])"), " and "),
    # A minus, but not a range or a hyphen.
    (re.compile(r"(?:(?<=^)|(?<=[\s(]))-(?=[$€£]?\d)"), "minus "),
    (re.compile(rf"(?<![\w.])({_alternatives(_WORDS)})(?!\w)"), lambda m: _WORDS[m[1]] + _shared_full_stop(m)),
    # U.S.A., before its dots end a sentence.
    (re.compile(r"\b(?:[A-Z]\.){2,}"), lambda m: m[0].replace(".", "") + _shared_full_stop(m)),
    (re.compile(r"(?<!\w)#(?=[A-Za-z])"), "hashtag "),
    (re.compile(r"(?<!\w)@(?=\w)"), "at "),
    (re.compile(r"(?<=\s)[-–](?=\s)|--+"), "—"),
    (re.compile(r"[\[\]{}\\^|~<>]|(?<!\w)[*_]+|[*_]+(?!\w)"), " "),
)


def _shared_full_stop(found: re.Match[str]) -> str:
    """Return the full stop of an abbreviation if it also ends the text or a paragraph, or else nothing."""
    ends = not found.string[found.end() :].strip() or found.string[found.end() :].startswith("\n")
    return "." if ends and found[0].endswith(".") else ""


def check_characters(text: str) -> None:
    """Check that every character of a text can be spoken.

    Raises:
        SpeechError: Some cannot; the message names them.
    """
    first_index = {character: i for i, character in reversed(list(enumerate(text))) if not _is_spoken(character)}
    if first_index:
        first, *others = sorted(first_index.values())
        listed = [describe(text, first) if is_invisible(text[first]) else _describe_visible(text, first)]
        listed += [repr(text[i]) for i in others[:9]]
        more = f" and {len(others) - 9} more" if len(others) > 9 else ""
        raise SpeechError(
            f"the text contains characters that this voice cannot speak: {', '.join(listed)}{more}. "
            "It speaks English; replace them with words"
        )


def _describe_visible(text: str, index: int) -> str:
    name = unicodedata.name(text[index], "")
    return f"{text[index]!r} (U+{ord(text[index]):04X}{name and f' {name}'}, character {index + 1})"


def _is_spoken(character: str) -> bool:
    if character.isascii():
        return character.isprintable() or character in "\t\n\r\v\f"
    category = unicodedata.category(character)
    if category in ("Cc", "Cs"):
        return False
    if character in _SIGNS or character in _SPOKEN_SIGNS or category in ("Zs", "Mn") or is_invisible(character):
        return True
    plain = _without_accents(character)
    return plain.isascii() and plain.isalnum()


def _without_accents(text: str) -> str:
    """Return a text without accents."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def readable(text: str, known: Container[str] = ()) -> str:
    """Return a text as the synthesizer should read it.

    Args:
        text: The text.
        known: Words with accents that the synthesizer knows, in lower case; other accents are removed.
    """
    text = "".join(c for c in unicodedata.normalize("NFC", text) if not is_invisible(c) or c in "\t\n\r\v\f")
    text = re.sub(r"(?<=\d)(?=[½¼¾⅓⅔⅛])", " and", text)
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f'’](?=\d{3}\b)", ",", text)
    text = "".join(_SIGNS.get(character, character) for character in text)
    text = re.sub(r"[^\W\d_]+", lambda word: word[0] if _is_known(word[0], known) else _without_accents(word[0]), text)
    text = "".join(c if c.isascii() or c in _SPOKEN_SIGNS or c.isalpha() else _without_accents(c) for c in text)
    for pattern, reading in _RULES:
        text = pattern.sub(reading, text)
    return text


def _is_known(word: str, known: Container[str]) -> bool:
    return word.isascii() or word.lower() in known


_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])|\n+")
_CLAUSE_END = re.compile(r"(?<=[,;:—–)])\s+")
# A full stop after these does not end a sentence.
_BEFORE_NAMES = re.compile(r"(?:^|[\s(\"'])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Gen|Gov|Sen|Rep|Capt|Lt|Col|Sgt|Rev|No|Nos|vs|Fig|Vol|Jan|Feb|Mar"
                           r"|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|e\.g|i\.e|ca|approx)\.$")  # fmt: skip


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text as they are written, those longer than ``MAX_SENTENCE`` in parts."""
    start = 0
    for found in _SENTENCE_END.finditer(text):
        if "\n" not in found[0] and _BEFORE_NAMES.search(text[start : found.start()]):
            continue
        yield from _split_sentence(text[start : found.start()])
        start = found.end()
    yield from _split_sentence(text[start:])


def _split_sentence(sentence: str) -> Iterator[str]:
    """Yield a sentence in parts, split after a clause if possible, or else between words, or else anywhere."""
    rest = sentence.strip()
    while len(rest) > MAX_SENTENCE:
        ends = [found.start() for found in _CLAUSE_END.finditer(rest, MAX_SENTENCE // 3, MAX_SENTENCE)]
        cut = ends[-1] if ends else rest.rfind(" ", 1, MAX_SENTENCE)
        cut = cut if cut > 0 else MAX_SENTENCE
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest
