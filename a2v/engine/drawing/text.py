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
_FONT_NAME = "captions"
_TEXT_COLOUR, _BOX_COLOUR = "#ffffff", "#000000b0"
_SIZE = 0.052  # of the font, relative to the shorter side of the picture
# Relative to the size of the font:
_LINE_HEIGHT, _ASCENT, _DESCENT = 1.3, 1.069, 0.293
_PADDING_X, _PADDING_Y, _RADIUS = 0.5, 0.2, 0.35
_SIDE_MARGIN = 0.05  # relative to the width of the picture
_BOTTOM_MARGIN = 1 / 16  # relative to its height
_PIXELS_PER_POINT = 4 / 3


def draw_caption(
    lines: Sequence[str], width: int, height: int, colour: Callable[[str], ColourBytes]
) -> tuple[NDArray[np.uint8], Area]:
    """Draw a caption.

    Args:
        lines: Its lines.
        width: The width of the picture in pixels.
        height: Its height.
        colour: Returns the bytes of a colour as they are in the picture.

    Returns:
        The pixels of the caption, with premultiplied alpha, and the area of the picture that they cover. Its coordinates are even.
    """
    _load_font()
    size = _SIZE * min(width, height)
    widths = [_measure_width(line, size) for line in lines]
    max_width = width * (1 - 2 * _SIDE_MARGIN) - 2 * _PADDING_X * size
    if max(widths) > max_width:  # wide letters
        shrunk = size * max_width / max(widths)
        widths, size = [line_width * shrunk / size for line_width in widths], shrunk
    box_width = max(widths) + 2 * _PADDING_X * size
    box_height = (len(lines) * _LINE_HEIGHT + 2 * _PADDING_Y) * size
    area = _around((width - box_width) / 2, height * (1 - _BOTTOM_MARGIN) - box_height, box_width, box_height)
    left, top, right, bottom = area
    canvas = tv.SwCanvas(right - left, bottom - top, engine_option=int(tv.EngineOption.NONE))
    box = tv.Shape()
    x, y = (width - box_width) / 2 - left, height * (1 - _BOTTOM_MARGIN) - box_height - top
    box.append_rect(x, y, box_width, box_height, _RADIUS * size, _RADIUS * size)
    box.set_fill_color(*colour(_BOX_COLOUR))
    canvas.add(box)
    for number, (line, line_width) in enumerate(zip(lines, widths, strict=True)):
        text = _make_text(line, size)
        text.set_color(*colour(_TEXT_COLOUR)[:3])
        # Half of the leading, which is negative here, is above the text.
        text_top = (_PADDING_Y + number * _LINE_HEIGHT - (_ASCENT + _DESCENT - _LINE_HEIGHT) / 2) * size
        text.translate(x + (box_width - line_width) / 2, y + text_top)
        canvas.add(text)
    canvas.draw(True)
    canvas.sync()
    # ThorVG's type stub declares the buffer with a Cython type.
    pixels: NDArray[np.uint8] = np.frombuffer(canvas.buffer, np.uint8)  # pyright: ignore[reportCallIssue,reportArgumentType]
    return pixels.reshape(bottom - top, right - left, 4).copy(), area


def _around(left: float, top: float, width: float, height: float) -> Area:
    """Return an area with even coordinates that contains a box."""
    return int(left) & ~1, int(top) & ~1, int(left + width + 2) & ~1, int(top + height + 2) & ~1


def _make_text(line: str, size: float) -> tv.Text:
    text = tv.Text()
    text.set_font(_FONT_NAME)
    text.set_size(size / _PIXELS_PER_POINT)
    text.set_text(line)
    return text


def _measure_width(line: str, size: float) -> float:
    _, x, _, width, _ = _make_text(line, size).get_aabb()
    return float(x + width)


@cache
def _load_font() -> None:
    start_thorvg()
    tv.Text.font_load_data(_FONT_NAME, _FONT.read_bytes(), "ttf", True)


class Overlay:
    """Shows captions on the frames of a video.

    Args:
        cues: The captions.
        width: The width of the frames in pixels.
        height: Their height.
        colour: Returns the bytes of a colour as they are in the frames.
    """

    def __init__(self, cues: Sequence[Cue], width: int, height: int, colour: Callable[[str], ColourBytes]) -> None:
        self._cues = list(reversed(cues))
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
            seconds: Its time; never less than the time of the frame before.
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
        # Source over destination, with premultiplied alpha.
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
    """Return the code points that the font has, from its ``cmap`` table (format 4)."""
    font = _FONT.read_bytes()
    (count,) = struct.unpack_from(">H", font, 4)
    tables = {
        font[entry : entry + 4]: struct.unpack_from(">L", font, entry + 8)[0]
        for entry in range(12, 12 + 16 * count, 16)
    }
    cmap = tables[b"cmap"]
    (offset,) = struct.unpack_from(">L", font, cmap + 8)
    (segments,) = struct.unpack_from(">H", font, cmap + offset + 6)
    ends = struct.unpack_from(f">{segments // 2}H", font, cmap + offset + 14)
    starts = struct.unpack_from(f">{segments // 2}H", font, cmap + offset + 16 + segments)
    return frozenset(point for start, end in zip(starts, ends, strict=True) for point in range(start, end + 1)) - {
        0xFFFF
    }
