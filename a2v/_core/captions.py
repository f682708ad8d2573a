"""Captions: spoken words become cues, cues are written as SubRip (``.srt``) or WebVTT (``.vtt``), and read from these formats.

A cue has one or two lines, of at most 42 characters as is usual for subtitles. A new one begins after the end of a sentence, after a
pause, and when the words do not fit any more; then the cue ends at the last comma of its second half, if there is one. A cue that is spoken
in less than a second, such as "Hello!", would disappear too soon to be read. It is joined with the next one, or else with the one before,
unless there is a pause between them or the words do not fit. A cue is shown until the next one begins, but not longer than a second after
its last word.

Files are untrusted. The reader accepts the two formats as programs write them: with or without numbers, with markup and settings, which
are ignored. Everything else is an error with the number of its line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from a2v._values.text import find_unwritable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v._values.models import Word

FILES = "files"
"""What captions become, if they are saved beside the video."""
LINE = 42
"""The most characters of a line, as is usual for subtitles."""
MAX_CHARACTERS = 200_000
"""The longest file of captions, and the longest transcript: more than three hours of speech."""
_MAX_CUE = 500  # characters
_PAUSE = 0.7  # seconds
_AFTERWARDS = 1.0  # seconds
_SHORT = 1.0  # seconds; a caption with less speech is joined with another one
_SHORTEST = 0.1  # seconds
_BREATH = 0.15  # seconds; after a sentence, but not after an abbreviation
_SENTENCE_ENDS = (".", "!", "?", "…")
_TIMES = re.compile(r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]?\d)[.,](\d{3})")
_ARROW = "-->"
_TAGS = re.compile(r"<[/a-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}", re.IGNORECASE)
_BLOCKS = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")


@frozen
class Cue:
    """A caption.

    Attributes:
        start: When it is shown, in seconds.
        end: When it disappears.
        lines: Its lines, one or two.
    """

    start: float
    end: float
    lines: Sequence[str]


def asks_for_files(options: Mapping[str, Any]) -> bool:
    """Return whether the options of a job ask for files with its captions."""
    ways: Any = options.get("captions")
    return ways == FILES or (isinstance(ways, list | tuple) and FILES in ways)


def cues(words: Sequence[Word], longest: int = LINE) -> list[Cue]:
    """Return the captions of a text.

    Args:
        words: Its words.
        longest: The most characters of a line.
    """
    groups = [part for sentence in _groups(words) for part in _fitting(sentence, longest)]
    groups = _joined(groups, lambda one, _: _is_short(one), longest)
    groups = _joined(groups, lambda _, following: _is_short(following), longest)
    starts = [*(group[0].start for group in groups[1:]), float("inf")]
    out: list[Cue] = []
    for group, following in zip(groups, starts, strict=False):
        end = max(min(group[-1].end + _AFTERWARDS, following), group[0].start + _SHORTEST)
        out.append(Cue(group[0].start, end, _lines([word.text for word in group], longest)))
    return out


def fitting_cues(shown: Sequence[Cue], longest: int) -> list[Cue]:
    """Return captions with at most two lines of a length. A longer one becomes several, which share its time by their lengths."""
    out: list[Cue] = []
    for cue in shown:
        if len(cue.lines) <= 2 and all(len(line) <= longest for line in cue.lines):
            out.append(cue)
            continue
        parts = list(_parts(" ".join(cue.lines).split(), longest))
        per_character = (cue.end - cue.start) / sum(len(" ".join(part)) for part in parts)
        start = cue.start
        for part in parts:
            end = start + len(" ".join(part)) * per_character
            out.append(Cue(start, end, _lines(part, longest)))
            start = end
    return out


def _parts(texts: Sequence[str], longest: int) -> Iterator[Sequence[str]]:
    while texts:
        count = _fitting_count(texts, longest)
        yield texts[:count]
        texts = texts[count:]


def _groups(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    first = 0
    for number, (word, following) in enumerate(zip(words, [*words[1:], None], strict=False), 1):
        is_end = word.text.rstrip("\"'\u201d\u2019)").endswith(_SENTENCE_ENDS)
        if following is None or following.start - word.end > (_BREATH if is_end else _PAUSE):
            yield words[first:number]
            first = number


def _fitting(words: Sequence[Word], longest: int) -> Iterator[Sequence[Word]]:
    """Split the words of a sentence into captions."""
    while words:
        count = _fitting_count([word.text for word in words], longest)
        if count < len(words):
            ends = [at + 1 for at in range(count // 2, count) if words[at].text.endswith((",", ";", ":", "—", "–"))]
            ends = [end for end in ends if not _is_short(words[end:])]
            if ends:
                count = ends[-1]
            elif _is_short(words[count:]):  # too little would remain for another caption
                count = min(count, (len(words) + 1) // 2)
        yield words[:count]
        words = words[count:]


def _joined(
    groups: Sequence[Sequence[Word]], are_joined: Callable[[Sequence[Word], Sequence[Word]], bool], longest: int
) -> list[Sequence[Word]]:
    """Join neighbours for which a condition holds, unless there is a pause between them or they do not fit."""
    out: list[Sequence[Word]] = []
    for group in groups:
        if out and are_joined(out[-1], group) and group[0].start - out[-1][-1].end <= _PAUSE:
            both = [*out[-1], *group]
            if _fits([word.text for word in both], longest):
                out[-1] = both
                continue
        out.append(group)
    return out


def _is_short(words: Sequence[Word]) -> bool:
    return words[-1].end - words[0].start < _SHORT


def _fitting_count(texts: Sequence[str], longest: int) -> int:
    """Return how many of the first words fit in one caption: at least one."""
    count = 1
    while count < len(texts) and _fits(texts[: count + 1], longest):
        count += 1
    return count


def _fits(texts: Sequence[str], longest: int) -> bool:
    return max(map(len, _lines(texts, longest))) <= longest


def _lines(texts: Sequence[str], longest: int) -> list[str]:
    """Break words into lines; two lines are made about equally long."""
    whole = " ".join(texts)
    if len(whole) <= longest:
        return [whole]
    breaks = [(" ".join(texts[:at]), " ".join(texts[at:])) for at in range(1, len(texts))]
    return list(min(breaks, key=lambda pair: max(map(len, pair)), default=(whole,)))


def to_srt(shown: Sequence[Cue]) -> str:
    """Return captions in the format SubRip."""
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} {_ARROW} {_time(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(shown, 1)
    )


def to_vtt(shown: Sequence[Cue]) -> str:
    """Return captions in the format WebVTT."""
    parts = [f"{_time(cue.start, '.')} {_ARROW} {_time(cue.end, '.')}\n{vtt_text(cue)}" for cue in shown]
    return "\n\n".join(["WEBVTT", *parts]) + "\n"


def vtt_text(cue: Cue) -> str:
    """Return the text of a caption in the format WebVTT."""
    return "\n".join(html.escape(line, quote=False) for line in cue.lines)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


# -- reading ----------------------------------------------------------------------------------------------------------


def read_captions(text: object, *, limited: bool = True) -> list[Cue]:
    """Read a file in the format SubRip or WebVTT.

    Captions without a text are left out, and so is markup. A caption that ends after the next one begins is shortened.

    Args:
        text: The content of the file.
        limited: Whether the file must have captions, and the lengths of the file and of its captions are limited.

    Raises:
        TypeError: It is not text.
        ValueError: It is not such a file, or too long; the message has the number of the line.
    """
    if not isinstance(text, str):
        raise TypeError(f"it must be the text of a SubRip or WebVTT file, got {type(text).__name__}")
    if limited and len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, and {MAX_CHARACTERS:,} are allowed")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    is_vtt = re.match(r"WEBVTT(\s|$)", lines[0]) is not None
    shown: list[Cue] = []
    for number, block in _blocks(lines[1:] if is_vtt else lines, 2 if is_vtt else 1):
        if is_vtt and (_BLOCKS.match(block[0]) or (number == 2 and _ARROW not in "".join(block))):
            continue
        cue = _read_block(number, block, is_vtt=is_vtt, limited=limited)
        if not cue.lines:
            continue
        if shown and cue.start <= shown[-1].start:
            when = "at the same time as" if cue.start == shown[-1].start else "before"
            raise ValueError(
                f"line {number}: this caption begins {when} the one above it; they must be in the order of their times, one at a time"
            )
        if shown and shown[-1].end > cue.start:
            shown[-1] = Cue(shown[-1].start, cue.start, shown[-1].lines)
        shown.append(cue)
    if not shown and limited:
        raise ValueError("it has no captions: SubRip (.srt) or WebVTT (.vtt) is expected")
    return shown


def _blocks(lines: Sequence[str], number: int) -> Iterator[tuple[int, list[str]]]:
    """Yield what is between blank lines, with the number of the first line."""
    block: list[str] = []
    for at, line in enumerate([*lines, ""], number):
        if line.strip():
            block.append(line.strip())
        elif block:
            yield at - len(block), block
            block = []


def _read_block(number: int, block: list[str], *, is_vtt: bool, limited: bool) -> Cue:
    # The first line may be the number of the caption, or its name.
    if _ARROW not in block[0] and len(block) > 1 and (_ARROW in block[1] or block[0].isdecimal()):
        number, block = number + 1, block[1:]
    if _ARROW not in block[0]:
        raise ValueError(
            f"line {number}: {_shortened(block[0])} is not the time of a caption, such as '00:00:01,500 --> 00:00:04,000'"
        )
    begins, _, ends = block[0].partition(_ARROW)
    # Settings may follow, such as the position.
    start, end = (_read_time(number, part) for part in (begins.strip(), (ends.split() or [""])[0]))
    if end <= start:
        raise ValueError(f"line {number}: the caption ends before it is shown: {_shortened(block[0])}")
    return Cue(start, end, _read_lines(number, block[1:], is_vtt=is_vtt, limited=limited))


def _read_time(number: int, text: str) -> float:
    found = _TIMES.fullmatch(text)
    if not found:
        raise ValueError(f"line {number}: {_shortened(text)} is not a time, such as '00:00:01,500'")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in found.groups())
    return (hours * 60 + minutes) * 60 + seconds + milliseconds / 1000


def _read_lines(number: int, lines: list[str], *, is_vtt: bool, limited: bool) -> list[str]:
    out: list[str] = []
    for at, line in enumerate(lines, number + 1):
        if _ARROW in line:
            raise ValueError(f"line {at}: a blank line is missing before this caption")
        plain = _TAGS.sub("", line).replace("\t", " ")
        plain = " ".join((html.unescape(plain) if is_vtt else plain).split())
        if found := find_unwritable(plain):
            raise ValueError(f"line {at} contains {found}")
        out += [plain] if plain else []
    if limited and sum(map(len, out)) > _MAX_CUE:
        raise ValueError(f"line {number}: the caption has more than {_MAX_CUE} characters")
    return out


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")  # as much as names the place
