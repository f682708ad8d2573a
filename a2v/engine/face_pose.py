"""Animation data: the state of a face in one frame. ``animation`` produces it, ``drawing`` turns it into shapes."""

from __future__ import annotations

from typing import Literal, NamedTuple

VISEMES = "XABCDEFGH"
"""The visemes (mouth shapes) of the Preston Blair set; the order of the columns of every table of visemes.

X rest · A p/b/m, closed · B teeth (k s t i) · C open (eh ae ah) · D wide open (aa) · E rounded (ao er) · F pucker (uw w) ·
G lip on teeth (f v) · H tongue up (l)
"""

Mood = Literal["warm", "concerned", "surprised", "thoughtful"]
"""The expression of a whole video."""


class MouthShape(NamedTuple):
    """The shape of a mouth. Each field runs from 0 to about 1, and shapes can be interpolated.

    Attributes:
        open: How far the mouth is open.
        wide: The width of the mouth relative to its width at rest.
        round: How far the lips are rounded.
        upper_teeth: How much of the upper teeth an open mouth shows.
        lower_teeth: How much of the lower teeth it shows.
        tongue: The height of the tongue. Above 0.6, its tip rises to the upper teeth.
        press: How firmly the lips are pressed together.
        tuck: How far the lower lip is tucked under the upper teeth.
        smile: How far the corners of the mouth are raised; negative: lowered.
    """

    open: float = 0.0
    wide: float = 1.0
    round: float = 0.0
    upper_teeth: float = 0.0
    lower_teeth: float = 0.0
    tongue: float = 0.15
    press: float = 0.0
    tuck: float = 0.0
    smile: float = 0.6


class FacePose(NamedTuple):
    """The animated parameters of a character in one frame.

    Unless the unit is stated, 0 is at rest, and -1 and 1 are the ends of the natural range.

    Attributes:
        mouth: The shape of the mouth.
        blink: How far the eyes are closed, 0 to 1.
        squint: How far the eyes are narrowed; negative: opened wide.
        gaze_x: The direction of the eyes relative to the head, positive to the right of the picture.
        gaze_y: The same, positive downwards.
        brow: How far the brows are raised.
        yaw: The turn of the head, positive to the right of the picture.
        pitch: The nod of the head, positive downwards.
        roll: The tilt of the head in degrees, clockwise.
        bob: The vertical offset of the head, positive downwards.
        breath: How far the chest is raised.
        lean: The lean of the torso in degrees, clockwise.
        swing: The swing of hair and earrings relative to the head in degrees, clockwise.
        cheeks: How far the cheeks are raised, 0 to 1.
        inner_brow: How far the ends of the brows near the nose are raised.
    """

    mouth: MouthShape = MouthShape()
    blink: float = 0.0
    squint: float = 0.1
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    brow: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    bob: float = 0.0
    breath: float = 0.0
    lean: float = 0.0
    swing: float = 0.0
    cheeks: float = 0.0
    inner_brow: float = 0.0


#                      open  wide  round upper lower tongue press tuck smile
MOUTH_SHAPES = {
    "X": MouthShape(0.00, 1.00, 0.00, 0.0, 0.0, 0.15, 0.00, 0.0, 0.80),
    "A": MouthShape(0.00, 0.95, 0.06, 0.0, 0.0, 0.15, 0.85, 0.0, 0.55),
    "B": MouthShape(0.22, 1.06, 0.00, 1.0, 0.9, 0.30, 0.00, 0.0, 0.80),
    "C": MouthShape(0.54, 1.02, 0.00, 0.9, 0.2, 0.35, 0.00, 0.0, 0.70),
    "D": MouthShape(0.95, 0.98, 0.08, 0.95, 0.3, 0.45, 0.00, 0.0, 0.55),
    "E": MouthShape(0.58, 0.70, 0.60, 0.4, 0.0, 0.30, 0.00, 0.0, 0.12),
    "F": MouthShape(0.27, 0.50, 1.00, 0.0, 0.0, 0.20, 0.00, 0.0, 0.00),
    "G": MouthShape(0.15, 0.98, 0.00, 1.0, 0.0, 0.10, 0.00, 1.0, 0.55),
    "H": MouthShape(0.48, 1.00, 0.00, 1.0, 0.0, 0.95, 0.00, 0.0, 0.65),
}
"""The shape of each viseme when it is spoken clearly."""
