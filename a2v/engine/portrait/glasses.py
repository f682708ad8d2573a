"""Detects glasses, because lids that are drawn over a rim would smear it.

A rim is a line where skin would be smooth: across the bridge of the nose, and below each eye. Its strength is the largest second difference
in brightness profiles along the nose and down the cheeks, relative to the brightness of the skin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from a2v.engine.portrait.pictures import sample_bilinear

if TYPE_CHECKING:
    from a2v.engine.portrait.geometry import Geometry
    from a2v.engine.portrait.pictures import Array, Pixels

_LOWER_LIDS = 145, 374
_MIN_RIM_STRENGTH = 0.18


def wears_glasses(rgb: Pixels, face: Geometry) -> bool:
    """Return whether the face wears glasses."""
    return glasses_strength(rgb, face) > _MIN_RIM_STRENGTH


def glasses_strength(rgb: Pixels, face: Geometry) -> float:
    """Return the strength of the rim: 0 is smooth skin."""
    eyes = face.eye_distance
    strengths = []
    for x in (-0.05, 0.0, 0.05):
        middle = (face.points[168, :2] + face.points[6, :2]) / 2 + x * eyes * face.across
        strengths.append(_line_strength(rgb, middle - 0.16 * eyes * face.down, middle + 0.16 * eyes * face.down, eyes))
    bridge = float(np.median(strengths))
    under = []
    for lid in _LOWER_LIDS:
        for x in (-0.07, 0.0, 0.07):
            start = face.points[lid, :2] + x * eyes * face.across + 0.10 * eyes * face.down
            under.append(_line_strength(rgb, start, start + 0.32 * eyes * face.down, eyes))
    return min(bridge, float(np.median(under)))


def _line_strength(rgb: Pixels, start: Array, end: Array, eyes: float) -> float:
    """Return the contrast of the strongest thin line that crosses a path."""
    share = np.linspace(0, 1, 65, dtype=np.float32)[:, None]
    path = start * (1 - share) + end * share
    across = np.array([-(end - start)[1], (end - start)[0]]) / np.linalg.norm(end - start)
    profiles = [
        sample_bilinear(rgb, (path + offset * eyes * across - 0.5).astype(np.float32)) for offset in (-0.015, 0, 0.015)
    ]
    profile = np.mean(profiles, axis=(0, 2))
    step = 7
    second_difference = np.abs(profile[2 * step :] - 2 * profile[step:-step] + profile[: -2 * step]) / 2
    return float(second_difference.max() / max(20.0, float(np.median(profile))))
