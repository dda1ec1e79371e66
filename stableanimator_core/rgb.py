"""Pictures as the detectors take them: 8-bit RGB, checked. Axes: f frames, H W pixels, 3 = red, green,
blue.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .errors import InputError

SMALLEST_SIDE = 16  # below this the detectors' own resizing leaves nothing
LARGEST_RATIO = 32


def rgb_frames(frames: np.ndarray | Tensor, what: str = "the pictures") -> np.ndarray:
    """The frames as uint8 [f H W 3], without a copy where they are that already.

    Args:
        frames: uint8 0..255 or floating point 0..1, [f H W 3].
        what: name used in errors.

    Raises:
        InputError: not RGB frames, no frames, NaN pixels, or too small or narrow for a detector.
    """
    array = frames.numpy(force=True) if isinstance(frames, Tensor) else np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3:
        raise InputError(
            what, f"have the shape {list(array.shape)}", "give colour pictures [frames, height, width, 3]"
        )
    if len(array) == 0:
        raise InputError(what, "hold no frame", "give at least one")
    _check_sides(array.shape[1], array.shape[2], what)
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            what, f"hold numbers of type {array.dtype}", "give 8-bit pictures or numbers from 0 to 1"
        )
    bad = [index for index, frame in enumerate(array) if not np.isfinite(frame).all()]
    if bad:
        raise InputError(
            what, f"hold NaN or infinite pixels in {_listed(bad)}", "mend the node that made them"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def rgb_image(image: np.ndarray | Tensor, what: str = "the picture") -> np.ndarray:
    """One picture [H W 3] as uint8; the rest as `rgb_frames`."""
    if image.ndim != 3:
        raise InputError(
            what, f"has the shape {list(image.shape)}", "give one colour picture [height, width, 3]"
        )
    return rgb_frames(image[None], what)[0]


def _check_sides(height: int, width: int, what: str) -> None:
    short, long = sorted((height, width))
    if short < SMALLEST_SIDE or long > LARGEST_RATIO * short:
        raise InputError(
            what,
            f"are {width}x{height} pixels",
            f"give at least {SMALLEST_SIDE} pixels a side, and at most {LARGEST_RATIO} times as long as wide",
        )


def _listed(indices: list[int], limit: int = 8) -> str:
    names = ", ".join(str(index) for index in indices[:limit])
    word = "frame" if len(indices) == 1 else "frames"
    return f"{word} {names}" + (f" and {len(indices) - limit} more" if len(indices) > limit else "")
