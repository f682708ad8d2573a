"""The proportions of a face: where its parts are, and their sizes, from the ``Features`` of a character.

The origin is the middle of the face. Features of 0.5 give the average face; the others differ from it by a few units, which is enough
to tell people apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from a2v.engine.drawing.geometry import lerp

if TYPE_CHECKING:
    from a2v.engine.characters import CharacterSpec
    from a2v.engine.drawing.geometry import Point


class Proportions(NamedTuple):
    """The measures of a face in units of the drawing."""

    outline: tuple[Point, ...]
    """The right half of the outline, from the hairline to the chin."""
    eye_x: float
    """The position of the right eye in a face that looks straight ahead."""
    eye_y: float
    eye_size: float
    """Relative to the size at which eyes are drawn."""
    eye_slant: float
    """By how many degrees the outer corners are higher."""
    brow_y: float
    """The height of the brows above the eyes."""
    nose_width: float
    """Half of the width at the wings."""
    nose_tip: float
    """The height of its lower end."""
    mouth_y: float
    """The height of the closed lips."""
    mouth_width: float
    """Relative to the average."""
    chin: float
    ear_x: float
    """The position of the right ear."""
    ear_y: float
    ear_size: float
    """Relative to the average."""


AVERAGE_MOUTH_Y, AVERAGE_CHIN, AVERAGE_EYE_X = 94.0, 162.0, 49.0


@lru_cache(maxsize=64)
def proportions(character: CharacterSpec) -> Proportions:
    """Return the proportions of a character's face."""
    features = character.features
    square = features.jaw
    longer, broader = (2 * value - 1 for value in (features.length, features.width))
    chin = AVERAGE_CHIN + 13 * longer
    outline = (
        (0, -158), (66, -148), (104 + broader, -96), (112 + 1.5 * broader, -20),
        (lerp(106, 109, square) + 5 * broader, 46 + 3 * longer),
        (lerp(87, 99, square) + 7 * broader, 100 + 8 * longer),
        (lerp(49, 70, square) + 5 * broader, chin - 20),
        (lerp(21, 36, square) + 2 * broader, chin - 3),
        (0, chin),
    )  # fmt: skip
    nose_tip = lerp(41.0, 58.0, features.nose) + 2 * longer
    return Proportions(
        outline=outline,
        eye_x=AVERAGE_EYE_X + 10 * (features.eye_distance - 0.5) + broader,
        eye_y=-6.0 - 3 * longer,
        eye_size=lerp(1.04, 1.20, features.eyes),
        eye_slant=16 * (features.eye_slant - 0.5),
        brow_y=lerp(48.5, 42.0, features.brows),
        nose_width=lerp(13.0, 21.5, features.nose_width),
        nose_tip=nose_tip,
        # Between nose and chin, which move it by parts of their own offsets.
        mouth_y=AVERAGE_MOUTH_Y + 8 * longer + 0.30 * (nose_tip - 49.5),
        mouth_width=lerp(0.84, 1.16, features.mouth),
        chin=chin,
        ear_x=109 + 1.5 * broader,
        ear_y=2 * longer,
        ear_size=lerp(0.80, 1.24, features.ears),
    )
