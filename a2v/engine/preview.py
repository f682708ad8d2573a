"""Draws the preview picture of a character or pose, from the same data as its videos."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import av
import numpy as np

from a2v.engine.characters import get_camera_pose
from a2v.engine.characters.portraits import PortraitSpec
from a2v.engine.drawing.bust import bust
from a2v.engine.drawing.dithering import dither
from a2v.engine.drawing.rasterizer import Rasterizer
from a2v.engine.drawing.scenery import backdrop
from a2v.engine.face_pose import FacePose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from a2v.engine.characters import Character


# The key contains the character, so a changed character gets a new picture.
@lru_cache(maxsize=128)
def preview(subject_id: str, size: int = 512, character: Character | None = None) -> bytes:
    """Return a square PNG of a character with a resting face.

    Args:
        subject_id: A ``pose_id``, or a ``model_id`` for the default pose of a character.
        size: The side in pixels.
        character: The character; ``None`` if it is a built-in one.

    Raises:
        RenderError: There is no such pose or character.
    """
    pose = get_camera_pose(subject_id, character)
    if isinstance(pose.character, PortraitSpec):
        # Its picture is untrusted, so it was decoded, once, in a child process.
        return dict(pose.character.previews)[pose.pose_id.removeprefix(f"{pose.character.model_id}_")]
    rasterizer = Rasterizer(size, size, pose.framings["square"])
    rasterizer.paint(backdrop(pose.character))
    rasterizer.set_backdrop(dither(rasterizer.pixels))
    rasterizer.paint(bust(pose.character, FacePose()))
    return to_png(rasterizer.pixels[..., :3])


def to_png(rgb: NDArray[np.uint8]) -> bytes:
    """Return a square picture, height × width × 3, as PNG."""
    size = len(rgb)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt = "rgb24"
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
