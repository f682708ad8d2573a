"""Captions: words with times become cues, and cues SubRip (``.srt``) or WebVTT (``.vtt``).

A cue has one or two lines of at most 42 characters, as is usual for subtitles. A new one begins after the end of a sentence, after a
pause, and when the words do not fit any more; then the cue ends at the last comma of its second half, if there is one. A cue that is spoken
in less than a second, such as "Hello!", would disappear too soon to be read. It is joined with the next one, or else with the one before,
unless there is a pause between them or the words do not fit. A cue is shown until the next one begins, but not longer than a second after
its last word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v import Word

_LINE = 42
_PAUSE = 0.7  # seconds
_AFTERWARDS = 1.0  # seconds
_SHORT = 1.0  # seconds; a caption with less speech is joined with another one
_SHORTEST = 0.1  # seconds
_BREATH = 0.15  # seconds; after a sentence, but not after an abbreviation
_SENTENCE_ENDS = (".", "!", "?", "…")


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


def cues(words: Sequence[Word]) -> list[Cue]:
    """Return the captions of a text."""
    groups = [part for sentence in _groups(words) for part in _fitting(sentence)]
    groups = _joined(_joined(groups, lambda one, _: _is_short(one)), lambda _, following: _is_short(following))
    starts = [*(group[0].start for group in groups[1:]), float("inf")]
    out: list[Cue] = []
    for group, following in zip(groups, starts, strict=False):
        end = max(min(group[-1].end + _AFTERWARDS, following), group[0].start + _SHORTEST)
        out.append(Cue(group[0].start, end, _lines([word.text for word in group])))
    return out


def _groups(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    first = 0
    for number, (word, following) in enumerate(zip(words, [*words[1:], None], strict=False), 1):
        is_end = word.text.rstrip("\"'\u201d\u2019)").endswith(_SENTENCE_ENDS)
        if following is None or following.start - word.end > (_BREATH if is_end else _PAUSE):
            yield words[first:number]
            first = number


def _fitting(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Split the words of a sentence into captions."""
    while words:
        count = 1
        while count < len(words) and _fits([word.text for word in words[: count + 1]]):
            count += 1
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
    groups: Sequence[Sequence[Word]], are_joined: Callable[[Sequence[Word], Sequence[Word]], bool]
) -> list[Sequence[Word]]:
    """Join neighbours for which a condition holds, unless there is a pause between them or they do not fit."""
    out: list[Sequence[Word]] = []
    for group in groups:
        if out and are_joined(out[-1], group) and group[0].start - out[-1][-1].end <= _PAUSE:
            both = [*out[-1], *group]
            if _fits([word.text for word in both]):
                out[-1] = both
                continue
        out.append(group)
    return out


def _is_short(words: Sequence[Word]) -> bool:
    return words[-1].end - words[0].start < _SHORT


def _fits(texts: Sequence[str]) -> bool:
    return len(_lines(texts)) <= 2 and max(map(len, _lines(texts))) <= _LINE  # two lines


def _lines(texts: Sequence[str]) -> list[str]:
    """Break words into lines; two lines are made about equally long."""
    whole = " ".join(texts)
    if len(whole) <= _LINE:
        return [whole]
    breaks = [(" ".join(texts[:at]), " ".join(texts[at:])) for at in range(1, len(texts))]
    return list(min(breaks, key=lambda pair: max(map(len, pair)), default=(whole,)))


def to_srt(words: Sequence[Word]) -> str:
    """Return captions in the format SubRip."""
    found = enumerate(cues(words), 1)
    return "\n".join(
        f"{n}\n{_time(c.start, ',')} --> {_time(c.end, ',')}\n" + "\n".join(c.lines) + "\n" for n, c in found
    )


def to_vtt(words: Sequence[Word]) -> str:
    """Return captions in the format WebVTT."""
    parts = [
        f"{_time(c.start, '.')} --> {_time(c.end, '.')}\n" + "\n".join(map(_escaped, c.lines)) for c in cues(words)
    ]
    return "\n\n".join(["WEBVTT", *parts]) + "\n"


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
