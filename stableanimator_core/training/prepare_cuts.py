"""Hard cuts between two frames, from the histograms of 4x4 parts of the picture.

Each part's grey scale is compared with the frame before by the earth mover's distance, which for histograms
of equal weight is the mean difference of the sorted values: a small change of light moves it a little, where
bins would jump. The median over the parts is taken, so that a person who moves changes few of them and a cut
most. A cut is also several times what the last frames had, so that a shaken camera is none.
Not seen: fades and dissolves, and jumps between two pictures of the same view.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from PIL import Image

_GRID, _CELL = 4, 16  # parts a side, pixels a side of each
_TIMES_USUAL = 4.0
_MEMORY = 8  # frames


class CutDetector:
    """Sees cuts in a stream of frames.

    Args:
        threshold: smallest distance that is a cut, as a share of the grey scale.
    """

    def __init__(self, threshold: float = 0.08):
        self.threshold = threshold
        self._last: np.ndarray | None = None
        self._usual: deque[float] = deque(maxlen=_MEMORY)

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether a new take begins with `image` (RGB uint8 [H W 3]); the first frame is no cut."""
        now = _signature(image)
        last, self._last = self._last, now
        if last is None:
            return False
        distance = float(np.median(np.abs(now - last).mean(axis=(1, 2)))) / 255
        usual = float(np.median(self._usual)) if self._usual else 0.0
        if distance > self.threshold and distance > _TIMES_USUAL * usual:
            self._usual.clear()
            return True
        self._usual.append(distance)
        return False


def _signature(image: np.ndarray) -> np.ndarray:
    """[parts, colours, pixels] sorted values."""
    side = _GRID * _CELL
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    parts = small.reshape(_GRID, _CELL, _GRID, _CELL, 3).transpose(0, 2, 4, 1, 3)
    return np.sort(parts.reshape(_GRID * _GRID, 3, _CELL * _CELL), axis=-1)
