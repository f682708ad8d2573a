"""The inside of a mouth: teeth, tongue and the dark cavity, in the light of the picture.

The upper teeth are fixed to the skull: lips cover and uncover them, but never move or squeeze them. If the picture shows teeth, those are
used; otherwise teeth are drawn. Tongue and lower teeth move with the jaw. The colour of the light is estimated from the white of the eyes, so
that teeth are as bright as real teeth would be in this picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.portrait.geometry import LOWER_LIDS, OPEN_GAP, OUTER_LOWER_LIP, TABLE_SIZE, UPPER_LIDS, table_places
from a2v.engine.portrait.head import smoothstep
from a2v.engine.portrait.pictures import sample_bilinear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from a2v.engine.face_pose import MouthShape
    from a2v.engine.portrait.geometry import Geometry
    from a2v.engine.portrait.pictures import Array

_TEETH, _CAVITY, _THROAT = (0.90, 0.86, 0.79), (0.10, 0.035, 0.035), (0.27, 0.095, 0.09)
_TONGUE = (0.50, 0.22, 0.21)
_LOWER_TEETH = (0.74, 0.70, 0.64)
_CORNER = (0.48, 0.22, 0.19)
"""The colour inside the corners of the mouth, where the cheeks are near."""
_BLUE_OF_SKIN, _BLUE_OF_EYES = 0.85, 0.95
"""The ratio of blue to green of skin and of the white of eyes, in white light."""
_WARMTH = np.array([0.85, 1.2, 1.35], np.float32)
"""The exponents of a shadow for red, green and blue. The light in the shadow of the lips is reflected by skin; neutral shadows would make
teeth grey."""
_WIDTHS = (0.33, 0.25, 0.20, 0.16, 0.12)
"""The widths of the teeth from the middle to the side, in half widths of the mouth."""
_LEFT, _TOP, _WIDTH, _HEIGHT = -1.15, -0.8, 2.3, 1.8
"""The area of the texture of the teeth, in half widths of the mouth."""
_TEXELS = 96
"""The resolution of the texture: texels per half width of the mouth."""
_SPECK_DEPTH = 0.42
"""How deep in the lower lip specks are removed, relative to its thickness."""


class Inside:
    """The inside of the mouth of one face.

    Args:
        face: Its measures.
        rgb: The frame, height × width × 3.
    """

    def __init__(self, face: Geometry, rgb: NDArray[np.uint8]) -> None:
        self._face = face
        self._white = _estimate_white(face, rgb)
        self._shows_teeth = face.gap >= OPEN_GAP
        self._teeth, self._opacity = self._photographed_teeth(rgb) if self._shows_teeth else self._drawn_teeth()

    def colours(self, places: Array, above: Array, below: Array, mouth: MouthShape, opening: float) -> Array:
        """Return the colours of some places, red, green and blue from 0 to 255.

        Args:
            places: In face coordinates.
            above: The distance of each from the edge of the upper lip, in pixels.
            below: The distance from the edge of the lower lip.
            mouth: The shape of the mouth.
            opening: The opening in pixels.
        """
        half = self._face.mouth
        x = places[:, 0] / half
        depth = np.clip(above / np.float32(0.9 * half), 0, 1)[:, None]
        colours = self._lit(_CAVITY) * (1 - depth) + self._lit(_THROAT) * depth
        # The tongue lies on the floor of the mouth; for "l" its tip rises to the teeth.
        raised = max(0.0, min(1.0, (mouth.tongue - 0.6) / 0.35))
        round_ = np.clip(1 - (x / 0.74) ** 2, 0, 1)
        top = np.float32(0.42 * half) * round_ + np.float32(0.55 * opening * raised)
        tongue = (
            smoothstep((top - below) / np.float32(0.16 * half))
            * min(1.0, opening / (0.30 * half))
            * (1 - 0.7 * min(1.0, mouth.round))
        )
        colours += (self._lit(_TONGUE) * (0.75 + 0.25 * round_[:, None]) - colours) * tongue[:, None]
        if mouth.lower_teeth > 0.02:
            edge = np.float32((0.07 + 0.05 * min(1.0, mouth.open * 2)) * half)
            row = smoothstep((edge - below) / (0.05 * half)) * np.clip(1 - np.abs(x / 0.8) ** 4, 0, 1)
            colours += (self._lit(_LOWER_TEETH) - colours) * (row * 0.55 * mouth.lower_teeth)[:, None]
        # Lips that are rounded or closed cover more of the teeth. Photographed teeth stay in place.
        hidden = 0.0 if self._shows_teeth else 0.15 * (1 - min(1.0, mouth.upper_teeth)) * half
        teeth, opacity = self._sample(places + np.array([0, hidden], np.float32))
        darkest, reach = (0.85, 0.10) if self._shows_teeth else (0.68, 0.20)
        shadow = darkest + (1 - darkest) * smoothstep(above / np.float32(reach * half))
        if not self._shows_teeth:
            # Little light falls between lips that are hardly open.
            shadow *= 0.80 + 0.20 * min(1.0, opening / (0.35 * half))
        # Rounded lips leave the teeth in the shade.
        shadow = shadow * (1 - 0.75 * min(1.0, mouth.round) ** 2.5)
        colours += (teeth * shadow[:, None] ** _WARMTH - colours) * opacity[:, None]
        colours *= (1 - 0.55 * smoothstep((np.abs(x) - 0.45) / 0.6) * (0.4 if self._shows_teeth else 1.0))[:, None]
        # Black tips would look like a second pair of corners.
        corner = smoothstep((np.abs(x) - 0.68) / 0.27) * 0.9
        return np.asarray(colours + (self._lit(_CORNER) - colours) * corner[:, None], np.float32)

    def _lit(self, colour: tuple[float, float, float]) -> Array:
        return self._white * np.array(colour, np.float32)

    def _sample(self, places: Array) -> tuple[Array, Array]:
        half = self._face.mouth
        height, width = self._opacity.shape
        x = ((places[:, 0] / half - _LEFT) * _TEXELS).clip(0, width - 1).astype(np.intp)
        y = ((places[:, 1] / half - _TOP) * _TEXELS).clip(0, height - 1).astype(np.intp)
        return self._teeth[y, x], self._opacity[y, x]

    def _texels(self) -> Array:
        """Return the places of the texels in face coordinates."""
        x = (np.arange(round(_WIDTH * _TEXELS)) + 0.5) / _TEXELS + _LEFT
        y = (np.arange(round(_HEIGHT * _TEXELS)) + 0.5) / _TEXELS + _TOP
        return np.stack(np.meshgrid(x, y), -1).astype(np.float32) * np.float32(self._face.mouth)

    def _edges(self, x: Array) -> tuple[Array, Array]:
        places = table_places(self._face.mouth)
        return np.interp(x, places, self._face.upper), np.interp(x, places, self._face.lower)

    def _photographed_teeth(self, rgb: NDArray[np.uint8]) -> tuple[Array, Array]:
        """Return the texture and the opacity of what the picture shows between the lips, extended below the lips."""
        face = self._face
        texels = self._texels()
        x, y = texels[..., 0], texels[..., 1]
        upper, lower = self._edges(x)
        margin = np.float32(0.035 * face.mouth)
        inside = np.clip(y, upper + margin, np.maximum(lower - margin, upper + margin))
        places = face.to_frame(np.stack([x, inside], -1).astype(np.float32))
        colours = sample_bilinear(rgb, places - np.float32(0.5))
        thick = lower - upper
        opacity = smoothstep((lower - margin - y) / np.float32(0.05 * face.mouth) + 0.5)
        opacity *= smoothstep((thick - 2 * margin) / np.float32(0.08 * face.mouth))
        opacity *= np.abs(x) < face.mouth
        return colours, np.asarray(opacity, np.float32)

    def _drawn_teeth(self) -> tuple[Array, Array]:
        """Return the texture and the opacity of drawn upper teeth."""
        face = self._face
        texels = self._texels() / np.float32(face.mouth)
        x, y = np.abs(texels[..., 0]), texels[..., 1]
        rest = float(face.upper[TABLE_SIZE // 2]) / face.mouth
        colours = np.ones((*x.shape, 3), np.float32) * self._lit(_TEETH)
        left = 0.0
        bottom = np.zeros_like(x)
        shade = np.ones_like(x)
        for number, width in enumerate(_WIDTHS):
            place = (x - left) / width
            is_tooth = (place >= 0) & (place < 1)
            length = (0.155, 0.135, 0.150, 0.115, 0.09)[number]
            # Rounded at the ends of the edge, and darker between two teeth.
            edge = rest + length - 0.035 * np.abs(2 * place - 1) ** 4
            bottom = np.where(is_tooth, edge, bottom)
            gap = 0.11 * np.exp(-((np.minimum(place, 1 - place) * width / 0.024) ** 2))
            arch = 1 - 0.42 * ((left + width / 2) / 1.06) ** 2 + 0.04 * (0.5 - place)
            shade = np.where(is_tooth, arch * (1 - gap), shade)
            left += width
        opacity = np.where(x < left, smoothstep((bottom - y) / 0.05 + 0.5), 0)
        colours *= shade[..., None] ** _WARMTH
        # The edge of a tooth is slightly translucent.
        colours *= (0.90 + 0.10 * smoothstep((bottom - y) / 0.08))[..., None]
        return colours, np.asarray(opacity, np.float32)


def without_specks(face: Geometry, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove the remains of teeth at the edge of the lower lip, which would move with the lip as white specks.

    The edge of a lip is only known to a pixel or two. Pixels near it that are brighter and less red than the lip get the colours of places
    deeper in the lip.
    """
    half = face.mouth
    if face.gap < OPEN_GAP:
        return rgb
    table = table_places(half)
    corners = np.array(
        [[x, y] for x in (-half, half) for y in (float(face.lower.min()), float(face.lower.max()) + half)], np.float32
    )
    in_frame = face.to_frame(corners)
    left, top = in_frame.min(0).astype(int).clip(0)
    right, bottom = in_frame.max(0).astype(int)
    part = rgb[top:bottom, left:right].astype(np.float32)
    height, width = part.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width) + left, np.arange(height) + top), -1).astype(np.float32)
    places = face.to_face(pixels + np.float32(0.5))
    x = places[..., 0]
    edge = np.interp(x, table, face.lower)
    outer = face.to_face(face.points[list(OUTER_LOWER_LIP), :2])
    thickness = np.maximum(np.interp(x, outer[:, 0], outer[:, 1]) - edge, 1)
    depth = (places[..., 1] - edge) / thickness
    redness = (part[..., 0] - part[..., 1:].mean(-1)) / (part[..., 0] + 1)
    lip = (depth > _SPECK_DEPTH) & (depth < 2 * _SPECK_DEPTH) & (np.abs(x) < 0.8 * half)
    if lip.sum() < 9:
        return rgb
    red, bright = float(np.median(redness[lip])), float(np.median(part[lip].mean(-1)))
    near = smoothstep((depth + 0.15) / 0.1) * (1 - smoothstep((depth - 0.6 * _SPECK_DEPTH) / (0.4 * _SPECK_DEPTH)))
    tooth = smoothstep((red - redness) / max(0.08, 0.6 * red)) * smoothstep((part.mean(-1) / bright - 0.9) / 0.2)
    sources = np.stack([x, edge + (2 * _SPECK_DEPTH - depth.clip(0, _SPECK_DEPTH)) * thickness], -1).astype(np.float32)
    colours = sample_bilinear(rgb, face.to_frame(sources) - np.float32(0.5))
    part += (colours - part) * (near * tooth * (np.abs(x) < half))[..., None]
    cleaned = rgb.copy()
    cleaned[top:bottom, left:right] = (part + np.float32(0.5)).astype(np.uint8)
    return cleaned


def _estimate_white(face: Geometry, rgb: NDArray[np.uint8]) -> Array:
    """Return the colour that something white would have in the light of the face."""
    height, width = rgb.shape[:2]
    found = []
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        above, under = (face.points[list(line), :2] for line in (upper, lower))
        for share in (0.35, 0.5, 0.65):
            line = above * (1 - share) + under * share
            x, y = (line[1:-1, i].astype(int).clip(0, size - 1) for i, size in ((0, width), (1, height)))
            found.append(rgb[y, x])
    eyes = np.concatenate(found).astype(np.float32)
    cheeks = face.points[[50, 280, 205, 425], :2].astype(int)
    skin = np.median(rgb[cheeks[:, 1].clip(0, height - 1), cheeks[:, 0].clip(0, width - 1)], axis=0)
    brightness = eyes.mean(1)
    white = eyes[brightness >= np.percentile(brightness, 85)].mean(0)
    level = float(np.clip(white.mean() * 1.08, max(90.0, 0.97 * float(skin.max())), 245))
    # Only a slight tint: the white of an eye is small and surrounded by skin, which also reflects light into the mouth.
    tint = 0.6 + 0.2 * white / max(1.0, float(white.mean())) + 0.2 * skin / max(1.0, float(skin.mean()))
    # But yellow light, or yellow varnish, colours skin and eyes alike.
    yellow = min(1.0, max(0.5, _blueness(skin) / _BLUE_OF_SKIN, _blueness(white) / _BLUE_OF_EYES))
    tint[1:] = tint[1] * yellow**0.2, min(tint[2], tint[1] * yellow)
    return np.asarray(np.minimum(level * tint, 250), np.float32)


def _blueness(colour: Array) -> float:
    return float(colour[2] / max(1.0, colour[1]))
