"""Detects glasses. Lids drawn over their rim would smear it.

A rim is a line where skin is smooth: across the nose between the eyes, and below each eye. The measure is the strongest line in the profile of
brightness along the nose and down the cheeks, compared with the brightness of the skin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.portrait.pictures import sample_bilinear

if TYPE_CHECKING:
    from a2v.engine.portrait.geometry import Geometry
    from a2v.engine.portrait.pictures import Array, Pixels

_LOWER_LIDS = 145, 374
_LINE = 0.18


def wears_glasses(rgb: Pixels, face: Geometry) -> bool:
    """Return whether the face wears glasses."""
    return glasses_strength(rgb, face) > _LINE


def glasses_strength(rgb: Pixels, face: Geometry) -> float:
    """Return how strong the lines of a rim are; 0 is smooth skin."""
    eyes = face.eye_distance
    strengths = []
    for x in (-0.05, 0.0, 0.05):
        middle = (face.points[168, :2] + face.points[6, :2]) / 2 + x * eyes * face.across
        strengths.append(_line(rgb, middle - 0.16 * eyes * face.down, middle + 0.16 * eyes * face.down, eyes))
    bridge = float(np.median(strengths))
    under = []
    for lid in _LOWER_LIDS:
        for x in (-0.07, 0.0, 0.07):
            start = face.points[lid, :2] + x * eyes * face.across + 0.10 * eyes * face.down
            under.append(_line(rgb, start, start + 0.32 * eyes * face.down, eyes))
    return min(bridge, float(np.median(under)))


def _line(rgb: Pixels, start: Array, end: Array, eyes: float) -> float:
    """Return the contrast of the strongest thin line that crosses a path."""
    share = np.linspace(0, 1, 65, dtype=np.float32)[:, None]
    path = start * (1 - share) + end * share
    across = np.array([-(end - start)[1], (end - start)[0]]) / np.linalg.norm(end - start)
    profiles = [
        sample_bilinear(rgb, (path + offset * eyes * across - 0.5).astype(np.float32)) for offset in (-0.015, 0, 0.015)
    ]
    profile = np.mean(profiles, axis=(0, 2))
    step = 7
    second = np.abs(profile[2 * step :] - 2 * profile[step:-step] + profile[: -2 * step]) / 2
    return float(second.max() / max(20.0, float(np.median(profile))))
