"""Prepares a portrait for a video: decodes the photograph, finds the face, and cuts out the part that the video shows.

There are two framings. *Full* shows as much of the photograph around the face as the shape of the video allows; *close-up* shows the face and
the shoulders. If the face would not fit, the whole photograph is shown in front of a blurred enlargement of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from a2v.engine.errors import PortraitError
from a2v.engine.portrait.faces import Face, find_face
from a2v.engine.portrait.geometry import measure
from a2v.engine.portrait.painter import PortraitPainter
from a2v.engine.portrait.photo import Photo, read_photo
from a2v.engine.portrait.pictures import scale_picture
from a2v.engine.portrait.segmentation import segment, without_background

if TYPE_CHECKING:
    from a2v.engine.characters.portraits import PortraitSpec
    from a2v.engine.portrait.pictures import Array, Pixels


_FACE_LEVEL = 0.43
"""Where the middle of the face is in a frame, from the top."""
_CLOSE_UP = 1.9
"""The height of a close-up in heights of the face."""
_MIN_ROOM = 1.18
"""The face fits into a frame that has at least this size, in widths and heights of the face."""
MAX_OPEN = 0.52
"""The widest opening of the mouth in the photograph, in half widths of the mouth."""
_DEFAULT_BACKGROUND = "#DDE3EA"
"""The colour behind a transparent picture."""


class Studio(NamedTuple):
    """A photograph with its face, ready for frames of any size."""

    photo: Photo
    face: Face
    spec: PortraitSpec

    def painter(self, *, close_up: bool, width: int, height: int, cut_out: bool = False) -> PortraitPainter:
        """Return a painter of frames.

        Args:
            close_up: Whether the frame shows the face and the shoulders instead of the whole photograph.
            width: Of the frame, in pixels.
            height: Of the frame, in pixels.
            cut_out: Whether the background is removed.
        """
        rgb, alpha, points = self._frame(width, height, close_up=close_up, cut_out=cut_out)
        return PortraitPainter(
            rgb,
            points,
            blinks=self.spec.blinking,
            alpha=alpha,
            edges=_edges(self, _window(self, width / height, close_up=close_up), width, height),
            background=None if cut_out or alpha is None else self._background,
        )

    def still(self, *, close_up: bool, size: int) -> Pixels:
        """Return a square picture of the portrait at rest."""
        rgb, alpha, _ = self._frame(size, size, close_up=close_up)
        if alpha is None:
            return rgb
        share = alpha[..., None].astype(np.float32) / 255
        mixed = rgb * share + np.array(self._background, np.float32) * (1 - share)
        return np.asarray(mixed + np.float32(0.5), np.uint8)

    @property
    def _background(self) -> tuple[int, int, int]:
        red, green, blue = bytes.fromhex((self.spec.background or _DEFAULT_BACKGROUND)[1:])
        return red, green, blue

    def _frame(
        self, width: int, height: int, *, close_up: bool, cut_out: bool = False
    ) -> tuple[Pixels, Pixels | None, Array]:
        """Return the picture in a frame, its alpha if the background is not shown, and the landmarks."""
        window = _window(self, width / height, close_up=close_up)
        rgb, points = _cut_out_frame(self.photo.rgb, self.face.points, window, width, height)
        alpha = None
        if self.photo.alpha is not None:
            opaque = np.repeat(self.photo.alpha[..., None], 3, axis=2)
            alpha = _cut_out_frame(opaque, self.face.points, window, width, height, bars=False)[0][..., 0]
        elif self.spec.background is not None or cut_out:
            alpha = segment(rgb, points)
        return rgb if alpha is None else without_background(rgb, alpha), alpha, points


def open_studio(spec: PortraitSpec) -> Studio:
    """Decode a portrait and find its face.

    Raises:
        PortraitError: It cannot be used; the message says why and what to do.
    """
    photo = _cropped(read_photo(spec.picture), spec.crop)
    face = find_face(photo)
    gap = measure(face.points, photo.rgb).gap
    if gap > MAX_OPEN:
        raise PortraitError(
            "The mouth in the portrait is wide open. Use a picture with closed lips, or with a smile that shows no more than the teeth."
        )
    return Studio(photo, face, spec)


def _cropped(photo: Photo, crop: tuple[float, float, float, float] | None) -> Photo:
    if crop is None:
        return photo
    height, width = photo.rgb.shape[:2]
    left, top, right, bottom = (round(share * length) for share, length in zip(crop, (width, height) * 2, strict=True))
    part = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
    alpha = None if photo.alpha is None else np.ascontiguousarray(photo.alpha[part])
    return Photo(np.ascontiguousarray(photo.rgb[part]), alpha, photo.scale)


class _Window(NamedTuple):
    """The part of a photograph that a frame shows; it may reach beyond the photograph."""

    left: float
    top: float
    width: float
    height: float


def _window(studio: Studio, aspect: float, *, close_up: bool) -> _Window:
    height, width = studio.photo.rgb.shape[:2]
    least, most = studio.face.points[:, :2].min(0), studio.face.points[:, :2].max(0)
    (face_width, face_height), (x, y) = most - least, (least + most) / 2
    window_height = min(height, width / aspect)
    if close_up:
        window_height = min(window_height, max(_CLOSE_UP * face_height, _CLOSE_UP * 0.75 * face_width / aspect))
    if window_height < _MIN_ROOM * face_height or window_height * aspect < _MIN_ROOM * face_width:
        # Bars at two sides are better than a face that is cut off.
        window_height = max(height, width / aspect)
    window_width = window_height * aspect
    left = (
        np.clip(x - window_width / 2, 0, width - window_width) if window_width <= width else (width - window_width) / 2
    )
    top = (
        np.clip(y - window_height * _FACE_LEVEL, 0, height - window_height)
        if window_height <= height
        else (height - window_height) / 2
    )
    return _Window(float(left), float(top), float(window_width), float(window_height))


def _edges(studio: Studio, window: _Window, width: int, height: int) -> tuple[float, float, float, float] | None:
    """Return where a photograph ends within a frame: left, top, right and bottom; ``None`` if it covers the frame."""
    rows, columns = studio.photo.rgb.shape[:2]
    scale = width / window.width
    left, top = -window.left * scale, -window.top * scale
    right, bottom = left + columns * scale, top + rows * scale
    covers = left < 1 and top < 1 and right > width - 1 and bottom > height - 1
    # Where the photograph reaches the edge of the frame, it may continue beyond it.
    return (
        None
        if covers
        else (
            left if left >= 1 else -1e6,
            top if top >= 1 else -1e6,
            right if right <= width - 1 else 1e6,
            bottom if bottom <= height - 1 else 1e6,
        )
    )


def _cut_out_frame(
    picture: Pixels, points: Array, window: _Window, width: int, height: int, *, bars: bool = True
) -> tuple[Pixels, Array]:
    """Return the part of a photograph as a frame, and the landmarks in it.

    Args:
        picture: The photograph.
        points: The landmarks in its pixels.
        window: The part.
        width: Of the frame, in pixels.
        height: Of the frame, in pixels.
        bars: Whether a blurred enlargement fills what the photograph does not cover; black otherwise.
    """
    rows, columns = picture.shape[:2]
    left, top = max(0, round(window.left)), max(0, round(window.top))
    right, bottom = min(columns, round(window.left + window.width)), min(rows, round(window.top + window.height))
    scale = width / window.width
    # The photograph ends inside of the frame if the window reaches beyond it.
    x0, y0 = round((left - window.left) * scale), round((top - window.top) * scale)
    x1, y1 = round((right - window.left) * scale), round((bottom - window.top) * scale)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    part = scale_picture(picture[top:bottom, left:right], x1 - x0, y1 - y0)
    if (x0, y0, x1, y1) == (0, 0, width, height):
        frame = part
    else:
        frame = _blurred(part, width, height) if bars else np.zeros((height, width, 3), np.uint8)
        frame[y0:y1, x0:x1] = part
    factors = np.array([(x1 - x0) / (right - left), (y1 - y0) / (bottom - top), scale], np.float32)
    return frame, np.asarray((points - (left, top, 0)) * factors + (x0, y0, 0), np.float32)


def _blurred(picture: Pixels, width: int, height: int) -> Pixels:
    """Return a frame filled with a blurred enlargement of a picture."""
    rows, columns = picture.shape[:2]
    share = min(columns / width, rows / height)
    part_width, part_height = max(1, int(width * share)), max(1, int(height * share))
    left, top = (columns - part_width) // 2, (rows - part_height) // 2
    small = scale_picture(picture[top : top + part_height, left : left + part_width], 16, max(2, 16 * height // width))
    return scale_picture(small, width, height, smooth=True)
