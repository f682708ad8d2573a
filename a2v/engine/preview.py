"""A picture of a character at rest, drawn from the same data as its videos."""

from __future__ import annotations

from functools import cache

import av
import numpy as np

from a2v.engine import characters
from a2v.engine.drawing.bust import backdrop, bust
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.face_pose import FacePose


@cache
def preview(subject_id: str, size: int = 512) -> bytes:
    """A PNG of a character, ``size`` pixels square.

    Args:
        subject_id: A ``pose_id``, or a ``model_id`` for the character's usual pose.
        size: The side in pixels.

    Raises:
        RenderError: There is no such pose or character.
    """
    pose = characters.get_camera_pose(subject_id)
    rasterizer = Rasterizer(size, size, pose.framings["square"])
    rasterizer.paint([*backdrop(pose.character), *bust(pose.character, FacePose())])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rasterizer.pixels[..., :3]), format="rgb24")
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt = "rgb24"
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
