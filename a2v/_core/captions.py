"""Segments timed words into cues, and reads and writes cues as SubRip (``.srt``) and WebVTT (``.vtt``).

A cue, one caption on the screen, has one or two lines of at most 42 characters, as is usual for subtitles. Segmentation has two
steps:

1. **Split.** A cue ends with its sentence, before a pause, or when the next word does not fit. In the last case it ends at the last
   comma or similar mark in its second half, if there is one.
2. **Merge.** A cue spoken in less than a second, such as "Hello!", would disappear before anyone can read it. It is merged with the
   following cue, or else with the preceding one, unless there is a pause between them or the result does not fit.

A cue is displayed until the next one starts, but at most one second after its last word.

Files are untrusted. The reader accepts both formats as programs write them: cues with or without numbers, and with markup and
settings, which it ignores. Anything else is an error with a line number.
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
"""The value of the option ``captions`` that requests caption files beside the video."""
MAX_LINE_LENGTH = 42
"""Maximum number of characters in a line, as is usual for subtitles."""
MAX_CHARACTERS = 200_000
"""Maximum length of a caption file or a transcript, in characters: more than three hours of speech."""
_MAX_CUE_LENGTH = 500  # characters
_PAUSE = 0.7  # seconds; a longer gap between two words ends a cue
_SENTENCE_PAUSE = 0.15  # seconds; the same after a full stop: an abbreviation is followed by a shorter gap
_HOLD = 1.0  # seconds that a cue stays after its last word
_MIN_SPEECH = 1.0  # seconds; a cue with less speech is merged with a neighbour
_MIN_DISPLAY = 0.1  # seconds
_SENTENCE_ENDS = (".", "!", "?", "…")
_TIMESTAMP = re.compile(r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]?\d)[.,](\d{3})")
_ARROW = "-->"
_MARKUP = re.compile(r"<[/a-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}", re.IGNORECASE)
_VTT_METADATA = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")


@frozen
class Cue:
    """A caption.

    Attributes:
        start: When it appears, in seconds from the start of the video.
        end: When it disappears, in the same unit.
        lines: Its lines.
    """

    start: float
    end: float
    lines: Sequence[str]


def asks_for_files(options: Mapping[str, Any]) -> bool:
    """Return whether the options of a job request caption files."""
    captions: Any = options.get("captions")
    return captions == FILES or (isinstance(captions, list | tuple) and FILES in captions)


def segment(words: Sequence[Word], max_line_length: int = MAX_LINE_LENGTH) -> list[Cue]:
    """Segment words into cues.

    Args:
        words: The words, in order.
        max_line_length: Maximum number of characters in a line.
    """
    groups = [group for sentence in _split_at_pauses(words) for group in _split_to_fit(sentence, max_line_length)]
    groups = _merge(groups, lambda group, _: _is_short(group), max_line_length)
    groups = _merge(groups, lambda _, following: _is_short(following), max_line_length)
    next_starts = [*(group[0].start for group in groups[1:]), float("inf")]
    cues: list[Cue] = []
    for group, next_start in zip(groups, next_starts, strict=False):
        end = max(min(group[-1].end + _HOLD, next_start), group[0].start + _MIN_DISPLAY)
        cues.append(Cue(group[0].start, end, _wrap([word.text for word in group], max_line_length)))
    return cues


def rewrap(cues: Sequence[Cue], max_line_length: int) -> list[Cue]:
    """Return cues with at most two lines. A cue that is too long is split; its parts share its time in proportion to their lengths.

    Args:
        cues: The cues.
        max_line_length: Maximum number of characters in a line.
    """
    wrapped: list[Cue] = []
    for cue in cues:
        if len(cue.lines) <= 2 and all(len(line) <= max_line_length for line in cue.lines):
            wrapped.append(cue)
            continue
        parts = list(_split_text(" ".join(cue.lines).split(), max_line_length))
        per_character = (cue.end - cue.start) / sum(len(" ".join(part)) for part in parts)
        start = cue.start
        for part in parts:
            end = start + len(" ".join(part)) * per_character
            wrapped.append(Cue(start, end, _wrap(part, max_line_length)))
            start = end
    return wrapped


def _split_text(texts: Sequence[str], max_line_length: int) -> Iterator[Sequence[str]]:
    while texts:
        count = _fitting_count(texts, max_line_length)
        yield texts[:count]
        texts = texts[count:]


def _split_at_pauses(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Split words after sentences and before pauses."""
    first = 0
    for number, (word, following) in enumerate(zip(words, [*words[1:], None], strict=False), 1):
        is_end = word.text.rstrip("\"'\u201d\u2019)").endswith(_SENTENCE_ENDS)
        if following is None or following.start - word.end > (_SENTENCE_PAUSE if is_end else _PAUSE):
            yield words[first:number]
            first = number


def _split_to_fit(words: Sequence[Word], max_line_length: int) -> Iterator[Sequence[Word]]:
    """Split a sentence into cues that fit."""
    while words:
        count = _fitting_count([word.text for word in words], max_line_length)
        if count < len(words):
            ends = [
                index + 1
                for index in range(count // 2, count)
                if words[index].text.endswith((",", ";", ":", "—", "–")) and not _is_short(words[index + 1 :])
            ]
            if ends:
                count = ends[-1]
            elif _is_short(words[count:]):  # split in the middle instead, so that the rest is long enough for a cue
                count = min(count, (len(words) + 1) // 2)
        yield words[:count]
        words = words[count:]


def _merge(
    groups: Sequence[Sequence[Word]],
    is_wanted: Callable[[Sequence[Word], Sequence[Word]], bool],
    max_line_length: int,
) -> list[Sequence[Word]]:
    """Merge two neighbours if ``is_wanted``, there is no pause between them, and the result fits."""
    merged: list[Sequence[Word]] = []
    for group in groups:
        if merged and is_wanted(merged[-1], group) and group[0].start - merged[-1][-1].end <= _PAUSE:
            both = [*merged[-1], *group]
            if _fits([word.text for word in both], max_line_length):
                merged[-1] = both
                continue
        merged.append(group)
    return merged


def _is_short(words: Sequence[Word]) -> bool:
    return words[-1].end - words[0].start < _MIN_SPEECH


def _fitting_count(texts: Sequence[str], max_line_length: int) -> int:
    """Return how many of the first words fit into one cue: at least one."""
    count = 1
    while count < len(texts) and _fits(texts[: count + 1], max_line_length):
        count += 1
    return count


def _fits(texts: Sequence[str], max_line_length: int) -> bool:
    return max(map(len, _wrap(texts, max_line_length))) <= max_line_length


def _wrap(texts: Sequence[str], max_line_length: int) -> list[str]:
    """Wrap words into one line, or two of about equal length. A line is too long if the words do not fit into two."""
    text = " ".join(texts)
    if len(text) <= max_line_length:
        return [text]
    breaks = [(" ".join(texts[:index]), " ".join(texts[index:])) for index in range(1, len(texts))]
    return list(min(breaks, key=lambda pair: max(map(len, pair)), default=(text,)))


def to_srt(cues: Sequence[Cue]) -> str:
    """Return the content of a SubRip file."""
    return "\n".join(
        f"{number}\n{_timestamp(cue.start, ',')} {_ARROW} {_timestamp(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues, 1)
    )


def to_vtt(cues: Sequence[Cue]) -> str:
    """Return the content of a WebVTT file."""
    blocks = [f"{_timestamp(cue.start, '.')} {_ARROW} {_timestamp(cue.end, '.')}\n{vtt_text(cue)}" for cue in cues]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"


def vtt_text(cue: Cue) -> str:
    """Return the text of a cue, escaped for WebVTT."""
    return "\n".join(html.escape(line, quote=False) for line in cue.lines)


def _timestamp(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


# -- reading ----------------------------------------------------------------------------------------------------------


def read_captions(text: object, *, limited: bool = True) -> list[Cue]:
    """Parse a SubRip or WebVTT file.

    Cues without text are skipped, and markup is removed. A cue that ends after the next one starts is shortened.

    Args:
        text: The content of the file.
        limited: Whether to require at least one cue, and to limit the file to 200,000 characters and each cue to 500.

    Raises:
        TypeError: ``text`` is not a string.
        ValueError: The content is invalid or too long. The message has a line number.
    """
    if not isinstance(text, str):
        raise TypeError(f"it must be the text of a SubRip or WebVTT file, got {type(text).__name__}")
    if limited and len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, and {MAX_CHARACTERS:,} are allowed")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    is_vtt = re.match(r"WEBVTT(\s|$)", lines[0]) is not None
    cues: list[Cue] = []
    for number, block in _blocks(lines[1:] if is_vtt else lines, 2 if is_vtt else 1):
        if is_vtt and (_VTT_METADATA.match(block[0]) or (number == 2 and _ARROW not in "".join(block))):
            continue
        cue = _read_block(number, block, is_vtt=is_vtt, limited=limited)
        if not cue.lines:
            continue
        if cues and cue.start <= cues[-1].start:
            when = "at the same time as" if cue.start == cues[-1].start else "before"
            raise ValueError(
                f"line {number}: this caption begins {when} the one above it; they must be in the order of their times, one at a time"
            )
        if cues and cues[-1].end > cue.start:
            cues[-1] = Cue(cues[-1].start, cue.start, cues[-1].lines)
        cues.append(cue)
    if not cues and limited:
        raise ValueError("it has no captions: SubRip (.srt) or WebVTT (.vtt) is expected")
    return cues


def _blocks(lines: Sequence[str], number: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the blocks of text between blank lines, each with the number of its first line."""
    block: list[str] = []
    for line_number, line in enumerate([*lines, ""], number):
        if line.strip():
            block.append(line.strip())
        elif block:
            yield line_number - len(block), block
            block = []


def _read_block(number: int, block: list[str], *, is_vtt: bool, limited: bool) -> Cue:
    # The first line may be an identifier: a number or a name.
    if _ARROW not in block[0] and len(block) > 1 and (_ARROW in block[1] or block[0].isdecimal()):
        number, block = number + 1, block[1:]
    if _ARROW not in block[0]:
        raise ValueError(
            f"line {number}: {_shortened(block[0])} is not the time of a caption, such as '00:00:01,500 --> 00:00:04,000'"
        )
    before, _, after = block[0].partition(_ARROW)
    # Settings such as the position may follow the second timestamp.
    start, end = (_read_timestamp(number, text) for text in (before.strip(), (after.split() or [""])[0]))
    if end <= start:
        raise ValueError(f"line {number}: the caption ends before it is shown: {_shortened(block[0])}")
    return Cue(start, end, _read_lines(number, block[1:], is_vtt=is_vtt, limited=limited))


def _read_timestamp(number: int, text: str) -> float:
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        raise ValueError(f"line {number}: {_shortened(text)} is not a time, such as '00:00:01,500'")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in found.groups())
    return (hours * 60 + minutes) * 60 + seconds + milliseconds / 1000


def _read_lines(number: int, lines: list[str], *, is_vtt: bool, limited: bool) -> list[str]:
    plain_lines: list[str] = []
    for line_number, line in enumerate(lines, number + 1):
        if _ARROW in line:
            raise ValueError(f"line {line_number}: a blank line is missing before this caption")
        plain = _MARKUP.sub("", line).replace("\t", " ")
        plain = " ".join((html.unescape(plain) if is_vtt else plain).split())
        if found := find_unwritable(plain):
            raise ValueError(f"line {line_number} contains {found}")
        plain_lines += [plain] if plain else []
    if limited and sum(map(len, plain_lines)) > _MAX_CUE_LENGTH:
        raise ValueError(f"line {number}: the caption has more than {_MAX_CUE_LENGTH} characters")
    return plain_lines


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")  # enough to find the line
