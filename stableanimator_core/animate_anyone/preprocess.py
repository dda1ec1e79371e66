"""Pictures into what Animate Anyone's networks read.

MooreThreads/Moore-AnimateAnyone @ a914ef3, `src/pipelines/pipeline_pose2vid_long.py`: photo and skeletons by Lanczos,
skeletons in [0, 1]; CLIP sees the photo squashed to a square, uncropped.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from ..preprocess import normalise_for_clip, reference_pixels, resized

SIZE_MULTIPLE = 8
"""Latents are an eighth; halving an odd number of them rounds up, so no larger multiple is needed."""

__all__ = ["SIZE_MULTIPLE", "clip_pixels", "pose_pixels", "reference_pixels"]


def clip_pixels(image: np.ndarray, size: int = 224) -> Tensor:
    """One picture for CLIP, uint8 [H W 3] RGB -> bicubic to a square, normalised: float32 [1 3 size size]."""
    return normalise_for_clip(resized(image[None], size, size, Image.Resampling.BICUBIC))


def pose_pixels(poses: np.ndarray, height: int, width: int) -> Tensor:
    """Skeleton pictures uint8 [f H W 3] RGB -> Lanczos -> float32 [f 3 height width] in [0, 1]; may be stretched."""
    return resized(poses, height, width, Image.Resampling.LANCZOS)
