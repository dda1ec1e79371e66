"""How far a frame's joints are from where they should be, found again by a small network.

Axes: f frames, j 18 joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..pose.draw import Picture
from ..pose.people import Frame
from ..preprocess import from_uint8
from .joint_detector import JointDetector


def found_joints(detector: JointDetector, frames: Picture) -> NDArray[np.float64]:
    """[f j 2] in pixels, of uint8 pictures [f H W 3]."""
    height, width = frames.shape[1:3]
    points = detector.locate(from_uint8(frames).permute(0, 3, 1, 2)).points
    return points.double().cpu().numpy() * [width, height]


def pose_error(joints: NDArray[np.float64], skeletons: Sequence[Frame], body_height: float) -> float | None:
    """Mean distance of joints [f j 2] in pixels to the true ones that lie in the picture, as share of the height.

    None if no frame has a joint in the picture.
    """
    distances = [
        np.linalg.norm(found - frame.people[0].body * frame.size, axis=1)[frame.people[0].body_score > 0]
        for found, frame in zip(joints, skeletons, strict=True)
        if frame.people
    ]
    every = np.concatenate(distances) if distances else np.zeros(0)
    return float(every.mean() / body_height) if len(every) else None
