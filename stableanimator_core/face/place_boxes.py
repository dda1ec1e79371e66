"""Face boxes of a clip moved into pictures of another size, as `pose.fit` moves its skeletons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..hjb.regions import Box
from ..pose.fit import FITS
from .boxes import FaceBoxes, pad_boxes


def place_boxes(
    boxes: Sequence[Sequence[Box]], size: tuple[int, int], new_size: tuple[int, int], how: str = "contain"
) -> FaceBoxes:
    """Boxes in pixels of the new size, cut where they leave the picture.

    Args:
        boxes: per frame, whole pixels of `size`.
        size: height and width they belong to.
        new_size: height and width wanted.
        how: "contain", "cover" or "stretch", as in `pose.fit.fit_frames`.

    Raises:
        InputError: another `how`.
    """
    if how not in FITS:
        raise InputError("fit", f"is '{how}'", f"choose one of {', '.join(FITS)}")
    old, new = np.array(size, dtype=np.float64), np.array(new_size, dtype=np.float64)
    scale = new / old
    if how != "stretch":
        scale[:] = scale.min() if how == "contain" else scale.max()
    moved = [[_moved(box, old, new, scale) for box in frame] for frame in boxes]
    return pad_boxes(moved, 0.0, *new_size)


def _moved(box: Box, old: np.ndarray, new: np.ndarray, scale: np.ndarray) -> Box:
    start = (np.array([box.top, box.left]) - old / 2) * scale + new / 2
    end = (np.array([box.bottom, box.right]) - old / 2) * scale + new / 2
    (top, left), (bottom, right) = np.floor(start).astype(int), np.ceil(end).astype(int)
    return Box(int(top), int(bottom), int(left), int(right))
