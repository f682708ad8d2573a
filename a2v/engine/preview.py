"""A picture of a character at rest, drawn from the same data as its videos."""

from __future__ import annotations

from functools import cache

import av
import numpy as np

from a2v.engine import cast
from a2v.engine.drawing.bust import backdrop, bust
from a2v.engine.drawing.painter import Painter
from a2v.engine.pose import Pose


@cache
def preview(who: str, size: int = 512) -> bytes:
    """A PNG of a character, ``size`` pixels square.

    Args:
        who: A ``pose_id``, or a ``model_id`` for the character's usual pose.
        size: The side in pixels.

    Raises:
        RenderError: There is no such pose or character.
    """
    stance = cast.pose(who)
    person = cast.look(stance.model_id)
    painter = Painter(size, size, stance.views["square"])
    painter.paint([*backdrop(person), *bust(person, Pose())])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(painter.pixels[..., :3]), format="rgb24")
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt = "rgb24"
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
