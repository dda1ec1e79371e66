"""Bilinear warping with OpenCV 4's fixed-point arithmetic, whatever OpenCV is installed.

The skeletons StableAnimator was trained on came through OpenCV 4, whose `warpAffine` rounds source
coordinates to 1/32 pixel. OpenCV 5 does not, and differs by up to 5 levels. Source: opencv 4.11,
modules/imgproc/src/imgwarp.cpp; the last step, interpolation from a table, is still OpenCV's own `remap`.
"""

from __future__ import annotations

import numpy as np

_COARSE = 10  # bits of the fraction while coordinates are added up
_FINE = 5  # bits of the fraction that stay
_FAR = 32767  # 16-bit coordinates; further out it is black anyway


def warp_affine(image: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` [H W c] moved by `matrix` [2 3] (source to target) as [height width c], bilinear, black
    outside.
    """
    import cv2

    (xx, xy, x0), (yx, yy, y0) = _inverse(matrix)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    across = _fixed(xx * columns) + _fixed(xy * rows + x0)
    down = _fixed(yx * columns) + _fixed(yy * rows + y0)
    half = 1 << (_COARSE - _FINE - 1)
    across, down = ((axis + half) >> (_COARSE - _FINE) for axis in (across, down))
    whole = np.stack([across >> _FINE, down >> _FINE], axis=-1).clip(-_FAR, _FAR).astype(np.int16)
    mask = (1 << _FINE) - 1
    part = (((down & mask) << _FINE) + (across & mask)).astype(np.uint16)
    return cv2.remap(image, whole, part, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    (a, b, x), (c, d, y) = np.asarray(matrix, dtype=np.float64)
    factor = 1 / (a * d - b * c)
    a, b, c, d = d * factor, -b * factor, -c * factor, a * factor
    return np.array([[a, b, -a * x - b * y], [c, d, -c * x - d * y]])


def _fixed(coordinates: np.ndarray) -> np.ndarray:
    return np.rint(coordinates * (1 << _COARSE)).astype(np.int64)
