"""Draws captions: one or two lines of white text in a dark, translucent box, which can be read on every background.

A caption is drawn once, when it is first shown. An ``Overlay`` blends it with each frame, in the area that has changed.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import thorvg_cython as tv

from a2v.engine.drawing.rasterizer import start_thorvg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from a2v._core.captions import Cue
    from a2v.engine.drawing.colours import ColourBytes
    from a2v.engine.drawing.rasterizer import Area

_FONT = Path(__file__).parent.parent / "fonts" / "NotoSans-Bold.ttf"
_NAME = "captions"
_TEXT, _BOX = "#ffffff", "#000000b0"
_SIZE = 0.052  # of the text, by the shorter side of the picture
_LINE_HEIGHT, _ASCENT = 1.3, 1.069  # by the size, as are the paddings
_PADDING_X, _PADDING_Y, _RADIUS = 0.5, 0.2, 0.35
_MARGIN = 0.05  # at the sides, by the width of the picture
_BOTTOM = 1 / 16  # by its height
_PIXELS_PER_POINT = 4 / 3


def draw_caption(
    lines: Sequence[str], width: int, height: int, colour: Callable[[str], ColourBytes]
) -> tuple[NDArray[np.uint8], Area]:
    """Draw a caption.

    Args:
        lines: Its lines.
        width: Of the picture, in pixels.
        height: Of the picture.
        colour: How its pixels represent colours.

    Returns:
        The pixels of the caption, with premultiplied alpha, and their place in the picture. Its coordinates are even.
    """
    _load_font()
    size = _SIZE * min(width, height)
    widths = [_width(line, size) for line in lines]
    room = width * (1 - 2 * _MARGIN) - 2 * _PADDING_X * size
    if max(widths) > room:  # wide letters
        shrunk = size * room / max(widths)
        widths, size = [one * shrunk / size for one in widths], shrunk
    box_width = max(widths) + 2 * _PADDING_X * size
    box_height = (len(lines) * _LINE_HEIGHT + 2 * _PADDING_Y) * size
    area = _around((width - box_width) / 2, height * (1 - _BOTTOM) - box_height, box_width, box_height)
    left, top, right, bottom = area
    canvas = tv.SwCanvas(right - left, bottom - top, engine_option=int(tv.EngineOption.NONE))
    box = tv.Shape()
    x, y = (width - box_width) / 2 - left, height * (1 - _BOTTOM) - box_height - top
    box.append_rect(x, y, box_width, box_height, _RADIUS * size, _RADIUS * size)
    box.set_fill_color(*colour(_BOX))
    canvas.add(box)
    for number, (line, line_width) in enumerate(zip(lines, widths, strict=True)):
        text = _text(line, size)
        text.set_color(*colour(_TEXT)[:3])
        # A line is higher than its letters: half of the difference is above them.
        above = (_PADDING_Y + number * _LINE_HEIGHT - (_ASCENT + 0.293 - _LINE_HEIGHT) / 2) * size
        text.translate(x + (box_width - line_width) / 2, y + above)
        canvas.add(text)
    canvas.draw(True)
    canvas.sync()
    # ThorVG's type stub declares the buffer with a Cython type.
    pixels: NDArray[np.uint8] = np.frombuffer(canvas.buffer, np.uint8)  # pyright: ignore[reportCallIssue,reportArgumentType]
    return pixels.reshape(bottom - top, right - left, 4).copy(), area


def _around(left: float, top: float, width: float, height: float) -> Area:
    """Return the area of whole pairs of pixels around a box."""
    return int(left) & ~1, int(top) & ~1, int(left + width + 2) & ~1, int(top + height + 2) & ~1


def _text(line: str, size: float) -> tv.Text:
    text = tv.Text()
    text.set_font(_NAME)
    text.set_size(size / _PIXELS_PER_POINT)
    text.set_text(line)
    return text


def _width(line: str, size: float) -> float:
    _, x, _, width, _ = _text(line, size).get_aabb()
    return float(x + width)


@cache
def _load_font() -> None:
    start_thorvg()
    tv.Text.font_load_data(_NAME, _FONT.read_bytes(), "ttf", True)


class Overlay:
    """Shows captions on the frames of a video.

    Args:
        shown: The captions.
        width: Of the frames.
        height: Of the frames.
        colour: How their pixels represent colours.
    """

    def __init__(self, shown: Sequence[Cue], width: int, height: int, colour: Callable[[str], ColourBytes]) -> None:
        self._cues = list(reversed(shown))
        self._size = width, height
        self._colour = colour
        self._caption: NDArray[np.uint8] | None = None
        self._area: Area | None = None
        self._until = 0.0
        self.pixels: NDArray[np.uint8] = np.zeros((height, width, 4), np.uint8)
        """The frame with the caption."""

    def show(self, picture: NDArray[np.uint8], area: Area, seconds: float) -> Area:
        """Show a frame; return the area of ``pixels`` that may have changed.

        Args:
            picture: The frame without a caption.
            area: What may have changed in it.
            seconds: Its time, which never decreases.
        """
        changed = [area]
        if self._area and seconds >= self._until:
            changed.append(self._area)
            self._caption = self._area = None
        while self._cues and self._cues[-1].start <= seconds:
            cue = self._cues.pop()
            if seconds < cue.end:
                changed += [self._area] if self._area else []
                self._caption, self._area = draw_caption(cue.lines, *self._size, self._colour)
                changed.append(self._area)
                self._until = cue.end
        area = _union(changed)
        left, top, right, bottom = area
        self.pixels[top:bottom, left:right] = picture[top:bottom, left:right]
        if self._caption is not None and self._area is not None:
            self._blend(picture, self._caption, self._area, area)
        return area

    def _blend(self, picture: NDArray[np.uint8], caption: NDArray[np.uint8], place: Area, changed: Area) -> None:
        left, top, right, bottom = (
            max(place[0], changed[0]), max(place[1], changed[1]), min(place[2], changed[2]), min(place[3], changed[3]),
        )  # fmt: skip
        if left >= right or top >= bottom:
            return
        over = caption[top - place[1] : bottom - place[1], left - place[0] : right - place[0]].astype(np.uint16)
        under = picture[top:bottom, left:right].astype(np.uint16)
        # Both have premultiplied alpha.
        self.pixels[top:bottom, left:right] = over + (under * (255 - over[..., 3:]) + 127) // 255


def _union(areas: Sequence[Area]) -> Area:
    found = [area for area in areas if area[0] < area[2] and area[1] < area[3]]
    if not found:
        return 0, 0, 0, 0
    lefts, tops, rights, bottoms = zip(*found, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


# -- the characters of the font -----------------------------------------------------------------------------------------


def missing_characters(text: str) -> list[str]:
    """Return the characters of a text that the font of captions does not have."""
    return sorted({character for character in text if ord(character) not in _characters()})


@cache
def _characters() -> frozenset[int]:
    """Return the code points of the font, from its table ``cmap`` (format 4)."""
    font = _FONT.read_bytes()
    (count,) = struct.unpack_from(">H", font, 4)
    tables = {font[at : at + 4]: struct.unpack_from(">L", font, at + 8)[0] for at in range(12, 12 + 16 * count, 16)}
    cmap = tables[b"cmap"]
    (offset,) = struct.unpack_from(">L", font, cmap + 8)
    (segments,) = struct.unpack_from(">H", font, cmap + offset + 6)
    ends = struct.unpack_from(f">{segments // 2}H", font, cmap + offset + 14)
    starts = struct.unpack_from(f">{segments // 2}H", font, cmap + offset + 16 + segments)
    return frozenset(point for start, end in zip(starts, ends, strict=True) for point in range(start, end + 1)) - {
        0xFFFF
    }
