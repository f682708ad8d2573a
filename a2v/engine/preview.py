"""A picture of a character at rest, drawn from the same data as its videos."""

from __future__ import annotations

from functools import cache

import av
import numpy as np

from a2v.engine.cast import look
from a2v.engine.drawing.bust import backdrop, bust
from a2v.engine.drawing.painter import Painter
from a2v.engine.pose import Pose


@cache
def preview(model_id: str, size: int = 512) -> bytes:
    """A PNG of the character, ``size`` pixels square.

    Raises:
        RenderError: There is no such character.
    """
    person = look(model_id)
    pixels = Painter(size).paint([*backdrop(person), *bust(person, Pose())])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[..., :3]), format="rgb24")
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt = "rgb24"
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
